//! The protocol's bytes: frames and messages; pure.
//!
//! Source: PostgreSQL documentation, chapter 55 (Frontend/Backend Protocol).

pub mod authentication;
pub mod backend;
pub mod buffer;
pub mod format;
pub mod frame;
pub mod frontend;
pub mod oids;
pub mod startup;
pub mod whole;
