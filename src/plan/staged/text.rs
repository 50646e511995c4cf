//! The texts of parts, made of the text of the whole by tokens.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::feed::piece;
use crate::plan::moment::Moment;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sqlstate::SqlState;

use super::DRAWN_ROWS;
use super::Staged;
use super::unclear;

/// What stands in the text of a part for what is known when it runs.
pub trait Known {
    /// A query of the rows of a part.
    fn rows(&mut self, part: usize) -> String;
    /// The number of the parameter that is the transaction's time, or the statement's.
    fn moment(&mut self, of_statement: bool) -> usize;
}

impl Staged {
    /// The parts in the order in which they run.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The part whose answer is the client's.
    pub fn main(&self) -> usize {
        self.main
    }

    /// Whether others use the rows of a part.
    pub fn is_kept(&self, part: usize) -> bool {
        let mut run = self.order.iter().filter_map(|at| self.stages.get(*at));
        run.any(|stage| stage.uses.contains(&part))
    }

    /// Whether parts name a time: the transaction's, the statement's.
    pub fn needs_moments(&self) -> (bool, bool) {
        let run = self.order.iter().filter_map(|at| self.stages.get(*at));
        let moments: Vec<&Moment> = run.flat_map(|stage| &stage.moments).collect();
        let any = |of_statement| moments.iter().any(|one| one.of_statement == of_statement);
        (any(false), any(true))
    }

    /// A query whose columns are those of a part, to be described; it is not to be run.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn columns_of(&self, part: usize, text: &str, lex: LexOptions) -> Result<String> {
        let tokens = tokens_of(text, lex)?;
        let stage = self.stages.get(part).ok_or_else(other_shape)?;
        if let Some(drawn) = &self.drawn {
            return Ok(drawn.rows(text, &tokens));
        }
        let Some(head) = &stage.head else {
            return Ok(piece(text, &tokens, &stage.body).to_owned());
        };
        let name = piece(text, &tokens, &(head.start..head.start + 1));
        let with = piece(text, &tokens, &(self.with..stage.body.end + 1));
        Ok(format!("{with} SELECT * FROM {name}"))
    }

    /// The text of a part.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn text(
        &self,
        part: usize,
        (text, lex): (&str, LexOptions),
        known: &mut impl Known,
    ) -> Result<String> {
        let tokens = tokens_of(text, lex)?;
        let stage = self.stages.get(part).ok_or_else(other_shape)?;
        match &self.drawn {
            Some(drawn) if part == self.main => {
                return drawn.drawing((text, lex), &tokens, &known.rows(DRAWN_ROWS));
            }
            Some(drawn) => return Ok(drawn.rows(text, &tokens)),
            None => {}
        }
        let (mut with, mut edits) = (Vec::new(), Vec::new());
        let span = bytes(&tokens, &stage.body)?;
        let mut put = |range: &Range<usize>, text: String| -> Result<()> {
            let range = bytes(&tokens, range)?;
            edits.push(Edit {
                range: range.start - span.start..range.end - span.start,
                text,
            });
            Ok(())
        };
        for used in &stage.uses {
            let Some(stage) = self.stages.get(*used) else {
                continue;
            };
            match &stage.head {
                Some(head) => {
                    let head = piece(text, &tokens, head);
                    with.push(format!("{head} AS MATERIALIZED ({})", known.rows(*used)));
                }
                None => put(&stage.body, format!(" {} ", known.rows(*used)))?,
            }
        }
        for moment in &stage.moments {
            let precision = moment
                .precision
                .map_or("", |at| piece(text, &tokens, &(at..at + 1)));
            put(
                &moment.tokens,
                moment.written(precision, known.moment(moment.of_statement)),
            )?;
        }
        let body = splice(piece(text, &tokens, &stage.body), lex, &edits)?;
        Ok(match with.is_empty() {
            true => body,
            false if begins_with(text, &tokens, &stage.body) => {
                format!("WITH {} ({body})", with.join(", "))
            }
            false => format!("WITH {} {body}", with.join(", ")),
        })
    }

    /// A change with a `WITH` of its own has no place for the queries that it uses.
    pub(super) fn check_nested(&self, query: &Query<'_>) -> Result<()> {
        let text = query.request.text;
        for stage in &self.stages {
            let uses = stage.uses.iter().filter_map(|at| self.stages.get(*at));
            let has_with = uses.into_iter().any(|used| used.head.is_some());
            let modifies = query.facts.blocks.iter().any(|block| {
                let target = block.sources.first().and_then(|source| source.offset);
                let at = target.and_then(|offset| query.token_at(offset));
                block.kind.modifies() && at.is_some_and(|at| stage.body.contains(&at))
            });
            if has_with && modifies && begins_with(text, query.tokens, &stage.body) {
                return Err(unclear());
            }
        }
        Ok(())
    }

    /// What it does, in words: a line for each part.
    pub(in crate::plan) fn words(&self) -> String {
        let mut words = "One part behind the other".to_owned();
        for stage in self.order.iter().filter_map(|at| self.stages.get(*at)) {
            words.push_str("\n  ");
            words.push_str(&stage.shown);
        }
        words
    }
}

fn begins_with(text: &str, tokens: &[Token], body: &Range<usize>) -> bool {
    let first = tokens.get(body.start);
    first.is_some_and(|token| token.is_word(text, "with"))
}

/// The bytes of some tokens.
pub(super) fn bytes(tokens: &[Token], range: &Range<usize>) -> Result<Range<u32>> {
    let tokens = tokens.get(range.clone()).unwrap_or_default();
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => Ok(first.start..last.end),
        _ => Err(other_shape()),
    }
}

fn other_shape() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the statement is not of the shape that was planned",
    )
}
