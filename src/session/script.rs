//! The statements of one simple message that need several shards, one by one as one transaction.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::plan::Plan;
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::loss::Lost;
use crate::session::study::effect_of;
use crate::session::{Session, Stop};
use crate::sql::shape;
use crate::sql::statement::Statement;
use crate::sql::token::slice;
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
        for (range, plan) in plans {
            let ran = self.run_one(slice(text, range.clone()), plan).await;
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
