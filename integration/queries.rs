//! Random complex queries on the proxy and on one PostgreSQL: the same answer, or a refusal that says why.
//!
//! The queries leave PostgreSQL no choice: what is cut off is in a total order, and values that are
//! equal look alike. `QUERIES_SEED` and `QUERIES` in the environment make other and longer runs; they
//! print how often what was refused.

mod expression;
mod generate;
mod schema;
mod select;

use std::collections::BTreeMap;
use std::env;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::compare::{Mode, Outcome, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, DEADLINE, Raw, message};

use generate::{Generator, Parameter};

/// So many queries on each cluster, unless `QUERIES` says otherwise.
const QUERIES: u64 = 110;
/// The first seed, unless `QUERIES_SEED` says otherwise.
const SEED: u64 = 61_000;
/// After so many differences the rest of a run says little.
const DIFFERENCES: usize = 20;
/// What takes longer is no test of answers.
const PATIENCE: &str = "SET statement_timeout = '4s'";
/// What a transaction does before it reads.
const WRITES: [&str; 4] = [
    "SELECT 1",
    "INSERT INTO users (user_id, name, title, age) VALUES (1000, 'Own', 'Ähre', 3)",
    "UPDATE orders SET total = total + 1 WHERE user_id = 8",
    "UPDATE settings SET value = 2 WHERE key = 'a'",
];

/// A query and how it is sent.
struct Question {
    sql: String,
    parameters: Vec<Parameter>,
    mode: Mode,
    ordered: bool,
    /// Statements before it, all of them in one transaction.
    before: Vec<&'static str>,
    /// It is prepared under a name, and run twice.
    twice: bool,
}

/// What came of it.
enum Verdict {
    Same,
    /// Both failed, with this SQLSTATE.
    Failed(String),
    /// The proxy refused, with this message.
    Refused(String),
    /// It took too long on one of them.
    Slow,
}

fn question(seed: u64) -> Question {
    let mut generator = Generator::new(seed);
    let query = generator.query(None);
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    let mode = match random.random_range(0..3) {
        0 if generator.parameters.is_empty() => Mode::Simple,
        1 => Mode::Binary,
        _ => Mode::Text,
    };
    let begin = ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"][random.random_range(0..2)];
    let before = match random.random_bool(0.12) {
        true => vec![begin, WRITES[random.random_range(0..WRITES.len())]],
        false => Vec::new(),
    };
    Question {
        sql: query.sql,
        parameters: generator.parameters,
        mode,
        ordered: query.ordered,
        before,
        twice: mode != Mode::Simple && random.random_bool(0.2),
    }
}

impl Question {
    fn messages(&self) -> Vec<Vec<u8>> {
        if self.mode == Mode::Simple {
            return vec![message::query(&self.sql)];
        }
        let types: Vec<u32> = self.parameters.iter().map(|one| one.oid).collect();
        let formats: Vec<i16> = self.parameters.iter().map(|one| one.format).collect();
        let values: Vec<_> = self
            .parameters
            .iter()
            .map(|one| one.bytes.clone())
            .collect();
        let name = if self.twice { "q" } else { "" };
        let run = || {
            let mut out = message::bind(
                "",
                name,
                &formats,
                &values,
                &[i16::from(self.mode == Mode::Binary)],
            );
            out.extend(message::describe(b'P', ""));
            out.extend(message::execute("", 0));
            out.extend(message::sync());
            out
        };
        let mut first = message::parse(name, &self.sql, &types);
        if !self.twice {
            first.extend(run());
            return vec![first];
        }
        first.extend(message::describe(b'S', name));
        first.extend(message::sync());
        let mut last = message::close(b'S', name);
        last.extend(message::sync());
        vec![first, run(), run(), last]
    }

    /// What comes of it on a server: the last answer before a failure.
    fn ask(&self, raw: &mut Raw) -> Vec<Vec<Frame>> {
        for sql in &self.before {
            raw.query(sql);
        }
        let mut answers = Vec::new();
        for bytes in self.messages() {
            raw.send(&bytes);
            answers.push(raw.read_until(b'Z', 1));
        }
        if !self.before.is_empty() {
            raw.query("ROLLBACK");
        }
        answers
    }

    fn show(&self) -> String {
        let value = |one: &Parameter| match &one.bytes {
            Some(bytes) if one.format == 0 => String::from_utf8_lossy(bytes).into_owned(),
            bytes => format!("{bytes:?}"),
        };
        let values: Vec<String> = self
            .parameters
            .iter()
            .map(|one| format!("{} of {}", value(one), one.oid))
            .collect();
        format!(
            "{:?}\n{}\n  {:?} twice {} {values:?}",
            self.before, self.sql, self.mode, self.twice
        )
    }

    /// Holds the answers against each other.
    fn judge(&self, got: &[Vec<Frame>], wanted: &[Vec<Frame>]) -> Result<Verdict, String> {
        let errors = |answers: &[Vec<Frame>]| {
            let frames = answers.iter().flatten();
            frames
                .filter(|frame| frame.tag == b'E')
                .cloned()
                .collect::<Vec<Frame>>()
        };
        let (failed, expected) = (errors(got), errors(wanted));
        let code = |errors: &[Frame]| errors.first().and_then(|frame| frame.field(b'C'));
        let (failure, expected) = (code(&failed), code(&expected));
        if [&failure, &expected]
            .iter()
            .any(|code| code.as_deref() == Some("57014"))
        {
            return Ok(Verdict::Slow);
        }
        if let Some(refusal) = failed.first()
            && failure.as_deref() == Some("0A000")
            && refusal.field(b'H').is_some()
        {
            let said = got.iter().flatten().any(|frame| frame.tag == b'D');
            let field = |code| refusal.field(code).unwrap_or_default();
            return match said {
                true => Err(format!("{}\nis refused after rows", self.show())),
                false => Ok(Verdict::Refused(format!(
                    "{}: {}",
                    field(b'M'),
                    field(b'D')
                ))),
            };
        }
        if let (Some(failure), Some(expected)) = (&failure, &expected)
            && failure == expected
        {
            return Ok(Verdict::Failed(failure.clone()));
        }
        for (got, wanted) in got.iter().zip(wanted) {
            let (mut got, mut wanted) = (outcome(got), outcome(wanted));
            if !self.ordered {
                got.rows.sort();
                wanted.rows.sort();
            }
            if got != wanted {
                return Err(format!(
                    "{}\ngives      {}\nPostgreSQL {}",
                    self.show(),
                    show(&got),
                    show(&wanted)
                ));
            }
        }
        Ok(Verdict::Same)
    }
}

fn show(outcome: &Outcome) -> String {
    let value = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(value).collect::<Vec<_>>().join("|");
    let rows: Vec<String> = outcome.rows.iter().take(15).map(row).collect();
    format!(
        "{} rows {rows:?} {:?} {:?} columns {:?}",
        outcome.rows.len(),
        outcome.tags,
        outcome.reports,
        outcome.columns
    )
}

/// Sessions on the proxy and on the oracle.
fn sessions(cluster: &Cluster) -> (Raw, Raw) {
    let mut sessions = (cluster.proxy().raw(), cluster.oracle().raw());
    for raw in [&mut sessions.0, &mut sessions.1] {
        raw.set_patience(DEADLINE);
        raw.query(PATIENCE);
    }
    sessions
}

fn number(name: &str, default: u64) -> u64 {
    let value = env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

/// Runs the queries of so many shards; what differs, and how often what was said.
fn run(shards: usize, first: u64) -> (Vec<String>, BTreeMap<String, u64>) {
    let cluster = schema::cluster(shards);
    let (mut proxy, mut oracle) = sessions(&cluster);
    let mut differences = Vec::new();
    let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in (first..).take(usize::try_from(number("QUERIES", QUERIES)).unwrap()) {
        let question = question(seed);
        let (got, wanted) = (question.ask(&mut proxy), question.ask(&mut oracle));
        let verdict = match question.judge(&got, &wanted) {
            Ok(Verdict::Same) => "answered".to_owned(),
            Ok(Verdict::Slow) => "slow".to_owned(),
            Ok(Verdict::Failed(code)) => format!("failed {code}"),
            Ok(Verdict::Refused(why)) => {
                if env::var("QUERIES").is_ok() {
                    println!("{seed} refused {why}\n  {}", question.show());
                }
                format!("refused {why}")
            }
            Err(difference) => {
                let difference = format!("{shards} shards, QUERIES_SEED={seed}\n{difference}\n");
                println!("{difference}");
                differences.push(difference);
                (proxy, oracle) = sessions(&cluster);
                "different".to_owned()
            }
        };
        *verdicts.entry(verdict).or_default() += 1;
        if differences.len() >= DIFFERENCES {
            break;
        }
    }
    (differences, verdicts)
}

#[test]
fn random_complex_queries_are_postgresqls() {
    let seed = number("QUERIES_SEED", SEED);
    for (shards, first) in [(2, seed), (4, seed + 1_000_000)] {
        let (differences, verdicts) = run(shards, first);
        for (verdict, count) in &verdicts {
            println!("{count:6} {verdict}");
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        let count = |of: &str| {
            verdicts
                .iter()
                .filter(|(name, _)| name.starts_with(of))
                .map(|(_, count)| count)
                .sum::<u64>()
        };
        let all: u64 = verdicts.values().sum();
        assert!(
            count("refused") * 25 <= all,
            "too many are refused: {verdicts:?}"
        );
        assert!(
            count("answered") * 10 > all * 8,
            "too few are answered: {verdicts:?}"
        );
    }
}
