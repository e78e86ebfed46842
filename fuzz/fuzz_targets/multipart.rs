//! Any bytes as a multipart form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_fuzz::{rules, transformed};

fuzz_target!(|body: &[u8]| {
    let _ = transformed(&rules(), "multipart/form-data; boundary=xyz", body);
});
