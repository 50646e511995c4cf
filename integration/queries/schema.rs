//! The sample schema of the random queries: every common type, NULLs, tables that are not co-located.

use crate::harness::Cluster;

/// Families of types. Two values of one family that are equal look alike, so that it does not matter
/// which of them stands for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    /// With two digits behind the point.
    Num,
    /// Quarters, so that sums don't depend on the order.
    Float,
    Text,
    /// Text that is ordered as in German.
    German,
    Date,
    Stamp,
    Zoned,
    Bool,
    Uuid,
    Bytes,
    /// Hours.
    Span,
    Mood,
    Words,
    Json,
}

/// All families.
pub const KINDS: [Kind; 15] = [
    Kind::Int,
    Kind::Num,
    Kind::Float,
    Kind::Text,
    Kind::German,
    Kind::Date,
    Kind::Stamp,
    Kind::Zoned,
    Kind::Bool,
    Kind::Uuid,
    Kind::Bytes,
    Kind::Span,
    Kind::Mood,
    Kind::Words,
    Kind::Json,
];

/// A table as queries see it.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    /// Columns that no two rows share.
    pub id: &'static [&'static str],
}

use Kind::{
    Bool, Bytes, Date, Float, German, Int, Json, Mood, Num, Span, Stamp, Text, Uuid, Words, Zoned,
};

/// All tables.
pub const TABLES: [Table; 8] = [
    Table {
        name: "users",
        columns: &[
            ("user_id", Int),
            ("name", Text),
            ("title", German),
            ("age", Int),
            ("score", Num),
            ("joined", Zoned),
            ("born", Date),
            ("active", Bool),
            ("mood", Mood),
            ("tags", Words),
            ("data", Json),
        ],
        id: &["user_id"],
    },
    Table {
        name: "orders",
        columns: &[
            ("user_id", Int),
            ("order_id", Int),
            ("total", Num),
            ("status", Text),
            ("placed", Stamp),
            ("ratio", Float),
            ("uid", Uuid),
        ],
        id: &["user_id", "order_id"],
    },
    Table {
        name: "items",
        columns: &[
            ("item_id", Int),
            ("order_id", Int),
            ("product_id", Int),
            ("amount", Int),
            ("price", Num),
            ("raw", Bytes),
        ],
        id: &["item_id"],
    },
    Table {
        name: "events",
        columns: &[
            ("tenant", Int),
            ("day", Date),
            ("kind", Text),
            ("span", Span),
            ("user_id", Int),
            ("label", German),
        ],
        id: &["tenant", "day", "kind"],
    },
    Table {
        name: "tags",
        columns: &[("tag", Text), ("user_id", Int), ("weight", Float)],
        id: &["tag", "user_id"],
    },
    Table {
        name: "products",
        columns: &[
            ("product_id", Int),
            ("name", Text),
            ("price", Num),
            ("title", German),
        ],
        id: &["product_id"],
    },
    Table {
        name: "settings",
        columns: &[("key", Text), ("value", Int), ("since", Date)],
        id: &["key"],
    },
    Table {
        name: "\"Odd\"",
        columns: &[("\"Key\"", Int), ("\"select\"", Text), ("user_id", Int)],
        id: &["\"Key\""],
    },
];

const DDL: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text, title text COLLATE \"de-x-icu\", age int,
        score numeric(8,2), joined timestamptz, born date, active bool, mood mood, tags text[], data jsonb);
    CREATE TABLE orders (user_id bigint, order_id int, total numeric(12,2), status varchar(12),
        placed timestamp, ratio float8, uid uuid, PRIMARY KEY (user_id, order_id));
    CREATE TABLE items (item_id int PRIMARY KEY, order_id bigint NOT NULL, product_id int, amount smallint,
        price numeric(10,2), raw bytea);
    CREATE TABLE events (tenant int, day date, kind text, span interval, user_id int,
        label text COLLATE \"de-x-icu\", PRIMARY KEY (tenant, day, kind));
    CREATE TABLE tags (tag text, user_id bigint, weight real, PRIMARY KEY (tag, user_id));
    CREATE TABLE products (product_id int PRIMARY KEY, name text, price numeric(10,2),
        title text COLLATE \"de-x-icu\");
    CREATE TABLE settings (key text PRIMARY KEY, value int, since date);
    CREATE TABLE \"Odd\" (\"Key\" bigint PRIMARY KEY, \"select\" text, user_id int);
";

const ROWS: &str = "
    INSERT INTO users SELECT i, (ARRAY['Ann','bob','Ötzi','zoe','ärger','Zed','Bob',NULL,''])[1 + i % 9],
        (ARRAY['Ärger','Affe','Zoo','öde','Oper','über',NULL,'affe','Straße','Strasse'])[1 + i % 10],
        NULLIF(i % 13, 7), CASE i % 11 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE (i % 6) * 1.25 END,
        CASE WHEN i % 7 > 0 THEN '2026-01-01 00:00+00'::timestamptz + i * interval '7 hours' END,
        CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' ELSE date '1990-02-27' + i % 5 END,
        CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END, (ARRAY['sad','ok','happy',NULL])[1 + i % 4]::mood,
        CASE i % 5 WHEN 0 THEN '{}' WHEN 1 THEN NULL WHEN 2 THEN '{a,NULL}' ELSE ARRAY['a', 'b' || i % 3] END,
        CASE WHEN i % 4 > 0 THEN jsonb_build_object('n', i % 6, 's', 'x' || i % 3) END
        FROM generate_series(1, 30) i;
    INSERT INTO orders SELECT 1 + i * 7 % 34, i, NULLIF(i % 13, 5) * 1.25, (ARRAY['new','paid','sent',NULL])[1 + i % 4],
        CASE WHEN i % 8 > 0 THEN timestamp '2026-02-27 22:00' + i % 10 * interval '5 hours' END,
        CASE i % 10 WHEN 0 THEN 'NaN' WHEN 1 THEN 'infinity' WHEN 2 THEN NULL ELSE i % 7 / 4.0 END,
        md5((i % 20)::text)::uuid FROM generate_series(1, 60) i;
    INSERT INTO items SELECT i, 1 + i * 3 % 66, NULLIF(i % 14, 4), i % 6, i % 9 * 0.25,
        CASE WHEN i % 5 > 0 THEN decode(lpad(to_hex(i % 7), 2, '0'), 'hex') END FROM generate_series(1, 70) i;
    INSERT INTO events SELECT i % 4, date '2026-02-26' + i % 5, (ARRAY['in','out','Ümlaut'])[1 + i % 3],
        CASE WHEN i % 6 > 0 THEN i % 5 * interval '3 hours' END, NULLIF(i % 33, 8),
        (ARRAY['Zoo','öde','Affe',NULL])[1 + i % 4] FROM generate_series(1, 50) i ON CONFLICT DO NOTHING;
    INSERT INTO tags SELECT (ARRAY['a','b1','ä','','new'])[1 + i % 5], 1 + i % 11, i % 5 / 4.0
        FROM generate_series(1, 40) i ON CONFLICT DO NOTHING;
    INSERT INTO products SELECT i, (ARRAY['Ann','new','b1',NULL])[1 + i % 4], i % 5 * 1.5,
        (ARRAY['Zoo','öde','Affe',NULL,'Straße'])[1 + i % 5] FROM generate_series(1, 12) i;
    INSERT INTO settings VALUES ('a', 3, '2026-02-26'), ('new', NULL, NULL), ('Bob', 7, '1990-02-28'), ('', 0, NULL);
    INSERT INTO \"Odd\" SELECT i, (ARRAY['Ann','paid',NULL])[1 + i % 3], NULLIF(i % 5, 3) FROM generate_series(0, 12) i;
";

/// So many shards, the oracle, and the proxy on them.
pub fn cluster(shards: usize) -> Cluster {
    let odd =
        |shard| format!("(hashint8extended(\"Key\", 0) & 16383) * {shards} / 16384 = {shard}");
    let odd: Vec<String> = (0..shards).map(odd).collect();
    let odd: Vec<&str> = odd.iter().map(String::as_str).collect();
    Cluster::new()
        .shards(shards)
        .schema(DDL)
        .rows(ROWS)
        .sharded("users", &["user_id"])
        .sharded("orders", &["user_id"])
        .sharded("items", &["order_id"])
        .sharded("events", &["tenant", "day"])
        .sharded("tags", &["tag"])
        .placed("\"Odd\"", "{ shard_key: [\"Key\"] }", &odd)
        .replicated("products")
        .home("settings", shards - 1)
        .start()
}

impl Kind {
    /// The type that constants are cast to.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int => "bigint",
            Kind::Num => "numeric(12,2)",
            Kind::Float => "float8",
            Kind::Text | Kind::German => "text",
            Kind::Date => "date",
            Kind::Stamp => "timestamp",
            Kind::Zoned => "timestamptz",
            Kind::Bool => "bool",
            Kind::Uuid => "uuid",
            Kind::Bytes => "bytea",
            Kind::Span => "interval",
            Kind::Mood => "mood",
            Kind::Words => "text[]",
            Kind::Json => "jsonb",
        }
    }

    /// The OID of that type; 0 if it has none that is everywhere the same.
    pub fn oid(self) -> u32 {
        match self {
            Kind::Int => 20,
            Kind::Num => 1700,
            Kind::Float => 701,
            Kind::Text | Kind::German => 25,
            Kind::Date => 1082,
            Kind::Stamp => 1114,
            Kind::Zoned => 1184,
            Kind::Bool => 16,
            Kind::Uuid => 2950,
            Kind::Bytes => 17,
            Kind::Span => 1186,
            Kind::Mood => 0,
            Kind::Words => 1009,
            Kind::Json => 3802,
        }
    }

    /// Values as text.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Kind::Int => &["0", "1", "2", "3", "5", "8", "11", "29", "-1"],
            Kind::Num => &["0.00", "1.25", "2.50", "6.25", "-3.00"],
            Kind::Float => &["0.25", "0.5", "1", "1.75", "NaN"],
            Kind::Text => &["Ann", "bob", "new", "paid", "b1", "a", "", "Ötzi", "in"],
            Kind::German => &["Affe", "öde", "Zoo", "Straße", "m"],
            Kind::Date => &["2026-02-27", "1990-02-28", "2026-03-01"],
            Kind::Stamp => &["2026-02-28 03:00:00", "2026-03-01 00:00:00"],
            Kind::Zoned => &["2026-01-03 00:00:00+00", "2026-01-08 12:00:00+02"],
            Kind::Bool => &["true", "false"],
            Kind::Uuid => &[
                "c4ca4238-a0b9-2382-0dcc-509a6f75849b",
                "eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3",
            ],
            Kind::Bytes => &["\\x01", "\\x05", "\\x"],
            Kind::Span => &["03:00:00", "06:00:00", "12:00:00"],
            Kind::Mood => &["sad", "ok", "happy"],
            Kind::Words => &["{a,b1}", "{}", "{a,NULL}"],
            Kind::Json => &["{\"n\": 2, \"s\": \"x2\"}", "{\"n\": 1, \"s\": \"x1\"}"],
        }
    }
}
