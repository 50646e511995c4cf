//! Tests that run real PostgreSQL servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a test that fails"
)]

mod access;
mod ahead;
mod casts;
mod catalog_queries;
mod change;
mod clients;
mod code;
mod combine;
mod commits;
mod configure;
mod console;
mod copy;
mod copy_defaults;
mod cores;
mod corpus;
mod create_as;
mod cursors;
mod ddl;
mod deadlocks;
mod demo;
mod differential;
mod documents;
mod domains;
mod drivers;
mod dump;
mod encodings;
mod errors;
mod executed;
mod faults;
mod feed;
mod gathered;
mod harness;
mod hostile;
mod implicit;
mod insert;
mod isolation;
mod kinds;
mod launcher;
mod leaks;
mod listen;
mod login;
mod materialized;
mod merge;
mod merge_into;
mod moments;
mod nested;
mod oids;
mod operators;
mod participants;
mod pipelines;
mod policies;
mod prepared;
mod processes;
mod queries;
mod replicas;
mod replicated;
mod reports;
mod restrict;
mod routines;
mod routing;
mod scatter;
mod sequences;
mod sessions;
mod settings;
mod shard_id;
mod sharding;
mod staged;
mod stale;
mod survival;
mod topology;
mod tpch;
mod transactions;
mod triggers;
mod units;
mod unlike;
mod vanishing;
mod view_writes;
mod views;
mod whole;
mod wire;
mod writes;
