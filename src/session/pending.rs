//! Parses that wait for their Bind, which says where the statement runs.
//!
//! What holds:
//! - A Parse whose statement is bound goes to the server of that Bind, ahead of it.
//! - One that has not been bound when the batch comes to something else goes to any server that has its tables,
//!   so that its error, if it has one, is what the client gets, in its place. What the proxy itself says, errors
//!   too, comes behind that.

use crate::backend::connection::StatementId;
use crate::error::{Error, Result};
use crate::plan::{Access, Plan, Route, SessionUse};
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::wire::backend::{Status, parse_complete};

impl Session {
    /// ParseComplete for every Parse that waits: their errors come with their Bind.
    pub(super) fn acknowledge_pending(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        for _ in 0..self.batch.drop_pending() {
            parse_complete(&mut words);
        }
        words
    }

    /// Sends the Parses that wait to the server that is held.
    pub(super) fn send_pending(&mut self) {
        if self.server.is_none() {
            return;
        }
        for (name, prepared) in std::mem::take(&mut self.batch.pending) {
            if self.is_own_statement(&prepared.plan) {
                let mut words = Vec::new();
                parse_complete(&mut words);
                self.say(words);
            } else if let Some(held) = &mut self.server {
                held.announce(&prepared, Some(&name));
                self.batch.sent = true;
            }
        }
    }

    /// Sends the Parses that wait to any server that has their tables.
    pub(super) async fn place_pending(&mut self) -> Result<(), Stop> {
        let is_broken = self.transaction.is_broken();
        for at in 0..self.batch.pending.len() {
            let waiting = self.batch.pending.get(at).cloned();
            let Some((name, prepared)) = waiting else {
                break;
            };
            if is_broken {
                let checked = self.check_broken(&prepared.plan, prepared.sql()).await;
                if let Err(error) = checked {
                    self.statements.reject(&name, prepared.id);
                    self.batch.pending.truncate(at);
                    return Err(error.into());
                }
                continue;
            }
            if !self.is_local(&prepared.plan, prepared.sql()).await? {
                self.hold(self.need_to_prepare(&prepared.plan)).await?;
                self.send_pending();
                return Ok(());
            }
        }
        if !self.batch.pending.is_empty() {
            let words = self.acknowledge_pending();
            self.say(words);
        }
        Ok(())
    }

    /// Sends the Parses that wait, if one is of another statement than this, which no single server answers.
    pub(super) async fn place_others(&mut self, id: StatementId) -> Result<(), Stop> {
        let mut waiting = self.batch.pending.iter();
        match waiting.any(|(_, prepared)| prepared.id != id) {
            true => self.place_pending().await,
            false => Ok(()),
        }
    }

    /// Whether the proxy would answer a statement itself, were it executed now.
    ///
    /// # Errors
    /// Why not, for a statement that no server knows either.
    pub(super) async fn is_local(&mut self, plan: &Plan, text: &str) -> Result<bool> {
        match self.local(plan, text).await {
            Ok(local) => Ok(local.is_some()),
            Err(error) if self.is_own_statement(plan) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// What preparing or describing a statement needs: its tables, not its rows.
    pub(super) fn need_to_prepare(&self, plan: &Plan) -> Need {
        let shard = match &plan.route {
            Route::Shard(shard) => Some(*shard),
            _ if self.is_unplaced() => Some(0),
            _ if plan.combine().is_some() => self.described_by(plan).single(),
            _ if plan.change().is_some() => self.changed_by(plan).iter().next(),
            _ => {
                let cursors = self.memory.cursors.shards(&plan.statement);
                cursors.and_then(|shards| shards.iter().next())
            }
        };
        let hinted = self.settings.context().shard.as_deref();
        let shard = hinted
            .and_then(|name| self.database.shard_named(name))
            .or(shard);
        let keeps = plan.session.contains(SessionUse::TEMPORARY_TABLES);
        let access = if keeps { Access::Write } else { plan.access };
        Need {
            shard,
            access,
            writes: false,
            is_sticky: false,
            may_detach: true,
        }
    }

    /// Whether an error of the proxy's own about a message is one that PostgreSQL would not have come to, if it
    /// found fault with a Parse before it that no server has seen yet.
    pub(super) fn comes_behind_pending(&self, error: &Error) -> bool {
        let code = error.code();
        let class = code.as_str().get(..2);
        !self.batch.pending.is_empty()
            && matches!(class, Some("0A" | "22" | "23" | "26" | "34" | "42"))
            && self.transaction.status() != Status::Failed
    }
}
