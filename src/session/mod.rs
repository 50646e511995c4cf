//! One client: handshake, login, protocol state, prepared statements, settings, reply.
