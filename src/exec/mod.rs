//! Runs plans over several shards: scatter, merge, combine on a hub.

pub mod array;
pub mod combine;
pub mod copy;
pub mod description;
pub mod merge;
pub mod replicate;
pub mod scatter;
pub mod walk;
