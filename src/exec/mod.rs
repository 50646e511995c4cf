//! Runs plans over several shards: scatter and concatenate.

pub mod description;
pub mod scatter;
pub mod walk;
