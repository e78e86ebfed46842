use super::*;
use crate::record;

crate::keyword! {
    /// Which way.
    enum Way {
        /// Up.
        Up = "up",
        /// Down.
        Down = "down",
    }
}

record! {
    /// A part.
    struct Part {
        /// Its size.
        size: u64,
        /// Its name.
        name: Option<String>,
    }
}

record! {
    /// A whole.
    ///
    /// With a second paragraph.
    struct Whole {
        /// Which way.
        way: Way = Way::Up,
        /// Names of headers.
        key_names: Vec<HeaderName> = vec![],
        /// Parts.
        parts: Vec<Part> = vec![],
        /// On or off.
        on: bool = true,
        /// How long.
        period: Option<Seconds>,
        /// By name.
        by_name: Table<u64> = Table(vec![]),
    }
}

impl Configuration for Whole {
    type Raw = Whole;

    fn validate(raw: Whole, reader: &mut Reader<'_>) -> Option<Whole> {
        if raw.parts.len() > 1 && !raw.on {
            reader.member("on", |reader| {
                reader.error("must be true with several parts")
            });
            return None;
        }
        Some(raw)
    }
}

fn environment(name: &str) -> Option<String> {
    (name == "SECRET").then(|| "s3cret".to_owned())
}

fn read(text: &str) -> Whole {
    check::<Whole>(text.as_bytes(), &environment)
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .config
}

fn problems(text: &str) -> Vec<String> {
    let problems = check::<Whole>(text.as_bytes(), &environment)
        .map(|checked| checked.config)
        .unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_stand_for_what_is_not_given() {
    for text in ["", "  ", "{}", "[]", r#"{"way":null,"parts":null}"#] {
        let whole = read(text);
        assert_eq!(
            (whole.way, whole.key_names.len(), whole.on, whole.period),
            (Way::Up, 0, true, None),
            "{text}"
        );
    }
}

/// A list that must not be null.
#[derive(Clone, Debug)]
struct Strict(Vec<u64>);

impl Field for Strict {
    const NULL_IS_ABSENT: bool = false;

    fn read(value: Value<'_>, reader: &mut Reader<'_>) -> Option<Strict> {
        Vec::read(value, reader).map(Strict)
    }

    fn schema() -> crate::schema::Json {
        Vec::<u64>::schema()
    }

    fn to_json(&self) -> crate::schema::Json {
        self.0.to_json()
    }
}

record! {
    /// A record with one.
    struct Stricter {
        /// The list.
        list: Strict = Strict(vec![]),
    }
}

impl Configuration for Stricter {
    type Raw = Stricter;

    fn validate(raw: Stricter, _: &mut Reader<'_>) -> Option<Stricter> {
        Some(raw)
    }
}

#[test]
fn a_field_may_refuse_null() {
    let list = |text: &[u8]| {
        check::<Stricter>(text, &environment).map(|checked| checked.config.list.0.len())
    };
    assert_eq!(list(b"{}"), Ok(0));
    assert_eq!(list(br#"{"list":[1]}"#), Ok(1));
    assert_eq!(list(br#"{"list":null}"#).unwrap_err()[0].path, "list");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_path() {
    let text = r#"{"way":"left","key_names":["ok","b d"],"parts":[{"size":1},{"size":-1,"nam":2},{"name":7}],"on":"true","period":0,
        "by_name":{"a":1,"a":2,"b":"x"},"key_nams":[],"colour":1,"on":true}"#;
    assert_eq!(
        problems(text),
        [
            "key_nams: unknown field: did you mean key_names?",
            "colour: unknown field: one of way, key_names, parts, on, period, by_name",
            "on: given twice: keep one",
            "way: expected one of: up, down",
            "key_names[1]: bad header name 'b d', allowed characters are A-Z, a-z, 0-9, '_', and '-'",
            "parts[1].nam: unknown field: did you mean name?",
            "parts[1].size: expected an integer that is not negative",
            "parts[2].size: required field missing",
            "parts[2].name: expected a string, in quotes",
            "on: expected a boolean: write true or false, without quotes",
            "period: value must be greater than 0: a number of seconds",
            "by_name.a: given twice: keep one",
            "by_name.b: expected a number, without quotes",
        ]
    );
}

#[test]
fn what_spans_fields_is_checked_when_each_field_is_right() {
    assert_eq!(
        problems(r#"{"parts":[{"size":1},{"size":2}],"on":false}"#),
        ["on: must be true with several parts"]
    );
}

#[test]
fn what_is_no_json_says_where() {
    assert_eq!(
        problems("{\"way\":"),
        ["not JSON: a value expected at byte 7"]
    );
}

#[test]
fn an_empty_list_may_come_as_an_empty_object_and_back() {
    assert!(
        read(r#"{"parts":{},"key_names":{},"by_name":[]}"#)
            .parts
            .is_empty()
    );
}

#[test]
fn the_environment_fills_strings() {
    let name = |text: &str| {
        read(&format!(r#"{{"parts":[{{"size":1,"name":"{text}"}}]}}"#)).parts[0]
            .name
            .clone()
            .unwrap()
    };
    assert_eq!(name("Bearer ${env:SECRET}!"), "Bearer s3cret!");
    assert_eq!(name("$${env:SECRET}"), "${env:SECRET}");
    assert_eq!(name("$5 ${x}"), "$5 ${x}");
    let problem = &problems(r#"{"parts":[{"size":1,"name":"${env:NONE}"}]}"#)[0];
    assert!(
        problem.starts_with("parts[0].name: environment variable NONE is not set"),
        "{problem}"
    );
    assert_eq!(
        problems(r#"{"parts":[{"size":1,"name":"${env:NONE"}]}"#).len(),
        1
    );
}

#[test]
fn a_flood_of_mistakes_is_counted() {
    let text = format!("{{\"parts\":[{}]}}", vec!["1"; 250].join(","));
    let problems = problems(&text);
    assert_eq!(
        (problems.len(), problems.last().map(String::as_str)),
        (MOST_PROBLEMS + 1, Some("and 150 more problems"))
    );
}

#[test]
fn the_schema_carries_documentation_and_defaults() {
    let schema = Whole::schema();
    assert_eq!(schema["description"], "A whole.\nWith a second paragraph.");
    assert_eq!(
        schema["properties"]["way"],
        serde_json::json!({"type":"string","enum":["up","down"],"description":"Which way.","default":"up"})
    );
    assert_eq!(
        schema["properties"]["parts"]["items"]["required"],
        serde_json::json!(["size"])
    );
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema.get("required").is_none());
}
