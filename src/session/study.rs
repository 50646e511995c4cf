//! What a text asks for, where it runs, and what it needs of a server connection.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::is_unplaced;
use crate::error::{Error, Result};
use crate::plan::follow::Sight;
use crate::plan::own::Question as AskedOfProxy;
use crate::plan::{Access, Arguments, OwnCall, Plan, Route, SessionUse, Target};
use crate::session::Session;
use crate::session::channels::check_home;
use crate::session::database::{Database, Question};
use crate::session::definitions::View;
use crate::session::draws::Draws;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::hint::Hint;
use crate::session::refusal::sequence_elsewhere;
use crate::session::replies::Effects;
use crate::session::route::Need;
use crate::sharding::ShardSet;
use crate::sql::encoding::Encoding;
use crate::sql::lexer::tokenize;
use crate::sql::shape::{self, Shape};
use crate::sql::statement::Statement;
use crate::sql::token::{Token, TokenKind, slice};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::txn::commit::Work;

/// Sequences are here.
const FIRST_SHARD: usize = 0;

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
    /// Finds out what a text asks for.
    ///
    /// # Errors
    /// `42601` and the like for a text that is no SQL, where several shards could be meant.
    pub(super) fn study(&mut self, text: Option<&str>, types: &[u32]) -> Result<Study> {
        if let Some(plan) = self.memory.studied.take() {
            return Ok(Study::One(plan));
        }
        let single = self.database.is_single();
        let context = Arc::clone(self.settings.context());
        let Some(text) = text else {
            return opaque(single, || unreadable(context.encoding));
        };
        let study = self.study_read(text, types)?;
        let is_foreign = !context.encoding.is_utf8() && !text.is_ascii();
        if is_foreign && !self.is_servable(text, &study) {
            return opaque(single, foreign_text);
        }
        Ok(study)
    }

    /// As [`Session::study`], once the catalogue has been looked at again for names that it does not
    /// know: another proxy may just have made them.
    ///
    /// # Errors
    /// As [`Session::study`].
    pub(super) async fn study_anew(&mut self, text: Option<&str>, types: &[u32]) -> Result<Study> {
        let study = self.study(text, types)?;
        let is_unknown = |plan: &Plan| plan.session.contains(SessionUse::UNKNOWN_NAMES);
        let is_unknown = match &study {
            Study::One(plan) => is_unknown(plan),
            Study::Many(plans) => plans.iter().any(|(_, plan)| is_unknown(plan)),
            Study::Empty | Study::Opaque => false,
        };
        // Temporary tables are never known.
        if !is_unknown || self.memory.temporary_tables || self.own_sight().is_some() {
            return Ok(study);
        }
        let epoch = self.epoch();
        if let Err(error) = self.database.topology.look().await {
            tracing::debug!(%error, "the catalogue can't be looked at");
        }
        match self.epoch() == epoch {
            true => Ok(study),
            false => self.study(text, types),
        }
    }

    /// Whether a statement with characters beyond ASCII, which were converted, can be served. A setting
    /// would be made again in the wrong encoding; and where the characters are not known, nor are names.
    fn is_servable(&self, text: &str, study: &Study) -> bool {
        let context = self.settings.context();
        let is_query = |plan: &Plan| matches!(plan.statement, Statement::Query(_));
        let is_query = match study {
            Study::Empty => true,
            Study::One(plan) => is_query(plan),
            Study::Many(plans) => plans.iter().all(|(_, plan)| is_query(plan)),
            Study::Opaque => false,
        };
        let has_unknown_names = || {
            let tokens = tokenize(text.as_bytes(), Database::lex_options(context));
            let is_name =
                |token: &Token| token.kind == TokenKind::Word || token.kind.is_quoted_identifier();
            tokens.is_ok_and(|tokens| {
                tokens
                    .iter()
                    .any(|token| is_name(token) && !token.text(text).is_ascii())
            })
        };
        is_query
            && (context.encoding.is_exact() || self.database.is_single() || !has_unknown_names())
    }

    /// Finds out what a text asks for that has been read.
    fn study_read(&mut self, utf8: &str, types: &[u32]) -> Result<Study> {
        let text = utf8.as_bytes();
        // A text that can't be read might choose its shard by a hint.
        let may_hint = || utf8.contains("shardwire:");
        let single = self.database.is_single() || (self.is_plain() && !may_hint());
        let context = Arc::clone(self.settings.context());
        let options = Database::lex_options(&context);
        if let Err(error) = shape::scan(text, options, &mut self.shape) {
            return opaque(single, || error.to_error(text));
        }
        // A hint before the first statement is for all of them.
        let hint = self.shape.hint.clone().map(|range| slice(utf8, range));
        let by_key = context.shard_key.is_some() || hint.is_some_and(Hint::is_key);
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
                    by_key,
                    sight: self.own_sight(),
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
                        by_key,
                        sight: self.own_sight(),
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
        let context = self.settings.context();
        let hint = hint.map(Hint::read).transpose()?;
        let (name, key) = match hint {
            Some(Hint::Shard(name)) => (Some(name), None),
            Some(Hint::Key(key)) => (None, Some(Cow::Owned(key))),
            None => (
                context.shard.as_deref(),
                context.shard_key.as_ref().map(Cow::Borrowed),
            ),
        };
        let Some(name) = name else {
            return match self.memory.cursors.shards(&plan.statement) {
                Some(shards) => Ok(target_of(shards)),
                None if self.is_unplaced() && plan.define().is_none() => {
                    Ok(Target::One(FIRST_SHARD))
                }
                None => {
                    let target = target_by_key(plan, arguments, key.as_deref())?;
                    self.check_settings(plan, arguments, &target)?;
                    self.kept(plan, target)
                }
            };
        };
        match self.database.shard_named(name) {
            Some(shard) => {
                check_home(plan, shard)?;
                check_clause(plan)?;
                Ok(Target::One(shard))
            }
            None => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("shard \"{name}\" does not exist"),
            )
            .hint("SHOW SHARDWIRE SHARDS lists them.")),
        }
    }

    /// Whether all that the session sends belongs on the first shard.
    pub(super) fn is_plain(&self) -> bool {
        self.settings.context().shard.is_none() && self.is_unplaced()
    }

    /// Whether no table is anywhere but at home, as far as the session sees.
    pub(super) fn is_unplaced(&self) -> bool {
        match self.own_sight() {
            Some(sight) => {
                self.database.is_single()
                    || (is_unplaced(&self.database.config) && sight.catalog.is_unplaced())
            }
            None => self.database.is_plain(),
        }
    }

    /// The catalogue that only the session sees.
    pub(super) fn own_sight(&self) -> Option<&Arc<Sight>> {
        match self.memory.definitions.view() {
            View::Own(sight) => Some(sight),
            View::Shared | View::Unknown => None,
        }
    }

    /// State that stays on one server connection needs a shard to stay on.
    fn kept(&self, plan: &Plan, target: Target) -> Result<Target> {
        // No connection knows what the session drew last.
        if self.memory.drawn.keeps_from_servers()
            && plan.session.contains(SessionUse::READS_SEQUENCE)
        {
            return Err(sequence_elsewhere());
        }
        let unknown = plan.session.contains(SessionUse::SET_CONFIG);
        let keeps = plan.session.contains(SessionUse::PINS)
            || matches!(effect_of(&plan.statement), Effect::Pin);
        match (target, &plan.statement) {
            // What is temporary is kept on the first shard's.
            (target, _) if plan.define().is_some() => Ok(target),
            // Outside a transaction any server says that it can't be.
            (Target::Many(_) | Target::Combine, Statement::Declare { hold: false, .. })
                if self.transaction == Transaction::Idle =>
            {
                Ok(Target::One(FIRST_SHARD))
            }
            (Target::Many(shards), Statement::Declare { .. }) => Ok(Target::Many(shards)),
            (target, _) => kept_on_one(target, keeps, unknown),
        }
    }

    /// Whether a statement asks what the session last drew from a sequence before the transaction at
    /// hand: only the connection that it was drawn on knows.
    pub(super) fn is_sticky(&self, plan: &Plan) -> bool {
        if !plan.session.contains(SessionUse::READS_SEQUENCE) {
            return false;
        }
        // Sequences are on the first shard.
        let at_work = self
            .server
            .as_ref()
            .filter(|held| held.shard == FIRST_SHARD);
        let client = self.registered.control.process_id;
        let drew_before = |held: &Held| {
            let here = Draws::On(held.lease.cancel_key.process_id);
            held.lease.last_client == client && self.memory.draws.get(held.shard) == Some(&here)
        };
        let drew_here = |held: &Held| {
            held.is_pinned
                || (self.transaction.is_on_shard()
                    && !held.is_detached()
                    && ((held.wrote() && self.memory.may_have_drawn) || drew_before(held)))
        };
        !at_work
            .or(self.others.on(FIRST_SHARD))
            .is_some_and(drew_here)
    }

    /// Whether a statement changes what others see. One that only locks does not, within a transaction
    /// that holds the locks.
    pub(super) fn writes(&self, plan: &Plan) -> bool {
        let only_locks = plan.session.contains(SessionUse::ONLY_LOCKS);
        let access = match is_query(plan) {
            true => plan.access,
            false => access_of(plan),
        };
        access == Access::Write && !(only_locks && self.transaction != Transaction::Idle)
    }

    /// What a statement does in its transaction.
    pub(super) fn work(&self, plan: &Plan) -> Work {
        match plan.access {
            _ if self.writes(plan) => Work::Writes,
            Access::Write if is_query(plan) => Work::Locks,
            _ => Work::Reads,
        }
    }

    /// What a plan needs of a server connection.
    pub(super) fn need(&self, plan: &Plan, shard: Option<usize>, text: &str) -> Need {
        let is_sticky = self.is_sticky(plan);
        // COMMIT runs where the transaction has written.
        let shard = match plan.statement {
            Statement::Commit { .. } if self.transaction == Transaction::Open => {
                let at_work = self.server.as_ref().filter(|held| held.wrote());
                let written = at_work.map(|held| held.shard);
                shard.or(written).or(self.others.writer())
            }
            // What DISCARD TEMP and the like discard is there.
            Statement::Discard(_) if !self.database.is_single() => shard.or(Some(FIRST_SHARD)),
            _ => shard,
        };
        let is_show = matches!(plan.statement, Statement::Show(_));
        let is_read = plan.access == Access::Read
            && is_query(plan)
            && !makes_settings(plan)
            && !self.has_own_snapshot()
            && !(self.may_detach() && may_ask_time(text));
        let may_detach = shard.is_none() && (is_show || is_read);
        // Settings and the like belong to whatever serves the session; any server will do. One that the
        // session keeps must take its writes too.
        let access = match is_query(plan) {
            _ if plan.session.contains(SessionUse::PINS) => Access::Write,
            true => plan.access,
            false => access_of(plan),
        };
        Need {
            shard,
            access,
            writes: self.writes(plan),
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

/// A clause of the proxy's own is for all shards.
fn check_clause(plan: &Plan) -> Result<()> {
    match plan.define().is_some_and(|define| define.placed.is_some()) {
        false => Ok(()),
        true => Err(Error::refused(
            "SHARD KEY and REPLICATED are not supported on a chosen shard",
            "The table must exist on every shard.",
            "RESET shardwire.shard first.",
        )),
    }
}

/// A text that had to be converted.
pub(super) fn converted(read: &Option<Cow<'_, str>>) -> Option<Box<str>> {
    match read {
        Some(Cow::Owned(text)) => Some(text.as_str().into()),
        _ => None,
    }
}

/// The plan of a text that only the server can judge.
pub(super) fn unplanned(statement: Statement, route: Route, access: Access) -> Arc<Plan> {
    Arc::new(Plan {
        statement,
        route,
        access,
        session: SessionUse::NONE,
        epoch: 0,
        own: Box::default(),
        merge: None,
        fallback: None,
        pseudo: Box::default(),
        listed: Box::default(),
        moments: None,
    })
}

fn unreadable(encoding: Encoding) -> Error {
    match encoding {
        Encoding::Utf8 => Error::refused(
            "statement is not valid UTF-8",
            "Statements are routed by their text, which is read as UTF-8.",
            "SET client_encoding TO 'UTF8' and send the statement in UTF-8.",
        ),
        _ => foreign_text(),
    }
}

fn foreign_text() -> Error {
    Error::refused(
        "statement with characters beyond ASCII that can't be read in its client encoding",
        "Statements are routed by their text. In UTF8 and the single-byte encodings it can be read, in \
         others only what stands in string constants may go beyond ASCII.",
        "SET client_encoding TO 'UTF8'.",
    )
}

fn opaque(single: bool, error: impl FnOnce() -> Error) -> Result<Study> {
    if single {
        Ok(Study::Opaque)
    } else {
        Err(error())
    }
}

fn kept_on_one(target: Target, keeps: bool, unknown: bool) -> Result<Target> {
    match target {
        target if !keeps && !unknown => Ok(target),
        Target::Any if !unknown => Ok(Target::One(FIRST_SHARD)),
        Target::One(shard) if !unknown => Ok(Target::One(shard)),
        _ => Err(Error::refused(
            "statement leaves state on its server connection",
            "What set_config does for the session would be known on one shard only.",
            "SET shardwire.shard to the shard to keep, or use what ends with the transaction.",
        )),
    }
}

fn target_of(shards: ShardSet) -> Target {
    match shards.single() {
        Some(shard) => Target::One(shard),
        None => Target::Many(shards),
    }
}

/// The shards of an execution by a session that has a key, or none.
fn target_by_key(
    plan: &Plan,
    arguments: &Arguments<'_>,
    key: Option<&Vec<String>>,
) -> Result<Target> {
    let Some(key) = key else {
        return plan.target(arguments);
    };
    let mut arguments = arguments.clone();
    arguments.parameters.session_key = key;
    plan.target(&arguments)
}

/// Whether a statement calls `set_config`, which is of the transaction as much as SET is.
fn makes_settings(plan: &Plan) -> bool {
    let is_set = |call: &OwnCall| call.question == AskedOfProxy::SetConfig;
    plan.own.iter().any(is_set) || plan.session.contains(SessionUse::SET_CONFIG)
}

/// Whether a statement may ask for its transaction's time, which must be the same in all of them. Words
/// in literals and comments count too: that only costs a shard its transaction earlier.
fn may_ask_time(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["now", "current_", "localtime", "timestamp", "today"]
        .iter()
        .any(|word| text.contains(word))
}

pub(super) fn is_query(plan: &Plan) -> bool {
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

pub(super) fn effect_of(statement: &Statement) -> Effect {
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
