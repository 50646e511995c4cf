//! What the probes' reports make of a replica set: roles, fences, freshness; without I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::election::{self, Writable};
use super::freshness::Samples;
use super::selection::Role;
use super::server::{Facts, Health, Lag, State};

/// Weight of a new round-trip time in the smoothed one (the usual α of server selection).
const RTT_WEIGHT: f64 = 0.2;

/// What the identity check said in one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the shard that the configuration says it is, of the cluster of this name.
    Identified(Arc<str>),
    /// Nothing can be recorded there, so nothing can be checked; with the reason.
    Unidentified(String),
    /// Not known yet; with what is waited for.
    Pending(String),
    /// It is something else; with what to do about it.
    Misplaced(String),
}

/// A probe that was answered.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the server said.
    pub facts: Facts,
    /// When the question was sent, by the local clock.
    pub sent_at: Instant,
    /// From question to answer.
    pub rtt: Duration,
    /// What the identity check said.
    pub verdict: Verdict,
}

/// A probe that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// It may be the load's fault rather than the server's, or the probe's alone.
    pub passing: bool,
}

/// Something an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server is in service.
    Up(usize),
    /// A server that was in service no longer is; with the reason.
    Down(usize, Arc<str>),
    /// A server was never in service, for another reason than before.
    Refused(usize, Arc<str>),
    /// A server answers but gets no queries from now on.
    Fenced {
        /// Its index.
        index: usize,
        /// Why.
        why: Arc<str>,
        /// It was in service before.
        was_up: bool,
    },
    /// A server became the primary, on this timeline.
    Primary(usize, u32),
    /// A secondary is further behind than allowed.
    StoppedReplaying(usize),
    /// A secondary is near enough again.
    CaughtUp(usize),
}

/// The members of one replica set, as told by their probes.
#[derive(Debug)]
pub struct Members {
    states: Vec<State>,
    /// The configuration calls it the primary.
    hinted: Vec<bool>,
    /// Count of failures the data path has told; a probe that began before the last one proves nothing.
    doubts: Vec<u64>,
    /// Secondaries that are further behind than allowed.
    behind: Vec<bool>,
    max_staleness: Duration,
    primary: Option<usize>,
    /// Whose positions `samples` holds: index and timeline.
    source: Option<(usize, u32)>,
    samples: Samples,
    /// Positions of the most advanced secondary while there is no primary.
    level: Samples,
    /// The highest timeline seen of a cluster.
    highest: Option<(u64, u32)>,
}

impl Members {
    /// Members nobody has heard of yet; `hinted[i]` if the configuration calls the i-th the primary.
    pub fn new(hinted: Vec<bool>, max_staleness: Duration) -> Members {
        let count = hinted.len();
        Members {
            states: vec![State::unknown(); count],
            hinted,
            doubts: vec![0; count],
            behind: vec![false; count],
            max_staleness,
            primary: None,
            source: None,
            samples: Samples::default(),
            level: Samples::default(),
            highest: None,
        }
    }

    /// What is known of each, in the order of the configuration.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// The index of the elected primary, whether it answers or not.
    pub fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// To be taken before a probe starts and handed in with what it found.
    pub fn ticket(&self, index: usize) -> u64 {
        self.doubts.get(index).copied().unwrap_or(0)
    }

    /// The data path could not work with a member.
    pub fn doubt(&mut self, index: usize, reason: &str) -> Vec<Event> {
        let Some(state) = self.states.get(index) else {
            return Vec::new();
        };
        self.doubts[index] += 1;
        if !state.health.is_good() {
            return Vec::new();
        }
        self.change(index, |state| {
            state.health = Health::Doubtful(reason.into());
        })
    }

    /// A probe of a member failed.
    pub fn failed(&mut self, index: usize, failure: &Failure) -> Vec<Event> {
        let reason: Arc<str> = failure.reason.as_str().into();
        // What was never known to work has no benefit of the doubt.
        let passing = failure.passing && self.states.get(index).is_some_and(|s| s.role.is_some());
        self.change(index, |state| {
            state.good_since = None;
            state.health = if passing {
                Health::Doubtful(reason)
            } else {
                Health::Down(reason)
            };
        })
    }

    /// A probe of a member was answered. `ticket` is from before it started.
    pub fn answered(&mut self, index: usize, ticket: u64, report: &Report) -> Vec<Event> {
        let outdated = ticket != self.ticket(index);
        let now = report.sent_at + report.rtt;
        let facts = report.facts;
        self.highest = match self.highest {
            Some((system, timeline)) if system == facts.system => {
                Some((system, timeline.max(facts.timeline)))
            }
            known if known.is_none() || facts.writable => Some((facts.system, facts.timeline)),
            known => known,
        };
        self.change(index, |state| {
            state.rtt = match state.facts {
                Some(_) => smooth(state.rtt, report.rtt),
                None => report.rtt,
            };
            state.facts = Some(facts);
            state.unidentified = None;
            state.cluster = None;
            match &report.verdict {
                Verdict::Misplaced(why) => state.health = Health::Misplaced(why.as_str().into()),
                Verdict::Pending(why) => state.health = Health::Unknown(why.as_str().into()),
                Verdict::Identified(_) | Verdict::Unidentified(_) if outdated => {}
                Verdict::Identified(cluster) => {
                    state.health = Health::Good;
                    state.cluster = Some(Arc::clone(cluster));
                }
                Verdict::Unidentified(why) => {
                    state.health = Health::Good;
                    state.unidentified = Some(why.as_str().into());
                }
            }
            let good = state.health.is_good();
            state.good_since = good.then(|| state.good_since.unwrap_or(now));
        })
        .into_iter()
        .chain(self.measure(index, report))
        .collect()
    }

    /// Applies a change to one member, then elects, fences and tells what became different.
    fn change(&mut self, index: usize, apply: impl FnOnce(&mut State)) -> Vec<Event> {
        let before = self.states.clone();
        let old_primary = self.primary;
        if let Some(state) = self.states.get_mut(index) {
            apply(state);
        }
        self.elect();
        let mut events = Vec::new();
        for (index, (old, new)) in before.iter().zip(&self.states).enumerate() {
            events.extend(transition(index, old, new));
        }
        if let Some(primary) = self.primary
            && self.primary != old_primary
        {
            let timeline = self.states[primary].facts.map_or(0, |f| f.timeline);
            events.push(Event::Primary(primary, timeline));
        }
        self.level_up();
        events
    }

    /// Finds the primary among those that (last) said they accept writes, and fences off the rest.
    fn elect(&mut self) {
        let writable: Vec<Writable> = self
            .facts()
            .filter(|(_, facts)| facts.writable)
            .map(|(index, facts)| Writable {
                index,
                timeline: facts.timeline,
                system: facts.system,
                hinted: self.hinted[index],
            })
            .collect();
        let election = election::elect(&writable, self.highest);
        self.primary = election.primary;
        let system = election
            .primary
            .and_then(|p| self.states[p].facts)
            .map(|f| f.system);
        for (index, state) in self.states.iter_mut().enumerate() {
            let Some(facts) = state.facts else { continue };
            let lost = election.fenced.iter().find(|(fenced, _)| *fenced == index);
            let stranger = !facts.writable && system.is_some_and(|s| s != facts.system);
            let fence = match lost {
                Some((_, fence)) => Some(fence.describe()),
                None if stranger => Some(
                    "replays the WAL of another PostgreSQL cluster than this shard's primary; remove it from this shard or rebuild it"
                        .to_owned(),
                ),
                None => None,
            };
            if fence.as_deref() != state.fence.as_deref() {
                state.fence = fence.map(Into::into);
            }
            state.role = if state.fence.is_some() {
                None
            } else if facts.writable {
                Some(Role::Primary)
            } else {
                Some(Role::Secondary)
            };
        }
    }

    fn facts(&self) -> impl Iterator<Item = (usize, Facts)> {
        let states = self.states.iter().enumerate();
        states.filter_map(|(index, state)| Some((index, state.facts?)))
    }

    /// Whether there is a primary that answers.
    fn has_live_primary(&self) -> bool {
        self.primary
            .is_some_and(|p| self.states[p].health.is_good())
    }

    /// Takes a member's position into account after its probe was answered.
    fn measure(&mut self, index: usize, report: &Report) -> Vec<Event> {
        let facts = report.facts;
        let now = report.sent_at + report.rtt;
        if self.primary == Some(index) {
            let source = (index, facts.timeline);
            if self.source != Some(source) {
                self.source = Some(source);
                self.samples.clear();
                for state in &mut self.states {
                    state.fresh_as_of = None;
                }
            }
            self.samples.record(facts.lsn, report.sent_at);
        }
        if self.has_live_primary() {
            self.level.clear();
        } else if self.states[index].usable() && self.is_most_advanced(index) {
            self.level.record(facts.lsn, report.sent_at);
        }
        self.level_up();
        (0..self.states.len())
            .filter_map(|index| self.refresh(index, now))
            .collect()
    }

    fn is_most_advanced(&self, index: usize) -> bool {
        let lsn = |state: &State| state.facts.map_or(0, |facts| facts.lsn);
        let usable = self.states.iter().filter(|state| state.usable());
        usable.map(lsn).max() == self.states.get(index).map(lsn)
    }

    /// While there is no primary, secondaries count as fresh relative to the most advanced one.
    fn level_up(&mut self) {
        let live = self.has_live_primary();
        for state in &mut self.states {
            state.level_as_of = match state.facts {
                Some(facts) if !live && state.role == Some(Role::Secondary) => {
                    self.level.fresh_as_of(facts.lsn)
                }
                _ => None,
            };
        }
    }

    /// Derives one member's freshness and lag from the samples.
    fn refresh(&mut self, index: usize, now: Instant) -> Option<Event> {
        let state = self.states.get_mut(index)?;
        let facts = state.facts?;
        if state.role != Some(Role::Secondary) {
            state.fresh_as_of = None;
            state.lag = Lag::default();
            self.behind[index] = false;
            return None;
        }
        if !state.health.is_good() {
            return None;
        }
        // A secondary that has not followed the primary to its timeline may hold another history.
        let follows = self
            .source
            .is_some_and(|(_, timeline)| facts.timeline >= timeline);
        let fresh = if follows {
            self.samples.fresh_as_of(facts.lsn)
        } else {
            None
        };
        state.fresh_as_of = state.fresh_as_of.max(fresh);
        let latest = self.samples.latest().filter(|_| follows);
        let caught_up = latest.is_some_and(|latest| facts.lsn >= latest);
        state.lag = Lag {
            bytes: latest.map(|latest| latest.saturating_sub(facts.lsn)),
            time: match state.fresh_as_of {
                _ if caught_up => Some(Duration::ZERO),
                Some(fresh) => Some(now.saturating_duration_since(fresh)),
                None => facts.replay_age,
            },
        };
        let reference = state
            .fresh_as_of
            .max(state.level_as_of)
            .max(state.good_since)?;
        let behind = !caught_up && now.saturating_duration_since(reference) > self.max_staleness;
        let was_behind = std::mem::replace(&mut self.behind[index], behind);
        match (was_behind, behind) {
            (false, true) => Some(Event::StoppedReplaying(index)),
            (true, false) => Some(Event::CaughtUp(index)),
            _ => None,
        }
    }
}

fn smooth(old: Duration, new: Duration) -> Duration {
    old.mul_f64(1.0 - RTT_WEIGHT) + new.mul_f64(RTT_WEIGHT)
}

/// What to tell of a member's change.
fn transition(index: usize, old: &State, new: &State) -> Option<Event> {
    let (was_up, is_up) = (old.usable(), new.usable());
    if new.fence.is_some() && new.fence != old.fence {
        let why = new.fence.clone()?;
        return Some(Event::Fenced { index, why, was_up });
    }
    let why = || Arc::from(new.why_out().unwrap_or("its role is not known"));
    match (was_up, is_up) {
        (false, true) => Some(Event::Up(index)),
        (true, false) => Some(Event::Down(index, why())),
        (true, true) => None,
        // From doubt to certainty is no news, and a wait will tell how it ends.
        (false, false) => match (&old.health, &new.health) {
            (old, new) if old == new => None,
            (Health::Doubtful(_), Health::Down(_)) | (_, Health::Good | Health::Unknown(_)) => None,
            _ => Some(Event::Refused(index, why())),
        },
    }
}

#[cfg(test)]
mod tests;
