//! Logins with postgres-protocol as the client, the example of RFC 7677, and broken messages.

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;

const SEED: [u8; 32] = [7; 32];
const HASH: &[u8] = b"hash of the certificate";

fn verifier(password: &str) -> Verifier {
    Verifier::derive(password, b"0123456789abcdef", 64)
}

/// A whole login with postgres-protocol as the client.
fn login(
    password: &str,
    verifier: Verifier,
    mechanism: &str,
    ours: Option<&[u8]>,
    theirs: ChannelBinding,
) -> Result<bool> {
    let mut client = ScramSha256::new(password.as_bytes(), theirs);
    let exchange = Exchange::begin(mechanism, client.message(), ours, verifier, "server/nonce")?;
    client.update(exchange.server_first().as_bytes()).unwrap();
    match exchange.finish(client.message())? {
        None => Ok(false),
        Some(last) => {
            client.finish(last.signature.as_bytes()).unwrap();
            Ok(true)
        }
    }
}

#[test]
fn passwords_are_proved_and_the_server_proves_itself() {
    let unbound = ChannelBinding::unsupported;
    assert!(login("pencil", verifier("pencil"), SCRAM_SHA_256, None, unbound()).unwrap());
    assert!(!login("pencil", verifier("pen"), SCRAM_SHA_256, None, unbound()).unwrap());
    // A client without channel binding may do without it.
    assert!(
        login(
            "pencil",
            verifier("pencil"),
            SCRAM_SHA_256,
            Some(HASH),
            unbound()
        )
        .unwrap()
    );
    // SASLprep: U+00AD disappears, U+2168 becomes IX.
    assert!(
        login(
            "I\u{ad}X",
            verifier("\u{2168}"),
            SCRAM_SHA_256,
            None,
            unbound()
        )
        .unwrap()
    );
}

#[test]
fn channels_are_bound_to_our_certificate() {
    let bind = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
    let plus = |ours, theirs| login("pw", verifier("pw"), SCRAM_SHA_256_PLUS, ours, theirs);
    assert!(plus(Some(HASH), bind(HASH)).unwrap());

    let error = plus(Some(HASH), bind(b"another")).unwrap_err();
    assert_eq!(
        error.code(),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        "{error}"
    );
    // PLUS was not offered.
    assert!(plus(None, bind(HASH)).is_err());
    // PLUS was chosen, but nothing is bound.
    assert!(plus(Some(HASH), ChannelBinding::unsupported()).is_err());
    assert!(plus(Some(HASH), ChannelBinding::unrequested()).is_err());
    // Something is bound, but PLUS was not chosen.
    assert!(login("pw", verifier("pw"), SCRAM_SHA_256, Some(HASH), bind(HASH)).is_err());
}

#[test]
fn a_downgrade_is_noticed() {
    let downgraded = |ours| {
        let theirs = ChannelBinding::unrequested();
        login("pw", verifier("pw"), SCRAM_SHA_256, ours, theirs)
    };
    let error = downgraded(Some(HASH)).unwrap_err();
    assert_eq!(error.code(), SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert!(downgraded(None).unwrap());
}

/// The example of RFC 7677, section 3.
#[test]
fn the_example_of_the_standard_holds() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let exchange = Exchange::begin(
        SCRAM_SHA_256,
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        None,
        Verifier::derive("pencil", &salt, 4096),
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
    )
    .unwrap();
    assert_eq!(
        exchange.server_first(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = exchange
        .finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        last.as_ref().map(|proved| proved.signature.as_str()),
        Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    );
}

#[test]
fn bad_first_messages_are_refused() {
    for (message, code) in [
        ("", "08P01"),
        ("n", "08P01"),
        ("n,,", "08P01"),
        ("x,,n=,r=abc", "08P01"),
        ("n,a=other,n=,r=abc", "0A000"),
        ("n,,m=x,n=,r=abc", "0A000"),
        ("n,,r=abc", "08P01"),
        ("n,,n=,r=", "08P01"),
        ("n,,n=,r=a\u{e9}", "08P01"),
        ("n,,n=,r=a\0b", "08P01"),
        ("p=tls-unique,,n=,r=abc", "08P01"),
    ] {
        let error = Exchange::begin(
            SCRAM_SHA_256,
            message.as_bytes(),
            None,
            verifier("x"),
            "nonce",
        )
        .err()
        .unwrap();
        assert_eq!(error.code().as_str(), code, "{message}");
        assert!(error.is_fatal());
    }
    let unknown = Exchange::begin("SCRAM-SHA-1", b"n,,n=,r=abc", None, verifier("x"), "nonce");
    assert!(unknown.is_err());
}

#[test]
fn bad_final_messages_are_refused() {
    let proof = STANDARD.encode([0; 32]);
    let long = STANDARD.encode([0; 33]);
    for message in [
        String::new(),
        "c=biws,r=abcnonce".to_owned(),
        "c=biws,r=abcnonce,p=AAAA".to_owned(),
        format!("c=biws,r=abcnonce,p={long}"),
        format!("c=biws,r=abcnonce,p={proof},x=1"),
        format!("c=biws,r=abcother,p={proof}"),
        format!("r=abcnonce,p={proof}"),
        format!("c=biws,p={proof}"),
        format!("c=eSws,r=abcnonce,p={proof}"),
    ] {
        let exchange =
            Exchange::begin(SCRAM_SHA_256, b"n,,n=,r=abc", None, verifier("x"), "nonce").unwrap();
        assert!(exchange.finish(message.as_bytes()).is_err(), "{message}");
    }
}

#[test]
fn stored_verifiers_are_read() {
    let text = postgres_protocol::password::scram_sha_256(b"pencil");
    let stored = Verifier::parse(&text).unwrap();
    assert_eq!(stored.iterations(), 4096);
    assert!(stored.matches(b"pencil"));
    assert!(!stored.matches(b"Pencil"));
    assert!(!stored.matches(b""));
    for bad in [
        "",
        "pencil",
        "md5d9c3ae5e0e7b4f3c5fbf1d6a7a3b1d5e",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        &text.replace("4096", "0"),
        &text.replace("4096", "-1"),
        &text[..text.len() - 1],
    ] {
        assert!(Verifier::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn what_is_no_text_is_no_password() {
    let verifier = Verifier::derive("\u{fffd}", b"salt", 1);
    assert!(verifier.matches("\u{fffd}".as_bytes()));
    assert!(!verifier.matches(b"\xff"));
}

#[test]
fn mocks_are_stable_and_look_like_plain_passwords() {
    let mock = Verifier::mock(&SEED, "nobody", ITERATIONS);
    assert_eq!(mock, Verifier::mock(&SEED, "nobody", ITERATIONS));
    assert_ne!(mock, Verifier::mock(&SEED, "nobody2", ITERATIONS));
    assert_ne!(mock, Verifier::mock(&[8; 32], "nobody", ITERATIONS));
    assert_eq!(mock.salt, salt(&SEED, "nobody"));
    assert_eq!(mock.salt.len(), 16);
    assert_eq!(format!("{mock:?}"), "Verifier(***)");
}

proptest! {
    #[test]
    fn no_messages_panic(
        flag in "n|y|p=tls-server-end-point|.{0,3}",
        first in any::<Vec<u8>>(),
        last in any::<Vec<u8>>(),
        tail in ".{0,40}",
    ) {
        for mechanism in [SCRAM_SHA_256, SCRAM_SHA_256_PLUS] {
            let mock = || Verifier::mock(&SEED, "x", 1);
            let _ = Exchange::begin(mechanism, &first, Some(HASH), mock(), "nonce");
            let message = format!("{flag},,n=,r=x{tail}");
            let begun = Exchange::begin(mechanism, message.as_bytes(), Some(HASH), mock(), "nonce");
            if let Ok(exchange) = begun {
                prop_assert!(!matches!(exchange.finish(&last), Ok(Some(_))));
            }
        }
        let _ = Verifier::parse(&tail);
        let _ = Verifier::parse(&format!("SCRAM-SHA-256${tail}"));
    }
}
