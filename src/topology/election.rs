//! Which of a replica set's writable servers is the primary, and which are fenced off; without I/O.

/// A server that says it accepts writes.
#[derive(Clone, Copy, Debug)]
pub struct Writable {
    /// Its index in the replica set.
    pub index: usize,
    /// Its timeline: each promotion starts a higher one.
    pub timeline: u32,
    /// `pg_control_system().system_identifier`, the same for all copies of one cluster.
    pub system: u64,
    /// The configuration names it as the primary.
    pub hinted: bool,
}

/// Why a writable server gets no queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another member is on a higher timeline: this one missed a failover.
    OldTimeline {
        /// The higher timeline.
        current: u32,
    },
    /// Another writable member is on the same timeline, so neither is known to be right.
    SameTimeline,
    /// Another writable member belongs to another cluster.
    OtherSystem,
}

impl Fence {
    /// For a log line, an error's DETAIL and `check`.
    pub fn describe(self) -> String {
        match self {
            Fence::OldTimeline { current } => format!(
                "accepts writes on an old timeline (the shard is on timeline {current}); fenced off until it follows the primary, or until the proxy is reloaded if the shard was restored from a backup"
            ),
            Fence::SameTimeline => "accepts writes as another server of this shard does, on the same timeline; fenced off until one of them is stopped or named under \"primary\"".to_owned(),
            Fence::OtherSystem => "accepts writes but belongs to another PostgreSQL cluster than another writable server of this shard; fenced off until one of them is removed or named under \"primary\"".to_owned(),
        }
    }
}

/// The outcome: at most one primary, everyone else fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Election {
    /// The index of the primary.
    pub primary: Option<usize>,
    /// The indexes of the writable servers that must not be used.
    pub fenced: Vec<(usize, Fence)>,
}

/// Elects the primary of one replica set.
///
/// `highest` is the highest timeline known of any member of a cluster (`(system, timeline)`), also of
/// members that can't be reached now: a server that missed a failover stays fenced although its successor
/// is away. Every proxy comes to the same answer from the same facts.
pub fn elect(writable: &[Writable], highest: Option<(u64, u32)>) -> Election {
    let mut election = Election::default();
    let Some(first) = writable.first() else {
        return election;
    };
    let hinted: Vec<&Writable> = writable.iter().filter(|w| w.hinted).collect();
    let one_system = writable.iter().all(|w| w.system == first.system);
    let rivals: Vec<Writable> = if one_system {
        let top = writable.iter().map(|w| w.timeline).max().unwrap_or(0);
        let current = match highest {
            Some((system, timeline)) if system == first.system => top.max(timeline),
            _ => top,
        };
        let old = writable.iter().filter(|w| w.timeline < current);
        election
            .fenced
            .extend(old.map(|w| (w.index, Fence::OldTimeline { current })));
        let at_top = writable.iter().filter(|w| w.timeline == current);
        at_top.copied().collect()
    } else {
        writable.to_vec()
    };
    let conflict = if one_system {
        Fence::SameTimeline
    } else {
        Fence::OtherSystem
    };
    election.primary = match (rivals.as_slice(), hinted.as_slice()) {
        ([only], _) => Some(only.index),
        (_, [hinted]) if rivals.iter().any(|r| r.index == hinted.index) => Some(hinted.index),
        _ => None,
    };
    let losers = rivals.iter().filter(|r| Some(r.index) != election.primary);
    election.fenced.extend(losers.map(|r| (r.index, conflict)));
    election
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writable(index: usize, timeline: u32) -> Writable {
        Writable {
            index,
            timeline,
            system: 1,
            hinted: false,
        }
    }

    #[test]
    fn one_writable_server_is_the_primary() {
        assert_eq!(elect(&[writable(2, 5)], None).primary, Some(2));
        assert_eq!(elect(&[], Some((1, 3))), Election::default());
    }

    #[test]
    fn the_higher_timeline_wins_over_the_hint() {
        let old = Writable {
            hinted: true,
            ..writable(0, 1)
        };
        let election = elect(&[old, writable(1, 2)], None);
        assert_eq!(election.primary, Some(1));
        assert_eq!(election.fenced, [(0, Fence::OldTimeline { current: 2 })]);
    }

    #[test]
    fn an_old_timeline_stays_fenced_while_its_successor_is_away() {
        let election = elect(&[writable(0, 1)], Some((1, 2)));
        assert_eq!(election.primary, None);
        assert_eq!(election.fenced, [(0, Fence::OldTimeline { current: 2 })]);
    }

    #[test]
    fn a_rebuilt_cluster_starts_at_a_low_timeline() {
        assert_eq!(elect(&[writable(0, 1)], Some((99, 7))).primary, Some(0));
    }

    #[test]
    fn equal_timelines_need_a_hint() {
        let both = [writable(0, 3), writable(1, 3)];
        let election = elect(&both, None);
        assert_eq!(election.primary, None);
        assert_eq!(election.fenced.len(), 2);
        let hinted = Writable {
            hinted: true,
            ..writable(1, 3)
        };
        let election = elect(&[writable(0, 3), hinted], None);
        assert_eq!(election.primary, Some(1));
        assert_eq!(election.fenced, [(0, Fence::SameTimeline)]);
    }

    #[test]
    fn timelines_of_different_clusters_do_not_compare() {
        let foreign = Writable {
            system: 2,
            ..writable(1, 9)
        };
        assert_eq!(elect(&[writable(0, 1), foreign], None).primary, None);
        let hinted = Writable {
            hinted: true,
            ..writable(0, 1)
        };
        let election = elect(&[hinted, foreign], None);
        assert_eq!(election.primary, Some(0));
        assert_eq!(election.fenced, [(1, Fence::OtherSystem)]);
    }
}
