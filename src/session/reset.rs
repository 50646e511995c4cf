//! Settings after RESET ALL and DISCARD ALL: a server knows its own defaults, not those that the client
//! named at login.

use std::sync::Arc;

use crate::backend::connection::{Failed, parameter};
use crate::session::announce::plain_bind;
use crate::session::held::Held;
use crate::session::replies::Expect;
use crate::session::{Session, Stop};
use crate::txn::Transaction;
use crate::wire::backend::{Status, parameter_status};
use crate::wire::frame::body;
use crate::wire::frontend::{self, Subject};

/// Names the statement and the portal of a SET that stands among the client's own.
const SETTING: &[u8] = b"shardwire_setting";

impl Session {
    /// The server has its own defaults for every setting now, not the client's; after DISCARD ALL
    /// (`is_all`) for the identity too.
    pub(super) fn note_reset(&mut self, is_all: bool) {
        if let Some(held) = &mut self.server {
            held.lease.settings = Arc::new(held.lease.settings.identity(is_all));
            held.is_reset = true;
        }
    }

    /// Gives a connection that is still held its settings back after RESET ALL.
    pub(super) async fn reapply(&mut self) -> Result<(), Stop> {
        if !self.server.as_ref().is_some_and(|held| held.is_reset) {
            return Ok(());
        }
        self.drain().await?;
        match self.transaction {
            Transaction::Failed => Ok(()),
            Transaction::Idle if self.batch.is_sent() => {
                let statements = self.settings.all_revert_statements();
                if let Some(held) = &mut self.server {
                    held.is_reset = false;
                }
                self.run_in_batch(&statements).await
            }
            _ => self.give_back_settings().await,
        }
    }

    /// Runs statements without rows in the batch at hand, part of which the server has: a Query would commit that.
    /// Every answer must have come.
    pub(super) async fn run_in_batch(&mut self, statements: &[String]) -> Result<(), Stop> {
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        for sql in statements {
            let out = held.lease.socket.output.tail();
            frontend::write_parse(out, SETTING, sql.as_bytes(), &[]);
            frontend::write_bind(out, &plain_bind(SETTING, SETTING), SETTING);
            frontend::write_execute(out, SETTING, 0);
            frontend::write_subject(out, b'C', Subject::Portal, SETTING);
            frontend::write_subject(out, b'C', Subject::Statement, SETTING);
            for tag in *b"12C33" {
                held.replies.push(Expect::Quiet(tag));
            }
        }
        self.drain().await?;
        match self.is_skipping() {
            true => Err(Stop::Skip),
            false => Ok(()),
        }
    }

    /// Whether the next ReadyForQuery has to wait until the server has the client's settings again.
    pub(super) fn awaits_settings(&self, seen: Status) -> bool {
        let is_reset = |held: &Held| held.is_reset && !held.is_lost && held.replies.is_empty();
        seen != Status::Failed
            && self.settings.has_defaults()
            && self.server.as_ref().is_some_and(is_reset)
    }

    /// After RESET ALL or DISCARD ALL the server has its own defaults; the client's are those of its startup
    /// packet.
    pub(super) async fn report_reset(&mut self) -> Result<(), Stop> {
        let status = self.transaction.status();
        let is_at_rest = self.server.as_ref().is_some_and(Held::is_at_rest);
        if !is_at_rest || !self.awaits_settings(status) {
            return Ok(());
        }
        match self.give_back_settings().await {
            // Whoever uses the connection next must not find settings that nobody knows of.
            Err(Stop::Statement(_)) => Ok(()),
            done => done,
        }
    }

    /// Applies the client's settings; reports what is not as the client knows it.
    async fn give_back_settings(&mut self) -> Result<(), Stop> {
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        held.is_reset = false;
        let applied = held.lease.apply_reporting(self.settings.server()).await;
        let mut reports = std::mem::take(&mut self.client.mail.reports);
        match applied {
            Ok(said) => {
                let is_older = |(name, _): &(String, String)| {
                    !said.parameters.iter().any(|(newer, _)| newer == name)
                };
                reports.retain(is_older);
                reports.extend(said.parameters);
                for (name, value) in reports {
                    parameter_status(self.client.socket.output.tail(), &name, &value);
                }
                Ok(())
            }
            Err(Failed::Refused(error)) => {
                held.is_lost = true;
                Err(Stop::Statement(error))
            }
            Err(Failed::Lost(cause)) => Err(Stop::Lost(cause)),
        }
    }

    /// Keeps what a server reports of a setting that RESET ALL has given its default there, if the client has
    /// another; whether it does.
    pub(super) fn keeps_report(&mut self, frame: &[u8]) -> bool {
        let is_reset = self.server.as_ref().is_some_and(|held| held.is_reset);
        if !is_reset || frame.first() != Some(&b'S') {
            return false;
        }
        let Some((name, value)) = parameter(body(frame)) else {
            return false;
        };
        if !self.settings.has_default(&name.to_ascii_lowercase()) {
            return false;
        }
        self.client.mail.reports.push((name, value));
        true
    }
}
