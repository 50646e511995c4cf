//! What an operator meets: mistakes in the file and on the servers, reload, shutdown, metrics.

use std::net::{TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::harness::cluster::{Builder, PASSWORD, run_as_superuser};
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw, eventually, message, process};

fn builder() -> Builder {
    Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 100) i")
        .sharded("t", &["id"])
}

/// Output that an operator reads: both streams.
fn text(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// `shardwire check` on a file must fail and say all of `words`.
fn check_fails(cluster: &Cluster, yaml: &str, words: &[&str]) {
    cluster.write_config(yaml);
    let output = process::run(cluster.directory(), &["check", "--config", "proxy.yaml"]);
    let said = text(&output);
    assert!(
        !output.status.success(),
        "check accepts\n{yaml}\nand says\n{said}"
    );
    for word in words {
        assert!(said.contains(word), "check does not say {word:?}:\n{said}");
    }
    assert!(!said.contains(PASSWORD), "check prints a password:\n{said}");
}

/// The proxy on a file must end by itself and say all of `words`.
fn serve_fails(cluster: &Cluster, yaml: &str, words: &[&str]) {
    cluster.write_config(yaml);
    let output = process::run(cluster.directory(), &["--config", "proxy.yaml"]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say {word:?}:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn check_accepts_a_cluster_that_is_right() {
    let cluster = builder().secondaries(1).start();
    let output = process::run(cluster.directory(), &["check", "--config", "proxy.yaml"]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn mistakes_in_the_file_are_all_reported_with_their_places() {
    let cluster = builder().without_proxy().start();
    let right = cluster.yaml();
    let wrong = right
        .replace("listen:", "lisen:")
        .replace("shard_key: [id]", "shard_ky: [id]");
    check_fails(&cluster, &wrong, &["proxy.yaml:1:1: lisen", "shard_ky"]);
    serve_fails(&cluster, &wrong, &["lisen", "shard_ky"]);
    check_fails(&cluster, "listen: [", &["proxy.yaml"]);
    serve_fails(&cluster, "", &["empty"]);
    serve_fails(&cluster, "log: { level: info }", &["databases"]);
    let missing = right.replace(
        &format!("password: {PASSWORD}"),
        "password: \"${NO_SUCH_VARIABLE}\"",
    );
    serve_fails(&cluster, &missing, &["NO_SUCH_VARIABLE"]);
}

#[test]
fn a_missing_file_is_named() {
    let cluster = builder().without_proxy().start();
    let output = process::run(cluster.directory(), &["--config", "nowhere.yaml"]);
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("nowhere.yaml"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let cluster = builder().without_proxy().start();
    let taken = TcpListener::bind(("127.0.0.1", cluster.proxy().port)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    serve_fails(&cluster, &cluster.yaml(), &[&port, "in use"]);
}

#[test]
fn a_wrong_password_of_a_server_is_named() {
    let cluster = builder().without_proxy().start();
    let right = cluster.yaml();
    let wrong = right.replace(
        &format!("user: app, password: {PASSWORD}"),
        "user: app, password: wrong",
    );
    assert_ne!(right, wrong);
    let port = cluster.shards[0].primary.port().to_string();
    check_fails(&cluster, &wrong, &[&port, "password"]);
}

#[test]
fn an_unreachable_server_is_named() {
    let mut cluster = builder().secondaries(1).without_proxy().start();
    cluster.shards[1].secondaries[0].kill().unwrap();
    let port = cluster.shards[1].secondaries[0].port().to_string();
    check_fails(&cluster, &cluster.yaml(), &[&port, "refused"]);
}

#[test]
fn swapped_addresses_are_an_error_and_no_row_is_misplaced() {
    let mut cluster = builder().start();
    let proxy = cluster.proxy();
    proxy.raw().rows("INSERT INTO t VALUES (1000, 'right')");
    cluster.proxy = None;
    let ports = [0, 1].map(|shard: usize| cluster.shards[shard].primary.port().to_string());
    let swapped = cluster
        .yaml()
        .replace(&ports[0], "first")
        .replace(&ports[1], &ports[0])
        .replace("first", &ports[1]);
    check_fails(&cluster, &swapped, &["s0", "s1"]);
    assert_no_writes(&cluster, &swapped);
}

#[test]
fn a_shard_added_without_moving_rows_is_an_error() {
    let mut cluster = builder().shards(3).start();
    let two_shards = |yaml: &str| {
        let start = yaml.find("      - name: s2").unwrap();
        let end = yaml.find("    tables:").unwrap();
        format!("{}{}", &yaml[..start], &yaml[end..])
    };
    let three = cluster.yaml();
    // The rows of this test do not matter: only the first contact's map does.
    cluster.proxy = None;
    for shard in &cluster.shards {
        shard
            .primary
            .psql("app", "DROP SCHEMA IF EXISTS shardwire CASCADE")
            .unwrap();
    }
    cluster.write_config(&two_shards(&three));
    cluster.start_proxy();
    cluster.proxy().raw().rows("SELECT * FROM t WHERE id = 1");
    cluster.proxy = None;
    check_fails(&cluster, &three, &["placed for 2 shards", "has 3"]);
    assert_no_writes(&cluster, &three);
}

/// A proxy on a file that contradicts the servers refuses to write, or to start at all.
fn assert_no_writes(cluster: &Cluster, yaml: &str) {
    let rows = |cluster: &Cluster| -> Vec<String> {
        let count = |server: &shardwire::demo::postgres::Server| {
            server.psql("app", "SELECT count(*) FROM t").unwrap()
        };
        cluster
            .shards
            .iter()
            .map(|shard| count(&shard.primary))
            .collect()
    };
    let before = rows(cluster);
    cluster.write_config(yaml);
    let mut child = process::program(cluster.directory())
        .args(["--config", "proxy.yaml"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let refused = eventually("refused to serve", || {
        if let Some(status) = child.try_wait().unwrap() {
            return Ok(!status.success());
        }
        if TcpStream::connect(("127.0.0.1", cluster.proxy().port)).is_err() {
            return Err("not listening");
        }
        let Ok(mut raw) = Raw::try_login(&cluster.proxy()) else {
            return Ok(true);
        };
        let failed = (2000..2020).all(|id| {
            let frames = raw.query(&format!("INSERT INTO t VALUES ({id}, 'misplaced')"));
            frames.iter().any(|frame| frame.tag == b'E')
        });
        Ok(failed)
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(refused, "rows are written over a wrong map");
    assert_eq!(before, rows(cluster));
}

#[test]
fn a_reload_takes_a_whole_new_file_or_nothing() {
    let mut cluster = builder().start();
    let mut old = cluster.proxy().raw();
    let right = cluster.yaml();
    let other = |password: &str| {
        let endpoint = Endpoint {
            user: "other".into(),
            password: password.into(),
            ..cluster.proxy()
        };
        Raw::try_login(&endpoint).map(drop)
    };
    assert!(other("new").is_err());
    let users = format!("users: {{ app: {{ password: {PASSWORD} }}");
    let more = right.replace(&users, &format!("{users}, other: {{ password: new }}"));
    assert_ne!(right, more);

    // Wrong: named in the log, and everything goes on as it was.
    cluster.write_config(&more.replace("listen:", "lisen:"));
    cluster.proxy.as_ref().unwrap().signal("HUP");
    eventually("complained about the file", || {
        let log = cluster.proxy.as_ref().unwrap().log();
        if log.contains("lisen") {
            Ok(())
        } else {
            Err(log)
        }
    });
    old.rows("SELECT * FROM t WHERE id = 1");
    cluster.proxy().raw().rows("SELECT * FROM t WHERE id = 2");
    assert!(other("new").is_err());

    // Right: in force for new clients, and old ones stay.
    cluster.write_config(&more);
    cluster.proxy.as_ref().unwrap().signal("HUP");
    eventually("accepted the new user", || other("new"));
    old.rows("SELECT * FROM t WHERE id = 3");
    assert!(cluster.process().is_alive());
}

#[test]
fn connections_of_a_database_that_a_reload_replaced_are_closed_when_idle() {
    let cluster = builder()
        .database("pool", "{ max_size: 5, idle_timeout: 1s }")
        .start();
    let mut old = cluster.proxy().raw();
    old.rows("SELECT id FROM t WHERE id = 1 AND 'marker' <> ''");
    let changed = cluster.yaml().replace("max_size: 5", "max_size: 6");
    cluster.write_config(&changed);
    cluster.proxy.as_ref().unwrap().signal("HUP");
    let marked = "SELECT count(*) FROM pg_stat_activity \
         WHERE query LIKE '%marker%' AND pid <> pg_backend_pid()";
    eventually("idle connections are closed", || {
        let counts = cluster.shards.iter();
        let counts: Vec<String> = counts
            .map(|shard| run_as_superuser(&shard.primary, marked))
            .collect();
        match counts.iter().all(|count| count.trim() == "0") {
            true => Ok(()),
            false => Err(counts),
        }
    });
    // Its client has stayed.
    old.rows("SELECT id FROM t WHERE id = 2");
}

#[test]
fn a_terminated_proxy_lets_its_clients_finish() {
    let mut cluster = builder().start();
    let proxy = cluster.proxy();
    let (mut busy, mut idle) = (proxy.raw(), proxy.raw());
    busy.rows("BEGIN");
    busy.rows("UPDATE t SET name = 'draining' WHERE id = 5");
    cluster.process().signal("TERM");
    eventually("stopped accepting clients", || {
        // Connections that arrive meanwhile are closed or refused.
        match TcpStream::connect(("127.0.0.1", proxy.port)) {
            Ok(_) => Err("it still accepts"),
            Err(_) => Ok(()),
        }
    });
    // The open transaction ends in its own time; who has none is told to go.
    assert_eq!(
        idle.read().and_then(|frame| frame.field(b'C')).as_deref(),
        Some("57P01")
    );
    busy.rows("UPDATE t SET name = 'drained' WHERE id = 5");
    busy.rows("COMMIT");
    assert!(
        cluster.process().wait().success(),
        "{}",
        cluster.process().log()
    );
    let seen: Vec<String> = cluster
        .shards
        .iter()
        .map(|shard| {
            shard
                .primary
                .psql("app", "SELECT name FROM t WHERE id = 5")
                .unwrap()
        })
        .collect();
    assert!(seen.contains(&"drained\n".to_owned()), "{seen:?}");
}

#[test]
fn a_client_that_logs_in_during_the_shutdown_is_sent_away() {
    let mut cluster = builder().trust().start();
    let proxy = cluster.proxy();
    let mut busy = proxy.raw();
    busy.rows("BEGIN");
    busy.rows("SELECT * FROM t WHERE id = 5");
    let mut late = Raw::open(proxy.port);
    late.send(&message::ssl_request());
    assert_eq!(late.read_byte(), Some(b'N'));
    cluster.process().signal("TERM");
    eventually("stopped accepting clients", || {
        match TcpStream::connect(("127.0.0.1", proxy.port)) {
            Ok(_) => Err("it still accepts"),
            Err(_) => Ok(()),
        }
    });
    let parameters = [("user", &*proxy.user), ("database", &*proxy.database)];
    late.send(&message::startup(&parameters));
    let frames = late.read_until(b'E', 1);
    let error = frames.last().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    busy.rows("COMMIT");
    assert!(cluster.process().wait().success());
}

#[test]
fn a_client_that_does_not_finish_is_cut_off_in_the_end() {
    let timeouts = "{ shutdown: 1s, probe_interval: 200ms }";
    let mut cluster = builder().config("timeouts", timeouts).start();
    let mut busy = cluster.proxy().raw();
    busy.rows("BEGIN");
    busy.rows("UPDATE t SET name = 'never' WHERE id = 5");
    cluster.process().signal("TERM");
    cluster.process().wait();
    assert_eq!(
        busy.read().and_then(|frame| frame.field(b'C')).as_deref(),
        Some("57P01")
    );
    for shard in &cluster.shards {
        let sql = "SELECT count(*) FROM t WHERE name = 'never'";
        assert_eq!(shard.primary.psql("app", sql).unwrap(), "0\n");
    }
}

#[test]
fn a_wrong_password_of_a_client_is_refused_and_not_logged() {
    let mut cluster = builder().start();
    let endpoint = Endpoint {
        password: "not-the-password".into(),
        ..cluster.proxy()
    };
    let error = Raw::try_login(&endpoint).map(drop).unwrap_err();
    assert_eq!(error.field(b'C').unwrap(), "28P01");
    let nobody = Endpoint {
        user: "nobody".into(),
        ..cluster.proxy()
    };
    let error = Raw::try_login(&nobody).map(drop).unwrap_err();
    assert_eq!(
        error.field(b'C').unwrap(),
        "28P01",
        "an unknown user looks like a wrong password"
    );
    let nowhere = Endpoint {
        database: "nowhere".into(),
        ..cluster.proxy()
    };
    let error = Raw::try_login(&nowhere).map(drop).unwrap_err();
    assert_eq!(error.field(b'C').unwrap(), "3D000");
    let mut raw = cluster.proxy().raw();
    raw.query("SELECT * FROM t WHERE name = 'a-secret-literal' AND missing");
    raw.query("SELEC 'a-secret-literal'");
    let log = cluster.process().log();
    for secret in ["not-the-password", PASSWORD, "a-secret-literal"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[test]
fn clients_over_the_limit_are_told_so() {
    let cluster = builder().config("limits", "{ max_clients: 3 }").start();
    let proxy = cluster.proxy();
    // The login that the harness waited with may still be closing.
    let clients = eventually("had room for three", || {
        let clients: Vec<_> = (0..3).map(|_| Raw::try_login(&proxy)).collect();
        clients.into_iter().collect::<Result<Vec<Raw>, _>>()
    });
    let error = Raw::try_login(&proxy).map(drop).unwrap_err();
    assert_eq!(error.field(b'C').unwrap(), "53300");
    drop(clients);
    eventually("freed a place", || Raw::try_login(&proxy).map(drop));
}

#[test]
fn a_full_pool_queues_and_then_says_so() {
    let pool = "{ mode: transaction, max_size: 1, queue_timeout: 2s }";
    let cluster = builder().database("pool", pool).start();
    let proxy = cluster.proxy();
    let (mut first, mut second) = (proxy.raw(), proxy.raw());
    first.rows("BEGIN");
    first.rows("UPDATE t SET name = 'held' WHERE id = 1");
    assert_eq!(second.code("UPDATE t SET name = 'x' WHERE id = 1"), "53300");
    first.rows("COMMIT");
    second.rows("UPDATE t SET name = 'x' WHERE id = 1");
}

#[test]
fn clients_that_gave_up_waiting_do_not_fill_the_queue() {
    let pool = "{ mode: transaction, max_size: 1, max_queue: 1, queue_timeout: 1s }";
    let cluster = builder().database("pool", pool).start();
    let proxy = cluster.proxy();
    let (mut first, mut second) = (proxy.raw(), proxy.raw());
    first.rows("BEGIN");
    first.rows("UPDATE t SET name = 'held' WHERE id = 1");
    for _ in 0..3 {
        let frames = second.query("UPDATE t SET name = 'x' WHERE id = 1");
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        let message = error.field(b'M').unwrap();
        assert!(message.starts_with("timed out waiting"), "{message}");
    }
}

#[test]
fn health_and_metrics_are_served() {
    let mut cluster = builder().secondaries(1).start();
    cluster.proxy().raw().rows("SELECT * FROM t WHERE id = 1");
    let process = cluster.process();
    for path in ["/healthz", "/readyz"] {
        let (status, body) = process.http(path);
        assert!(status.contains(" 200 "), "{path}: {status} {body}");
    }
    let (status, _) = process.http("/nowhere");
    assert!(status.contains(" 404 "), "{status}");
    let (_, body) = process.http("/metrics");
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.starts_with("shardwire_") || line.starts_with("process_"),
            "{line}"
        );
    }
    for name in [
        "shardwire_queries_total{",
        "shardwire_server_up{",
        "shardwire_replication_lag_seconds{",
        "shardwire_replication_lag_bytes{",
    ] {
        assert!(body.contains(name), "no {name} in\n{body}");
    }
}

#[test]
fn a_long_query_is_cancelled() {
    let cluster = builder().start();
    let proxy = cluster.proxy();
    for sql in [
        "SELECT pg_sleep(600)",
        "SELECT name, pg_sleep(600) FROM t WHERE id = 1",
        "SELECT id FROM t, generate_series(1, 1000000000) AS number WHERE number < 0",
    ] {
        let mut raw = proxy.raw();
        let (process_id, secret) = raw.key.clone().unwrap();
        raw.send(&message::query(sql));
        // The request is repeated until it finds the query running.
        raw.set_patience(Duration::from_millis(200));
        let frames = eventually("cancelled", || {
            let mut cancel = Raw::open(proxy.port);
            cancel.send(&message::cancel_request(process_id, &secret));
            let (frames, end) = raw.try_read_until(b'Z', 1);
            end.map(|()| frames)
        });
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C').unwrap(), "57014", "{sql}");
        raw.set_patience(DEADLINE);
        // A late request may hit this one too.
        raw.query("SELECT 1");
        assert_eq!(raw.rows("SELECT 1"), [["1"]]);
    }
}

#[test]
fn flags_explain_themselves() {
    let directory = std::env::temp_dir();
    assert!(process::run(&directory, &["--version"]).status.success());
    assert!(text(&process::run(&directory, &["--help"])).contains("--config"));
    assert!(!process::run(&directory, &["--nonsense"]).status.success());
}

#[test]
fn a_statement_is_explained_with_and_without_servers() {
    let cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE users (user_id bigint PRIMARY KEY, name text COLLATE \"C\")")
        .sharded("users", &["user_id"])
        .start();
    let explain = |arguments: &[&str]| {
        let arguments = [&["explain", "--config", "proxy.yaml"], arguments].concat();
        let output = process::run(cluster.directory(), &arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let ordered = "SELECT shard_id, name FROM users ORDER BY name LIMIT 2";
    let (code, said) = explain(&[ordered]);
    assert_eq!(
        (code, said.as_str()),
        (
            Some(0),
            "Limit 2\n  Merge by name\n    Scatter (all shards)\n->  shards s0, s1\n"
        )
    );
    let point = "SELECT name FROM users WHERE user_id = 7";
    let (code, online) = explain(&[point]);
    assert_eq!(code, Some(0), "{online}");
    let (code, offline) = explain(&["--offline", point]);
    assert_eq!(code, Some(0), "{offline}");
    assert!(
        online.starts_with("Single key users.user_id = 7\n->  shard s"),
        "{online}"
    );
    assert!(offline.ends_with(&online), "{offline}");
    let (code, said) = explain(&["--offline", "--database", "none", point]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("3D000"), "{said}");
    let (code, said) = explain(&["CALL something()"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0A000"), "{said}");
}
