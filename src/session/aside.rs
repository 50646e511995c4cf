//! Settings that a transaction makes before any shard knows of it: a server says what becomes of them.

use std::sync::Arc;

use crate::backend::connection::{Failed, lost};
use crate::plan::Access;
use crate::session::{Session, Stop};
use crate::sql::literal::quote_identifier;
use crate::txn::Transaction;
use crate::wire::backend::parameter_status;

/// What takes settings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone<'a> {
    /// COMMIT takes those of SET LOCAL back.
    Local,
    /// ROLLBACK takes all back.
    All,
    /// ROLLBACK TO takes back those made since this savepoint.
    Since(&'a str),
}

impl Undone<'_> {
    /// What the end of a transaction takes back.
    pub fn by_end(is_committed: bool) -> Undone<'static> {
        match is_committed {
            true => Undone::Local,
            false => Undone::All,
        }
    }

    fn sql(self) -> String {
        match self {
            Undone::Local => "COMMIT".to_owned(),
            Undone::All => "ROLLBACK".to_owned(),
            Undone::Since(name) => format!("ROLLBACK TO {}", quote_identifier(name)),
        }
    }
}

/// ParameterStatus messages.
fn words_of(reported: &[(String, String)]) -> Vec<u8> {
    let mut words = Vec::new();
    for (name, value) in reported {
        parameter_status(&mut words, name, value);
    }
    words
}

impl Session {
    /// Has a server check a SET that waits for a shard; returns what it reports of it.
    pub(super) async fn try_aside(&mut self, statement: &str) -> Result<Vec<u8>, Stop> {
        let Transaction::Begun(opening) = &self.transaction else {
            return Ok(Vec::new());
        };
        let opening = opening.sql();
        let (mut lease, _) = self.lease(0, Access::Write).await?;
        let mut reported = Vec::new();
        let mut tried = lease.apply(self.settings.server_at_begin()).await;
        if tried.is_ok() {
            tried = lease.run(&opening).await;
        }
        if tried.is_ok() {
            // A message of its own: what a whole message leaves as it was is not reported.
            tried = lease.run_reporting(statement, &mut reported).await;
        }
        let ended = lease.run("ROLLBACK").await;
        if ended.is_ok() {
            lease.give_back();
        }
        match tried {
            Ok(()) => Ok(words_of(&reported)),
            Err(Failed::Refused(error)) => Err(Stop::Statement(error)),
            Err(Failed::Lost(cause)) => Err(Stop::Statement(lost(&cause))),
        }
    }

    /// What a server reports when settings are taken back that the client has been told of, in a transaction
    /// that no shard knows of.
    pub(super) async fn told_aside(&self, undone: Undone<'_>) -> Vec<u8> {
        let (Transaction::Begun(opening) | Transaction::Broken(Some(opening))) = &self.transaction
        else {
            return Vec::new();
        };
        if !opening.has_told() {
            return Vec::new();
        }
        let reported = self.undo_aside(&opening.sql(), undone).await;
        words_of(&reported.unwrap_or_default())
    }

    /// Has a server make the settings and take them back; what it reports of that. None if it can't.
    async fn undo_aside(&self, opening: &str, undone: Undone<'_>) -> Option<Vec<(String, String)>> {
        let (mut lease, _) = self.lease(0, Access::Write).await.ok()?;
        lease.apply(self.settings.server_at_begin()).await.ok()?;
        lease.run(opening).await.ok()?;
        let mut reported = Vec::new();
        lease
            .run_reporting(&undone.sql(), &mut reported)
            .await
            .ok()?;
        match undone {
            Undone::Local => lease.settings = Arc::clone(self.settings.server()),
            Undone::All => {}
            Undone::Since(_) => lease.run("ROLLBACK").await.ok()?,
        }
        lease.give_back();
        Some(reported)
    }
}
