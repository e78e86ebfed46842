//! The answers that the filter gives itself.

use super::{Incoming, TokenRateLimit};
use crate::headers::Line;
use crate::ledger::{Account, Charge};
use crate::metering::{self, Rejected};
use crate::rule::Unit;
use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::Host;
use tollgate_kit::reply::{ErrorReply, Reply};

type Lines = Vec<(Cow<'static, str>, Vec<u8>)>;

/// An error without the parts that most do not have.
struct Problem<'p> {
    status: u16,
    message: &'p str,
    /// OpenAI's word for programs.
    code: Option<&'p str>,
    headers: Lines,
}

impl TokenRateLimit {
    fn error(&self, problem: Problem<'_>, request: &HeaderMap, host: &dyn Host) -> Reply {
        ErrorReply {
            status: problem.status,
            message: problem.message,
            code: problem.code,
            headers: problem.headers,
        }
        .render(self.config.error_format, request, host)
    }

    fn plain(
        &self,
        status: u16,
        message: &str,
        code: Option<&str>,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let problem = Problem {
            status,
            message,
            code,
            headers: Vec::new(),
        };
        self.error(problem, request, host)
    }

    /// Kong's own words for what nobody foresaw.
    pub(super) fn unexpected(&self, request: &HeaderMap, host: &dyn Host) -> Reply {
        self.plain(500, "An unexpected error occurred", None, request, host)
    }

    pub(super) fn headers_too_large(&self, request: &HeaderMap, host: &dyn Host) -> Reply {
        self.plain(431, "Too many request headers", None, request, host)
    }

    pub(super) fn too_large(&self, request: &HeaderMap, host: &dyn Host) -> Reply {
        let most = self.config.metering.most_body;
        let message = format!("The request body is larger than {most} bytes");
        self.plain(413, &message, Some("request_too_large"), request, host)
    }

    /// Who asks has to show who it is.
    pub(super) fn unauthorized(
        &self,
        message: &str,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let problem = Problem {
            status: 401,
            message,
            code: Some("unauthorized"),
            headers: vec![(Cow::Borrowed("WWW-Authenticate"), b"Key".to_vec())],
        };
        self.error(problem, request, host)
    }

    pub(super) fn wrong_method(
        &self,
        allowed: &str,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let problem = Problem {
            status: 405,
            message: "Method not allowed",
            code: Some("method_not_allowed"),
            headers: vec![(Cow::Borrowed("Allow"), allowed.as_bytes().to_vec())],
        };
        self.error(problem, request, host)
    }

    /// What an enquiry gets when counters can't be read.
    pub(super) fn unreachable(&self, request: &HeaderMap, host: &dyn Host) -> Reply {
        let message = "Counters can't be reached";
        self.plain(503, message, Some("counters_unreachable"), request, host)
    }

    /// A refusal by Kong's request limits.
    pub(super) fn too_many_requests(
        &self,
        accounts: &[Account],
        lines: Vec<Line>,
        incoming: &Incoming,
        host: &dyn Host,
    ) -> Reply {
        let Some(requests) = &self.config.requests else {
            return self.unexpected(&incoming.headers, host);
        };
        // Kong can't answer with a status that is no error, and answers that.
        if !(400..600).contains(&requests.error_code) {
            return self.unexpected(&incoming.headers, host);
        }
        let mut headers = owned(lines);
        // As RateLimit-Reset, which is that of the window with the least left.
        let window = accounts
            .last()
            .and_then(|account| Some(account.limits.get(account.tightest()?)?.window));
        if let Some(window) = window
            && !(self.config.kong && self.config.limit_headers.is_empty())
        {
            headers.push(retry_after(window.reset(host.now().as_secs())));
        }
        let problem = Problem {
            status: requests.error_code,
            message: &requests.error_message,
            code: Some("rate_limit_exceeded"),
            headers,
        };
        self.error(problem, &incoming.headers, host)
    }

    /// A refusal by a limit in tokens or money: the last of the accounts refuses.
    pub(super) fn limited(
        &self,
        charges: &[Charge],
        accounts: &[Account],
        lines: Vec<Line>,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let Some((account, rule)) = accounts
            .last()
            .and_then(|account| Some((account, self.rule(account.rule)?)))
        else {
            return self.unexpected(request, host);
        };
        let retry = account.retry_after();
        let charge = charges.iter().find(|charge| charge.rule == account.rule);
        let limit = account
            .tightest()
            .and_then(|index| account.limits.get(index));
        let message = format!(
            "Rate limit '{}' reached: {} of {} {} left, {} requested. Try again in {retry}s.",
            rule.name,
            rule.unit.shown(account.least_left()),
            rule.unit.shown(limit.map_or(0, |limit| limit.most)),
            match rule.unit {
                Unit::Requests => "requests",
                Unit::Total => "tokens",
                Unit::Prompt => "prompt tokens",
                Unit::Completion => "completion tokens",
                Unit::Cost => "of cost",
            },
            rule.unit.shown(charge.map_or(0, |charge| charge.amount)),
        );
        let mut headers = owned(lines);
        headers.push(retry_after(retry));
        let problem = Problem {
            status: 429,
            message: &message,
            code: Some("rate_limit_exceeded"),
            headers,
        };
        self.error(problem, request, host)
    }

    /// A refusal by a limit of requests at once: nobody knows when one of them ends.
    pub(super) fn too_many_at_once(
        &self,
        rule: &str,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let message = format!(
            "Rate limit '{rule}' reached: too many requests at once. Try again when one has ended."
        );
        let problem = Problem {
            status: 429,
            message: &message,
            code: Some("rate_limit_exceeded"),
            headers: vec![retry_after(1)],
        };
        self.error(problem, request, host)
    }

    /// A limit of 0.
    pub(super) fn denied(
        &self,
        model: Option<&str>,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let message = match model {
            Some(_) => "This model is not allowed for you",
            None => "This request is not allowed for you",
        };
        self.plain(403, message, Some("not_allowed"), request, host)
    }

    /// What no window can ever hold.
    pub(super) fn never_fits(
        &self,
        charge: &Charge,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let Some(rule) = self.rule(charge.rule) else {
            return self.unexpected(request, host);
        };
        let most = charge.limits.iter().map(|limit| limit.most).min();
        let message = format!(
            "This request may use {}, and the limit '{}' is {}: ask for fewer completion tokens or shorten the prompt",
            rule.unit.shown(charge.amount),
            rule.name,
            rule.unit.shown(most.unwrap_or_default()),
        );
        self.plain(400, &message, Some("limit_too_small"), request, host)
    }

    /// What is refused before any limit is looked at.
    pub(super) fn rejected(
        &self,
        rejected: &Rejected,
        request: &HeaderMap,
        host: &dyn Host,
    ) -> Reply {
        let (status, message) = match rejected {
            Rejected::Unreadable(refused) => {
                (400, format!("The request can't be counted: {refused}"))
            }
            Rejected::Unmetered(kind) => {
                let word = metering::word(*kind);
                (
                    403,
                    format!("Requests of this kind ({word}) are not allowed here"),
                )
            }
            Rejected::Unknown => (
                403,
                "Requests of this kind are not allowed here".to_owned(),
            ),
            Rejected::Completion(most) => (
                400,
                format!("At most {most} completion tokens may be asked for"),
            ),
            Rejected::Prompt(most) => {
                (413, format!("The prompt may have at most {most} tokens"))
            }
            Rejected::Unbounded => (
                400,
                "The request names content (a file, a stored conversation, a tool of the provider) whose tokens can't be bounded"
                    .to_owned(),
            ),
            Rejected::NoPrice(_) => (400, "The model has no price".to_owned()),
        };
        self.plain(status, &message, Some(rejected.word()), request, host)
    }
}

impl Rejected {
    /// The word for programs.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Rejected::Unreadable(_) => "unreadable_request",
            Rejected::Unmetered(_) | Rejected::Unknown => "unmetered_request",
            Rejected::Completion(_) => "completion_too_large",
            Rejected::Prompt(_) => "prompt_too_large",
            Rejected::Unbounded => "unbounded_prompt",
            Rejected::NoPrice(_) => "model_without_price",
        }
    }
}

fn retry_after(seconds: u64) -> (Cow<'static, str>, Vec<u8>) {
    (
        Cow::Borrowed("Retry-After"),
        seconds.to_string().into_bytes(),
    )
}

fn owned(lines: Vec<Line>) -> Lines {
    lines
        .into_iter()
        .map(|(name, value)| (Cow::Owned(name), value))
        .collect()
}
