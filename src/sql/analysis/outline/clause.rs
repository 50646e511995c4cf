//! The clauses of a `SELECT`, found by the reserved words that begin them.

use std::ops::Range;

use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Where the clauses of a `SELECT` stand, without the words that begin them. Ranges count tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clauses {
    list: Range<usize>,
    /// What stands in the parentheses of `DISTINCT ON`.
    pub distinct_on: Option<Range<usize>>,
    pub group_by: Option<Range<usize>>,
    pub having: Option<Range<usize>>,
    pub order_by: Option<Range<usize>>,
    /// `LIMIT`, `OFFSET` and `FETCH` with all their words.
    pub limit: Range<usize>,
    /// `SELECT`.
    pub select: usize,
    /// Where `FROM` and `WHERE` end.
    pub rows_end: usize,
    /// Where what stands behind `GROUP BY` begins; the same if there is none.
    pub rest: usize,
}

impl Clauses {
    /// The clauses of the only `SELECT` outside parentheses; none if there is not exactly one.
    pub fn find(text: &str, tokens: &[Token]) -> Option<Clauses> {
        let words = Words { text, tokens };
        let marks = words.marks()?;
        let is_behind = |(_, mark): &&(usize, Mark)| !matches!(mark, Mark::Select | Mark::Rows);
        let rows_end = marks
            .iter()
            .find(is_behind)
            .map_or(tokens.len(), |(at, _)| *at);
        let mut clauses = Clauses {
            rows_end,
            rest: rows_end,
            ..Clauses::default()
        };
        let mut marks = marks.iter().peekable();
        while let Some(&(at, mark)) = marks.next() {
            let end = marks.peek().map_or(tokens.len(), |(next, _)| *next);
            match mark {
                Mark::Select => {
                    clauses.select = at;
                    clauses.list = words.list(at + 1..end, &mut clauses.distinct_on)?;
                }
                Mark::GroupBy => {
                    clauses.group_by = Some(words.group(at + 2..end));
                    clauses.rest = end;
                }
                Mark::Having => clauses.having = Some(at + 1..end),
                Mark::OrderBy => clauses.order_by = Some(at + 2..end),
                Mark::Limit => {
                    let is_next = clauses.limit.is_empty() || clauses.limit.end == at;
                    let start = if clauses.limit.is_empty() {
                        at
                    } else {
                        clauses.limit.start
                    };
                    clauses.limit = is_next.then_some(start..end)?;
                }
                Mark::Rows | Mark::Other => {}
            }
        }
        (!clauses.list.is_empty()).then_some(clauses)
    }

    /// The select list.
    pub fn list(&self) -> Range<usize> {
        self.list.clone()
    }
}

/// The parts of `tokens` between the commas outside parentheses.
pub(super) fn split(text: &str, tokens: &[Token], range: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, range.start);
    for index in range.clone() {
        let Some(token) = tokens.get(index) else {
            break;
        };
        match token.text(text) {
            _ if token.kind != TokenKind::Punctuation => {}
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                parts.push(start..index);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(start..range.end);
    parts
}

/// What begins at a reserved word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Select,
    GroupBy,
    Having,
    OrderBy,
    Limit,
    /// `FROM`, `WHERE`, `INTO`.
    Rows,
    Other,
}

struct Words<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Words<'_> {
    fn is_word(&self, index: usize, word: &str) -> bool {
        let token = self.tokens.get(index);
        token.is_some_and(|token| token.is_word(self.text, word))
    }

    fn is_symbol(&self, index: usize, symbol: &str) -> bool {
        let token = self.tokens.get(index);
        token.is_some_and(|token| token.is_symbol(self.text, symbol))
    }

    /// The reserved words outside parentheses that begin a clause, in order.
    fn marks(&self) -> Option<Vec<(usize, Mark)>> {
        let mut marks = Vec::new();
        let mut depth = 0_usize;
        let mut selects = 0;
        for (index, token) in self.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Punctuation => match token.text(self.text) {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth = depth.checked_sub(1)?,
                    _ => {}
                },
                TokenKind::Word if depth == 0 => {
                    let Some(mark) = self.mark(index)? else {
                        continue;
                    };
                    selects += usize::from(mark == Mark::Select);
                    if selects > 0 {
                        marks.push((index, mark));
                    }
                }
                _ => {}
            }
        }
        (selects == 1).then_some(marks)
    }

    /// What begins at a word; the outer none is a set operation.
    fn mark(&self, index: usize) -> Option<Option<Mark>> {
        let before = |word| index > 0 && self.is_word(index - 1, word);
        // A name: `AS limit`, `t.limit`.
        if before("as") || (index > 0 && self.is_symbol(index - 1, ".")) {
            return Some(None);
        }
        let next = |word| self.is_word(index + 1, word);
        let is = |word| self.is_word(index, word);
        Some(Some(if is("select") {
            Mark::Select
        } else if is("group") && next("by") {
            Mark::GroupBy
        } else if is("having") {
            Mark::Having
        } else if is("order") && next("by") {
            Mark::OrderBy
        } else if is("limit") || is("offset") || is("fetch") {
            Mark::Limit
        } else if is("where") || is("into") {
            Mark::Rows
        } else if is("window") || is("for") {
            Mark::Other
        } else if is("from") {
            // IS DISTINCT FROM, ROWS FROM.
            if before("distinct") || before("rows") {
                return Some(None);
            }
            Mark::Rows
        } else if is("union") || is("intersect") || is("except") {
            return None;
        } else {
            return Some(None);
        }))
    }

    /// The select list without `ALL` or `DISTINCT`.
    fn list(&self, range: Range<usize>, on: &mut Option<Range<usize>>) -> Option<Range<usize>> {
        let Range { mut start, end } = range;
        if self.is_word(start, "all") {
            start += 1;
        } else if self.is_word(start, "distinct") {
            start += 1;
            if self.is_word(start, "on") && self.is_symbol(start + 1, "(") {
                let close = self.closing(start + 1)?;
                *on = Some(start + 2..close);
                start = close + 1;
            }
        }
        Some(start..end)
    }

    /// The keys of `GROUP BY` without `ALL` or `DISTINCT`.
    fn group(&self, range: Range<usize>) -> Range<usize> {
        let has_word = self.is_word(range.start, "all") || self.is_word(range.start, "distinct");
        range.start + usize::from(has_word)..range.end
    }

    /// The parenthesis that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for index in open..self.tokens.len() {
            if self.is_symbol(index, "(") {
                depth += 1;
            } else if self.is_symbol(index, ")") {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
        }
        None
    }
}
