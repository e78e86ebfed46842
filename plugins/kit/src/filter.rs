//! What a filter is.

use crate::config::Configuration;
use crate::host::{Failure, Host, HostKind};
use crate::metric::Metric;
use crate::reply::Reply;
use crate::step::{Body, Call, CallOutcome, RequestStep, ResponseStep, StreamStep};
use std::time::Duration;

/// A filter with its configuration: what lives as long as the configuration does. One a worker and configuration, so
/// nothing in it needs a lock, and nothing in it is shared with another worker.
pub trait Filter: Sized + 'static {
    /// The filter's name as Kong spells it, such as `key-auth`.
    const NAME: &'static str;
    /// What it counts.
    const METRICS: &'static [Metric];
    /// Its validated configuration.
    type Config: Configuration;
    /// Its part in one request.
    type Exchange: Exchange<Self>;

    /// The filter with this configuration.
    fn new(config: Self::Config) -> Self;

    /// Where it runs, by its configuration; `None` lets the shell find out on the first request.
    fn host_kind(&self) -> Option<HostKind>;

    /// A new request begins.
    fn exchange(&self) -> Self::Exchange;

    /// How often [`Filter::tick`] is to be called; fixed, because Kong can't change it.
    fn tick_period(&self) -> Option<Duration> {
        None
    }

    /// The period has passed. May make one call.
    fn tick(&mut self, host: &dyn Host) -> Option<Call> {
        let _ = host;
        None
    }

    /// What became of the call that [`Filter::tick`] made.
    fn call_done(&mut self, outcome: CallOutcome, host: &dyn Host) {
        let _ = (outcome, host);
    }
}

/// A filter's part in one request and its response. The methods are called in this order, each at most as often as it says.
pub trait Exchange<F> {
    /// The head of the request is there. Once.
    fn request_headers(&mut self, filter: &mut F, host: &dyn Host) -> RequestStep;

    /// The body that [`RequestStep::HoldForBody`] asked for. Once; on Kong once more where a request that announced no body
    /// has one after all.
    fn request_body(&mut self, filter: &mut F, body: Body<'_>, host: &dyn Host) -> RequestStep {
        let _ = (filter, body, host);
        RequestStep::unchanged()
    }

    /// What became of the call of [`RequestStep::Call`]. Once a call.
    fn call_done(&mut self, filter: &mut F, outcome: CallOutcome, host: &dyn Host) -> RequestStep {
        let _ = (filter, outcome, host);
        RequestStep::unchanged()
    }

    /// The host did not do what the last step asked for (or can't run the filter at all). The request has not gone on, or
    /// with part of the changes. What now is the filter's own rule.
    fn host_failed(&mut self, filter: &mut F, failure: Failure, host: &dyn Host) -> Fallback;

    /// The head of the response is there. Once, if ever.
    fn response_headers(&mut self, filter: &mut F, host: &dyn Host) -> ResponseStep {
        let _ = (filter, host);
        ResponseStep::unchanged()
    }

    /// A chunk of the response, after [`ResponseStep::Stream`]. `end` marks the last one, which may be empty.
    fn response_chunk(
        &mut self,
        filter: &mut F,
        chunk: &[u8],
        end: bool,
        host: &dyn Host,
    ) -> StreamStep {
        let _ = (filter, chunk, end, host);
        StreamStep::Pass
    }

    /// A chunk of the response that passes as it is, after [`ResponseStep::Watch`]. `end` marks the last one, which may be empty.
    fn response_passed(&mut self, filter: &mut F, chunk: &[u8], end: bool, host: &dyn Host) {
        let _ = (filter, chunk, end, host);
    }

    /// The whole body, after [`ResponseStep::Hold`]: what goes to the client instead; `None` leaves it as it is.
    fn response_body(&mut self, filter: &mut F, body: &[u8], host: &dyn Host) -> Option<Vec<u8>> {
        let _ = (filter, body, host);
        None
    }

    /// The body that [`ResponseStep::Hold`] kept back has grown past what was to be kept, and passes unchanged. Once, instead of
    /// [`Exchange::response_body`].
    fn response_too_large(&mut self, filter: &mut F, host: &dyn Host) {
        let _ = (filter, host);
    }

    /// The request is over, however it ended. Once, always.
    fn log(&mut self, filter: &mut F, host: &dyn Host) {
        let _ = (filter, host);
    }
}

/// What happens to a request when the host fails the filter.
#[derive(Debug)]
#[must_use]
pub enum Fallback {
    /// It goes on as it is (open).
    Continue,
    /// It ends with this answer (closed).
    Reply(Reply),
}
