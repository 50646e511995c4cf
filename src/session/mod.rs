//! One client: handshake, login, protocol state, prepared statements, settings, reply.

pub mod handshake;
pub mod login;
