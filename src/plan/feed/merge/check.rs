//! What a MERGE reads and calls beside its source: every shard must have it, and find the same.

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::change::OF_SESSION;
use crate::plan::effects::Effects;
use crate::plan::feed::FeedPlace;
use crate::plan::moment::Moment;
use crate::plan::moment::moment;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::MergeActions;
use crate::sql::token::Token;

use super::unfed;
use super::written::Written;

/// Assignments of defaults that shards can't evaluate alike.
pub(super) fn check_defaults(
    query: &Query<'_>,
    (actions, relation): (&MergeActions, &Relation),
    place: &FeedPlace,
) -> Result<()> {
    let assigned = &actions.assigned;
    match place {
        FeedPlace::Home(_) => Ok(()),
        FeedPlace::Sharded(_) => query.check_defaults(relation, assigned, true),
        FeedPlace::Replicated => {
            let text = query.request.text;
            let mut words = query.body.iter();
            if !words.any(|token| token.is_word(text, "default")) {
                return Ok(());
            }
            let mut columns = assigned.iter().filter_map(|name| relation.column(name));
            match columns.find(|(_, column)| column.default.varies) {
                Some((_, column)) => Err(refusal::assigned_default(&relation.name, &column.name)),
                None => Ok(()),
            }
        }
    }
}

/// What the statement reads beside its source must be where the target is, and it must not name what is asked
/// for first.
pub(super) fn check_source(query: &Query<'_>, main: BlockId, written: &Written) -> Result<()> {
    let text = query.request.text;
    let start = |at: usize| query.tokens.get(at).map_or(u32::MAX, |token| token.start);
    let asked = start(written.source.start)..start(written.source.end);
    let with = start(written.with.start)..start(written.with.end);
    for (block, source, bound) in query.bound.occurrences() {
        let BoundSource::Named(lookup) = bound else {
            continue;
        };
        let facts = query.facts.blocks.get(block);
        let offset = facts.and_then(|block| block.sources.get(source)?.offset);
        let is_asked = offset.is_some_and(|at| {
            asked.contains(&at) || (!written.with.is_empty() && with.contains(&at))
        });
        let is_target = block == main && source == 0;
        let is_replicated = matches!(
            lookup,
            Lookup::Relation(relation) if matches!(relation.location, Location::Replicated)
        );
        if !(is_asked || is_target || (is_replicated && block != main)) {
            return Err(unfed(
                "Its conditions or actions have a query, whose rows are not on every shard.",
                "Have the source give what they need.",
            ));
        }
    }
    let tail = query.tokens.get(written.source.end..).unwrap_or_default();
    let is_query = |token: &Token| {
        let words = ["select", "table", "with"];
        words.iter().any(|word| token.is_word(text, word))
    };
    if !written.with.is_empty() && tail.iter().any(is_query) {
        return Err(unfed(
            "Its conditions or actions have a query, which may name a query of its WITH.",
            "Write the source as a query with a WITH of its own.",
        ));
    }
    let mut references = query.facts.references.iter();
    let is_whole = references.any(|reference| {
        let is_row = reference.column.name == written.name;
        let is_schema = reference.column.qualifier.len() > 1;
        let is_behind = reference
            .offset
            .is_none_or(|at| at >= start(written.source.end));
        is_behind && (is_row || is_schema)
    });
    match is_whole {
        true => Err(unfed(
            "It names a whole row of its source, or a column behind a schema.",
            "Name the columns behind an alias.",
        )),
        false => Ok(()),
    }
}

/// The calls behind the source that have one value in a statement.
pub(super) fn calls(
    query: &Query<'_>,
    written: &Written,
    place: &FeedPlace,
) -> Result<Vec<Moment>> {
    let start = query
        .tokens
        .get(written.source.end)
        .map_or(u32::MAX, |token| token.start);
    let mut found = Vec::new();
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        if call.offset.is_some_and(|at| at < start) {
            continue;
        }
        let name = call.name.name.as_str();
        let effects = effects.without(Effects::AGGREGATE | Effects::WINDOW);
        let is_of_session = effects == Effects::SERVER && OF_SESSION.contains(&name);
        if effects == Effects::NONE || is_of_session {
            continue;
        }
        let is_home = matches!(place, FeedPlace::Home(_));
        if effects == Effects::RANDOM && !matches!(place, FeedPlace::Replicated) {
            continue;
        }
        if effects == Effects::CLOCK {
            if is_home {
                continue;
            }
            if let Some(moment) = moment(query, call) {
                found.push(moment);
                continue;
            }
        }
        return Err(refusal::differs(&format!("the function \"{name}\"")));
    }
    Ok(found)
}
