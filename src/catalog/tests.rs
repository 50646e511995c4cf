//! Placements, views and names of a small schema.

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
    tables:
      users: { shard_key: user_id }
      products: { replicated: true }
      settings: { shard: s1 }
      missing: { replicated: true }
      badly: { shard_key: at }
";

fn column(name: &str, type_oid: u32) -> RawColumn {
    RawColumn {
        name: name.to_owned(),
        type_oid,
        typmod: -1,
        collation_deterministic: true,
        ..RawColumn::default()
    }
}

fn relation(oid: u32, name: &str, kind: char, columns: Vec<RawColumn>) -> RawRelation {
    RawRelation {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind,
        columns,
        ..RawRelation::default()
    }
}

fn view(oid: u32, name: &str, depends_on: &[u32]) -> RawRelation {
    RawRelation {
        depends_on: depends_on.to_vec(),
        ..relation(oid, name, 'v', Vec::new())
    }
}

fn build() -> (Catalog, Vec<Problem>) {
    let config = Config::parse(CONFIG, &|_| None).unwrap();
    let partition = RawRelation {
        parent: Some(1),
        ..relation(2, "users_1", 'r', vec![column("user_id", 20)])
    };
    let raw = RawCatalog {
        relations: vec![
            relation(1, "users", 'p', vec![column("user_id", 20)]),
            partition,
            relation(3, "products", 'r', vec![column("id", 20)]),
            relation(4, "settings", 'r', vec![column("id", 20)]),
            relation(5, "badly", 'r', vec![column("at", 701)]),
            relation(6, "log", 'r', vec![column("id", 20)]),
            view(10, "of_users", &[11]),
            view(11, "of_users_inner", &[3, 1]),
            view(12, "of_products", &[3]),
            view(13, "of_settings", &[3, 4]),
            view(14, "of_two_homes", &[4, 6]),
            view(15, "of_itself", &[15]),
        ],
        default_search_path: vec!["public".to_owned()],
        ..RawCatalog::default()
    };
    Catalog::build(7, &raw, &config.databases["shop"])
}

#[test]
fn every_relation_knows_its_place() {
    let (catalog, _) = build();
    let place = |name: &str| match catalog.relation(None, name, catalog.default_search_path()) {
        Lookup::Relation(relation) => match &relation.location {
            Location::Home(shard) => format!("home {shard}"),
            Location::Replicated => "replicated".to_owned(),
            Location::Sharded(_) => "sharded".to_owned(),
            Location::Unserved(Reason::NoPlace(why)) => format!("unserved: {why}"),
            Location::Unserved(Reason::Differs(why)) => format!("differs: {why}"),
        },
        Lookup::System => "system".to_owned(),
        Lookup::Temporary => "temporary".to_owned(),
        Lookup::Unknown { configured, .. } => format!("unknown {configured}"),
    };
    for (name, expected) in [
        ("users", "sharded"),
        ("users_1", "sharded"),
        ("products", "replicated"),
        ("settings", "home 1"),
        ("log", "home 0"),
        (
            "badly",
            "unserved: the type of the shard key's column \"at\" can not be a shard key",
        ),
        ("of_users", "unserved: it reads a sharded table"),
        ("of_products", "replicated"),
        ("of_settings", "home 1"),
        (
            "of_two_homes",
            "unserved: it reads tables of several shards",
        ),
        ("of_itself", "unserved: its definition is nested too deeply"),
        ("pg_class", "system"),
        ("missing", "unknown true"),
        ("nowhere", "unknown false"),
    ] {
        assert_eq!(place(name), expected, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_reported() {
    let (_, problems) = build();
    let tables: Vec<&str> = problems
        .iter()
        .map(|problem| problem.table.as_str())
        .collect();
    assert_eq!(tables, ["missing", "public.badly"]);
}

#[test]
fn schemas_decide() {
    let (catalog, _) = build();
    assert!(matches!(
        catalog.relation(Some("other"), "users", &[]),
        Lookup::Unknown { .. }
    ));
    assert!(matches!(
        catalog.relation(None, "users", &[]),
        Lookup::Unknown {
            configured: true,
            ..
        }
    ));
    assert!(matches!(
        catalog.relation(Some("pg_temp"), "users", &[]),
        Lookup::Temporary
    ));
    assert!(matches!(
        catalog.relation(Some("information_schema"), "tables", &[]),
        Lookup::System
    ));
}

#[test]
fn what_users_add_to_a_built_in_name_counts_with_it() {
    let function = |schema: &str, name: &str, volatility| RawFunction {
        schema: schema.to_owned(),
        name: name.to_owned(),
        volatility,
        kind: 'f',
        language: "internal".to_owned(),
        ..RawFunction::default()
    };
    let built_in = [
        function("pg_catalog", "abs", 'i'),
        function("pg_catalog", "lower", 'i'),
        function("pg_catalog", "random", 'v'),
    ];
    let raw = RawCatalog {
        functions: vec![
            function("pg_catalog", "abs", 's'),
            function("pg_catalog", "random", 'i'),
            function("public", "lower", 'v'),
        ],
        built_in: Arc::new(BuiltIn::new(150_000, &built_in)),
        ..RawCatalog::default()
    };
    let config = Config::parse(CONFIG, &|_| None).unwrap();
    let (catalog, _) = Catalog::build(7, &raw, &config.databases["shop"]);
    let worst = |name: &str| {
        let functions = catalog.functions_named(None, name);
        functions
            .map(|one| (one.schema.clone(), one.volatility))
            .collect::<Vec<_>>()
    };
    let of = |schema: &str, volatility| (schema.to_owned(), volatility);
    assert_eq!(worst("abs"), [of("pg_catalog", Volatility::Stable)]);
    assert_eq!(worst("random"), [of("pg_catalog", Volatility::Volatile)]);
    assert_eq!(
        worst("lower"),
        [
            of("public", Volatility::Volatile),
            of("pg_catalog", Volatility::Immutable)
        ]
    );
    assert!(worst("upper").is_empty());
}
