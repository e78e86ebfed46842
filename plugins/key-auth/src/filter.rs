//! The phases: search, look up, decide.

use crate::config::{Config, Rules};
use crate::directory::{Directory, Owner};
use crate::poll::{News, Poll, TICK};
use crate::search::{Request, Search};
use std::borrow::Cow;
use std::time::Duration;
use tollgate_kit::digest::Digest;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::{Failure, Host, HostKind, Level};
use tollgate_kit::identity::Identity;
use tollgate_kit::metric::Metric;
use tollgate_kit::reply::{ErrorReply, Reply};
use tollgate_kit::step::{Body, Call, CallOutcome, HeaderEdit, RequestEdits, RequestStep};
use tollgate_kit::{Exchange, Fallback, Filter};

/// What a client could claim to be somebody with. In the order in which they are set.
const IDENTITY_HEADERS: [&str; 5] = [
    "x-consumer-id",
    "x-consumer-custom-id",
    "x-consumer-username",
    "x-credential-identifier",
    "x-anonymous-consumer",
];

/// The filter with its configuration and its consumers.
#[derive(Debug)]
pub struct KeyAuth {
    rules: Rules,
    /// `None` until the first document is loaded.
    directory: Option<Directory>,
    poll: Option<Poll>,
    /// Why the last poll brought nothing, so that a failure that lasts is one log line.
    trouble: Option<String>,
}

/// One request.
#[derive(Debug, Default)]
pub struct Authentication {
    /// Kept while the body is awaited.
    request: Option<Request>,
}

/// How a request came out, for the metric.
#[derive(Clone, Copy)]
enum Outcome {
    Granted,
    Anonymous,
    Skipped,
    Missing,
    Duplicate,
    Unauthorized,
    Refused,
    Unavailable,
}

impl Outcome {
    /// The counter's name, ready-made.
    fn metric(self) -> &'static str {
        match self {
            Outcome::Granted => "tollgate_key_auth_requests;result=granted",
            Outcome::Anonymous => "tollgate_key_auth_requests;result=anonymous",
            Outcome::Skipped => "tollgate_key_auth_requests;result=skipped",
            Outcome::Missing => "tollgate_key_auth_requests;result=missing",
            Outcome::Duplicate => "tollgate_key_auth_requests;result=duplicate",
            Outcome::Unauthorized => "tollgate_key_auth_requests;result=unauthorized",
            Outcome::Refused => "tollgate_key_auth_requests;result=refused",
            Outcome::Unavailable => "tollgate_key_auth_requests;result=unavailable",
        }
    }
}

impl Filter for KeyAuth {
    const NAME: &'static str = "key-auth";
    const METRICS: &'static [Metric] = &[
        Metric {
            name: "tollgate_key_auth_requests",
            labels: &["result"],
            help: "Requests by result: granted, anonymous, skipped, missing, duplicate, unauthorized, refused, unavailable.",
        },
        Metric {
            name: "tollgate_key_auth_loads",
            labels: &["result"],
            help: "Polls of consumers_from by result: loaded, unchanged, refused, failed.",
        },
    ];

    type Config = Config;
    type Exchange = Authentication;

    fn new(config: Config) -> KeyAuth {
        let poll = config.source.map(Poll::new);
        let directory = poll.is_none().then_some(config.consumers.directory);
        KeyAuth {
            rules: config.rules,
            directory,
            poll,
            trouble: None,
        }
    }

    fn host_kind(&self) -> Option<HostKind> {
        self.rules.host
    }

    fn exchange(&self) -> Authentication {
        Authentication::default()
    }

    fn tick_period(&self) -> Option<Duration> {
        self.poll.as_ref().map(|_| TICK)
    }

    fn tick(&mut self, host: &dyn Host) -> Option<Call> {
        let (call, news) = self.poll.as_mut()?.tick(host.now());
        if let Some(news) = news {
            self.take(news, host);
        }
        call
    }

    fn call_done(&mut self, outcome: CallOutcome, host: &dyn Host) {
        let news = self
            .poll
            .as_mut()
            .and_then(|poll| poll.answer(outcome, host.now()));
        if let Some(news) = news {
            self.take(news, host);
        }
    }
}

impl KeyAuth {
    fn take(&mut self, news: News, host: &dyn Host) {
        let (metric, trouble) = match news {
            News::Loaded(directory) => {
                host.log(
                    Level::Info,
                    &format!(
                        "tollgate key-auth: consumers loaded: {} credentials",
                        directory.len()
                    ),
                );
                self.directory = Some(directory);
                ("tollgate_key_auth_loads;result=loaded", None)
            }
            News::Unchanged => ("tollgate_key_auth_loads;result=unchanged", None),
            News::Refused(problem) => (
                "tollgate_key_auth_loads;result=refused",
                Some(format!("document refused: {problem}")),
            ),
            News::Failed(problem) => ("tollgate_key_auth_loads;result=failed", Some(problem)),
        };
        host.count(metric, 1);
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            let meanwhile = if self.directory.is_some() {
                "the last good consumers stay"
            } else {
                "every request gets 503"
            };
            host.log(
                Level::Error,
                &format!("tollgate key-auth: consumers_from: {trouble}; {meanwhile}"),
            );
        }
        self.trouble = trouble;
    }

    fn decide(&mut self, request: &Request, body: Option<&[u8]>, host: &dyn Host) -> RequestStep {
        let rules = &self.rules;
        if !rules.run_on_preflight && request.headers.first(":method") == Some(b"OPTIONS") {
            host.count(Outcome::Skipped.metric(), 1);
            let mut edits = RequestEdits::default();
            if !rules.kong {
                remove_claims(&request.headers, &mut edits);
            }
            return RequestStep::Continue(edits);
        }
        let Some(directory) = &self.directory else {
            host.count(Outcome::Unavailable.metric(), 1);
            let wait = self
                .poll
                .as_ref()
                .map_or(1, |poll| poll.retry_after(host.now()));
            let retry = (Cow::Borrowed("retry-after"), wait.to_string().into_bytes());
            return RequestStep::Reply(self.error(
                503,
                "Consumers are not loaded yet",
                None,
                vec![retry],
                &request.headers,
                host,
            ));
        };
        // "Any of several methods may succeed": somebody before has found out who it is.
        if rules.anonymous.is_some()
            && host
                .identity()
                .is_some_and(|identity| identity.credential.is_some())
        {
            host.count(Outcome::Skipped.metric(), 1);
            return RequestStep::unchanged();
        }
        let mut edits = RequestEdits::default();
        let (outcome, message, code) = match request.search(rules, body) {
            Search::NeedsBody => {
                return RequestStep::HoldForBody {
                    most: rules.max_body,
                };
            }
            Search::Key(key, name) => {
                if rules.hide {
                    request.hide(name, rules, body, &mut edits);
                }
                if let Some(owner) = directory.owner(&Digest::of(&key), || host.now()) {
                    return self.admit(
                        directory,
                        owner,
                        Outcome::Granted,
                        edits,
                        &request.headers,
                        host,
                    );
                }
                (Outcome::Unauthorized, "Unauthorized", "invalid_api_key")
            }
            Search::Missing => (
                Outcome::Missing,
                "No API key found in request",
                "missing_api_key",
            ),
            Search::Duplicate => (
                Outcome::Duplicate,
                "Duplicate API key found",
                "duplicate_api_key",
            ),
        };
        if let Some(anonymous) = &rules.anonymous {
            if let Some(owner) = directory.consumer(anonymous) {
                return self.admit(
                    directory,
                    owner,
                    Outcome::Anonymous,
                    edits,
                    &request.headers,
                    host,
                );
            }
            host.count(Outcome::Refused.metric(), 1);
            let message = format!("anonymous consumer {anonymous} is configured but doesn't exist");
            return RequestStep::Reply(self.error(
                500,
                &message,
                None,
                Vec::new(),
                &request.headers,
                host,
            ));
        }
        host.count(outcome.metric(), 1);
        let challenge = (
            Cow::Borrowed("www-authenticate"),
            rules.challenge.clone().into_bytes(),
        );
        RequestStep::Reply(self.error(
            401,
            message,
            Some(code),
            vec![challenge],
            &request.headers,
            host,
        ))
    }

    fn admit(
        &self,
        directory: &Directory,
        owner: Owner,
        outcome: Outcome,
        mut edits: RequestEdits,
        headers: &HeaderMap,
        host: &dyn Host,
    ) -> RequestStep {
        let Some(identity) = directory.identity(owner) else {
            return RequestStep::Reply(self.refuse(
                500,
                "An unexpected error occurred",
                headers,
                host,
            ));
        };
        host.count(outcome.metric(), 1);
        remove_claims_but(&identity, self.rules.kong, headers, &mut edits);
        edits.identity = Some(identity);
        RequestStep::Continue(edits)
    }

    fn refuse(&self, status: u16, message: &str, headers: &HeaderMap, host: &dyn Host) -> Reply {
        host.count(Outcome::Refused.metric(), 1);
        self.error(status, message, None, Vec::new(), headers, host)
    }

    fn error(
        &self,
        status: u16,
        message: &str,
        code: Option<&str>,
        more: Vec<(Cow<'static, str>, Vec<u8>)>,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        ErrorReply {
            status,
            message,
            code,
            headers: more,
        }
        .render(self.rules.error_format, request, host)
    }
}

/// Sets the identity headers, and removes those that the client has sent but the consumer does not have.
fn remove_claims_but(
    identity: &Identity,
    kong: bool,
    headers: &HeaderMap,
    edits: &mut RequestEdits,
) {
    let anonymous = identity.credential.is_none().then(|| "true".to_owned());
    let values = [
        Some(&identity.consumer),
        identity.custom_id.as_ref(),
        identity.username.as_ref(),
        identity.credential.as_ref(),
        anonymous.as_ref(),
    ];
    for (name, value) in IDENTITY_HEADERS.into_iter().zip(values) {
        match value {
            Some(value) => edits.headers.push(HeaderEdit::Set(
                Cow::Borrowed(name),
                value.clone().into_bytes(),
            )),
            None if headers.first(name).is_some() => {
                edits.headers.push(HeaderEdit::Remove(Cow::Borrowed(name)))
            }
            None => {}
        }
    }
    if !kong {
        remove_look_alikes(headers, edits);
    }
}

/// Removes every identity header that the client has sent.
fn remove_claims(headers: &HeaderMap, edits: &mut RequestEdits) {
    for name in IDENTITY_HEADERS
        .into_iter()
        .filter(|name| headers.first(name).is_some())
    {
        edits.headers.push(HeaderEdit::Remove(Cow::Borrowed(name)));
    }
    remove_look_alikes(headers, edits);
}

/// Removes identity headers spelled with `_`: upstreams that turn headers into variables take `X_Consumer_ID` for `X-Consumer-ID`.
fn remove_look_alikes(headers: &HeaderMap, edits: &mut RequestEdits) {
    for (name, _) in headers.iter().filter(|(name, _)| name.contains(&b'_')) {
        let alike = IDENTITY_HEADERS
            .iter()
            .any(|known| looks_alike(name, known.as_bytes()));
        if let (true, Ok(name)) = (alike, std::str::from_utf8(name)) {
            edits
                .headers
                .push(HeaderEdit::Remove(Cow::Owned(name.to_owned())));
        }
    }
}

/// Whether a name is a known one with `_` for some `-`.
fn looks_alike(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name.iter().zip(known).all(|(byte, known)| {
            byte.eq_ignore_ascii_case(known) || (*byte == b'_' && *known == b'-')
        })
}

impl Exchange<KeyAuth> for Authentication {
    fn request_headers(&mut self, filter: &mut KeyAuth, host: &dyn Host) -> RequestStep {
        let read = || {
            let headers = host.request_headers()?;
            let query = if filter.rules.in_query {
                host.request_query(&headers)?
            } else {
                None
            };
            Ok(Request { headers, query })
        };
        let request = match read() {
            Ok(request) => request,
            Err(Failure::Refused) => {
                return RequestStep::Reply(filter.refuse(
                    431,
                    "Too many request headers",
                    &HeaderMap::default(),
                    host,
                ));
            }
            Err(Failure::NotNow | Failure::Broken) => {
                return RequestStep::Reply(filter.refuse(
                    500,
                    "An unexpected error occurred",
                    &HeaderMap::default(),
                    host,
                ));
            }
        };
        let step = filter.decide(&request, None, host);
        if filter.rules.in_body {
            self.request = Some(request);
        }
        step
    }

    fn request_body(
        &mut self,
        filter: &mut KeyAuth,
        body: Body<'_>,
        host: &dyn Host,
    ) -> RequestStep {
        let refusal = match (&self.request, body.bytes()) {
            (Some(request), Some(bytes)) => return filter.decide(request, Some(bytes), host),
            (_, None) if body == Body::TooLarge => (413, "Request body too large"),
            _ => (500, "An unexpected error occurred"),
        };
        let nothing = HeaderMap::default();
        let headers = self
            .request
            .as_ref()
            .map_or(&nothing, |request| &request.headers);
        RequestStep::Reply(filter.refuse(refusal.0, refusal.1, headers, host))
    }

    fn host_failed(&mut self, filter: &mut KeyAuth, failure: Failure, host: &dyn Host) -> Fallback {
        let headers = self
            .request
            .as_ref()
            .map(|request| &request.headers)
            .cloned()
            .or_else(|| host.request_headers().ok())
            .unwrap_or_default();
        Fallback::Reply(match failure {
            // Half of a repeated identity header would be the client's.
            Failure::Refused => filter.refuse(
                400,
                "Repeated identity or credential header",
                &headers,
                host,
            ),
            Failure::NotNow | Failure::Broken => {
                filter.refuse(500, "An unexpected error occurred", &headers, host)
            }
        })
    }
}

#[cfg(test)]
mod tests;
