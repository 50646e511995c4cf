//! Bytes on disk of what is spread over shards, as the functions that ask for them need it.
//!
//! `pg_table_size('orders')` means the whole table. The home shard answers for its part; what the other
//! shards have of it is added in the text, looked up by the home shard's OID.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::sql::literal::quote_literal;

/// The forks of a relation, in the order of [`Bytes::forks`].
pub const FORKS: [&str; 4] = ["main", "fsm", "vm", "init"];

/// What a relation takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// `pg_relation_size` of each of [`FORKS`].
    pub forks: [i64; 4],
    /// `pg_table_size`.
    pub table: i64,
    /// `pg_indexes_size`.
    pub indexes: i64,
    /// `pg_total_relation_size`.
    pub total: i64,
}

/// What shards other than the first have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// By the OID of the same relation on the first shard.
    pub relations: BTreeMap<u32, Bytes>,
    /// The name and OID of the database on the first shard.
    pub database: (String, u32),
    /// `pg_database_size` of it, on the other shards.
    pub database_bytes: i64,
}

/// What a function asks of a relation or database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `pg_relation_size(relation [, fork])`.
    Relation,
    /// `pg_table_size(relation)`.
    Table,
    /// `pg_indexes_size(relation)`.
    Indexes,
    /// `pg_total_relation_size(relation)`.
    Total,
    /// `pg_database_size(database)`.
    Database,
}

impl Measure {
    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Relation => "pg_relation_size",
            Measure::Table => "pg_table_size",
            Measure::Indexes => "pg_indexes_size",
            Measure::Total => "pg_total_relation_size",
            Measure::Database => "pg_database_size",
        }
    }

    /// The measure of a call by this name and number of arguments.
    pub fn of(name: &str, arguments: usize) -> Option<Measure> {
        let all = [
            Measure::Relation,
            Measure::Table,
            Measure::Indexes,
            Measure::Total,
            Measure::Database,
        ];
        let takes =
            |measure: &Measure| arguments == 1 || (arguments == 2 && *measure == Measure::Relation);
        all.into_iter()
            .find(|measure| measure.name() == name)
            .filter(takes)
    }
}

impl Bytes {
    /// Adds what another shard has.
    pub fn add(&mut self, other: &Bytes) {
        for (sum, fork) in self.forks.iter_mut().zip(other.forks) {
            *sum += fork;
        }
        self.table += other.table;
        self.indexes += other.indexes;
        self.total += other.total;
    }
}

impl Sizes {
    /// The subquery that stands for a call with these arguments as they are written.
    pub fn expression(&self, measure: Measure, arguments: &[&str]) -> String {
        let name = measure.name();
        let first = arguments.first().copied().unwrap_or_default();
        match (measure, arguments.get(1)) {
            (Measure::Database, _) => {
                let (database, oid) = &self.database;
                let (database, bytes) = (quote_literal(database), self.database_bytes);
                format!(
                    "(SELECT pg_catalog.{name}({first}) + CASE WHEN ({first})::pg_catalog.text \
                     IN ({database}, '{oid}') THEN {bytes} ELSE 0 END AS {name})"
                )
            }
            (Measure::Relation, Some(fork)) => {
                let mut by_fork = String::new();
                for (index, known) in FORKS.iter().enumerate() {
                    let more = self.more(|bytes| bytes.forks.get(index).copied().unwrap_or(0));
                    let _ = write!(by_fork, " WHEN '{known}' THEN {more}");
                }
                format!(
                    "(SELECT pg_catalog.{name}(s.r, s.f) + CASE s.f{by_fork} END AS {name} \
                     FROM (SELECT ({first})::pg_catalog.regclass, ({fork})::pg_catalog.text) s(r, f))"
                )
            }
            _ => {
                let more = self.more(|bytes| match measure {
                    Measure::Table => bytes.table,
                    Measure::Indexes => bytes.indexes,
                    Measure::Total => bytes.total,
                    Measure::Relation | Measure::Database => {
                        bytes.forks.first().copied().unwrap_or(0)
                    }
                });
                format!(
                    "(SELECT pg_catalog.{name}(s.r) + {more} AS {name} \
                     FROM (SELECT ({first})::pg_catalog.regclass) s(r))"
                )
            }
        }
    }

    /// What the other shards have of `s.r`: a look-up by OID in a constant.
    fn more(&self, bytes: impl Fn(&Bytes) -> i64) -> String {
        let mut known = String::new();
        for (oid, all) in &self.relations {
            let bytes = bytes(all);
            if bytes > 0 {
                let separator = if known.is_empty() { "" } else { "," };
                let _ = write!(known, "{separator}\"{oid}\":{bytes}");
            }
        }
        format!(
            "coalesce(('{{{known}}}'::pg_catalog.jsonb OPERATOR(pg_catalog.->>) \
             s.r::pg_catalog.oid::pg_catalog.text)::pg_catalog.int8, 0)"
        )
    }
}
