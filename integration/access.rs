//! Who is let in: rules, limits, roles of the servers, certificates; with libpq and bare messages.

mod own_roles;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use shardwire::demo::postgres::Binaries;

use crate::drivers::python_at;
use crate::harness::cluster::{Builder, DATABASE, PASSWORD, USER, run_as_superuser};
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};
use crate::login::certificates::Authority;

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

/// Gives roles of the servers to `auth_query`, and counts how often it asks.
const LOOKUP: &str = "
    CREATE ROLE scram LOGIN PASSWORD 'scram-secret';
    CREATE ROLE silent LOGIN;
    SET password_encryption = md5;
    CREATE ROLE old LOGIN PASSWORD 'old-secret';
    CREATE SEQUENCE asked;
    CREATE FUNCTION lookup(name, OUT name, OUT text) RETURNS SETOF record LANGUAGE sql
        SECURITY DEFINER AS $$
        SELECT nextval('asked'); SELECT usename, passwd FROM pg_shadow WHERE usename = $1 $$;
";

/// How often the servers have been asked.
fn times_asked(cluster: &Cluster) -> u32 {
    let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM asked";
    run_as_superuser(&cluster.shards[0].primary, sql)
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn servers_are_asked_for_users_that_the_file_does_not_name() {
    let auth = format!(
        "{{ method: md5, users: {{ {} }}, auth_query: \"SELECT * FROM lookup($1)\", \
         auth_query_cache: 1h }}",
        app()
    );
    let mut cluster = with_auth(&auth).secondaries(1).without_proxy().start();
    run_as_superuser(&cluster.shards[0].primary, LOOKUP);
    cluster.catch_up();
    cluster.start_proxy();
    let server = &cluster.shards[0].primary;
    let shared = format!("{USER}/{USER}");
    for (user, password) in [("scram", "scram-secret"), ("old", "old-secret")] {
        assert_eq!(
            said(&psql(&cluster, user, password, "")),
            Ok(shared.clone())
        );
    }
    let wrong = |user: &str, password: &str| {
        let error = said(&psql(&cluster, user, password, "")).unwrap_err();
        let message = format!("password authentication failed for user \"{user}\"");
        assert!(error.contains(&message), "{error}");
    };
    for user in ["silent", "nobody", "scram", "old", "no$1body"] {
        wrong(user, "x");
    }
    // What a server once said holds, until a proof against it fails.
    eventually("asked anew", || {
        said(&psql(&cluster, "scram", "scram-secret", ""))
    });
    run_as_superuser(server, "ALTER ROLE scram PASSWORD 'changed'");
    assert_eq!(
        said(&psql(&cluster, "scram", "scram-secret", "")),
        Ok(shared.clone())
    );
    eventually("asked anew", || {
        said(&psql(&cluster, "scram", "changed", ""))
    });
    wrong("scram", "scram-secret");
    // That there is no such database is told to those only who prove who they are.
    let elsewhere = |password: &str| {
        let mut endpoint = endpoint(&cluster, "scram", password);
        endpoint.database = "nowhere".to_owned();
        refused(&endpoint).0
    };
    assert_eq!(elsewhere("changed"), "3D000");
    assert_eq!(elsewhere("wrong"), "28P01");
    // Nor can it be told from a wrong password that the servers can't be asked.
    assert_eq!(
        said(&psql(&cluster, "old", "old-secret", "")),
        Ok(shared.clone())
    );
    run_as_superuser(server, "DROP FUNCTION lookup");
    assert_eq!(said(&psql(&cluster, "old", "old-secret", "")), Ok(shared));
    wrong("another", "x");
    let log = cluster.process().log();
    assert!(log.contains("auth_query failed"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn who_waits_for_the_same_user_waits_for_the_same_answer() {
    let auth = format!(
        "{{ users: {{ {} }}, auth_query: \"SELECT * FROM lookup($1)\" }}",
        app()
    );
    let mut cluster = with_auth(&auth).without_proxy().start();
    run_as_superuser(&cluster.shards[0].primary, LOOKUP);
    cluster.start_proxy();
    let endpoint = endpoint(&cluster, "scram", "scram-secret");
    // The function waits for the lock, and with it everybody.
    let server = &cluster.shards[0].primary;
    let slow = "CREATE TABLE gate (); CREATE OR REPLACE FUNCTION \
        lookup(name, OUT name, OUT text) RETURNS SETOF record LANGUAGE sql SECURITY DEFINER AS $$ \
        SELECT nextval('asked'); SELECT FROM gate; \
        SELECT usename, passwd FROM pg_shadow WHERE usename = $1 $$";
    run_as_superuser(server, slow);
    let mut holder = cluster.shard(0);
    holder.user = USER.to_owned();
    run_as_superuser(server, &format!("ALTER TABLE gate OWNER TO {USER}"));
    let mut holder = holder.raw();
    holder.query("BEGIN; LOCK gate IN ACCESS EXCLUSIVE MODE");
    std::thread::scope(|scope| {
        let logins: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Raw::try_login(&endpoint).map(drop)))
            .collect();
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually("waits", || match run_as_superuser(server, waiting).trim() {
            "0" => Err(()),
            _ => Ok(()),
        });
        holder.query("COMMIT");
        for login in logins {
            login.join().unwrap().unwrap();
        }
    });
    assert_eq!(times_asked(&cluster), 1);
}

/// Roles that clients have on every shard, with the same verifiers.
const PEOPLE: &str = "
    CREATE ROLE alice LOGIN PASSWORD 'alice-secret';
    CREATE ROLE bob LOGIN PASSWORD 'bob-secret';
    CREATE ROLE carol LOGIN PASSWORD 'carol-secret';
    SET password_encryption = md5;
    CREATE ROLE old LOGIN PASSWORD 'old-secret';
    CREATE FUNCTION lookup(name, OUT name, OUT text) RETURNS SETOF record LANGUAGE sql
        SECURITY DEFINER AS $$ SELECT usename, passwd FROM pg_shadow WHERE usename = $1 $$;
    GRANT SELECT ON orders TO PUBLIC;
    ALTER SCHEMA alice OWNER TO alice;
    ALTER TABLE alice.orders OWNER TO alice;
";

/// Two shards, and clients that have their own roles on them. `alice.orders` is on the second shard.
fn with_people(pool: &str) -> Cluster {
    let auth = format!(
        "{{ method: md5, users: {{ {}, \
         report: {{ password: x, backend: {{ user: carol, password: carol-secret }} }} }}, \
         auth_query: \"SELECT * FROM lookup($1)\" }}",
        app()
    );
    let backend =
        format!("{{ database: {DATABASE}, user: {USER}, password: {PASSWORD}, per_user: true }}");
    let mut cluster = with_auth(&auth)
        .shards(2)
        .schema(
            "CREATE TABLE orders (id int PRIMARY KEY, name text);
             CREATE SCHEMA alice; CREATE TABLE alice.orders (id int PRIMARY KEY, name text)",
        )
        .rows(
            "INSERT INTO orders SELECT i, 'public' FROM generate_series(1, 4) i;
             INSERT INTO alice.orders VALUES (1, 'of alice')",
        )
        .sharded("orders", &["id"])
        .home("alice.orders", 1)
        .database("backend", &backend)
        .database("pool", pool)
        .without_proxy()
        .start();
    for shard in &cluster.shards {
        run_as_superuser(&shard.primary, PEOPLE);
    }
    let read = "SELECT format('ALTER ROLE %I PASSWORD %L;', rolname, rolpassword) \
                FROM pg_authid WHERE rolpassword IS NOT NULL";
    let passwords = run_as_superuser(&cluster.shards[0].primary, read);
    run_as_superuser(&cluster.shards[1].primary, &passwords);
    for shard in &cluster.shards {
        let rules = shard.primary.data_directory().join("pg_hba.conf");
        let hba = "local all all trust\n\
                   host all old 127.0.0.1/32 md5\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(rules, hba).unwrap();
        run_as_superuser(&shard.primary, "SELECT pg_reload_conf()");
    }
    cluster.start_proxy();
    cluster
}

fn rows(client: &mut Raw, sql: &str) -> Vec<String> {
    client
        .rows(sql)
        .into_iter()
        .map(|row| row.join("|"))
        .collect()
}

#[test]
fn clients_have_their_own_roles_on_every_shard() {
    let cluster = with_people("{ max_size: 20 }");
    let who = "SELECT session_user || '/' || current_user";
    for (user, password, role) in [
        ("alice", "alice-secret", "alice"),
        ("bob", "bob-secret", "bob"),
        (USER, PASSWORD, USER),
        ("report", "x", "carol"),
    ] {
        let mut client = endpoint(&cluster, user, password).raw();
        assert_eq!(rows(&mut client, who), [format!("{role}/{role}")]);
    }
    // The md5 hash opens servers that keep it, where they ask for md5.
    let old = said(&psql(&cluster, "old", "old-secret", ""));
    assert_eq!(old, Ok("old/old".to_owned()));
    let mut bob = endpoint(&cluster, "bob", "bob-secret").raw();
    let names = "SELECT name FROM orders";
    assert_eq!(rows(&mut bob, names), ["public"; 4]);
    assert_eq!(bob.code("SELECT name FROM alice.orders"), "42501");
    assert_eq!(bob.code("INSERT INTO orders VALUES (9, 'x')"), "42501");
    // The search path is the role's own: this is another table, elsewhere.
    let mut alice = endpoint(&cluster, "alice", "alice-secret").raw();
    assert_eq!(rows(&mut alice, names), ["of alice"]);
    assert_eq!(
        rows(&mut alice, "SELECT name FROM public.orders"),
        ["public"; 4]
    );
    alice.query("SET search_path TO public, \"$user\"");
    assert_eq!(rows(&mut alice, names), ["public"; 4]);
    alice.query("SET search_path TO \"$user\", public");
    assert_eq!(rows(&mut alice, names), ["of alice"]);
    alice.query("RESET search_path");
    assert_eq!(rows(&mut alice, names), ["of alice"]);
}

#[test]
fn drivers_log_in_as_themselves() {
    let cluster = with_people("{ max_size: 20 }");
    let alice = endpoint(&cluster, "alice", "alice-secret");
    python_at("check_login.py", &alice.url());
}

#[test]
fn a_server_that_keeps_another_verifier_is_named() {
    let cluster = with_people("{ max_size: 20 }");
    run_as_superuser(
        &cluster.shards[1].primary,
        "ALTER ROLE bob PASSWORD 'bob-secret'",
    );
    let mut bob = endpoint(&cluster, "bob", "bob-secret").raw();
    let frames = bob.query("SELECT name FROM orders");
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    let message = error.field(b'M').unwrap();
    let port = cluster.shards[1].primary.port();
    assert_eq!(error.field(b'C').unwrap(), "28000");
    assert_eq!(
        message,
        format!(
            "server \"127.0.0.1:{port}\" keeps another SCRAM verifier of role \"bob\" than the proxy"
        )
    );
    // The session goes on, and other servers serve it.
    assert_eq!(rows(&mut bob, "/* shardwire: shard=s0 */ SELECT 1"), ["1"]);
}

#[test]
fn all_roles_together_keep_within_the_limit_of_a_server() {
    let cluster = with_people("{ max_size: 2, queue_timeout: 20s }");
    let people = [
        ("alice", "alice-secret"),
        ("bob", "bob-secret"),
        ("carol", "carol-secret"),
        (USER, PASSWORD),
    ];
    let most = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = people
            .iter()
            .map(|(user, password)| endpoint(&cluster, user, password))
            .flat_map(|endpoint| [endpoint.clone(), endpoint])
            .map(|endpoint| {
                scope.spawn(move || {
                    let mut client = endpoint.raw();
                    for _ in 0..10 {
                        let user = client.rows("/* shardwire: shard=s0 */ SELECT current_user");
                        assert_eq!(user, [[endpoint.user.clone()]]);
                    }
                })
            })
            .collect();
        // Control connections have a name, those of clients have none.
        let count = "SELECT count(*) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND datname = 'app' \
                     AND application_name = ''";
        while !clients
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let open = run_as_superuser(&cluster.shards[0].primary, count);
            most.fetch_max(
                open.trim().parse().unwrap(),
                std::sync::atomic::Ordering::Relaxed,
            );
        }
    });
    assert!((1..=2).contains(&most.into_inner()));
}

/// Certificates in a directory that both the proxy and libpq can read.
struct Papers {
    authority: Authority,
    directory: tempfile::TempDir,
}

impl Papers {
    fn new() -> Papers {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let authority = Authority::within(directory.path());
        Papers {
            authority,
            directory,
        }
    }

    /// A certificate and its key, which libpq wants to be its secret.
    fn issue(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (cert, key) = self.authority.issue(name, names);
        fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        if let Some(account) = Binaries::find().unwrap().account() {
            chown(&key, Some(account.uid), Some(account.gid)).unwrap();
        }
        (cert, key)
    }

    /// What a client adds to its connection string to show a certificate.
    fn show(&self, (cert, key): &(PathBuf, PathBuf)) -> String {
        format!(
            "sslmode=verify-ca sslrootcert={} sslcert={} sslkey={}",
            self.authority.ca().display(),
            cert.display(),
            key.display()
        )
    }

    /// The value of `tls` in proxy.yaml.
    fn tls(&self, server: &(PathBuf, PathBuf), crl: Option<&PathBuf>) -> String {
        let crl = crl.map_or(String::new(), |crl| {
            format!(", client_crl: {}", crl.display())
        });
        format!(
            "{{ mode: prefer, cert: {}, key: {}, client_ca: {}{crl} }}",
            server.0.display(),
            server.1.display(),
            self.authority.ca().display()
        )
    }
}

/// Rules for users who come with a certificate, alone or besides a password.
fn certificate_rules() -> String {
    let rules = format!(
        "{{ users: {{ {}, alice: {{}}, robot: {{ password: x }}, both: {{ password: both-secret }} }}, rules: [
            {{ type: hostssl, user: alice, method: cert }},
            {{ type: hostssl, user: robot, method: cert, clientname: san, map: machines }},
            {{ type: hostssl, user: both, method: scram-sha-256, clientcert: verify-full }},
            {{ type: hostssl, user: stranger, method: cert }},
            {{ user: {USER}, method: scram-sha-256, type: host }} ],
          maps: {{ machines: {{ \"*.machines.example\": \"*\" }} }} }}",
        app()
    );
    rules.replace('\n', " ")
}

#[test]
fn certificates_speak_for_users() {
    let papers = Papers::new();
    let server = papers.authority.issue("localhost", &["127.0.0.1"]);
    let cluster = with_auth(&certificate_rules())
        .config("tls", &papers.tls(&server, None))
        .start();
    let shared = Ok(format!("{USER}/{USER}"));
    let alice = papers.show(&papers.issue("alice", &[]));
    let robot = papers.show(&papers.issue("r2", &["robot.machines.example"]));
    let both = papers.show(&papers.issue("both", &[]));
    let stranger = papers.show(&papers.issue("stranger", &[]));
    assert_eq!(said(&psql(&cluster, "alice", "", &alice)), shared);
    assert_eq!(said(&psql(&cluster, "robot", "", &robot)), shared);
    assert_eq!(said(&psql(&cluster, "both", "both-secret", &both)), shared);
    assert_eq!(said(&psql(&cluster, USER, PASSWORD, &alice)), shared);
    for (user, password, more, complaint) in [
        (
            "alice",
            "",
            robot.as_str(),
            "certificate authentication failed for user \"alice\"",
        ),
        (
            "robot",
            "",
            &alice,
            "certificate authentication failed for user \"robot\"",
        ),
        (
            "alice",
            "",
            "sslmode=require",
            "connection requires a valid client certificate",
        ),
        (
            "alice",
            "",
            "sslmode=disable",
            "no auth.rules entry for host \"127.0.0.1\", user \"alice\"",
        ),
        (
            "both",
            "wrong",
            &both,
            "password authentication failed for user \"both\"",
        ),
        (
            "both",
            "both-secret",
            &alice,
            "certificate authentication failed for user \"both\"",
        ),
        (
            "both",
            "both-secret",
            "sslmode=require",
            "connection requires a valid client certificate",
        ),
        (
            "stranger",
            "",
            &stranger,
            "role \"stranger\" does not exist",
        ),
    ] {
        let error = said(&psql(&cluster, user, password, more)).unwrap_err();
        assert!(error.contains(complaint), "{user} {more}: {error}");
    }
}

#[test]
fn a_reload_takes_new_certificates_authorities_and_revocations() {
    let papers = Papers::new();
    let server = papers.authority.issue("localhost", &["127.0.0.1"]);
    let mut cluster = with_auth(&certificate_rules())
        .config("tls", &papers.tls(&server, None))
        .start();
    let certificate = papers.issue("alice", &[]);
    let alice = papers.show(&certificate);
    let shared = format!("{USER}/{USER}");
    assert_eq!(
        said(&psql(&cluster, "alice", "", &alice)),
        Ok(shared.clone())
    );
    let mut staying = cluster.proxy().raw();
    // Her certificate is revoked.
    let crl = papers.authority.revoke(&certificate.0);
    let yaml = cluster.yaml();
    let (old, new) = (papers.tls(&server, None), papers.tls(&server, Some(&crl)));
    cluster.write_config(&yaml.replace(&old, &new));
    cluster.process().signal("HUP");
    eventually("revoked", || {
        match said(&psql(&cluster, "alice", "", &alice)) {
            Ok(_) => Err("she still comes in"),
            Err(_) => Ok(()),
        }
    });
    // Everything is replaced, under the same names: the authority, and what it has issued.
    let others = Papers::new();
    let renewed = others.authority.issue("localhost", &["127.0.0.1"]);
    let empty = others.authority.revoke(&others.issue("nobody", &[]).0);
    for (from, to) in [
        (others.authority.ca(), papers.authority.ca()),
        (renewed.0, server.0),
        (renewed.1, server.1),
        (empty, crl),
    ] {
        fs::copy(from, to).unwrap();
    }
    cluster.process().signal("HUP");
    let alice = others.show(&others.issue("alice", &[]));
    eventually("reloaded", || said(&psql(&cluster, "alice", "", &alice)));
    // Who was there stays.
    assert_eq!(staying.rows("SELECT 1"), [["1"]]);
    drop((papers.directory, others.directory));
}

#[test]
fn startup_packets_mean_what_they_mean_to_postgresql() {
    let auth = format!("{{ users: {{ {}, other: {{ password: x }} }} }}", app());
    let cluster = with_auth(&auth).start();
    for endpoint in [cluster.proxy(), cluster.oracle()] {
        // The database is the user's unless named.
        let unnamed = Endpoint {
            database: String::new(),
            ..endpoint.clone()
        };
        let mut raw = Raw::try_login(&unnamed).unwrap();
        assert_eq!(raw.rows("SELECT current_database()"), [[DATABASE]]);
        let options = [("options", "-c work_mem=5MB --statement-timeout=7min")];
        let mut raw = Raw::login_with(&endpoint, &options).unwrap();
        let settings = "SELECT current_setting('work_mem'), current_setting('statement_timeout')";
        assert_eq!(raw.rows(settings), [["5MB", "7min"]]);
        for (name, value) in [("options", "-c no_such=1"), ("no_such", "1")] {
            let error = Raw::login_with(&endpoint, &[(name, value)]).err().unwrap();
            assert_eq!(error.field(b'C').unwrap(), "42704", "{name}");
        }
        // A wrong password is told before that there is no such database.
        let mut nowhere = endpoint.clone();
        nowhere.database = "nowhere".to_owned();
        assert_eq!(refused(&nowhere).0, "3D000");
        nowhere.password = "wrong".to_owned();
        assert_eq!(refused(&nowhere).0, "28P01");
    }
    // Encryption by GSSAPI is declined, and the client goes on.
    let mut raw = Raw::open(cluster.proxy().port);
    raw.send(&message::gss_request());
    assert_eq!(raw.read_byte(), Some(b'N'));
    raw.send(&message::startup(&[("user", USER)]));
    assert_eq!(raw.read().unwrap().tag, b'R');
    // A user without a database of its name gets as far as that.
    let mut other = endpoint(&cluster, "other", "x");
    other.database = String::new();
    let message = "database \"other\" does not exist".to_owned();
    assert_eq!(refused(&other), ("3D000".to_owned(), message));
    let error = Raw::login_with(&cluster.proxy(), &[("replication", "database")]);
    let error = error.err().unwrap();
    assert_eq!(error.field(b'C').unwrap(), "0A000");
    assert!(error.field(b'H').is_some());
}
