//! Where a worker's time comes from.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time: what the clock on the wall shows, and how much of it has passed.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC. An operator or NTP may set it, also backwards.
    fn now_unix_nanos(&self) -> u64;

    /// Nanoseconds since a moment that does not change. Never goes backwards: timers run by it.
    fn elapsed_nanos(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix_nanos(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, nanos)
    }

    fn elapsed_nanos(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        nanos(START.get_or_init(Instant::now).elapsed())
    }
}

/// A clock that stands still until told.
#[derive(Debug)]
pub struct VirtualClock {
    unix_nanos: AtomicU64,
    elapsed_nanos: AtomicU64,
}

impl VirtualClock {
    /// A clock that shows `unix_nanos`.
    #[must_use]
    pub fn at(unix_nanos: u64) -> Self {
        Self {
            unix_nanos: AtomicU64::new(unix_nanos),
            elapsed_nanos: AtomicU64::new(0),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.unix_nanos.fetch_add(nanos(by), Ordering::Relaxed);
        self.elapsed_nanos.fetch_add(nanos(by), Ordering::Relaxed);
    }

    /// Makes the clock show `unix_nanos`, also an earlier time: a clock jump. No time passes, so no timer is nearer its
    /// end.
    pub fn set(&self, unix_nanos: u64) {
        self.unix_nanos.store(unix_nanos, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_unix_nanos(&self) -> u64 {
        self.unix_nanos.load(Ordering::Relaxed)
    }

    fn elapsed_nanos(&self) -> u64 {
        self.elapsed_nanos.load(Ordering::Relaxed)
    }
}

/// Nanoseconds as the ABI counts them: 64 bits last until the year 2554.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
