//! Who is let in: rules, limits, roles of the servers, certificates; with libpq and bare messages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use shardwire::demo::postgres::Binaries;

use crate::harness::cluster::{Builder, DATABASE, PASSWORD, USER};
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

/// The user that the harness logs in as, for any `auth`.
fn app() -> String {
    format!("{USER}: {{ password: {PASSWORD} }}")
}

fn with_auth(auth: &str) -> Builder {
    Cluster::new().config("auth", auth)
}

/// psql through the proxy; `more` is added to its connection string.
fn psql(cluster: &Cluster, user: &str, password: &str, more: &str) -> Output {
    let mut command = Binaries::find().unwrap().command("psql");
    let port = cluster.proxy().port;
    let connection = format!("host=127.0.0.1 port={port} user={user} dbname={DATABASE} {more}");
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("PGPASSWORD", password)
        // libpq looks for certificates there.
        .env("HOME", "/nonexistent")
        .args(["-X", "-w", "-At", "-d", &connection])
        .args(["-c", "SELECT session_user || '/' || current_user"]);
    command.output().unwrap()
}

/// What psql prints, or what it complains of.
fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

fn endpoint(cluster: &Cluster, user: &str, password: &str) -> Endpoint {
    Endpoint {
        user: user.to_owned(),
        password: password.to_owned(),
        ..cluster.proxy()
    }
}

/// The SQLSTATE and the message of a login that fails.
fn refused(endpoint: &Endpoint) -> (String, String) {
    match Raw::try_login(endpoint) {
        Ok(_) => panic!("{endpoint:?} is let in"),
        Err(error) => (error.field(b'C').unwrap(), error.field(b'M').unwrap()),
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let md5 = postgres_protocol::password::md5(b"old-secret", "old");
    let auth = format!(
        "{{ users: {{ {}, old: {{ password: {md5} }}, ops: {{}}, banned: {{ password: x }} }}, rules: [
            {{ type: local, user: ops, method: trust }},
            {{ type: host, user: banned, method: reject }},
            {{ type: host, user: old, address: 127.0.0.0/8, method: md5 }},
            {{ type: host, database: [sameuser, other], method: trust }},
            {{ type: host, user: {USER}, database: {DATABASE}, method: scram-sha-256 }} ] }}",
        app()
    );
    let auth = auth.replace('\n', " ");
    let mut cluster = with_auth(&auth).without_proxy().start();
    let listen = format!(
        "listen: [127.0.0.1:{port}, \"{}:{port}\"]",
        directory.path().display(),
        port = cluster.proxy().port
    );
    let yaml = cluster.yaml();
    let (_, rest) = yaml.split_once('\n').unwrap();
    cluster.write_config(&format!("{listen}\n{rest}"));
    cluster.start_proxy();
    let shared = format!("{USER}/{USER}");
    assert_eq!(
        said(&psql(&cluster, USER, PASSWORD, "")),
        Ok(shared.clone())
    );
    assert_eq!(
        said(&psql(&cluster, "old", "old-secret", "")),
        Ok(shared.clone())
    );
    let wrong = said(&psql(&cluster, "old", "old-secreT", "")).unwrap_err();
    assert!(
        wrong.contains("password authentication failed for user \"old\""),
        "{wrong}"
    );
    let socket = format!("host={}", directory.path().display());
    assert_eq!(said(&psql(&cluster, "ops", "", &socket)), Ok(shared));
    for (user, password, code, message) in [
        (
            "banned",
            "x",
            "28000",
            "auth.rules rejects connection for host \"127.0.0.1\", user \"banned\", database \
             \"app\", no encryption",
        ),
        (
            "ops",
            "",
            "28000",
            "no auth.rules entry for host \"127.0.0.1\", user \"ops\", database \"app\", no \
             encryption",
        ),
    ] {
        let refusal = refused(&endpoint(&cluster, user, password));
        assert_eq!(refusal, (code.to_owned(), message.to_owned()));
    }
    // The rule for the database `other` trusts those who exist; that there is none comes after.
    let mut other = endpoint(&cluster, "ops", "");
    other.database = "other".to_owned();
    assert_eq!(refused(&other).0, "3D000");
    other.user = "stranger".to_owned();
    let (code, message) = refused(&other);
    assert_eq!(
        (&*code, &*message),
        ("28000", "role \"stranger\" does not exist")
    );
}

#[test]
fn clients_are_counted_by_user_and_by_database() {
    let users = format!(
        "{{ administrators: [root], users: {{ {}, one: {{ password: x, max_clients: 1 }}, \
         two: {{ password: x }}, root: {{ password: x }} }} }}",
        app()
    );
    let cluster = with_auth(&users)
        .config(
            "limits",
            "{ max_clients: 6, reserved_clients: 1, max_clients_per_user: 2 }",
        )
        .database("max_clients", "4")
        .start();
    let log_in = |user: &str| Raw::try_login(&endpoint(&cluster, user, "x"));
    let full = |user: &str| refused(&endpoint(&cluster, user, "x"));
    let too_many = |message: &str| ("53300".to_owned(), message.to_owned());
    // The harness's own login has to be gone.
    let one = eventually("counted out", || log_in("one"));
    assert_eq!(
        full("one"),
        too_many("too many connections for role \"one\"")
    );
    let two = [log_in("two").unwrap(), log_in("two").unwrap()];
    assert_eq!(
        full("two"),
        too_many("too many connections for role \"two\"")
    );
    let app = Raw::try_login(&cluster.proxy()).unwrap();
    let message = "too many connections for database \"app\"";
    assert_eq!(refused(&cluster.proxy()), too_many(message));
    let administrators = [log_in("root").unwrap(), log_in("root").unwrap()];
    assert_eq!(full("root"), too_many("sorry, too many clients already"));
    drop(administrators);
    // A wrong password is told before that there is no room.
    let (code, _) = refused(&endpoint(&cluster, "one", "wrong"));
    assert_eq!(code, "28P01");
    drop((one, app, two));
    eventually("counted out", || log_in("one"));
}

/// The messages of a login up to where the proxy asks for a proof, as tags and lengths.
fn asked(cluster: &Cluster, user: &str) -> Vec<(u8, usize, Vec<u8>)> {
    let mut raw = Raw::open(cluster.proxy().port);
    raw.send(&message::startup(&[("user", user), ("database", DATABASE)]));
    let offer = raw.read().unwrap();
    let first = b"n,,n=,r=abcdefghijklmnop";
    let mut body = b"SCRAM-SHA-256\0".to_vec();
    body.extend_from_slice(&u32::try_from(first.len()).unwrap().to_be_bytes());
    body.extend_from_slice(first);
    raw.send(&message::password(&body));
    let challenge = raw.read().unwrap();
    let text = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
    let (nonce, salted) = text.split_once(",s=").unwrap();
    let last = format!("c=biws,{nonce},p={}", "A".repeat(43) + "=");
    raw.send(&message::password(last.as_bytes()));
    let refusal = raw.read().unwrap();
    assert!(raw.read().is_none());
    let message = refusal.field(b'M').unwrap().replace(user, "…");
    vec![
        (offer.tag, offer.body.len(), offer.body),
        (challenge.tag, challenge.body.len(), salted.into()),
        (refusal.tag, message.len(), message.into_bytes()),
    ]
}

#[test]
fn users_who_do_not_exist_are_asked_the_same() {
    let auth = format!(
        "{{ users: {{ {}, kept: {{ password: \"{}\" }} }} }}",
        app(),
        postgres_protocol::password::scram_sha_256(b"x")
    );
    let cluster = with_auth(&auth).start();
    let known = asked(&cluster, USER);
    for user in ["kept", "nobody", "someone else"] {
        let asked_now = asked(&cluster, user);
        let shape = |messages: &[(u8, usize, Vec<u8>)]| -> Vec<(u8, usize)> {
            messages
                .iter()
                .map(|message| (message.0, message.1))
                .collect()
        };
        assert_eq!(shape(&asked_now), shape(&known), "{user}");
        assert_eq!(asked_now[0], known[0]);
        assert_eq!(asked_now[2], known[2]);
        // The salt stays the same, or asking twice would tell.
        assert_eq!(asked_now, asked(&cluster, user), "{user}");
        assert_ne!(asked_now[1], known[1], "{user}");
    }
}
