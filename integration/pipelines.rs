//! Sessions over two shards beside one PostgreSQL with all rows: whatever is sent in one go, in whatever
//! protocol, within transactions that several shards take part in and outside them, gets the same
//! answers and leaves the same rows, or is refused and has done nothing.
//!
//! `SEED` in the environment makes another random run, `RUNS` so many of them. A failure is shortened to
//! the steps that it needs.

use std::env;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::compare::{Outcome, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Raw, message};

/// Seeds of the random runs, unless `SEED` says otherwise.
const SEEDS: [u64; 2] = [1, 2];
/// What a run consists of: statements outside transactions, and whole transactions.
const UNITS: usize = 30;
/// How long the proxy's own transactions may take.
const LONGEST_READ: Duration = DEADLINE;
/// So many clients take turns.
const CLIENTS: usize = 2;

/// How statements go out in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Each in a Query of its own.
    Queries,
    /// All in one Query.
    Message,
    /// All in one batch of the extended protocol.
    Batch,
    /// Each in a batch of its own.
    Batches,
}

const HOW: [(&str, How); 4] = [
    ("queries", How::Queries),
    ("message", How::Message),
    ("batch", How::Batch),
    ("batches", How::Batches),
];

#[derive(Clone, Debug)]
struct Step {
    client: usize,
    how: How,
    statements: Vec<String>,
}

impl Step {
    /// The bytes, and how many ReadyForQuery answer them.
    fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        match self.how {
            How::Message => {
                out.extend(message::query(&self.statements.join("; ")));
                return (out, 1);
            }
            How::Queries => {
                for sql in &self.statements {
                    out.extend(message::query(sql));
                }
            }
            How::Batch | How::Batches => {
                for sql in &self.statements {
                    out.extend(message::parse("", sql, &[]));
                    out.extend(message::bind("", "", &[], &[], &[]));
                    out.extend(message::describe(b'P', ""));
                    out.extend(message::execute("", 0));
                    if self.how == How::Batches {
                        out.extend(message::sync());
                    }
                }
                if self.how == How::Batch {
                    out.extend(message::sync());
                    return (out, 1);
                }
            }
        }
        (out, self.statements.len())
    }
}

fn cluster() -> Cluster {
    Cluster::new()
        .shards(2)
        .schema(
            "CREATE TABLE t (id int PRIMARY KEY, name text);\n\
             CREATE TABLE notes (id int PRIMARY KEY, name text);\n\
             CREATE TABLE far (id int PRIMARY KEY, name text)",
        )
        .rows(
            "INSERT INTO t SELECT i, 'name' FROM generate_series(1, 12) i;\n\
             INSERT INTO notes VALUES (1, 'name');\n\
             INSERT INTO far VALUES (1, 'name')",
        )
        .sharded("t", &["id"])
        .home("notes", 0)
        .home("far", 1)
        .database("pool", "{ max_size: 4, queue_timeout: 5s }")
        .setting("deadlock_timeout", "100ms")
        .setting("max_prepared_transactions", "20")
        .start()
}

/// Two ids of rows of `t` on different shards.
struct Ids {
    near: String,
    far: String,
}

impl Ids {
    fn of(cluster: &Cluster) -> Ids {
        let id = |shard| cluster.shard(shard).raw().rows("SELECT min(id) FROM t")[0][0].clone();
        Ids {
            near: id(0),
            far: id(1),
        }
    }

    fn put(&self, text: &str) -> String {
        text.replace("NEAR", &self.near).replace("FAR", &self.far)
    }
}

/// A session on the proxy and its twin on PostgreSQL.
struct Twins {
    proxy: Raw,
    oracle: Raw,
    /// The client is in a transaction.
    is_open: bool,
}

impl Twins {
    fn new(cluster: &Cluster) -> Twins {
        Twins {
            proxy: cluster.proxy().raw(),
            oracle: cluster.oracle().raw(),
            is_open: false,
        }
    }

    /// Runs a step on both; whether the proxy refused part of it.
    fn run(&mut self, step: &Step) -> Result<bool, String> {
        let got = answer(&mut self.proxy, step).map_err(|end| format!("{step:?}\n{end}"))?;
        let is_refused = got.reports.iter().any(|(code, _)| code == "0A000");
        if is_refused && step.statements.len() == 1 {
            if got.status == b"E" {
                self.oracle.query("SELECT 1/0");
            }
            return Ok(true);
        }
        let wanted = answer(&mut self.oracle, step)?;
        if is_refused {
            for raw in [&mut self.proxy, &mut self.oracle] {
                raw.query("ROLLBACK");
                raw.query("DISCARD ALL");
            }
            self.is_open = false;
            return Ok(true);
        }
        self.is_open = wanted.status != b"I";
        if got == wanted {
            return Ok(false);
        }
        let (got, wanted) = (show(&got), show(&wanted));
        Err(format!("{step:?}\ngives      {got}\nPostgreSQL {wanted}"))
    }
}

/// What a step gives: the rows in any order, the codes of errors and notices.
fn answer(raw: &mut Raw, step: &Step) -> Result<Outcome, String> {
    let (bytes, count) = step.bytes();
    raw.send(&bytes);
    let (frames, end) = raw.try_read_until(b'Z', count);
    let ready = frames.iter().filter(|frame| frame.tag == b'Z').count();
    if end.is_err() || ready < count {
        return Err(format!("{ready} answers instead of {count}: {frames:?}"));
    }
    let mut all = outcome(&frames);
    all.rows.sort();
    for (code, text) in &mut all.reports {
        text.clear();
        // In a transaction that has failed PostgreSQL still looks for errors of syntax first.
        if code == "42601" {
            "25P02".clone_into(code);
        }
    }
    all.status = statuses(&frames);
    Ok(all)
}

/// The transaction statuses, in order, as long as they change.
fn statuses(frames: &[Frame]) -> Vec<u8> {
    let mut ready = frames.iter().filter(|frame| frame.tag == b'Z');
    ready
        .next_back()
        .map(|frame| frame.body.clone())
        .unwrap_or_default()
}

fn show(outcome: &Outcome) -> String {
    let text = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(text).collect::<Vec<_>>().join(" | ");
    let rows: Vec<String> = outcome.rows.iter().map(row).collect();
    let status = String::from_utf8_lossy(&outcome.status);
    format!("{rows:?} {:?} {:?} {status}", outcome.tags, outcome.reports)
}

/// The rows of all tables, past the proxy.
fn rows_on(raws: &mut [Raw], tables: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = raws.iter_mut().flat_map(|raw| raw.rows(tables)).collect();
    rows.sort();
    rows
}

/// What is looked at past the proxy.
struct Look {
    shards: Vec<Raw>,
    oracle: Vec<Raw>,
}

const ALL_ROWS: &str = "SELECT 't', id, name FROM t UNION ALL SELECT 'notes', id, name FROM notes \
                        UNION ALL SELECT 'far', id, name FROM far";

impl Look {
    fn new(cluster: &Cluster) -> Look {
        Look {
            shards: (0..2).map(|shard| cluster.shard(shard).raw()).collect(),
            oracle: vec![cluster.oracle().raw()],
        }
    }

    /// Makes the oracle's rows those of the shards, once a refusal has made them differ.
    fn agree(&mut self) {
        let rows = rows_on(&mut self.shards, ALL_ROWS);
        self.oracle[0].query("BEGIN; DELETE FROM t; DELETE FROM notes; DELETE FROM far");
        for row in rows {
            let sql = format!("INSERT INTO {} VALUES ({}, '{}')", row[0], row[1], row[2]);
            self.oracle[0].query(&sql);
        }
        self.oracle[0].query("COMMIT");
    }

    /// While nobody is in a transaction: the rows are the same, and no server has one open.
    fn check(&mut self) -> Result<(), String> {
        let (got, wanted) = (
            rows_on(&mut self.shards, ALL_ROWS),
            rows_on(&mut self.oracle, ALL_ROWS),
        );
        if got != wanted {
            return Err(format!("the rows are\n{got:?}\ninstead of\n{wanted:?}"));
        }
        let sql = "SELECT query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        for shard in &mut self.shards {
            // The proxy's own, which reads the catalogue, ends soon.
            let since = Instant::now();
            let mut open = shard.rows(sql);
            while !open.is_empty() && since.elapsed() < LONGEST_READ {
                std::thread::sleep(Duration::from_millis(50));
                open = shard.rows(sql);
            }
            if !open.is_empty() {
                return Err(format!("a server has a transaction open: {open:?}"));
            }
        }
        Ok(())
    }
}

/// Runs steps with new clients; the rows are put back first.
fn run(cluster: &Cluster, steps: &[Step]) -> Result<Vec<Step>, String> {
    let mut look = Look::new(cluster);
    for shard in &mut look.shards {
        shard.query("UPDATE t SET name = 'name'; UPDATE notes SET name = 'name'; UPDATE far SET name = 'name'");
    }
    look.agree();
    let mut clients: Vec<Twins> = (0..CLIENTS).map(|_| Twins::new(cluster)).collect();
    let mut refused = Vec::new();
    for step in steps {
        let client = &mut clients[step.client];
        let is_refused = client.run(step)?;
        refused.extend(is_refused.then(|| step.clone()));
        if clients.iter().all(|client| !client.is_open) {
            if is_refused && step.statements.len() > 1 {
                look.agree();
            }
            look.check().map_err(|error| format!("{step:?}\n{error}"))?;
        }
    }
    Ok(refused)
}

/// Runs a script: a line says how its statements go out, and the statements, with `|` between them.
/// None may be refused.
fn same(cluster: &Cluster, script: &str) {
    let refused = same_or_refused(cluster, script);
    assert!(refused.is_empty(), "{refused:?} is refused of\n{script}");
}

/// As [`same`]; returns the steps that were refused.
fn same_or_refused(cluster: &Cluster, script: &str) -> Vec<Step> {
    let ids = Ids::of(cluster);
    let steps: Vec<Step> = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (how, statements) = line.split_once(' ').unwrap();
            let how = HOW.iter().find(|(name, _)| *name == how).unwrap().1;
            let statements = statements.split('|');
            Step {
                client: 0,
                how,
                statements: statements.map(|sql| ids.put(sql.trim())).collect(),
            }
        })
        .collect();
    run(cluster, &steps).unwrap_or_else(|error| panic!("{error}\nin\n{script}"))
}

#[test]
fn what_is_sent_behind_a_savepoint_or_setting_finds_it_on_every_shard() {
    let cluster = cluster();
    for how in ["queries", "batch", "batches"] {
        same(
            &cluster,
            &format!(
                "{how} BEGIN | SELECT name FROM t WHERE id = NEAR | SELECT name FROM t WHERE id = FAR
                 {how} SET LOCAL TimeZone = 'Asia/Tokyo' | SELECT current_setting('TimeZone') FROM t WHERE id = NEAR | SELECT current_setting('TimeZone') FROM t WHERE id = FAR
                 {how} SET LOCAL TimeZone = 'Asia/Seoul' | SELECT to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t
                 {how} SAVEPOINT a | UPDATE t SET name = 'lost' WHERE id = NEAR | SELECT name FROM t WHERE id = FAR
                 {how} ROLLBACK TO a | SELECT name FROM t WHERE id = FAR | SELECT name FROM t WHERE id = NEAR
                 {how} COMMIT | SELECT to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t"
            ),
        );
    }
}

#[test]
fn what_stands_behind_an_error_in_its_batch_does_not_end_the_transaction() {
    let cluster = cluster();
    for end in ["ROLLBACK", "COMMIT"] {
        same(
            &cluster,
            &format!(
                "queries BEGIN
                 queries UPDATE t SET name = 'kept' WHERE id = FAR
                 queries SELECT name FROM t WHERE id = NEAR
                 queries SAVEPOINT a
                 batch SELECT 1 / 0 FROM t WHERE id = NEAR | {end}
                 queries ROLLBACK TO a
                 queries SELECT name FROM t WHERE id = FAR
                 queries COMMIT"
            ),
        );
    }
}

#[test]
fn an_end_among_other_statements_ends_the_transaction_where_it_is() {
    let cluster = cluster();
    for how in ["queries", "message", "batch", "batches"] {
        for end in ["COMMIT", "ROLLBACK"] {
            same_or_refused(
                &cluster,
                &format!(
                    "queries BEGIN
                     queries UPDATE t SET name = 'kept' WHERE id = NEAR
                     {how} {end} | SELECT name FROM t WHERE id = FAR
                     queries SELECT name FROM t WHERE id = NEAR
                     queries BEGIN
                     queries UPDATE t SET name = 'kept' WHERE id = NEAR
                     {how} {end} | UPDATE t SET name = 'new' WHERE id = FAR
                     queries SELECT name FROM t
                     queries BEGIN
                     queries UPDATE t SET name = 'kept' WHERE id = NEAR
                     queries SELECT name FROM t WHERE id = FAR
                     {how} {end} | SELECT name FROM t WHERE id = FAR
                     queries SELECT name FROM t WHERE id = NEAR
                     queries BEGIN
                     queries SELECT name FROM t WHERE id = NEAR
                     queries SELECT name FROM t WHERE id = FAR
                     queries SELECT 1 / 0 FROM t WHERE id = FAR
                     {how} {end} | SELECT id FROM t
                     queries UPDATE t SET name = 'newer' WHERE id = NEAR
                     queries BEGIN
                     queries SELECT 1 / 0 FROM t WHERE id = NEAR
                     {how} {end} | SELECT id FROM t
                     queries BEGIN
                     queries SELECT name FROM t WHERE id = NEAR
                     queries SAVEPOINT a
                     queries SELECT 1 / 0 FROM t WHERE id = NEAR
                     {how} ROLLBACK TO a | SELECT id FROM t
                     queries ROLLBACK"
                ),
            );
        }
    }
}

#[test]
fn nothing_of_a_message_with_an_error_of_syntax_runs() {
    let cluster = cluster();
    same(
        &cluster,
        "message BEGIN | SELEC 1
         queries BEGIN
         queries UPDATE t SET name = 'new' WHERE id = NEAR
         queries SELECT name FROM t WHERE id = FAR
         message COMMIT | SELECT name FROM t WHERE id = FAR | SELEC 1
         queries ROLLBACK
         queries SELECT name FROM t WHERE id = NEAR
         message SET search_path = public | SELEC 1",
    );
}

#[test]
fn a_function_that_sets_is_followed_by_every_shard() {
    let cluster = cluster();
    same(
        &cluster,
        "queries BEGIN
         queries SELECT set_config('TimeZone', 'Asia/Tokyo', true)
         queries SELECT current_setting('TimeZone') FROM t WHERE id = NEAR
         queries SELECT current_setting('TimeZone') FROM t WHERE id = FAR
         queries SELECT set_config('TimeZone', 'Asia/Seoul', true), set_config('work_mem', '1MB', true)
         queries SELECT to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t
         queries COMMIT
         queries SELECT to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t",
    );
    same(
        &cluster,
        "queries BEGIN
         queries SELECT set_config('TimeZone', 'Asia/Seoul', true), set_config('work_mem', '1MB', true)
         queries SELECT current_setting('TimeZone') FROM t WHERE id = NEAR
         queries SELECT current_setting('TimeZone') FROM t WHERE id = FAR
         queries COMMIT",
    );
}

#[test]
fn what_the_proxy_answers_itself_waits_for_what_stands_before_it() {
    let cluster = cluster();
    same(
        &cluster,
        "queries BEGIN
         batch SELECT 1 / 0 | COMMIT
         queries ROLLBACK
         queries BEGIN
         batch SELECT 1 / 0 | SAVEPOINT a
         queries ROLLBACK
         queries PREPARE p AS SELECT 1
         batch SELECT 1 / 0 | DEALLOCATE p
         queries EXECUTE p",
    );
}

#[test]
fn nothing_runs_outside_a_transaction_that_a_statement_beside_it_has_broken() {
    let cluster = cluster();
    for how in ["queries", "batches", "batch"] {
        for statement in [
            "UPDATE t SET name = 'new' WHERE id = NEAR",
            "SAVEPOINT a",
            "SELECT id FROM t",
            "SET LOCAL work_mem = '1MB'",
            "DEALLOCATE p",
            "EXECUTE nothing",
        ] {
            same(
                &cluster,
                &format!(
                    "queries PREPARE p AS SELECT 1
                     {how} BEGIN | SELECT 1 / 0 | {statement}
                     queries ROLLBACK
                     queries BEGIN
                     queries SELECT name FROM t WHERE id = NEAR
                     {how} SELECT 1 / 0 FROM t WHERE id = NEAR | {statement}
                     queries ROLLBACK
                     queries EXECUTE p
                     queries BEGIN
                     queries SELECT name FROM t WHERE id = NEAR
                     {how} SELECT 1 / 0 FROM t WHERE id = NEAR | SELECT name FROM t WHERE id = FAR
                     queries ROLLBACK"
                ),
            );
        }
    }
}

#[test]
fn a_syntax_error_can_be_rolled_back_to_a_savepoint() {
    let cluster = cluster();
    same(
        &cluster,
        "queries BEGIN
         queries SAVEPOINT a
         queries SELEC 1
         queries SELECT 1
         queries ROLLBACK TO a
         queries SELECT name FROM t WHERE id = NEAR
         queries COMMIT
         queries BEGIN
         queries SAVEPOINT a
         queries SELEC 1
         queries ROLLBACK TO b
         queries ROLLBACK",
    );
}

/// Steps for anywhere. `NEAR` and `FAR` are on two shards.
const ANYWHERE: [&str; 40] = [
    "SELECT id, name FROM t WHERE id = NEAR",
    "SELECT id, name FROM t WHERE id = FAR",
    "SELECT id, name FROM t WHERE id = NEAR",
    "SELECT id, name FROM t WHERE id = FAR",
    "SELECT id, name FROM t",
    "SELECT id, name FROM t",
    "SELECT name FROM notes",
    "SELECT name FROM far",
    "SELECT 1",
    "SHOW work_mem",
    "SELECT current_setting('TimeZone'), current_setting('work_mem') FROM t WHERE id = NEAR",
    "SELECT current_setting('TimeZone'), current_setting('work_mem') FROM t WHERE id = FAR",
    "SELECT to_char(timestamptz '2026-01-01 00:00 UTC', 'HH24') FROM t",
    "UPDATE t SET name = 'one' WHERE id = NEAR",
    "UPDATE t SET name = 'two' WHERE id = FAR",
    "UPDATE t SET name = 'three' WHERE id = NEAR",
    "UPDATE notes SET name = name || '.'",
    "UPDATE far SET name = name || '.'",
    "SELECT name FROM t WHERE id = NEAR FOR UPDATE",
    "SELECT name FROM t WHERE id = FAR FOR UPDATE",
    "SELECT 1 / 0 FROM t WHERE id = NEAR",
    "SELECT 1 / 0 FROM t WHERE id = FAR",
    "SELECT 1 / 0 FROM t",
    "SELECT 1 / 0",
    "SELEC 1",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET LOCAL TimeZone = 'Asia/Seoul'",
    "SET work_mem = '7MB'",
    "SET LOCAL work_mem = '8MB'",
    "SET work_mem = 'lots'",
    "RESET TimeZone",
    "SELECT set_config('TimeZone', 'Europe/Paris', false)",
    "SELECT set_config('work_mem', '9MB', true)",
    "SELECT set_config('TimeZone', 'Asia/Hovd', true), set_config('work_mem', '10MB', true)",
    "PREPARE p AS SELECT name FROM t WHERE id = NEAR",
    "PREPARE q AS SELECT id, name FROM t",
    "EXECUTE p",
    "EXECUTE q",
    "DEALLOCATE p",
    "SELECT pg_advisory_xact_lock(7)",
];

/// Steps for within transactions.
const WITHIN: [&str; 12] = [
    "SAVEPOINT a",
    "SAVEPOINT a",
    "SAVEPOINT b",
    "ROLLBACK TO a",
    "ROLLBACK TO a",
    "ROLLBACK TO b",
    "RELEASE a",
    "DECLARE c CURSOR FOR SELECT id FROM t",
    "DECLARE c CURSOR FOR SELECT id FROM t WHERE id = FAR",
    "FETCH ALL FROM c",
    "CLOSE c",
    "RESET ALL",
];

/// Steps for outside transactions.
const OUTSIDE: [&str; 10] = [
    "DISCARD ALL",
    "RESET ALL",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "CREATE TEMP TABLE mine AS SELECT 1 AS n",
    "SELECT n FROM mine",
    "DROP TABLE mine",
    "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM t",
    "FETCH ALL FROM h",
];

fn pick(random: &mut StdRng, choices: &[&str], ids: &Ids) -> String {
    ids.put(choices[random.random_range(0..choices.len())])
}

/// Statements and transactions of a run; while a client is in a transaction no other has a turn.
fn units(random: &mut StdRng, ids: &Ids) -> Vec<Vec<Step>> {
    let unit = |random: &mut StdRng| {
        let client = random.random_range(0..CLIENTS);
        let mut statements = Vec::new();
        let is_transaction = random.random_bool(0.6);
        if is_transaction {
            statements.push("BEGIN".to_owned());
            for _ in 0..random.random_range(1..10) {
                statements.push(match random.random_bool(0.25) {
                    true => pick(random, &WITHIN, ids),
                    false => pick(random, &ANYWHERE, ids),
                });
            }
            let ends = ["COMMIT", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN"];
            statements.push(pick(random, &ends, ids));
        }
        for _ in 0..random.random_range(1..4) {
            statements.push(match random.random_bool(0.25) {
                true => pick(random, &OUTSIDE, ids),
                false => pick(random, &ANYWHERE, ids),
            });
        }
        // Whatever it was in.
        statements.push("ROLLBACK".to_owned());
        let mut steps = Vec::new();
        while !statements.is_empty() {
            let most = statements.len().min(4);
            let count = match random.random_bool(0.5) {
                true => 1,
                false => random.random_range(1..=most),
            };
            steps.push(Step {
                client,
                how: HOW[random.random_range(0..HOW.len())].1,
                statements: statements.drain(..count).collect(),
            });
        }
        steps
    };
    (0..UNITS).map(|_| unit(random)).collect()
}

/// The steps that a failure needs, and how they fail then.
fn shortened(cluster: &Cluster, mut units: Vec<Vec<Step>>, mut failure: String) -> String {
    let fails = |units: &[Vec<Step>]| run(cluster, &units.concat()).err();
    for unit in (0..units.len()).rev() {
        let mut fewer = units.clone();
        fewer.remove(unit);
        if let Some(error) = fails(&fewer) {
            (units, failure) = (fewer, error);
            continue;
        }
        for step in (0..units[unit].len()).rev() {
            for statement in (0..units[unit][step].statements.len()).rev() {
                let mut fewer = units.clone();
                fewer[unit][step].statements.remove(statement);
                if fewer[unit][step].statements.is_empty() {
                    fewer[unit].remove(step);
                }
                if let Some(error) = fails(&fewer) {
                    (units, failure) = (fewer, error);
                }
            }
        }
    }
    let show = |step: &Step| format!("{} {:?}: {:?}\n", step.client, step.how, step.statements);
    let steps: String = units.iter().flatten().map(show).collect();
    format!("{steps}{failure}")
}

#[test]
fn random_sessions_over_two_shards_are_postgresqls_or_refused() {
    let cluster = cluster();
    let ids = Ids::of(&cluster);
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("SEED") {
        Some(seed) => (seed..seed + number("RUNS").unwrap_or(1)).collect(),
        None => SEEDS.to_vec(),
    };
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let units = units(&mut random, &ids);
        let steps = units.concat();
        match run(&cluster, &steps) {
            Ok(refused) => assert!(refused.len() < steps.len() / 2, "most is refused"),
            Err(failure) => {
                eprintln!("SEED={seed} fails, is shortened: {failure}");
                let short = shortened(&cluster, units, failure);
                panic!("SEED={seed}\n{short}");
            }
        }
    }
}

#[test]
fn settings_are_followed_within_a_message() {
    for shards in [1, 2] {
        let cluster = Cluster::new()
            .shards(shards)
            .schema(
                "CREATE TABLE t (id int PRIMARY KEY, name text); CREATE SCHEMA other;\n\
                 CREATE TABLE other.t (id int PRIMARY KEY, name text)",
            )
            .rows(
                "INSERT INTO t SELECT i, 'name' FROM generate_series(1, 12) i;\n\
                 INSERT INTO other.t SELECT i, 'other' FROM generate_series(1, 12) i",
            )
            .sharded("t", &["id"])
            .sharded("other.t", &["id"])
            .start();
        let login = [
            ("DateStyle", "SQL"),
            ("TimeZone", "Asia/Tokyo"),
            ("search_path", "public"),
        ];
        let messages = [
            "SET search_path = other; SELECT name FROM t WHERE id = 1; SELECT name FROM t WHERE id = 4",
            "RESET ALL; SELECT name FROM t WHERE id = 1; SELECT date '2026-02-01'::text",
            "SET DateStyle = 'ISO, DMY'; SET TimeZone = 'UTC'; RESET ALL; SHOW TimeZone",
            "SET DateStyle = 'ISO, DMY'; RESET DateStyle; SELECT date '2026-02-01'::text",
            "SET DateStyle = 'ISO, DMY'; SET DateStyle TO DEFAULT",
            "SELECT date '2026-02-01'::text",
            "SET search_path = other; SELECT 1 / 0",
            "SELECT name FROM t WHERE id = 4",
            "SET search_path = other; SELECT name FROM t WHERE id = 4; RESET search_path; SELECT name FROM t WHERE id = 1",
            "BEGIN",
            "SELEC 1",
            "ROLLBACK; SELECT name FROM t WHERE id = 4; RESET ALL",
            "BEGIN; SET search_path = other",
            "SELECT name FROM t WHERE id = 4",
            "RESET ALL; SELECT name FROM t WHERE id = 4",
            "ROLLBACK; SELECT name FROM t WHERE id = 4",
        ];
        let mut sessions = [cluster.proxy(), cluster.oracle()]
            .map(|endpoint| Raw::login_with(&endpoint, &login).unwrap());
        for sql in messages {
            let [got, wanted] = sessions
                .each_mut()
                .map(|raw| show(&outcome(&raw.query(sql))));
            assert_eq!(got, wanted, "{shards}: {sql}");
        }
        let sql =
            "SET shardwire.shard = 's0'; SELECT 1; RESET shardwire.shard; SHOW shardwire.shard";
        let got = outcome(&sessions[0].query(sql));
        assert!(got.reports.is_empty(), "{}", show(&got));
    }
}
