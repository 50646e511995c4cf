//! `RESET name` and `SET name TO DEFAULT` of settings that the client's startup packet named: no server knows those
//! values.

use crate::backend::connection::Failed;
use crate::plan::Access;
use crate::session::effect::Effect;
use crate::session::local::Answer;
use crate::session::route::Need;
use crate::session::{Session, Stop};
use crate::txn::Transaction;
use crate::wire::backend::parameter_status;

impl Session {
    /// Changes the session's settings first, then the server's, which reports what it has become.
    pub(super) async fn revert(&mut self, effect: &Effect, tag: &str) -> Result<Answer, Stop> {
        self.hold(Need {
            shard: None,
            access: Access::Read,
            writes: false,
            is_sticky: false,
            may_detach: true,
        })
        .await?;
        // Its BEGIN, and what was sent before.
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        let mut answer = Answer::tagged(tag);
        if self.transaction == Transaction::Idle && self.batch.is_sent() {
            if let Effect::Reset { name, .. } = effect {
                let statements = self.settings.revert_statements(name);
                self.run_in_batch(&statements).await?;
            }
            self.settings.complete(effect)?;
            self.unit.has_settings = true;
            return Ok(answer);
        }
        self.settings.complete(effect)?;
        if self.transaction == Transaction::Idle {
            match self.batch.is_extended() {
                true => self.batch.has_own_settings = true,
                false => self.settings.commit(),
            }
        }
        let within = self.revert_within(effect);
        if let Some(held) = &mut self.server {
            let mut reported = Vec::new();
            let done = match within {
                Some(sql) => held.lease.run_reporting(&sql, &mut reported).await,
                None => {
                    let applied = held.lease.apply_reporting(self.settings.server()).await;
                    applied.map(|said| reported = said.parameters)
                }
            };
            match done {
                Ok(()) => {
                    for (name, value) in reported {
                        parameter_status(&mut answer.status, &name, &value);
                    }
                }
                Err(Failed::Refused(error)) => return Err(Stop::Statement(error)),
                Err(Failed::Lost(cause)) => return Err(Stop::Lost(cause)),
            }
            self.note_for_others(effect);
        }
        if self.may_let_go() {
            self.let_go();
        }
        Ok(answer)
    }

    /// What gives a setting back inside a transaction: all other settings stay as they are, those of
    /// SET LOCAL too.
    fn revert_within(&self, effect: &Effect) -> Option<String> {
        let (Effect::Reset { name, .. } | Effect::Reverted(name)) = effect else {
            return None;
        };
        let held = self.server.as_ref()?;
        let takes_part = self.takes_part(held);
        let statements = self.settings.default_statements(name)?;
        takes_part.then(|| statements.to_owned())
    }
}
