//! The simple protocol: one Query message, one or several statements.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::{Access, Arguments, Parameters, Plan, Route, SessionUse, Target};
use crate::session::database::{Database, Question};
use crate::session::effect::Effect;
use crate::session::explain::Explained;
use crate::session::local::Local;
use crate::session::replies::{Effects, Expect};
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sql::shape::{self, Shape};
use crate::sql::splice::{Edit, splice};
use crate::sql::statement::{ResetTarget, Statement};
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{command_complete, empty_query_response, ready_for_query};
use crate::wire::{frame, frontend};

/// What a text asks for.
pub(super) enum Study {
    /// No statement at all.
    Empty,
    /// One statement.
    One(Arc<Plan>),
    /// Several statements: where each stands, and its plan.
    Many(Vec<(Range<u32>, Arc<Plan>)>),
    /// A text that only the server can judge; it goes there as it is.
    Opaque,
}

impl Session {
    /// Handles Query.
    pub(super) async fn query(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let text = frontend::query(frame::body(frame))?;
        self.place_pending().await?;
        self.batch.start_simple();
        self.statements.remove(b"");
        self.unit.note(frame);
        let study = self.study(text, &[])?;
        if self.transaction == Transaction::Broken && !matches!(study, Study::One(_) | Study::Empty)
        {
            return Err(aborted().into());
        }
        match study {
            Study::Empty => {
                let mut words = Vec::new();
                empty_query_response(&mut words);
                self.finish_simple(words).await
            }
            Study::One(plan) => self.query_one(frame, text, &plan).await,
            Study::Many(plans) => self.query_many(frame, text, &plans).await,
            Study::Opaque => {
                self.unit.make_final();
                // What it does to the session is not known.
                self.memory.is_pinned = true;
                let need = Need {
                    shard: Some(0),
                    access: Access::Write,
                    is_sticky: false,
                    may_detach: false,
                };
                self.send_query(frame, need, None).await
            }
        }
    }

    async fn query_one(&mut self, frame: &[u8], text: &[u8], plan: &Arc<Plan>) -> Result<(), Stop> {
        // A text that has a plan is UTF-8.
        let text = std::str::from_utf8(text).unwrap_or_default();
        if self.transaction != Transaction::Failed
            && let Some(local) = self.local(plan, text).await?
        {
            return self.query_locally(local).await;
        }
        let effects = effects(plan, text);
        self.note_temporary(plan);
        if self.transaction == Transaction::Failed {
            return self
                .send_query(frame, self.need(plan, None, text), effects)
                .await;
        }
        let literals = std::mem::take(&mut self.shape.literals);
        let target = {
            let arguments = Arguments {
                text,
                literals: &literals,
                parameters: Parameters::none(),
                utf8: !self.settings.context().foreign_encoding,
            };
            let hint = self.shape.hint.clone().map(|range| slice(text, range));
            self.target(plan, &arguments, hint)
        };
        self.shape.literals = literals;
        let target = target?;
        if self.explains(plan) {
            let explained = self.explain(plan, &target, (text, &self.shape.literals))?;
            return self.query_explain(frame, plan, (explained, text)).await;
        }
        match target {
            Target::Many(shards) => self.scatter_query(text, plan, shards).await,
            Target::One(shard) => {
                self.count_route(Some(shard));
                self.send_query(frame, self.need(plan, Some(shard), text), effects)
                    .await
            }
            Target::Any => {
                self.count_route(None);
                self.send_query(frame, self.need(plan, None, text), effects)
                    .await
            }
        }
    }

    async fn query_explain(
        &mut self,
        frame: &[u8],
        plan: &Plan,
        (explained, text): (Explained, &str),
    ) -> Result<(), Stop> {
        self.count_route(explained.shard);
        self.unit.make_final();
        self.hold(self.need(plan, explained.shard, text)).await?;
        if let Some(held) = &mut self.server {
            held.wrote |= plan.access == Access::Write;
            held.lease.unnamed = None;
            held.send(frame, Expect::Explain(explained.rows));
            self.batch.end_by_query();
        }
        Ok(())
    }

    /// Several statements in one message are one transaction, so they must agree on a shard.
    async fn query_many(
        &mut self,
        frame: &[u8],
        text: &[u8],
        plans: &[(Range<u32>, Arc<Plan>)],
    ) -> Result<(), Stop> {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let mut need = Need {
            shard: None,
            access: Access::Read,
            is_sticky: false,
            may_detach: false,
        };
        let mut all = VecDeque::new();
        let mut edits = Vec::new();
        let mut drew = false;
        // A hint before the first statement is for the whole message.
        let hint = self.shape.hint.clone().map(|range| slice(text, range));
        for (number, (range, plan)) in plans.iter().enumerate() {
            let statement = slice(text, range.clone());
            if self.transaction != Transaction::Failed {
                self.check_in_many(plan, number + 1 == plans.len())?;
                need.shard = agree(need.shard, &self.target_in_many(plan, statement, hint)?)?;
            }
            if plan.access == Access::Write || !is_query(plan) {
                need.access = Access::Write;
            }
            // What was drawn in this very message is on the right connection anyway.
            drew |= plan.session.contains(SessionUse::DRAWS_SEQUENCE);
            need.is_sticky |= !drew && self.is_sticky(plan);
            self.note_temporary(plan);
            if let Some((revert, effect)) = self.revert_in_many(plan) {
                edits.push(Edit {
                    range: range.clone(),
                    text: revert,
                });
                all.push_back(effect);
            } else {
                let effect = effects(plan, statement);
                all.push_back(
                    effect
                        .and_then(|mut one| one.pop_front())
                        .unwrap_or(Effect::None),
                );
            }
        }
        self.unit.make_final();
        self.count_route(need.shard);
        let effects = all
            .iter()
            .any(|effect| *effect != Effect::None)
            .then(|| Box::new(all));
        if edits.is_empty() {
            return self.send_query(frame, need, effects).await;
        }
        let options = Database::lex_options(self.settings.context());
        let edited = splice(text, options, &edits)?;
        let mut frame = Vec::new();
        frontend::write_query(&mut frame, edited.as_bytes());
        self.send_query(&frame, need, effects).await
    }

    /// The shards of one statement among several.
    fn target_in_many(&self, plan: &Plan, statement: &str, hint: Option<&str>) -> Result<Target> {
        let mut shape = Shape::default();
        let options = Database::lex_options(self.settings.context());
        shape::scan(statement.as_bytes(), options, &mut shape)
            .map_err(|error| error.to_error(statement.as_bytes()))?;
        let arguments = Arguments {
            text: statement,
            literals: &shape.literals,
            parameters: Parameters::none(),
            utf8: !self.settings.context().foreign_encoding,
        };
        self.target(plan, &arguments, hint)
    }

    /// The SET that stands for a RESET of a setting that the startup packet named, and what it does.
    fn revert_in_many(&self, plan: &Plan) -> Option<(String, Effect)> {
        if !self.reverts(plan) {
            return None;
        }
        match &plan.statement {
            Statement::Reset(ResetTarget::Name(name)) => Some((
                self.settings.revert_statement(name)?,
                Effect::Reverted(name.clone()),
            )),
            Statement::Set { name, .. } => {
                let effect = Effect::Reset {
                    local: false,
                    name: name.clone(),
                };
                Some((self.settings.revert_statement(name)?, effect))
            }
            _ => None,
        }
    }

    /// What can't stand among several statements of one message, because the proxy would have to
    /// answer it itself.
    fn check_in_many(&self, plan: &Plan, is_last: bool) -> Result<()> {
        // Its startup packet's settings can be given back only once the message is done.
        let is_early_reset = matches!(plan.statement, Statement::Reset(ResetTarget::All))
            && self.settings.has_defaults()
            && !is_last;
        // The statements behind it were planned as if it were not there.
        let is_early_change =
            !self.database.is_single() && !is_last && changes_planning(&plan.statement);
        if self.is_own_statement(plan) || is_early_reset || is_early_change {
            return Err(Error::refused(
                "this statement can't be sent together with others",
                "The proxy has to see it through before it can tell where the next one runs.",
                "Send it as a message of its own.",
            ));
        }
        Ok(())
    }

    /// Sends a Query to a connection that meets the need.
    async fn send_query(&mut self, frame: &[u8], need: Need, effects: Effects) -> Result<(), Stop> {
        self.hold(need).await?;
        if need.access == Access::Write {
            self.unit.make_final();
        }
        self.note_pins(&effects);
        if let Some(held) = &mut self.server {
            held.wrote |= need.access == Access::Write;
            held.lease.unnamed = None;
            held.send(frame, Expect::Query(effects));
            self.batch.end_by_query();
        }
        Ok(())
    }

    /// From now on names that the catalogue does not know may be temporary tables'.
    pub(super) fn note_temporary(&mut self, plan: &Plan) {
        self.memory.temporary_tables |= plan.session.contains(SessionUse::TEMPORARY_TABLES);
    }

    /// What pins the session may have done so even if it fails or is never finished.
    pub(super) fn note_pins(&mut self, effects: &Effects) {
        if effects
            .as_ref()
            .is_some_and(|all| all.contains(&Effect::Pin))
        {
            self.memory.is_pinned = true;
        }
    }

    async fn query_locally(&mut self, local: Local) -> Result<(), Stop> {
        self.drain().await?;
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        let answer = self.perform(local).await?;
        self.database.metrics.local.inc();
        let mut words = answer.status;
        words.extend_from_slice(&answer.description);
        words.extend_from_slice(&answer.rows);
        command_complete(&mut words, &answer.tag);
        self.finish_simple(words).await
    }

    /// Answers a Query with words of the proxy's own.
    async fn finish_simple(&mut self, mut words: Vec<u8>) -> Result<(), Stop> {
        self.drain().await?;
        ready_for_query(&mut words, self.transaction.status());
        self.say(words);
        self.unit.end();
        Ok(())
    }

    /// Finds out what a text asks for.
    ///
    /// # Errors
    /// `42601` and the like for a text that is no SQL, where several shards could be meant.
    pub(super) fn study(&mut self, text: &[u8], types: &[u32]) -> Result<Study> {
        let single = self.database.is_single();
        let context = Arc::clone(self.settings.context());
        let Ok(utf8) = std::str::from_utf8(text) else {
            return opaque(single, || {
                Error::refused(
                    "statement is not valid UTF-8",
                    "Statements are routed by their text, which is read as UTF-8.",
                    "SET client_encoding TO 'UTF8' and send the statement in UTF-8.",
                )
            });
        };
        if context.foreign_encoding && !utf8.is_ascii() && !single {
            return opaque(single, || {
                Error::refused(
                    "statement with characters beyond ASCII in a client encoding other than UTF8",
                    "Shard keys are hashed in UTF-8, the servers' encoding.",
                    "SET client_encoding TO 'UTF8'.",
                )
            });
        }
        let options = Database::lex_options(&context);
        if let Err(error) = shape::scan(text, options, &mut self.shape) {
            return opaque(single, || error.to_error(text));
        }
        match self.shape.statements.as_slice() {
            [] => Ok(Study::Empty),
            [statement] => {
                // Without a semicolon behind it; offsets stay as they are.
                let utf8 = slice(utf8, 0..statement.end);
                let question = Question {
                    text: utf8,
                    shape: &self.shape,
                    types,
                    context: &context,
                    temporary_tables: self.memory.temporary_tables,
                };
                self.database.plan(&question).map(Study::One)
            }
            several => {
                let mut plans = Vec::with_capacity(several.len());
                for range in several {
                    let statement = slice(utf8, range.clone());
                    let mut shape = Shape::default();
                    shape::scan(statement.as_bytes(), options, &mut shape)
                        .map_err(|error| error.to_error(text))?;
                    let question = Question {
                        text: statement,
                        shape: &shape,
                        types,
                        context: &context,
                        temporary_tables: self.memory.temporary_tables,
                    };
                    plans.push((range.clone(), self.database.plan(&question)?));
                }
                Ok(Study::Many(plans))
            }
        }
    }

    /// The shards of one execution: by its hint or `shardwire.shard` if there is one, else by the plan.
    ///
    /// # Errors
    /// The plan's refusal, `22023` for a shard that does not exist or a hint that can't be read.
    pub(super) fn target(
        &self,
        plan: &Plan,
        arguments: &Arguments<'_>,
        hint: Option<&str>,
    ) -> Result<Target> {
        if self.database.is_single() {
            return Ok(Target::One(0));
        }
        let hinted = hint.map(hinted_shard).transpose()?;
        let Some(name) = hinted.or(self.settings.context().shard.as_deref()) else {
            self.check_session_use(plan)?;
            return plan.target(arguments);
        };
        match self.database.shard_named(name) {
            Some(shard) => Ok(Target::One(shard)),
            None => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("shard \"{name}\" does not exist"),
            )
            .hint("SHOW SHARDWIRE SHARDS lists them.")),
        }
    }

    /// State that stays on one server connection needs a shard to stay on.
    fn check_session_use(&self, plan: &Plan) -> Result<()> {
        let keeps = plan.session.contains(SessionUse::PINS)
            || plan.session.contains(SessionUse::SET_CONFIG)
            || matches!(effect_of(&plan.statement), Effect::Pin);
        if !keeps || matches!(plan.route, Route::Refused(_)) {
            return Ok(());
        }
        Err(Error::refused(
            "statement leaves state on its server connection",
            "Temporary tables, LISTEN, SQL-level PREPARE, WITH HOLD cursors, session advisory locks and \
             set_config for the session would exist on one shard only.",
            "SET shardwire.shard to the shard to keep, or use what ends with the transaction.",
        ))
    }

    /// Whether a statement asks what the session last drew from a sequence before the transaction at
    /// hand: only the connection that it was drawn on knows.
    fn is_sticky(&self, plan: &Plan) -> bool {
        let wrote_here =
            self.transaction.is_on_shard() && self.server.as_ref().is_some_and(|held| held.wrote);
        plan.session.contains(SessionUse::READS_SEQUENCE) && !self.memory.is_pinned && !wrote_here
    }

    /// What a plan needs of a server connection.
    pub(super) fn need(&self, plan: &Plan, shard: Option<usize>, text: &str) -> Need {
        let is_sticky = self.is_sticky(plan);
        let is_show = matches!(plan.statement, Statement::Show(_));
        let is_read = plan.access == Access::Read
            && is_query(plan)
            && !self.has_own_snapshot()
            && !(self.may_detach() && may_ask_time(text));
        let may_detach = shard.is_none() && (is_show || is_read);
        // Settings and the like belong to whatever serves the session; any server will do.
        let access = match is_query(plan) {
            true => plan.access,
            false if self.transaction.is_on_shard() => Access::Read,
            false => access_of(plan),
        };
        Need {
            shard,
            access,
            is_sticky,
            may_detach,
        }
    }

    pub(super) fn count_route(&self, shard: Option<usize>) {
        match shard {
            Some(_) => self.database.metrics.single.inc(),
            None => self.database.metrics.any.inc(),
        }
    }
}

fn opaque(single: bool, error: impl FnOnce() -> Error) -> Result<Study> {
    if single {
        Ok(Study::Opaque)
    } else {
        Err(error())
    }
}

/// The shard that both a statement and those before it need.
fn agree(shard: Option<usize>, target: &Target) -> Result<Option<usize>> {
    match (shard, target) {
        (shard, Target::Any) => Ok(shard),
        (None, Target::One(one)) => Ok(Some(*one)),
        (Some(shard), Target::One(one)) if shard == *one => Ok(Some(shard)),
        _ => Err(several_shards()),
    }
}

fn several_shards() -> Error {
    Error::refused(
        "the statements of one message need several shards",
        "They form one transaction, and a transaction can't use a second shard yet.",
        "Send the statements one by one.",
    )
}

/// The shard that a hint names: `/* shardwire: shard=s1 */`.
fn hinted_shard(hint: &str) -> Result<&str> {
    match hint.trim().split_once('=') {
        Some((name, shard)) if name.trim() == "shard" => Ok(shard.trim()),
        _ => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("\"{}\" is not a hint", hint.trim()),
        )
        .hint("Write /* shardwire: shard=NAME */.")),
    }
}

/// Whether a statement may ask for its transaction's time, which must be the same in all of them. Words
/// in literals and comments count too: that only costs a shard its transaction earlier.
fn may_ask_time(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["now", "current_", "localtime", "timestamp", "today"]
        .iter()
        .any(|word| text.contains(word))
}

pub(super) fn aborted() -> Error {
    Error::new(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// Whether statements are planned differently once this one has run.
fn changes_planning(statement: &Statement) -> bool {
    match statement {
        Statement::Set { name, .. } | Statement::Reset(ResetTarget::Name(name)) => matches!(
            name.as_str(),
            "search_path" | "standard_conforming_strings" | "client_encoding" | "role"
        ),
        Statement::Reset(ResetTarget::All) | Statement::Discard(_) | Statement::Ddl(_) => true,
        _ => false,
    }
}

fn is_query(plan: &Plan) -> bool {
    matches!(plan.statement, Statement::Query(_) | Statement::Explain(_))
}

/// Utility statements that only read the session's state may run on a secondary.
fn access_of(plan: &Plan) -> Access {
    match plan.statement {
        Statement::Show(_)
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::SetSessionCharacteristics(_)
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Empty => Access::Read,
        _ => plan.access,
    }
}

fn effect_of(statement: &Statement) -> Effect {
    Effect::of(statement, "")
}

/// What a statement does to the session once it has completed.
pub(super) fn effects(plan: &Plan, text: &str) -> Effects {
    let effect = Effect::of(&plan.statement, text);
    if effect != Effect::None {
        return Some(Box::new(VecDeque::from([effect])));
    }
    let pins =
        plan.session.contains(SessionUse::PINS) || plan.session.contains(SessionUse::SET_CONFIG);
    pins.then(|| Box::new(VecDeque::from([Effect::Pin])))
}

impl Session {
    /// Handles FunctionCall, whose function is named by an OID of one server.
    pub(super) async fn function_call(&mut self, frame: &[u8]) -> Result<(), Stop> {
        self.batch.start_simple();
        if self.transaction == Transaction::Broken {
            return Err(aborted().into());
        }
        if !self.database.is_single() && self.settings.context().shard.is_none() {
            return Err(Error::refused(
                "function call messages are not supported over several shards",
                "The message names a function by an OID, which differs between shards.",
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
            is_sticky: false,
            may_detach: false,
        })
        .await?;
        if let Some(held) = &mut self.server {
            held.wrote = true;
            held.send(frame, Expect::FunctionCall);
            self.batch.end_by_query();
        }
        Ok(())
    }
}
