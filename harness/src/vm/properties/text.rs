//! Kong's properties: everything is text.

use super::starting;
use crate::abi::{LogLevel, Status};
use crate::exchange::Exchange;
use crate::vm::Guest;
use crate::vm::memory::Refusal;

/// What `kong.version` reads: the version that the profile models.
const KONG_VERSION: &str = "3.9.1";

/// What `ngx.nginx_version` reads: the core of that Kong.
const NGINX_VERSION: &str = "1.25.3";

/// nginx's variables that can be set and that this host knows.
const VARIABLES: &[&str] = &[
    "ngx.upstream_uri",
    "ngx.upstream_host",
    "ngx.upstream_scheme",
    "ngx.args",
];

/// A path with dots for its NULs, as ngx_wasm_module reads it.
pub(super) fn dotted(path: &[u8]) -> String {
    let path = path.strip_suffix(&[0]).unwrap_or(path);
    let dotted: Vec<u8> = path
        .iter()
        .map(|byte| if *byte == 0 { b'.' } else { *byte })
        .collect();
    String::from_utf8_lossy(&dotted).into_owned()
}

/// Whether a filter may set it.
pub(super) fn settable(path: &str) -> bool {
    path == "request.query" || path.starts_with("kong.ctx.shared.") || VARIABLES.contains(&path)
}

pub(super) fn get(guest: &mut Guest, path: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let path = dotted(path);
    let module = guest.module.clone();
    let now = guest.now();
    if starting(guest.site.callback) {
        // Seen on nginx: it kills the worker.
        return Err(Refusal::Crash(
            "segmentation fault: a property read in on_configure",
        ));
    }
    if guest.seat_id().is_none() && path == "plugin_name" {
        return Ok(Some(module.into_bytes()));
    }
    let Some((exchange, _)) = guest.seat() else {
        return Ok(None);
    };
    if let Some(set) = exchange.properties.get(path.as_bytes()) {
        return Ok(Some(set.clone()));
    }
    let value = known(exchange, &path, now, &module);
    if value.is_none() && unsupported(&path) {
        guest.log(
            LogLevel::Error,
            format!("property not supported: \"{path}\""),
        );
    }
    Ok(value)
}

pub(super) fn set(guest: &mut Guest, path: &[u8], value: Vec<u8>) -> Result<(), Refusal> {
    let path = dotted(path);
    if !settable(&path) {
        return Err(Status::NotFound.into());
    }
    let (exchange, _) = guest.seat().ok_or(Status::NotFound)?;
    // One variable under two names. It changes what filters read, not `$upstream_uri`, which was computed before.
    let key = if path == "request.query" {
        "ngx.args".to_owned()
    } else {
        path
    };
    exchange.properties.insert(key.into_bytes(), value);
    Ok(())
}

fn unsupported(path: &str) -> bool {
    [
        "node",
        "cluster_",
        "listener_",
        "route_",
        "xds",
        "response.flags",
        "filter_state",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

fn known(exchange: &Exchange, path: &str, now: u64, module: &str) -> Option<Vec<u8>> {
    let text = |value: &str| Some(value.as_bytes().to_vec());
    let named = |value: &str| (!value.is_empty()).then(|| value.as_bytes().to_vec());
    let number = |value: u64| Some(value.to_string().into_bytes());
    let headers = &exchange.request.headers;
    let header = |name: &str| headers.get(name).map(|value| value.to_vec());
    let raw = || exchange.properties.get(&b"ngx.request_uri"[..]).cloned();
    match path {
        "plugin_name" => text(module),
        "plugin_root_id" => text("0"),
        "kong.version" => text(KONG_VERSION),
        "kong.client.protocol" => text(&exchange.peer.scheme),
        "kong.route_id" => named(&exchange.destination.route),
        "kong.service_id" => named(&exchange.destination.service),
        "kong.nginx.subsystem" => text("http"),
        "ngx.nginx_version" => text(NGINX_VERSION),
        "ngx.request_id" | "ngx.kong_request_id" | "request.id" => text(&exchange.request_id),
        "request.path" => raw(),
        "request.query" | "ngx.args" | "ngx.query_string" => {
            if let Some(args) = exchange.properties.get(&b"ngx.args"[..]) {
                return Some(args.clone());
            }
            let raw = raw()?;
            let at = raw.iter().position(|byte| *byte == b'?')?;
            raw.get(at + 1..).map(<[u8]>::to_vec)
        }
        "request.url_path" | "ngx.uri" => {
            let path = headers.get(":path")?;
            let end = path
                .iter()
                .position(|byte| *byte == b'?')
                .unwrap_or(path.len());
            Some(path.slice(..end).to_vec())
        }
        "request.method" | "ngx.request_method" => header(":method"),
        "request.scheme" | "ngx.scheme" => header(":scheme"),
        // The name of the machine, whatever the Host.
        "request.host" => text("kong"),
        "ngx.host" | "ngx.http_host" => header("host"),
        "request.protocol" | "ngx.server_protocol" => text(&exchange.peer.protocol),
        "request.useragent" => header("user-agent"),
        "request.referer" => header("referer"),
        "request.time" => text(&seconds(exchange.started_unix_nanos)),
        "request.duration" => text(&seconds(now.saturating_sub(exchange.started_unix_nanos))),
        "request.size" => number(exchange.request.received),
        "response.code" | "ngx.status" if exchange.response.begun => exchange
            .response
            .headers
            .get(":status")
            .map(|status| status.to_vec()),
        "response.size" if exchange.response.begun => number(exchange.response.received),
        "source.address" | "ngx.remote_addr" => text(&exchange.peer.source.ip().to_string()),
        "source.port" | "ngx.remote_port" => number(exchange.peer.source.port().into()),
        "connection.id" => text("1"),
        _ => path
            .strip_prefix("request.headers.")
            .and_then(header)
            .or_else(|| {
                let name = path.strip_prefix("response.headers.")?;
                exchange
                    .response
                    .headers
                    .get(name)
                    .map(|value| value.to_vec())
            })
            .or_else(|| header(&path.strip_prefix("ngx.http_")?.replace('_', "-"))),
    }
}

/// Seconds and milliseconds, as nginx writes times.
fn seconds(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000_000_000, nanos / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::{dotted, settable};

    #[test]
    fn paths_in_parts_and_with_dots_are_the_same() {
        assert_eq!(dotted(b"kong\0version"), "kong.version");
        assert_eq!(dotted(b"kong.version"), "kong.version");
    }

    #[test]
    fn only_some_properties_can_be_set() {
        assert!(settable("kong.ctx.shared.consumer"));
        assert!(settable("ngx.upstream_uri"));
        assert!(!settable("tollgate.identity"));
        assert!(!settable("ngx.request_uri"));
    }
}
