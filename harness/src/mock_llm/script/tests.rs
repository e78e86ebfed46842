use std::io::Read;

use flate2::read::MultiGzDecoder;
use proptest::prelude::*;

use super::super::openai::chat::{self, Identity};
use super::*;

/// The steps of an answer to `question` under a plan.
fn steps(question: &str, stream: bool, plan: &str) -> Vec<Step> {
    let request: chat::Request = serde_json::from_value(json!({
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
        "stream_options": {"include_usage": true},
    }))
    .unwrap();
    let (ask, style) = request.read("m".to_owned()).unwrap();
    let identity = Identity {
        id: "1".to_owned(),
        created: 0,
        model: "m".to_owned(),
    };
    let answer = chat::answer(identity, &style, ask.reply("p", None));
    let pace = Pace {
        first_token_delay: Duration::ZERO,
        token: Duration::ZERO,
        jitter: Duration::ZERO,
        random: fastrand::Rng::with_seed(0),
    };
    Script::new(answer, plan.parse().unwrap(), pace, true)
        .steps
        .collect()
}

fn pieces(steps: &[Step]) -> Vec<&Piece> {
    let pieces = steps.iter().filter_map(|step| match step {
        Step::Write(piece) => Some(piece),
        _ => None,
    });
    pieces.collect()
}

fn bytes(steps: &[Step]) -> Vec<u8> {
    let pieces = pieces(steps);
    pieces
        .iter()
        .flat_map(|piece| piece.bytes.to_vec())
        .collect()
}

fn tally(steps: &[Step]) -> (usize, bool) {
    let pieces = pieces(steps);
    (
        pieces.iter().map(|piece| piece.tokens).sum(),
        pieces.iter().any(|piece| piece.told.is_some()),
    )
}

fn spelling() -> impl Strategy<Value = String> {
    let eol = prop_oneof![Just("lf"), Just("crlf"), Just("cr")];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (eol, flags).prop_map(|(eol, (comments, multiline, extra))| {
        let flag = |set: bool, name: &str| {
            if set {
                format!("; {name}")
            } else {
                String::new()
            }
        };
        format!(
            "eol={eol}{}{}{}",
            flag(comments, "comments"),
            flag(multiline, "multiline"),
            flag(extra, "extra")
        )
    })
}

proptest! {
    #[test]
    fn any_splitting_gives_the_same_bytes_and_the_same_tally(
        question in "\\PC{0,40}",
        stream: bool,
        spelling in spelling(),
        size in 1_usize..50,
    ) {
        let whole = steps(&question, stream, &spelling);
        let split = steps(&question, stream, &format!("{spelling}; write={size}"));
        prop_assert_eq!(bytes(&whole), bytes(&split));
        prop_assert_eq!(tally(&whole), tally(&split));
        prop_assert!(pieces(&split).iter().all(|piece| piece.bytes.len() <= size && piece.alone));
    }

    #[test]
    fn what_was_compressed_is_the_same_when_it_is_unpacked(
        question in "\\PC{0,40}",
        stream: bool,
        size in 1_usize..50,
    ) {
        let plain = steps(&question, stream, "none");
        let packed = steps(&question, stream, &format!("gzip=always; write={size}"));
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(&bytes(&packed)[..]).read_to_end(&mut unpacked).unwrap();
        prop_assert_eq!(bytes(&plain), unpacked);
        prop_assert_eq!(tally(&plain), tally(&packed));
    }

    #[test]
    fn a_stream_cut_after_some_events_is_the_opening_of_the_whole_one(events in 0_usize..60) {
        let whole = steps("hello", true, "none");
        let cut = steps("hello", true, &format!("close={events}"));
        prop_assert!(bytes(&whole).starts_with(&bytes(&cut)));
        let written = pieces(&whole).len();
        prop_assert_eq!(pieces(&cut).len(), events.min(written));
        let end = if events <= written { Ended::Closed } else { Ended::Complete };
        prop_assert_eq!(cut.last(), Some(&Step::End(end)));
    }
}

#[test]
fn jitter_is_drawn_from_its_seed_and_makes_tokens_late_within_its_bound() {
    let millis = Duration::from_millis;
    let drawn = |seed| -> Vec<Duration> {
        let mut pace = Pace {
            first_token_delay: millis(200),
            token: millis(100),
            jitter: millis(20),
            random: fastrand::Rng::with_seed(seed),
        };
        (0..20).map(|token| pace.due(token)).collect()
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7), drawn(8));
    for (due, token) in drawn(7).into_iter().zip(0..) {
        let early = millis(200) + millis(100) * token;
        assert!((early..early + millis(20)).contains(&due), "{due:?}");
    }
}

#[test]
fn a_packed_stream_can_be_read_up_to_each_event() {
    let packed = steps("hello", true, "gzip=always");
    let first = &pieces(&packed)[0].bytes;
    let mut unpacked = [0; 6];
    MultiGzDecoder::new(&first[..])
        .read_exact(&mut unpacked)
        .unwrap();
    assert_eq!(&unpacked, b"data: ");
}

#[test]
fn usage_that_is_missing_is_nowhere_and_usage_told_twice_comes_twice() {
    let said = |stream, plan| {
        let steps = steps("hello", stream, plan);
        let text = String::from_utf8(bytes(&steps)).unwrap();
        (text.matches("\"prompt_tokens\"").count(), tally(&steps).1)
    };
    for stream in [false, true] {
        assert_eq!(said(stream, "none"), (1, true));
        assert_eq!(said(stream, "usage=missing"), (0, false));
    }
    assert_eq!(said(true, "usage=twice"), (2, true));
}
