//! Runs statements on the proxy and on the single PostgreSQL with all rows, and compares.

use super::raw::{Frame, Raw, values};
use super::transcript::FIRST_USER_OID;
use super::{Cluster, message};

/// How a statement is sent and its rows come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One Query message.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync; values as text.
    Text,
    /// The same; results in binary.
    Binary,
}

/// All modes.
pub const MODES: [Mode; 3] = [Mode::Simple, Mode::Text, Mode::Binary];

/// What a statement gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name, type, type modifier and format of each column, of each result.
    pub columns: Vec<Vec<(String, u32, i32, i16)>>,
    /// Rows of all results.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// Command tags.
    pub tags: Vec<String>,
    /// SQLSTATE and message of errors and notices, in order.
    pub reports: Vec<(String, String)>,
    /// Transaction status at the end.
    pub status: Vec<u8>,
}

/// Two sessions that must behave alike.
pub struct Pair {
    pub proxy: Raw,
    pub oracle: Raw,
}

impl Pair {
    /// Logs in to both.
    pub fn new(cluster: &Cluster) -> Pair {
        Pair {
            proxy: cluster.proxy().raw(),
            oracle: cluster.oracle().raw(),
        }
    }

    /// Runs it on both in every mode; the outcomes must agree, rows in order.
    pub fn same(&mut self, sql: &str) {
        self.same_with(sql, &[]);
    }

    /// As [`Pair::same`], with parameters as text (not in simple mode, which has none).
    pub fn same_with(&mut self, sql: &str, parameters: &[Option<&str>]) {
        for mode in MODES {
            if mode != Mode::Simple || parameters.is_empty() {
                self.compare(mode, sql, parameters, true);
            }
        }
    }

    /// As [`Pair::same`], for statements whose rows have no order.
    pub fn same_rows(&mut self, sql: &str) {
        for mode in MODES {
            self.compare(mode, sql, &[], false);
        }
    }

    /// Runs it on both once, in one mode: for statements that change something.
    pub fn once(&mut self, sql: &str) {
        self.compare(Mode::Simple, sql, &[], true);
    }

    /// The proxy gives what PostgreSQL gives (rows in any order unless the statement says ORDER
    /// BY) or refuses; never anything else. Returns whether it did it.
    pub fn same_or_refused(&mut self, sql: &str) -> bool {
        let got = outcome(&frames(&mut self.proxy, Mode::Text, sql, &[]));
        if got.reports.iter().any(|(code, _)| code == "0A000") {
            self.refused(sql);
            return false;
        }
        let ordered = is_ordered(sql);
        for mode in MODES {
            self.compare(mode, sql, &[], ordered);
        }
        true
    }

    /// The proxy must refuse it as unsupported, saying why and what to write instead, and must
    /// still be of use afterwards.
    pub fn refused(&mut self, sql: &str) {
        for mode in MODES {
            let frames = frames(&mut self.proxy, mode, sql, &[]);
            let error = frames.iter().find(|frame| frame.tag == b'E');
            let error = error.unwrap_or_else(|| panic!("{sql}\nis not refused in {mode:?}"));
            assert_eq!(
                error.field(b'C').unwrap(),
                "0A000",
                "{sql}\n{mode:?}: {error:?}"
            );
            for (code, name) in [(b'D', "detail"), (b'H', "hint")] {
                let field = error.field(code);
                let sentence = field
                    .as_ref()
                    .is_some_and(|text| text.ends_with(['.', '?']));
                assert!(
                    sentence,
                    "{sql}\nis refused without a whole {name}: {field:?}"
                );
            }
            let leaked = frames.iter().any(|frame| matches!(frame.tag, b'D' | b'C'));
            assert!(
                !leaked,
                "{sql}\nis refused, but not before something happened"
            );
        }
    }

    /// Runs it on both once; rows in any order unless they are `ordered`.
    pub fn compare(&mut self, mode: Mode, sql: &str, parameters: &[Option<&str>], ordered: bool) {
        let mut got = outcome(&frames(&mut self.proxy, mode, sql, parameters));
        let mut wanted = outcome(&frames(&mut self.oracle, mode, sql, parameters));
        let upper = sql.to_uppercase();
        let cuts = ["LIMIT", "OFFSET", "FETCH"];
        if !upper.contains("ORDER BY") && cuts.iter().any(|word| upper.contains(word)) {
            // Some of the rows, PostgreSQL doesn't say which.
            for rows in [&mut got.rows, &mut wanted.rows] {
                rows.iter_mut().for_each(Vec::clear);
            }
        }
        if !ordered {
            got.rows.sort();
            wanted.rows.sort();
        }
        assert!(
            got == wanted,
            "{sql}\n{mode:?} {parameters:?}\ngives      {}\nPostgreSQL {}",
            show(&got),
            show(&wanted),
        );
    }
}

/// Whether a statement puts its rows in order: not a window or an aggregate in it.
fn is_ordered(sql: &str) -> bool {
    let mut depth = 0;
    let upper = sql.to_uppercase();
    let outside = upper.chars().filter(|character| {
        depth += i32::from(*character == '(');
        depth -= i32::from(*character == ')');
        depth == 0
    });
    outside.collect::<String>().contains("ORDER BY")
}

/// Sends a statement in a mode and reads to the end of its answer.
pub fn frames(raw: &mut Raw, mode: Mode, sql: &str, parameters: &[Option<&str>]) -> Vec<Frame> {
    if mode == Mode::Simple {
        return raw.query(sql);
    }
    let bytes = |value: &Option<&str>| value.map(|text| text.as_bytes().to_vec());
    let parameters: Vec<_> = parameters.iter().map(bytes).collect();
    let mut out = message::parse("", sql, &[]);
    out.extend(message::bind(
        "",
        "",
        &[],
        &parameters,
        &[i16::from(mode == Mode::Binary)],
    ));
    out.extend(message::describe(b'P', ""));
    out.extend(message::execute("", 0));
    out.extend(message::sync());
    raw.send(&out);
    raw.read_until(b'Z', 1)
}

/// Gathers what an answer says.
pub fn outcome(frames: &[Frame]) -> Outcome {
    let mut outcome = Outcome {
        columns: Vec::new(),
        rows: Vec::new(),
        tags: Vec::new(),
        reports: Vec::new(),
        status: Vec::new(),
    };
    for frame in frames {
        match frame.tag {
            b'T' => outcome.columns.push(columns(frame)),
            b'D' => outcome.rows.push(values(frame)),
            b'C' => outcome
                .tags
                .push(String::from_utf8_lossy(&frame.body).into_owned()),
            b'E' | b'N' => {
                let field = |code| frame.field(code).unwrap_or_default();
                outcome.reports.push((field(b'C'), field(b'M')));
            }
            b'Z' => outcome.status.clone_from(&frame.body),
            _ => {}
        }
    }
    outcome
}

fn columns(frame: &Frame) -> Vec<(String, u32, i32, i16)> {
    let mut rest = &frame.body[2..];
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let column = &rest[end + 1..];
        let four = |at: usize| <[u8; 4]>::try_from(&column[at..at + 4]).unwrap();
        let format = i16::from_be_bytes([column[16], column[17]]);
        // OIDs of the test's own types depend on what was made before them.
        let oid = u32::from_be_bytes(four(6)).min(FIRST_USER_OID);
        columns.push((name, oid, i32::from_be_bytes(four(12)), format));
        rest = &column[18..];
    }
    columns
}

fn show(outcome: &Outcome) -> String {
    let value = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(value).collect::<Vec<_>>().join("|");
    let rows: Vec<String> = outcome.rows.iter().take(20).map(row).collect();
    format!(
        "{} rows {rows:?} {:?} {:?} columns {:?} status {:?}",
        outcome.rows.len(),
        outcome.tags,
        outcome.reports,
        outcome.columns,
        String::from_utf8_lossy(&outcome.status),
    )
}
