//! `INSERT … SELECT` and `MERGE` that no shard can do by itself: the rows of their query or source are asked for
//! first, and then stored ([`merge`] has what holds for MERGE beside this).
//!
//! What holds:
//! - The query is asked as if the client had sent it ([`Feed::query`]), and has ended before the first row is
//!   stored: the statement never reads what it writes.
//! - Each shard that gets rows runs *one* statement, once: the client's own with `SELECT … FROM unnest(…)` in
//!   the place of its query. So whatever PostgreSQL checks for a statement as a whole (a row that ON CONFLICT
//!   meets twice, references among its rows) it checks for all rows that could meet.
//! - Values keep the types that they have in the query. PostgreSQL makes the assignment casts, and rejects
//!   those that there are not. Constants whose type is open stay in the text, where they take the column's.
//! - What a row of a sharded table leaves to a default is found out first if it is a number, part of the key,
//!   or may vary: the same rows are stored as if one server had evaluated it.
//! - The plan knows tokens by their place: it serves every text of its shape.
//!
//! What needs none of this is sent to the shards as it is ([`pushed`]).

mod insert;
mod merge;
mod pushed;
mod written;

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Identity;
use crate::catalog::Location;
use crate::catalog::Reason;
use crate::catalog::Relation;
use crate::catalog::SequenceName;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::Route;
use crate::plan::bind::BoundSource;
use crate::plan::hazards::check_secured;
use crate::plan::hazards::check_spread;
use crate::plan::keyed::Spread;
use crate::plan::keyed::names_moment;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::MergeActions;
use crate::sql::analysis::Rows;
use crate::sql::encoding::Encoding;
use crate::sql::literal::quote_identifier;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

use insert::Inserting;
use insert::inserting;
use merge::Merging;
use written::Written;

/// An `INSERT … SELECT` or `MERGE` whose rows pass through the proxy.
#[derive(Clone, Debug)]
pub struct Feed {
    /// The table, as SQL has it.
    pub table: String,
    /// Its name, for messages.
    name: String,
    /// Where its rows go.
    pub place: FeedPlace,
    /// The columns of the table.
    columns: Vec<FeedColumn>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Insert(Inserting),
    Merge(Merging),
}

/// Where the rows go.
#[derive(Clone, Debug)]
pub enum FeedPlace {
    /// All to this shard.
    Home(ShardIndex),
    /// All to every shard.
    Replicated,
    /// Each to its shard.
    Sharded(Arc<Placement>),
}

/// A column of the table.
#[derive(Clone, Debug)]
struct FeedColumn {
    name: String,
    sequence: Option<SequenceName>,
    draws: bool,
    varies: bool,
    has_default: bool,
    generated: bool,
    not_null: bool,
    identity: Option<Identity>,
}

/// Where the value of a column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedValue {
    /// A column of the query.
    Query(usize),
    /// The constant of this token, which is also a column of the query.
    Constant {
        /// The token; NULL has none.
        token: Option<usize>,
        /// The column of the query.
        column: usize,
    },
    /// The next number of a sequence for each row.
    Number(SequenceName),
    /// The column's default, evaluated for each row.
    Default,
}

/// A column that is given a value, and where that comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fed {
    /// The column.
    pub name: String,
    /// Its value.
    pub value: FeedValue,
}

/// A value with its type and format.
pub type FedValue<'a> = (u32, Format, Option<&'a [u8]>);

/// Serves a route that refuses some or all executions of an `INSERT … SELECT` or `MERGE`, if that is possible.
pub(super) fn complete(query: &Query<'_>, route: Route) -> Route {
    let is_unserved = |error: &Error| error.code() == SqlState::FEATURE_NOT_SUPPORTED;
    match route {
        Route::Refused(error) if is_unserved(&error) => match feed(query) {
            None => Route::Refused(error),
            Some(Err(better)) => Route::Refused(better),
            Some(Ok(feed)) => match feed.pushed(query) {
                Some(route) => route,
                None => Route::Feed(Arc::new(feed)),
            },
        },
        Route::Keyed(mut keyed) => {
            if let Spread::Refuse(error) = &keyed.spread
                && is_unserved(error)
                && let Some(Ok(feed)) = feed(query)
            {
                keyed.spread = Spread::Feed(Arc::new(feed));
            }
            Route::Keyed(keyed)
        }
        route => route,
    }
}

/// The `INSERT … SELECT` or `MERGE` that a statement is; none if it is something else, or why it can't be fed.
fn feed(query: &Query<'_>) -> Option<Result<Feed>> {
    let blocks = query.facts.blocks.iter().enumerate();
    let mut changes = blocks.filter(|(_, block)| block.kind.modifies());
    let (Some((at, block)), None) = (changes.next(), changes.next()) else {
        return None;
    };
    let relation = query.bound.source(at, 0).and_then(BoundSource::relation)?;
    match &block.kind {
        BlockKind::Insert(insert) => {
            let Rows::Query(cells) = &insert.rows else {
                return None;
            };
            let written = Written::read(query)?;
            Some(inserting(query, (insert, cells), relation, written))
        }
        BlockKind::Merge(actions) => Some(merging(query, at, (actions, relation))),
        _ => None,
    }
}

fn merging(
    query: &Query<'_>,
    block: BlockId,
    (actions, relation): (&MergeActions, &Relation),
) -> Result<Feed> {
    let (place, columns) = checked(query, relation)?;
    let merging = Merging::new(query, block, (actions, relation), (&place, &columns))?;
    Ok(feed_of(relation, (place, columns), Kind::Merge(merging)))
}

/// Where a table's rows go, and its columns.
///
/// # Errors
/// `0A000` for one that can't be fed.
fn checked(query: &Query<'_>, relation: &Relation) -> Result<(FeedPlace, Vec<FeedColumn>)> {
    check_secured(relation)?;
    query.check_events(relation)?;
    check_spread(query.request.catalog, relation, query.events())?;
    query.check_calls()?;
    if relation.is_view() || relation.kind == 'f' {
        let why = Reason::NoPlace("it is not a table".to_owned());
        return Err(refusal::unserved(&relation.name, &why));
    }
    if query.facts.object_ids {
        return Err(refusal::differs("object identifiers"));
    }
    if query.facts.system_columns {
        return Err(refusal::differs("system columns"));
    }
    let place = match &relation.location {
        Location::Home(shard) => FeedPlace::Home(*shard),
        Location::Replicated => FeedPlace::Replicated,
        Location::Sharded(placement) => FeedPlace::Sharded(Arc::clone(placement)),
        Location::Unserved(why) => return Err(refusal::unserved(&relation.name, why)),
    };
    let columns = relation.columns.iter().map(|column| FeedColumn {
        name: column.name.clone(),
        sequence: column.default.sequence.clone(),
        draws: column.sequence_default,
        varies: column.default.varies,
        has_default: column.default.exists,
        generated: column.generated,
        not_null: column.not_null,
        identity: column.default.identity,
    });
    Ok((place, columns.collect()))
}

fn feed_of(
    relation: &Relation,
    (place, columns): (FeedPlace, Vec<FeedColumn>),
    kind: Kind,
) -> Feed {
    Feed {
        table: format!(
            "{}.{}",
            quote_identifier(&relation.schema),
            quote_identifier(&relation.name)
        ),
        name: relation.name.clone(),
        place,
        columns,
        kind,
    }
}

impl Feed {
    /// The route of a statement that each shard does by itself, if it is certain that it can.
    fn pushed(&self, query: &Query<'_>) -> Option<Route> {
        match &self.kind {
            Kind::Insert(inserting) => pushed::route(query, self, inserting),
            Kind::Merge(merging) => {
                let relation = query.bound.source(merging.block, 0)?.relation()?;
                merging.pushed(query, relation)
            }
        }
    }

    /// The shards that may get rows.
    pub fn shards(&self, all: usize) -> ShardSet {
        match &self.place {
            FeedPlace::Home(shard) => ShardSet::from_iter([*shard]),
            FeedPlace::Replicated => ShardSet::all(all),
            FeedPlace::Sharded(placement) => placement.shards().clone(),
        }
    }

    /// The query, as a statement of its own.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn query(&self, text: &str, lex: LexOptions) -> Result<String> {
        let tokens = tokens_of(text, lex)?;
        let written = match &self.kind {
            Kind::Insert(inserting) => &inserting.written,
            Kind::Merge(merging) => return Ok(merging.query(text, &tokens)),
        };
        let query = piece(text, &tokens, &written.query);
        Ok(match written.with.is_empty() {
            true => query.to_owned(),
            false => format!("{} ({query})", piece(text, &tokens, &written.with)),
        })
    }

    /// The columns that the rows have which shards get, and where their values come from, if those of the query
    /// have these names.
    ///
    /// # Errors
    /// `42601` for a query that gives more columns than there are.
    pub fn columns(&self, names: &[String]) -> Result<Vec<Fed>> {
        match &self.kind {
            Kind::Insert(inserting) => self.inserted(inserting, names.len()),
            Kind::Merge(merging) => Ok(merging.columns(names, &self.columns)),
        }
    }

    /// The statement that stores rows: `items` are the values of the columns as expressions over
    /// `source`, an entry of FROM, and `moments` those of [`Feed::moments`], as SQL.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn statement(
        &self,
        (text, lex): (&str, LexOptions),
        fed: &[Fed],
        (items, source): (&[String], &str),
        moments: &[String],
    ) -> Result<String> {
        let inserting = match &self.kind {
            Kind::Insert(inserting) => inserting,
            Kind::Merge(merging) => {
                return merging.statement((text, lex), fed, (items, source), moments);
            }
        };
        let written = &inserting.written;
        let tokens = tokens_of(text, lex)?;
        let names: Vec<String> = fed.iter().map(|one| quote_identifier(&one.name)).collect();
        let is_always = |one: &Fed| {
            let column = self.columns.iter().find(|column| column.name == one.name);
            column.is_some_and(|column| column.identity == Some(Identity::Always))
        };
        let is_filled = |one: &&Fed| matches!(one.value, FeedValue::Number(_) | FeedValue::Default);
        let overrides = fed.iter().filter(is_filled).any(is_always);
        let overriding = match (&written.overriding, overrides) {
            (_, true) => "OVERRIDING SYSTEM VALUE",
            (None, false) => "",
            (Some(_), false) if written.is_user && self.is_sharded() => "OVERRIDING SYSTEM VALUE",
            (Some(written), false) => piece(text, &tokens, written),
        };
        Ok(format!(
            "{} ({}) {overriding} SELECT {} FROM {source} {}",
            piece(text, &tokens, &written.head),
            names.join(", "),
            items.join(", "),
            piece(text, &tokens, &(written.query.end..tokens.len())),
        ))
    }

    /// The calls in it whose values each shard gets, and their types.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn moments(&self, text: &str, lex: LexOptions) -> Result<Vec<(String, &'static str)>> {
        match &self.kind {
            Kind::Insert(_) => Ok(Vec::new()),
            Kind::Merge(merging) => Ok(merging.moments(text, &tokens_of(text, lex)?)),
        }
    }

    /// Whether every shard gets all rows.
    pub fn is_copied(&self) -> bool {
        match &self.kind {
            Kind::Insert(_) => matches!(self.place, FeedPlace::Replicated),
            Kind::Merge(merging) => merging.is_copied(),
        }
    }

    /// Whether it runs on all its shards, whatever rows they get.
    pub fn is_everywhere(&self) -> bool {
        match &self.kind {
            Kind::Insert(_) => false,
            Kind::Merge(merging) => merging.is_everywhere(),
        }
    }

    /// Whether it is a MERGE.
    pub fn is_merge(&self) -> bool {
        matches!(self.kind, Kind::Merge(_))
    }

    /// The text of a constant.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn constant(&self, token: Option<usize>, text: &str, lex: LexOptions) -> Result<String> {
        let Some(token) = token else {
            return Ok("NULL".to_owned());
        };
        let tokens = tokens_of(text, lex)?;
        Ok(piece(text, &tokens, &(token..token + 1)).to_owned())
    }

    fn is_sharded(&self) -> bool {
        matches!(self.place, FeedPlace::Sharded(_))
    }

    /// The columns of the shard key, as indexes of `fed`.
    ///
    /// # Errors
    /// `0A000` for a key that gets no value.
    pub fn keys(&self, fed: &[Fed]) -> Result<Vec<usize>> {
        if let Kind::Merge(merging) = &self.kind {
            return merging.key_columns(fed);
        }
        let FeedPlace::Sharded(placement) = &self.place else {
            return Ok(Vec::new());
        };
        let keys = placement.columns().iter().map(|key| {
            let at = fed.iter().position(|fed| fed.name == key.name);
            at.ok_or_else(|| refusal::missing_key(&self.name, &key.name))
        });
        keys.collect()
    }

    /// The shard of a row with these values in the columns of its key.
    ///
    /// # Errors
    /// `23502` for NULL, `23514` for a key that no shard takes, `0A000` for one that can't be known.
    pub fn shard(&self, values: &[FedValue<'_>], encoding: Encoding) -> Result<ShardIndex> {
        let placement = match &self.place {
            FeedPlace::Home(shard) => return Ok(*shard),
            FeedPlace::Replicated => return Ok(0),
            FeedPlace::Sharded(placement) => placement,
        };
        if let Kind::Merge(merging) = &self.kind {
            return merging.shard((self, placement), values, encoding);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(values.len());
        for (column, (type_oid, format, value)) in placement.columns().iter().zip(values) {
            let of = &column.column_type;
            let key = Key::from_parameter(*type_oid, *format, *value, of, KeyUse::Store);
            let key = match key {
                Ok(key) if key.requires_utf8() && !encoding.is_utf8() => {
                    Err(KeyError::Unprovable("the client's encoding is not UTF-8"))
                }
                // PostgreSQL says what is wrong with it.
                Err(KeyError::Rejected(_)) => return Ok(0),
                key => key,
            };
            keys.push(key.map_err(|error| error.store_error(&self.name, &column.name))?);
        }
        let first = placement.columns().first();
        let first = first.map_or("", |column| column.name.as_str());
        let shard = placement.shard(&keys);
        shard.map_err(|error| error.store_error(&self.name, first))
    }

    /// Whether the rows of an execution may go to several shards.
    ///
    /// # Errors
    /// `0A000` if the statement would mean something else on each.
    pub fn check_several(&self, arguments: &Arguments<'_>) -> Result<()> {
        match names_moment(arguments) {
            true => Err(refusal::relative_time()),
            false => Ok(()),
        }
    }

    /// What it does, in words.
    pub(super) fn words(&self) -> String {
        let to = match &self.place {
            FeedPlace::Home(_) => "at home",
            FeedPlace::Replicated => "replicated",
            FeedPlace::Sharded(_) => "by key",
        };
        match &self.kind {
            Kind::Insert(_) => format!("Feed {} {to}, from its query", self.name),
            Kind::Merge(merging) if self.is_sharded() && merging.is_copied() => {
                format!(
                    "Merge into {} everywhere, all rows of its source",
                    self.name
                )
            }
            Kind::Merge(_) => format!("Merge into {} {to}, from its source", self.name),
        }
    }
}

/// What stands in a text from the first of these tokens to the last.
pub(super) fn piece<'a>(text: &'a str, tokens: &[Token], range: &Range<usize>) -> &'a str {
    let tokens = tokens.get(range.clone()).unwrap_or_default();
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => slice(text, first.start..last.end),
        _ => "",
    }
}

fn unfed(why: &'static str, hint: &'static str) -> Error {
    Error::refused(
        "this INSERT of the rows of a query is not supported over several shards",
        why,
        hint,
    )
}
