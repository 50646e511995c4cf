//! The statements of one simple message that need several shards, one by one as one transaction.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::plan::{Plan, Route};
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::loss::Lost;
use crate::session::study::{Study, effect_of};
use crate::session::{Session, Stop};
use crate::sql::shape;
use crate::sql::statement::{ResetTarget, Statement};
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::frontend;

impl Session {
    /// Runs them; the client is told that the server is ready behind the last.
    ///
    /// # Errors
    /// What ends the session, or why the transaction could not be committed.
    pub(super) async fn query_script(
        &mut self,
        text: &str,
        plans: &[(Range<u32>, Arc<Plan>)],
    ) -> Result<(), Stop> {
        self.drain().await?;
        // PostgreSQL reads the whole message before any of it runs.
        for (_, plan) in plans {
            if let Route::Refused(error) = &plan.route
                && error.code() == SqlState::SYNTAX_ERROR
            {
                return Err(error.clone().into());
            }
        }
        if self.batch.is_sent() {
            self.leave_batch().await?;
        }
        self.unit.make_final();
        self.unit.is_script = true;
        self.unit.is_script_failed = false;
        let ran = self.run_script(text, plans).await;
        self.unit.is_script = false;
        ran?;
        let is_failed = std::mem::take(&mut self.unit.is_script_failed);
        self.end_implicit(is_failed).await?;
        self.finish_simple(Vec::new()).await
    }

    async fn run_script(
        &mut self,
        text: &str,
        plans: &[(Range<u32>, Arc<Plan>)],
    ) -> Result<(), Stop> {
        let mut has_turned = false;
        for (range, plan) in plans {
            let statement = slice(text, range.clone());
            self.refresh_schema().await;
            self.look_again().await?;
            let study = match has_turned {
                true => self.study(Some(statement), &[]),
                false => Ok(Study::One(Arc::clone(plan))),
            };
            has_turned |= turns_planning(&plan.statement)
                || self.is_own_statement(plan)
                || plan.define().is_some();
            let ran = match study {
                Ok(Study::One(plan)) => self.run_one(statement, &plan).await,
                Ok(_) => Err(unread().into()),
                Err(error) => Err(error.into()),
            };
            let settled = match ran {
                Ok(()) => self.drain().await,
                other => other,
            };
            match settled {
                Ok(()) | Err(Stop::Skip) => {}
                Err(Stop::Statement(error)) => {
                    self.refuse(&error).await?;
                    self.drain().await?;
                    self.unit.is_script_failed = true;
                }
                Err(Stop::Words(words)) => {
                    self.fail_with(words).await?;
                    self.drain().await?;
                    self.unit.is_script_failed = true;
                }
                Err(Stop::Lost(cause)) => {
                    if let Lost::Told { error, .. } = self.server_lost(&cause)?
                        && !self.unit.is_script_failed
                    {
                        self.refuse(&error).await?;
                    }
                    self.unit.is_script_failed = true;
                }
                Err(other) => return Err(other),
            }
            self.tell_others().await?;
            if self.unit.is_script_failed {
                break;
            }
        }
        Ok(())
    }

    async fn run_one(&mut self, statement: &str, plan: &Arc<Plan>) -> Result<(), Stop> {
        if matches!(effect_of(&plan.statement), Effect::CopyIn) {
            return Err(Error::refused(
                "COPY FROM STDIN can't be sent together with statements for other shards",
                "The data would come between them.",
                "Send it as a message of its own.",
            )
            .into());
        }
        if self.transaction == Transaction::Idle && !matches!(plan.statement, Statement::Begin(_)) {
            self.begin_implicit().await?;
        }
        let options = Database::lex_options(self.settings.context());
        shape::scan(statement.as_bytes(), options, &mut self.shape)
            .map_err(|error| error.to_error(statement.as_bytes()))?;
        let encoded = self.encoded(statement)?;
        let mut frame = Vec::new();
        frontend::write_query(&mut frame, &encoded);
        Box::pin(self.query_one(&frame, statement, plan)).await
    }
}

/// Whether the statements behind this one are planned differently once it has run.
pub(super) fn turns_planning(statement: &Statement) -> bool {
    match statement {
        Statement::Set { name, .. } | Statement::Reset(ResetTarget::Name(name)) => {
            matches!(name.as_str(), "search_path" | "client_encoding" | "role")
        }
        Statement::Reset(ResetTarget::All) => true,
        _ => false,
    }
}

fn unread() -> Error {
    Error::refused(
        "statement that can't be read after a setting has changed",
        "A statement of the same message has changed how texts are read.",
        "Send it as a message of its own.",
    )
}
