//! Cycles of transactions that wait for each other on different shards; pure.

use crate::sharding::ShardIndex;

/// A transaction that waits, or is waited for.
pub type Node = i64;

/// One transaction waits for another on a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who waits.
    pub waiter: Node,
    /// For whom.
    pub holder: Node,
    /// Where.
    pub shard: ShardIndex,
}

/// A cycle of waits that no shard sees whole; PostgreSQL itself ends those within one shard.
pub fn cycle(waits: &[Wait]) -> Option<Vec<Wait>> {
    let mut done = Vec::new();
    for first in waits {
        let mut path = vec![*first];
        if let Some(found) = follow(waits, &mut path, &mut done) {
            return Some(found);
        }
    }
    None
}

/// Goes on from the end of a path; `done` holds nodes from which no cycle was found.
fn follow(waits: &[Wait], path: &mut Vec<Wait>, done: &mut Vec<Node>) -> Option<Vec<Wait>> {
    let here = path.last()?.holder;
    if let Some(start) = path.iter().position(|wait| wait.waiter == here) {
        let found = path.get(start..)?;
        let first = found.first()?.shard;
        let is_spread = found.iter().any(|wait| wait.shard != first);
        return is_spread.then(|| found.to_vec());
    }
    if done.contains(&here) {
        return None;
    }
    for next in waits.iter().filter(|wait| wait.waiter == here) {
        path.push(*next);
        if let Some(found) = follow(waits, path, done) {
            return Some(found);
        }
        path.pop();
    }
    done.push(here);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waits(all: &[(Node, Node, ShardIndex)]) -> Vec<Wait> {
        let wait = |&(waiter, holder, shard)| Wait {
            waiter,
            holder,
            shard,
        };
        all.iter().map(wait).collect()
    }

    #[test]
    fn only_cycles_over_several_shards_are_found() {
        assert_eq!(cycle(&waits(&[(1, 2, 0), (2, 3, 1)])), None);
        assert_eq!(cycle(&waits(&[(1, 2, 0), (2, 1, 0)])), None);
        let two = waits(&[(1, 2, 0), (2, 1, 1)]);
        assert_eq!(cycle(&two), Some(two));
        let three = waits(&[(9, 1, 0), (1, 2, 0), (2, 3, 0), (3, 1, 1), (2, 8, 0)]);
        assert_eq!(cycle(&three).map(|found| found.len()), Some(3));
    }

    proptest! {
        #[test]
        fn what_is_found_is_a_cycle(
            all in proptest::collection::vec((0i64..6, 0i64..6, 0usize..3), 0..14),
        ) {
            let all = waits(&all);
            if let Some(found) = cycle(&all) {
                for (at, wait) in found.iter().enumerate() {
                    prop_assert!(all.contains(wait));
                    prop_assert_eq!(wait.holder, found[(at + 1) % found.len()].waiter);
                }
            }
        }
    }
}
