//! The state of a client's transaction; the commit of one on several shards, and its recovery.
//!
//! All is pure but [`barrier`] and [`recovery`].
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
//! `ROLLBACK TO` leads from Failed to Open, and from Broken to Begun if no shard had joined.
//!
//! `Open` and `Failed` are what the shard itself reports that the session works with at the time;
//! `Begun` and `Broken` exist only here, so no shard has a transaction open that never needed it. What
//! the transaction has said before a shard joins it is its [`Opening`].

pub mod barrier;
pub mod commit;
pub mod deadlock;
pub mod gid;
mod opening;
pub mod recovery;

use crate::wire::backend::Status;

pub use opening::Opening;

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
    /// Failed with no shard in it: everything but its end is refused (`25P02`), and the way back to a
    /// savepoint of what was said before any shard joined it.
    Broken(Option<Opening>),
}

impl Transaction {
    /// The status that the client sees in ReadyForQuery.
    pub fn status(&self) -> Status {
        match self {
            Transaction::Idle => Status::Idle,
            Transaction::Begun(_) | Transaction::Open => Status::Transaction,
            Transaction::Failed | Transaction::Broken(_) => Status::Failed,
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
        *self = match std::mem::take(self) {
            Transaction::Begun(opening) => Transaction::Broken(Some(opening)),
            Transaction::Open | Transaction::Failed => Transaction::Broken(None),
            other => other,
        };
    }

    /// Whether it has failed with no shard in it.
    pub fn is_broken(&self) -> bool {
        matches!(self, Transaction::Broken(_))
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
    fn an_error_breaks_only_a_transaction() {
        let mut transaction = Transaction::Idle;
        transaction.fail();
        assert_eq!(transaction, Transaction::Idle);
        let mut transaction = Transaction::Open;
        transaction.fail();
        transaction.fail();
        assert_eq!(transaction, Transaction::Broken(None));
        assert_eq!(transaction.status(), Status::Failed);
        let opening = Opening::plain("BEGIN");
        let mut transaction = Transaction::Begun(opening.clone());
        transaction.fail();
        transaction.fail();
        assert_eq!(transaction, Transaction::Broken(Some(opening)));
    }
}
