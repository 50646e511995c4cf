//! Replica sets: reads go where the preference says, a dead secondary costs nothing, and clients
//! go on after a failover.

use std::collections::BTreeSet;
use std::thread;

use crate::harness::cluster::Builder;
use crate::harness::{Cluster, Raw, eventually};

fn builder() -> Builder {
    Cluster::new()
        .secondaries(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .schema(
            "CREATE FUNCTION writes() RETURNS int VOLATILE LANGUAGE sql \
             AS 'INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t), ''by function'') RETURNING id'",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 100) i")
        .sharded("t", &["id"])
}

/// The ports that answer reads.
fn read_ports(raw: &mut Raw, count: usize) -> BTreeSet<u16> {
    let sql = "SELECT inet_server_port() FROM t WHERE id = 1";
    (0..count)
        .map(|_| raw.rows(sql)[0][0].parse().unwrap())
        .collect()
}

fn primary_port(cluster: &Cluster) -> u16 {
    cluster.shards[0].primary.port()
}

fn secondary_ports(cluster: &Cluster) -> BTreeSet<u16> {
    let secondaries = cluster.shards[0].secondaries.iter();
    secondaries.map(|server| server.port()).collect()
}

/// A session whose reads have been seen to go to `wanted` and nowhere else.
fn settled(cluster: &Cluster, wanted: &BTreeSet<u16>) -> Raw {
    eventually("reads where it should", || {
        let mut raw = cluster.proxy().raw();
        let ports = read_ports(&mut raw, 40);
        if ports == *wanted {
            Ok(raw)
        } else {
            Err(ports)
        }
    })
}

#[test]
fn reads_follow_the_preference() {
    let cluster = builder().database("read_preference", "secondary").start();
    settled(&cluster, &secondary_ports(&cluster));
    let cluster = builder().database("read_preference", "primary").start();
    settled(&cluster, &BTreeSet::from([primary_port(&cluster)]));
}

#[test]
fn nearest_reads_use_all_servers_of_one_machine() {
    let cluster = builder().start();
    let mut all = secondary_ports(&cluster);
    all.insert(primary_port(&cluster));
    settled(&cluster, &all);
}

#[test]
fn writes_and_functions_that_may_write_go_to_the_primary() {
    let cluster = builder().database("read_preference", "secondary").start();
    let mut raw = settled(&cluster, &secondary_ports(&cluster));
    for id in (200..240).step_by(2) {
        raw.rows(&format!("INSERT INTO t VALUES ({id}, 'new')"));
        raw.rows("SELECT writes()");
        raw.rows(&format!("SELECT name FROM t WHERE id = {id} FOR UPDATE"));
    }
    // Whatever may write in a transaction block is on one server.
    raw.rows("BEGIN");
    raw.rows("SELECT name FROM t WHERE id = 1");
    raw.rows("UPDATE t SET name = 'x' WHERE id = 1");
    raw.rows("COMMIT");
    // A block that says it only reads may run on a secondary.
    raw.rows("BEGIN READ ONLY");
    let port = raw.rows("SELECT inet_server_port() FROM t WHERE id = 1");
    raw.rows("COMMIT");
    assert_ne!(port[0][0], "");
}

#[test]
fn a_session_reads_its_own_writes() {
    let cluster = builder()
        .database("read_preference", "secondary_preferred")
        .start();
    let mut raw = cluster.proxy().raw();
    for number in 0..200 {
        raw.rows(&format!("UPDATE t SET name = '{number}' WHERE id = 7"));
        let seen = raw.rows("SELECT name FROM t WHERE id = 7");
        assert_eq!(seen, [[number.to_string()]]);
    }
}

#[test]
fn a_dead_secondary_costs_no_read() {
    let mut cluster = builder().start();
    let mut all = secondary_ports(&cluster);
    all.insert(primary_port(&cluster));
    let mut raw = settled(&cluster, &all);
    let mut other = cluster.proxy().raw();
    cluster.shards[0].secondaries[0].kill().unwrap();
    let dead = cluster.shards[0].secondaries[0].port();
    for _ in 0..300 {
        raw.rows("SELECT name FROM t WHERE id = 1");
        other.rows("SELECT name FROM t WHERE id = 2");
    }
    let ports = read_ports(&mut raw, 40);
    assert!(!ports.contains(&dead), "{ports:?}");

    // It comes back by itself.
    cluster.shards[0].secondaries[0].start().unwrap();
    settled(&cluster, &all);
}

#[test]
fn clients_go_on_after_a_failover() {
    let mut cluster = builder().start();
    let mut before = cluster.proxy().raw();
    before.rows("INSERT INTO t VALUES (1000, 'before')");
    cluster.catch_up();
    let shard = &mut cluster.shards[0];
    shard.primary.kill().unwrap();
    shard.secondaries[0].promote().unwrap();
    shard.secondaries[1].follow(&shard.secondaries[0]).unwrap();

    // A client that comes after it.
    let proxy = cluster.proxy();
    eventually("accepted a write after the failover", || {
        let mut raw = Raw::try_login(&proxy).map_err(|error| format!("{error:?}"))?;
        let frames = raw.query("INSERT INTO t VALUES (1001, 'after') ON CONFLICT DO NOTHING");
        match frames.iter().find(|frame| frame.tag == b'E') {
            Some(error) => Err(format!("{error:?}")),
            None => Ok(()),
        }
    });
    // One that was there before.
    // The other secondary may be behind in what others have written.
    eventually("read what another client has written", || {
        let rows = before.rows("SELECT id FROM t WHERE id >= 1000 ORDER BY id");
        match rows == [["1000"], ["1001"]] {
            true => Ok(()),
            false => Err(rows),
        }
    });
    before.rows("INSERT INTO t VALUES (1002, 'same session')");
    let promoted = cluster.shards[0].secondaries[0].port();
    let port = before.rows("SELECT inet_server_port() FROM t WHERE id = 1 FOR UPDATE");
    assert_eq!(port, [[promoted.to_string()]]);
}

#[test]
fn reads_survive_a_dead_primary() {
    let mut cluster = builder().start();
    let mut raw = cluster.proxy().raw();
    raw.rows("SELECT name FROM t WHERE id = 1");
    cluster.shards[0].primary.kill().unwrap();
    for _ in 0..100 {
        raw.rows("SELECT name FROM t WHERE id = 1");
    }
}

/// As writes do: a server that starts again is back in a moment.
#[test]
fn reads_and_logins_wait_for_the_only_server() {
    let mut cluster = Cluster::new()
        .shards(1)
        .schema("CREATE TABLE t (id int PRIMARY KEY)")
        .rows("INSERT INTO t VALUES (1)")
        .sharded("t", &["id"])
        .database("pool", "{ queue_timeout: 60s }")
        .start();
    let proxy = cluster.proxy();
    let mut before = proxy.raw();
    assert_eq!(before.rows("SELECT id FROM t"), [["1"]]);
    cluster.shards[0].primary.kill().unwrap();
    let process = cluster.process();
    eventually("seen that it is gone", || {
        let (_, body) = process.http("/metrics");
        let is_down = |line: &str| line.starts_with("shardwire_server_up{") && line.ends_with(" 0");
        body.lines().any(is_down).then_some(()).ok_or(body)
    });
    let reads = thread::spawn(move || before.rows("SELECT id FROM t"));
    let login = thread::spawn(move || proxy.raw().rows("SELECT id FROM t"));
    cluster.shards[0].primary.start().unwrap();
    assert_eq!(reads.join().unwrap(), [["1"]]);
    assert_eq!(login.join().unwrap(), [["1"]]);
}

#[test]
fn an_old_primary_that_returns_gets_no_writes() {
    let mut cluster = builder().start();
    let shard = &mut cluster.shards[0];
    shard.primary.kill().unwrap();
    shard.secondaries[0].promote().unwrap();
    let promoted = shard.secondaries[0].port().to_string();
    // It comes back as a primary of the old timeline.
    shard.primary.start().unwrap();
    let proxy = cluster.proxy();
    let port = |raw: &mut Raw| raw.rows("SELECT inet_server_port() FROM t WHERE id = 1 FOR UPDATE");
    eventually("wrote to the promoted server", || {
        let mut raw = Raw::try_login(&proxy).map_err(|error| format!("{error:?}"))?;
        let frames = raw.query("SELECT inet_server_port() FROM t WHERE id = 1 FOR UPDATE");
        let rows = frames.iter().filter(|frame| frame.tag == b'D');
        let right = rows
            .clone()
            .any(|row| row.body.ends_with(promoted.as_bytes()));
        if right {
            Ok(())
        } else {
            Err(format!("{frames:?}"))
        }
    });
    let mut raw = proxy.raw();
    for _ in 0..50 {
        assert_eq!(port(&mut raw), [[promoted.clone()]]);
    }
}

#[test]
fn lag_and_roles_are_shown() {
    let mut cluster = builder().start();
    let process = cluster.process();
    eventually("shown all servers as up", || {
        let (_, body) = process.http("/metrics");
        let up = |line: &&str| line.starts_with("shardwire_server_up{") && line.ends_with(" 1");
        let count = body.lines().filter(up).count();
        if count == 3 { Ok(()) } else { Err(body) }
    });
    let (_, body) = process.http("/metrics");
    for name in [
        "shardwire_replication_lag_seconds{",
        "shardwire_replication_lag_bytes{",
    ] {
        assert!(
            body.lines().any(|line| line.starts_with(name)),
            "no {name} in\n{body}"
        );
    }
}
