//! Opens a client's connection: TLS, GSSAPI refusal, cancel requests, the startup packet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::rules::Visitor;
use crate::config::TlsMode;
use crate::error::{Error, Result};
use crate::net::stream::{Peer, Stream};
use crate::net::tls::Acceptor;
use crate::sqlstate::SqlState;
use crate::wire::backend;
use crate::wire::startup::{self, StartupPacket};

/// How long a refused client gets to read why before its socket is closed.
const LINGER: Duration = Duration::from_secs(1);
/// And how much of what it still sends is thrown away meanwhile, in bytes.
const LINGER_BYTES: u64 = 64 * 1024;

/// PostgreSQL cuts longer names off (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;

/// What a client wants.
#[derive(Debug)]
pub enum Handshake {
    /// A session.
    Startup(Startup),
    /// Another session's statement cancelled. Nothing may be answered: close the socket, which
    /// comes along, when the cancellation has been passed on.
    Cancel {
        /// The client's connection; the client waits until it is closed.
        stream: Stream,
        /// The process id that the other session was given.
        process_id: i32,
        /// The secret that the other session was given.
        secret: Vec<u8>,
    },
    /// Nothing: it has gone.
    Closed,
}

/// A client that has said who it is and has not proved it yet.
#[derive(Debug)]
pub struct Startup {
    /// Its connection.
    pub stream: Stream,
    /// The minor version of protocol 3 that both sides speak.
    pub minor: u16,
    /// Its startup parameters in the order sent, without the user, the database, `replication`
    /// and protocol options.
    pub parameters: Vec<(String, String)>,
    /// The user it claims to be.
    pub user: String,
    /// The database it names; else the user's name.
    pub database: String,
    /// What SCRAM can bind this connection to.
    pub binding: Option<Arc<[u8]>>,
    /// Messages for the client that go out with whatever it is told next, in one write: that it is let in.
    pub unsent: Vec<u8>,
}

impl Startup {
    /// Tells the client why its connection ends and shuts it down; see [`tell`].
    pub async fn tell(&mut self, error: &Error) {
        let mut words = std::mem::take(&mut self.unsent);
        backend::error_response(&mut words, error);
        part(&mut self.stream, &words).await;
    }

    /// The client as rules see it; none if it has gone.
    pub fn visitor(&self) -> Option<Visitor<'_>> {
        Some(Visitor {
            address: match self.stream.peer() {
                Peer::Tcp(address) => Some(address.ip()),
                Peer::Local => None,
                Peer::Gone => return None,
            },
            is_encrypted: self.stream.is_tls(),
            user: &self.user,
            database: &self.database,
        })
    }
}

/// Talks with a new client until it is clear what it wants. Packets longer than `limit` bytes are
/// refused. The caller sets the time limit; dropping the future closes the connection.
///
/// # Errors
/// What was wrong with the client; it has been told already and its connection is closed.
/// `08P01` for malformed packets, `0A000` for what isn't supported, `28000` without TLS where TLS
/// is required or without a user.
pub async fn accept(stream: Stream, acceptor: &Acceptor, limit: usize) -> Result<Handshake> {
    let mut stream = match direct_tls(stream, acceptor).await? {
        Some(stream) => stream,
        None => return Ok(Handshake::Closed),
    };
    let mut may_ask_tls = !stream.is_tls();
    let mut may_ask_gss = !stream.is_tls();
    loop {
        let packet = match read_packet(&mut stream, limit).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(Handshake::Closed),
            Err(error) => return refuse(stream, error).await,
        };
        match packet {
            StartupPacket::Cancel { process_id, secret } => {
                return Ok(Handshake::Cancel {
                    stream,
                    process_id,
                    secret,
                });
            }
            StartupPacket::GssEncRequest if may_ask_gss => {
                may_ask_gss = false;
                if stream.write_all(b"N").await.is_err() {
                    return Ok(Handshake::Closed);
                }
            }
            StartupPacket::SslRequest if may_ask_tls => {
                may_ask_tls = false;
                stream = match answer_tls(stream, acceptor).await? {
                    Some(stream) => stream,
                    None => return Ok(Handshake::Closed),
                };
                may_ask_gss &= !stream.is_tls();
            }
            StartupPacket::SslRequest | StartupPacket::GssEncRequest => {
                let error = Error::protocol("encryption was requested twice");
                return refuse(stream, error).await;
            }
            StartupPacket::Startup {
                major,
                minor,
                parameters,
            } => {
                let checked = check(&stream, acceptor, (major, minor), parameters);
                return match checked {
                    Ok(accepted) => start(stream, accepted).await,
                    Err(error) => refuse(stream, error).await,
                };
            }
        }
    }
}

/// Tells a client why its connection ends, and ends it so that the client can read it.
///
/// # Errors
/// Always the error given.
pub async fn refuse<T>(mut stream: Stream, error: Error) -> Result<T> {
    tell(&mut stream, &error).await;
    Err(error)
}

/// Tells a client why its connection ends and shuts it down.
///
/// A socket closed with unread bytes in it resets the connection, which can destroy the message on
/// its way; so what the client still sends is read, for a moment, until it closes too.
pub async fn tell(stream: &mut Stream, error: &Error) {
    let mut message = Vec::new();
    backend::error_response(&mut message, error);
    part(stream, &message).await;
}

async fn part(stream: &mut Stream, words: &[u8]) {
    let farewell = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // The client is gone or not listening: there is nobody left to tell.
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// Starts TLS at once if the client's first byte does so.
async fn direct_tls(stream: Stream, acceptor: &Acceptor) -> Result<Option<Stream>> {
    let Stream::Tcp(socket) = stream else {
        return Ok(Some(stream));
    };
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1..) if first != [startup::TLS_HANDSHAKE] => return Ok(Some(Stream::Tcp(socket))),
        Ok(1..) => {}
        _ => return Ok(None),
    }
    if acceptor.mode() == TlsMode::Off {
        // What it could be told it would take for broken TLS.
        return Err(Error::protocol(
            "received a direct TLS connection, but TLS is off",
        ));
    }
    let stream = accept_tls(acceptor, socket).await?;
    match &stream {
        Some(Stream::TlsServerSide(tls)) if tls.get_ref().1.alpn_protocol().is_none() => {
            let error = Error::protocol(
                "received direct TLS connection request without ALPN protocol negotiation extension",
            );
            match stream {
                Some(stream) => refuse(stream, error).await,
                None => Err(error),
            }
        }
        _ => Ok(stream),
    }
}

/// Answers SSLRequest and starts TLS if it is offered.
async fn answer_tls(mut stream: Stream, acceptor: &Acceptor) -> Result<Option<Stream>> {
    let offered = acceptor.mode() != TlsMode::Off && !stream.is_unix();
    if offered && !stream.is_quiet() {
        // Sent in clear before TLS began, it would be taken for what came through TLS.
        let error = Error::protocol("received unencrypted data after SSL request").detail(
            "This could be either a client-software bug or evidence of an attempted \
             man-in-the-middle attack.",
        );
        return refuse(stream, error).await;
    }
    let answer = if offered { b"S" } else { b"N" };
    if stream.write_all(answer).await.is_err() {
        return Ok(None);
    }
    match stream {
        // Whatever else arrived in clear meanwhile is still in the socket, where TLS finds it
        // and fails.
        Stream::Tcp(socket) if offered => accept_tls(acceptor, socket).await,
        stream => Ok(Some(stream)),
    }
}

async fn accept_tls(acceptor: &Acceptor, socket: tokio::net::TcpStream) -> Result<Option<Stream>> {
    match acceptor.accept(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::protocol(format!(
            "could not accept TLS connection: {error}"
        ))),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// How Terminate begins: some clients send it when they are told to end before they have begun.
const GOOD_BYE: [u8; 4] = *b"X\0\0\0";

/// Reads one packet and not a byte more; none if the client goes away first.
async fn read_packet(stream: &mut Stream, limit: usize) -> Result<Option<StartupPacket>> {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).await.is_err() {
        return Ok(None);
    }
    if length == GOOD_BYE {
        return Ok(None);
    }
    let mut packet = vec![0; startup::rest_length(length, limit)?];
    match stream.read_exact(&mut packet).await {
        Ok(_) => startup::parse(&packet).map(Some),
        Err(_) => Ok(None),
    }
}

/// A startup packet that can be answered.
struct Accepted {
    minor: u16,
    /// The client asked for a version or for protocol options that we don't have.
    negotiate: Option<Vec<String>>,
    parameters: Vec<(String, String)>,
    user: String,
    database: String,
    binding: Option<Arc<[u8]>>,
}

fn check(
    stream: &Stream,
    acceptor: &Acceptor,
    (major, minor): (u16, u16),
    mut parameters: Vec<(String, String)>,
) -> Result<Accepted> {
    if major != startup::MAJOR {
        return Err(Error::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{}",
                startup::NEWEST_MINOR
            ),
        ));
    }
    if acceptor.mode() == TlsMode::Require && !stream.is_tls() && !stream.is_unix() {
        return Err(Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "this server accepts connections with TLS only",
        )
        .hint("Connect with sslmode=require or stronger."));
    }
    let given = |name| startup::parameter(&parameters, name).filter(|value| !value.is_empty());
    let user = given("user").map(cut).ok_or_else(|| {
        Error::fatal(
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "no PostgreSQL user name specified in startup packet",
        )
    })?;
    let database = given("database").map_or_else(|| user.clone(), cut);
    if given("replication").is_some_and(|value| !is_false(value)) {
        let mut error = Error::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            "replication connections are not supported",
        );
        error =
            error.detail("A replication stream belongs to one server, not to a sharded database.");
        return Err(error.hint("Connect to the server itself."));
    }
    let (options, mut rest): (Vec<_>, Vec<_>) = parameters
        .drain(..)
        .partition(|(name, _)| name.starts_with("_pq_."));
    rest.retain(|(name, _)| !matches!(name.as_str(), "user" | "database" | "replication"));
    let unknown: Vec<_> = options.into_iter().map(|(name, _)| name).collect();
    let newest = minor.min(startup::NEWEST_MINOR);
    Ok(Accepted {
        minor: newest,
        negotiate: (newest < minor || !unknown.is_empty()).then_some(unknown),
        parameters: rest,
        user,
        database,
        binding: acceptor.binding().filter(|_| stream.is_tls()),
    })
}

/// A name as PostgreSQL's catalogs would hold it: its first 63 bytes.
fn cut(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

fn is_false(value: &str) -> bool {
    ["false", "off", "no", "0"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(value))
}

async fn start(mut stream: Stream, accepted: Accepted) -> Result<Handshake> {
    if let Some(unknown) = accepted.negotiate {
        let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
        let mut message = Vec::new();
        startup::negotiate_protocol_version(&mut message, accepted.minor, &unknown);
        if stream.write_all(&message).await.is_err() {
            return Ok(Handshake::Closed);
        }
    }
    Ok(Handshake::Startup(Startup {
        stream,
        minor: accepted.minor,
        parameters: accepted.parameters,
        user: accepted.user,
        database: accepted.database,
        binding: accepted.binding,
        unsent: Vec::new(),
    }))
}

#[cfg(test)]
mod tests;
