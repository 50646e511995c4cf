//! Connects to a server: address, socket, TLS, login.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use crate::backend::login::login;
use crate::backend::principal::Principal;
use crate::config::Address;
use crate::config::BackendTlsMode;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::net::tls::Connector;
use crate::sqlstate::SqlState;
use crate::wire::startup;

/// A server and who to be there.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// The database there.
    pub database: String,
    /// The role there.
    pub principal: Arc<Principal>,
    /// Shown in the server's `pg_stat_activity`.
    pub application_name: String,
    /// Further startup parameters, settings mostly.
    pub parameters: Vec<(String, String)>,
    /// For everything from the look-up of the name to the end of the login.
    pub connect_timeout: Duration,
}

/// A server connection that has logged in and is idle.
#[derive(Debug)]
pub struct Dialed {
    /// The connection; nothing of what the server has sent is left unread.
    pub stream: Stream,
    /// ParameterStatus, each name once with its last value, in the order of their first sight.
    pub parameters: Vec<(String, String)>,
    /// For [`cancel`](crate::backend::cancel::cancel); 0 if the server has told none.
    pub process_id: i32,
    /// For [`cancel`](crate::backend::cancel::cancel); empty if the server has told none.
    pub secret: Vec<u8>,
}

/// Connects to a server and logs in.
///
/// # Errors
/// `08001` if it can't be reached in time or TLS fails, `08006` if it goes away, `08P01` if it
/// breaks the protocol, and whatever it says itself (`28P01`, `53300`, `57P03` …), with its address
/// in the DETAIL. None is fatal by itself.
pub async fn dial(target: &Target, connector: &Connector) -> Result<Dialed> {
    let deadline = Instant::now() + target.connect_timeout;
    let dialing = async {
        let stream = connect(&target.address, connector, deadline).await?;
        login(stream, target).await
    };
    timeout_at(deadline, dialing)
        .await
        .unwrap_or_else(|_| Err(timed_out(&target.address)))
}

/// Connects to a server, with TLS as the connector wants it, without logging in.
///
/// # Errors
/// `08001` if it can't be reached before the deadline or TLS fails, `08P01` if it breaks the
/// protocol.
pub async fn connect(
    address: &Address,
    connector: &Connector,
    deadline: Instant,
) -> Result<Stream> {
    let connecting = async {
        match address {
            // As in libpq, TLS is for the network only.
            Address::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let socket = UnixStream::connect(path).await;
                socket
                    .map(Stream::Unix)
                    .map_err(|error| unreachable(address, &error))
            }
            Address::Tcp { host, port } => {
                let socket = connect_tcp(address, host, *port, deadline).await?;
                start_tls(address, host, socket, connector).await
            }
        }
    };
    timeout_at(deadline, connecting)
        .await
        .unwrap_or_else(|_| Err(timed_out(address)))
}

/// Tries every address that the name stands for; each gets an equal share of the time left.
async fn connect_tcp(
    address: &Address,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream> {
    let found: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| unreachable(address, &error))?
        .collect();
    let mut reason = None;
    for (tried, candidate) in found.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(candidate)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => reason = Some(error),
            Err(_) => reason = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    let reason = reason.unwrap_or_else(|| io::Error::other("the name stands for no address"));
    Err(unreachable(address, &reason))
}

async fn start_tls(
    address: &Address,
    host: &str,
    socket: TcpStream,
    connector: &Connector,
) -> Result<Stream> {
    let mut stream = Stream::tcp(socket).map_err(|error| unreachable(address, &error))?;
    if connector.mode() == BackendTlsMode::Off {
        return Ok(stream);
    }
    let mut request = Vec::new();
    startup::ssl_request(&mut request);
    let answer = async {
        stream.write_all(&request).await?;
        stream.read_u8().await
    };
    let answer = answer.await.map_err(|error| unreachable(address, &error))?;
    match (answer, stream) {
        (b'S', stream) if !stream.is_quiet() => Err(broken(
            address,
            "It sent unencrypted data after its answer to SSLRequest.",
        )),
        // Whatever else arrives in clear is still in the socket, where TLS finds it and fails.
        (b'S', Stream::Tcp(socket)) => connector.connect(host, socket).await.map_err(|error| {
            Error::new(
                SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
                format!("could not start TLS with server \"{address}\""),
            )
            .detail(sentence(&error))
        }),
        (b'N', stream) if connector.mode() == BackendTlsMode::Prefer => Ok(stream),
        (b'N', _) => Err(Error::new(
            SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            format!("server \"{address}\" does not support TLS"),
        )
        .hint("Enable `ssl` there, or choose another mode for `backend.tls`.")),
        _ => Err(broken(
            address,
            "Its answer to SSLRequest is neither S nor N.",
        )),
    }
}

pub(super) fn unreachable(address: &Address, reason: &io::Error) -> Error {
    Error::new(
        SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        format!("could not connect to server \"{address}\""),
    )
    .detail(sentence(reason))
}

pub(super) fn timed_out(address: &Address) -> Error {
    unreachable(address, &io::ErrorKind::TimedOut.into())
}

pub(super) fn lost(address: &Address, reason: &io::Error) -> Error {
    Error::new(
        SqlState::CONNECTION_FAILURE,
        format!("connection to server \"{address}\" was lost during login"),
    )
    .detail(sentence(reason))
}

pub(super) fn broken(address: &Address, detail: &str) -> Error {
    Error::new(
        SqlState::PROTOCOL_VIOLATION,
        format!("server \"{address}\" broke the protocol during login"),
    )
    .detail(detail.to_owned())
}

/// A reason as a DETAIL: a capital first and a full stop last.
fn sentence(reason: &impl fmt::Display) -> String {
    let mut text = reason.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::BackendTls;

    const UNREACHABLE: SqlState = SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;

    fn target(port: u16) -> Target {
        Target {
            address: Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port,
            },
            database: "shop".to_owned(),
            principal: Principal::new("role", None),
            application_name: "shardwire".to_owned(),
            parameters: Vec::new(),
            connect_timeout: Duration::from_secs(60),
        }
    }

    fn connector(mode: BackendTlsMode) -> Connector {
        Connector::load(&BackendTls {
            mode,
            ca: None,
            cert: None,
            key: None,
        })
        .unwrap()
    }

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_the_reason() {
        let (listener, port) = listen().await;
        drop(listener);
        let error = dial(&target(port), &Connector::off()).await.unwrap_err();
        assert_eq!(error.code(), UNREACHABLE);
        assert_eq!(
            error.fields().message,
            format!("could not connect to server \"127.0.0.1:{port}\"")
        );
        let detail = error.fields().detail.clone().unwrap();
        assert!(detail.starts_with("Connection refused"), "{detail}");
        let mut gone = target(port);
        gone.address = Address::Unix {
            directory: "/nonexistent".into(),
            port,
        };
        let error = dial(&gone, &Connector::off()).await.unwrap_err();
        assert_eq!(error.code(), UNREACHABLE);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let (_listener, port) = listen().await;
        let mut target = target(port);
        target.connect_timeout = Duration::from_millis(20);
        for connector in [Connector::off(), connector(BackendTlsMode::Prefer)] {
            let error = dial(&target, &connector).await.unwrap_err();
            assert_eq!(error.code(), UNREACHABLE);
            assert_eq!(error.fields().detail.as_deref(), Some("Timed out."));
        }
    }

    #[tokio::test]
    async fn strange_answers_to_the_request_for_tls_are_refused() {
        for (answer, code) in [
            (&b""[..], UNREACHABLE),
            (b"E", SqlState::PROTOCOL_VIOLATION),
            (b"H", SqlState::PROTOCOL_VIOLATION),
            // CVE-2021-23222: said in clear, perhaps not by the server.
            (b"SR\0\0\0\x08\0\0\0\0", SqlState::PROTOCOL_VIOLATION),
            (b"N", UNREACHABLE),
        ] {
            let (listener, port) = listen().await;
            let server = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                socket.read_exact(&mut request).await.unwrap();
                assert_eq!(request, *b"\0\0\0\x08\x04\xd2\x16\x2f");
                socket.write_all(answer).await.unwrap();
            };
            let connector = connector(BackendTlsMode::Require);
            let target = target(port);
            let (dialed, ()) = tokio::join!(dial(&target, &connector), server);
            assert_eq!(dialed.unwrap_err().code(), code, "{answer:?}");
        }
    }

    #[test]
    fn reasons_become_sentences() {
        assert_eq!(sentence(&"timed out"), "Timed out.");
        assert_eq!(sentence(&"\u{e9}t\u{e9}."), "\u{e9}t\u{e9}.");
        assert_eq!(sentence(&""), ".");
    }
}
