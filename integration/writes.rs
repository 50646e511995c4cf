//! Random writes on the proxy and on one PostgreSQL: the same answer, or a refusal that changed nothing;
//! after some of them all rows are compared, and each is looked for where its key says.
//!
//! A run starts with empty tables. `SEED` names the first run, `RUNS` how many there are, `BUDGET` after how
//! many seconds no further one begins, `SHARDS` how many shards there are.

mod check;
mod directed;
mod statements;
mod tables;

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use crate::harness::compare::{Mode, Outcome, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message};

use check::Checker;
use statements::{Generator, Statement};

/// So many runs, unless `RUNS` says otherwise.
const RUNS: u64 = 12;
/// Units of a run.
const UNITS: usize = 60;
/// All rows are compared after so many units.
const BETWEEN_CHECKS: usize = 6;
/// After so many differences the rest says little.
const DIFFERENCES: usize = 12;

/// What is sent up to one ReadyForQuery.
#[derive(Clone, Debug)]
enum Step {
    One(Statement),
    /// In the extended protocol, with one Sync.
    Pipeline(Vec<Statement>),
}

impl Step {
    fn show(&self) -> String {
        match self {
            Step::One(statement) => statement.show(),
            Step::Pipeline(all) => {
                let all: Vec<String> = all.iter().map(Statement::show).collect();
                format!("pipeline: {}", all.join("\n          "))
            }
        }
    }

    fn is_ordered(&self) -> bool {
        matches!(self, Step::One(statement) if statement.ordered)
    }

    /// Sends it and reads its answer; an error when that does not come.
    fn run(&self, raw: &mut Raw) -> Result<Vec<Frame>, String> {
        let mut out = Vec::new();
        match self {
            Step::One(statement) => {
                out.extend(statement.messages());
                if statement.mode != Mode::Simple {
                    out.extend(message::sync());
                }
                if let Some(data) = &statement.data {
                    out.extend(message::copy_data(data));
                    out.extend(message::copy_done());
                }
            }
            Step::Pipeline(all) => {
                out.extend(all.iter().flat_map(Statement::messages));
                out.extend(message::sync());
            }
        }
        raw.send(&out);
        let (frames, end) = raw.try_read_until(b'Z', 1);
        let ended = frames.last().is_some_and(|frame| frame.tag == b'Z');
        match end {
            Ok(()) if ended => Ok(frames),
            _ => Err(format!("is not answered: {end:?} after {frames:?}")),
        }
    }
}

/// Sessions on both sides, and the rows of all servers.
struct Runner {
    proxy: Raw,
    oracle: Raw,
    checker: Checker,
    /// How often what was said.
    verdicts: BTreeMap<String, usize>,
}

fn sessions(cluster: &Cluster) -> (Raw, Raw) {
    (cluster.proxy().raw(), cluster.oracle().raw())
}

/// A run: units of steps.
fn units(seed: u64) -> Vec<Vec<Step>> {
    let mut generator = Generator::new(seed);
    let mut units = Vec::new();
    for _ in 0..UNITS {
        let kind = generator.below(100);
        units.push(match kind {
            0..55 => vec![Step::One(generator.statement())],
            55..60 => vec![Step::One(generator.copy())],
            60..70 => vec![pipeline(&mut generator)],
            70..78 => vec![script(&mut generator)],
            78..82 => vec![setting(&mut generator)],
            _ => transaction(&mut generator),
        });
    }
    units
}

fn pipeline(generator: &mut Generator) -> Step {
    let count = 2 + generator.below(4);
    let modes = [Mode::Text, Mode::Binary];
    let all = (0..count).map(|_| {
        let mode = modes[generator.below(2)];
        generator.statement_in(mode)
    });
    Step::Pipeline(all.collect())
}

/// Several statements in one Query message.
fn script(generator: &mut Generator) -> Step {
    let count = 2 + generator.below(3);
    let all = (0..count).map(|_| generator.statement_in(Mode::Simple).sql);
    Step::One(Statement::simple(all.collect::<Vec<_>>().join("; ")))
}

fn setting(generator: &mut Generator) -> Step {
    let settings = [
        "SET datestyle = 'SQL, DMY'",
        "SET datestyle = 'ISO, YMD'",
        "SET datestyle = 'German'",
        "SET datestyle = 'Postgres, MDY'",
        "SET timezone = 'Asia/Kolkata'",
        "SET timezone = 'America/New_York'",
        "SET timezone = 'UTC'",
        "SET standard_conforming_strings = off",
        "SET standard_conforming_strings = on",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'UTF8'",
        "SET extra_float_digits = 0",
        "SET bytea_output = 'escape'",
        "SET search_path = pg_catalog, public",
    ];
    Step::One(Statement::simple(settings[generator.below(settings.len())]))
}

fn transaction(generator: &mut Generator) -> Vec<Step> {
    let begins = ["BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"];
    let simple = |sql: &str| Step::One(Statement::simple(sql));
    let mut steps = vec![simple(begins[generator.below(3)])];
    for _ in 0..1 + generator.below(5) {
        steps.push(match generator.below(20) {
            0 | 1 => pipeline(generator),
            2 => script(generator),
            3 => Step::One(generator.copy()),
            _ => Step::One(generator.statement()),
        });
        match generator.below(10) {
            0 | 1 => steps.push(simple("SAVEPOINT s")),
            2 => steps.push(simple("ROLLBACK TO s")),
            3 => steps.push(simple("RELEASE s")),
            _ => {}
        }
    }
    let ends = ["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"];
    steps.push(simple(ends[generator.below(4)]));
    steps
}

fn field(frame: &Frame, code: u8) -> String {
    frame.field(code).unwrap_or_default()
}

/// The refusal among an answer.
fn refusal(frames: &[Frame]) -> Option<&Frame> {
    frames.iter().find(|frame| {
        frame.tag == b'E' && field(frame, b'C') == "0A000" && !field(frame, b'H').is_empty()
    })
}

/// A message without names.
fn nameless(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 0 { part } else { "…" })
        .collect()
}

/// SQLSTATE of the error.
fn failure(outcome: &Outcome) -> Option<String> {
    let mut errors = outcome.reports.iter().map(|(code, _)| code.clone());
    // 22P06 is a warning.
    errors.find(|code| {
        !["00", "01", "22P06"]
            .iter()
            .any(|one| code.starts_with(one))
    })
}

fn show(outcome: &Outcome) -> String {
    let value = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(value).collect::<Vec<_>>().join("|");
    let rows: Vec<String> = outcome.rows.iter().take(12).map(row).collect();
    let status = String::from_utf8_lossy(&outcome.status).into_owned();
    format!(
        "{} rows {rows:?} {:?} {:?} columns {:?} status {status:?}",
        outcome.rows.len(),
        outcome.tags,
        outcome.reports,
        outcome.columns,
    )
}

impl Runner {
    fn new(cluster: &Cluster) -> Runner {
        let (proxy, oracle) = sessions(cluster);
        Runner {
            proxy,
            oracle,
            checker: Checker::new(cluster),
            verdicts: BTreeMap::new(),
        }
    }

    fn count(&mut self, verdict: String) {
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    /// Runs a step on both sides and compares.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let got = step.run(&mut self.proxy)?;
        if let Some(error) = refusal(&got) {
            let message = nameless(&field(error, b'M'));
            self.count(format!("refused: {message}"));
            return self.refused(&got);
        }
        let wanted = step.run(&mut self.oracle)?;
        let (mut got, mut wanted) = (outcome(&got), outcome(&wanted));
        // Each shard warns of what it reads.
        for one in [&mut got, &mut wanted] {
            one.reports.retain(|(code, _)| code != "22P06");
        }
        let (failed, expected) = (failure(&got), failure(&wanted));
        let same = match (&failed, &expected) {
            (Some(failed), Some(expected)) => {
                // Of a statement that is wrong in several ways each side may see another one first: the proxy
                // finds a row without a shard before PostgreSQL looks at anything else, and a shard looks at
                // its own rows.
                let is_of_client = |code: &str| {
                    ["21", "22", "23", "42"]
                        .iter()
                        .any(|class| code.starts_with(class))
                };
                let both = is_of_client(failed) && is_of_client(expected);
                (failed == expected || both) && got.status == wanted.status
            }
            _ => {
                if !step.is_ordered() {
                    got.rows.sort();
                    wanted.rows.sort();
                }
                got == wanted
            }
        };
        if !same {
            return Err(format!(
                "gives      {}\nPostgreSQL {}",
                show(&got),
                show(&wanted)
            ));
        }
        let verdict = match (failed, expected) {
            (Some(failed), Some(expected)) if failed != expected => {
                format!("failed {failed} for {expected}")
            }
            (Some(failed), _) => format!("failed {failed}"),
            _ => "answered".to_owned(),
        };
        self.count(verdict);
        Ok(())
    }

    /// After a refusal the oracle's transaction fails too.
    fn refused(&mut self, got: &[Frame]) -> Result<(), String> {
        let status = got
            .last()
            .map(|frame| frame.body.clone())
            .unwrap_or_default();
        let fail = Statement::simple("DO $$ BEGIN RAISE 'refused'; END $$");
        let wanted = Step::One(fail).run(&mut self.oracle)?;
        let expected = wanted
            .last()
            .map(|frame| frame.body.clone())
            .unwrap_or_default();
        match status == expected {
            true => Ok(()),
            false => Err(format!("leaves the status {status:?} for {expected:?}")),
        }
    }

    /// Runs a unit, and ends its transaction.
    fn unit(&mut self, unit: &[Step]) -> Result<(), String> {
        for step in unit {
            self.step(step)
                .map_err(|error| format!("{}\n{error}", step.show()))?;
        }
        if unit.len() > 1 {
            let end = Step::One(Statement::simple("ROLLBACK"));
            end.run(&mut self.proxy).and(end.run(&mut self.oracle))?;
        }
        Ok(())
    }

    /// Runs units on empty tables.
    fn run(&mut self, units: &[Vec<Step>]) -> Result<(), String> {
        self.checker.reset();
        let mut since = Vec::new();
        for (number, unit) in units.iter().enumerate() {
            since.extend(unit.iter().map(Step::show));
            self.unit(unit)?;
            if number % BETWEEN_CHECKS == BETWEEN_CHECKS - 1 || number + 1 == units.len() {
                let checked = self
                    .checker
                    .check()
                    .and_then(|()| self.checker.check_numbers());
                checked
                    .map_err(|error| format!("{}\nleave rows wrong: {error}", since.join("\n")))?;
                since.clear();
            }
        }
        Ok(())
    }
}

/// The fewest units of a failing run that fail too.
fn shortened(
    runner: &mut Runner,
    cluster: &Cluster,
    units: Vec<Vec<Step>>,
) -> (Vec<Vec<Step>>, String) {
    let mut units = units;
    let mut fails = |units: &[Vec<Step>]| {
        (runner.proxy, runner.oracle) = sessions(cluster);
        runner.run(units).err()
    };
    let Some(mut error) = fails(&units) else {
        return (units, "it does not fail again".to_owned());
    };
    let mut size = units.len().div_ceil(2);
    loop {
        let mut start = 0;
        while start < units.len() {
            let mut fewer = units.clone();
            fewer.drain(start..(start + size).min(units.len()));
            match fails(&fewer) {
                Some(found) => (units, error) = (fewer, found),
                None => start += size,
            }
        }
        if size == 1 {
            return (units, error);
        }
        size = size.div_ceil(2);
    }
}

fn number(name: &str, default: u64) -> u64 {
    let value = env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

#[test]
fn random_writes_are_as_on_one_postgresql() {
    let shards = usize::try_from(number("SHARDS", 3)).unwrap();
    let cluster = tables::cluster(shards);
    let mut runner = Runner::new(&cluster);
    let (first, runs) = (number("SEED", 1), number("RUNS", RUNS));
    let end = Instant::now() + Duration::from_secs(number("BUDGET", 3_600));
    let mut differences = Vec::new();
    for seed in first..first + runs {
        if Instant::now() > end || differences.len() >= DIFFERENCES {
            break;
        }
        let all = units(seed);
        (runner.proxy, runner.oracle) = sessions(&cluster);
        if let Err(first) = runner.run(&all) {
            println!("SEED={seed} fails: {first}");
            let (few, error) = shortened(&mut runner, &cluster, all);
            let steps: Vec<String> = few.concat().iter().map(Step::show).collect();
            let report = format!(
                "SEED={seed} RUNS=1\n{}\n  fails: {error}\n",
                steps.join("\n")
            );
            println!("{report}");
            differences.push(report);
        }
    }
    for (verdict, count) in &runner.verdicts {
        println!("{count:6} {verdict}");
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
