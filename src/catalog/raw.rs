//! What the servers say about their schema, row by row, before it is checked.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::BuiltIn;
use crate::config::TableRule;
use crate::sql::body::BodyCall;

/// The schema of one database as read from one server of the first shard. System schemas
/// (`pg_catalog`, `information_schema`, `pg_toast`) are left out of `relations`; the functions of
/// `pg_catalog` are wanted.
#[derive(Clone, Debug, Default)]
pub struct RawCatalog {
    /// Tables, partitioned tables, views, materialised views, foreign tables and sequences.
    pub relations: Vec<RawRelation>,
    /// `pg_proc`, one row per function and signature, without what is built in.
    pub functions: Vec<RawFunction>,
    /// What is called where no name of a function stands: an operator of users, or the name of a type, and the
    /// function of users behind it.
    pub hidden_calls: Vec<(String, BodyCall)>,
    /// The functions that the server came with.
    pub built_in: Arc<BuiltIn>,
    /// `search_path` of a fresh session of the backend's role, `"$user"` already replaced.
    pub default_search_path: Vec<String>,
    /// `server_version_num`.
    pub server_version: u32,
    /// Placements that the shards themselves hold (`shardwire.tables`).
    pub stored_placements: Vec<StoredPlacement>,
    /// Whether the database's own collation orders by bytes.
    pub bytewise: bool,
    /// `attnum` of the columns of each relation, by its OID, in the order of its columns.
    pub numbers: HashMap<u32, Vec<i16>>,
    /// `pg_index`.
    pub indexes: Vec<RawIndex>,
    /// Foreign keys (`pg_constraint`), without those that partitions have from their tables.
    pub foreign_keys: Vec<RawForeignKey>,
    /// The queries of views (`pg_get_viewdef`), by OID; none if they could not be read.
    pub definitions: Option<HashMap<u32, String>>,
}

/// One row of `pg_index`.
#[derive(Clone, Debug, Default)]
pub struct RawIndex {
    /// `indexrelid`.
    pub oid: u32,
    /// `indrelid`.
    pub table: u32,
    /// Its name, without its schema.
    pub name: String,
    /// It allows no two rows with equal values, or none that an exclusion constraint excludes.
    pub is_unique: bool,
    /// `indisprimary`.
    pub is_primary: bool,
    /// Its key columns; an expression is an empty name.
    pub columns: Vec<String>,
}

/// A foreign key.
#[derive(Clone, Debug, Default)]
pub struct RawForeignKey {
    /// `pg_constraint.oid`.
    pub oid: u32,
    /// The table that has it.
    pub table: u32,
    /// Its name.
    pub name: String,
    /// The table that it refers to.
    pub referenced: u32,
    /// Its columns.
    pub columns: Vec<String>,
    /// Those that they refer to, in the same order.
    pub referenced_columns: Vec<String>,
    /// `confdeltype` and `confupdtype`: `c`, `n` and `d` change the rows that refer to one.
    pub actions: (char, char),
}

/// One row of `pg_class`.
#[derive(Clone, Debug, Default)]
pub struct RawRelation {
    /// `pg_class.oid` on the server read.
    pub oid: u32,
    /// The schema's name.
    pub schema: String,
    /// `relname`.
    pub name: String,
    /// `relkind`: `r` table, `p` partitioned table, `v` view, `m` materialised view, `f` foreign
    /// table, `S` sequence, `c` composite type.
    pub kind: char,
    /// `relpersistence = 't'`.
    pub temporary: bool,
    /// The columns in `attnum` order, without dropped and system columns.
    pub columns: Vec<RawColumn>,
    /// What a view's rule reads: OIDs of relations, directly (`pg_depend` of its rewrite rule).
    pub depends_on: Vec<u32>,
    /// The parent of a partition or of an inheritance child.
    pub parent: Option<u32>,
    /// The other parents of an inheritance child.
    pub more_parents: Vec<u32>,
    /// What PostgreSQL does behind a statement's back.
    pub hazards: RawHazards,

    /// The columns of the primary key, if it is checked at once.
    pub primary_key: Vec<String>,
}

/// What PostgreSQL does behind a statement's back on a relation.
#[derive(Clone, Debug, Default)]
pub struct RawHazards {
    /// It has rewrite rules other than a view's `_RETURN`.
    pub has_rules: bool,
    /// What its rules read or change, if it has any: OIDs of relations.
    pub rules_read: Vec<u32>,
    /// Its triggers that users made (`not tgisinternal`) and that are not disabled.
    pub triggers: Vec<RawTrigger>,
    /// `relrowsecurity`.
    pub row_security: bool,
    /// What its policies read: OIDs of relations.
    pub policies_read: Vec<u32>,
    /// What is called when rows are stored: by its defaults, constraints, generated columns and indexes, and those of
    /// the types of its columns.
    pub code: Vec<RawCode>,
    /// What the query of a view calls.
    pub calls: Vec<BodyCall>,
}

/// A call of a function where rows are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCode {
    /// The column whose default it is; none for what is called whatever a statement says.
    pub column: Option<String>,
    /// The function.
    pub call: BodyCall,
}

/// One row of `pg_trigger`.
#[derive(Clone, Debug, Default)]
pub struct RawTrigger {
    /// `tgtype`.
    pub kind: u16,
    /// The schema of its function.
    pub schema: String,
    /// Its function.
    pub function: String,
    /// Its condition, if it has one, calls functions of users or volatile ones.
    pub is_guarded: bool,
    /// It has transition tables.
    pub has_transitions: bool,
}

impl RawRelation {
    /// Whether a materialised view over several shards takes its rows from it.
    pub fn is_rows_table(&self) -> bool {
        self.schema == "shardwire" && self.name.starts_with(ROWS_TABLE)
    }
}

/// How the names of tables begin that materialised views over several shards take their rows from.
pub const ROWS_TABLE: &str = "rows_";

/// One row of `pg_attribute`.
#[derive(Clone, Debug, Default)]
pub struct RawColumn {
    /// `attname`.
    pub name: String,
    /// `atttypid`; of a domain, the type that it is made of.
    pub type_oid: u32,
    /// `atttypmod`, or what the domain has for it.
    pub typmod: i32,
    /// Whether its collation compares byte by byte; true where there is none.
    pub collation_deterministic: bool,
    /// Whether its collation orders by bytes; true where there is none.
    pub bytewise: bool,
    /// Whether it has a collation that is not the database's, other than a `name` has.
    pub own_collation: bool,
    /// `attnotnull`.
    pub not_null: bool,
    /// `attgenerated <> ''`.
    pub generated: bool,
    /// `attidentity`, if it is an identity column.
    pub identity: Option<char>,
    /// What a row has there that names no value.
    pub default: RawDefault,
}

/// The default of a column, that of its domain included.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawDefault {
    /// There is one, or it is an identity column.
    pub exists: bool,
    /// It draws from a sequence: serial, identity, or `nextval(` in the expression.
    pub draws: bool,
    /// It is not known to be the same wherever and whenever it is evaluated.
    pub varies: bool,
    /// It varies, but is the same for all rows of a statement.
    pub of_statement: bool,
    /// It calls functions of users that are not immutable.
    pub of_users: bool,
    /// The OID of the sequence whose next number it is, if it is nothing but that.
    pub sequence: Option<u32>,
}

/// One row of `pg_proc`.
#[derive(Clone, Debug, Default)]
pub struct RawFunction {
    /// The schema's name.
    pub schema: String,
    /// `proname`.
    pub name: String,
    /// `provolatile`: `i`, `s` or `v`.
    pub volatility: char,
    /// `prokind`: `f` function, `a` aggregate, `w` window function, `p` procedure.
    pub kind: char,
    /// The language's name.
    pub language: String,
    /// `proretset`.
    pub returns_set: bool,
    /// Its first argument may be a row, so that it may be called as a field of one.
    pub takes_row: bool,
    /// `prosrc`, if it is in SQL or PL/pgSQL; what stands for it where it is no text.
    pub source: Option<String>,
    /// The body is no text (`BEGIN ATOMIC`), and the source only names what it reads and calls.
    pub is_tree: bool,
    /// All its arguments and columns.
    pub arguments: Vec<RawArgument>,
}

/// An argument of a function, or a column of what it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawArgument {
    /// Its name; empty if it has none.
    pub name: String,
    /// `i` in, `o` out, `b` both, `v` variadic, `t` a column.
    pub mode: char,
    /// Its type.
    pub type_oid: u32,
}

/// A placement that the shards hold.
#[derive(Clone, Debug)]
pub struct StoredPlacement {
    /// The table's schema.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// Where its rows live.
    pub rule: TableRule,
}
