//! Tests that run real PostgreSQL servers.
