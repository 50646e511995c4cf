//! Transactions that the client has not begun: a batch up to its Sync, a message of several statements, or
//! one statement that writes on several shards.
//!
//! On one shard such a transaction is the server's own implicit one, and costs nothing. Once it needs a
//! second shard it becomes a real one on each: `BEGIN` within a batch takes in what the batch has done
//! before. The client still sees no transaction block; it ends with its batch, message or statement.

use crate::error::{Error, Result};
use crate::session::held::Held;
use crate::session::local::Local;
use crate::session::replies::Expect;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::sql::statement::{Begin, Statement, TransactionModes};
use crate::sqlstate::SqlState;
use crate::txn::{Opening, Transaction};
use crate::wire::backend::notice_response;
use crate::wire::frontend::{self, Bind, Subject};

/// Names the statement and the portal of a BEGIN that stands among the client's own.
const BEGIN: &[u8] = b"shardwire_begin";

impl Session {
    /// From now on the unit at hand is a transaction that several shards can join.
    ///
    /// # Errors
    /// `0A000` if it must stay where it is.
    pub(super) async fn begin_implicit(&mut self) -> Result<(), Stop> {
        if self.transaction != Transaction::Idle {
            return Ok(());
        }
        if self.may_leave_batch() {
            self.leave_batch().await?;
        }
        if self.batch.is_sent() {
            return self.upgrade_batch().await;
        }
        if self.has_snapshot_by_default() && self.is_confined() {
            return Err(stays().into());
        }
        self.transaction = Transaction::Begun(Opening::plain("BEGIN"));
        self.others.is_implicit = true;
        Ok(())
    }

    /// Whether the batch at hand, part of which was sent, can become a transaction on several shards.
    pub(super) fn may_upgrade(&self) -> bool {
        self.transaction == Transaction::Idle
            && self.batch.is_sent()
            && !self.database.is_single()
            && !self.unit.has_settings
            && !self.has_snapshot_by_default()
            && !self.client.is_mid_copy()
            && self.server.as_ref().is_some_and(Held::is_at_rest)
    }

    /// Makes the batch at hand a transaction that another shard can join for this, if it is not one yet.
    ///
    /// # Errors
    /// `0A000` if the two shards could not be committed as one.
    pub(super) async fn upgrade_for(&mut self, need: &Need) -> Result<(), Stop> {
        if !self.may_upgrade() {
            return Ok(());
        }
        let written = self.server.as_ref().filter(|held| held.wrote());
        if let (Some(held), Some(shard)) = (written, need.shard)
            && need.writes
        {
            self.check_writers(&[held.shard, shard])?;
        }
        self.begin_implicit().await
    }

    /// Makes the batch's own transaction on the server at work one that others can join. Every answer must
    /// have come.
    async fn upgrade_batch(&mut self) -> Result<(), Stop> {
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        if !self.may_upgrade() {
            return Err(stays().into());
        }
        self.unit.make_final();
        let Some(held) = &mut self.server else {
            return Err(stays().into());
        };
        let bind = Bind {
            portal: BEGIN,
            statement: BEGIN,
            rest: &[0; 6],
            formats: &[],
            count: 0,
            values: &[],
            results: &[],
        };
        let out = held.lease.socket.output.tail();
        frontend::write_parse(out, BEGIN, b"BEGIN", &[]);
        frontend::write_bind(out, &bind, BEGIN);
        frontend::write_execute(out, BEGIN, 0);
        frontend::write_subject(out, b'C', Subject::Portal, BEGIN);
        frontend::write_subject(out, b'C', Subject::Statement, BEGIN);
        frontend::write_sync(out);
        for tag in *b"12C33" {
            held.replies.push(Expect::Quiet(tag));
        }
        held.replies.push(Expect::QuietSync);
        self.batch.note_left();
        self.drain().await?;
        self.transaction = Transaction::Open;
        self.others.opened(Opening::plain("BEGIN"));
        self.others.first = self.server.as_ref().map(|held| held.shard);
        self.others.is_implicit = true;
        Ok(())
    }

    /// Ends the transaction that the client has not begun, as its unit has ended.
    ///
    /// # Errors
    /// Why it could not be committed.
    pub(super) async fn end_implicit(&mut self, is_failed: bool) -> Result<(), Stop> {
        if !self.others.is_implicit {
            return Ok(());
        }
        self.drain().await?;
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        let is_failed = is_failed || self.unit.has_failed;
        match self.transaction {
            Transaction::Open if !is_failed => {
                self.tell_others().await?;
                self.commit_together(false).await
            }
            Transaction::Open | Transaction::Failed => {
                self.roll_back_together().await;
                Ok(())
            }
            _ => {
                self.others.is_implicit = false;
                self.end_unopened(!is_failed, false);
                self.transaction = Transaction::Idle;
                Ok(())
            }
        }
    }

    /// What a statement means in a transaction that the client has not begun, where that differs from what
    /// it means to a server that has been told BEGIN.
    ///
    /// # Errors
    /// `25P01` for what needs a transaction block.
    pub(super) fn local_implicit(
        &self,
        statement: &Statement,
        text: &str,
    ) -> Result<Option<Local>> {
        let word = match statement {
            Statement::Begin(begin) => return self.adopt(begin, text).map(Some),
            Statement::Commit { chain: false } => {
                return Ok(Some(Local::EndImplicit { commit: true }));
            }
            Statement::Rollback { chain: false } => {
                return Ok(Some(Local::EndImplicit { commit: false }));
            }
            Statement::Commit { .. } => "COMMIT AND CHAIN",
            Statement::Rollback { .. } => "ROLLBACK AND CHAIN",
            Statement::Savepoint(_) => "SAVEPOINT",
            Statement::Release(_) => "RELEASE SAVEPOINT",
            Statement::RollbackTo(_) => "ROLLBACK TO SAVEPOINT",
            Statement::Declare { hold: false, .. } => "DECLARE CURSOR",
            Statement::Lock => "LOCK TABLE",
            _ => return Ok(None),
        };
        Err(Error::new(
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            format!("{word} can only be used in transaction blocks"),
        ))
    }

    /// BEGIN takes the transaction over.
    fn adopt(&self, begin: &Begin, text: &str) -> Result<Local> {
        let is_new = matches!(&self.transaction, Transaction::Begun(opening) if opening.is_bare());
        if !is_new && begin.modes != TransactionModes::default() {
            return Err(Error::refused(
                "BEGIN with modes can't follow statements of the same unit on several shards",
                "Those statements would be part of the transaction.",
                "Send BEGIN as a message of its own, and Sync before it.",
            ));
        }
        Ok(Local::adopting(begin, text, is_new))
    }

    /// COMMIT or ROLLBACK of what the client has not begun.
    pub(super) async fn end_without_begin(&mut self, commit: bool) -> Result<&'static str, Stop> {
        let mut words = Vec::new();
        let notice = Error::new(
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            "there is no transaction in progress",
        );
        notice_response(&mut words, "WARNING", &notice);
        self.say(words);
        self.end_implicit(!commit).await?;
        Ok(if commit { "COMMIT" } else { "ROLLBACK" })
    }
}

pub(super) fn stays() -> Error {
    Error::refused(
        "these statements can't become a transaction on several shards",
        "The statements up to Sync are one transaction; it has begun on one shard in a way that others \
         can't share: with settings, with a snapshot for all its statements, or with state of the \
         session's.",
        "Send Sync between them, or begin a transaction.",
    )
}
