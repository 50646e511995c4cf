//! Statements over several shards: from the client's messages to the executor and back.

use std::borrow::BorrowMut;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::exec::scatter::{Ended, Failure, Scatter};
use crate::plan::{Access, Plan, SessionUse};
use crate::pool::Lease;
use crate::session::announce::needed;
use crate::session::control::{Signal, shutdown};
use crate::session::cursors::{CursorCall, is_about_cursor};
use crate::session::database::Database;
use crate::session::held::Held;
use crate::session::implicit::stays;
use crate::session::prepared::{Portal, Prepared};
use crate::session::refusal::second_shard;
use crate::session::replies::Expect;
use crate::session::route::Need;
use crate::session::stored;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::txn::commit::Work;
use crate::wire::backend::{Status, command_complete};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Subject};

pub(super) use crate::session::requests::{
    ScatterPortal, Way, changes_rows, describe_and_execute, portal_request, statement_and_bind, tag,
};

/// How long shards may take to stop after one has failed; then their connections are closed.
pub(super) const LARGEST_SETTLING: Duration = Duration::from_secs(5);

/// Connections, each with its shard's name.
pub(super) type Gathered = Vec<(String, Held)>;

/// Whether the shards of a statement take part in the client's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// They serve it beside the transaction, or there is none.
    Not,
    /// They do.
    Reading,
    /// They do, and the session keeps their connections: these must take writes.
    Keeping,
    /// They do, and rows are locked.
    Locking,
    /// They do, and are written.
    Writing,
}

/// What became of a statement on several shards.
#[derive(Debug, Default)]
pub struct Answered {
    /// Rows that went to the client.
    pub rows: u64,
    /// The sum of the numbers in the command tags.
    pub affected: u64,
    /// The number in the command tag of each.
    pub each: Vec<u64>,
    /// A shard has more rows than its Execute asked for.
    pub is_suspended: bool,
    /// Bytes of the rows of each.
    pub bytes: Vec<u64>,
    /// What each shard said of the rows.
    pub descriptions: Vec<Vec<u8>>,
    /// The command tag of the last shard.
    pub tag: String,
}

impl Session {
    /// Runs a simple Query over several shards.
    pub(super) async fn scatter_query(
        &mut self,
        text: &[u8],
        plan: &Plan,
        shards: ShardSet,
    ) -> Result<(), Stop> {
        self.rest_pinned();
        if matches!(plan.statement, Statement::Copy(_)) {
            return self.copy_query(text, plan, &shards).await;
        }
        if is_about_cursor(&plan.statement) {
            let call = CursorCall {
                statement: &plan.statement,
                text,
                bound: None,
                is_described: true,
            };
            let tag = self.call_cursor(call, &shards).await?;
            return self.end_query(&tag).await;
        }
        if let Some(define) = plan.define() {
            return Box::pin(self.define_query(text, plan, define)).await;
        }
        let joins = self.check_scatter(plan, &shards).await?;
        let is_explained = matches!(plan.statement, Statement::Explain(_));
        if let Some(merge) = plan.merge.as_ref().filter(|_| !is_explained) {
            let merged = self.merge_query(text, merge, (&shards, joins)).await;
            if self.is_for_hub(plan, joins, &merged) {
                let read = self.settings.context().encoding.read(text);
                let read = read.unwrap_or_default().into_owned();
                return self.combine_query(&read, plan).await;
            }
            return self.end_query(&format!("SELECT {}", merged?)).await;
        }
        let gathered = self.gather(&shards, joins, &[]).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", text, &[]);
            out.extend_from_slice(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0");
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, true, HIGH_WATER_BYTES).of_query();
        let scatter = scatter.changing(changes_rows(plan));
        let answered = match is_explained {
            false => self.drive(scatter).await?,
            true => {
                let literals = std::mem::take(&mut self.shape.literals);
                let read = self.settings.context().encoding.read(text);
                let read = read.unwrap_or_default().into_owned();
                let written = ((read.as_str(), literals.as_slice()), &shards);
                self.drive_shown(scatter, plan, written).await?
            }
        };
        self.end_query(&tag(plan, &answered)).await
    }

    /// Ends a Query that was answered over several shards, and what it was as a transaction.
    ///
    /// # Errors
    /// Why that could not be committed.
    pub(super) async fn end_query(&mut self, tag: &str) -> Result<(), Stop> {
        if !self.unit.is_script {
            self.end_implicit(false).await?;
        }
        let mut words = Vec::new();
        command_complete(&mut words, tag);
        self.finish_simple(words).await
    }

    /// Keeps a Bind over several shards until its Execute.
    pub(super) async fn bind_scatter(
        &mut self,
        bind: &Bind<'_>,
        prepared: Arc<Prepared>,
        (shards, way): (ShardSet, Way),
    ) -> Result<(), Stop> {
        self.check_free_portal(bind.portal, None)?;
        if !self.batch.is_sent() {
            // The end of an earlier batch takes its portals with it, and not this one.
            let before = self.transaction.status();
            self.drain().await?;
            self.check_unfailed(before)?;
        }
        self.place_others(prepared.id).await?;
        if stored::asks(&prepared.plan) {
            return Err(stored::of_several_shards().into());
        }
        let unnamed = Bind {
            portal: b"",
            ..*bind
        };
        let mut frame = Vec::new();
        frontend::write_bind(&mut frame, &unnamed, bind.statement);
        *self.batch_scatter() = Some(ScatterPortal {
            portal: bind.portal.into(),
            is_described: false,
            prepared,
            bind: frame.into(),
            shards,
            way,
            is_acknowledged: false,
        });
        Ok(())
    }

    /// Runs the kept portal.
    pub(super) async fn execute_scatter(&mut self, max_rows: i32) -> Result<(), Stop> {
        let Some(portal) = self.batch_scatter().take() else {
            return Ok(());
        };
        let name = portal.portal.clone();
        let verb = portal.verb(Database::lex_options(self.settings.context()));
        // Unless something is left of it.
        self.statements.put_portal(&name, Portal::Done(verb));
        self.owe_bind(&portal);
        self.run_portal(portal, max_rows).await
    }

    /// Runs a portal.
    pub(super) async fn run_portal(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        if matches!(portal.prepared.plan.statement, Statement::Copy(_)) {
            self.pay_owed();
        }
        if max_rows > 0 && self.is_kept_whole(&portal) {
            return self.execute_whole(portal, max_rows).await;
        }
        match &portal.way {
            Way::Scatter => {}
            Way::Feed => return Box::pin(self.execute_feed(portal, max_rows)).await,
            Way::Staged => return Box::pin(self.execute_staged(portal, max_rows)).await,
            Way::Combine if portal.prepared.plan.change().is_some() => {
                return self.execute_change(portal, max_rows).await;
            }
            Way::Combine => return self.execute_combined(portal, max_rows).await,
            Way::Rows(placed) => {
                let placed = placed.clone();
                return self.execute_insert(portal, placed, max_rows).await;
            }
        }
        if portal.prepared.plan.replicate().is_some() {
            return self.execute_replicated(&portal, max_rows).await;
        }
        if matches!(portal.prepared.plan.statement, Statement::Copy(_)) {
            return self.copy_portal(&portal).await;
        }
        if is_about_cursor(&portal.prepared.plan.statement) {
            return self.execute_cursor_call(&portal).await;
        }
        if let Some(define) = portal.prepared.plan.define() {
            return Box::pin(self.execute_define(&portal, define)).await;
        }
        self.note_temporary(&portal.prepared.plan);
        let plan = &portal.prepared.plan;
        let is_explained = matches!(plan.statement, Statement::Explain(_));
        let merge = plan.merge.as_ref().filter(|_| !is_explained);
        if max_rows > 0 && merge.is_none() && !is_explained {
            return self.execute_in_parts(portal, max_rows).await;
        }
        let plan = &portal.prepared.plan;
        let joins = self.check_scatter(plan, &portal.shards).await?;
        if let Some(merge) = merge {
            let merged = self.merge_portal(&portal, merge, (joins, max_rows)).await;
            if max_rows <= 0 && self.is_for_hub(plan, joins, &merged) {
                return self.execute_combined(portal, 0).await;
            }
            return merged;
        }
        let needed = needed(&portal.prepared);
        let gathered = self.gather(&portal.shards, joins, &needed).await?;
        self.acknowledge_bind();
        // It runs to its end at once: no portal of the client's name is left on the shards.
        let bind = Bind {
            portal: b"",
            ..Bind::read(frame::body(&portal.bind))?
        };
        let request = |lease: &mut Lease| portal_request(lease, &portal.prepared, &bind);
        let limit = self.high_water_bytes();
        let scatter = Scatter::start(gathered, request, portal.is_described, limit)
            .changing(changes_rows(plan))
            .expecting(self.expected(bind.statement));
        let prepared = &portal.prepared;
        let written = ((prepared.sql(), &*prepared.literals), &portal.shards);
        let answered = self.drive_shown(scatter, plan, written).await?;
        self.conclude(Vec::new(), &tag(&portal.prepared.plan, &answered));
        Ok(())
    }

    /// Ends the wait of a kept portal that is not executed: any shard answers its Bind and Describe.
    pub(super) async fn drop_scatter(&mut self) -> Result<(), Stop> {
        let Some(kept) = self.batch_scatter().take() else {
            return Ok(());
        };
        let shard = kept.shards.iter().next();
        self.hold(Need {
            shard,
            access: Access::Read,
            writes: false,
            is_sticky: false,
            may_detach: true,
        })
        .await?;
        self.send_pending();
        // A name that the client can't execute it by: that must run on all shards.
        let name = self.statements.next_portal();
        let bind = Bind {
            portal: name.as_bytes(),
            ..Bind::read(frame::body(&kept.bind))?
        };
        let mut frame = Vec::new();
        frontend::write_bind(&mut frame, &bind, bind.statement);
        if let Some(held) = &mut self.server {
            held.announce(&kept.prepared, None);
            held.bind(&frame, &bind, &kept.prepared, !kept.is_acknowledged);
            if kept.is_described {
                let out = held.lease.socket.output.tail();
                frontend::write_subject(out, b'D', Subject::Portal, name.as_bytes());
                held.replies.push(Expect::Describe);
            }
            self.batch.note_sent();
        }
        let name = kept.portal.clone();
        let bound = ScatterPortal {
            is_described: false,
            is_acknowledged: true,
            ..kept
        };
        self.statements
            .put_portal(&name, Portal::Bound(Arc::new(bound)));
        Ok(())
    }

    /// Whether a statement over several shards may run now, and whether its shards take part in the
    /// client's transaction. One that writes begins a transaction if there is none, which ends with the
    /// batch or message at hand.
    ///
    /// # Errors
    /// `0A000` if the transaction must stay on its shard, or the shards can't be written together.
    pub(super) async fn check_scatter(
        &mut self,
        plan: &Plan,
        shards: &ShardSet,
    ) -> Result<Joins, Stop> {
        let joins = self.check_several(plan, shards).await?;
        self.database.metrics.scatter.inc();
        Ok(joins)
    }

    /// As [`Session::check_scatter`], of a statement that is no scatter.
    pub(super) async fn check_several(
        &mut self,
        plan: &Plan,
        shards: &ShardSet,
    ) -> Result<Joins, Stop> {
        if plan.statement == Statement::Lock && self.transaction == Transaction::Idle {
            return Err(Stop::Statement(Error::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "LOCK TABLE can only be used in transaction blocks",
            )));
        }
        let writes = plan.access == Access::Write;
        if writes {
            self.statements.spoil_portals();
        }
        let locks = plan.session.contains(SessionUse::ONLY_LOCKS);
        if writes {
            let shards: Vec<ShardIndex> = shards.iter().collect();
            self.check_writers(&shards)?;
        }
        let before = self.transaction.status();
        self.drain().await?;
        self.check_unfailed(before)?;
        let shares_batch = self.batch.is_sent() && !self.may_leave_batch();
        let shares_snapshot = self.has_snapshot_by_default() && !self.is_confined();
        if writes || shares_batch || shares_snapshot {
            self.begin_implicit().await?;
        }
        if self.needs_snapshots() {
            self.open_snapshots().await?;
        }
        let joins = match &self.transaction {
            Transaction::Idle => Joins::Not,
            Transaction::Begun(_) if !writes && !self.has_own_snapshot() => Joins::Not,
            Transaction::Begun(opening) if self.may_be_joined(opening) => Joins::Reading,
            Transaction::Open
                if self.others.is_everywhere || self.may_be_joined(&self.others.opening) =>
            {
                Joins::Reading
            }
            _ => return Err(second_shard().into()),
        };
        Ok(match (writes, locks) {
            (true, true) => Joins::Locking,
            (true, false) => Joins::Writing,
            (false, _) => joins,
        })
    }

    /// Takes a connection to each shard, in the order of shards, so that two clients can't wait for
    /// each other's; their servers have the statements `needed`.
    pub(super) async fn gather(
        &mut self,
        shards: &ShardSet,
        joins: Joins,
        needed: &[Arc<Prepared>],
    ) -> Result<Gathered, Stop> {
        self.gather_by(shards, |_| joins, needed).await
    }

    /// As [`Session::gather`], where each shard may join in another way.
    pub(super) async fn gather_by(
        &mut self,
        shards: &ShardSet,
        joins: impl Fn(ShardIndex) -> Joins,
        needed: &[Arc<Prepared>],
    ) -> Result<Gathered, Stop> {
        let before = self.transaction.status();
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        self.check_unfailed(before)?;
        self.tell_others().await?;
        if self.batch.is_sent() {
            if !self.transaction.is_on_shard() && !self.may_leave_batch() {
                return Err(stays().into());
            }
            self.leave_batch().await?;
        }
        let mut gathered = Vec::new();
        for shard in shards.iter() {
            // Who has one connection must get the others, whatever operators say meanwhile.
            self.others.is_gathering = !gathered.is_empty();
            let outcome = self.gather_one(shard, joins(shard), needed).await;
            self.others.is_gathering = false;
            if let Err(stop) = outcome {
                self.keep_gathered(gathered);
                return Err(stop);
            }
            if let Some(held) = self.server.take() {
                let name = self.database.shard_name(shard).to_owned();
                gathered.push((name, held));
            }
        }
        Ok(gathered)
    }

    async fn gather_one(
        &mut self,
        shard: ShardIndex,
        joins: Joins,
        needed: &[Arc<Prepared>],
    ) -> Result<(), Stop> {
        self.hold(Need {
            shard: Some(shard),
            access: match joins {
                Joins::Writing | Joins::Locking | Joins::Keeping => Access::Write,
                Joins::Reading | Joins::Not => Access::Read,
            },
            writes: joins == Joins::Writing,
            is_sticky: false,
            may_detach: joins == Joins::Not,
        })
        .await?;
        if let Some(held) = &mut self.server {
            match joins {
                Joins::Writing => held.note(Work::Writes),
                Joins::Locking => held.note(Work::Locks),
                Joins::Not | Joins::Reading | Joins::Keeping => {}
            }
        }
        self.ensure_held(needed, &[]).await?;
        // The BEGIN that went ahead must be answered before the connection is another's to read.
        self.drain().await
    }

    /// Keeps connections that were gathered in vain.
    fn keep_gathered(&mut self, gathered: Gathered) {
        for (_, held) in gathered {
            self.keep(held);
        }
        self.resume();
    }

    /// Runs a scatter to its end.
    pub(super) async fn drive(&mut self, mut scatter: Scatter<Held>) -> Result<Answered, Stop> {
        let end = self.pump(&mut scatter).await;
        match end {
            Ok(Ok(rows)) => {
                let answered = self.after_scatter(scatter.end());
                Ok(Answered { rows, ..answered })
            }
            Ok(Err(_)) if scatter.is_mid_row() => Err(Stop::Gone),
            Ok(Err(failure)) => {
                match self.may_be_merged_by_hub(&failure) {
                    true => scatter.settle().await,
                    false => scatter.stop(LARGEST_SETTLING).await,
                }
                self.after_scatter(scatter.end());
                self.scatter_failed(failure)
            }
            Err(stop) => {
                scatter.stop(Duration::ZERO).await;
                // Behind a part of a row nothing can be said.
                Err(match scatter.is_mid_row() {
                    true => Stop::Gone,
                    false => stop,
                })
            }
        }
    }

    /// Moves the rows of a scatter to the client; fails if the client or its session has gone.
    pub(super) async fn pump<C: BorrowMut<Lease>>(
        &mut self,
        scatter: &mut Scatter<C>,
    ) -> Result<Result<u64, Failure>, Stop> {
        self.unit.make_final();
        if self.batch.execution.is_some() {
            scatter.answer_query();
        }
        let is_lent = self.lend_owed(scatter);
        let end = std::future::poll_fn(|cx| {
            loop {
                // Whoever is told to end has its shards cancelled behind that.
                if self.registered.control.poll_told(cx) == Signal::Terminate {
                    return Poll::Ready(Err(Stop::Session(shutdown())));
                }
                let polled = match &mut self.unit.captured {
                    Some(captured) => {
                        let polled = scatter.poll(cx, captured);
                        let is_dropped = self.unit.measured.is_some() && !captured.is_empty();
                        if is_dropped {
                            captured.consume(captured.len());
                        }
                        // Room again for rows that had to wait for it.
                        if is_dropped && polled.is_pending() {
                            continue;
                        }
                        polled
                    }
                    None => scatter.poll(cx, self.batch.output(&mut self.client.socket.output)),
                };
                if polled.is_ready() {
                    return polled.map(Ok);
                }
                if let Err(error) = self.check_captured() {
                    return Poll::Ready(Ok(Err(Failure::Own(error))));
                }
                let before = self.client.socket.output.len();
                match self.client.socket.poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                    // Room again for rows that had to wait for it.
                    _ if before >= HIGH_WATER_BYTES
                        && self.client.socket.output.len() < HIGH_WATER_BYTES => {}
                    _ => return Poll::Pending,
                }
            }
        })
        .await;
        let is_of_shard = matches!(end, Ok(Err(Failure::Shard(_))));
        self.note_owed(scatter, (is_lent, is_of_shard));
        if let Some(began) = self.unit.latest() {
            let is_done = self.transaction == Transaction::Idle;
            let tally = &mut self.registered.tally;
            tally.served(began, began.elapsed(), is_done);
        }
        end
    }

    /// Keeps the connections that take part in the transaction, gives the others back.
    pub(super) fn after_scatter(&mut self, ended: Vec<Ended<Held>>) -> Answered {
        let undisturbed = self.registered.control.end();
        let mut failed = None;
        let mut answered = Answered::default();
        // What one participant has done is gone with its connection, and so is the transaction.
        let is_broken = ended
            .iter()
            .any(|one| one.status.is_none() && self.takes_part(&one.connection));
        for one in ended {
            let Ended {
                connection: mut held,
                status,
                ..
            } = one;
            let sent = (one.affected, one.bytes, one.took);
            self.note_share(held.shard, sent);
            answered.affected += one.affected;
            answered.each.push(one.affected);
            answered.bytes.push(one.bytes);
            answered.is_suspended |= one.is_suspended;
            answered.descriptions.extend(one.description);
            answered.tag = one.tag;
            held.is_lost |= !undisturbed || !one.is_bound;
            match status {
                Some(Status::Failed) => failed = Some(held.shard),
                None => held.is_lost = true,
                Some(_) => {}
            }
            // In a transaction that nobody will end, it must not be another's.
            if !(is_broken && self.takes_part(&held)) {
                self.keep(held);
            }
        }
        if is_broken {
            self.transaction.fail();
        }
        if self.transaction.is_broken() {
            self.others.drop_joined();
        } else if let Some(shard) = failed.filter(|_| self.transaction.is_on_shard()) {
            self.transaction = Transaction::Failed;
            self.wake(Some(shard));
        }
        self.resume();
        answered
    }
}
