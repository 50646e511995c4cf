//! Finds transactions, of this proxy and of others, that wait for each other on different shards, and ends
//! one of them.
//!
//! Nobody is asked anything until a session that uses several shards has waited for a while. Then every shard
//! tells who waits there for whom; if the session is among them, it is asked again, with this proxy's
//! claims ([`crate::txn::deadlock`]). A cycle that still stands at a second look is broken at the
//! transaction that began last, by its own proxy, if its session still serves the same request; its client
//! gets `40P01` as from PostgreSQL.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::error::Error;
use crate::session::activity::State;
use crate::session::control::{Control, Sessions};
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{Control as Connection, ControlError, Topology};
use crate::txn::deadlock::{
    Claim, Claimed, MARK, Party, Seen, Wait, cycle, read_claims, victim, waits, write_claims,
};
use crate::txn::gid::Branch;

/// Between two looks; a session that does the same at both has waited for as long.
const INTERVAL: Duration = Duration::from_millis(700);
/// Before a cycle is believed.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// One server's answer.
const LIMIT: Duration = Duration::from_secs(5);

/// A session of this proxy that has waited for a while.
struct Stuck {
    control: Arc<Control>,
    /// When its request came.
    request: Option<Duration>,
    /// The server processes that work for it.
    links: BTreeSet<(ShardIndex, i32)>,
}

/// What the shards say.
#[derive(Default)]
struct Look {
    seen: Vec<Seen>,
    /// What other proxies claim.
    claimed: Vec<Claimed>,
}

/// A connection to a shard's primary that is kept as long as somebody waits.
#[derive(Default)]
struct Line {
    /// The server, by its index in the replica set, and the connection.
    kept: Option<(usize, Connection)>,
}

/// Looks for deadlocks between the sessions of one database.
pub struct Detector {
    sessions: Arc<Sessions>,
    topology: Arc<Topology>,
    /// What tells this proxy from others.
    number: u64,
    lines: Vec<Line>,
    /// When the requests came that were under way at the last look, by process id.
    busy: HashMap<i32, Option<Duration>>,
}

impl Detector {
    /// Starts looking, among `tasks`. Must be called in a Tokio runtime.
    pub fn start(tasks: &mut JoinSet<()>, sessions: &Arc<Sessions>, topology: &Arc<Topology>) {
        let lines = topology.shards().iter().map(|_| Line::default()).collect();
        if topology.shards().len() > 1 {
            let detector = Detector {
                sessions: Arc::clone(sessions),
                topology: Arc::clone(topology),
                number: rand::random(),
                lines,
                busy: HashMap::new(),
            };
            tasks.spawn(detector.run());
        }
    }

    async fn run(mut self) {
        loop {
            sleep(INTERVAL).await;
            let stuck = self.stuck();
            if stuck.is_empty() {
                // What it has claimed goes with them.
                self.lines.iter_mut().for_each(|line| line.kept = None);
            } else {
                // A shard that can't be asked is asked again at the next look.
                let _ = self.round(&stuck).await;
            }
        }
    }

    async fn round(&mut self, stuck: &[Stuck]) -> Option<()> {
        let first = self.look(&[]).await?;
        let claims = self.claims(stuck, &first);
        if claims.is_empty() {
            return None;
        }
        let found = cycle(&self.waits(stuck, &claims).await?)?;
        sleep(SECOND_LOOK).await;
        let again = self.waits(stuck, &claims).await?;
        let stands = found.iter().all(|wait| again.contains(wait));
        let victim = victim(&found).filter(|_| stands)?;
        let Party::Session { proxy, session, .. } = victim else {
            return None;
        };
        let mut own = stuck.iter().filter(|_| proxy == self.number);
        let victim = own.find(|one| one.control.process_id == session)?;
        if victim.still_waits() {
            tracing::info!(victim = session, "a deadlock over several shards is broken");
            victim.control.condemn(self.verdict(&found)).await;
        }
        Some(())
    }

    /// The sessions of the database.
    fn own(&self) -> Vec<Arc<Control>> {
        let name = &self.topology.database().name;
        let mut all = self.sessions.all();
        all.retain(|control| {
            let identity = control.activity.identity();
            identity.is_some_and(|identity| identity.database == *name)
        });
        all
    }

    /// The sessions with connections to several shards that do what they did at the last look.
    fn stuck(&mut self) -> Vec<Stuck> {
        let mut busy = HashMap::new();
        let mut stuck = Vec::new();
        for control in self.own() {
            if control.activity.state() != State::Active {
                continue;
            }
            let request = control.activity.request();
            busy.insert(control.process_id, request);
            if self.busy.get(&control.process_id) != Some(&request) {
                continue;
            }
            let links = self.links(&control);
            let shards: BTreeSet<ShardIndex> = links.iter().map(|(shard, _)| *shard).collect();
            if shards.len() > 1 {
                stuck.push(Stuck {
                    control,
                    request,
                    links,
                });
            }
        }
        self.busy = busy;
        stuck
    }

    /// The server processes that work for a session.
    fn links(&self, control: &Control) -> BTreeSet<(ShardIndex, i32)> {
        let links = control.links().into_iter();
        let on_shard = |(pool, process): (Arc<crate::pool::Pool>, i32)| {
            let mut sets = self.topology.shards().iter();
            let shard = sets.position(|set| *set.name == *pool.shard())?;
            Some((shard, process))
        };
        links.filter_map(on_shard).collect()
    }

    /// What this proxy can say of its sessions, by shard: those that are among the waiting.
    fn claims(&self, stuck: &[Stuck], look: &Look) -> Vec<(ShardIndex, Claim)> {
        let mut claims = Vec::new();
        for one in stuck {
            let is_own = |seen: &&Seen| one.links.contains(&(seen.shard, seen.process));
            let Some(since) = look.seen.iter().filter(is_own).map(|seen| seen.since).min() else {
                continue;
            };
            // What works for it now may have worked for another when the shards were asked.
            let now = self.links(&one.control);
            if !one.still_waits() {
                continue;
            }
            claims.extend(one.links.intersection(&now).map(|(shard, process)| {
                let claim = Claim {
                    begun: one.begun(),
                    session: one.control.process_id,
                    since,
                    process: *process,
                    commits: one.control.committing(),
                };
                (*shard, claim)
            }));
        }
        claims
    }

    /// Looks again, telling what this proxy claims: who waits for whom.
    async fn waits(
        &mut self,
        stuck: &[Stuck],
        claims: &[(ShardIndex, Claim)],
    ) -> Option<Vec<Wait>> {
        let look = self.look(claims).await?;
        // What has changed since is not claimed any more.
        let own = self.claims(stuck, &look).into_iter();
        let own = own.map(|(shard, claim)| (self.number, shard, claim));
        let claimed: Vec<Claimed> = own.chain(look.claimed.iter().cloned()).collect();
        Some(waits(&look.seen, &claimed))
    }

    /// Asks every shard, telling it what is claimed of its processes; none if one can't be asked.
    async fn look(&mut self, claims: &[(ShardIndex, Claim)]) -> Option<Look> {
        let topology = Arc::clone(&self.topology);
        let number = self.number;
        let asked = self.lines.iter_mut().enumerate().map(|(shard, line)| {
            let own = claims.iter().filter(|(on, _)| *on == shard);
            let own: Vec<Claim> = own.map(|(_, claim)| claim.clone()).collect();
            let topology = &topology;
            async move {
                let text = write_claims(number, &own);
                let asked = line.ask(topology, shard, &text);
                let answer = timeout(LIMIT, asked).await.ok().and_then(Result::ok);
                if answer.is_none() {
                    line.kept = None;
                }
                answer
            }
        });
        let mut look = Look::default();
        for (shard, rows) in join_all(asked).await.into_iter().enumerate() {
            for row in rows? {
                match row.get(4) {
                    Some(text) => look.take_claims(shard, text),
                    None => look.seen.extend(seen(shard, &row)),
                }
            }
        }
        look.claimed.retain(|(proxy, ..)| *proxy != number);
        Some(look)
    }

    fn verdict(&self, cycle: &[Wait]) -> Error {
        let who = |party: Party| match party {
            Party::Session { proxy, session, .. } if proxy == self.number => {
                format!("Process {session}")
            }
            Party::Session { session, .. } => format!("Process {session} of another proxy"),
            Party::Process(_, process) => format!("Process {process} of the server"),
        };
        let lines = cycle.iter().map(|wait| {
            let shard = self.topology.shards().get(wait.shard);
            let shard = shard.map_or("?", |set| &*set.name);
            let holder = who(wait.holder).replacen("Process", "process", 1);
            format!("{} waits for {holder} on shard {shard}.", who(wait.waiter))
        });
        let lines: Vec<String> = lines.collect();
        Error::new(SqlState::T_R_DEADLOCK_DETECTED, "deadlock detected")
            .detail(lines.join("\n"))
            .hint("Lock rows of several shards in the same order everywhere.")
    }
}

impl Stuck {
    /// Whether it serves the same request as it did.
    fn still_waits(&self) -> bool {
        let activity = &self.control.activity;
        activity.state() == State::Active && activity.request() == self.request
    }

    /// When its transaction began, in microseconds since 1970-01-01 UTC.
    fn begun(&self) -> u64 {
        let activity = &self.control.activity;
        let since = activity.identity().map(|identity| identity.since);
        let began = activity.transaction().or(self.request).unwrap_or_default();
        let micros = (since.unwrap_or_default() + began).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX)
    }
}

impl Look {
    fn take_claims(&mut self, shard: ShardIndex, text: &str) {
        if let Some((proxy, claims)) = read_claims(text) {
            let claims = claims.into_iter();
            self.claimed
                .extend(claims.map(|claim| (proxy, shard, claim)));
        }
    }
}

impl Line {
    async fn ask(
        &mut self,
        topology: &Topology,
        shard: ShardIndex,
        claims: &str,
    ) -> Result<Vec<SimpleQueryRow>, ControlError> {
        let primary = topology.shards().get(shard).and_then(|set| set.primary());
        let primary = primary.ok_or_else(|| ControlError::answer("a shard has no primary"))?;
        let index = primary.index;
        if self
            .kept
            .as_ref()
            .is_none_or(|(kept, connection)| *kept != index || connection.client().is_closed())
        {
            self.kept = None;
            self.kept = Some((index, topology.control(shard).await?));
        }
        let Some((_, connection)) = &self.kept else {
            return Err(ControlError::answer("there is no connection"));
        };
        let messages = connection.client().simple_query(&question(claims)).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Who waits for whom since when, and what other proxies have asked like this.
fn question(claims: &str) -> String {
    format!(
        "{claims} SELECT l.pid, (extract(epoch FROM l.waitstart) * 1000000)::pg_catalog.int8, \
         pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(l.pid), ' '), \
         (SELECT pg_catalog.max(p.gid) FROM pg_catalog.pg_prepared_xacts p \
         WHERE l.locktype = 'transactionid' AND p.transaction = l.transactionid), NULL \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE NOT l.granted AND l.waitstart IS NOT NULL \
         AND a.datname = pg_catalog.current_database() \
         UNION ALL SELECT NULL, NULL, NULL, NULL, query FROM pg_catalog.pg_stat_activity \
         WHERE usename = current_user AND datname = pg_catalog.current_database() \
         AND pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(query, '{MARK}')"
    )
}

/// A process that waits; none if the server says so in other words than asked for.
fn seen(shard: ShardIndex, row: &SimpleQueryRow) -> Option<Seen> {
    let holders = row.get(2)?.split(' ').filter(|part| !part.is_empty());
    let holders: Result<Vec<i32>, _> = holders.map(str::parse).collect();
    let prepared = row.get(3).and_then(Branch::read);
    Some(Seen {
        shard,
        process: row.get(0)?.parse().ok()?,
        since: row.get(1)?.parse().ok()?,
        holders: holders.ok()?,
        prepared: prepared.map(|branch| branch.gid.id()),
    })
}
