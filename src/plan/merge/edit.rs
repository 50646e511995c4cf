//! Changes of a statement by the places of its tokens, which all texts of a shape share.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Merge;
use crate::plan::own::tokens_of;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

/// What stands in place of some tokens; behind the token before them if they are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    tokens: Range<usize>,
    pieces: Box<[Piece]>,
}

/// A part of a new text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words of our own.
    Text(Box<str>),
    /// Tokens of the statement.
    Copy(Range<usize>),
}

impl Change {
    pub fn new(tokens: Range<usize>, pieces: Vec<Piece>) -> Change {
        Change {
            tokens,
            pieces: pieces.into(),
        }
    }
}

impl Merge {
    /// What makes the shards' statement of a text of the shape that was planned.
    ///
    /// # Errors
    /// `XX000` if the text has not the tokens of that shape.
    pub fn edits(&self, text: &str, lex: LexOptions) -> Result<Vec<Edit>> {
        let tokens = tokens_of(text, lex)?;
        let edits = self
            .changes
            .iter()
            .map(|change| edit(change, text, &tokens));
        edits.collect::<Option<Vec<Edit>>>().ok_or_else(|| {
            let message = "a statement has not the tokens that it was planned with";
            Error::new(SqlState::INTERNAL_ERROR, message)
        })
    }
}

impl Merge {
    /// The numbers that groups are compared with, as a text of the shape has them.
    ///
    /// # Errors
    /// `XX000` if the text has not the tokens of that shape.
    pub fn numbers(&self, text: &str, lex: LexOptions) -> Result<Vec<String>> {
        let tests = match &self.grouping {
            Some(grouping) if !grouping.having.is_empty() => &grouping.having,
            _ => return Ok(Vec::new()),
        };
        let tokens = tokens_of(text, lex)?;
        let numbers = tests.iter().map(|test| {
            let number = tokens.get(test.number)?.text(text);
            let sign = if test.negative { "-" } else { "" };
            Some(format!("{sign}{number}"))
        });
        numbers.collect::<Option<Vec<String>>>().ok_or_else(|| {
            let message = "a statement has not the tokens that it was planned with";
            Error::new(SqlState::INTERNAL_ERROR, message)
        })
    }
}

fn edit(change: &Change, text: &str, tokens: &[Token]) -> Option<Edit> {
    let Range { start, end } = change.tokens;
    let range = if start == end {
        let place = tokens.get(start.checked_sub(1)?)?.end;
        place..place
    } else {
        tokens.get(start)?.start..tokens.get(end - 1)?.end
    };
    let mut new = String::new();
    for piece in &change.pieces {
        match piece {
            Piece::Text(words) => new.push_str(words),
            Piece::Copy(range) => {
                let first = tokens.get(range.start)?;
                let last = tokens.get(range.end.checked_sub(1)?)?;
                new.push_str(slice(text, first.start..last.end));
            }
        }
    }
    Some(Edit { range, text: new })
}
