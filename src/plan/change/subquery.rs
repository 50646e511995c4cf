//! The subqueries of a statement that changes rows: which are evaluated once.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Reference;
use crate::sql::literal::identifier_value;

/// What a subquery may choose freely, so that shards may choose differently.
const FREE: [Clauses; 4] = [
    Clauses::LIMIT,
    Clauses::OFFSET,
    Clauses::WINDOW,
    Clauses::DISTINCT,
];

/// Words that join a subquery to another.
const SET_OPERATIONS: [&str; 3] = ["union", "intersect", "except"];

/// The subqueries of a statement.
pub(super) struct Subqueries {
    /// The tokens of those that are evaluated once, without their parentheses.
    pub evaluated: Vec<Range<usize>>,
}

/// Whether a subquery depends on rows of the statement around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depends {
    No,
    Yes,
    /// That can't be told.
    Maybe,
}

impl Subqueries {
    /// # Errors
    /// `0A000` for one that may choose freely and can't be evaluated once.
    pub fn of(query: &Query<'_>) -> Result<Subqueries> {
        let start = query
            .body
            .first()
            .and_then(|first| query.token_at(first.start));
        let start = start.unwrap_or_default();
        let mut found = Subqueries {
            evaluated: Vec::new(),
        };
        found.look(query, start..start + query.body.len())?;
        Ok(found)
    }

    /// Whether something at this place belongs to a subquery that is evaluated once.
    pub fn is_evaluated(&self, query: &Query<'_>, offset: u32) -> bool {
        let at = query.token_at(offset);
        at.is_some_and(|at| self.evaluated.iter().any(|range| range.contains(&at)))
    }

    fn look(&mut self, query: &Query<'_>, range: Range<usize>) -> Result<()> {
        let text = query.request.text;
        let mut at = range.start;
        while at < range.end {
            let is_open = query
                .tokens
                .get(at)
                .is_some_and(|token| token.is_symbol(text, "("));
            let inner = is_open.then(|| subquery_at(query, at)).flatten();
            let Some(inner) = inner else {
                at += 1;
                continue;
            };
            at = inner.end + 1;
            if !reads_or_draws(query, &inner) {
                continue;
            }
            match depends(query, &inner) {
                Depends::No => self.evaluated.push(inner),
                Depends::Yes => self.look(query, inner)?,
                Depends::Maybe if chooses(query, &inner) => return Err(unclear()),
                Depends::Maybe => self.look(query, inner)?,
            }
        }
        Ok(())
    }
}

/// The tokens between the parenthesis at `open` and its partner, if they are a subquery.
pub(in crate::plan) fn subquery_at(query: &Query<'_>, open: usize) -> Option<Range<usize>> {
    let text = query.request.text;
    let end = partner(query, open)?;
    let mut first = open + 1;
    while query.tokens.get(first)?.is_symbol(text, "(") {
        first += 1;
    }
    let words = ["select", "with", "values", "table"];
    let token = query.tokens.get(first)?;
    if !words.iter().any(|word| token.is_word(text, word)) {
        return None;
    }
    // `((SELECT 1) + 1)` is no subquery, `((SELECT 1) UNION SELECT 2)` is.
    if first > open + 1 {
        let behind = query.tokens.get(partner(query, open + 1)? + 1)?;
        let goes_on = SET_OPERATIONS.iter().any(|word| behind.is_word(text, word));
        if !goes_on {
            return None;
        }
    }
    // A function named so, as in `values(…)` of other dialects, is none.
    Some(open + 1..end)
}

/// The index of the parenthesis that closes the one at `open`.
fn partner(query: &Query<'_>, open: usize) -> Option<usize> {
    let text = query.request.text;
    let mut depth = 0_usize;
    for (index, token) in query.tokens.iter().enumerate().skip(open) {
        if token.is_symbol(text, "(") {
            depth += 1;
        } else if token.is_symbol(text, ")") {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(index);
            }
        }
    }
    None
}

fn contains(query: &Query<'_>, range: &Range<usize>, offset: Option<u32>) -> bool {
    let at = offset.and_then(|offset| query.token_at(offset));
    at.is_some_and(|at| range.contains(&at))
}

/// Whether a subquery reads relations or calls what differs from call to call.
fn reads_or_draws(query: &Query<'_>, range: &Range<usize>) -> bool {
    let mut blocks = query.facts.blocks.iter();
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    blocks.any(|block| {
        let mut sources = block.sources.iter();
        sources.any(|source| contains(query, range, source.offset))
    }) || calls.any(|(call, effects)| {
        let effects = effects.without(Effects::AGGREGATE | Effects::WINDOW | Effects::CLOCK);
        effects != Effects::NONE && contains(query, range, call.offset)
    })
}

/// Whether a subquery may give other rows each time.
fn chooses(query: &Query<'_>, range: &Range<usize>) -> bool {
    let mut blocks = query.facts.blocks.iter();
    blocks.any(|block| {
        contains(query, range, block.select) && FREE.iter().any(|clause| block.clauses.has(*clause))
    })
}

/// Whether a subquery certainly depends on no row around it, and names no query of WITH.
pub(in crate::plan) fn stands_alone(query: &Query<'_>, range: &Range<usize>) -> bool {
    depends(query, range) == Depends::No
}

fn depends(query: &Query<'_>, range: &Range<usize>) -> Depends {
    let text = query.request.text;
    let tokens = query.tokens.get(range.clone()).unwrap_or_default();
    let names_cte = tokens.iter().any(|token| {
        let name = identifier_value(text, token);
        name.is_some_and(|name| query.facts.ctes.iter().any(|cte| *cte == *name))
    });
    let mut references = query.facts.references.iter();
    if names_cte || references.any(|reference| reference.offset.is_none()) {
        return Depends::Maybe;
    }
    let inside = query.facts.references.iter();
    let inside = inside.filter(|reference| contains(query, range, reference.offset));
    let mut all = Depends::No;
    for reference in inside {
        match depends_by(query, range, reference) {
            Depends::Yes => return Depends::Yes,
            Depends::Maybe => all = Depends::Maybe,
            Depends::No => {}
        }
    }
    all
}

/// Whether a name in a subquery means a column outside.
fn depends_by(query: &Query<'_>, range: &Range<usize>, reference: &Reference) -> Depends {
    if let Some(column) = query.bound.resolve(reference.block, &reference.column) {
        let block = query.facts.blocks.get(column.block);
        let source = block.and_then(|block| block.sources.get(column.source));
        let is_inside = source.is_some_and(|source| contains(query, range, source.offset))
            || block.is_some_and(|block| contains(query, range, block.select));
        return if is_inside { Depends::No } else { Depends::Yes };
    }
    if let Some(qualifier) = reference.column.qualifier.last() {
        let known = |block: &BlockId| {
            let sources = query.facts.blocks.get(*block).map(|block| &block.sources);
            sources.is_some_and(|sources| {
                let mut sources = sources.iter();
                sources.any(|source| source.alias.as_ref() == Some(qualifier))
            })
        };
        return match inner_blocks(query, range, reference.block)
            .iter()
            .any(known)
        {
            true => Depends::No,
            false => Depends::Maybe,
        };
    }
    match outside_has(query, range, reference) {
        true => Depends::Maybe,
        false => Depends::No,
    }
}

/// The blocks from `block` outwards that belong to a subquery.
fn inner_blocks(query: &Query<'_>, range: &Range<usize>, block: BlockId) -> Vec<BlockId> {
    let mut found = Vec::new();
    let mut next = Some(block);
    while let Some(at) = next {
        let Some(facts) = query.facts.blocks.get(at) else {
            break;
        };
        let mut sources = facts.sources.iter();
        let is_inside = contains(query, range, facts.select)
            || sources.any(|source| contains(query, range, source.offset));
        if !is_inside {
            break;
        }
        found.push(at);
        let outer = facts.outer.as_ref().map(|outer| outer.block);
        next = outer.filter(|outer| *outer < at);
    }
    found
}

/// Whether a block around a subquery may have a column of this name.
fn outside_has(query: &Query<'_>, range: &Range<usize>, reference: &Reference) -> bool {
    let inner = inner_blocks(query, range, reference.block);
    let mut next = match inner.last() {
        Some(last) => query
            .facts
            .blocks
            .get(*last)
            .and_then(|block| block.outer.as_ref()),
        // The block of a set operation or VALUES has no place of its own.
        None => return true,
    };
    while let Some(outer) = next {
        let sources = query.bound.sources.get(outer.block);
        let may_have = |bound: &BoundSource<'_>| match bound.relation() {
            Some(relation) => relation.column(&reference.column.name).is_some(),
            None => true,
        };
        if sources.is_none_or(|sources| sources.iter().any(may_have)) {
            return true;
        }
        next = query
            .facts
            .blocks
            .get(outer.block)
            .and_then(|block| block.outer.as_ref())
            .filter(|further| further.block < outer.block);
    }
    false
}

fn unclear() -> Error {
    Error::refused(
        "a subquery that may give each shard other rows is not supported here",
        "It has LIMIT, OFFSET, DISTINCT or a window function, and it can't be told whether it depends on \
         the rows of the statement, so that it can't be evaluated once.",
        "Qualify its columns, use no name of a WITH query in it, or run it first and send its rows as a \
         parameter.",
    )
}
