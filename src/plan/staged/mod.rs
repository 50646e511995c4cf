//! Statements with `WITH` that change rows of several shards: each part runs by itself, one behind the other.
//!
//! PostgreSQL runs the parts of such a statement with one snapshot: none sees what another has written, and
//! only what `RETURNING` gives passes between them. Each is evaluated once and to its end. What holds here:
//! - Each query of `WITH` that is used, and the statement behind them, is a statement of its own, which is
//!   planned as if the client had sent it. Its rows stand in the others as arrays, in the place of its query
//!   (`SELECT … FROM unnest(…)`). They are of the types that the query has in the client's statement.
//! - No part reads a table behind a part that writes it (or a partition of it, or what foreign keys have
//!   follow): it goes before that ([`order`]). If it needs the other's rows as well, an arm of a set operation or
//!   a subquery that reads the table and nothing of the others is a part of its own that goes first. If there is
//!   no such order the statement is refused.
//! - A subquery that locks rows for a change is a part of its own: its rows are locked where they are, once.
//! - A table is written by one part; by two only if one adds rows to it and nothing else, because of what the
//!   other returns (update or insert).
//! - Foreign keys, which PostgreSQL checks at the end of the whole, hold behind every part, by their order.
//! - A table whose rules, policies, triggers or defaults may reach further than its row is refused.
//! - Values have no other collation than the database's where they pass from part to part.
//! - A time that several parts name is asked for once.
//! - Everything is planned and described before the first part runs. All of it is one transaction.
//! - The plan knows tokens by their place: it serves every text of its shape.

mod drawn;
mod order;
mod text;
mod written;

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Route;
use crate::plan::bind::BoundSource;
use crate::plan::change;
use crate::plan::combine;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::feed;
use crate::plan::hazards::check_policies;
use crate::plan::hazards::check_quiet;
use crate::plan::hazards::events_of;
use crate::plan::hazards::fired;
use crate::plan::keyed::Spread;
use crate::plan::moment::Moment;
use crate::plan::moment::moment;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;
use crate::sql::token::Token;
use crate::sqlstate::SqlState;

use drawn::Drawn;
use order::Part;
use order::Write;
pub use text::Known;
use written::Clause;
use written::Written;

/// How the rows of a part are known in others.
pub const ROWS: &str = "shardwire_rows";

/// A statement whose parts run one behind the other.
#[derive(Clone, Debug)]
pub struct Staged {
    /// `WITH`.
    with: usize,
    /// The parts: the queries of `WITH`, the statement behind them, what is read first.
    stages: Vec<Stage>,
    /// The order of those that run.
    order: Vec<usize>,
    /// The one whose answer is the client's.
    main: usize,
    /// It is a query that draws numbers for the rows of its one other part.
    drawn: Option<Drawn>,
}

/// The part of the rows that numbers are drawn for.
const DRAWN_ROWS: usize = 0;

/// A part.
#[derive(Clone, Debug)]
struct Stage {
    /// What it is, for people.
    shown: String,
    /// The tokens of its statement.
    body: Range<usize>,
    /// The tokens of its name and of its columns' names, if it is a query of `WITH`.
    head: Option<Range<usize>>,
    /// The parts whose rows it uses.
    uses: Vec<usize>,
    /// Calls in it that have one value in the whole.
    moments: Vec<Moment>,
}

/// Serves a route that refuses some or all executions, if that is possible: in the simplest of the ways that take
/// more than its text on each shard.
pub(super) fn served(query: &Query<'_>, route: Route) -> Route {
    let route = change::complete(query, combine::complete(query, route));
    complete(query, feed::complete(query, route))
}

fn complete(query: &Query<'_>, route: Route) -> Route {
    let is_unserved = |error: &Error| error.code() == SqlState::FEATURE_NOT_SUPPORTED;
    match route {
        Route::Refused(error) if is_unserved(&error) => match staged(query, &error) {
            None => Route::Refused(error),
            Some(Err(better)) => Route::Refused(better),
            Some(Ok(staged)) => Route::Staged(Arc::new(staged)),
        },
        Route::Keyed(mut keyed) => {
            if let Spread::Refuse(error) = &keyed.spread
                && is_unserved(error)
                && let Some(staged) = staged(query, error)
            {
                keyed.spread = match staged {
                    Ok(staged) => Spread::Staged(Arc::new(staged)),
                    Err(better) => Spread::Refuse(better),
                };
            }
            Route::Keyed(keyed)
        }
        route => route,
    }
}

/// The parts of a statement; none if it has none, or why they can't run one behind the other.
fn staged(query: &Query<'_>, refused: &Error) -> Option<Result<Staged>> {
    let words = |token: &Token| token.is_word(query.request.text, ROWS);
    // A part of such a statement has been taken apart before.
    let is_one = query.facts.modifies() || query.draws_at_top();
    if !is_one || query.facts.recursive || query.body.iter().any(words) {
        return None;
    }
    let is_drawing = query.draws_at_top() && check(query).is_ok();
    if let Some(drawn) = is_drawing.then(|| query.drawn()).flatten() {
        return Some(Ok(Staged::drawing(drawn)));
    }
    let top = query.facts.blocks.get(query.facts.top);
    let draws = query.draws_at_top() && top.is_some_and(|top| top.sources.is_empty());
    let mut blocks = query.facts.blocks.iter();
    let locks = blocks.any(|block| block.clauses.has(Clauses::LOCKING));
    let written = match Written::read(query) {
        None if (locks && query.facts.modifies()) || draws => Written::without_with(query)?,
        written => written?,
    };
    let staged = Builder::new(query, &written, refused).and_then(Builder::build);
    match staged {
        Ok(staged) if written.clauses.is_empty() && staged.order.len() == 1 => None,
        Err(_) if written.clauses.is_empty() => None,
        staged => Some(staged),
    }
}

struct Builder<'a> {
    query: &'a Query<'a>,
    written: &'a Written,
    /// The queries of `WITH`, the statement behind them, what is read first.
    bodies: Vec<Range<usize>>,
    parts: Vec<Part<'a>>,
    main: usize,
    /// Where tables are named that have columns of collations of their own.
    collated: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(query: &'a Query<'a>, written: &'a Written, refused: &Error) -> Result<Builder<'a>> {
        check(query)?;
        let mut bodies: Vec<Range<usize>> = Vec::new();
        bodies.extend(written.clauses.iter().map(|clause| clause.body.clone()));
        bodies.push(written.main.clone());
        let main = bodies.len() - 1;
        let parts = bodies.iter().enumerate().map(|(at, body)| {
            let mut uses = written.named(query, body);
            // It sees those before it.
            uses.retain(|used| *used < at);
            Part {
                uses,
                ..Part::default()
            }
        });
        let mut builder = Builder {
            query,
            written,
            parts: parts.collect(),
            bodies,
            main,
            collated: Vec::new(),
        };
        builder.check_names()?;
        for (block, source, bound) in query.bound.occurrences() {
            if let BoundSource::Named(lookup) = bound {
                builder.source((block, source), lookup, refused)?;
            }
        }
        builder.check_far()?;
        Ok(builder)
    }

    /// No query of a `WITH` within hides one of the statement's.
    fn check_names(&self) -> Result<()> {
        let names = self.query.facts.ctes.iter();
        let is_alone = |clause: &Clause| {
            let same = names.clone().filter(|name| **name == clause.name);
            same.count() == 1
        };
        match self.written.clauses.iter().all(is_alone) {
            true => Ok(()),
            false => Err(unclear()),
        }
    }

    fn source(
        &mut self,
        (block, source): (BlockId, usize),
        lookup: Lookup<'a>,
        refused: &Error,
    ) -> Result<()> {
        let relation = match lookup {
            Lookup::Relation(relation) => relation,
            Lookup::System => {
                // Names and texts of catalogues have a collation of their own.
                let facts = self.query.facts.blocks.get(block);
                let offset = facts.and_then(|facts| facts.sources.get(source)?.offset);
                self.collated
                    .extend(offset.and_then(|offset| self.query.token_at(offset)));
                return Ok(());
            }
            Lookup::Temporary | Lookup::Unknown { .. } => return Err(refused.clone()),
        };
        if let Location::Unserved(why) = &relation.location {
            return Err(refusal::unserved(&relation.name, why));
        }
        check_policies(relation)?;
        if relation.kind == 'S' {
            return Err(unclear());
        }
        let facts = self.query.facts.blocks.get(block);
        let (kind, offset) = match facts.map(|facts| (&facts.kind, facts.sources.get(source))) {
            Some((kind, Some(source))) => (kind, source.offset),
            _ => return Err(unclear()),
        };
        let at = offset.and_then(|offset| self.query.token_at(offset));
        let at = at.ok_or_else(unclear)?;
        let part = self.bodies.iter().position(|body| body.contains(&at));
        let part = part.ok_or_else(unclear)?;
        if relation.columns.iter().any(|column| column.own_collation) {
            self.collated.push(at);
        }
        let body = self.bodies.get(part).cloned().unwrap_or_default();
        let avoids = self.query.has_word(&body, "conflict");
        let part = self.parts.get_mut(part).ok_or_else(unclear)?;
        let write = write(kind, relation, avoids).filter(|_| source == 0);
        let reads = write.as_ref().is_none_or(Write::reads);
        if reads {
            part.reads.push((relation.oid, at));
        }
        if let Some(write) = write {
            check_written(relation, write.events)?;
            self.query.check_alone(relation, write.events)?;
            if part.write.replace(write).is_some() {
                return Err(unclear());
            }
        }
        Ok(())
    }

    /// Triggers at home may read and write whatever is there, and views at home read it.
    fn check_far(&self) -> Result<()> {
        let sources = self.query.bound.occurrences();
        let mut relations = sources.filter_map(|(_, _, bound)| bound.relation());
        let writes = self.parts.iter().filter_map(|part| part.write.as_ref());
        let writes: Vec<&Write<'_>> = writes.collect();
        let is_far = |write: &&&Write<'_>| !matches!(write.table.location, Location::Sharded(_));
        let view = relations.find(|relation| relation.is_view());
        if let (Some(view), Some(_)) = (view, writes.iter().find(is_far)) {
            return Err(refusal::no_place(
                &view.name,
                "it is a view, and the statement writes tables that it may read",
            ));
        }
        let at_home = |write: &&&Write<'_>| matches!(write.table.location, Location::Home(_));
        for write in writes.iter().filter(at_home) {
            check_quiet(write.table, write.events)?;
            let mut calls = self.query.facts.calls.iter().zip(&self.query.calls);
            let reads = |effects: &Effects| {
                effects.any(Effects::HOME) && !effects.any(Effects::DRAWS_SEQUENCE)
            };
            if let Some((call, _)) = calls.find(|(_, effects)| reads(effects)) {
                return Err(refusal::global_state(&call.name.name));
            }
        }
        Ok(())
    }

    fn build(mut self) -> Result<Staged> {
        self.read_first();
        let order = order::order(&self.parts).ok_or_else(unordered)?;
        // What nobody uses and changes nothing is not run.
        let mut is_run = vec![false; self.parts.len()];
        for (at, part) in self.parts.iter().enumerate().rev() {
            let users = self.parts.iter().zip(&is_run);
            let mut users = users.filter(|(_, is_run)| **is_run);
            let is_used = users.any(|(user, _)| user.uses.contains(&at));
            if let Some(run) = is_run.get_mut(at) {
                *run = at >= self.main || part.write.is_some() || is_used;
            }
        }
        let order = order.into_iter();
        let order = order.filter(|at| is_run.get(*at) == Some(&true)).collect();
        self.check_collations()?;
        let moments = self.moments()?;
        let stages = self.parts.iter().zip(&self.bodies).zip(moments);
        let stages = stages.enumerate().map(|(at, ((part, body), moments))| {
            let clause = self.written.clauses.get(at);
            Stage {
                shown: self.shown(at, part),
                body: body.clone(),
                head: clause.map(|clause| clause.head.clone()),
                uses: part.uses.clone(),
                moments,
            }
        });
        let staged = Staged {
            with: self.written.start,
            stages: stages.collect(),
            order,
            main: self.main,
            drawn: None,
        };
        staged.check_nested(self.query)?;
        Ok(staged)
    }

    /// Rows that pass between parts have the collation of the database.
    fn check_collations(&self) -> Result<()> {
        for (at, body) in self.bodies.iter().enumerate() {
            let is_used = self.parts.iter().any(|part| part.uses.contains(&at));
            let has_own = self.collated.iter().any(|token| body.contains(token));
            let names = ["collate", "pg_typeof", "pg_collation_for"];
            let is_named = names.iter().any(|word| self.query.has_word(body, word));
            if is_used && (has_own || is_named || self.query.has_field(body)) {
                return Err(refused(
                    "Its parts would lose the collations of their columns on the way to others.",
                ));
            }
        }
        Ok(())
    }

    /// Makes parts of their own of what reads tables that are written by what the part around it needs, and of
    /// what locks rows for a change.
    fn read_first(&mut self) {
        for at in 0..=self.main {
            while let Some(token) =
                (self.torn(at).or_else(|| self.locked(at))).or_else(|| self.drawn(at))
            {
                let body = self.bodies.get(at).cloned().unwrap_or_default();
                let Some(unit) = self.written.unit(self.query, &body, token) else {
                    break;
                };
                let new = self.parts.len();
                let Some(part) = self.parts.get_mut(at) else {
                    break;
                };
                let (inside, outside) =
                    (part.reads.iter().copied()).partition(|(_, token)| unit.contains(token));
                part.reads = outside;
                part.uses.push(new);
                self.parts.push(Part {
                    reads: inside,
                    ..Part::default()
                });
                self.bodies.push(unit);
            }
        }
    }

    /// Where a part reads a table that a part writes whose rows it needs.
    fn torn(&self, at: usize) -> Option<usize> {
        let part = self.parts.get(at)?;
        let writes = self.parts.iter().enumerate();
        let needed = writes.filter(|(other, _)| order::depends(&self.parts, at, *other));
        let touched: Vec<_> = needed
            .filter_map(|(_, other)| other.write.as_ref().map(Write::touched))
            .collect();
        let mut reads = part.reads.iter();
        let torn = reads.find(|(table, token)| {
            let is_target = part
                .write
                .as_ref()
                .is_some_and(|write| write.table.oid == *table)
                && self.is_target(*token);
            !is_target && touched.iter().any(|touched| touched.contains(table))
        });
        torn.map(|(_, token)| *token)
    }

    /// Where a part that writes has a subquery that locks rows. These are locked where they are, and nowhere else.
    fn locked(&self, at: usize) -> Option<usize> {
        self.parts.get(at)?.write.as_ref()?;
        let body = self.bodies.get(at)?;
        let first = self.bodies.get(self.main + 1..).unwrap_or_default();
        let blocks = self.query.facts.blocks.iter();
        let mut locking = blocks
            .filter(|block| block.clauses.has(Clauses::LOCKING))
            .filter_map(|block| self.query.token_at(block.select?));
        locking.find(|token| body.contains(token) && !first.iter().any(|one| one.contains(token)))
    }

    /// Where what draws from sequences reads a table.
    fn drawn(&self, at: usize) -> Option<usize> {
        if at != self.main || !self.query.draws_at_top() {
            return None;
        }
        let reads = self.parts.get(at)?.reads.first();
        reads.map(|(_, token)| *token)
    }

    /// Whether the name at a token is what a part writes.
    fn is_target(&self, token: usize) -> bool {
        let blocks = self.query.facts.blocks.iter();
        let mut targets = blocks
            .filter(|block| block.kind.modifies())
            .filter_map(|block| block.sources.first()?.offset);
        targets.any(|offset| self.query.token_at(offset) == Some(token))
    }

    /// The calls of each part that have one value in the whole; none if one part alone has such.
    fn moments(&self) -> Result<Vec<Vec<Moment>>> {
        let mut found: Vec<Vec<Moment>> = vec![Vec::new(); self.parts.len()];
        let mut unclear_at = None;
        let calls = self.query.facts.calls.iter().zip(&self.query.calls);
        for (call, _) in calls.filter(|(_, effects)| effects.any(Effects::CLOCK)) {
            let at = call.offset.and_then(|offset| self.query.token_at(offset));
            let at = at.ok_or_else(unclear)?;
            // What is read first stands within another part.
            let part = self.bodies.iter().rposition(|body| body.contains(&at));
            let part = part.ok_or_else(unclear)?;
            let Some(moment) = moment(self.query, call) else {
                unclear_at.get_or_insert(call.name.name.as_str());
                continue;
            };
            if let Some(found) = found.get_mut(part) {
                found.push(moment);
            }
        }
        let several = found.iter().filter(|found| !found.is_empty()).count();
        match (several, unclear_at) {
            (0, _) | (1, None) => Ok(vec![Vec::new(); self.parts.len()]),
            (_, Some(name)) => Err(refusal::differs(&format!("the function \"{name}\""))),
            _ => Ok(found),
        }
    }

    fn shown(&self, at: usize, part: &Part<'_>) -> String {
        let what = match &part.write {
            Some(write) => format!("writes {}", write.table.name),
            None => "reads".to_owned(),
        };
        match self.written.clauses.get(at) {
            Some(clause) => format!("{} {what}", clause.name),
            None if at == self.main => format!("the statement {what}"),
            None => "what is read first".to_owned(),
        }
    }
}

impl Query<'_> {
    /// Triggers that read or change other tables run at the end of the whole statement, and what they have done is
    /// not seen by any part of it.
    fn check_alone(&self, relation: &Relation, events: u16) -> Result<()> {
        let conduct = Conduct::new(self.request.catalog);
        let mut fired = fired(relation, events);
        match fired.any(|trigger| conduct.trigger(trigger, 0).any(Effects::USER_CODE)) {
            true => Err(refusal::hazard(&relation.name, "triggers")),
            false => Ok(()),
        }
    }

    /// Whether a field of a row is taken among some tokens.
    fn has_field(&self, range: &Range<usize>) -> bool {
        let text = self.request.text;
        let tokens = self.tokens.get(range.clone()).unwrap_or_default();
        tokens.windows(2).any(|pair| {
            matches!(pair, [end, dot] if dot.is_symbol(text, ".")
                && (end.is_symbol(text, ")") || end.is_symbol(text, "]")))
        })
    }

    /// Whether a word stands among some tokens.
    fn has_word(&self, range: &Range<usize>, word: &str) -> bool {
        let tokens = self.tokens.get(range.clone()).unwrap_or_default();
        let mut tokens = tokens.iter();
        tokens.any(|token| token.is_word(self.request.text, word))
    }
}

impl Write<'_> {
    /// Whether what is written depends on the rows that there are.
    fn reads(&self) -> bool {
        self.events != crate::catalog::Trigger::INSERT
    }
}

fn write<'a>(kind: &BlockKind, table: &'a Relation, avoids: bool) -> Option<Write<'a>> {
    if !kind.modifies() {
        return None;
    }
    let assigned = match kind {
        BlockKind::Update(assigned) => assigned.clone(),
        BlockKind::Merge(actions) => actions.assigned.clone(),
        BlockKind::Insert(insert) => insert.conflict_assigns.clone(),
        _ => Vec::new(),
    };
    Some(Write {
        table,
        events: events_of(kind),
        avoids,
        assigned,
    })
}

/// What can't be asked of several statements in the place of one.
fn check(query: &Query<'_>) -> Result<()> {
    query.check_calls()?;
    let keeping = Effects::PINS
        | Effects::SET_CONFIG
        | Effects::NOTIFIES
        | Effects::READS_SEQUENCE
        | Effects::ASKS_CHANNELS
        | Effects::UNKNOWN;
    if let Some(name) = query.call_with(keeping) {
        return Err(refusal::own_call(name));
    }
    // What only draws is the first shard's, and so are the objects that it names.
    if query.facts.object_ids && query.facts.modifies() {
        return Err(refusal::differs("object identifiers"));
    }
    match query.facts.system_columns {
        true => Err(refusal::differs("system columns")),
        false => Ok(()),
    }
}

fn check_written(relation: &Relation, events: u16) -> Result<()> {
    if relation.is_view() || relation.kind == 'f' {
        return Err(refusal::no_place(&relation.name, "it is not a table"));
    }
    if relation.hazards.rules {
        return Err(refusal::hazard(&relation.name, "rules"));
    }
    let mut columns = relation.columns.iter();
    match columns.any(|column| column.default.of_users) {
        true => Err(refusal::hazard(&relation.name, "defaults")),
        false if events == 0 => Err(unclear()),
        false => Ok(()),
    }
}

fn unclear() -> Error {
    refused("It is written in a way in which the proxy can't tell the parts apart.")
}

fn unordered() -> Error {
    refused(
        "A part of it reads or changes a table that another part changes, and would see what that has done.",
    )
}

fn refused(why: &'static str) -> Error {
    Error::refused(
        "this statement with WITH that changes rows is not supported over several shards",
        why,
        "Send its parts as statements of their own, in a transaction.",
    )
}
