//! Connections: a thread's listening socket, and what speaks on each connection that it takes.
//!
//! HTTP/1.1 is written by hand, because a library would refuse to write most of what can go wrong; HTTP/2 with prior
//! knowledge goes through hyper.

mod http1;
mod http2;
mod incoming;

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::provider::{Exchange, Provider};
use super::script::Script;

/// How long a provider that was told to stop waits for the answers it is giving.
const DRAIN: Duration = Duration::from_secs(5);

/// How long accepting pauses when the system gives no more sockets; connections that end meanwhile free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a reader of the ledger who waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Serves on one socket until told to stop, then until the open answers are given or their time is over.
pub(super) async fn serve(
    listener: TcpListener,
    provider: Arc<Provider>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (running, mut all_over) = mpsc::channel::<Infallible>(1);
    loop {
        let stream = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Small event frames must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let provider = Arc::clone(&provider);
        let (stop, running) = (stop.clone(), running.clone());
        tokio::task::spawn_local(async move {
            // A client that goes away is its own business.
            let _ = speak(stream, provider, stop).await;
            drop(running);
        });
    }
    drop((listener, running));
    let _ = tokio::time::timeout(DRAIN, all_over.recv()).await;
    Ok(())
}

async fn speak(
    stream: TcpStream,
    provider: Arc<Provider>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let two = tokio::select! {
        two = has_preface(&stream) => two?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    if two {
        http2::serve(stream, provider, stop).await;
        Ok(())
    } else {
        http1::serve(stream, provider, stop).await
    }
}

async fn has_preface(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let read = stream.peek(&mut start).await?;
        let start = start.get(..read).unwrap_or_default();
        if start == PREFACE {
            return Ok(true);
        }
        if read == 0 || !PREFACE.starts_with(start) {
            return Ok(false);
        }
        // A client that sends the preface piece by piece: the socket stays readable meanwhile.
        tokio::time::sleep(LOOK_AGAIN).await;
        stream.ready(Interest::READABLE).await?;
    }
}

/// The script of an exchange, when it is time for it.
async fn ready(provider: &Provider, exchange: &mut Exchange) -> Option<Script> {
    let patience = exchange.patience.take()?;
    let end = Instant::now() + patience.longest;
    while provider.ledger.open_responses() > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Some(provider.ledger_script(patience.since))
}
