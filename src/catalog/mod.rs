//! Tables, columns, types, functions and their placement; pure.
//!
//! The loader (in `topology`) fills a [`RawCatalog`]; [`Catalog::build`] holds it against the
//! configuration and compiles it for look-ups.

mod raw;

use std::fmt;

use crate::config;

pub use raw::RawCatalog;
pub use raw::RawColumn;
pub use raw::RawFunction;
pub use raw::RawRelation;
pub use raw::StoredPlacement;

/// Something in the schema that does not fit the configuration. The table it names is not served
/// until it is mended; everything else is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The table, as `schema.name`, or the name in the configuration.
    pub table: String,
    /// What is wrong, in PostgreSQL's message style.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}: {}", self.table, self.message)
    }
}

/// The schema of one database, compiled for the planner. Immutable; a change makes a new one.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Changes with every build, so that plans made with an older one are known to be stale.
    pub epoch: u64,
}

impl Catalog {
    /// Compiles what the servers said, held against the configuration. Total: what does not fit is
    /// reported, and statements on that table will be refused.
    pub fn build(
        epoch: u64,
        raw: &RawCatalog,
        database: &config::Database,
    ) -> (Catalog, Vec<Problem>) {
        let _ = (raw, database);
        (Catalog { epoch }, Vec::new())
    }
}
