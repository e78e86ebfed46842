//! Queues between filters.

use std::collections::{HashMap, VecDeque};

/// Why a queue gives or takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// No queue has this number.
    #[error("no such queue")]
    Unknown,
    /// The queue holds nothing.
    #[error("the queue is empty")]
    Empty,
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    ids: HashMap<Vec<u8>, u32>,
    queues: HashMap<u32, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Vec<u8>>,
    signalled: bool,
}

impl Queues {
    pub(super) fn register(&mut self, name: &[u8]) -> u32 {
        if let Some(id) = self.resolve(name) {
            return id;
        }
        let id = u32::try_from(self.ids.len()).map_or(u32::MAX, |count| count + 1);
        self.ids.insert(name.to_vec(), id);
        self.queues.insert(id, Queue::default());
        id
    }

    pub(super) fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.ids.get(name).copied()
    }

    pub(super) fn push(&mut self, id: u32, item: &[u8]) -> Result<(), QueueError> {
        let queue = self.queues.get_mut(&id).ok_or(QueueError::Unknown)?;
        queue.items.push_back(item.to_vec());
        queue.signalled = true;
        Ok(())
    }

    pub(super) fn pop(&mut self, id: u32) -> Result<Vec<u8>, QueueError> {
        let queue = self.queues.get_mut(&id).ok_or(QueueError::Unknown)?;
        queue.items.pop_front().ok_or(QueueError::Empty)
    }

    pub(super) fn lengths(&self) -> Vec<(Vec<u8>, usize)> {
        let length = |id: &u32| self.queues.get(id).map_or(0, |queue| queue.items.len());
        let mut lengths: Vec<_> = self
            .ids
            .iter()
            .map(|(name, id)| (name.clone(), length(id)))
            .collect();
        lengths.sort();
        lengths
    }

    pub(super) fn take_signal(&mut self, id: u32) -> bool {
        self.queues
            .get_mut(&id)
            .is_some_and(|queue| std::mem::take(&mut queue.signalled))
    }
}

#[cfg(test)]
mod tests {
    use super::{QueueError, Queues};

    #[test]
    fn a_queue_is_found_by_its_name_and_gives_what_came_first() {
        let mut queues = Queues::default();
        let id = queues.register(b"q");
        assert_eq!(queues.register(b"q"), id);
        assert_eq!(queues.resolve(b"other"), None);
        queues.push(id, b"1").unwrap();
        queues.push(id, b"2").unwrap();
        assert!(queues.take_signal(id) && !queues.take_signal(id));
        assert_eq!(queues.pop(id), Ok(b"1".to_vec()));
        assert_eq!(queues.pop(id), Ok(b"2".to_vec()));
        assert_eq!(queues.pop(id), Err(QueueError::Empty));
        assert_eq!(queues.push(99, b""), Err(QueueError::Unknown));
    }
}
