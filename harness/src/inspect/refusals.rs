//! What hosts would refuse.

use super::{Refusal, Severity};
use crate::abi::{ABI_MARKER, HOSTCALLS};
use crate::profile::{Host, Profile};
use crate::vm::knows_wasi;

/// Kong's bundled plugins whose names a filter must not have: with `plugins = bundled` Kong then does not start.
const KONG_PLUGINS: &[&str] = &[
    "acl",
    "acme",
    "ai-azure-content-safety",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// The callbacks without which ngx_wasm_module does not take a module.
const KONG_NEEDS: &[&str] = &[
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
];

/// Everything that is wrong with a module, worst first.
pub(super) fn of(
    name: &str,
    abi: &[String],
    exports: &[String],
    imports: &[(String, String)],
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut note = |hosts: &[Host], severity, what: String| {
        refusals.extend(hosts.iter().map(|host| Refusal {
            host: *host,
            severity,
            what: what.clone(),
        }));
    };
    let both = [Host::Envoy, Host::Kong];
    if !abi.iter().any(|marker| marker == ABI_MARKER) {
        let known = ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0"];
        if !abi.iter().any(|marker| known.contains(&marker.as_str())) {
            let what = format!("it exports no {ABI_MARKER}; build it with a proxy-wasm SDK");
            note(&both, Severity::Fatal, what);
        }
    }
    let allocates = ["proxy_on_memory_allocate", "malloc"];
    if !exports
        .iter()
        .any(|export| allocates.contains(&export.as_str()))
    {
        let what = "it exports neither proxy_on_memory_allocate nor malloc, which the host hands it data with";
        note(&both, Severity::Fatal, what.to_owned());
    }
    for needed in KONG_NEEDS {
        if !exports.iter().any(|export| export == needed) {
            note(
                &[Host::Kong],
                Severity::Fatal,
                format!("it does not export {needed}"),
            );
        }
    }
    for (module, function) in imports {
        let known = match module.as_str() {
            "env" => HOSTCALLS.contains(&function.as_str()),
            "wasi_snapshot_preview1" => knows_wasi(function),
            _ => false,
        };
        if !known {
            let what = format!("it imports {module}.{function}, which no proxy-wasm host has");
            note(&both, Severity::Fatal, what);
        }
    }
    let kong = Profile::Kong.rules();
    for (_, function) in imports {
        if kong.fatal_import == Some(function.as_str()) {
            let what = format!(
                "importing {function} kills every worker: the host declares it with another type"
            );
            note(&[Host::Kong], Severity::Fatal, what);
        } else if kong.missing.contains(&function.as_str()) {
            let what = format!("calling {function} traps: not implemented there");
            note(&[Host::Kong], Severity::Partial, what);
        }
    }
    if KONG_PLUGINS.contains(&name) {
        let what = format!(
            "`{name}` is the name of a bundled plugin: Kong does not start; name the file otherwise"
        );
        note(&[Host::Kong], Severity::Fatal, what);
    }
    if name.contains(['\t', ' ', ':']) {
        let what =
            "its file's name holds a space, a tab or a colon, which a module's name must not"
                .to_owned();
        note(&[Host::Kong], Severity::Fatal, what);
    } else if name.contains('-') {
        let what = "the hyphen in its file's name breaks the /metrics page once it defines a metric; use underscores";
        note(&[Host::Kong], Severity::Partial, what.to_owned());
    }
    refusals.sort_by_key(|refusal| refusal.severity);
    refusals
}
