//! `TABLESAMPLE`: where it stands, and who takes the sample.
//!
//! What holds:
//! - A sample of each shard's rows is one of all rows: each row is taken as likely, by itself (`BERNOULLI`) or with
//!   the others of its page (`SYSTEM`). `REPEATABLE` gives the same sample of each shard as long as its rows are
//!   the same.
//! - Of a table that every shard has, one shard takes the sample, so that it is the same for all rows that it is
//!   joined with.

use std::ops::Range;

use crate::catalog::Location;
use crate::plan::query::Query;
use crate::sql::token::TokenKind;

/// The clause behind the name of a sampled relation, if all its arguments are constants and parameters.
pub(super) fn clause(query: &Query<'_>, name: &Range<usize>) -> Option<Range<usize>> {
    let text = query.request.text;
    let is = |index: usize, word: &str| {
        let token = query.tokens.get(index);
        token.is_some_and(|token| token.is_word(text, word) || token.is_symbol(text, word))
    };
    // An alias and its columns may stand between.
    let start = (name.end..query.tokens.len()).find(|index| is(*index, "tablesample"))?;
    let opens = (start..query.tokens.len()).find(|index| is(*index, "("))?;
    let mut end = arguments(query, opens)?;
    if is(end, "repeatable") {
        end = arguments(query, end + 1)?;
    }
    Some(start..end)
}

/// Where arguments in parentheses end, none of which is computed.
fn arguments(query: &Query<'_>, opens: usize) -> Option<usize> {
    let text = query.request.text;
    let tokens = query.tokens.get(opens + 1..)?;
    let closes = tokens.iter().position(|token| token.is_symbol(text, ")"))?;
    let is_plain = |kind: TokenKind| kind.is_literal() || kind == TokenKind::Parameter;
    let plain = tokens.get(..closes)?;
    let mut others = plain.iter().filter(|token| !is_plain(token.kind));
    others
        .all(|token| token.is_symbol(text, ",") || token.is_symbol(text, "-"))
        .then_some(opens + closes + 2)
}

/// Whether each shard takes its part of every sample in a query.
pub(in crate::plan) fn is_each_shards(query: &Query<'_>) -> bool {
    query.bound.occurrences().all(|(block, index, source)| {
        let facts = query.facts.blocks.get(block);
        let is_sampled = facts
            .and_then(|facts| facts.sources.get(index))
            .is_none_or(|source| source.sampled);
        let relation = source.relation();
        let is_sharded = relation.is_some_and(|one| matches!(one.location, Location::Sharded(_)));
        !is_sampled || is_sharded
    })
}
