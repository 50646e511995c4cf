//! What a statement does to its session once it has completed; pure.

use crate::sql::statement::{
    CopyDirection, CopyEndpoint, DiscardTarget, IsolationLevel, Maintenance, ResetTarget, SetScope,
    SetValue, Statement, TransactionModes,
};
use crate::sql::token::slice;

/// What a statement does to its session once it has completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// `SET name`: the statement that repeats it, and its value as written.
    Set {
        /// Whether it ends with the transaction.
        local: bool,
        /// The setting.
        name: String,
        /// The statement that sets it again.
        statement: String,
        /// The value as written.
        value: String,
    },
    /// `RESET name`, `SET name TO DEFAULT`.
    Reset {
        /// Whether it ends with the transaction.
        local: bool,
        /// The setting.
        name: String,
    },
    /// `RESET name` of a setting that the startup packet named, sent as the SET that gives it that
    /// value; the client expects the tag of what it wrote.
    Reverted(String),
    /// Several settings at once.
    Several(Vec<Effect>),
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`: as a new session.
    DiscardAll,
    /// `DISCARD TEMP`.
    DiscardTemporary,
    /// `PREPARE` of this name.
    Prepared(String),
    /// `LISTEN`, sent as an UNLISTEN; the client expects the tag of what it wrote.
    Listen(String),
    /// `UNLISTEN`, of one channel or of all.
    Unlisten(Option<String>),
    /// `DEALLOCATE`, of one statement or of all.
    Deallocate(Option<String>),
    /// `SET TRANSACTION`, as written.
    Modes {
        /// The statement.
        statement: String,
        /// All statements of the transaction share a snapshot from now on.
        shares_snapshot: bool,
    },
    /// `SET CONSTRAINTS`, as written.
    Constraints(String),
    /// `DECLARE`: where the cursor is.
    Declare {
        /// The cursor.
        name: String,
        /// It outlives its transaction.
        hold: bool,
    },
    /// `CLOSE` of one cursor or of all.
    Close(Option<String>),
    /// `SAVEPOINT`.
    Savepoint(String),
    /// `ROLLBACK TO`.
    RollbackTo(String),
    /// `RELEASE`.
    Release(String),
    /// `BEGIN`; ReadyForQuery tells the rest.
    Begin,
    /// `COPY … FROM STDIN`: what the client sends next is data.
    CopyIn,
    /// `COMMIT` or `ROLLBACK`; the tag tells which it was in the end.
    End,
    /// A definition has changed: the catalogue must be read again.
    Schema,
    /// The session has state on this connection that can't be moved to another.
    Pin,
}

impl Effect {
    /// Whether the connection must stay with the session.
    pub fn pins(&self) -> bool {
        matches!(self, Effect::Pin | Effect::Declare { hold: true, .. })
    }

    /// Whether it may give all statements of the transaction one snapshot, other than SET TRANSACTION.
    pub fn may_share_snapshot(&self) -> bool {
        matches!(self, Effect::Set { name, .. } if name == "transaction_isolation")
    }

    /// The effects of a statement of `text`.
    pub fn of(statement: &Statement, text: &str) -> Effect {
        match statement {
            Statement::Set {
                scope,
                name,
                value,
                assignment,
            } => {
                let local = *scope == SetScope::Local;
                let name = name.clone();
                match value {
                    SetValue::Default => Effect::Reset { local, name },
                    // The value it has now is the value it keeps.
                    SetValue::Current => Effect::None,
                    SetValue::Text(range) => Effect::Set {
                        local,
                        name,
                        statement: format!("SET {}", slice(text, assignment.clone())),
                        value: slice(text, range.clone()).to_owned(),
                    },
                }
            }
            Statement::SetTransaction(modes) => Effect::Modes {
                statement: text.trim().trim_end_matches(';').to_owned(),
                shares_snapshot: modes.isolation.is_some_and(IsolationLevel::shares_snapshot),
            },
            Statement::SetConstraints => {
                Effect::Constraints(text.trim().trim_end_matches(';').to_owned())
            }
            Statement::SetSessionCharacteristics(modes) => Effect::Several(characteristics(modes)),
            Statement::Reset(ResetTarget::Name(name)) => Effect::Reset {
                local: false,
                name: name.clone(),
            },
            Statement::Reset(ResetTarget::All) => Effect::ResetAll,
            Statement::Discard(DiscardTarget::All) => Effect::DiscardAll,
            Statement::Discard(DiscardTarget::Temporary) => Effect::DiscardTemporary,
            Statement::Deallocate(name) => Effect::Deallocate(name.clone()),
            Statement::Savepoint(name) => Effect::Savepoint(name.clone()),
            Statement::RollbackTo(name) => Effect::RollbackTo(name.clone()),
            Statement::Release(name) => Effect::Release(name.clone()),
            Statement::Begin(_) => Effect::Begin,
            Statement::Copy(copy)
                if copy.direction == CopyDirection::From
                    && copy.endpoint == CopyEndpoint::Client =>
            {
                Effect::CopyIn
            }
            Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::PrepareTransaction => Effect::End,
            Statement::Prepare { name, .. } => Effect::Prepared(name.clone()),
            Statement::Listen(channel) => Effect::Listen(channel.clone()),
            Statement::Unlisten(channel) => Effect::Unlisten(channel.clone()),
            Statement::Declare { name, hold, .. } => Effect::Declare {
                name: name.clone(),
                hold: *hold,
            },
            Statement::CloseCursor(name) => Effect::Close(name.clone()),
            Statement::Ddl(ddl) if ddl.temporary => Effect::Pin,
            Statement::Query(query) if query.into.is_some() => Effect::Pin,
            Statement::Ddl(_) => Effect::Schema,
            Statement::Maintenance(Maintenance::Load) => Effect::Pin,
            _ => Effect::None,
        }
    }

    /// The tag that the client expects where the server got another statement than it wrote.
    pub fn tag(&self) -> Option<&'static str> {
        match self {
            Effect::Reverted(_) => Some("RESET"),
            Effect::Listen(_) => Some("LISTEN"),
            _ => None,
        }
    }
}

/// The settings that `SET SESSION CHARACTERISTICS AS TRANSACTION` makes.
fn characteristics(modes: &TransactionModes) -> Vec<Effect> {
    let isolation = modes
        .isolation
        .map(|level| ("isolation", format!("'{}'", level.as_str())));
    let read_only = modes.read_only.map(|on| ("read_only", on.to_string()));
    let deferrable = modes.deferrable.map(|on| ("deferrable", on.to_string()));
    [isolation, read_only, deferrable]
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let name = format!("default_transaction_{name}");
            let statement = format!("SET {name} = {value}");
            Effect::Set {
                local: false,
                name,
                statement,
                value,
            }
        })
        .collect()
}
