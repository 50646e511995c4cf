//! `MERGE` whose source's rows pass through the proxy.
//!
//! What holds:
//! - The source is asked for as a query of its own. Then the statement runs over its rows, which stand in its
//!   place as a subquery with its name and its columns.
//! - A row of the source can only match rows of the target that have the shard key which `ON` equates with a
//!   column of it: it goes to their shard and to no other. What is inserted for it, if nothing matches, has
//!   that key too.
//! - Where `ON` names no such column and nothing is inserted, all rows go to every shard: each row of the
//!   target is at one of them, and meets all of the source.
//! - What each shard would evaluate in its own way is a value in the text it gets: moments, and defaults of
//!   the columns that an `INSERT` leaves out.

mod check;
mod keys;
mod written;

use std::ops::Range;

use crate::catalog::Identity;
use crate::catalog::Location;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Route;
use crate::plan::bind::same_family;
use crate::plan::hazards::check_policies;
use crate::plan::moment::Moment;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::plan::query::check_assigned;
use crate::plan::refusal;
use crate::sharding::ColumnType;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::MergeActions;
use crate::sql::analysis::MergeInsert;
use crate::sql::analysis::MergeValue;
use crate::sql::encoding::Encoding;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

use check::calls;
use check::check_defaults;
use check::check_source;
use keys::Names;
use keys::keys;
use written::Written;

use super::Fed;
use super::FedValue;
use super::Feed;
use super::FeedColumn;
use super::FeedPlace;
use super::FeedValue;
use super::piece;

/// The parts of a `MERGE`, as tokens of the whole statement.
#[derive(Clone, Debug)]
pub(super) struct Merging {
    /// Its block.
    pub block: BlockId,
    /// `WITH` and its queries; empty if there is none.
    with: Range<usize>,
    /// What stands between `USING` and `ON`.
    source: Range<usize>,
    /// The name by which the statement knows the source.
    name: String,
    /// For each column of the target's key the column of the source that `ON` equates it with; none if all rows
    /// go to every shard.
    pub keys: Vec<String>,
    /// Its INSERTs.
    inserts: Vec<Inserted>,
    /// The calls that have one value in a statement.
    moments: Vec<Moment>,
    /// It is about rows of the target that nothing matches.
    by_source: bool,
}

/// An INSERT of a MERGE.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inserted {
    /// The end of its list of columns, if it has one.
    list: Option<usize>,
    /// `VALUES`.
    values: usize,
    /// The end of its row.
    end: usize,
    /// The columns that it gives values.
    columns: Vec<String>,
    /// The columns that it leaves to defaults which must be known first.
    missing: Vec<String>,
    /// One of those is GENERATED ALWAYS.
    overrides: bool,
}

impl Inserted {
    /// The edits by which it gets values for what it leaves out, from the source of this name; tokens begin at
    /// `start`.
    fn edits(&self, source: &str, start: impl Fn(usize) -> u32) -> Vec<Edit> {
        let at = |token: usize, text: String| Edit {
            range: start(token)..start(token),
            text,
        };
        let listed = |columns: &[String]| {
            let columns = columns.iter().map(|one| quote_identifier(one));
            columns.collect::<Vec<String>>().join(", ")
        };
        let missing = listed(&self.missing);
        let values = self.missing.iter();
        let values: Vec<String> = values
            .map(|column| format!("{source}.{}", added(column)))
            .collect();
        let overriding = match self.overrides {
            true => " OVERRIDING SYSTEM VALUE ",
            false => " ",
        };
        let mut edits = match self.list {
            Some(close) => vec![
                at(close, format!(", {missing}")),
                at(self.values, overriding.to_owned()),
            ],
            None => {
                let list = format!("({}, {missing}){overriding}", listed(&self.columns));
                vec![at(self.values, list)]
            }
        };
        edits.push(at(self.end, format!(", {}", values.join(", "))));
        edits
    }
}

impl Merging {
    /// # Errors
    /// Why it can't be fed.
    pub fn new(
        query: &Query<'_>,
        block: BlockId,
        (actions, relation): (&MergeActions, &Relation),
        (place, columns): (&FeedPlace, &[FeedColumn]),
    ) -> Result<Merging> {
        check_assigned(relation, &actions.assigned)?;
        check_defaults(query, (actions, relation), place)?;
        let Some(written) = Written::read(query, block) else {
            return Err(unfed(
                "It is written in a way that the proxy can't take apart.",
                "Give the source an alias.",
            ));
        };
        check_source(query, block, &written)?;
        let moments = calls(query, &written, place)?;
        if written.inserts.len() != actions.inserts.len() {
            return Err(unfed(
                "It is written in a way that the proxy can't take apart.",
                "Write its INSERT with a list of columns and VALUES.",
            ));
        }
        let keys = match place {
            FeedPlace::Sharded(placement) => {
                let names = Names::of(query, block, (relation, &written));
                keys(&names, (actions, relation), placement)?
            }
            FeedPlace::Home(_) | FeedPlace::Replicated => Vec::new(),
        };
        let is_shared = !matches!(place, FeedPlace::Home(_));
        let mut inserts = Vec::with_capacity(actions.inserts.len());
        for ((list, values, end), insert) in written.inserts.iter().zip(&actions.inserts) {
            let names = given(relation, insert);
            let needed = columns
                .iter()
                .filter(|one| is_shared && (one.draws || one.varies) && !one.generated);
            let (mut missing, mut overrides) = (Vec::new(), false);
            for column in needed {
                match names.iter().position(|name| *name == column.name) {
                    Some(at) if insert.values.get(at) == Some(&MergeValue::Default) => {
                        return Err(refusal::assigned_default(&relation.name, &column.name));
                    }
                    Some(_) => {}
                    None => {
                        overrides |= column.identity == Some(Identity::Always);
                        missing.push(column.name.clone());
                    }
                }
            }
            inserts.push(Inserted {
                list: *list,
                values: *values,
                end: *end,
                columns: names,
                missing,
                overrides,
            });
        }
        Ok(Merging {
            block,
            with: written.with,
            source: written.source,
            name: written.name,
            keys,
            inserts,
            moments,
            by_source: actions.by_source,
        })
    }

    /// Whether every shard of the target gets all rows of the source.
    pub fn is_copied(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether every shard of the target has something to do, whatever rows it gets.
    pub fn is_everywhere(&self) -> bool {
        self.is_copied() || self.by_source
    }

    /// The text of each call that has one value in a statement, and its type.
    pub fn moments(&self, text: &str, tokens: &[Token]) -> Vec<(String, &'static str)> {
        let moments = self.moments.iter();
        moments
            .map(|moment| {
                let call = piece(text, tokens, &moment.tokens).to_owned();
                (call, moment.kind)
            })
            .collect()
    }

    /// The source, as a statement of its own.
    pub fn query(&self, text: &str, tokens: &[Token]) -> String {
        let with = piece(text, tokens, &self.with);
        let source = piece(text, tokens, &self.source);
        format!("{with} SELECT * FROM {source}")
    }

    /// The columns of the rows that the statement runs over, if those of its source have these names.
    pub fn columns(&self, names: &[String], columns: &[FeedColumn]) -> Vec<Fed> {
        let own = names.iter().enumerate().map(|(column, name)| Fed {
            name: name.clone(),
            value: FeedValue::Query(column),
        });
        let mut fed: Vec<Fed> = own.collect();
        let is_missing = |column: &&FeedColumn| {
            let mut inserts = self.inserts.iter();
            inserts.any(|insert| insert.missing.contains(&column.name))
        };
        fed.extend(columns.iter().filter(is_missing).map(|column| Fed {
            name: column.name.clone(),
            value: match &column.sequence {
                Some(sequence) => FeedValue::Number(sequence.clone()),
                None => FeedValue::Default,
            },
        }));
        fed
    }

    /// The columns of the source that a row's key is in, as indexes of `fed`.
    ///
    /// # Errors
    /// `0A000` if there is not exactly one of a name.
    pub fn key_columns(&self, fed: &[Fed]) -> Result<Vec<usize>> {
        let keys = self.keys.iter().map(|key| {
            let is_it = |one: &Fed| one.name == *key && matches!(one.value, FeedValue::Query(_));
            let mut found = fed.iter().enumerate().filter(|(_, one)| is_it(one));
            match (found.next(), found.next()) {
                (Some((at, _)), None) => Ok(at),
                _ => Err(unfed(
                    "The column of the source that ON equates with the shard key is not known.",
                    "Give the columns of the source names of their own.",
                )),
            }
        });
        keys.collect()
    }

    /// The shard of a row of the source with these values in its key's columns.
    ///
    /// # Errors
    /// `23502` and `23514` for a key that no shard takes, if it might be inserted; `0A000` for one that can't be
    /// known.
    pub fn shard(
        &self,
        (feed, placement): (&Feed, &Placement),
        values: &[FedValue<'_>],
        encoding: Encoding,
    ) -> Result<ShardIndex> {
        let any = placement.shards().iter().next().unwrap_or_default();
        if self.is_copied() {
            return Ok(any);
        }
        let may_insert = !self.inserts.is_empty();
        let mut keys: Vec<Key> = Vec::with_capacity(values.len());
        for (column, (type_oid, format, value)) in placement.columns().iter().zip(values) {
            let of = &column.column_type;
            let kind = KeyType::from_oid(*type_oid);
            if !kind.is_some_and(|kind| same_family(kind, of.key_type)) {
                return Err(unfed(
                    format!(
                        "ON compares column \"{}\" with one of another type.",
                        column.name
                    ),
                    "Cast the column of the source to the type of the shard key.",
                ));
            }
            let mut own = feed.columns.iter();
            let is_checked = own.any(|one| one.name == column.name && one.not_null);
            let read = |use_| Key::from_parameter(*type_oid, *format, *value, of, use_);
            let key = match (read(KeyUse::Compare), read(KeyUse::Store)) {
                // It matches nothing, and PostgreSQL says what is wrong with storing it.
                (Err(KeyError::Null), _) if is_checked || !may_insert => return Ok(any),
                (Err(KeyError::OutOfRange | KeyError::Rejected(_)), _) => return Ok(any),
                (Ok(key), _) if key.requires_utf8() && !encoding.is_utf8() => {
                    Err(KeyError::Unprovable("the client's encoding is not UTF-8"))
                }
                (Ok(key), Ok(stored)) if may_insert && key != stored => Err(KeyError::Unprovable(
                    "it would be another value when it is stored",
                )),
                (Ok(_), Err(KeyError::Unprovable(why))) if may_insert => {
                    Err(KeyError::Unprovable(why))
                }
                (key, _) => key,
            };
            keys.push(key.map_err(|error| error.store_error(&feed.name, &column.name))?);
        }
        match placement.shard(&keys) {
            Ok(shard) => Ok(shard),
            Err(_) if !may_insert => Ok(any),
            Err(error) => {
                let first = placement.columns().first();
                let first = first.map_or("", |column| column.name.as_str());
                Err(error.store_error(&feed.name, first))
            }
        }
    }

    /// The statement over rows: `items` are their columns as expressions over `rows`, an entry of FROM, and
    /// `moments` the values of its calls.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn statement(
        &self,
        (text, lex): (&str, LexOptions),
        fed: &[Fed],
        (items, rows): (&[String], &str),
        moments: &[String],
    ) -> Result<String> {
        let tokens = tokens_of(text, lex)?;
        let start = |at: usize| tokens.get(at).map_or(0, |token| token.start);
        let end = |at: usize| tokens.get(at).map_or(0, |token| token.end);
        let columns = fed.iter().zip(items).map(|(one, item)| {
            let label = match one.value {
                FeedValue::Query(_) => quote_identifier(&one.name),
                _ => added(&one.name),
            };
            format!("{item} AS {label}")
        });
        let columns: Vec<String> = columns.collect();
        let name = quote_identifier(&self.name);
        let mut edits = vec![Edit {
            range: start(self.source.start)..end(self.source.end.saturating_sub(1)),
            text: format!("(SELECT {} FROM {rows}) AS {name}", columns.join(", ")),
        }];
        if !self.with.is_empty() {
            edits.push(Edit {
                range: start(self.with.start)..start(self.with.end),
                text: String::new(),
            });
        }
        for (moment, value) in self.moments.iter().zip(moments) {
            edits.push(Edit {
                range: start(moment.tokens.start)..end(moment.tokens.end.saturating_sub(1)),
                text: value.clone(),
            });
        }
        for insert in self.inserts.iter().filter(|one| !one.missing.is_empty()) {
            edits.extend(insert.edits(&name, start));
        }
        splice(text, lex, &edits)
    }

    /// The route of a statement that each shard does by itself; none if it is not certain that it can.
    pub fn pushed(&self, query: &Query<'_>, relation: &Relation) -> Option<Route> {
        let placement = relation.placement()?;
        let is_plain = self.moments.is_empty()
            && self.with.is_empty()
            && self.inserts.iter().all(|insert| insert.missing.is_empty());
        let source = query.bound.source(self.block, 1)?.relation()?;
        let renames = query.facts.blocks.get(self.block)?.sources.get(1)?;
        if !is_plain || source.is_view() || renames.sampled || !renames.columns.is_empty() {
            return None;
        }
        check_policies(source).ok()?;
        let is_pushed = match &source.location {
            Location::Replicated => self.inserts.is_empty(),
            Location::Sharded(other) => {
                let mut keys = self
                    .keys
                    .iter()
                    .zip(placement.columns())
                    .zip(other.columns());
                !self.keys.is_empty()
                    && placement.colocated_with(other)
                    && keys.all(|((key, own), other)| {
                        *key == other.name && is_alike(own.column_type, other.column_type)
                    })
            }
            _ => false,
        };
        is_pushed.then(|| Route::Scatter(placement.shards().clone()))
    }
}

/// Whether a value of the one type is stored in the other as it is.
fn is_alike(one: ColumnType, other: ColumnType) -> bool {
    let is_integer = |kind| matches!(kind, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    one == other || (is_integer(one.key_type) && is_integer(other.key_type))
}

/// The name of a column that the proxy adds to the source.
fn added(column: &str) -> String {
    quote_identifier(&format!("shardwire_{column}"))
}

/// The columns to which an INSERT gives values.
fn given(relation: &Relation, insert: &MergeInsert) -> Vec<String> {
    match &insert.columns {
        Some(listed) => listed.clone(),
        None => {
            let columns = relation.columns.iter().map(|column| column.name.clone());
            columns.take(insert.values.len()).collect()
        }
    }
}

/// Why a MERGE can't be fed.
fn unfed(why: impl Into<crate::error::Text>, hint: &'static str) -> Error {
    Error::refused("this MERGE is not supported over several shards", why, hint)
}
