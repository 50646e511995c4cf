//! What a statement does to the state of the server connection it runs on.

use std::fmt;
use std::ops::BitOr;
use std::ops::BitOrAssign;

/// A set of uses of session state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SessionUse(u16);

impl SessionUse {
    /// None.
    pub const NONE: SessionUse = SessionUse(0);
    /// It leaves state behind that only this connection has (session advisory locks, temporary
    /// tables, `WITH HOLD` cursors, `LOAD`): the session must keep the connection.
    pub const PINS: SessionUse = SessionUse(1);
    /// It calls `set_config`: the connection's settings are no longer known.
    pub const SET_CONFIG: SessionUse = SessionUse(2);
    /// It draws from a sequence: `currval` and `lastval` of this connection change.
    pub const DRAWS_SEQUENCE: SessionUse = SessionUse(4);
    /// It asks `currval` or `lastval`: it must run where the session last drew from a sequence.
    pub const READS_SEQUENCE: SessionUse = SessionUse(8);
    /// It makes temporary tables (comes with [`SessionUse::PINS`]): from now on
    /// [`Request::temporary_tables`](crate::plan::Request::temporary_tables) holds.
    pub const TEMPORARY_TABLES: SessionUse = SessionUse(16);
    /// It holds what a two-phase commit can't take along (`NOTIFY`, temporary objects, `WITH HOLD`).
    pub const NOT_PREPARABLE: SessionUse = SessionUse(32);
    /// It needs the primary, but only to lock: it changes no rows and nothing that others see.
    pub const ONLY_LOCKS: SessionUse = SessionUse(64);
    /// It tells other sessions at commit: `NOTIFY`, `pg_notify`.
    pub const NOTIFIES: SessionUse = SessionUse(128);
    /// It asks which channels the session listens to.
    pub const ASKS_CHANNELS: SessionUse = SessionUse(256);
    /// It calls `setval`: numbers that were taken ahead are void.
    pub const SETS_SEQUENCE: SessionUse = SessionUse(512);
    /// It names a relation that the catalogue does not know: somebody may just have made it.
    pub const UNKNOWN_NAMES: SessionUse = SessionUse(1024);

    /// It has sequences start anew when its transaction is committed: nobody else sees it before.
    pub const RESTARTS_SEQUENCE: SessionUse = SessionUse(2048);
    /// A server that runs it may draw from a sequence for it: by a default, a trigger, a function.
    pub const MAY_DRAW: SessionUse = SessionUse(4096);

    /// Whether every use in `other` is in this set.
    pub fn contains(self, other: SessionUse) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without those in `other`.
    pub fn without(self, other: SessionUse) -> SessionUse {
        SessionUse(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for SessionUse {
    type Output = SessionUse;

    fn bitor(self, other: SessionUse) -> SessionUse {
        SessionUse(self.0 | other.0)
    }
}

impl BitOrAssign for SessionUse {
    fn bitor_assign(&mut self, other: SessionUse) {
        self.0 |= other.0;
    }
}

impl fmt::Display for SessionUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (SessionUse::PINS, "pins"),
            (SessionUse::SET_CONFIG, "set_config"),
            (SessionUse::DRAWS_SEQUENCE, "draws sequence"),
            (SessionUse::READS_SEQUENCE, "reads sequence"),
            (SessionUse::SETS_SEQUENCE, "sets sequence"),
            (SessionUse::RESTARTS_SEQUENCE, "restarts sequence"),
            (SessionUse::TEMPORARY_TABLES, "temporary tables"),
            (SessionUse::NOT_PREPARABLE, "not preparable"),
            (SessionUse::ONLY_LOCKS, "only locks"),
            (SessionUse::NOTIFIES, "notifies"),
            (SessionUse::ASKS_CHANNELS, "asks channels"),
            (SessionUse::UNKNOWN_NAMES, "unknown names"),
        ];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(flag, _)| self.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Debug for SessionUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionUse({self})")
    }
}
