//! What belongs to which unit of work: a batch up to its Sync, a message, a transaction. Requests of later
//! units are under way while earlier ones end, and what the proxy does itself is as much of its unit as what
//! a server does.

use crate::harness::cluster::{Builder, run_as_superuser};
use crate::harness::{Cluster, Raw, eventually, message};

const SCHEMA: &str = "CREATE TABLE users (user_id bigint PRIMARY KEY, name text)";

/// Users 1 to 3 are on the first shard, 4 on the second.
const ROWS: &str = "INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 8) i";

fn builder(shards: usize) -> Builder {
    Cluster::new()
        .shards(shards)
        .sharded("users", &["user_id"])
        .schema(SCHEMA)
        .rows(ROWS)
}

/// Parse, Bind and Execute of the unnamed statement.
fn statement(sql: &str) -> Vec<u8> {
    let messages = [
        message::parse("", sql, &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
    ];
    messages.concat()
}

/// The tags of what is said to these messages, up to ReadyForQuery.
fn tags(raw: &mut Raw, messages: &[Vec<u8>]) -> String {
    raw.send(&messages.concat());
    let frames = raw.read_until(b'Z', 1);
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

#[test]
fn what_a_later_unit_has_bound_stays_when_an_earlier_one_ends() {
    for shards in [1, 2] {
        let pool = "{ max_size: 1, queue_timeout: 5s }";
        let cluster = builder(shards).database("pool", pool).start();
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        let first = [
            statement("SELECT pg_sleep(0.2)"),
            message::sync(),
            message::parse("", "SET work_mem = '7MB'", &[]),
            message::bind("", "", &[], &[], &[]),
        ];
        a.send(&first.concat());
        a.read_until(b'Z', 1);
        assert_eq!(
            tags(&mut a, &[message::execute("", 0), message::sync()]),
            "12CZ"
        );
        assert_eq!(a.rows("SHOW work_mem"), [["7MB"]]);
        assert_eq!(b.rows("SHOW work_mem"), [["4MB"]]);
    }
}

#[test]
fn a_portal_of_the_proxys_own_ends_with_its_batch() {
    let cluster = builder(2).start();
    let mut raw = cluster.proxy().raw();
    let bound = [
        message::parse("", "SHOW shardwire.shard", &[]),
        message::bind("p", "", &[], &[], &[]),
        message::sync(),
    ];
    assert_eq!(tags(&mut raw, &bound), "12Z");
    let late = [message::execute("p", 0), message::sync()];
    assert_eq!(tags(&mut raw, &late), "EZ");
}

#[test]
fn rows_of_the_proxys_own_come_in_parts() {
    let cluster = builder(2).start();
    let mut raw = cluster.proxy().raw();
    let mut messages = vec![
        message::parse("", "SHOW SHARDWIRE SHARDS", &[]),
        message::bind("", "", &[], &[], &[]),
    ];
    messages.extend([1, 1, 1, 1].map(|rows| message::execute("", rows)));
    messages.push(message::sync());
    assert_eq!(tags(&mut raw, &messages), "12DsDsCCZ");
}

#[test]
fn settings_of_the_proxys_own_are_undone_with_their_unit() {
    let set = "SET shardwire.consistency = 'strong'";
    for shards in [1, 2] {
        let cluster = builder(shards).start();
        let mut raw = cluster.proxy().raw();
        let shown = |raw: &mut Raw| raw.rows("SHOW shardwire.consistency")[0][0].clone();
        let fails = statement("SELECT 1/0");
        for messages in [
            vec![statement(set), fails.clone(), message::sync()],
            vec![
                statement("SELECT 1"),
                statement(set),
                fails.clone(),
                message::sync(),
            ],
            vec![message::query(&format!("{set}; SELECT 1/0"))],
        ] {
            tags(&mut raw, &messages);
            assert_eq!(shown(&mut raw), "session");
        }
        // Of another unit, it stands.
        raw.send(&[statement(set), message::sync(), fails, message::sync()].concat());
        raw.read_until(b'Z', 2);
        assert_eq!(shown(&mut raw), "strong");
    }
}

#[test]
fn a_transaction_that_listens_ends_when_it_can_not_be_prepared() {
    for shards in [1, 2] {
        let cluster = builder(shards)
            .setting("max_prepared_transactions", "5")
            .start();
        let prepare = "PREPARE TRANSACTION 'listener'";
        let (mut raw, mut oracle) = (cluster.proxy().raw(), cluster.oracle().raw());
        for raw in [&mut raw, &mut oracle] {
            for before in ["SELECT 1", "SELECT name FROM users WHERE user_id = 4"] {
                raw.query("BEGIN");
                raw.query(before);
                raw.query("LISTEN news");
                let frames = raw.query(prepare);
                assert_eq!(frames[0].field(b'C').as_deref(), Some("0A000"));
                assert_eq!(frames.last().unwrap().body, b"I");
                assert_eq!(
                    raw.rows("SELECT count(*) FROM pg_listening_channels()"),
                    [["0"]]
                );
            }
            raw.query("BEGIN");
            raw.query("LISTEN news");
            assert_eq!(tags(raw, &[statement(prepare), message::sync()]), "12EZ");
            assert_eq!(raw.rows("SELECT 1"), [["1"]]);
        }
    }
}

#[test]
fn a_write_behind_another_unit_is_read_back() {
    let cluster = builder(1)
        .secondaries(1)
        .database("read_preference", "secondary")
        .config("timeouts", "{ probe_interval: 100ms }")
        .start();
    let mut raw = cluster.proxy().raw();
    let secondary = &cluster.shards[0].secondaries[0];
    eventually("reads of the secondary", || {
        let port = raw.rows("SELECT inet_server_port() FROM users WHERE user_id = 1");
        match port[0][0] == secondary.port().to_string() {
            true => Ok(()),
            false => Err(port),
        }
    });
    cluster.catch_up();
    run_as_superuser(secondary, "SELECT pg_wal_replay_pause()");
    // The second one commits long after the first has ended, and many probes lie between.
    let units = [
        statement("UPDATE users SET name = name WHERE user_id = 2 AND false"),
        message::sync(),
        statement("UPDATE users SET name = 'new' WHERE user_id = 1 AND pg_sleep(1) IS NOT NULL"),
        message::sync(),
    ];
    raw.send(&units.concat());
    raw.read_until(b'Z', 2);
    assert_eq!(
        raw.rows("SELECT name FROM users WHERE user_id = 1"),
        [["new"]]
    );
    run_as_superuser(secondary, "SELECT pg_wal_replay_resume()");
}

#[test]
fn rows_of_several_shards_are_those_that_the_client_was_told_of() {
    let cluster = builder(2).start();
    let mut raw = cluster.proxy().raw();
    for (name, sql) in [
        ("all", "SELECT * FROM users"),
        ("merged", "SELECT * FROM users ORDER BY user_id LIMIT 3"),
        (
            "hub",
            "SELECT a.* FROM users a JOIN users b ON a.user_id + 1 = b.user_id",
        ),
    ] {
        let parse = [
            message::parse(name, sql, &[]),
            message::describe(b'S', name),
            message::sync(),
        ];
        assert_eq!(tags(&mut raw, &parse), "1tTZ");
        let run = [
            message::bind("", name, &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ];
        assert!(tags(&mut raw, &run).ends_with("DCZ"), "{name}");
    }
    // Connections that have not prepared anything yet can't refuse what they would have prepared.
    let fresh = "ALTER TABLE users ADD COLUMN more int; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = 'app' AND pid <> pg_backend_pid()";
    for shard in &cluster.shards {
        run_as_superuser(&shard.primary, fresh);
    }
    for name in ["all", "merged", "hub"] {
        let error = eventually("an error that is no lost connection", || {
            let run = [
                message::bind("", name, &[], &[], &[]),
                message::execute("", 0),
                message::sync(),
            ];
            raw.send(&run.concat());
            let frames = raw.read_until(b'Z', 1);
            assert!(frames.iter().all(|frame| frame.tag != b'D'), "{name}");
            let error = frames.into_iter().find(|frame| frame.tag == b'E');
            let error = error.and_then(|error| error.field(b'M')).unwrap();
            match error.contains("plan") {
                true => Ok(error),
                false => Err(error),
            }
        });
        assert_eq!(error, "cached plan must not change result type");
    }
}

#[test]
fn servers_say_how_transactions_over_shards_are_isolated() {
    let cluster = builder(2)
        .schema("ALTER DATABASE app SET default_transaction_isolation TO 'repeatable read'")
        .start();
    let mut raw = cluster.proxy().raw();
    let mut other = cluster.proxy().raw();
    assert_eq!(
        raw.rows("SHOW default_transaction_isolation"),
        [["repeatable read"]]
    );
    raw.query("BEGIN");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["8"]]);
    other.rows("DELETE FROM users WHERE user_id = 1");
    other.rows("DELETE FROM users WHERE user_id = 4");
    for key in [1, 4] {
        let sql = format!("SELECT count(*) FROM users WHERE user_id = {key}");
        assert_eq!(raw.rows(&sql), [["1"]]);
    }
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["8"]]);
    raw.query("COMMIT");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["6"]]);
    // Who wants the rules of READ COMMITTED has them.
    raw.query("SET default_transaction_isolation TO 'read committed'");
    raw.query("BEGIN");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["6"]]);
    other.rows("DELETE FROM users WHERE user_id = 2");
    assert_eq!(raw.rows("SELECT count(*) FROM users"), [["5"]]);
    raw.query("COMMIT");
    raw.query("RESET default_transaction_isolation");
    assert_eq!(
        raw.rows("SHOW default_transaction_isolation"),
        [["repeatable read"]]
    );
}

#[test]
fn a_text_is_read_before_the_transaction_is_looked_at() {
    for shards in [1, 2] {
        let cluster = builder(shards).start();
        for mut raw in [cluster.proxy().raw(), cluster.oracle().raw()] {
            for before in ["SELECT 1/0", "SELECT 1/0 FROM users WHERE user_id = 1"] {
                raw.query("BEGIN");
                raw.code(before);
                assert_eq!(raw.code("SELEC 1"), "42601");
                assert_eq!(raw.code("SELECT 1 FROM"), "42601");
                assert_eq!(raw.code("SELECT no_such FROM users"), "25P02");
                let parse = [message::parse("", "SELEC 1", &[]), message::sync()];
                raw.send(&parse.concat());
                let frames = raw.read_until(b'Z', 1);
                assert_eq!(frames[0].field(b'C').as_deref(), Some("42601"));
                raw.query("ROLLBACK");
                assert_eq!(raw.rows("SELECT 1"), [["1"]]);
            }
        }
    }
}

#[test]
fn a_named_portal_lasts_as_long_as_its_transaction() {
    let cluster = builder(2).start();
    for mut raw in [cluster.proxy().raw(), cluster.oracle().raw()] {
        raw.query("BEGIN");
        let bound = [
            message::parse("", "SELECT generate_series(1, 5)", &[]),
            message::bind("part", "", &[], &[], &[]),
            message::execute("part", 2),
            message::sync(),
        ];
        assert_eq!(tags(&mut raw, &bound), "12DDsZ");
        let next = [message::execute("part", 2), message::sync()];
        assert_eq!(tags(&mut raw, &next), "DDsZ");
        assert_eq!(raw.rows("SELECT count(*) FROM users"), [["8"]]);
        assert_eq!(tags(&mut raw, &next), "DCZ");
        raw.query("COMMIT");
    }
}
