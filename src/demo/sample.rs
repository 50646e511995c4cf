//! The e-commerce sample, cut for each shard.

use std::io;

use crate::config::Database;
use crate::config::Shard;
use crate::config::TableRule;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;

/// Tables and rows; tells in its head which variables it expects.
const SCRIPT: &str = include_str!("sample.sql");

/// A sharded table of the sample. The others have the same key, or none.
const SHARDED_TABLE: &str = "users";

/// The psql script that makes the sample's tables and those of its rows that the database's
/// configuration places on one of its shards.
///
/// # Errors
/// When the configuration does not shard the sample's tables by hash.
pub fn script(database: &Database, shard: ShardIndex) -> io::Result<String> {
    let here = condition(database, shard)?;
    Ok(format!(
        "\\set here '{here}'\n\\set home {}\n{SCRIPT}",
        shard == 0
    ))
}

/// The SQL condition that holds for the rows of a shard.
fn condition(database: &Database, shard: ShardIndex) -> io::Result<String> {
    let unfit = || io::Error::other("the configuration does not fit the sample");
    let rule = database.tables.rule("public", SHARDED_TABLE);
    let rule = rule.ok_or_else(unfit)?;
    let TableRule::Sharded { key, .. } = rule else {
        return Err(unfit());
    };
    let columns = key
        .iter()
        .map(|name| (name.clone(), ColumnType::plain(KeyType::Int8)))
        .collect();
    let placement = Placement::new(rule, columns, &database.shards).map_err(io::Error::other)?;
    let slot = placement.slot_sql().ok_or_else(unfit)?;
    let shard = database.shards.get(shard).ok_or_else(unfit)?;
    Ok(within(&slot, shard))
}

fn within(slot: &str, shard: &Shard) -> String {
    let ranges: Vec<String> = shard
        .slots
        .iter()
        .map(|range| format!("{slot} BETWEEN {} AND {}", range.start(), range.end()))
        .collect();
    format!("({})", ranges.join(" OR "))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    use super::*;

    fn script_for(shard: &str, users: &str, number: ShardIndex) -> io::Result<String> {
        let text = format!(
            "listen: 127.0.0.1:0\nauth: {{ method: trust }}\ndatabases:\n  shop:\n    \
             backend: {{ user: shop }}\n    shards:\n      \
             - {{ name: s0, primary: a, slots: [{shard}] }}\n      \
             - {{ name: s1, primary: b, slots: [100-199, 8000-16383] }}\n    \
             tables:\n      users: {users}\n"
        );
        let config = Config::parse(&text, &|_| None).unwrap();
        script(&config.databases["shop"], number)
    }

    #[test]
    fn a_shard_gets_the_rows_of_its_slots() {
        let sharded = "{ shard_key: user_id }";
        let first = script_for("0-99, 200-7999", sharded, 0).unwrap();
        let slot = "(hashint8extended(\"user_id\"::int8, 0) & 16383)";
        let expected = format!(
            "\\set here '({slot} BETWEEN 0 AND 99 OR {slot} BETWEEN 200 AND 7999)'\n\
             \\set home true\n"
        );
        assert!(first.starts_with(&expected), "{first}");
        let second = script_for("0-99, 200-7999", sharded, 1).unwrap();
        assert!(second.contains("BETWEEN 8000 AND 16383)'\n\\set home false\n"));
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_an_error() {
        for users in ["{ replicated: true }", "{ shard_key: user_id, hash: xxh3 }"] {
            assert!(script_for("0-99, 200-7999", users, 0).is_err(), "{users}");
        }
    }
}
