//! Portals that servers know: which of the session's connections has each, and how it works again.
//!
//! What holds:
//! - A message about a portal goes to the connection that the portal was bound on, or is refused.
//! - A portal of the proxy's own runs once; its further Executes give the rows that are left.
//! - A cursor of DECLARE is a portal too. One on several shards has rows that no single Execute gives,
//!   so it is refused here; FETCH knows it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::Access;
use crate::session::held::Held;
use crate::session::local::Answer;
use crate::session::prepared::{LocalPortal, Portal, Prepared};
use crate::session::route::Need;
use crate::session::scatter::ScatterPortal;
use crate::session::simple::aborted;
use crate::session::{Session, Stop};
use crate::sharding::ShardIndex;
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{
    Status, bind_complete, command_complete, empty_query_response, no_data, portal_suspended,
};
use crate::wire::format::Formats;
use crate::wire::frame;
use crate::wire::frontend::Bind;

/// Where a portal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard.
    pub shard: ShardIndex,
    /// The server's process.
    process: i32,
}

impl Place {
    /// On this connection.
    pub fn on(held: &Held) -> Place {
        Place {
            shard: held.shard,
            process: held.lease.cancel_key.process_id,
        }
    }
}

impl Session {
    /// Has the connection work that a portal stands on.
    ///
    /// # Errors
    /// `0A000` if the session has left that connection, and the portal with it.
    pub(super) async fn reach_portal(&mut self, place: Place) -> Result<(), Stop> {
        let is_there = |session: &Session| session.server.as_ref().map(Place::on) == Some(place);
        if self.transaction == Transaction::Failed || is_there(self) {
            return Ok(());
        }
        if self.transaction.is_on_shard() {
            self.hold(on(place.shard)).await?;
            if is_there(self) {
                return Ok(());
            }
        }
        Err(left_behind().into())
    }

    /// Binds a statement that the proxy itself executes.
    pub(super) async fn bind_locally(
        &mut self,
        bind: &Bind<'_>,
        prepared: Arc<Prepared>,
    ) -> Result<(), Stop> {
        let may_have = matches!(prepared.plan.statement, Statement::Declare { .. });
        // Of a statement without a query, PostgreSQL counts the types that Parse came with.
        let wanted = prepared.types.len();
        if usize::from(bind.count) != wanted && !may_have {
            return Err(wrong_count(bind, wanted).into());
        }
        self.check_free_portal(bind.portal, None)?;
        let formats = Formats::new(bind.results);
        if !self.batch.sent {
            let before = self.transaction.status();
            self.drain().await?;
            self.check_unfailed(before)?;
        }
        let mut words = self.acknowledge_pending();
        bind_complete(&mut words);
        self.say(words);
        let portal = Portal::Local(LocalPortal {
            prepared,
            formats,
            left: None,
            is_done: false,
        });
        self.statements.put_portal(bind.portal, portal);
        Ok(())
    }

    /// Runs a portal of the proxy's own, or gives the next of its rows.
    ///
    /// # Errors
    /// As [`Session::perform`].
    pub(super) async fn execute_locally(
        &mut self,
        name: &[u8],
        mut portal: LocalPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        if self.batch.is_sent() {
            // It does nothing if what stands before it fails.
            self.drain().await?;
            if self.is_skipping() {
                return Err(Stop::Skip);
            }
        }
        if portal.prepared.plan.statement == Statement::Empty {
            let mut words = Vec::new();
            empty_query_response(&mut words);
            self.say(words);
            return Ok(());
        }
        if portal.is_done {
            self.check_portal_alive().await?;
            return Err(done(name).into());
        }
        let answer = match portal.left.take() {
            Some(left) => Answer::of_rows(&left),
            None => {
                // Unless it gives rows, or ends the transaction and itself.
                let is_done = true;
                let ran = LocalPortal {
                    is_done,
                    ..portal.clone()
                };
                self.statements.put_portal(name, Portal::Local(ran));
                self.perform_portal(&portal).await?
            }
        };
        let limit = usize::try_from(max_rows).ok().filter(|rows| *rows > 0);
        let (bytes, count) = frame::first_rows(&answer.rows, limit.unwrap_or(usize::MAX));
        let is_suspended = limit == Some(count);
        let (shown, left) = answer.rows.split_at_checked(bytes).unwrap_or_default();
        if answer.is_of_rows {
            portal.left = Some(left.into());
            self.statements.put_portal(name, Portal::Local(portal));
        }
        let mut words = shown.to_vec();
        match is_suspended {
            true => portal_suspended(&mut words),
            false => command_complete(&mut words, &answer.tag),
        }
        words.extend_from_slice(&answer.status);
        self.say(words);
        Ok(())
    }

    async fn perform_portal(&mut self, portal: &LocalPortal) -> Result<Answer, Stop> {
        let text = portal.prepared.sql();
        let Some(local) = self.local(&portal.prepared.plan, text).await? else {
            return Err(Error::refused(
                "the statement's meaning has changed since it was bound",
                "Another statement of the same batch has begun or ended the transaction.",
                "Send Sync between them.",
            )
            .into());
        };
        self.database.metrics.local.inc();
        self.perform(local, &portal.formats).await
    }

    /// Forgets a portal that the client closes; whether the server that works now is to close it.
    ///
    /// # Errors
    /// As for [`Session::reach_cursor`].
    pub(super) async fn close_portal(&mut self, name: &[u8]) -> Result<bool, Stop> {
        let portal = self.statements.portal(name).cloned();
        self.statements.remove_portal(name);
        match portal {
            Some(
                Portal::Local(..)
                | Portal::Spread(_)
                | Portal::Kept(_)
                | Portal::Bound(_)
                | Portal::Partial
                | Portal::Done(_),
            ) => Ok(false),
            // Where it was left behind it has ended.
            Some(Portal::OnServer(_, _, place)) => match self.reach_portal(place).await {
                Ok(()) => Ok(true),
                Err(Stop::Statement(_)) => Ok(false),
                Err(other) => Err(other),
            },
            None => {
                // A cursor is a portal too.
                let cursor = String::from_utf8_lossy(name).into_owned();
                let is_kept = self.memory.cursors.keeps(&cursor);
                if !is_kept {
                    self.reach_cursor(name).await?;
                }
                self.memory.cursors.close(Some(&cursor));
                Ok(!is_kept && self.may_know_portal(name))
            }
        }
    }

    /// Whether a portal of this name may be bound on this server, or by the proxy itself. Of a name that the server
    /// itself knows, that says so.
    ///
    /// # Errors
    /// `42P03`.
    pub(super) fn check_free_portal(&self, name: &[u8], place: Option<Place>) -> Result<()> {
        if name.is_empty() || self.transaction.status() == Status::Failed {
            return Ok(());
        }
        let is_taken = match self.statements.portal(name) {
            None => {
                let name = String::from_utf8_lossy(name).into_owned();
                let is_known = self.memory.cursors.is_known(&name);
                let shards = self
                    .memory
                    .cursors
                    .shards(&Statement::CloseCursor(Some(name)));
                let there = shards.and_then(|shards| shards.single());
                is_known && (there.is_none() || there != place.map(|place| place.shard))
            }
            Some(Portal::OnServer(_, _, there)) => place != Some(*there),
            Some(_) => true,
        };
        match is_taken {
            true => Err(taken(&String::from_utf8_lossy(name))),
            false => Ok(()),
        }
    }

    /// Whether a cursor may be declared under a name of which no single server knows.
    ///
    /// # Errors
    /// `42P03`.
    pub(super) fn check_free_cursor(&self, statement: &Statement) -> Result<()> {
        let Statement::Declare { name, hold, .. } = statement else {
            return Ok(());
        };
        let is_possible = *hold || self.transaction != Transaction::Idle;
        let portal = self.statements.portal(name.as_bytes());
        let is_taken = match self.database.is_single() {
            // Its server knows of all others.
            true => portal.is_some_and(|portal| !matches!(portal, Portal::OnServer(..))),
            false => self.memory.cursors.is_known(name) || portal.is_some(),
        };
        match is_taken && is_possible && self.transaction.status() != Status::Failed {
            true => Err(taken(name)),
            false => Ok(()),
        }
    }

    /// As [`Session::check_free_cursor`], of a bound DECLARE that runs now: its Bind and Describe went well.
    pub(super) fn check_declared(&mut self, portal: &ScatterPortal) -> Result<()> {
        let checked = self.check_free_cursor(&portal.prepared.plan.statement);
        if checked.is_err() && portal.is_described {
            let mut words = Vec::new();
            no_data(&mut words);
            self.say(words);
        }
        checked
    }

    /// Before a portal of the proxy's own goes on: what stands before it must have gone well.
    ///
    /// # Errors
    /// `25P02` in a transaction that has failed.
    pub(super) async fn check_portal_alive(&mut self) -> Result<(), Stop> {
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        match self.transaction.status() {
            Status::Failed => Err(aborted().into()),
            _ => Ok(()),
        }
    }

    /// Executes a portal that has run to its end.
    ///
    /// # Errors
    /// `55000` if it gives no rows.
    pub(super) async fn execute_done(
        &mut self,
        name: &[u8],
        verb: Option<&str>,
    ) -> Result<(), Stop> {
        let Some(verb) = verb else {
            return Err(done(name).into());
        };
        let tag = match verb {
            "EXPLAIN" => verb.to_owned(),
            verb => format!("{verb} 0"),
        };
        let mut words = Vec::new();
        command_complete(&mut words, &tag);
        self.say(words);
        Ok(())
    }

    /// Describes a portal that was bound on several shards before.
    pub(super) async fn describe_bound(&mut self, portal: &ScatterPortal) -> Result<(), Stop> {
        *self.batch_scatter() = Some(ScatterPortal {
            is_described: true,
            ..portal.clone()
        });
        self.drop_scatter().await
    }

    /// Whether the server at work may know of a portal of this name though the proxy does not. One without a name
    /// may be the proxy's own.
    pub(super) fn may_know_portal(&self, name: &[u8]) -> bool {
        let is_begun = matches!(self.transaction, Transaction::Begun(_));
        self.server.is_some() && !is_begun && (!name.is_empty() || self.is_pinned())
    }

    /// Has the connection work that has the cursor of this name, if there is one.
    ///
    /// # Errors
    /// `0A000` for a cursor on several shards.
    pub(super) async fn reach_cursor(&mut self, name: &[u8]) -> Result<(), Stop> {
        if self.transaction == Transaction::Failed {
            return Ok(());
        }
        let cursor = String::from_utf8_lossy(name).into_owned();
        if self.memory.cursors.keeps(&cursor) {
            return Err(spread().into());
        }
        let close = Statement::CloseCursor(Some(cursor));
        match self.memory.cursors.shards(&close) {
            None => Ok(()),
            Some(shards) => match shards.single() {
                Some(shard) => self.hold(on(shard)).await,
                None => Err(spread().into()),
            },
        }
    }
}

/// What it takes to go on with something that stands on this shard.
pub(super) fn on(shard: ShardIndex) -> Need {
    Need {
        shard: Some(shard),
        access: Access::Read,
        writes: false,
        is_sticky: false,
        may_detach: false,
    }
}

fn wrong_count(bind: &Bind<'_>, wanted: usize) -> Error {
    let statement = String::from_utf8_lossy(bind.statement);
    Error::new(
        SqlState::PROTOCOL_VIOLATION,
        format!(
            "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {wanted}",
            bind.count
        ),
    )
}

fn taken(name: &str) -> Error {
    Error::new(
        SqlState::DUPLICATE_CURSOR,
        format!("cursor \"{name}\" already exists"),
    )
}

/// PostgreSQL's words for a portal without rows that is executed again.
fn done(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("portal \"{name}\" cannot be run"),
    )
}

fn left_behind() -> Error {
    Error::refused(
        "a portal can't be used once its batch has gone on to another shard",
        "Statements of the batch ran on several shards, each a transaction of its own there.",
        "Execute a portal before the next one is bound, or use a transaction block.",
    )
}

fn spread() -> Error {
    Error::refused(
        "a cursor on several shards can't be used as a portal",
        "Its rows are those of one cursor on each shard.",
        "Use FETCH, MOVE and CLOSE.",
    )
}
