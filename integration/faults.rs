//! The commit of a transaction on two shards, with a fault at every message of it.
//!
//! A wire between the proxy and each server waits for a message of the commit, and then the connection is
//! cut, the message delayed, or the proxy or the server killed; before the server has got the message, or
//! after. Once everything runs again each transaction must stand on both shards or on none, as the client
//! was told, and nothing may be left prepared.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw, eventually};

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

/// Waits for a message.
struct Trap {
    message: &'static [u8],
    /// The server gets the message before the fault.
    is_late: bool,
    /// Gets the number of the shard.
    sprung: Sender<usize>,
    /// Says whether the connection goes on.
    goes_on: Receiver<bool>,
}

/// The ways to the servers.
#[derive(Clone, Default)]
struct Wires {
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Wires {
    /// A way to a server; its port.
    fn lay(&self, shard: usize, server: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wires = self.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let wires = wires.clone();
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                thread::spawn(move || wires.carry(shard, client, server));
            }
        });
        port
    }

    /// The trap, if it waits for this message.
    fn spring(&self, message: &[u8]) -> Option<Trap> {
        let is_meant = |trap: &mut Trap| {
            let mut parts = message.windows(trap.message.len());
            parts.any(|part| part == trap.message)
        };
        self.trap.lock().unwrap().take_if(is_meant)
    }

    fn carry(&self, shard: usize, mut client: TcpStream, mut server: TcpStream) {
        let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        // While it is locked the client hears nothing.
        let gate = Arc::new(Mutex::new(true));
        let open = Arc::clone(&gate);
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count) = back.read(&mut bytes)
                && count > 0
                && *open.lock().unwrap()
                && to.write_all(&bytes[..count]).is_ok()
            {}
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 65536];
        while let Ok(count) = client.read(&mut bytes)
            && count > 0
        {
            let message = &bytes[..count];
            let Some(trap) = self.spring(message) else {
                if server.write_all(message).is_err() {
                    break;
                }
                continue;
            };
            let mut passes = gate.lock().unwrap();
            if trap.is_late {
                let _ = server.write_all(message);
                thread::sleep(Duration::from_millis(100));
            }
            let _ = trap.sprung.send(shard);
            let goes_on = trap.goes_on.recv().unwrap_or(false);
            *passes = goes_on;
            drop(passes);
            if !goes_on || (!trap.is_late && server.write_all(message).is_err()) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

/// A cluster whose proxy reaches its servers over wires.
fn cluster(wires: &Wires) -> Cluster {
    let mut cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, 'name' FROM generate_series(1, 400) i")
        .sharded("t", &["id"])
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
    *wires.trap.lock().unwrap() = Some(Trap {
        message: MESSAGES[number],
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
        let proxy = cluster.proxy();
        eventually("every shard serves again", || {
            match try_query(&mut proxy.raw(), "SELECT id FROM t")
                .iter()
                .any(|frame| frame.tag == b'E')
            {
                false => Ok(()),
                true => Err("it does not"),
            }
        });
    }
    Told { ids, what, word }
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
