//! Clients that vanish in any state, and timeouts, leave nothing open on any shard.

use std::thread;
use std::time::Duration;

use crate::harness::{Cluster, Raw, eventually, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE r (id int PRIMARY KEY, name text)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 40) i")
        .rows("INSERT INTO r VALUES (1, 'name')")
        .sharded("t", &["id"])
        .replicated("r")
        .trust()
        .start()
}

fn ids(cluster: &Cluster) -> [String; 2] {
    [0, 1].map(|shard| cluster.shard(shard).raw().rows("SELECT min(id) FROM t")[0][0].clone())
}

/// Waits until no server has a transaction open or prepared, or runs anything of a client's.
fn nothing_is_open(cluster: &Cluster, what: &str) {
    for shard in 0..2 {
        eventually(what, || {
            let sql = "SELECT state || ' ' || query FROM pg_stat_activity WHERE datname = 'app' \
                       AND pid <> pg_backend_pid() AND application_name <> 'shardwire control' \
                       AND state <> 'idle' UNION ALL SELECT gid FROM pg_prepared_xacts \
                       UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory'";
            let rows = cluster.shard(shard).raw().rows(sql);
            if rows.is_empty() { Ok(()) } else { Err(rows) }
        });
    }
}

fn code(raw: &mut Raw, sql: &str) -> Option<String> {
    let frames = raw.query(sql);
    frames.iter().find(|frame| frame.tag == b'E')?.field(b'C')
}

#[test]
fn who_vanishes_in_any_state_leaves_nothing_open() {
    let cluster = cluster();
    let [near, far] = ids(&cluster);
    let update = |id: &str| format!("UPDATE t SET name = 'lost' WHERE id = {id}");
    let sleep = "UPDATE t SET name = 'lost' WHERE pg_sleep(0.05) IS NOT NULL AND id % 20 = 0";
    let begun = ["BEGIN".to_owned(), update(&near), update(&far)];
    let read = [
        "BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned(),
        "SELECT * FROM t".to_owned(),
    ];
    let failed = [begun.to_vec(), vec!["SELECT 1 / 0".to_owned()]].concat();
    let cursor = [
        "BEGIN".to_owned(),
        "DECLARE c CURSOR FOR SELECT * FROM t".to_owned(),
        "FETCH 1 FROM c".to_owned(),
    ];
    let before: [&[String]; 5] = [&[], &begun, &read, &failed, &cursor];
    let mut batch = message::parse("", &update(&near), &[]);
    batch.extend(message::bind("", "", &[], &[], &[]));
    batch.extend(message::execute("", 0));
    batch.extend(message::parse("", &update(&far), &[]));
    batch.extend(message::bind("", "", &[], &[], &[]));
    batch.extend(message::execute("", 0));
    let last = [
        Vec::new(),
        message::query(sleep),
        message::query("SELECT pg_sleep(0.05), * FROM t"),
        message::query("UPDATE r SET name = 'lost' || pg_sleep(0.5)::text"),
        message::query("COPY t FROM STDIN"),
        [batch, message::frame(b'H', b"")].concat(),
        message::query("COMMIT")[..4].to_vec(),
    ];
    for (number, statements) in before.iter().enumerate() {
        for (which, messages) in last.iter().enumerate() {
            let mut raw = cluster.proxy().raw();
            for sql in *statements {
                raw.query(sql);
            }
            raw.send(messages);
            thread::sleep(Duration::from_millis(100));
            drop(raw);
            nothing_is_open(
                &cluster,
                &format!("nothing is open after {which} in {number}"),
            );
        }
    }
    let mut raw = cluster.proxy().raw();
    let lost = "SELECT count(*) FROM t WHERE name = 'lost'";
    // A statement that stands by itself may have ended before its client was missed.
    for id in [&near, &far] {
        let rows = raw.rows(&format!("SELECT name FROM t WHERE id = {id}"));
        assert_eq!(rows, [["name"]]);
    }
    assert_eq!(raw.rows(lost).len(), 1);
}

#[test]
fn timeouts_end_what_takes_too_long_on_every_shard() {
    let cluster = cluster();
    let [near, far] = ids(&cluster);
    let update = |id: &str| format!("UPDATE t SET name = 'new' WHERE id = {id}");
    let mut holder = cluster.proxy().raw();
    holder.query("BEGIN");
    holder.query(&update(&far));
    for (setting, wanted) in [("statement_timeout", "57014"), ("lock_timeout", "55P03")] {
        let mut raw = cluster.proxy().raw();
        raw.query(&format!("SET {setting} = '200ms'"));
        for sql in [
            update(&far),
            "UPDATE t SET name = 'new'".to_owned(),
            format!("{}; {}", update(&near), update(&far)),
        ] {
            assert_eq!(code(&mut raw, &sql).as_deref(), Some(wanted), "{sql}");
            raw.query("BEGIN");
            assert_eq!(code(&mut raw, &update(&near)), None);
            assert_eq!(code(&mut raw, &sql).as_deref(), Some(wanted), "{sql}");
            assert_eq!(code(&mut raw, "SELECT 1").as_deref(), Some("25P02"));
            raw.query("ROLLBACK");
        }
    }
    holder.query("ROLLBACK");
    drop(holder);
    let mut raw = cluster.proxy().raw();
    raw.query("SET idle_in_transaction_session_timeout = '300ms'");
    raw.query("BEGIN");
    raw.query(&update(&near));
    raw.query(&update(&far));
    let ended = raw.read().and_then(|frame| frame.field(b'C'));
    assert_eq!(ended.as_deref(), Some("25P03"));
    nothing_is_open(&cluster, "nothing is open after timeouts");
}
