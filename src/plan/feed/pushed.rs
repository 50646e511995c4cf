//! `INSERT … SELECT` that each shard does by itself, as it is written.
//!
//! That is so when every row of the query comes from one shard, which is where it belongs: the query's
//! answer is the concatenation of the shards' answers, and in the place of each column of the target's key it
//! has the same column of the key of a sharded source, of a table that is placed alike. The assignment must not
//! change the value: both columns have the same type, or are integers. A source that an outer join may leave
//! out gives no key.

use crate::plan::Route;
use crate::plan::bind::ColumnId;
use crate::plan::colocation::Joined;
use crate::plan::effects::Effects;
use crate::plan::keyed::Spread;
use crate::plan::merge;
use crate::plan::query::Query;
use crate::plan::statement::Part;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::Placement;
use crate::sql::analysis;
use crate::sql::analysis::Block;
use crate::sql::analysis::JoinKind;
use crate::sql::analysis::outline::Form;

use super::Fed;
use super::Feed;
use super::FeedPlace;
use super::FeedValue;
use super::Inserting;

/// The route of a statement that each shard does by itself; none if it is not certain that it can.
pub(super) fn route(whole: &Query<'_>, feed: &Feed, inserting: &Inserting) -> Option<Route> {
    let FeedPlace::Sharded(target) = &feed.place else {
        return None;
    };
    let written = &inserting.written;
    if written.is_user || !written.with.is_empty() {
        return None;
    }
    let allowed = Effects::AGGREGATE | Effects::WINDOW;
    if whole.effects.without(allowed) != Effects::NONE {
        return None;
    }
    let tokens = whole.tokens.get(written.query.clone())?;
    let facts = analysis::analyse(whole.request.text, tokens).ok()?;
    if facts.blocks.len() + 1 != whole.facts.blocks.len() {
        return None;
    }
    let part = Part {
        request: whole.request,
        all: whole.tokens,
        tokens,
    };
    let query = Query::new(part, &facts);
    let (route, None) = query.route().ok()? else {
        return None;
    };
    let is_concatenated = match &route {
        Route::Scatter(_) => true,
        Route::Keyed(keyed) => matches!(keyed.spread, Spread::Scatter(_)) && keyed.home.is_none(),
        _ => false,
    };
    let forms = merge::forms(&query)?;
    let fed = feed.inserted(inserting, forms.len()).ok()?;
    (is_concatenated && gives_keys(&query, (feed, &fed), target, &forms)).then_some(route)
}

/// Whether every row has the key of its shard.
fn gives_keys(
    query: &Query<'_>,
    (feed, fed): (&Feed, &[Fed]),
    target: &Placement,
    forms: &[Form],
) -> bool {
    let Ok(joined) = Joined::new(query) else {
        return false;
    };
    let is_given =
        |value: &FeedValue| matches!(value, FeedValue::Query(_) | FeedValue::Constant { .. });
    if !joined.is_placed_as(target) || !fed.iter().all(|one| is_given(&one.value)) {
        return false;
    }
    let Ok(keys) = feed.keys(fed) else {
        return false;
    };
    let mut keys = keys.into_iter().zip(target.columns()).enumerate();
    keys.all(|(number, (at, key))| {
        let form = fed.get(at).and_then(|one| match &one.value {
            FeedValue::Query(column) => forms.get(*column),
            _ => None,
        });
        form.is_some_and(|form| is_key(query, form, (number, &key.column_type)))
    })
}

/// Whether an item of a select list is the column with this number of the key of a source that is there in
/// every row, and is stored in a column of this type as it is.
fn is_key(query: &Query<'_>, form: &Form, (number, stored): (usize, &ColumnType)) -> bool {
    let Form::Column(column) = form else {
        return false;
    };
    let Some(ColumnId {
        block,
        source,
        column,
    }) = query.bound.resolve(0, column)
    else {
        return false;
    };
    let relation = query.bound.source(block, source);
    let relation = relation.and_then(|source| source.relation());
    let Some((relation, placement)) =
        relation.and_then(|relation| Some((relation, relation.placement()?)))
    else {
        return false;
    };
    let (Some(column), Some(key)) = (
        relation.columns.get(column),
        placement.columns().get(number),
    ) else {
        return false;
    };
    let is_whole = query
        .facts
        .blocks
        .get(block)
        .is_some_and(|block| !is_extended(block, source));
    let is_integer = |kind: KeyType| matches!(kind, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    let is_alike = column.key_type == Some(*stored)
        || (is_integer(stored.key_type)
            && column.key_type.is_some_and(|own| is_integer(own.key_type)));
    block == 0 && is_whole && is_alike && column.name == key.name
}

/// Whether an outer join may leave a source out.
fn is_extended(block: &Block, source: usize) -> bool {
    block.outer_joins.iter().any(|join| match join.join {
        JoinKind::Left => join.right.contains(&source),
        JoinKind::Right => join.left.contains(&source),
        JoinKind::Inner | JoinKind::Full => true,
    })
}
