//! The simple protocol: one Query message, one or several statements.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::report;
use crate::error::{Error, Result};
use crate::plan::own::tokens_of;
use crate::plan::{Access, Arguments, Parameters, Plan, SessionUse, Target};
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::explain::is_gathered;
use crate::session::held::Held;
use crate::session::insert::names_parameters;
use crate::session::local::Local;
use crate::session::measure::Measured;
use crate::session::pseudo::Expanded;
use crate::session::replies::{Effects, Expect};
use crate::session::rewrite::Rewritten;
use crate::session::route::Need;
use crate::session::stored;
use crate::session::study::Study;
use crate::session::{Sequences, Session, Stop};
use crate::sql::shifts::Shifts;
use crate::sql::statement::{QueryKind, Statement, TransactionModes};
use crate::sql::token::{TokenKind, slice};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::txn::commit::Work;
use crate::wire::backend::{command_complete, empty_query_response, ready_for_query};
use crate::wire::buffer::message;
use crate::wire::format::Formats;
use crate::wire::{frame, frontend};

impl Session {
    /// Handles Query.
    pub(super) async fn query(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let text = frontend::query(frame::body(frame))?;
        self.begin_drawn();
        if self.server.as_ref().is_some_and(Held::is_detached) {
            // What runs beside the transaction may yet break it.
            self.drain().await?;
        }
        self.batch.start_simple();
        self.statements.remove_unnamed();
        if self.transaction == Transaction::Idle {
            // It ends the batch that it stands behind.
            self.statements.clear_portals();
        }
        self.unit.note(frame);
        let read = self.settings.context().encoding.read(text);
        match self.query_read(frame, read.as_deref()).await {
            Err(Stop::Statement(error)) => {
                let text = read.as_deref().unwrap_or_default();
                Err(self.judged(error, text).await.into())
            }
            other => other,
        }
    }

    async fn query_read(&mut self, frame: &[u8], read: Option<&str>) -> Result<(), Stop> {
        let study = self.study_anew(read, &[]).await?;
        let text = read.unwrap_or_default();
        match self.expanded(text, &study, &[])? {
            Some(expanded) => self.query_expanded(expanded).await,
            None => self.query_studied(frame, text, study).await,
        }
    }

    /// Runs a text in the place of the client's.
    pub(super) async fn query_expanded(&mut self, expanded: Expanded) -> Result<(), Stop> {
        // Errors from now on are about this text.
        self.drain().await?;
        self.unit.rewritten = Some(Rewritten {
            statement: None,
            shifts: expanded.shifts.clone(),
        });
        let mut frame = Vec::new();
        frontend::write_query(&mut frame, &self.encoded(&expanded.text)?);
        let ran = self.query_studied(&frame, &expanded.text, expanded.study);
        ran.await
            .map_err(|stop| placed_back(stop, &expanded.shifts))
    }

    /// Before a Query that stands behind a batch without its Sync: whether what the batch has done is part of a
    /// transaction that ends with the Query.
    async fn joins_batch(&mut self) -> Result<bool, Stop> {
        // A statement of a script that is put into other words has joined already.
        if self.database.is_single() || self.unit.is_script {
            return Ok(false);
        }
        if self.transaction == Transaction::Idle && self.batch.is_sent() {
            if self.may_leave_batch() {
                self.leave_batch().await?;
            } else if self.may_upgrade() {
                self.begin_implicit().await?;
            }
        }
        Ok(self.others.is_implicit)
    }

    async fn query_studied(&mut self, frame: &[u8], text: &str, study: Study) -> Result<(), Stop> {
        let ends_batch = self.joins_batch().await?;
        match study {
            Study::One(plan) if ends_batch => {
                let whole = 0..u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.query_script(text, &[(whole, plan)]).await
            }
            Study::Many(plans) if ends_batch => self.query_script(text, &plans).await,
            Study::Empty if ends_batch => {
                self.drain().await?;
                let mut words = Vec::new();
                empty_query_response(&mut words);
                self.say(words);
                self.query_script(text, &[]).await
            }
            Study::Opaque if self.transaction.is_broken() => Err(self.aborted().into()),
            Study::Empty => {
                self.end_batch_before().await?;
                let mut words = Vec::new();
                empty_query_response(&mut words);
                self.finish_simple(words).await
            }
            Study::One(plan) => self.query_one(frame, text, &plan).await,
            Study::Many(plans) => self.query_many(frame, text, &plans).await,
            Study::Opaque => {
                self.unit.make_final();
                let need = Need {
                    shard: Some(0),
                    access: Access::Write,
                    writes: true,
                    is_sticky: false,
                    may_detach: false,
                };
                // What it does to the session is not known.
                let pins = Some(Box::new(VecDeque::from([Effect::Pin])));
                self.send_query(frame, need, pins).await
            }
        }
    }

    pub(super) async fn query_one(
        &mut self,
        frame: &[u8],
        text: &str,
        plan: &Arc<Plan>,
    ) -> Result<(), Stop> {
        if self.transaction != Transaction::Failed
            && let Some(local) = self.local(plan, text).await?
        {
            return self.query_locally(local).await;
        }
        if self.transaction != Transaction::Failed && self.query_named(text, plan).await? {
            return Ok(());
        }
        if self.transaction != Transaction::Failed {
            let none = Parameters::none();
            if let Some(told) = self.with_drawn((text, plan), none, &[]).await? {
                return Box::pin(self.query_expanded(told)).await;
            }
        }
        let effects = match self.begins_again(&plan.statement) {
            true => None,
            false => self.effects_now(plan, text)?,
        };
        self.note_temporary(plan);
        self.check_free_cursor(&plan.statement)?;
        if self.before_end(&plan.statement).await? {
            let mut words = Vec::new();
            command_complete(&mut words, "COMMIT");
            return self.finish_simple(words).await;
        }
        if self.transaction == Transaction::Failed {
            let need = self.need(plan, None, text);
            return self.send_query(frame, need, effects).await;
        }
        let target = self.target_unbound(plan, text)?;
        if let Some(told) = self.with_moment((text, plan), &target, &[]).await? {
            return Box::pin(self.query_expanded(told)).await;
        }
        let is_shown = self.explains(plan) && !is_gathered(plan, &target);
        if target.takes_steps(is_shown) {
            return self.query_in_steps(text, plan, &target).await;
        }
        if is_shown {
            return self.query_explain(frame, plan, (&target, text)).await;
        }
        if stored::asks(plan) {
            let shard = stored::shard(&target)?;
            self.hold_for_stored(self.need(plan, shard, text)).await?;
        }
        let planned = match target {
            Target::One(shard) if self.shape.hint.is_none() => Some(shard),
            _ => None,
        };
        let answers = self.own_answers(plan, text, Parameters::none(), (planned, true));
        let answers = answers.await?;
        let edited = self.edited_query(text, &answers).await?;
        let frame = edited.as_deref().unwrap_or(frame);
        let shard = match target {
            Target::Many(shards) => {
                let text = frontend::query(frame::body(frame))?;
                return self.scatter_query(text, plan, shards).await;
            }
            rows @ (Target::Rows(_) | Target::Computed) if !names_parameters(plan, text) => {
                return self.insert_query(text, plan, rows).await;
            }
            Target::One(shard) => Some(shard),
            _ => None,
        };
        self.count_route(shard);
        self.send_query(frame, self.need(plan, shard, text), effects)
            .await
    }

    /// Runs a simple Query that is more than its own text on one shard or several.
    async fn query_in_steps(
        &mut self,
        text: &str,
        plan: &Plan,
        target: &Target,
    ) -> Result<(), Stop> {
        match target {
            Target::Fill => Box::pin(self.query_filled(text, plan)).await,
            Target::Replicated => self.replicate_query(text, plan).await,
            Target::Feed => Box::pin(self.feed_query(text, plan)).await,
            Target::Staged => Box::pin(self.staged_query(text, plan)).await,
            Target::Change => self.change_query(text, plan).await,
            _ => self.combine_query(text, plan).await,
        }
    }

    async fn query_explain(
        &mut self,
        frame: &[u8],
        plan: &Plan,
        (target, text): (&Target, &str),
    ) -> Result<(), Stop> {
        let lines = match Box::pin(self.measured(plan, target, text)).await? {
            Measured::Lines(lines) => lines,
            Measured::OnHub => return self.combine_query(text, plan).await,
        };
        let written = (text, &*self.shape.literals);
        let explained = self.explain(plan, target, written, &lines)?;
        self.count_route(explained.shard);
        self.unit.make_final();
        self.hold(self.need(plan, explained.shard, text)).await?;
        if let Some(held) = &mut self.server {
            if plan.access == Access::Write {
                held.note(Work::Writes);
            }
            held.lease.unnamed = None;
            held.send(frame, Expect::Explain(explained.rows));
            self.batch.end_by_query();
        }
        Ok(())
    }

    /// Whether it is a BEGIN that changes nothing, since a transaction is open: PostgreSQL warns.
    fn begins_again(&self, statement: &Statement) -> bool {
        let has_nothing_due = |held: &Held| held.is_at_rest();
        matches!(statement, Statement::Begin(begin) if begin.modes == TransactionModes::default())
            && self.transaction == Transaction::Open
            && self.server.as_ref().is_some_and(has_nothing_due)
    }

    /// Where a statement goes that is not bound: a parameter in it is an error, which one server says by itself.
    fn target_unbound(&mut self, plan: &Plan, text: &str) -> Result<Target> {
        let literals = std::mem::take(&mut self.shape.literals);
        let target = {
            let arguments = Arguments {
                text,
                literals: &literals,
                parameters: Parameters::none(),
                encoding: self.settings.context().encoding,
            };
            let hint = self.shape.hint.clone().map(|range| slice(text, range));
            self.target(plan, &arguments, hint)
        };
        self.shape.literals = literals;
        let is_spread = match &target {
            Ok(Target::One(_) | Target::Any) => false,
            Ok(_) => true,
            Err(error) => error.code() == SqlState::FEATURE_NOT_SUPPORTED,
        };
        if !is_spread || !text.contains('$') || !matches!(plan.statement, Statement::Query(_)) {
            return target;
        }
        let tokens = tokens_of(text, Database::lex_options(self.settings.context()))?;
        let mut tokens = tokens.iter();
        let Some(token) = tokens.find(|token| token.kind == TokenKind::Parameter) else {
            return target;
        };
        let before = slice(text, 0..token.start).chars().count();
        let position = u32::try_from(before + 1).unwrap_or(u32::MAX);
        let message = format!("there is no parameter {}", token.text(text));
        Err(Error::new(SqlState::UNDEFINED_PARAMETER, message).position(position))
    }

    /// Sends a Query to a connection that meets the need.
    pub(super) async fn send_query(
        &mut self,
        frame: &[u8],
        need: Need,
        effects: Effects,
    ) -> Result<(), Stop> {
        let effects = self.foresee(effects).await?;
        self.hold(need).await?;
        if need.access == Access::Write {
            self.unit.make_final();
        }
        self.note_pins(&effects);
        if let Some(held) = &mut self.server {
            held.note(need.work());
            held.lease.unnamed = None;
            held.send(frame, Expect::Query(effects));
            self.batch.end_by_query();
        }
        Ok(())
    }

    /// From now on names that the catalogue does not know may be temporary tables', and sequences may
    /// have been drawn from.
    pub(super) fn note_temporary(&mut self, plan: &Plan) {
        self.memory.temporary_tables |= plan.session.contains(SessionUse::TEMPORARY_TABLES);
        if plan.access == Access::Write {
            self.statements.spoil_portals();
        }
        self.note_notify(plan);
        self.memory.drawn.execute(&plan.statement, plan.session);
        if plan.session.contains(SessionUse::RESTARTS_SEQUENCE) {
            self.memory.sequences = Sequences::Restarted;
        } else if plan.session.contains(SessionUse::SETS_SEQUENCE)
            && self.memory.sequences == Sequences::Untouched
        {
            self.memory.sequences = Sequences::Set;
        }
        // UPDATE and DELETE write without drawing from sequences; of anything else it is not known.
        let draws = match &plan.statement {
            Statement::Query(query) => !matches!(query.kind, QueryKind::Update | QueryKind::Delete),
            _ => true,
        };
        let only_locks = plan.session.contains(SessionUse::ONLY_LOCKS);
        self.memory.may_have_drawn |= draws && !only_locks && plan.access == Access::Write;
    }

    /// What pins the session may have done so even if it fails or is never finished.
    pub(super) fn note_pins(&mut self, effects: &Effects) {
        if effects
            .as_ref()
            .is_some_and(|all| all.iter().any(Effect::pins))
        {
            self.pin();
        }
    }

    /// Ends the batch that a Query which no server gets stands behind, without its Sync.
    async fn end_batch_before(&mut self) -> Result<(), Stop> {
        let before = self.transaction.status();
        self.drain().await?;
        if self.is_skipping() {
            // What stood before it has failed: up to Sync nothing is done.
            return Err(Stop::Skip);
        }
        self.check_unfailed(before)?;
        match self.batch.is_sent() {
            true => self.leave_batch().await,
            false => Ok(()),
        }
    }

    async fn query_locally(&mut self, local: Local) -> Result<(), Stop> {
        self.end_batch_before().await?;
        let answer = self.perform(local, &Formats::default()).await?;
        self.database.metrics.local.inc();
        let mut words = answer.description;
        words.extend_from_slice(&answer.rows);
        command_complete(&mut words, &answer.tag);
        words.extend_from_slice(&answer.status);
        self.finish_simple(words).await
    }

    /// Answers a Query with words of the proxy's own.
    pub(super) async fn finish_simple(&mut self, mut words: Vec<u8>) -> Result<(), Stop> {
        self.drain().await?;
        if !self.unit.is_script && self.awaits_mail() {
            self.say(std::mem::take(&mut words));
            self.before_ready().await?;
        }
        if !self.unit.is_script {
            ready_for_query(&mut words, self.transaction.status());
        }
        self.say(words);
        self.unit.end();
        Ok(())
    }
}

/// An error about a text that was made of the client's, with its place in that.
pub(super) fn placed_back(stop: Stop, shifts: &Shifts) -> Stop {
    match stop {
        Stop::Words(words) => Stop::Words(moved(words, shifts)),
        Stop::Statement(error) => match error.fields().position {
            Some(position) => Stop::Statement(error.position(shifts.original(position))),
            None => Stop::Statement(error),
        },
        other => other,
    }
}

/// An error of a shard with its place in the client's text.
fn moved(words: Vec<u8>, shifts: &Shifts) -> Vec<u8> {
    let original = |position| shifts.original(position);
    let is_error = words.first() == Some(&b'E');
    let body = is_error.then(|| report::moved(frame::body(&words), original));
    let Some(body) = body.flatten() else {
        return words;
    };
    let mut moved = Vec::with_capacity(words.len());
    message(&mut moved, b'E', |out| out.extend_from_slice(&body));
    moved
}

pub(super) fn aborted() -> Error {
    Error::new(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

impl Session {
    /// Handles FunctionCall, whose function is named by an OID of one server.
    pub(super) async fn function_call(&mut self, frame: &[u8]) -> Result<(), Stop> {
        self.batch.start_simple();
        if self.transaction.is_broken() {
            return Err(self.aborted().into());
        }
        let is_chosen = self.is_unplaced() || self.settings.context().shard.is_some();
        if !is_chosen && !is_of_large_objects(frontend::function(frame::body(frame))?) {
            return Err(Error::refused(
                "function call messages are not supported over several shards",
                "The message names a function by an OID, which differs between shards; only those of \
                 large objects, which live on the first shard, are known.",
                "Call the function with SELECT, or SET shardwire.shard.",
            )
            .into());
        }
        self.unit.make_final();
        let shard = match self.settings.context().shard.as_deref() {
            Some(name) => self.database.shard_named(name),
            None => Some(0),
        };
        self.hold(Need {
            shard,
            access: Access::Write,
            writes: true,
            is_sticky: false,
            may_detach: false,
        })
        .await?;
        if let Some(held) = &mut self.server {
            held.note(Work::Writes);
            held.send(frame, Expect::FunctionCall);
            self.batch.end_by_query();
        }
        Ok(())
    }
}

/// Whether an OID is one of PostgreSQL's functions for large objects: `lo_open`, `loread` and so on,
/// which have the same on every server (pg_proc.dat).
fn is_of_large_objects(oid: u32) -> bool {
    matches!(oid, 715 | 764 | 765 | 767 | 952..=958 | 964 | 1004 | 3170..=3172 | 3457..=3460)
}
