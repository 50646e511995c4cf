//! The proxy's own settings: their names, the values they may have, and how SHOW prints them; pure.

use std::time::Duration;

use crate::config::{self, Consistency, ReadPreference};
use crate::error::{Error, Result};
use crate::session::hint::written_key;
use crate::session::settings::Context;
use crate::sqlstate::SqlState;
use crate::wire::backend::data_row;

/// Each with what SHOW ALL says of it.
const ALL: [(&str, &str); 6] = [
    (
        "shardwire.consistency",
        "Sets how fresh the servers are that a read may use.",
    ),
    (
        "shardwire.max_staleness",
        "Sets how far behind its primary a server may be that serves a read.",
    ),
    (
        "shardwire.read_preference",
        "Sets which servers of a shard serve reads.",
    ),
    (
        "shardwire.serializable",
        "Sets what SERIALIZABLE means for a transaction on several shards.",
    ),
    (
        "shardwire.shard",
        "Sets the shard that every statement runs on.",
    ),
    (
        "shardwire.shard_key",
        "Sets the key of tables that a statement does not restrict itself.",
    ),
];

/// Whether the proxy itself keeps the setting.
pub fn is_own(name: &str) -> bool {
    name.starts_with("shardwire.")
}

/// That there is no such setting of the proxy's own (`42704`).
pub fn unknown(name: &str) -> Error {
    Error::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
    .hint(
        "The parameters are shardwire.shard, shardwire.shard_key, shardwire.read_preference, \
         shardwire.max_staleness, shardwire.consistency and shardwire.serializable.",
    )
}

/// The value in effect of one of the settings as SHOW prints it; empty where there is none.
///
/// # Errors
/// `42704` for a name that is not one of them.
pub fn show(name: &str, context: &Context, database: &config::Database) -> Result<String> {
    Ok(match name {
        "shardwire.shard" => context.shard.clone().unwrap_or_default(),
        "shardwire.shard_key" => {
            let key = context.shard_key.as_deref();
            key.map(written_key).unwrap_or_default()
        }
        "shardwire.read_preference" => {
            let preference = context.read_preference.unwrap_or(database.read_preference);
            match preference {
                ReadPreference::Primary => "primary",
                ReadPreference::PrimaryPreferred => "primary_preferred",
                ReadPreference::Secondary => "secondary",
                ReadPreference::SecondaryPreferred => "secondary_preferred",
                ReadPreference::Nearest => "nearest",
            }
            .to_owned()
        }
        "shardwire.max_staleness" => {
            let limit = context.max_staleness.unwrap_or(database.max_staleness);
            written_duration(limit)
        }
        "shardwire.consistency" => match context.consistency.unwrap_or(database.consistency) {
            Consistency::Strong => "strong",
            Consistency::Session => "session",
            Consistency::Eventual => "eventual",
        }
        .to_owned(),
        "shardwire.serializable" => context.serializable.word().into(),
        _ => return Err(unknown(name)),
    })
}

/// The rows of SHOW ALL for all of them.
pub fn rows(context: &Context, database: &config::Database) -> Vec<u8> {
    let mut rows = Vec::new();
    for (name, description) in ALL {
        let value = show(name, context, database).unwrap_or_default();
        let values = [name, &value, description].map(|text| Some(text.as_bytes()));
        data_row(&mut rows, values.into_iter());
    }
    rows
}

/// Reads the value of `shardwire.read_preference`.
pub fn read_preference(value: &str) -> Option<ReadPreference> {
    Some(match value.to_ascii_lowercase().as_str() {
        "primary" => ReadPreference::Primary,
        "primary_preferred" => ReadPreference::PrimaryPreferred,
        "secondary" => ReadPreference::Secondary,
        "secondary_preferred" => ReadPreference::SecondaryPreferred,
        "nearest" => ReadPreference::Nearest,
        _ => return None,
    })
}

/// Reads the value of `shardwire.consistency`.
pub fn consistency(value: &str) -> Option<Consistency> {
    Some(match value.to_ascii_lowercase().as_str() {
        "strong" => Consistency::Strong,
        "session" => Consistency::Session,
        "eventual" => Consistency::Eventual,
        _ => return None,
    })
}

/// A duration as PostgreSQL's settings have it: a number and `ms`, `s`, `min` or `h`.
pub fn duration(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let milliseconds = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
}

/// As PostgreSQL prints such settings: in the largest unit that leaves a whole number.
fn written_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let fits = |&&(size, _): &&(u128, &str)| milliseconds > 0 && milliseconds.is_multiple_of(size);
    match units.iter().find(fits) {
        Some((size, unit)) => format!("{}{unit}", milliseconds / size),
        None => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_they_are_read() {
        for text in ["0", "7ms", "1500ms", "10s", "90s", "2min", "3h"] {
            let read = duration(text).unwrap();
            assert_eq!(written_duration(read), text);
        }
    }
}
