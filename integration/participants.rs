//! The connections of one session: portals on several of them, state that they keep, and what becomes of
//! the session when one is lost.

use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, eventually, message};

fn builder() -> crate::harness::cluster::Builder {
    Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 40) i")
        .sharded("t", &["id"])
}

/// An id of a row of `t` on each shard.
fn ids(cluster: &Cluster) -> [String; 2] {
    [0, 1].map(|shard| cluster.shard(shard).raw().rows("SELECT min(id) FROM t")[0][0].clone())
}

fn code(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.tag == b'E')?.field(b'C')
}

fn parse_and_bind(portal: &str, sql: &str) -> Vec<u8> {
    let mut out = message::parse("", sql, &[]);
    out.extend(message::bind(portal, "", &[], &[], &[]));
    out
}

/// What a client sees of an answer: the tags of its messages and its rows.
fn seen(frames: &[Frame]) -> Vec<(u8, Vec<u8>)> {
    let is_seen = |frame: &&Frame| !matches!(frame.tag, b'N' | b'S');
    let what = |frame: &Frame| match frame.tag {
        b'E' => (b'E', frame.field(b'C').unwrap().into_bytes()),
        b'T' => (b'T', Vec::new()),
        tag => (tag, frame.body.clone()),
    };
    frames.iter().filter(is_seen).map(what).collect()
}

#[test]
fn portals_of_one_transaction_stand_on_several_shards() {
    let cluster = builder().start();
    let [near, far] = ids(&cluster);
    let series = |id: &str, name: &str| {
        format!("SELECT '{name}' || n FROM t, generate_series(1, 4) n WHERE id = {id}")
    };
    let mut begun = parse_and_bind("", &series(&far, "old"));
    begun.extend(message::execute("", 0));
    begun.extend(parse_and_bind("", &series(&near, "unnamed")));
    begun.extend(parse_and_bind("near", &series(&near, "near")));
    begun.extend(parse_and_bind("far", &series(&far, "far")));
    for (portal, rows) in [("near", 1), ("far", 2), ("", 0), ("near", 2), ("far", 0)] {
        begun.extend(message::describe(b'P', portal));
        begun.extend(message::execute(portal, rows));
    }
    begun.extend(message::sync());
    let mut later = message::execute("near", 0);
    later.extend(message::close(b'P', "near"));
    later.extend(parse_and_bind("near", &series(&far, "anew")));
    later.extend(message::execute("near", 0));
    later.extend(message::execute("far", 0));
    later.extend(message::sync());
    let [got, wanted] = [cluster.proxy(), cluster.oracle()].map(|endpoint| {
        let mut raw = endpoint.raw();
        raw.query("BEGIN");
        let mut frames = Vec::new();
        for messages in [&begun, &later] {
            raw.send(messages);
            frames.extend(raw.read_until(b'Z', 1));
        }
        frames.extend(raw.query("COMMIT"));
        seen(&frames)
    });
    assert_eq!(got, wanted);
}

#[test]
fn a_portal_that_its_batch_has_left_is_refused() {
    let cluster = builder().start();
    let [near, far] = ids(&cluster);
    let read = |id: &str| format!("SELECT id FROM t WHERE id = {id}");
    let mut raw = cluster.proxy().raw();
    let mut messages = parse_and_bind("near", &read(&near));
    messages.extend(parse_and_bind("far", &read(&far)));
    messages.extend(message::execute("near", 0));
    messages.extend(message::execute("far", 0));
    messages.extend(message::sync());
    raw.send(&messages);
    assert_eq!(code(&raw.read_until(b'Z', 1)).as_deref(), Some("0A000"));
    assert_eq!(raw.rows(&read(&far)), [[far.as_str()]]);
}

#[test]
fn a_cursor_is_a_portal_where_it_is_and_refused_on_several_shards() {
    let cluster = builder().start();
    let [near, far] = ids(&cluster);
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    raw.query(&format!(
        "DECLARE c CURSOR FOR SELECT id FROM t WHERE id = {near}"
    ));
    raw.query(&format!("SELECT id FROM t WHERE id = {far}"));
    let execute = |raw: &mut Raw, name: &str| {
        let mut messages = message::execute(name, 0);
        messages.extend(message::sync());
        raw.send(&messages);
        raw.read_until(b'Z', 1)
    };
    let frames = execute(&mut raw, "c");
    assert!(frames.iter().any(|frame| frame.tag == b'D'), "{frames:?}");
    raw.query("DECLARE d CURSOR FOR SELECT id FROM t");
    assert_eq!(code(&execute(&mut raw, "d")).as_deref(), Some("0A000"));
    raw.query("ROLLBACK");
}

#[test]
fn a_cursor_that_stays_keeps_no_shard_from_being_written() {
    let cluster = builder().secondaries(1).start();
    let [near, far] = ids(&cluster);
    for declare in [
        "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t".to_owned(),
        format!("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t WHERE id = {near}"),
    ] {
        for _ in 0..5 {
            let mut raw = cluster.proxy().raw();
            assert_eq!(code(&raw.query(&declare)), None);
            for id in [&near, &far] {
                let update = format!("UPDATE t SET name = 'new' WHERE id = {id}");
                assert_eq!(code(&raw.query(&update)), None);
            }
            assert_ne!(raw.rows("FETCH ALL FROM c").len(), 0);
        }
    }
}

/// Ends the server process on a shard that is in a transaction.
fn kill(cluster: &Cluster, shard: usize) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE state = 'idle in transaction' AND query LIKE '%FROM t%'";
    let mut direct = cluster.shard(shard).raw();
    assert_eq!(direct.rows(sql), [["1"]]);
    eventually("it is gone", || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND query LIKE '%FROM t%' AND pid <> pg_backend_pid()";
        match direct.rows(open)[0][0].as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

#[test]
fn who_loses_a_resting_participant_gets_one_answer_for_each_request() {
    let cluster = builder().start();
    let [near, far] = ids(&cluster);
    let read = |id: &str| format!("SELECT id FROM t WHERE id = {id}");
    for statement in ["SAVEPOINT a", "SET LOCAL work_mem = '1MB'"] {
        for (next, wanted) in [
            ("SELECT 1".to_owned(), Some("08006")),
            (read(&near), Some("08006")),
            ("ROLLBACK".to_owned(), None),
        ] {
            let mut raw = cluster.proxy().raw();
            raw.query("BEGIN");
            raw.query(&read(&far));
            raw.query(&read(&near));
            kill(&cluster, 1);
            assert_eq!(code(&raw.query(statement)), None);
            assert_eq!(code(&raw.query(&next)).as_deref(), wanted, "{next}");
            if wanted.is_some() {
                assert_eq!(code(&raw.query("SELECT 1")).as_deref(), Some("25P02"));
                assert_eq!(code(&raw.query("ROLLBACK")), None);
            }
            assert_eq!(raw.rows(&read(&far)), [[far.as_str()]]);
        }
    }
}

#[test]
fn every_request_of_a_pipeline_is_answered_when_its_server_is_lost() {
    let cluster = builder().start();
    let [near, _] = ids(&cluster);
    let mut raw = cluster.proxy().raw();
    let sleep = format!("SELECT id, pg_sleep(30) FROM t WHERE id = {near}");
    let mut messages = message::query(&format!("SELECT id FROM t WHERE id = {near}"));
    messages.extend(message::query(&sleep));
    raw.send(&messages);
    assert_eq!(code(&raw.read_until(b'Z', 1)), None);
    raw.send(&message::query(&format!(
        "SELECT name FROM t WHERE id = {near}"
    )));
    let mut direct = cluster.shard(0).raw();
    eventually("it is lost", || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()";
        direct.rows(sql).pop().ok_or("it does not run yet")
    });
    let frames = raw.read_until(b'Z', 2);
    let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
    assert_eq!(errors, 2, "{frames:?}");
    assert_eq!(raw.rows("SELECT 1"), [["1"]]);
}

#[test]
fn a_setting_named_at_login_is_reset_in_a_transaction_that_no_shard_knows_of() {
    let cluster = builder().start();
    for reset in ["RESET timezone", "SET timezone TO DEFAULT"] {
        let [got, wanted] = [cluster.proxy(), cluster.oracle()].map(|endpoint| {
            let startup = [("timezone", "Asia/Tokyo")];
            let mut raw = Raw::login_with(&endpoint, &startup).unwrap();
            let mut frames = Vec::new();
            let ask = "SELECT current_setting('timezone') FROM t WHERE id = 1";
            for sql in ["SET timezone = 'UTC'", "BEGIN", reset, ask, "ROLLBACK", ask] {
                frames.extend(raw.query(sql));
            }
            frames.retain(|frame| frame.tag != b'T');
            frames
        });
        assert_eq!(got, wanted);
    }
}
