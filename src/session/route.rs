//! Which server connection works for the session, from lease to return.

use std::sync::Arc;

use crate::backend::connection::Failed;
use crate::backend::settings::Settings;
use crate::config::{Consistency, PoolMode, ReadPreference};
use crate::error::{Error, Result};
use crate::plan::Access;
use crate::pool::Lease;
use crate::session::activity::State;
use crate::session::draws::Draws;
use crate::session::held::{Held, Part, Seat};
use crate::session::lease::{lease_for, no_such_shard, unless_cancelled, unless_closed};
use crate::session::others::Woken;
use crate::session::refusal::{on_secondary, sequence_elsewhere};
use crate::session::replies::Expect;
use crate::session::settings::{ISOLATION, SessionSettings, shares_snapshot};
use crate::session::simple::aborted;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::topology::Server;
use crate::topology::{self, Role, Want};
use crate::txn::Transaction;
use crate::txn::commit::Work;
use crate::wire::backend::Status;
use crate::wire::frontend;

/// What a statement needs of a server connection.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The shard; none if any will do.
    pub shard: Option<ShardIndex>,
    /// Whether a secondary will do.
    pub access: Access,
    /// Whether it changes what others see, rather than only to lock.
    pub writes: bool,
    /// It asks what the session last drew from a sequence, which only the connection knows that it
    /// was drawn on.
    pub is_sticky: bool,
    /// It can run beside a transaction that no shard knows of yet.
    pub may_detach: bool,
}

impl Need {
    /// What the statement does once it is sent.
    pub fn work(&self) -> Work {
        match self.access {
            _ if self.writes => Work::Writes,
            Access::Write => Work::Locks,
            Access::Read => Work::Reads,
        }
    }
}

impl Session {
    /// Whether the client keeps its server connection as long as it stays.
    pub(super) fn is_session_pooled(&self) -> bool {
        self.database.config.pool.mode == PoolMode::Session
    }

    /// Whether the server connection may go back now.
    pub(super) fn may_let_go(&self) -> bool {
        !self.is_pinned()
            && !self.batch.is_sent()
            && !self.transaction.is_on_shard()
            && !self.client.is_mid_copy()
            && self.server.as_ref().is_some_and(|held| held.is_at_rest())
    }

    /// Whether the connection at work stays with the session.
    pub(super) fn is_pinned(&self) -> bool {
        self.is_session_pooled() || self.server.as_ref().is_some_and(|held| held.is_pinned)
    }

    /// Holds a connection that meets the need, and has it joined the client's transaction.
    ///
    /// # Errors
    /// `0A000` for a second shard in one transaction, and whatever keeps a server from serving.
    pub(super) async fn hold(&mut self, need: Need) -> Result<(), Stop> {
        self.find_seat(need).await?;
        self.claim().await
    }

    async fn find_seat(&mut self, need: Need) -> Result<(), Stop> {
        if self.transaction.is_broken() {
            // No shard is in it any more, and none may join.
            return Err(self.aborted().into());
        }
        if !need.may_detach && self.needs_snapshots() {
            self.open_snapshots().await?;
        }
        if need.is_sticky && self.transaction.is_on_shard() {
            return Err(sequence_elsewhere().into());
        }
        if need.access == Access::Write
            && self.transaction.is_on_shard()
            && self.server.as_ref().is_some_and(|held| !held.is_primary)
            && self.transaction != Transaction::Failed
        {
            return Err(on_secondary().into());
        }
        self.rest_pinned();
        if need.writes {
            self.check_second_writer(&need)?;
        }
        if self.server.is_some() {
            if self.suits(&need) {
                return self.reapply().await;
            }
            let before = self.transaction.status();
            self.drain().await?;
            if self.is_skipping() {
                // An error has ended the batch meanwhile, and this message with it.
                return Err(Stop::Skip);
            }
            self.check_unfailed(before)?;
            self.tell_others().await?;
            if self.may_leave_batch() {
                self.leave_batch().await?;
            }
            self.rest_pinned();
            if self.may_let_go() {
                self.let_go();
            } else if self.suits(&need) {
                return Ok(());
            } else if self.server.is_some() {
                self.upgrade_for(&need).await?;
                self.make_way(&need).await?;
            }
        }
        if !self.may_wake(need.shard) {
            self.resume();
            return Err(self.second_shard(&need).into());
        }
        match self.wake(need.shard) {
            Some(Woken::Joined) => Ok(()),
            Some(Woken::Apart) => self.prepare_held().await,
            None => {
                let taken = self.take_seat(&need).await;
                if taken.is_err() {
                    self.resume();
                }
                taken?;
                self.prepare_held().await
            }
        }
    }

    /// After what was under way has been answered: a statement that was to run in the client's
    /// transaction must not run when that has failed meanwhile.
    ///
    /// # Errors
    /// `25P02`.
    pub(super) fn check_unfailed(&self, before: Status) -> Result<()> {
        let is_failed = self.transaction.status() == Status::Failed;
        match is_failed && before != Status::Failed {
            true => Err(aborted()),
            false => Ok(()),
        }
    }

    /// Holds a connection that nobody holds yet.
    pub(super) async fn take_seat(&mut self, need: &Need) -> Result<()> {
        let is_detached = need.may_detach && self.may_detach();
        let is_aside = is_detached && !self.is_bare();
        let access = match need.access {
            _ if is_aside || self.is_session_pooled() => Access::Write,
            Access::Read if !is_detached && self.needs_primary() => Access::Write,
            access => access,
        };
        let shard = need.shard.unwrap_or_else(|| self.any_shard(access));
        let (mut lease, node) = match need.is_sticky {
            true => {
                self.pass_gate().await?;
                self.lease_last(shard)?
            }
            false => match self.waited(shard, access) {
                Some(waited) => waited?,
                None => self.lease(shard, access).await?,
            },
        };
        if access == Access::Write {
            self.note_draws(shard, &mut lease).await?;
        }
        self.registered.control.begin(&lease);
        self.registered.tally.assigned(lease.waited);
        self.server = Some(Held {
            is_primary: access == Access::Write
                || need.is_sticky
                || node.state().role == Some(Role::Primary),
            seat: Seat::take(node),
            lease,
            shard,
            replies: std::mem::take(&mut self.memory.replies),
            rest: 0,
            work: Work::Reads,
            part: match (is_detached, is_aside) {
                (false, _) => Part::Client,
                (true, false) => Part::Detached,
                (true, true) => Part::Aside,
            },
            is_reset: false,
            is_pinned: self.is_session_pooled() && !is_detached,
            is_lost: false,
            last_words: None,
        });
        Ok(())
    }

    /// Whether the transaction at hand, if there is one, must run on primaries: it may yet write.
    fn needs_primary(&self) -> bool {
        match &self.transaction {
            Transaction::Begun(opening) => !opening.is_read_only(),
            Transaction::Open => !self.others.opening.is_read_only(),
            _ => false,
        }
    }

    /// Whether the batch at hand can go on on another server: it is a transaction of its own that has
    /// only read, and under READ COMMITTED every statement of it has a snapshot of its own anyway.
    pub(super) fn may_leave_batch(&self) -> bool {
        self.batch.is_sent()
            && !self.batch.is_skipping()
            && !self.transaction.is_on_shard()
            && !self.is_pinned()
            && !self.has_snapshot_by_default()
            && self
                .server
                .as_ref()
                .is_some_and(|held| !held.wrote() && !held.replies.is_skipping())
    }

    /// Ends the part of a batch that was sent, out of the client's sight.
    pub(super) async fn leave_batch(&mut self) -> Result<(), Stop> {
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        frontend::write_sync(held.lease.socket.output.tail());
        held.replies.push(Expect::QuietSync);
        self.batch.note_left();
        self.drain().await?;
        if std::mem::take(&mut self.unit.has_settings) && self.transaction == Transaction::Idle {
            // They are the session's once the whole batch has ended well.
            self.batch.has_own_settings = true;
            self.settings.leave();
        }
        Ok(())
    }

    /// Whether the held connection meets the need.
    fn suits(&self, need: &Need) -> bool {
        let Some(held) = &self.server else {
            return false;
        };
        let is_bound = self.transaction.is_on_shard() || self.is_pinned();
        if need.is_sticky && !held.wrote() {
            return false;
        }
        if matches!(self.transaction, Transaction::Begun(_)) && !is_bound {
            // What is held serves something beside the transaction.
            return held.is_detached()
                && need.shard.is_none_or(|shard| shard == held.shard)
                && need.may_detach
                && self.may_detach()
                && held.is_aside() != self.is_bare();
        }
        need.shard.is_none_or(|shard| shard == held.shard)
            && (is_bound || held.is_primary || need.access == Access::Read)
    }

    /// Whether a statement may run beside the client's transaction, of which no shard knows yet.
    pub(super) fn may_detach(&self) -> bool {
        !self.database.is_single() && matches!(self.transaction, Transaction::Begun(_))
    }

    /// Whether the client's transaction, of which no shard knows yet, has one snapshot for all its
    /// statements, so that none may be read beside it.
    pub(super) fn has_own_snapshot(&self) -> bool {
        matches!(self.transaction, Transaction::Begun(_))
            && (self.has_snapshot_by_default() || !self.is_bare())
    }

    /// Whether the client or the servers have chosen a level with such a snapshot for all its transactions.
    pub(super) fn has_snapshot_by_default(&self) -> bool {
        let setting = self.settings.server().get(ISOLATION);
        setting.is_some_and(shares_snapshot)
    }

    /// Whether the client's transaction is nothing but a BEGIN so far.
    fn is_bare(&self) -> bool {
        matches!(&self.transaction, Transaction::Begun(opening) if opening.is_bare())
    }

    /// The shard for a statement that any shard can answer.
    pub(super) fn any_shard(&self, access: Access) -> ShardIndex {
        let count = self.database.config.shards.len().max(1);
        match (access, &self.memory.line) {
            (Access::Write, _) => 0,
            (Access::Read, Some(line)) => line.shard(),
            (Access::Read, None) => rand::random_range(0..count),
        }
    }

    pub(super) fn second_shard(&self, need: &Need) -> Error {
        let held = self.server.as_ref().map_or(0, |held| held.shard);
        let name = |shard| self.database.shard_name(shard);
        let wanted = need.shard.map_or("another", name);
        if self.is_pinned() && !self.transaction.is_on_shard() {
            return Error::refused(
                "a session that keeps its server connection can't use another shard",
                format!(
                    "The session has state on shard {} that can't be moved; the statement needs shard \
                     {wanted}.",
                    name(held)
                ),
                "Run DISCARD ALL first, or use another connection.",
            );
        }
        Error::refused(
            "this transaction can't use a second shard yet",
            format!(
                "The transaction is open on shard {}; the statement needs shard {wanted}.",
                name(held)
            ),
            "Commit first, use REPEATABLE READ, or keep the transaction to rows of one shard key.",
        )
    }

    /// Leases the connection that the session last wrote on, if nobody else has used it since.
    ///
    /// # Errors
    /// `0A000` if somebody has.
    fn lease_last(&self, shard: ShardIndex) -> Result<(Lease, Arc<Server>)> {
        let client = self.registered.control.process_id;
        let set = self
            .database
            .topology
            .shards()
            .get(shard)
            .ok_or_else(no_such_shard)?;
        let node = set.primary();
        let lease = node.and_then(|node| {
            let Some(Draws::On(process)) = self.memory.draws.get(shard) else {
                return None;
            };
            let pool = self.database.pool(shard, node.index)?;
            pool.at_generation(node.generation());
            pool.lease_last_of(client, *process)
                .map(|lease| (lease, Arc::clone(node)))
        });
        lease.ok_or_else(sequence_elsewhere)
    }

    /// The session may draw from sequences over this connection.
    async fn note_draws(&mut self, shard: ShardIndex, lease: &mut Lease) -> Result<()> {
        if self.may_draw(shard, lease) {
            return Ok(());
        }
        match lease.run("DISCARD SEQUENCES").await {
            Ok(()) => {
                if let Some(draws) = self.memory.draws.get_mut(shard) {
                    draws.write(lease.cancel_key.process_id, false);
                }
                Ok(())
            }
            Err(Failed::Refused(error)) => Err(error),
            Err(Failed::Lost(cause)) => Err(crate::backend::connection::lost(&cause)),
        }
    }

    /// Leases a connection to a shard, once operators let new transactions through.
    pub(super) async fn lease(
        &self,
        shard: ShardIndex,
        access: Access,
    ) -> Result<(Lease, Arc<Server>)> {
        let activity = &self.registered.control.activity;
        let principal = self.client.principal.as_ref();
        let stream = self.client.socket.stream();
        loop {
            unless_closed(stream, self.pass_gate()).await?;
            activity.set_state(State::Waiting);
            let want = self.want(shard, access);
            let leasing = lease_for(&self.database, shard, &want, principal);
            let leasing = unless_cancelled(&self.registered.control, leasing);
            let leased = unless_closed(stream, leasing).await;
            activity.set_state(State::Active);
            // Leased and then not used: whoever closed the gate waits for it to be given up.
            if leased.is_err() || !self.is_held_back() {
                return leased;
            }
        }
    }

    /// What to ask of the replica set.
    pub(super) fn want(&self, shard: ShardIndex, access: Access) -> Want {
        let context = self.settings.context();
        let config = &self.database.config;
        let consistency = context.consistency.unwrap_or(config.consistency);
        if access == Access::Write || consistency == Consistency::Strong {
            return Want::primary();
        }
        let preference = context.read_preference.unwrap_or(config.read_preference);
        if preference == ReadPreference::Primary {
            return Want::primary();
        }
        Want {
            access: topology::Access::Read,
            preference,
            max_staleness: context.max_staleness.unwrap_or(config.max_staleness),
            wrote_at: match consistency {
                Consistency::Session => self.memory.wrote_at.get(shard).copied().flatten(),
                _ => None,
            },
        }
    }

    /// Gives the connection the session's settings and opens the client's transaction on it.
    async fn prepare_held(&mut self) -> Result<(), Stop> {
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        // What a begun transaction has set is set inside it, so that a rollback takes it back.
        let settings = match &self.transaction {
            Transaction::Begun(_) | Transaction::Open => self.settings.server_at_begin(),
            _ => self.settings.server(),
        };
        match held.lease.apply(settings).await {
            Ok(()) => {}
            Err(Failed::Refused(error)) => {
                // The connection is in order, but not as this session wants it.
                self.give_back_as_it_is();
                return Err(Stop::Statement(error));
            }
            Err(Failed::Lost(cause)) => return Err(Stop::Lost(cause)),
        }
        let joins = self.transaction == Transaction::Open && !self.database.is_single();
        let opening = match &self.transaction {
            Transaction::Begun(opening) => opening,
            Transaction::Open if joins => &self.others.opening,
            _ => return Ok(()),
        };
        if held.is_detached() {
            // What the transaction has set so far must hold for the statement beside it too.
            let opened = match held.is_aside() {
                true => held.lease.run(&opening.sql()).await,
                false => Ok(()),
            };
            return opened.map_err(|failed| match failed {
                Failed::Refused(error) => Stop::Statement(error),
                Failed::Lost(cause) => Stop::Lost(cause),
            });
        }
        let sql = opening.sql();
        if opening.is_certain() {
            held.open(&sql);
            self.opened();
            return Ok(());
        }
        match held.lease.run(&sql).await {
            Ok(()) => {
                self.opened();
                Ok(())
            }
            Err(Failed::Refused(error)) => {
                // What state the server is in depends on where it failed: the connection is closed.
                self.drop_held();
                self.transaction.fail();
                self.others.drop_joined();
                Err(Stop::Statement(error))
            }
            Err(Failed::Lost(cause)) => Err(Stop::Lost(cause)),
        }
    }

    /// A shard has joined the client's transaction.
    pub(super) fn opened(&mut self) {
        let before = std::mem::replace(&mut self.transaction, Transaction::Open);
        if let Transaction::Begun(opening) = before {
            self.others.opened(opening);
            self.others.first = self.server.as_ref().map(|held| held.shard);
        }
    }

    /// Gives a connection back that has done nothing for the session.
    fn give_back_as_it_is(&mut self) {
        let undisturbed = self.registered.control.end();
        if let Some(held) = self.server.take()
            && undisturbed
            && held.is_at_rest()
        {
            held.lease.give_back();
        }
    }

    /// Gives the connection back, clean.
    pub(super) fn let_go(&mut self) {
        let Some(mut held) = self.server.take() else {
            return;
        };
        let undisturbed = self.registered.control.end();
        let learned = std::mem::take(&mut held.lease.learned);
        self.registered.tally.server_parsed(learned);
        let in_order =
            !held.is_lost && !held.is_aside() && held.is_at_rest() && held.seat.is_valid();
        if undisturbed && in_order {
            self.memory.replies = std::mem::take(&mut held.replies);
            held.lease.unnamed = None;
            // What ran beside the client's transaction has changed nothing.
            let is_changed = !Arc::ptr_eq(&held.lease.settings, self.settings.server());
            if is_changed && !held.is_reset && !held.is_detached() {
                held.lease.settings = Arc::clone(self.settings.server());
            }
            held.lease.last_client = self.registered.control.process_id;
            held.lease.give_back();
        }
    }

    /// Ends the transaction in which a statement ran beside the client's.
    async fn end_aside(&mut self) {
        if let Some(held) = &mut self.server
            && held.is_aside()
            && held.lease.run("ROLLBACK").await.is_ok()
        {
            held.part = Part::Detached;
        }
    }

    /// Closes the connection.
    pub(super) fn drop_held(&mut self) {
        self.registered.control.end();
        self.server = None;
    }

    /// Every request has its answer: gives the connection back if nothing keeps it, and reads the
    /// catalogue again after a definition has changed, before the client can go on.
    pub(super) async fn answered(&mut self) -> Result<(), Stop> {
        self.report_reset().await?;
        if self.may_let_go() {
            self.end_aside().await;
            self.let_go();
        }
        self.rest_pinned();
        self.tell_others().await?;
        self.refresh_schema().await;
        Ok(())
    }

    /// The client has left: cleans its connection up or closes it.
    pub(super) async fn end(mut self) {
        let is_open = self.transaction.is_on_shard();
        let clean = (is_open || self.transaction == Transaction::Idle)
            && !self.batch.is_sent()
            && !self.client.is_mid_copy()
            && self
                .server
                .as_ref()
                .is_some_and(|held| held.is_at_rest() && !held.is_lost);
        // Many clients read and leave without a word: what they began is ended as PostgreSQL does, and
        // the next client need not wait for a new connection.
        if clean
            && let Some(held) = &mut self.server
            && (!is_open || held.lease.run("ROLLBACK").await.is_ok())
            && held.lease.run("DISCARD ALL").await.is_ok()
        {
            held.lease.settings = Arc::new(Settings::default());
            held.lease.forget_statements();
            self.settings = SessionSettings::default();
            self.let_go();
        }
        self.drop_held();
        self.others.drop_joined();
        self.discard_others().await;
    }
}
