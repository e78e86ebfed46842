//! A filter that does nothing. Measured beside a real one, it tells what that one costs.

use tollgate_kit::config::{Configuration, Reader};
use tollgate_kit::host::{Failure, Host, HostKind};
use tollgate_kit::metric::Metric;
use tollgate_kit::step::RequestStep;
use tollgate_kit::{Exchange, Fallback, Filter, record};

record! {
    /// No settings.
    pub struct Nothing {
        /// Where it runs.
        pub host: Option<HostKind>,
    }
}

impl Configuration for Nothing {
    type Raw = Nothing;

    fn validate(raw: Nothing, _reader: &mut Reader<'_>) -> Option<Nothing> {
        Some(raw)
    }
}

/// Nothing, and one request through it.
pub struct Noop;

impl Filter for Noop {
    const NAME: &'static str = "noop";
    const METRICS: &'static [Metric] = &[];

    type Config = Nothing;
    type Exchange = Noop;

    fn new(_config: Nothing) -> Noop {
        Noop
    }

    fn host_kind(&self) -> Option<HostKind> {
        Some(HostKind::Envoy)
    }

    fn exchange(&self) -> Noop {
        Noop
    }
}

impl Exchange<Noop> for Noop {
    fn request_headers(&mut self, _filter: &mut Noop, _host: &dyn Host) -> RequestStep {
        RequestStep::unchanged()
    }

    fn host_failed(&mut self, _filter: &mut Noop, _failure: Failure, _host: &dyn Host) -> Fallback {
        Fallback::Continue
    }
}

tollgate_kit::export!(crate::Noop);
