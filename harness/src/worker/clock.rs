//! Where a worker's time comes from.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of wall-clock time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC.
    fn now_unix_nanos(&self) -> u64;

    /// Nanoseconds since some moment that never changes. It never goes back, whatever the wall clock does.
    fn monotonic_nanos(&self) -> u64;
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

    fn monotonic_nanos(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        nanos(START.get_or_init(Instant::now).elapsed())
    }
}

/// A clock that stands still until told.
#[derive(Debug)]
pub struct VirtualClock {
    unix: AtomicU64,
    monotonic: AtomicU64,
}

impl VirtualClock {
    /// A clock that shows `unix_nanos`.
    #[must_use]
    pub fn at(unix_nanos: u64) -> Self {
        Self {
            unix: AtomicU64::new(unix_nanos),
            monotonic: AtomicU64::new(0),
        }
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.unix.fetch_add(nanos(by), Ordering::Relaxed);
        self.monotonic.fetch_add(nanos(by), Ordering::Relaxed);
    }

    /// Puts the clock at `unix_nanos`. Forwards, time has passed; backwards is a clock jump, in which none has.
    pub fn set(&self, unix_nanos: u64) {
        let before = self.unix.swap(unix_nanos, Ordering::Relaxed);
        let passed = unix_nanos.saturating_sub(before);
        self.monotonic.fetch_add(passed, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_unix_nanos(&self) -> u64 {
        self.unix.load(Ordering::Relaxed)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.monotonic.load(Ordering::Relaxed)
    }
}

/// Nanoseconds as the ABI counts them: 64 bits last until the year 2554.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
