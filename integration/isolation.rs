//! Schedules of concurrent transactions, held against one PostgreSQL: what each step gives, who waits, and
//! when a wait ends; with all rows on one shard, and with the rows on two.
//!
//! ```text
//! # A title.
//! levels: read committed, repeatable read
//! a: BEGIN ISOLATION LEVEL $LEVEL
//! b: UPDATE t SET v = 2 WHERE id = $B
//! ```
//!
//! A blank line ends a schedule. Steps run one after another, each in its session; one that waits goes on
//! waiting while the others' steps run. `$A`, `$B` and `$C` are ids of rows of `t`, `$X` and `$Y` such that
//! have none; where rows are on two shards, `$A`, `$C` and `$X` are on one of them. `one shard` instead of
//! a step says that the schedule is not promised on two.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::compare::{Mode, frames, outcome};
use crate::harness::{Cluster, DEADLINE, Endpoint, Raw};

/// Between two looks whether a session waits.
const LOOK: Duration = Duration::from_millis(10);

/// One schedule.
#[derive(Clone, Debug)]
struct Schedule {
    title: String,
    levels: Vec<String>,
    steps: Vec<(String, String)>,
    is_for_one_shard: bool,
}

fn read(text: &str) -> Vec<Schedule> {
    let blocks = text.split("\n\n").map(str::trim);
    blocks
        .filter(|block| !block.is_empty())
        .map(schedule)
        .collect()
}

fn schedule(block: &str) -> Schedule {
    let mut schedule = Schedule {
        title: String::new(),
        levels: Vec::new(),
        steps: Vec::new(),
        is_for_one_shard: false,
    };
    for line in block.lines() {
        if let Some(title) = line.strip_prefix('#') {
            schedule.title.push_str(title);
        } else if line == "one shard" {
            schedule.is_for_one_shard = true;
        } else {
            let (name, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            match name {
                "levels" => schedule.levels = rest.split(", ").map(str::to_owned).collect(),
                _ => schedule.steps.push((name.to_owned(), rest.to_owned())),
            }
        }
    }
    if schedule.levels.is_empty() {
        schedule.levels.push("read committed".into());
    }
    schedule
}

/// A session with a thread of its own.
struct Worker {
    ask: Sender<String>,
    answers: Receiver<String>,
    /// The step that it waits in.
    waits: Option<usize>,
}

impl Worker {
    fn new(endpoint: &Endpoint) -> Worker {
        let mut raw = endpoint.raw();
        // One PostgreSQL takes it for a setting of somebody's.
        raw.query("SET shardwire.serializable = 'snapshot'");
        let (ask, asked) = channel::<String>();
        let (answer, answers) = channel();
        thread::spawn(move || {
            while let Ok(sql) = asked.recv() {
                let _ = answer.send(run(&mut raw, &sql));
            }
        });
        Worker {
            ask,
            answers,
            waits: None,
        }
    }
}

/// What a statement gives, in one line.
fn run(raw: &mut Raw, sql: &str) -> String {
    let mut got = outcome(&frames(raw, Mode::Simple, sql, &[]));
    if !sql.contains("ORDER BY") {
        got.rows.sort();
    }
    let text = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let rows = got
        .rows
        .iter()
        .map(|row| row.iter().map(text).collect::<Vec<_>>().join(","));
    let rows: Vec<String> = rows.collect();
    // Rows may have come before an error, or not.
    let rows = if got.reports.is_empty() {
        rows
    } else {
        Vec::new()
    };
    let codes: Vec<&str> = got.reports.iter().map(|(code, _)| code.as_str()).collect();
    format!(
        "{} [{}] {}",
        got.tags.join(" "),
        rows.join(" "),
        codes.join(" ")
    )
}

/// The sessions of one side, and where it can be seen who waits.
struct Side {
    endpoint: Endpoint,
    servers: Vec<Raw>,
    workers: BTreeMap<String, Worker>,
    /// What happened, by and by.
    story: Vec<String>,
}

impl Side {
    fn new(endpoint: Endpoint, servers: Vec<Raw>) -> Side {
        Side {
            endpoint,
            servers,
            workers: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    /// How many processes wait for a lock.
    fn waiting(&mut self) -> usize {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        let count = |raw: &mut Raw| raw.rows(sql)[0][0].parse::<usize>().unwrap();
        self.servers.iter_mut().map(count).sum()
    }

    fn step(&mut self, number: usize, name: &str, sql: &str) {
        let endpoint = self.endpoint.clone();
        let workers = &mut self.workers;
        let worker = workers
            .entry(name.to_owned())
            .or_insert_with(|| Worker::new(&endpoint));
        assert!(worker.waits.is_none(), "{name} still waits at {sql}");
        worker.ask.send(sql.to_owned()).unwrap();
        worker.waits = Some(number);
        self.settle(number);
    }

    /// Waits until every session has its answer or waits for a lock, and tells the story.
    fn settle(&mut self, now: usize) {
        let began = Instant::now();
        let mut quiet = 0;
        // Those that end together have no order.
        let mut ended = Vec::new();
        loop {
            let mut is_news = false;
            for (name, worker) in &mut self.workers {
                let Some(step) = worker.waits else { continue };
                if let Ok(answer) = worker.answers.try_recv() {
                    worker.waits = None;
                    is_news = true;
                    ended.push(format!("{name}{step}: {answer}"));
                }
            }
            let open = self
                .workers
                .values()
                .filter(|worker| worker.waits.is_some())
                .count();
            if open == 0 {
                break;
            }
            quiet = match !is_news && self.waiting() >= open {
                true => quiet + 1,
                false => 0,
            };
            if quiet == 3 {
                break;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "neither waits nor ends: {:?}",
                self.story
            );
            thread::sleep(LOOK);
        }
        let new = self
            .workers
            .iter()
            .find(|(_, worker)| worker.waits == Some(now));
        if let Some((name, _)) = new {
            self.story.push(format!("{name}{now}: waits"));
        }
    }
}

/// The ids that stand for `$A`, `$B`, `$C`, `$X` and `$Y`.
type Ids = [(&'static str, i32); 5];

fn ids(cluster: &Cluster, is_spread: bool) -> Ids {
    let on = |shard: usize| -> Vec<i32> {
        // Half of the rows are left out: see `fill`.
        let condition = ["<", ">="][shard];
        let sql = format!(
            "SELECT i FROM generate_series(1, 60) i \
             WHERE (hashint8extended(i, 0) & 16383) {condition} 8192 ORDER BY i"
        );
        let rows = cluster.oracle().raw().rows(&sql);
        rows.iter().map(|row| row[0].parse().unwrap()).collect()
    };
    let (near, far) = (on(0), on(1));
    match is_spread {
        true => [
            ("$A", near[0]),
            ("$B", far[0]),
            ("$C", near[1]),
            ("$X", near[2]),
            ("$Y", far[2]),
        ],
        false => [
            ("$A", near[0]),
            ("$B", near[1]),
            ("$C", near[2]),
            ("$X", near[3]),
            ("$Y", near[4]),
        ],
    }
}

/// Puts the rows there anew.
fn fill(endpoint: &Endpoint, ids: &Ids) {
    let mut raw = endpoint.raw();
    let rows: Vec<String> = ids[..3]
        .iter()
        .map(|(_, id)| format!("({id}, 10)"))
        .collect();
    for sql in [
        "DELETE FROM t".to_owned(),
        format!("INSERT INTO t VALUES {}", rows.join(", ")),
    ] {
        let frames = raw.query(&sql);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    }
}

/// What happens on a side.
fn tell(mut side: Side, schedule: &Schedule, level: &str, ids: &Ids) -> Vec<String> {
    for (number, (name, sql)) in schedule.steps.iter().enumerate() {
        let mut sql = sql.replace("$LEVEL", level);
        for (placeholder, id) in ids {
            sql = sql.replace(placeholder, &id.to_string());
        }
        side.step(number + 1, name, &sql);
    }
    let open = side
        .workers
        .values()
        .filter(|worker| worker.waits.is_some())
        .count();
    assert_eq!(open, 0, "somebody waits in the end: {:?}", side.story);
    side.story
        .push(run(&mut side.endpoint.raw(), "SELECT * FROM t"));
    side.story
}

fn same(cluster: &Cluster, file: &str) {
    let path = format!(
        "{}/integration/isolation/{file}.test",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(path).unwrap();
    let mut failures = Vec::new();
    for schedule in read(&text) {
        for level in &schedule.levels {
            for is_spread in [false, true] {
                if is_spread && schedule.is_for_one_shard {
                    continue;
                }
                let ids = ids(cluster, is_spread);
                fill(&cluster.proxy(), &ids);
                fill(&cluster.oracle(), &ids);
                let servers = [0, 1].map(|shard| cluster.shard(shard).raw()).into();
                let got = tell(Side::new(cluster.proxy(), servers), &schedule, level, &ids);
                let server = vec![cluster.oracle().raw()];
                let wanted = tell(Side::new(cluster.oracle(), server), &schedule, level, &ids);
                if got != wanted {
                    let where_ = if is_spread { "two shards" } else { "one shard" };
                    let got = got.join("\n  ");
                    let wanted = wanted.join("\n  ");
                    failures.push(format!(
                        "{} ({level}, {where_})\ngot\n  {got}\nwanted\n  {wanted}",
                        schedule.title
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema("CREATE TABLE t (id int PRIMARY KEY, v int)")
        .sharded("t", &["id"])
        .trust()
        .start()
}

#[test]
fn anomalies_are_those_of_postgresql() {
    same(&cluster(), "anomalies");
}

#[test]
fn locks_make_the_same_sessions_wait() {
    same(&cluster(), "locks");
}

#[test]
fn keys_make_the_same_sessions_wait() {
    same(&cluster(), "keys");
}
