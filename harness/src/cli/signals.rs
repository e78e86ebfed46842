//! What a long-running command is told by signals.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, the signal that service managers and Kubernetes send to stop, and the one that asks to read files again. Made
/// before the work begins, so that an early signal is not lost.
pub(super) struct Signals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Stop,
    Reload,
    Nothing,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (interrupt, terminate, hang_up) = {
            let _in_runtime = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        Ok(Self {
            runtime,
            interrupt,
            terminate,
            hang_up,
        })
    }

    /// Waits for the next one, for a while.
    pub(super) fn next(&mut self, patience: Duration) -> Told {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => Told::Stop,
                _ = self.terminate.recv() => Told::Stop,
                _ = self.hang_up.recv() => Told::Reload,
                () = tokio::time::sleep(patience) => Told::Nothing,
            }
        })
    }

    /// Waits until it is told to stop.
    pub(super) fn wait_for_stop(&mut self) {
        while self.next(Duration::MAX) != Told::Stop {}
    }
}
