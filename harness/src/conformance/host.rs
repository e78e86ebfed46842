//! What a case runs on.

use super::adapter::Setup;
use super::case::{Case, Request, Step, Upstream};
use super::delivery::Delivery;
use super::observed::Observed;

/// A gateway with our filters that cases can be sent through.
pub(crate) trait Host {
    /// The ways in which bodies can be cut here.
    fn deliveries(&self, case: &Case) -> Vec<Delivery>;

    /// A gateway in which nothing has happened yet, set up for one case. It answers the case's steps in their order.
    ///
    /// # Errors
    /// Fails when a filter doesn't accept its configuration.
    fn open(&mut self, setup: &Setup) -> Result<Box<dyn Gateway + '_>, GatewayError>;
}

/// A gateway that is set up for one case.
pub(crate) trait Gateway {
    /// Runs one step, waiting before it as the step says.
    ///
    /// # Errors
    /// Fails when the client gets no complete answer.
    fn run(&mut self, exchange: &Exchange<'_>) -> Result<Observed, GatewayError>;
}

/// What a gateway needs to know of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    /// Time that passes before it, in milliseconds.
    pub(crate) sleep_ms: u64,
    /// What the client sends.
    pub(crate) request: &'a Request,
    /// The route and the service that the request belongs to, by their ids; empty where the case does not say.
    pub(crate) route: &'a str,
    pub(crate) service: &'a str,
    /// What the upstream answers.
    pub(crate) upstream: &'a Upstream,
    /// In which pieces bodies come.
    pub(crate) delivery: Delivery,
}

impl<'a> Exchange<'a> {
    /// The step of this number of a case.
    pub(crate) fn of(case: &'a Case, index: usize, step: &'a Step, delivery: Delivery) -> Self {
        let before = case.steps.get(..=index).unwrap_or(&case.steps);
        let route = before.iter().rev().find_map(|step| step.route.as_ref());
        let service = before.iter().rev().find_map(|step| step.service.as_ref());
        let route = route
            .or(case.route.as_ref())
            .and_then(|route| route.id.as_deref());
        let service = service
            .or(case.service.as_ref())
            .and_then(|service| service.id.as_deref());
        Self {
            sleep_ms: step.sleep_ms,
            request: &step.request,
            route: route.unwrap_or_default(),
            service: service.unwrap_or_default(),
            upstream: step.upstream.as_ref().unwrap_or(&case.upstream),
            delivery,
        }
    }
}

/// Why a gateway didn't do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Occurs when a filter refuses its configuration, or can't be started.
    #[error("not started: {0:#}")]
    Start(anyhow::Error),
    /// Occurs when the client gets no complete answer.
    #[error("no answer: {0:#}")]
    NoAnswer(anyhow::Error),
    /// Occurs when the upstream gets more than one request in a step.
    #[error("the upstream was called {0} times")]
    RepeatedCall(usize),
}
