//! Queues.

use super::Answer;
use crate::abi::Status;
use crate::profile::{Flow, Host, Row};
use crate::shared::{QueueError, Reader};
use crate::vm::memory::{Env, Refusal};

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        Self::Status(match error {
            QueueError::Unknown => Status::NotFound,
            QueueError::Empty => Status::Empty,
        })
    }
}

pub(super) fn register(env: &mut Env<'_>, name: u32, name_len: u32, out: u32) -> Answer {
    let name = env.read(name, name_len)?;
    let guest = env.guest();
    guest.find(Host::Kong, Row::SharedQueue);
    if guest.rules.flow == Flow::Phased {
        return Err(Refusal::Trap(
            "could not find shared queue: none is declared (shm_queue)",
        ));
    }
    let reader = Reader {
        worker: guest.worker,
        vm: guest.vm,
        generation: guest.generation,
        root: guest.root_id(),
    };
    let queue = guest.setup.shared.queue_register(&name, reader);
    env.write_u32(out, queue)
}

pub(super) fn resolve(
    env: &mut Env<'_>,
    _vm: u32,
    _vm_len: u32,
    name: u32,
    name_len: u32,
    out: u32,
) -> Answer {
    let name = env.read(name, name_len)?;
    let queue = env.guest().setup.shared.queue_resolve(&name);
    env.write_u32(out, queue.ok_or(Status::NotFound)?)
}

pub(super) fn enqueue(env: &mut Env<'_>, queue: u32, ptr: u32, len: u32) -> Answer {
    let item = env.read(ptr, len)?;
    Ok(env.guest().setup.shared.queue_push(queue, &item)?)
}

pub(super) fn dequeue(env: &mut Env<'_>, queue: u32, ptr: u32, len: u32) -> Answer {
    let item = env.guest().setup.shared.queue_pop(queue)?;
    env.give(&item, ptr, len)
}
