//! Statement + catalogue + parameters → where it runs; pure.
//!
//! The rule: a statement goes to one shard when every sharded table in it is restricted to that shard
//! by the conditions of its own query block, and everything else it reads is there too. A `SELECT`
//! whose answer is the concatenation of the shards' answers goes to all of them. Everything else is
//! refused with the reason. Nothing is forwarded on a guess.
//!
//! [`plan`] works once per shape; [`Plan::target`] works once per execution, from the literals of the
//! text and the bytes of the Bind message.

mod assigned;
mod bind;
mod by_key;
mod change;
mod code;
pub mod collation;
mod colocation;
mod combine;
mod conduct;
pub mod copy;
pub mod defaults;
mod definition;
pub mod document;
mod effects;
mod feed;
mod fill;
mod hazards;
mod insert;
mod keyed;
mod locks;
pub mod merge;
mod moment;
mod names;
mod nested;
mod outputs;
pub mod own;
mod parameters;
mod proof;
pub mod pseudo;
mod query;
mod refusal;
mod replicate;
mod routine;
mod scatter;
mod session_use;
pub mod sizes;
mod staged;
mod statement;
mod tree;
mod truncate;
mod unparsed;
mod views;

use std::fmt;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::error::Error;
use crate::error::Result;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::classify::classify;
use crate::sql::encoding::Encoding;
use crate::sql::lexer::tokenize;
use crate::sql::shape::Literal;
use crate::sql::shape::Shape;
use crate::sql::splice::Edit;
use crate::sql::statement::Statement;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

use statement::Part;

pub use change::BEFORE_KEY;
pub use change::Change;
pub use change::Column as ChangeColumn;
pub use change::Extra;
pub use change::Shipment;
pub use change::Steps;
pub use change::Written;
pub use combine::Combine;
pub use combine::Execution;
pub use combine::Intermediate;
pub use combine::KeyLink;
pub use combine::KeySource;
pub use combine::NOW;
pub use combine::Unfinished;
pub use copy::CopyIn;
pub use definition::Define;
pub use definition::Filling;
pub use definition::PlacedTable;
pub use definition::ROWS_SETTING;
pub use definition::RefreshedRows;
pub use definition::TemporaryRows;
pub use definition::ViewRows;
pub use definition::follow;
pub use feed::Fed;
pub use feed::FedValue;
pub use feed::Feed;
pub use feed::FeedPlace;
pub use feed::FeedValue;
pub use fill::Fill;
pub use fill::Filled;
pub use insert::Clock;
pub use insert::Computed;
pub use insert::Expression;
pub use insert::Expressions;
pub use insert::Insertion;
pub use insert::Listed;
pub use insert::PartParameter;
pub use insert::Placed;
pub use insert::RowsPart;
pub use insert::together;
pub use keyed::Keyed;
pub use merge::Merge;
pub use moment::Moments;
pub use own::OwnCall;
pub use parameters::Parameters;
pub use pseudo::Replacement;
pub use replicate::Carried;
pub use replicate::Images;
pub use replicate::Replicate;
pub use session_use::SessionUse;
pub use staged::Known;
pub use staged::ROWS;
pub use staged::Staged;
pub use tree::Tree;
pub use tree::spell_out;

/// What is to be planned: exactly one statement.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The statement's text, without other statements around it.
    pub text: &'a str,
    /// The shape of `text`.
    pub shape: &'a Shape,
    /// How `text` was lexed.
    pub lex: LexOptions,
    /// Longer texts are not parsed, in bytes (`limits.query_parse_bytes`).
    pub parse_bytes: usize,
    /// The types that the Parse message declares; 0 and missing ones are for PostgreSQL to infer.
    pub parameter_types: &'a [u32],
    /// The session's effective `search_path`, `"$user"` replaced; `pg_catalog` may be left out.
    pub search_path: &'a [String],
    /// The text stands for others that have more rows like those in it: see
    /// [`crate::sql::values::template`].
    pub is_template: bool,
    /// Whether the session has made temporary tables: names that the catalogue does not know may
    /// then be theirs.
    pub temporary_tables: bool,
    /// Whether the session has a key for tables that are not restricted (`shardwire.shard_key`); it comes with
    /// each execution.
    pub by_key: bool,
    /// The schema to plan against.
    pub catalog: &'a Catalog,
}

/// What to do with every statement of one shape. Refusals are plans too, so they are cached.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the session must know of the statement.
    pub statement: Statement,
    /// Where it runs.
    pub route: Route,
    /// Whether a secondary may serve it.
    pub access: Access,
    /// What it does to the state of a server connection.
    pub session: SessionUse,
    /// [`Catalog::epoch`] of the catalogue it was planned against.
    pub epoch: u64,
    /// Its calls that the proxy answers: the text is rewritten before a server gets it.
    pub own: Box<[OwnCall]>,
    /// How the rows of several shards become its answer; none if that is their concatenation.
    pub merge: Option<Arc<Merge>>,
    /// What a hub does instead of the merge, if the types of its columns turn out to forbid that.
    pub fallback: Option<Arc<Combine>>,
    /// What stands in the place of mentions of `shard_id` and of views: the statement is planned anew
    /// with it.
    pub pseudo: Box<[Replacement]>,
    /// The lists of columns of INSERTs that have none: the statement is planned anew with them.
    pub listed: Box<[Listed]>,
    /// What it takes of its transaction's time.
    pub moments: Option<Box<Moments>>,
}

/// Where a statement runs.
#[derive(Clone, Debug)]
pub enum Route {
    /// Any server of any shard answers alike: `SELECT 1`, reads of replicated tables.
    Any,
    /// Home tables, system catalogues.
    Shard(ShardIndex),
    /// The shard depends on literals or parameters.
    Keyed(Box<Keyed>),
    /// All these shards; their answers are merged as [`Plan::merge`] says.
    Scatter(ShardSet),
    /// Its relations on shards, the rest on a hub.
    Combine(Arc<Combine>),
    /// The first shard, then the others: it writes to a replicated table.
    Replicated(Arc<Replicate>),
    /// Rows that are inserted, each on its own shard.
    Insert(Arc<Insertion>),
    /// Rows of the client's data, each to its shard.
    CopyIn(Arc<CopyIn>),
    /// A change of rows on shards that takes more than sending them its text.
    Change(Arc<Change>),
    /// Where its rows belong, once they have the values of these defaults.
    Filled(Arc<Fill>),
    /// Rows of a query that are stored once they are known.
    Feed(Arc<Feed>),
    /// Its parts one behind the other.
    Staged(Arc<Staged>),
    /// On every shard, as a definition.
    Define(Arc<Define>),
    /// Nowhere: the error for the client.
    Refused(Error),
}

/// Whether a secondary may serve a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes, locks, or might.
    Write,
}

/// What an execution brings along: the literals of its text and the parameters of its Bind message.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    /// The text of this execution; of the same shape as the planned one.
    pub text: &'a str,
    /// [`Shape::literals`] of `text`.
    pub literals: &'a [Literal],
    /// The Bind message's parameters.
    pub parameters: Parameters<'a>,
    /// The client's encoding, which parameters are in: keys beyond ASCII can't be known in all.
    pub encoding: Encoding,
}

/// The shards of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any shard.
    Any,
    /// This shard.
    One(ShardIndex),
    /// These shards, at least two; their answers are merged as [`Plan::merge`] says.
    Many(ShardSet),
    /// A hub finishes it: see [`Plan::combine`].
    Combine,
    /// All shards, the first one first: see [`Plan::replicate`].
    Replicated,
    /// That is known once expressions of the rows have been evaluated: see [`Plan::insertion`].
    Computed,
    /// Each of these rows on its shard: see [`Plan::insertion`].
    Rows(Arc<Placed>),
    /// Several steps change rows: see [`Plan::change`].
    Change,
    /// It must be completed first: see [`Plan::fill`] and [`Plan::clock`].
    Fill,
    /// The rows of its query are asked for first: see [`Plan::feed`].
    Feed,
    /// Its parts run one behind the other: see [`Plan::staged`].
    Staged,
}

impl Target {
    /// Whether it takes more than its own text on one shard or several. What is only shown (EXPLAIN) is
    /// sent as it is, unless a hub shows it.
    pub fn takes_steps(&self, is_shown: bool) -> bool {
        match self {
            Target::Combine | Target::Fill | Target::Replicated => true,
            Target::Feed | Target::Change | Target::Staged => !is_shown,
            Target::Any | Target::One(_) | Target::Many(_) | Target::Computed | Target::Rows(_) => {
                false
            }
        }
    }
}

/// Plans one statement. Total: what can't be served is a plan too.
pub fn plan(request: &Request<'_>) -> Plan {
    let text = request.text;
    let (statement, planned) = match tokenize(text.as_bytes(), request.lex) {
        Ok(tokens) => {
            let tokens = without_semicolons(text, &tokens);
            let statement = classify(text, tokens);
            let part = Part {
                request,
                all: tokens,
                tokens,
            };
            let planned = statement::plan(part, &statement);
            (statement, planned)
        }
        // What has no tokens is for PostgreSQL to reject.
        Err(error) => {
            let part = Part {
                request,
                all: &[],
                tokens: &[],
            };
            let planned = statement::finish(part, Err(error.to_error(text.as_bytes())));
            (Statement::Other, planned)
        }
    };
    Plan {
        statement,
        route: planned.route,
        access: planned.access,
        session: planned.session,
        epoch: request.catalog.epoch,
        own: planned.own,
        merge: planned.merge,
        fallback: planned.fallback,
        pseudo: planned.pseudo,
        listed: planned.listed,
        moments: planned.moments,
    }
}

/// The tokens of the statement alone, which may stand between semicolons (`;;SELECT 1;`).
fn without_semicolons<'a>(text: &str, mut tokens: &'a [Token]) -> &'a [Token] {
    while let [rest @ .., last] = tokens
        && last.is_symbol(text, ";")
    {
        tokens = rest;
    }
    while let [first, rest @ ..] = tokens
        && first.is_symbol(text, ";")
    {
        tokens = rest;
    }
    tokens
}

impl Plan {
    /// The shards of one execution.
    ///
    /// # Errors
    /// The refusal (`0A000`), `23502` for a NULL shard key in an INSERT, `23514` for a key that no
    /// shard takes.
    pub fn target(&self, arguments: &Arguments<'_>) -> Result<Target> {
        match self.routed(arguments) {
            Ok(Target::Combine) if self.combine().is_none() => Err(refusal::relative_time()),
            target => target,
        }
    }

    fn routed(&self, arguments: &Arguments<'_>) -> Result<Target> {
        match &self.route {
            Route::Any => Ok(Target::Any),
            Route::Shard(shard) => Ok(Target::One(*shard)),
            Route::Keyed(keyed) => keyed.target(arguments),
            Route::Scatter(shards) => Ok(keyed::scatter(shards.clone(), arguments)),
            Route::Combine(_) => Ok(Target::Combine),
            Route::Replicated(_) => Ok(Target::Replicated),
            Route::Insert(insertion) => insertion.target(arguments),
            Route::CopyIn(copy) => Ok(Target::Many(copy.shards.clone())),
            Route::Change(_) => Ok(Target::Change),
            Route::Filled(_) => Ok(Target::Fill),
            Route::Feed(_) => Ok(Target::Feed),
            Route::Staged(_) => Ok(Target::Staged),
            Route::Define(define) => Ok(Target::Many(define.shards.clone())),
            Route::Refused(error) => Err(error.clone()),
        }
    }

    /// The definition, if it is one for every shard.
    pub fn define(&self) -> Option<&Arc<Define>> {
        match &self.route {
            Route::Define(define) => Some(define),
            _ => None,
        }
    }

    /// How it writes to a replicated table, if it does.
    pub fn replicate(&self) -> Option<&Arc<Replicate>> {
        match &self.route {
            Route::Replicated(replicate) => Some(replicate),
            _ => None,
        }
    }

    /// What its rows lack before they can be sent anywhere, if they do.
    pub fn fill(&self) -> Option<&Arc<Fill>> {
        match &self.route {
            Route::Filled(fill) => Some(fill),
            _ => None,
        }
    }

    /// The `INSERT … SELECT` whose rows pass through the proxy, if it can't be served in a simpler way.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        match &self.route {
            Route::Feed(feed) => Some(feed),
            Route::Keyed(keyed) => match &keyed.spread {
                keyed::Spread::Feed(feed) => Some(feed),
                _ => None,
            },
            _ => None,
        }
    }

    /// Its parts, if it can't be served in a simpler way.
    pub fn staged(&self) -> Option<&Arc<Staged>> {
        match &self.route {
            Route::Staged(staged) => Some(staged),
            Route::Keyed(keyed) => match &keyed.spread {
                keyed::Spread::Staged(staged) => Some(staged),
                _ => None,
            },
            _ => None,
        }
    }

    /// The defaults of its rows that are evaluated once, if there are such.
    pub fn clock(&self) -> Option<&Clock> {
        self.insertion()?.clock.as_ref()
    }

    /// What a hub finishes, if it can't be served in a simpler way.
    pub fn combine(&self) -> Option<&Arc<Combine>> {
        match &self.route {
            Route::Combine(combine) => Some(combine),
            Route::Keyed(keyed) => match &keyed.spread {
                keyed::Spread::Combine(combine) => Some(combine),
                _ => self.fallback.as_ref(),
            },
            _ => self.fallback.as_ref(),
        }
    }

    /// The `INSERT` whose rows each go to their own shard, if it is one.
    pub fn insertion(&self) -> Option<&Arc<Insertion>> {
        match &self.route {
            Route::Insert(insertion) => Some(insertion),
            _ => None,
        }
    }

    /// The steps that change rows, if it can't be served in a simpler way.
    pub fn change(&self) -> Option<&Arc<Change>> {
        match &self.route {
            Route::Change(change) => Some(change),
            Route::Keyed(keyed) => match &keyed.spread {
                keyed::Spread::Change(change) => Some(change),
                _ => None,
            },
            _ => None,
        }
    }

    /// What has to be changed of a text of its shape, which is then planned anew; nothing if it stays as it is.
    ///
    /// # Errors
    /// What PostgreSQL's scanner would say.
    pub fn rewording(&self, text: &str, lex: LexOptions) -> Result<Vec<Edit>> {
        let mut edits = pseudo::edits(self, text, lex)?;
        edits.extend(insert::listed::edits(self, text, lex)?);
        Ok(edits)
    }

    /// Whether it serves the texts that its own is a template of.
    pub fn serves_template(&self) -> bool {
        self.own.is_empty()
            && self.pseudo.is_empty()
            && matches!(self.route, Route::Insert(_) | Route::Shard(_) | Route::Any)
    }

    /// The plan as a short indented tree, with these names for the shards.
    pub fn tree<'a>(&'a self, shards: &'a [String]) -> Tree<'a> {
        Tree { plan: self, shards }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tree(&[]).fmt(f)
    }
}

#[cfg(test)]
mod tests;
