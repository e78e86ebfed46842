//! Listening sockets, and what to tell the user when one can't be had.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds for us between two `accept` calls. Linux cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Occurs when something else listens on the address already.
    #[error(
        "port {port} is in use, so nothing can listen on {address}: stop what does (`ss -ltnp 'sport = :{port}'` names it) or choose another port",
        port = address.port()
    )]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Occurs when the port is below 1024 and the user may not open such ports.
    #[error(
        "not allowed to listen on {address}: ports below 1024 need privileges, choose a higher one"
    )]
    NotAllowed {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Occurs when the address belongs to no interface of this machine.
    #[error(
        "cannot listen on {address}: this machine has no such address, use 127.0.0.1 or 0.0.0.0"
    )]
    NotOurs {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Occurs when the system refuses for another reason, such as too many open files.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Refused { address, source },
        }
    }
}

/// Opens `count` listening sockets on one address; the kernel spreads connections over them. Port 0 takes a free
/// port, the same one for all.
///
/// # Errors
/// When the address is taken or can't be had. Sockets that share a port would also share it with a stranger of the
/// same user without a word, so that one which does not share is opened first and must succeed.
pub fn bind_shared(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |source| BindError::new(address, source);
    let probe = open(address, Sharing::Alone).map_err(failed)?;
    let bound = probe
        .local_addr()
        .map_err(failed)?
        .as_socket()
        .unwrap_or(address);
    drop(probe);
    (0..count)
        .map(|_| listen(bound, Sharing::WithOurs))
        .collect::<io::Result<_>>()
        .map_err(failed)
}

/// Opens one listening socket; port 0 takes a free port.
///
/// # Errors
/// When the address is taken or can't be had.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address, Sharing::Alone).map_err(|source| BindError::new(address, source))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithOurs,
}

fn listen(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = open(address, sharing)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the last run's connections to time out.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithOurs {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_port_shared_by_our_own_sockets_is_still_in_use_for_others() {
        let ours = bind_shared(local(0), 2).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert_eq!(ours[1].local_addr().unwrap(), address);
        for refused in [bind_shared(address, 1).map(drop), bind(address).map(drop)] {
            let message = refused.unwrap_err().to_string();
            assert!(
                message.contains(&format!("port {} is in use", address.port())),
                "{message}"
            );
        }
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_advice() {
        let message = bind(SocketAddr::from(([192, 0, 2, 1], 0)))
            .unwrap_err()
            .to_string();
        assert!(message.contains("no such address"), "{message}");
    }
}
