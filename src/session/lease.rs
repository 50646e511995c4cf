//! Leases of server connections: the right server, tried until one serves, proved to be the right shard.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::backend::connection::{Connection, Failed, lost};
use crate::backend::principal::Principal;
use crate::config::ReadPreference;
use crate::error::{Error, Result};
use crate::net::stream::Stream;
use crate::pool::Lease;
use crate::session::control::Control;
use crate::session::database::Database;
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{self, Server, Want};

/// Between two tries to reach a server that does not take connections.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Between two looks whether a client is still there that waits.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Any server that is in service.
fn anywhere(database: &Database) -> Want {
    Want {
        access: topology::Access::Read,
        preference: ReadPreference::Nearest,
        max_staleness: database.config.max_staleness,
        wrote_at: None,
    }
}

/// Leases a connection for a session that is about to begin, once operators let new ones through.
///
/// # Errors
/// As [`lease_for`].
pub(super) async fn lease_for_login(
    database: &Database,
    principal: Option<&Arc<Principal>>,
) -> Result<Lease> {
    loop {
        database.gate.opened().await;
        let (lease, _) = lease_for(database, 0, &anywhere(database), principal).await?;
        if !database.gate.is_closed() {
            return Ok(lease);
        }
    }
}

/// Leases a connection to the server that the shard's replica set chooses, trying others while servers
/// fail and waiting for a new primary during a failover. Its role is that of `principal`, or the one
/// that all clients share.
///
/// # Errors
/// Why no server serves: `57P03`, `08001`, `53300` and the like.
pub(super) async fn lease_for(
    database: &Database,
    shard: ShardIndex,
    want: &Want,
    principal: Option<&Arc<Principal>>,
) -> Result<(Lease, Arc<Server>)> {
    let deadline = Instant::now() + database.config.pool.queue_timeout;
    loop {
        let node = choose(database, shard, want, deadline).await?;
        let pool = database.pool(shard, node.index).ok_or_else(no_such_shard)?;
        pool.at_generation(node.generation());
        let leased = match principal {
            Some(principal) => pool.lease_as(principal).await,
            None => pool.lease().await,
        };
        match leased {
            Ok(mut lease) => {
                if lease.is_new() {
                    identify(&mut lease, node).await?;
                }
                return Ok((lease, Arc::clone(node)));
            }
            Err(error) => blame(node, error, deadline).await?,
        }
    }
}

/// As [`lease_for`] where nothing has to be waited for: the server that the replica set chooses `now` has
/// an idle connection.
pub(super) fn lease_now(
    database: &Database,
    shard: ShardIndex,
    (want, now): (&Want, Instant),
    principal: Option<&Arc<Principal>>,
) -> Option<(Lease, Arc<Server>)> {
    let node = database
        .topology
        .shards()
        .get(shard)?
        .choose_at(want, now)?;
    let pool = database.pool(shard, node.index)?;
    pool.at_generation(node.generation());
    let role = &principal.unwrap_or(&pool.target().principal).role;
    let lease = pool.lease_idle(role)?;
    Some((lease, Arc::clone(node)))
}

/// Leases a connection, as long as the client does not cancel.
///
/// # Errors
/// As `leasing`; `57014` if the client cancels, `57P01` if its session has to end.
pub(super) async fn unless_cancelled<T>(
    control: &Control,
    leasing: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut leasing = pin!(leasing);
    let mut has_waited = false;
    let leased = poll_fn(|cx| {
        if let Poll::Ready(leased) = leasing.as_mut().poll(cx) {
            return Poll::Ready(leased);
        }
        has_waited = true;
        match control.poll_queued(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    })
    .await;
    if has_waited {
        control.stop_waiting();
    }
    leased
}

/// Waits, as long as the client does not close its connection.
///
/// # Errors
/// As `waiting`; `08006` if it does.
pub(super) async fn unless_closed<T>(
    stream: &Stream,
    waiting: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut waiting = pin!(waiting);
    loop {
        match tokio::time::timeout(LOOK_PAUSE, waiting.as_mut()).await {
            Ok(done) => return done,
            Err(_) if stream.is_closing() => {
                let message = "connection to client lost";
                return Err(Error::fatal(SqlState::CONNECTION_FAILURE, message));
            }
            Err(_) => {}
        }
    }
}

/// Connects to the shard's primary as [`lease_for`] does, beside the pool and its limit.
///
/// # Errors
/// As for [`lease_for`].
pub(super) async fn dial_apart(
    database: &Database,
    shard: ShardIndex,
    application_name: &str,
) -> Result<(Connection, Arc<Server>)> {
    let deadline = Instant::now() + database.config.pool.queue_timeout;
    loop {
        let node = choose(database, shard, &Want::primary(), deadline).await?;
        let pool = database.pool(shard, node.index).ok_or_else(no_such_shard)?;
        match pool.dial_apart(application_name).await {
            Ok(mut connection) => {
                identify(&mut connection, node).await?;
                return Ok((connection, Arc::clone(node)));
            }
            Err(error) => blame(node, error, deadline).await?,
        }
    }
}

/// The server that the shard's replica set chooses; waits for one during a failover.
async fn choose<'a>(
    database: &'a Database,
    shard: ShardIndex,
    want: &Want,
    deadline: Instant,
) -> Result<&'a Arc<Server>> {
    let set = database
        .topology
        .shards()
        .get(shard)
        .ok_or_else(no_such_shard)?;
    match set.choose(want) {
        Ok(node) => Ok(node),
        Err(_) => set.wait_for(want, deadline).await,
    }
}

/// A server gave no connection: takes it out of service if it is its fault, and pauses before the next
/// try.
///
/// # Errors
/// The error itself if trying again makes no sense.
async fn blame(node: &Server, error: Error, deadline: Instant) -> Result<()> {
    if !is_server_failure(&error) {
        return Err(error);
    }
    node.mark_failed(&error.fields().message);
    if Instant::now() >= deadline {
        return Err(error);
    }
    tokio::time::sleep(RETRY_PAUSE).await;
    Ok(())
}

/// Has a new connection show that it leads to the shard that the configuration says, because its address
/// may lead elsewhere than when the server was last probed, and what its transactions are by default.
async fn identify(connection: &mut Connection, node: &Server) -> Result<()> {
    match connection.value(&node.identity_query()).await {
        Ok(Some(isolation)) => connection.isolation = Some(isolation),
        Err(Failed::Refused(error)) if error.code() == SqlState::INSUFFICIENT_PRIVILEGE => {
            return Err(unreadable(&connection.role, node));
        }
        Ok(None) | Err(Failed::Refused(_)) => {
            node.mark_failed("it is not the shard that the configuration says");
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("server {} is not shard {}", node.address, node.shard_name),
            )
            .detail("Its table shardwire.shard names another shard or another cluster.")
            .hint("Run shardwire check, and look for addresses that were exchanged."));
        }
        Err(Failed::Lost(cause)) => return Err(lost(&cause)),
    }
    Ok(())
}

/// The role can't see which shard the server is.
fn unreadable(role: &str, node: &Server) -> Error {
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "role \"{role}\" may not read shardwire.shard on server {}",
            node.address
        ),
    )
    .detail("Every new connection is asked which shard it leads to.")
    .hint(
        "GRANT USAGE ON SCHEMA shardwire TO PUBLIC; GRANT SELECT ON shardwire.shard TO PUBLIC; on \
         every shard.",
    )
}

/// Whether an error speaks against the server or the way to it, not against the statement.
fn is_server_failure(error: &Error) -> bool {
    matches!(
        error.code(),
        SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
            | SqlState::CONNECTION_FAILURE
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
    )
}

pub(super) fn no_such_shard() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the plan names a shard that does not exist",
    )
}
