//! Tells other proxies of definitions, and hears of theirs.
//!
//! A proxy that has changed a definition says so on the first shard, once it is committed: what notifies
//! can't be prepared. Whoever misses it sees the change at the next poll, and looks for itself before it
//! takes a table that it does not know for one that is nowhere else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{Loader, PAUSE, Reader};
use crate::topology::control::ControlError;
use crate::topology::server::Server;

/// The channel; no client's.
const CHANNEL: &str = "shardwire_definitions";

/// Between two looks whether the server that is listened to is still the one.
const CHECK: Duration = Duration::from_secs(5);

/// How long a proxy tries to tell the others.
const LIMIT: Duration = Duration::from_secs(2);

/// Tells all proxies that a definition has changed.
pub(super) async fn spread(reader: &Reader) {
    let Some(source) = reader.sources.get(&0) else {
        return;
    };
    let notify = format!("NOTIFY {CHANNEL}");
    let told = timeout(LIMIT, source.control.client().batch_execute(&notify));
    if !matches!(told.await, Ok(Ok(()))) {
        tracing::debug!("other proxies could not be told of a definition; they poll");
    }
}

impl Loader {
    /// Listens for ever.
    pub(in crate::topology) async fn listen(self: Arc<Self>) {
        let mut installed = self.installed();
        // The sender is part of self, so it can't be gone.
        let _ = installed.wait_for(|epoch| *epoch > 0).await;
        loop {
            let primary = self.sets.first().and_then(|set| set.primary());
            if let Some(server) = primary
                && let Err(error) = self.listen_to(server).await
            {
                tracing::debug!(%error, "news of definitions can't be heard");
            }
            sleep(PAUSE).await;
        }
    }

    /// Listens until the server is no longer the one.
    async fn listen_to(&self, server: &Arc<Server>) -> Result<(), ControlError> {
        let heard = Arc::new(Notify::new());
        let connecting = self
            .dialer
            .connect_hearing(&server.address, Arc::clone(&heard));
        let control = connecting.await?;
        let listen = format!("LISTEN {CHANNEL}");
        control.client().batch_execute(&listen).await?;
        loop {
            // What was missed before, too.
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the catalogue can't be looked at");
            }
            loop {
                let is_news = timeout(CHECK, heard.notified()).await.is_ok();
                let primary = self.sets.first().and_then(|set| set.primary());
                let is_same = primary.is_some_and(|primary| Arc::ptr_eq(primary, server));
                if control.client().is_closed() || !is_same {
                    return Ok(());
                }
                if is_news {
                    break;
                }
            }
        }
    }
}
