//! Settings that no module has defined, like `app.tenant`, as a client reads them.
//!
//! PostgreSQL makes such a setting when it is first named in SET or RESET, and the connection keeps the name
//! for good: what was reset or local is empty from then on. Connections go from client to client, so a name
//! may be there that this client has not made, and be missing where it has made it before. What holds for a
//! name that stands in SHOW, or in `current_setting` as a constant or parameter:
//! - If the client has made it, no value is an empty one.
//! - If it has not, an empty value is none, unless a module has defined the setting.
//! - Any other value is the server's: of postgresql.conf, of ALTER ROLE, of a module.
//!
//! A statement over several shards may ask for what the client has made and not reset, and for what servers agree in.
//!
//! What functions and policies read is for the server alone, and so is `current_setting` behind other
//! statements of its message, which may make the setting.

use std::collections::BTreeSet;

use crate::backend::settings::quote_literal;
use crate::error::{Error, Result};
use crate::plan::own::Question;
use crate::plan::own::tokens_of;
use crate::plan::{Access, Arguments, OwnCall, Parameters, Plan, Target};
use crate::session::Session;
use crate::session::configure::{boolean, value};
use crate::session::database::Database;
use crate::session::own_values::is_own;
use crate::sql::token::{Token, TokenKind, slice};
use crate::sqlstate::SqlState;
use crate::txn::Transaction;

/// More names than this are not told apart.
const MOST_NAMES: usize = 1_000;

/// Settings of PostgreSQL's own that servers of one database are expected to agree in, as what dates and texts
/// look like depends on them.
const SHARED: [&str; 6] = [
    "timezone",
    "datestyle",
    "intervalstyle",
    "server_version",
    "server_version_num",
    "server_encoding",
];

/// The names that a client has made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    ever: BTreeSet<String>,
    /// Those of the transaction at hand, which are on its connections.
    here: BTreeSet<String>,
}

impl Made {
    /// The client has set or reset the setting.
    pub fn note(&mut self, name: &str) {
        if is_custom(name) && self.ever.len() < MOST_NAMES {
            self.ever.insert(name.to_owned());
            self.here.insert(name.to_owned());
        }
    }

    /// The transaction has ended. The names stay even if it is undone.
    pub fn end(&mut self) {
        self.here.clear();
    }

    /// Whether the connections of the transaction at hand have it for certain.
    pub fn is_here(&self, name: &str) -> bool {
        self.here.contains(name)
    }

    fn has(&self, name: &str) -> bool {
        self.ever.contains(name) || self.ever.len() >= MOST_NAMES
    }
}

/// Whether the setting may be one that no module has defined.
fn is_custom(name: &str) -> bool {
    name.contains('.') && !is_own(name)
}

/// What a server has under a name.
enum Kept {
    /// A value, or a setting of a module.
    Value,
    /// Nothing but perhaps the name.
    Nothing,
}

/// What is to be done about a call of `current_setting`.
pub(super) enum SettingAnswer {
    /// It is for the server.
    Server,
    /// It gets this text.
    Text(String),
    /// It fails unless there is a setting of this name.
    IfThere(String),
}

impl Session {
    /// Whether what the client reads under this name may not be what a server says.
    fn is_in_doubt(&self, name: &str) -> bool {
        is_custom(name) && !self.settings.is_there(name)
    }

    /// What SHOW of a setting gives if that is not for the server to say.
    ///
    /// # Errors
    /// `42704` for one that the client has not made.
    pub(super) async fn shown_custom(&mut self, name: &str) -> Result<Option<String>> {
        if !self.is_in_doubt(&name.to_ascii_lowercase()) {
            return Ok(None);
        }
        match self.server_has(name).await {
            None | Some(Kept::Value) => Ok(None),
            Some(Kept::Nothing) if self.settings.made().has(&name.to_ascii_lowercase()) => {
                Ok(Some(String::new()))
            }
            Some(Kept::Nothing) => Err(unrecognized(name)),
        }
    }

    /// What is to be done about a call of `current_setting`, of a statement that is alone in its message and
    /// makes these other calls before, or is not alone.
    ///
    /// # Errors
    /// `42704` for a setting of the proxy's that does not exist.
    pub(super) fn setting_answer(
        &self,
        call: &OwnCall,
        (text, tokens): (&str, &[Token]),
        (parameters, before): (&Parameters<'_>, Option<&[OwnCall]>),
    ) -> Result<SettingAnswer> {
        let argument = |number| value(text, call.argument(number, tokens)?, parameters);
        let Some(Some(name)) = argument(0) else {
            return Ok(SettingAnswer::Server);
        };
        let folded = name.to_ascii_lowercase();
        if is_own(&folded) {
            let answer = self.own_setting(call, (text, tokens))?;
            return Ok(answer.map_or(SettingAnswer::Server, SettingAnswer::Text));
        }
        let may_miss = match call.argument(1, tokens) {
            None => Some(false),
            // It would be missing in the text.
            Some([first, ..]) if first.kind == TokenKind::Parameter => None,
            Some(_) => argument(1).flatten().and_then(|value| boolean(&value)),
        };
        let written = match call.argument(0, tokens) {
            Some([first, .., last]) => slice(text, first.start..last.end),
            Some([only]) => only.text(text),
            _ => "",
        };
        // The statement may make the setting itself.
        let sets = |call: &OwnCall| {
            let name = || value(text, call.argument(0, tokens)?, parameters).flatten();
            call.question == Question::SetConfig
                && name().is_none_or(|name| name.eq_ignore_ascii_case(&folded))
        };
        let is_plain = before.is_some_and(|calls| !calls.iter().any(sets));
        let Some(may_miss) = may_miss.filter(|_| is_plain && self.is_in_doubt(&folded)) else {
            return Ok(SettingAnswer::Server);
        };
        let expression = match (self.settings.made().has(&folded), may_miss) {
            (true, _) => format!("COALESCE(pg_catalog.current_setting({written}, true), '')"),
            (false, true) => format!(
                "CASE WHEN {} THEN pg_catalog.current_setting({written}, true) END",
                is_value(written)
            ),
            (false, false) if call.is_certain => {
                return Ok(SettingAnswer::IfThere(name.into_owned()));
            }
            (false, false) => return Ok(SettingAnswer::Server),
        };
        let answer = call.replacement((text, tokens), &expression, &[]);
        Ok(SettingAnswer::Text(answer))
    }

    /// Fails if a statement over several shards asks for a setting that may have another value on each
    /// server: each of them answers for the session.
    ///
    /// # Errors
    /// `0A000`.
    pub(super) fn check_settings(
        &self,
        plan: &Plan,
        arguments: &Arguments<'_>,
        target: &Target,
    ) -> Result<()> {
        let asks = |call: &&OwnCall| call.question == Question::CurrentSetting;
        let mut calls = plan.own.iter().filter(asks).peekable();
        if calls.peek().is_none() || !matches!(target, Target::Many(_) | Target::Combine) {
            return Ok(());
        }
        let tokens = tokens_of(
            arguments.text,
            Database::lex_options(self.settings.context()),
        )?;
        for call in calls {
            let named = call.argument(0, &tokens).filter(|name| name.len() == 1);
            let name = named.and_then(|name| value(arguments.text, name, &arguments.parameters));
            let name = name.flatten().unwrap_or_default().to_ascii_lowercase();
            let is_made = !is_own(&name) && self.settings.server().get(&name).is_some();
            if !is_made && !SHARED.contains(&name.as_str()) {
                return Err(Error::refused(
                    "current_setting is not supported here in a query over several shards",
                    "The client has not made the setting, and each server may have a value of its own.",
                    "SET it first, or ask for it in a statement of its own and send its value.",
                ));
            }
        }
        Ok(())
    }

    /// The text for the call, if it gets another.
    ///
    /// # Errors
    /// `42704` for a setting that the client has not made, and nobody else.
    pub(super) async fn setting_text(&mut self, answer: SettingAnswer) -> Result<Option<String>> {
        match answer {
            SettingAnswer::Server => Ok(None),
            SettingAnswer::Text(text) => Ok(Some(text)),
            SettingAnswer::IfThere(name) => match self.server_has(&name).await {
                None | Some(Kept::Value) => Ok(None),
                Some(Kept::Nothing) => Err(unrecognized(&name)),
            },
        }
    }

    /// What a server has under a name, by a question of the proxy's own; none if none can be asked.
    async fn server_has(&mut self, name: &str) -> Option<Kept> {
        if self.transaction == Transaction::Failed || self.batch.is_sent() {
            return None;
        }
        let written = quote_literal(name);
        let sql = format!("SELECT 1 WHERE {}", is_value(&written));
        self.drain().await.ok()?;
        let is_there = match &mut self.server {
            Some(held) if held.is_at_rest() => held.lease.returns_row(&sql).await,
            Some(_) => return None,
            None if self.database.gate.is_closed() => return None,
            None => {
                let (mut lease, _) = self.lease(0, Access::Read).await.ok()?;
                let answer = lease.returns_row(&sql).await;
                if answer.is_ok() {
                    lease.give_back();
                }
                answer
            }
        };
        match is_there.ok()? {
            true => Some(Kept::Value),
            false => Some(Kept::Nothing),
        }
    }
}

/// Whether there is a value under a name, or a module has defined the setting, as SQL.
fn is_value(name: &str) -> String {
    format!(
        "COALESCE(pg_catalog.current_setting({name}, true), '') <> '' OR EXISTS \
         (SELECT FROM pg_catalog.pg_settings AS known \
         WHERE pg_catalog.lower(known.name) = pg_catalog.lower({name}))"
    )
}

fn unrecognized(name: &str) -> Error {
    Error::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_for_good_and_are_there_until_the_transaction_ends() {
        let mut made = Made::default();
        for name in ["app.tenant", "work_mem", "shardwire.shard"] {
            made.note(name);
        }
        assert!(made.has("app.tenant") && !made.has("work_mem") && !made.has("shardwire.shard"));
        assert!(made.is_here("app.tenant"));
        made.end();
        assert!(made.has("app.tenant") && made.here.is_empty());
        (0..MOST_NAMES).for_each(|number| made.note(&format!("app.n{number}")));
        assert!(made.has("other.name"), "they are not told apart any more");
    }
}
