//! When a set of rules is for a message.

use crate::glob;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::identity::Identity;

/// All that is given has to hold; what is not given holds always.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// One of these methods.
    pub methods: Vec<String>,
    /// A path, without the query, that fits one of these.
    pub paths: Vec<String>,
    /// For each of these a header line of the request that fits.
    pub headers: Vec<(String, String)>,
    /// A consumer with one of these ids or usernames.
    pub consumers: Vec<String>,
    /// A consumer in one of these groups.
    pub groups: Vec<String>,
    /// A JSON request body whose `model` fits one of these.
    pub models: Vec<String>,
    /// A response with one of these statuses.
    pub statuses: Vec<(u16, u16)>,
    /// A message whose media type, without parameters, fits one of these.
    pub content_types: Vec<String>,
}

/// What a request is judged by, as it came.
pub struct RequestFacts<'a> {
    /// The head.
    pub headers: &'a HeaderMap,
    /// The path, without the query.
    pub path: &'a [u8],
    /// Who the client is, for those that ask.
    pub identity: Option<&'a Identity>,
    /// The body's `model`; `None` when there is none, or it is not known.
    pub model: Option<&'a [u8]>,
}

impl Condition {
    /// Whether it asks for something that only the request has.
    #[must_use]
    pub fn asks_request(&self) -> bool {
        !(self.methods.is_empty()
            && self.paths.is_empty()
            && self.headers.is_empty()
            && self.models.is_empty())
            || self.asks_identity()
    }

    /// Whether it asks who the client is.
    #[must_use]
    pub fn asks_identity(&self) -> bool {
        !(self.consumers.is_empty() && self.groups.is_empty())
    }

    /// Whether everything about the request holds but what its body has to tell.
    #[must_use]
    pub fn may_hold(&self, request: &RequestFacts<'_>) -> bool {
        let method = request.headers.first(":method").unwrap_or_default();
        let one_of = |globs: &[String], text: &[u8]| {
            globs.is_empty() || globs.iter().any(|glob| glob::fits(glob.as_bytes(), text))
        };
        let consumer = |identity: &Identity, name: &String| {
            identity.consumer == *name || identity.username.as_ref() == Some(name)
        };
        (self.methods.is_empty() || self.methods.iter().any(|known| known.as_bytes() == method))
            && one_of(&self.paths, request.path)
            && self.headers.iter().all(|(name, glob)| {
                request
                    .headers
                    .all(name)
                    .any(|value| glob::fits(glob.as_bytes(), value))
            })
            && (self.consumers.is_empty()
                || request.identity.is_some_and(|identity| {
                    self.consumers.iter().any(|name| consumer(identity, name))
                }))
            && (self.groups.is_empty()
                || request.identity.is_some_and(|identity| {
                    self.groups
                        .iter()
                        .any(|group| identity.groups.contains(group))
                }))
    }

    /// Whether everything about the request holds.
    #[must_use]
    pub fn holds_for_request(&self, request: &RequestFacts<'_>) -> bool {
        let model = self.models.is_empty()
            || request.model.is_some_and(|model| {
                self.models
                    .iter()
                    .any(|glob| glob::fits(glob.as_bytes(), model))
            });
        model && self.may_hold(request)
    }

    /// Whether the status is one that is asked for.
    #[must_use]
    pub fn holds_for_status(&self, status: u16) -> bool {
        self.statuses.is_empty()
            || self
                .statuses
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&status))
    }

    /// Whether a message of this content type is one that is asked for.
    #[must_use]
    pub fn holds_for_type(&self, content_type: Option<&[u8]>) -> bool {
        if self.content_types.is_empty() {
            return true;
        }
        let media = content_type
            .and_then(|value| value.split(|&byte| byte == b';').next())
            .map(|media| media.trim_ascii().to_ascii_lowercase());
        media.is_some_and(|media| {
            self.content_types
                .iter()
                .any(|glob| glob::fits(glob.as_bytes(), &media))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        HeaderMap::unmarshal(HeaderMap::marshal(lines))
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_part_has_to_hold() {
        let headers = map(&[(":method", "POST"), ("X-Team", "blue"), ("x-team", "red")]);
        let identity = Identity {
            consumer: "7f4c".into(),
            username: Some("checkout".into()),
            groups: texts(&["gold"]),
            ..Identity::default()
        };
        let facts = RequestFacts {
            headers: &headers,
            path: b"/v1/chat/completions",
            identity: Some(&identity),
            model: Some(b"gpt-4o-mini"),
        };
        let none = RequestFacts {
            headers: &headers,
            path: b"/",
            identity: None,
            model: None,
        };
        let condition = Condition::default();
        assert!(condition.holds_for_request(&none) && !condition.asks_request());
        let all = Condition {
            methods: texts(&["PUT", "POST"]),
            paths: texts(&["/v1/*"]),
            headers: vec![("x-team".into(), "r*".into())],
            consumers: texts(&["checkout"]),
            groups: texts(&["silver", "gold"]),
            models: texts(&["gpt-4o*"]),
            ..Condition::default()
        };
        assert!(all.holds_for_request(&facts) && !all.holds_for_request(&none));
        for broken in [
            Condition {
                methods: texts(&["GET"]),
                ..all.clone()
            },
            Condition {
                paths: texts(&["/v2/*"]),
                ..all.clone()
            },
            Condition {
                headers: vec![("x-team".into(), "green".into())],
                ..all.clone()
            },
            Condition {
                consumers: texts(&["other"]),
                ..all.clone()
            },
            Condition {
                groups: texts(&["silver"]),
                ..all.clone()
            },
        ] {
            assert!(!broken.may_hold(&facts));
        }
        let other_model = Condition {
            models: texts(&["claude*"]),
            ..all.clone()
        };
        assert!(other_model.may_hold(&facts) && !other_model.holds_for_request(&facts));
    }

    #[test]
    fn responses_are_told_apart_by_status_and_type() {
        let condition = Condition {
            statuses: vec![(200, 299), (404, 404)],
            content_types: texts(&["application/*", "text/event-stream"]),
            ..Condition::default()
        };
        assert!(condition.holds_for_status(204) && condition.holds_for_status(404));
        assert!(!condition.holds_for_status(500));
        assert!(condition.holds_for_type(Some(b"Application/JSON; charset=utf-8")));
        assert!(!condition.holds_for_type(Some(b"text/plain")) && !condition.holds_for_type(None));
    }
}
