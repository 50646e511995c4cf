//! Advice about a small schema.

use super::*;

use crate::catalog::Problem;
use crate::catalog::RawColumn;
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
    tables:
      users: { shard_key: id }
      orders: { shard_key: user_id }
      flags: { shard_key: flag }
      readings: { shard_key: at, range: { s0: { to: \"2026-01-01\" }, s1: { from: \"2026-01-01\" } } }
      products: { replicated: true }
      remote: { shard: s1 }
";

fn table(oid: u32, name: &str, columns: &[(&str, u32)]) -> RawRelation {
    let columns = columns.iter().map(|(name, type_oid)| RawColumn {
        name: (*name).to_owned(),
        type_oid: *type_oid,
        typmod: -1,
        collation_deterministic: true,
        ..RawColumn::default()
    });
    RawRelation {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: 'r',
        columns: columns.collect(),
        ..RawRelation::default()
    }
}

fn index(oid: u32, table: u32, columns: &[&str], is_unique: bool) -> RawIndex {
    RawIndex {
        oid,
        table,
        name: format!("i{oid}"),
        is_unique,
        is_primary: false,
        columns: columns.iter().map(|one| (*one).to_owned()).collect(),
    }
}

fn key(
    oid: u32,
    (table, columns): (u32, &[&str]),
    (referenced, to): (u32, &[&str]),
) -> RawForeignKey {
    let owned = |names: &[&str]| names.iter().map(|one| (*one).to_owned()).collect();
    RawForeignKey {
        oid,
        table,
        name: format!("f{oid}"),
        referenced,
        columns: owned(columns),
        referenced_columns: owned(to),
        actions: ('a', 'a'),
    }
}

#[test]
fn each_kind_of_advice_is_given_where_it_belongs() {
    let raw = RawCatalog {
        relations: vec![
            table(1, "users", &[("id", 20), ("mail", 25)]),
            table(2, "orders", &[("id", 20), ("user_id", 23), ("product", 20)]),
            table(3, "flags", &[("flag", 16)]),
            table(4, "readings", &[("at", 1114)]),
            table(5, "products", &[("id", 20)]),
            table(6, "notes", &[("id", 20)]),
            table(7, "remote", &[("id", 20)]),
        ],
        default_search_path: vec!["public".to_owned()],
        indexes: vec![
            index(20, 1, &["id"], true),
            index(21, 1, &["mail"], true),
            index(22, 1, &["mail"], false),
            index(23, 2, &["", "user_id"], false),
            index(24, 5, &["id"], true),
        ],
        foreign_keys: vec![
            key(30, (2, &["user_id"]), (1, &["id"])),
            key(31, (2, &["id"]), (1, &["id"])),
            key(32, (2, &["product"]), (5, &["id"])),
            key(33, (5, &["id"]), (1, &["id"])),
            key(34, (2, &["id"]), (6, &["id"])),
            key(35, (6, &["id"]), (5, &["id"])),
            key(36, (6, &["id"]), (7, &["id"])),
            key(37, (6, &["id"]), (6, &["id"])),
        ],
        ..RawCatalog::default()
    };
    let config = Config::parse(CONFIG, &|_| None).unwrap();
    let (catalog, problems) = Catalog::build(1, &raw, &config.databases["shop"]);
    assert_eq!(problems, Vec::<Problem>::new());
    let given: Vec<(&str, u32)> = advice(&raw, &catalog)
        .iter()
        .map(|one| (one.code.as_str(), one.object))
        .collect();
    let wanted = [
        ("SW102", 3),
        ("SW101", 4),
        ("SW104", 21),
        ("SW103", 22),
        ("SW105", 31),
        ("SW105", 33),
        ("SW105", 34),
        ("SW105", 36),
    ];
    assert_eq!(given, wanted);
}
