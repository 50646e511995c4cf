//! Expressions of the rows of an `INSERT` that are evaluated first, in one `SELECT`.

use std::ops::Range;

use crate::plan::insert::parts::parameter;
use crate::plan::insert::parts::span;
use crate::sql::splice::Edit;
use crate::sql::token::Token;

/// An expression of a row that is to be evaluated first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Where it stands in the client's text.
    range: Range<u32>,
    /// Where parameters stand in the text, and their indexes (from 0).
    parameters: Vec<(Range<u32>, usize)>,
    /// The type that it is cast to, if that is not its own.
    cast: Option<String>,
}

/// An expression as it is written.
pub(super) fn expression(text: &str, cell: &[Token], cast: Option<String>) -> Expression {
    let mut parameters = Vec::new();
    for token in cell {
        if let Some(index) = parameter(text, token) {
            parameters.push((token.range(), index));
        }
    }
    Expression {
        range: span(cell),
        parameters,
        cast,
    }
}

/// The edits that make one SELECT of a text's expressions, given in their order, and its parameters as indexes
/// of the client's.
pub fn together(text: &str, expressions: &[Expression]) -> (Vec<Edit>, Vec<usize>) {
    let mut edits = Vec::new();
    let mut known: Vec<usize> = Vec::new();
    let (mut at, mut before) = (0, "SELECT (".to_owned());
    let after = |expression: &Expression| match &expression.cast {
        Some(cast) => format!(")::{cast}"),
        None => ")".to_owned(),
    };
    for expression in expressions {
        edits.push(Edit {
            range: at..expression.range.start,
            text: before,
        });
        for (range, index) in &expression.parameters {
            let found = known.iter().position(|known| known == index);
            let number = found.unwrap_or_else(|| {
                known.push(*index);
                known.len() - 1
            });
            edits.push(Edit {
                range: range.clone(),
                text: format!("${}", number + 1),
            });
        }
        at = expression.range.end;
        before = format!("{}, (", after(expression));
    }
    edits.push(Edit {
        range: at..u32::try_from(text.len()).unwrap_or(u32::MAX),
        text: expressions.last().map(after).unwrap_or_default(),
    });
    (edits, known)
}
