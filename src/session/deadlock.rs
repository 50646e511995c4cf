//! Finds sessions of this proxy that wait for each other on different shards, and ends one of them.
//!
//! Nobody is asked anything until two sessions that use several shards have both waited for a while. Then
//! every shard tells who waits there for whom; the waits of a session on all its shards are one
//! transaction's. A cycle that stands at a second look is broken at its youngest transaction, whose client
//! gets `40P01` as from PostgreSQL. Sessions of other proxies are seen, but not on how many shards.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::session::activity::State;
use crate::session::control::{Control, Sessions};
use crate::sharding::ShardIndex;
use crate::sqlstate::SqlState;
use crate::topology::{ControlError, Topology};
use crate::txn::deadlock::{Node, Wait, cycle};

/// Between two looks; a session that does the same at both has waited for as long.
const INTERVAL: Duration = Duration::from_millis(700);
/// Before a cycle is believed.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// One server's answer.
const LIMIT: Duration = Duration::from_secs(5);

const WAITS: &str = "SELECT pid, pg_catalog.pg_blocking_pids(pid) FROM pg_catalog.pg_stat_activity \
     WHERE wait_event_type = 'Lock' AND datname = pg_catalog.current_database()";

/// Looks for deadlocks between the sessions of one database.
pub struct Detector {
    sessions: Arc<Sessions>,
    topology: Arc<Topology>,
    /// When the requests came that were under way at the last look, by process id.
    busy: HashMap<i32, Option<Duration>>,
}

impl Detector {
    /// Starts looking, among `tasks`. Must be called in a Tokio runtime.
    pub fn start(tasks: &mut JoinSet<()>, sessions: &Arc<Sessions>, topology: &Arc<Topology>) {
        if topology.shards().len() > 1 {
            let detector = Detector {
                sessions: Arc::clone(sessions),
                topology: Arc::clone(topology),
                busy: HashMap::new(),
            };
            tasks.spawn(detector.run());
        }
    }

    async fn run(mut self) {
        loop {
            sleep(INTERVAL).await;
            if self.stuck() > 1
                && let Some(found) = self.look().await
                && let Some(cycle) = cycle(&found)
            {
                sleep(SECOND_LOOK).await;
                let again = self.look().await.unwrap_or_default();
                if cycle.iter().all(|wait| again.contains(wait)) {
                    self.break_cycle(&cycle).await;
                }
            }
        }
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

    /// How many sessions with connections to several shards do what they did at the last look.
    fn stuck(&mut self) -> usize {
        let mut busy = HashMap::new();
        let mut count = 0;
        for control in self.own() {
            if control.activity.state() != State::Active {
                continue;
            }
            let request = control.activity.request();
            let is_same = self.busy.get(&control.process_id) == Some(&request);
            if is_same {
                let links = control.links();
                let shards: BTreeSet<&str> = links.iter().map(|(pool, _)| pool.shard()).collect();
                count += usize::from(shards.len() > 1);
            }
            busy.insert(control.process_id, request);
        }
        self.busy = busy;
        count
    }

    /// Who waits for whom; none if a shard can't be asked.
    async fn look(&self) -> Option<Vec<Wait>> {
        let shards = 0..self.topology.shards().len();
        let asked = shards.map(|shard| timeout(LIMIT, self.ask(shard)));
        let mut found = Vec::new();
        for (shard, answer) in join_all(asked).await.into_iter().enumerate() {
            for (waiter, holders) in answer.ok()?.ok()? {
                found.extend(holders.into_iter().map(|holder| (shard, waiter, holder)));
            }
        }
        let nodes = self.nodes();
        let node = |shard: ShardIndex, process: i32| {
            let known = nodes.get(&(shard, process)).copied();
            // Negative for what is not a session of ours.
            known.unwrap_or_else(|| -((shard as Node) << 32 | Node::from(process)))
        };
        let wait = |(shard, waiter, holder)| Wait {
            waiter: node(shard, waiter),
            holder: node(shard, holder),
            shard,
        };
        // A prepared transaction shows as 0; it waits for nobody.
        let between = found.into_iter().filter(|(_, _, holder)| *holder != 0);
        Some(between.map(wait).collect())
    }

    async fn ask(&self, shard: ShardIndex) -> Result<Vec<(i32, Vec<i32>)>, ControlError> {
        let control = self.topology.control(shard).await?;
        let rows = control.client().query(WAITS, &[]).await?;
        let mut waits = Vec::new();
        for row in rows {
            waits.push((row.try_get(0)?, row.try_get(1)?));
        }
        Ok(waits)
    }

    /// The sessions by the server processes that work for them.
    fn nodes(&self) -> HashMap<(ShardIndex, i32), Node> {
        let mut nodes = HashMap::new();
        for control in self.own() {
            for (pool, process) in control.links() {
                let mut sets = self.topology.shards().iter();
                if let Some(shard) = sets.position(|set| *set.name == *pool.shard()) {
                    nodes.insert((shard, process), Node::from(control.process_id));
                }
            }
        }
        nodes
    }

    /// Cancels the youngest transaction of a cycle.
    async fn break_cycle(&self, cycle: &[Wait]) {
        let in_cycle = |control: &Arc<Control>| {
            let node = Node::from(control.process_id);
            cycle.iter().any(|wait| wait.waiter == node)
        };
        let begun = |control: &Arc<Control>| {
            let since = control.activity.identity().map(|identity| identity.since);
            let start = control.activity.transaction().unwrap_or_default();
            (since.unwrap_or_default() + start, control.process_id)
        };
        let own = self.own().into_iter().filter(in_cycle);
        let Some(victim) = own.max_by_key(begun) else {
            return;
        };
        tracing::info!(
            victim = victim.process_id,
            "a deadlock over several shards is broken"
        );
        victim.condemn(self.verdict(cycle)).await;
    }

    fn verdict(&self, cycle: &[Wait]) -> Error {
        let who = |node: Node| match node {
            0.. => format!("Process {node}"),
            // As `look` has made it.
            _ => format!("Process {} of another proxy", -node & 0xffff_ffff),
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
