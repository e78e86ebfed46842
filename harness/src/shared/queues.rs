//! Queues between filters, and who is told when something comes.
//!
//! As on Envoy the root context that registered a queue last reads it, whichever worker it is in, and is called once for
//! each item. Once its worker is gone, the one before it reads again. A queue has no bound there, so it has none here: a filter that fills one nobody empties takes the
//! process's memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

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

/// A root context that reads a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The worker, by the number that the shared state gave it.
    pub(crate) worker: u64,
    /// The VM, and which of its incarnations.
    pub(crate) vm: usize,
    pub(crate) generation: u64,
    pub(crate) root: u32,
}

/// Wakes a worker's driver; called from any thread, it must not wait.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Queues {
    ids: HashMap<Vec<u8>, u32>,
    queues: BTreeMap<u32, Queue>,
    workers: u64,
    wakes: HashMap<u64, Wake>,
    /// For each worker an entry for each item of which its reader was not told, in the order in which they came.
    untold: HashMap<u64, VecDeque<(u32, Reader)>>,
}

struct Queue {
    items: VecDeque<Vec<u8>>,
    /// One of each worker that registered it, the last last.
    readers: Vec<Reader>,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let items = self
            .queues
            .iter()
            .map(|(id, queue)| (id, queue.items.len()));
        f.debug_map().entries(items).finish()
    }
}

impl Queues {
    /// A number for a worker, for [`Reader::worker`].
    pub(super) fn add_worker(&mut self) -> u64 {
        self.workers += 1;
        self.workers
    }

    /// What wakes a worker's driver; to be called at once where it returns true, since something waits already.
    pub(super) fn set_wake(&mut self, worker: u64, wake: Wake) -> bool {
        self.wakes.insert(worker, wake);
        self.has_untold(worker)
    }

    /// The wakes are of those who now read what waits, to be called when the lock is released.
    pub(super) fn remove_worker(&mut self, worker: u64) -> Vec<Wake> {
        self.wakes.remove(&worker);
        for queue in self.queues.values_mut() {
            queue.readers.retain(|reader| reader.worker != worker);
        }
        let untold = self.untold.remove(&worker).unwrap_or_default();
        untold
            .into_iter()
            .filter_map(|(id, _)| self.tell(id))
            .collect()
    }

    pub(super) fn register(&mut self, name: &[u8], reader: Reader) -> u32 {
        if let Some(id) = self.resolve(name) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.readers.retain(|known| known.worker != reader.worker);
                queue.readers.push(reader);
            }
            return id;
        }
        let id = u32::try_from(self.ids.len()).map_or(u32::MAX, |count| count.saturating_add(1));
        self.ids.insert(name.to_vec(), id);
        let queue = Queue {
            items: VecDeque::new(),
            readers: vec![reader],
        };
        self.queues.insert(id, queue);
        id
    }

    pub(super) fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Puts an item in; what wakes the reader's driver, to be called when the lock is released.
    pub(super) fn push(&mut self, id: u32, item: &[u8]) -> Result<Option<Wake>, QueueError> {
        let queue = self.queues.get_mut(&id).ok_or(QueueError::Unknown)?;
        queue.items.push_back(item.to_vec());
        Ok(self.tell(id))
    }

    /// Something came: notes it for the queue's reader, and hands over what wakes its driver.
    fn tell(&mut self, id: u32) -> Option<Wake> {
        let reader = *self.queues.get(&id)?.readers.last()?;
        let untold = self.untold.entry(reader.worker).or_default();
        untold.push_back((id, reader));
        self.wakes.get(&reader.worker).cloned()
    }

    pub(super) fn pop(&mut self, id: u32) -> Result<Vec<u8>, QueueError> {
        let queue = self.queues.get_mut(&id).ok_or(QueueError::Unknown)?;
        queue.items.pop_front().ok_or(QueueError::Empty)
    }

    /// Takes what a worker's readers are to be told, once for each item, in the order in which the items came.
    pub(super) fn take_untold(&mut self, worker: u64) -> Vec<(u32, Reader)> {
        let untold = self.untold.get_mut(&worker);
        untold.map_or_else(Vec::new, |untold| untold.drain(..).collect())
    }

    /// Takes the first of it.
    pub(super) fn take_next_untold(&mut self, worker: u64) -> Option<(u32, Reader)> {
        self.untold.get_mut(&worker)?.pop_front()
    }

    /// Whether a worker's readers are to be told of something.
    pub(super) fn has_untold(&self, worker: u64) -> bool {
        let untold = self.untold.get(&worker);
        untold.is_some_and(|untold| !untold.is_empty())
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
}

#[cfg(test)]
mod tests {
    use super::{QueueError, Queues, Reader};

    fn reader(worker: u64) -> Reader {
        Reader {
            worker,
            vm: 0,
            generation: 0,
            root: 1,
        }
    }

    #[test]
    fn a_queue_is_found_by_its_name_and_gives_what_came_first() {
        let mut queues = Queues::default();
        let id = queues.register(b"q", reader(1));
        assert_eq!(queues.register(b"q", reader(1)), id);
        assert_eq!(queues.resolve(b"other"), None);
        assert!(queues.push(id, b"1").is_ok() && queues.push(id, b"2").is_ok());
        assert_eq!(queues.pop(id), Ok(b"1".to_vec()));
        assert_eq!(queues.pop(id), Ok(b"2".to_vec()));
        assert_eq!(queues.pop(id), Err(QueueError::Empty));
        assert!(matches!(queues.push(99, b""), Err(QueueError::Unknown)));
    }

    #[test]
    fn the_last_who_registered_is_told_once_for_each_item() {
        let mut queues = Queues::default();
        let id = queues.register(b"q", reader(1));
        queues.register(b"q", reader(2));
        for item in [b"a", b"b"] {
            assert!(queues.push(id, item).is_ok());
        }
        assert!(queues.take_untold(1).is_empty());
        assert_eq!(queues.take_untold(2), [(id, reader(2)); 2]);
        assert!(queues.take_untold(2).is_empty());
    }

    #[test]
    fn what_a_worker_that_goes_was_not_told_is_told_to_the_one_before() {
        let mut queues = Queues::default();
        let id = queues.register(b"q", reader(1));
        queues.register(b"q", reader(2));
        assert!(queues.push(id, b"a").is_ok());
        queues.remove_worker(2);
        assert!(queues.push(id, b"b").is_ok());
        assert_eq!(queues.take_untold(1), [(id, reader(1)); 2]);
        queues.remove_worker(1);
        assert!(queues.push(id, b"c").is_ok());
        assert!(!queues.has_untold(1) && queues.pop(id).is_ok());
    }
}
