//! What a client says of where its statements run, beside what they say themselves: `shardwire.shard` and
//! `shardwire.shard_key`, as settings and as leading comments; pure.

use crate::backend::settings::quote_literal;
use crate::error::{Error, Result};
use crate::sql::classify::setting_values;
use crate::sqlstate::SqlState;

/// A leading comment `/* shardwire: … */`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint<'a> {
    /// `shard=NAME`: the shard.
    Shard(&'a str),
    /// `shard_key=VALUE`: the key of whatever does not restrict its own.
    Key(Vec<String>),
}

impl Hint<'_> {
    /// Reads the comment's body.
    ///
    /// # Errors
    /// `22023` for what is none.
    pub(super) fn read(body: &str) -> Result<Hint<'_>> {
        let (name, value) = body.split_once('=').unwrap_or((body, ""));
        let value = value.trim();
        let hint = match (name.trim(), value) {
            (_, "") => None,
            ("shard", name) => Some(Hint::Shard(name)),
            ("shard_key", value) => key_values(value).map(Hint::Key),
            _ => None,
        };
        hint.ok_or_else(|| {
            let body = body.trim();
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("\"{body}\" is not a hint"),
            )
            .hint("Write /* shardwire: shard=NAME */ or /* shardwire: shard_key=VALUE */.")
        })
    }

    /// Whether the comment gives a key.
    pub(super) fn is_key(body: &str) -> bool {
        matches!(Hint::read(body), Ok(Hint::Key(_)))
    }
}

/// The values of a key that is not written as SQL: several are quoted, one is whatever stands there.
pub(super) fn key_values(text: &str) -> Option<Vec<String>> {
    let end = u32::try_from(text.len()).ok()?;
    match text.starts_with('\'') {
        true => setting_values(text, 0..end),
        false => Some(vec![text.to_owned()]),
    }
}

/// A key as [`key_values`] reads it.
pub(super) fn written_key(values: &[String]) -> String {
    match values {
        [one] if !one.starts_with('\'') => one.clone(),
        several => {
            let quoted = several.iter().map(|value| quote_literal(value));
            quoted.collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn hints_name_a_shard_or_a_key() {
        assert_eq!(Hint::read("shard=s1").unwrap(), Hint::Shard("s1"));
        assert_eq!(Hint::read("shard = s1 ").unwrap(), Hint::Shard("s1"));
        for (body, values) in [
            ("shard_key=42", &["42"][..]),
            ("shard_key = a, b", &["a, b"]),
            ("shard_key='a', 'b'", &["a", "b"]),
            ("shard_key='it''s'", &["it's"]),
            ("shard_key=-7", &["-7"]),
        ] {
            assert_eq!(Hint::read(body).unwrap(), Hint::Key(key(values)), "{body}");
        }
        for body in ["", "shard", "shard=", "shard_key=", "shard_key='a", "key=1"] {
            let error = Hint::read(body).unwrap_err();
            assert_eq!(error.code(), SqlState::INVALID_PARAMETER_VALUE, "{body}");
        }
    }

    #[test]
    fn a_written_key_is_read_back() {
        for values in [&["42"][..], &["a", "b"], &["'"], &["a, b"], &["", "x\\y"]] {
            let values = key(values);
            let written = written_key(&values);
            if !written.contains('\\') {
                assert_eq!(key_values(&written), Some(values), "{written}");
            }
        }
    }
}
