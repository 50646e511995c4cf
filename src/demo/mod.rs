//! Throw-away PostgreSQL clusters on this machine, and the e-commerce sample in one.

pub mod postgres;
