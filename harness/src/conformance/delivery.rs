//! In which pieces a body arrives. A filter that looks at bodies has to come to the same result with all of them.

use super::case::{Case, Step, Upstream};

/// Bodies up to this length are also sent byte by byte.
const BYTEWISE: usize = 256;

/// Bodies up to this length are also cut in two at every place.
const EVERY_BOUNDARY: usize = 64;

/// How many random cuttings are tried.
const RANDOM: u64 = 3;

/// A way to cut all bodies of a case, requests' and responses' alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// In one piece.
    Whole,
    /// One byte at a time.
    Bytewise,
    /// In two pieces, the first of this length.
    CutAt(usize),
    /// In random pieces, the same ones for the same seed.
    Random(u64),
}

impl Delivery {
    /// The lengths of the pieces of a body of this length.
    pub(crate) fn pieces(self, length: usize) -> Vec<usize> {
        match self {
            Self::Whole => Vec::new(),
            Self::Bytewise => vec![1; length],
            Self::CutAt(at) if at < length => vec![at, length.saturating_sub(at)],
            Self::CutAt(_) => Vec::new(),
            Self::Random(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut pieces = Vec::new();
                let mut left = length;
                while left > 0 {
                    let piece = random.usize(1..=left);
                    pieces.push(piece);
                    left = left.saturating_sub(piece);
                }
                pieces
            }
        }
    }
}

impl std::fmt::Display for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole => write!(f, "bodies whole"),
            Self::Bytewise => write!(f, "bodies byte by byte"),
            Self::CutAt(at) => write!(f, "bodies cut at byte {at}"),
            Self::Random(seed) => write!(f, "bodies cut by seed {seed}"),
        }
    }
}

/// The ways that make a difference for a case, the whole bodies first.
pub(crate) fn deliveries(case: &Case) -> Vec<Delivery> {
    let longest = case
        .steps
        .iter()
        .map(|step| longest_body(case, step))
        .max()
        .unwrap_or(0);
    let mut ways = vec![Delivery::Whole];
    if longest < 2 {
        return ways;
    }
    if longest <= BYTEWISE {
        ways.push(Delivery::Bytewise);
    }
    if longest <= EVERY_BOUNDARY {
        ways.extend((1..longest).map(Delivery::CutAt));
    }
    ways.extend((1..=RANDOM).map(Delivery::Random));
    ways
}

fn longest_body(case: &Case, step: &Step) -> usize {
    let sent = step.request.body.as_ref().map_or(0, String::len);
    let answered = match step.upstream.as_ref().unwrap_or(&case.upstream) {
        Upstream::Echo { .. } => 0,
        upstream @ Upstream::Scripted { .. } => upstream.body().len(),
    };
    sent.max(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_always_make_the_whole() {
        for delivery in [
            Delivery::Bytewise,
            Delivery::CutAt(3),
            Delivery::Random(1),
            Delivery::Random(2),
        ] {
            assert_eq!(delivery.pieces(10).iter().sum::<usize>(), 10, "{delivery}");
        }
        assert_eq!(
            Delivery::Random(7).pieces(100),
            Delivery::Random(7).pieces(100)
        );
        assert!(Delivery::CutAt(10).pieces(10).is_empty());
    }
}
