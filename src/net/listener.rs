//! Where clients arrive: TCP and unix sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use crate::config::ListenAddress;
use crate::error::{Error, Result};
use crate::net::stream::{Stream, keep_alive};
use crate::sqlstate::SqlState;

/// Connections that the kernel keeps until they are accepted; it caps this by its own limit.
const BACKLOG: u32 = 4096;

/// A bound socket that accepts clients. Dropping it removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody could be told about a failure; a stale file is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds an address. A unix socket's file left by a dead process is replaced.
    ///
    /// # Errors
    /// `58000` if the system refuses or another process listens there.
    pub async fn bind(address: &ListenAddress) -> Result<Listener> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Socket::Tcp),
            ListenAddress::Unix(path) => bind_unix(path).await,
        };
        let socket = bound.map_err(|error| {
            let shown = match address {
                ListenAddress::Tcp(address) => address.to_string(),
                ListenAddress::Unix(path) => path.display().to_string(),
            };
            Error::new(
                SqlState::SYSTEM_ERROR,
                format!("could not listen on \"{shown}\": {error}"),
            )
        })?;
        Ok(Listener { socket })
    }

    /// The TCP address that was bound, with the port the system chose.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Waits for the next client. Cancelling it loses no client.
    ///
    /// # Errors
    /// What the system says when it has run out of something (files, memory): wait a little and
    /// try again. Clients that were gone before they were accepted are passed over.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener
                    .accept()
                    .await
                    .map(|(socket, _)| Stream::Tcp(socket)),
                Socket::Unix(listener, _) => listener
                    .accept()
                    .await
                    .map(|(socket, _)| Stream::Unix(socket)),
            };
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("[closed]"),
            },
            Socket::Unix(_, file) => file.0.display().fmt(f),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Each socket that it accepts has these from the start.
    socket.set_nodelay(true)?;
    keep_alive(&SockRef::from(&socket))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> io::Result<Socket> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        other => other?,
    };
    let file = SocketFile(path.to_owned());
    // As PostgreSQL's `unix_socket_permissions`: the login decides who may come in.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777))?;
    Ok(Socket::Unix(listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_arrive_over_tcp() {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&address).await.unwrap();
        let bound = listener.local_address().unwrap();
        let client = tokio::net::TcpStream::connect(bound).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        let Stream::Tcp(socket) = &accepted else {
            panic!("a TCP socket");
        };
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(socket).keepalive().unwrap());
        let peer = accepted.peer().to_string();
        assert_eq!(peer, client.local_addr().unwrap().to_string());
        let taken = Listener::bind(&ListenAddress::Tcp(bound)).await;
        assert_eq!(taken.unwrap_err().code(), SqlState::SYSTEM_ERROR);
    }

    #[tokio::test]
    async fn unix_sockets_replace_stale_files_only_and_leave_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        // A file that its process left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let address = ListenAddress::Unix(path.clone());
        let listener = Listener::bind(&address).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(listener.accept().await.unwrap().is_unix());
        drop(client);
        assert!(Listener::bind(&address).await.is_err());
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }
}
