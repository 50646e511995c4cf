//! One server connection: dial, login, state, settings, prepared statements.

pub mod cancel;
pub mod connection;
pub mod dial;
mod login;
pub mod member;
pub mod principal;
pub mod report;
pub mod settings;
