//! Two proxies and two servers are killed, frozen and started again while clients write on both shards and
//! others read at REPEATABLE READ. Nothing acknowledged is lost, nothing is to be seen in part, what a client
//! was told is true, and nothing stays prepared.
//!
//! `SURVIVAL_SECONDS` says how long, `SEED` what happens.

mod appends;
mod client;
mod transfers;

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::{Cluster, Proxy, eventually};
use appends::Appends;
use client::Client;
use transfers::Transfers;

const SECONDS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Kills and starts again what serves.
struct Chaos {
    cluster: Cluster,
    proxies: [Proxy; 2],
    random: StdRng,
}

impl Chaos {
    /// One blow, and its end: everything runs again, or is about to.
    fn strike(&mut self) {
        let which = self.random.random_range(0..2);
        let pause = Duration::from_millis(self.random.random_range(0..1_200));
        let what = self.random.random_range(0..10);
        println!("blow {what} at {which} for {pause:?}");
        match what {
            0..4 => {
                let proxy = &mut self.proxies[which];
                proxy.signal("KILL");
                proxy.wait();
                thread::sleep(pause);
                proxy.restart();
            }
            4..7 => {
                let server = &mut self.cluster.shards[which].primary;
                server.kill().unwrap();
                thread::sleep(pause);
                server.start().unwrap();
            }
            7 => self.kill_backend(which),
            8 => {
                let server = &mut self.cluster.shards[which].primary;
                server.stop().unwrap();
                server.start().unwrap();
            }
            _ => {
                // Longer than others wait before they end what it has prepared.
                self.proxies[which].signal("STOP");
                thread::sleep(Duration::from_secs(3) + pause);
                self.proxies[which].signal("CONT");
            }
        }
    }

    /// Kills a server process that works for a client: the others of the server end too.
    fn kill_backend(&self, shard: usize) {
        let server = &self.cluster.shards[shard].primary;
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND pid <> pg_backend_pid() \
                   ORDER BY state = 'idle', random() LIMIT 1";
        let pid = server.psql("app", sql).unwrap();
        let kill = format!("kill -9 {}", pid.trim());
        let _ = Command::new("/bin/sh").args(["-c", &kill]).status();
    }
}

fn chaos(seed: u64) -> Chaos {
    let cluster = Cluster::new()
        .shards(2)
        .schema(transfers::SCHEMA)
        .schema(appends::SCHEMA)
        .rows(transfers::ROWS)
        .rows(appends::ROWS)
        .sharded("accounts", &["id"])
        .sharded("ledger", &["n"])
        .sharded("lists", &["id"])
        .database("pool", "{ queue_timeout: 5s }")
        .trust()
        .without_proxy()
        .start();
    let proxies = [cluster.another_proxy(), cluster.another_proxy()];
    let random = StdRng::seed_from_u64(seed);
    Chaos {
        cluster,
        proxies,
        random,
    }
}

/// Tells all clients to stop when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until nothing is prepared.
fn settle(cluster: &Cluster) {
    for shard in 0..2 {
        eventually("nothing is left prepared", || {
            let sql = "SELECT gid FROM pg_prepared_xacts";
            let rows = cluster.shard(shard).raw().rows(sql);
            if rows.is_empty() { Ok(()) } else { Err(rows) }
        });
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_seen_while_all_are_killed() {
    let lasts = Duration::from_secs(number("SURVIVAL_SECONDS").unwrap_or(SECONDS));
    let seed = number("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut chaos = chaos(seed);
    let endpoints = [0, 1].map(|which: usize| chaos.proxies[which].endpoint.clone());
    let client = |offset: u64| {
        let random = StdRng::seed_from_u64(seed.wrapping_add(offset));
        Client::new(&endpoints, random)
    };
    let transfers = Transfers::new(&chaos.cluster);
    let appends = Appends::new(&chaos.cluster);
    let stop = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let (transfers, appends, stop) = (&transfers, &appends, &stop);
        for offset in 1..=3 {
            let (one, other) = (client(offset), client(offset + 10));
            scope.spawn(move || transfers.write(one, stop));
            scope.spawn(move || appends.write(other, stop));
        }
        let readers = [21, 22].map(|offset| {
            let (one, other) = (client(offset), client(offset + 10));
            let one = scope.spawn(move || transfers.read(one, stop));
            let other = scope.spawn(move || appends.read(other, stop));
            [one, other]
        });
        // However this ends, they must.
        let end = End(stop);
        let began = Instant::now();
        while began.elapsed() < lasts && !readers.iter().flatten().any(|one| one.is_finished()) {
            let calm = chaos.random.random_range(300..1_500);
            thread::sleep(Duration::from_millis(calm));
            chaos.strike();
        }
        let restarted = Instant::now();
        drop(end);
        settle(&chaos.cluster);
        println!(
            "nothing is prepared {:?} after the last restart",
            restarted.elapsed()
        );
        readers.map(|both| both.map(|reader| reader.join().unwrap()))
    });
    settle(&chaos.cluster);
    let commits = [
        transfers.audit(&chaos.cluster),
        appends.audit(&chaos.cluster),
    ];
    println!("commits {commits:?}, reads {reads:?}");
    assert!(commits.iter().all(|count| *count > 10), "{commits:?}");
    assert!(reads.iter().flatten().sum::<usize>() > 0);
}
