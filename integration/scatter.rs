//! Statements over several shards on the wire: large answers, failures, cancel requests.

use std::fmt::Write;
use std::time::Duration;

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Raw, eventually, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 100) i")
        .sharded("t", &["id"])
        .start()
}

/// Runs the prepared statement `name` without parameters.
fn execute(raw: &mut Raw, name: &str) -> Vec<Frame> {
    raw.send(&message::bind("", name, &[], &[], &[]));
    raw.send(&message::execute("", 0));
    raw.send(&message::sync());
    raw.read_until(b'Z', 1)
}

/// The SQLSTATE of the error among these messages.
fn code(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.tag == b'E')?.field(b'C')
}

#[test]
fn a_description_longer_than_a_read_is_waited_for() {
    let columns = 1..=1000;
    let mut table = "CREATE TABLE wide (id int PRIMARY KEY".to_owned();
    for column in columns.clone() {
        write!(table, ", a_rather_long_name_of_column_{column} int").unwrap();
    }
    table.push(')');
    let cluster = Cluster::new()
        .shards(2)
        .schema(&table)
        .rows("INSERT INTO wide SELECT i, i FROM generate_series(1, 100) i")
        .sharded("wide", &["id"])
        .start();
    let mut raw = cluster.proxy().raw();
    for _ in 0..3 {
        assert_eq!(raw.rows("SELECT * FROM wide").len(), 100);
        raw.send(&message::parse("wide", "SELECT * FROM wide", &[]));
        raw.send(&message::bind("", "wide", &[], &[], &[]));
        raw.send(&message::describe(b'P', ""));
        raw.send(&message::execute("", 0));
        raw.send(&message::close(b'S', "wide"));
        raw.send(&message::sync());
        let frames = raw.read_until(b'Z', 1);
        let rows = frames.iter().filter(|frame| frame.tag == b'D').count();
        assert_eq!(rows, 100);
    }
}

#[test]
fn a_statement_that_a_shard_could_not_prepare_is_prepared_again() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    raw.send(&message::parse("names", "SELECT name FROM t", &[]));
    raw.send(&message::sync());
    raw.read_until(b'Z', 1);
    for shard in 0..2 {
        let mut direct = cluster.shard(shard).raw();
        direct.rows("ALTER TABLE t RENAME name TO other");
        assert_eq!(code(&execute(&mut raw, "names")).as_deref(), Some("42703"));
        direct.rows("ALTER TABLE t RENAME other TO name");
        let frames = execute(&mut raw, "names");
        assert_eq!(code(&frames), None);
        let rows = frames.iter().filter(|frame| frame.tag == b'D').count();
        assert_eq!(rows, 100);
    }
}

#[test]
fn a_cancelled_statement_leaves_no_connection_to_others() {
    let cluster = cluster();
    let proxy = cluster.proxy();
    let mut raw = proxy.raw();
    let (process_id, secret) = raw.key.clone().unwrap();
    let sql = "SELECT id FROM t, generate_series(1, 1000000000) AS number WHERE number < 0";
    raw.send(&message::query(sql));
    let mut direct: Vec<Raw> = (0..2).map(|shard| cluster.shard(shard).raw()).collect();
    let working: Vec<String> = direct
        .iter_mut()
        .map(|direct| {
            eventually("ran on the shard", || {
                let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'active' \
                           AND query LIKE '%1000000000%' AND pid <> pg_backend_pid()";
                direct
                    .rows(sql)
                    .pop()
                    .and_then(|mut row| row.pop())
                    .ok_or("not yet")
            })
        })
        .collect();
    raw.set_patience(Duration::from_millis(200));
    let frames = eventually("cancelled", || {
        let mut cancel = Raw::open(proxy.port);
        cancel.send(&message::cancel_request(process_id, &secret));
        let (frames, end) = raw.try_read_until(b'Z', 1);
        end.map(|()| frames)
    });
    assert_eq!(code(&frames).as_deref(), Some("57014"));
    raw.set_patience(DEADLINE);
    for (direct, pid) in direct.iter_mut().zip(&working) {
        eventually("closed the connection", || {
            let sql = format!("SELECT pid FROM pg_stat_activity WHERE pid = {pid}");
            direct
                .rows(&sql)
                .is_empty()
                .then_some(())
                .ok_or("it is still there")
        });
    }
}

#[test]
fn a_large_answer_arrives_and_takes_no_memory() {
    const ROWS: usize = 20_000;
    let mut cluster = cluster();
    let proxy = cluster.proxy();
    let one = format!("SELECT repeat('x', 10000) FROM t, generate_series(1, {ROWS}) WHERE id = 1");
    let every = format!("SELECT repeat('x', 10000) FROM t, generate_series(1, {ROWS} / 100)");
    for sql in [one, every] {
        let mut raw = proxy.raw();
        raw.rows("SELECT 1");
        let before = cluster.process().resident_bytes();
        raw.send(&message::query(&sql));
        for _ in 0..10 {
            raw.read_until(b'D', ROWS / 10);
            let grown = cluster.process().resident_bytes().saturating_sub(before);
            // A fifth of the answer; pages of the program itself count too.
            assert!(grown < 40 << 20, "{grown} bytes more for\n{sql}");
        }
        raw.read_until(b'Z', 1);
    }
}

#[test]
fn a_client_that_is_ended_during_a_scatter_is_told_so() {
    let cluster = Cluster::new()
        .shards(2)
        .sharded("t", &["id"])
        .schema("CREATE TABLE t (id int PRIMARY KEY)")
        .rows("INSERT INTO t SELECT generate_series(1, 20)")
        .start();
    let (mut a, mut b) = (cluster.proxy().raw(), cluster.proxy().raw());
    let process = a.rows("SELECT pg_backend_pid()")[0][0].clone();
    let mut locker = cluster.shard(1).raw();
    locker.query("BEGIN");
    locker.query("LOCK TABLE t");
    for sql in [
        "SELECT id FROM t",
        "SELECT id FROM t ORDER BY id",
        "SELECT a.id FROM t a JOIN t b ON a.id = b.id + 1",
    ] {
        let mut a = cluster.proxy().raw();
        let process = a.rows("SELECT pg_backend_pid()")[0][0].clone();
        a.send(&message::query(sql));
        let mut shard = cluster.shard(1).raw();
        eventually("the shard waits", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            let count = shard.rows(sql)[0][0].clone();
            match count.as_str() {
                "1" => Ok(()),
                _ => Err(count),
            }
        });
        b.rows(&format!("SELECT pg_terminate_backend({process})"));
        let frames = a.read_until(b'E', 1);
        let error = frames.last().unwrap();
        assert_eq!(
            error.field(b'C').as_deref(),
            Some("57P01"),
            "{sql}: {error:?}"
        );
        assert!(a.read().is_none());
    }
    b.rows(&format!("SELECT pg_terminate_backend({process})"));
    assert_eq!(a.read().unwrap().field(b'C').as_deref(), Some("57P01"));
}
