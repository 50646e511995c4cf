//! Clients, of one proxy or of two, that wait for each other on different shards.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Endpoint, Raw, eventually};

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE d (id int PRIMARY KEY, t_id int REFERENCES d DEFERRABLE INITIALLY DEFERRED)",
        )
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 40) i")
        .rows("INSERT INTO d SELECT i, NULL FROM generate_series(1, 40) i")
        .sharded("t", &["id"])
        .sharded("d", &["id"])
        .trust()
        .start()
}

/// Ids of rows on a shard.
fn ids_on(cluster: &Cluster, shard: usize) -> Vec<String> {
    let sql = "SELECT id FROM t ORDER BY id";
    let rows = cluster.shard(shard).raw().rows(sql);
    rows.into_iter().flatten().collect()
}

/// SQLSTATE and DETAIL of what is refused.
fn error(raw: &mut Raw, sql: &str) -> Option<(String, String)> {
    let frames = raw.query(sql);
    let error = frames.iter().find(|frame| frame.tag == b'E')?;
    let field = |code| error.field(code).unwrap_or_default();
    Some((field(b'C'), field(b'D')))
}

fn done(raw: &mut Raw, sql: &str) {
    assert_eq!(error(raw, sql), None, "{sql}");
}

fn update(id: &str) -> String {
    format!("UPDATE t SET name = name || 'x' WHERE id = {id}")
}

/// Begins a statement that will wait, and waits until it does.
fn begin_to_wait(
    cluster: &Cluster,
    shard: usize,
    mut raw: Raw,
    sql: String,
) -> thread::JoinHandle<(Raw, Option<(String, String)>)> {
    let mut direct = cluster.shard(shard).raw();
    let mut waiting = move || -> usize {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        direct.rows(sql)[0][0].parse().unwrap()
    };
    let before = waiting();
    let asked = thread::spawn(move || {
        let told = error(&mut raw, &sql);
        (raw, told)
    });
    eventually("it waits", || match waiting() > before {
        true => Ok(()),
        false => Err("it does not wait"),
    });
    asked
}

#[test]
fn clients_of_two_proxies_that_wait_for_each_other_have_one_victim() {
    let cluster = cluster();
    let other = cluster.another_proxy();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    for scatters in [false, true] {
        let (mut a, mut b) = (cluster.proxy().raw(), other.endpoint.raw());
        done(&mut a, "BEGIN");
        done(&mut a, &update(&near[0]));
        done(&mut b, "BEGIN");
        done(&mut b, &update(&far[0]));
        let sql = match scatters {
            true => "UPDATE t SET name = name || 'y'".to_owned(),
            false => update(&far[0]),
        };
        let first = begin_to_wait(&cluster, 1, a, sql);
        let second = error(&mut b, &update(&near[0]));
        done(&mut b, "COMMIT");
        let (mut a, first) = first.join().unwrap();
        done(&mut a, "COMMIT");
        // The one that began last.
        assert_eq!(first, None);
        let (code, detail) = second.unwrap();
        assert_eq!(code, "40P01");
        for part in ["another proxy", "on shard s0", "on shard s1"] {
            assert!(detail.contains(part), "{detail}");
        }
    }
}

#[test]
fn a_cycle_may_lead_through_a_transaction_on_one_shard() {
    let cluster = cluster();
    let other = cluster.another_proxy();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    let mut c = other.endpoint.raw();
    let (mut a, mut b) = (cluster.proxy().raw(), other.endpoint.raw());
    for (raw, id) in [(&mut c, &near[1]), (&mut a, &near[0]), (&mut b, &far[0])] {
        done(raw, "BEGIN");
        done(raw, &update(id));
    }
    let a = begin_to_wait(&cluster, 1, a, update(&far[0]));
    let c = begin_to_wait(&cluster, 0, c, update(&near[0]));
    assert_eq!(error(&mut b, &update(&near[1])).unwrap().0, "40P01");
    for waiting in [a, c] {
        let (mut raw, told) = waiting.join().unwrap();
        assert_eq!(told, None);
        done(&mut raw, "ROLLBACK");
    }
}

#[test]
fn who_waits_for_what_is_prepared_waits_for_its_commit() {
    let cluster = cluster();
    let other = cluster.another_proxy();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    let new: i32 = {
        // A key of the other shard that has no row yet.
        let sql = "SELECT i FROM generate_series(1000, 1100) i \
                   WHERE (hashint8extended(i, 0) & 16383) >= 8192 LIMIT 1";
        cluster.shard(1).raw().rows(sql)[0][0].parse().unwrap()
    };
    let (mut a, mut b) = (cluster.proxy().raw(), other.endpoint.raw());
    done(&mut a, "BEGIN");
    done(&mut a, &update(&near[0]));
    done(&mut a, &format!("INSERT INTO d VALUES ({new}, {})", far[0]));
    done(&mut b, "BEGIN");
    done(&mut b, &format!("DELETE FROM d WHERE id = {}", far[0]));
    let b = begin_to_wait(&cluster, 0, b, update(&near[0]));
    let first = error(&mut a, "COMMIT").map(|(code, _)| code);
    let (mut b, second) = b.join().unwrap();
    let told = [first, second.map(|(code, _)| code)];
    assert_eq!(
        told.iter().flatten().collect::<Vec<_>>(),
        ["40P01"],
        "{told:?}"
    );
    b.query("ROLLBACK");
    done(&mut a, "SELECT 1");
}

#[test]
fn a_transaction_that_has_failed_keeps_nobody_waiting_on_any_shard() {
    let cluster = cluster();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    let fails = format!("SELECT 1 / (id - {}) FROM t WHERE id = {}", far[0], far[0]);
    let mut a = cluster.proxy().raw();
    done(&mut a, "BEGIN");
    done(&mut a, &update(&near[0]));
    done(&mut a, "SAVEPOINT s");
    done(&mut a, &update(&near[1]));
    assert!(error(&mut a, &fails).is_some());
    // What was done before the savepoint stands, and may be gone back to.
    done(&mut cluster.proxy().raw(), &update(&near[1]));
    let b = begin_to_wait(&cluster, 0, cluster.proxy().raw(), update(&near[0]));
    done(&mut a, "ROLLBACK TO s");
    done(&mut a, &update(&far[1]));
    done(&mut a, "RELEASE s");
    assert!(error(&mut a, &fails).is_some());
    assert_eq!(b.join().unwrap().1, None);
    done(&mut cluster.proxy().raw(), &update(&far[1]));
    assert_eq!(error(&mut a, "SELECT 1").unwrap().0, "25P02");
    done(&mut a, "COMMIT");
    let name = |id: &String| format!("SELECT name FROM t WHERE id = {id}");
    for id in [&near[0], &near[1], &far[1]] {
        assert_eq!(a.rows(&name(id)), [["namex"]], "{id}");
    }
}

/// Locks rows until it is told to stop; how often that was refused.
fn lock(proxy: &Endpoint, rows: &[String], seed: usize, stop: &AtomicBool) -> (usize, usize) {
    let mut raw = proxy.raw();
    let (mut rounds, mut refused) = (seed, 0);
    while !stop.load(Ordering::Relaxed) {
        rounds += 7;
        let first = rounds % rows.len();
        let second = first + rounds / 3 % (rows.len() - first);
        done(&mut raw, "BEGIN");
        for id in [&rows[first], &rows[second]] {
            let told = error(&mut raw, &update(id));
            refused += usize::from(told.is_some());
        }
        raw.query("COMMIT");
    }
    (rounds - seed, refused)
}

#[test]
fn who_waits_in_no_cycle_is_never_a_victim() {
    let cluster = cluster();
    let other = cluster.another_proxy();
    let (near, far) = (ids_on(&cluster, 0), ids_on(&cluster, 1));
    let pairs = near.into_iter().zip(far).take(3);
    // All lock in this order, so that nobody waits in a cycle, but all the time.
    let rows: Vec<String> = pairs.flat_map(|(near, far)| [near, far]).collect();
    let stop = AtomicBool::new(false);
    let slow = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (rows, stop, slow) = (&rows, &stop, &slow);
        let clients: Vec<_> = (0..8)
            .map(|seed| {
                let proxy = [cluster.proxy(), other.endpoint.clone()][seed % 2].clone();
                scope.spawn(move || lock(&proxy, rows, seed, stop))
            })
            .collect();
        // One that keeps the others waiting for longer than a look takes.
        let proxy = cluster.proxy();
        let sleeper = scope.spawn(move || {
            let mut raw = proxy.raw();
            while !stop.load(Ordering::Relaxed) {
                done(&mut raw, "BEGIN");
                done(&mut raw, &update(&rows[4]));
                done(&mut raw, &update(&rows[5]));
                thread::sleep(Duration::from_millis(1_600));
                done(&mut raw, "COMMIT");
                slow.fetch_add(1, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let (rounds, refused) = client.join().unwrap();
            assert!(rounds > 0);
            assert_eq!(refused, 0);
        }
        sleeper.join().unwrap();
    });
    assert!(slow.load(Ordering::Relaxed) > 0);
}
