//! Tests that run real PostgreSQL servers.

mod launcher;
