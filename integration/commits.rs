//! Transactions that write on several shards: their commit, what it refuses, and who ends what is left.

use std::time::Duration;

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::{Cluster, Raw, eventually};

fn builder() -> crate::harness::cluster::Builder {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE d (id int PRIMARY KEY, t_id int REFERENCES d DEFERRABLE INITIALLY DEFERRED);\n\
             CREATE TABLE notes (id int PRIMARY KEY, text text)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 100) i")
        .sharded("t", &["id"])
        .sharded("d", &["id"])
        .home("notes", 0)
}

/// An id of a row of `t` on a shard.
fn id_on(cluster: &Cluster, shard: usize) -> String {
    let sql = "SELECT min(id) FROM t";
    cluster.shard(shard).raw().rows(sql)[0][0].clone()
}

/// Runs a script in every mode on both sides: `NEAR` and `FAR` stand for ids on two shards.
fn same(cluster: &Cluster, script: &str) {
    let (near, far) = (id_on(cluster, 0), id_on(cluster, 1));
    let script = script.replace("NEAR", &near).replace("FAR", &far);
    for mode in MODES {
        let mut pair = Pair::new(cluster);
        let lines = script.lines().map(str::trim);
        for sql in lines.filter(|line| !line.is_empty()) {
            compare(&mut pair, mode, sql);
        }
        compare(&mut pair, Mode::Simple, "SELECT * FROM t");
        nothing_is_prepared(cluster);
    }
}

fn compare(pair: &mut Pair, mode: Mode, sql: &str) {
    let mut got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
    let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
    got.rows.sort();
    wanted.rows.sort();
    assert_eq!(got, wanted, "{mode:?}: {sql}");
}

fn nothing_is_prepared(cluster: &Cluster) {
    for shard in 0..2 {
        let rows = cluster
            .shard(shard)
            .raw()
            .rows("SELECT gid FROM pg_prepared_xacts");
        assert!(rows.is_empty(), "{rows:?}");
    }
}

fn error(raw: &mut Raw, sql: &str) -> Option<(String, String)> {
    let frames = raw.query(sql);
    let error = frames.iter().find(|frame| frame.tag == b'E')?;
    let field = |code| error.field(code).unwrap_or_default();
    Some((field(b'C'), field(b'M')))
}

fn code(raw: &mut Raw, sql: &str) -> Option<String> {
    error(raw, sql).map(|(code, _)| code)
}

fn decisions(cluster: &Cluster, decision: &str) -> usize {
    let sql = format!("SELECT 1 FROM shardwire.decisions WHERE decision = '{decision}'");
    let on = |shard| cluster.shard(shard).raw().rows(&sql).len();
    on(0) + on(1)
}

#[test]
fn a_transaction_writes_on_two_shards_or_on_none() {
    let cluster = builder().start();
    same(
        &cluster,
        "BEGIN
         UPDATE t SET name = 'a' WHERE id = NEAR
         UPDATE t SET name = 'b' WHERE id = FAR
         SELECT * FROM t
         COMMIT
         SELECT * FROM t WHERE id = FAR
         BEGIN
         DELETE FROM t WHERE id = FAR
         INSERT INTO notes VALUES (1, 'x')
         UPDATE t SET name = 'c' WHERE id = NEAR
         ROLLBACK
         SELECT * FROM t WHERE id = FAR
         SELECT * FROM notes
         BEGIN
         UPDATE t SET name = 'd' WHERE id = NEAR
         SAVEPOINT a
         UPDATE t SET name = 'e' WHERE id = FAR
         ROLLBACK TO a
         UPDATE t SET name = name || 'f' WHERE id = FAR
         COMMIT AND CHAIN
         UPDATE t SET name = name || 'g' WHERE id = FAR
         UPDATE t SET name = name || 'h' WHERE id = NEAR
         COMMIT
         BEGIN
         UPDATE t SET name = 'i' WHERE id = NEAR
         UPDATE t SET name = 'j' WHERE id = FAR
         SELECT 1/0 FROM t WHERE id = NEAR
         COMMIT
         SELECT * FROM t WHERE id = FAR",
    );
    // Three transactions in each mode.
    assert_eq!(decisions(&cluster, "commit"), 3 * MODES.len());
    assert_eq!(decisions(&cluster, "abort"), 0);
}

#[test]
fn settings_survive_a_commit_on_two_shards_and_local_ones_do_not() {
    let cluster = builder().start();
    same(
        &cluster,
        "BEGIN
         SET extra_float_digits = 0
         SET LOCAL DateStyle = 'German'
         SET synchronous_commit = off
         UPDATE t SET name = 'a' WHERE id = NEAR
         UPDATE t SET name = 'b' WHERE id = FAR
         COMMIT
         SELECT current_setting('extra_float_digits'), current_setting('DateStyle') FROM t WHERE id = NEAR
         SELECT current_setting('extra_float_digits'), current_setting('DateStyle') FROM t WHERE id = FAR
         SELECT current_setting('synchronous_commit') FROM t WHERE id = FAR",
    );
}

#[test]
fn a_shard_that_cannot_commit_rolls_all_back() {
    let cluster = builder().start();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let count = "SELECT id FROM d";
    for order in [[&near, &far], [&far, &near]] {
        for bad in [&near, &far] {
            let mut raw = cluster.proxy().raw();
            raw.query("BEGIN");
            for id in order {
                let of = if id == bad { "-1" } else { id };
                let insert = format!("INSERT INTO d VALUES ({id}, {of})");
                assert_eq!(code(&mut raw, &insert), None);
            }
            assert_eq!(code(&mut raw, "COMMIT").as_deref(), Some("23503"));
            let ready = raw.query("SELECT 1");
            assert_eq!(ready.last().unwrap().body, b"I");
            assert!(raw.rows(count).is_empty());
            nothing_is_prepared(&cluster);
        }
    }
}

#[test]
fn constraints_are_set_on_every_shard() {
    let cluster = builder().start();
    same(
        &cluster,
        "BEGIN
         SELECT * FROM t WHERE id = FAR
         SET CONSTRAINTS ALL IMMEDIATE
         INSERT INTO d VALUES (NEAR, NEAR)
         SAVEPOINT a
         INSERT INTO d VALUES (FAR, -1)
         ROLLBACK TO a
         SET CONSTRAINTS ALL DEFERRED
         INSERT INTO d VALUES (FAR, -1)
         ROLLBACK
         BEGIN
         SET CONSTRAINTS ALL IMMEDIATE
         SELECT * FROM t WHERE id = NEAR
         INSERT INTO d VALUES (FAR, -1)
         ROLLBACK",
    );
}

#[test]
fn what_prepare_forbids_stays_on_the_shard_that_decides() {
    let cluster = builder().start();
    same(
        &cluster,
        "CREATE TEMP TABLE mine (id int)
         BEGIN
         INSERT INTO mine VALUES (1)
         UPDATE t SET name = 'a' WHERE id = FAR
         UPDATE t SET name = 'b' WHERE id = NEAR
         COMMIT
         SELECT * FROM mine
         BEGIN
         UPDATE t SET name = 'c' WHERE id = FAR
         NOTIFY x
         COMMIT
         DISCARD ALL",
    );
}

#[test]
fn locks_are_held_until_the_writes_are_to_be_seen() {
    let cluster = builder().start();
    same(
        &cluster,
        "BEGIN
         SELECT * FROM t WHERE id = NEAR FOR UPDATE
         UPDATE t SET name = 'guarded' WHERE id = FAR
         COMMIT
         SELECT * FROM t WHERE id = FAR",
    );
    assert_eq!(decisions(&cluster, "commit"), 0);
}

#[test]
fn servers_that_cannot_prepare_are_not_written_together() {
    let cluster = builder().setting("max_prepared_transactions", "0").start();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut raw = cluster.proxy().raw();
    let update = |id: &str| format!("UPDATE t SET name = 'x' WHERE id = {id}");
    for begin in ["BEGIN", "BEGIN; SAVEPOINT a"] {
        raw.query(begin);
        assert_eq!(code(&mut raw, &update(&near)), None);
        assert_eq!(code(&mut raw, &update(&far)).as_deref(), Some("0A000"));
        assert_eq!(code(&mut raw, "SELECT 1").as_deref(), Some("25P02"));
        assert_eq!(code(&mut raw, "COMMIT"), None);
        let rows = raw.rows(&format!("SELECT name FROM t WHERE id = {near}"));
        assert_eq!(rows, [["name"]]);
    }
}

#[test]
fn what_is_left_prepared_is_ended_as_its_shard_decided() {
    let mut cluster = builder().start();
    let cluster_id = cluster
        .shard(0)
        .raw()
        .rows("SELECT cluster_id FROM shardwire.shard")[0][0]
        .clone();
    let gid = |number: u32| format!("shardwire_{cluster_id}_{number:032x}");
    cluster.process().signal("KILL");
    cluster.process().wait();
    let far = id_on(&cluster, 1);
    let mut shard = cluster.shard(1).raw();
    let mut prepare = |name: &str, text: &str| {
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES ({far} + 1000 * {text}, '{text}'); PREPARE TRANSACTION '{name}'"
        );
        let frames = shard.query(&sql);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{name}");
    };
    prepare(&format!("{}_1_s0", gid(1)), "1");
    prepare(&format!("{}_1_s0", gid(2)), "2");
    prepare(&format!("{}_1_elsewhere", gid(3)), "3");
    let others = "shardwire_another_00000000000000000000000000000004_1_s0";
    prepare(others, "4");
    prepare("somebody else", "5");
    let sql = format!(
        "INSERT INTO shardwire.decisions VALUES ('{}', 'commit')",
        gid(1)
    );
    assert_eq!(code(&mut cluster.shard(0).raw(), &sql), None);
    cluster.start_proxy();
    let left = || {
        let sql = "SELECT gid FROM pg_prepared_xacts ORDER BY gid";
        cluster.shard(1).raw().rows(sql)
    };
    eventually("two are ended", || match left().len() {
        3 => Ok(()),
        other => Err(other),
    });
    std::thread::sleep(Duration::from_millis(100));
    let left: Vec<_> = left().into_iter().flatten().collect();
    assert!(left.contains(&others.to_owned()) && left.contains(&"somebody else".to_owned()));
    let rows = cluster
        .shard(1)
        .raw()
        .rows("SELECT name FROM t WHERE id > 1000");
    assert_eq!(rows, [["1"]]);
    assert_eq!(decisions(&cluster, "abort"), 1);
    for name in left {
        cluster
            .shard(1)
            .raw()
            .query(&format!("ROLLBACK PREPARED '{name}'"));
    }
}

#[test]
fn a_deadlock_over_two_shards_ends_with_one_victim() {
    let cluster = builder().start();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let update = |id: &str, name: &str| format!("UPDATE t SET name = '{name}' WHERE id = {id}");
    for scatters in [false, true] {
        let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
        for (raw, id) in [(&mut a, &near), (&mut b, &far)] {
            raw.query("BEGIN");
            assert_eq!(code(raw, &update(id, "first")), None);
        }
        let sql = match scatters {
            true => "UPDATE t SET name = 'a'".to_owned(),
            false => update(&far, "a"),
        };
        let first = std::thread::spawn(move || {
            let refused = error(&mut a, &sql);
            a.query("COMMIT");
            refused
        });
        let frames = b.query(&update(&near, "b"));
        let told = frames.iter().find(|frame| frame.tag == b'E');
        let told = told.map(|frame| {
            let detail = frame.field(b'D').unwrap_or_default();
            assert!(
                detail.contains("on shard s0") && detail.contains("on shard s1"),
                "{detail}"
            );
            frame.field(b'C').unwrap_or_default()
        });
        b.query("COMMIT");
        let refused = first.join().unwrap().map(|(code, _)| code);
        let both = [told, refused];
        assert_eq!(
            both.iter().flatten().collect::<Vec<_>>(),
            ["40P01"],
            "{both:?}"
        );
        nothing_is_prepared(&cluster);
    }
}
