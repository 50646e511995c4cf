//! One type for every socket: TCP or unix, plain or TLS, towards clients or servers.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use crate::auth::certificate::server_end_point;

/// A peer silent for this long is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// And asked again after this long without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connected socket. TLS state is boxed, so that a plain socket costs little memory.
#[derive(Debug)]
pub enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TCP with TLS, where the proxy is the TLS server.
    TlsServerSide(Box<server::TlsStream<TcpStream>>),
    /// TCP with TLS, where the proxy is the TLS client.
    TlsClientSide(Box<client::TlsStream<TcpStream>>),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine.
    Local,
    /// Nobody any more.
    Gone,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Local => f.write_str("[local]"),
            Peer::Gone => f.write_str("[gone]"),
        }
    }
}

/// Has the system ask a silent peer now and then whether it is still there.
///
/// # Errors
/// What the system says, usually that the peer is gone.
pub fn keep_alive(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}

impl Stream {
    /// Takes a TCP socket: no delay, keepalive on.
    ///
    /// # Errors
    /// What the system says, usually that the peer is gone.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        keep_alive(&SockRef::from(&socket))?;
        Ok(Stream::Tcp(socket))
    }

    /// Has the caller's runtime watch the socket from now on.
    ///
    /// # Errors
    /// What the system says, mostly that there are no more file descriptors.
    pub fn register_anew(&mut self) -> io::Result<()> {
        let tcp = match self {
            Stream::Unix(socket) => {
                // The old one stays with its runtime until it is dropped here.
                let again = socket.as_fd().try_clone_to_owned()?;
                *socket = UnixStream::from_std(again.into())?;
                return Ok(());
            }
            Stream::Tcp(socket) => socket,
            Stream::TlsServerSide(tls) => tls.get_mut().0,
            Stream::TlsClientSide(tls) => tls.get_mut().0,
        };
        let again = tcp.as_fd().try_clone_to_owned()?;
        *tcp = TcpStream::from_std(again.into())?;
        Ok(())
    }

    /// Whether the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        self.tcp_socket().is_some() && !matches!(self, Stream::Tcp(_))
    }

    /// Whether the peer is on this machine by nature.
    pub fn is_unix(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        match self.tcp_socket() {
            None => Peer::Local,
            Some(socket) => socket.peer_addr().map_or(Peer::Gone, Peer::Tcp),
        }
    }

    /// Where the peer came in.
    pub fn local(&self) -> Peer {
        match self.tcp_socket() {
            None => Peer::Local,
            Some(socket) => socket.local_addr().map_or(Peer::Gone, Peer::Tcp),
        }
    }

    /// What SCRAM can bind this connection to, where the proxy is the TLS client.
    pub fn server_binding(&self) -> Option<Vec<u8>> {
        match self {
            Stream::TlsClientSide(tls) => {
                let chain = tls.get_ref().1.peer_certificates()?;
                server_end_point(chain.first()?)
            }
            _ => None,
        }
    }

    /// The certificate, in DER, that a client has shown and that has been verified.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        match self {
            Stream::TlsServerSide(tls) => {
                let chain = tls.get_ref().1.peer_certificates()?;
                chain.first().map(|leaf| leaf.as_ref())
            }
            _ => None,
        }
    }

    fn tcp_socket(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(socket) => Some(socket),
            Stream::Unix(_) => None,
            Stream::TlsServerSide(tls) => Some(tls.get_ref().0),
            Stream::TlsClientSide(tls) => Some(tls.get_ref().0),
        }
    }

    /// Whether rustls holds decrypted bytes, or the end of the stream, that nobody has read.
    ///
    /// It decrypts every whole record that it has, so that whatever else is missing is still in
    /// the socket.
    fn holds_plaintext(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::TlsServerSide(tls) => !tls.get_ref().1.wants_read(),
            Stream::TlsClientSide(tls) => !tls.get_ref().1.wants_read(),
        }
    }

    /// Waits until a read would give something (bytes, the end or an error), without a buffer.
    ///
    /// It may return early: the read that follows then waits. Cancelling it loses nothing.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub async fn readable(&self) -> io::Result<()> {
        if self.holds_plaintext() {
            return Ok(());
        }
        match self {
            Stream::Unix(socket) => socket.readable().await,
            Stream::Tcp(socket) => socket.readable().await,
            Stream::TlsServerSide(tls) => tls.get_ref().0.readable().await,
            Stream::TlsClientSide(tls) => tls.get_ref().0.readable().await,
        }
    }

    /// As [`Stream::readable`], for a task that waits for several things.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds_plaintext() {
            return Poll::Ready(Ok(()));
        }
        match self {
            Stream::Unix(socket) => socket.poll_read_ready(cx),
            Stream::Tcp(socket) => socket.poll_read_ready(cx),
            Stream::TlsServerSide(tls) => tls.get_ref().0.poll_read_ready(cx),
            Stream::TlsClientSide(tls) => tls.get_ref().0.poll_read_ready(cx),
        }
    }

    /// Whether the peer has closed its side, as far as the runtime has seen, read or not.
    pub fn is_closing(&self) -> bool {
        let ready = match self {
            Stream::Unix(socket) => socket.ready(Interest::READABLE).now_or_never(),
            Stream::Tcp(socket) => socket.ready(Interest::READABLE).now_or_never(),
            Stream::TlsServerSide(tls) => tls.get_ref().0.ready(Interest::READABLE).now_or_never(),
            Stream::TlsClientSide(tls) => tls.get_ref().0.ready(Interest::READABLE).now_or_never(),
        };
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    /// Whether the peer is connected and has sent nothing that has not been read. Never waits, and
    /// costs no system call when the runtime has seen nothing arrive.
    pub fn is_quiet(&self) -> bool {
        if self.holds_plaintext() {
            return false;
        }
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Stream::Unix(socket) => {
                socket.try_io(Interest::READABLE, || SockRef::from(socket).peek(&mut byte))
            }
            Stream::Tcp(socket) => peek(socket, &mut byte),
            Stream::TlsServerSide(tls) => peek(tls.get_ref().0, &mut byte),
            Stream::TlsClientSide(tls) => peek(tls.get_ref().0, &mut byte),
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn peek(socket: &TcpStream, byte: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    socket.try_io(Interest::READABLE, || SockRef::from(socket).peek(byte))
}

/// Calls one method of whichever socket it is.
macro_rules! socket {
    ($stream:expr, $socket:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($socket) => $call,
            Stream::Unix($socket) => $call,
            Stream::TlsServerSide($socket) => $call,
            Stream::TlsClientSide($socket) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        socket!(self.get_mut(), socket => Pin::new(socket).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        socket!(self.get_mut(), socket => Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        socket!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        socket!(self, socket => socket.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(self.get_mut(), socket => Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{BackendTls, BackendTlsMode, ClientTls, TlsMode};
    use crate::net::testing::Authority;
    use crate::net::tls::{Acceptor, Connector};

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    async fn tls_pair() -> (Stream, Stream) {
        let authority = Authority::new();
        let (cert, key) = authority.issue("localhost", &["localhost"]);
        let acceptor = Acceptor::load(&ClientTls {
            mode: TlsMode::Prefer,
            cert: Some(cert),
            key: Some(key),
            ..ClientTls::default()
        })
        .unwrap();
        let connector = Connector::load(&BackendTls {
            mode: BackendTlsMode::VerifyFull,
            ca: Some(authority.ca()),
            cert: None,
            key: None,
        })
        .unwrap();
        let (near, far) = tcp_pair().await;
        let (near, far) = tokio::join!(connector.connect("localhost", near), acceptor.accept(far));
        (near.unwrap(), far.unwrap())
    }

    async fn pairs() -> Vec<(Stream, Stream)> {
        let (near, far) = tcp_pair().await;
        let unix = UnixStream::pair().unwrap();
        vec![
            (Stream::tcp(near).unwrap(), Stream::tcp(far).unwrap()),
            (Stream::Unix(unix.0), Stream::Unix(unix.1)),
            tls_pair().await,
        ]
    }

    #[tokio::test]
    async fn bytes_go_both_ways() {
        for (mut near, mut far) in pairs().await {
            near.write_all(b"ping").await.unwrap();
            near.flush().await.unwrap();
            let mut four = [0; 4];
            far.read_exact(&mut four).await.unwrap();
            assert_eq!(&four, b"ping");
            let slices = [io::IoSlice::new(b"po"), io::IoSlice::new(b"ng")];
            assert_eq!(far.write_vectored(&slices).await.unwrap(), 4);
            far.flush().await.unwrap();
            near.read_exact(&mut four).await.unwrap();
            assert_eq!(&four, b"pong");
            far.shutdown().await.unwrap();
            assert_eq!(near.read(&mut four).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn streams_know_what_they_are() {
        let pairs = pairs().await;
        let tls: Vec<bool> = pairs.iter().map(|(near, _)| near.is_tls()).collect();
        assert_eq!(tls, [false, false, true]);
        assert!(
            pairs
                .iter()
                .all(|(near, far)| near.is_tls() == far.is_tls())
        );
        assert!(matches!(pairs[0].0.peer(), Peer::Tcp(_)));
        assert_eq!(pairs[1].0.peer().to_string(), "[local]");
        assert!(pairs[2].0.server_binding().is_some());
    }

    /// A record brings two bytes, one is read: the other is in no socket, but in rustls.
    #[tokio::test]
    async fn what_is_left_makes_a_stream_readable_without_a_socket_event() {
        for (mut near, mut far) in pairs().await {
            assert!(far.is_quiet());
            near.write_all(b"ab").await.unwrap();
            near.flush().await.unwrap();
            far.readable().await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'a');
            assert!(!far.is_quiet());
            far.readable().await.unwrap();
            assert_eq!(far.read_u8().await.unwrap(), b'b');
            assert!(far.is_quiet());
            // Nothing more: it must wait.
            assert!(futures_util::poll!(Box::pin(far.read_u8())).is_pending());
            drop(near);
            far.readable().await.unwrap();
            assert!(!far.is_quiet());
        }
    }

    #[test]
    fn idle_streams_are_small() {
        assert!(size_of::<Stream>() <= size_of::<TcpStream>() + 16);
    }
}
