//! Tables that are not the same on all shards: refused until they are.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Raw};

/// The error of a query, once it has one as wanted.
fn until(raw: &mut Raw, sql: &str, wanted: impl Fn(Option<&Frame>) -> bool) -> Option<Frame> {
    let start = Instant::now();
    loop {
        let frames = raw.query(sql);
        let error = frames.into_iter().find(|frame| frame.tag == b'E');
        if wanted(error.as_ref()) {
            return error;
        }
        assert!(start.elapsed() < DEADLINE, "{sql}: {error:?}");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_table_that_differs_is_refused_until_it_is_mended() {
    let cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text, other int);
             CREATE TABLE kinds (id int PRIMARY KEY, name text);
             CREATE VIEW named AS SELECT name FROM kinds",
        )
        .rows("INSERT INTO t SELECT i, 'n' || i, i FROM generate_series(1, 9) i; INSERT INTO kinds VALUES (1, 'a')")
        .sharded("t", &["id"])
        .replicated("kinds")
        .start();
    let mut raw = cluster.proxy().raw();
    let mut shard = cluster.shard(1).raw();
    let is_refused = |error: Option<&Frame>| {
        error.is_some_and(|error| error.field(b'C').as_deref() == Some("0A000"))
    };
    shard.query("ALTER TABLE t DROP COLUMN other; ALTER TABLE t ADD COLUMN other bigint");
    shard.query("ALTER TABLE kinds ADD COLUMN more int");
    // A definition has the shards compared at once.
    raw.query("CREATE TABLE news (id int)");
    for sql in [
        "SELECT count(*) FROM t",
        "SELECT name FROM t WHERE id = 1",
        "UPDATE t SET name = 'x'",
        "INSERT INTO t (id) VALUES (100)",
        "SELECT a.name FROM t a JOIN t b ON a.id = b.other",
        "COPY t TO STDOUT",
        "SELECT name FROM kinds",
        "SELECT * FROM named",
    ] {
        let error = until(&mut raw, sql, is_refused).unwrap();
        let detail = error.field(b'D').unwrap();
        assert!(detail.contains("on shard \"s1\" but ("), "{sql}: {detail}");
    }
    // What is the same everywhere is served, and a shard can be chosen.
    assert_eq!(raw.rows("SELECT 1"), [["1"]]);
    raw.query("SET shardwire.shard = 's1'");
    assert_eq!(raw.rows("SELECT count(*) > 0 FROM t"), [["t"]]);
    raw.query("ALTER TABLE t ALTER COLUMN other TYPE int");
    raw.query("ALTER TABLE kinds DROP COLUMN more");
    // A constraint that one shard lacks makes no answer wrong.
    raw.query("ALTER TABLE t ALTER COLUMN name SET NOT NULL");
    raw.query("RESET shardwire.shard");
    until(&mut raw, "SELECT count(*) FROM t", |error| error.is_none());
    until(&mut raw, "SELECT * FROM named", |error| error.is_none());
    assert_eq!(raw.rows("SELECT count(*) FROM t"), [["9"]]);
}
