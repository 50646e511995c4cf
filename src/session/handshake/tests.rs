//! Handshakes of clients that are as they should be and of those that are not.

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{BackendTls, BackendTlsMode, ClientTls};
use crate::net::testing::Authority;
use crate::net::tls::Connector;
use crate::wire::authentication::parse_report;

const LIMIT: usize = 10_000;

fn acceptor(mode: TlsMode) -> Acceptor {
    let authority = Authority::new();
    let (cert, key) = authority.issue("localhost", &["localhost"]);
    Acceptor::load(&ClientTls {
        mode,
        cert: Some(cert),
        key: Some(key),
        ..ClientTls::default()
    })
    .unwrap()
}

fn connector() -> Connector {
    Connector::load(&BackendTls {
        mode: BackendTlsMode::Require,
        ca: None,
        cert: None,
        key: None,
    })
    .unwrap()
}

/// A client's socket and the handshake that the proxy does with it.
async fn connect(mode: TlsMode) -> (TcpStream, JoinHandle<Result<Handshake>>) {
    let acceptor = acceptor(mode);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (socket, _) = listener.accept().await.unwrap();
    let stream = Stream::tcp(socket).unwrap();
    let handshake = tokio::spawn(async move { accept(stream, &acceptor, LIMIT).await });
    (client.unwrap(), handshake)
}

fn packet(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn startup_packet(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    packet(|out| startup::startup(out, minor, parameters.iter().copied()))
}

/// The error in what the proxy sent before it closed.
async fn told(client: &mut (impl tokio::io::AsyncRead + Unpin)) -> Error {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[0], b'E', "{answer:?}");
    parse_report(&answer[5..]).unwrap()
}

fn started(handshake: Handshake) -> Startup {
    match handshake {
        Handshake::Startup(startup) => startup,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plain_client_starts() {
    let (mut client, handshake) = connect(TlsMode::Off).await;
    let parameters = [
        ("user", "shop"),
        ("database", "orders"),
        ("application_name", "psql"),
        ("replication", "false"),
        ("DateStyle", "ISO"),
    ];
    client
        .write_all(&startup_packet(0, &parameters))
        .await
        .unwrap();
    let startup = started(handshake.await.unwrap().unwrap());
    assert_eq!((startup.user.as_str(), startup.minor), ("shop", 0));
    assert_eq!(startup.database, "orders");
    let names: Vec<_> = startup.parameters.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["application_name", "DateStyle"]);
    assert!(startup.binding.is_none());
    assert!(!startup.stream.is_tls());
}

#[tokio::test]
async fn the_database_is_the_users_unless_named() {
    for parameters in [
        &[("user", "shop")][..],
        &[("user", "shop"), ("database", "")],
    ] {
        let (mut client, handshake) = connect(TlsMode::Prefer).await;
        client
            .write_all(&startup_packet(0, parameters))
            .await
            .unwrap();
        let startup = started(handshake.await.unwrap().unwrap());
        assert_eq!(startup.database, "shop");
    }
}

#[tokio::test]
async fn names_are_cut_as_in_the_catalogs() {
    let (mut client, handshake) = connect(TlsMode::Off).await;
    let (user, database) = ("u".repeat(64), format!("{}\u{e9}", "d".repeat(62)));
    let parameters = [("user", user.as_str()), ("database", &database)];
    client
        .write_all(&startup_packet(0, &parameters))
        .await
        .unwrap();
    let startup = started(handshake.await.unwrap().unwrap());
    assert_eq!(startup.user, "u".repeat(63));
    assert_eq!(startup.database, "d".repeat(62));
}

#[tokio::test]
async fn encryption_requests_are_answered_in_any_order() {
    let gss = packet(startup::gssenc_request);
    let tls = packet(startup::ssl_request);
    for requests in [[&gss, &tls], [&tls, &gss]] {
        let (mut client, handshake) = connect(TlsMode::Off).await;
        for request in requests {
            client.write_all(request).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'N');
        }
        client
            .write_all(&startup_packet(0, &[("user", "x")]))
            .await
            .unwrap();
        started(handshake.await.unwrap().unwrap());
    }
    for request in [gss, tls] {
        let (mut client, handshake) = connect(TlsMode::Off).await;
        client.write_all(&request).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'N');
        client.write_all(&request).await.unwrap();
        assert_eq!(told(&mut client).await.code(), SqlState::PROTOCOL_VIOLATION);
        assert!(handshake.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_client_starts_tls_by_request_or_at_once() {
    for direct in [false, true] {
        let (mut client, handshake) = connect(TlsMode::Require).await;
        if !direct {
            client
                .write_all(&packet(startup::gssenc_request))
                .await
                .unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'N');
            client
                .write_all(&packet(startup::ssl_request))
                .await
                .unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'S');
        }
        let mut client = connector().connect("localhost", client).await.unwrap();
        client
            .write_all(&startup_packet(0, &[("user", "x")]))
            .await
            .unwrap();
        let startup = started(handshake.await.unwrap().unwrap());
        assert!(startup.stream.is_tls());
        assert_eq!(
            startup.binding.as_deref(),
            client.server_binding().as_deref()
        );
    }
}

#[tokio::test]
async fn requests_inside_tls_are_refused() {
    for request in [startup::ssl_request, startup::gssenc_request] {
        let (client, handshake) = connect(TlsMode::Prefer).await;
        let mut client = connector().connect("localhost", client).await.unwrap();
        client.write_all(&packet(request)).await.unwrap();
        assert_eq!(told(&mut client).await.code(), SqlState::PROTOCOL_VIOLATION);
        assert!(handshake.await.unwrap().is_err());
    }
}

/// CVE-2021-23214: the startup packet was sent in clear, perhaps not by the client.
#[tokio::test]
async fn what_came_in_clear_is_never_taken_for_what_came_through_tls() {
    let (mut client, handshake) = connect(TlsMode::Prefer).await;
    let mut bytes = packet(startup::ssl_request);
    bytes.extend(startup_packet(0, &[("user", "injected")]));
    client.write_all(&bytes).await.unwrap();
    let error = told(&mut client).await;
    assert_eq!(error.code(), SqlState::PROTOCOL_VIOLATION);
    assert_eq!(
        error.fields().message,
        "received unencrypted data after SSL request"
    );
    drop(client);
    assert!(handshake.await.unwrap().is_err());
}

/// The same, arriving too late to be seen before the answer: TLS finds it and fails.
#[tokio::test]
async fn what_comes_in_clear_after_the_answer_breaks_tls() {
    let (mut client, handshake) = connect(TlsMode::Prefer).await;
    client
        .write_all(&packet(startup::ssl_request))
        .await
        .unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'S');
    let injected = startup_packet(0, &[("user", "injected")]);
    client.write_all(&injected).await.unwrap();
    let error = handshake.await.unwrap().unwrap_err();
    assert_eq!(error.code(), SqlState::PROTOCOL_VIOLATION);
}

#[tokio::test]
async fn direct_tls_needs_alpn_and_an_acceptor() {
    let (client, handshake) = connect(TlsMode::Prefer).await;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let unverified =
        crate::net::verify::ServerVerifier::new(BackendTlsMode::Require, Vec::new(), &provider)
            .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(unverified))
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, client)
        .await
        .unwrap();
    assert_eq!(told(&mut client).await.code(), SqlState::PROTOCOL_VIOLATION);
    assert!(handshake.await.unwrap().is_err());

    let (client, handshake) = connect(TlsMode::Off).await;
    assert!(connector().connect("localhost", client).await.is_err());
    assert!(handshake.await.unwrap().is_err());
}

#[tokio::test]
async fn tls_can_be_required_of_all_but_local_clients() {
    let packet = startup_packet(0, &[("user", "x")]);
    let (mut client, handshake) = connect(TlsMode::Require).await;
    client.write_all(&packet).await.unwrap();
    let error = told(&mut client).await;
    assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    drop(client);
    assert!(handshake.await.unwrap().is_err());

    let (mut client, far) = UnixStream::pair().unwrap();
    let ssl_request = self::packet(startup::ssl_request);
    client.write_all(&ssl_request).await.unwrap();
    client.write_all(&packet).await.unwrap();
    let acceptor = acceptor(TlsMode::Require);
    let handshake = accept(Stream::Unix(far), &acceptor, LIMIT).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'N');
    started(handshake);
}

#[tokio::test]
async fn versions_and_options_are_negotiated() {
    for (minor, option, granted, negotiated) in [
        (0, None, 0, None),
        (1, None, 1, None),
        (2, None, 2, None),
        (3, None, 2, Some(&b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0"[..])),
        (9999, None, 2, Some(b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0")),
        (
            0,
            Some("_pq_.x"),
            0,
            Some(b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0"),
        ),
    ] {
        let (mut client, handshake) = connect(TlsMode::Off).await;
        let mut parameters = vec![("user", "x")];
        parameters.extend(option.map(|name| (name, "1")));
        client
            .write_all(&startup_packet(minor, &parameters))
            .await
            .unwrap();
        let startup = started(handshake.await.unwrap().unwrap());
        assert_eq!(startup.minor, granted);
        assert!(startup.parameters.is_empty());
        drop(startup);
        let mut sent = Vec::new();
        client.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, negotiated.unwrap_or_default(), "{minor}");
    }
}

#[tokio::test]
async fn cancel_requests_need_no_tls_and_get_no_answer() {
    let (mut client, handshake) = connect(TlsMode::Require).await;
    let request = packet(|out| startup::cancel_request(out, 7, &[9; 32]));
    client.write_all(&request).await.unwrap();
    match handshake.await.unwrap().unwrap() {
        Handshake::Cancel {
            process_id, secret, ..
        } => {
            assert_eq!((process_id, secret), (7, vec![9; 32]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_no_startup_gets_a_reason_and_a_clean_close() {
    let mut version_2 = vec![0, 0, 1, 40, 0, 2, 0, 0];
    version_2.resize(296, 0);
    let mut long = vec![0xff; 100_000];
    long[..4].copy_from_slice(&100_000_u32.to_be_bytes());
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "08P01"),
        (long, "08P01"),
        (b"\0\0\0\x04".to_vec(), "08P01"),
        (b"\0\0\0\x09\0\x03\0\0x".to_vec(), "08P01"),
        (version_2, "0A000"),
        (b"\0\0\0\x08\x04\xd2\x16\x31".to_vec(), "0A000"),
        (startup_packet(0, &[("database", "x")]), "28000"),
        (startup_packet(0, &[("user", "")]), "28000"),
        (
            startup_packet(0, &[("user", "x"), ("replication", "database")]),
            "0A000",
        ),
    ] {
        let (mut client, handshake) = connect(TlsMode::Off).await;
        client.write_all(&bytes).await.unwrap();
        let error = told(&mut client).await;
        assert_eq!(error.code().as_str(), code, "{error}");
        drop(client);
        let refused = handshake.await.unwrap().unwrap_err();
        assert_eq!(refused.fields().message, error.fields().message);
        assert!(refused.is_fatal());
    }
}

#[tokio::test]
async fn clients_that_go_away_are_no_errors() {
    for bytes in [&b""[..], b"\0\0", b"\0\0\0\x20\0\x03", b"X\0\0\0\x04"] {
        let (mut client, handshake) = connect(TlsMode::Off).await;
        client.write_all(bytes).await.unwrap();
        drop(client);
        assert!(matches!(
            handshake.await.unwrap().unwrap(),
            Handshake::Closed
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_hang_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, far) = UnixStream::pair().unwrap();
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = accept(Stream::Unix(far), &Acceptor::off(), LIMIT).await;
        });
    }
}
