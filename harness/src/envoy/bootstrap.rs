use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Besides, Filter, Listener, Tuning};
use crate::worker::FailurePolicy;

/// The static part of the configuration: clusters, administration, and where the listeners stand. They stand in their
/// own file, since Envoy takes or refuses each one of a discovered list, but only the whole of a static one.
pub(super) fn bootstrap(
    listeners_file: &Path,
    listeners: &[Listener],
    services: &[SocketAddr],
) -> Value {
    let upstreams: BTreeSet<SocketAddr> =
        listeners.iter().map(|listener| listener.upstream).collect();
    let upstreams = upstreams
        .into_iter()
        .map(|upstream| cluster(&cluster_name(upstream), upstream));
    let services = services.iter().map(|service| grpc_cluster(*service));
    json!({
        "node": {"id": "tollgate", "cluster": "tollgate"},
        "admin": {"address": loopback(0)},
        "dynamic_resources": {"lds_config": {"path_config_source": {"path": listeners_file}}},
        "static_resources": {"clusters": upstreams.chain(services).collect::<Vec<_>>()},
    })
}

/// The discovered part: the listeners.
pub(super) fn listeners(listeners: &[Listener], besides: &Besides<'_>) -> Value {
    let resources: Vec<_> = listeners.iter().map(|one| listener(one, besides)).collect();
    json!({"resources": resources})
}

fn loopback(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// The name of the cluster that stands for an upstream: what a filter calls.
pub fn cluster_name(upstream: SocketAddr) -> String {
    format!("upstream-{}", upstream.port())
}

/// The name of the cluster that stands for a gRPC service.
pub fn grpc_cluster_name(service: SocketAddr) -> String {
    format!("grpc-{}", service.port())
}

fn grpc_cluster(service: SocketAddr) -> Value {
    let mut cluster = cluster(&grpc_cluster_name(service), service);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

fn cluster(name: &str, upstream: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": upstream.ip().to_string(), "port_value": upstream.port(),
            }}}}]}],
        },
    })
}

/// A listener that adds as little of Envoy's own as can be, so that what arrives is what the filters made.
fn listener(listener: &Listener, besides: &Besides<'_>) -> Value {
    let filters = listener.filters.iter();
    let filters = filters.map(|one| filter(one, &(besides.tune)(one)));
    let native = besides.native.get(&listener.name).cloned();
    let mut http_filters: Vec<Value> = native.into_iter().chain(filters).collect();
    http_filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    }));
    let mut listener_filters = Vec::new();
    if listener.proxy_protocol {
        listener_filters.push(json!({
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            },
        }));
    }
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": listener.name,
        "address": loopback(0),
        "listener_filters": listener_filters,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "ingress",
                "codec_type": "HTTP1",
                "generate_request_id": false,
                "server_header_transformation": "PASS_THROUGH",
                "skip_xff_append": true,
                "http_protocol_options": {"accept_http_10": true, "enable_trailers": true},
                "http_filters": http_filters,
                "route_config": {
                    "name": "local",
                    "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{
                            "match": {"prefix": "/"},
                            "route": {"cluster": cluster_name(listener.upstream), "timeout": "15s"},
                        }],
                    }],
                },
            },
        }]}],
    })
}

fn filter(filter: &Filter, tuning: &Tuning) -> Value {
    let mut config = json!({
        "name": filter.name,
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": filter.configuration,
        },
        "vm_config": {
            "vm_id": filter.vm_id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": filter.module}},
            "environment_variables": {"key_values": tuning.environment},
        },
        "failure_policy": match tuning.failure_policy {
            FailurePolicy::Closed => "FAIL_CLOSED",
            FailurePolicy::Open => "FAIL_OPEN",
            FailurePolicy::Reload => "FAIL_RELOAD",
        },
        "allow_on_headers_stop_iteration": tuning.headers_stop_iteration,
    });
    if let Some(back_off) = tuning.reload_back_off {
        let interval = format!("{}.{:09}s", back_off.as_secs(), back_off.subsec_nanos());
        config["reload_config"] = json!({"backoff": {"base_interval": interval}});
    }
    json!({
        "name": filter.name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": config,
        },
    })
}
