use super::*;
use crate::json::Value;
use proptest::prelude::*;

/// Writes what it is told, one line a token. A place is its depth.
#[derive(Default)]
struct Log(String);

impl Shape for Log {
    type Place = usize;

    fn root(&mut self) -> usize {
        0
    }
    fn member(&mut self, of: usize, name: Text<'_>) -> usize {
        self.0 += &format!(
            "{of} .{} {}\n",
            String::from_utf8_lossy(name.head),
            name.len
        );
        of + 1
    }
    fn element(&mut self, of: usize) -> usize {
        of + 1
    }
    fn scalar(&mut self, at: usize, scalar: Scalar<'_>, span: Span) {
        let shown = match scalar {
            Scalar::String(text) => {
                format!("{:?} {}", String::from_utf8_lossy(text.head), text.len)
            }
            Scalar::Number(text) => String::from_utf8_lossy(text.head).into_owned(),
            other => format!("{other:?}"),
        };
        self.0 += &format!("{at} {shown} {}..{}\n", span.start, span.end);
    }
    fn begin(&mut self, at: usize, object: bool, offset: u64) {
        self.0 += &format!("{at} begin {object} {offset}\n");
    }
    fn end(&mut self, at: usize, object: bool, members: u64, span: Span) {
        self.0 += &format!("{at} end {object} {members} {}..{}\n", span.start, span.end);
    }
}

fn read(chunks: &[&[u8]]) -> (Result<(), Broken>, String) {
    let mut log = Log::default();
    let mut reader = Reader::default();
    for chunk in chunks {
        let _ = reader.feed(chunk, &mut log);
    }
    (reader.end(&mut log), log.0)
}

fn log(text: &str) -> String {
    let (result, log) = read(&[text.as_bytes()]);
    assert_eq!(result, Ok(()), "{text}");
    log
}

#[test]
fn every_value_is_told_with_its_place() {
    assert_eq!(
        log(r#" {"a": [1, "x\n"], "b":null} "#),
        "0 begin true 1\n0 .a 1\n1 begin false 7\n2 1 8..9\n2 \"x\\n\" 2 11..16\n1 end false 2 7..17\n0 .b 1\n1 Null 23..27\n0 end true 2 1..28\n"
    );
}

#[test]
fn escaped_names_are_the_names_they_mean() {
    assert!(log(r#"{"mod\u0065l":1}"#).contains(".model 5"));
}

#[test]
fn surrogates_are_paired_or_replaced() {
    for (text, meant) in [
        (r#""\ud83d\ude00""#, "\u{1F600}"),
        (r#""\ud83d""#, "\u{FFFD}"),
        (r#""\ud83dx""#, "\u{FFFD}x"),
        (r#""\ud83d\n""#, "\u{FFFD}\n"),
        (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}\u{1F600}"),
        (r#""\ude00""#, "\u{FFFD}"),
    ] {
        assert!(
            log(text).contains(&format!("{meant:?} {}", meant.len())),
            "{text}: {}",
            log(text)
        );
    }
}

#[test]
fn long_strings_are_measured_and_not_kept() {
    let text = format!("\"{}\"", "a".repeat(100_000));
    assert!(log(&text).contains(&format!("{:?} 100000", "a".repeat(HEAD))));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(read(&[nested(MAX_DEPTH).as_bytes()]).0, Ok(()));
    assert_eq!(
        read(&[nested(MAX_DEPTH + 1).as_bytes()]).0,
        Err(Broken::Deep)
    );
}

#[test]
fn counts_are_integers_in_digits() {
    let count = |text: &str| {
        Scalar::Number(Text {
            head: text.as_bytes(),
            len: text.len() as u64,
        })
        .count(1000)
    };
    assert_eq!(count("0"), Some(0));
    assert_eq!(count("1000"), Some(1000));
    for text in ["1001", "-1", "-0", "1.0", "1e2", "99999999999999999999999"] {
        assert_eq!(count(text), None, "{text}");
    }
}

/// Texts that are nearly JSON.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        r#"[\[\]{}",:0-9.eE\-+tfn ale\\u]{0,24}"#,
        r#"(\{"(a|\\u0061|\\ud83d\\ude00)": ?(1|-2\.5e3|true|null|"é\\n"|\[1,"x"\])\}){1,2}"#,
    ]
}

proptest! {
    #[test]
    fn accepts_what_the_kit_accepts(text in texts()) {
        let theirs = Value::parse(text.as_bytes());
        let ours = read(&[text.as_bytes()]).0;
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{} {:?} {:?}", text, ours, theirs);
    }

    #[test]
    fn chunks_make_no_difference(text in texts(), cut in 0usize..40) {
        let bytes = text.as_bytes();
        let whole = read(&[bytes]);
        let (a, b) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(&read(&[a, b]), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&read(&single), &whole);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let ours = read(&[&bytes]).0;
        prop_assert_eq!(ours.is_ok(), Value::parse(&bytes).is_ok());
    }
}
