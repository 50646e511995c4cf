//! Process ids: the one that a client is told at login is the one that works for it everywhere.

use crate::harness::{Cluster, Endpoint, Raw, message};

/// Process ids of servers are never above.
const PID_MAX: i32 = 1 << 22;

fn cluster(shards: usize) -> Cluster {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema("CREATE TABLE users (user_id bigint PRIMARY KEY, name text)")
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i;")
        .trust()
        .config(
            "auth",
            "{ method: trust, users: { app: {}, other: {}, ops: {} }, administrators: [ops] }",
        )
        .database("pool", "{ max_size: 2, queue_timeout: 5s }")
        .start()
}

fn client(cluster: &Cluster, user: &str) -> (Raw, i32) {
    let endpoint = Endpoint {
        user: user.to_owned(),
        ..cluster.proxy()
    };
    let raw = Raw::login(&endpoint);
    let pid = raw.key.as_ref().unwrap().0;
    (raw, pid)
}

/// The answer to what was sent: each message's tag, with the values of rows, the names of columns and
/// the code and place of errors.
fn answer(raw: &mut Raw) -> Vec<String> {
    let frames = raw.read_until(b'Z', 1);
    let shown = frames.iter().filter_map(|frame| match frame.tag {
        b'T' => {
            let name = frame.body[2..].split(|byte| *byte == 0).next().unwrap();
            Some(format!("T {}", String::from_utf8_lossy(name)))
        }
        b'D' => Some(format!("D {}", String::from_utf8_lossy(&frame.body[6..]))),
        b'E' | b'N' => Some(format!(
            "{} {} {}",
            char::from(frame.tag),
            frame.field(b'C').unwrap(),
            frame.field(b'P').unwrap_or_default()
        )),
        _ => None,
    });
    shown.collect()
}

fn ask(raw: &mut Raw, sql: &str) -> Vec<String> {
    raw.send(&message::query(sql));
    answer(raw)
}

/// Asks with one parameter of type `int4`, in binary.
fn ask_with(raw: &mut Raw, name: &str, sql: &str, value: i32) -> Vec<String> {
    let messages = [
        message::parse(name, sql, &[]),
        message::bind("", name, &[1], &[Some(value.to_be_bytes().to_vec())], &[]),
        message::describe(b'P', ""),
        message::execute("", 0),
        message::sync(),
    ];
    raw.send(&messages.concat());
    answer(raw)
}

fn named(name: &str, value: impl std::fmt::Display) -> Vec<String> {
    vec![format!("T {name}"), format!("D {value}")]
}

#[test]
fn a_client_has_one_process_id() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut a, a_pid) = client(&cluster, "app");
        let (mut b, b_pid) = client(&cluster, "app");
        assert!(a_pid > PID_MAX && b_pid > PID_MAX && a_pid != b_pid);
        for (raw, pid) in [(&mut a, a_pid), (&mut b, b_pid)] {
            let name = "pg_backend_pid";
            assert_eq!(ask(raw, "SELECT pg_backend_pid()"), named(name, pid));
            assert_eq!(ask(raw, "SELECT * FROM pg_backend_pid()"), named(name, pid));
            assert_eq!(ask(raw, "SELECT pg_backend_pid()::text"), named(name, pid));
            let sum = "SELECT 1 + pg_backend_pid() AS sum";
            assert_eq!(ask(raw, sum), named("sum", pid.wrapping_add(1)));
            // Named statements of equal texts are shared on the server, but not this one.
            let sql = "SELECT pg_backend_pid() + $1::int AS p";
            assert_eq!(ask_with(raw, "s", sql, 0), named("p", pid));
            let several = "SELECT 1 AS one; SELECT pg_backend_pid() AS p";
            let shown = ask(raw, several);
            assert_eq!(shown[2..], named("p", pid));
        }
    }
}

#[test]
fn what_is_about_the_servers_processes_means_the_servers() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut raw, _) = client(&cluster, "app");
        for sql in [
            "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()",
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE pid = pg_backend_pid()",
        ] {
            assert_eq!(ask(&mut raw, sql), named("count", 1));
        }
    }
}

#[test]
fn errors_stand_where_the_client_wrote_them() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut raw, _) = client(&cluster, "app");
        for (sql, place) in [
            ("SELECT pg_backend_pid(), nothing", "26"),
            (
                "SELECT 'ä', pg_backend_pid(), pg_backend_pid(), nothing",
                "49",
            ),
            ("SELECT nothing, pg_backend_pid()", "8"),
            ("SELECT 1; SELECT pg_backend_pid() FROM nowhere", "40"),
        ] {
            let expected = format!("E 42703 {place}");
            let expected = expected.replace(
                "42703",
                if sql.contains("FROM") {
                    "42P01"
                } else {
                    "42703"
                },
            );
            assert_eq!(ask(&mut raw, sql).last().unwrap(), &expected, "{sql}");
        }
        let sql = "SELECT pg_backend_pid(), nothing, $1::int";
        assert_eq!(ask_with(&mut raw, "", sql, 1), ["E 42703 26"]);
    }
}

#[test]
fn a_client_cancels_and_terminates_another_by_its_process_id() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut a, a_pid) = client(&cluster, "app");
        let (mut b, b_pid) = client(&cluster, "app");
        let cancel = format!("SELECT pg_cancel_backend({a_pid})");
        ask(&mut a, "SET shardwire.shard = 's0'");
        a.send(&message::query("SELECT pg_sleep(60)"));
        // Until the sleep has begun there is nothing to cancel.
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' \
                        AND wait_event = 'PgSleep'";
        while ask(&mut b, sleeping) != named("count", 1) {}
        assert_eq!(ask(&mut b, &cancel), named("pg_cancel_backend", "t"));
        assert_eq!(answer(&mut a).last().unwrap(), "E 57014 ");
        // An idle client is not disturbed.
        assert_eq!(ask(&mut b, &cancel), named("pg_cancel_backend", "t"));
        assert_eq!(ask(&mut a, "SELECT 1 AS a"), named("a", 1));
        assert_eq!(
            ask(&mut b, "SELECT pg_cancel_backend(pg_backend_pid())"),
            ["E 57014 "]
        );
        let sql = "SELECT pg_terminate_backend($1, 5000)";
        assert_eq!(
            ask_with(&mut b, "", sql, a_pid),
            named("pg_terminate_backend", "t")
        );
        let told = a.read().unwrap();
        assert_eq!(
            (told.tag, told.field(b'C').unwrap().as_str()),
            (b'E', "57P01")
        );
        assert!(a.read().is_none());
        // Now it is nobody's.
        let shown = ask_with(&mut b, "", sql, a_pid);
        assert_eq!(shown.last().unwrap(), "D f", "{shown:?}");
        b.send(&message::query(&format!(
            "SELECT pg_terminate_backend({b_pid})"
        )));
        let told = b.read().unwrap();
        assert_eq!(told.field(b'C').unwrap(), "57P01");
        assert!(b.read().is_none());
    }
}

#[test]
fn an_administrator_ends_other_users_sessions() {
    let cluster = cluster(2);
    let (mut a, a_pid) = client(&cluster, "app");
    let (mut ops, _) = client(&cluster, "ops");
    let cancel = format!("SELECT pg_cancel_backend({a_pid})");
    assert_eq!(ask(&mut ops, &cancel), named("pg_cancel_backend", "t"));
    assert_eq!(ask(&mut a, "SELECT 1 AS a"), named("a", 1));
    let end = format!("SELECT pg_terminate_backend({a_pid}, 5000)");
    assert_eq!(ask(&mut ops, &end), named("pg_terminate_backend", "t"));
    assert_eq!(a.read().unwrap().field(b'C').as_deref(), Some("57P01"));
}

#[test]
fn a_client_that_was_ended_gets_no_more_answers() {
    for shards in [1, 2] {
        let cluster = cluster(shards);
        let (mut b, _) = client(&cluster, "app");
        for round in 0..50 {
            let (mut a, a_pid) = client(&cluster, "app");
            if round % 2 == 1 {
                ask(&mut a, "BEGIN");
                ask(&mut a, "SELECT 1 AS a");
            }
            let ended = ask(&mut b, &format!("SELECT pg_terminate_backend({a_pid})"));
            assert_eq!(ended, named("pg_terminate_backend", "t"));
            a.send(&message::query("SELECT 1"));
            let told = a.read().unwrap();
            assert_eq!(told.field(b'C').as_deref(), Some("57P01"), "round {round}");
            assert!(a.read().is_none());
        }
    }
}

#[test]
fn signals_are_for_the_same_user_and_for_calls_that_are_made_for_certain() {
    let cluster = cluster(2);
    let (mut a, a_pid) = client(&cluster, "app");
    let (mut other, other_pid) = client(&cluster, "other");
    let (mut b, _) = client(&cluster, "app");
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let sql = format!("SELECT {function}({a_pid})");
        assert_eq!(ask(&mut other, &sql), ["E 42501 "]);
        assert_eq!(ask(&mut b, &format!("{sql} WHERE false")), ["E 0A000 "]);
    }
    assert_eq!(ask(&mut a, "SELECT 1 AS a"), named("a", 1));
    ask(&mut b, "BEGIN");
    assert_eq!(ask(&mut b, "SELECT nothing"), ["E 42703 8"]);
    let sql = format!("SELECT pg_terminate_backend({a_pid})");
    assert_eq!(ask(&mut b, &sql), ["E 25P02 "]);
    ask(&mut b, "ROLLBACK");
    assert_eq!(ask(&mut a, "SELECT 1 AS a"), named("a", 1));
    assert_eq!(
        ask(&mut other, "SELECT pg_backend_pid()"),
        named("pg_backend_pid", other_pid)
    );
}
