//! A fault at every message of what is one transaction on several shards: statements, scripts, pipelines,
//! moves of rows, writes of replicated tables, definitions. It stands on all shards or on none, as the
//! client was told, and nothing stays prepared.
//!
//! Each message has one fault; `FAULTS=all` gives each of them all, `FAULTS=Definition` those of one deed.

use std::env;
use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::faults::wires::{Moment, Trap, Wires};
use crate::faults::{ids_on, serves};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw, eventually, message};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection is cut.
    Cut,
    /// The message comes later.
    Delay,
    /// Nothing passes on the connection for longer than anybody's patience.
    Freeze,
    KillProxy,
    KillServer,
}

const EACH: [Fault; 5] = [
    Fault::Cut,
    Fault::Delay,
    Fault::Freeze,
    Fault::KillProxy,
    Fault::KillServer,
];

/// How often each comes in a run that is not thorough: some take seconds.
const FAULTS: [Fault; 12] = [
    Fault::Cut,
    Fault::KillProxy,
    Fault::Cut,
    Fault::KillServer,
    Fault::Cut,
    Fault::KillProxy,
    Fault::Cut,
    Fault::Freeze,
    Fault::Cut,
    Fault::KillProxy,
    Fault::Cut,
    Fault::Delay,
];

/// What is done, to a row on each shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Transaction,
    Statement,
    Returning,
    Script,
    Pipeline,
    Insert,
    Move,
    Replicated,
    Definition,
}

const DEEDS: [Deed; 9] = [
    Deed::Transaction,
    Deed::Statement,
    Deed::Returning,
    Deed::Script,
    Deed::Pipeline,
    Deed::Insert,
    Deed::Move,
    Deed::Replicated,
    Deed::Definition,
];

impl Deed {
    /// What the client sends, one exchange after another.
    fn exchanges(self, [near, far]: [i32; 2]) -> Vec<Vec<u8>> {
        let set = |id: i32| format!("UPDATE t SET name = 'new' WHERE id = {id}");
        let one = |sql: String| vec![message::query(&sql)];
        match self {
            Deed::Transaction => ["BEGIN", &set(near), &set(far), "COMMIT"]
                .map(message::query)
                .to_vec(),
            Deed::Statement => one(format!(
                "UPDATE t SET name = 'new' WHERE id IN ({near}, {far})"
            )),
            Deed::Returning => one(format!(
                "UPDATE t SET name = 'new' WHERE id IN ({near}, {far}) RETURNING *"
            )),
            Deed::Script => one(format!("{}; {}", set(near), set(far))),
            Deed::Pipeline => {
                let mut batch = Vec::new();
                for sql in [set(near), set(far)] {
                    batch.extend(message::parse("", &sql, &[]));
                    batch.extend(message::bind("", "", &[], &[], &[]));
                    batch.extend(message::execute("", 0));
                }
                batch.extend(message::sync());
                vec![batch]
            }
            Deed::Insert => one(format!(
                "INSERT INTO u VALUES ({near}, 'new'), ({far}, 'new')"
            )),
            Deed::Move => one(format!("UPDATE u SET id = {far} WHERE id = {near}")),
            Deed::Replicated => one(format!("UPDATE r SET name = 'new' WHERE id = {near}")),
            Deed::Definition => one(format!("CREATE TABLE d{near} (id int) SHARD KEY (id)")),
        }
    }

    /// What is there before it.
    fn prepare(self, cluster: &Cluster, [near, _]: [i32; 2]) {
        let on = |shard: usize, sql: &str| {
            let frames = cluster.shard(shard).raw().query(sql);
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        };
        match self {
            Deed::Move => on(0, &format!("INSERT INTO u VALUES ({near}, 'moves')")),
            Deed::Replicated => {
                for shard in 0..2 {
                    on(shard, &format!("INSERT INTO r VALUES ({near}, 'old')"));
                }
            }
            _ => {}
        }
    }

    /// Whether a shard shows that it is done.
    fn is_done(self, cluster: &Cluster, shard: usize, ids: [i32; 2]) -> bool {
        let (id, near) = (ids[shard], ids[0]);
        let sql = match self {
            Deed::Insert => format!("SELECT count(*) > 0 FROM u WHERE id = {id}"),
            Deed::Move => format!("SELECT (count(*) > 0) = ({shard} = 1) FROM u WHERE id = {id}"),
            Deed::Replicated => format!("SELECT name = 'new' FROM r WHERE id = {near}"),
            Deed::Definition => format!("SELECT to_regclass('d{near}') IS NOT NULL"),
            _ => format!("SELECT name = 'new' FROM t WHERE id = {id}"),
        };
        cluster.shard(shard).raw().rows(&sql)[0][0] == "t"
    }

    /// Whether the client asks for the commit by a message of its own.
    fn has_commit(self) -> bool {
        self == Deed::Transaction
    }
}

/// What a client was told, by SQLSTATE or in a word; and whether it had asked for a commit.
fn act(proxy: &Endpoint, deed: Deed, ids: [i32; 2]) -> (String, bool) {
    let Ok(mut raw) = Raw::try_login(proxy) else {
        return ("no login".into(), false);
    };
    let exchanges = deed.exchanges(ids);
    let last = exchanges.len() - 1;
    for (number, messages) in exchanges.iter().enumerate() {
        let (frames, read) = match raw.try_send(messages) {
            Ok(()) => raw.try_read_until(b'Z', 1),
            Err(error) => (Vec::new(), Err(error)),
        };
        let is_silent = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        let asked = number == last;
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            return (error.field(b'C').unwrap_or_default(), asked);
        }
        let is_whole = frames.last().is_some_and(|frame: &Frame| frame.tag == b'Z');
        if !is_whole {
            return (if is_silent { "silent" } else { "closed" }.into(), asked);
        }
        let mut tags = frames.iter().filter(|frame| frame.tag == b'C');
        if tags.any(|tag| tag.body.starts_with(b"ROLLBACK")) {
            return ("ROLLBACK".into(), asked);
        }
    }
    ("done".into(), true)
}

/// One case.
#[derive(Debug)]
struct Case {
    deed: Deed,
    fault: Fault,
    number: usize,
    is_late: bool,
    ids: [i32; 2],
}

/// What the client was told, and whether it had asked for a commit; none if no message came that far.
fn suffer(cluster: &mut Cluster, wires: &Wires, case: &Case) -> Option<(String, bool)> {
    let (sprung, springs) = channel();
    let (go, goes_on) = channel();
    case.deed.prepare(cluster, case.ids);
    let proxy = cluster.proxy();
    wires.set(Trap {
        moment: Moment::After(case.number),
        is_late: case.is_late,
        sprung,
        goes_on,
    });
    let (deed, ids) = (case.deed, case.ids);
    let client = thread::spawn(move || act(&proxy, deed, ids));
    let began = std::time::Instant::now();
    let shard = loop {
        match springs.recv_timeout(Duration::from_millis(10)) {
            Ok(shard) => break Some(shard),
            // It may have sprung on a connection that the client does not wait for.
            Err(_) if client.is_finished() && wires.unset() => break None,
            Err(_) => assert!(began.elapsed() < DEADLINE, "nothing comes: {case:?}"),
        }
    };
    let Some(shard) = shard else {
        let (told, _) = client.join().unwrap();
        assert_eq!(told, "done", "without a fault: {case:?}");
        return None;
    };
    match case.fault {
        Fault::Cut => drop(go.send(false)),
        Fault::Delay => {
            thread::sleep(Duration::from_millis(300));
            let _ = go.send(true);
        }
        Fault::Freeze => {
            thread::sleep(Duration::from_millis(3_500));
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
    let told = client.join().unwrap();
    match case.fault {
        Fault::KillProxy => cluster.start_proxy(),
        Fault::KillServer => serves(cluster),
        _ => {}
    }
    Some(told)
}

/// Whether a case stands on all shards or on none, as its client was told.
fn audit(cluster: &Cluster, case: &Case, told: &str, asked: bool) {
    let done = [0, 1].map(|shard: usize| case.deed.is_done(cluster, shard, case.ids));
    assert_eq!(done[0], done[1], "{told}: {case:?}");
    // The connection of a statement that is a transaction by itself may be lost before or after its end.
    let is_open = matches!(told, "08007" | "closed")
        || (!case.deed.has_commit() && matches!(told, "08006" | "57P01" | "57P02"));
    match told {
        "done" => assert!(done[0], "{case:?}"),
        _ if asked && is_open => {}
        _ => assert!(!done[0], "{told}: {case:?}"),
    }
    if case.fault == Fault::Delay {
        assert_eq!(told, "done", "{case:?}");
    }
}

#[test]
fn a_fault_at_any_message_of_any_statement_leaves_all_or_nothing() {
    let wires = Wires::default();
    let mut cluster = super::cluster(&wires);
    let pairs = |shard| {
        ids_on(&cluster, shard)
            .into_iter()
            .map(|id| id.parse().unwrap())
    };
    let pairs: Vec<(i32, i32)> = pairs(0).zip(pairs(1)).collect();
    let mut pairs = pairs.into_iter().map(|(near, far)| [near, far]);
    let which = env::var("FAULTS").unwrap_or_default();
    let is_thorough = !which.is_empty();
    let mut told = Vec::new();
    let mut turn = 0;
    let is_wanted = |deed: &Deed| ["", "all"].contains(&&*which) || which == format!("{deed:?}");
    for deed in DEEDS.into_iter().filter(is_wanted) {
        for number in 0.. {
            if deed == Deed::Definition && number % 3 != 0 && !is_thorough {
                continue;
            }
            let faults: Vec<(Fault, bool)> = match is_thorough {
                true => {
                    let both = |fault| [(fault, false), (fault, true)];
                    EACH.into_iter().flat_map(both).collect()
                }
                false => vec![(FAULTS[turn % FAULTS.len()], turn / FAULTS.len() % 2 == 1)],
            };
            turn += 1;
            let mut is_beyond = false;
            for (fault, is_late) in faults {
                let ids = pairs.next().expect("there are too few rows");
                let case = Case {
                    deed,
                    fault,
                    number,
                    is_late,
                    ids,
                };
                match suffer(&mut cluster, &wires, &case) {
                    Some(word) => told.push((case, word)),
                    None => is_beyond = true,
                }
            }
            if is_beyond {
                println!("{deed:?} has {number} messages");
                break;
            }
        }
    }
    for shard in 0..2 {
        eventually("nothing is left prepared", || {
            let sql = "SELECT gid FROM pg_prepared_xacts";
            let rows = cluster.shard(shard).raw().rows(sql);
            if rows.is_empty() { Ok(()) } else { Err(rows) }
        });
    }
    for (case, (word, asked)) in &told {
        audit(&cluster, case, word, *asked);
    }
}
