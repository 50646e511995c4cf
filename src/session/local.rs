//! Statements that the proxy answers itself: lazy transaction control and its own settings.

use crate::admin::show::View;
use crate::admin::table::Table;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::session::aside::Undone;
use crate::session::effect::Effect;
use crate::session::named::no_statement;
use crate::session::own_values::{self, is_own};
use crate::session::{Session, Stop};
use crate::sql::statement::{
    Begin, IsolationLevel, ResetTarget, SetScope, SetValue, Statement, TransactionModes,
};
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::txn::{Opening, Transaction};
use crate::wire::format::Formats;

/// What the proxy does itself.
pub(super) enum Local {
    /// Begins a transaction that no shard knows of yet.
    Begin { opening: Opening, tag: &'static str },
    /// Ends a transaction that no shard knows of.
    End { commit: bool, chain: bool },
    /// Goes back to a savepoint of a transaction that failed before a shard knew of it.
    RollBackTo(String),
    /// Has the client's own transaction go on where one that it had not begun did work.
    Adopt { tag: &'static str },
    /// Ends a transaction that the client has not begun.
    EndImplicit { commit: bool },
    /// Remembers a statement for the shard that joins the transaction.
    Remember {
        statement: String,
        effect: Effect,
        tag: &'static str,
    },
    /// Changes one of the proxy's own settings, or the client's channels.
    Set { effect: Effect, tag: &'static str },
    /// Gives a setting the value back that the client's startup packet named, which no server knows.
    Revert { effect: Effect, tag: &'static str },
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
    /// Says that there is no prepared statement of this name.
    Missing(String),
    /// Rolls back a transaction that PREPARE TRANSACTION can't take, and says why.
    Unpreparable,
    /// Answers rows.
    Show(Table),
    /// Answers what operators ask.
    View(View),
    /// FETCH, MOVE or CLOSE of a cursor whose rows the proxy keeps.
    Cursor(Statement),
}

/// An answer of the proxy's own.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// ParameterStatus.
    pub status: Vec<u8>,
    /// Whether it is one of rows, however few.
    pub is_of_rows: bool,
    /// RowDescription, if it has rows.
    pub description: Vec<u8>,
    /// DataRows.
    pub rows: Vec<u8>,
    /// The command tag.
    pub tag: String,
}

impl Answer {
    /// A command tag and nothing else.
    pub(super) fn tagged(tag: &str) -> Answer {
        Answer {
            tag: tag.to_owned(),
            ..Answer::default()
        }
    }

    /// Rows of a portal that has run before.
    pub(super) fn of_rows(left: &[u8]) -> Answer {
        Answer {
            is_of_rows: true,
            rows: left.to_vec(),
            tag: "SHOW".to_owned(),
            ..Answer::default()
        }
    }
}

impl Session {
    /// Whether a statement is one that only the proxy understands.
    pub(super) fn is_own_statement(&self, plan: &Plan) -> bool {
        match &plan.statement {
            Statement::Set { name, .. } | Statement::Show(name) => is_own(name),
            Statement::Reset(ResetTarget::Name(name)) => is_own(name),
            Statement::ShowShardwire(_) => true,
            _ => false,
        }
    }

    /// What the proxy does itself for a statement, if it does.
    ///
    /// # Errors
    /// `25P02` in a transaction that is broken, `42704` for settings that do not exist.
    pub(super) async fn local(&mut self, plan: &Plan, text: &str) -> Result<Option<Local>> {
        if let Transaction::Broken(opening) = &self.transaction {
            let begun = opening.as_ref();
            let may_chain = begun.is_some() || !self.others.opening.is_unknown();
            let local = broken(&plan.statement, begun, may_chain);
            return match (local, self.others.broken_by.take()) {
                (Ok(local), _) => Ok(Some(local)),
                (Err(_), Some(error)) => Err(error),
                (Err(error), None) => Err(self.syntax_error(text).await.unwrap_or(error)),
            };
        }
        if self.others.is_implicit
            && let Some(local) = self.local_implicit(&plan.statement, text)?
        {
            return Ok(Some(local));
        }
        Ok(match &plan.statement {
            Statement::Query(_) => {
                self.memory.cursors.check_asked(text)?;
                None
            }
            Statement::Begin(begin) if self.may_begin_lazily() => {
                Some(Local::adopting(begin, text, true))
            }
            Statement::Set { name, .. } if is_own(name) => {
                self.check_own(name, plan, text)?;
                Some(Local::Set {
                    effect: Effect::of(&plan.statement, text),
                    tag: "SET",
                })
            }
            Statement::Reset(ResetTarget::Name(name)) if is_own(name) => Some(Local::Set {
                effect: Effect::of(&plan.statement, text),
                tag: "RESET",
            }),
            Statement::Deallocate(name)
                if !name
                    .as_ref()
                    .is_some_and(|name| self.is_of_server(name.as_bytes())) =>
            {
                Some(Local::Deallocate(name.clone()))
            }
            Statement::Execute { .. } => self
                .unknown(text, plan)
                .map(|(_, name)| Local::Missing(name)),
            Statement::Show(name) if is_own(name) => {
                let value = own_values::show(name, self.settings.context(), &self.database.config)?;
                Some(Local::Show(Table::setting(name, value)))
            }
            statement if self.is_about_kept(statement) => Some(Local::Cursor(statement.clone())),
            Statement::Show(name) => {
                let value = self.shown_custom(name).await?;
                value.map(|value| Local::Show(Table::setting(name, value)))
            }
            _ if self.reverts(plan) => Some(self.local_revert(&plan.statement, text)),
            Statement::ShowShardwire(noun) => Some(Local::View(View::named(noun)?)),
            Statement::PrepareTransaction if self.settings.changes_channels() => {
                Some(Local::Unpreparable)
            }
            statement => match &self.transaction {
                Transaction::Begun(_) => self.local_begun(statement, text),
                _ => None,
            },
        })
    }

    /// Whether it takes several statements to give a setting back that the startup packet named in part.
    pub(super) fn reverts_by_several(&self, plan: &Plan) -> bool {
        let name = reverted(&plan.statement);
        let statements = name.and_then(|name| self.settings.default_statements(name));
        statements.is_some_and(|statements| statements.contains(";\n"))
    }

    /// What gives a setting the value back that the startup packet named.
    fn local_revert(&self, statement: &Statement, text: &str) -> Local {
        let effect = Effect::of(statement, text);
        let tag = match statement {
            Statement::Reset(_) => "RESET",
            _ => "SET",
        };
        if !self.may_detach() {
            return Local::Revert { effect, tag };
        }
        let name = reverted(statement).unwrap_or_default();
        let sql = self.settings.default_statements(name).unwrap_or_default();
        Local::Remember {
            statement: sql.to_owned(),
            effect,
            tag,
        }
    }

    /// Whether a statement gives a setting the value back that the startup packet named.
    pub(super) fn reverts(&self, plan: &Plan) -> bool {
        reverted(&plan.statement).is_some_and(|name| self.settings.has_default(name))
    }

    /// In a transaction that no shard knows of: what ends it or can wait for the shard.
    fn local_begun(&self, statement: &Statement, text: &str) -> Option<Local> {
        let remember = |tag| Local::Remember {
            statement: text.trim().trim_end_matches(';').to_owned(),
            effect: Effect::of(statement, text),
            tag,
        };
        match statement {
            Statement::Commit { chain } => Some(Local::End {
                commit: true,
                chain: *chain,
            }),
            Statement::Rollback { chain } => Some(Local::End {
                commit: false,
                chain: *chain,
            }),
            _ if self.database.is_single() || self.settings.context().shard.is_some() => None,
            Statement::Savepoint(_) => Some(remember("SAVEPOINT")),
            Statement::SetTransaction(_) | Statement::Set { .. } => Some(remember("SET")),
            Statement::Reset(ResetTarget::All) => Some(Local::Remember {
                statement: self.settings.reset_all_sql(),
                effect: Effect::ResetAll,
                tag: "RESET",
            }),
            // They are nothing to a server; see `channels`.
            Statement::Unlisten(_) | Statement::Listen(_) => Some(Local::Set {
                effect: Effect::of(statement, text),
                tag: match statement {
                    Statement::Listen(_) => "LISTEN",
                    _ => "UNLISTEN",
                },
            }),
            _ => None,
        }
    }

    /// Whether BEGIN can wait: nothing is under way that would be part of the transaction.
    fn may_begin_lazily(&self) -> bool {
        self.transaction == Transaction::Idle
            && !self.batch.is_sent()
            && !(self.database.is_single() && self.is_pinned())
    }

    /// Values that can be checked before they are set.
    fn check_own(&self, name: &str, plan: &Plan, text: &str) -> Result<()> {
        if name == "shardwire.shard"
            && let Effect::Set { value, .. } = Effect::of(&plan.statement, text)
            && let Some([shard]) =
                crate::sql::classify::setting_values(&value, 0..value.len() as u32).as_deref()
            && !shard.is_empty()
            && self.database.shard_named(shard).is_none()
        {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("shard \"{shard}\" does not exist"),
            )
            .hint("SHOW SHARDWIRE SHARDS lists them."));
        }
        Ok(())
    }

    /// Does it.
    ///
    /// # Errors
    /// `22023` and `42704` for the proxy's own settings.
    pub(super) async fn perform(
        &mut self,
        local: Local,
        formats: &Formats,
    ) -> Result<Answer, Stop> {
        match local {
            Local::Adopt { tag } => {
                self.others.is_implicit = false;
                Ok(Answer::tagged(tag))
            }
            Local::EndImplicit { commit } => {
                self.end_without_begin(commit).await.map(Answer::tagged)
            }
            Local::Begin { opening, tag } => {
                self.others.is_implicit = false;
                self.transaction = Transaction::Begun(opening);
                Ok(Answer::tagged(tag))
            }
            Local::End { commit, chain } => {
                if commit {
                    self.foresee_one(&Effect::End).await?;
                }
                let is_kept = commit && !self.transaction.is_broken();
                let status = self.told_aside(Undone::by_end(is_kept)).await;
                let answer = self.end_unopened(commit, chain);
                Ok(Answer { status, ..answer })
            }
            Local::RollBackTo(name) => {
                let status = self.told_aside(Undone::Since(&name)).await;
                let answer = self.roll_back_unopened(name)?;
                Ok(Answer { status, ..answer })
            }
            Local::Remember {
                statement,
                effect,
                tag,
            } => {
                let mut answer = Answer::tagged(tag);
                if matches!(
                    effect,
                    Effect::Set { .. } | Effect::Reset { .. } | Effect::ResetAll
                ) {
                    answer.status = self.try_aside(&statement).await?;
                }
                if let Transaction::Begun(opening) = &mut self.transaction {
                    opening.note_told(!answer.status.is_empty());
                    match &effect {
                        Effect::Savepoint(name) => opening.savepoint(name, statement)?,
                        Effect::Modes {
                            shares_snapshot, ..
                        } => opening.modes(statement, *shares_snapshot)?,
                        effect if effect.may_share_snapshot() => opening.modes(statement, true)?,
                        _ => opening.set(statement)?,
                    }
                }
                self.settings.complete(&effect)?;
                self.nest(&effect);
                Ok(answer)
            }
            Local::Set { effect, tag } => self.set_own(&effect).await.map(|()| Answer::tagged(tag)),
            Local::Revert { effect, tag } => self.revert(&effect, tag).await,
            Local::Deallocate(name) => Ok(self.deallocate(name.as_deref())?),
            Local::Missing(name) => Err(no_statement(&name).into()),
            Local::Unpreparable => Err(self.refuse_to_prepare().await?),
            Local::Show(table) => Ok(rows(&table, formats)?),
            Local::View(view) => Ok(rows(&self.view(view).await?, formats)?),
            Local::Cursor(statement) => Ok(self.move_kept(&statement, formats)?),
        }
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Answer> {
        let Some(name) = name else {
            self.statements.clear_named();
            return Ok(Answer::tagged("DEALLOCATE ALL"));
        };
        if self.statements.get(name.as_bytes()).is_none() {
            return Err(no_statement(name));
        }
        self.statements.remove(name.as_bytes());
        Ok(Answer::tagged("DEALLOCATE"))
    }

    /// Changes one of the proxy's own settings, or the client's channels.
    async fn set_own(&mut self, effect: &Effect) -> Result<(), Stop> {
        // What was sent before belongs to earlier units, whose end is not this one's.
        self.drain().await?;
        self.foresee_one(effect).await?;
        let is_local = matches!(effect, Effect::Set { local: true, .. });
        if !is_local || self.transaction != Transaction::Idle {
            self.settings.complete(effect)?;
        }
        if self.transaction == Transaction::Idle {
            match self.batch.is_extended() {
                true => self.batch.has_own_settings = true,
                false => self.settings.commit(),
            }
        }
        Ok(())
    }

    /// Rolls back a transaction that PREPARE TRANSACTION can't take; why it can't.
    async fn refuse_to_prepare(&mut self) -> Result<Stop, Stop> {
        self.drain().await?;
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        self.roll_back_together().await;
        Ok(unpreparable().into())
    }

    /// The RowDescription of what a statement of the proxy's own answers; empty if it has no rows.
    ///
    /// # Errors
    /// As for [`Session::local`], and `08P01` for formats that do not fit.
    pub(super) async fn description(
        &mut self,
        plan: &Plan,
        text: &str,
        formats: &Formats,
    ) -> Result<Vec<u8>> {
        let mut words = Vec::new();
        let table = match self.local(plan, text).await? {
            Some(Local::Show(table)) => table,
            Some(Local::View(view)) => view.empty(),
            Some(Local::Cursor(statement)) => return Ok(self.described_kept(&statement)),
            _ => return Ok(words),
        };
        table.check(formats)?;
        table.describe(&mut words, formats);
        Ok(words)
    }

    /// Goes back to a savepoint of a transaction that no shard knows of.
    fn roll_back_unopened(&mut self, name: String) -> Result<Answer> {
        if let Transaction::Broken(opening) = &mut self.transaction {
            let mut opening = opening.take().unwrap_or_default();
            opening.roll_back_to(&name);
            self.transaction = Transaction::Begun(opening);
        }
        let effect = Effect::RollbackTo(name);
        self.nest(&effect);
        self.settings.complete(&effect)?;
        Ok(Answer::tagged("ROLLBACK"))
    }

    /// Ends a transaction that no shard knows of.
    pub(super) fn end_unopened(&mut self, commit: bool, chain: bool) -> Answer {
        let committed = commit && !self.transaction.is_broken();
        if committed {
            self.settings.commit();
        } else {
            self.settings.roll_back();
        }
        self.others.broken_by = None;
        let before = std::mem::take(&mut self.transaction);
        if chain {
            let mut opening = match before {
                Transaction::Begun(opening) | Transaction::Broken(Some(opening)) => opening,
                _ => self.others.opening.clone(),
            };
            opening.chain();
            self.transaction = Transaction::Begun(opening);
        }
        self.memory.cursors.end(committed);
        self.statements.clear_portals();
        Answer::tagged(if committed { "COMMIT" } else { "ROLLBACK" })
    }
}

/// The setting that a statement gives its default back.
fn reverted(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::Reset(ResetTarget::Name(name)) => Some(name),
        Statement::Set {
            scope: SetScope::Session,
            name,
            value: SetValue::Default,
            ..
        } => Some(name),
        _ => None,
    }
}

/// What is left in a transaction that failed with no shard in it.
fn broken(statement: &Statement, begun: Option<&Opening>, may_chain: bool) -> Result<Local> {
    match (statement, begun) {
        (Statement::RollbackTo(name), Some(opening)) if opening.has_savepoint(name) => {
            return Ok(Local::RollBackTo(name.clone()));
        }
        (Statement::RollbackTo(name), Some(_)) => {
            return Err(Error::new(
                SqlState::INVALID_SAVEPOINT_SPECIFICATION,
                format!("savepoint \"{name}\" does not exist"),
            ));
        }
        _ => {}
    }
    match statement {
        Statement::Commit { chain } if may_chain || !chain => Ok(Local::End {
            commit: true,
            chain: *chain,
        }),
        Statement::Rollback { chain } if may_chain || !chain => Ok(Local::End {
            commit: false,
            chain: *chain,
        }),
        _ => Err(Error::new(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        )),
    }
}

/// What a BEGIN opens once a shard is needed, and its tag.
pub(super) fn lazy_begin(begin: &Begin, text: &str) -> (Opening, &'static str) {
    let statement = slice(text, begin.text.clone());
    let first = statement.as_bytes().first().map(u8::to_ascii_lowercase);
    let TransactionModes {
        isolation,
        read_only,
        ..
    } = begin.modes;
    // A standby refuses READ WRITE and SERIALIZABLE; nothing else can go wrong.
    let certain = read_only != Some(false) && isolation != Some(IsolationLevel::Serializable);
    let opening = match begin.modes == TransactionModes::default() {
        true => Opening::plain(statement),
        false => Opening::with_modes(statement, read_only == Some(true), certain)
            .sharing_a_snapshot(isolation.is_some_and(IsolationLevel::shares_snapshot)),
    };
    let tag = match first {
        Some(b's') => "START TRANSACTION",
        _ => "BEGIN",
    };
    (opening, tag)
}

impl Local {
    /// BEGIN where a transaction is under way that the client has not begun; `is_new` if no shard knows.
    pub(super) fn adopting(begin: &Begin, text: &str, is_new: bool) -> Local {
        let (opening, tag) = lazy_begin(begin, text);
        match is_new {
            true => Local::Begin { opening, tag },
            false => Local::Adopt { tag },
        }
    }
}

/// PostgreSQL's words; to the server there was no LISTEN.
fn unpreparable() -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY",
    )
}

fn rows(table: &Table, formats: &Formats) -> Result<Answer> {
    table.check(formats)?;
    let mut answer = Answer::tagged("SHOW");
    answer.is_of_rows = true;
    table.describe(&mut answer.description, formats);
    table.write(&mut answer.rows, formats);
    Ok(answer)
}
