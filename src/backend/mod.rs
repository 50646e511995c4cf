//! One server connection: dial, login, state, settings, prepared statements.
