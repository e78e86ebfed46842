use super::*;
use proptest::prelude::*;

/// Headers `a: 1`, `many: x`, `many: y`; an argument `q=20`, a flag `f`; captures `user` = `foo`.
struct Fixed;

impl Sources for Fixed {
    fn look_up(&self, source: Source, name: &[u8]) -> Vec<Value> {
        let text = |text: &str| Value::Text(text.into());
        match (source, name) {
            (Source::Headers, b"a") => vec![text("1")],
            (Source::Headers, b"many") => vec![text("x"), text("y")],
            (Source::Headers, b"authorization") => vec![text("Bearer abc.def")],
            (Source::Query, b"q") => vec![text("20")],
            (Source::Query, b"f") => vec![Value::Bool(true)],
            (Source::Captures, b"user") => vec![text("foo")],
            _ => Vec::new(),
        }
    }

    fn at(&self, source: Source, index: usize) -> Option<Value> {
        (source == Source::Captures && index < 2)
            .then(|| Value::Text([&b"/whole"[..], b"foo"][index].to_vec()))
    }

    fn shows_tables(&self) -> bool {
        false
    }
}

fn rendered(text: &str) -> Result<String, String> {
    let template =
        Template::parse(text, Dialect::Tollgate, &mut |_| ()).map_err(|error| error.to_string())?;
    let text = template
        .render(&Fixed)
        .map_err(|error| format!("{error:?}"))?;
    Ok(String::from_utf8(text).unwrap())
}

#[test]
fn expressions_come_to_what_lua_makes_of_them() {
    for (template, text) in [
        ("plain", "plain"),
        ("$(abc", "$(abc"),
        ("a-$(headers.a)-b-$(query_params.q)-c", "a-1-b-20-c"),
        ("$('$(uri_captures.user1)')", "$(uri_captures.user1)"),
        ("$(uri_captures.nobody or 'default')", "default"),
        (
            "$(uri_captures['user'])$(uri_captures[0])$(uri_captures[1])",
            "foo/wholefoo",
        ),
        ("[$(1 == 2)][$(1 == 1)][$(nil)]", "[][true][]"),
        ("$(query_params.f)", "true"),
        ("$(headers.none)", ""),
        (
            "$(type(headers.many) == 'table' and headers.many[1] or headers.many)",
            "x",
        ),
        (
            "$(type(headers.a) == \"table\" and headers.a[1] or headers.a)",
            "1",
        ),
        ("$(headers.many)", "x, y"),
        ("$(#headers.many)", "2"),
        ("$(1 + 2 * 3 ^ 2 / 9 - 1 % 4)", "2"),
        ("$(-2 ^ 2)", "-4"),
        ("$(2 ^ 3 ^ 2)", "512"),
        ("$(7 / 2)", "3.5"),
        ("$(-7 % 3)", "2"),
        ("$('10' * query_params.q)", "200"),
        ("$('a' .. 1 .. 'b')", "a1b"),
        ("$(not nil)", "true"),
        ("$('a' < 'b' and 2 >= 2)", "true"),
        ("$(1 == '1')", ""),
        ("$(headers.a:upper() .. ('x'):rep(3):upper())", "1XXX"),
        ("$(headers.authorization:sub(8))", "abc.def"),
        ("$(headers.authorization:sub(-3, -2))", "de"),
        ("$(headers.authorization:gsub('Bearer ', ''))", "abc.def"),
        (
            "$(headers.authorization:gsub('(%w+)%.(%w+)', '%2-%1'))",
            "Bearer def-abc",
        ),
        ("$(headers.authorization:match('^%a+%s+(%S+)$'))", "abc.def"),
        ("$(headers.authorization:find('abc', 1, true))", "8"),
        ("$(headers.authorization:find('zzz') or 'none')", "none"),
        (
            "$(string.lower('ABC'))$(tostring(1 == 1))$(tonumber('0x10') + 1)",
            "abctrue17",
        ),
        ("$(('a,b,c'):gsub(',', ';', 1))", "a;b,c"),
        ("$(('aXbX'):match('.-X'))", "aX"),
        ("$(('x'):gsub('', '-'))", "-x-"),
        ("$(headers.authorization:match('^abc') or 'none')", "none"),
        ("$(('aaa'):gsub('^a', 'b'))", "baa"),
        ("$(\"it's\")", "it's"),
        ("$('\\'\\\\\\n')", "'\\\n"),
        (
            "$(('k=v'):match('([^=]+)='))$(('x1'):match('[%d]'))$(('-'):match('[a-]'))",
            "k1-",
        ),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn what_can_not_work_is_refused_or_fails() {
    for (template, error) in [
        ("$(bad syntax)", "unexpected 'syntax'"),
        ("$()", "the expression ends too early"),
        ("$(1 +)", "the expression ends too early"),
        ("$('open)", "a string without its closing quote"),
        ("$(shared.written = true)", "unexpected '='"),
        ("$(a; b)", "unexpected ';'"),
        ("$(@)", "unexpected '@'"),
        ("$(0x)", "unexpected '0x'"),
        ("$(headers.end)", "unexpected 'end'"),
        ("$(10 * uri_captures.user)", "WrongOperand"),
        ("$(headers.none.more)", "NotIndexable"),
        ("$(headers.a())", "NotCallable"),
        ("$(headers.none:upper())", "NotIndexable"),
        ("$(headers.many:upper())", "NotCallable"),
        ("$(1 < 'a')", "WrongOperand"),
        ("$('a' .. headers.none)", "WrongOperand"),
        ("$(('x'):rep(1e9))", "TooLong"),
        ("$(('x'):match(')x('))", "BadPattern"),
        ("$(('x'):match('%'))", "BadPattern"),
        ("$(('x'):match('[x'))", "BadPattern"),
        ("$(('a'):rep(5000):match('a*a*a*a*b'))", "TooCostly"),
    ] {
        assert_eq!(rendered(template).unwrap_err(), error, "{template}");
    }
    for unknown in [
        "$(ERROR())",
        "$(require('x')('y'))",
        "$(foo.bar)",
        "$(('x'):dump())",
    ] {
        assert!(
            rendered(unknown)
                .unwrap_err()
                .starts_with("nothing is called"),
            "{unknown}"
        );
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |depth: usize| format!("$({}1{})", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(rendered(&nested(20)).as_deref(), Ok("1"));
    assert!(rendered(&nested(1000)).is_err());
    let long = format!("$({}1)", "1 + ".repeat(500));
    assert!(rendered(&long).is_err());
    assert!(rendered(&format!("$(headers{})", ".a".repeat(200))).is_err());
    assert!(rendered(&format!("$({}1)", "- ".repeat(200))).is_err());
}

#[test]
fn kongs_sandbox_knows_fewer_names_and_finds_out_late() {
    let doubts = std::cell::Cell::new(0);
    let parse = |text: &str| {
        Template::parse(text, Dialect::Kong, &mut |_| doubts.set(doubts.get() + 1)).unwrap()
    };
    assert_eq!(parse("[$(nobody)]").render(&Fixed), Ok(b"[]".to_vec()));
    assert_eq!(
        parse("$(string.upper('a'))").render(&Fixed),
        Err(EvalError::NotIndexable)
    );
    assert_eq!(
        parse("$(ERROR())").render(&Fixed),
        Err(EvalError::NotCallable)
    );
    assert_eq!(doubts.get(), 3);
    // Strings have their methods all the same.
    assert_eq!(parse("$(('a'):upper())").render(&Fixed), Ok(b"A".to_vec()));
}

#[test]
fn a_template_says_what_it_reads_and_how_it_begins() {
    let parse = |text: &str| Template::parse(text, Dialect::Tollgate, &mut |_| ()).unwrap();
    let template = parse("/a/$(type(headers['x'] or uri_captures[1]))");
    assert!(template.reads(Source::Headers) && template.reads(Source::Captures));
    assert!(!template.reads(Source::Query));
    assert_eq!(
        (template.first_byte(), parse("$(1)").first_byte()),
        (Some(b'/'), None)
    );
    assert!(parse("").is_empty() && !parse("$(nil)").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Fuzzing, as far as it goes without a nightly toolchain: any text parses or does not, and what parses ends.
    #[test]
    fn any_template_ends(text in r#"(\$\(|\)|[a-z'"\[\].:(),#^%*+\- 0-9=~<>]|headers|:gsub\('| or |query_params|string\.rep){0,24}"#) {
        for dialect in [Dialect::Tollgate, Dialect::Kong] {
            if let Ok(template) = Template::parse(&text, dialect, &mut |_| ())
                && let Ok(rendered) = template.render(&Fixed)
            {
                prop_assert!(rendered.len() <= LONGEST_TEXT + text.len());
            }
        }
    }

    #[test]
    fn any_pattern_ends(text in proptest::collection::vec(any::<u8>(), 0..64), pattern in r"[a-c%\[\]()^$*+?.\-0-9]{0,12}") {
        let mut left = 10_000;
        let _ = pattern::search(&text, pattern.as_bytes(), 0, &mut left);
    }
}
