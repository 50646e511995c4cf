//! The virtual database `shardwire`: PgBouncer's console, in both protocols.

use super::{Rows, as_user, ask, builder, columns_of, error, named};
use crate::drivers;
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

/// The columns of PgBouncer 1.24 with the OIDs of their types.
const GOLDEN: &str = include_str!("columns.txt");

fn console(cluster: &Cluster, user: &str) -> Endpoint {
    Endpoint {
        database: "shardwire".to_owned(),
        ..as_user(cluster, user)
    }
}

/// The rows of a SHOW, the named columns of each as one text.
fn lines(raw: &mut Raw, noun: &str, columns: &[&str]) -> Vec<String> {
    named(&ask(raw, &format!("SHOW {noun}")), columns)
}

/// Waits until a SHOW has this line.
fn until(raw: &mut Raw, noun: &str, columns: &[&str], line: &str) {
    eventually(line, || {
        let lines = lines(raw, noun, columns);
        match lines.iter().any(|one| one == line) {
            true => Ok(()),
            false => Err(lines),
        }
    });
}

fn tag(raw: &mut Raw, sql: &str) -> String {
    let frames = raw.query(sql);
    let complete = frames.iter().find(|frame| frame.tag == b'C');
    let complete = complete.unwrap_or_else(|| {
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        panic!("{sql}: {:?} {:?}", error.field(b'C'), error.field(b'M'))
    });
    let text = complete.body.split(|byte| *byte == 0).next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn tables_have_pgbouncers_columns_in_both_protocols() {
    let cluster = builder(2).start();
    let mut app = cluster.proxy().raw();
    app.query("SELECT name FROM users WHERE user_id = 1");
    let mut ops = console(&cluster, "ops").raw();
    for line in GOLDEN.lines() {
        let (noun, columns) = line.split_once(": ").unwrap();
        let shown = |columns: &[(String, u32)]| {
            let columns = columns.iter().map(|(name, oid)| format!("{name}:{oid}"));
            columns.collect::<Vec<_>>().join(" ")
        };
        let sql = format!("show {noun};");
        assert_eq!(shown(&ask(&mut ops, &sql).0), columns, "{noun}");
        ops.send(
            &[
                message::parse("", &sql, &[]),
                message::describe(b'S', ""),
                message::bind("", "", &[], &[], &[1]),
                message::describe(b'P', ""),
                message::execute("", 1),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        );
        let frames = ops.read_until(b'Z', 1);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        let rows = tags.matches('D').count();
        let expected = match rows {
            0 => "1tT2TCCZ".to_owned(),
            rows => format!("1tT2TDs{}CZ", "D".repeat(rows - 1)),
        };
        assert_eq!(tags, expected, "{noun}");
        let described = frames.iter().filter(|frame| frame.tag == b'T');
        for (binary, frame) in described.enumerate() {
            assert_eq!(shown(&columns_of(&frame.body)), columns, "{noun}");
            assert_eq!(frame.body.last(), Some(&(binary as u8)), "{noun}");
        }
    }
}

#[test]
fn only_those_whom_the_configuration_names_come_in_and_only_administrators_change() {
    let cluster = builder(1).start();
    let refused = Raw::try_login(&console(&cluster, "app")).err().unwrap();
    assert_eq!(refused.field(b'C').as_deref(), Some("28000"));
    let mut grafana = console(&cluster, "grafana").raw();
    assert!(!lines(&mut grafana, "STATS", &["database"]).is_empty());
    for sql in ["PAUSE", "KILL app", "RELOAD", "SHUTDOWN", "DISABLE app"] {
        assert_eq!(error(&mut grafana, sql).0, "42501", "{sql}");
    }
    let mut ops = console(&cluster, "ops").raw();
    for (sql, code) in [
        ("PAUSE nowhere", "3D000"),
        ("RESUME", "55000"),
        ("RESUME app", "55000"),
        ("KILL_CLIENT 1", "42704"),
        ("SUSPEND", "0A000"),
        ("SHOW NONSENSE", "42704"),
        ("SELECT * FROM users", "42601"),
        ("SET max_client_conn = 1", "0A000"),
    ] {
        assert_eq!(error(&mut ops, sql).0, code, "{sql}");
    }
    let frames = ops.query("SHOW HELP");
    let notice = frames.iter().find(|frame| frame.tag == b'N').unwrap();
    assert!(notice.field(b'D').unwrap().contains("PAUSE"));
    assert_eq!(tag(&mut ops, "SELECT 1"), "SELECT 1");
    let version = lines(&mut ops, "VERSION", &["version"]);
    assert!(version[0].contains("Shardwire"), "{version:?}");
}

#[test]
fn drivers_may_open_transactions_here() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    assert_eq!(tag(&mut ops, "SET application_name = 'x'"), "SET");
    assert_eq!(tag(&mut ops, "BEGIN; SHOW STATE"), "BEGIN");
    let frames = ops.query("SHOW NONSENSE");
    assert_eq!(frames.last().unwrap().body, b"E");
    assert_eq!(error(&mut ops, "SHOW STATE").0, "25P02");
    assert_eq!(tag(&mut ops, "ROLLBACK"), "ROLLBACK");
    assert_eq!(tag(&mut ops, "SHOW STATE"), "SHOW");
}

#[test]
fn a_client_that_leaves_while_it_waits_for_resume_is_gone() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let mut raw = cluster.proxy().raw();
    raw.query("SET application_name = 'leaver'");
    assert_eq!(tag(&mut ops, "PAUSE app"), "PAUSE");
    raw.send(&message::query("SELECT name FROM users WHERE user_id = 1"));
    let columns = ["state", "application_name"];
    until(&mut ops, "CLIENTS", &columns, "waiting|leaver");
    drop(raw);
    eventually("no client but operators", || {
        let clients = lines(&mut ops, "CLIENTS", &columns);
        match clients.iter().any(|line| line.ends_with("leaver")) {
            false => Ok(()),
            true => Err(clients),
        }
    });
    assert_eq!(tag(&mut ops, "RESUME app"), "RESUME");
}

#[test]
fn pause_lets_transactions_end_and_holds_new_ones_until_resume() {
    let cluster = builder(2).start();
    let (mut ops, mut watch) = (
        console(&cluster, "ops").raw(),
        console(&cluster, "grafana").raw(),
    );
    let (mut first, mut second, mut third) = (
        cluster.proxy().raw(),
        cluster.proxy().raw(),
        cluster.proxy().raw(),
    );
    second.query("SET application_name = 'second'");
    third.query("SET application_name = 'third'");
    first.query("BEGIN");
    first.query("UPDATE users SET name = 'changed' WHERE user_id = 1");
    ops.send(&message::query("PAUSE app"));
    until(&mut watch, "DATABASES", &["name", "paused"], "app|1");
    second.send(&message::query("SELECT name FROM users WHERE user_id = 1"));
    third.send(&message::query("SELECT user_id FROM users"));
    for name in ["second", "third"] {
        let line = format!("waiting|{name}");
        until(&mut watch, "CLIENTS", &["state", "application_name"], &line);
    }
    // What has begun goes on, on another shard too.
    let rows = first.rows("SELECT name FROM users WHERE user_id = 4");
    assert_eq!(rows, [["user 4"]]);
    let pools = lines(
        &mut watch,
        "POOLS",
        &["database", "cl_waiting", "sv_active"],
    );
    assert_eq!(pools, ["app|2|2"]);
    assert_eq!(error(&mut watch, "PAUSE").0, "42501");
    first.query("COMMIT");
    let frames = ops.read_until(b'Z', 1);
    assert_eq!(frames[0].tag, b'C', "{frames:?}");
    let pools = lines(
        &mut watch,
        "POOLS",
        &["database", "cl_waiting", "sv_active", "sv_idle", "sv_login"],
    );
    assert_eq!(pools, ["app|2|0|0|0"]);
    assert_eq!(error(&mut ops, "PAUSE app").0, "55000");
    assert_eq!(tag(&mut ops, "RESUME app"), "RESUME");
    let frames = second.read_until(b'Z', 1);
    assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
    let frames = third.read_until(b'Z', 1);
    let rows = frames.iter().filter(|frame| frame.tag == b'D').count();
    assert_eq!(rows, 8);
    let waited = lines(&mut ops, "STATS_TOTALS", &["wait_time"]);
    assert_ne!(waited, ["0"]);
}

#[test]
fn a_pause_can_be_cancelled_and_so_can_who_waits_for_its_end() {
    let cluster = builder(1).start();
    let (mut ops, mut watch) = (
        console(&cluster, "ops").raw(),
        console(&cluster, "grafana").raw(),
    );
    let (mut first, mut second) = (cluster.proxy().raw(), cluster.proxy().raw());
    first.query("BEGIN");
    first.query("SELECT 1");
    ops.send(&message::query("PAUSE"));
    until(&mut watch, "STATE", &["key", "value"], "paused|yes");
    second.send(&message::query("SELECT 1"));
    until(&mut watch, "CLIENTS", &["state"], "waiting");
    cancel(&cluster, &second);
    let frames = second.read_until(b'Z', 1);
    assert_eq!(frames[0].field(b'C').as_deref(), Some("57014"));
    cancel(&cluster, &ops);
    let frames = ops.read_until(b'Z', 1);
    assert_eq!(frames[0].field(b'C').as_deref(), Some("57014"));
    assert_eq!(second.rows("SELECT 2"), [["2"]]);
    first.query("COMMIT");
}

fn cancel(cluster: &Cluster, raw: &Raw) {
    let (process_id, secret) = raw.key.clone().unwrap();
    let mut canceller = Raw::open(cluster.proxy().port);
    canceller.send(&message::cancel_request(process_id, &secret));
    assert!(canceller.read_to_end(1).unwrap().is_empty());
}

#[test]
fn kill_ends_sessions_and_pauses() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let (mut busy, mut idle) = (cluster.proxy().raw(), cluster.proxy().raw());
    busy.query("BEGIN");
    busy.query("SELECT 1");
    assert_eq!(tag(&mut ops, "KILL app"), "KILL");
    for raw in [&mut busy, &mut idle] {
        let error = raw.read().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
        assert!(raw.read().is_none());
    }
    let pools = lines(&mut ops, "POOLS", &["cl_active", "sv_active", "sv_idle"]);
    assert_eq!(pools, ["0|0|0"]);
    let endpoint = cluster.proxy();
    let late = std::thread::spawn(move || endpoint.raw().rows("SELECT 1"));
    until(&mut ops, "DATABASES", &["paused", "disabled"], "1|0");
    assert_eq!(tag(&mut ops, "RESUME"), "RESUME");
    assert_eq!(late.join().unwrap(), [["1"]]);
}

#[test]
fn one_client_is_killed_by_its_id() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let (mut one, mut other) = (cluster.proxy().raw(), cluster.proxy().raw());
    let id = one.key.clone().unwrap().0;
    let ids = lines(&mut ops, "CLIENTS", &["id", "database"]);
    assert!(ids.contains(&format!("{id}|app")), "{ids:?}");
    assert_eq!(tag(&mut ops, &format!("KILL_CLIENT {id}")), "KILL_CLIENT");
    let error = one.read().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(other.rows("SELECT 1"), [["1"]]);
}

#[test]
fn a_disabled_database_lets_nobody_new_in() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let mut old = cluster.proxy().raw();
    assert_eq!(tag(&mut ops, "DISABLE app"), "DISABLE");
    let refused = Raw::try_login(&cluster.proxy()).err().unwrap();
    assert_eq!(refused.field(b'C').as_deref(), Some("57P03"));
    assert_eq!(old.rows("SELECT 1"), [["1"]]);
    assert_eq!(tag(&mut ops, "ENABLE app"), "ENABLE");
    assert_eq!(cluster.proxy().raw().rows("SELECT 1"), [["1"]]);
}

#[test]
fn reconnect_closes_connections_once_they_are_free() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let mut app = cluster.proxy().raw();
    app.query("BEGIN");
    app.query("SELECT 1");
    let before = lines(&mut ops, "SERVERS", &["remote_pid", "state"]);
    assert!(
        before.iter().any(|line| line.ends_with("|active")),
        "{before:?}"
    );
    assert_eq!(tag(&mut ops, "RECONNECT app"), "RECONNECT");
    let busy = lines(&mut ops, "SERVERS", &["remote_pid", "state"]);
    assert_eq!(busy.len(), 1, "{busy:?}");
    ops.send(&message::query("WAIT_CLOSE"));
    app.query("COMMIT");
    assert_eq!(ops.read_until(b'Z', 1)[0].tag, b'C');
    assert_eq!(app.rows("SELECT 1"), [["1"]]);
    let after = lines(&mut ops, "SERVERS", &["remote_pid"]);
    assert!(
        !busy[0].starts_with(&format!("{}|", after[0])),
        "{busy:?} {after:?}"
    );
}

#[test]
fn reload_takes_the_file_or_says_what_is_wrong_with_it() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let right = cluster.yaml();
    cluster.write_config(&right.replace("listen:", "lisen:"));
    let frames = ops.query("RELOAD");
    assert_eq!(frames[0].field(b'C').as_deref(), Some("F0000"));
    assert!(frames[0].field(b'D').unwrap().contains("lisen"));
    cluster.write_config(&format!("{right}limits: {{ max_clients: 77 }}\n"));
    assert_eq!(tag(&mut ops, "RELOAD"), "RELOAD");
    let settings = lines(&mut ops, "CONFIG", &["key", "value"]);
    for line in ["limits.max_clients|77", "max_client_conn|77"] {
        assert!(settings.contains(&line.to_owned()), "{settings:?}");
    }
    let all = format!("{settings:?}");
    assert!(!all.contains(crate::harness::cluster::PASSWORD), "{all}");
}

#[test]
fn pause_outlives_a_reload() {
    let cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let mut app = cluster.proxy().raw();
    assert_eq!(tag(&mut ops, "PAUSE app"), "PAUSE");
    let right = cluster.yaml();
    cluster.write_config(&format!("{right}limits: {{ max_clients: 77 }}\n"));
    assert_eq!(tag(&mut ops, "RELOAD"), "RELOAD");
    app.send(&message::query("SELECT 1"));
    until(&mut ops, "CLIENTS", &["state"], "waiting");
    assert_eq!(tag(&mut ops, "RESUME app"), "RESUME");
    let frames = app.read_until(b'Z', 1);
    assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
}

#[test]
fn shutdown_drains_even_while_paused() {
    let mut cluster = builder(1).start();
    let mut ops = console(&cluster, "ops").raw();
    let mut app = cluster.proxy().raw();
    assert_eq!(tag(&mut ops, "PAUSE"), "PAUSE");
    app.send(&message::query("SELECT 1"));
    until(&mut ops, "CLIENTS", &["state"], "waiting");
    assert_eq!(tag(&mut ops, "SHUTDOWN"), "SHUTDOWN");
    let error = app.read().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"));
    assert!(cluster.process().wait().success());
}

#[test]
fn stats_count_what_clients_do() {
    let cluster = builder(2).start();
    let mut ops = console(&cluster, "ops").raw();
    let columns = [
        "xact_count",
        "query_count",
        "server_assignment_count",
        "client_parse_count",
        "bind_count",
    ];
    let before = lines(&mut ops, "STATS_TOTALS", &columns);
    let mut app = cluster.proxy().raw();
    app.query("SELECT name FROM users WHERE user_id = 1");
    app.query("BEGIN");
    app.query("SELECT name FROM users WHERE user_id = 4");
    app.query("COMMIT");
    app.send(
        &[
            message::parse("s", "SELECT name FROM users WHERE user_id = $1", &[20]),
            message::bind("", "s", &[], &[Some(b"2".to_vec())], &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat(),
    );
    app.read_until(b'Z', 1);
    drop(app);
    let numbers = |line: &str| -> Vec<u64> {
        line.split('|')
            .map(|number| number.parse().unwrap())
            .collect()
    };
    let before = numbers(&before[0]);
    eventually("counts", || {
        let after = numbers(&lines(&mut ops, "STATS_TOTALS", &columns)[0]);
        let more: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        if more == [3, 5, 3, 1, 1] {
            Ok(())
        } else {
            Err(more)
        }
    });
    let bytes = lines(
        &mut ops,
        "STATS",
        &["total_received", "total_sent", "total_query_time"],
    );
    assert!(
        numbers(&bytes[0]).iter().all(|number| *number > 0),
        "{bytes:?}"
    );
    let sums = ask(&mut ops, "SHOW TOTALS");
    let sums: Rows = sums;
    assert_eq!(named(&sums, &["name"])[1], "total_xact_count");
}

/// psql and what it shows, as an operator runs it.
#[test]
fn psql_shows_the_console() {
    let cluster = builder(1).start();
    let endpoint = console(&cluster, "ops");
    let psql = crate::harness::cluster::template()
        .binaries()
        .directory()
        .join("psql");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(&psql)
            .arg(endpoint.url())
            .args(["-X", "-q", "-A", "-t"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{errors}");
        said + &errors
    };
    assert!(run(&["-c", "SHOW POOLS"]).starts_with("app|app|"));
    assert!(run(&["-c", "SHOW HELP"]).contains("KILL_CLIENT"));
    assert!(run(&["-c", "PAUSE", "-c", "RESUME"]).is_empty());
}

/// psycopg, which opens a transaction and speaks the extended protocol.
#[test]
fn psycopg_reads_the_console() {
    let cluster = builder(1).start();
    drivers::python_at("check_console.py", &console(&cluster, "ops").url());
}

#[test]
fn nothing_is_written_between_pause_and_resume() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let cluster = builder(2)
        .schema("CREATE TABLE hits (user_id bigint PRIMARY KEY, n bigint NOT NULL)")
        .rows("INSERT INTO hits SELECT i, 0 FROM generate_series(1, 8) i")
        .sharded("hits", &["user_id"])
        .start();
    let mut ops = console(&cluster, "ops").raw();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let count = || -> u64 {
        let sql = "SELECT coalesce(sum(n), 0) FROM hits";
        let shards = cluster.shards.iter();
        shards
            .map(|shard| {
                let said = shard.primary.psql("app", sql).unwrap();
                said.trim().parse::<u64>().unwrap()
            })
            .sum()
    };
    std::thread::scope(|scope| {
        for user in [1, 2, 4] {
            let (proxy, done, acknowledged) = (cluster.proxy(), &done, &acknowledged);
            scope.spawn(move || {
                let mut raw = proxy.raw();
                while !done.load(Ordering::Relaxed) {
                    raw.query("BEGIN");
                    raw.rows(&format!("SELECT name FROM users WHERE user_id = {user}"));
                    raw.query(&format!("UPDATE hits SET n = n + 1 WHERE user_id = {user}"));
                    let frames = raw.query("COMMIT");
                    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    let rows = raw.rows("SELECT user_id FROM users");
                    assert_eq!(rows.len(), 8);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut before = 0;
            for _ in 0..5 {
                eventually("more is written", || {
                    let now = acknowledged.load(Ordering::Relaxed);
                    if now > before { Ok(()) } else { Err(now) }
                });
                assert_eq!(tag(&mut ops, "PAUSE"), "PAUSE");
                let paused = count();
                let columns = ["sv_active", "sv_idle", "sv_login"];
                assert_eq!(lines(&mut ops, "POOLS", &columns), ["0|0|0"]);
                assert_eq!(count(), paused);
                before = acknowledged.load(Ordering::Relaxed);
                assert_eq!(tag(&mut ops, "RESUME"), "RESUME");
            }
        }));
        done.store(true, Ordering::Relaxed);
        if outcome.is_err() {
            ops.query("RESUME");
        }
        outcome.unwrap();
    });
    assert_eq!(count(), acknowledged.load(Ordering::Relaxed));
}

#[test]
fn bad_messages_end_the_console_and_nothing_else() {
    let cluster = builder(1).start();
    let long = message::query(&"x".repeat(100_000));
    for (bytes, code) in [
        (message::frame(b'?', b""), "08P01"),
        (message::frame(b'Q', b"no zero"), "08P01"),
        (long, "54000"),
        (b"Q\0\0\0\x01".to_vec(), "08P01"),
    ] {
        let mut ops = console(&cluster, "ops").raw();
        ops.send(&bytes);
        let error = ops.read().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some(code), "{bytes:?}");
    }
    let mut ops = console(&cluster, "ops").raw();
    ops.send(
        &[
            message::bind("", "missing", &[], &[], &[]),
            message::describe(b'S', "missing"),
            message::sync(),
            message::parse("", "SHOW POOLS", &[]),
            message::bind("", "", &[], &[Some(b"1".to_vec())], &[]),
            message::sync(),
            message::bind("", "", &[], &[], &[0, 1]),
            message::sync(),
            message::frame(b'F', &[0; 10]),
            message::sync(),
        ]
        .concat(),
    );
    let frames = ops.read_until(b'Z', 4);
    let codes: Vec<String> = frames
        .iter()
        .filter_map(|frame| frame.field(b'C'))
        .collect();
    let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
    assert_eq!(errors, 4, "{codes:?}");
    assert_eq!(tag(&mut ops, "SHOW STATE"), "SHOW");
}
