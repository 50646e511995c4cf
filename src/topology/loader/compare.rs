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
    compare(database, raw, schemas, |columns| columns.to_owned())
}

/// Those among them that can't be queried as one table: a constraint that is not there makes no answer
/// wrong.
pub(super) fn unlike(database: &Database, raw: &RawCatalog, schemas: &[SchemaOf]) -> Vec<Problem> {
    compare(database, raw, schemas, |columns| {
        columns.replace(" NOT NULL", "")
    })
}

fn compare(
    database: &Database,
    raw: &RawCatalog,
    schemas: &[SchemaOf],
    words: impl Fn(&str) -> String,
) -> Vec<Problem> {
    let name = |shard: usize| database.shards.get(shard).map_or("", |s| s.name.as_str());
    let mut problems = Vec::new();
    for (table, _) in spread_tables(database, raw) {
        // What no shard has, has been dropped.
        if !schemas
            .iter()
            .any(|schema| schema.tables.contains_key(&table))
        {
            continue;
        }
        let mut first: Option<(usize, String)> = None;
        for schema in schemas {
            let shard = name(schema.shard);
            let columns = schema.tables.get(&table).map(|columns| words(columns));
            let message = match (columns, &first) {
                (None, _) => format!("it does not exist on shard \"{shard}\"; create it there"),
                (Some(columns), None) => {
                    first = Some((schema.shard, columns));
                    continue;
                }
                (Some(columns), Some((_, known))) if columns == *known => continue,
                (Some(columns), Some((of, known))) => format!(
                    "its columns are ({columns}) on shard \"{shard}\" but ({known}) on shard \"{}\"; make them alike",
                    name(*of)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    const CONFIG: &str = "
listen: 127.0.0.1:6432
auth: { method: trust }
databases:
  shop:
    backend: { database: shop, user: shop }
    shards:
      - { name: s0, servers: [10.0.0.1:5432] }
      - { name: s1, servers: [10.0.0.2:5432] }
    tables: { users: { shard_key: user_id } }
";

    #[test]
    fn a_constraint_is_told_and_a_column_is_refused() {
        let config = Config::parse(CONFIG, &|_| None).unwrap();
        let database = &config.databases["shop"];
        let raw = RawCatalog {
            relations: vec![RawRelation {
                schema: "public".to_owned(),
                name: "users".to_owned(),
                kind: 'r',
                ..RawRelation::default()
            }],
            ..RawCatalog::default()
        };
        let compared = |one: &str, other: &str| {
            let schema = |shard, columns: &str| SchemaOf {
                shard,
                tables: BTreeMap::from([("public.users".to_owned(), columns.to_owned())]),
            };
            let schemas = [schema(0, one), schema(1, other)];
            let differences = differences(database, &raw, &schemas);
            (differences.len(), unlike(database, &raw, &schemas).len())
        };
        assert_eq!(compared("a integer", "a integer"), (0, 0));
        assert_eq!(compared("a integer", "a integer NOT NULL"), (1, 0));
        assert_eq!(compared("a integer", "a bigint"), (1, 1));
        assert_eq!(compared("a text, b text", "b text, a text"), (1, 1));
    }
}
