//! Describe: what a statement or a portal takes and gives, from whoever knows it.

use crate::error::Result;
use crate::exec::description;
use crate::session::extended::no_portal;
use crate::session::portals::on;
use crate::session::prepared::{LocalPortal, Portal, Prepared};
use crate::session::replies::Expect;
use crate::session::statements::may_end_broken;
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::wire::backend::{Status, no_data};
use crate::wire::buffer::message;
use crate::wire::format::Formats;
use crate::wire::frame;
use crate::wire::frontend::{self, Subject};

/// ParameterDescription without parameters.
const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";

impl Session {
    /// Handles Describe.
    pub(super) async fn describe(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let (subject, name) = frontend::subject(frame::body(frame), "DESCRIBE")?;
        match subject {
            Subject::Portal => self.describe_portal(frame, name).await,
            Subject::Statement if self.is_of_server(name) => {
                self.forward(frame, Expect::Describe);
                Ok(())
            }
            Subject::Statement => self.describe_statement(name).await,
        }
    }

    async fn describe_portal(&mut self, frame: &[u8], name: &[u8]) -> Result<(), Stop> {
        if let Some(scatter) = &mut self.batch.scatter
            && *scatter.portal == *name
            && !std::mem::replace(&mut scatter.is_described, true)
        {
            return Ok(());
        }
        self.drop_scatter().await?;
        if !matches!(
            self.statements.portal(name),
            Some(Portal::OnServer(..)) | None
        ) {
            self.place_pending().await?;
        }
        match self.statements.portal(name).cloned() {
            Some(Portal::Local(portal)) => {
                let LocalPortal {
                    prepared, formats, ..
                } = &portal;
                let words = self.describe_local(prepared, formats).await?;
                self.say(words);
            }
            Some(Portal::Bound(portal)) => self.describe_bound(&portal).await?,
            Some(Portal::Done(None)) => {
                let mut words = Vec::new();
                no_data(&mut words);
                self.say(words);
            }
            Some(Portal::Spread(portal)) => self.describe_spread(&portal).await?,
            Some(Portal::Kept(portal)) => self.describe_kept(&portal).await?,
            Some(Portal::OnServer(_, _, place)) => {
                self.reach_portal(place).await?;
                self.forward(frame, Expect::Describe);
            }
            _ if self.describe_cursor(frame, name).await? => {}
            _ => {
                self.reach_cursor(name).await?;
                if !self.may_know_portal(name) {
                    return Err(no_portal(name).into());
                }
                self.forward(frame, Expect::Describe);
            }
        }
        Ok(())
    }

    /// Describes a cursor as the portal that it is, where it is the proxy's or on several shards: each shard says
    /// the same of its part. Whether it is such a cursor.
    async fn describe_cursor(&mut self, frame: &[u8], name: &[u8]) -> Result<bool, Stop> {
        if self.transaction.status() == Status::Failed {
            return Ok(false);
        }
        let cursor = String::from_utf8_lossy(name).into_owned();
        if self.memory.cursors.keeps(&cursor) {
            self.place_pending().await?;
            let rows = self.memory.cursors.rows(&cursor);
            let body = rows.and_then(|rows| description::as_text(frame::body(&rows.description)));
            let mut words = Vec::new();
            // Of a BINARY cursor, too: only FETCH makes its rows binary.
            message(&mut words, b'T', |out| out.extend(body.unwrap_or_default()));
            self.say(words);
            return Ok(true);
        }
        let named = Statement::CloseCursor(Some(cursor));
        let Some(shards) = self.memory.cursors.shards(&named) else {
            return Ok(false);
        };
        match (shards.single(), shards.iter().next()) {
            (None, Some(first)) => {
                self.hold(on(first)).await?;
                self.forward(frame, Expect::Describe);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn describe_statement(&mut self, name: &[u8]) -> Result<(), Stop> {
        self.drop_scatter().await?;
        let prepared = self.prepared(name)?;
        let text = prepared.sql();
        let ends_broken = self.transaction.is_broken() && may_end_broken(&prepared.plan);
        if ends_broken || self.is_local(&prepared.plan, text).await? {
            self.place_others(prepared.id).await?;
            let mut words = self.acknowledge_pending();
            words.extend_from_slice(NO_PARAMETERS);
            let formats = Formats::default();
            words.extend_from_slice(&self.describe_local(&prepared, &formats).await?);
            self.say(words);
            return Ok(());
        }
        let derived = self.derive(&prepared).ok().flatten();
        let prepared = derived.map_or(prepared, |(derived, _)| derived);
        self.hold(self.need_to_prepare(&prepared.plan)).await?;
        self.send_pending();
        let prepared = self.described_as(name, prepared);
        let has_parameters = self.has_parameters();
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        held.announce(&prepared, None);
        let out = held.lease.socket.output.tail();
        frontend::write_subject(out, b'D', Subject::Statement, &prepared.server_name);
        held.replies.push(match has_parameters {
            true => Expect::DescribeColumns(name.into()),
            false => Expect::DescribeStatement(name.into()),
        });
        self.batch.sent = true;
        Ok(())
    }

    async fn describe_local(
        &mut self,
        prepared: &Prepared,
        formats: &Formats,
    ) -> Result<Vec<u8>, Stop> {
        let text = prepared.sql();
        let mut words = match self.transaction.is_broken() {
            true => Vec::new(),
            false => match self.description(&prepared.plan, text, formats).await {
                Err(error) if error.code() == SqlState::NO_ACTIVE_SQL_TRANSACTION => Vec::new(),
                words => words?,
            },
        };
        if words.is_empty() {
            no_data(&mut words);
        }
        Ok(words)
    }
}
