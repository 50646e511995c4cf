//! Errors of the proxy's own, put where the client expects the statement's answer.

use std::time::Duration;

use tokio::time::timeout;

use crate::backend::connection::Failed;
use crate::error::{Error, Result};
use crate::plan::{Access, Plan};
use crate::session::replies::Expect;
use crate::session::simple::aborted;
use crate::session::{Session, Stop};
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::backend::{Status, error_response, ready_for_query};
use crate::wire::frontend;

/// How long a refusal may wait for what PostgreSQL says of the statement.
const ASKING: Duration = Duration::from_secs(1);

/// What the words of the proxy's own begin with: SHARD KEY, `shard_id`, its settings, REPLICATED.
const WORDS: [&str; 2] = ["shard", "replicated"];

impl Session {
    /// Whether requests are ignored until the client's next Sync, after an error in its batch.
    pub(super) fn is_skipping(&self) -> bool {
        self.batch.is_skipping()
            || (self.batch.is_open()
                && self
                    .server
                    .as_ref()
                    .is_some_and(|held| held.replies.is_skipping()))
    }

    /// Fails the statement at hand. A shard that works for the client's transaction is made to fail
    /// too, so that what came before in the transaction ends as it would in one PostgreSQL.
    pub(super) async fn refuse(&mut self, error: &Error) -> Result<(), Stop> {
        // A statement of the proxy's own was cancelled in the client's.
        if let Some(words) = self.verdict(error.code()) {
            return self.fail_with(words).await;
        }
        self.database.metrics.refused.inc();
        self.database.metrics.error(error.code().as_str());
        let mut words = Vec::new();
        error_response(&mut words, error);
        self.fail_with(words).await
    }

    /// As [`Session::refuse`], with an ErrorResponse that is written already.
    pub(super) async fn fail_with(&mut self, error: Vec<u8>) -> Result<(), Stop> {
        self.memory.drawn.fail();
        if !self.batch.is_sent() {
            // What was sent before belongs to earlier units, whose outcome decides where this one
            // stands.
            self.drain().await?;
        }
        let is_extended = self.batch.is_extended();
        if is_extended && self.is_skipping() {
            // The batch has failed before, and the client knows.
            return Ok(());
        }
        if self.others.is_implicit && !is_extended {
            self.drain().await?;
            self.roll_back_together().await;
        }
        let mut words = self.acknowledge_pending();
        words.extend(self.take_owed_before(&error));
        words.extend_from_slice(&error);
        let is_sent = self.batch.is_sent();
        let is_on_shard = self.transaction.is_on_shard();
        match &mut self.server {
            // What was sent of the batch may fail first, beside the client's transaction too.
            Some(held) if is_sent || (is_on_shard && !held.is_detached()) => {
                held.refuse(words);
                if is_extended {
                    self.batch.note_sent();
                    self.batch.skip();
                } else {
                    held.sync();
                }
            }
            _ => {
                self.transaction.fail();
                self.others.drop_joined();
                let status = self.transaction.status();
                self.client.socket.output.push(&words);
                if self.transaction == Transaction::Idle {
                    self.roll_back_settings();
                }
                if is_extended {
                    self.batch.skip();
                } else {
                    self.ready_after_failure(status).await?;
                }
            }
        }
        Ok(())
    }

    async fn ready_after_failure(&mut self, status: Status) -> Result<(), Stop> {
        if !self.unit.is_script {
            if self.awaits_mail() {
                self.before_ready().await?;
            }
            ready_for_query(self.client.socket.output.tail(), status);
        }
        self.unit.end();
        Ok(())
    }

    /// Whether a statement may be prepared in a transaction that is broken.
    ///
    /// # Errors
    /// `25P02` unless it ends the transaction, or what is wrong with its syntax.
    pub(super) async fn check_broken(&mut self, plan: &Plan, text: &str) -> Result<()> {
        if plan.statement == Statement::Empty {
            return Ok(());
        }
        match self.local(plan, text).await {
            // That comes when it is executed.
            Err(error) if error.code() == SqlState::INVALID_SAVEPOINT_SPECIFICATION => Ok(()),
            other => other.map(drop),
        }
    }

    /// What is wrong with the syntax of a statement in a transaction that is broken: PostgreSQL reads a text
    /// before it looks at the transaction. None if nothing is, or no server can be asked.
    pub(super) async fn syntax_error(&self, text: &str) -> Option<Error> {
        let error = self.parse_error(text).await?;
        Some(error).filter(|error| error.code() == SqlState::SYNTAX_ERROR)
    }

    /// What PostgreSQL says of a statement that the proxy has refused: what it can't be, even on one server, is the
    /// better answer. Only where a server that knows nothing of the session's transaction can tell.
    pub(super) async fn judged(&self, refused: Error, text: &str) -> Error {
        // The key of a row is looked at before the statement is read.
        let is_early = matches!(
            refused.code(),
            SqlState::FEATURE_NOT_SUPPORTED | SqlState::NOT_NULL_VIOLATION
        );
        let may_ask = is_early
            && self.transaction == Transaction::Idle
            && self.server.is_none()
            && !self.memory.temporary_tables
            && self.shape.statements.len() < 2
            && !is_of_shards(text);
        if !may_ask {
            return refused;
        }
        // Whoever holds a lock must not keep the refusal from the client.
        match timeout(ASKING, self.parse_error(text)).await {
            Ok(Some(error)) if is_about_statement(error.code()) => error,
            _ => refused,
        }
    }

    /// The error of a Parse, which runs nothing.
    async fn parse_error(&self, text: &str) -> Option<Error> {
        if self.database.gate.is_closed() {
            return None;
        }
        let text = self.encoded(text).ok()?;
        let (mut lease, _) = self.lease(0, Access::Read).await.ok()?;
        let mut messages = Vec::new();
        frontend::write_parse(&mut messages, b"", &text, &[]);
        frontend::write_sync(&mut messages);
        let asked = match lease.apply(self.settings.server()).await {
            Ok(()) => {
                lease.unnamed = None;
                lease.send(&messages).await
            }
            failed => failed,
        };
        match asked {
            Ok(()) => lease.give_back(),
            Err(Failed::Refused(error)) => {
                lease.give_back();
                return Some(error);
            }
            // It is closed.
            Err(Failed::Lost(_)) => {}
        }
        None
    }

    /// Why a statement in a transaction that is broken fails.
    pub(super) fn aborted(&mut self) -> Error {
        self.others.broken_by.take().unwrap_or_else(aborted)
    }

    /// Says something of the proxy's own, behind every answer that is still due.
    pub(super) fn say(&mut self, words: Vec<u8>) {
        if let Some(execution) = &mut self.batch.execution
            && let Some(answer) = &mut execution.answer
        {
            answer.push(&words);
            return;
        }
        let mut all = self.take_owed();
        all.extend(words);
        let words = all;
        match &mut self.server {
            Some(held) if !held.replies.is_empty() => {
                held.replies.push(Expect::Local(words.into()));
            }
            _ => {
                if !words.is_empty() {
                    self.unit.make_final();
                }
                self.client.socket.output.push(&words);
            }
        }
    }
}

/// Whether a text may hold what only the proxy understands.
fn is_of_shards(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// Whether a code is of class 22 or 42: a statement with a literal that is none, or that names or means nothing.
fn is_about_statement(code: SqlState) -> bool {
    matches!(code.as_str().get(..2), Some("22" | "42"))
}

pub(super) fn second_shard() -> Error {
    Error::refused(
        "this transaction can't use a second shard yet",
        "The statement needs several shards, and the transaction has one snapshot for all its \
         statements.",
        "Commit first, use REPEATABLE READ, or restrict the statement to one shard key.",
    )
}

pub(super) fn on_secondary() -> Error {
    Error::refused(
        "a read-only transaction that began on a secondary can't run this statement",
        "The statement locks or writes, or might.",
        "Use BEGIN READ WRITE, or SET shardwire.read_preference TO 'primary' before.",
    )
}

pub(super) fn sequence_elsewhere() -> Error {
    Error::refused(
        "currval and lastval need the connection that drew from the sequence",
        "Another client may have used that connection meanwhile.",
        "Use RETURNING, run both statements in one transaction, or set pool.mode to session.",
    )
}
