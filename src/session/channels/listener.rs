//! The task that owns a database's listening connection.

use std::collections::HashSet;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::backend::connection::{Connection, lost};
use crate::backend::report;
use crate::error::{Error, Result};
use crate::session::channels::HOME;
use crate::session::channels::hub::{Hub, Next, Order};
use crate::session::database::Database;
use crate::session::lease::{dial_apart, no_such_shard};
use crate::sql::literal::quote_identifier;
use crate::sqlstate::SqlState;
use crate::topology::Server;
use crate::wire::buffer::Reader;
use crate::wire::{frame, frontend};

/// What operators see in `pg_stat_activity`.
const APPLICATION: &str = "shardwire listener";

/// A connection that has said nothing for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(10);

/// Listens as long as somebody wants to.
pub(super) async fn run(database: Arc<Database>) {
    let hub = &database.hub;
    loop {
        if let Err(error) = listen(&database, hub).await {
            tracing::warn!(%error, database = database.config.name, "the listening connection was lost");
            hub.fail(&error);
        }
        if hub.rest() {
            return;
        }
    }
}

/// One connection, from its dial to the last UNLISTEN.
async fn listen(database: &Arc<Database>, hub: &Hub) -> Result<()> {
    let set = database.topology.shards().get(HOME);
    let primary = set.ok_or_else(no_such_shard)?.primary_changes();
    let (connection, node) = dial_apart(database, HOME, APPLICATION).await?;
    let mut line = Line {
        connection,
        node,
        primary,
        channels: HashSet::new(),
        patience: database.config.pool.queue_timeout,
    };
    loop {
        line.check_primary()?;
        match hub.next() {
            Next::Close => return Ok(()),
            Next::Wait => line.wait(hub).await?,
            Next::Round { orders, stale } => {
                if let Err(error) = line.round(hub, &orders, &stale).await {
                    hub.put_back(orders);
                    return Err(error);
                }
                hub.passed(orders);
            }
        }
    }
}

/// The listening connection.
struct Line {
    connection: Connection,
    /// Where it leads.
    node: Arc<Server>,
    /// The home shard's primary.
    primary: watch::Receiver<Option<usize>>,
    /// What the server was told to LISTEN to.
    channels: HashSet<Arc<str>>,
    /// The longest wait for an answer.
    patience: Duration,
}

impl Line {
    /// Fails once another server is the primary: what is notified there is not heard here.
    fn check_primary(&mut self) -> Result<()> {
        match *self.primary.borrow_and_update() {
            Some(index) if index != self.node.index => Err(Error::new(
                SqlState::ADMIN_SHUTDOWN,
                format!("server {} is not the primary any more", self.node.address),
            )),
            _ => Ok(()),
        }
    }

    /// Hears what comes until there is something to do.
    async fn wait(&mut self, hub: &Hub) -> Result<()> {
        tokio::select! {
            filled = self.connection.socket.fill() => {
                filled.map_err(|error| lost(&error))?;
                self.hear(hub).map(drop)
            }
            () = hub.bell.notified() => Ok(()),
            _ = self.primary.changed() => Ok(()),
            () = tokio::time::sleep(SILENCE) => {
                hub.want_round();
                Ok(())
            }
        }
    }

    /// Has the server listen as the clients wish, and hears everything up to its answer.
    async fn round(&mut self, hub: &Hub, orders: &[Order], stale: &[Arc<str>]) -> Result<()> {
        let mut sql = String::new();
        for channel in stale {
            if self.channels.remove(channel) {
                let _ = write!(sql, "UNLISTEN {};", quote_identifier(channel));
            }
        }
        for order in orders {
            if self.channels.insert(Arc::clone(&order.channel)) {
                let _ = write!(sql, "LISTEN {};", quote_identifier(&order.channel));
            }
        }
        let out = self.connection.socket.output.tail();
        match sql.is_empty() {
            true => frontend::write_sync(out),
            false => frontend::write_query(out, sql.as_bytes()),
        }
        let patience = self.patience;
        tokio::time::timeout(patience, self.answered(hub))
            .await
            .unwrap_or_else(|_| {
                let message = format!("the server did not answer within {patience:?}");
                Err(lost(&io::Error::new(io::ErrorKind::TimedOut, message)))
            })
    }

    /// Hears everything up to ReadyForQuery.
    async fn answered(&mut self, hub: &Hub) -> Result<()> {
        let socket = &mut self.connection.socket;
        socket.flush().await.map_err(|error| lost(&error))?;
        while !self.hear(hub)? {
            let filled = self.connection.socket.fill().await;
            filled.map_err(|error| lost(&error))?;
        }
        Ok(())
    }

    /// Takes what has come; true behind a ReadyForQuery.
    fn hear(&mut self, hub: &Hub) -> Result<bool> {
        let mut is_ready = false;
        let input = &mut self.connection.socket.input;
        while let Some(header) = frame::header(input.bytes())?
            && let Some(whole) = input.bytes().get(..header.frame_bytes)
        {
            let body = frame::body(whole);
            match header.tag {
                b'A' => {
                    let mut reader = Reader::new(body);
                    let process = reader.i32()?;
                    let channel = reader.cstring()?;
                    hub.deliver(process, channel, reader.cstring()?);
                }
                b'E' => return Err(report::read(body)),
                b'Z' => is_ready = true,
                _ => {}
            }
            input.consume(header.frame_bytes);
        }
        self.connection.socket.release();
        Ok(is_ready)
    }
}
