//! The probe of one server: on its own connection it asks for role, timeline and position, and checks
//! that the server is the shard it should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::control::{Control, ControlError, Dialer};
use super::freshness;
use super::identity::{Book, FirstContact, Record, store};
use super::members::{Failure, Report, Verdict};
use super::replica_set::ReplicaSet;
use super::server::{Facts, Health, Server};

/// Probes of one server are at least this far apart, however often it is nudged.
const SMALLEST_PAUSE: Duration = Duration::from_millis(50);
/// Pause while the server's identity waits for something.
const PENDING_PAUSE: Duration = Duration::from_millis(100);

/// One question answers everything. A secondary's timeline is the highest of those that its control file
/// and its WAL receiver name (the latter only for roles with `pg_read_all_stats`).
const QUESTION: &str = "
SELECT recovering,
       CASE WHEN recovering THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_insert_lsn() END - '0/0',
       CASE WHEN recovering
            THEN greatest((pg_control_checkpoint()).timeline_id,
                          (pg_control_recovery()).min_recovery_end_timeline,
                          (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
       (pg_control_system()).system_identifier,
       current_setting('server_version_num'),
       current_setting('max_prepared_transactions'),
       pg_size_bytes(current_setting('wal_segment_size')),
       CASE WHEN recovering THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END,
       (SELECT status = 'streaming' FROM pg_stat_wal_receiver),
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'shardwire' AND c.relname IN ('shard', 'tables', 'decisions'))
FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS r";

/// An answer to [`QUESTION`].
pub(super) struct Answer {
    pub facts: Facts,
    /// How many tables of the schema `shardwire` there are.
    pub tables: usize,
}

/// How often and how long to probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two probes.
    pub interval: Duration,
    /// One question and its answer.
    pub limit: Duration,
}

/// Probes one server for ever.
pub(super) struct Probe {
    pub set: Arc<ReplicaSet>,
    pub server: Arc<Server>,
    pub dialer: Arc<Dialer>,
    pub book: Arc<Book>,
    pub pace: Pace,
}

impl Probe {
    /// Runs until the task is aborted.
    pub async fn run(self) {
        let index = self.server.index;
        let mut connection = None;
        let mut sampled = self.set.sampled();
        loop {
            let started = Instant::now();
            sampled.mark_unchanged();
            let ticket = self.set.ticket(index);
            let mut outcome = self.round(&mut connection).await;
            if outcome.as_ref().is_err_and(|error| !error.is_passing()) && connection.is_some() {
                // The connection may have died alone; a new one tells.
                connection = None;
                outcome = self.round(&mut connection).await;
            }
            match outcome {
                Ok(report) => self.set.answered(index, ticket, &report),
                Err(error) => {
                    connection = None;
                    let failure = Failure {
                        reason: error.to_string(),
                        passing: error.is_passing(),
                    };
                    self.set.failed(index, &failure);
                }
            }
            self.pause(started, &mut sampled).await;
        }
    }

    /// Waits for the next round. Secondaries are asked right after their primary, because a position
    /// taken then proves them fresh as of then; without a primary they keep their own time.
    async fn pause(&self, started: Instant, sampled: &mut watch::Receiver<u64>) {
        sleep(SMALLEST_PAUSE).await;
        if matches!(self.server.state().health, Health::Unknown(_)) {
            return sleep(PENDING_PAUSE).await;
        }
        let interval = self.pace.interval;
        let follows = !self.set.is_primary(self.server.index);
        let next = if follows {
            started + interval + interval / 4
        } else {
            started + interval
        };
        tokio::select! {
            () = sleep_until(next.into()) => {}
            () = self.server.nudge.notified() => {}
            _ = sampled.changed(), if follows => {}
        }
    }

    async fn round(&self, connection: &mut Option<Control>) -> Result<Report, ControlError> {
        let control = match connection.take() {
            Some(control) => control,
            None => {
                let control = self.dialer.connect(&self.server.address).await?;
                self.within("a probe", prepare(control.client(), self.pace.limit))
                    .await?;
                control
            }
        };
        let client = connection.insert(control).client();
        let sent_at = Instant::now();
        let answer = self.within("a probe", ask(client)).await?;
        let rtt = sent_at.elapsed();
        let mut facts = answer.facts;
        let identified = self.identify(client, &answer);
        let (verdict, timeline) = self.within("the identity check", identified).await?;
        facts.timeline = facts.timeline.max(timeline);
        Ok(Report {
            facts,
            sent_at,
            rtt,
            verdict,
        })
    }

    async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        match timeout(self.pace.limit, work).await {
            Ok(result) => result,
            Err(_) => Err(ControlError::timed_out(what, self.pace.limit)),
        }
    }

    /// The verdict on the server's identity, and the timeline that its row proves.
    async fn identify(
        &self,
        client: &Client,
        answer: &Answer,
    ) -> Result<(Verdict, u32), ControlError> {
        let shard = self.server.shard;
        let primary = answer.facts.writable && self.set.is_primary(self.server.index);
        let record = if answer.tables == 0 {
            Ok(None)
        } else {
            store::read(client).await
        };
        match record {
            Ok(Some(record)) => {
                if primary {
                    self.keep(client, answer, &record).await;
                } else if !answer.facts.writable {
                    self.book.replicated(shard, &record);
                }
                Ok((self.book.judge(shard, &record), record.timeline))
            }
            Ok(None) if primary => Ok((self.introduce(client).await?, 0)),
            Ok(None) if answer.facts.writable => {
                let waiting = "it accepts writes and waits to be elected".to_owned();
                Ok((Verdict::Pending(waiting), 0))
            }
            Ok(None) => Ok((self.book.judge_unrecorded(shard), 0)),
            Err(error) if error.is_denied() => {
                let reason = format!("the role may not read the schema \"shardwire\": {error}");
                if primary {
                    self.book.without(shard, &reason);
                }
                Ok((Verdict::Unidentified(reason), 0))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the row of a primary up to date.
    async fn keep(&self, client: &Client, answer: &Answer, record: &Record) {
        let shard = self.server.shard;
        self.book.recorded(shard, record);
        if !matches!(self.book.judge(shard, record), Verdict::Identified(_)) {
            return;
        }
        let mut done = Ok(());
        if answer.tables < store::TABLES {
            done = store::create(client, record).await;
        }
        if done.is_ok() && record.timeline < answer.facts.timeline {
            done = store::set_timeline(client, answer.facts.timeline).await;
        }
        if done.is_ok() && self.book.completes(shard) {
            done = store::set_complete(client).await;
        }
        if let Err(error) = done {
            let (shard, server) = (&*self.set.name, &self.server.address);
            tracing::debug!(shard, %server, %error, "schema \"shardwire\" can't be kept up to date");
        }
    }

    /// A primary without a row: writes it if it may be taken in.
    async fn introduce(&self, client: &Client) -> Result<Verdict, ControlError> {
        let shard = self.server.shard;
        let cluster = match self.book.first_contact(shard) {
            FirstContact::Wait(why) => return Ok(Verdict::Pending(why)),
            FirstContact::Refuse(why) => return Ok(Verdict::Misplaced(why)),
            FirstContact::Record { cluster } => cluster.unwrap_or_else(store::new_cluster),
        };
        let Some(record) = self.book.record_for(shard, cluster) else {
            return Ok(Verdict::Misplaced(
                "it is no shard of the configuration".to_owned(),
            ));
        };
        match store::create(client, &record).await {
            Ok(()) => {}
            Err(error) if error.is_denied() => {
                let reason = format!("the role may not create the schema \"shardwire\": {error}");
                self.book.without(shard, &reason);
                return Ok(Verdict::Unidentified(reason));
            }
            Err(error) => return Err(error),
        }
        // Another proxy may have been first: what stands counts.
        match store::read(client).await? {
            Some(record) => {
                self.book.recorded(shard, &record);
                let (shard, server) = (&*self.set.name, &self.server.address);
                tracing::info!(shard, %server, cluster = record.cluster, "identity recorded");
                Ok(self.book.judge(self.server.shard, &record))
            }
            None => Ok(Verdict::Pending(
                "its identity is being recorded".to_owned(),
            )),
        }
    }
}

/// Makes the session independent of the role's settings and bounds its statements.
pub(super) async fn prepare(client: &Client, limit: Duration) -> Result<(), ControlError> {
    let statement = limit.as_millis().max(1);
    let lock = store::LOCK_TIMEOUT.as_millis();
    let settings = format!(
        "SET search_path = pg_catalog; SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
         SET client_min_messages = warning"
    );
    client.batch_execute(&settings).await?;
    // The first run warms the server's caches, so that the next is a fair measure of the way.
    ask(client).await?;
    Ok(())
}

pub(super) async fn ask(client: &Client) -> Result<Answer, ControlError> {
    let messages = client.simple_query(QUESTION).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(read_answer)
        .ok_or_else(|| ControlError::answer("the answer to a probe is malformed"))
}

fn read_answer(row: &SimpleQueryRow) -> Option<Answer> {
    let text = |column: usize| row.try_get(column).ok().flatten();
    let writable = text(0)? == "f";
    let position: u64 = text(1)?.parse().ok()?;
    let segment: u64 = text(6)?.parse().ok()?;
    let replay_age = text(7)
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    Some(Answer {
        facts: Facts {
            writable,
            timeline: text(2)?.parse().ok()?,
            system: text(3)?.parse().ok()?,
            lsn: if writable {
                freshness::end_of_record(position, segment)
            } else {
                position
            },
            version: text(4)?.parse().ok()?,
            max_prepared_transactions: text(5)?.parse().ok()?,
            replay_age,
            streaming: text(8).map(|streaming| streaming == "t"),
        },
        tables: text(9)?.parse().ok()?,
    })
}
