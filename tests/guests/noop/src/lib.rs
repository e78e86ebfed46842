//! A filter that does nothing. What a request costs with it is the price of the boundary and of the kit's shell; what
//! another filter costs more is its own.

use tollgate_kit::config::{Configuration, Reader};
use tollgate_kit::host::{Failure, Host, HostKind};
use tollgate_kit::metric::Metric;
use tollgate_kit::step::RequestStep;
use tollgate_kit::{Exchange, Fallback, Filter, record};

record! {
    /// Nothing can be set.
    pub struct RawConfig {}
}

/// No configuration.
#[derive(Clone, Copy, Debug)]
pub struct Config;

impl Configuration for Config {
    type Raw = RawConfig;

    fn validate(_raw: RawConfig, _reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self)
    }
}

/// The filter.
#[derive(Debug)]
pub struct Noop;

impl Filter for Noop {
    const NAME: &'static str = "noop";
    const METRICS: &'static [Metric] = &[];
    type Config = Config;
    type Exchange = Passing;

    fn new(_config: Config) -> Self {
        Self
    }

    fn host_kind(&self) -> Option<HostKind> {
        Some(HostKind::Envoy)
    }

    fn exchange(&self) -> Passing {
        Passing
    }
}

/// A request on its way through.
#[derive(Debug)]
pub struct Passing;

impl Exchange<Noop> for Passing {
    fn request_headers(&mut self, _filter: &mut Noop, _host: &dyn Host) -> RequestStep {
        RequestStep::unchanged()
    }

    fn host_failed(&mut self, _filter: &mut Noop, _failure: Failure, _host: &dyn Host) -> Fallback {
        Fallback::Continue
    }
}

tollgate_kit::export!(Noop);
