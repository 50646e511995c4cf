//! SERIALIZABLE transactions and several shards: the setting `shardwire.serializable`.
//!
//! Each server makes sure that what it serves could have run one after the other. Of two servers' orders
//! nobody knows whether they are one: two transactions that each read on one shard what the other writes on
//! another may both be committed. So by default (`one_shard`) a SERIALIZABLE transaction stays on one shard,
//! and a second is refused. With `snapshot` it may use all, with what is promised to REPEATABLE READ, and
//! besides each shard's own watch: one that finds, even where it was only read, that the transaction must
//! not be committed, has it rolled back everywhere (`40001`).

use crate::error::{Error, Result};
use crate::session::Session;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;

/// What becomes of a SERIALIZABLE transaction that needs a second shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serializable {
    /// It is refused.
    #[default]
    OneShard,
    /// It has one snapshot of all shards.
    Snapshot,
}

impl Serializable {
    /// Reads the setting's value.
    ///
    /// # Errors
    /// `22023` for any other.
    pub fn read(value: &str) -> Result<Serializable> {
        match value.to_ascii_lowercase().as_str() {
            "one_shard" => Ok(Serializable::OneShard),
            "snapshot" => Ok(Serializable::Snapshot),
            _ => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "invalid value for parameter \"shardwire.serializable\"",
            )
            .hint("Available values: one_shard, snapshot.")),
        }
    }

    /// The setting's value.
    pub fn word(self) -> &'static str {
        match self {
            Serializable::OneShard => "one_shard",
            Serializable::Snapshot => "snapshot",
        }
    }
}

impl Session {
    /// Whether the transaction at hand may be SERIALIZABLE.
    pub(super) fn may_be_serializable(&self) -> bool {
        let says = |sql: &str| sql.to_ascii_lowercase().contains("serializable");
        let default = self.settings.server().get("default_transaction_isolation");
        let begun = match &self.transaction {
            Transaction::Begun(opening) => says(&opening.sql()),
            Transaction::Open => says(&self.others.opening.sql()),
            _ => false,
        };
        begun || default.is_some_and(says)
    }

    /// Whether the transaction at hand has to stay on one shard because it may be SERIALIZABLE.
    pub(super) fn is_confined(&self) -> bool {
        self.settings.context().serializable == Serializable::OneShard && self.may_be_serializable()
    }
}
