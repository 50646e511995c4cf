//! The barrier between those who commit on several shards and those who take one snapshot of several.
//!
//! Who commits shares an advisory lock on every participant, from before the decision until the commit is
//! to be seen there; a prepared transaction keeps it, whoever dies. Who takes snapshots holds it alone on
//! every shard meanwhile. So whatever is to be seen of such a commit on one shard by then is to be seen on
//! all of them, and what is not, on none.
//!
//! The readers of one proxy who wait at the same time share one hold. Readers take the first shard's lock
//! before the others', which keeps two proxies out of each other's way. A commit takes its locks at once on
//! all its shards and may wait for a reader on one while the reader waits for it on another: so readers
//! wait for a short time only, let go, and try again.
//!
//! A hold may end without its proxy's knowledge: the connection breaks, or the proxy sleeps for so long
//! that the server ends it. So each snapshot is taken by a statement that looks at the server's locks once
//! it has its snapshot ([`Pass::proof`]). As long as every shard says that the lock is held then, all the
//! snapshots lie between the moment when all the locks were held and the first moment when one was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::SimpleQueryMessage;

use crate::error::{Error, Result};
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{Control, ControlError, Topology};

/// The key of the advisory lock: "shardwir" in ASCII, and one.
pub const KEY: i64 = 8_316_003_855_879_334_259;

/// How long readers wait for a commit at first; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// And at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long they try in all.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a snapshot may take once the barrier is held.
const LONGEST_HOLD: Duration = Duration::from_secs(2);
/// After which the server ends the hold of a proxy that does not.
const LARGEST_IDLE: Duration = Duration::from_secs(5);

/// Waits for the barrier.
type Waiter = oneshot::Sender<Result<Pass>>;

/// The barrier of one database.
pub struct Barrier {
    topology: Arc<Topology>,
    /// Who shares the next hold; a task is on its way if there is anybody.
    waiting: Mutex<Vec<Waiter>>,
    lines: tokio::sync::Mutex<Vec<Line>>,
}

/// A connection to a shard's primary that is kept.
#[derive(Default)]
struct Line {
    /// The server, by its index in the replica set, and the connection.
    kept: Option<(usize, Control)>,
}

/// The right to take snapshots on the servers that were the primaries; given up when dropped.
#[derive(Debug)]
pub struct Pass {
    _share: mpsc::Sender<()>,
    is_over: Arc<AtomicBool>,
    locks: Arc<[Lock]>,
}

/// The lock on one shard.
#[derive(Clone, Copy, Debug)]
struct Lock {
    /// The server, by its index in the replica set.
    server: usize,
    /// Its process that holds the lock.
    process: i32,
}

impl Pass {
    /// Whether the barrier has been held until now, and on this server of a shard.
    pub fn covers(&self, shard: ShardIndex, server: usize) -> bool {
        let lock = self.locks.get(shard);
        !self.is_over.load(Ordering::Acquire) && lock.is_some_and(|lock| lock.server == server)
    }

    /// A query for `t` if the shard's lock is held, which makes sure that it was when the query, or the
    /// transaction it is in, took its snapshot.
    pub fn proof(&self, shard: ShardIndex) -> String {
        let process = self.locks.get(shard).map_or(0, |lock| lock.process);
        let (high, low) = (KEY >> 32, KEY & 0xffff_ffff);
        format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' \
             AND classid = {high} AND objid = {low} AND objsubid = 1 \
             AND mode = 'ExclusiveLock' AND granted AND pid = {process})"
        )
    }
}

impl Barrier {
    /// The barrier of a database.
    pub fn new(topology: &Arc<Topology>) -> Arc<Barrier> {
        let lines = topology.shards().iter().map(|_| Line::default()).collect();
        Arc::new(Barrier {
            topology: Arc::clone(topology),
            waiting: Mutex::default(),
            lines: tokio::sync::Mutex::new(lines),
        })
    }

    /// Waits until the barrier is held on every shard.
    ///
    /// # Errors
    /// `55P03` if commits keep it for too long, `57P03` if a shard can't be reached.
    pub async fn pass(self: &Arc<Barrier>) -> Result<Pass> {
        let (waiter, passed) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.push(waiter);
            waiting.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(self).hold());
        }
        match passed.await {
            Ok(passed) => passed,
            Err(_) => Err(unavailable("the proxy is about to end")),
        }
    }

    /// Holds the barrier once for all who wait.
    async fn hold(self: Arc<Barrier>) {
        let mut lines = self.lines.lock().await;
        let locked = self.lock(&mut lines).await;
        let waiters = std::mem::take(&mut *self.waiting.lock());
        match locked {
            Err(error) => {
                for waiter in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
            Ok(locks) => {
                let (share, mut shares) = mpsc::channel(1);
                let is_over = Arc::new(AtomicBool::new(false));
                for waiter in waiters {
                    let _ = waiter.send(Ok(Pass {
                        _share: share.clone(),
                        is_over: Arc::clone(&is_over),
                        locks: Arc::clone(&locks),
                    }));
                }
                drop(share);
                // Nobody sends anything: it ends when the last share is given up.
                let _ = timeout(LONGEST_HOLD, shares.recv()).await;
                is_over.store(true, Ordering::Release);
                join_all(lines.iter_mut().map(Line::unlock)).await;
            }
        }
    }

    /// Takes the lock on every shard.
    async fn lock(&self, lines: &mut [Line]) -> Result<Arc<[Lock]>> {
        let deadline = Instant::now() + LIMIT;
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.try_lock(lines, wait).await {
                Ok(locks) => return Ok(locks),
                Err(error) => error,
            };
            join_all(lines.iter_mut().map(Line::unlock)).await;
            let is_busy = error.code() == Some(SqlState::LOCK_NOT_AVAILABLE.as_str());
            if Instant::now() >= deadline {
                return Err(if is_busy {
                    busy()
                } else {
                    unavailable(&error.to_string())
                });
            }
            sleep(Duration::from_millis(rand::random_range(1..=10))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn try_lock(
        &self,
        lines: &mut [Line],
        wait: Duration,
    ) -> Result<Arc<[Lock]>, ControlError> {
        let topology = &self.topology;
        let mut numbered = lines.iter_mut().enumerate();
        let mut locks = Vec::new();
        if let Some((shard, first)) = numbered.next() {
            locks.push(first.lock(topology, shard, wait).await?);
        }
        let others = numbered.map(|(shard, line)| line.lock(topology, shard, wait));
        for locked in join_all(others).await {
            locks.push(locked?);
        }
        Ok(locks.into())
    }
}

impl Line {
    /// Takes the lock on a shard's primary.
    async fn lock(
        &mut self,
        topology: &Topology,
        shard: ShardIndex,
        wait: Duration,
    ) -> Result<Lock, ControlError> {
        let primary = topology.shards().get(shard).and_then(|set| set.primary());
        let primary = primary.ok_or_else(|| ControlError::answer("a shard has no primary"))?;
        let index = primary.index;
        if self
            .kept
            .as_ref()
            .is_none_or(|(kept, control)| *kept != index || control.client().is_closed())
        {
            self.kept = None;
            self.kept = Some((index, topology.control(shard).await?));
        }
        let Some((_, control)) = &self.kept else {
            return Err(ControlError::answer("there is no connection"));
        };
        let sql = format!(
            "SET lock_timeout = {}; SET idle_session_timeout = {}; \
             SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_advisory_lock({KEY})",
            wait.as_millis(),
            LARGEST_IDLE.as_millis()
        );
        match timeout(wait + LONGEST_WAIT, control.client().simple_query(&sql)).await {
            Ok(locked) => Ok(Lock {
                server: index,
                process: process(&locked?)?,
            }),
            Err(_) => {
                self.kept = None;
                Err(ControlError::timed_out(
                    "taking a lock",
                    wait + LONGEST_WAIT,
                ))
            }
        }
    }

    /// Gives the lock up, if it is held.
    async fn unlock(&mut self) {
        let Some((_, control)) = &self.kept else {
            return;
        };
        let unlock = control.client().batch_execute(
            "SELECT pg_catalog.pg_advisory_unlock_all(); SET idle_session_timeout = 0",
        );
        if !matches!(timeout(LONGEST_WAIT, unlock).await, Ok(Ok(()))) {
            self.kept = None;
        }
    }
}

/// The process that the server has named.
fn process(messages: &[SimpleQueryMessage]) -> Result<i32, ControlError> {
    let named = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    named.ok_or_else(|| ControlError::answer("the server does not say which process it is"))
}

fn busy() -> Error {
    Error::new(
        SqlState::LOCK_NOT_AVAILABLE,
        "could not take one snapshot of all shards",
    )
    .detail("Commits on several shards are under way or in doubt.")
    .hint("SHOW SHARDWIRE TRANSACTIONS lists what is prepared. Try again.")
}

fn unavailable(why: &str) -> Error {
    Error::new(
        SqlState::CANNOT_CONNECT_NOW,
        "could not take one snapshot of all shards",
    )
    .detail(format!("Not every shard can be asked: {why}."))
}
