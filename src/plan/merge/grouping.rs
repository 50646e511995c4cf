//! What a merge computes of groups of rows.

use std::fmt;

/// How rows of several shards become rows of groups.
#[derive(Clone, Debug, Default)]
pub struct Grouping {
    /// What makes a group; nothing if all rows are one.
    pub keys: Box<[GroupKey]>,
    /// What is computed of the rows of a group.
    pub folds: Box<[Fold]>,
    /// The client's columns.
    pub outputs: Box<[Value]>,
    /// What groups must meet.
    pub having: Box<[Test]>,
}

/// A hidden column that is equal within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Which of the shards' columns.
    pub column: usize,
    /// Equal strings are equal bytes.
    pub deterministic: bool,
}

/// A hidden column whose values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Which of the shards' columns.
    pub column: usize,
    /// How.
    pub how: How,
    /// Strings compare by their bytes.
    pub bytewise: bool,
}

/// How partial results become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They are added up; NULLs don't count, and of nothing else the sum is NULL.
    Sum,
    /// As `Sum`; counts are never NULL.
    Count,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// `bool_and`.
    And,
    /// `bool_or`.
    Or,
    /// `bit_and`.
    BitAnd,
    /// `bit_or`.
    BitOr,
    /// `bit_xor`.
    BitXor,
}

/// What a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The column of its first row.
    Column(usize),
    /// A fold.
    Fold(usize),
    /// The quotient of two folds.
    Average {
        /// The sum.
        sum: usize,
        /// The count.
        count: usize,
    },
}

/// A condition on groups: a value compared with a number of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// The left side.
    pub value: Value,
    /// Whether the value may be less than the number, equal, or greater.
    pub allows: [bool; 3],
    /// The token of the number.
    pub number: usize,
    /// A minus stands before it.
    pub negative: bool,
}

impl Grouping {
    /// Writes it for EXPLAIN.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.folds.len(), self.keys.len()) {
            (0, _) => write!(f, "Distinct")?,
            (_, 0) => write!(f, "Aggregate")?,
            (_, keys) => write!(f, "Group by {keys} columns")?,
        }
        let mut names = self.folds.iter().map(|fold| fold.how.name());
        if let Some(first) = names.next() {
            write!(f, ": {first}")?;
        }
        names.try_for_each(|name| write!(f, ", {name}"))?;
        match self.having.len() {
            0 => Ok(()),
            tests => write!(f, ", {tests} conditions"),
        }
    }
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Sum => "sum",
            How::Count => "count",
            How::Min => "min",
            How::Max => "max",
            How::And => "and",
            How::Or => "or",
            How::BitAnd => "bit and",
            How::BitOr => "bit or",
            How::BitXor => "bit xor",
        }
    }
}
