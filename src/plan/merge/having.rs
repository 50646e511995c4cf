//! `HAVING` of groups whose rows are on several shards.

use std::ops::Range;

use crate::error::Result;
use crate::plan::colocation::Joined;
use crate::plan::refusal;
use crate::sql::token::TokenKind;

use super::Builder;
use super::aggregate::Folds;
use super::edit::Change;
use super::edit::Piece;
use super::grouping::Test;

/// A comparison of an expression with a number.
struct Comparison {
    side: Range<usize>,
    allows: [bool; 3],
    number: usize,
    negative: bool,
}

impl Builder<'_> {
    /// `HAVING`: what concerns aggregates is tested here, the rest by the shards.
    pub fn having(&mut self, joined: &Joined<'_>, folds: &mut Folds) -> Result<Vec<Test>> {
        let Some(condition) = self.outline.having.clone() else {
            return Ok(Vec::new());
        };
        if self.calls_in(&condition).next().is_none() {
            return Ok(Vec::new());
        }
        let computed =
            || refusal::combine("a HAVING other than comparisons of aggregates with numbers");
        let mut tests = Vec::new();
        let mut kept: Vec<Piece> = Vec::new();
        for part in self.conjunction(condition).ok_or_else(computed)? {
            let part = self.bare(part);
            if self.calls_in(&part).next().is_none() {
                let word = if kept.is_empty() {
                    "HAVING ("
                } else {
                    " AND ("
                };
                kept.extend([
                    Piece::Text(word.into()),
                    Piece::Copy(part),
                    Piece::Text(")".into()),
                ]);
                continue;
            }
            let comparison = self.comparison(&part).ok_or_else(computed)?;
            let aggregate = self.aggregate(&comparison.side)?.ok_or_else(computed)?;
            tests.push(Test {
                value: self.fold(&aggregate, joined, folds)?,
                allows: comparison.allows,
                number: comparison.number,
                negative: comparison.negative,
            });
        }
        self.changes
            .push(Change::new(self.outline.places.having_clause.clone(), kept));
        Ok(tests)
    }

    /// The parts of a conjunction; none for what is not certainly one.
    fn conjunction(&self, condition: Range<usize>) -> Option<Vec<Range<usize>>> {
        let condition = self.bare(condition);
        let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, condition.start);
        for at in condition.clone() {
            if self.is_symbol(at, "(") || self.is_symbol(at, "[") {
                depth += 1;
            } else if self.is_symbol(at, ")") || self.is_symbol(at, "]") {
                depth = depth.checked_sub(1)?;
            } else if depth == 0 {
                let others = [
                    "or", "not", "between", "case", "is", "in", "like", "ilike", "similar",
                ];
                if others.iter().any(|word| self.is_word(at, word)) {
                    return None;
                }
                if self.is_word(at, "and") {
                    parts.push(start..at);
                    start = at + 1;
                }
            }
        }
        parts.push(start..condition.end);
        Some(parts)
    }

    /// A comparison with a number.
    fn comparison(&self, part: &Range<usize>) -> Option<Comparison> {
        let body = self.query.body;
        let is_number = |at: usize| {
            body.get(at)
                .is_some_and(|token| token.kind == TokenKind::Number)
        };
        let last = part.end.checked_sub(1)?;
        let flipped = !is_number(last);
        let (side, operator, number, negative) = if flipped {
            let negative = self.is_symbol(part.start, "-");
            let number = part.start + usize::from(negative);
            (number + 2..part.end, number + 1, number, negative)
        } else {
            let before = last.checked_sub(1)?;
            let negative = self.is_symbol(before, "-");
            let operator = before.checked_sub(usize::from(negative))?;
            (part.start..operator, operator, last, negative)
        };
        if !is_number(number) || side.is_empty() {
            return None;
        }
        let mut allows = match body.get(operator)?.text(self.query.request.text) {
            "=" => [false, true, false],
            "<>" | "!=" => [true, false, true],
            "<" => [true, false, false],
            "<=" => [true, true, false],
            ">" => [false, false, true],
            ">=" => [false, true, true],
            _ => return None,
        };
        if flipped {
            allows.reverse();
        }
        Some(Comparison {
            side,
            allows,
            number,
            negative,
        })
    }
}
