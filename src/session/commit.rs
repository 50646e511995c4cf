//! The commit of a transaction that several shards take part in: the rounds of [`crate::txn::commit`] over
//! the session's own connections.
//!
//! What holds:
//! - Nothing of it is seen by the client but its end: `COMMIT`, the error of a shard that would not (the
//!   transaction is rolled back everywhere then, as after a COMMIT that fails on PostgreSQL), `40001` if it
//!   was rolled back because a shard was lost, or `08007` with the transaction's name if that can't be known.
//! - The client hears of a commit only once every shard shows it, or can't be reached for [`PATIENCE`];
//!   recovery ends it there later.
//! - What PREPARE forbids (temporary objects, NOTIFY, cursors WITH HOLD) lives on one shard almost always:
//!   that one decides, and is not prepared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::backend::connection::Failed;
use crate::backend::report;
use crate::backend::settings::quote_literal;
use crate::error::{Error, Result};
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::outcome::{bereft, in_doubt, rolled_back};
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{ControlError, ReplicaSet};
use crate::txn::Transaction;
use crate::txn::barrier::KEY;
use crate::txn::commit::{Answer, Commit, Order, Outcome, Step, Work};
use crate::txn::gid::{Branch, Gid};
use crate::txn::recovery::{DOUBT, Decision, decide, finish};
use crate::wire::backend::error_response;
use crate::wire::buffer::message;
use crate::wire::frame;

/// How long a commit waits for a shard that it has lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// What may still fail comes before the decision: deferred constraints, and the wait for readers. Roles
/// must not matter to whoever ends what is prepared, and a decision must be on disk before others act on it.
const BEFORE: &str = "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE; \
     SELECT CASE WHEN pg_catalog.current_setting('synchronous_commit') = 'off' \
     THEN pg_catalog.set_config('synchronous_commit', 'local', true) END";

/// The deciding shard waits for the others' votes; if its proxy's machine is gone it must not wait for long.
const DECIDING: &str = "pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true)";

/// The command tag of an INSERT that met a row of the same key.
const NOT_INSERTED: &[u8] = b"INSERT 0 0\0";

/// Where temporary tables are and NOTIFY runs.
const FIRST_SHARD: ShardIndex = 0;

/// A participant of the commit.
struct Participant {
    shard: ShardIndex,
    /// Its connection, unless that is gone.
    held: Option<Held>,
    /// The name of what it prepares.
    name: String,
    /// What it said against the commit: an ErrorResponse.
    refusal: Option<Vec<u8>>,
    /// What it remarked: NoticeResponses.
    notices: Vec<u8>,
}

/// What all participants have in common.
struct Context<'a> {
    database: &'a Database,
    /// None with one writer.
    gid: Option<Gid>,
    /// Whether prepared transactions must be ended over another connection than its own.
    is_apart: bool,
    began: Instant,
}

impl Session {
    /// Commits the transaction on all its shards, beyond the client's sight. Every answer must have come.
    ///
    /// # Errors
    /// Why it is not committed, or why that is not known.
    pub(super) async fn commit_together(&mut self, chain: bool) -> Result<(), Stop> {
        self.foresee_one(&Effect::End).await?;
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        self.unit.make_final();
        let mut participants = self.participants();
        let pinned = participants.iter().filter(|one| one.is_pinned());
        let pinned: Vec<ShardIndex> = pinned.map(|one| one.shard).collect();
        let works: Vec<Work> = participants.iter().map(Participant::work).collect();
        let decider = self.decider(&participants);
        let mut commit = Commit::new(works.clone(), decider, self.may_be_serializable());
        let gid = self.name_participants(&mut participants, decider, commit.is_several());
        let settings = self.settings.server();
        let is_somebody = |name| settings.get(name).is_some();
        let database = Arc::clone(&self.database);
        let context = Context {
            database: &database,
            gid,
            is_apart: is_somebody("role") || is_somebody("session_authorization"),
            began: Instant::now(),
        };
        let outcome = self
            .run_commit(&mut commit, &mut participants, &context)
            .await;
        for participant in &participants {
            let notices = participant.notices.clone();
            self.say(notices);
        }
        let wrote = works.iter().zip(&participants);
        let wrote = wrote.filter(|(work, _)| **work == Work::Writes);
        let wrote: Vec<_> = wrote.map(|(_, participant)| participant.shard).collect();
        let failure = self.failure(outcome, &participants, context.gid.as_ref());
        self.note_end(outcome, &wrote, chain);
        let is_bereft = self.keep_participants(participants, outcome, &pinned);
        // Whoever hears of the commit finds that all know what it has defined.
        self.refresh_schema().await;
        match failure {
            Some(Stop::Statement(error)) if is_bereft => Err(Stop::Session(error.into_fatal())),
            None if is_bereft => Err(Stop::Session(bereft())),
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    /// Rolls the transaction back on all its shards, beyond the client's sight. Every answer must have
    /// come.
    pub(super) async fn roll_back_together(&mut self) {
        if self.transaction.is_on_shard() {
            let mut participants = self.participants();
            let pinned = participants.iter().filter(|one| one.is_pinned());
            let pinned: Vec<ShardIndex> = pinned.map(|one| one.shard).collect();
            join_all(participants.iter_mut().map(Participant::roll_back)).await;
            self.note_end(Outcome::RolledBack, &[], false);
            self.keep_participants(participants, Outcome::RolledBack, &pinned);
        } else {
            self.note_end(Outcome::RolledBack, &[], false);
        }
    }

    /// Takes the connections that take part in the transaction.
    fn participants(&mut self) -> Vec<Participant> {
        let undisturbed = self.registered.control.end();
        let mut all = self.others.take_joined();
        if let Some(mut held) = self.server.take() {
            held.is_lost |= !undisturbed;
            match self.takes_part(&held) {
                true => all.insert(0, held),
                false => self.keep(held),
            }
        }
        let participant = |held: Held| Participant {
            shard: held.shard,
            held: Some(held),
            name: String::new(),
            refusal: None,
            notices: Vec::new(),
        };
        all.into_iter().map(participant).collect()
    }

    /// Which participant decides: one that can't be prepared, if there is one.
    fn decider(&self, participants: &[Participant]) -> usize {
        let wrote = |participant: &Participant| participant.work() == Work::Writes;
        let keeps_state = |participant: &Participant| {
            let may_notify = self.memory.temporary_tables || self.client.mail.is_notifying();
            (participant.shard == FIRST_SHARD && may_notify)
                || (participant.is_pinned() && !self.is_session_pooled())
        };
        let position = |choice: &dyn Fn(&Participant) -> bool| participants.iter().position(choice);
        position(&|one| wrote(one) && keeps_state(one))
            .or_else(|| position(&wrote))
            .unwrap_or(0)
    }

    /// Names what the participants prepare; the transaction's name, if several have written.
    fn name_participants(
        &self,
        participants: &mut [Participant],
        decider: usize,
        is_several: bool,
    ) -> Option<Gid> {
        let deciding = participants.get(decider)?;
        let cluster = deciding.held.as_ref()?.seat.node.state().cluster.clone();
        let decider = self.database.shard_name(deciding.shard).to_owned();
        let gid = Gid::of_role(
            cluster.as_deref().unwrap_or(""),
            self.login_role(),
            rand::random(),
        );
        for participant in participants {
            let branch = Branch {
                gid: gid.clone(),
                participant: participant.shard,
                decider: decider.clone(),
            };
            participant.name = branch.to_string();
        }
        is_several.then_some(gid)
    }

    async fn run_commit(
        &mut self,
        commit: &mut Commit,
        participants: &mut [Participant],
        context: &Context<'_>,
    ) -> Outcome {
        let control = Arc::clone(&self.registered.control);
        for held in participants.iter().filter_map(|one| one.held.as_ref()) {
            control.begin(&held.lease);
        }
        control.set_committing(context.gid.as_ref().map(Gid::id));
        let mut is_first = true;
        let mut step = commit.start();
        loop {
            let orders = match step {
                Step::Round(orders) => orders,
                Step::End(outcome) => {
                    control.set_committing(None);
                    return outcome;
                }
            };
            let mut answers = give(participants, &orders, context).await;
            // What is decided can't be cancelled.
            if std::mem::take(&mut is_first) && !control.end() {
                for held in participants.iter_mut().filter_map(|one| one.held.as_mut()) {
                    held.is_lost = true;
                }
                cancel(participants, &orders, &mut answers);
            }
            step = commit.take(&answers);
        }
    }

    /// What to tell the client; nothing if the transaction is committed.
    fn failure(
        &self,
        outcome: Outcome,
        participants: &[Participant],
        gid: Option<&Gid>,
    ) -> Option<Stop> {
        let lost = participants.iter().find(|one| one.held.is_none());
        let lost = lost.map(|one| self.database.shard_name(one.shard));
        match outcome {
            Outcome::Committed => None,
            Outcome::RolledBack => {
                let refused = participants.iter().find_map(|one| one.refusal.clone());
                let code = refused
                    .as_deref()
                    .map(|words| report::read(frame::body(words)).code());
                let refused = code.and_then(|code| self.verdict(code)).or(refused);
                Some(refused.map_or_else(|| Stop::Statement(rolled_back(lost)), Stop::Words))
            }
            Outcome::Unknown => Some(Stop::Statement(in_doubt(lost, gid))),
        }
    }

    /// The transaction has ended for the session.
    fn note_end(&mut self, outcome: Outcome, wrote: &[ShardIndex], chain: bool) {
        let is_committed = outcome == Outcome::Committed;
        self.memory.cursors.end(is_committed);
        self.memory.may_have_drawn = false;
        self.statements.clear_portals();
        self.end_sequences(false);
        if self.memory.definitions.end() {
            self.database.note_change();
        }
        if is_committed {
            self.settings.commit();
        } else {
            self.settings.roll_back();
        }
        for shard in wrote {
            if let Some(wrote_at) = self.memory.wrote_at.get_mut(*shard) {
                *wrote_at = Some(Instant::now());
            }
        }
        self.others.is_implicit = false;
        self.others.opening.chain();
        self.transaction = match chain && is_committed {
            true => Transaction::Begun(self.others.opening.clone()),
            false => Transaction::Idle,
        };
    }

    /// Keeps the connections that hold state of the session's and gives the others back; true if one that
    /// held such state is gone.
    fn keep_participants(
        &mut self,
        participants: Vec<Participant>,
        outcome: Outcome,
        pinned: &[ShardIndex],
    ) -> bool {
        let mut is_bereft = false;
        for participant in participants {
            let Some(mut held) = participant.held else {
                is_bereft |= pinned.contains(&participant.shard);
                continue;
            };
            held.is_lost |= outcome != Outcome::Committed && held.is_reset;
            held.is_reset = false;
            // What a batch had set before it came to this shard is not undone there.
            let is_as_begun = *held.lease.settings == **self.settings.server();
            held.is_lost |= outcome != Outcome::Committed && !is_as_begun;
            held.work = Work::Reads;
            held.lease.unnamed = None;
            held.lease.settings = Arc::clone(self.settings.server());
            self.keep(held);
        }
        is_bereft
    }

    /// Whether a statement may write although another shard of its transaction has been written.
    ///
    /// # Errors
    /// `0A000` where the two could not be committed as one.
    pub(super) fn check_second_writer(&self, need: &Need) -> Result<()> {
        if self.transaction != Transaction::Open {
            return Ok(());
        }
        let at_work = self.server.as_ref().filter(|held| held.wrote());
        let Some(written) = at_work.map(|held| held.shard).or(self.others.writer()) else {
            return Ok(());
        };
        let here = self.server.as_ref().map(|held| held.shard);
        match need.shard.or(here) {
            Some(wanted) if wanted != written => self.check_writers(&[written, wanted]),
            _ => Ok(()),
        }
    }

    /// The role that this client has on the servers.
    fn login_role(&self) -> &str {
        match &self.client.principal {
            Some(principal) => &principal.role,
            None => &self.database.config.backend.user,
        }
    }

    /// Whether what a client with a role of its own has prepared on a shard could be ended if this proxy died.
    ///
    /// # Errors
    /// `0A000` if not.
    fn check_role(&self, set: &ReplicaSet) -> Result<()> {
        let Some(principal) = &self.client.principal else {
            return Ok(());
        };
        let roles = set.roles.load();
        if roles
            .as_ref()
            .is_some_and(|roles| roles.contains(&*principal.role))
        {
            return Ok(());
        }
        let (role, own) = (&principal.role, &self.database.config.backend.user);
        Err(Error::refused(
            format!("role \"{role}\" can't write on two shards in one transaction"),
            format!(
                "What it has prepared on shard {} could not be ended if this proxy died: \"{own}\" is no member of it.",
                set.name
            ),
            format!("GRANT \"{role}\" TO \"{own}\"."),
        ))
    }

    /// Whether these shards could commit as one.
    ///
    /// # Errors
    /// `0A000` if not.
    pub(super) fn check_writers(&self, shards: &[ShardIndex]) -> Result<()> {
        for shard in shards {
            let set = self.database.topology.shards().get(*shard);
            let Some((set, primary)) = set.and_then(|set| Some((set, set.primary()?))) else {
                continue;
            };
            self.check_role(set)?;
            let state = primary.state();
            let name = self.database.shard_name(*shard);
            if state.cluster.is_none() {
                return Err(Error::refused(
                    "a transaction can't write on two shards here",
                    format!(
                        "Shard {name} has no table shardwire.decisions, which two-phase commit needs."
                    ),
                    "Run shardwire check, which says what the proxy's role lacks.",
                ));
            }
            if state
                .facts
                .is_some_and(|facts| facts.max_prepared_transactions == 0)
            {
                return Err(Error::refused(
                    "a transaction can't write on two shards here",
                    format!("max_prepared_transactions is 0 on shard {name}."),
                    "Set it to at least max_connections on every server and restart them, or keep the \
                     writes of a transaction to rows of one shard key.",
                ));
            }
        }
        Ok(())
    }
}

/// The client has cancelled while the participants voted.
fn cancel(
    participants: &mut [Participant],
    orders: &[(usize, Order)],
    answers: &mut [(usize, Answer)],
) {
    let deciding = orders.iter().find(|(_, order)| *order == Order::Decide);
    let Some((decider, _)) = deciding else { return };
    for (_, answer) in answers.iter_mut().filter(|(of, _)| of == decider) {
        *answer = Answer::Lost;
    }
    if let Some(participant) = participants.get_mut(*decider) {
        let message = "canceling statement due to user request";
        let mut words = Vec::new();
        error_response(&mut words, &Error::new(SqlState::QUERY_CANCELED, message));
        participant.refusal.get_or_insert(words);
    }
}

/// Gives orders to all before any is waited for.
async fn give(
    participants: &mut [Participant],
    orders: &[(usize, Order)],
    context: &Context<'_>,
) -> Vec<(usize, Answer)> {
    let order_for = |at| orders.iter().find(|(of, _)| *of == at);
    let given = participants.iter_mut().enumerate();
    let given = given.filter_map(|(at, participant)| {
        let (_, order) = order_for(at)?;
        Some(async move { (at, participant.carry_out(*order, context).await) })
    });
    join_all(given).await
}

impl Participant {
    fn work(&self) -> Work {
        self.held.as_ref().map_or(Work::Reads, |held| held.work)
    }

    fn is_pinned(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_pinned)
    }

    async fn carry_out(&mut self, order: Order, context: &Context<'_>) -> Answer {
        let barrier = format!("{BEFORE}, pg_catalog.pg_advisory_xact_lock_shared({KEY})");
        match order {
            Order::Prepare => {
                let name = quote_literal(&self.name);
                let sql = format!("{barrier}; PREPARE TRANSACTION {name}");
                self.run(&sql, true).await
            }
            Order::Decide => {
                let fence = context.gid.as_ref().map_or(0, Gid::fence);
                let gid = context.gid.as_ref().map(Gid::to_string);
                let gid = quote_literal(&gid.unwrap_or_default());
                let sql = format!(
                    "SELECT pg_catalog.pg_advisory_xact_lock({fence}), {DECIDING}; {barrier}; INSERT INTO shardwire.decisions (gid, decision, decided_at) \
                     VALUES ({gid}, 'commit', pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING"
                );
                self.run(&sql, false).await
            }
            Order::Commit => self.run("COMMIT", true).await,
            Order::Rollback => self.roll_back().await,
            Order::CommitPrepared => self.finish(Decision::Commit, context).await,
            Order::RollbackPrepared => self.finish(Decision::Abort, context).await,
            Order::Ask => self.ask(context).await,
        }
    }

    /// Runs statements over the participant's connection. `ends`: they end its transaction, which may
    /// turn out to have failed.
    async fn run(&mut self, sql: &str, ends: bool) -> Answer {
        let Participant {
            held: Some(held),
            refusal,
            notices,
            ..
        } = self
        else {
            return Answer::Lost;
        };
        let mut is_undone = false;
        let mut note = |tag, body: &[u8]| match tag {
            b'N' => message(notices, tag, |out| out.extend_from_slice(body)),
            b'E' if refusal.is_none() && !report::is_fatal(body) => {
                let refusal = refusal.insert(Vec::new());
                message(refusal, tag, |out| out.extend_from_slice(body));
            }
            // Nothing was inserted: recovery was faster.
            b'C' => is_undone |= body.starts_with(b"ROLLBACK") && ends || body == NOT_INSERTED,
            _ => {}
        };
        let ran = held.lease.run_noting(sql, &mut note).await;
        match ran {
            Ok(()) if is_undone => Answer::Refused,
            Ok(()) => Answer::Done,
            Err(Failed::Refused(_)) => Answer::Refused,
            Err(Failed::Lost(_)) => self.lose(),
        }
    }

    /// Its connection is gone.
    fn lose(&mut self) -> Answer {
        if let Some(held) = self.held.take() {
            held.seat.node.mark_failed("a connection to it broke");
        }
        Answer::Lost
    }

    async fn roll_back(&mut self) -> Answer {
        let Some(held) = &mut self.held else {
            return Answer::Lost;
        };
        match held.lease.run("ROLLBACK").await {
            Ok(()) => Answer::Done,
            Err(_) => self.lose(),
        }
    }

    /// Ends what is prepared, over its own connection if that is left, else over another.
    async fn finish(&mut self, decision: Decision, context: &Context<'_>) -> Answer {
        let verb = match decision {
            Decision::Commit => "COMMIT",
            Decision::Abort => "ROLLBACK",
        };
        if let Some(held) = self.held.as_mut().filter(|_| !context.is_apart) {
            let sql = format!("{verb} PREPARED {}", quote_literal(&self.name));
            match held.lease.run(&sql).await {
                Ok(()) => return Answer::Done,
                // Recovery was faster.
                Err(Failed::Refused(error)) if error.code() == SqlState::UNDEFINED_OBJECT => {
                    return Answer::Done;
                }
                Err(Failed::Refused(_)) => {}
                Err(Failed::Lost(_)) => drop(self.lose()),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = async {
                let control = context.database.topology.control(self.shard).await?;
                finish(control.client(), &self.name, decision).await
            };
            match within(deadline, ended).await {
                Ok(()) => return Answer::Done,
                // What is rolled back is not to be seen anyway: recovery has time.
                Err(_) if decision == Decision::Abort => return Answer::Lost,
                Err(error) if Instant::now() >= deadline => {
                    tracing::warn!(name = self.name, %error, "a commit is left to recovery");
                    return Answer::Lost;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Whether the transaction is committed, after the answer to its COMMIT was lost.
    async fn ask(&self, context: &Context<'_>) -> Answer {
        let Some(gid) = &context.gid else {
            return Answer::Lost;
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = async {
                let control = context.database.topology.control(self.shard).await?;
                decide(control.client(), gid).await
            };
            match within(deadline, asked).await {
                Ok(Decision::Commit) => return Answer::Done,
                // Later the row might have been cleaned up.
                Ok(Decision::Abort) if context.began.elapsed() < DOUBT => return Answer::Refused,
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                _ => return Answer::Lost,
            }
        }
    }
}

async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let limited = tokio::time::timeout_at(deadline.into(), work);
    let late = |_| Err(ControlError::timed_out("asking a shard", PATIENCE));
    limited.await.unwrap_or_else(late)
}
