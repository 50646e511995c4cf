//! A relation as the planner sees it.

use std::sync::Arc;

use crate::sharding::ColumnType;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;

/// A table, view or other relation.
#[derive(Clone, Debug)]
pub struct Relation {
    /// `pg_class.oid` on the server read.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relkind`.
    pub kind: char,
    /// Its columns in order.
    pub columns: Vec<TableColumn>,
    /// Where its rows live.
    pub location: Location,
    /// What PostgreSQL does behind a statement's back.
    pub hazards: Hazards,
}

/// A column of a relation.
#[derive(Clone, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, if it could be a shard key: its equality is equality of bytes.
    pub key_type: Option<ColumnType>,
    /// `atttypid`.
    pub type_oid: u32,
    /// Its collation orders by bytes, or it has none.
    pub bytewise: bool,
    /// Equal values are equal bytes as far as its collation goes.
    pub deterministic: bool,
    /// Its default draws from a sequence.
    pub sequence_default: bool,
    /// It is computed from other columns.
    pub generated: bool,
}

/// Where the rows of a relation live.
#[derive(Clone, Debug)]
pub enum Location {
    /// All on this shard.
    Home(ShardIndex),
    /// All on every shard.
    Replicated,
    /// Each on the shard of its key.
    Sharded(Arc<Placement>),
    /// Not on one shard, or not known: a clause for a DETAIL.
    Unserved(String),
}

/// What PostgreSQL does behind a statement's back on a relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hazards {
    /// Rules rewrite statements.
    pub rules: bool,
    /// Triggers run code of users.
    pub triggers: bool,
    /// Policies read whatever they want.
    pub row_security: bool,
}

impl Relation {
    /// The column's index and itself.
    pub fn column(&self, name: &str) -> Option<(usize, &TableColumn)> {
        self.columns
            .iter()
            .enumerate()
            .find(|(_, column)| column.name == name)
    }

    /// The placement, if the table is sharded.
    pub fn placement(&self) -> Option<&Arc<Placement>> {
        match &self.location {
            Location::Sharded(placement) => Some(placement),
            _ => None,
        }
    }

    /// Whether it is a view, whose rows are elsewhere.
    pub fn is_view(&self) -> bool {
        self.kind == 'v'
    }
}
