//! A proxy in front of one upstream, which is in the test's hand.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tollgate_harness::catalog::Search;
use tollgate_harness::proxy::{Config, Proxy};

use super::get;

/// A running proxy with one listener, one route for `/v1` and one cluster.
pub(crate) struct Gateway {
    proxy: Proxy,
}

/// An upstream that does what the test tells it.
pub(crate) fn upstream() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Gateway {
    /// With the defaults.
    pub(crate) fn to(upstream: SocketAddr) -> Self {
        Self::with(upstream, "", "", "")
    }

    /// With options of the listener, the cluster and the route, as they stand between braces in YAML.
    pub(crate) fn with(upstream: SocketAddr, listener: &str, cluster: &str, route: &str) -> Self {
        Self::at(
            &upstream.to_string(),
            Path::new("."),
            listener,
            cluster,
            route,
        )
    }

    /// One that gives open requests as long as they need when it is dropped; the others end them.
    pub(crate) fn patient(upstream: SocketAddr, cluster: &str) -> Self {
        Self::start(
            &upstream.to_string(),
            Path::new("."),
            ["", cluster, ""],
            20.0,
        )
    }

    /// The same in front of `host:port`, with files that lie in `base`.
    pub(crate) fn at(
        upstream: &str,
        base: &Path,
        listener: &str,
        cluster: &str,
        route: &str,
    ) -> Self {
        Self::start(upstream, base, [listener, cluster, route], 0.2)
    }

    fn start(upstream: &str, base: &Path, options: [&str; 3], time_to_stop: f64) -> Self {
        let [listener, cluster, route] = options.map(|options| {
            let comma = if options.is_empty() { "" } else { ", " };
            format!("{comma}{options}")
        });
        let yaml = format!(
            "{{access_log: false, workers: 1, shutdown_timeout: {time_to_stop}, admin: {{address: '127.0.0.1:0'}},
              listeners: [{{address: '127.0.0.1:0'{listener}}}], routes: [{{prefix: /v1, cluster: llm{route}}}],
              clusters: {{llm: {{endpoints: ['{upstream}']{cluster}}}}}}}"
        );
        let checked = Config::read(&yaml, base, &Search::from_here(None));
        let config = checked
            .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
            .config;
        Self {
            proxy: Proxy::start(config).unwrap(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    /// Whether a line stands in the metrics.
    pub(crate) fn metric(&self, line: &str) -> bool {
        let metrics = get(self.proxy.admin_address().unwrap(), "/metrics");
        metrics.text().lines().any(|present| present == line)
    }
}

/// What is wrong with a configuration.
pub(crate) fn mistakes(base: &Path, yaml: &str) -> String {
    let read = Config::read(yaml, base, &Search::from_here(None));
    read.map(drop).unwrap_err().to_string()
}
