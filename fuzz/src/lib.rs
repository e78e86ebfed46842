//! What the fuzz targets share: a request through a filter, on a host that does as it is asked.

use tollgate_header_transform::{Config, HeaderTransform};
use tollgate_kit::config::check;
use tollgate_kit::step::{Body, RequestStep};
use tollgate_kit::testing::ScriptedHost;
use tollgate_kit::{Exchange, Filter};

/// The body as header-transform leaves it; `None` if it does not change it, or refuses configuration or request.
pub fn transformed(config: &serde_json::Value, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let text = config.to_string();
    let config = check::<Config>(text.as_bytes(), &|_| None).ok()?.config;
    let mut filter = HeaderTransform::new(config);
    let host = ScriptedHost::with_headers(&[
        (":method", "POST"),
        (":path", "/v1/x?a=1&b=%20&a=2"),
        (":authority", "gateway.test"),
        ("content-type", content_type),
        ("x-a", "1"),
        ("x-b", "two"),
    ]);
    let mut exchange = filter.exchange();
    let mut step = exchange.request_headers(&mut filter, &host);
    if matches!(step, RequestStep::HoldForBody { .. }) {
        step = exchange.request_body(&mut filter, Body::Whole(body), &host);
    }
    match step {
        RequestStep::Continue(edits) => edits.body,
        _ => None,
    }
}

/// Rules of each kind for members `a` to `e`.
pub fn rules() -> serde_json::Value {
    serde_json::json!({"host": "envoy", "request": {
        "remove": {"body": ["a"]}, "rename": {"body": ["b:c"]}, "replace": {"body": ["c:1"]},
        "add": {"body": ["d:$(headers['x-a'])"]}, "append": {"body": ["e:x", "e:y"]},
    }})
}
