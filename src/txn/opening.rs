//! What a shard that joins a transaction must be told before its first statement there; pure.

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// Statements that are kept for shards that join later at most.
const LARGEST_OPENING: usize = 1_000;

/// What a shard must be told before its first statement: the BEGIN, and whatever of the transaction's
/// settings and savepoints still stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    steps: Vec<Step>,
    read_only: bool,
    certain: bool,
    /// The BEGIN names modes.
    has_modes: bool,
    /// All its statements share one snapshot.
    is_snapshot_shared: bool,
    /// Something happened that can't be repeated on another shard.
    is_sealed: bool,
    /// The client has been told what its settings became.
    has_told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The BEGIN, or what changes its modes: AND CHAIN repeats it.
    Modes(String),
    /// A setting.
    Set(String),
    /// A savepoint.
    Savepoint { name: String, statement: String },
}

impl Step {
    fn sql(&self) -> &str {
        match self {
            Step::Modes(sql) | Step::Set(sql) => sql,
            Step::Savepoint { statement, .. } => statement,
        }
    }
}

impl Opening {
    /// Opens with a BEGIN that names no modes; no server can refuse it.
    pub fn plain(begin: impl Into<String>) -> Opening {
        Opening {
            steps: vec![Step::Modes(begin.into())],
            certain: true,
            ..Opening::default()
        }
    }

    /// Opens with a BEGIN that names modes. `certain` says that no server can refuse it, so that the
    /// first statement may follow without waiting.
    pub fn with_modes(begin: impl Into<String>, read_only: bool, certain: bool) -> Opening {
        Opening {
            read_only,
            certain,
            has_modes: true,
            ..Opening::plain(begin)
        }
    }

    /// Of a transaction that began out of the proxy's sight: no other shard can join it.
    pub fn unknown() -> Opening {
        Opening {
            is_sealed: true,
            ..Opening::default()
        }
    }

    /// Whether it is not known how the transaction began.
    pub fn is_unknown(&self) -> bool {
        self.steps.is_empty()
    }

    /// Says that all statements share one snapshot (REPEATABLE READ, SERIALIZABLE).
    #[must_use]
    pub fn sharing_a_snapshot(mut self, is_shared: bool) -> Opening {
        self.is_snapshot_shared |= is_shared;
        self
    }

    /// Adds a setting that was answered here, or made on another shard, and must be repeated.
    ///
    /// # Errors
    /// `54000` when there are too many steps already.
    pub fn set(&mut self, statement: impl Into<String>) -> Result<()> {
        self.add(Step::Set(statement.into()))
    }

    /// Adds a statement that changes the transaction's modes.
    ///
    /// # Errors
    /// As [`Opening::set`].
    pub fn modes(&mut self, statement: impl Into<String>, shares_snapshot: bool) -> Result<()> {
        self.has_modes = true;
        self.is_snapshot_shared |= shares_snapshot;
        self.add(Step::Modes(statement.into()))
    }

    /// Adds a savepoint.
    ///
    /// # Errors
    /// As [`Opening::set`].
    pub fn savepoint(&mut self, name: &str, statement: impl Into<String>) -> Result<()> {
        let (name, statement) = (name.to_owned(), statement.into());
        self.add(Step::Savepoint { name, statement })
    }

    /// `ROLLBACK TO`: takes back what was added since the savepoint, which itself stays.
    pub fn roll_back_to(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            self.steps.truncate(at + 1);
        }
    }

    /// Whether there is a savepoint of this name.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// The name of the savepoint that was made last and stands.
    pub fn latest_savepoint(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Savepoint { name, .. } => Some(name.as_str()),
            Step::Modes(_) | Step::Set(_) => None,
        })
    }

    /// `RELEASE`: forgets the savepoint and those made since; their settings stay.
    pub fn release(&mut self, name: &str) {
        if let Some(at) = self.position(name) {
            let later = self.steps.split_off(at);
            let is_kept = |step: &Step| !matches!(step, Step::Savepoint { .. });
            self.steps.extend(later.into_iter().filter(is_kept));
        }
    }

    /// `AND CHAIN`: the next transaction begins with the same modes.
    pub fn chain(&mut self) {
        self.steps.retain(|step| matches!(step, Step::Modes(_)));
        self.is_sealed = self.steps.is_empty();
        self.has_told = false;
    }

    /// The settings alone, for a connection that has no part in the transaction.
    pub fn settings_sql(&self) -> String {
        let settings = self.steps.iter().filter_map(|step| match step {
            Step::Set(sql) => Some(sql.as_str()),
            Step::Modes(_) | Step::Savepoint { .. } => None,
        });
        settings.collect::<Vec<&str>>().join(";\n")
    }

    /// Notes whether the client is told what a setting has become.
    pub fn note_told(&mut self, is_told: bool) {
        self.has_told |= is_told;
    }

    /// Whether the client has been told what its settings became.
    pub fn has_told(&self) -> bool {
        self.has_told
    }

    /// Notes that something happened that can't be repeated on another shard.
    pub fn seal(&mut self) {
        self.is_sealed = true;
    }

    fn add(&mut self, step: Step) -> Result<()> {
        if self.steps.len() >= LARGEST_OPENING {
            return Err(Error::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many settings and savepoints in a transaction that may use another shard",
            ));
        }
        self.certain = false;
        self.steps.push(step);
        Ok(())
    }

    /// Where the latest savepoint of this name stands.
    fn position(&self, wanted: &str) -> Option<usize> {
        self.steps
            .iter()
            .rposition(|step| matches!(step, Step::Savepoint { name, .. } if name == wanted))
    }

    /// Whether it is a mere BEGIN, which changes nothing about how the first statement runs.
    pub fn is_bare(&self) -> bool {
        self.steps.len() == 1 && !self.has_modes
    }

    /// Whether the transaction may only read, so that a secondary may serve it.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether all its statements share one snapshot (REPEATABLE READ, SERIALIZABLE).
    pub fn shares_snapshot(&self) -> bool {
        self.is_snapshot_shared
    }

    /// Whether no server can refuse it.
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// Whether another shard may join after the first: what was said can be repeated there, and the
    /// transaction does not need one snapshot of all its shards.
    pub fn may_be_joined(&self) -> bool {
        !self.is_sealed && !self.is_snapshot_shared
    }

    /// The SQL, as one simple query.
    pub fn sql(&self) -> String {
        let steps: Vec<&str> = self.steps.iter().map(Step::sql).collect();
        steps.join(";\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_here_is_repeated_on_the_shard() {
        let mut opening = Opening::plain("BEGIN");
        assert!(opening.is_bare() && opening.is_certain());
        opening.savepoint("a", "SAVEPOINT a").unwrap();
        assert_eq!(opening.sql(), "BEGIN;\nSAVEPOINT a");
        assert!(!opening.is_bare() && !opening.is_certain());
        assert_eq!(opening.latest_savepoint(), Some("a"));
    }

    #[test]
    fn a_shard_that_joins_late_is_told_what_still_stands() {
        let mut opening = Opening::plain("BEGIN");
        opening.savepoint("a", "SAVEPOINT a").unwrap();
        opening.set("SET LOCAL x = 1").unwrap();
        opening.savepoint("b", "SAVEPOINT b").unwrap();
        opening.set("SET LOCAL x = 2").unwrap();
        opening.roll_back_to("b");
        opening.release("a");
        assert_eq!(opening.sql(), "BEGIN;\nSET LOCAL x = 1");
        opening.roll_back_to("a");
        assert_eq!(opening.sql(), "BEGIN;\nSET LOCAL x = 1");
    }

    #[test]
    fn of_two_savepoints_of_one_name_the_later_counts() {
        let mut opening = Opening::plain("BEGIN");
        opening.savepoint("a", "SAVEPOINT a").unwrap();
        opening.set("SET x = 1").unwrap();
        opening.savepoint("a", "SAVEPOINT a").unwrap();
        opening.set("SET x = 2").unwrap();
        opening.roll_back_to("a");
        assert_eq!(
            opening.sql(),
            "BEGIN;\nSAVEPOINT a;\nSET x = 1;\nSAVEPOINT a"
        );
        opening.release("a");
        assert_eq!(opening.sql(), "BEGIN;\nSAVEPOINT a;\nSET x = 1");
    }

    #[test]
    fn a_chained_transaction_begins_with_the_same_modes() {
        let mut opening = Opening::plain("BEGIN");
        opening.modes("SET TRANSACTION READ ONLY", false).unwrap();
        opening.set("SET LOCAL x = 1").unwrap();
        opening.chain();
        assert_eq!(opening.sql(), "BEGIN;\nSET TRANSACTION READ ONLY");
    }

    #[test]
    fn one_snapshot_is_not_taken_on_two_shards() {
        let opening = Opening::with_modes("BEGIN ISOLATION LEVEL REPEATABLE READ", false, true);
        assert!(opening.clone().may_be_joined());
        assert!(!opening.sharing_a_snapshot(true).may_be_joined());
    }
}
