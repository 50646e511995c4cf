//! TCP ports that nobody else is given before their servers listen, and while they are down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port of 127.0.0.1.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Bound, but does not listen: the system chooses the port for nobody else, neither for a
    /// listener nor for a connection, and who names it can still listen on it.
    _held: Option<Socket>,
}

impl Port {
    /// A port that nobody uses, kept until this is dropped. A server that is to listen on it must
    /// set SO_REUSEADDR, as PostgreSQL and Shardwire do.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn reserve() -> io::Result<Port> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("a TCP socket without a port"))?;
        Ok(Port {
            number: address.port(),
            _held: Some(socket),
        })
    }

    /// A port that somebody has named.
    pub fn named(number: u16) -> Port {
        Port {
            number,
            _held: None,
        }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_who_names_it_gets_it() {
        let port = Port::reserve().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port.number());
        for _ in 0..2 {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(client.local_addr().unwrap(), accepted.peer_addr().unwrap());
            assert!(TcpListener::bind(address).is_err(), "somebody listens");
        }
    }

    #[test]
    fn no_two_are_equal() {
        let ports: Vec<Port> = (0..500).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
