//! Why a host can't run a case, whatever the filter does.

use super::HostKind;
use super::case::Case;

/// The reason. None: it can be run.
pub(crate) fn obstacle(case: &Case, host: HostKind) -> Option<&'static str> {
    let tagged = |tag: &str| case.tags.iter().any(|known| known == tag);
    match host {
        HostKind::Sim => None,
        HostKind::Envoy if case.changes_route_or_service() => {
            Some("a listener of this Envoy has one route and one cluster")
        }
        HostKind::Envoy if tagged("virtual-clock") => Some("Envoy's clock can't be set"),
        HostKind::Envoy if tagged("header-case-observable") => {
            Some("Envoy writes header names in lower case")
        }
        HostKind::Envoy => None,
    }
}
