//! Any bytes as a stream, in two pieces: nothing is held for ever, and what is only watched passes unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate_llm::{Api, Output, Stream};

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let mut watched = Stream::watched();
    for chunk in [first, second] {
        assert_eq!(watched.feed(chunk), Output::Pass);
    }
    assert!(watched.end().is_empty());
    let mut edited = Stream::edited(64, true);
    for chunk in [first, second] {
        let _ = edited.feed(chunk);
        let _ = edited.cut(Api::Chat, 1);
    }
    let _ = edited.end();
});
