//! Runs plans: relays one shard, scatters over many.
