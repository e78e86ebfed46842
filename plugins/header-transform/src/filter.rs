//! The phases: choose the sets of rules, transform the request, transform the response.

use crate::config::{Config, LargeBody, Method, RuleSet};
use crate::request::{self, Payload, Refusal, Request, Transformed};
use crate::response::{self, BodyPlan};
use crate::sse::Events;
use crate::template::Source;
use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::{Failure, Host, HostKind, Level};
use tollgate_kit::metric::Metric;
use tollgate_kit::reply::{ErrorReply, Reply};
use tollgate_kit::step::{
    Body, HeaderEdit, RequestEdits, RequestStep, ResponseEdits, ResponseStep, StreamStep,
};
use tollgate_kit::{Exchange, Fallback, Filter};

/// The response header that says that body rules were not applied, and why.
pub const NOTE: &str = "x-tollgate-untransformed";

/// The filter with its configuration.
#[derive(Debug)]
pub struct HeaderTransform {
    config: Config,
    asks: Asks,
    /// A failure that has been said in the log. One line each, not one a request.
    said: Vec<&'static str>,
}

/// What the rules ask for, so that nothing else is read.
#[derive(Clone, Copy, Debug)]
struct Asks {
    /// The head of requests.
    request: bool,
    /// Their path and query.
    target: bool,
    /// Who the client is.
    identity: bool,
    /// The `model` in their bodies.
    model: bool,
    /// The head of responses.
    response: bool,
}

impl Asks {
    fn of(config: &Config) -> Asks {
        let any = |ask: &dyn Fn(&RuleSet) -> bool| config.sets.iter().any(ask);
        Asks {
            request: any(&|set| {
                set.edits_requests() || (set.edits_responses() && set.when.asks_request())
            }),
            target: any(&|set| {
                !set.request.query.is_empty()
                    || set.request.uri.is_some()
                    || set.request.method.as_ref().is_some_and(Method::moves_form)
                    || !set.when.paths.is_empty()
                    || set.reads(Source::Query)
                    || set.reads(Source::Captures)
            }),
            identity: any(&|set| set.when.asks_identity() || set.reads(Source::Consumer)),
            model: any(&|set| !set.when.models.is_empty()),
            response: any(&RuleSet::edits_responses),
        }
    }
}

/// Why a body rule was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untransformed {
    RequestTooLarge,
    RequestUnreadable,
    RequestWithoutBody,
    ResponseTooLarge,
    ResponseUnreadable,
}

impl Untransformed {
    fn word(self) -> &'static str {
        match self {
            Untransformed::RequestTooLarge => "request-too-large",
            Untransformed::RequestUnreadable => "request-unreadable",
            Untransformed::RequestWithoutBody => "request-without-body",
            Untransformed::ResponseTooLarge => "response-too-large",
            Untransformed::ResponseUnreadable => "response-unreadable",
        }
    }

    /// The counter's name, ready-made.
    fn metric(self) -> &'static str {
        match self {
            Untransformed::RequestTooLarge => {
                "tollgate_header_transform_untransformed;why=request-too-large"
            }
            Untransformed::RequestUnreadable => {
                "tollgate_header_transform_untransformed;why=request-unreadable"
            }
            Untransformed::RequestWithoutBody => {
                "tollgate_header_transform_untransformed;why=request-without-body"
            }
            Untransformed::ResponseTooLarge => {
                "tollgate_header_transform_untransformed;why=response-too-large"
            }
            Untransformed::ResponseUnreadable => {
                "tollgate_header_transform_untransformed;why=response-unreadable"
            }
        }
    }
}

/// One request and its response.
#[derive(Debug, Default)]
pub struct Transformation {
    /// Kept while the body is awaited; on Kong longer, since one may come that was not announced.
    request: Option<Request>,
    /// The header edits that were made before such a body came.
    sent: Option<Vec<HeaderEdit>>,
    /// Whether each set's condition on the request holds; `None` when no request was seen.
    holds: Option<Vec<bool>>,
    /// Whether the client asked with HEAD.
    head: Option<bool>,
    /// Whether the upstream is asked with HEAD, and the client did not.
    turned_to_head: bool,
    /// To be said in the response.
    note: Option<Untransformed>,
    response: Awaited,
}

/// What is awaited of the response's body.
#[derive(Debug, Default)]
enum Awaited {
    #[default]
    Nothing,
    Whole(Vec<usize>),
    Events(Events, Vec<usize>),
}

impl Filter for HeaderTransform {
    const NAME: &'static str = "header-transform";
    const METRICS: &'static [Metric] = &[
        Metric {
            name: "tollgate_header_transform_refused",
            labels: &["why"],
            help: "Requests that were refused: template, rule, value, body, host.",
        },
        Metric {
            name: "tollgate_header_transform_untransformed",
            labels: &["why"],
            help: "Messages whose body rules were not applied: request-too-large, request-unreadable, request-without-body, \
                   response-too-large, response-unreadable.",
        },
    ];

    type Config = Config;
    type Exchange = Transformation;

    fn new(config: Config) -> HeaderTransform {
        HeaderTransform {
            asks: Asks::of(&config),
            config,
            said: Vec::new(),
        }
    }

    fn host_kind(&self) -> Option<HostKind> {
        self.config.host
    }

    fn exchange(&self) -> Transformation {
        Transformation::default()
    }
}

impl HeaderTransform {
    fn read(&self, host: &dyn Host) -> Result<Request, Failure> {
        let headers = host.request_headers()?;
        let (path, query) = if self.asks.target {
            (host.request_path(&headers)?, host.request_query(&headers)?)
        } else {
            (Vec::new(), None)
        };
        let identity = if self.asks.identity {
            host.identity()
        } else {
            None
        };
        Ok(Request {
            headers,
            path,
            query,
            identity,
        })
    }

    /// Says something in the log, once for each configuration.
    fn say(&mut self, what: &'static str, more: &dyn std::fmt::Display, host: &dyn Host) {
        if !self.said.contains(&what) {
            self.said.push(what);
            host.log(
                Level::Error,
                &format!("tollgate header-transform: {what}: {more} (said once)"),
            );
        }
    }

    fn refuse(
        &self,
        status: u16,
        metric: &str,
        message: &str,
        headers: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        host.count(metric, 1);
        ErrorReply {
            status,
            message,
            code: None,
            headers: Vec::new(),
        }
        .render(self.config.error_format, headers, host)
    }

    fn refused(&mut self, refusal: Refusal, request: &Request, host: &dyn Host) -> Reply {
        const UNEXPECTED: &str = "An unexpected error occurred";
        let headers = &request.headers;
        match refusal {
            Refusal::Template(error) => {
                self.say("a template failed, requests get 500", &error, host);
                let metric = "tollgate_header_transform_refused;why=template";
                self.refuse(500, metric, UNEXPECTED, headers, host)
            }
            Refusal::Rule => {
                self.say(
                    "a rule can't be applied, requests get 500",
                    &"the path it makes is none, or Kong's plugin fails here",
                    host,
                );
                let metric = "tollgate_header_transform_refused;why=rule";
                self.refuse(500, metric, UNEXPECTED, headers, host)
            }
            Refusal::Value => self.refuse(
                400,
                "tollgate_header_transform_refused;why=value",
                "Bad request",
                headers,
                host,
            ),
        }
    }
}

impl Transformation {
    /// Transforms the request with what is known of its body.
    fn decide(
        &mut self,
        filter: &mut HeaderTransform,
        request: &Request,
        payload: Payload<'_>,
        host: &dyn Host,
    ) -> RequestStep {
        let model = match payload {
            Payload::Whole(body) if filter.asks.model => request::model(body),
            _ => None,
        };
        let facts = request.facts(model.as_deref());
        let content_type = request.headers.first("content-type");
        let sets = &filter.config.sets;
        let holds: Vec<bool> = sets
            .iter()
            .map(|set| set.when.holds_for_request(&facts))
            .collect();
        let chosen = sets
            .iter()
            .enumerate()
            .zip(&holds)
            .filter(|((_, set), holds)| **holds && set.when.holds_for_type(content_type))
            .map(|((number, _), _)| number);
        let transformed = request::transform(&filter.config, chosen, request, payload, host);
        self.holds = Some(holds);
        match transformed {
            Ok(Transformed { edits, lacks_body }) => {
                if lacks_body {
                    host.count(Untransformed::RequestWithoutBody.metric(), 1);
                }
                self.turned_to_head =
                    self.head == Some(false) && edits.method.as_deref() == Some(b"HEAD");
                RequestStep::Continue(self.not_yet_made(edits))
            }
            Err(refusal) => RequestStep::Reply(filter.refused(refusal, request, host)),
        }
    }

    /// Without what was done before a body came that was not announced.
    fn not_yet_made(&mut self, mut edits: RequestEdits) -> RequestEdits {
        match &self.sent {
            None => self.sent = Some(edits.headers.clone()),
            Some(sent) => {
                edits.headers.retain(|edit| !sent.contains(edit));
                edits.method = None;
            }
        }
        edits
    }

    /// What happens when the body can't be had.
    fn without_body(
        &mut self,
        filter: &mut HeaderTransform,
        request: &Request,
        why: Untransformed,
        host: &dyn Host,
    ) -> RequestStep {
        if filter.config.large_body == LargeBody::Refuse {
            let (status, message) = match why {
                Untransformed::RequestTooLarge => (413, "Request body too large"),
                _ => (500, "An unexpected error occurred"),
            };
            let metric = "tollgate_header_transform_refused;why=body";
            return RequestStep::Reply(filter.refuse(
                status,
                metric,
                message,
                &request.headers,
                host,
            ));
        }
        self.note = Some(why);
        host.count(why.metric(), 1);
        self.decide(filter, request, Payload::Unread, host)
    }

    /// Whether the response to this request has no body.
    fn answers_head(&self, host: &dyn Host) -> bool {
        self.head.unwrap_or_else(|| {
            // Only nginx does not say that no body follows.
            host.kind() == HostKind::Kong
                && host
                    .request_headers()
                    .is_ok_and(|headers| headers.first(":method") == Some(b"HEAD"))
        })
    }
}

impl Exchange<HeaderTransform> for Transformation {
    fn request_headers(&mut self, filter: &mut HeaderTransform, host: &dyn Host) -> RequestStep {
        if !filter.asks.request {
            return RequestStep::unchanged();
        }
        let request = match filter.read(host) {
            Ok(request) => request,
            Err(failure) => {
                let (status, message) = match failure {
                    Failure::Refused => (431, "Too many request headers"),
                    Failure::NotNow | Failure::Broken => (500, "An unexpected error occurred"),
                };
                let metric = "tollgate_header_transform_refused;why=host";
                let nothing = HeaderMap::default();
                return RequestStep::Reply(filter.refuse(status, metric, message, &nothing, host));
            }
        };
        self.head = Some(request.headers.first(":method") == Some(b"HEAD"));
        let needs_body = host.kind() != HostKind::EnvoyHeadersPass
            && filter.config.sets.iter().any(|set| request.needs_body(set));
        if !needs_body {
            return self.decide(filter, &request, Payload::Unread, host);
        }
        let most = filter.config.max_body;
        if announced_length(&request.headers).is_some_and(|length| length > most) {
            return self.without_body(filter, &request, Untransformed::RequestTooLarge, host);
        }
        self.request = Some(request);
        RequestStep::HoldForBody { most }
    }

    fn request_body(
        &mut self,
        filter: &mut HeaderTransform,
        body: Body<'_>,
        host: &dyn Host,
    ) -> RequestStep {
        let Some(request) = self.request.take() else {
            return RequestStep::unchanged();
        };
        let chunked = request.headers.first("transfer-encoding").is_some();
        let payload = match body {
            // Envoy has no way to give a request a body; and on nginx one may still come.
            Body::None if host.kind() != HostKind::Kong || chunked => Payload::Absent,
            Body::None | Body::Whole([]) => Payload::Empty,
            Body::Whole(bytes) => Payload::Whole(bytes),
            Body::TooLarge => {
                return self.without_body(filter, &request, Untransformed::RequestTooLarge, host);
            }
            Body::Unreadable => {
                return self.without_body(filter, &request, Untransformed::RequestUnreadable, host);
            }
        };
        let step = self.decide(filter, &request, payload, host);
        if host.kind() == HostKind::Kong && body == Body::None {
            self.request = Some(request);
        }
        step
    }

    fn host_failed(
        &mut self,
        filter: &mut HeaderTransform,
        failure: Failure,
        host: &dyn Host,
    ) -> Fallback {
        let headers = host.request_headers().unwrap_or_default();
        let metric = "tollgate_header_transform_refused;why=host";
        Fallback::Reply(match failure {
            // nginx would change the first line and send the others as they are.
            Failure::Refused => filter.refuse(
                400,
                metric,
                "A repeated header can't be changed",
                &headers,
                host,
            ),
            Failure::NotNow | Failure::Broken => {
                filter.refuse(500, metric, "An unexpected error occurred", &headers, host)
            }
        })
    }

    fn response_headers(&mut self, filter: &mut HeaderTransform, host: &dyn Host) -> ResponseStep {
        let mut edits = ResponseEdits::default();
        if let Some(note) = self.note {
            edits.headers.push(said(note));
        }
        if self.turned_to_head {
            // The length of what a GET would have got; a client that did not ask with HEAD would wait for it.
            let length = HeaderEdit::Set(Cow::Borrowed("content-length"), b"0".to_vec());
            edits.headers.push(length);
        }
        if !filter.asks.response {
            return ResponseStep::Continue(edits);
        }
        let response = match host.response_headers() {
            Ok(response) if !response.is_empty() => response,
            _ => {
                host.count(Untransformed::ResponseUnreadable.metric(), 1);
                filter.say(
                    "the host does not show a response",
                    &"it passes as it is",
                    host,
                );
                return ResponseStep::Continue(edits);
            }
        };
        let holds = self.holds.take();
        let chosen = filter
            .config
            .sets
            .iter()
            .enumerate()
            .filter(|(number, set)| match &holds {
                Some(holds) => holds.get(*number).copied().unwrap_or_default(),
                // A request that another filter has answered was never seen.
                None => !set.when.asks_request(),
            })
            .map(|(number, _)| number);
        let head = response::transform_head(&filter.config, chosen, &response);
        edits.headers.extend(head.edits);
        let most = filter.config.max_body;
        match head.body {
            BodyPlan::Leave => ResponseStep::Continue(edits),
            _ if self.turned_to_head || self.answers_head(host) => ResponseStep::Continue(edits),
            BodyPlan::Whole(_)
                if announced_length(&response).is_some_and(|length| length > most) =>
            {
                host.count(Untransformed::ResponseTooLarge.metric(), 1);
                edits.headers.push(said(Untransformed::ResponseTooLarge));
                ResponseStep::Continue(edits)
            }
            BodyPlan::Whole(sets) => {
                self.response = Awaited::Whole(sets);
                ResponseStep::Hold { edits, most }
            }
            BodyPlan::Events(sets) => {
                self.response = Awaited::Events(Events::default(), sets);
                ResponseStep::Stream(edits)
            }
        }
    }

    fn response_chunk(
        &mut self,
        filter: &mut HeaderTransform,
        chunk: &[u8],
        end: bool,
        _host: &dyn Host,
    ) -> StreamStep {
        let Awaited::Events(events, sets) = &mut self.response else {
            return StreamStep::Pass;
        };
        let config = &filter.config;
        let out = events.push(chunk, end, &mut |data| {
            response::transform_body(config, sets, data)
        });
        match out.len() {
            0 => StreamStep::Swallow,
            _ if out == chunk => StreamStep::Pass,
            _ => StreamStep::Replace(out),
        }
    }

    fn response_body(
        &mut self,
        filter: &mut HeaderTransform,
        body: &[u8],
        _host: &dyn Host,
    ) -> Option<Vec<u8>> {
        let Awaited::Whole(sets) = &self.response else {
            return None;
        };
        response::transform_body(&filter.config, sets, body)
    }

    fn response_too_large(&mut self, _filter: &mut HeaderTransform, host: &dyn Host) {
        // The head has gone: only the counter can say so.
        host.count(Untransformed::ResponseTooLarge.metric(), 1);
    }
}

fn said(note: Untransformed) -> HeaderEdit {
    HeaderEdit::Add(Cow::Borrowed(NOTE), note.word().as_bytes().to_vec())
}

/// The length that a message announces for its body.
fn announced_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.first("content-length")?;
    std::str::from_utf8(length.trim_ascii()).ok()?.parse().ok()
}
