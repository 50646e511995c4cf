//! Key values, hashes, slots: from a shard key to its shard; pure.
//!
//! ```text
//! literal or parameter ── key, input, numeric, datetime ──▶ Key ── placement, hash ──▶ slot ──▶ shard
//! ```
//!
//! The golden rule is *never a wrong shard*. A [`Key`] is made only when the value that PostgreSQL
//! compares or stores is known exactly, and two values that PostgreSQL holds equal make equal keys
//! (`1.0` and `1.00`, `bpchar` with and without trailing blanks). Whatever depends on a setting, a
//! rounding or input syntax beyond the common forms is [`KeyError::Unprovable`].
//!
//! Text keys are UTF-8 on every server and have a deterministic collation; the catalog refuses others.

mod column;
mod datetime;
mod hash;
mod input;
mod key;
mod numeric;
mod placement;
mod shard_set;

pub use column::ColumnType;
pub use column::KeyType;
pub use key::Format;
pub use key::Key;
pub use key::KeyBytes;
pub use key::KeyError;
pub use key::KeyUse;
pub use key::LiteralKind;
pub use numeric::Numeric;
pub use placement::KeyColumn;
pub use placement::Placement;
pub use shard_set::ShardSet;

/// Index of a shard in [`crate::config::Database::shards`].
pub type ShardIndex = usize;

/// Number of hash slots that the shards of a database share.
pub const SLOTS: u32 = crate::config::SLOTS as u32;

/// PostgreSQL's extended hash of a key with a seed: `hashint8extended`, `hashtextextended`,
/// `uuid_hash_extended` and so on, by the type of the key.
pub fn hash_extended(key: &Key, seed: u64) -> u64 {
    key.hash_extended(seed)
}

#[cfg(test)]
mod tests;
