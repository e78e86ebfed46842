//! What spans several fields, and what lies outside the file: modules, other files, the filters' own rules.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;

use bytes::Bytes;
use http::uri::Authority;
use http::{Method, StatusCode};
use tollgate_kit::config::{Reader, Table};
use tollgate_kit::schema::Json;

use super::super::access_log::{Destination, OWN_FIELDS};
use super::super::routes::{self, Matching, Route, Target};
use super::raw::{
    Document, Profile, RawAccessLog, RawAdmin, RawConfig, RawEndpoint, RawFilter, RawLog, RawRoute,
};
use super::source::{Files, Workshop};
use super::transport::{RawListen, listen, transport};
use super::{Cluster, Config, Listen, Log, json_from_yaml};
use crate::catalog::{self, Search};
use crate::engine::Module;
use crate::worker::FilterSpec;

/// The configuration, or none with everything that is wrong reported.
pub(super) fn validate(
    raw: RawConfig,
    place: &Place<'_>,
    reader: &mut Reader<'_>,
) -> Option<Config> {
    let listeners = reader.member("listeners", |reader| {
        listeners(&raw.listeners, raw.admin.as_ref(), place, reader)
    });
    if let Some(admin) = &raw.admin
        && !admin.address.0.ip().is_loopback()
    {
        report_doubt(
            reader,
            &["admin", "address"],
            "whoever reaches it reads paths, clients and figures without a password: let only your own network reach it",
        );
    }
    let clusters: Vec<Cluster> = raw
        .clusters
        .0
        .into_iter()
        .map(|(name, cluster)| {
            if cluster.endpoints.is_empty() {
                report(
                    reader,
                    &["clusters", &name, "endpoints"],
                    "must name at least one host:port",
                );
            }
            let (transport, endpoints) = reader.member("clusters", |reader| {
                reader.member(&name, |reader| {
                    let transport = transport(&cluster, place, reader);
                    (transport, endpoints(cluster.endpoints, reader))
                })
            });
            Cluster {
                name,
                endpoints,
                transport,
            }
        })
        .collect();
    let names: Vec<String> = raw.filters.0.iter().map(|(name, _)| name.clone()).collect();
    let routes = reader.member("routes", |reader| {
        routes(raw.routes, &clusters, &names, reader)
    });
    let filters: Vec<FilterSpec> = reader.member("filters", |reader| {
        let filters = raw.filters.0.into_iter();
        filters
            .filter_map(|(name, filter)| {
                reader.member(&name, |reader| {
                    place.filter(&name, filter, raw.profile, reader)
                })
            })
            .collect()
    });
    let access_log = reader.member("access_log", |reader| {
        access_log(raw.access_log, place.base, reader)
    });
    let workers = usize::try_from(raw.workers)
        .ok()
        .and_then(NonZeroUsize::new);
    let config = Config {
        profile: raw.profile.into(),
        headers_stop_iteration: raw.allow_on_headers_stop_iteration,
        workers: workers
            .or_else(|| available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        body_buffer: usize::try_from(raw.body_buffer).unwrap_or(usize::MAX),
        shutdown_timeout: raw.shutdown_timeout.0,
        strict: false,
        access_log,
        admin: raw.admin.map(|admin| admin.address.0),
        listeners,
        routes,
        clusters,
        filters,
        shown: Json::Null,
    };
    reader.is_clean().then_some(config)
}

/// Reports at a path below the current place.
fn report(reader: &mut Reader<'_>, path: &[&str], message: impl fmt::Display) {
    match path {
        [] => reader.error(message),
        [first, rest @ ..] => reader.member(first, |reader| report(reader, rest, message)),
    }
}

/// Warns at a path below the current place.
fn report_doubt(reader: &mut Reader<'_>, path: &[&str], message: impl fmt::Display) {
    match path {
        [] => reader.warn(message),
        [first, rest @ ..] => reader.member(first, |reader| report_doubt(reader, rest, message)),
    }
}

fn access_log(raw: RawAccessLog, base: &Path, reader: &mut Reader<'_>) -> Option<Log> {
    let raw = match raw {
        RawAccessLog::Stdout(false) => return None,
        RawAccessLog::Stdout(true) => RawLog {
            path: None,
            fields: Table(Vec::new()),
        },
        RawAccessLog::Described(raw) => raw,
    };
    for (name, property) in &raw.fields.0 {
        if OWN_FIELDS.contains(&name.as_str()) {
            report(
                reader,
                &["fields", name],
                "each line has a field of that name already: choose another",
            );
        }
        let headers = ["request.headers.", "response.headers.", "request.query"];
        if headers.iter().any(|prefix| property.starts_with(prefix)) {
            report(
                reader,
                &["fields", name],
                "headers and queries carry keys and are not logged: name a property that a filter sets, as tollgate.identity.username",
            );
        }
    }
    Some(Log {
        destination: raw.path.map_or(Destination::Stdout, |path| {
            Destination::File(base.join(path))
        }),
        fields: raw.fields.0,
    })
}

fn listeners(
    raw: &[RawListen],
    admin: Option<&RawAdmin>,
    place: &Place<'_>,
    reader: &mut Reader<'_>,
) -> Vec<Listen> {
    if raw.is_empty() {
        reader.error("must hold at least one: - address: 127.0.0.1:8080");
    }
    let mut taken: Vec<SocketAddr> = admin.map(|admin| admin.address.0).into_iter().collect();
    let mut listeners = Vec::new();
    for (index, listener) in raw.iter().enumerate() {
        let address = listener.address.0;
        if address.port() != 0 && taken.contains(&address) {
            reader.element(index, |reader| {
                report(
                    reader,
                    &["address"],
                    format_args!(
                        "{address} is taken by another listener or by admin: choose another port"
                    ),
                );
            });
        }
        taken.push(address);
        listeners.push(reader.element(index, |reader| listen(listener, place, reader)));
    }
    listeners
}

fn endpoints(raw: Vec<RawEndpoint>, reader: &mut Reader<'_>) -> Vec<(Authority, u32)> {
    reader.member("endpoints", |reader| {
        let endpoints: Vec<_> = raw
            .into_iter()
            .enumerate()
            .map(|(index, RawEndpoint(endpoint))| {
                let weight = reader.element(index, |reader| weight(endpoint.weight, reader));
                (endpoint.address.0, weight)
            })
            .collect();
        if !endpoints.is_empty() && endpoints.iter().all(|(_, weight)| *weight == 0) {
            reader.error("at least one must have a weight above 0");
        }
        endpoints
    })
}

/// The largest weight: sums of any number of them that a file can hold stay in range.
const HEAVIEST: u64 = 1_000_000;

fn routes(
    raw: Vec<RawRoute>,
    clusters: &[Cluster],
    filters: &[String],
    reader: &mut Reader<'_>,
) -> Vec<Route> {
    if raw.is_empty() {
        reader.error("must hold at least one: - {prefix: /, cluster: NAME}");
    }
    let mut routes: Vec<Route> = Vec::new();
    for (index, route) in raw.into_iter().enumerate() {
        reader.element(index, |reader| {
            let (field, matching) = matching(&route, reader);
            if routes.iter().any(|other| other.matching == matching) {
                let path = route.path.as_deref().or(route.prefix.as_deref());
                report(
                    reader,
                    &[field],
                    format_args!(
                        "another route has {} already: merge the two",
                        path.unwrap_or("/")
                    ),
                );
            }
            let target = target(&route, clusters, reader);
            if let Some(rewrite) = &route.prefix_rewrite
                && !rewrite.starts_with('/')
            {
                report(reader, &["prefix_rewrite"], "must begin with /");
            }
            if let Some(host) = &route.host_rewrite
                && host.parse::<Authority>().is_err()
            {
                report(
                    reader,
                    &["host_rewrite"],
                    format_args!(
                        "'{host}' is no host: write api.example.com or api.example.com:8080"
                    ),
                );
            }
            let chain = reader.member("filters", |reader| chain(&route.filters, filters, reader));
            routes.push(Route {
                name: route
                    .name
                    .or(route.path)
                    .or(route.prefix)
                    .unwrap_or_else(|| "/".to_owned()),
                matching,
                target,
                prefix_rewrite: route.prefix_rewrite,
                host_rewrite: route.host_rewrite,
                filters: chain,
                upgrades: route.upgrades,
            });
        });
    }
    routes::sort(&mut routes);
    routes
}

/// Which requests a route takes, and the field that tells the path.
fn matching(route: &RawRoute, reader: &mut Reader<'_>) -> (&'static str, Matching) {
    let (field, path) = match (&route.path, &route.prefix) {
        (Some(path), prefix) => {
            if prefix.is_some() {
                report(
                    reader,
                    &["prefix"],
                    "path is given too: keep one of the two",
                );
            }
            ("path", routes::Path::Exact(path.clone()))
        }
        (None, Some(prefix)) => ("prefix", routes::Path::Prefix(prefix.clone())),
        (None, None) => ("prefix", routes::Path::Prefix("/".to_owned())),
    };
    let (routes::Path::Exact(text) | routes::Path::Prefix(text)) = &path;
    if !text.starts_with('/') {
        report(reader, &[field], "must begin with /");
    }
    if text.contains(['?', '#']) {
        report(
            reader,
            &[field],
            "has no query: a route is chosen by the path alone",
        );
    }
    let host = route.host.as_ref().map(|host| {
        let lower = host.to_ascii_lowercase();
        let (name, host) = match lower.strip_prefix('*') {
            Some(suffix) => (
                suffix.strip_prefix('.').unwrap_or("*"),
                routes::Host::Under(suffix.to_owned()),
            ),
            None => (lower.as_str(), routes::Host::Exact(lower.clone())),
        };
        let bracketed = name.starts_with('[') && name.ends_with(']');
        if name.is_empty() || name.contains(['*', '/', '@']) || name.contains(':') && !bracketed {
            report(
                reader,
                &["host"],
                format_args!(
                    "'{lower}' is no host: write api.example.com or *.example.com, without a port"
                ),
            );
        }
        host
    });
    let methods = reader.member("methods", |reader| {
        let mut methods = Vec::new();
        for (index, name) in route.methods.iter().enumerate() {
            match Method::from_bytes(name.as_bytes()) {
                Ok(method) if *name == name.to_ascii_uppercase() => methods.push(method),
                _ => reader.element(index, |reader| {
                    reader.error(format_args!("'{name}' is no method: write it as GET"))
                }),
            }
        }
        // In one order, so that the same two in another are found to be the same.
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods
    });
    let mut headers: Vec<routes::Header> = route
        .headers
        .iter()
        .map(|header| routes::Header {
            name: header.name.as_str().to_ascii_lowercase(),
            exact: header.exact.clone(),
        })
        .collect();
    headers.sort_by(|a, b| (&a.name, &a.exact).cmp(&(&b.name, &b.exact)));
    let matching = Matching {
        host,
        path,
        methods,
        headers,
    };
    (field, matching)
}

/// What a route does, by the one of three fields that is given.
fn target(route: &RawRoute, clusters: &[Cluster], reader: &mut Reader<'_>) -> Target {
    let given = [
        ("cluster", route.cluster.is_some()),
        ("clusters", !route.clusters.is_empty()),
        ("direct_response", route.direct_response.is_some()),
    ];
    let mut given = given
        .iter()
        .filter(|(_, given)| *given)
        .map(|(field, _)| *field);
    match (given.next(), given.next()) {
        (None, _) => report(
            reader,
            &["cluster"],
            "must name where requests go; or give clusters, or a direct_response",
        ),
        (Some(first), Some(second)) => report(
            reader,
            &[second],
            format_args!("{first} is given too: keep one of the two"),
        ),
        (Some(_), None) => {}
    }
    let find = |reader: &mut Reader<'_>, path: &[&str], name: &str| {
        let cluster = clusters.iter().position(|cluster| cluster.name == name);
        if cluster.is_none() {
            let known: Vec<_> = clusters
                .iter()
                .map(|cluster| cluster.name.as_str())
                .collect();
            report(reader, path, unknown("cluster", name, &known));
        }
        cluster.unwrap_or_default()
    };
    if let Some(direct) = &route.direct_response {
        let status = u16::try_from(direct.status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            report(
                reader,
                &["direct_response", "status"],
                "must be from 200 to 599",
            );
        }
        return Target::Direct {
            status: status.unwrap_or_default(),
            body: Bytes::from(direct.body.clone()),
        };
    }
    let mut shares = Vec::new();
    if let Some(name) = &route.cluster {
        shares.push((find(reader, &["cluster"], name), 1));
    }
    reader.member("clusters", |reader| {
        for (index, share) in route.clusters.iter().enumerate() {
            reader.element(index, |reader| {
                let cluster = find(reader, &["name"], &share.name);
                let mut before = route.clusters.iter().take(index);
                if before.any(|other| other.name == share.name) {
                    report(reader, &["name"], "is in the list already: merge the two");
                }
                shares.push((cluster, weight(share.weight, reader)));
            });
        }
        if !shares.is_empty() && shares.iter().all(|(_, weight)| *weight == 0) {
            reader.error("at least one must have a weight above 0");
        }
    });
    Target::Clusters(shares)
}

fn weight(weight: u64, reader: &mut Reader<'_>) -> u32 {
    match u32::try_from(weight) {
        Ok(small) if weight <= HEAVIEST => small,
        _ => {
            report(
                reader,
                &["weight"],
                format_args!("must be {HEAVIEST} or less"),
            );
            0
        }
    }
}

fn chain(names: &[String], filters: &[String], reader: &mut Reader<'_>) -> Vec<usize> {
    let known: Vec<_> = filters.iter().map(String::as_str).collect();
    let mut chain = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match filters.iter().position(|filter| filter == name) {
            Some(filter) => chain.push(filter),
            None => reader.element(index, |reader| {
                reader.error(unknown("filter", name, &known))
            }),
        }
    }
    chain
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    match known {
        [] => format!("no {kind} named '{name}': there is none, describe it under {kind}s"),
        _ => format!(
            "no {kind} named '{name}': one of {}, or describe it under {kind}s",
            known.join(", ")
        ),
    }
}

/// What lies outside the file.
pub(super) struct Place<'a> {
    /// What paths are relative to.
    pub(super) base: &'a Path,
    pub(super) search: &'a Search,
    pub(super) workshop: &'a Workshop,
    pub(super) files: &'a Files,
}

impl Place<'_> {
    /// A file that the configuration names; a reload looks at it too.
    pub(super) fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.bytes(path)
    }

    fn filter(
        &self,
        name: &str,
        raw: RawFilter,
        profile: Profile,
        reader: &mut Reader<'_>,
    ) -> Option<FilterSpec> {
        let known = catalog::find(&raw.wasm);
        let module = reader.member("wasm", |reader| self.module(&raw.wasm, known, reader));
        let configuration = self.configuration(raw.config, raw.config_file, reader);
        let environment = raw.environment.0;
        if profile == Profile::Kong && !environment.is_empty() {
            report(
                reader,
                &["environment"],
                "Kong gives filters no environment: write the values into config",
            );
        }
        if let (Some(known), Some((field, configuration))) = (known, &configuration) {
            reader.member(field, |reader| {
                let checked =
                    (known.check)(configuration, &|name: &str| variable(&environment, name));
                let (errors, warnings) = match checked {
                    Ok(warnings) => (Vec::new(), warnings),
                    Err(errors) => (errors, Vec::new()),
                };
                for problem in errors {
                    at(reader, &problem.path, |reader| {
                        reader.error(&problem.message)
                    });
                }
                for problem in warnings {
                    at(reader, &problem.path, |reader| {
                        reader.warn(&problem.message)
                    });
                }
            });
        }
        Some(FilterSpec {
            name: name.to_owned(),
            module: module?,
            configuration: configuration?.1,
            environment,
            on_trap: raw.on_trap.into(),
        })
    }

    fn module(
        &self,
        wasm: &str,
        known: Option<&catalog::Filter>,
        reader: &mut Reader<'_>,
    ) -> Option<Module> {
        let path = if let Some(filter) = known.filter(|filter| filter.name == wasm) {
            self.search
                .find(filter)
                .map_err(|error| reader.error(error))
                .ok()?
        } else if wasm.ends_with(".wasm") || wasm.contains('/') {
            self.base.join(wasm)
        } else {
            let names: Vec<_> = catalog::FILTERS.iter().map(|filter| filter.name).collect();
            reader.error(format_args!(
                "no filter named '{wasm}': one of {}, or the path of a .wasm file",
                names.join(", ")
            ));
            return None;
        };
        self.workshop
            .module(&path, self.files)
            .map_err(|error| reader.error(error))
            .ok()
    }

    /// The text that the filter gets, and the field it comes from.
    fn configuration(
        &self,
        inline: Option<Document>,
        file: Option<String>,
        reader: &mut Reader<'_>,
    ) -> Option<(&'static str, Vec<u8>)> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                report(
                    reader,
                    &["config_file"],
                    "config is given too: keep one of the two",
                );
                None
            }
            (Some(document), None) => Some(("config", document.0)),
            (None, None) => Some(("config", Vec::new())),
            (None, Some(file)) => reader.member("config_file", |reader| {
                let path = self.base.join(file);
                let text = self
                    .files
                    .text(&path)
                    .map_err(|error| {
                        reader.error(format_args!("cannot read {}: {error}", path.display()))
                    })
                    .ok()?;
                let json = json_from_yaml(&text)
                    .map_err(|error| {
                        reader.error(format_args!("{} is not YAML: {error}", path.display()))
                    })
                    .ok()?;
                Some(("config_file", json.into_bytes()))
            }),
        }
    }
}

/// Does something at a path that is written out, which may be empty.
fn at(reader: &mut Reader<'_>, path: &str, report: impl FnOnce(&mut Reader<'_>)) {
    if path.is_empty() {
        report(reader)
    } else {
        reader.member(path, report)
    }
}

fn variable(variables: &[(String, String)], name: &str) -> Option<String> {
    variables
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}
