//! Logins of our own client, of tokio-postgres and of clients that misbehave.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::*;
use crate::backend::dial::{Dialed, Target, dial};
use crate::backend::principal::Principal;
use crate::config::{
    Address, Auth, BackendTls, BackendTlsMode, ClientTls, Password, Secret, TlsMode, User,
};
use crate::net::testing::Authority;
use crate::net::tls::{Acceptor, Connector};
use crate::session::handshake::{Handshake, accept};
use crate::wire::authentication::parse_report;
use crate::wire::backend::{self, Status};

/// One user with a plain password, one with a stored verifier; the password is the user's name.
fn users(method: AuthMethod) -> Users {
    let stored = postgres_protocol::password::scram_sha_256(b"kept");
    let passwords = [
        ("plain", Password::Plain(Secret::new("plain"))),
        ("kept", Password::Verifier(Secret::new(stored))),
    ];
    let users: BTreeMap<_, _> = passwords
        .map(|(name, password)| {
            let user = User {
                password: Some(password),
                ..User::default()
            };
            (name.to_owned(), user)
        })
        .into();
    let auth = Auth {
        method,
        users,
        ..Auth::default()
    };
    Users::new(&auth, [3; 32]).unwrap()
}

/// A proxy that logs one client in, greets it and waits until it goes.
struct Proxy {
    address: Address,
    port: u16,
    done: JoinHandle<Result<Option<Authenticated>>>,
}

async fn proxy(users: Users, tls: Option<&Authority>) -> Proxy {
    let acceptor = match tls {
        None => Acceptor::off(),
        Some(authority) => {
            let (cert, key) = authority.issue("localhost", &["localhost"]);
            Acceptor::load(&ClientTls {
                mode: TlsMode::Prefer,
                cert: Some(cert),
                key: Some(key),
                ..ClientTls::default()
            })
            .unwrap()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let done = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let stream = Stream::tcp(socket).unwrap();
        let mut startup = match accept(stream, &acceptor, 10_000).await? {
            Handshake::Startup(startup) => startup,
            other => panic!("{other:?}"),
        };
        let authenticated = authenticate(&mut startup, &users, None).await?;
        if authenticated.is_some() {
            let mut greeting = std::mem::take(&mut startup.unsent);
            backend::parameter_status(&mut greeting, "server_version", "15.0");
            backend::parameter_status(&mut greeting, "TimeZone", "UTC");
            backend::parameter_status(&mut greeting, "TimeZone", "CET");
            backend::backend_key_data(&mut greeting, 7, &[1, 2, 3, 4]);
            backend::ready_for_query(&mut greeting, Status::Idle);
            backend::parameter_status(&mut greeting, "late", "yes");
            startup.stream.write_all(&greeting).await.unwrap();
            let _ = startup.stream.read_u8().await;
        }
        Ok(authenticated)
    });
    let host = "localhost".to_owned();
    let address = Address::Tcp { host, port };
    Proxy {
        address,
        port,
        done,
    }
}

fn target(address: &Address, user: &str, password: &str) -> Target {
    Target {
        address: address.clone(),
        database: "shop".to_owned(),
        principal: Principal::new(user, Some(Secret::new(password))),
        application_name: "shardwire".to_owned(),
        parameters: Vec::new(),
        connect_timeout: Duration::from_secs(60),
    }
}

fn connector(mode: BackendTlsMode, authority: &Authority) -> Connector {
    Connector::load(&BackendTls {
        mode,
        ca: Some(authority.ca()),
        cert: None,
        key: None,
    })
    .unwrap()
}

async fn log_in(method: AuthMethod, user: &str, password: &str) -> Result<Dialed> {
    let proxy = proxy(users(method), None).await;
    let dialed = dial(&target(&proxy.address, user, password), &Connector::off()).await;
    if let Err(error) = &dialed {
        let refused = proxy.done.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), error.code());
        assert_eq!(refused.fields().message, error.fields().message);
    }
    dialed
}

#[tokio::test]
async fn passwords_open_the_door() {
    for method in [AuthMethod::Password, AuthMethod::ScramSha256] {
        for user in ["plain", "kept"] {
            let dialed = log_in(method, user, user).await.unwrap();
            assert_eq!((dialed.process_id, &*dialed.secret), (7, &[1, 2, 3, 4][..]));
        }
    }
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_look_alike() {
    for method in [AuthMethod::Password, AuthMethod::ScramSha256] {
        for user in ["plain", "kept", "nobody"] {
            let error = log_in(method, user, "wrong").await.unwrap_err();
            assert_eq!(error.code(), SqlState::INVALID_PASSWORD);
            let message = format!("password authentication failed for user \"{user}\"");
            assert_eq!(error.fields().message, message);
        }
    }
}

#[tokio::test]
async fn trust_asks_for_nothing_and_admits_those_who_are_named() {
    log_in(AuthMethod::Trust, "kept", "wrong").await.unwrap();
    let error = log_in(AuthMethod::Trust, "nobody", "").await.unwrap_err();
    assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
}

#[tokio::test]
async fn the_greeting_is_read_to_its_end() {
    let dialed = log_in(AuthMethod::Trust, "kept", "").await.unwrap();
    let parameters: Vec<(&str, &str)> = dialed
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        parameters,
        [
            ("server_version", "15.0"),
            ("TimeZone", "CET"),
            ("late", "yes")
        ]
    );
    assert!(dialed.stream.is_quiet());
}

#[tokio::test]
async fn our_client_binds_the_channel_to_our_server() {
    let authority = Authority::new();
    for mode in [
        BackendTlsMode::Prefer,
        BackendTlsMode::Require,
        BackendTlsMode::VerifyCa,
        BackendTlsMode::VerifyFull,
    ] {
        let proxy = proxy(users(AuthMethod::ScramSha256), Some(&authority)).await;
        let connector = connector(mode, &authority);
        let target = target(&proxy.address, "kept", "kept");
        let dialed = dial(&target, &connector).await.unwrap();
        assert!(dialed.stream.is_tls());
        drop(dialed);
        let authenticated = proxy.done.await.unwrap().unwrap().unwrap();
        assert_eq!(authenticated.user(), "kept");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_used_only_if_that_is_allowed() {
    let authority = Authority::new();
    for (mode, allowed) in [
        (BackendTlsMode::Prefer, true),
        (BackendTlsMode::Require, false),
    ] {
        let proxy = proxy(users(AuthMethod::ScramSha256), None).await;
        let connector = connector(mode, &authority);
        let dialed = dial(&target(&proxy.address, "kept", "kept"), &connector).await;
        match dialed {
            Ok(dialed) => assert!(allowed && !dialed.stream.is_tls()),
            Err(error) => {
                assert!(!allowed, "{error}");
                let code = SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
                assert_eq!(error.code(), code);
            }
        }
    }
}

/// Lets tokio-postgres use our TLS, with or without telling it what to bind to.
struct Tls {
    connector: Connector,
    bind: bool,
}

struct Bound {
    stream: Stream,
    bind: bool,
}

impl TlsConnect<TcpStream> for Tls {
    type Stream = Bound;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Bound>> + Send>>;

    fn connect(self, socket: TcpStream) -> Self::Future {
        Box::pin(async move {
            let stream = self.connector.connect("localhost", socket).await?;
            let bind = self.bind;
            Ok(Bound { stream, bind })
        })
    }
}

impl TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        match self.stream.server_binding() {
            Some(hash) if self.bind => ChannelBinding::tls_server_end_point(hash),
            _ => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Bound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test]
async fn tokio_postgres_logs_in_with_and_without_channel_binding() {
    use tokio_postgres::config::{ChannelBinding, SslMode};
    let authority = Authority::new();
    for (binding, bind) in [
        (ChannelBinding::Require, true),
        (ChannelBinding::Prefer, true),
        // It has TLS, could bind, and does not: to us that is a client that can't.
        (ChannelBinding::Disable, true),
        (ChannelBinding::Prefer, false),
    ] {
        let proxy = proxy(users(AuthMethod::ScramSha256), Some(&authority)).await;
        let socket = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        let tls = Tls {
            connector: connector(BackendTlsMode::VerifyFull, &authority),
            bind,
        };
        let connected = tokio_postgres::Config::new()
            .user("plain")
            .password("plain")
            .ssl_mode(SslMode::Require)
            .channel_binding(binding)
            .connect_raw(socket, tls)
            .await;
        assert!(connected.is_ok(), "{binding:?} {bind}");
    }
}

#[tokio::test]
async fn tokio_postgres_is_told_about_wrong_passwords() {
    let proxy = proxy(users(AuthMethod::ScramSha256), None).await;
    let error = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(proxy.port)
        .user("kept")
        .password("wrong")
        .connect(tokio_postgres::NoTls)
        .await
        .err()
        .unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
}

fn startup(far: UnixStream) -> Startup {
    Startup {
        stream: Stream::Unix(far),
        minor: 0,
        parameters: Vec::new(),
        user: "plain".to_owned(),
        database: "shop".to_owned(),
        binding: None,
        unsent: Vec::new(),
    }
}

/// A client on the other end of a socket, and its login.
fn begin(method: AuthMethod) -> (UnixStream, JoinHandle<Result<Option<Authenticated>>>) {
    let (client, far) = UnixStream::pair().unwrap();
    let mut startup = startup(far);
    let users = users(method);
    let login = tokio::spawn(async move { authenticate(&mut startup, &users, None).await });
    (client, login)
}

#[tokio::test]
async fn a_client_that_is_let_in_is_not_woken_twice() {
    let (mut client, far) = UnixStream::pair().unwrap();
    let mut startup = startup(far);
    let users = users(AuthMethod::Trust);
    let authenticated = authenticate(&mut startup, &users, None).await.unwrap();
    assert!(authenticated.is_some());
    assert_eq!(startup.unsent, b"R\0\0\0\x08\0\0\0\0");
    // And hears both when it is turned away after all.
    let error = Error::fatal(SqlState::INVALID_CATALOG_NAME, "no such database");
    let (_, told) = tokio::join!(startup.tell(&error), async {
        let mut told = vec![0; 10];
        client.read_exact(&mut told).await.unwrap();
        drop(client);
        told
    });
    assert_eq!(told, b"R\0\0\0\x08\0\0\0\0E");
}

#[tokio::test]
async fn clients_that_go_away_are_no_errors() {
    for bytes in [&b""[..], b"X\0\0\0\x04", b"p\0\0", b"p\0\0\0\x0aabc"] {
        let (mut client, login) = begin(AuthMethod::Password);
        client.write_all(bytes).await.unwrap();
        drop(client);
        assert!(login.await.unwrap().unwrap().is_none(), "{bytes:?}");
    }
}

#[tokio::test]
async fn malformed_proofs_are_refused() {
    for (method, bytes, code) in [
        (AuthMethod::Password, &b"Q\0\0\0\x05\0"[..], "08P01"),
        (AuthMethod::Password, b"p\0\0\0\x03", "08P01"),
        (AuthMethod::Password, b"p\x7f\xff\xff\xff", "08P01"),
        (AuthMethod::Password, b"p\0\0\0\x08abcd", "08P01"),
        (AuthMethod::Password, b"p\0\0\0\x05\0", "28P01"),
        (AuthMethod::ScramSha256, b"p\0\0\0\x0aplain\0", "08P01"),
        (
            AuthMethod::ScramSha256,
            b"p\0\0\0\x1cSCRAM-SHA-256\0\0\0\0\x06n,,n=x",
            "08P01",
        ),
    ] {
        let (mut client, login) = begin(method);
        client.write_all(bytes).await.unwrap();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        drop(client);
        let error = login.await.unwrap().unwrap_err();
        assert_eq!(error.code().as_str(), code, "{error}");
        assert!(error.is_fatal());
        let request =
            1 + usize::try_from(u32::from_be_bytes(*told[1..].first_chunk().unwrap())).unwrap();
        assert_eq!(told[request], b'E');
        let told = parse_report(&told[request + 5..]).unwrap();
        assert_eq!(told.code(), error.code());
    }
}
