//! Runs plans over several shards: scatter, and merge.

pub mod description;
pub mod merge;
pub mod scatter;
pub mod walk;
