//! What a guest may use.

use std::time::Duration;

use crate::profile::Profile;

/// Bounds for one worker's guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The linear memory of one VM, in bytes. Growing past it fails, which a guest takes for out of memory.
    pub memory_bytes: usize,
    /// The time of one callback, in steps of 10 ms; past it the callback traps.
    pub callback: Duration,
    /// The time of starting and of configuring, where a filter may have much to read; past it the start fails.
    pub start: Duration,
    /// What the host buffers of one body, in bytes. Envoy: over it 413. Kong (`client_body_buffer_size`): over it the
    /// body goes to a file, where a filter can't read it.
    pub body_buffer: usize,
    /// What Kong buffers of a response body for a filter that pauses, in bytes (`wasm_response_body_buffers`).
    pub response_buffers: usize,
    /// The size of Kong's zone for shared data, in bytes (`nginx_wasm_shm_kv`). Envoy has no bound.
    pub shared_data_bytes: usize,
}

impl Limits {
    /// What the profile's host has where nobody sets anything else.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Spec | Profile::Envoy => Self::default(),
            // Kong's nginx_http_client_body_buffer_size.
            Profile::Kong => Self {
                body_buffer: 8 << 10,
                ..Self::default()
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            callback: Duration::from_secs(1),
            start: Duration::from_secs(60),
            body_buffer: 1 << 20,
            response_buffers: 4 * 4096,
            shared_data_bytes: 10 << 20,
        }
    }
}
