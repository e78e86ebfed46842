//! Any bytes as a form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_fuzz::{rules, transformed};

fuzz_target!(|body: &[u8]| {
    if let Some(changed) = transformed(&rules(), "application/x-www-form-urlencoded", body) {
        assert!(
            !changed
                .split(|byte| *byte == b'&')
                .any(|pair| pair == b"a" || pair.starts_with(b"a="))
        );
    }
});
