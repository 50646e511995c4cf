//! The commit of a transaction on two shards, with a fault at every message of it.
//!
//! A wire between the proxy and each server waits for a message of the commit, and then the connection is
//! cut, the message delayed, or the proxy or the server killed; before the server has got the message, or
//! after. Once everything runs again each transaction must stand on both shards or on none, as the client
//! was told, and nothing may be left prepared.

mod statements;
mod wires;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw, eventually};
use wires::{Moment, Trap, Wires};

/// The messages of a commit, by what is in them.
const MESSAGES: [&[u8]; 4] = [
    b"PREPARE TRANSACTION",
    b"'commit', pg_catalog",
    b"COMMIT\0",
    b"COMMIT PREPARED",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    Delay,
    KillProxy,
    KillServer,
}

const FAULTS: [Fault; 4] = [
    Fault::Cut,
    Fault::Delay,
    Fault::KillProxy,
    Fault::KillServer,
];

/// A cluster whose proxy reaches its servers over wires.
fn cluster(wires: &Wires) -> Cluster {
    let mut cluster = Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE u (id int PRIMARY KEY, name text);\n\
             CREATE TABLE r (id int PRIMARY KEY, name text)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 3000) i")
        .sharded("t", &["id"])
        .sharded("u", &["id"])
        .replicated("r")
        .database("pool", "{ queue_timeout: 2s }")
        .without_proxy()
        .trust()
        .start();
    let mut yaml = cluster.yaml();
    for (number, shard) in cluster.shards.iter().enumerate() {
        let server = shard.primary.port();
        let port = wires.lay(number, server);
        yaml = yaml.replace(&format!("127.0.0.1:{server}"), &format!("127.0.0.1:{port}"));
    }
    cluster.write_config(&yaml);
    cluster.start_proxy();
    cluster
}

fn try_query(raw: &mut Raw, sql: &str) -> Vec<Frame> {
    if raw.try_send(&crate::harness::message::query(sql)).is_err() {
        return Vec::new();
    }
    raw.try_read_until(b'Z', 1).0
}

/// Writes two rows in a transaction; the SQLSTATE it was refused with, or what else came of it.
fn transact(proxy: &Endpoint, ids: [&str; 2]) -> String {
    let Ok(mut raw) = Raw::try_login(proxy) else {
        return "no login".into();
    };
    let mut last = Vec::new();
    for sql in [
        "BEGIN".to_owned(),
        format!("UPDATE t SET name = 'new' WHERE id = {}", ids[0]),
        format!("UPDATE t SET name = 'new' WHERE id = {}", ids[1]),
        "COMMIT".to_owned(),
    ] {
        last = try_query(&mut raw, &sql);
        if let Some(error) = last.iter().find(|frame| frame.tag == b'E') {
            return error.field(b'C').unwrap_or_default();
        }
    }
    match last.iter().find(|frame| frame.tag == b'C') {
        Some(tag) if tag.body.starts_with(b"COMMIT") => "COMMIT".into(),
        Some(_) => "ROLLBACK".into(),
        None => "closed".into(),
    }
}

/// What happened to a transaction, and what its client was told.
struct Told {
    ids: [String; 2],
    what: String,
    word: String,
}

fn suffer(
    cluster: &mut Cluster,
    wires: &Wires,
    ids: [String; 2],
    at: (usize, bool, Fault),
) -> Told {
    let (number, is_late, fault) = at;
    let (sprung, springs) = channel();
    let (go, goes_on) = channel();
    wires.set(Trap {
        moment: Moment::Holds(MESSAGES[number]),
        is_late,
        sprung,
        goes_on,
    });
    let proxy = cluster.proxy();
    let own = ids.clone();
    let client = thread::spawn(move || transact(&proxy, [&own[0], &own[1]]));
    let what = format!(
        "{fault:?} {} {}",
        if is_late { "after" } else { "before" },
        String::from_utf8_lossy(MESSAGES[number])
    );
    let shard = springs.recv_timeout(DEADLINE);
    let shard = shard.unwrap_or_else(|_| panic!("no message for: {what}"));
    match fault {
        Fault::Cut => drop(go.send(false)),
        Fault::Delay => {
            thread::sleep(Duration::from_millis(700));
            let _ = go.send(true);
        }
        Fault::KillProxy => {
            cluster.process().signal("KILL");
            cluster.process().wait();
            let _ = go.send(false);
        }
        Fault::KillServer => {
            cluster.shards[shard].primary.kill().unwrap();
            let _ = go.send(false);
            cluster.shards[shard].primary.start().unwrap();
        }
    }
    let word = client.join().unwrap();
    if fault == Fault::KillProxy {
        cluster.start_proxy();
    }
    if fault == Fault::KillServer {
        serves(cluster);
    }
    Told { ids, what, word }
}

/// Waits until every shard is there again.
fn serves(cluster: &Cluster) {
    let proxy = cluster.proxy();
    eventually("every shard serves again", || {
        match try_query(&mut proxy.raw(), "SELECT count(*) FROM t")
            .iter()
            .any(|frame| frame.tag == b'E')
        {
            false => Ok(()),
            true => Err("it does not"),
        }
    });
}

fn ids_on(cluster: &Cluster, shard: usize) -> Vec<String> {
    let rows = cluster
        .shard(shard)
        .raw()
        .rows("SELECT id FROM t ORDER BY id");
    rows.into_iter().flatten().collect()
}

#[test]
fn a_fault_at_any_message_of_a_commit_leaves_all_or_nothing() {
    let wires = Wires::default();
    let mut cluster = cluster(&wires);
    let mut near = ids_on(&cluster, 0).into_iter();
    let mut far = ids_on(&cluster, 1).into_iter();
    let mut told = Vec::new();
    for number in 0..MESSAGES.len() {
        for is_late in [false, true] {
            for fault in FAULTS {
                let ids = [near.next().unwrap(), far.next().unwrap()];
                told.push(suffer(&mut cluster, &wires, ids, (number, is_late, fault)));
            }
        }
    }
    for shard in 0..2 {
        eventually("nothing is left prepared", || {
            let rows = cluster
                .shard(shard)
                .raw()
                .rows("SELECT gid FROM pg_prepared_xacts");
            if rows.is_empty() { Ok(()) } else { Err(rows) }
        });
    }
    for Told { ids, what, word } in told {
        let name = |shard: usize| {
            let sql = format!("SELECT name FROM t WHERE id = {}", ids[shard]);
            cluster.shard(shard).raw().rows(&sql)[0][0].clone()
        };
        let names = (name(0), name(1));
        assert_eq!(names.0, names.1, "{what}: {word}");
        match word.as_str() {
            "COMMIT" => assert_eq!(names.0, "new", "{what}"),
            "08007" | "closed" => {}
            _ => assert_eq!(names.0, "name", "{what}: {word}"),
        }
        if what.starts_with("Delay") {
            assert_eq!(word, "COMMIT", "{what}");
        }
        if what.starts_with("Cut") {
            assert!(
                matches!(word.as_str(), "COMMIT" | "40001"),
                "{what}: {word}"
            );
        }
    }
}
