//! How a decision is carried out. What each host needs for it is here once.

use super::host::RequestHost;
use super::imports::{self, Buffer, Map};
use crate::headers::HeaderMap;
use crate::host::{Failure, Headers, HostKind, Level};
use crate::identity::Identity;
use crate::reply::Reply;
use crate::step::{Call, HeaderEdit, RequestEdits, is_address};

/// Changes the request. On an error some of it may have been done: the request must not go on as if nothing had happened.
pub(crate) fn edit_request(host: &RequestHost<'_>, edits: RequestEdits) -> Result<(), Failure> {
    if !edits.headers.is_empty() {
        edit_headers(host, &edits.headers)?;
    }
    if let Some(method) = &edits.method {
        imports::set_header(Map::Request, ":method", method)?;
    }
    if let Some(authority) = &edits.authority {
        edit_authority(host.kind, authority)?;
    }
    if let Some(path) = &edits.path {
        edit_path(host.kind, path)?;
    }
    if let Some(query) = &edits.query {
        edit_query(host.kind, query)?;
    }
    if let Some(body) = &edits.body {
        imports::replace_buffer(Buffer::RequestBody, body)?;
        // nginx counts the new body itself; on Envoy the upstream would read as many bytes as the client had announced.
        if host.kind == HostKind::Envoy
            && imports::header(Map::Request, "content-length")?.is_some()
        {
            imports::set_header(
                Map::Request,
                "content-length",
                body.len().to_string().as_bytes(),
            )?;
        }
    }
    if let Some(identity) = &edits.identity {
        pass_on(host.kind, identity);
    }
    Ok(())
}

fn edit_headers(host: &RequestHost<'_>, edits: &[HeaderEdit]) -> Result<(), Failure> {
    if host.kind != HostKind::Kong {
        for edit in edits {
            match edit {
                HeaderEdit::Set(name, value) => imports::set_header(Map::Request, name, value)?,
                HeaderEdit::Add(name, value) => imports::add_header(Map::Request, name, value)?,
                HeaderEdit::Remove(name) => imports::remove_header(Map::Request, name)?,
            }
        }
        return Ok(());
    }
    let present = host.request_headers()?;
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => {
                refuse_repeated(&present, name)?;
                imports::set_header(Map::Request, name, value)?;
            }
            HeaderEdit::Add(name, value) if holds_one_line(name) => {
                let line = match imports::header(Map::Request, name)? {
                    Some(mut line) if !line.is_empty() => {
                        line.extend_from_slice(b", ");
                        line.extend_from_slice(value);
                        line
                    }
                    _ => value.clone(),
                };
                imports::set_header(Map::Request, name, &line)?;
            }
            HeaderEdit::Add(name, value) => imports::add_header(Map::Request, name, value)?,
            // nginx goes on sending a header that was removed. Blanked first, its value at least is gone. (Removing one that is not
            // there can end the worker: `cookie`, `x-forwarded-for`.)
            HeaderEdit::Remove(name) => {
                refuse_repeated(&present, name)?;
                if present.first(name).is_some() {
                    imports::set_header(Map::Request, name, b"")?;
                    imports::remove_header(Map::Request, name)?;
                }
            }
        }
    }
    Ok(())
}

/// nginx changes the first line of a header and sends the others on as the client wrote them.
fn refuse_repeated(present: &HeaderMap, name: &str) -> Result<(), Failure> {
    if present.all(name).nth(1).is_some() {
        Err(Failure::Refused)
    } else {
        Ok(())
    }
}

/// The request headers that nginx keeps in places of their own. It answers Ok to another line of them, and adds none.
fn holds_one_line(name: &str) -> bool {
    const NAMES: [&str; 21] = [
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-range",
        "content-type",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "range",
        "referer",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn edit_authority(kind: HostKind, authority: &[u8]) -> Result<(), Failure> {
    if kind != HostKind::Kong {
        return Ok(imports::set_header(Map::Request, ":authority", authority)?);
    }
    // Kong sends this variable; plain nginx has none, and sends the header where it is told to (`proxy_set_header Host $http_host`).
    let set = match imports::property(&["ngx", "upstream_host"])? {
        Some(_) => imports::set_property(&["ngx", "upstream_host"], authority),
        None => imports::set_header(Map::Request, "host", authority),
    };
    Ok(set?)
}

/// Another path; the query stays.
fn edit_path(kind: HostKind, path: &[u8]) -> Result<(), Failure> {
    if kind != HostKind::Kong {
        let old = imports::header(Map::Request, ":path")?.ok_or(Failure::NotNow)?;
        let new = with_path(&old, path);
        return Ok(imports::set_header(Map::Request, ":path", &new)?);
    }
    let Some(mut uri) = imports::property(&["ngx", "upstream_uri"])? else {
        // Plain nginx sends `$uri` and `$args` where it is told to. The two are set apart: a `?` in this one ends the instance.
        if path.contains(&b'?') {
            return Err(Failure::Refused);
        }
        return Ok(imports::set_header(Map::Request, ":path", path)?);
    };
    if uri.is_empty() {
        uri = imports::property(&["ngx", "request_uri"])?.ok_or(Failure::NotNow)?;
    }
    Ok(imports::set_property(
        &["ngx", "upstream_uri"],
        &with_path(&uri, path),
    )?)
}

/// A target with another path. What is behind the first `?` stays.
fn with_path(target: &[u8], path: &[u8]) -> Vec<u8> {
    let mut new = path.to_vec();
    if let Some(query) = target.iter().position(|&byte| byte == b'?') {
        new.extend_from_slice(target.get(query..).unwrap_or_default());
    }
    new
}

fn edit_query(kind: HostKind, query: &[u8]) -> Result<(), Failure> {
    if kind != HostKind::Kong {
        let path = imports::header(Map::Request, ":path")?.ok_or(Failure::NotNow)?;
        return Ok(imports::set_header(
            Map::Request,
            ":path",
            &with_query(&path, query),
        )?);
    }
    imports::set_property(&["request", "query"], query)?;
    // Kong has put together what it will send before filters run; plain nginx has no such variable.
    let Some(mut uri) = imports::property(&["ngx", "upstream_uri"])? else {
        return Ok(());
    };
    if uri.is_empty() {
        // nginx would send what the client wrote.
        uri = imports::property(&["request", "path"])?.ok_or(Failure::NotNow)?;
    }
    Ok(imports::set_property(
        &["ngx", "upstream_uri"],
        &with_query(&uri, query),
    )?)
}

/// A path with another query; none, and no `?`, when it is empty.
fn with_query(path: &[u8], query: &[u8]) -> Vec<u8> {
    let mut path = path
        .splitn(2, |&byte| byte == b'?')
        .next()
        .unwrap_or_default()
        .to_vec();
    if !query.is_empty() {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    path
}

/// A host that can't pass the identity on leaves later filters with nobody, which they treat as such.
fn pass_on(kind: HostKind, identity: &Identity) {
    if imports::set_property(Identity::path(kind), &identity.to_json()).is_err() {
        imports::log(
            crate::host::Level::Debug as u32,
            "the host does not take the identity property",
        );
    }
}

/// Answers the client. When the host refuses even that, nothing more can be done here: the request stays paused.
pub(crate) fn reply(kind: HostKind, reply: &Reply) -> Result<(), Failure> {
    let lines = reply
        .headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let (details, body) = match kind {
        // A newline is appended there; a body that ends with one would have two.
        HostKind::Kong => ("", reply.body.strip_suffix(b"\n").unwrap_or(&reply.body)),
        HostKind::Envoy | HostKind::EnvoyHeadersPass => ("tollgate", reply.body.as_slice()),
    };
    let grpc_status = reply.grpc_status.map_or(-1, i32::from);
    Ok(imports::send_local_response(
        reply.status,
        details,
        body,
        &HeaderMap::marshal(lines),
        grpc_status,
    )?)
}

/// Starts a call; its number, or `None` if the host can't make it. The host is not known before the first request, where the
/// configuration does not tell it.
pub(crate) fn start(kind: Option<HostKind>, call: &Call) -> Option<u32> {
    // nginx traps on what it can't parse.
    let may_be_nginx = matches!(kind, None | Some(HostKind::Kong));
    if call.path.is_empty() || may_be_nginx && !is_address(&call.upstream) {
        imports::log(
            Level::Error as u32,
            "tollgate: an upstream is not called: it is no host:port (a cluster? then write host: envoy)",
        );
        return None;
    }
    let head: [(&[u8], &[u8]); 3] = [
        (b":method", call.method.as_bytes()),
        (b":path", call.path.as_bytes()),
        (b":authority", call.authority.as_bytes()),
    ];
    let headers = call
        .headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let map = HeaderMap::marshal(head.into_iter().chain(headers));
    let timeout = u32::try_from(call.timeout.as_millis()).unwrap_or(u32::MAX);
    imports::http_call(&call.upstream, &map, &call.body, timeout).ok()
}

/// Changes the head of the response.
pub(crate) fn edit_response(kind: HostKind, edits: &[HeaderEdit]) -> Result<(), Failure> {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => {
                // nginx drops every copy of a repeated response header that is set: take them out first.
                if kind == HostKind::Kong {
                    imports::remove_header(Map::Response, name)?;
                }
                imports::set_header(Map::Response, name, value)?;
            }
            HeaderEdit::Add(name, value) => imports::add_header(Map::Response, name, value)?,
            HeaderEdit::Remove(name) => imports::remove_header(Map::Response, name)?,
        }
    }
    Ok(())
}
