//! A small set of shards.

use std::fmt;

use smallvec::SmallVec;

use crate::sharding::ShardIndex;

/// A set of shards of one database. Up to 128 shards take no allocation.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ShardSet {
    /// Bit `i % 64` of word `i / 64`; the last word is not zero, so that equal sets are equal.
    words: SmallVec<[u64; 2]>,
}

impl ShardSet {
    /// The empty set.
    pub fn new() -> ShardSet {
        ShardSet::default()
    }

    /// The shards `0..count`.
    pub fn all(count: usize) -> ShardSet {
        (0..count).collect()
    }

    /// Adds a shard; false if it was there already.
    pub fn insert(&mut self, shard: ShardIndex) -> bool {
        let (word, bit) = (shard / 64, 1 << (shard % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        match self.words.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    /// Adds the shards of another set.
    pub fn union(&mut self, other: &ShardSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Keeps only the shards that the other set has too.
    pub fn intersect(&mut self, other: &ShardSet) {
        self.words.truncate(other.words.len());
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= theirs;
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Whether the shard is in the set.
    pub fn contains(&self, shard: ShardIndex) -> bool {
        self.words
            .get(shard / 64)
            .is_some_and(|word| word & (1 << (shard % 64)) != 0)
    }

    /// Number of shards.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether no shard is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The shard, if there is exactly one.
    pub fn single(&self) -> Option<ShardIndex> {
        let mut shards = self.iter();
        let first = shards.next()?;
        shards.next().is_none().then_some(first)
    }

    /// The shards in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            std::iter::successors((word != 0).then_some(word), |rest| {
                let rest = rest & (rest - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }
}

impl FromIterator<ShardIndex> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardIndex>>(shards: I) -> ShardSet {
        let mut set = ShardSet::new();
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

impl Extend<ShardIndex> for ShardSet {
    fn extend<I: IntoIterator<Item = ShardIndex>>(&mut self, shards: I) {
        for shard in shards {
            self.insert(shard);
        }
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn single_means_exactly_one() {
        assert_eq!(ShardSet::new().single(), None);
        assert_eq!(ShardSet::from_iter([300]).single(), Some(300));
        assert_eq!(ShardSet::from_iter([3, 3]).single(), Some(3));
        assert_eq!(ShardSet::from_iter([0, 64]).single(), None);
        assert_eq!(ShardSet::all(0).len(), 0);
        assert_eq!(ShardSet::all(65).len(), 65);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in prop::collection::vec(0..300_usize, 0..20), b in prop::collection::vec(0..300_usize, 0..20)) {
            let (set_a, set_b) = (ShardSet::from_iter(a.iter().copied()), ShardSet::from_iter(b.iter().copied()));
            let (tree_a, tree_b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(set_a.iter().collect::<Vec<_>>(), tree_a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set_a.len(), tree_a.len());
            prop_assert_eq!(set_a == set_b, tree_a == tree_b);
            let mut union = set_a.clone();
            union.union(&set_b);
            prop_assert_eq!(union, tree_a.union(&tree_b).copied().collect::<ShardSet>());
            let mut common = set_a.clone();
            common.intersect(&set_b);
            prop_assert_eq!(common, tree_a.intersection(&tree_b).copied().collect::<ShardSet>());
            prop_assert!((0..300).all(|shard| set_a.contains(shard) == tree_a.contains(&shard)));
        }
    }
}
