//! HTTP/1.1 byte for byte, over plain sockets.
//!
//! An HTTP library tidies up: it joins, renames, reorders and refuses. Where a test has to send exactly these bytes, or
//! to see exactly what came, it needs the wire itself. Blocking, one exchange at a time, for tests only: it trusts its
//! peers more than a proxy may.
//!
//! [`exchange`] sends a request written by hand and reads the answer; [`Recorder`] is an upstream that notes each
//! request as it came and gives the answer it was told to.

mod message;
mod recorder;

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub use message::{Request, Response, WireError};
pub use recorder::{Answer, Recorder};

/// How long a peer may be silent before an exchange fails.
const SILENCE: Duration = Duration::from_secs(20);

/// Connects, sends `request` as it stands, and reads one response (informational ones are skipped).
///
/// The sending side stays open until the response is there. `method` tells whether the response can have a body.
///
/// # Errors
/// Fails when the connection does, when the peer is silent for 20 seconds, and when what comes is no HTTP response.
pub fn exchange(peer: SocketAddr, method: &str, request: &[u8]) -> Result<Response, WireError> {
    let mut connection = connect(peer)?;
    // A peer that refuses early may close before it has read everything: its answer still counts.
    let sent = connection.write_all(request);
    match Response::read(&mut BufReader::new(&connection), method) {
        Ok(response) => Ok(response),
        Err(received) => match sent {
            Ok(()) => Err(received),
            Err(sending) => Err(WireError::Connection(sending)),
        },
    }
}

/// Connects with the time limits of [`exchange`].
///
/// # Errors
/// Fails when the connection does.
pub fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&peer, SILENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(SILENCE))?;
    connection.set_write_timeout(Some(SILENCE))?;
    Ok(connection)
}
