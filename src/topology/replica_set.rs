//! One shard's servers: the choice among them, and the wait for a primary.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::config::Database;
use crate::config::RoleHint;
use crate::error::{Error, Result};
use crate::sqlstate::SqlState;
use crate::wire::oids::Oids;

use super::families::ServerMetrics;
use super::families::TopologyMetrics;
use super::members::{Event, Failure, Members, Report};
use super::selection::{self, Access, Candidate, Role, Standing, Want};
use super::server::{Health, Server, State};

/// While someone waits for a primary, its servers are probed this often.
const WAIT_PROBE: Duration = Duration::from_millis(100);

/// A shard's replica set.
pub struct ReplicaSet {
    /// Index of the shard in the database.
    pub shard: usize,
    /// Name of the shard.
    pub name: Arc<str>,
    /// How its OIDs differ from the first shard's.
    pub oids: Arc<ArcSwapOption<Oids>>,
    /// The roles that the proxy's own may act for.
    pub roles: ArcSwapOption<HashSet<Box<str>>>,
    servers: Vec<Arc<Server>>,
    candidates: ArcSwap<Vec<Candidate>>,
    members: Mutex<Members>,
    metrics: Vec<ServerMetrics>,
    /// The primary that answers, and a count of publications.
    primary: watch::Sender<Option<usize>>,
    /// Counts the primary's answers: secondaries are probed right after.
    sampled: watch::Sender<u64>,
    /// Servers of the whole database that answer; tells a partition from a failure of everything.
    reachable: Arc<AtomicUsize>,
}

impl ReplicaSet {
    pub(super) fn new(
        database: &Database,
        shard: usize,
        metrics: &TopologyMetrics,
        reachable: &Arc<AtomicUsize>,
    ) -> Arc<ReplicaSet> {
        let config = &database.shards[shard];
        let name: Arc<str> = config.name.as_str().into();
        let hinted: Vec<bool> = config
            .servers
            .iter()
            .map(|server| server.hint == Some(RoleHint::Primary))
            .collect();
        Arc::new_cyclic(|set| {
            let servers = config.servers.iter().enumerate().map(|(index, server)| {
                Arc::new(Server {
                    shard,
                    shard_name: Arc::clone(&name),
                    index,
                    address: server.address.clone(),
                    zone: server.zone.clone(),
                    hint: server.hint,
                    local: server.zone.is_some() && server.zone == database.zone,
                    in_flight: 0.into(),
                    generation: 0.into(),
                    state: ArcSwap::from_pointee(State::unknown()),
                    nudge: Notify::new(),
                    set: set.clone(),
                })
            });
            let metrics = config.servers.iter().map(|server| {
                metrics.server(&database.name, &config.name, &server.address.to_string())
            });
            ReplicaSet {
                shard,
                name: Arc::clone(&name),
                oids: Arc::default(),
                roles: ArcSwapOption::empty(),
                servers: servers.collect(),
                candidates: ArcSwap::default(),
                members: Mutex::new(Members::new(hinted, database.max_staleness)),
                metrics: metrics.collect(),
                primary: watch::Sender::new(None),
                sampled: watch::Sender::new(0),
                reachable: Arc::clone(reachable),
            }
        })
    }

    /// The servers in the order of the configuration.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The server for a statement, by the read-preference rules ([`selection::choose`]).
    ///
    /// # Errors
    /// `57P03` when no server may serve it, `55000` when that is because they are not the shard that the
    /// configuration says; the DETAIL names each server and why it is out.
    pub fn choose(&self, want: &Want) -> Result<&Arc<Server>> {
        self.choose_at(want, Instant::now())
            .ok_or_else(|| self.nobody(want))
    }

    /// As [`ReplicaSet::choose`] with the time given, without an error when no server may serve.
    pub fn choose_at(&self, want: &Want, now: Instant) -> Option<&Arc<Server>> {
        let candidates = self.candidates.load();
        selection::choose(
            &candidates,
            want,
            now,
            |index| {
                self.servers
                    .get(index)
                    .map_or(0, |server| server.in_flight())
            },
            |below| rand::random_range(0..below),
        )
        .and_then(|index| self.servers.get(index))
    }

    /// The primary that answers now.
    pub fn primary(&self) -> Option<&Arc<Server>> {
        self.primary
            .borrow()
            .and_then(|index| self.servers.get(index))
    }

    /// A channel that moves whenever another server, or none, is the primary that answers; it holds
    /// the server's index.
    pub fn primary_changes(&self) -> watch::Receiver<Option<usize>> {
        self.primary.subscribe()
    }

    /// Whether some server may be used.
    pub fn is_usable(&self) -> bool {
        self.servers.iter().any(|server| server.state().usable())
    }

    /// Waits until some server may serve this, as during a failover; probes the servers more often meanwhile. A
    /// session calls this when a statement that starts a transaction finds none.
    ///
    /// # Errors
    /// As [`ReplicaSet::choose`], at the deadline, or at once when waiting can't help.
    pub async fn wait_for(&self, want: &Want, deadline: Instant) -> Result<&Arc<Server>> {
        let mut changes = self.primary.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(server) = self.choose_at(want, Instant::now()) {
                return Ok(server);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // A client that wants no primary at all may go elsewhere at once.
            if left.is_zero() || self.is_misplaced() || !want.allows_primary() {
                return Err(self.nobody(want));
            }
            self.nudge_all();
            // Whether it changed or not, the loop looks again.
            let _ = tokio::time::timeout(left.min(WAIT_PROBE), changes.changed()).await;
        }
    }

    /// Has every server probed as soon as possible.
    pub fn nudge_all(&self) {
        for server in &self.servers {
            server.nudge.notify_one();
        }
    }

    /// Whether nobody answers as this shard although somebody answers.
    fn is_misplaced(&self) -> bool {
        let misplaced =
            |server: &Arc<Server>| matches!(server.state().health, Health::Misplaced(_));
        !self.is_usable() && self.servers.iter().any(misplaced)
    }

    /// The error when nobody may serve.
    fn nobody(&self, want: &Want) -> Error {
        let reasons: Vec<String> = self
            .servers
            .iter()
            .map(|server| {
                let state = server.state();
                let reason = match (state.why_out(), state.role) {
                    (Some(why), _) => why.to_owned(),
                    (None, Some(Role::Secondary)) if want.access == Access::Read => {
                        "is a secondary that is not fresh enough".to_owned()
                    }
                    (None, Some(Role::Secondary)) => "is a secondary".to_owned(),
                    (None, _) => "is the primary".to_owned(),
                };
                format!("{}: {reason}", server.address)
            })
            .collect();
        let detail = format!("Servers: {}.", reasons.join("; "));
        let name = &self.name;
        if self.is_misplaced() {
            return Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("shard \"{name}\" is out of service because its servers are not what the configuration says"),
            )
            .detail(detail)
            .hint("Nothing was sent to them. Run \"shardwire check\" to see what to change.");
        }
        let message = if want.access == Access::Primary {
            format!("shard \"{name}\" has no primary that accepts connections")
        } else {
            format!("shard \"{name}\" has no server that may serve this read")
        };
        Error::new(SqlState::CANNOT_CONNECT_NOW, message).detail(detail)
    }

    pub(super) fn ticket(&self, index: usize) -> u64 {
        self.members.lock().ticket(index)
    }

    /// Whether this is the elected primary, answering or not.
    pub(super) fn is_primary(&self, index: usize) -> bool {
        self.members.lock().primary() == Some(index)
    }

    /// A channel that moves whenever the primary has been asked.
    pub(super) fn sampled(&self) -> watch::Receiver<u64> {
        self.sampled.subscribe()
    }

    pub(super) fn answered(&self, index: usize, ticket: u64, report: &Report) {
        let mut members = self.members.lock();
        let outdated = members.ticket(index) != ticket;
        let events = members.answered(index, ticket, report);
        self.publish(&members, &events);
        if members.primary() == Some(index) {
            self.sampled
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        if outdated && let Some(server) = self.servers.get(index) {
            server.nudge.notify_one();
        }
    }

    pub(super) fn failed(&self, index: usize, failure: &Failure) {
        let mut members = self.members.lock();
        let events = members.failed(index, failure);
        self.publish(&members, &events);
    }

    /// The data path could not work with a server.
    pub(super) fn doubt(&self, index: usize, reason: &str) {
        let mut members = self.members.lock();
        let events = members.doubt(index, reason);
        self.publish(&members, &events);
        drop(members);
        if let Some(server) = self.servers.get(index) {
            server.nudge.notify_one();
        }
    }

    /// Makes what the members know visible to the data path. Called with the lock held, so that
    /// publications keep the order of the facts.
    fn publish(&self, members: &Members, events: &[Event]) {
        let states = members.states();
        for (server, state) in self.servers.iter().zip(states) {
            let old = server.state.load();
            let lost = old.usable() && (!state.usable() || old.role != state.role);
            if lost {
                server.generation.fetch_add(1, Ordering::AcqRel);
            }
            server.state.store(Arc::new(state.clone()));
        }
        let candidates = states
            .iter()
            .zip(&self.servers)
            .map(|(state, server)| Candidate {
                role: state.role.unwrap_or(Role::Secondary),
                standing: standing(state),
                local: server.local,
                rtt: state.rtt,
                fresh_as_of: state.fresh_as_of,
                level_as_of: state.level_as_of,
            });
        self.candidates.store(Arc::new(candidates.collect()));
        for (metrics, state) in self.metrics.iter().zip(states) {
            metrics.show(state);
        }
        for event in events {
            self.tell(event);
        }
        let live = members
            .primary()
            .filter(|&index| states.get(index).is_some_and(State::usable));
        self.primary.send_if_modified(|primary| {
            let changed = *primary != live;
            *primary = live;
            changed
        });
    }

    /// Logs and counts an event.
    fn tell(&self, event: &Event) {
        let shard = &*self.name;
        let at = |index: usize| self.servers.get(index).map(tracing::field::display);
        match event {
            Event::Up(index) => {
                self.reachable.fetch_add(1, Ordering::Relaxed);
                tracing::info!(shard, server = at(*index), "server is in service");
            }
            Event::Down(index, why) => {
                let others = self.reachable.fetch_sub(1, Ordering::Relaxed) > 1;
                if others && let Some(metrics) = self.metrics.get(*index) {
                    metrics.count_partition();
                }
                tracing::warn!(shard, server = at(*index), reason = %why, others_answer = others, "server is out of service");
            }
            Event::Refused(index, why) => {
                tracing::warn!(shard, server = at(*index), reason = %why, "server can't be used");
            }
            Event::Fenced { index, why, was_up } => {
                if *was_up {
                    self.reachable.fetch_sub(1, Ordering::Relaxed);
                }
                if let Some(metrics) = self.metrics.get(*index) {
                    metrics.count_partition();
                }
                tracing::error!(shard, server = at(*index), reason = %why, "server is fenced off");
            }
            Event::Primary(index, timeline) => {
                tracing::info!(
                    shard,
                    server = at(*index),
                    timeline,
                    "server is the primary"
                );
            }
            Event::StoppedReplaying(index) => {
                if let Some(metrics) = self.metrics.get(*index) {
                    metrics.count_partition();
                }
                tracing::warn!(
                    shard,
                    server = at(*index),
                    "secondary is further behind than max_staleness"
                );
            }
            Event::CaughtUp(index) => {
                tracing::info!(shard, server = at(*index), "secondary has caught up");
            }
        }
    }
}

fn standing(state: &State) -> Standing {
    match state.health {
        _ if state.fence.is_some() || state.role.is_none() => Standing::Out,
        Health::Good => Standing::Good,
        Health::Doubtful(_) => Standing::LastResort,
        Health::Unknown(_) | Health::Down(_) | Health::Misplaced(_) => Standing::Out,
    }
}

impl std::fmt::Debug for ReplicaSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplicaSet({})", self.name)
    }
}
