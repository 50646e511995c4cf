//! What the planner needs to know of a query: its blocks, what each reads and demands.
//!
//! No type of the parser crate appears here. Names are as the catalogue stores them.

use std::ops::Range;

/// A query taken apart. Never empty: block 0 is the statement itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its query blocks: the statement, its subqueries, the arms of its set operations, its CTEs.
    pub blocks: Vec<Block>,
    /// The functions it calls.
    pub calls: Vec<Call>,
    /// The names of its CTEs, in whatever scope.
    pub ctes: Vec<String>,
    /// Tables it makes: `SELECT … INTO`.
    pub created: Vec<Name>,
    /// It casts to `regclass` and the like: OIDs, which differ between servers.
    pub object_ids: bool,
    /// It names `ctid`, `xmin` and the like.
    pub system_columns: bool,
    /// The columns that its expressions name; what looks like one may be a whole row.
    pub references: Vec<Reference>,
    /// The conditions of `WHERE` and `ON`.
    pub conjunctions: Vec<Conjunction>,
    /// The block whose rows are the answer: that behind a `WITH`.
    pub top: BlockId,
    /// It has a `WITH RECURSIVE`.
    pub recursive: bool,
}

/// A column named in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The block whose names it is looked up among first.
    pub block: BlockId,
    /// As it is named.
    pub column: Column,
    /// Offset of the first part of its name, if that stands in the text.
    pub offset: Option<u32>,
}

/// The condition of a `WHERE` or `ON`, as terms that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conjunction {
    /// The block.
    pub block: BlockId,
    /// As in [`Condition::restricts`].
    pub restricts: Option<Sources>,
    /// The terms in their order.
    pub terms: Vec<Term>,
}

/// One term of a conjunction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Offset of a token in it, the first that is known.
    pub offset: Option<u32>,
    /// It is not true where one of these columns is null.
    pub strict: Vec<Column>,
}

/// The index of a block in [`Facts::blocks`].
pub type BlockId = usize;

/// Sources of a block, by index.
pub type Sources = Range<usize>;

/// A query block: what one `SELECT`, `VALUES`, set operation or data-modifying query reads, and the
/// conditions it puts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Where names that it does not have are looked up.
    pub outer: Option<Scope>,
    /// What it reads, in the order of `FROM`. The target of a data-modifying query comes first.
    pub sources: Vec<Source>,
    /// `USING` and `NATURAL`.
    pub merges: Vec<Merge>,
    /// Its outer joins.
    pub outer_joins: Vec<OuterJoin>,
    /// Conditions that its rows meet.
    pub conditions: Vec<Condition>,
    /// Its clauses.
    pub clauses: Clauses,
    /// The columns by which each of its windows is partitioned.
    pub partitions: Vec<Vec<Column>>,
    /// Offset of its `SELECT`.
    pub select: Option<u32>,
    /// Its columns.
    pub outputs: Vec<Output>,
    /// The keys of its `GROUP BY`, as far as each is a column or a number.
    pub groups: Vec<GroupKey>,
    /// The arms of a set operation.
    pub arms: Vec<BlockId>,
}

/// An entry of a select list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// One column.
    One {
        /// Its name; none if it is not known.
        name: Option<String>,
        /// The column that it is, if it is one as it stands.
        column: Option<Column>,
    },
    /// `*`, or `table.*`.
    Wildcard(Vec<String>),
}

/// A key of `GROUP BY` that all grouping sets have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// A column, or the name of one of the answer.
    Column(Column),
    /// The number of a column of the answer, from 1.
    Number(usize),
}

/// The kinds of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BlockKind {
    /// `SELECT`.
    #[default]
    Select,
    /// `VALUES`.
    Values,
    /// `UNION` and the like; the arms are blocks of their own.
    SetOperation,
    /// `INSERT`.
    Insert(Insert),
    /// `UPDATE`: the columns it assigns.
    Update(Vec<String>),
    /// `DELETE`.
    Delete,
    /// `MERGE`: what it does with rows.
    Merge(MergeActions),
}

/// What a `MERGE` does with rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeActions {
    /// The columns that its `UPDATE`s assign.
    pub assigned: Vec<String>,
    /// Its `INSERT`s, in order.
    pub inserts: Vec<MergeInsert>,
    /// It has actions for rows of the target that nothing matches.
    pub by_source: bool,
    /// It gives rows.
    pub returns: bool,
}

/// An `INSERT` of a `MERGE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeInsert {
    /// The columns listed; none means all of the table's.
    pub columns: Option<Vec<String>>,
    /// The values of its row.
    pub values: Vec<MergeValue>,
}

/// A value that a `MERGE` inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeValue {
    /// A column of the source.
    Column(Column),
    /// `DEFAULT`.
    Default,
    /// Anything else.
    Computed,
}

/// An `INSERT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Insert {
    /// The columns listed; none means all of the table's.
    pub columns: Option<Vec<String>>,
    /// The rows.
    pub rows: Rows,
    /// The columns that `ON CONFLICT DO UPDATE` assigns.
    pub conflict_assigns: Vec<String>,
    /// `OVERRIDING USER VALUE`.
    pub overriding_user: bool,
}

/// The rows of an `INSERT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// `DEFAULT VALUES`.
    #[default]
    Default,
    /// `VALUES`.
    Values(Vec<Vec<Cell>>),
    /// A query: its columns up to the first whose number is not known.
    Query(Vec<Cell>),
}

/// A value to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A constant or parameter.
    Value(Value),
    /// `DEFAULT`.
    Default,
    /// Something to be computed.
    Computed,
}

/// What a column name of a block sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The block.
    pub block: BlockId,
    /// Its sources that are visible.
    pub visible: Sources,
}

/// An entry of `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// Its alias.
    pub alias: Option<String>,
    /// The names that its alias gives its first columns.
    pub columns: Vec<String>,
    /// It stands inside an aliased join: its names are not visible.
    pub hidden: bool,
    /// `TABLESAMPLE`.
    pub sampled: bool,
    /// A clause `FOR UPDATE` or the like of its block locks its rows.
    pub locked: bool,
    /// Offset of the last part of a relation's name, if that stands in the text.
    pub offset: Option<u32>,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A relation of the catalogue.
    Relation(Name),
    /// A subquery, or a CTE that is not recursive.
    Query(BlockId),
    /// Something else: a function, an aliased join, a recursive CTE.
    Opaque,
}

/// A name that may carry a schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The schema, if written.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

/// `USING` or `NATURAL`: columns of both sides that are equal and share a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The columns; none means all that both sides have.
    pub columns: Option<Vec<String>>,
    /// The kind of join.
    pub join: JoinKind,
    /// The left side.
    pub left: Sources,
    /// The right side.
    pub right: Sources,
    /// As in [`Condition::restricts`].
    pub restricts: Option<Sources>,
}

/// The kinds of joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// `JOIN`, `CROSS JOIN`.
    Inner,
    /// `LEFT JOIN`.
    Left,
    /// `RIGHT JOIN`.
    Right,
    /// `FULL JOIN`.
    Full,
}

/// An outer join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterJoin {
    /// Not [`JoinKind::Inner`].
    pub join: JoinKind,
    /// The left side.
    pub left: Sources,
    /// The right side.
    pub right: Sources,
}

/// An equality that holds for every row of the block in which the restricted sources are not
/// null-extended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The left side.
    pub column: Column,
    /// What it equals.
    pub equals: Equals,
    /// The sources that it may be used to restrict; none means all.
    ///
    /// The `ON` of `a LEFT JOIN b` says which rows of `b` take part, but nothing about `a`.
    pub restricts: Option<Sources>,
}

/// The right side of an equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Equals {
    /// Another column.
    Column(Column),
    /// One of these values (`=`, `IN`).
    Values(Vec<Value>),
    /// A column of a row of a subquery (`IN`, `= ANY`).
    Query {
        /// Offset of its `SELECT`.
        select: u32,
        /// The number of the column, from 0.
        column: usize,
    },
}

/// A column as it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The table or alias, the schema before it.
    pub qualifier: Vec<String>,
    /// The column's name.
    pub name: String,
    /// The sources of the block that it may belong to.
    pub visible: Sources,
}

/// A constant or a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where it comes from.
    pub source: ValueSource,
    /// What it is cast to.
    pub cast: CastType,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A literal of the text.
    Literal {
        /// Offset of its first byte.
        offset: u32,
        /// A minus sign stands before it.
        negative: bool,
    },
    /// A parameter, from 1.
    Parameter(u32),
    /// `NULL`.
    Null,
    /// `TRUE`, `FALSE`.
    Bool(bool),
}

/// What a value is cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastType {
    /// Nothing.
    None,
    /// The built-in type with this OID, without length, precision or scale.
    To(u32),
    /// Anything else.
    Other,
}

/// A function call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: Name,
    /// Number of arguments.
    pub arguments: usize,
    /// The block that calls it.
    pub block: BlockId,
    /// Offset of the last part of its name, if that stands in the text.
    pub offset: Option<u32>,
    /// Where it stands.
    pub place: Place,
    /// It has an `OVER`.
    pub windowed: bool,
}

/// Where a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In an expression.
    Expression,
    /// As an entry of `FROM`.
    Source {
        /// It has an alias.
        aliased: bool,
    },
    /// In `FROM`, with more around it than an alias.
    Other,
}

/// Clauses of a block that need more than concatenation when its rows come from several shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clauses(u16);

impl Clauses {
    /// `DISTINCT`.
    pub const DISTINCT: Clauses = Clauses(1);
    /// `GROUP BY`.
    pub const GROUP_BY: Clauses = Clauses(2);
    /// `HAVING`.
    pub const HAVING: Clauses = Clauses(4);
    /// `ORDER BY`.
    pub const ORDER_BY: Clauses = Clauses(8);
    /// `LIMIT`, `FETCH FIRST`.
    pub const LIMIT: Clauses = Clauses(16);
    /// `OFFSET`.
    pub const OFFSET: Clauses = Clauses(32);
    /// `FOR UPDATE` and the like.
    pub const LOCKING: Clauses = Clauses(64);
    /// `OVER`, `WINDOW`.
    pub const WINDOW: Clauses = Clauses(128);
    /// `WITH`.
    pub const WITH: Clauses = Clauses(256);
    /// `INTO`.
    pub const INTO: Clauses = Clauses(512);
    /// `WITHIN GROUP`, or `FILTER`, `DISTINCT`, `ORDER BY` inside a call: an aggregate for certain.
    pub const AGGREGATE: Clauses = Clauses(1024);
    /// `DISTINCT ON`, besides [`Clauses::DISTINCT`].
    pub const DISTINCT_ON: Clauses = Clauses(2048);

    /// All of them with the words to name them by.
    const NAMES: [(Clauses, &'static str); 11] = [
        (Clauses::DISTINCT, "DISTINCT"),
        (Clauses::GROUP_BY, "GROUP BY"),
        (Clauses::HAVING, "HAVING"),
        (Clauses::ORDER_BY, "ORDER BY"),
        (Clauses::LIMIT, "LIMIT"),
        (Clauses::OFFSET, "OFFSET"),
        (Clauses::LOCKING, "FOR UPDATE/SHARE"),
        (Clauses::WINDOW, "a window function"),
        (Clauses::WITH, "WITH"),
        (Clauses::INTO, "INTO"),
        (Clauses::AGGREGATE, "an aggregate"),
    ];

    /// Adds clauses.
    pub fn add(&mut self, clauses: Clauses) {
        self.0 |= clauses.0;
    }

    /// Whether all of `clauses` are there.
    pub fn has(self, clauses: Clauses) -> bool {
        self.0 & clauses.0 == clauses.0
    }

    /// Whether which rows there are, or are locked, depends on more than each of them: `LIMIT`, `OFFSET`,
    /// `FOR UPDATE`.
    pub fn cuts(self) -> bool {
        let cuts = [Clauses::LIMIT, Clauses::OFFSET, Clauses::LOCKING];
        cuts.iter().any(|clause| self.has(*clause))
    }

    /// Those that are not among `others`.
    #[must_use]
    pub fn without(self, others: &[Clauses]) -> Clauses {
        let others = others.iter().fold(0, |all, clauses| all | clauses.0);
        Clauses(self.0 & !others)
    }

    /// The name of the first one there is.
    pub fn first_name(self) -> Option<&'static str> {
        Clauses::NAMES
            .iter()
            .find(|(clause, _)| self.has(*clause))
            .map(|(_, name)| *name)
    }
}

impl Facts {
    /// The relations named, each occurrence.
    pub fn relations(&self) -> impl Iterator<Item = &Name> {
        self.blocks
            .iter()
            .flat_map(|block| &block.sources)
            .filter_map(|source| match &source.kind {
                SourceKind::Relation(name) => Some(name),
                SourceKind::Query(_) | SourceKind::Opaque => None,
            })
    }

    /// Whether a block changes rows.
    pub fn modifies(&self) -> bool {
        self.blocks.iter().any(|block| block.kind.modifies())
    }
}

impl BlockKind {
    /// Whether such a block changes rows.
    pub fn modifies(&self) -> bool {
        matches!(
            self,
            BlockKind::Insert(_) | BlockKind::Update(_) | BlockKind::Delete | BlockKind::Merge(_)
        )
    }
}
