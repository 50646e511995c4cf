//! One server connection: dial, login, state, settings, prepared statements.

pub mod cancel;
pub mod dial;
mod login;
