//! A client's settings through transactions and savepoints, and what planning depends on of them; pure.
//!
//! A SET that is rolled back was never made. So the settings are kept as they are now, as they stood
//! when the transaction began, and as they stood at each savepoint; the snapshots share their memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::backend::settings::{Settings, quote_identifier, quote_literal, set_config};
use crate::config::{Consistency, ReadPreference};
use crate::error::{Error, Result};
use crate::session::channels::Channels;
use crate::session::custom::Made;
use crate::session::date_style::DateStyle;
use crate::session::effect::Effect;
use crate::session::hint::key_values;
use crate::session::own_values::{consistency, duration, is_own, read_preference, unknown};
use crate::session::path::Whose;
use crate::session::serializable::Serializable;
use crate::sql::classify::setting_values;
use crate::sql::encoding::Encoding;
use crate::sqlstate::SqlState;

/// Settings whose value is a list of names, each quoted by itself.
pub const LISTS: [&str; 4] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
];

/// What routing and planning depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// `shardwire.shard`: where every statement goes.
    pub shard: Option<String>,
    /// `shardwire.shard_key`: the key of tables that a statement does not restrict itself.
    pub shard_key: Option<Vec<String>>,
    /// `shardwire.read_preference`.
    pub read_preference: Option<ReadPreference>,
    /// `shardwire.max_staleness`.
    pub max_staleness: Option<Duration>,
    /// `shardwire.consistency`.
    pub consistency: Option<Consistency>,
    /// `shardwire.serializable`.
    pub serializable: Serializable,
    /// `search_path`, if the session has set it.
    pub search_path: Option<Vec<String>>,
    /// Who the session is, for what its search path means.
    pub whose: Whose,
    /// Whether `standard_conforming_strings` is off.
    pub backslashes: bool,
    /// The encoding that texts come in.
    pub encoding: Encoding,
    /// `DateStyle`, if the session has set it and the value was understood.
    date_style: Option<DateStyle>,
}

impl Context {
    /// Distinguishes the contexts whose plans differ.
    pub fn fingerprint(&self) -> u64 {
        let path = self.search_path.as_ref();
        let by_key = self.shard_key.is_some();
        match (self.whose.is_plain(path), self.backslashes, self.encoding) {
            (true, false, Encoding::Utf8) if !by_key => 0,
            (is_plain, backslashes, encoding) => {
                let flags = [is_plain, backslashes, by_key];
                let mut bytes = flags.map(u8::from).to_vec();
                bytes.push(encoding.fingerprint());
                for schema in &*self.whose.effective(path, &[]) {
                    bytes.extend_from_slice(schema.as_bytes());
                    bytes.push(0);
                }
                xxh3_64(&bytes)
            }
        }
    }

    /// Takes a SET of something that planning depends on; other names change nothing.
    ///
    /// # Errors
    /// `22023` for a value that one of the proxy's own settings can't have, `42704` for a setting
    /// that the proxy does not know.
    fn set(&mut self, name: &str, values: Option<Vec<String>>) -> Result<()> {
        let single = || match values.as_deref() {
            Some([value]) => Ok(value.clone()),
            _ => Err(invalid(name)),
        };
        match name {
            "search_path" => self.search_path = values,
            "role" | "session_authorization" => {
                let value = values.as_ref().and_then(|values| values.first());
                self.whose.set(name, value.map(String::as_str));
            }
            "standard_conforming_strings" => {
                self.backslashes = single().is_ok_and(|value| is_off(&value));
            }
            "client_encoding" => {
                self.encoding = single().map_or(Encoding::Unknown, |value| Encoding::named(&value));
            }
            "datestyle" => {
                let mut style = self.date_style.unwrap_or_default();
                let is_known = values.is_some_and(|values| style.set(&values));
                self.date_style = is_known.then_some(style);
            }
            "shardwire.shard" => self.shard = non_empty(single()?),
            "shardwire.shard_key" => {
                let values = values.ok_or_else(|| invalid(name))?;
                self.shard_key =
                    Some(values).filter(|values| values.iter().any(|value| !value.is_empty()));
            }
            "shardwire.read_preference" => {
                self.read_preference =
                    Some(read_preference(&single()?).ok_or_else(|| invalid(name))?);
            }
            "shardwire.max_staleness" => {
                self.max_staleness = Some(duration(&single()?).ok_or_else(|| invalid(name))?);
            }
            "shardwire.consistency" => {
                self.consistency = Some(consistency(&single()?).ok_or_else(|| invalid(name))?);
            }
            "shardwire.serializable" => self.serializable = Serializable::read(&single()?)?,
            _ if is_own(name) => return Err(unknown(name)),
            _ => {}
        }
        Ok(())
    }

    fn reset(&mut self, name: &str) -> Result<()> {
        match name {
            "search_path" => self.search_path = None,
            "role" | "session_authorization" => self.whose.set(name, None),
            "standard_conforming_strings" => self.backslashes = false,
            "client_encoding" => self.encoding = Encoding::Utf8,
            "datestyle" => self.date_style = None,
            "shardwire.shard" => self.shard = None,
            "shardwire.shard_key" => self.shard_key = None,
            "shardwire.read_preference" => self.read_preference = None,
            "shardwire.max_staleness" => self.max_staleness = None,
            "shardwire.consistency" => self.consistency = None,
            "shardwire.serializable" => self.serializable = Serializable::default(),
            _ if is_own(name) => return Err(unknown(name)),
            _ => {}
        }
        Ok(())
    }
}

fn invalid(name: &str) -> Error {
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\""),
    )
}

fn non_empty(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

fn is_off(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "off" | "false" | "no" | "0" | "f" | "n" | "of"
    )
}

/// Whether an encoding's name means UTF-8, spelled as PostgreSQL accepts it.
pub fn is_utf8(value: &str) -> bool {
    let mut name = value.to_ascii_lowercase();
    name.retain(|letter| letter.is_ascii_alphanumeric());
    matches!(name.as_str(), "utf8" | "unicode")
}

/// The settings at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    server: Arc<Settings>,
    context: Arc<Context>,
    /// The context without what SET LOCAL made of it.
    lasting: Arc<Context>,
    /// Of the settings under which servers read statements, those of SET LOCAL included.
    reading: u64,
    /// What LISTEN and UNLISTEN have made of the client's channels.
    channels: Arc<Channels>,
}

/// A client's settings.
#[derive(Clone, Debug, Default)]
pub struct SessionSettings {
    now: Snapshot,
    at_begin: Snapshot,
    /// As they were when the batch began, if it has gone on from one server to another since it made some.
    before_batch: Option<Box<Snapshot>>,
    savepoints: Vec<(String, Snapshot)>,
    defaults: Snapshot,
    /// What the startup packet named.
    startup: Vec<(String, String)>,
    /// The names of settings that no module defines.
    made: Made,
}

impl SessionSettings {
    /// The settings of a session of `whose` that started with `parameters` of its startup packet,
    /// written as in postgresql.conf.
    ///
    /// # Errors
    /// As for [`SessionSettings::complete`].
    pub fn start(parameters: &[(String, String)], whose: Whose) -> Result<SessionSettings> {
        let mut server = Settings::default();
        let mut context = Context {
            whose,
            ..Context::default()
        };
        for (name, value) in parameters {
            let values = match name.as_str() {
                "search_path" => setting_values(value, 0..u32::try_from(value.len()).unwrap_or(0)),
                "shardwire.shard_key" => key_values(value),
                _ => Some(vec![value.clone()]),
            };
            context.set(name, values)?;
            if !is_own(name) {
                // Half a DateStyle would leave the other half to whoever had the connection before.
                let statement = match context.date_style {
                    Some(style) if name == "datestyle" => style.statement(),
                    _ => set_config(name, value),
                };
                server.set(name, statement);
            }
        }
        let mut made = Made::default();
        parameters.iter().for_each(|(name, _)| made.note(name));
        made.end();
        let context = Arc::new(context);
        let snapshot = Snapshot {
            reading: server.fingerprint(),
            server: Arc::new(server),
            lasting: Arc::clone(&context),
            context,
            channels: Arc::default(),
        };
        Ok(SessionSettings {
            now: snapshot.clone(),
            at_begin: snapshot.clone(),
            before_batch: None,
            savepoints: Vec::new(),
            defaults: snapshot,
            startup: parameters.to_vec(),
            made,
        })
    }

    /// The settings that a server connection must have.
    pub fn server(&self) -> &Arc<Settings> {
        &self.now.server
    }

    /// The names of settings that the client has made.
    pub fn made(&self) -> &Made {
        &self.made
    }

    /// Whether the connection at work has a setting of this name because of the client.
    pub fn is_there(&self, name: &str) -> bool {
        self.now.server.get(name).is_some() || self.made.is_here(name)
    }

    /// What RESET ALL means to a server, which does not know what the startup packet named.
    pub fn reset_all_sql(&self) -> String {
        let mut statements = vec!["RESET ALL".to_owned()];
        statements.extend(self.defaults.server.change_from(&Settings::default()));
        statements.join(";\n")
    }

    /// Whether the startup packet named a value for any setting of the server's.
    pub fn has_defaults(&self) -> bool {
        !self.defaults.server.is_empty()
    }

    /// The SET that gives a setting the value that the startup packet named.
    pub fn revert_statement(&self, name: &str) -> Option<String> {
        let (_, value) = self.startup.iter().rev().find(|(known, _)| known == name)?;
        let end = u32::try_from(value.len()).unwrap_or(0);
        let value = match LISTS.contains(&name) {
            true => {
                let members = setting_values(value, 0..end)?;
                members
                    .iter()
                    .map(|one| quote_literal(one))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            false => quote_literal(value),
        };
        Some(format!("SET {} TO {value}", quote_identifier(name)))
    }

    /// As [`SessionSettings::revert_statement`], where it takes several: none of them has rows.
    pub fn revert_statements(&self, name: &str) -> Vec<String> {
        match (name, self.default_statements(name)) {
            ("datestyle", Some(sql)) => sql.split(";\n").map(str::to_owned).collect(),
            _ => self.revert_statement(name).into_iter().collect(),
        }
    }

    /// Those of all settings that the startup packet named.
    pub fn all_revert_statements(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.startup.iter().map(|(name, _)| &**name).collect();
        let of_server = names.into_iter().filter(|name| !is_own(name));
        of_server
            .flat_map(|name| self.revert_statements(name))
            .collect()
    }

    /// The statements that give a setting the value that the startup packet named.
    pub fn default_statements(&self, name: &str) -> Option<&str> {
        self.defaults.server.get(name)
    }

    /// Whether the startup packet named a value for the setting.
    pub fn has_default(&self, name: &str) -> bool {
        self.defaults.server.get(name).is_some()
    }

    /// The settings that a server connection must have had when the transaction began.
    pub fn server_at_begin(&self) -> &Arc<Settings> {
        &self.at_begin.server
    }

    /// The channels that the client listens to, whatever the transaction at hand makes of them.
    pub fn committed_channels(&self) -> &Arc<Channels> {
        &self.at_begin.channels
    }

    /// Whether the transaction at hand has said LISTEN or UNLISTEN.
    pub fn changes_channels(&self) -> bool {
        !Arc::ptr_eq(&self.now.channels, &self.at_begin.channels)
    }

    /// Distinguishes sessions for which a prepared statement means something else.
    pub fn reading(&self) -> u64 {
        self.now.reading
    }

    /// What planning depends on.
    pub fn context(&self) -> &Arc<Context> {
        &self.now.context
    }

    /// Takes what a completed statement did.
    ///
    /// # Errors
    /// `22023` and `42704` for the proxy's own settings.
    pub fn complete(&mut self, effect: &Effect) -> Result<()> {
        self.change(effect)?;
        match effect {
            Effect::Set {
                local: true,
                statement,
                ..
            } => {
                self.now.reading = xxh3_64_with_seed(statement.as_bytes(), self.now.reading);
            }
            Effect::Reset { local: true, name } => {
                self.now.reading = xxh3_64_with_seed(name.as_bytes(), self.now.reading);
            }
            Effect::Set { .. } | Effect::Reset { .. } | Effect::ResetAll | Effect::DiscardAll => {
                self.now.reading = self.now.server.fingerprint();
            }
            _ => {}
        }
        Ok(())
    }

    fn change(&mut self, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Set {
                local,
                name,
                statement,
                value,
            } => {
                self.made.note(name);
                let end = u32::try_from(value.len()).unwrap_or(0);
                let values = setting_values(value, 0..end);
                let local = *local || is_of_transaction(name);
                self.context_change(local, |context| context.set(name, values.clone()))?;
                if !local && !is_own(name) {
                    let statement = match self.now.context.date_style {
                        Some(style) if name == "datestyle" => style.statement(),
                        _ => statement.clone(),
                    };
                    let server = Arc::make_mut(&mut self.now.server);
                    server.set(name, statement);
                    if name == "session_authorization" {
                        server.reset("role");
                    }
                }
            }
            Effect::Reset { local, name } => {
                self.made.note(name);
                let default = self.defaults.clone();
                self.context_change(*local, |context| reset_to(context, &default.context, name))?;
                if !local && !is_own(name) {
                    let server = Arc::make_mut(&mut self.now.server);
                    match default.server.get(name) {
                        Some(statement) => server.set(name, statement),
                        None => server.reset(name),
                    }
                    if name == "session_authorization" {
                        server.reset("role");
                    }
                }
            }
            Effect::Several(all) => {
                for one in all {
                    self.complete(one)?;
                }
            }
            Effect::Reverted(name) => {
                self.complete(&Effect::Reset {
                    local: false,
                    name: name.clone(),
                })?;
            }
            Effect::ResetAll | Effect::DiscardAll => self.reset_all(*effect == Effect::DiscardAll),
            Effect::Listen(_) | Effect::Unlisten(_) => self.change_channels(effect),
            Effect::Savepoint(name) => self.savepoints.push((name.clone(), self.now.clone())),
            Effect::RollbackTo(name) => self.roll_back_to(name),
            Effect::Release(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(n, _)| n == name) {
                    self.savepoints.truncate(at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn reset_all(&mut self, is_discard: bool) {
        // PostgreSQL's RESET ALL leaves the identity as it is.
        let identity = self.now.server.identity(is_discard);
        let whose = self.now.context.whose.clone();
        let channels = Arc::clone(&self.now.channels);
        self.now = self.defaults.clone();
        if !is_discard {
            self.now.channels = channels;
        }
        if !is_discard && self.now.context.whose != whose {
            Arc::make_mut(&mut self.now.context).whose = whose.clone();
            Arc::make_mut(&mut self.now.lasting).whose = whose;
        }
        if !identity.is_empty() {
            Arc::make_mut(&mut self.now.server).extend(identity);
        }
    }

    fn change_channels(&mut self, effect: &Effect) {
        let channels = Arc::make_mut(&mut self.now.channels);
        match effect {
            Effect::Listen(name) => channels.add(name),
            Effect::Unlisten(name) => channels.remove(name.as_deref()),
            _ => {}
        }
    }

    fn context_change(
        &mut self,
        local: bool,
        change: impl Fn(&mut Context) -> Result<()>,
    ) -> Result<()> {
        let mut context = (*self.now.context).clone();
        change(&mut context)?;
        if *self.now.context != context {
            self.now.context = Arc::new(context);
        }
        if !local {
            let mut lasting = (*self.now.lasting).clone();
            change(&mut lasting)?;
            if *self.now.lasting != lasting {
                self.now.lasting = Arc::new(lasting);
            }
        }
        Ok(())
    }

    fn roll_back_to(&mut self, name: &str) {
        if let Some(at) = self.savepoints.iter().rposition(|(n, _)| n == name) {
            self.savepoints.truncate(at + 1);
            if let Some((_, snapshot)) = self.savepoints.last() {
                self.now = snapshot.clone();
            }
        }
    }

    /// The transaction has committed: what was set stays, what was set locally ends.
    pub fn commit(&mut self) {
        self.before_batch = None;
        self.made.end();
        if !Arc::ptr_eq(&self.now.context, &self.now.lasting) {
            self.now.context = Arc::clone(&self.now.lasting);
        }
        let is_changed = !Arc::ptr_eq(&self.at_begin.server, &self.now.server);
        if is_changed || self.now.reading != self.at_begin.reading {
            self.now.reading = self.now.server.fingerprint();
        }
        self.savepoints.clear();
        if !Arc::ptr_eq(&self.at_begin.server, &self.now.server)
            || !Arc::ptr_eq(&self.at_begin.context, &self.now.context)
            || !Arc::ptr_eq(&self.at_begin.channels, &self.now.channels)
        {
            self.at_begin = self.now.clone();
        }
    }

    /// A batch goes on on another server, which is given what the batch has set so far. If it fails, that is taken
    /// back all the same.
    pub fn leave(&mut self) {
        let before = std::mem::replace(&mut self.at_begin, self.now.clone());
        self.before_batch.get_or_insert_with(|| Box::new(before));
    }

    /// The transaction has rolled back: nothing that was set in it stays.
    pub fn roll_back(&mut self) {
        self.made.end();
        if let Some(before) = self.before_batch.take() {
            self.at_begin = *before;
        }
        self.now = self.at_begin.clone();
        self.savepoints.clear();
    }
}

/// The setting that says how transactions are isolated unless they say it themselves.
pub const ISOLATION: &str = "default_transaction_isolation";

/// Whether a value of that setting, or a statement that sets it, may give all statements of a transaction
/// one snapshot. What is written in escapes is not read.
pub fn shares_snapshot(text: &str) -> bool {
    let names = text.to_ascii_lowercase().contains("committed");
    !text.is_empty() && (!names || text.contains('\\'))
}

/// Whether a setting ends with the transaction however it is set.
fn is_of_transaction(name: &str) -> bool {
    matches!(
        name,
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
    )
}

/// Gives `context` the value that `default` has for `name`.
fn reset_to(context: &mut Context, default: &Context, name: &str) -> Result<()> {
    context.reset(name)?;
    match name {
        "search_path" => context.search_path.clone_from(&default.search_path),
        "standard_conforming_strings" => context.backslashes = default.backslashes,
        "client_encoding" => context.encoding = default.encoding,
        "datestyle" => context.date_style = default.date_style,
        "shardwire.shard" => context.shard.clone_from(&default.shard),
        "shardwire.shard_key" => context.shard_key.clone_from(&default.shard_key),
        "shardwire.read_preference" => context.read_preference = default.read_preference,
        "shardwire.max_staleness" => context.max_staleness = default.max_staleness,
        "shardwire.consistency" => context.consistency = default.consistency,
        "shardwire.serializable" => context.serializable = default.serializable,
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(local: bool, name: &str, value: &str) -> Effect {
        Effect::Set {
            local,
            name: name.into(),
            statement: format!("SET {name} = {value}"),
            value: value.into(),
        }
    }

    #[test]
    fn two_isolation_levels_share_a_snapshot() {
        for (text, wanted) in [
            ("read committed", false),
            (
                "SET default_transaction_isolation = 'READ UNCOMMITTED'",
                false,
            ),
            (
                "SET default_transaction_isolation TO 'repeatable read'",
                true,
            ),
            ("serializable", true),
            ("U&'re\\0061d committed'", true),
            ("", false),
        ] {
            assert_eq!(shares_snapshot(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_rolled_back_set_was_never_made() {
        let mut settings = SessionSettings::default();
        settings.complete(&set(false, "work_mem", "'1MB'")).unwrap();
        settings.commit();
        settings.complete(&set(false, "work_mem", "'2MB'")).unwrap();
        settings.roll_back();
        assert_eq!(
            settings.server().get("work_mem"),
            Some("SET work_mem = '1MB'")
        );
    }

    #[test]
    fn what_is_of_the_transaction_ends_with_it() {
        let mut settings = SessionSettings::default();
        let read_only = set(false, "transaction_read_only", "on");
        settings.complete(&read_only).unwrap();
        settings.commit();
        assert!(settings.server().is_empty());
    }

    #[test]
    fn savepoints_keep_what_was_set_before_them() {
        let mut settings = SessionSettings::default();
        settings.complete(&set(false, "a", "1")).unwrap();
        settings.complete(&Effect::Savepoint("s".into())).unwrap();
        settings.complete(&set(false, "a", "2")).unwrap();
        settings.complete(&Effect::RollbackTo("s".into())).unwrap();
        settings.commit();
        assert_eq!(settings.server().get("a"), Some("SET a = 1"));
    }

    #[test]
    fn a_rolled_back_search_path_is_forgotten_for_good() {
        let mut settings = SessionSettings::default();
        settings.complete(&Effect::Savepoint("s".into())).unwrap();
        settings
            .complete(&set(false, "search_path", "tenant"))
            .unwrap();
        settings.complete(&Effect::RollbackTo("s".into())).unwrap();
        settings.commit();
        assert_eq!(settings.context().search_path, None);
    }

    #[test]
    fn a_local_setting_changes_how_statements_are_read_until_the_transaction_ends() {
        let mut settings = SessionSettings::default();
        let before = settings.reading();
        settings
            .complete(&set(true, "timezone", "'Asia/Tokyo'"))
            .unwrap();
        assert_ne!(settings.reading(), before);
        settings.commit();
        assert_eq!(settings.reading(), before);
    }

    #[test]
    fn reset_all_keeps_the_role_and_discard_all_does_not() {
        let mut settings = SessionSettings::default();
        settings.complete(&set(false, "role", "low")).unwrap();
        settings.complete(&set(false, "work_mem", "'1MB'")).unwrap();
        settings.complete(&Effect::ResetAll).unwrap();
        assert_eq!(settings.server().get("role"), Some("SET role = low"));
        assert_eq!(settings.server().get("work_mem"), None);
        settings.complete(&Effect::DiscardAll).unwrap();
        assert!(settings.server().is_empty());
    }

    #[test]
    fn a_local_setting_ends_with_the_transaction() {
        let mut settings = SessionSettings::default();
        settings
            .complete(&set(true, "shardwire.shard", "'s1'"))
            .unwrap();
        assert_eq!(settings.context().shard.as_deref(), Some("s1"));
        settings.commit();
        assert_eq!(settings.context().shard, None);
        assert!(settings.server().is_empty());
    }

    #[test]
    fn reset_goes_back_to_the_startup_packet() {
        let start = [("timezone".to_owned(), "UTC".to_owned())];
        let mut settings = SessionSettings::start(&start, Whose::default()).unwrap();
        settings
            .complete(&set(false, "timezone", "'Asia/Tokyo'"))
            .unwrap();
        settings
            .complete(&Effect::Reset {
                local: false,
                name: "timezone".into(),
            })
            .unwrap();
        let expected = "SELECT pg_catalog.set_config('timezone', 'UTC', false)";
        assert_eq!(settings.server().get("timezone"), Some(expected));
    }

    #[test]
    fn characteristics_are_settings_of_their_own() {
        let text = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, NOT DEFERRABLE";
        let tokens = crate::sql::lexer::tokenize(text.as_bytes(), Default::default()).unwrap();
        let statement = crate::sql::classify::classify(text, &tokens);
        let mut settings = SessionSettings::default();
        settings.complete(&Effect::of(&statement, text)).unwrap();
        let sql = settings.server().change_from(&Settings::default()).unwrap();
        assert_eq!(
            sql,
            "SET default_transaction_read_only = true;\n\
             SET default_transaction_deferrable = false;\n"
        );
        let back = Settings::default().change_from(settings.server()).unwrap();
        assert!(
            back.contains("RESET default_transaction_read_only;"),
            "{back}"
        );
    }

    #[test]
    fn reverting_names_the_value_of_the_startup_packet() {
        let start = [("timezone", "Asia/Tokyo"), ("search_path", "a, \"B c\"")];
        let start = start.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = SessionSettings::start(&start, Whose::default()).unwrap();
        let revert = |name| settings.revert_statement(name);
        assert_eq!(
            revert("timezone").as_deref(),
            Some("SET timezone TO 'Asia/Tokyo'")
        );
        assert_eq!(
            revert("search_path").as_deref(),
            Some("SET search_path TO 'a', 'B c'")
        );
        assert_eq!(revert("work_mem"), None);
    }

    #[test]
    fn own_settings_are_checked_and_never_sent() {
        let mut settings = SessionSettings::default();
        assert!(
            settings
                .complete(&set(false, "shardwire.consistency", "'maybe'"))
                .is_err()
        );
        assert!(
            settings
                .complete(&set(false, "shardwire.nonsense", "1"))
                .is_err()
        );
        settings
            .complete(&set(false, "shardwire.max_staleness", "'5s'"))
            .unwrap();
        assert_eq!(
            settings.context().max_staleness,
            Some(Duration::from_secs(5))
        );
        assert!(settings.server().is_empty());
    }

    #[test]
    fn contexts_that_plan_differently_have_different_fingerprints() {
        let mut settings = SessionSettings::default();
        let before = settings.context().fingerprint();
        settings
            .complete(&set(false, "search_path", "a, b"))
            .unwrap();
        assert_ne!(settings.context().fingerprint(), before);
    }
}
