//! The names of transactions over several shards, and of what each shard prepares for them; pure.
//!
//! ```text
//! transaction   shardwire_<cluster>_<32 hex digits>
//! prepared      shardwire_<cluster>_<32 hex digits>_<participant>_<deciding shard>
//! ```
//!
//! The first eight digits are of the md5 hash of the role that commits: `shardwire.decisions` takes a commit from no
//! other, so that no role can decide about another's transaction. The rest are random.
//!
//! The cluster is the one of `shardwire.shard`, so that two clusters that share a server never take each
//! other's for theirs; the number of the participant keeps two shards that share a server apart; the
//! deciding shard's name, which may hold anything, stands last.

use std::fmt;

use md5::{Digest, Md5};

/// What all names begin with.
const PREFIX: &str = "shardwire_";

/// Bytes of a prepared transaction's name at most (`GIDSIZE` of PostgreSQL, with its end).
const LARGEST_NAME_BYTES: usize = 199;

/// A transaction over several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gid {
    cluster: String,
    id: u128,
}

/// What one shard has prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The transaction it is of.
    pub gid: Gid,
    /// Which of the transaction's participants it is.
    pub participant: usize,
    /// The shard that decides.
    pub decider: String,
}

impl Gid {
    /// Names a transaction of a role in a cluster; of `random` 96 bits count.
    pub fn of_role(cluster: &str, role: &str, random: u128) -> Gid {
        let [a, b, c, d, ..] = Md5::digest(role).0;
        let mark = u128::from(u32::from_be_bytes([a, b, c, d]));
        Gid::new(cluster, mark << 96 | random >> 32)
    }

    /// Names a transaction of a cluster by its number.
    pub fn new(cluster: &str, id: u128) -> Gid {
        Gid {
            cluster: cluster.to_owned(),
            id,
        }
    }

    /// Its number.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// The key of an advisory lock that the deciding shard holds from the first moment of the commit, so
    /// that whoever would decide otherwise waits until it has decided or is gone.
    pub fn fence(&self) -> i64 {
        let [.., a, b, c, d, e, f, g, h] = self.id.to_be_bytes();
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_{:032x}", self.cluster, self.id)
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.gid, self.participant, self.decider)
    }
}

impl Branch {
    /// Reads the name of a prepared transaction; none if it is not one of ours.
    pub fn read(name: &str) -> Option<Branch> {
        let (cluster, rest) = name.strip_prefix(PREFIX)?.split_once('_')?;
        let (id, rest) = rest.split_once('_')?;
        let (participant, decider) = rest.split_once('_')?;
        let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let branch = Branch {
            gid: Gid::new(cluster, u128::from_str_radix(id, 16).ok()?),
            participant: participant.parse().ok()?,
            decider: decider.to_owned(),
        };
        // Only what we would have written ourselves.
        (is_hex && branch.to_string() == name).then_some(branch)
    }

    /// Whether PostgreSQL takes its name.
    pub fn fits(&self) -> bool {
        self.to_string().len() <= LARGEST_NAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_our_own_names_are_read() {
        let name = "shardwire_a-b_00000000000000000000000000000001_2_s_1";
        let branch = Branch::read(name).unwrap();
        assert_eq!((branch.participant, &*branch.decider), (2, "s_1"));
        assert_eq!(branch.gid, Gid::new("a-b", 1));
        assert!(branch.fits());
        for other in [
            "",
            "shardwire",
            "shardwire:1:2",
            "shardwire_a_1_2_s1",
            "shardwire_a_0000000000000000000000000000000G_2_s1",
            "shardwire_a_+0000000000000000000000000000001_2_s1",
            "shardwire_a_00000000000000000000000000000001_02_s1",
            "shardwire_a_00000000000000000000000000000001_x_s1",
            "other_a_00000000000000000000000000000001_2_s1",
        ] {
            assert_eq!(Branch::read(other), None, "{other}");
        }
    }

    #[test]
    fn names_tell_the_role() {
        let gid = Gid::of_role("a", "alice", 7 << 32);
        // SELECT left(md5('alice'), 8)
        assert_eq!(
            gid.to_string(),
            "shardwire_a_6384e2b2000000000000000000000007"
        );
    }

    proptest! {
        #[test]
        fn names_are_read_as_they_were_written(
            cluster in "[0-9a-f-]{1,36}", id in any::<u128>(), participant in 0usize..64,
            decider in ".{1,20}",
        ) {
            let branch = Branch { gid: Gid::new(&cluster, id), participant, decider };
            prop_assert_eq!(Branch::read(&branch.to_string()), Some(branch));
        }

        #[test]
        fn anything_is_read_or_not(name in ".{0,80}") {
            let _ = Branch::read(&name);
        }
    }
}
