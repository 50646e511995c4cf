//! Key values, hashes, slots: from a shard key to its shard; pure.
