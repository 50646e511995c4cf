//! Home tables of other shards than the first: merged into what the first one says; without I/O.

use std::collections::BTreeSet;

use crate::catalog::RawCatalog;
use crate::catalog::RawRelation;
use crate::config::Database;
use crate::config::TableRule;

/// The shards that are home to some table, other than `read`, the one that was read.
pub(in crate::topology) fn shards(
    database: &Database,
    raw: &RawCatalog,
    read: usize,
) -> BTreeSet<usize> {
    let configured = database.tables.named.values();
    let stored = raw.stored_placements.iter().map(|stored| &stored.rule);
    let homes = configured.chain(stored).filter_map(|rule| match rule {
        TableRule::Home { shard } => Some(*shard),
        _ => None,
    });
    homes.filter(|shard| *shard != read).collect()
}

/// Takes the home tables of `shard` from `other`, which is what that shard says (or said).
///
/// OIDs of different servers have nothing to do with each other: a table that is new to `raw` gets one
/// from the top of the range, and references to other relations are dropped.
pub(in crate::topology) fn merge(
    raw: &mut RawCatalog,
    database: &Database,
    shard: usize,
    other: &RawCatalog,
) {
    let tables = other.relations.iter().filter(|relation| {
        matches!(relation.kind, 'r' | 'p' | 'f') && is_home(raw, database, shard, relation)
    });
    let tables: Vec<RawRelation> = tables.cloned().collect();
    let taken: BTreeSet<u32> = raw.relations.iter().map(|relation| relation.oid).collect();
    let mut free = (0..=u32::MAX).rev().filter(|oid| !taken.contains(oid));
    for mut table in tables {
        table.depends_on.clear();
        table.parent = None;
        let mut relations = raw.relations.iter_mut();
        let known = relations.find(|r| r.schema == table.schema && r.name == table.name);
        if let Some(known) = known {
            table.oid = known.oid;
            *known = table;
        } else if let Some(oid) = free.next() {
            table.oid = oid;
            raw.relations.push(table);
        }
    }
}

fn is_home(raw: &RawCatalog, database: &Database, shard: usize, relation: &RawRelation) -> bool {
    let stored = || {
        let mut placements = raw.stored_placements.iter();
        placements
            .find(|p| p.schema == relation.schema && p.table == relation.name)
            .map(|placement| &placement.rule)
    };
    let named = database.tables.rule(&relation.schema, &relation.name);
    matches!(named.or_else(stored), Some(TableRule::Home { shard: home }) if *home == shard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn database() -> Config {
        let text = "
listen: 127.0.0.1:6432
auth: { method: trust }
databases:
  shop:
    backend: { database: shop, user: shop }
    shards:
      - { name: s0, servers: [a:1] }
      - { name: s1, servers: [b:1] }
    tables:
      settings: { shard: s1 }
      users: { shard_key: id }
";
        Config::parse(text, &|_| None).unwrap()
    }

    fn relation(oid: u32, name: &str) -> RawRelation {
        RawRelation {
            oid,
            schema: "public".into(),
            name: name.into(),
            kind: 'r',
            parent: Some(7),
            ..RawRelation::default()
        }
    }

    fn raw(relations: Vec<RawRelation>) -> RawCatalog {
        RawCatalog {
            relations,
            ..RawCatalog::default()
        }
    }

    #[test]
    fn tables_come_from_their_home() {
        let config = database();
        let database = &config.databases["shop"];
        assert_eq!(shards(database, &raw(vec![]), 0), BTreeSet::from([1]));
        assert!(shards(database, &raw(vec![]), 1).is_empty());
        let mut merged = raw(vec![relation(5, "users")]);
        let other = raw(vec![
            relation(5, "settings"),
            relation(6, "users"),
            relation(7, "other"),
        ]);
        merge(&mut merged, database, 1, &other);
        let found: Vec<_> = merged
            .relations
            .iter()
            .map(|r| (r.name.as_str(), r.oid, r.parent))
            .collect();
        assert_eq!(found, [("users", 5, Some(7)), ("settings", u32::MAX, None)]);
        // The home's word replaces the first shard's, and the OID stays.
        let mut merged = raw(vec![relation(9, "settings")]);
        merge(&mut merged, database, 1, &other);
        assert_eq!(merged.relations.len(), 1);
        assert_eq!(
            (merged.relations[0].oid, merged.relations[0].parent),
            (9, None)
        );
    }
}
