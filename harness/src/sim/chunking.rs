//! Every way in which a body may come in pieces.

use std::fmt::Debug;

use fastrand::Rng;

/// Bodies up to this length are cut at every two places.
const TWO_CUTS: usize = 32;

/// Bodies up to this length are cut at every place.
const ONE_CUT: usize = 512;

/// How many random ways there are for longer bodies.
const RANDOM: u64 = 64;

/// The ways to cut a body of `length` bytes into pieces, as their lengths, the whole body first. A short body is cut at
/// every place and every two places and into single bytes; a long one in ways that are random, and the same each time.
#[must_use]
pub fn chunkings(length: usize) -> Vec<Vec<usize>> {
    let mut ways = vec![vec![length]];
    if length < 2 {
        return ways;
    }
    if length <= ONE_CUT {
        ways.push(vec![1; length]);
        ways.extend((1..length).map(|first| vec![first, length - first]));
    }
    if length <= TWO_CUTS {
        for first in 1..length {
            let seconds = (first + 1)..length;
            ways.extend(seconds.map(|second| vec![first, second - first, length - second]));
        }
        return ways;
    }
    ways.extend((0..RANDOM).map(|seed| random(length, &mut Rng::with_seed(seed))));
    ways
}

/// Pieces of up to a size that is random too, since a parser meets other cases in small pieces than in large ones.
fn random(length: usize, random: &mut Rng) -> Vec<usize> {
    let most = 1usize << random.u32(1..=length.ilog2());
    let mut pieces = Vec::new();
    let mut left = length;
    while left > 0 {
        let piece = random.usize(1..=most.min(left));
        pieces.push(piece);
        left -= piece;
    }
    pieces
}

/// Asks for the outcome of each of the [`chunkings`] of `length` bytes. The outcome, which must always be the same.
///
/// # Panics
/// When an outcome differs from that of the whole body.
#[track_caller]
pub fn in_every_chunking<T: PartialEq + Debug>(
    length: usize,
    mut outcome: impl FnMut(&[usize]) -> T,
) -> T {
    let whole = outcome(&[length]);
    for pieces in chunkings(length).iter().skip(1) {
        let got = outcome(pieces);
        assert!(
            got == whole,
            "in pieces of {pieces:?} bytes: {got:?}\n  in one piece: {whole:?}"
        );
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{chunkings, in_every_chunking};

    #[test]
    fn all_ways_make_the_whole_and_none_comes_twice() {
        for length in [0, 1, 2, 3, 32, 33, 512, 513, 100_000] {
            let ways = chunkings(length);
            assert_eq!(ways[0], [length]);
            for way in &ways {
                assert_eq!(way.iter().sum::<usize>(), length, "{way:?}");
                assert!(length == 0 || way.iter().all(|piece| *piece > 0));
            }
        }
        // A body of n bytes: whole, n - 1 with one cut, (n - 1)(n - 2) / 2 with two; four single bytes are none of these.
        let four: BTreeSet<_> = chunkings(4).into_iter().collect();
        assert_eq!(four.len(), 1 + 3 + 3 + 1);
    }

    #[test]
    #[should_panic(expected = "in pieces of [3, 2] bytes")]
    fn an_outcome_that_depends_on_a_cut_is_shown_with_the_cut() {
        in_every_chunking(5, |pieces| pieces.first() == Some(&3));
    }
}
