//! Transactions that the client has not begun, over several shards: pipelines up to their Sync, messages of
//! several statements, and statements that change rows of several shards.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text CHECK (name <> 'bad'));\n\
             CREATE TABLE d (id int PRIMARY KEY, t_id int REFERENCES d DEFERRABLE INITIALLY DEFERRED);\n\
             CREATE TABLE notes (id int PRIMARY KEY, text text)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 20) i")
        .sharded("t", &["id"])
        .sharded("d", &["id"])
        .home("notes", 0)
        .start()
}

/// An id of a row of `t` on a shard.
fn id_on(cluster: &Cluster, shard: usize) -> String {
    let sql = "SELECT min(id) FROM t";
    cluster.shard(shard).raw().rows(sql)[0][0].clone()
}

/// The script with ids on two shards for `NEAR` and `FAR`.
fn placed(cluster: &Cluster, script: &str) -> String {
    script
        .replace("NEAR", &id_on(cluster, 0))
        .replace("FAR", &id_on(cluster, 1))
}

fn agree(got: &[Frame], wanted: &[Frame], what: &str) {
    let mut got = outcome(got);
    let mut wanted = outcome(wanted);
    got.rows.sort();
    wanted.rows.sort();
    assert_eq!(got, wanted, "{what}");
}

fn settled(cluster: &Cluster, pair: &mut Pair, what: &str) {
    let rows = "SELECT * FROM t";
    agree(&pair.proxy.query(rows), &pair.oracle.query(rows), what);
    for shard in 0..2 {
        let rows = cluster
            .shard(shard)
            .raw()
            .rows("SELECT gid FROM pg_prepared_xacts");
        assert!(rows.is_empty(), "{what}: {rows:?}");
    }
}

#[test]
fn a_message_of_several_statements_is_one_transaction() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for script in [
        "UPDATE t SET name = 'a' WHERE id = NEAR; UPDATE t SET name = 'b' WHERE id = FAR",
        "UPDATE t SET name = 'c' WHERE id = NEAR; UPDATE t SET name = 'bad' WHERE id = FAR",
        "UPDATE t SET name = 'd' WHERE id = NEAR; SELECT * FROM t WHERE id = FAR; SELECT 1/0",
        "SELECT * FROM t WHERE id = NEAR; SELECT * FROM t WHERE id = FAR; SELECT 1",
        "UPDATE t SET name = 'e'; SELECT * FROM t WHERE id = FAR; DELETE FROM t WHERE id = NEAR + 100",
        "BEGIN; UPDATE t SET name = 'f' WHERE id = NEAR; UPDATE t SET name = 'g' WHERE id = FAR; COMMIT",
        "BEGIN; UPDATE t SET name = 'h' WHERE id = NEAR; UPDATE t SET name = 'i' WHERE id = FAR; ROLLBACK",
        "UPDATE t SET name = 'j' WHERE id = NEAR; BEGIN; UPDATE t SET name = 'k' WHERE id = FAR",
        "SELECT * FROM t; ROLLBACK; SELECT 2",
        "UPDATE t SET name = 'l' WHERE id = NEAR; COMMIT; UPDATE t SET name = 'm' WHERE id = FAR; SELECT 1/0",
        "UPDATE t SET name = 'n' WHERE id = NEAR; SAVEPOINT a; UPDATE t SET name = 'o' WHERE id = FAR",
        "BEGIN; UPDATE t SET name = 'p' WHERE id = NEAR; UPDATE t SET name = 'bad' WHERE id = FAR; COMMIT",
        "ROLLBACK",
        "SET extra_float_digits = 0; UPDATE t SET name = 'q' WHERE id = NEAR; UPDATE t SET name = 'r' WHERE id = FAR",
        "SHOW extra_float_digits",
        "SELECT * FROM t WHERE id = FAR FOR UPDATE; UPDATE t SET name = 's' WHERE id = NEAR; ",
    ] {
        let sql = placed(&cluster, script);
        let (got, wanted) = (pair.proxy.query(&sql), pair.oracle.query(&sql));
        agree(&got, &wanted, &sql);
        if !matches!(got.last().map(|frame| frame.body.as_slice()), Some(b"I")) {
            continue;
        }
        settled(&cluster, &mut pair, &sql);
    }
}

/// Sends statements as one batch; what comes up to its ReadyForQuery.
fn pipeline(raw: &mut Raw, statements: &[&str]) -> Vec<Frame> {
    let mut bytes = Vec::new();
    for sql in statements {
        bytes.extend(message::parse("", sql, &[]));
        bytes.extend(message::bind("", "", &[], &[], &[]));
        bytes.extend(message::describe(b'P', ""));
        bytes.extend(message::execute("", 0));
    }
    bytes.extend(message::sync());
    raw.send(&bytes);
    raw.read_until(b'Z', 1)
}

#[test]
fn a_pipeline_is_one_transaction() {
    let cluster = cluster();
    let mut pair = Pair::new(&cluster);
    for script in [
        "UPDATE t SET name = 'a' WHERE id = NEAR; UPDATE t SET name = 'b' WHERE id = FAR",
        "UPDATE t SET name = 'c' WHERE id = NEAR; UPDATE t SET name = 'bad' WHERE id = FAR",
        "UPDATE t SET name = 'd' WHERE id = NEAR; SELECT * FROM t WHERE id = FAR; SELECT 1/0",
        "UPDATE t SET name = 'e' WHERE id = NEAR; SELECT * FROM t WHERE id = FAR; SELECT * FROM t",
        "SELECT * FROM t WHERE id = NEAR; SELECT * FROM t WHERE id = FAR; SELECT * FROM t",
        "UPDATE t SET name = 'f'; UPDATE t SET name = 'g' WHERE id = FAR; SELECT * FROM t WHERE id = NEAR",
        "UPDATE t SET name = 'h' WHERE id = NEAR; UPDATE t SET name = 'i'; SELECT * FROM t",
        "UPDATE t SET name = 'j'; UPDATE t SET name = 'bad' WHERE id = NEAR; SELECT 1",
        "UPDATE t SET name = 'k'; SELECT * FROM missing",
        "UPDATE t SET name = 'l' WHERE id = NEAR; UPDATE t SET name = 'm' WHERE id = FAR; SAVEPOINT a",
        "UPDATE t SET name = 'n' WHERE id = NEAR; UPDATE t SET name = 'o' WHERE id = FAR; COMMIT; SELECT 1/0",
        "UPDATE t SET name = 'p' WHERE id = NEAR; UPDATE t SET name = 'q' WHERE id = FAR; ROLLBACK; SELECT 1",
        "INSERT INTO d VALUES (NEAR, -1); INSERT INTO d VALUES (FAR, FAR)",
        "INSERT INTO d VALUES (NEAR, NEAR); INSERT INTO d VALUES (FAR, -1)",
        "SELECT * FROM d",
        "DELETE FROM t WHERE id = NEAR RETURNING id; DELETE FROM t WHERE id = FAR RETURNING *; SELECT 1",
        "INSERT INTO t VALUES (NEAR, 'r'); INSERT INTO t VALUES (FAR, 's'); UPDATE t SET name = name || '!' RETURNING *",
    ] {
        let sql = placed(&cluster, script);
        let statements: Vec<&str> = sql.split(';').map(str::trim).collect();
        let got = pipeline(&mut pair.proxy, &statements);
        let wanted = pipeline(&mut pair.oracle, &statements);
        agree(&got, &wanted, &sql);
        settled(&cluster, &mut pair, &sql);
    }
    let begun = placed(
        &cluster,
        "UPDATE t SET name = 't' WHERE id = NEAR; UPDATE t SET name = 'u' WHERE id = FAR; BEGIN",
    );
    let statements: Vec<&str> = begun.split(';').map(str::trim).collect();
    for end in ["ROLLBACK", "COMMIT"] {
        let got = pipeline(&mut pair.proxy, &statements);
        agree(&got, &pipeline(&mut pair.oracle, &statements), "begun");
        pair.once(end);
        settled(&cluster, &mut pair, end);
    }
}

#[test]
fn a_statement_changes_rows_of_several_shards_or_of_none() {
    let cluster = cluster();
    let script = "UPDATE t SET name = 'all'
         UPDATE t SET name = 'some' WHERE id IN (NEAR, FAR)
         UPDATE t SET name = CASE WHEN id = FAR THEN 'bad' ELSE 'good' END
         UPDATE t SET name = (1 / (id - FAR))::text
         SELECT * FROM t
         BEGIN
         UPDATE t SET name = 'x' RETURNING id, name
         SELECT * FROM t WHERE id = NEAR
         SAVEPOINT a
         DELETE FROM t
         SELECT * FROM t
         ROLLBACK TO a
         UPDATE t SET name = name || 'y' WHERE id = FAR
         COMMIT
         SELECT * FROM t
         BEGIN
         DELETE FROM t WHERE name = 'x'
         ROLLBACK
         SELECT * FROM t
         DELETE FROM t WHERE name = 'nobody'
         PREPARE p AS UPDATE t SET name = $1
         EXECUTE p('prepared')
         SELECT * FROM t
         EXECUTE p('bad')
         DELETE FROM t WHERE id > 10 RETURNING *
         INSERT INTO t SELECT i, 'name' FROM generate_series(11, 20) i";
    let script = placed(&cluster, script);
    for mode in MODES {
        let mut pair = Pair::new(&cluster);
        for sql in script.lines().map(str::trim) {
            if sql.starts_with("INSERT") {
                break;
            }
            let got = frames(&mut pair.proxy, mode, sql, &[]);
            let wanted = frames(&mut pair.oracle, mode, sql, &[]);
            let (mut got, mut wanted) = (outcome(&got), outcome(&wanted));
            got.rows.sort();
            wanted.rows.sort();
            // Which row an error is about depends on which came first.
            if wanted.reports.is_empty() {
                assert_eq!(got, wanted, "{mode:?}: {sql}");
            } else {
                let codes = |reports: &[(String, String)]| reports.first().map(|one| one.0.clone());
                assert_eq!(
                    codes(&got.reports),
                    codes(&wanted.reports),
                    "{mode:?}: {sql}"
                );
                assert_eq!(got.status, wanted.status, "{mode:?}: {sql}");
            }
        }
        settled(&cluster, &mut pair, &format!("{mode:?}"));
        for id in 11..=20 {
            pair.once(&format!("INSERT INTO t VALUES ({id}, 'name')"));
        }
    }
}

#[test]
fn a_pipeline_on_one_shard_is_prepared_nowhere() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let sql = placed(
        &cluster,
        "UPDATE t SET name = 'a' WHERE id = NEAR; UPDATE t SET name = 'b' WHERE id = NEAR",
    );
    let statements: Vec<&str> = sql.split(';').map(str::trim).collect();
    pipeline(&mut raw, &statements);
    for shard in 0..2 {
        let rows = cluster
            .shard(shard)
            .raw()
            .rows("SELECT gid FROM shardwire.decisions");
        assert!(rows.is_empty(), "{rows:?}");
    }
    assert_eq!(
        frames(&mut raw, Mode::Text, "SELECT 1", &[])
            .last()
            .unwrap()
            .body,
        b"I"
    );
}
