//! Settings by function call: what `set_config` does is remembered like a SET, and `current_setting`
//! knows the proxy's own.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::backend::settings::{quote_identifier, quote_literal};
use crate::error::{Error, Result};
use crate::plan::own::{Question, is_old, is_recent, tokens_of};
use crate::plan::{OwnCall, Parameters, Plan};
use crate::session::Session;
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::own_values::{self, is_own};
use crate::session::replies::Effects;
use crate::session::settings::LISTS;
use crate::session::study::effects;
use crate::sharding::Format;
use crate::sql::classify::setting_values;
use crate::sql::literal::{quote_literal as quote, token_value};
use crate::sql::token::{Token, TokenKind};

impl Session {
    /// What a statement without parameters does to the session once it has completed.
    ///
    /// # Errors
    /// As for [`Session::settings_made`].
    pub(super) fn effects_now(&self, plan: &Plan, text: &str) -> Result<Effects> {
        let made = self.settings_made(plan, text, &Parameters::none())?;
        Ok(made.or_else(|| effects(plan, text)))
    }

    /// What the calls of `set_config` in a statement do; none if it has none that are known.
    ///
    /// # Errors
    /// `0A000` for the proxy's own settings, and over several shards for what can't be known.
    pub(super) fn settings_made(
        &self,
        plan: &Plan,
        text: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Effects> {
        let is_set = |call: &&OwnCall| call.question == Question::SetConfig;
        if !plan.own.iter().any(|call| is_set(&call)) {
            return Ok(None);
        }
        let tokens = tokens_of(text, Database::lex_options(self.settings.context()))?;
        let is_utf8 = self.settings.context().encoding.is_utf8();
        let is_ascii = text.is_ascii() && parameters.texts().all(<[u8]>::is_ascii);
        let mut made = Vec::new();
        for call in plan.own.iter().filter(is_set) {
            let argument = |number| value(text, call.argument(number, &tokens)?, parameters);
            let setting = match (argument(0), argument(1), argument(2)) {
                (Some(name), Some(value), Some(local)) => setting(name, value, local),
                _ => None,
            };
            // It will be made again in whatever encoding the session then has, where there must be one.
            let is_there = |name: &str| {
                let is_known = |has| is_old(name) || (has && is_recent(name));
                call.if_there.is_none_or(is_known)
            };
            let setting = setting.filter(|_| is_utf8 || is_ascii);
            let setting = setting.filter(|setting| match setting {
                Effect::Set { name, .. } | Effect::Reset { name, .. } => is_there(name),
                _ => true,
            });
            match setting {
                Some(Effect::Set { name, .. } | Effect::Reset { name, .. }) if is_own(&name) => {
                    return Err(own_by_function(&name));
                }
                // The server would give its own default, not the client's of its login.
                Some(Effect::Reset { name, .. }) if self.settings.has_default(&name) => {
                    return Err(back_to_login(&name));
                }
                Some(effect) => made.push(effect),
                None if self.database.is_single() => made.push(Effect::Pin),
                None => return Err(unknown_setting()),
            }
        }
        let all = match made.pop() {
            Some(only) if made.is_empty() => only,
            Some(last) => {
                made.push(last);
                Effect::Several(made)
            }
            None => Effect::None,
        };
        Ok(Some(Box::new(VecDeque::from([all]))))
    }

    /// The text for a call that asks for one of the proxy's own settings; none for others.
    ///
    /// # Errors
    /// `42704` for one that does not exist, unless the call allows that.
    pub(super) fn own_setting(
        &self,
        call: &OwnCall,
        (text, tokens): (&str, &[Token]),
    ) -> Result<Option<String>> {
        let none = Parameters::none();
        let argument = |number| value(text, call.argument(number, tokens)?, &none)?;
        let Some(name) = argument(0).map(|name| name.to_ascii_lowercase()) else {
            return Ok(None);
        };
        if !is_own(&name) {
            return Ok(None);
        }
        let may_miss = argument(1).and_then(|value| boolean(&value)) == Some(true);
        let shown = match own_values::show(&name, self.settings.context(), &self.database.config) {
            Ok(value) => format!("{}::pg_catalog.text", quote(&value)),
            Err(_) if may_miss => "NULL::pg_catalog.text".to_owned(),
            Err(error) => return Err(error),
        };
        Ok(Some(call.replacement((text, tokens), &shown, &[])))
    }
}

/// The value of an argument, `Some(None)` for NULL; none if it is not known.
pub(super) fn value<'a>(
    text: &'a str,
    argument: &[Token],
    parameters: &Parameters<'a>,
) -> Option<Option<Cow<'a, str>>> {
    let first = argument.first()?;
    match first.kind {
        TokenKind::Word if first.is_word(text, "null") => Some(None),
        TokenKind::Word => Some(Some(Cow::Borrowed(first.text(text)))),
        TokenKind::Parameter => {
            let number: usize = first.text(text).strip_prefix('$')?.parse().ok()?;
            let index = number.checked_sub(1)?;
            match (parameters.value(index)?, parameters.format(index)?) {
                (None, _) => Some(None),
                // A boolean; a text of these has no use here.
                (Some([0]), Format::Binary) => Some(Some(Cow::Borrowed("false"))),
                (Some([1]), Format::Binary) => Some(Some(Cow::Borrowed("true"))),
                (Some(bytes), _) => {
                    let text = std::str::from_utf8(bytes).ok()?;
                    Some(Some(Cow::Borrowed(text)))
                }
            }
        }
        _ => token_value(text, first).map(Some),
    }
}

/// The setting that a call makes; none where it can't be made again.
fn setting(
    name: Option<Cow<'_, str>>,
    value: Option<Cow<'_, str>>,
    local: Option<Cow<'_, str>>,
) -> Option<Effect> {
    let name = name?.to_ascii_lowercase();
    // NULL is no.
    let local = local.map_or(Some(false), |text| boolean(&text))?;
    if name.starts_with("transaction_") {
        return None;
    }
    let Some(value) = value else {
        return Some(Effect::Reset { local, name });
    };
    let end = u32::try_from(value.len()).ok()?;
    let written = match LISTS.contains(&name.as_str()) && !value.trim().is_empty() {
        true => {
            let members = setting_values(&value, 0..end)?;
            let quoted: Vec<String> = members.iter().map(|one| quote_literal(one)).collect();
            quoted.join(", ")
        }
        false => quote_literal(&value),
    };
    Some(Effect::Set {
        local,
        statement: format!("SET {} TO {written}", quote_identifier(&name)),
        value: written,
        name,
    })
}

/// A boolean as PostgreSQL reads it.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn own_by_function(name: &str) -> Error {
    Error::refused(
        format!("set_config of \"{name}\" is not supported"),
        "It is a setting of the proxy's, which servers do not know.",
        format!("SET {name} TO '…'."),
    )
}

fn back_to_login(name: &str) -> Error {
    Error::refused(
        format!("set_config of \"{name}\" to NULL is not supported"),
        "The client named the setting at login, and the server does not know that value.",
        format!("RESET {name}."),
    )
}

fn unknown_setting() -> Error {
    Error::refused(
        "statement leaves state on its server connection",
        "What this set_config sets can't be known, and so not be set on other shards.",
        "Use SET, or give set_config constants or parameters of type text.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, value: Option<&str>, local: &str) -> Option<Effect> {
        setting(Some(name.into()), value.map(Cow::from), Some(local.into()))
    }

    #[test]
    fn a_call_sets_what_set_would() {
        for (name, value, statement) in [
            ("TimeZone", "it's", "SET timezone TO 'it''s'"),
            ("search_path", "a, \"B c\"", "SET search_path TO 'a', 'B c'"),
            ("search_path", "", "SET search_path TO ''"),
            ("app.tenant", "1, 2", "SET \"app.tenant\" TO '1, 2'"),
        ] {
            let Some(Effect::Set { statement: set, .. }) = made(name, Some(value), "f") else {
                panic!("{name} is not set");
            };
            assert_eq!(set, statement);
        }
        let reset = Effect::Reset {
            local: true,
            name: "timezone".to_owned(),
        };
        assert_eq!(made("TimeZone", None, "on"), Some(reset));
        assert_eq!(
            made("transaction_isolation", Some("serializable"), "t"),
            None
        );
        assert_eq!(made("timezone", Some("UTC"), "perhaps"), None);
    }
}
