//! Cursors and portals over several shards, held against one PostgreSQL.

use crate::harness::compare::{MODES, Mode, frames, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 40) i")
        .sharded("t", &["id"])
        .start()
}

/// The rows of `t` in the order of a cursor over both shards.
fn rows(cluster: &Cluster) -> Vec<String> {
    let ids = |shard| cluster.shard(shard).raw().rows("SELECT id FROM t");
    (0..2).flat_map(ids).map(|row| row[0].clone()).collect()
}

/// Sessions on the proxy and on PostgreSQL that must see the same: on the proxy `QUERY` is a query over
/// both shards, on PostgreSQL one of the same rows in the same order.
struct Sessions {
    proxy: Raw,
    oracle: Raw,
    query: String,
}

impl Sessions {
    fn new(cluster: &Cluster) -> Sessions {
        let ids = rows(cluster).join(",");
        Sessions {
            proxy: cluster.proxy().raw(),
            oracle: cluster.oracle().raw(),
            query: format!("SELECT id FROM unnest('{{{ids}}}'::int[]) id"),
        }
    }

    fn same(&mut self, mode: Mode, sql: &str) {
        let ours = sql.replace("QUERY", "SELECT id FROM t");
        let theirs = sql.replace("QUERY", &self.query);
        let got = outcome(&frames(&mut self.proxy, mode, &ours, &[]));
        let wanted = outcome(&frames(&mut self.oracle, mode, &theirs, &[]));
        assert_eq!(got, wanted, "{mode:?}: {sql}");
    }

    fn script(&mut self, mode: Mode, script: &str) {
        for sql in script.lines().map(str::trim).filter(|sql| !sql.is_empty()) {
            self.same(mode, sql);
        }
    }
}

#[test]
fn a_cursor_over_shards_moves_as_one() {
    let cluster = cluster();
    for mode in MODES {
        let mut sessions = Sessions::new(&cluster);
        sessions.script(
            mode,
            "DECLARE c CURSOR FOR QUERY
             BEGIN
             DECLARE c SCROLL CURSOR FOR QUERY
             FETCH c
             FETCH 3 FROM c
             FETCH FORWARD 30 FROM c
             FETCH PRIOR FROM c
             FETCH RELATIVE 0 FROM c
             FETCH BACKWARD 20 FROM c
             FETCH ABSOLUTE 25 FROM c
             FETCH RELATIVE -10 FROM c
             FETCH LAST FROM c
             FETCH NEXT FROM c
             FETCH NEXT FROM c
             FETCH BACKWARD ALL FROM c
             FETCH FIRST FROM c
             MOVE 20 FROM c
             FETCH 2 FROM c
             MOVE ABSOLUTE -3 FROM c
             FETCH ALL FROM c
             FETCH ALL FROM c
             MOVE BACKWARD ALL FROM c
             FETCH ABSOLUTE 0 FROM c
             FETCH ABSOLUTE 100 FROM c
             FETCH BACKWARD 1 FROM c
             CLOSE c
             FETCH c
             ROLLBACK
             FETCH c",
        );
    }
}

#[test]
fn a_cursor_with_hold_stays_until_it_is_closed() {
    let cluster = cluster();
    for mode in MODES {
        let mut sessions = Sessions::new(&cluster);
        sessions.script(
            mode,
            "BEGIN
             DECLARE c CURSOR WITH HOLD FOR QUERY
             FETCH 5 FROM c
             COMMIT
             FETCH 30 FROM c
             BEGIN
             UPDATE t SET name = 'x' WHERE id = -1
             FETCH 2 FROM c
             COMMIT
             FETCH ALL FROM c
             CLOSE c
             FETCH c
             DECLARE c SCROLL CURSOR WITH HOLD FOR QUERY
             FETCH 3 FROM c
             FETCH LAST FROM c
             DECLARE d CURSOR WITH HOLD FOR SELECT id FROM t WHERE id = 1
             FETCH d
             FETCH PRIOR FROM c
             CLOSE ALL
             FETCH d",
        );
        sessions.script(
            mode,
            "BEGIN
             DECLARE c CURSOR WITH HOLD FOR QUERY
             ROLLBACK
             FETCH c
             DECLARE c CURSOR WITH HOLD FOR QUERY
             DISCARD ALL
             FETCH c",
        );
    }
}

#[test]
fn cursors_of_single_shards_are_found_again() {
    let cluster = cluster();
    let (near, far) = (&rows(&cluster)[0], rows(&cluster).last().unwrap().clone());
    let mut sessions = Sessions::new(&cluster);
    let script = format!(
        "BEGIN
         DECLARE n CURSOR FOR SELECT id FROM t WHERE id = {near}
         DECLARE f CURSOR FOR SELECT id FROM t WHERE id = {far}
         FETCH n
         FETCH f
         FETCH n
         MOVE BACKWARD ALL FROM f
         FETCH f
         CLOSE n
         FETCH ALL FROM f
         COMMIT"
    );
    sessions.script(Mode::Simple, &script);
}

#[test]
fn a_binary_cursor_gives_binary_rows() {
    let cluster = cluster();
    let mut sessions = Sessions::new(&cluster);
    sessions.script(
        Mode::Simple,
        "BEGIN
         DECLARE c BINARY CURSOR FOR QUERY
         FETCH 30 FROM c
         COMMIT",
    );
}

/// Executes a portal and reads to the end of the batch.
fn part(raw: &mut Raw, before: Vec<u8>, rows: i32) -> Vec<Frame> {
    let mut out = before;
    out.extend(message::execute("p", rows));
    out.extend(message::sync());
    raw.send(&out);
    raw.read_until(b'Z', 1)
}

fn opening() -> Vec<u8> {
    let mut out = message::parse("", "SELECT id FROM t", &[]);
    out.extend(message::bind("p", "", &[], &[], &[]));
    out.extend(message::describe(b'P', "p"));
    out
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

fn count(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.tag == b'D').count()
}

#[test]
fn a_portal_over_shards_is_fetched_in_parts() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    raw.query("BEGIN");
    let first = part(&mut raw, opening(), 15);
    assert!(tags(&first).starts_with("12T") && tags(&first).ends_with("DsZ"));
    assert_eq!(count(&first), 15);
    // The connections are free between the parts.
    assert_eq!(raw.rows("SELECT name FROM t WHERE id = 1"), [["name"]]);
    assert_eq!(raw.rows("SELECT id FROM t").len(), 40);
    let second = part(&mut raw, Vec::new(), 15);
    assert_eq!(count(&second), 15);
    assert!(tags(&second).ends_with("DsZ"));
    let last = part(&mut raw, Vec::new(), 15);
    assert_eq!(count(&last), 10);
    assert!(tags(&last).ends_with("DCZ"));
    let ids = [first, second, last].concat();
    let mut ids: Vec<Vec<u8>> = ids
        .into_iter()
        .filter(|frame| frame.tag == b'D')
        .map(|frame| frame.body)
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40, "every row came once");
    raw.query("COMMIT");
    // After the transaction it is gone.
    let gone = part(&mut raw, Vec::new(), 1);
    assert_eq!(gone[0].field(b'C').as_deref(), Some("34000"));
}

#[test]
fn the_first_part_of_a_portal_comes_without_a_transaction() {
    let cluster = cluster();
    let mut raw = cluster.proxy().raw();
    let first = part(&mut raw, opening(), 15);
    assert_eq!(count(&first), 15);
    assert!(tags(&first).ends_with("DsZ"), "{}", tags(&first));
    let all = part(&mut raw, opening(), 50);
    assert_eq!(count(&all), 40);
    assert!(tags(&all).ends_with("DCZ"), "{}", tags(&all));
    assert_eq!(raw.rows("SELECT id FROM t").len(), 40);
}

/// PostgreSQL runs what changes rows to its end at the first Execute, whatever part is fetched.
#[test]
fn a_change_that_is_fetched_in_parts_is_made_on_every_shard() {
    let cluster = cluster();
    for (name, begin) in [("one", "BEGIN"), ("two", "SELECT 1")] {
        let mut raw = cluster.proxy().raw();
        let sql = format!("UPDATE t SET name = '{name}' RETURNING id, name");
        let mut messages = message::query(begin);
        messages.extend(message::parse("", &sql, &[]));
        messages.extend(message::bind("", "", &[], &[], &[]));
        messages.extend(message::describe(b'P', ""));
        messages.extend(message::execute("", 3));
        messages.extend(message::execute("", 4));
        messages.extend(message::execute("", 0));
        messages.extend(message::sync());
        messages.extend(message::query("COMMIT"));
        raw.send(&messages);
        let frames = raw.read_until(b'Z', 3);
        let told: Vec<u8> = frames.iter().map(|frame| frame.tag).collect();
        let told: Vec<u8> = told
            .into_iter()
            .filter(|tag| b"TDsCE".contains(tag))
            .collect();
        let end = told.iter().position(|tag| *tag == b's').unwrap();
        let wanted = [b"DDDsDDDDs".as_slice(), &[b'D'; 33], b"CC"].concat();
        assert_eq!(
            told[end - 3..],
            wanted,
            "{}",
            String::from_utf8_lossy(&told)
        );
        for shard in 0..2 {
            let sql = format!("SELECT count(*) FROM t WHERE name <> '{name}'");
            assert_eq!(
                cluster.shard(shard).raw().rows(&sql),
                [["0"]],
                "{begin}, shard {shard}"
            );
        }
    }
}

/// No server knows all of them, and none those that the proxy keeps.
#[test]
fn pg_cursors_is_never_without_some_of_the_sessions() {
    let cluster = cluster();
    let asked = "SELECT name FROM pg_cursors";
    let known = "SELECT * FROM Pg_Cursor() WHERE name <> ''";
    for query in [
        "SELECT id FROM t",
        "SELECT id FROM t ORDER BY id",
        "SELECT count(*) FROM t",
    ] {
        let mut raw = cluster.proxy().raw();
        raw.query("BEGIN");
        assert_eq!(raw.rows(asked), [[""; 1]; 0]);
        raw.query(&format!("DECLARE c CURSOR FOR {query}"));
        raw.query("SAVEPOINT s");
        assert_eq!(raw.code(asked), "0A000", "{query}");
        raw.query("ROLLBACK TO s");
        raw.send(
            &[
                message::parse("", known, &[]),
                message::bind("", "", &[], &[], &[]),
            ]
            .concat(),
        );
        raw.send(&[message::execute("", 0), message::sync()].concat());
        let frames = raw.read_until(b'Z', 1);
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C').unwrap(), "0A000", "{query}");
        raw.query("ROLLBACK TO s");
        raw.query("CLOSE c");
        raw.query("DECLARE d CURSOR FOR SELECT id FROM t WHERE id = 1");
        assert_eq!(raw.rows(asked), [["d"]], "{query}");
    }
}
