//! The error that a client can be shown: SQLSTATE, message, DETAIL and HINT in PostgreSQL's style.

use std::borrow::Cow;
use std::fmt;

use crate::sqlstate::SqlState;

/// Text of an error field: borrowed when constant.
pub type Text = Cow<'static, str>;

/// The result of anything that can end in an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether the session survives the error (PostgreSQL documentation, 55.8, field `S`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement fails, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// The word PostgreSQL prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// An error with the SQLSTATE chosen where it arose. One pointer wide.
#[derive(Clone)]
pub struct Error(Box<Fields>);

/// The fields of an [`Error`].
#[derive(Clone, Debug)]
pub struct Fields {
    /// Whether the session survives.
    pub severity: Severity,
    /// The SQLSTATE.
    pub code: SqlState,
    /// The primary message: lower case, no full stop.
    pub message: Text,
    /// Why, in whole sentences.
    pub detail: Option<Text>,
    /// What to do instead, in whole sentences.
    pub hint: Option<Text>,
    /// 1-based character offset into the statement.
    pub position: Option<u32>,
    /// Where it happened (field `W`).
    pub context: Option<Text>,
}

impl Error {
    /// An error that leaves the session alive.
    pub fn new(code: SqlState, message: impl Into<Text>) -> Error {
        Error(Box::new(Fields {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
        }))
    }

    /// An error that ends the session.
    pub fn fatal(code: SqlState, message: impl Into<Text>) -> Error {
        let mut error = Error::new(code, message);
        error.0.severity = Severity::Fatal;
        error
    }

    /// The same error, ending the session.
    pub fn into_fatal(mut self) -> Error {
        self.0.severity = Severity::Fatal;
        self
    }

    /// A statement that is refused before anything happened (`0A000`): why, and what to write instead.
    pub fn refused(
        message: impl Into<Text>,
        detail: impl Into<Text>,
        hint: impl Into<Text>,
    ) -> Error {
        Error::new(SqlState::FEATURE_NOT_SUPPORTED, message)
            .detail(detail)
            .hint(hint)
    }

    /// A message that breaks the protocol (`08P01`). PostgreSQL ends the session for these.
    pub fn protocol(message: impl Into<Text>) -> Error {
        Error::fatal(SqlState::PROTOCOL_VIOLATION, message)
    }

    /// Adds the DETAIL.
    pub fn detail(mut self, detail: impl Into<Text>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the HINT.
    pub fn hint(mut self, hint: impl Into<Text>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the 1-based character position in the statement.
    pub fn position(mut self, position: u32) -> Error {
        self.0.position = Some(position);
        self
    }

    /// Adds the CONTEXT.
    pub fn context(mut self, context: impl Into<Text>) -> Error {
        self.0.context = Some(context.into());
        self
    }

    /// The fields, to write or compare.
    pub fn fields(&self) -> &Fields {
        &self.0
    }

    /// The SQLSTATE.
    pub fn code(&self) -> SqlState {
        self.0.code
    }

    /// Whether the session must end.
    pub fn is_fatal(&self) -> bool {
        self.0.severity == Severity::Fatal
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &self.0;
        write!(
            f,
            "{}: {} ({})",
            fields.severity.as_str(),
            fields.message,
            fields.code
        )?;
        if let Some(detail) = &fields.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &fields.hint {
            write!(f, " {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}
