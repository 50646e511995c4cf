//! UPDATE and DELETE that no shard can do by itself as they are written.
//!
//! Every row of the target is on one shard, which changes it; so the statement runs on each shard that
//! may have such rows, and its answers are the shards' answers one behind the other. What holds:
//! - Whatever else the statement reads is whole on each of those shards: it is replicated, or its shard
//!   key is tied to the target's row as in [`crate::plan::colocation`], or its rows travel there first as
//!   a parameter, an array of the relation's own row type. Rows that can't take part are left behind, as
//!   [`crate::plan::combine`] does it.
//! - A subquery that does not depend on rows of the statement is evaluated once, on one shard, and its
//!   rows travel instead: so what it may choose freely (LIMIT without order) is chosen once.
//! - What has one value in a statement (`now()`) is asked of one shard and sent to all. What has a new
//!   value for each row (`random()`) may be called by each shard, since each row is at one shard only.
//! - Nothing that a shard is sent makes a temporary object: those forbid PREPARE TRANSACTION.
//! - A plan serves every text of its shape: it knows tokens by their place.

mod calls;
mod execution;
mod key_type;
mod moves;
pub(super) mod subquery;

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Route;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::combine::columns;
use crate::plan::combine::columns::Names;
use crate::plan::combine::terms::Terms;
use crate::plan::effects::Effects;
use crate::plan::hazards::check_policies;
use crate::plan::hazards::check_spread;
use crate::plan::keyed::Keyed;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::plan::moment::Moment;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;

use moves::Move;
use subquery::Subqueries;

pub(super) use calls::OF_SESSION;

pub use execution::Column;
pub use execution::Extra;
pub use execution::Shipment;
pub use execution::Steps;
pub use execution::Written;
pub use moves::BEFORE_KEY;

/// A change of rows that takes more than sending the text to each shard.
#[derive(Clone, Debug)]
pub struct Change {
    /// The target, for people.
    table: String,
    place: Place,
    /// What restricts the target to some of its shards.
    proof: Option<Proof>,
    /// The relations whose rows travel.
    fragments: Vec<Fragment>,
    /// The subqueries that are evaluated once: the tokens between their parentheses.
    evaluated: Vec<Range<usize>>,
    /// The calls that have one value in a statement.
    moments: Vec<Moment>,
    /// Tokens of schemas before tables before columns, which have no meaning where rows have travelled.
    schemas: Vec<Range<usize>>,
    /// It assigns to the shard key.
    moved: Option<Move>,
}

/// Where the target's rows are.
#[derive(Clone, Debug)]
enum Place {
    Sharded(Arc<Placement>),
    Home(ShardIndex),
}

/// One occurrence of a relation whose rows travel.
#[derive(Clone, Debug)]
struct Fragment {
    schema: String,
    relation: String,
    /// `ONLY`.
    only: bool,
    /// The tokens of its name, and of the `ONLY` before it.
    tokens: Range<usize>,
    /// The name by which the statement knows it.
    alias: String,
    /// That name is written as an alias.
    is_aliased: bool,
    /// Each column of the relation, and whether the statement may use it.
    columns: Vec<(String, bool)>,
    /// The tokens of each term that its rows meet.
    terms: Vec<Range<usize>>,
    shards: ShardSet,
    proof: Option<Proof>,
}

/// What a change does, for people to see.
pub(super) struct Shown<'a> {
    pub table: &'a str,
    pub shards: ShardSet,
    pub proof: Option<&'a Proof>,
    /// Name, columns, number of terms and shards of each relation that travels.
    pub relations: Vec<(&'a str, Vec<&'a str>, usize, &'a ShardSet)>,
    /// How many subqueries are evaluated once.
    pub evaluated: usize,
    /// How many calls are.
    pub moments: usize,
    /// Rows may move.
    pub moves: bool,
}

impl Change {
    /// The parts, to be shown.
    pub(super) fn shown(&self) -> Shown<'_> {
        let relations = self.fragments.iter().map(|fragment| {
            let columns = fragment.columns.iter().filter(|(_, is_used)| *is_used);
            let columns = columns.map(|(name, _)| name.as_str()).collect();
            let terms = fragment.terms.len();
            (fragment.relation.as_str(), columns, terms, &fragment.shards)
        });
        Shown {
            table: &self.table,
            shards: self.all_shards(),
            proof: self.proof.as_ref(),
            relations: relations.collect(),
            evaluated: self.evaluated.len(),
            moments: self.moments.len(),
            moves: self.moved.is_some(),
        }
    }

    /// The shards that may have rows of the target.
    pub fn all_shards(&self) -> ShardSet {
        match &self.place {
            Place::Sharded(placement) => placement.shards().clone(),
            Place::Home(shard) => ShardSet::from_iter([*shard]),
        }
    }

    /// Each shard can do the text as it is.
    fn is_plain(&self) -> bool {
        self.fragments.is_empty()
            && self.evaluated.is_empty()
            && self.moments.is_empty()
            && self.moved.is_none()
    }

    /// As a route of its own.
    fn into_route(self) -> Route {
        let Place::Sharded(placement) = &self.place else {
            return Route::Change(Arc::new(self));
        };
        match (self.is_plain(), &self.proof) {
            (false, _) => Route::Change(Arc::new(self)),
            (true, None) => Route::Scatter(placement.shards().clone()),
            (true, Some(proof)) => Route::Keyed(Box::new(Keyed {
                proofs: Box::new([proof.clone()]),
                home: None,
                spread: Spread::Scatter(placement.shards().clone()),
            })),
        }
    }

    /// As what becomes of executions that a keyed route does not serve.
    fn into_spread(self) -> Spread {
        match (&self.place, self.is_plain()) {
            (Place::Sharded(placement), true) => Spread::Scatter(placement.shards().clone()),
            _ => Spread::Change(Arc::new(self)),
        }
    }
}

/// Serves a route that refuses some or all executions, if that is possible.
pub(super) fn complete(query: &Query<'_>, route: Route) -> Route {
    let is_change = main_block(query).is_some();
    match route {
        Route::Refused(refused) if is_change => match change(query, &refused) {
            Ok(change) => change.into_route(),
            Err(error) => Route::Refused(error),
        },
        Route::Keyed(mut keyed) if is_change => {
            if let Spread::Refuse(refused) = &keyed.spread {
                keyed.spread = match change(query, refused) {
                    Ok(change) => change.into_spread(),
                    Err(error) => Spread::Refuse(error),
                };
            }
            Route::Keyed(keyed)
        }
        route => route,
    }
}

/// The block of the UPDATE or DELETE that a statement is; nothing else in it changes rows.
fn main_block(query: &Query<'_>) -> Option<BlockId> {
    let text = query.request.text;
    let blocks = query.facts.blocks.iter().enumerate();
    let mut changes = blocks.filter(|(_, block)| block.kind.modifies());
    let (main, block) = changes.next()?;
    let is_only = changes.next().is_none();
    let is_change = matches!(block.kind, BlockKind::Update(_) | BlockKind::Delete);
    // Not one of its WITH queries, which stand in parentheses.
    let mut depth = 0_usize;
    let is_outside = query.body.iter().any(|token| {
        match token.text(text) {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (token.is_word(text, "update") || token.is_word(text, "delete"))
    });
    (is_only && is_change && is_outside).then_some(main)
}

/// Plans a change.
///
/// # Errors
/// `refused`, or a better reason why not.
fn change(query: &Query<'_>, refused: &Error) -> Result<Change> {
    let target = Target::of(query, refused)?;
    query.check_calls()?;
    if let Some(BlockKind::Update(assigned)) =
        query.facts.blocks.get(target.block).map(|one| &one.kind)
        && let Place::Sharded(_) = target.place
    {
        query.check_defaults(target.relation, assigned, true)?;
    }
    if query.facts.object_ids {
        return Err(refusal::differs("object identifiers"));
    }
    if query.facts.system_columns {
        return Err(refusal::differs("system columns"));
    }
    let subqueries = Subqueries::of(query)?;
    let moments = calls::moments(query, target.block, &subqueries)?;
    let moved = moves::find(query, &target)?;
    let mut builder = Builder {
        query,
        refused,
        names: Names::of(query),
        terms: Terms::of(query),
        prover: Prover::new(query),
        target: &target,
        subqueries: &subqueries,
        fragments: Vec::new(),
    };
    for (block, source, bound) in query.bound.occurrences() {
        if let BoundSource::Named(lookup) = bound
            && (block, source) != (target.block, 0)
        {
            builder.source((block, source), lookup)?;
        }
    }
    let proof = match &target.place {
        Place::Sharded(_) => builder.prover.prove(target.relation, target.block, 0),
        Place::Home(_) => None,
    };
    let fragments = builder.fragments;
    let travels = !fragments.is_empty() || !subqueries.evaluated.is_empty();
    let mut blocks = query.facts.blocks.iter();
    if travels && blocks.any(|block| block.clauses.has(Clauses::LOCKING)) {
        // Rows that have travelled are no longer where they could be locked.
        return Err(refusal::locks_combined());
    }
    if travels && query.effects.any(Effects::SHARD) {
        return Err(refusal::differs("the column \"shard_id\""));
    }
    let schemas = match fragments.is_empty() {
        true => Vec::new(),
        false => columns::schemas(query)?,
    };
    Ok(Change {
        table: target.relation.name.clone(),
        place: target.place,
        proof,
        fragments,
        evaluated: subqueries.evaluated,
        moments,
        schemas,
        moved,
    })
}

/// The relation that is changed.
struct Target<'a> {
    /// The block of the UPDATE or DELETE.
    block: BlockId,
    relation: &'a Relation,
    place: Place,
    /// The columns of its shard key.
    key: Vec<ColumnId>,
}

impl<'a> Target<'a> {
    fn of(query: &Query<'a>, refused: &Error) -> Result<Target<'a>> {
        let block = main_block(query).ok_or_else(|| refused.clone())?;
        let bound = query.bound.source(block, 0);
        let relation = bound.and_then(BoundSource::relation);
        let relation = relation.ok_or_else(|| refused.clone())?;
        check_policies(relation)?;
        query.check_events(relation)?;
        check_spread(query.request.catalog, relation, query.events())?;
        let place = match &relation.location {
            Location::Sharded(placement) => Place::Sharded(Arc::clone(placement)),
            Location::Home(shard) => Place::Home(*shard),
            Location::Replicated | Location::Unserved(_) => return Err(refused.clone()),
        };
        if relation.is_view() || relation.kind == 'f' {
            return Err(refused.clone());
        }
        let key = key_of(relation, (block, 0)).unwrap_or_default();
        Ok(Target {
            block,
            relation,
            place,
            key,
        })
    }
}

/// The columns of a relation's shard key.
fn key_of(relation: &Relation, (block, source): (BlockId, usize)) -> Option<Vec<ColumnId>> {
    let columns = relation.placement()?.columns().iter();
    columns
        .map(|key| {
            let (column, _) = relation.column(&key.name)?;
            Some(ColumnId {
                block,
                source,
                column,
            })
        })
        .collect()
}

struct Builder<'a> {
    query: &'a Query<'a>,
    refused: &'a Error,
    names: Names,
    terms: Terms,
    prover: Prover<'a>,
    target: &'a Target<'a>,
    subqueries: &'a Subqueries,
    fragments: Vec<Fragment>,
}

impl Builder<'_> {
    /// Takes one source in, other than the target.
    fn source(&mut self, at: (BlockId, usize), lookup: Lookup<'_>) -> Result<()> {
        let refuse = || self.refused.clone();
        let Lookup::Relation(relation) = lookup else {
            return match (&self.target.place, lookup) {
                // What is not known at all is PostgreSQL's to reject, where it would be.
                (
                    Place::Home(shard),
                    Lookup::Unknown {
                        configured: false,
                        wildcard: false,
                        home,
                    },
                ) if home == *shard && !self.query.request.temporary_tables => Ok(()),
                _ => Err(refuse()),
            };
        };
        check_policies(relation)?;
        let shards = match (&relation.location, &self.target.place) {
            (Location::Unserved(_), _) => return Err(refuse()),
            (Location::Replicated, _) => return Ok(()),
            (Location::Home(shard), Place::Home(target))
                if shard == target && !self.is_evaluated(at) =>
            {
                return Ok(());
            }
            (Location::Home(shard), _) => ShardSet::from_iter([*shard]),
            (Location::Sharded(placement), _) => {
                if !self.is_evaluated(at) && self.is_tied(relation, placement, at) {
                    return Ok(());
                }
                placement.shards().clone()
            }
        };
        if relation.is_view() || relation.kind == 'f' {
            return Err(refuse());
        }
        let fragment = self.fragment(at, relation, shards).ok_or_else(refuse)?;
        self.fragments.push(fragment);
        Ok(())
    }

    /// Whether it stands in a subquery that is evaluated once.
    fn is_evaluated(&self, at: (BlockId, usize)) -> bool {
        let token = self.name_offset(at);
        token.is_some_and(|offset| self.subqueries.is_evaluated(self.query, offset))
    }

    fn name_offset(&self, (block, source): (BlockId, usize)) -> Option<u32> {
        self.query
            .facts
            .blocks
            .get(block)?
            .sources
            .get(source)?
            .offset
    }

    /// Whether only rows of the target row's own shard matter.
    fn is_tied(&self, relation: &Relation, placement: &Placement, at: (BlockId, usize)) -> bool {
        let Place::Sharded(target) = &self.target.place else {
            return false;
        };
        let Some(key) = key_of(relation, at) else {
            return false;
        };
        target.colocated_with(placement)
            && key.len() == self.target.key.len()
            && key
                .iter()
                .zip(&self.target.key)
                .all(|(own, target)| self.prover.links(*own, *target))
    }

    /// One occurrence whose rows travel; none if its place in the text is not known.
    fn fragment(
        &self,
        (block, index): (BlockId, usize),
        relation: &Relation,
        shards: ShardSet,
    ) -> Option<Fragment> {
        let source = self.query.facts.blocks.get(block)?.sources.get(index)?;
        let name = self.query.name_tokens(source)?;
        if source.sampled || self.query.is_table_query(&name) {
            return None;
        }
        let only = self.query.is_only(&name);
        let used = self.names.columns(self.query, block, source, relation);
        let columns = relation.columns.iter().map(|column| {
            let is_used = used.contains(&column.name);
            (column.name.clone(), is_used)
        });
        Some(Fragment {
            schema: relation.schema.clone(),
            relation: relation.name.clone(),
            only,
            tokens: name.start - usize::from(only)..name.end,
            alias: source
                .alias
                .clone()
                .unwrap_or_else(|| relation.name.clone()),
            is_aliased: source.alias.is_some(),
            columns: columns.collect(),
            terms: match source.columns.is_empty() {
                true => self.terms.pushed(self.query, (block, index)),
                false => Vec::new(),
            },
            proof: match &relation.location {
                Location::Sharded(_) => self.prover.prove(relation, block, index),
                _ => None,
            },
            shards,
        })
    }
}
