//! The extended protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! Where a statement runs is known only when it is bound, so a Parse waits for that: it goes to the
//! server that the Bind chooses, under a name that all clients of the database share, or not at all if
//! that server has the statement already. A Parse that meets Sync, Flush or Describe before any Bind is
//! sent to any server that has the statement's tables, so that errors come when PostgreSQL sends them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::plan::{Access, Arguments, Parameters, Plan, Route, SessionUse, Target};
use crate::session::held::Held;
use crate::session::portals::Place;
use crate::session::prepared::{Needs, Portal, Prepared, server_name};
use crate::session::replies::{Effects, Expect};
use crate::session::rewrite::Rewritten;
use crate::session::scatter::ScatterPortal;
use crate::session::statements::may_end_broken;
use crate::session::study::{Study, effects, unplanned};
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{close_complete, command_complete, ready_for_query};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Parse, Subject};

/// Parses that wait for a server at most; then any server has to do.
const LARGEST_PENDING: usize = 64;

impl Session {
    /// Handles a message of the extended protocol.
    pub(super) async fn extended(&mut self, tag: u8, frame: &[u8]) -> Result<(), Stop> {
        self.batch.extended = true;
        self.unit.note(frame);
        let handled = self.message(tag, frame).await;
        match handled {
            Err(Stop::Statement(error)) if self.comes_behind_pending(&error) => {
                self.place_pending().await?;
                self.drain().await?;
                match self.is_skipping() {
                    true => Err(Stop::Skip),
                    false => Err(Stop::Statement(error)),
                }
            }
            handled => handled,
        }
    }

    async fn message(&mut self, tag: u8, frame: &[u8]) -> Result<(), Stop> {
        let body = frame::body(frame);
        match tag {
            b'P' => self.parse(body).await,
            b'B' => self.bind(frame).await,
            b'D' => self.describe(frame).await,
            b'E' => self.execute(frame).await,
            b'C' => {
                self.drop_scatter().await?;
                self.close(frame).await
            }
            b'H' => self.flush(frame).await,
            _ => self.sync(body).await,
        }
    }

    async fn parse(&mut self, body: &[u8]) -> Result<(), Stop> {
        let parse = Parse::read(body)?;
        self.registered.tally.parsed(parse.name);
        self.drop_scatter().await?;
        if self.batch.pending.len() >= LARGEST_PENDING {
            self.place_pending().await?;
        }
        self.claim_name(parse.name).await?;
        let types: Vec<u32> = parse.types().collect();
        let read = self.settings.context().encoding.read(parse.text);
        let mut study = self.study_anew(read.as_deref(), &types).await?;
        let expanded = self.expanded(read.as_deref().unwrap_or_default(), &study, &types)?;
        let (mut text, mut read, mut shifts) = (Cow::Borrowed(parse.text), read, None);
        let mut written = None;
        if let Some(expanded) = expanded {
            written = read.clone();
            text = Cow::Owned(self.encoded(&expanded.text)?.into_owned());
            read = read.map(|_| Cow::Owned(expanded.text));
            study = expanded.study;
            shifts = Some(expanded.shifts);
        }
        let study = match study {
            // PostgreSQL parses all of them before it refuses them, and may find an error first.
            Study::Many(_) if self.is_plain() => Study::Opaque,
            study => study,
        };
        let plan = plan_of(study)?;
        if self.transaction.is_broken() {
            let text = read.as_deref().unwrap_or_default();
            self.check_broken(&plan, text).await?;
        }
        let context = self.reading();
        let id = self.identify(!parse.name.is_empty(), &text, &types);
        self.settle_parse(id).await?;
        if let Some(shifts) = shifts {
            self.unit.rewritten = Some(Rewritten {
                statement: Some(id),
                shifts,
            });
        }
        let server_name = match parse.name {
            b"" => Box::default(),
            _ => server_name(id).into_bytes().into(),
        };
        self.check_known(&plan, id)?;
        let (text, original) = self.parsed_text(&text, &read, &plan)?;
        let prepared = Arc::new(Prepared {
            id,
            server_name,
            text,
            read: original,
            types: types.into(),
            literals: self.shape.literals.as_slice().into(),
            hint: self.hint_in(read.as_deref()),
            plan,
            context,
            made_at: SystemTime::now(),
            declared: None,
            needs: Needs::Nothing,
        });
        self.statements.put(parse.name, Arc::clone(&prepared));
        if let Some(written) = written {
            self.statements.note_written(parse.name, &written);
        }
        self.batch.pending.push((parse.name.into(), prepared));
        Ok(())
    }

    /// Before a statement is read that is to have this name.
    ///
    /// # Errors
    /// `42P05` if another has it.
    async fn claim_name(&mut self, name: &[u8]) -> Result<(), Stop> {
        if name.is_empty() {
            return Ok(());
        }
        if self.statements.get(name).is_some() {
            // What has that name may fail yet.
            self.place_pending().await?;
            self.drain().await?;
            if self.is_skipping() {
                return Err(Stop::Skip);
            }
        }
        self.check_new_name(name).map_err(Stop::from)
    }

    async fn bind(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let bind = Bind::read(frame::body(frame))?;
        self.registered.tally.bound(bind.statement);
        if self.is_of_server(bind.statement) {
            return self.bind_of_server(frame, bind.portal);
        }
        let mut prepared = self.prepared(bind.statement)?;
        let text = prepared.sql();
        self.drop_scatter().await?;
        let parameters = Parameters::new(&prepared.types, bind.formats, bind.values);
        let settings = self.settings_made(&prepared.plan, text, &parameters)?;
        let (mut planned, mut is_filled) = (None, false);
        if self.is_bound_locally(&prepared).await? {
            return self.bind_locally(&bind, prepared).await;
        }
        if self.transaction != Transaction::Failed {
            if let Some(portal) = self.bind_execute(&prepared, &bind).await? {
                self.check_free_portal(bind.portal, None)?;
                self.place_others(prepared.id).await?;
                self.batch.scatter = Some(portal);
                return Ok(());
            }
            let (derived, target) = self.bind_told(&prepared, &bind).await?;
            is_filled = derived.is_some();
            prepared = derived.unwrap_or(prepared);
            let measured = self.bind_measured(&prepared, &bind, target).await?;
            let text = prepared.sql();
            let written = (text, &*prepared.literals);
            let (target, rows) = self.explained(&prepared.plan, measured, written)?;
            self.batch.explanation = rows;
            let shard = match self.on_several(target, &prepared, &bind) {
                Ok(shard) => shard,
                Err(way) => return self.bind_scatter(&bind, prepared, way).await,
            };
            self.count_route(shard);
            let mut need = self.need(&prepared.plan, shard, text);
            // Who names a portal fetches from it later, when what stands beside a transaction has ended.
            need.may_detach &= bind.portal.is_empty();
            self.hold(need).await?;
            let place = self.server.as_ref().map(Place::on);
            self.check_free_portal(bind.portal, place)?;
            planned = shard.filter(|_| prepared.hint.is_none());
        } else {
            self.hold(self.need(&prepared.plan, None, text)).await?;
        }
        self.send_pending();
        let edited = match self.transaction {
            Transaction::Failed => None,
            _ => self.edited_statement(&prepared, &bind, planned).await?,
        };
        let bound = edited.as_ref().unwrap_or(&prepared);
        let is_edited = is_filled || edited.is_some();
        let renewed = self.announce_bound(bind.statement, bound, is_edited);
        let renewed = renewed.await?;
        let bound = renewed.as_ref().unwrap_or(bound);
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        held.bind(frame, &bind, bound, true);
        let place = Place::on(held);
        self.batch.sent = true;
        self.statements
            .put_portal(bind.portal, Portal::OnServer(prepared, settings, place));
        Ok(())
    }

    /// Whether a statement that is bound is for the proxy itself to execute.
    async fn is_bound_locally(&mut self, prepared: &Prepared) -> Result<bool, Stop> {
        let (plan, text) = (&prepared.plan, prepared.sql());
        if self.transaction.is_broken() && plan.statement == Statement::Empty {
            // It is parsed and described there, but not bound.
            return Err(self.aborted().into());
        }
        if self.transaction.is_broken() && may_end_broken(plan) {
            // Whether there is that savepoint is for its Execute to say.
            return Ok(true);
        }
        if self.transaction == Transaction::Failed {
            return Ok(false);
        }
        match self.local(plan, text).await {
            // That comes when it is executed.
            Err(error) if error.code() == SqlState::NO_ACTIVE_SQL_TRANSACTION => return Ok(true),
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(false),
            Ok(Some(_)) => {}
        }
        // What waits with it may fail.
        self.place_others(prepared.id).await?;
        Ok(self.local(plan, text).await?.is_some())
    }

    /// As [`Session::aim`], with what the statement asks of sequences that the proxy has drawn from, leaves to
    /// defaults, and asks of the time; the statement that stands for it, if another does.
    async fn bind_told(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
    ) -> Result<(Option<Arc<Prepared>>, Target), Stop> {
        self.begin_drawn();
        let written = (prepared.sql(), &prepared.plan);
        let parameters = Parameters::new(&prepared.types, bind.formats, bind.values);
        let types = &prepared.types;
        let told = self.with_drawn(written, parameters, types).await?;
        let (mut derived, mut target) = match told {
            Some(told) => self.bound_as(told, prepared, bind)?,
            None => {
                let mut derived = Arc::clone(prepared);
                let target = self.aim(&mut derived, bind)?;
                (derived, target)
            }
        };
        if target == Target::Fill {
            (derived, target) = self.bind_filled(&derived, bind).await?;
            self.memory.drawn.bind();
        }
        let written = (derived.sql(), &*derived.plan);
        let told = self.with_moment(written, &target, types).await?;
        if let Some(told) = told {
            (derived, target) = self.bound_as(told, &derived, bind)?;
        }
        let is_same = Arc::ptr_eq(&derived, prepared);
        Ok(((!is_same).then_some(derived), target))
    }

    /// Where a bound statement runs, or the one that stands for it.
    fn aim(&mut self, prepared: &mut Arc<Prepared>, bind: &Bind<'_>) -> Result<Target> {
        if let Some((derived, target)) = self.derive(prepared)? {
            *prepared = derived;
            return Ok(target);
        }
        let arguments = Arguments {
            text: prepared.sql(),
            literals: &prepared.literals,
            parameters: Parameters::new(&prepared.types, bind.formats, bind.values),
            encoding: self.settings.context().encoding,
        };
        self.target(&prepared.plan, &arguments, prepared.hint.as_deref())
    }

    /// Binds a statement that only the server knows.
    fn bind_of_server(&mut self, frame: &[u8], portal: &[u8]) -> Result<(), Stop> {
        self.unit.make_final();
        self.statements.remove_portal(portal);
        self.forward(frame, Expect::Bind);
        Ok(())
    }

    async fn execute(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let (name, max_rows) = frontend::execute(frame::body(frame))?;
        if self
            .batch
            .scatter
            .as_ref()
            .is_some_and(|scatter| *scatter.portal == *name)
        {
            return self.execute_scatter(max_rows).await;
        }
        self.drop_scatter().await?;
        match self.statements.portal(name) {
            Some(Portal::OnServer(..)) | None => {}
            Some(Portal::Local(_)) => self.place_pending().await?,
            Some(_) => {
                self.place_pending().await?;
                self.check_portal_alive().await?;
            }
        }
        match self.statements.portal(name).cloned() {
            Some(Portal::Local(portal)) => self.execute_locally(name, portal, max_rows).await,
            Some(Portal::Spread(portal)) => self.execute_spread(name, portal, max_rows).await,
            Some(Portal::Kept(portal)) => self.execute_kept(name, portal, max_rows).await,
            Some(Portal::Bound(portal)) => {
                *self.batch_scatter() = Some(ScatterPortal::clone(&portal));
                self.execute_scatter(max_rows).await
            }
            Some(Portal::Done(verb)) => self.execute_done(name, verb).await,
            Some(Portal::Partial) => Err(Error::refused(
                "this portal can't be executed any more",
                "It has given its first rows outside a transaction block, or what stood between its Bind and its \
                 Execute has ended its snapshot.",
                "Use a transaction block, and execute a portal before anything else.",
            )
            .into()),
            Some(Portal::OnServer(prepared, settings, place)) => {
                self.reach_portal(place).await?;
                self.execute_on_server(frame, &prepared, settings).await
            }
            None => {
                self.reach_cursor(name).await?;
                if !self.may_know_portal(name) {
                    return Err(no_portal(name).into());
                }
                self.unit.make_final();
                self.forward(frame, Expect::Execute(None));
                Ok(())
            }
        }
    }

    async fn execute_on_server(
        &mut self,
        frame: &[u8],
        prepared: &Prepared,
        settings: Effects,
    ) -> Result<(), Stop> {
        let is_write = prepared.plan.access == Access::Write;
        if is_write {
            self.unit.make_final();
        }
        let text = prepared.sql();
        if self.others.is_implicit
            && matches!(
                prepared.plan.statement,
                Statement::Declare { .. } | Statement::Lock
            )
        {
            // The batch may have become a transaction of several shards behind its Bind.
            self.local_implicit(&prepared.plan.statement, text)?;
        }
        self.check_free_cursor(&prepared.plan.statement)?;
        if self.before_end(&prepared.plan.statement).await? {
            let mut words = Vec::new();
            command_complete(&mut words, "COMMIT");
            self.say(words);
            return Ok(());
        }
        let effects = settings.or_else(|| effects(&prepared.plan, text));
        let effects = self.foresee(effects).await?;
        self.note_pins(&effects);
        self.note_temporary(&prepared.plan);
        let work = self.work(&prepared.plan);
        if let Some(held) = &mut self.server {
            held.note(work);
        }
        let rows = std::mem::take(&mut self.batch.explanation);
        if !rows.is_empty()
            && let Some(held) = &mut self.server
        {
            held.replies.push(Expect::Local(rows));
        }
        self.forward(frame, Expect::Execute(effects));
        Ok(())
    }

    async fn close(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let (subject, name) = frontend::subject(frame::body(frame), "CLOSE")?;
        let is_on_server = match subject {
            Subject::Statement => {
                self.place_pending().await?;
                if self.batch.is_sent() {
                    // Behind an error it closes nothing.
                    self.drain().await?;
                    if self.is_skipping() {
                        return Err(Stop::Skip);
                    }
                }
                self.statements.remove(name);
                false
            }
            Subject::Portal => self.close_portal(name).await?,
        };
        if is_on_server {
            self.forward(frame, Expect::Close { seen: true });
        } else {
            // The order of answers is that of requests, so Parses that wait are answered first.
            self.place_pending().await?;
            let mut words = Vec::new();
            close_complete(&mut words);
            self.say(words);
        }
        Ok(())
    }

    pub(super) fn forward(&mut self, frame: &[u8], expect: Expect) {
        self.send_pending();
        if let Some(held) = &mut self.server {
            held.send(frame, expect);
            self.batch.sent = true;
        }
    }

    async fn flush(&mut self, frame: &[u8]) -> Result<(), Stop> {
        frontend::empty(frame::body(frame))?;
        self.drop_scatter().await?;
        self.place_pending().await?;
        if self.batch.sent
            && let Some(held) = &mut self.server
        {
            held.lease.socket.output.push(frame);
        }
        Ok(())
    }

    /// Does what could wait for the batch's end at most.
    pub(super) async fn finish_batch(&mut self) -> Result<(), Stop> {
        self.drop_scatter().await?;
        self.place_pending().await
    }

    /// Ends what the batch was as a transaction on several shards.
    async fn end_batch(&mut self) -> Result<(), Stop> {
        let is_failed = self.is_skipping();
        match self.end_implicit(is_failed).await {
            Err(Stop::Statement(error)) => self.refuse(&error).await,
            Err(Stop::Words(words)) => self.fail_with(words).await,
            other => other,
        }
    }

    async fn sync(&mut self, body: &[u8]) -> Result<(), Stop> {
        if let Err(error) = frontend::empty(body) {
            // PostgreSQL is ready again at once: there is no other Sync to wait for.
            self.batch.extended = false;
            return Err(error.into());
        }
        if !self.is_skipping() {
            // The client waits for ReadyForQuery now, whatever becomes of what was left to do.
            match self.finish_batch().await {
                Ok(()) | Err(Stop::Skip) => {}
                Err(Stop::Statement(error)) => self.refuse(&error).await?,
                Err(other) => return Err(other),
            }
        }
        if self.others.is_implicit {
            self.end_batch().await?;
        }
        self.end_unsent();
        self.forget_unsent();
        let sent = self.batch.clear();
        // Portals end with an implicit transaction, and so do those that are under way.
        let may_begin = self
            .server
            .as_ref()
            .is_some_and(|held| held.replies.has_effects());
        if self.transaction == Transaction::Idle && !may_begin {
            self.statements.clear_portals();
        } else if self.server.as_ref().is_some_and(Held::is_detached) {
            self.statements.leave_unnamed_portal();
        }
        let status = self.transaction.status();
        match &mut self.server {
            Some(held) if sent || !held.is_at_rest() => held.sync(),
            _ => {
                if self.awaits_mail() {
                    self.before_ready().await?;
                }
                let mut words = Vec::new();
                ready_for_query(&mut words, status);
                self.say(words);
                self.unit.end();
            }
        }
        Ok(())
    }

    /// The batch ends, and with it its implicit transaction, if no server has a say in that.
    fn end_unsent(&mut self) {
        if self.batch.is_sent() || self.transaction != Transaction::Idle {
            return;
        }
        if self.batch.has_own_settings && !self.is_skipping() {
            self.settings.commit();
        }
    }

    pub(super) fn batch_scatter(&mut self) -> &mut Option<ScatterPortal> {
        &mut self.batch.scatter
    }
}

/// The plan of the one statement that a Parse may bring.
fn plan_of(study: Study) -> Result<Arc<Plan>> {
    Ok(match study {
        Study::One(plan) => plan,
        Study::Empty => unplanned(Statement::Empty, Route::Any, Access::Read),
        Study::Opaque => {
            // What it does to the session is not known; only a database of one shard comes here.
            let session = SessionUse::PINS;
            let plan = unplanned(Statement::Other, Route::Shard(0), Access::Write);
            Arc::new(Plan {
                session,
                ..Plan::clone(&plan)
            })
        }
        Study::Many(_) => {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Error::new(SqlState::SYNTAX_ERROR, message));
        }
    })
}

pub(super) fn no_portal(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(
        SqlState::INVALID_CURSOR_NAME,
        format!("portal \"{name}\" does not exist"),
    )
}
