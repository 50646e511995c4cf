//! The connections that a session keeps while another one works for the client.
//!
//! A session works with one connection at a time (`Session::server`). Others *rest*: they take part in
//! the client's transaction on other shards, or they hold state of the session's that can't be moved
//! (temporary tables, session advisory locks, `WITH HOLD` cursors). A statement for a resting
//! connection's shard wakes it; the one that worked before rests in its place.
//!
//! What holds:
//! - The session has one connection to a shard at most, but for a statement that runs beside a
//!   transaction of which no shard knows yet.
//! - A resting connection owes no answer.
//! - Every participant of a transaction has been told of its savepoints and settings before the
//!   client's next statement is handled.
//! - Where one participant has written, the client's own COMMIT goes there, behind the end of those that
//!   have only read. Where two have written, or another holds locks, see [`crate::session::commit`].
//! - A transaction with one snapshot for all its statements is opened on every shard at one moment
//!   (REPEATABLE READ, see [`crate::session::snapshots`]), or stays on one shard (SERIALIZABLE).

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::join_all;

use crate::backend::connection::Failed;
use crate::error::{Error, Result};
use crate::session::activity::Link;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::txn::{Opening, Transaction};

/// The connections that rest, and what those that take part in a transaction must be told.
#[derive(Debug, Default)]
pub struct Others {
    pub(super) resting: Vec<Resting>,
    /// What a shard that joins the open transaction must be told first.
    pub opening: Opening,
    /// What the participants that rest have yet to be told.
    pub(super) untold: Vec<String>,
    /// They could not be told: none of them may run a statement any more.
    is_behind: bool,
    /// The transaction has failed, and they have undone what is lost with it.
    pub is_undone: bool,
    /// DISCARD ALL has run on the connection that works; those that rest need it too.
    is_discarded: bool,
    /// The transaction was opened on every shard at one moment.
    pub is_everywhere: bool,
    /// The transaction is one that the client has not begun: it ends with its batch or message.
    pub is_implicit: bool,
    /// What broke the transaction while the client had nothing to be told.
    pub broken_by: Option<Error>,
    /// The shard on which the transaction was opened first.
    pub first: Option<ShardIndex>,
    /// What `now()` gives there, in text, once that was asked.
    pub moment: Option<Box<[u8]>>,
    /// Some of the connections that a statement needs are there, and the next is being leased.
    pub is_gathering: bool,
}

/// A connection that rests.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) held: Held,
    /// It takes part in the client's transaction.
    pub(super) has_joined: bool,
}

/// How a resting connection came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It takes part in the client's transaction already.
    Joined,
    /// It only holds state of the session's.
    Apart,
}

impl Others {
    /// Whether no connection rests and none has to be told anything.
    pub fn is_idle(&self) -> bool {
        self.resting.is_empty()
            && self.untold.is_empty()
            && !self.is_behind
            && !self.is_discarded
            && !self.is_gathering
    }

    /// Whether any connection rests.
    pub fn is_empty(&self) -> bool {
        self.resting.is_empty()
    }

    /// Whether a connection that rests takes part in the client's transaction.
    pub fn has_joined(&self) -> bool {
        self.resting.iter().any(|one| one.has_joined)
    }

    /// The shards whose connections rest.
    pub fn shards(&self) -> impl Iterator<Item = ShardIndex> {
        self.resting.iter().map(|one| one.held.shard)
    }

    /// The connections that rest.
    pub fn links(&self) -> impl Iterator<Item = Link> {
        self.resting.iter().map(|one| {
            let lease = &one.held.lease;
            (Arc::clone(lease.pool()), lease.cancel_key.process_id)
        })
    }

    /// The shard of a participant that rests and has written.
    pub fn writer(&self) -> Option<ShardIndex> {
        let wrote = |one: &&Resting| one.has_joined && one.held.wrote();
        self.resting.iter().find(wrote).map(|one| one.held.shard)
    }

    /// Whether a connection to a shard rests that takes part in the client's transaction.
    fn has_on(&self, wanted: ShardIndex) -> bool {
        let mut resting = self.resting.iter();
        resting.any(|one| one.held.shard == wanted && one.has_joined)
    }

    /// The resting connection to a shard.
    pub fn on(&self, shard: ShardIndex) -> Option<&Held> {
        let found = self.resting.iter().find(|one| one.held.shard == shard);
        found.map(|one| &one.held)
    }

    fn take(&mut self, shard: ShardIndex) -> Option<Resting> {
        let at = self
            .resting
            .iter()
            .position(|one| one.held.shard == shard)?;
        Some(self.resting.swap_remove(at))
    }

    /// Takes the connections that rest and take part in the transaction.
    pub fn take_joined(&mut self) -> Vec<Held> {
        let resting = std::mem::take(&mut self.resting).into_iter();
        let (joined, apart): (Vec<_>, Vec<_>) = resting.partition(|one| one.has_joined);
        self.resting = apart;
        joined.into_iter().map(|one| one.held).collect()
    }

    /// Closes the participants: their servers roll back.
    pub fn drop_joined(&mut self) {
        self.resting.retain(|one| !one.has_joined);
        self.untold.clear();
    }

    /// A statement of an open transaction has completed on the shard that works: the other
    /// participants, and those that come later, must be told.
    pub fn note(&mut self, effect: &Effect, startup: Option<String>) {
        if effect.may_share_snapshot() {
            self.opening.seal();
        }
        let told = match effect {
            Effect::Savepoint(name) => {
                let sql = format!("SAVEPOINT {}", quoted(name));
                self.opening.savepoint(name, sql.clone()).map(|()| sql)
            }
            Effect::RollbackTo(name) => {
                self.is_undone = false;
                self.opening.roll_back_to(name);
                Ok(format!("ROLLBACK TO SAVEPOINT {}", quoted(name)))
            }
            Effect::Release(name) => {
                self.opening.release(name);
                Ok(format!("RELEASE SAVEPOINT {}", quoted(name)))
            }
            Effect::Set { .. } | Effect::Reset { .. } | Effect::Reverted(_) => {
                let sql = setting(effect, startup).ok_or_else(no_statement);
                sql.and_then(|sql| self.opening.set(sql.clone()).map(|()| sql))
            }
            Effect::Modes {
                statement,
                shares_snapshot,
            } => {
                let added = self.opening.modes(statement.clone(), *shares_snapshot);
                added.map(|()| statement.clone())
            }
            Effect::Constraints(statement) => {
                let added = self.opening.set(statement.clone());
                added.map(|()| statement.clone())
            }
            Effect::Several(all) => {
                for one in all {
                    self.note(one, None);
                }
                return;
            }
            Effect::ResetAll => {
                let sql = startup.ok_or_else(no_statement);
                sql.and_then(|sql| self.opening.set(sql.clone()).map(|()| sql))
            }
            _ => return,
        };
        match told {
            Ok(sql) if self.has_joined() => self.untold.push(sql),
            Ok(_) => {}
            Err(_) => self.seal(),
        }
    }

    /// Something happened that other shards can't be told.
    fn seal(&mut self) {
        self.opening.seal();
        self.is_behind = self.has_joined();
    }

    /// A transaction has been opened on its first shard.
    pub fn opened(&mut self, opening: Opening) {
        self.broken_by = None;
        self.opening = opening;
        self.is_behind = false;
        self.is_undone = false;
        self.is_everywhere = false;
        self.first = None;
        self.moment = None;
    }

    /// Whether participants rest that can undo what a transaction that has failed has done there.
    pub fn may_undo(&self) -> bool {
        !self.is_undone && !self.is_behind && self.untold.is_empty() && self.has_joined()
    }

    /// Whether something happened that resting connections must be told.
    pub fn has_news(&self) -> bool {
        self.is_discarded || !self.untold.is_empty()
    }
}

/// The statement that repeats a setting inside a transaction; none if it can't be told.
fn setting(effect: &Effect, startup: Option<String>) -> Option<String> {
    match effect {
        Effect::Set {
            local, statement, ..
        } => match (local, statement.strip_prefix("SET ")) {
            (true, Some(assignment)) => Some(format!("SET LOCAL {assignment}")),
            (true, None) => None,
            (false, _) => Some(statement.clone()),
        },
        Effect::Reset { local: true, name } => {
            Some(format!("SET LOCAL {} TO DEFAULT", quoted(name)))
        }
        Effect::Reset { name, .. } | Effect::Reverted(name) => {
            let reset = || format!("RESET {}", quoted(name));
            Some(startup.unwrap_or_else(reset))
        }
        _ => None,
    }
}

fn no_statement() -> Error {
    Error::new(SqlState::INTERNAL_ERROR, "a setting can't be repeated")
}

/// Quoted whatever it is: it may be a reserved word.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Session {
    /// Has the connections that owe nothing exchange OIDs as is known now.
    pub(super) fn learn_oids(&mut self) {
        let at_work = self.server.iter_mut().filter(|held| held.is_at_rest());
        let resting = self.others.resting.iter_mut().map(|one| &mut one.held);
        for held in at_work.chain(resting) {
            held.lease.learn_oids();
        }
    }

    /// The connection at work holds state of the session's from now on.
    pub(super) fn pin(&mut self) {
        if let Some(held) = &mut self.server {
            held.is_pinned = true;
        }
    }

    /// DISCARD ALL has completed on the connection at work.
    pub(super) fn unpin(&mut self) {
        let is_kept = self.is_session_pooled();
        if let Some(held) = &mut self.server {
            held.is_pinned = is_kept;
        }
        self.others.is_discarded = !self.others.is_empty();
    }

    /// Notes what a completed statement means for the transaction's other shards.
    pub(super) fn note_for_others(&mut self, effect: &Effect) {
        if !self.may_have_others() || !self.transaction.is_on_shard() {
            return;
        }
        let startup = match effect {
            Effect::Reset { name, .. } | Effect::Reverted(name) => {
                self.settings.revert_statement(name)
            }
            Effect::ResetAll => Some(self.settings.reset_all_sql()),
            _ => None,
        };
        self.others.note(effect, startup);
    }

    /// Whether connections may rest: with one shard there is only one that works.
    fn may_have_others(&self) -> bool {
        !self.database.is_single()
    }

    /// Whether the connection at work holds nothing but state of the session's, so that it can rest.
    pub(super) fn may_rest_pinned(&self) -> bool {
        self.may_have_others()
            && !self.transaction.is_on_shard()
            && !self.batch.is_sent()
            && !self.client.is_mid_copy()
            && self
                .server
                .as_ref()
                .is_some_and(|held| held.is_pinned && !held.is_detached() && held.is_at_rest())
    }

    /// Has the connection at work rest if it only holds state of the session's.
    pub(super) fn rest_pinned(&mut self) {
        if self.may_rest_pinned() {
            self.rest();
        }
    }

    pub(super) fn rest(&mut self) {
        let undisturbed = self.registered.control.end();
        if let Some(mut held) = self.server.take() {
            // A cancel request that is still under way may hit the session's own next statement, but
            // nobody else's.
            held.is_lost |= !undisturbed;
            if !self.takes_part(&held) && !std::mem::take(&mut held.is_reset) {
                held.lease.settings = Arc::clone(self.settings.server());
            }
            self.keep(held);
        }
    }

    /// Whether a connection takes part in the client's transaction.
    pub(super) fn takes_part(&self, held: &Held) -> bool {
        self.transaction.is_on_shard() && !held.is_detached()
    }

    /// Whether other shards may join a transaction that began like this.
    pub(super) fn may_be_joined(&self, opening: &Opening) -> bool {
        self.may_have_others() && opening.may_be_joined() && !self.has_snapshot_by_default()
    }

    /// Has a connection that owes no answer rest if the session has use for it, else gives it back.
    pub(super) fn keep(&mut self, held: Held) {
        let has_joined = self.takes_part(&held);
        if has_joined || held.is_pinned {
            self.others.resting.push(Resting { held, has_joined });
        } else {
            self.give_back(held);
        }
    }

    /// Gives a connection back whose settings are known; one that is not in order is closed.
    pub(super) fn give_back(&self, mut held: Held) {
        if !held.is_lost && held.seat.is_valid() {
            held.lease.last_client = self.registered.control.process_id;
            held.lease.give_back();
        }
    }

    /// Makes the connection at work rest, so that another shard can take part in the transaction.
    ///
    /// # Errors
    /// `0A000` if the transaction must stay where it is.
    pub(super) async fn make_way(&mut self, need: &Need) -> Result<(), Stop> {
        let takes_part = need.shard.is_some_and(|shard| self.others.has_on(shard));
        let may_be_joined = self.transaction == Transaction::Open
            && (takes_part || self.may_be_joined(&self.others.opening))
            && !self.client.is_mid_copy()
            && self
                .server
                .as_ref()
                .is_some_and(|held| held.is_at_rest() && !held.is_detached());
        if !may_be_joined {
            return Err(self.second_shard(need).into());
        }
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        self.rest();
        Ok(())
    }

    /// Whether a shard of the transaction that rests may run a statement: it knows all of the settings.
    pub(super) fn may_wake(&self, shard: Option<ShardIndex>) -> bool {
        !self.others.is_behind || !shard.is_some_and(|shard| self.others.has_on(shard))
    }

    /// Has the resting connection work that suits the need, if there is one.
    pub(super) fn wake(&mut self, shard: Option<ShardIndex>) -> Option<Woken> {
        let shard = shard.or_else(|| self.others.shards().next())?;
        let Resting { held, has_joined } = self.others.take(shard)?;
        self.registered.control.begin(&held.lease);
        self.server = Some(held);
        Some(match has_joined {
            true => Woken::Joined,
            false => Woken::Apart,
        })
    }

    /// After a shard could not join: a participant works again, so that the error fails it.
    pub(super) fn resume(&mut self) {
        let joined = self.others.resting.iter().find(|one| one.has_joined);
        if self.server.is_none()
            && let Some(shard) = joined.map(|one| one.held.shard)
        {
            self.wake(Some(shard));
        }
    }

    /// Tells the participants that rest what the one at work has been told, and has every resting
    /// connection forget what DISCARD ALL ends.
    ///
    /// # Errors
    /// The loss of a participant, which breaks the transaction.
    pub(super) async fn tell_others(&mut self) -> Result<(), Stop> {
        if std::mem::take(&mut self.others.is_discarded) {
            self.discard_others().await;
        }
        let untold = std::mem::take(&mut self.others.untold);
        if !untold.is_empty() {
            self.run_on_others(&untold.join(";\n")).await?;
        }
        self.undo_others().await
    }

    /// Has all participants that rest run statements.
    ///
    /// # Errors
    /// The loss of a participant, which breaks the transaction.
    pub(super) async fn run_on_others(&mut self, sql: &str) -> Result<(), Stop> {
        let joined = self.others.resting.iter_mut();
        let told = joined
            .filter(|one| one.has_joined)
            .map(|one| one.held.lease.run(sql));
        for result in join_all(told).await {
            if let Err(failed) = result {
                return Err(self.break_transaction(failed));
            }
        }
        Ok(())
    }

    /// A participant has failed out of the client's sight: nothing of the transaction can stand.
    pub(super) fn break_transaction(&mut self, failed: Failed) -> Stop {
        let error = match failed {
            Failed::Refused(error) => error,
            Failed::Lost(cause) => crate::backend::connection::lost(&cause),
        };
        self.others.drop_joined();
        if self.transaction.is_on_shard() {
            self.drop_held();
            self.batch.note_left();
            self.transaction.fail();
        }
        Stop::Statement(error)
    }

    /// Has every resting connection forget the session, and gives it back.
    pub(super) async fn discard_others(&mut self) {
        for one in std::mem::take(&mut self.others.resting) {
            let mut held = one.held;
            // What can't be cleaned is closed.
            if held.lease.run("DISCARD ALL").await.is_ok() {
                held.lease.settings = Arc::default();
                held.lease.forget_statements();
                self.give_back(held);
            }
        }
    }

    /// Reads what resting connections that hold state have to say; it can only be the end.
    ///
    /// # Errors
    /// `57P01` or the like: what kept the session on that connection is gone with it.
    pub(super) fn poll_others(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        for one in &mut self.others.resting {
            if !one.held.is_pinned {
                continue;
            }
            if let Poll::Ready(cause) = one.held.lease.poll_end(cx) {
                let node = &one.held.seat.node;
                return Err(Stop::Session(
                    Error::fatal(
                        SqlState::ADMIN_SHUTDOWN,
                        "terminating connection because its server connection was lost",
                    )
                    .detail(format!(
                        "Server {} of shard {} held state of the session and closed its connection: \
                         {cause}.",
                        node.address,
                        self.database.shard_name(one.held.shard)
                    )),
                ));
            }
        }
        Ok(())
    }
}

pub(super) fn several_shards(what: &str) -> Error {
    Error::refused(
        format!("{what} is not supported in a transaction on several shards"),
        "Each shard would have to be told by itself.",
        "Send COMMIT or ROLLBACK as a message of its own.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_repeated_as_they_were_made() {
        let set = |local| Effect::Set {
            local,
            name: "work_mem".into(),
            statement: "SET work_mem = '1MB'".into(),
            value: "'1MB'".into(),
        };
        assert_eq!(
            setting(&set(false), None).as_deref(),
            Some("SET work_mem = '1MB'")
        );
        assert_eq!(
            setting(&set(true), None).as_deref(),
            Some("SET LOCAL work_mem = '1MB'")
        );
        let reset = Effect::Reset {
            local: false,
            name: "work_mem".into(),
        };
        assert_eq!(setting(&reset, None).as_deref(), Some("RESET \"work_mem\""));
        let startup = Some("SET work_mem TO '2MB'".to_owned());
        assert_eq!(setting(&reset, startup.clone()), startup);
    }

    #[test]
    fn what_cannot_be_repeated_keeps_other_shards_out() {
        let mut others = Others {
            opening: Opening::plain("BEGIN"),
            ..Others::default()
        };
        others.note(&Effect::Savepoint("a".into()), None);
        assert!(others.opening.may_be_joined());
        others.note(&Effect::ResetAll, None);
        assert!(!others.opening.may_be_joined());
    }
}
