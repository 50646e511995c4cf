//! Logins to servers that are scripted: good, bad and hostile ones.

use std::time::Duration;

use proptest::prelude::*;
use tokio::net::UnixStream;

use super::*;
use crate::backend::principal::Principal;
use crate::config::{Address, Secret};
use crate::wire::backend;

fn target(password: Option<&str>) -> Target {
    Target {
        address: Address::Tcp {
            host: "db".to_owned(),
            port: 5432,
        },
        database: "shop".to_owned(),
        principal: Principal::new("role", password.map(Secret::new)),
        application_name: "shardwire".to_owned(),
        parameters: vec![("client_encoding".to_owned(), "UTF8".to_owned())],
        connect_timeout: Duration::from_secs(60),
    }
}

/// Logs in to a server that says `script`, whatever it hears, and closes; with what it has heard.
async fn against(script: &[u8], password: Option<&str>) -> (Result<(i32, Vec<u8>)>, Vec<u8>) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let server = async {
        far.write_all(script).await.unwrap();
        far.shutdown().await.unwrap();
        let mut heard = Vec::new();
        // A client that gives up may leave unread bytes behind, which resets the connection.
        let _ = far.read_to_end(&mut heard).await;
        heard
    };
    let target = target(password);
    let client = async {
        let dialed = login(Stream::Unix(near), &target).await?;
        Ok((dialed.process_id, dialed.secret))
    };
    tokio::join!(client, server)
}

fn script(requests: &[Request<'_>], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        messages::request(&mut out, request);
    }
    more(&mut out);
    out
}

fn ready(out: &mut Vec<u8>) {
    backend::ready_for_query(out, Status::Idle);
}

#[tokio::test]
async fn a_trusting_server_is_told_who_we_are() {
    let script = script(&[Request::Ok], |out| {
        backend::backend_key_data(out, 9, &[5; 256]);
        ready(out);
    });
    let (dialed, heard) = against(&script, None).await;
    assert_eq!(dialed.unwrap(), (9, vec![5; 256]));
    let expected = b"\0\x03\0\0user\0role\0database\0shop\0application_name\0shardwire\0\
                     client_encoding\0UTF8\0\0";
    assert_eq!(&heard[4..], expected);
}

#[tokio::test]
async fn passwords_are_sent_as_they_are_asked_for() {
    for (request, proof) in [
        (Request::Cleartext, "pw".to_owned()),
        (
            Request::Md5([1, 2, 3, 4]),
            postgres_protocol::authentication::md5_hash(b"role", b"pw", [1, 2, 3, 4]),
        ),
    ] {
        let script = script(&[request, Request::Ok], ready);
        let (dialed, heard) = against(&script, Some("pw")).await;
        dialed.unwrap();
        let mut expected = Vec::new();
        messages::password(&mut expected, proof.as_bytes());
        assert!(heard.ends_with(&expected));
        let (dialed, _) = against(&script, None).await;
        let error = dialed.unwrap_err();
        assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    }
}

#[tokio::test]
async fn the_servers_own_error_is_kept() {
    let script = script(&[], |out| {
        let notice = Error::new(SqlState::SUCCESSFUL_COMPLETION, "never mind");
        backend::notice_response(out, "NOTICE", &notice);
        let full = Error::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients")
            .detail("There are 100.")
            .hint("Wait.");
        backend::error_response(out, &full);
    });
    let (dialed, _) = against(&script, None).await;
    let error = dialed.unwrap_err();
    assert!(!error.is_fatal());
    let fields = error.fields();
    assert_eq!(fields.code, SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(fields.message, "sorry, too many clients");
    assert_eq!(
        fields.detail.as_deref(),
        Some("There are 100. Server \"db:5432\" said this when the proxy logged in as \"role\".")
    );
    assert_eq!(fields.hint.as_deref(), Some("Wait."));
}

/// It could be anybody who took the server's place and wants what the client sends next.
#[tokio::test]
async fn a_server_that_breaks_scram_off_is_not_believed() {
    let offer = Request::Sasl(vec![SCRAM_SHA_256]);
    for then in [
        vec![Request::Ok],
        vec![Request::SaslContinue(b"r=x,s=AAAA,i=1"), Request::Ok],
        vec![Request::SaslFinal(b"v=AAAA"), Request::Ok],
        vec![Request::Cleartext, Request::Ok],
    ] {
        let requests = [vec![offer.clone()], then].concat();
        let (dialed, heard) = against(&script(&requests, ready), Some("secret")).await;
        assert!(dialed.is_err(), "{requests:?}");
        let leaked = heard.windows(6).any(|bytes| bytes == b"secret");
        assert!(!leaked, "{requests:?}");
    }
}

/// It has heard the challenge's answer, but doesn't know the password.
#[tokio::test]
async fn a_server_must_prove_that_it_knows_the_password() {
    for last in [None, Some(&b"v=AAAA"[..]), Some(b"e=other-error")] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let server = async {
            let mut heard = vec![0; 1_024];
            let offer = script(&[Request::Sasl(vec![SCRAM_SHA_256])], |_| ());
            far.write_all(&offer).await.unwrap();
            let nonce = loop {
                let count = far.read(&mut heard).await.unwrap();
                let text = String::from_utf8_lossy(&heard[..count]).into_owned();
                if let Some((_, nonce)) = text.split_once(",r=") {
                    break nonce.to_owned();
                }
            };
            let challenge = format!("r={nonce}more,s=AAAA,i=1");
            let mut requests = vec![Request::SaslContinue(challenge.as_bytes())];
            requests.extend(last.map(Request::SaslFinal));
            requests.push(Request::Ok);
            far.write_all(&script(&requests, ready)).await.unwrap();
        };
        let target = target(Some("secret"));
        let (dialed, ()) = tokio::join!(login(Stream::Unix(near), &target), server);
        let error = dialed.unwrap_err();
        assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        assert!(
            error.fields().message.contains("could not prove"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_we_cannot_do_is_named() {
    for request in [
        Request::Other(7),
        Request::Sasl(vec!["OAUTHBEARER"]),
        Request::Sasl(vec![]),
    ] {
        let (dialed, _) = against(&script(&[request], |_| ()), Some("pw")).await;
        let error = dialed.unwrap_err();
        assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        assert!(error.fields().hint.is_some());
    }
}

#[tokio::test]
async fn broken_greetings_are_refused() {
    let ok = |more: &[u8]| script(&[Request::Ok], |out| out.extend_from_slice(more));
    for (script, code) in [
        (Vec::new(), "08006"),
        (b"R\0\0\0\x08\0\0".to_vec(), "08006"),
        (ok(b""), "08006"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "08P01"),
        (b"R\0\0\0\x03".to_vec(), "08P01"),
        (b"R\0\0\0\x06\0\0".to_vec(), "08P01"),
        (b"R\x7f\xff\xff\xff".to_vec(), "08P01"),
        (b"S\0\0\0\x08a\0b\0".to_vec(), "08P01"),
        (b"E\0\0\0\x05X".to_vec(), "08P01"),
        (ok(b"Z\0\0\0\x05T"), "08P01"),
        (ok(b"Z\0\0\0\x04"), "08P01"),
        (ok(b"S\0\0\0\x06a\0"), "08P01"),
        (ok(b"K\0\0\0\x08\0\0\0\x01"), "08P01"),
        (ok(b"D\0\0\0\x06\0\0"), "08P01"),
        (ok(b"Z\0\0\0\x05IZ\0\0\0\x05I"), "08P01"),
        (ok(b"R\0\0\0\x08\0\0\0\0"), "08P01"),
    ] {
        let (dialed, _) = against(&script, None).await;
        let error = dialed.unwrap_err();
        assert_eq!(error.code().as_str(), code, "{script:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_can_make_us_keep_so_much_only() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let flood = script(&[Request::Ok], |out| {
        for number in 0..1_000 {
            backend::parameter_status(out, &format!("name{number}"), &"x".repeat(1_000));
        }
    });
    let server = async { far.write_all(&flood).await };
    let target = target(None);
    let (dialed, _) = tokio::join!(login(Stream::Unix(near), &target), server);
    let error = dialed.unwrap_err();
    assert_eq!(error.fields().detail.as_deref(), Some("It sent too much."));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_bytes_hang_or_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        tag in prop::sample::select(b"RSKZENv".to_vec()),
        code in 0..13_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut script = Vec::new();
            crate::wire::buffer::message(&mut script, tag, |body| {
                if tag == b'R' {
                    body.extend_from_slice(&[0, 0, 0, code]);
                }
                body.extend_from_slice(&bytes);
            });
            far.write_all(&script).await.unwrap();
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let _ = login(Stream::Unix(near), &target(Some("pw"))).await;
        });
    }
}
