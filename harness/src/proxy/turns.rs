//! Taking turns by weight: nginx's smooth weighted round robin, in which the turns of a heavy one are spread among those of
//! the others. It needs no randomness, and each worker has turns of its own.

/// Whose turn it is among some with weights.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    weights: Vec<i64>,
    /// What each has saved up; the sum is 0 between turns.
    saved: Vec<i64>,
}

impl Turns {
    /// Nobody has had a turn. A weight of 0 never gets one.
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<i64> = weights.into_iter().map(i64::from).collect();
        Self {
            saved: vec![0; weights.len()],
            weights,
        }
    }

    /// The next among those who can take it, or none of them can.
    pub(super) fn next(&mut self, can: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0_i64;
        let mut next: Option<(usize, i64)> = None;
        for (index, (weight, saved)) in self.weights.iter().zip(&mut self.saved).enumerate() {
            if *weight == 0 || !can(index) {
                continue;
            }
            *saved = saved.saturating_add(*weight);
            total = total.saturating_add(*weight);
            if next.is_none_or(|(_, most)| *saved > most) {
                next = Some((index, *saved));
            }
        }
        let (index, _) = next?;
        if let Some(saved) = self.saved.get_mut(index) {
            *saved = saved.saturating_sub(total);
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_exactly_and_are_spread() {
        let mut turns = Turns::new([5, 1, 0, 1]);
        let taken: Vec<_> = (0..7).filter_map(|_| turns.next(|_| true)).collect();
        assert_eq!(taken, [0, 0, 1, 0, 3, 0, 0]);
        let mut counts = [0; 4];
        for _ in 0..7000 {
            counts[turns.next(|_| true).unwrap()] += 1;
        }
        assert_eq!(counts, [5000, 1000, 0, 1000]);
    }

    #[test]
    fn who_cannot_is_passed_by_and_the_others_keep_their_shares() {
        let mut turns = Turns::new([3, 2, 1]);
        let mut counts = [0; 3];
        for _ in 0..400 {
            counts[turns.next(|index| index != 1).unwrap()] += 1;
        }
        assert_eq!(counts, [300, 0, 100]);
        assert_eq!(turns.next(|_| false), None);
        // It is not owed what it missed.
        let again: Vec<_> = (0..6).filter_map(|_| turns.next(|_| true)).collect();
        assert_eq!(again.iter().filter(|index| **index == 1).count(), 2);
    }
}
