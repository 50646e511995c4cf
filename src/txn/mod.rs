//! The state of a client's transaction, and what a shard must be told when it joins; pure.
//!
//! ```text
//!          BEGIN                first statement that needs a shard
//!   Idle ────────▶ Begun ──────────────────────────────────────▶ Open ──┐
//!    ▲               │ error                                error │      │
//!    │               ▼                                            ▼      │
//!    │            Broken ◀──────────── shard lost ──────────── Failed    │
//!    └───── ROLLBACK, COMMIT ◀───────────────────────────────────┴───────┘
//! ```
//!
//! `Open` and `Failed` are what the shard itself reports; `Begun` and `Broken` exist only here, so no
//! shard has a transaction open that never needed it.

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::backend::Status;

/// Statements that wait for a shard at most.
const LARGEST_OPENING: usize = 1_000;

/// A client's transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    /// Outside a transaction block.
    #[default]
    Idle,
    /// BEGIN was answered; no shard knows of it yet.
    Begun(Opening),
    /// Open on the shard that the session holds.
    Open,
    /// Failed on the shard that the session holds.
    Failed,
    /// Failed with no shard in it: everything but its end is refused (`25P02`).
    Broken,
}

/// What a shard must be told before its first statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    statements: Vec<String>,
    read_only: bool,
    certain: bool,
    /// The BEGIN names modes.
    has_modes: bool,
}

impl Opening {
    /// Opens with a BEGIN that names no modes; no server can refuse it.
    pub fn plain(begin: impl Into<String>) -> Opening {
        let statements = vec![begin.into()];
        Opening {
            statements,
            read_only: false,
            certain: true,
            has_modes: false,
        }
    }

    /// Opens with a BEGIN that names modes. `certain` says that no server can refuse it, so that the
    /// first statement may follow without waiting.
    pub fn with_modes(begin: impl Into<String>, read_only: bool, certain: bool) -> Opening {
        let statements = vec![begin.into()];
        Opening {
            statements,
            read_only,
            certain,
            has_modes: true,
        }
    }

    /// Adds a statement that was answered here and must be repeated on the shard.
    ///
    /// # Errors
    /// `54000` when there are too many already.
    pub fn add(&mut self, statement: impl Into<String>) -> Result<()> {
        if self.statements.len() >= LARGEST_OPENING {
            return Err(Error::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many settings and savepoints before the first query of a transaction",
            ));
        }
        self.certain = false;
        self.statements.push(statement.into());
        Ok(())
    }

    /// Whether it is a mere BEGIN, which changes nothing about how the first statement runs.
    pub fn is_bare(&self) -> bool {
        self.statements.len() == 1 && !self.has_modes
    }

    /// Whether the transaction may only read, so that a secondary may serve it.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether no server can refuse it.
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// The SQL, as one simple query.
    pub fn sql(&self) -> String {
        self.statements.join(";\n")
    }
}

impl Transaction {
    /// The status that the client sees in ReadyForQuery.
    pub fn status(&self) -> Status {
        match self {
            Transaction::Idle => Status::Idle,
            Transaction::Begun(_) | Transaction::Open => Status::Transaction,
            Transaction::Failed | Transaction::Broken => Status::Failed,
        }
    }

    /// Takes the status that the shard in it reports.
    pub fn report(&mut self, status: Status) {
        *self = match status {
            Status::Idle => Transaction::Idle,
            Status::Transaction => Transaction::Open,
            Status::Failed => Transaction::Failed,
        };
    }

    /// Whether a shard has it open.
    pub fn is_on_shard(&self) -> bool {
        matches!(self, Transaction::Open | Transaction::Failed)
    }

    /// Takes an error that no shard reported: a transaction block is broken by it.
    pub fn fail(&mut self) {
        if *self != Transaction::Idle {
            *self = Transaction::Broken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_begun_transaction_is_one_to_the_client_and_to_nobody_else() {
        let begun = Transaction::Begun(Opening::plain("BEGIN"));
        assert_eq!(begun.status(), Status::Transaction);
        assert!(!begun.is_on_shard());
    }

    #[test]
    fn what_was_answered_here_is_repeated_on_the_shard() {
        let mut opening = Opening::plain("BEGIN");
        assert!(opening.is_bare() && opening.is_certain());
        opening.add("SAVEPOINT a").unwrap();
        assert_eq!(opening.sql(), "BEGIN;\nSAVEPOINT a");
        assert!(!opening.is_bare() && !opening.is_certain());
    }

    #[test]
    fn an_error_breaks_only_a_transaction() {
        let mut transaction = Transaction::Idle;
        transaction.fail();
        assert_eq!(transaction, Transaction::Idle);
        let mut transaction = Transaction::Open;
        transaction.fail();
        assert_eq!(transaction.status(), Status::Failed);
    }
}
