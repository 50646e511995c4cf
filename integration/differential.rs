//! Random statements on the proxy and on the oracle: the same answer, or a refusal that changed
//! nothing; and every row is where its key says.
//!
//! `SEED` and `STATEMENTS` in the environment make other and longer runs.

mod cases;
mod check;
mod generate;
mod modify;
mod query;
pub mod schema;
pub mod value;
mod write_cases;

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::compare::{Mode, Outcome, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw, message, transcript};

use check::Checker;
use generate::Generator;
use value::Parameter;

/// So many statements, unless `STATEMENTS` says otherwise.
const STATEMENTS: u64 = 1500;
/// The first seed, unless `SEED` says otherwise.
const SEED: u64 = 20_240_229;
/// After so many differences the rest of a run says little.
const DIFFERENCES: usize = 25;
/// No answer within this time is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so many scripts the rows are as they were at first.
const FRESH_ROWS: u64 = 60;

/// A statement and how it is sent.
struct Step {
    sql: String,
    parameters: Vec<Parameter>,
    mode: Mode,
    writes: bool,
    ordered: bool,
    in_transaction: bool,
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// Both failed, with this SQLSTATE.
    Failed(String),
    /// The proxy refused, with this message.
    Refused(String),
}

/// Sessions on both sides, and the rows of all servers.
struct Runner {
    proxy: Raw,
    oracle: Raw,
    checker: Checker,
    /// What has changed rows since they were fresh.
    changes: Vec<String>,
    /// How often what was said.
    verdicts: BTreeMap<String, usize>,
}

impl Step {
    fn simple(sql: impl Into<String>) -> Step {
        Step {
            sql: sql.into(),
            parameters: Vec::new(),
            mode: Mode::Simple,
            writes: true,
            ordered: false,
            in_transaction: true,
        }
    }

    fn show(&self) -> String {
        let parameter = |parameter: &Parameter| {
            let Parameter {
                oid, format, text, ..
            } = parameter;
            format!("{text:?} of type {oid} in format {format}")
        };
        let parameters: Vec<String> = self.parameters.iter().map(parameter).collect();
        format!("{}\n  {:?} {}", self.sql, self.mode, parameters.join(", "))
    }

    /// Sends it and reads its answer; an error when that does not come.
    fn run(&self, raw: &mut Raw) -> Result<Vec<Frame>, String> {
        raw.send(&self.messages());
        let (frames, end) = raw.try_read_until(b'Z', 1);
        let ended = frames.last().is_some_and(|frame| frame.tag == b'Z');
        match end {
            Ok(()) if ended => Ok(frames),
            _ => Err(format!(
                "{}\nis not answered: {end:?} after {frames:?}",
                self.show()
            )),
        }
    }

    fn messages(&self) -> Vec<u8> {
        if self.mode == Mode::Simple {
            return message::query(&self.sql);
        }
        let parameters = self.parameters.iter();
        let types: Vec<u32> = parameters.clone().map(|parameter| parameter.oid).collect();
        let formats: Vec<i16> = parameters
            .clone()
            .map(|parameter| parameter.format)
            .collect();
        let values: Vec<_> = parameters
            .map(|parameter| parameter.bytes.clone())
            .collect();
        let mut out = message::parse("", &self.sql, &types);
        out.extend(message::describe(b'S', ""));
        let results = [i16::from(self.mode == Mode::Binary)];
        out.extend(message::bind("", "", &formats, &values, &results));
        out.extend(message::describe(b'P', ""));
        out.extend(message::execute("", 0));
        out.extend(message::sync());
        out
    }
}

impl Runner {
    fn new(cluster: &Cluster) -> Runner {
        let (proxy, oracle) = sessions(cluster);
        Runner {
            proxy,
            oracle,
            checker: Checker::new(cluster),
            changes: Vec::new(),
            verdicts: BTreeMap::new(),
        }
    }

    /// Runs a step on both sides and compares.
    fn step(&mut self, step: &Step) -> Result<Verdict, String> {
        let got = step.run(&mut self.proxy)?;
        let refusal = got
            .iter()
            .find(|frame| frame.tag == b'E' && field(frame, b'C') == "0A000");
        if let Some(error) = refusal
            && !field(error, b'H').is_empty()
        {
            return refused(step, &got, error).map(Verdict::Refused);
        }
        let wanted = step.run(&mut self.oracle)?;
        if step.writes || step.in_transaction {
            self.changes.push(step.show());
        }
        let (described, promised) = (parameter_types(&got), parameter_types(&wanted));
        let (mut got, mut wanted) = (outcome(&got), outcome(&wanted));
        let code = |outcome: &Outcome| {
            let mut reports = outcome.reports.iter();
            reports
                .find(|(code, _)| !code.starts_with("00"))
                .map(|(code, _)| code.clone())
        };
        let (failed, expected) = (code(&got), code(&wanted));
        let same = if let (Some(failed), Some(expected)) = (&failed, &expected) {
            // The proxy finds a row without a shard before PostgreSQL looks at anything else.
            let early = ["23502", "23514"].contains(&failed.as_str());
            (failed == expected || early) && got.status == wanted.status
        } else {
            if takes_any(&step.sql) {
                // Which rows those are PostgreSQL doesn't say either.
                for rows in [&mut got.rows, &mut wanted.rows] {
                    rows.iter_mut().for_each(|row| row.clear());
                }
            } else if !step.ordered {
                got.rows.sort();
                wanted.rows.sort();
            }
            got == wanted && described == promised
        };
        if !same {
            return Err(format!(
                "{}\ngives      {}\nPostgreSQL {}",
                step.show(),
                show(&got),
                show(&wanted)
            ));
        }
        Ok(failed.map_or(Verdict::Same, Verdict::Failed))
    }

    /// Runs a script, a transaction if it has several steps. Ends at the first refusal.
    fn script(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut verdict = Ok(Verdict::Same);
        for step in steps {
            verdict = self.step(step);
            if let Ok(verdict) = &verdict {
                let name = match verdict {
                    Verdict::Same => "answered".to_owned(),
                    Verdict::Failed(code) => format!("failed {code}"),
                    Verdict::Refused(why) => format!("refused: {}", reason(why)),
                };
                *self.verdicts.entry(name).or_default() += 1;
            }
            // What a failed transaction says, the transcripts of `wire` hold.
            if !matches!(verdict, Ok(Verdict::Same)) {
                break;
            }
        }
        if steps.len() > 1 {
            let end = Step::simple("ROLLBACK");
            let ended = end.run(&mut self.proxy).and(end.run(&mut self.oracle));
            verdict = verdict.and_then(|verdict| ended.map(|_| verdict));
        }
        let written = steps.iter().any(|step| step.writes);
        let checked = if written || verdict.is_err() {
            self.checker.check()
        } else {
            Ok(())
        };
        let result = verdict.map(|_| ()).and(checked.map_err(|error| {
            let steps: Vec<String> = steps.iter().map(Step::show).collect();
            format!("{}\nleaves the tables wrong:\n{error}", steps.join("\n"))
        }));
        result.map_err(|error| format!("{error}\nafter\n{}", self.changes.join("\n")))
    }

    fn fresh(&mut self) {
        self.changes.clear();
        self.checker.reset();
    }
}

/// Sessions on the proxy and on the oracle.
fn sessions(cluster: &Cluster) -> (Raw, Raw) {
    let mut sessions = (cluster.proxy().raw(), cluster.oracle().raw());
    sessions.0.set_patience(PATIENCE);
    sessions.1.set_patience(PATIENCE);
    sessions
}

/// Whether a query has some of the rows of its tables, and no order says which.
fn takes_any(sql: &str) -> bool {
    let sql = sql.to_ascii_uppercase();
    !sql.contains("ORDER BY")
        && ["LIMIT", "OFFSET", "FETCH"]
            .iter()
            .any(|word| sql.contains(word))
}

/// The kinds of the parameters, as described.
fn parameter_types(frames: &[Frame]) -> Option<Vec<u8>> {
    let frame = frames.iter().find(|frame| frame.tag == b't');
    frame.map(|frame| frame.body.clone())
}

fn field(frame: &Frame, code: u8) -> String {
    frame.field(code).unwrap_or_default()
}

/// A refusal must say why and what to do, before anything else was said.
fn refused(step: &Step, frames: &[Frame], error: &Frame) -> Result<String, String> {
    let sentence = |text: String| text.ends_with(['.', '?']);
    let told = frames.iter().any(|frame| matches!(frame.tag, b'D' | b'C'));
    let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
    if told || errors != 1 || !sentence(field(error, b'D')) || !sentence(field(error, b'H')) {
        return Err(format!(
            "{}\nis refused badly:\n{}",
            step.show(),
            transcript::lines(frames)
        ));
    }
    Ok(field(error, b'M'))
}

/// The message of a refusal without names.
fn reason(message: &str) -> String {
    let mut parts = message.split('"').enumerate();
    let mut out = String::new();
    for (index, part) in parts.by_ref() {
        out += if index % 2 == 0 { part } else { "…" };
    }
    out
}

fn show(outcome: &Outcome) -> String {
    let value = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(value).collect::<Vec<_>>().join("|");
    let rows: Vec<String> = outcome.rows.iter().take(12).map(row).collect();
    format!(
        "{} rows {rows:?} {:?} {:?} columns {:?} status {:?}",
        outcome.rows.len(),
        outcome.tags,
        outcome.reports,
        outcome.columns,
        String::from_utf8_lossy(&outcome.status)
    )
}

fn mode(random: &mut StdRng, parameters: &[Parameter]) -> Mode {
    match random.random_range(0..3) {
        0 if parameters.is_empty() => Mode::Simple,
        1 => Mode::Binary,
        _ => Mode::Text,
    }
}

/// One statement of a shape, with values.
fn statement(random: &mut StdRng, shape: u64, values: u64, writes: bool) -> Step {
    let mut generator = Generator::new(shape, values);
    let (sql, ordered) = if writes {
        (generator.modification(), false)
    } else {
        let query = generator.query(None);
        (query.sql, query.ordered)
    };
    Step {
        mode: mode(random, &generator.parameters),
        writes: writes
            || sql.contains("INSERT")
            || sql.contains("UPDATE")
            || sql.contains("DELETE"),
        sql,
        parameters: generator.parameters,
        ordered,
        in_transaction: false,
    }
}

/// A statement, or a transaction of some.
fn script(seed: u64) -> Vec<Vec<Step>> {
    let mut random = StdRng::seed_from_u64(seed);
    let (shape, values) = (random.random(), random.random());
    let writes = random.random_bool(0.4);
    if random.random_bool(0.06) {
        let mut steps = vec![Step::simple("BEGIN")];
        for _ in 0..random.random_range(1..5) {
            // The same values, so that the transaction may stay on one shard.
            let writes = random.random_bool(0.6);
            let shape = random.random();
            let mut step = statement(&mut random, shape, values, writes);
            step.in_transaction = true;
            steps.push(step);
            if random.random_bool(0.2) {
                steps.push(Step::simple("SAVEPOINT s"));
            } else if random.random_bool(0.1) {
                steps.push(Step::simple("ROLLBACK TO s"));
            }
        }
        let end = ["COMMIT", "COMMIT", "ROLLBACK"][random.random_range(0..3)];
        steps.push(Step::simple(end));
        return vec![steps];
    }
    // The same shape with other values: what the proxy remembers of a shape must serve both.
    let other = random.random();
    vec![
        vec![statement(&mut random, shape, values, writes)],
        vec![statement(&mut random, shape, other, writes)],
    ]
}

fn number(name: &str, default: u64) -> u64 {
    let value = env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

#[test]
fn random_statements_are_answered_like_postgresql_or_refused() {
    let cluster = schema::cluster();
    let mut runner = Runner::new(&cluster);
    let (seed, count) = (number("SEED", SEED), number("STATEMENTS", STATEMENTS));
    let mut differences = Vec::new();
    let (mut run, mut scripts) = (0, 0);
    while run < count && differences.len() < DIFFERENCES {
        let seed = seed.wrapping_add(scripts);
        scripts += 1;
        if scripts % FRESH_ROWS == 0 {
            runner.fresh();
        }
        for steps in script(seed) {
            run += steps.len() as u64;
            if let Err(error) = runner.script(&steps) {
                println!("SEED={seed}\n{error}\n");
                differences.push(error);
                (runner.proxy, runner.oracle) = sessions(&cluster);
                runner.fresh();
            }
        }
    }
    for (verdict, count) in &runner.verdicts {
        println!("{count:6} {verdict}");
    }
    assert!(
        differences.is_empty(),
        "{} differences in {run} statements:\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
    let answered = runner.verdicts.get("answered").copied().unwrap_or_default();
    assert!(
        answered as u64 * 5 > run,
        "only {answered} of {run} are answered"
    );
}

/// All the ways to send a statement without parameters.
fn every_way(sql: &str) -> Vec<Step> {
    let step = |mode| Step {
        mode,
        ordered: sql.contains("ORDER BY"),
        writes: false,
        ..Step::simple(sql)
    };
    [Mode::Simple, Mode::Text, Mode::Binary].map(step).into()
}

/// Runs each script; panics with all differences.
fn run_all(runner: &mut Runner, cluster: &Cluster, scripts: Vec<Vec<Step>>) {
    let mut differences = Vec::new();
    for script in scripts {
        if let Err(error) = runner.script(&script) {
            differences.push(error);
            (runner.proxy, runner.oracle) = sessions(cluster);
            runner.fresh();
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}

#[test]
fn misleading_statements_are_answered_like_postgresql_or_refused() {
    let cluster = schema::cluster();
    let mut runner = Runner::new(&cluster);
    let alone = |steps: Vec<Step>| steps.into_iter().map(|step| vec![step]);
    let mut scripts: Vec<Vec<Step>> = Vec::new();
    for sql in cases::CASES {
        scripts.extend(alone(every_way(sql)));
    }
    for sql in write_cases::WRITES {
        scripts.push(vec![Step::simple(*sql)]);
    }
    for (sql, parameters) in cases::WITH_PARAMETERS {
        for mode in [Mode::Text, Mode::Binary] {
            let parameters = parameters.iter().map(|(oid, text)| Parameter {
                oid: *oid,
                format: 0,
                bytes: Some(text.as_bytes().to_vec()),
                text: (*text).to_owned(),
            });
            scripts.push(vec![Step {
                mode,
                parameters: parameters.collect(),
                writes: false,
                ..Step::simple(*sql)
            }]);
        }
    }
    for (setting, statements) in cases::SETTINGS {
        let name = setting.split_whitespace().nth(1).unwrap();
        for sql in *statements {
            for step in every_way(sql) {
                scripts.push(vec![Step::simple(*setting)]);
                scripts.push(vec![step]);
                scripts.push(vec![Step::simple(format!("RESET {name}"))]);
            }
        }
    }
    run_all(&mut runner, &cluster, scripts);
}

#[test]
fn sessions_behave_like_postgresql_or_are_refused() {
    let cluster = schema::cluster();
    let mut runner = Runner::new(&cluster);
    let mut differences = Vec::new();
    for statements in cases::SCRIPTS {
        runner.changes.clear();
        let steps: Vec<Step> = statements.iter().map(|sql| Step::simple(*sql)).collect();
        if let Err(error) = runner.script(&steps) {
            differences.push(error);
        }
        (runner.proxy, runner.oracle) = sessions(&cluster);
        runner.fresh();
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}
