//! Many clients append to lists on two shards while others read them at REPEATABLE READ and the proxy is
//! killed: an append is in both lists or in none, for every reader and in the end.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::raw::Frame;
use crate::harness::{Cluster, Endpoint, Raw, eventually, message};

const WRITERS: usize = 3;
const READERS: usize = 2;
const LASTS: Duration = Duration::from_secs(4);

fn ask(raw: &mut Raw, sql: &str) -> Result<Vec<Frame>, String> {
    raw.try_send(&message::query(sql))
        .map_err(|_| "closed".to_owned())?;
    let (frames, _) = raw.try_read_until(b'Z', 1);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        return Err(error.field(b'C').unwrap_or_default());
    }
    match frames.last() {
        Some(frame) if frame.tag == b'Z' => Ok(frames),
        _ => Err("closed".to_owned()),
    }
}

/// A session, if the proxy is there.
fn login(proxy: &Endpoint) -> Option<Raw> {
    TcpStream::connect(("127.0.0.1", proxy.port)).ok()?;
    std::panic::catch_unwind(|| Raw::try_login(proxy).ok()).ok()?
}

/// What became of the appends, by what was appended.
type Outcomes = HashMap<usize, String>;

fn write(
    proxy: &Endpoint,
    ids: &[Vec<String>; 2],
    next: &AtomicUsize,
    stop: &AtomicBool,
) -> Outcomes {
    let mut outcomes = HashMap::new();
    let mut session: Option<Raw> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(raw) = session.as_mut() else {
            session = login(proxy);
            continue;
        };
        let number = next.fetch_add(1, Ordering::Relaxed);
        let near = &ids[0][number % ids[0].len()];
        let far = &ids[1][number / 7 % ids[1].len()];
        let append = |id: &str| format!("UPDATE t SET name = name || ',{number}' WHERE id = {id}");
        let statements = match number % 3 {
            0 => vec![format!("{}; {}", append(near), append(far))],
            1 => vec![format!(
                "UPDATE t SET name = name || ',{number}' WHERE id IN ({near}, {far})"
            )],
            _ => vec!["BEGIN".into(), append(near), append(far), "COMMIT".into()],
        };
        let ran: Result<(), String> = statements
            .iter()
            .try_for_each(|sql| ask(raw, sql).map(drop));
        let outcome = ran.err().unwrap_or_else(|| "COMMIT".to_owned());
        if outcome != "COMMIT" && ask(raw, "ROLLBACK").is_err() {
            session = None;
        }
        outcomes.insert(number, outcome);
    }
    outcomes
}

/// How often each append is in the lists.
fn count<'a>(lists: impl Iterator<Item = &'a str>) -> HashMap<usize, usize> {
    let mut seen = HashMap::new();
    for number in lists.flat_map(|list| list.split(',').skip(1)) {
        *seen.entry(number.parse().unwrap()).or_default() += 1;
    }
    seen
}

fn read(proxy: &Endpoint, by_key: bool, ids: &[Vec<String>; 2], stop: &AtomicBool) -> usize {
    let mut reads = 0;
    let mut session: Option<Raw> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(raw) = session.as_mut() else {
            session = login(proxy);
            continue;
        };
        let mut statements = vec!["BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned()];
        match by_key {
            true => statements.extend(
                ids.iter()
                    .flatten()
                    .map(|id| format!("SELECT name FROM t WHERE id = {id}")),
            ),
            false => statements.push("SELECT name FROM t".to_owned()),
        }
        let mut lists = Vec::new();
        let ran = statements.iter().try_for_each(|sql| {
            for frame in ask(raw, sql)? {
                if frame.tag == b'D' {
                    let value = crate::harness::raw::values(&frame).remove(0).unwrap();
                    lists.push(String::from_utf8(value).unwrap());
                }
            }
            Ok::<(), String>(())
        });
        let ended = ask(raw, "COMMIT");
        if ran.is_ok() && ended.is_ok() {
            for (number, times) in count(lists.iter().map(String::as_str)) {
                assert_eq!(times, 2, "{number} is to be seen in part: {lists:?}");
            }
            reads += 1;
        } else if ended.is_err() {
            session = None;
        }
    }
    reads
}

#[test]
fn appends_on_two_shards_are_in_both_lists_or_in_none() {
    let mut cluster = Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, name text)")
        .rows("INSERT INTO t SELECT i, '' FROM generate_series(1, 12) i")
        .sharded("t", &["id"])
        .trust()
        .start();
    let ids = [0, 1].map(|shard| {
        let rows = cluster.shard(shard).raw().rows("SELECT id FROM t");
        rows.into_iter().flatten().collect::<Vec<_>>()
    });
    let ids = Arc::new(ids);
    let next = Arc::new(AtomicUsize::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let proxy = cluster.proxy();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (proxy, ids, next, stop) = (proxy.clone(), ids.clone(), next.clone(), stop.clone());
            thread::spawn(move || write(&proxy, &ids, &next, &stop))
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let (proxy, ids, stop) = (proxy.clone(), ids.clone(), stop.clone());
            thread::spawn(move || read(&proxy, number % 2 == 0, &ids, &stop))
        })
        .collect();
    let began = Instant::now();
    while began.elapsed() < LASTS {
        thread::sleep(LASTS / 3);
        cluster.process().signal("KILL");
        cluster.process().wait();
        cluster.start_proxy();
    }
    thread::sleep(LASTS / 4);
    stop.store(true, Ordering::Relaxed);
    let mut outcomes = Outcomes::new();
    for writer in writers {
        outcomes.extend(writer.join().unwrap());
    }
    let reads: usize = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .sum();
    audit(&cluster, outcomes, reads);
}

/// Whether every append is where its writer was told.
fn audit(cluster: &Cluster, outcomes: Outcomes, reads: usize) {
    for shard in 0..2 {
        eventually("nothing is left prepared", || {
            let rows = cluster
                .shard(shard)
                .raw()
                .rows("SELECT gid FROM pg_prepared_xacts");
            if rows.is_empty() { Ok(()) } else { Err(rows) }
        });
    }
    let on = |shard| cluster.shard(shard).raw().rows("SELECT name FROM t");
    let seen = [0, 1].map(|shard| count(on(shard).iter().map(|row| row[0].as_str())));
    let mut committed = 0;
    for (number, outcome) in outcomes {
        let times = [0, 1].map(|shard: usize| seen[shard].get(&number).copied().unwrap_or(0));
        match outcome.as_str() {
            "COMMIT" => {
                committed += 1;
                assert_eq!(times, [1, 1], "{number} was committed");
            }
            "closed" | "08007" => assert!(matches!(times, [0, 0] | [1, 1]), "{number}: {times:?}"),
            _ => assert_eq!(times, [0, 0], "{number}: {outcome}"),
        }
    }
    println!("{committed} commits, {reads} reads");
    assert!(
        committed > 10 && reads > 0,
        "{committed} commits, {reads} reads"
    );
}
