//! The answer to a request for which something was reserved, and the settlement.

use super::TokenRateLimit;
use crate::headers;
use crate::ledger::Held;
use crate::metering::{self, Demand, Ending};
use crate::rule::Unit;
use tollgate_kit::host::Host;
use tollgate_kit::step::{ResponseEdits, ResponseStep, StreamStep};
use tollgate_llm::{Output, Stream, Usage};

/// An unfinished event of a stream waits for its end up to this size, in bytes.
const HOLD: usize = 64 * 1024;

/// What was reserved for a request, and its answer as far as it has come.
#[derive(Debug)]
pub(super) struct Answering {
    demand: Demand,
    pub(super) held: Vec<Held>,
    stream: Stream,
    /// Whether the client may get something else than what came.
    edits: bool,
    cutoff: bool,
    /// `None` until the head of an answer has come.
    status: Option<u16>,
    from_cache: bool,
    /// The upstream has said all it had to say.
    ended: bool,
}

impl Answering {
    /// `can_edit` tells whether the request could be changed, so that its answer has usage the client may not have asked for.
    pub(super) fn new(demand: Demand, held: Vec<Held>, can_edit: bool, cutoff: bool) -> Answering {
        let hide = demand.hide_usage && can_edit;
        let request = demand.request.as_ref();
        let cutoff = cutoff && request.is_some_and(|request| request.stream);
        let edits = hide || cutoff;
        Answering {
            demand,
            held,
            stream: if edits {
                Stream::edited(HOLD, hide)
            } else {
                Stream::watched()
            },
            edits,
            cutoff,
            status: None,
            from_cache: false,
            ended: false,
        }
    }

    /// The head of the answer.
    pub(super) fn begin(
        &mut self,
        filter: &TokenRateLimit,
        edits: ResponseEdits,
        host: &dyn Host,
    ) -> ResponseStep {
        let headers = host.response_headers().unwrap_or_default();
        let status = headers
            .first(":status")
            .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        self.status = Some(status.unwrap_or_default());
        let hit = headers
            .first("x-cache-status")
            .is_some_and(|status| status.eq_ignore_ascii_case(b"hit"));
        self.from_cache = hit && !filter.config.metering.charge_cache_hits;
        if self.is_free() {
            ResponseStep::Continue(edits)
        } else if self.edits {
            ResponseStep::Stream(edits)
        } else {
            ResponseStep::Watch(edits)
        }
    }

    /// Whether nothing is charged for it, by what its head says.
    fn is_free(&self) -> bool {
        self.from_cache || self.status.is_some_and(|status| status >= 400)
    }

    /// More of the answer.
    pub(super) fn chunk(&mut self, filter: &TokenRateLimit, chunk: &[u8], end: bool) -> StreamStep {
        let mut output = self.stream.feed(chunk);
        if end {
            self.ended = true;
            let rest = self.stream.end();
            append(&mut output, chunk, &rest);
        } else if self.cutoff && !self.stream.is_cut() {
            let (completion, over) = self.progress(filter);
            if over {
                let last = self.stream.cut(self.demand.api, completion);
                append(&mut output, chunk, &last);
            }
        }
        match output {
            Output::Pass => StreamStep::Pass,
            Output::Replace(bytes) if bytes.is_empty() => StreamStep::Swallow,
            Output::Replace(bytes) => StreamStep::Replace(bytes),
        }
    }

    /// The completion tokens so far, and whether more has been used than was reserved.
    fn progress(&self, filter: &TokenRateLimit) -> (u64, bool) {
        let calibration = filter.learned.of(self.demand.model.as_deref());
        let (usage, _) = metering::used(&self.demand, self.stream.answer(), false, &calibration);
        let over = self.held.iter().any(|held| {
            let rule = filter.rule(held.rule);
            let used = rule.map(|rule| rule.unit.of(&usage, self.demand.price.as_ref()));
            used.is_some_and(|used| used > held.amount)
        });
        (usage.completion.unwrap_or_default(), over)
    }

    /// Charges what it really came to.
    pub(super) fn settle(self, filter: &mut TokenRateLimit, host: &dyn Host) {
        let requested = self.demand.model.as_deref();
        let answer = self.stream.answer();
        let complete = self.ended || self.stream.is_complete();
        let (usage, ending) = if self.is_free() {
            (Usage::default(), Ending::Free)
        } else {
            metering::used(
                &self.demand,
                answer,
                complete,
                &filter.learned.of(requested),
            )
        };
        if ending == Ending::Told
            && let (Some(sizes), Some(prompt)) = (&self.demand.sizes, usage.prompt)
        {
            filter.learned.learn(requested, sizes, prompt, host);
        }
        // The model that answered is the one that is paid for.
        let pricing = &filter.config.metering.pricing;
        let price = answer
            .model()
            .and_then(|model| pricing.price(model))
            .copied()
            .or(self.demand.price);
        let mut lost = false;
        let now = host.now().as_secs();
        for held in &self.held {
            let Some(unit) = filter.rule(held.rule).map(|rule| rule.unit) else {
                continue;
            };
            let actual = match (unit, ending) {
                (Unit::Requests, _) => 1,
                (_, Ending::Free) => 0,
                (unit, _) => unit.of(&usage, price.as_ref()),
            };
            lost |= !filter.settle(held, actual, now, host);
            let over = actual.saturating_sub(held.amount);
            if over > 0 && headers::is_tokens(unit) {
                host.count("tollgate_token_rate_limit_overshoot", over);
            }
        }
        let settled = match ending {
            _ if lost => "tollgate_token_rate_limit_settled;result=lost",
            Ending::Told => "tollgate_token_rate_limit_settled;result=told",
            Ending::Estimated => "tollgate_token_rate_limit_settled;result=estimated",
            Ending::Aborted => "tollgate_token_rate_limit_settled;result=aborted",
            Ending::Free => "tollgate_token_rate_limit_settled;result=free",
        };
        host.count(settled, 1);
        count_tokens(&usage, host);
    }
}

fn count_tokens(usage: &Usage, host: &dyn Host) {
    for (metric, tokens) in [
        ("tollgate_token_rate_limit_tokens;kind=prompt", usage.prompt),
        (
            "tollgate_token_rate_limit_tokens;kind=cached",
            usage.cached_prompt,
        ),
        (
            "tollgate_token_rate_limit_tokens;kind=completion",
            usage.completion,
        ),
        (
            "tollgate_token_rate_limit_tokens;kind=reasoning",
            usage.reasoning,
        ),
    ] {
        if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
            host.count(metric, tokens);
        }
    }
}

/// Puts bytes behind what a chunk has become.
fn append(output: &mut Output, chunk: &[u8], bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    match output {
        Output::Pass => *output = Output::Replace([chunk, bytes].concat()),
        Output::Replace(all) => all.extend_from_slice(bytes),
    }
}
