//! Which route a request takes.
//!
//! Where several match, the most specific one is taken, by the order that Kubernetes' Gateway API prescribes for
//! `HTTPRoute`: a host before a wildcard before none, a longer wildcard first; an exact path before a prefix, a longer
//! prefix first; one that names methods; one that names more headers; then the one that is written first.

use std::cmp::Reverse;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::http::Headers;

/// What a route does with a request.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Sends it to one of these, by weight: indices into the clusters.
    Clusters(Vec<(usize, u32)>),
    /// Answers it.
    Direct { status: StatusCode, body: Bytes },
}

/// Where some requests go.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Names it in the log.
    pub(super) name: String,
    pub(super) matching: Matching,
    pub(super) target: Target,
    /// What stands upstream in the place of the matched path.
    pub(super) prefix_rewrite: Option<String>,
    /// The Host that the upstream sees.
    pub(super) host_rewrite: Option<String>,
    /// Indices into the filters.
    pub(super) filters: Vec<usize>,
    /// The protocols that clients may change to.
    pub(super) upgrades: Vec<String>,
}

/// Which requests a route takes. All of it has to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matching {
    /// None: any host.
    pub(super) host: Option<Host>,
    pub(super) path: Path,
    /// Empty: any method.
    pub(super) methods: Vec<Method>,
    pub(super) headers: Vec<Header>,
}

/// A host without its port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Exact(String),
    /// What stands behind the `*` of `*.example.com`, with its dot.
    Under(String),
}

/// A path as it is written in the request, without its query: nothing in it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Exact(String),
    /// Ends at a slash or the path's end: `/v1` takes `/v1` and `/v1/x`, not `/v10`.
    Prefix(String),
}

/// A header that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// In lower case.
    pub(super) name: String,
    /// None: any value. One of several lines with the name is enough.
    pub(super) exact: Option<String>,
}

impl Matching {
    fn takes(&self, request: &Request<'_>) -> bool {
        self.path.takes(request.path)
            && (self.methods.is_empty()
                || self
                    .methods
                    .iter()
                    .any(|method| method.as_str().as_bytes() == request.method))
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.takes(request.host))
            && self.headers.iter().all(|header| {
                request.headers.get_all(&header.name).any(|value| {
                    header
                        .exact
                        .as_ref()
                        .is_none_or(|exact| exact.as_bytes() == value.as_ref())
                })
            })
    }

    /// Sorts the most specific first.
    fn rank(&self) -> impl Ord + use<> {
        let host = match &self.host {
            Some(Host::Exact(_)) => (2, 0),
            Some(Host::Under(suffix)) => (1, suffix.len()),
            None => (0, 0),
        };
        let path = match &self.path {
            Path::Exact(_) => (1, 0),
            Path::Prefix(prefix) => (0, prefix.len()),
        };
        Reverse((host, path, !self.methods.is_empty(), self.headers.len()))
    }
}

impl Host {
    fn takes(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => host.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Under(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|label| *label > 0)
                .and_then(|label| host.get(label..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes())),
        }
    }
}

impl Path {
    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            }),
        }
    }

    fn text(&self) -> &str {
        let (Self::Exact(text) | Self::Prefix(text)) = self;
        text
    }
}

/// What routes look at.
struct Request<'a> {
    method: &'a [u8],
    host: &'a [u8],
    path: &'a str,
    headers: &'a Headers,
}

impl<'a> Request<'a> {
    fn of(headers: &'a Headers) -> Self {
        let authority = headers.get(":authority").or_else(|| headers.get("host"));
        let target = headers.get_str(":path").unwrap_or_default();
        Self {
            method: headers.get(":method").map_or(b"", AsRef::as_ref),
            host: authority.map_or(b"", |authority| without_port(authority)),
            path: target.split(['?', '#']).next().unwrap_or(target),
            headers,
        }
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let bracket = authority.iter().rposition(|byte| *byte == b']');
    match (colon, bracket) {
        // [::1] without a port.
        (Some(colon), Some(bracket)) if colon < bracket => authority,
        (Some(colon), _) => authority.get(..colon).unwrap_or(authority),
        (None, _) => authority,
    }
}

/// Puts the most specific first; those that are equally specific stay in their order.
pub(super) fn sort(routes: &mut [Route]) {
    routes.sort_by_key(|route| route.matching.rank());
}

/// The first of the sorted routes that takes a request with these header lines: its index.
pub(super) fn select(routes: &[Route], headers: &Headers) -> Option<usize> {
    let request = Request::of(headers);
    routes
        .iter()
        .position(|route| route.matching.takes(&request))
}

impl Route {
    /// Gives a request the path and the host that the upstream is to see.
    pub(super) fn rewrite(&self, headers: &mut Headers) {
        if let Some(rewrite) = &self.prefix_rewrite
            && let Some(target) = headers.get_str(":path")
            && let Some(rest) = target.strip_prefix(self.matching.path.text())
        {
            // "/v1" to "/" makes "/x" of "/v1/x", not "//x"; "/v1/" to "/api" makes "/api/x" of "/v1/x".
            let rest = match (rewrite.ends_with('/'), rest.strip_prefix('/')) {
                (true, Some(rest)) => rest.to_owned(),
                (false, None) if !rest.is_empty() && !rest.starts_with('?') => format!("/{rest}"),
                _ => rest.to_owned(),
            };
            headers.set(":path", format!("{rewrite}{rest}"));
        }
        if let Some(host) = &self.host_rewrite {
            headers.set(":authority", host.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, path: Path) -> Route {
        Route {
            name: name.to_owned(),
            matching: Matching {
                host: None,
                path,
                methods: Vec::new(),
                headers: Vec::new(),
            },
            target: Target::Clusters(Vec::new()),
            prefix_rewrite: None,
            host_rewrite: None,
            filters: Vec::new(),
            upgrades: Vec::new(),
        }
    }

    fn prefix(text: &str) -> Path {
        Path::Prefix(text.to_owned())
    }

    fn request(method: &str, host: &str, path: &str) -> Headers {
        [
            (":method", method),
            (":authority", host),
            (":path", path),
            ("x-tier", "free"),
            ("x-tier", "gold"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn the_most_specific_route_is_taken_wherever_it_is_written() {
        let mut routes = vec![
            route("all", prefix("/")),
            route("v1", prefix("/v1")),
            route("exact", Path::Exact("/v1/models".to_owned())),
            route("get", prefix("/v1")),
            route("gold", prefix("/v1")),
            route("any tier", prefix("/v1")),
            route("host", prefix("/")),
            route("wildcard", prefix("/")),
            route("long wildcard", prefix("/")),
        ];
        let header = |exact: Option<&str>| Header {
            name: "x-tier".to_owned(),
            exact: exact.map(str::to_owned),
        };
        routes[3].matching.methods = vec![Method::GET];
        routes[4].matching.headers = vec![header(Some("gold")), header(None)];
        routes[5].matching.headers = vec![header(None)];
        routes[6].matching.host = Some(Host::Exact("a.example".to_owned()));
        routes[7].matching.host = Some(Host::Under(".example".to_owned()));
        routes[8].matching.host = Some(Host::Under(".b.example".to_owned()));
        sort(&mut routes);
        let taken = |method: &str, host: &str, path: &str| {
            select(&routes, &request(method, host, path)).map(|route| routes[route].name.as_str())
        };
        assert_eq!(taken("PUT", "h", "/x"), Some("all"));
        assert_eq!(taken("PUT", "h", "/v10"), Some("all"));
        assert_eq!(taken("GET", "h", "/v1/x?a=/v1/models"), Some("get"));
        assert_eq!(taken("PUT", "h", "/v1"), Some("gold"));
        assert_eq!(taken("PUT", "h", "/v1/models?a"), Some("exact"));
        assert_eq!(taken("GET", "A.example:8080", "/v1/models"), Some("host"));
        assert_eq!(
            taken("GET", "c.b.example", "/v1/models"),
            Some("long wildcard")
        );
        assert_eq!(taken("GET", "c.example", "/v1/models"), Some("wildcard"));
        assert_eq!(taken("GET", ".example", "/x"), Some("all"));
        assert_eq!(taken("GET", "[::1]", "/x"), Some("all"));
        let bare = [(":method", "PUT"), (":path", "/v1")].into_iter().collect();
        assert_eq!(
            select(&routes, &bare).map(|route| routes[route].name.as_str()),
            Some("v1")
        );
    }

    #[test]
    fn what_is_rewritten_is_the_matched_path_and_the_host() {
        for (path, rewrite, target, expected) in [
            (prefix("/v1"), "/api/v2", "/v1/x?q=/v1", "/api/v2/x?q=/v1"),
            (prefix("/v1"), "/", "/v1/x", "/x"),
            (prefix("/v1"), "/", "/v1?q", "/?q"),
            (prefix("/v1/"), "/api", "/v1/x", "/api/x"),
            (prefix("/v1/"), "/api", "/v1/", "/api"),
            (prefix("/"), "/api", "/x", "/api/x"),
            (
                Path::Exact("/health".to_owned()),
                "/healthz",
                "/health?full",
                "/healthz?full",
            ),
        ] {
            let mut headers = request("GET", "a", target);
            let mut route = route("it", path);
            route.prefix_rewrite = Some(rewrite.to_owned());
            route.host_rewrite = Some("upstream.example".to_owned());
            route.rewrite(&mut headers);
            assert_eq!(headers.get_str(":path"), Some(expected), "{target}");
            assert_eq!(headers.get_str(":authority"), Some("upstream.example"));
        }
    }
}
