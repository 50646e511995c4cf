//! Statements by kind: queries are analysed, the rest goes by its names.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Request;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::code;
use crate::plan::copy;
use crate::plan::definition;
use crate::plan::keyed::Spread;
use crate::plan::names;
use crate::plan::query::FIRST_SHARD;
use crate::plan::query::Planned;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::plan::truncate;
use crate::plan::unparsed;
use crate::sql::analysis;
use crate::sql::classify::classify;
use crate::sql::parse::StopReason;
use crate::sql::parse::Stopped;
use crate::sql::statement::Maintenance;
use crate::sql::statement::Query as QueryFacts;
use crate::sql::statement::QueryKind;
use crate::sql::statement::Statement;
use crate::sql::token::Token;

/// A statement, or a part of one, that is being planned.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub request: &'a Request<'a>,
    /// The tokens of the whole statement.
    pub all: &'a [Token],
    /// The tokens of this part.
    pub tokens: &'a [Token],
}

impl<'a> Part<'a> {
    /// The part of this part that lies in a range of the text.
    pub fn within(self, range: &Range<u32>) -> Part<'a> {
        let start = self
            .tokens
            .partition_point(|token| token.start < range.start);
        let end = self.tokens.partition_point(|token| token.end <= range.end);
        Part {
            tokens: self.tokens.get(start..end).unwrap_or_default(),
            ..self
        }
    }

    /// Whether there is more than one shard.
    pub fn is_sharded(self) -> bool {
        self.request.catalog.shards().len() != 1
    }
}

/// Plans a statement or the body of one.
pub(super) fn plan(part: Part<'_>, statement: &Statement) -> Planned {
    let planned = match statement {
        Statement::Query(query) => return plan_query(part, *query),
        Statement::Explain(explain) => return plan_explain(part, explain.analyze, &explain.body),
        Statement::Declare { hold, body, .. } => return plan_declare(part, *hold, body),
        Statement::Copy(copy) => return copy::plan(part, copy),
        Statement::Prepare { body, .. } => return plan_prepare(part, body),
        Statement::Ddl(ddl) => return definition::plan(part, *ddl),
        Statement::Empty
        | Statement::Begin(_)
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint(_)
        | Statement::RollbackTo(_)
        | Statement::Release(_)
        | Statement::SetTransaction(_)
        | Statement::SetSessionCharacteristics(_)
        | Statement::SetConstraints
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::Show(_)
        | Statement::ShowShardwire(_)
        | Statement::Execute { .. }
        | Statement::Deallocate(_)
        | Statement::Fetch(_)
        | Statement::Move(_)
        | Statement::CloseCursor(_)
        | Statement::Listen(_)
        | Statement::Unlisten(_)
        | Statement::Discard(_) => return for_session(part),
        Statement::Notify { .. } => {
            let uses = SessionUse::NOT_PREPARABLE | SessionUse::NOTIFIES;
            Ok((FIRST_SHARD, uses))
        }
        Statement::PrepareTransaction
        | Statement::CommitPrepared
        | Statement::RollbackPrepared
        | Statement::SetTransactionSnapshot => choose(part),
        Statement::Call => return code::plan_call(part),
        Statement::Do => return code::plan_do(part),
        Statement::Maintenance(Maintenance::Load) => {
            choose(part).map(|(shard, _)| (shard, SessionUse::PINS))
        }
        Statement::Maintenance(Maintenance::Checkpoint) => choose(part),
        Statement::Lock | Statement::Truncate => match truncate::plan(part) {
            Some(planned) if part.is_sharded() => return planned,
            _ => at_home(part),
        },
        Statement::Maintenance(_) => match at_home(part) {
            Err(_) if part.is_sharded() => return definition::maintenance(part, true),
            home => home,
        },
        Statement::Other => choose_other(part),
    };
    finish(part, planned)
}

/// What the session itself interprets.
fn for_session(part: Part<'_>) -> Planned {
    Planned {
        route: if part.is_sharded() {
            Route::Any
        } else {
            Route::Shard(FIRST_SHARD)
        },
        access: Access::Read,
        session: SessionUse::NONE,
        own: Box::default(),
        merge: None,
        fallback: None,
        pseudo: Box::default(),
        listed: Box::default(),
        moments: None,
    }
}

/// A statement for the primary of one shard; a database of one shard refuses nothing.
pub(super) fn finish(part: Part<'_>, planned: Result<(usize, SessionUse)>) -> Planned {
    let (route, session) = match planned {
        _ if !part.is_sharded() => (
            Route::Shard(FIRST_SHARD),
            planned.map_or(SessionUse::NONE, |(_, session)| session),
        ),
        Ok((shard, session)) => (Route::Shard(shard), session),
        Err(error) => (Route::Refused(error), SessionUse::NONE),
    };
    Planned {
        route,
        access: Access::Write,
        session,
        own: Box::default(),
        merge: None,
        fallback: None,
        pseudo: Box::default(),
        listed: Box::default(),
        moments: None,
    }
}

/// A statement of which only the user knows the shard.
fn choose(part: Part<'_>) -> Result<(usize, SessionUse)> {
    let what = names::command(part);
    if part.is_sharded() {
        return Err(refusal::choose_shard(&what));
    }
    // LOAD of one shard is told apart by its kind.
    Ok((FIRST_SHARD, SessionUse::NONE))
}

fn choose_other(part: Part<'_>) -> Result<(usize, SessionUse)> {
    let text = part.request.text;
    match part.tokens {
        // Of what it discards PostgreSQL's grammar knows all.
        [verb, .., last] if part.is_sharded() && verb.is_word(text, "discard") => {
            return Err(refusal::syntax(text, last.start, last.text(text)));
        }
        _ => {}
    }
    match part.tokens.first() {
        Some(token) if part.is_sharded() && !names::is_command(part, token) => {
            let word = token.text(part.request.text);
            Err(refusal::syntax(part.request.text, token.start, word))
        }
        _ => choose(part),
    }
}

/// A statement on home tables of one shard.
fn at_home(part: Part<'_>) -> Result<(usize, SessionUse)> {
    let what = names::command(part);
    if !part.is_sharded() {
        return Ok((FIRST_SHARD, SessionUse::NONE));
    }
    match names::home(part, &what)? {
        Some(shard) if !names::cascades(part) => Ok((shard, SessionUse::NONE)),
        _ => Err(refusal::everywhere(&what)),
    }
}

fn plan_query(part: Part<'_>, query: QueryFacts) -> Planned {
    let analysed = if part.request.text.len() > part.request.parse_bytes {
        Err(Stopped {
            reason: StopReason::TooLong,
            offset: None,
        })
    } else {
        analysis::analyse(part.request.text, part.tokens)
    };
    let facts = match analysed {
        Ok(facts) if names::all_known(part, &facts) => facts,
        Ok(_) => {
            let stopped = Stopped {
                reason: StopReason::NotAnalysed("a table name"),
                offset: None,
            };
            return unparsed::plan(part, query, stopped);
        }
        Err(stopped) => return unparsed::plan(part, query, stopped),
    };
    let mut planned = Query::new(part, &facts).plan();
    if names::unknown(part, &facts) {
        planned.session |= SessionUse::UNKNOWN_NAMES;
    }
    if query.into.is_some_and(|into| into.temporary) {
        planned.session |=
            SessionUse::PINS | SessionUse::TEMPORARY_TABLES | SessionUse::NOT_PREPARABLE;
    }
    planned
}

/// `EXPLAIN` runs where its statement would.
fn plan_explain(part: Part<'_>, analyze: bool, body: &Range<u32>) -> Planned {
    let body = part.within(body);
    let mut planned = plan(body, &classify(part.request.text, body.tokens));
    if let Route::Define(_) = planned.route {
        planned.route = Route::Refused(definition::explained());
    }
    if !analyze {
        if matches!(planned.route, Route::Replicated(_) | Route::Filled(_)) {
            planned.route = Route::Shard(FIRST_SHARD);
        }
        planned.access = Access::Read;
        planned.session = SessionUse::NONE;
        // What is shown is the plan of what was written.
        planned.own = Box::default();
    } else if planned.access == Access::Write && !is_one_text(&planned) {
        one_shard_only(&mut planned.route, "EXPLAIN ANALYZE of such a change");
    }
    planned
}

/// Whether each shard changes its rows by the text as it stands.
fn is_one_text(planned: &Planned) -> bool {
    let is_scatter = match &planned.route {
        Route::Scatter(_) => true,
        Route::Keyed(keyed) => matches!(keyed.spread, Spread::Scatter(_)),
        _ => false,
    };
    let is_plain = planned.own.is_empty() && planned.pseudo.is_empty() && planned.listed.is_empty();
    is_scatter && is_plain && planned.merge.is_none()
}

/// `PREPARE`: the session makes the statement, of a body without pseudo-columns and with lists of columns.
fn plan_prepare(part: Part<'_>, body: &Range<u32>) -> Planned {
    let body = part.within(body);
    let planned = plan(body, &classify(part.request.text, body.tokens));
    if planned.pseudo.iter().any(|one| one.is_view) {
        return finish(part, Err(refusal::prepared_view()));
    }
    Planned {
        pseudo: planned.pseudo,
        listed: planned.listed,
        ..for_session(part)
    }
}

/// A cursor lives where its query would run. The proxy keeps the rows of one that a hub finishes.
fn plan_declare(part: Part<'_>, hold: bool, body: &Range<u32>) -> Planned {
    let body = part.within(body);
    let mut planned = plan(body, &classify(part.request.text, body.tokens));
    finished_by_hub(&mut planned, "DECLARE CURSOR with ORDER BY or LIMIT");
    if let Route::Change(_) | Route::Staged(_) = planned.route {
        one_shard_only(&mut planned.route, "a cursor");
    }
    // What the proxy keeps needs no connection.
    if hold && !matches!(planned.route, Route::Combine(_)) {
        planned.session |= SessionUse::PINS | SessionUse::NOT_PREPARABLE;
    }
    planned
}

/// Has a hub merge what would be merged natively.
pub(super) fn finished_by_hub(planned: &mut Planned, what: &str) {
    let fallback = planned.fallback.take();
    if planned.merge.take().is_none() {
        return;
    }
    match (fallback, &mut planned.route) {
        (Some(combine), Route::Keyed(keyed)) => keyed.spread = Spread::Combine(combine),
        (Some(combine), route) => *route = Route::Combine(combine),
        (None, route) => one_shard_only(route, what),
    }
}

/// Refuses routes of several shards, for what has no way to merge yet.
pub(super) fn one_shard_only(route: &mut Route, what: &str) {
    let error = || {
        Error::refused(
            format!("{what} over several shards is not supported"),
            "Its query needs rows of several shards.",
            "Add a condition that equates the shard key with a constant or parameter.",
        )
    };
    match route {
        Route::Scatter(_)
        | Route::Combine(_)
        | Route::Change(_)
        | Route::Replicated(_)
        | Route::Insert(_)
        | Route::Feed(_)
        | Route::Staged(_)
        | Route::Filled(_) => {
            *route = Route::Refused(error());
        }
        Route::Keyed(keyed) => {
            if !matches!(keyed.spread, Spread::Refuse(_)) {
                keyed.spread = Spread::Refuse(error());
            }
        }
        Route::Any | Route::Shard(_) | Route::CopyIn(_) | Route::Define(_) | Route::Refused(_) => {}
    }
}

/// Whether a query by its kind may change rows.
pub(super) fn may_write(query: QueryFacts) -> bool {
    query.modifies
        || query.locks_rows
        || query.into.is_some()
        || !matches!(
            query.kind,
            QueryKind::Select | QueryKind::Values | QueryKind::Table
        )
}
