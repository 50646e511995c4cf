//! `shardwire.shard_key`: the key of the sharded tables that a statement does not restrict itself; pure.
//!
//! What holds:
//! - A table whose own block proves its key keeps that proof: the statement says where it runs, whatever
//!   the session says. Any other sharded table that is read, updated or deleted from is taken on the shard
//!   of the session's key alone, with all rows that are there.
//! - Such a statement runs on that shard as it is written, or is refused. Nothing of it reaches another
//!   shard: no merge, no hub, no rows that move or are stored.
//! - Plans do not depend on the key's value, so sessions with different keys share them.

use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::plan::Route;
use crate::plan::bind::BoundSource;
use crate::plan::keyed::KeySource;
use crate::plan::keyed::KeyValue;
use crate::plan::keyed::Part;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sql::analysis::BlockKind;

/// The session's key has more or fewer values than the table's.
pub(super) const OTHER_COUNT: KeyError = KeyError::Unprovable(
    "shardwire.shard_key has not as many values as the table's shard key has columns",
);

/// The session's key as that of a table.
pub(super) fn proof(relation: &Relation) -> Option<Proof> {
    let placement = relation.placement()?;
    let columns = placement.columns();
    let mut parts = Vec::with_capacity(columns.len());
    for (index, key) in columns.iter().enumerate() {
        let (_, column) = relation.column(&key.name)?;
        let source = KeySource::Session {
            index,
            count: columns.len(),
        };
        let value = KeyValue {
            source,
            cast: 0,
            shared: false,
        };
        parts.push(Part {
            column: column.key_type?,
            values: Box::new([value]),
        });
    }
    Some(Proof {
        table: relation.name.clone(),
        placement: Arc::clone(placement),
        parts: parts.into_boxed_slice(),
        use_: KeyUse::Compare,
        optional: false,
    })
}

/// The route of a query in a session that has a key: one that could reach beyond the key's shard becomes
/// a refusal.
pub(super) fn confined(query: &Query<'_>, route: Route) -> Route {
    if !query.request.by_key || !takes_key(query) {
        return route;
    }
    match route {
        Route::Keyed(mut keyed) => {
            keyed.spread = Spread::Refuse(elsewhere());
            Route::Keyed(keyed)
        }
        Route::Any | Route::Shard(_) | Route::Define(_) | Route::Refused(_) => route,
        Route::Scatter(_)
        | Route::Combine(_)
        | Route::Replicated(_)
        | Route::Insert(_)
        | Route::CopyIn(_)
        | Route::Feed(_)
        | Route::Staged(_)
        | Route::Change(_)
        | Route::Filled(_) => Route::Refused(beyond()),
    }
}

/// Whether a table is taken by the session's key. Rows to be stored have keys of their own.
fn takes_key(query: &Query<'_>) -> bool {
    let prover = Prover::new(query);
    let mut sources = query.bound.occurrences();
    sources.any(|(block, source, bound)| {
        let BoundSource::Named(Lookup::Relation(relation)) = bound else {
            return false;
        };
        let kind = query.facts.blocks.get(block).map(|block| &block.kind);
        let is_stored = source == 0 && matches!(kind, Some(BlockKind::Insert(_)));
        matches!(relation.location, Location::Sharded(_))
            && !is_stored
            && prover.prove(relation, block, source).is_none()
    })
}

/// Some of its tables are not where the session's key is.
fn elsewhere() -> Error {
    Error::refused(
        "statement needs another shard than that of shardwire.shard_key",
        "A table in it that its own conditions don't restrict is taken on that shard, and another table or \
         key of it is elsewhere.",
        "RESET shardwire.shard_key, or restrict each table by its shard key.",
    )
}

/// It is served by more than one shard's answer.
pub(super) fn beyond() -> Error {
    Error::refused(
        "statement can't be confined to the shard of shardwire.shard_key",
        "It stores or moves rows, or needs rows of other shards, and has a table that its own conditions \
         don't restrict.",
        "RESET shardwire.shard_key, or restrict each table by its shard key.",
    )
}
