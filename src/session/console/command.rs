//! What operators write: the PgBouncer console's commands, and the few statements that drivers send on
//! their own.

use crate::error::{Error, Result};
use crate::session::console::tables::View;
use crate::sql::lexer::tokenize;
use crate::sql::literal::{identifier_value, token_value};
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sqlstate::SqlState;

/// Settings that drivers make at the start of a session, of which nothing here depends.
const DRIVERS: [&str; 9] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "statement_timeout",
    "timezone",
];

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `SHOW HELP`.
    Help,
    /// `SHOW …`.
    Show(View),
    /// `PAUSE [db]`.
    Pause(Option<Name>),
    /// `RESUME [db]`.
    Resume(Option<Name>),
    /// `KILL [db]`.
    Kill(Option<Name>),
    /// `KILL_CLIENT id`.
    KillClient(i32),
    /// `RECONNECT [db]`.
    Reconnect(Option<Name>),
    /// `WAIT_CLOSE [db]`.
    WaitClose(Option<Name>),
    /// `DISABLE db`.
    Disable(Name),
    /// `ENABLE db`.
    Enable(Name),
    /// `RELOAD`.
    Reload,
    /// `SHUTDOWN`.
    ShutDown,
    /// `BEGIN`, `START TRANSACTION`.
    Begin(&'static str),
    /// `COMMIT`, `END`; `ROLLBACK`, `ABORT` (false).
    End(bool),
    /// A statement that drivers send and that changes nothing here: its tag.
    Nothing(&'static str),
    /// `SELECT 1`, with which pools ask whether a connection is alive.
    Select(i32),
}

/// A name as it was written, and as an identifier reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As written, quotes removed.
    pub written: String,
    /// In lower case unless quoted.
    pub folded: String,
}

impl Command {
    /// Whether only administrators may give it.
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Command::Help
                | Command::Show(_)
                | Command::Begin(_)
                | Command::End(_)
                | Command::Nothing(_)
                | Command::Select(_)
        )
    }

    /// Its command tag.
    pub fn tag(&self) -> &'static str {
        match self {
            Command::Help | Command::Show(_) => "SHOW",
            Command::Pause(_) => "PAUSE",
            Command::Resume(_) => "RESUME",
            Command::Kill(_) => "KILL",
            Command::KillClient(_) => "KILL_CLIENT",
            Command::Reconnect(_) => "RECONNECT",
            Command::WaitClose(_) => "WAIT_CLOSE",
            Command::Disable(_) => "DISABLE",
            Command::Enable(_) => "ENABLE",
            Command::Reload => "RELOAD",
            Command::ShutDown => "SHUTDOWN",
            Command::Begin(tag) | Command::Nothing(tag) => tag,
            Command::End(true) => "COMMIT",
            Command::End(false) => "ROLLBACK",
            Command::Select(_) => "SELECT 1",
        }
    }
}

/// The commands of a text, which semicolons divide.
///
/// # Errors
/// `42601` for what is no command, `0A000` for a command that is not supported.
pub fn parse(text: &str) -> Result<Vec<Command>> {
    let tokens = tokenize(text.as_bytes(), LexOptions::default())
        .map_err(|error| error.to_error(text.as_bytes()))?;
    tokens
        .split(|token| token.is_symbol(text, ";"))
        .filter(|tokens| !tokens.is_empty())
        .map(|tokens| Line { text, tokens }.command())
        .collect()
}

#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Line<'_> {
    fn word(&self, at: usize) -> String {
        let token = self.tokens.get(at);
        token.map_or_else(String::new, |token| {
            token.text(self.text).to_ascii_uppercase()
        })
    }

    fn command(&self) -> Result<Command> {
        let verb = self.word(0);
        match verb.as_str() {
            "SHOW" => self.show(),
            "PAUSE" => Ok(Command::Pause(self.optional_name()?)),
            "RESUME" => Ok(Command::Resume(self.optional_name()?)),
            "KILL" => Ok(Command::Kill(self.optional_name()?)),
            "RECONNECT" => Ok(Command::Reconnect(self.optional_name()?)),
            "WAIT_CLOSE" => Ok(Command::WaitClose(self.optional_name()?)),
            "DISABLE" => Ok(Command::Disable(self.name()?)),
            "ENABLE" => Ok(Command::Enable(self.name()?)),
            "KILL_CLIENT" => match self.word(1).parse() {
                Ok(id) if self.tokens.len() == 2 => Ok(Command::KillClient(id)),
                _ => Err(syntax("KILL_CLIENT takes the id that SHOW CLIENTS shows")),
            },
            "RELOAD" => self.alone(Command::Reload),
            "SHUTDOWN" => match self.word(1).as_str() {
                "" | "WAIT_FOR_SERVERS" | "WAIT_FOR_CLIENTS" if self.tokens.len() < 3 => {
                    Ok(Command::ShutDown)
                }
                _ => Err(self.unknown()),
            },
            "SUSPEND" => Err(Error::refused(
                "SUSPEND is not supported",
                "It stops the reading of sockets so that another process can take them over.",
                "Use PAUSE, or start another proxy beside this one and SHUTDOWN this one.",
            )),
            _ => self.of_drivers(&verb),
        }
    }

    /// What drivers and pools send without being asked to.
    fn of_drivers(&self, verb: &str) -> Result<Command> {
        let second = self.word(1);
        match (verb, second.as_str()) {
            ("BEGIN", _) => Ok(Command::Begin("BEGIN")),
            ("START", "TRANSACTION") => Ok(Command::Begin("START TRANSACTION")),
            ("COMMIT" | "END", _) => Ok(Command::End(true)),
            ("ROLLBACK" | "ABORT", "" | "WORK" | "TRANSACTION") => Ok(Command::End(false)),
            ("DISCARD", "ALL") => Ok(Command::Nothing("DISCARD ALL")),
            ("DEALLOCATE", _) => Ok(Command::Nothing("DEALLOCATE")),
            ("RESET", _) => Ok(Command::Nothing("RESET")),
            ("SET", _) => self.set(),
            ("SELECT", _) => match second.parse() {
                Ok(number) if self.tokens.len() == 2 => Ok(Command::Select(number)),
                _ => Err(self.unknown()),
            },
            _ => Err(self.unknown()),
        }
    }

    fn set(&self) -> Result<Command> {
        let mut name = self.word(1).to_ascii_lowercase();
        if matches!(name.as_str(), "session" | "local") {
            name = self.word(2).to_ascii_lowercase();
        }
        if DRIVERS.contains(&name.as_str()) || name == "time" {
            return Ok(Command::Nothing("SET"));
        }
        Err(Error::refused(
            format!("\"{name}\" can't be set in the console"),
            "The configuration is what its file says.",
            "Edit the file, then RELOAD.",
        ))
    }

    fn show(&self) -> Result<Command> {
        let noun = self.word(1);
        if self.tokens.len() > 2 {
            return Err(self.unknown());
        }
        match noun.as_str() {
            "HELP" => Ok(Command::Help),
            "FDS" => Err(Error::refused(
                "SHOW FDS is not supported",
                "No other process can take the sockets of this one over.",
                "Use SHOW SOCKETS.",
            )),
            noun => View::named(noun).map(Command::Show).ok_or_else(|| {
                let noun = noun.to_owned();
                Error::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("SHOW {noun} does not exist"),
                )
                .hint(format!("There are {}.", View::nouns()))
            }),
        }
    }

    fn alone(&self, command: Command) -> Result<Command> {
        match self.tokens.len() {
            1 => Ok(command),
            _ => Err(self.unknown()),
        }
    }

    fn optional_name(&self) -> Result<Option<Name>> {
        match self.tokens.len() {
            1 => Ok(None),
            _ => self.name().map(Some),
        }
    }

    fn name(&self) -> Result<Name> {
        let [_, token] = self.tokens else {
            return Err(syntax(format!(
                "{} takes the name of a database",
                self.word(0)
            )));
        };
        let of_string = token_value(self.text, token).filter(|_| token.kind.is_string());
        let folded = of_string.or_else(|| identifier_value(self.text, token));
        let folded = folded.ok_or_else(|| self.unknown())?.into_owned();
        let is_quoted = token.kind.is_quoted_identifier() || token.kind.is_string();
        let written = match is_quoted {
            true => folded.clone(),
            false => token.text(self.text).to_owned(),
        };
        Ok(Name { written, folded })
    }

    fn unknown(&self) -> Error {
        syntax(format!(
            "\"{}\" is not a command of the console",
            self.word(0)
        ))
        .hint("SHOW HELP lists them.")
    }
}

fn syntax(message: impl Into<crate::error::Text>) -> Error {
    Error::new(SqlState::SYNTAX_ERROR, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Command {
        let mut all = parse(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn commands_are_read_without_case() {
        assert_eq!(one("show stats;"), Command::Show(View::Stats));
        assert_eq!(one(" PAUSE "), Command::Pause(None));
        let Command::Pause(Some(name)) = one("pause Shop") else {
            panic!("no name");
        };
        assert_eq!((&*name.written, &*name.folded), ("Shop", "shop"));
        let Command::Kill(Some(name)) = one("KILL \"My Shop\"") else {
            panic!("no name");
        };
        assert_eq!((&*name.written, &*name.folded), ("My Shop", "My Shop"));
        assert_eq!(one("KILL_CLIENT 17"), Command::KillClient(17));
        assert_eq!(one("SHUTDOWN WAIT_FOR_CLIENTS"), Command::ShutDown);
        assert_eq!(one("SET extra_float_digits = 3"), Command::Nothing("SET"));
        assert_eq!(one("SELECT 1"), Command::Select(1));
        let several = parse("BEGIN; SHOW POOLS;; COMMIT").unwrap();
        assert_eq!(several.len(), 3);
        assert!(parse(" ; ").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        for (text, code) in [
            ("SELECT * FROM pg_class", SqlState::SYNTAX_ERROR),
            ("PAUSE a b", SqlState::SYNTAX_ERROR),
            ("DISABLE", SqlState::SYNTAX_ERROR),
            ("KILL_CLIENT x", SqlState::SYNTAX_ERROR),
            ("SHOW NONSENSE", SqlState::UNDEFINED_OBJECT),
            ("SHOW", SqlState::UNDEFINED_OBJECT),
            ("SUSPEND", SqlState::FEATURE_NOT_SUPPORTED),
            ("SET max_client_conn = 1", SqlState::FEATURE_NOT_SUPPORTED),
            ("SHOW 'x", SqlState::SYNTAX_ERROR),
        ] {
            assert_eq!(parse(text).unwrap_err().code(), code, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
