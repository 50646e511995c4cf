//! Hostile bytes before a session exists.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Case;
use crate::harness::message::{
    cancel_request, frame, gss_request, password, query, ssl_request, startup, startup_version,
    untagged,
};

pub fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(versions());
    cases.extend(requests());
    cases.extend(parameters());
    cases.extend(other_protocols());
    cases.extend(premature_messages());
    cases.extend(random());
    cases
}

fn hello() -> Vec<u8> {
    startup(&[("user", "app"), ("database", "app")])
}

fn lengths() -> Vec<Case> {
    let mut cases = vec![Case::new("nothing", [])];
    let whole = hello();
    for end in 1..whole.len() {
        cases.push(Case::new(
            format!("the first {end} bytes of a startup"),
            &whole[..end],
        ));
    }
    for length in [
        0,
        1,
        3,
        4,
        5,
        7,
        8,
        9,
        10_000,
        10_001,
        i32::MAX,
        i32::MIN,
        -1,
    ] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&196_608_u32.to_be_bytes());
        cases.push(Case::new(
            format!("a startup of {length} bytes"),
            bytes.clone(),
        ));
        bytes.extend_from_slice(&[b'a'; 20_000]);
        cases.push(Case::new(
            format!("a startup of {length} bytes and much more"),
            bytes,
        ));
    }
    cases
}

fn versions() -> Vec<Case> {
    let numbers = [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 1),
        (3, 2),
        (3, 3),
        (3, 9999),
        (3, 65_535),
        (4, 0),
        (99, 99),
        (1234, 0),
        (1234, 5677),
        (1234, 5681),
        (65_535, 65_535),
    ];
    let packet = |(major, minor)| {
        let bytes = startup_version(major, minor, &[("user", "app"), ("database", "app")]);
        Case::new(format!("protocol {major}.{minor}"), bytes)
    };
    numbers.into_iter().map(packet).collect()
}

fn requests() -> Vec<Case> {
    let join = |parts: &[Vec<u8>]| parts.concat();
    let mut ssl_long = 80_877_103_u32.to_be_bytes().to_vec();
    ssl_long.extend_from_slice(b"extra");
    vec![
        Case::new("SSLRequest", ssl_request()),
        Case::new("SSLRequest with a body", untagged(&ssl_long)),
        Case::new("SSLRequest twice", join(&[ssl_request(), ssl_request()])),
        Case::new("SSLRequest many times", ssl_request().repeat(1000)),
        Case::new("GSSENCRequest", gss_request()),
        Case::new("GSSENCRequest many times", gss_request().repeat(1000)),
        Case::new(
            "SSL, then GSS, then startup",
            join(&[ssl_request(), gss_request(), hello()]),
        ),
        Case::new("GSS, then startup", join(&[gss_request(), hello()])),
        // What follows an SSLRequest in clear text must never be executed.
        Case::new(
            "startup stuffed behind SSLRequest",
            join(&[ssl_request(), hello(), query("SELECT 1")]),
        ),
        Case::new(
            "garbage behind SSLRequest",
            join(&[ssl_request(), b"\x16\x03\x01garbage".to_vec()]),
        ),
        Case::new(
            "a TLS record of 64 KiB behind SSLRequest",
            join(&[ssl_request(), vec![0x16; 65_536]]),
        ),
        Case::new("cancel of nobody", cancel_request(1, &[0; 4])),
        Case::new(
            "cancel of a negative process",
            cancel_request(-1, &[0xff; 4]),
        ),
        Case::new("cancel without a secret", cancel_request(1, &[])),
        Case::new("cancel with half a secret", cancel_request(1, &[0; 2])),
        Case::new(
            "cancel with the longest secret",
            cancel_request(1, &[0; 256]),
        ),
        Case::new("cancel with a longer secret", cancel_request(1, &[0; 257])),
        Case::new("cancel with a huge secret", cancel_request(1, &[0; 9000])),
        Case::new(
            "cancel without a process",
            untagged(&80_877_102_u32.to_be_bytes()),
        ),
        Case::new(
            "cancel, then startup",
            join(&[cancel_request(1, &[0; 4]), hello()]),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn parameters() -> Vec<Case> {
    let long = "x".repeat(9000);
    let many: Vec<(String, String)> = (0..400)
        .map(|i| (format!("a.p{i}"), i.to_string()))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let user = ("user", "app");
    let sets: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no user", vec![("database", "app")]),
        ("no parameter", vec![]),
        ("an empty user", vec![("user", "")]),
        ("an unknown user", vec![("user", "nobody at all")]),
        ("a long user", vec![("user", &long)]),
        ("an unknown database", vec![user, ("database", "nowhere")]),
        ("a long database", vec![user, ("database", &long)]),
        (
            "two users",
            vec![user, ("user", "postgres"), ("database", "app")],
        ),
        ("many parameters", [vec![user], many].concat()),
        (
            "a long value",
            vec![user, ("database", "app"), ("application_name", &long)],
        ),
        (
            "an unknown parameter",
            vec![user, ("database", "app"), ("no_such_setting", "1")],
        ),
        (
            "a protocol option",
            vec![user, ("database", "app"), ("_pq_.option", "1")],
        ),
        (
            "replication",
            vec![user, ("database", "app"), ("replication", "true")],
        ),
        (
            "replication, oddly",
            vec![user, ("database", "app"), ("replication", "perhaps")],
        ),
        (
            "options with quotes",
            vec![user, ("database", "app"), ("options", "-c \\' -c a=")],
        ),
        (
            "options that end in a backslash",
            vec![user, ("database", "app"), ("options", "\\")],
        ),
        (
            "options with injection",
            vec![
                user,
                ("database", "app"),
                ("options", "-c a.b=';DROP TABLE t"),
            ],
        ),
        (
            "an encoding that does not exist",
            vec![user, ("database", "app"), ("client_encoding", "x")],
        ),
        (
            "a parameter without a name",
            vec![user, ("", "x"), ("database", "app")],
        ),
        (
            "control characters",
            vec![("user", "a\x01\x1b[2J\r\n"), ("database", "\t")],
        ),
    ];
    let mut cases: Vec<Case> = sets
        .into_iter()
        .map(|(what, set)| Case::new(what, startup(&set)))
        .collect();
    for (what, tail) in [
        ("no terminator", &b"user\0app\0"[..]),
        ("no last zero", b"user\0app"),
        ("a name without a value", b"user\0app\0database\0"),
        ("bytes behind the terminator", b"user\0app\0\0more"),
        ("a user that is no UTF-8", b"user\0\xff\xfe\0\0"),
        ("a name that is no UTF-8", b"user\0app\0\xff\xfe\0x\0\0"),
    ] {
        cases.push(Case::new(
            what,
            untagged(&[&196_608_u32.to_be_bytes(), tail].concat()),
        ));
    }
    cases
}

fn other_protocols() -> Vec<Case> {
    let texts: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO example.com\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb\x03\x03",
        b"\x16\x03\x01\x00\x00",
        b"\x16",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\n\n\n\n\n\n\n\n",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    ];
    let name =
        |text: &&[u8]| Case::new(format!("another protocol: {}", text.escape_ascii()), *text);
    texts.iter().map(name).collect()
}

/// Messages of a session before, or instead of, the end of the login.
fn premature_messages() -> Vec<Case> {
    let login_user = |more: &[u8]| [&hello()[..], more].concat();
    let stranger = |more: &[u8]| {
        let hello = startup(&[("user", "stranger"), ("database", "app")]);
        [&hello[..], more].concat()
    };
    let sasl = |mechanism: &str, length: i32, data: &str| {
        let mut body = mechanism.as_bytes().to_vec();
        body.push(0);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(data.as_bytes());
        password(&body)
    };
    let scram = "SCRAM-SHA-256";
    let mut cases = vec![
        Case::new("a query instead of a startup", query("SELECT 1")),
        Case::new("a query after the startup", login_user(&query("SELECT 1"))),
        Case::new("two startups", login_user(&hello())),
        Case::new("an unasked password", login_user(&password(b"secret\0"))),
        Case::new("Terminate at once", login_user(&frame(b'X', b""))),
    ];
    for (what, bytes) in [
        ("an empty password", password(b"")),
        ("a password without its zero", password(b"secret")),
        ("a huge password", password(&[b'x'; 60_000])),
        ("an unknown mechanism", sasl("PLAIN", 3, "abc")),
        ("no mechanism", password(b"\0\0\0\0\0")),
        ("a length beyond the end", sasl(scram, 1000, "n,,n=,r=abc")),
        ("a negative length", sasl(scram, -5, "n,,n=,r=abc")),
        ("no data", sasl(scram, -1, "")),
        ("an empty first message", sasl(scram, 0, "")),
        ("commas", sasl(scram, 4, ",,,,")),
        (
            "binding without TLS",
            sasl(
                "SCRAM-SHA-256-PLUS",
                34,
                "p=tls-server-end-point,,n=,r=abcde",
            ),
        ),
        ("no nonce", sasl(scram, 5, "n,,n=")),
        ("an authzid", sasl(scram, 19, "n,a=other,n=,r=abcd")),
        ("an extension", sasl(scram, 15, "n,,m=x,n=,r=abc")),
        ("binary", sasl(scram, 4, "\u{1}\u{2}\u{3}\u{4}")),
        ("a query", query("SELECT 1")),
        ("a tag of zero", frame(0, b"")),
        ("a length of 2 GiB", vec![b'p', 0x7f, 0xff, 0xff, 0xff]),
        ("a length of zero", vec![b'p', 0, 0, 0, 0]),
        ("many passwords", password(b"x\0").repeat(200)),
    ] {
        cases.push(Case::new(
            format!("login of a stranger with {what}"),
            stranger(&bytes),
        ));
    }
    cases
}

/// Startups with bytes changed, by a fixed seed.
fn random() -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(7);
    let originals = [hello(), ssl_request(), cancel_request(12345, &[1, 2, 3, 4])];
    let mut cases = Vec::new();
    for number in 0..150 {
        let mut bytes = originals[number % originals.len()].clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        cases.push(Case::new(format!("changed startup {number}"), bytes));
    }
    for number in 0..50 {
        let length = random.random_range(1..400);
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        cases.push(Case::new(format!("random startup {number}"), bytes));
    }
    cases
}
