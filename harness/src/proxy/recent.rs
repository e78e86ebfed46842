//! The requests that ended last, as the log would tell them, for the live page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are kept.
const KEPT: usize = 100;

/// The last lines, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Recent {
    watched: AtomicBool,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// The number of the line that comes next.
    next: u64,
}

impl Recent {
    /// Lines are kept from now on: there is a page that shows them.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether a line that is pushed is kept.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    pub(super) fn push(&self, line: String) {
        if self.is_watched() {
            let mut lines = self.lock();
            if lines.kept.len() == KEPT {
                lines.kept.pop_front();
            }
            lines.kept.push_back(line);
            lines.next = lines.next.saturating_add(1);
        }
    }

    /// The lines from number `from` on that are still kept, and the number to ask from next time.
    pub(super) fn since(&self, from: u64) -> (Vec<String>, u64) {
        let lines = self.lock();
        let new = usize::try_from(lines.next.saturating_sub(from)).unwrap_or(usize::MAX);
        let skip = lines.kept.len().saturating_sub(new);
        (lines.kept.iter().skip(skip).cloned().collect(), lines.next)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Whole lines only, whatever panicked.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asker_gets_what_is_new_to_it_and_no_more_than_is_kept() {
        let recent = Recent::default();
        recent.push("unseen".to_owned());
        recent.watch();
        assert_eq!(recent.since(0), (Vec::new(), 0));
        recent.push("a".to_owned());
        recent.push("b".to_owned());
        assert_eq!(recent.since(0), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert_eq!(recent.since(1), (vec!["b".to_owned()], 2));
        assert_eq!(recent.since(2), (Vec::new(), 2));
        for number in 0..2 * KEPT {
            recent.push(number.to_string());
        }
        let (lines, next) = recent.since(2);
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines.last().map(String::as_str), Some("199"));
        assert_eq!(next, 202);
    }
}
