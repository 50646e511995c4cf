//! The statements a session must recognise, told by tokens alone.
//!
//! Ranges are byte offsets into the text that was classified. Two texts of one shape have the same
//! classification, ranges included, except for the ranges of `EXECUTE`, whose literals are lifted
//! out of the shape: classify each text of those anew.

use std::ops::Range;

/// What a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// No tokens at all.
    Empty,
    /// `BEGIN`, `START TRANSACTION`.
    Begin(Begin),
    /// `COMMIT`, `END`.
    Commit {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `RELEASE name`.
    Release(String),
    /// `PREPARE TRANSACTION 'gid'`.
    PrepareTransaction,
    /// `COMMIT PREPARED 'gid'`.
    CommitPrepared,
    /// `ROLLBACK PREPARED 'gid'`.
    RollbackPrepared,
    /// `SET TRANSACTION modes`.
    SetTransaction(TransactionModes),
    /// `SET TRANSACTION SNAPSHOT 'id'`.
    SetTransactionSnapshot,
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION modes`: sets `default_transaction_isolation`,
    /// `default_transaction_read_only` and `default_transaction_deferrable`, those that are named.
    SetSessionCharacteristics(TransactionModes),
    /// `SET CONSTRAINTS`.
    SetConstraints,
    /// `SET` of one setting, in any spelling: `SET TIME ZONE` sets `timezone`, `SET NAMES`
    /// `client_encoding`, `SET SCHEMA` `search_path`, `SET ROLE` `role`, `SET SESSION
    /// AUTHORIZATION` `session_authorization`, `SET XML OPTION` `xmloption`.
    Set {
        /// For how long.
        scope: SetScope,
        /// The setting's name in lower case.
        name: String,
        /// Its new value.
        value: SetValue,
        /// What stands behind `SET [SESSION|LOCAL]`: `SET ` and this text repeats the statement.
        assignment: Range<u32>,
    },
    /// `RESET`.
    Reset(ResetTarget),
    /// `SHOW name`: the setting's name in lower case; `all` for `SHOW ALL`.
    Show(String),
    /// `SHOW SHARDWIRE noun`: the noun in upper case.
    ShowShardwire(String),
    /// `PREPARE name (types) AS body`.
    Prepare {
        /// The statement's name.
        name: String,
        /// Where the name stands.
        name_range: Range<u32>,
        /// The parameter types as written.
        types: Vec<Range<u32>>,
        /// The statement behind `AS`.
        body: Range<u32>,
    },
    /// `EXECUTE name (arguments)`.
    Execute {
        /// The statement's name.
        name: String,
        /// Where the name stands.
        name_range: Range<u32>,
        /// The arguments as written.
        arguments: Vec<Range<u32>>,
    },
    /// `DEALLOCATE name`; `None` is `ALL`.
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR body`.
    Declare {
        /// The cursor's name.
        name: String,
        /// `WITH HOLD`.
        hold: bool,
        /// `BINARY`.
        binary: bool,
        /// `SCROLL` (`Some(true)`), `NO SCROLL` (`Some(false)`).
        scroll: Option<bool>,
        /// The query.
        body: Range<u32>,
    },
    /// `FETCH direction FROM cursor`.
    Fetch(Fetch),
    /// `MOVE direction FROM cursor`.
    Move(Fetch),
    /// `CLOSE name`; `None` is `ALL`.
    CloseCursor(Option<String>),
    /// `LISTEN channel`.
    Listen(String),
    /// `UNLISTEN channel`; `None` is `*`.
    Unlisten(Option<String>),
    /// `NOTIFY channel, 'payload'`.
    Notify {
        /// The channel.
        channel: String,
        /// The payload's literal.
        payload: Option<Range<u32>>,
    },
    /// `DISCARD`.
    Discard(DiscardTarget),
    /// `COPY`.
    Copy(Box<Copy>),
    /// `EXPLAIN`.
    Explain(Box<Explain>),
    /// `LOCK`.
    Lock,
    /// `CALL`.
    Call,
    /// `DO`.
    Do,
    /// `TRUNCATE`.
    Truncate,
    /// `VACUUM` and its like.
    Maintenance(Maintenance),
    /// `CREATE`, `ALTER`, `DROP`, `GRANT` and their like.
    Ddl(Ddl),
    /// `SELECT`, `INSERT` and their like.
    Query(Query),
    /// Anything else, and anything that PostgreSQL's grammar would reject.
    Other,
}

/// `BEGIN` or `START TRANSACTION`, whose grammar has been checked to the last token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The modes named.
    pub modes: TransactionModes,
    /// The statement's text.
    pub text: Range<u32>,
}

/// Transaction modes; `None` where the statement names none. The last one named counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// `ISOLATION LEVEL …`.
    pub isolation: Option<IsolationLevel>,
    /// `READ ONLY`, `READ WRITE`.
    pub read_only: Option<bool>,
    /// `DEFERRABLE`, `NOT DEFERRABLE`.
    pub deferrable: Option<bool>,
}

/// Isolation levels, as PostgreSQL names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IsolationLevel {
    /// In PostgreSQL the same as read committed.
    ReadUncommitted,
    /// A snapshot per statement.
    ReadCommitted,
    /// A snapshot per transaction.
    RepeatableRead,
    /// As if one after the other.
    Serializable,
}

impl IsolationLevel {
    /// Whether all statements of a transaction see one snapshot.
    pub fn shares_snapshot(self) -> bool {
        matches!(
            self,
            IsolationLevel::RepeatableRead | IsolationLevel::Serializable
        )
    }

    /// The value of `transaction_isolation`.
    pub fn as_str(self) -> &'static str {
        match self {
            IsolationLevel::ReadUncommitted => "read uncommitted",
            IsolationLevel::ReadCommitted => "read committed",
            IsolationLevel::RepeatableRead => "repeatable read",
            IsolationLevel::Serializable => "serializable",
        }
    }
}

/// How long a `SET` lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetScope {
    /// Until the session ends (or the transaction rolls back).
    Session,
    /// Until the transaction ends.
    Local,
}

/// What a `SET` sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// The value as written; [`crate::sql::classify::setting_values`] reads it.
    Text(Range<u32>),
    /// The default.
    Default,
    /// `FROM CURRENT`: the value it has now.
    Current,
}

/// What a `RESET` resets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetTarget {
    /// One setting, in lower case.
    Name(String),
    /// All settings.
    All,
}

/// What a `DISCARD` discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardTarget {
    /// Everything the session has.
    All,
    /// Cached plans.
    Plans,
    /// Sequence state.
    Sequences,
    /// Temporary tables.
    Temporary,
}

/// `FETCH` or `MOVE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor.
    pub cursor: String,
    /// Which rows.
    pub direction: FetchDirection,
}

/// Which rows a `FETCH` wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchDirection {
    /// `ABSOLUTE n`; `FIRST` is 1, `LAST` is -1.
    Absolute(i64),
    /// `RELATIVE n`.
    Relative(i64),
    /// `FORWARD n`, `n`; `NEXT` and nothing at all are 1.
    Forward(i64),
    /// `FORWARD ALL`, `ALL`.
    ForwardAll,
    /// `BACKWARD n`; `PRIOR` is 1.
    Backward(i64),
    /// `BACKWARD ALL`.
    BackwardAll,
}

/// A name that may carry a schema, as PostgreSQL stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenRelation {
    /// The schema, if written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

/// `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied.
    pub source: CopySource,
    /// Which way.
    pub direction: CopyDirection,
    /// The other end.
    pub endpoint: CopyEndpoint,
    /// The options.
    pub options: CopyOptions,
    /// The condition behind `WHERE`.
    pub condition: Option<Range<u32>>,
}

/// What a `COPY` copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A relation.
    Relation {
        /// Its name.
        name: TokenRelation,
        /// The columns, if listed.
        columns: Option<Vec<String>>,
    },
    /// `(query)`: the text between the parentheses.
    Query(Range<u32>),
}

/// Which way a `COPY` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// Into the table.
    From,
    /// Out of the table.
    To,
}

/// The other end of a `COPY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEndpoint {
    /// The client (`STDIN`, `STDOUT`; PostgreSQL takes either word for either direction).
    Client,
    /// A file of the server.
    File,
    /// A program on the server.
    Program,
}

/// The options of a `COPY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// `FORMAT`.
    pub format: CopyFormat,
    /// `HEADER`.
    pub header: CopyHeader,
    /// `DELIMITER`.
    pub delimiter: Option<String>,
    /// `NULL`.
    pub null: Option<String>,
    /// `DEFAULT`.
    pub default: Option<String>,
    /// `QUOTE`.
    pub quote: Option<String>,
    /// `ESCAPE`.
    pub escape: Option<String>,
    /// `ENCODING`.
    pub encoding: Option<String>,
    /// `FREEZE`.
    pub freeze: bool,
    /// `FORCE_NOT_NULL`.
    pub force_not_null: Forced,
    /// `FORCE_NULL`.
    pub force_null: Forced,
    /// The names of all other options, in lower case: `force_quote`, `on_error` …; and of those
    /// above whose value is not understood.
    pub other: Vec<String>,
}

/// The columns of an option of a `COPY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forced {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// These.
    Columns(Vec<String>),
    /// What is written is not understood.
    Unknown,
}

impl Forced {
    /// Whether this column is among them.
    pub fn has(&self, column: &str) -> bool {
        match self {
            Forced::None | Forced::Unknown => false,
            Forced::All => true,
            Forced::Columns(columns) => columns.iter().any(|one| one == column),
        }
    }
}

/// The format of a `COPY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    /// Lines and tabs.
    #[default]
    Text,
    /// Comma-separated values.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// Whether a `COPY` has a line of names first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyHeader {
    /// No.
    #[default]
    Absent,
    /// Yes.
    Present,
    /// Yes, and it must match the columns.
    Match,
}

/// `EXPLAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// Whether the statement runs.
    pub analyze: bool,
    /// `VERBOSE`.
    pub verbose: bool,
    /// The options in parentheses: the name in lower case, the value as written without quotes.
    pub options: Vec<(String, Option<String>)>,
    /// The text between `EXPLAIN` and the statement.
    pub prefix: Range<u32>,
    /// The statement that is explained.
    pub body: Range<u32>,
}

/// Statements that maintain tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maintenance {
    /// `VACUUM`.
    Vacuum,
    /// `ANALYZE`.
    Analyze,
    /// `CLUSTER`.
    Cluster,
    /// `REINDEX`.
    Reindex,
    /// `CHECKPOINT`.
    Checkpoint,
    /// `LOAD`.
    Load,
}

/// A statement that defines something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ddl {
    /// What it does.
    pub verb: DdlVerb,
    /// To what kind of thing.
    pub object: DdlObject,
    /// Whether it creates something temporary.
    pub temporary: bool,
    /// Whether PostgreSQL refuses it inside a transaction block (`CONCURRENTLY`, databases,
    /// tablespaces, `ALTER SYSTEM`).
    pub outside_transaction: bool,
}

/// What a definition does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdlVerb {
    /// `CREATE`.
    Create,
    /// `ALTER`.
    Alter,
    /// `DROP`.
    Drop,
    /// `GRANT`.
    Grant,
    /// `REVOKE`.
    Revoke,
    /// `COMMENT ON`.
    Comment,
    /// `SECURITY LABEL`.
    SecurityLabel,
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh,
    /// `REASSIGN OWNED`.
    Reassign,
    /// `IMPORT FOREIGN SCHEMA`.
    Import,
}

/// What a definition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdlObject {
    /// A table.
    Table,
    /// A table filled by a query or by `EXECUTE` (`CREATE TABLE … AS`).
    TableAs,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// An index.
    Index,
    /// A sequence.
    Sequence,
    /// A schema.
    Schema,
    /// A function, procedure, routine or aggregate.
    Routine,
    /// A type or domain.
    Type,
    /// A trigger, event trigger, rule or policy.
    Trigger,
    /// An extension.
    Extension,
    /// A role, user or group, and what it owns.
    Role,
    /// A database.
    Database,
    /// A tablespace.
    Tablespace,
    /// A publication or subscription.
    Replication,
    /// The server's configuration (`ALTER SYSTEM`).
    System,
    /// Anything else.
    Other,
}

/// A query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// What stands at its top, behind any `WITH`.
    pub kind: QueryKind,
    /// Whether it changes rows: its kind does, or a query in its `WITH`.
    pub modifies: bool,
    /// `SELECT … INTO`, and whether into a temporary table.
    pub into: Option<IntoTable>,
    /// `FOR UPDATE`, `FOR SHARE` and their like.
    pub locks_rows: bool,
}

/// The kinds of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// `SELECT`.
    Select,
    /// `VALUES`.
    Values,
    /// `TABLE`.
    Table,
    /// `INSERT`.
    Insert,
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `MERGE`.
    Merge,
}

/// The table that a `SELECT … INTO` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntoTable {
    /// Whether it is temporary.
    pub temporary: bool,
}
