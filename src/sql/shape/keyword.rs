//! The words that matter to a shape.

/// What an unquoted word means to the scan of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// Nothing.
    No,
    /// Starts a statement whose literals are lifted.
    Query,
    /// Ends an `ORDER BY`, `GROUP BY` or `LIMIT` clause.
    ClauseEnd,
    As,
    Atomic,
    Begin,
    By,
    Case,
    Distinct,
    End,
    From,
    Limit,
    On,
    OrderOrGroup,
    OrReplace,
    Routine,
    /// A type whose parentheses hold a length or precision.
    TypeName,
}

/// No keyword is longer.
const LONGEST: usize = 9;

impl Keyword {
    /// What `word`, in any case, means.
    #[inline]
    pub fn of(word: &[u8]) -> Keyword {
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..word.len()) else {
            return Keyword::No;
        };
        for (to, from) in lower.iter_mut().zip(word) {
            *to = from.to_ascii_lowercase();
        }
        match &*lower {
            b"as" => Keyword::As,
            b"atomic" => Keyword::Atomic,
            b"begin" => Keyword::Begin,
            b"by" => Keyword::By,
            b"case" => Keyword::Case,
            b"distinct" => Keyword::Distinct,
            b"end" => Keyword::End,
            b"from" => Keyword::From,
            b"limit" | b"offset" | b"fetch" => Keyword::Limit,
            b"on" => Keyword::On,
            b"order" | b"group" => Keyword::OrderOrGroup,
            b"or" | b"replace" => Keyword::OrReplace,
            b"function" | b"procedure" => Keyword::Routine,
            b"select" | b"with" | b"values" | b"table" | b"insert" | b"update" | b"delete"
            | b"merge" | b"execute" => Keyword::Query,
            b"having" | b"window" | b"union" | b"intersect" | b"except" | b"where" | b"into"
            | b"for" | b"returning" => Keyword::ClauseEnd,
            b"bit" | b"bpchar" | b"char" | b"character" | b"dec" | b"decimal" | b"float"
            | b"interval" | b"nchar" | b"numeric" | b"time" | b"timestamp" | b"varchar"
            | b"varying" => Keyword::TypeName,
            _ => Keyword::No,
        }
    }
}
