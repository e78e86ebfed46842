//! A connection that stopped to be HTTP: bytes pass in both directions until either side ends.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::failure::Failure;

/// The most bytes under way in one direction.
const UNDER_WAY: usize = 16 << 10;

/// How long one side may go on once the other has ended: it can't be told from one that is gone.
const REST: Duration = Duration::from_secs(5);

/// Passes bytes between the two sides once both have changed the protocol.
///
/// # Errors
/// When no byte passes for as long as `idle`. Sides that break off end the tunnel as those do that say goodbye.
pub(super) async fn join(
    client: OnUpgrade,
    upstream: OnUpgrade,
    idle: Duration,
) -> Result<(), Failure> {
    let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else {
        return Ok(());
    };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
    let moved = Cell::new(Instant::now());
    let mut up = std::pin::pin!(pass(from_client, to_upstream, &moved));
    let mut down = std::pin::pin!(pass(from_upstream, to_client, &moved));
    let ended = async {
        tokio::select! {
            _ = &mut up => drop(tokio::time::timeout(REST, &mut down).await),
            _ = &mut down => drop(tokio::time::timeout(REST, &mut up).await),
        }
    };
    tokio::select! {
        () = ended => Ok(()),
        () = still(&moved, idle) => Err(Failure::TunnelIdle),
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Cell<Instant>,
) -> io::Result<()> {
    let mut piece = vec![0; UNDER_WAY];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        if read == 0 {
            return to.shutdown().await;
        }
        moved.set(Instant::now());
        to.write_all(piece.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
        moved.set(Instant::now());
    }
}

/// Ends when nothing has moved for so long.
async fn still(moved: &Cell<Instant>, idle: Duration) {
    loop {
        let left = idle.saturating_sub(moved.get().elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}
