//! Transactions that use several shards, held against one PostgreSQL with all rows.

use crate::harness::compare::{MODES, Mode, Pair, frames, outcome};
use crate::harness::{Cluster, Raw, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE notes (id int PRIMARY KEY, text text);\n\
             CREATE TABLE far (id int PRIMARY KEY, text text)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 100) i")
        .sharded("t", &["id"])
        .home("notes", 0)
        .home("far", 1)
        .setting("deadlock_timeout", "100ms")
        .start()
}

/// An id of a row of `t` on a shard.
fn id_on(cluster: &Cluster, shard: usize) -> String {
    let sql = "SELECT min(id) FROM t";
    cluster.shard(shard).raw().rows(sql)[0][0].clone()
}

/// Runs a script in every mode on both sides: `NEAR` and `FAR` stand for ids on two shards. A line that
/// begins with `?` may be refused where PostgreSQL does it; the transaction has failed then.
fn same(cluster: &Cluster, script: &str) {
    let (near, far) = (id_on(cluster, 0), id_on(cluster, 1));
    let script = script.replace("NEAR", &near).replace("FAR", &far);
    for mode in MODES {
        let mut pair = Pair::new(cluster);
        for sql in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            compare(&mut pair, mode, sql);
        }
        let rows = "SELECT * FROM t";
        compare(&mut pair, Mode::Simple, rows);
    }
}

fn compare(pair: &mut Pair, mode: Mode, sql: &str) {
    let mut got = outcome(&frames(&mut pair.proxy, mode, sql, &[]));
    let mut wanted = outcome(&frames(&mut pair.oracle, mode, sql, &[]));
    got.rows.sort();
    wanted.rows.sort();
    assert_eq!(got, wanted, "{mode:?}: {sql}");
}

fn code(raw: &mut Raw, sql: &str) -> Option<String> {
    let frames = raw.query(sql);
    frames.iter().find(|frame| frame.tag == b'E')?.field(b'C')
}

#[test]
fn a_transaction_reads_every_shard_and_its_own_writes() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SELECT * FROM t WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         UPDATE t SET name = 'new' WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         SELECT * FROM t WHERE id = NEAR
         SELECT * FROM t
         SELECT * FROM notes
         COMMIT
         SELECT * FROM t WHERE id = NEAR",
    );
    same(
        &cluster,
        "BEGIN
         UPDATE t SET name = 'newer' WHERE id = FAR
         SELECT * FROM t WHERE id = NEAR
         SELECT * FROM t
         ROLLBACK
         SELECT * FROM t WHERE id = FAR
         START TRANSACTION
         SELECT * FROM t
         DELETE FROM t WHERE id = FAR
         SELECT * FROM t
         ROLLBACK",
    );
}

#[test]
fn the_shard_that_was_written_is_committed_wherever_the_session_was_last() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SELECT * FROM t WHERE id = FAR
         UPDATE t SET name = 'a' WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         COMMIT
         BEGIN
         UPDATE t SET name = 'b' WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         COMMIT AND CHAIN
         UPDATE t SET name = 'b' WHERE id = FAR
         SELECT * FROM t WHERE id = NEAR
         COMMIT",
    );
}

#[test]
fn settings_and_savepoints_reach_every_shard() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SET LOCAL DateStyle = 'SQL, DMY'
         SELECT id, date '2026-02-01'::text FROM t WHERE id = NEAR
         SET LOCAL extra_float_digits = 0
         SAVEPOINT a
         SELECT id, current_setting('DateStyle'), current_setting('extra_float_digits') FROM t WHERE id = FAR
         SET LOCAL TimeZone = 'Asia/Tokyo'
         SELECT id, current_setting('TimeZone') FROM t WHERE id = NEAR
         SELECT id, current_setting('TimeZone') FROM t WHERE id = FAR
         SELECT id, to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t
         ROLLBACK TO a
         SELECT id, current_setting('TimeZone') FROM t WHERE id = NEAR
         SELECT id, current_setting('TimeZone') FROM t WHERE id = FAR
         RELEASE a
         SELECT id, date '2026-02-01'::text FROM t
         COMMIT
         SELECT id, date '2026-02-01'::text FROM t
         SELECT id, current_setting('DateStyle') FROM t WHERE id = FAR",
    );
    same(
        &cluster,
        "BEGIN
         SELECT * FROM t WHERE id = NEAR
         SAVEPOINT a
         UPDATE t SET name = 'x' WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         ROLLBACK TO a
         SELECT * FROM t WHERE id = NEAR
         SAVEPOINT \"select\"
         UPDATE t SET name = 'y' WHERE id = NEAR
         SELECT 1/0 FROM t WHERE id = FAR
         SELECT * FROM t WHERE id = NEAR
         ROLLBACK TO \"select\"
         SELECT * FROM t WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         COMMIT",
    );
}

#[test]
fn settings_that_are_reset_are_reset_on_every_shard() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SET DateStyle = 'SQL, DMY'
         SELECT id, date '2026-02-01'::text FROM t WHERE id = NEAR
         SELECT id, date '2026-02-01'::text FROM t WHERE id = FAR
         RESET ALL
         SELECT id, date '2026-02-01'::text FROM t WHERE id = NEAR
         SELECT id, date '2026-02-01'::text FROM t WHERE id = FAR
         SET LOCAL DateStyle = 'German'
         SELECT id, date '2026-02-01'::text FROM t WHERE id = NEAR
         SET LOCAL DateStyle TO DEFAULT
         SELECT id, date '2026-02-01'::text FROM t WHERE id = FAR
         SELECT id, date '2026-02-01'::text FROM t WHERE id = NEAR
         COMMIT
         SELECT id, date '2026-02-01'::text FROM t",
    );
}

#[test]
fn an_error_on_one_shard_fails_the_transaction_on_all() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         UPDATE t SET name = 'x' WHERE id = NEAR
         SELECT 1/0 FROM t WHERE id = FAR
         SELECT * FROM t WHERE id = NEAR
         COMMIT
         SELECT * FROM t WHERE id = NEAR
         BEGIN
         UPDATE t SET name = 'x' WHERE id = NEAR
         SELECT * FROM t WHERE id = FAR
         SELECT 1/0 FROM t WHERE id = NEAR
         ROLLBACK
         SELECT * FROM t WHERE id = NEAR",
    );
}

#[test]
fn a_failed_statement_over_all_shards_can_be_rolled_back_to_a_savepoint() {
    let cluster = cluster();
    let far = id_on(&cluster, 1);
    let mut raw = cluster.proxy().raw();
    for sql in [
        "BEGIN".to_owned(),
        format!("UPDATE t SET name = 'kept' WHERE id = {far}"),
        "SAVEPOINT a".to_owned(),
        format!("UPDATE t SET name = 'lost' WHERE id = {far}"),
    ] {
        assert_eq!(code(&mut raw, &sql), None, "{sql}");
    }
    let fails = format!("SELECT 1/(id - {far}) FROM t");
    assert_eq!(code(&mut raw, &fails).as_deref(), Some("22012"));
    assert_eq!(code(&mut raw, "SELECT 1").as_deref(), Some("25P02"));
    assert_eq!(code(&mut raw, "ROLLBACK TO a"), None);
    let rows = raw.rows("SELECT name FROM t");
    assert_eq!(rows.iter().filter(|row| row[0] == "kept").count(), 1);
    assert_eq!(code(&mut raw, "COMMIT"), None);
    let sql = format!("SELECT name FROM t WHERE id = {far}");
    assert_eq!(raw.rows(&sql), [["kept"]]);
}

#[test]
fn what_two_shards_cannot_do_as_one_is_refused_before_it_happens() {
    let cluster = cluster();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut raw = cluster.proxy().raw();
    let read = |id: &str| format!("SELECT name FROM t WHERE id = {id}");
    for begin in [
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN/SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "BEGIN/SET transaction_isolation = 'serializable'",
        "SET default_transaction_isolation = 'serializable'/BEGIN",
    ] {
        for statement in begin.split('/') {
            assert_eq!(code(&mut raw, statement), None, "{statement}");
        }
        assert_eq!(code(&mut raw, &read(&near)), None);
        assert_eq!(code(&mut raw, &read(&far)).as_deref(), Some("0A000"));
        raw.query("ROLLBACK");
    }
    assert_eq!(raw.rows(&read(&far)), [["name"]]);
}

#[test]
fn a_transaction_has_one_snapshot_of_all_shards() {
    let cluster = cluster();
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN
         SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "BEGIN
         SET transaction_isolation = 'repeatable read'",
        "SET default_transaction_isolation = 'repeatable read'
         SELECT * FROM t
         UPDATE t SET name = 'every'
         BEGIN",
    ] {
        same(
            &cluster,
            &format!(
                "{begin}
                 SHOW transaction_isolation
                 SAVEPOINT a
                 SELECT * FROM t WHERE id = NEAR
                 SELECT * FROM t WHERE id = FAR
                 UPDATE t SET name = 'x' WHERE id = NEAR
                 SELECT * FROM t
                 ROLLBACK TO a
                 UPDATE t SET name = 'y' WHERE id = FAR
                 UPDATE t SET name = 'z' WHERE id = NEAR
                 COMMIT AND CHAIN
                 SELECT * FROM t
                 SELECT 1
                 COMMIT
                 SELECT * FROM t"
            ),
        );
    }
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut reader = cluster.proxy().raw();
    let mut writer = cluster.proxy().raw();
    writer.query("UPDATE t SET name = 'same'");
    reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let read = |raw: &mut Raw, id: &str| raw.rows(&format!("SELECT name FROM t WHERE id = {id}"));
    let before = read(&mut reader, &near);
    writer.query("UPDATE t SET name = 'later'");
    assert_eq!(read(&mut reader, &far), before);
    let update = format!("UPDATE t SET name = 'lost' WHERE id = {far}");
    assert_eq!(code(&mut reader, &update).as_deref(), Some("40001"));
    reader.query("ROLLBACK");
    assert_eq!(read(&mut reader, &far), [["later"]]);
}

#[test]
fn a_client_that_leaves_takes_its_transaction_off_every_shard() {
    let cluster = cluster();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    raw.query(&format!("SELECT * FROM t WHERE id = {near} FOR UPDATE"));
    raw.query(&format!("SELECT * FROM t WHERE id = {far}"));
    drop(raw);
    for shard in 0..2 {
        crate::harness::eventually("the transaction ends", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
            let open = cluster.shard(shard).raw().rows(sql)[0][0].clone();
            if open == "0" { Ok(()) } else { Err(open) }
        });
    }
    let mut raw = cluster.proxy().raw();
    let update = format!("UPDATE t SET name = 'free' WHERE id = {near}");
    assert_eq!(code(&mut raw, &update), None);
}

#[test]
fn locks_do_not_keep_a_transaction_from_writing_elsewhere() {
    let cluster = cluster();
    same(
        &cluster,
        "BEGIN
         SELECT pg_advisory_xact_lock(7)
         SELECT * FROM t WHERE id = NEAR FOR UPDATE
         UPDATE t SET name = 'locked' WHERE id = FAR
         SELECT * FROM t WHERE id = FAR
         COMMIT
         SELECT * FROM t WHERE id = FAR",
    );
}

#[test]
fn advisory_locks_of_a_session_are_one_space_and_end_with_it() {
    let cluster = cluster();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut a = cluster.proxy().raw();
    let mut b = cluster.proxy().raw();
    assert_eq!(code(&mut a, "SELECT pg_advisory_lock(7)"), None);
    let sql = "SELECT pg_try_advisory_lock(7)";
    assert_eq!(b.rows(sql), [["f"]]);
    assert_eq!(a.rows(sql), [["t"]], "it is the session's own");
    // The session goes on using every shard.
    for id in [&near, &far] {
        let rows = a.rows(&format!("SELECT id FROM t WHERE id = {id}"));
        assert_eq!(rows, [[id.as_str()]]);
        a.query("BEGIN");
        let update = format!("UPDATE t SET name = 'x' WHERE id = {id}");
        assert_eq!(code(&mut a, &update), None);
        a.query("COMMIT");
        assert_eq!(b.rows(sql), [["f"]]);
    }
    assert_eq!(a.rows("SELECT id FROM t").len(), 100);
    assert_eq!(a.rows("SELECT pg_advisory_unlock(7)"), [["t"]]);
    assert_eq!(b.rows(sql), [["f"]], "it was taken twice");
    assert_eq!(a.rows("SELECT pg_advisory_unlock(7)"), [["t"]]);
    assert_eq!(b.rows(sql), [["t"]]);
    drop(b);
    crate::harness::eventually("the lock is free again", || {
        match a.rows(sql)[0][0].as_str() {
            "t" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert_eq!(code(&mut a, "DISCARD ALL"), None);
    let mut c = cluster.proxy().raw();
    assert_eq!(c.rows(sql), [["t"]]);
}

#[test]
fn temporary_tables_live_beside_sharded_ones() {
    let cluster = cluster();
    same(
        &cluster,
        "CREATE TEMP TABLE mine (id int, text text)
         INSERT INTO mine VALUES (1, 'a'), (2, 'b')
         SELECT * FROM t WHERE id = FAR
         SELECT * FROM mine
         BEGIN
         SELECT * FROM t WHERE id = FAR
         UPDATE mine SET text = 'c' WHERE id = 1
         SELECT * FROM t WHERE id = NEAR
         SELECT * FROM mine
         ROLLBACK
         SELECT * FROM mine
         SELECT * FROM t
         BEGIN
         UPDATE t SET name = 'z' WHERE id = FAR
         SELECT * FROM mine
         COMMIT
         DISCARD TEMP
         SELECT * FROM mine
         CREATE TEMP TABLE mine (id int)
         SELECT * FROM mine
         DISCARD ALL
         SELECT * FROM mine",
    );
}

/// Calls a function of this OID with text arguments.
fn call(raw: &mut Raw, oid: u32, arguments: &[&[u8]]) -> Option<Vec<u8>> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(*argument);
    }
    body.extend([0, 1]);
    raw.send(&message::frame(b'F', &body));
    let frames = raw.read_until(b'Z', 1);
    let answer = frames.iter().find(|frame| frame.tag == b'V')?;
    answer.body.get(4..).map(<[u8]>::to_vec)
}

#[test]
fn large_objects_are_written_by_function_calls_beside_sharded_tables() {
    const LO_OPEN: u32 = 952;
    const LO_WRITE: u32 = 955;
    let cluster = cluster();
    let far = id_on(&cluster, 1);
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    let id: u32 = raw.rows("SELECT lo_create(0)")[0][0].parse().unwrap();
    let both = 0x60000_u32.to_be_bytes();
    let opened = call(&mut raw, LO_OPEN, &[&id.to_be_bytes(), &both]).unwrap();
    assert_eq!(raw.rows("SELECT id FROM t").len(), 100);
    assert_eq!(
        raw.rows(&format!("SELECT id FROM t WHERE id = {far}"))
            .len(),
        1
    );
    let written = call(&mut raw, LO_WRITE, &[&opened, b"large"]).unwrap();
    assert_eq!(written, 5_u32.to_be_bytes());
    raw.query("COMMIT");
    let sql = format!("SELECT convert_from(lo_get({id}), 'UTF8')");
    assert_eq!(raw.rows(&sql), [["large"]]);
    // Of any other function it is not known what it reads.
    assert_eq!(call(&mut raw, 1299, &[]), None);
    assert_eq!(raw.rows("SELECT 1"), [["1"]]);
}

#[test]
fn savepoints_reach_every_shard_before_the_next_statement_of_a_pipeline() {
    let cluster = cluster();
    let (near, far) = (id_on(&cluster, 0), id_on(&cluster, 1));
    let mut raw = cluster.proxy().raw();
    let read = |id: &str| format!("SELECT name FROM t WHERE id = {id}");
    raw.query("BEGIN");
    assert_eq!(raw.rows(&read(&near)), [["name"]]);
    assert_eq!(raw.rows(&read(&far)), [["name"]]);
    // Nothing waits for an answer.
    let pipeline = [
        "SAVEPOINT a".to_owned(),
        format!("UPDATE t SET name = 'lost' WHERE id = {near}"),
        read(&far),
        "ROLLBACK TO a".to_owned(),
        read(&near),
        "COMMIT".to_owned(),
    ];
    let messages: Vec<u8> = pipeline
        .iter()
        .flat_map(|sql| message::query(sql))
        .collect();
    raw.send(&messages);
    let frames = raw.read_until(b'Z', pipeline.len());
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    assert_eq!(raw.rows(&read(&near)), [["name"]]);
}

#[test]
fn set_config_to_null_of_a_setting_named_at_login_is_refused() {
    let cluster = cluster();
    let startup = [("timezone", "Asia/Tokyo")];
    let mut raw = Raw::login_with(&cluster.proxy(), &startup).unwrap();
    let sql = "SELECT set_config('timezone', NULL, false)";
    assert_eq!(code(&mut raw, sql).as_deref(), Some("0A000"));
    assert_eq!(raw.rows("SHOW timezone"), [["Asia/Tokyo"]]);
}
