//! Tables, columns, types, functions and their placement; pure.
//!
//! The loader (in `topology`) fills a [`RawCatalog`]; [`Catalog::build`] holds it against the
//! configuration and compiles it for look-ups.

pub mod advice;
mod behind;
mod build;
mod function;
mod raw;
mod relation;
mod through;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::config;
use crate::config::TableRule;
use crate::sharding::ShardIndex;
use crate::sql::body::BodyCall;

use function::Functions;

pub use function::BuiltIn;
pub use function::Function;
pub use function::Routine;
pub use function::Volatility;
pub use raw::ROWS_TABLE;
pub use raw::RawArgument;
pub use raw::RawCatalog;
pub use raw::RawCode;
pub use raw::RawColumn;
pub use raw::RawDefault;
pub use raw::RawForeignKey;
pub use raw::RawFunction;
pub use raw::RawHazards;
pub use raw::RawIndex;
pub use raw::RawRelation;
pub use raw::RawTrigger;
pub use raw::StoredPlacement;
pub use relation::Adds;
pub use relation::Code;
pub use relation::ColumnDefault;
pub use relation::Hazards;
pub use relation::Identity;
pub use relation::Location;
pub use relation::Reason;
pub use relation::Relation;
pub use relation::SequenceName;
pub use relation::TableColumn;
pub use relation::Ties;
pub use relation::Trigger;
pub use relation::Written;

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
    shards: Vec<String>,
    default_search_path: Vec<String>,
    relations: Vec<Relation>,
    /// Indexes into `relations`.
    by_name: HashMap<String, Vec<usize>>,
    functions: Functions,
    /// Names in the configuration that are sharded or replicated, without their schema.
    configured: Vec<String>,
    /// Names in the configuration that have a home, without their schema, and its shard.
    homes: Vec<(String, ShardIndex)>,
    /// A table that is not in the catalogue may be sharded or replicated by the wildcard.
    wildcard: bool,
    /// Neither the file nor the shards say of any table where it is.
    unplaced: bool,
    /// The database's own collation orders by bytes.
    bytewise: bool,
    /// `server_version_num`.
    server_version: u32,
}

/// Whether the file says of no table where it is.
pub fn is_unplaced(database: &config::Database) -> bool {
    database.tables.named.is_empty() && database.tables.wildcard.is_none()
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// A relation of the catalogue.
    Relation(&'a Relation),
    /// A system catalogue or a view on one.
    System,
    /// Something in the session's own `pg_temp`.
    Temporary,
    /// Nothing that the catalogue knows.
    Unknown {
        /// The configuration shards or replicates a table of this name.
        configured: bool,
        /// It shards or replicates every table that it does not name.
        wildcard: bool,
        /// The shard where a table of this name would be at home.
        home: ShardIndex,
    },
}

impl Catalog {
    /// Compiles what the servers said, held against the configuration. Total: what does not fit is
    /// reported, and statements on that table will be refused.
    pub fn build(
        epoch: u64,
        raw: &RawCatalog,
        database: &config::Database,
    ) -> (Catalog, Vec<Problem>) {
        Catalog::build_beside(epoch, raw, database, &[])
    }

    /// As [`Catalog::build`], where these tables are known to differ between the shards: they, and the
    /// views on them, are not served.
    pub fn build_beside(
        epoch: u64,
        raw: &RawCatalog,
        database: &config::Database,
        differences: &[Problem],
    ) -> (Catalog, Vec<Problem>) {
        let (relations, problems) = build::relations(raw, database, differences);
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, relation) in relations.iter().enumerate() {
            let temporary = raw.relations.get(index).is_some_and(|row| row.temporary);
            if !temporary {
                by_name
                    .entry(relation.name.clone())
                    .or_default()
                    .push(index);
            }
        }
        let elsewhere = |rule: &TableRule| !matches!(rule, TableRule::Home { .. });
        let mut configured = Vec::new();
        let mut homes = Vec::new();
        for (name, rule) in &database.tables.named {
            let name = name.rsplit('.').next().unwrap_or(name).to_owned();
            match rule {
                TableRule::Home { shard } => homes.push((name, *shard)),
                TableRule::Sharded { .. } | TableRule::Replicated => configured.push(name),
            }
        }
        if let Some(TableRule::Home { shard }) = &database.tables.wildcard {
            homes.push(("*".to_owned(), *shard));
        }
        let catalog = Catalog {
            epoch,
            shards: database
                .shards
                .iter()
                .map(|shard| shard.name.clone())
                .collect(),
            default_search_path: raw.default_search_path.clone(),
            relations,
            by_name,
            functions: Functions::new(raw),
            configured,
            homes,
            wildcard: database.tables.wildcard.as_ref().is_some_and(elsewhere),
            unplaced: is_unplaced(database) && raw.stored_placements.is_empty(),
            bytewise: raw.bytewise,
            server_version: raw.server_version,
        };
        (catalog, problems)
    }

    /// Whether nothing says of any table where it is, so that all of them are at home on the first shard.
    pub fn is_unplaced(&self) -> bool {
        self.epoch > 0 && self.unplaced
    }

    /// `server_version_num` of the server that was read.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The functions that its server came with.
    pub fn built_in(&self) -> Arc<BuiltIn> {
        Arc::clone(&self.functions.built_in)
    }

    /// Whether the database's own collation orders by bytes.
    pub fn is_bytewise(&self) -> bool {
        self.bytewise
    }

    /// The names of the shards, by index.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// `search_path` of a fresh session.
    pub fn default_search_path(&self) -> &[String] {
        &self.default_search_path
    }

    /// All relations.
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// What a name stands for.
    pub fn relation(&self, schema: Option<&str>, name: &str, search_path: &[String]) -> Lookup<'_> {
        let candidates = || {
            let indexes = self
                .by_name
                .get(name)
                .map(Vec::as_slice)
                .unwrap_or_default();
            indexes
                .iter()
                .filter_map(|index| self.relations.get(*index))
        };
        let found = match schema {
            Some(schema) => candidates().find(|relation| relation.schema == schema),
            None => search_path
                .iter()
                .find_map(|schema| candidates().find(|relation| relation.schema == *schema)),
        };
        match (found, schema) {
            (Some(relation), _) => Lookup::Relation(relation),
            (None, Some(schema)) if schema == "pg_temp" || schema.starts_with("pg_temp_") => {
                Lookup::Temporary
            }
            (None, Some(schema)) if is_system_schema(schema) => Lookup::System,
            (None, None) if name.starts_with("pg_") => Lookup::System,
            (None, _) => Lookup::Unknown {
                configured: self.configured.iter().any(|known| known == name),
                wildcard: self.wildcard,
                home: self.home_of(name),
            },
        }
    }

    /// The shard where an unknown table is at home: the first, unless the configuration says where.
    fn home_of(&self, name: &str) -> ShardIndex {
        let named = self
            .homes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, shard)| *shard);
        let wildcard = || {
            self.homes
                .iter()
                .find(|(known, _)| known == "*")
                .map(|(_, shard)| *shard)
        };
        named.or_else(wildcard).unwrap_or(0)
    }

    /// The relations of a name in whatever schema.
    pub fn relations_named(&self, name: &str) -> impl Iterator<Item = &Relation> {
        let indexes = self.by_name.get(name).map(Vec::as_slice);
        let indexes = indexes.unwrap_or_default().iter();
        indexes.filter_map(|index| self.relations.get(*index))
    }

    /// The functions of a name, in this schema or in whatever one.
    pub fn functions_named<'a>(
        &'a self,
        schema: Option<&'a str>,
        name: &str,
    ) -> impl Iterator<Item = &'a Function> {
        let overloads = self.functions.named(name);
        overloads.filter(move |function| schema.is_none_or(|schema| function.schema == schema))
    }

    /// Whether operators or types call functions of users that may run queries.
    pub fn has_hidden_calls(&self) -> bool {
        !self.functions.hidden.is_empty()
    }

    /// The functions of users that an operator, or a value of a type of this name, may call.
    pub fn hidden_calls(&self, mark: &str) -> &[BodyCall] {
        let calls = self.functions.hidden.get(mark);
        calls.map(Vec::as_slice).unwrap_or_default()
    }

    /// The functions that a call by this name could mean, of all schemas in reach: types, which we
    /// don't know, decide among them.
    pub fn functions<'a>(
        &'a self,
        schema: Option<&'a str>,
        name: &str,
        search_path: &'a [String],
    ) -> impl Iterator<Item = &'a Function> {
        let overloads = self.functions.named(name);
        overloads.filter(move |function| match schema {
            Some(schema) => function.schema == schema,
            None => function.schema == "pg_catalog" || search_path.contains(&function.schema),
        })
    }
}

/// PostgreSQL reserves the prefix `pg_` for its own schemas.
fn is_system_schema(schema: &str) -> bool {
    schema == "information_schema" || schema.starts_with("pg_")
}

#[cfg(test)]
mod tests;
