//! Why a host can't run a case, whatever the filter does.

use super::HostKind;
use super::case::Case;

/// The reason. None: it can be run.
pub(crate) fn obstacle(case: &Case, host: HostKind) -> Option<&'static str> {
    let tagged = |tag: &str| case.tags.iter().any(|known| known == tag);
    if case.names_route_or_service() {
        return Some("the host has no routes and services with Kong's ids");
    }
    match host {
        HostKind::Sim => None,
        HostKind::Envoy if tagged("virtual-clock") || case.clock.is_some() => {
            Some("Envoy's clock can't be set")
        }
        HostKind::Envoy if tagged("header-case-observable") => {
            Some("Envoy writes header names in lower case")
        }
        HostKind::Envoy => None,
    }
}
