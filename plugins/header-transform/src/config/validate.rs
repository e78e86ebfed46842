//! From what is written to what requests are transformed by.

use super::raw::*;
use super::{
    Config, JsonChange, JsonRule, JsonRules, JsonValue, Method, RequestRules, ResponseRules, Rule,
    RuleSet,
};
use crate::condition::Condition;
use crate::json_path::{JsonPath, Number};
use crate::template::{Dialect, Part, Source, Template, parse_number, spell_number};
use regex_lite::{Regex, RegexBuilder};
use tollgate_kit::config::{Configuration, HeaderName, Reader, Table};
use tollgate_kit::host::HostKind;
use tollgate_kit::json::{self, Kind, Value};

/// What belongs to one connection (RFC 9110 section 7.6.1) or says where a message ends: the host's business, and the way in which
/// requests are smuggled.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// The methods that Kong's plugin can set.
const KONG_METHODS: [&str; 15] = [
    "GET",
    "HEAD",
    "PUT",
    "POST",
    "DELETE",
    "OPTIONS",
    "MKCOL",
    "COPY",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "TRACE",
];

/// What token-rate-limit reserves tokens by.
const MAX_TOKENS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// A regular expression longer than this, in bytes, is refused.
const LONGEST_PATTERN: usize = 1000;

impl Configuration for Config {
    type Raw = RawConfig;

    fn validate(raw: RawConfig, reader: &mut Reader<'_>) -> Option<Config> {
        let terms = Terms {
            kong: raw.compat.is_some(),
            owns_max_tokens: raw.owns_max_tokens,
        };
        let first = RawSet {
            when: raw.when,
            request: raw.request,
            response: raw.response,
            request_json: raw.request_json,
            response_json: raw.response_json,
            uri_pattern: raw.uri_pattern,
        };
        let mut sets = vec![terms.set(first, reader)];
        check_host(&sets, raw.host, reader);
        reader.member("sets", |reader| {
            for (index, set) in raw.sets.into_iter().enumerate() {
                reader.element(index, |reader| {
                    let set = terms.set(set, reader);
                    check_host(std::slice::from_ref(&set), raw.host, reader);
                    sets.push(set);
                });
            }
        });
        if raw.sse && !sets.iter().any(RuleSet::edits_response_bodies) {
            reader.member("sse", |reader| {
                reader.warn("there are no JSON rules for responses: it does nothing")
            });
        }
        let holds = |set: &RuleSet| set.edits_request_bodies() || !set.when.models.is_empty();
        if raw.host.is_none() && sets.iter().any(holds) {
            reader.member("host", |reader| {
                reader.warn("not set: with rules for request bodies, Envoy needs allow_on_headers_stop_iteration, or requests hang; write envoy or kong");
            });
        }
        reader.is_clean().then(|| Config {
            sets,
            sse: raw.sse,
            max_body: usize::try_from(raw.max_body_bytes).unwrap_or(usize::MAX),
            large_body: raw.large_body,
            error_format: raw.error_format,
            host: raw.host,
            kong: terms.kong,
        })
    }
}

/// What a host can't do is refused.
fn check_host(sets: &[RuleSet], host: Option<HostKind>, reader: &mut Reader<'_>) {
    if host != Some(HostKind::EnvoyHeadersPass) {
        return;
    }
    const REASON: &str = "can't work with host: envoy-headers-pass: the headers have gone when the body is read, so that its length can't be \
        changed; set allow_on_headers_stop_iteration and host: envoy";
    for set in sets {
        if !set.request.body.is_empty() {
            reader.member("request", |reader| {
                reader.error(format_args!("rules for the body: {REASON}"))
            });
        }
        if !set.request_json.0.is_empty() {
            reader.member("request_json", |reader| reader.error(REASON));
        }
        if !set.when.models.is_empty() {
            reader.member("when.models", |reader| reader.error(REASON));
        }
        if set.request.method.as_ref().is_some_and(Method::moves_form) {
            reader.member("request.http_method", |reader| {
                reader.warn("with host: envoy-headers-pass the fields of a form are not copied into the query: the headers have gone when the body is read")
            });
        }
    }
}

/// A rule as Kong splits it: the name ends at the first colon, all colons that follow are swallowed.
struct Entry<'t> {
    name: &'t str,
    /// `None` without a colon.
    value: Option<&'t str>,
}

impl<'t> Entry<'t> {
    fn of(text: &'t str) -> Entry<'t> {
        match text.split_once(':') {
            Some((name, value)) => Entry {
                name,
                value: Some(value.trim_start_matches(':')),
            },
            None => Entry {
                name: text,
                value: None,
            },
        }
    }

    /// The name and the value, or the reported mistake.
    fn pair(text: &'t str, reader: &mut Reader<'_>) -> Option<(&'t str, &'t str)> {
        match Entry::of(text) {
            Entry {
                name,
                value: Some(value),
            } if !name.is_empty() => Some((name, value)),
            _ => {
                reader.error(format_args!("invalid value: {text}: write name:value"));
                None
            }
        }
    }
}

/// Which part of a message a header rule is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

#[derive(Clone, Copy)]
struct Terms {
    kong: bool,
    owns_max_tokens: bool,
}

impl Terms {
    fn set(self, raw: RawSet, reader: &mut Reader<'_>) -> RuleSet {
        let when = raw
            .when
            .map(|when| reader.member("when", |reader| condition(when, reader)))
            .unwrap_or_default();
        let request = raw
            .request
            .map(|request| reader.member("request", |reader| self.request(request, reader)))
            .unwrap_or_default();
        let response = raw
            .response
            .map(|response| reader.member("response", |reader| self.response(response, reader)))
            .unwrap_or_default();
        let request_json = raw
            .request_json
            .map(|json| {
                reader.member("request_json", |reader| {
                    self.json(json, Side::Request, reader)
                })
            })
            .unwrap_or_default();
        let response_json = raw
            .response_json
            .map(|json| {
                reader.member("response_json", |reader| {
                    self.json(json, Side::Response, reader)
                })
            })
            .unwrap_or_default();
        let uri_pattern = raw.uri_pattern.and_then(|pattern| {
            reader.member("uri_pattern", |reader| uri_pattern(&pattern, reader))
        });
        let set = RuleSet {
            when,
            request,
            response,
            request_json,
            response_json,
            uri_pattern,
        };
        if !set.when.statuses.is_empty() && set.edits_requests() {
            reader.member("when.statuses", |reader| {
                reader.error("the status is not known yet when requests are transformed: put the rules for requests into a set of their own");
            });
        }
        if set.reads(Source::Captures) && set.uri_pattern.is_none() && !self.kong {
            reader.member("uri_pattern", |reader| {
                reader.warn("not set: uri_captures is empty in every template; no host knows the captures of its routes");
            });
        }
        set
    }

    fn dialect(self) -> Dialect {
        if self.kong {
            Dialect::Kong
        } else {
            Dialect::Tollgate
        }
    }

    fn template(self, text: &str, reader: &mut Reader<'_>) -> Option<Template> {
        let mut doubts = Vec::new();
        let parsed = Template::parse(text, self.dialect(), &mut |doubt| doubts.push(doubt));
        for doubt in doubts {
            reader.warn(format_args!("value '{text}': {doubt}"));
        }
        parsed
            .map_err(|error| {
                reader.error(format_args!(
                    "value '{text}' is not in supported format, error: {error}"
                ));
            })
            .ok()
    }

    /// A template that Kong looks at only in a request.
    fn late_template(self, text: &str, reader: &mut Reader<'_>) -> Option<Template> {
        if self.kong
            && let Err(error) = Template::parse(text, self.dialect(), &mut |_| ())
        {
            reader.warn(format_args!(
                "value '{text}' is not in supported format, error: {error}; every request will fail, as in Kong"
            ));
            return Some(Template::Broken);
        }
        self.template(text, reader)
    }

    fn request(self, raw: RawRequest, reader: &mut Reader<'_>) -> RequestRules {
        let mut rules = RequestRules::default();
        if let Some(method) = raw.http_method {
            rules.method = reader.member("http_method", |reader| self.method(method, reader));
        }
        let remove = raw.remove.unwrap_or(RawRequestNames {
            headers: List::empty(),
            querystring: List::empty(),
            body: List::empty(),
        });
        reader.member("remove", |reader| {
            rules.headers.remove = reader.member("headers", |reader| {
                self.header_names(&remove.headers, Side::Request, reader)
            });
            rules.query.remove =
                reader.member("querystring", |reader| names(&remove.querystring, reader));
            rules.body.remove = reader.member("body", |reader| {
                let names = names(&remove.body, reader);
                names
                    .iter()
                    .for_each(|name| self.check_max_tokens(name, reader));
                names
            });
        });
        if let Some(rename) = raw.rename {
            reader.member("rename", |reader| {
                rules.headers.rename = reader.member("headers", |reader| {
                    self.header_renames(&rename.headers, Side::Request, reader)
                });
                rules.query.rename = reader.member("querystring", |reader| {
                    self.values(&rename.querystring, reader)
                });
                rules.body.rename =
                    reader.member("body", |reader| self.body_values(&rename.body, reader));
            });
        }
        if let Some(replace) = raw.replace {
            reader.member("replace", |reader| {
                rules.headers.replace = reader.member("headers", |reader| {
                    self.header_values(&replace.headers, Some(&mut rules.authority), reader)
                });
                rules.query.replace = reader.member("querystring", |reader| {
                    self.values(&replace.querystring, reader)
                });
                rules.body.replace =
                    reader.member("body", |reader| self.body_values(&replace.body, reader));
                rules.uri = replace
                    .uri
                    .and_then(|uri| reader.member("uri", |reader| self.uri(&uri, reader)));
            });
        }
        for (name, raw) in [("add", raw.add), ("append", raw.append)] {
            let Some(raw) = raw else { continue };
            let (headers, query, body) = reader.member(name, |reader| {
                (
                    reader.member("headers", |reader| {
                        self.header_values(&raw.headers, None, reader)
                    }),
                    reader.member("querystring", |reader| {
                        self.values(&raw.querystring, reader)
                    }),
                    reader.member("body", |reader| self.body_values(&raw.body, reader)),
                )
            });
            if name == "add" {
                (rules.headers.add, rules.query.add, rules.body.add) = (headers, query, body);
            } else {
                (rules.headers.append, rules.query.append, rules.body.append) =
                    (headers, query, body);
            }
        }
        rules
    }

    fn method(self, name: String, reader: &mut Reader<'_>) -> Option<Method> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_uppercase()) {
            reader.error(format_args!(
                "invalid value: {name}: write a method in capital letters"
            ));
            return None;
        }
        let unknown = !KONG_METHODS.contains(&name.as_str());
        if unknown && self.kong {
            reader.warn("Kong does not know this method: every request will fail");
        }
        if name == "CONNECT" && !self.kong {
            reader.error("CONNECT makes a tunnel of a request");
            return None;
        }
        Some(Method {
            name,
            unknown: unknown && self.kong,
        })
    }

    fn uri(self, text: &str, reader: &mut Reader<'_>) -> Option<Template> {
        let template = self.late_template(text, reader)?;
        let begins_wrong =
            template.is_empty() || template.first_byte().is_some_and(|byte| byte != b'/');
        match (begins_wrong, self.kong) {
            (true, true) => {
                reader.warn("should start with: /; every request will fail, as in Kong")
            }
            (true, false) => reader.error("should start with: /"),
            (false, _) => {}
        }
        let more = |text: &[u8]| text.iter().any(|byte| matches!(byte, b'?' | b'#'));
        if !self.kong && literals(&template).any(more) {
            reader.error("a path, without '?' and '#': the query stays, and is changed by the rules for querystring");
        }
        Some(template)
    }

    /// Whether a rule may touch this header. Reports where it may not.
    fn may_touch(self, name: &str, side: Side, reader: &mut Reader<'_>) -> bool {
        let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if side == Side::Request && known(&["host"]) {
            reader.warn("only replace can change host: the rule is skipped, as in Kong");
            return false;
        }
        if !known(&FRAMING) {
            return true;
        }
        if self.kong {
            reader.warn(format_args!(
                "{name} is the host's business: the rule is skipped"
            ));
        } else {
            reader.error(format_args!(
                "{name} is the host's business: it says where a message ends, or belongs to one connection; leave the rule out"
            ));
        }
        false
    }

    /// Whether this is a header's name. Kong checks those of responses only where they are renamed.
    fn is_header(self, name: &str, side: Side, strict: bool, reader: &mut Reader<'_>) -> bool {
        if HeaderName::new(name).is_some() {
            return true;
        }
        let sendable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if side == Side::Response && !strict && sendable {
            reader.warn(format_args!(
                "'{name}' is not a valid header: clients may refuse the response"
            ));
            return true;
        }
        reader.error(format_args!(
            "'{name}' is not a valid header: use A-Z, a-z, 0-9, '_', and '-'"
        ));
        false
    }

    fn header_names(self, list: &List<String>, side: Side, reader: &mut Reader<'_>) -> Vec<String> {
        each(list, reader, |text, reader| {
            let name = Entry::of(text).name;
            let fine =
                self.is_header(name, side, false, reader) && self.may_touch(name, side, reader);
            fine.then(|| self.spelled(name, side))
        })
    }

    /// nginx writes `-` for `_` in the headers of responses.
    fn spelled(self, name: &str, side: Side) -> String {
        if self.kong && side == Side::Response {
            name.replace('_', "-")
        } else {
            name.to_owned()
        }
    }

    fn header_renames(
        self,
        list: &List<String>,
        side: Side,
        reader: &mut Reader<'_>,
    ) -> Vec<Rule<String>> {
        each(list, reader, |text, reader| {
            let (old, new) = Entry::pair(text, reader)?;
            let valid = [old, new]
                .into_iter()
                .all(|name| self.is_header(name, side, true, reader));
            let fine = valid
                && [old, new]
                    .into_iter()
                    .all(|name| self.may_touch(name, side, reader));
            fine.then(|| Rule {
                name: self.spelled(old, side),
                value: self.spelled(new, side),
            })
        })
    }

    /// Values of request headers. That of `host` goes to `authority`, where there is a place for it.
    fn header_values(
        self,
        list: &List<String>,
        mut authority: Option<&mut Option<Template>>,
        reader: &mut Reader<'_>,
    ) -> Vec<Rule<Template>> {
        each(list, reader, |text, reader| {
            let (name, value) = Entry::pair(text, reader)?;
            if !self.is_header(name, Side::Request, false, reader) {
                return None;
            }
            let value = self.late_template(value, reader)?;
            if literals(&value).any(|text| !is_header_value(text)) {
                reader.error("control characters are not allowed in a header");
                return None;
            }
            if let (true, Some(place)) = (name.eq_ignore_ascii_case("host"), &mut authority) {
                if !value.is_empty() {
                    **place = Some(value);
                }
                return None;
            }
            if !self.may_touch(name, Side::Request, reader) {
                return None;
            }
            Some(Rule {
                name: name.to_owned(),
                value,
            })
        })
    }

    /// Values of arguments.
    fn values(self, list: &List<String>, reader: &mut Reader<'_>) -> Vec<Rule<Template>> {
        each(list, reader, |text, reader| {
            let Entry { name, value } = Entry::of(text);
            if name.is_empty() {
                reader.error(format_args!("invalid value: {text}: write name:value"));
                return None;
            }
            let Some(value) = value.filter(|value| !value.is_empty()) else {
                reader.error(format_args!("key '{name}' has no value"));
                return None;
            };
            let value = self.template(value, reader)?;
            Some(Rule {
                name: name.to_owned(),
                value,
            })
        })
    }

    fn body_values(self, list: &List<String>, reader: &mut Reader<'_>) -> Vec<Rule<Template>> {
        let rules = self.values(list, reader);
        rules
            .iter()
            .for_each(|rule| self.check_max_tokens(&rule.name, reader));
        rules
    }

    fn check_max_tokens(self, name: &str, reader: &mut Reader<'_>) {
        if MAX_TOKENS.contains(&name) && !self.owns_max_tokens && !self.kong {
            reader.error(format_args!(
                "{name} belongs to token-rate-limit, which has reserved tokens by it before this filter runs: set it there, or write \
                 owns_max_tokens: true where there is no token-rate-limit"
            ));
        }
    }

    fn response(self, raw: RawResponse, reader: &mut Reader<'_>) -> ResponseRules {
        let mut rules = ResponseRules::default();
        if let Some(remove) = raw.remove {
            reader.member("remove", |reader| {
                rules.headers.remove = reader.member("headers", |reader| {
                    self.header_names(&remove.headers, Side::Response, reader)
                });
                rules.json.remove = reader.member("json", |reader| names(&remove.json, reader));
            });
        }
        if let Some(rename) = raw.rename {
            reader.member("rename", |reader| {
                rules.headers.rename = reader.member("headers", |reader| {
                    self.header_renames(&rename.headers, Side::Response, reader)
                });
                rules.json.rename = reader.member("json", |reader| {
                    each(&rename.json, reader, |text, reader| {
                        let (old, new) = Entry::pair(text, reader)?;
                        Some(Rule {
                            name: old.to_owned(),
                            value: new.to_owned(),
                        })
                    })
                });
            });
        }
        for (name, raw) in [
            ("replace", raw.replace),
            ("add", raw.add),
            ("append", raw.append),
        ] {
            let Some(raw) = raw else { continue };
            let (headers, json) = reader.member(name, |reader| {
                let headers = reader.member("headers", |reader| {
                    self.response_values(&raw.headers, reader)
                });
                (headers, self.typed_values(&raw, reader))
            });
            match name {
                "replace" => (rules.headers.replace, rules.json.replace) = (headers, json),
                "add" => (rules.headers.add, rules.json.add) = (headers, json),
                _ => (rules.headers.append, rules.json.append) = (headers, json),
            }
        }
        rules
    }

    fn response_values(self, list: &List<String>, reader: &mut Reader<'_>) -> Vec<Rule<Vec<u8>>> {
        each(list, reader, |text, reader| {
            let (name, value) = Entry::pair(text, reader)?;
            if !self.is_header(name, Side::Response, false, reader)
                || !self.may_touch(name, Side::Response, reader)
            {
                return None;
            }
            if !is_header_value(value.as_bytes()) {
                reader.error("control characters are not allowed in a header");
                return None;
            }
            if value.is_empty() {
                reader.warn("an empty value: the rule does nothing");
                return None;
            }
            Some(Rule {
                name: self.spelled(name, Side::Response),
                value: value.as_bytes().to_vec(),
            })
        })
    }

    /// Values of members as JSON texts, by their types.
    fn typed_values(self, raw: &RawResponseRules, reader: &mut Reader<'_>) -> Vec<Rule<Vec<u8>>> {
        let mut types = raw.json_types.0.iter();
        reader.member("json", |reader| {
            each(&raw.json, reader, |text, reader| {
                let kind = types.next().copied().unwrap_or(JsonType::String);
                let (name, value) = Entry::pair(text, reader)?;
                let value = match kind {
                    JsonType::String => self.string(value),
                    JsonType::Boolean if value == "true" => b"true".to_vec(),
                    JsonType::Boolean => {
                        if value != "false" {
                            reader.warn("not a boolean: it is false");
                        }
                        b"false".to_vec()
                    }
                    JsonType::Number => match number(value) {
                        Some(number) => number.text,
                        None => {
                            reader.warn("not a number: the rule is skipped");
                            return None;
                        }
                    },
                };
                Some(Rule {
                    name: name.to_owned(),
                    value,
                })
            })
        })
    }

    /// A value of the type string, as a JSON text. Kong takes an empty one for null and leaves escapes in (KONG-SPEC 5.3).
    fn string(self, value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.kong {
            json::quote(value.as_bytes(), &mut out);
            return out;
        }
        if value.is_empty() {
            return b"\"null\"".to_vec();
        }
        let mut escaped = Vec::new();
        crate::cjson::write_string(value.as_bytes(), &mut escaped);
        let inside = escaped
            .strip_prefix(b"\"")
            .and_then(|inside| inside.strip_suffix(b"\""));
        let inside = String::from_utf8_lossy(inside.unwrap_or_default())
            .replace("\\\"", "\"")
            .replace("\\/", "/");
        json::quote(inside.as_bytes(), &mut out);
        out
    }

    fn json(self, raw: RawJson, side: Side, reader: &mut Reader<'_>) -> JsonRules {
        let mut rules = Vec::new();
        let mut add = |path: &str, change: Option<JsonChange>, reader: &mut Reader<'_>| {
            let path = match JsonPath::parse(path) {
                Ok(path) => path,
                Err(problem) => return reader.error(problem),
            };
            if let (Some(name), Side::Request) = (path.single(), side) {
                self.check_max_tokens(name, reader);
            }
            if let Some(change) = change {
                rules.push(JsonRule { path, change });
            }
        };
        reader.member("remove", |reader| {
            for (index, path) in raw.remove.iter().enumerate() {
                reader.element(index, |reader| add(path, Some(JsonChange::Remove), reader));
            }
        });
        let bound = |value: Literal, reader: &mut Reader<'_>| {
            let number = match &value {
                Literal::Other(text) => json_number(text),
                Literal::Text(_) => None,
            };
            if number.is_none() {
                reader.error("expected a number, without quotes");
            }
            number
        };
        type Make = fn(JsonValue) -> JsonChange;
        let values: [(&str, Table<Literal>, Make); 2] = [
            ("set", raw.set, JsonChange::Set),
            ("set_if_absent", raw.set_if_absent, JsonChange::SetIfAbsent),
        ];
        for (field, table, make) in values {
            reader.member(field, |reader| {
                for (path, value) in table.0 {
                    reader.member(&path, |reader| {
                        let value = self.literal(value, side, reader);
                        add(&path, value.map(make), reader);
                    });
                }
            });
        }
        type Bound = fn(Number) -> JsonChange;
        let bounds: [(&str, Table<Literal>, Bound); 2] = [
            ("at_most", raw.at_most, JsonChange::AtMost),
            ("at_least", raw.at_least, JsonChange::AtLeast),
        ];
        for (field, table, make) in bounds {
            reader.member(field, |reader| {
                for (path, value) in table.0 {
                    reader.member(&path, |reader| {
                        let number = bound(value, reader);
                        add(&path, number.map(make), reader);
                    });
                }
            });
        }
        JsonRules(rules)
    }

    fn literal(self, value: Literal, side: Side, reader: &mut Reader<'_>) -> Option<JsonValue> {
        let text = match value {
            Literal::Other(text) => return Some(JsonValue::Literal(text)),
            Literal::Text(text) => text,
        };
        let template = match side {
            Side::Request => self.template(&text, reader)?,
            Side::Response => Template::Literal(text.into_bytes()),
        };
        Some(match template {
            Template::Literal(text) => {
                let mut quoted = Vec::new();
                json::quote(&text, &mut quoted);
                JsonValue::Literal(quoted)
            }
            template => JsonValue::Template(template),
        })
    }
}

/// Reads each element of a list with its path.
fn each<T>(
    list: &List<String>,
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&str, &mut Reader<'_>) -> Option<T>,
) -> Vec<T> {
    let mut out = Vec::new();
    for (index, text) in list.0.iter().enumerate() {
        out.extend(reader.element(index, |reader| read(text, reader)));
    }
    out
}

/// Names without what follows a colon.
fn names(list: &List<String>, reader: &mut Reader<'_>) -> Vec<String> {
    each(list, reader, |text, reader| {
        let name = Entry::of(text).name;
        if name.is_empty() {
            reader.error(format_args!("invalid value: {text}: write a name"));
            return None;
        }
        Some(name.to_owned())
    })
}

/// The texts of a value that are known before any request.
fn literals(template: &Template) -> impl Iterator<Item = &[u8]> {
    let parts: &[Part] = match template {
        Template::Parts(parts) => parts,
        Template::Literal(_) | Template::Broken => &[],
    };
    let whole = match template {
        Template::Literal(text) => Some(text.as_slice()),
        Template::Parts(_) | Template::Broken => None,
    };
    whole
        .into_iter()
        .chain(parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_slice()),
            Part::Expression(_) => None,
        }))
}

/// Whether a text can be sent as a header's value (RFC 9110 section 5.5): no CR, LF, NUL or other control character but the tab.
pub(crate) fn is_header_value(text: &[u8]) -> bool {
    !text
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

/// A number as JSON can spell it: as it is written, where that is JSON.
fn number(text: &str) -> Option<Number> {
    json_number(text.trim_ascii().as_bytes()).or_else(|| {
        let value = parse_number(text.as_bytes())?;
        Some(Number {
            text: spell_number(value).into_bytes(),
            value,
        })
    })
}

fn json_number(text: &[u8]) -> Option<Number> {
    let value = Value::parse(text).ok()?;
    let Kind::Number(spelled) = value.kind() else {
        return None;
    };
    let number: f64 = spelled.parse().ok()?;
    number.is_finite().then(|| Number {
        text: spelled.as_bytes().to_vec(),
        value: number,
    })
}

fn uri_pattern(pattern: &str, reader: &mut Reader<'_>) -> Option<Regex> {
    if pattern.len() > LONGEST_PATTERN {
        reader.error(format_args!(
            "a regular expression of more than {LONGEST_PATTERN} bytes"
        ));
        return None;
    }
    RegexBuilder::new(&format!("^(?:{pattern})"))
        .size_limit(256 * 1024)
        .nest_limit(12)
        .build()
        .map_err(|error| {
            reader.error(format_args!(
                "{error}; it is matched in linear time, without look-around and references back"
            ));
        })
        .ok()
}

fn condition(raw: RawWhen, reader: &mut Reader<'_>) -> Condition {
    for (name, list) in [
        ("methods", &raw.methods),
        ("paths", &raw.paths),
        ("consumers", &raw.consumers),
        ("groups", &raw.groups),
        ("models", &raw.models),
        ("content_types", &raw.content_types),
    ] {
        reader.member(name, |reader| {
            for (index, text) in list.iter().enumerate() {
                reader.element(index, |reader| match text.as_str() {
                    "" => reader.error("length must be at least 1"),
                    path if name == "paths" && !path.starts_with(['/', '*']) => {
                        reader.error("should start with: / or *")
                    }
                    _ => {}
                });
            }
        });
    }
    reader.member("headers", |reader| {
        for (name, _) in &raw.headers.0 {
            if HeaderName::new(name).is_none() {
                reader.member(name, |reader| {
                    reader.error(format_args!("'{name}' is not a valid header"))
                });
            }
        }
    });
    let lower = |texts: Vec<String>| texts.iter().map(|text| text.to_ascii_lowercase()).collect();
    Condition {
        methods: raw.methods,
        paths: raw.paths,
        headers: raw.headers.0,
        consumers: raw.consumers,
        groups: raw.groups,
        models: raw.models,
        statuses: raw
            .statuses
            .into_iter()
            .map(|Statuses(low, high)| (low, high))
            .collect(),
        content_types: lower(raw.content_types),
    }
}
