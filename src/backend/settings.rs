//! The settings that a session has made, and the SQL that turns one session's into another's.

use std::fmt::Write;

use xxhash_rust::xxh3::Xxh3;

/// SET values in the order in which they were last made, as the SQL that makes them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    entries: Vec<Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: String,
    statement: String,
}

/// Settings that decide which other settings may be made; any change of them starts over.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

impl Settings {
    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The statement that set `name`, if one did.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|setting| setting.name == name)
            .map(|setting| setting.statement.as_str())
    }

    /// Remembers that `statement` sets `name`.
    pub fn set(&mut self, name: &str, statement: impl Into<String>) {
        self.reset(name);
        // Most sessions have one or two, and every session has these.
        self.entries.reserve_exact(1);
        self.entries.push(Setting {
            name: name.to_owned(),
            statement: statement.into(),
        });
    }

    /// Takes over the settings of `other`.
    pub fn extend(&mut self, other: Settings) {
        for setting in other.entries {
            self.set(&setting.name, setting.statement);
        }
    }

    /// Forgets `name`.
    pub fn reset(&mut self, name: &str) {
        self.entries.retain(|setting| setting.name != name);
    }

    /// What RESET ALL leaves: the identity, unless all of it goes (`DISCARD ALL`).
    pub fn identity(&self, is_all: bool) -> Settings {
        let stays = |setting: &&Setting| !is_all && IDENTITY.contains(&setting.name.as_str());
        Settings {
            entries: self.entries.iter().filter(stays).cloned().collect(),
        }
    }

    /// Distinguishes settings under which servers may read a statement differently.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        if !self
            .entries
            .iter()
            .any(|setting| changes_reading(&setting.name))
        {
            return 0;
        }
        for setting in self
            .entries
            .iter()
            .filter(|setting| changes_reading(&setting.name))
        {
            hasher.update(setting.statement.as_bytes());
            hasher.update(&[0]);
        }
        hasher.digest()
    }

    /// The SQL that turns a session with the settings `from` into one with these, or `None` when
    /// they agree. All of it runs or nothing does (one simple query is one transaction).
    pub fn change_from(&self, from: &Settings) -> Option<String> {
        if self == from {
            return None;
        }
        let mut sql = String::new();
        let start_over = IDENTITY.iter().any(|name| self.get(name) != from.get(name))
            || IDENTITY.iter().any(|name| from.get(name).is_some());
        if start_over {
            sql.push_str("RESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\n");
        } else {
            for setting in &from.entries {
                if self.get(&setting.name).is_none() {
                    let _ = writeln!(sql, "RESET {};", quote_name(&setting.name));
                }
            }
        }
        for setting in &self.entries {
            if start_over || from.get(&setting.name) != Some(&setting.statement) {
                let _ = writeln!(sql, "{};", setting.statement);
            }
        }
        Some(sql)
    }
}

/// Whether a setting may change what a statement means when it is prepared: constants are read then.
fn changes_reading(name: &str) -> bool {
    !matches!(
        name,
        "application_name" | "extra_float_digits" | "client_min_messages"
    ) && !name.ends_with("_timeout")
        && !name.ends_with("work_mem")
}

/// The statement that sets `name` to a value written as in postgresql.conf or a startup packet.
pub fn set_config(name: &str, value: &str) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, false)",
        quote_literal(name),
        quote_literal(value)
    )
}

/// A string constant whatever `standard_conforming_strings` says.
pub fn quote_literal(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 3);
    if value.contains('\\') {
        quoted.push('E');
    }
    quoted.push('\'');
    for letter in value.chars() {
        if matches!(letter, '\'' | '\\') {
            quoted.push(letter);
        }
        quoted.push(letter);
    }
    quoted.push('\'');
    quoted
}

/// A setting's name, each part between its dots quoted where it has to be.
fn quote_name(name: &str) -> String {
    name.split('.')
        .map(quote_identifier)
        .collect::<Vec<_>>()
        .join(".")
}

/// An identifier, quoted unless it is a plain lower-case word.
pub fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, statement) in entries {
            settings.set(name, *statement);
        }
        settings
    }

    #[test]
    fn equal_settings_need_no_sql() {
        let a = settings(&[("work_mem", "SET work_mem = '1MB'")]);
        assert_eq!(a.change_from(&a.clone()), None);
    }

    #[test]
    fn only_differences_are_sent() {
        let from = settings(&[
            ("a", "SET a = 1"),
            ("x.y", "SET x.y = 1"),
            ("c", "SET c = 1"),
        ]);
        let to = settings(&[("a", "SET a = 1"), ("c", "SET c = 2"), ("d", "SET d = 1")]);
        assert_eq!(
            to.change_from(&from).unwrap(),
            "RESET x.y;\nSET c = 2;\nSET d = 1;\n"
        );
    }

    #[test]
    fn a_role_is_left_before_anything_else_is_set() {
        let from = settings(&[("role", "SET ROLE low"), ("a", "SET a = 1")]);
        let to = settings(&[("a", "SET a = 1")]);
        assert_eq!(
            to.change_from(&from).unwrap(),
            "RESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\nSET a = 1;\n"
        );
    }

    #[test]
    fn reset_all_leaves_the_identity() {
        let all = settings(&[("role", "SET ROLE low"), ("a", "SET a = 1")]);
        assert_eq!(all.identity(false), settings(&[("role", "SET ROLE low")]));
        assert!(all.identity(true).is_empty());
    }

    #[test]
    fn statements_are_shared_among_sessions_that_read_them_alike() {
        let plain = settings(&[("application_name", "SET application_name = 'a'")]);
        let tokyo = settings(&[("timezone", "SET timezone = 'Asia/Tokyo'")]);
        assert_eq!(plain.fingerprint(), Settings::default().fingerprint());
        assert_ne!(tokyo.fingerprint(), plain.fingerprint());
    }

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut to = settings(&[("a", "SET a = 1"), ("b", "SET b = 1")]);
        to.set("a", "SET a = 2");
        assert_eq!(
            to.change_from(&Settings::default()).unwrap(),
            "SET b = 1;\nSET a = 2;\n"
        );
    }

    #[test]
    fn values_are_quoted_for_either_string_syntax() {
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(quote_identifier("Mixed\"x"), "\"Mixed\"\"x\"");
    }
}
