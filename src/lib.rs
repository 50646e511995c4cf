//! Shardwire: a stateless PostgreSQL wire-compatible sharding proxy.
//!
//! The modules stand in the order of a query's path, top to bottom; each uses only those below it
//! (`integration/tidy.rs` holds the list, `src/README.md` explains it).

pub mod demo;
pub mod proxy;

pub mod session;

pub mod admin;

pub mod exec;

pub mod txn;

pub mod topology;

pub mod pool;

pub mod backend;

pub mod net;

pub mod plan;

pub mod catalog;

pub mod sql;

pub mod sharding;

pub mod auth;
pub mod wire;

pub mod config;
pub mod metrics;

pub mod error;
pub mod sqlstate;
