//! Intermediate relations: from shards into a hub, and the messages that make them.
//!
//! Each intermediate relation is a temporary table of the hub's transaction. The shards send its rows in
//! binary format; a DataRow holds just what a tuple of a binary COPY holds, so that rows become COPY data
//! by another tag, unread. While the hub is behind, no shard is read.

pub mod load;
pub mod request;
