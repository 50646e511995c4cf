//! Settings after RESET ALL and DISCARD ALL: a server knows its own defaults, not those that the client
//! named at login.

use std::sync::Arc;

use crate::backend::connection::Failed;
use crate::session::{Session, Stop};
use crate::txn::Transaction;
use crate::wire::backend::parameter_status;

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
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        if self.transaction != Transaction::Failed {
            held.is_reset = false;
            match held.lease.apply_reporting(self.settings.server()).await {
                Ok(reported) => self.report(&reported.parameters),
                Err(Failed::Refused(error)) => {
                    held.is_lost = true;
                    return Err(Stop::Statement(error));
                }
                Err(Failed::Lost(cause)) => return Err(Stop::Lost(cause)),
            }
        }
        Ok(())
    }

    /// After RESET ALL or DISCARD ALL the client has heard of the server's defaults; its own are those
    /// of its startup packet.
    pub(super) async fn report_reset(&mut self) -> Result<(), Stop> {
        let is_settled = self.transaction == Transaction::Idle
            && !self.batch.is_sent()
            && self.settings.has_defaults();
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        if !is_settled || !held.is_reset || held.is_lost || !held.is_at_rest() {
            return Ok(());
        }
        held.is_reset = false;
        match held.lease.apply_reporting(self.settings.server()).await {
            Ok(reported) => {
                self.report(&reported.parameters);
                Ok(())
            }
            // Whoever uses the connection next must not find settings that nobody knows of.
            Err(Failed::Refused(_)) => {
                held.is_lost = true;
                Ok(())
            }
            Err(Failed::Lost(cause)) => Err(Stop::Lost(cause)),
        }
    }

    fn report(&mut self, parameters: &[(String, String)]) {
        for (name, value) in parameters {
            parameter_status(self.client.socket.output.tail(), name, value);
        }
    }
}
