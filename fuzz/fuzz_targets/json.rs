//! Any bytes as JSON: what comes out of valid JSON is valid JSON without the member that was removed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate_fuzz::{rules, transformed};

fuzz_target!(|body: &[u8]| {
    let changed = transformed(&rules(), "application/json", body);
    if let (Ok(Value::Object(_)), Some(changed)) = (serde_json::from_slice(body), changed) {
        let after: Value = serde_json::from_slice(&changed).expect("still JSON");
        assert!(after.get("a").is_none(), "{after}");
    }
});
