//! Which member of a replica set serves a statement: the read-preference rules, without I/O.
//!
//! Candidates by mode, of them the fresh enough, of them the same zone, of them those within the latency
//! window, of them the less busy of two random picks (the rules of MongoDB's server selection and "the
//! power of two choices").

use std::time::{Duration, Instant};

use crate::config::ReadPreference;

/// Servers this much slower than the fastest still count as near.
pub const LATENCY_WINDOW: Duration = Duration::from_millis(15);

/// What a server last said it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts writes and won the election.
    Primary,
    /// Replays a primary's WAL.
    Secondary,
}

/// Whether a server may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its last probe succeeded.
    Good,
    /// The data path or a probe's timeout speaks against it; picked only when nothing better is left.
    LastResort,
    /// Never picked: down, fenced, not yet probed, or not the shard it should be.
    Out,
}

/// One member as the selection sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its role.
    pub role: Role,
    /// Whether it may be picked.
    pub standing: Standing,
    /// It is in the proxy's zone.
    pub local: bool,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// It has everything that the primary had committed by then.
    pub fresh_as_of: Option<Instant>,
    /// It has everything that the most advanced member had by then: what counts when no primary is known.
    pub level_as_of: Option<Instant>,
}

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// On the primary only: writes, and reads with `consistency: strong`.
    Primary,
    /// Wherever the read preference says.
    Read,
}

/// What a statement asks of a server.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Where it may run.
    pub access: Access,
    /// The preference among members, for [`Access::Read`].
    pub preference: ReadPreference,
    /// How far behind a secondary may be.
    pub max_staleness: Duration,
    /// When this session last wrote to the shard, if it must read its writes (taken after the commit's
    /// answer arrived).
    pub wrote_at: Option<Instant>,
}

impl Want {
    /// The primary.
    pub fn primary() -> Want {
        Want {
            access: Access::Primary,
            preference: ReadPreference::Primary,
            max_staleness: Duration::ZERO,
            wrote_at: None,
        }
    }

    /// Whether the primary may serve this at all.
    pub(super) fn allows_primary(&self) -> bool {
        self.access == Access::Primary || self.preference != ReadPreference::Secondary
    }

    /// Whether a secondary may serve this at all, ever.
    fn allows_secondary(&self) -> bool {
        self.access == Access::Read && self.preference != ReadPreference::Primary
    }
}

/// Whether a candidate is fresh enough; a primary always is.
fn is_fresh(candidate: &Candidate, want: &Want, now: Instant) -> bool {
    if candidate.role == Role::Primary {
        return true;
    }
    // A session's own write is proved only by the primary's position, never by another secondary's.
    if let Some(wrote_at) = want.wrote_at
        && candidate.fresh_as_of.is_none_or(|fresh| fresh <= wrote_at)
    {
        return false;
    }
    candidate
        .fresh_as_of
        .max(candidate.level_as_of)
        .is_some_and(|fresh| now.saturating_duration_since(fresh) <= want.max_staleness)
}

/// Picks a candidate, or none if no one may serve.
///
/// `in_flight(i)` is the number of operations candidate `i` works on; `random(n)` a number below `n`.
/// A member of [`Standing::LastResort`] is picked only if the rules find none of [`Standing::Good`], so
/// the last one left is never banned.
pub fn choose(
    candidates: &[Candidate],
    want: &Want,
    now: Instant,
    in_flight: impl Fn(usize) -> u32,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    [Standing::Good, Standing::LastResort]
        .into_iter()
        .find_map(|worst| {
            let allowed = |c: &Candidate| c.standing == Standing::Good || c.standing == worst;
            let primary = |c: &Candidate| allowed(c) && c.role == Role::Primary;
            let fresh = |c: &Candidate| allowed(c) && is_fresh(c, want, now);
            let secondary = |c: &Candidate| c.role == Role::Secondary && fresh(c);
            let mut nearest = |filter: &dyn Fn(&Candidate) -> bool| {
                pick(candidates, filter, &in_flight, &mut random)
            };
            if !want.allows_secondary() {
                return nearest(&primary);
            }
            match want.preference {
                ReadPreference::Primary => nearest(&primary),
                ReadPreference::PrimaryPreferred => {
                    nearest(&primary).or_else(|| nearest(&secondary))
                }
                // The primary is no candidate, except to a session that must see its own write.
                ReadPreference::Secondary => {
                    nearest(&secondary).or_else(|| want.wrote_at.and_then(|_| nearest(&primary)))
                }
                ReadPreference::SecondaryPreferred => {
                    nearest(&secondary).or_else(|| nearest(&primary))
                }
                ReadPreference::Nearest => nearest(&fresh),
            }
        })
}

/// The last three rules: zone, latency window, the less busy of two.
fn pick(
    candidates: &[Candidate],
    filter: &dyn Fn(&Candidate) -> bool,
    in_flight: &impl Fn(usize) -> u32,
    random: &mut impl FnMut(usize) -> usize,
) -> Option<usize> {
    let local = candidates.iter().any(|c| c.local && filter(c));
    let in_zone = |c: &&Candidate| (c.local || !local) && filter(c);
    let fastest = candidates.iter().filter(in_zone).map(|c| c.rtt).min()?;
    let near = || {
        candidates
            .iter()
            .enumerate()
            .filter(|(_, c)| in_zone(c) && c.rtt <= fastest.saturating_add(LATENCY_WINDOW))
            .map(|(index, _)| index)
    };
    let count = near().count();
    if count < 2 {
        return near().next();
    }
    let first = random(count);
    let mut second = random(count - 1);
    if second >= first {
        second += 1;
    }
    let (first, second) = (near().nth(first)?, near().nth(second)?);
    Some(if in_flight(second) < in_flight(first) {
        second
    } else {
        first
    })
}

#[cfg(test)]
mod tests;
