//! The golden-case format: what a gateway plugin is set to, what is sent, and what has to come of it.
//!
//! A file is a JSON array of cases. Unknown keys are refused, so that a misspelt expectation can't pass unseen.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One case: a configuration and either requests with their expected results, or the verdict on the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// `<plugin>/<slug>`, unique over all files of a run.
    pub(crate) id: String,
    /// The plugin under test.
    pub(crate) plugin: String,
    /// What the case shows, in a sentence.
    pub(crate) title: String,
    /// Where in Kong's source the expectation comes from.
    pub(crate) source: String,
    /// Whether one of Kong's own tests asserts the expectation, or only its code implies it.
    pub(crate) basis: Basis,
    /// What a host must be able to do, and how far the behaviour should be followed.
    pub(crate) tags: Vec<String>,
    /// The plugin's configuration. Fields left out have Kong's defaults.
    pub(crate) config: Map<String, Value>,
    /// Further plugins on the same route.
    #[serde(default)]
    pub(crate) plugins: Vec<Companion>,
    /// Who may be behind a credential.
    #[serde(default)]
    pub(crate) consumers: Vec<Consumer>,
    /// The keys of the consumers.
    #[serde(default)]
    pub(crate) credentials: Vec<Credential>,
    /// The route that the requests match.
    #[serde(default)]
    pub(crate) route: Option<Route>,
    /// The service behind the route.
    #[serde(default)]
    pub(crate) service: Option<Service>,
    /// The wall clock at the first step. Absent: any time does.
    #[serde(default)]
    pub(crate) clock: Option<StartTime>,
    /// What the upstream answers in steps that say nothing else.
    #[serde(default)]
    pub(crate) upstream: Upstream,
    /// Advice to whoever implements the behaviour.
    #[serde(default)]
    pub(crate) notes: Option<String>,
    /// Requests, in order, that share one instance of the plugin and its state.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// The verdict on the configuration. Exclusive with `steps`.
    #[serde(default)]
    pub(crate) expect_config: Option<ExpectConfig>,
}

/// What an expectation rests on.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Basis {
    /// Asserted by Kong's own tests.
    Spec,
    /// Read from Kong's code, and seen when it ran.
    Source,
}

/// A further plugin on the route of the one under test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Companion {
    /// The plugin's name.
    pub(crate) name: String,
    /// Its configuration.
    pub(crate) config: Map<String, Value>,
}

/// A consumer of the gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consumer {
    /// A UUID.
    pub(crate) id: String,
    /// The unique name, if it has one.
    #[serde(default)]
    pub(crate) username: Option<String>,
    /// The id that another system knows it by.
    #[serde(default)]
    pub(crate) custom_id: Option<String>,
}

/// A key that a consumer may present.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    /// A UUID. This, and never the key, is told to the upstream.
    pub(crate) id: String,
    /// The secret.
    pub(crate) key: String,
    /// Whose key it is.
    pub(crate) consumer_id: String,
    /// Seconds left to live at the first step; 0 has expired. Absent: for ever.
    #[serde(default)]
    pub(crate) ttl: Option<u32>,
}

/// A route's identity and path pattern.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// A UUID.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// A pattern anchored at the start of the path, whose groups are the captures of the route.
    #[serde(default)]
    pub(crate) regex: Option<String>,
}

/// A service's identity.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// A UUID.
    #[serde(default)]
    pub(crate) id: Option<String>,
}

/// The wall clock at the first step.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartTime {
    /// Seconds since 1970 in UTC.
    pub(crate) start_unix: u64,
}

/// What the upstream answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Upstream {
    /// Any 200 answer that lets the run see what arrived.
    Echo {
        /// Always true.
        echo: bool,
    },
    /// This answer.
    Scripted {
        /// The status code.
        #[serde(default = "ok")]
        status: u16,
        /// The headers. The framing is added.
        #[serde(default)]
        headers: Lines,
        /// The body.
        #[serde(default)]
        body: Option<String>,
        /// Send the body in several chunks, without a Content-Length.
        #[serde(default)]
        chunked: bool,
        /// A long body, in place of `body`.
        #[serde(default)]
        body_repeat: Option<BodyRepeat>,
    },
}

fn ok() -> u16 {
    200
}

impl Upstream {
    /// The scripted body, written out.
    pub(crate) fn body(&self) -> String {
        match self {
            Self::Echo { .. } => String::new(),
            Self::Scripted {
                body_repeat: Some(repeat),
                ..
            } => repeat.expand(),
            Self::Scripted { body, .. } => body.clone().unwrap_or_default(),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::Echo { echo: true }
    }
}

/// A long body, described: `prefix`, then `unit` `count` times, then `suffix`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyRepeat {
    /// The start.
    #[serde(default)]
    pub(crate) prefix: String,
    /// The repeated part.
    pub(crate) unit: String,
    /// How often.
    pub(crate) count: usize,
    /// The end.
    #[serde(default)]
    pub(crate) suffix: String,
}

impl Case {
    /// Lets its steps run at any time of a clock that can't be set: seconds until a window ends may be any that such a window
    /// has.
    pub(crate) fn take_any_time(&mut self) {
        if self.clock.is_none() {
            return;
        }
        let headers = self
            .steps
            .iter_mut()
            .flat_map(|step| &mut step.expect.headers);
        for (name, matcher) in headers {
            let Matcher::Value(seconds) = matcher else {
                continue;
            };
            let counts_down = ["ratelimit-reset", "retry-after"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known));
            if let (true, Ok(seconds)) = (counts_down, seconds.parse::<i64>()) {
                let windows = [1, 60, 3600, 86_400, 2_592_000, 31_536_000];
                let longest = windows.into_iter().find(|window| *window >= seconds);
                *matcher = Matcher::Rule(Rule::IntRange(1, longest.unwrap_or(seconds)));
            }
        }
    }

    /// The time that its steps wait, in milliseconds.
    pub(crate) fn waits_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.sleep_ms).sum()
    }

    /// Whether its requests belong to several routes or services.
    pub(crate) fn changes_route_or_service(&self) -> bool {
        let named = |route: &Option<Route>| route.as_ref().is_some_and(|route| route.id.is_some());
        let stepwise = |step: &Step| named(&step.route) || step.service.is_some();
        self.steps.iter().any(stepwise)
    }
}

impl BodyRepeat {
    /// The whole body.
    pub(crate) fn expand(&self) -> String {
        format!(
            "{}{}{}",
            self.prefix,
            self.unit.repeat(self.count),
            self.suffix
        )
    }
}

/// Header lines as a case spells them: a name with one value, or with a list of values, one line each.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Lines(Map<String, Value>);

impl Lines {
    /// The lines in the order of the case. Values that are no strings can't occur: [`read`] has refused them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, value)| {
            let one = value.as_str().into_iter();
            let many = value.as_array().into_iter().flatten();
            one.chain(many.filter_map(Value::as_str))
                .map(move |value| (name.as_str(), value))
        })
    }

    /// Whether a line of this name is there; case doesn't matter.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.eq_ignore_ascii_case(name))
    }

    fn well_formed(&self) -> bool {
        self.0.values().all(|value| match value {
            Value::String(_) => true,
            Value::Array(lines) => lines.iter().all(Value::is_string),
            _ => false,
        })
    }
}

/// One request and what has to come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// What is sent.
    pub(crate) request: Request,
    /// Time that passes before the request, in milliseconds.
    #[serde(default)]
    pub(crate) sleep_ms: u64,
    /// What the upstream answers in this step.
    #[serde(default)]
    pub(crate) upstream: Option<Upstream>,
    /// The route's identity from this step on.
    #[serde(default)]
    pub(crate) route: Option<Route>,
    /// The service's identity from this step on.
    #[serde(default)]
    pub(crate) service: Option<Service>,
    /// What has to come of it.
    pub(crate) expect: Expect,
}

/// A request as the client sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The raw target, with the query.
    pub(crate) path: String,
    /// The headers, without Host (it is `gateway.test` unless given) and framing.
    #[serde(default)]
    pub(crate) headers: Lines,
    /// The body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// The address that the gateway is to take as the client's.
    #[serde(default)]
    pub(crate) client_ip: Option<String>,
    /// `1.0`, where that matters.
    #[serde(default)]
    pub(crate) http_version: Option<String>,
}

/// What has to come of a request. What isn't mentioned isn't asserted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// The response's status.
    pub(crate) status: u16,
    /// Matchers of response headers.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Matcher>,
    /// The whole body.
    #[serde(default)]
    pub(crate) body_equals: Option<String>,
    /// A pattern that is found in the body.
    #[serde(default)]
    pub(crate) body_regex: Option<String>,
    /// The body as JSON.
    #[serde(default, deserialize_with = "present")]
    pub(crate) body_json: Option<Value>,
    /// JSON that the body contains.
    #[serde(default, deserialize_with = "present")]
    pub(crate) body_json_subset: Option<Value>,
    /// Top-level members that the body lacks.
    #[serde(default)]
    pub(crate) body_json_absent: Vec<String>,
    /// The earlier step whose body this one repeats.
    #[serde(default)]
    pub(crate) body_same_as_step: Option<usize>,
    /// Whether the upstream got the request.
    #[serde(default)]
    pub(crate) upstream_called: Option<bool>,
    /// What the upstream got. Its presence says that the upstream was called.
    #[serde(default)]
    pub(crate) upstream_saw: Option<Saw>,
}

/// What the upstream received.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saw {
    /// The method.
    #[serde(default)]
    pub(crate) method: Option<String>,
    /// The raw path, without the query.
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// The text after `?`; empty if there is none.
    #[serde(default)]
    pub(crate) raw_query: Option<String>,
    /// Decoded arguments that are there, among others.
    #[serde(default)]
    pub(crate) query: Map<String, Value>,
    /// Arguments that aren't there.
    #[serde(default)]
    pub(crate) query_absent: Vec<String>,
    /// Matchers of request headers.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Matcher>,
    /// Headers that aren't there.
    #[serde(default)]
    pub(crate) absent: Vec<String>,
    /// The whole body.
    #[serde(default)]
    pub(crate) body_equals: Option<String>,
    /// The body as JSON.
    #[serde(default, deserialize_with = "present")]
    pub(crate) body_json: Option<Value>,
    /// JSON that the body contains.
    #[serde(default, deserialize_with = "present")]
    pub(crate) body_json_subset: Option<Value>,
    /// The whole form that the body is, decoded.
    #[serde(default)]
    pub(crate) body_form: Option<Map<String, Value>>,
    /// The whole multipart form that the body is: field to value.
    #[serde(default)]
    pub(crate) body_multipart: Option<Map<String, Value>>,
}

/// What a header has to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Matcher {
    /// Exactly one line with this value, or several lines that make it when joined by `, `.
    Value(String),
    /// Exactly these lines, in this order.
    Lines(Vec<String>),
    /// A rule.
    Rule(Rule),
}

/// The rules a header can be matched by.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    /// Not there. Always true.
    Absent(bool),
    /// There, and the pattern is found in its value.
    Regex(String),
    /// There, with one of these values.
    OneOf(Vec<String>),
    /// There, as a whole number from the first to the second, both included.
    IntRange(i64, i64),
    /// Not there, or with another value.
    NotEquals(String),
    /// As the same header of an earlier step, counted from 0.
    SameAsStep(usize),
    /// Not as the same header of an earlier step, counted from 0.
    DiffersFromStep(usize),
}

/// The verdict on a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectConfig {
    /// Whether it is accepted.
    pub(crate) valid: bool,
    /// A part of Kong's tree of errors: field to message, arrays for the elements of lists, `@entity` for the whole.
    #[serde(default)]
    pub(crate) errors: Option<Value>,
    /// A part of the completed configuration.
    #[serde(default)]
    pub(crate) defaults: Option<Map<String, Value>>,
}

/// `null` is an expectation too, and not the lack of one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Why cases could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaseError {
    /// Occurs when a file or directory can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Occurs when a file isn't an array of cases.
    #[error("{}: not a golden-case file: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        source: serde_json::Error,
    },
    /// Occurs when a case contradicts the rules of the format.
    #[error("{}: case {id}: {rule}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// The case.
        id: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Occurs when two cases of a run have one name.
    #[error("{}: case {id} occurs twice", path.display())]
    Duplicate {
        /// The file with the second one.
        path: PathBuf,
        /// The name.
        id: String,
    },
    /// Occurs when the paths hold no file of cases.
    #[error("no golden cases in {}: name a .json file or a directory of them", path.display())]
    None {
        /// The path without cases.
        path: PathBuf,
    },
}

/// Reads the cases of files and of the `.json` files of directories (schemas, `*.schema.json`, aside), in the order of
/// the paths and, inside a directory, of the file names.
///
/// # Errors
/// Fails as a whole on the first file that can't be read or breaks the format.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Case>, CaseError> {
    let mut cases: Vec<Case> = Vec::new();
    let mut ids = HashSet::new();
    for path in paths {
        let files = files(path)?;
        if files.is_empty() {
            return Err(CaseError::None { path: path.clone() });
        }
        for file in files {
            for case in read_file(&file)? {
                if !ids.insert(case.id.clone()) {
                    return Err(CaseError::Duplicate {
                        path: file,
                        id: case.id,
                    });
                }
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, CaseError> {
    let failed = |source| CaseError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let name = file.to_string_lossy();
        if name.ends_with(".json") && !name.ends_with(".schema.json") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Case>, CaseError> {
    let text = fs::read_to_string(path).map_err(|source| CaseError::Read {
        path: path.to_owned(),
        source,
    })?;
    let cases: Vec<Case> = serde_json::from_str(&text).map_err(|source| CaseError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    for case in &cases {
        if let Some(rule) = broken_rule(case) {
            return Err(CaseError::Rule {
                path: path.to_owned(),
                id: case.id.clone(),
                rule,
            });
        }
    }
    Ok(cases)
}

const LATER_STEP: &str = "a step can be compared with earlier ones only";

/// The rules that types alone don't hold.
fn broken_rule(case: &Case) -> Option<&'static str> {
    if case.steps.is_empty() == case.expect_config.is_none() {
        return Some("exactly one of `steps` and `expect_config` is wanted");
    }
    if !case.id.starts_with(&format!("{}/", case.plugin)) {
        return Some("`id` has to start with the plugin's name and a slash");
    }
    if !upstream_is_well_formed(&case.upstream) {
        return Some("`upstream` headers are strings or lists of strings");
    }
    for (index, step) in case.steps.iter().enumerate() {
        if !step.request.path.starts_with('/') {
            return Some("`path` has to start with a slash");
        }
        if !step.request.headers.well_formed() {
            return Some("request headers are strings or lists of strings");
        }
        if step
            .upstream
            .as_ref()
            .is_some_and(|upstream| !upstream_is_well_formed(upstream))
        {
            return Some("`upstream` headers are strings or lists of strings");
        }
        let saw = step.expect.upstream_saw.as_ref();
        if saw.is_some() && step.expect.upstream_called == Some(false) {
            return Some("`upstream_saw` contradicts `upstream_called: false`");
        }
        let matchers = step.expect.headers.values();
        for matcher in matchers.chain(saw.into_iter().flat_map(|saw| saw.headers.values())) {
            match matcher {
                Matcher::Rule(Rule::Absent(false)) => {
                    return Some("`absent` is always true; leave the header out");
                }
                Matcher::Rule(Rule::SameAsStep(earlier) | Rule::DiffersFromStep(earlier))
                    if *earlier >= index =>
                {
                    return Some(LATER_STEP);
                }
                _ => {}
            }
        }
        if step
            .expect
            .body_same_as_step
            .is_some_and(|earlier| earlier >= index)
        {
            return Some(LATER_STEP);
        }
    }
    None
}

fn upstream_is_well_formed(upstream: &Upstream) -> bool {
    match upstream {
        Upstream::Echo { echo } => *echo,
        Upstream::Scripted { headers, .. } => headers.well_formed(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_text(text: &str) -> Result<Vec<Case>, CaseError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.json"), text).unwrap();
        fs::write(directory.path().join("a.schema.json"), "no cases").unwrap();
        read(&[directory.path().to_owned()])
    }

    fn with(change: impl FnOnce(&mut Value)) -> String {
        let mut case = json!({
            "id": "p/x", "plugin": "p", "title": "t", "source": "s", "basis": "spec", "tags": [], "config": {},
            "steps": [{"request": {"method": "GET", "path": "/"}, "expect": {"status": 200}}],
        });
        change(&mut case);
        json!([case]).to_string()
    }

    #[test]
    fn a_case_is_read_from_a_directory_without_its_schema() {
        let cases = read_text(&with(|_| {})).unwrap();
        assert_eq!(cases.len(), 1);
        assert!(matches!(cases[0].upstream, Upstream::Echo { echo: true }));
    }

    #[test]
    fn null_is_an_expectation() {
        let cases = read_text(&with(|case| {
            case["steps"][0]["expect"]["body_json"] = Value::Null
        }));
        assert_eq!(
            cases.unwrap()[0].steps[0].expect.body_json,
            Some(Value::Null)
        );
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let unknown_key = with(|case| case["steps"][0]["expect"]["statuz"] = json!(1));
        let unknown_matcher =
            with(|case| case["steps"][0]["expect"]["headers"] = json!({"a": {"like": "b"}}));
        let unknown_upstream = with(|case| case["upstream"] = json!({"echoes": true}));
        for text in [unknown_key, unknown_matcher, unknown_upstream] {
            assert!(
                matches!(read_text(&text), Err(CaseError::Malformed { .. })),
                "{text}"
            );
        }
        let nothing = with(|case| case["steps"] = json!([]));
        let other_id = with(|case| case["id"] = json!("q/x"));
        let relative = with(|case| case["steps"][0]["request"]["path"] = json!("x"));
        let later = with(|case| case["steps"][0]["expect"]["body_same_as_step"] = json!(0));
        let present =
            with(|case| case["steps"][0]["expect"]["headers"] = json!({"a": {"absent": false}}));
        for text in [nothing, other_id, relative, later, present] {
            assert!(
                matches!(read_text(&text), Err(CaseError::Rule { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn ids_are_unique_and_a_directory_without_cases_is_an_error() {
        let mut cases: Vec<Value> = serde_json::from_str(&with(|_| {})).unwrap();
        cases.push(cases[0].clone());
        let twice = read_text(&Value::Array(cases).to_string());
        assert!(matches!(twice, Err(CaseError::Duplicate { .. })));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(&[empty.path().to_owned()]),
            Err(CaseError::None { .. })
        ));
    }
}
