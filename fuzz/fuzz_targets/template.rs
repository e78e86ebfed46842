//! Any text as a template: refused, or evaluated in bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tollgate_fuzz::transformed;

fuzz_target!(|template: &str| {
    let value = format!("v:$({template})");
    for compat in [json!(null), json!("kong")] {
        let config = json!({"host": "envoy", "compat": compat, "uri_pattern": "/(v1)/(?<rest>.*)", "request": {
            "add": {"headers": [value], "querystring": [value], "body": [value]},
        }});
        let _ = transformed(&config, "application/json", b"{\"n\":1}");
    }
});
