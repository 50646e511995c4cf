//! Where the shards' schemas differ although they must agree; without I/O.

use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::catalog::RawRelation;
use crate::config::Database;
use crate::config::TableRule;

use super::queries::SchemaOf;

/// Whether a table has rows on every shard, and is sharded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Each shard holds a part.
    Sharded,
    /// Each shard holds all.
    Replicated,
    /// One shard holds it.
    Home,
}

/// How a table is spread, by the configuration and the placements that the shards hold.
pub(super) fn spread(database: &Database, raw: &RawCatalog, relation: &RawRelation) -> Spread {
    let stored = || {
        let mut placements = raw.stored_placements.iter();
        let placement =
            placements.find(|p| p.schema == relation.schema && p.table == relation.name);
        placement.map(|placement| &placement.rule)
    };
    let wildcard = || {
        database.tables.wildcard.as_ref().filter(|rule| match rule {
            TableRule::Sharded { key, .. } => key
                .iter()
                .all(|column| relation.columns.iter().any(|c| c.name == *column)),
            TableRule::Replicated | TableRule::Home { .. } => true,
        })
    };
    let named = database.tables.rule(&relation.schema, &relation.name);
    match named.or_else(stored).or_else(wildcard) {
        Some(TableRule::Sharded { .. }) => Spread::Sharded,
        Some(TableRule::Replicated) => Spread::Replicated,
        Some(TableRule::Home { .. }) | None => Spread::Home,
    }
}

/// The tables that have rows on every shard, as `schema.name`.
pub(super) fn spread_tables<'a>(
    database: &'a Database,
    raw: &'a RawCatalog,
) -> impl Iterator<Item = (String, Spread)> + 'a {
    let tables = raw
        .relations
        .iter()
        .filter(|relation| matches!(relation.kind, 'r' | 'p') && relation.schema != "shardwire");
    tables.filter_map(|relation| {
        let spread = spread(database, raw, relation);
        let name = || format!("{}.{}", relation.schema, relation.name);
        (spread != Spread::Home).then(|| (name(), spread))
    })
}

/// Every table that must be alike on every shard and is not.
pub(in crate::topology) fn differences(
    database: &Database,
    raw: &RawCatalog,
    schemas: &[SchemaOf],
) -> Vec<Problem> {
    let name = |shard: usize| database.shards.get(shard).map_or("", |s| s.name.as_str());
    let mut problems = Vec::new();
    for (table, _) in spread_tables(database, raw) {
        let mut first: Option<(usize, &str)> = None;
        for schema in schemas {
            let shard = name(schema.shard);
            let message = match (schema.tables.get(&table), first) {
                (None, _) => format!("it does not exist on shard \"{shard}\"; create it there"),
                (Some(columns), None) => {
                    first = Some((schema.shard, columns));
                    continue;
                }
                (Some(columns), Some((_, known))) if columns == known => continue,
                (Some(columns), Some((of, known))) => format!(
                    "its columns are ({columns}) on shard \"{shard}\" but ({known}) on shard \"{}\"; make them alike",
                    name(of)
                ),
            };
            problems.push(Problem {
                table: table.clone(),
                message,
            });
        }
    }
    problems
}
