//! How often the proxy asks for memory per query: a guard of the hot path that is no timer.
//!
//! The proxy runs in this process, whose allocator counts. The client asks for no memory between its
//! first and its last query. What the proxy does beside them (probes, recovery) counts too, so the count
//! is that of the best of several runs: what each query asks for is in all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use harness::{Cluster, eventually, message};
use shardwire::config::Config;
use shardwire::net::cores::Cores;
use shardwire::proxy::{Signals, serve_on};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[allow(dead_code, unused_imports, reason = "other tests use the rest")]
mod harness;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RUNS: usize = 20;
const QUERIES: usize = 40;

/// What a client that is silent may take of the heap. The allocator adds a few hundred bytes.
const LARGEST_IDLE_BYTES: usize = 5_800;

/// A client that reads into memory it has.
struct Client {
    socket: TcpStream,
    answer: Box<[u8]>,
}

impl Client {
    fn login(port: u16) -> Client {
        let socket = eventually("the proxy listens", || {
            TcpStream::connect(("127.0.0.1", port))
        });
        socket.set_nodelay(true).unwrap();
        let mut client = Client {
            socket,
            answer: vec![0; 64 * 1024].into(),
        };
        client.ask(&message::startup(&[("user", "app"), ("database", "app")]));
        client
    }

    /// Sends a request and reads its answer up to ReadyForQuery.
    fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.socket.write_all(request).unwrap();
        let mut filled = 0;
        while !matches!(self.answer[..filled], [.., b'Z', 0, 0, 0, 5, _]) {
            let count = self.socket.read(&mut self.answer[filled..]).unwrap();
            assert!(count > 0, "the proxy closed the connection");
            filled += count;
        }
        &self.answer[..filled]
    }

    /// Allocations per request, where the requests are made in turn and have all been made before.
    fn count(&mut self, requests: &[Vec<u8>]) -> f64 {
        let in_turn = || requests.iter().cycle().take(QUERIES);
        for request in in_turn() {
            let answer = self.ask(request);
            let is_error = |bytes: &[u8]| bytes == b"VERROR\0";
            let has_failed = answer.windows(7).any(is_error);
            assert!(!has_failed, "{}", answer.escape_ascii());
        }
        let counts = (0..RUNS).map(|_| {
            let region = Region::new(ALLOCATOR);
            for request in in_turn() {
                self.ask(request);
            }
            let counted = region.change();
            counted.allocations + counted.reallocations
        });
        counts.min().unwrap() as f64 / QUERIES as f64
    }
}

/// One execution for each of the users 1 and 4, who are on different shards.
fn batches(parse: bool, sql: &str) -> Vec<Vec<u8>> {
    let batch = |user: &&str| {
        let name = if parse { "" } else { "read" };
        let mut request = Vec::new();
        if parse {
            request.extend(message::parse(name, sql, &[]));
        }
        request.extend(message::bind(
            "",
            name,
            &[],
            &[Some(user.as_bytes().to_vec())],
            &[],
        ));
        request.extend(message::describe(b'P', ""));
        request.extend(message::execute("", 0));
        request.extend(message::sync());
        request
    };
    ["1", "4"].iter().map(batch).collect()
}

#[test]
fn queries_ask_for_no_memory() {
    let cluster = Cluster::new()
        .shards(2)
        .sharded("users", &["user_id"])
        .schema("CREATE TABLE users (user_id bigint PRIMARY KEY, name text)")
        .rows("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 9) i")
        .trust()
        .config("timeouts", "{ probe_interval: 10min, probe_timeout: 2s }")
        .without_proxy()
        .start();
    let config = Config::parse(&cluster.yaml(), &|_| None).unwrap();
    let cores = Arc::new(Cores::with(1).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.spawn(serve_on(cores, (config, None), Signals::none()));
    let mut client = Client::login(cluster.proxy().port);
    let sql = "SELECT name FROM users WHERE user_id = $1";
    client.ask(&[message::parse("read", sql, &[]), message::sync()].concat());
    let query = |user: &i32| message::query(&sql.replace("$1", &user.to_string()));
    let update = "UPDATE users SET name = name WHERE user_id = 4";
    let transaction = [
        "BEGIN",
        update,
        "SELECT name FROM users WHERE user_id = 4",
        "END",
    ];
    for (how, requests, most) in [
        ("prepared", batches(false, sql), 0.0),
        ("simple", [1, 4].iter().map(query).collect(), 0.0),
        ("extended", batches(true, sql), 2.0),
        ("written", vec![message::query(update)], 0.0),
        (
            "in a transaction",
            transaction.map(message::query).to_vec(),
            1.5,
        ),
    ] {
        let counted = client.count(&requests);
        assert!(
            counted <= most,
            "{how}: {counted} allocations per request, limit {most}"
        );
    }
    let name = &query(&4);
    eventually("idle clients are small", || {
        let bytes = bytes_per_client(cluster.proxy().port, name);
        println!("an idle client takes {bytes} bytes");
        (bytes <= LARGEST_IDLE_BYTES).then_some(()).ok_or(bytes)
    });
    proxy.abort();
}

/// Bytes that the proxy keeps for each of some clients that have asked for something and now are silent.
fn bytes_per_client(port: u16, request: &[u8]) -> usize {
    const CLIENTS: usize = 40;
    let region = Region::new(ALLOCATOR);
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::login(port);
            client.ask(request);
            client.socket
        })
        .collect();
    let change = region.change();
    drop(clients);
    change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated)
        / CLIENTS
}
