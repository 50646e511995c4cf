//! Queries that a PostgreSQL, the *hub*, finishes over the rows of its relations.
//!
//! The client's text stays as it is but for the names of relations that the hub can't read where it is:
//! each of them becomes the name of an *intermediate relation*, which holds the rows that the shards
//! have of it. So whatever the query does with its relations is PostgreSQL's own doing.
//!
//! What holds:
//! - An intermediate relation has every column of its relation whose name stands anywhere in the
//!   statement; all of them where a `*`, a whole row, `NATURAL` or a list of column aliases may use
//!   them unnamed.
//! - Terms of `WHERE` and `ON` that only read one occurrence restrict its rows on the shards. They
//!   stay in the statement too, so that they need only be implied. A term is pushed if each of its
//!   words is known: a column of that occurrence, a function without effects, a word of the grammar. On
//!   the side that an outer join may null-extend it must also be untrue of nulls.
//! - Where a condition of its block equates a column of an occurrence with one of another, only rows with a
//!   value that the other one's copy has can take part: a null-extended row does not meet it either.
//!   So the keys of a copy that is small may restrict what is copied next. The same holds through a subquery in
//!   `FROM` whose rows a condition may as well restrict inside, and for `IN`.
//! - A plan serves every text of its shape: it knows tokens by their place, and never the value of a
//!   constant.
//! - Functions are called by the hub alone, once for each row as PostgreSQL does it; those in pushed
//!   terms have the same value everywhere.

mod check;
pub(super) mod columns;
mod execution;
mod gathered;
mod places;
pub(super) mod sample;
pub(super) mod terms;
pub(super) mod unread;

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::TableColumn;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Route;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::bind::Equal;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::plan::outputs::Reader;
use crate::plan::proof::Prover;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Source;

use columns::Names;
use gathered::Gathered;
use terms::Terms;

pub use execution::Execution;
pub use execution::Intermediate;
pub use execution::KeyLink;
pub use execution::KeySource;
pub use gathered::NOW;
pub use gathered::Unfinished;

/// A query that a hub finishes.
#[derive(Clone, Debug)]
pub struct Combine {
    /// Its intermediate relations.
    fragments: Vec<Fragment>,
    /// Where they stand in the statement.
    occurrences: Vec<Occurrence>,
    /// The shard that the hub must be of, because it reads what is only there.
    hub: Option<ShardIndex>,
    /// Tokens of schemas before tables before columns, which the hub does not know.
    schemas: Vec<Range<usize>>,
    /// It was not parsed: see [`unread`].
    is_unread: bool,
    /// It asks for the types of values, which may be whole rows.
    asks_type: bool,
    /// What each shard does instead of sending its rows, where types allow it.
    gathered: Option<Box<Gathered>>,
}

/// What the shards are asked for one intermediate relation.
#[derive(Clone, Debug)]
struct Fragment {
    schema: String,
    relation: String,
    /// `ONLY`.
    only: bool,
    /// The name by which its terms know it.
    alias: String,
    columns: Vec<String>,
    /// The tokens of each term that its rows meet.
    terms: Vec<Range<usize>>,
    place: Place,
    /// What restricts it to some shards.
    proof: Option<Proof>,
    /// The tokens of the `TABLESAMPLE` of its only occurrence.
    sample: Option<Range<usize>>,
    /// Columns that equal those of other fragments.
    links: Vec<Link>,
}

/// An equality of a fragment's column with another fragment's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    column: String,
    /// Index of the other fragment.
    other: usize,
    other_column: String,
}

/// Where the rows of a relation are.
#[derive(Clone, Debug)]
enum Place {
    /// Some on each of these.
    Shards(ShardSet),
    /// All on this one, where the hub is too.
    Home(ShardIndex),
    /// All on every one.
    Everywhere,
}

/// A relation's name in the statement.
#[derive(Clone, Debug)]
struct Occurrence {
    /// Index of its fragment.
    fragment: usize,
    /// The tokens of its name.
    tokens: Range<usize>,
    /// The alias that it needs to be known by its name.
    alias: Option<String>,
    /// Its rows may be used as values.
    is_whole: bool,
    /// The tokens of its `TABLESAMPLE`.
    sample: Option<Range<usize>>,
}

/// A fragment for people to see.
pub(super) struct Shown<'a> {
    pub relation: &'a str,
    pub columns: &'a [String],
    /// How many terms restrict it.
    pub terms: usize,
    /// None if the hub reads it where it is.
    pub shards: Option<&'a ShardSet>,
    pub proof: Option<&'a Proof>,
}

impl Combine {
    /// The fragments, to be shown.
    pub(super) fn parts(&self) -> impl Iterator<Item = Shown<'_>> {
        self.fragments.iter().map(|fragment| Shown {
            relation: &fragment.relation,
            columns: &fragment.columns,
            terms: fragment.terms.len(),
            shards: match &fragment.place {
                Place::Shards(shards) => Some(shards),
                Place::Home(_) | Place::Everywhere => None,
            },
            proof: fragment.proof.as_ref(),
        })
    }

    /// What each shard does of it, and where, to be shown.
    pub(super) fn gathered(&self) -> Option<(&'static str, &ShardSet, Option<&Proof>)> {
        let gathered = self.gathered.as_ref()?;
        Some((gathered.words(), &gathered.shards, gathered.proof.as_ref()))
    }

    /// The shard that the hub must be of, if any.
    pub fn hub(&self) -> Option<ShardIndex> {
        self.hub
    }
}

/// Gives a route that refuses some or all executions a hub to finish them, if that is possible.
pub(super) fn complete(query: &Query<'_>, route: Route) -> Route {
    match route {
        Route::Refused(refused) => match combine(query, &refused) {
            Ok(combine) => Route::Combine(Arc::new(combine)),
            Err(error) => Route::Refused(error),
        },
        Route::Keyed(mut keyed) => {
            if let Spread::Refuse(refused) = &keyed.spread
                && let Ok(combine) = combine(query, refused)
            {
                keyed.spread = Spread::Combine(Arc::new(combine));
            }
            Route::Keyed(keyed)
        }
        route => route,
    }
}

/// Whether all shards may be sent its text.
pub(super) fn spreads(route: &Route) -> bool {
    match route {
        Route::Scatter(_) => true,
        Route::Keyed(keyed) => matches!(keyed.spread, Spread::Scatter(_)),
        _ => false,
    }
}

/// What a hub does instead of a merge.
pub(super) fn instead(query: &Query<'_>) -> Option<Arc<Combine>> {
    let combined = combine(query, &refusal::several_shards());
    combined.ok().map(Arc::new)
}

/// Plans a combine.
///
/// # Errors
/// `refused`, or a better reason why not.
fn combine(query: &Query<'_>, refused: &Error) -> Result<Combine> {
    check::is_select(query, refused)?;
    let mut builder = Builder {
        query,
        names: Names::of(query),
        terms: Terms::of(query),
        combine: Combine {
            fragments: Vec::new(),
            occurrences: Vec::new(),
            hub: None,
            schemas: Vec::new(),
            is_unread: false,
            asks_type: check::asks_type(query),
            gathered: None,
        },
        is_sharded: false,
        places: Vec::new(),
    };
    let prover = Prover::new(query);
    for (block, source, bound) in query.bound.occurrences() {
        if let BoundSource::Named(lookup) = bound {
            builder.source((block, source), lookup, &prover, refused)?;
        }
    }
    if !builder.is_sharded {
        return Err(refused.clone());
    }
    check::calls(query)?;
    if check::reads_catalogs(query) {
        builder.combine.hub.get_or_insert(FIRST_SHARD);
    }
    builder.link();
    builder.combine.schemas = columns::schemas(query)?;
    builder.combine.gathered = gathered::find(query).map(Box::new);
    Ok(builder.combine)
}

struct Builder<'a> {
    query: &'a Query<'a>,
    names: Names,
    terms: Terms,
    combine: Combine,
    is_sharded: bool,
    /// The fragment of each occurrence.
    places: Vec<((BlockId, usize), usize)>,
}

impl Builder<'_> {
    /// Takes one source in.
    fn source(
        &mut self,
        at: (BlockId, usize),
        lookup: Lookup<'_>,
        prover: &Prover<'_>,
        refused: &Error,
    ) -> Result<()> {
        let relation = match lookup {
            Lookup::Relation(relation) => relation,
            Lookup::System => return self.at_home(FIRST_SHARD),
            Lookup::Temporary => return Err(refused.clone()),
            Lookup::Unknown { .. } if self.query.request.temporary_tables => {
                return Err(refused.clone());
            }
            Lookup::Unknown {
                configured: false,
                wildcard: false,
                home,
            } => return self.at_home(home),
            Lookup::Unknown { .. } => return Err(refused.clone()),
        };
        if relation.hazards.policies_read {
            return Err(refused.clone());
        }
        let place = match &relation.location {
            Location::Unserved(_) => return Err(refused.clone()),
            Location::Home(shard) => {
                self.at_home(*shard)?;
                Place::Home(*shard)
            }
            Location::Replicated => Place::Everywhere,
            Location::Sharded(placement) => {
                self.is_sharded = true;
                Place::Shards(placement.shards().clone())
            }
        };
        self.occurrence(at, relation, place, prover)
            .unwrap_or_else(|| Err(refused.clone()))
    }

    /// The hub must be of this shard.
    fn at_home(&mut self, shard: ShardIndex) -> Result<()> {
        if self.combine.hub.is_some_and(|hub| hub != shard) {
            return Err(refusal::several_homes());
        }
        self.combine.hub = Some(shard);
        Ok(())
    }

    /// One occurrence of a relation; none if its place in the text is not known.
    fn occurrence(
        &mut self,
        (block, index): (BlockId, usize),
        relation: &Relation,
        place: Place,
        prover: &Prover<'_>,
    ) -> Option<Result<()>> {
        let facts = self.query.facts.blocks.get(block)?;
        let source: &Source = facts.sources.get(index)?;
        let name = self.query.name_tokens(source)?;
        let sample = match source.sampled {
            true => match sample::clause(self.query, &name) {
                Some(clause) => Some(clause),
                None => return Some(Err(refusal::differs("TABLESAMPLE of what is computed"))),
            },
            false => None,
        };
        let alias = source.alias.clone();
        let known_as = alias.clone().unwrap_or_else(|| relation.name.clone());
        let is_renamed = !source.columns.is_empty();
        let is_query = self.query.is_table_query(&name);
        let fragment = Fragment {
            schema: relation.schema.clone(),
            relation: relation.name.clone(),
            only: self.query.is_only(&name),
            columns: match is_query {
                true => relation.columns.iter().map(column_name).collect(),
                false => self.names.columns(self.query, block, source, relation),
            },
            terms: match is_renamed {
                true => Vec::new(),
                false => self.terms.pushed(self.query, (block, index)),
            },
            alias: known_as.clone(),
            proof: match place {
                Place::Shards(_) => prover.prove(relation, block, index),
                _ => None,
            },
            place,
            sample: sample.clone(),
            links: Vec::new(),
        };
        let fragment = self.fragment(fragment, relation);
        self.places.push(((block, index), fragment));
        self.combine.occurrences.push(Occurrence {
            fragment,
            is_whole: !is_query
                && !self.query.is_only(&name)
                && self.names.is_whole(self.query, &known_as),
            tokens: name,
            alias: (alias.is_none() && !is_query).then_some(known_as),
            sample,
        });
        Some(Ok(()))
    }

    /// Finds the equalities by which fragments that stand in one place restrict each other.
    fn link(&mut self) {
        let bound = &self.query.bound;
        for (block, equations) in bound.equations.iter().enumerate() {
            for equation in equations {
                let restricts = equation.restricts.as_ref();
                let applies = |own: ColumnId| {
                    own.block == block
                        && restricts.is_none_or(|sources| sources.contains(&own.source))
                };
                let (one, other) = match equation.equals {
                    Equal::Values(_) => continue,
                    Equal::Column(other) => (equation.column, other),
                    Equal::Row(query, number) => {
                        let Some(inside) = bound.origin(query, number) else {
                            continue;
                        };
                        // Only rows with the value that is looked for change what `IN` says.
                        if bound.holds_inside(inside) {
                            self.link_columns(inside, equation.column);
                        }
                        (equation.column, inside)
                    }
                };
                for (own, other) in [(one, other), (other, one)] {
                    if applies(own) {
                        self.link_columns(own, other);
                    }
                }
            }
        }
    }

    /// The column of a relation that a column is, if only rows of the relation matter with a value that is asked
    /// for.
    fn sunk(&self, mut column: ColumnId) -> Option<ColumnId> {
        let bound = &self.query.bound;
        while let BoundSource::Query(query) = bound.source(column.block, column.source)? {
            let inside = bound.origin(query, column.column)?;
            let is_alone = matches!(bound.reader(query), Reader::Source(..));
            if !is_alone || !bound.holds_inside(inside) {
                return None;
            }
            column = inside;
        }
        Some(column)
    }

    fn link_columns(&mut self, own: ColumnId, other: ColumnId) {
        let (Some(own), Some(other)) = (self.sunk(own), self.query.bound.base(other)) else {
            return;
        };
        let fragment_of = |column: ColumnId| {
            let mut places = self.places.iter();
            let place = places.find(|(at, _)| *at == (column.block, column.source));
            place.map(|(_, fragment)| *fragment)
        };
        let name_of = |column: ColumnId| {
            let source = self.query.bound.source(column.block, column.source)?;
            let relation = source.relation()?;
            let column = relation.columns.get(column.column)?;
            // What is equal by the other's collation is not by the own one.
            column.deterministic.then(|| column_name(column))
        };
        let found = (
            fragment_of(own),
            fragment_of(other),
            name_of(own),
            name_of(other),
        );
        let (Some(at), Some(other), Some(column), Some(other_column)) = found else {
            return;
        };
        let occurrences = self.places.iter().filter(|(_, fragment)| *fragment == at);
        if at == other || occurrences.count() > 1 || self.is_sampled(other) {
            return;
        }
        let link = Link {
            column,
            other,
            other_column,
        };
        if let Some(fragment) = self.combine.fragments.get_mut(at)
            && !fragment.links.contains(&link)
        {
            fragment.links.push(link);
        }
    }

    /// Whether a fragment has other rows whenever it is asked.
    fn is_sampled(&self, fragment: usize) -> bool {
        let fragment = self.combine.fragments.get(fragment);
        fragment.is_some_and(|fragment| fragment.sample.is_some())
    }

    /// The index of a fragment: a new one unless one just like it is there.
    fn fragment(&mut self, new: Fragment, relation: &Relation) -> usize {
        let tokens = self.query.tokens;
        let is_same = |old: &Fragment| {
            (&old.schema, &old.relation, old.only) == (&new.schema, &new.relation, new.only)
                && old.proof.is_none()
                && new.proof.is_none()
                && old.sample.is_none()
                && new.sample.is_none()
                && (old.alias == new.alias || new.terms.is_empty())
                && terms::alike(self.query, tokens, (&old.terms, &new.terms))
        };
        let fragments = &mut self.combine.fragments;
        let Some(at) = fragments.iter().position(is_same) else {
            fragments.push(new);
            return fragments.len() - 1;
        };
        if let Some(old) = fragments.get_mut(at) {
            let columns = relation.columns.iter().map(|column| &column.name);
            let is_used = |name: &&String| old.columns.contains(name) || new.columns.contains(name);
            // A `*` gives them in the order of the table.
            let columns: Vec<String> = columns.filter(is_used).cloned().collect();
            old.columns = columns;
        }
        at
    }
}

fn column_name(column: &TableColumn) -> String {
    column.name.clone()
}
