//! The tables that the random statements are about, and where their rows belong.

use crate::harness::Cluster;

/// The types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int2,
    Int4,
    Int8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Date,
    Timestamp,
    Timestamptz,
    Bool,
    Uuid,
}

/// A table as statements see it.
pub struct Table {
    /// As SQL writes it.
    pub name: &'static str,
    /// Its columns, as SQL writes them.
    pub columns: &'static [(&'static str, Kind)],
    /// How many of them make the shard key; they come first. None if it is not sharded.
    pub key: usize,
    /// Where its rows are.
    pub place: Place,
}

/// Where the rows of a table are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By the slot that this SQL expression gives.
    Slot(&'static str),
    /// By a condition for each shard.
    Where([&'static str; 2]),
    Everywhere,
    Home(usize),
    /// A view: it can't be written.
    View,
}

use Kind::{
    Bool, Bpchar, Date, Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Uuid, Varchar,
};

/// All tables and views.
pub const TABLES: &[Table] = &[
    Table {
        name: "users",
        columns: &[
            ("user_id", Int8),
            ("name", Text),
            ("born", Date),
            ("score", Numeric),
            ("active", Bool),
        ],
        key: 1,
        place: Place::Slot("hashint8extended(user_id, 0)"),
    },
    Table {
        name: "orders",
        columns: &[
            ("user_id", Int8),
            ("order_id", Int4),
            ("total", Numeric),
            ("note", Varchar),
            ("at", Timestamp),
        ],
        key: 1,
        place: Place::Slot("hashint8extended(user_id, 0)"),
    },
    Table {
        name: "plain",
        columns: &[("k", Int4), ("v", Text), ("user_id", Int8)],
        key: 1,
        place: Place::Slot("hashint8extended(k, 0)"),
    },
    Table {
        name: "smalls",
        columns: &[("k", Int2), ("v", Int4)],
        key: 1,
        place: Place::Slot("hashint8extended(k, 0)"),
    },
    Table {
        name: "texts",
        columns: &[("k", Text), ("v", Int4)],
        key: 1,
        place: Place::Slot("hashtextextended(k, 0)"),
    },
    Table {
        name: "codes",
        columns: &[("k", Varchar), ("v", Int4), ("name", Text)],
        key: 1,
        place: Place::Slot("hashtextextended(k, 0)"),
    },
    Table {
        name: "chars",
        columns: &[("k", Bpchar), ("v", Int4)],
        key: 1,
        place: Place::Slot("hashbpcharextended(k, 0)"),
    },
    Table {
        name: "numbers",
        columns: &[("k", Numeric), ("v", Int4)],
        key: 1,
        place: Place::Slot("hash_numeric_extended(k, 0)"),
    },
    Table {
        name: "days",
        columns: &[("k", Date), ("v", Int4)],
        key: 1,
        place: Place::Slot("hash_record_extended(ROW(k), 0)"),
    },
    Table {
        name: "stamps",
        columns: &[("k", Timestamp), ("v", Int4)],
        key: 1,
        place: Place::Slot("timestamp_hash_extended(k, 0)"),
    },
    Table {
        name: "zoned",
        columns: &[("k", Timestamptz), ("v", Int4)],
        key: 1,
        place: Place::Slot("hash_record_extended(ROW(k), 0)"),
    },
    Table {
        name: "uuids",
        columns: &[("k", Uuid), ("v", Int4)],
        key: 1,
        place: Place::Slot("uuid_hash_extended(k, 0)"),
    },
    Table {
        name: "flags",
        columns: &[("k", Bool), ("v", Text)],
        key: 1,
        place: Place::Slot("hash_record_extended(ROW(k), 0)"),
    },
    Table {
        name: "visits",
        columns: &[("tenant_id", Int4), ("day", Date), ("hits", Int4)],
        key: 2,
        place: Place::Slot("hash_record_extended(ROW(day), hashint8extended(tenant_id, 0))"),
    },
    Table {
        name: "pairs",
        columns: &[("tag", Text), ("user_id", Int8), ("v", Numeric)],
        key: 2,
        place: Place::Slot("hashint8extended(user_id, hashtextextended(tag, 0))"),
    },
    Table {
        name: "regions",
        columns: &[("k", Text), ("name", Text)],
        key: 1,
        place: Place::Where([
            "k IN ('key 1', 'key 2', 'key 3')",
            "k IN ('key 4', 'key 5')",
        ]),
    },
    Table {
        name: "readings",
        columns: &[("k", Date), ("v", Int4)],
        key: 1,
        place: Place::Where(["k < '2024-03-12'", "k >= '2024-03-12'"]),
    },
    Table {
        name: "\"Order\"",
        columns: &[("\"Key\"", Int8), ("\"select\"", Text), ("user_id", Int8)],
        key: 1,
        place: Place::Slot("hashint8extended(\"Key\", 0)"),
    },
    Table {
        name: "products",
        columns: &[
            ("product_id", Int4),
            ("name", Text),
            ("price", Numeric),
            ("user_id", Int8),
            ("k", Text),
            ("label", Text),
        ],
        key: 0,
        place: Place::Everywhere,
    },
    Table {
        name: "days_off",
        columns: &[("k", Date), ("at", Timestamp), ("tz", Timestamptz)],
        key: 0,
        place: Place::Everywhere,
    },
    Table {
        name: "settings",
        columns: &[("name", Text), ("value", Text), ("user_id", Int8)],
        key: 0,
        place: Place::Home(1),
    },
    Table {
        name: "notes",
        columns: &[("id", Int4), ("body", Text), ("user_id", Int8)],
        key: 0,
        place: Place::Home(0),
    },
    Table {
        name: "other.users",
        columns: &[("user_id", Int8), ("name", Text)],
        key: 0,
        place: Place::Home(0),
    },
    Table {
        name: "cheap",
        columns: &[("product_id", Int4), ("name", Text)],
        key: 0,
        place: Place::View,
    },
    Table {
        name: "user_names",
        columns: &[("user_id", Int8), ("name", Text)],
        key: 0,
        place: Place::View,
    },
];

const DDL: &str = r#"
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, born date, score numeric(10,2) CHECK (score >= 0), active boolean);
    CREATE TABLE orders (gone int, user_id bigint, order_id int, total numeric(10,2) DEFAULT 1.5, note varchar(20), at timestamp, PRIMARY KEY (user_id, order_id));
    ALTER TABLE orders DROP COLUMN gone;
    CREATE TABLE plain (k int PRIMARY KEY, v text DEFAULT 'none', user_id bigint);
    CREATE TABLE smalls (k smallint PRIMARY KEY, v int);
    CREATE TABLE texts (k text PRIMARY KEY, v int);
    CREATE TABLE codes (k varchar(20) PRIMARY KEY, v int, name text);
    CREATE TABLE chars (k char(8) PRIMARY KEY, v int);
    CREATE TABLE numbers (k numeric(12,3) PRIMARY KEY, v int);
    CREATE TABLE days (k date PRIMARY KEY, v int);
    CREATE TABLE stamps (k timestamp PRIMARY KEY, v int);
    CREATE TABLE zoned (k timestamptz PRIMARY KEY, v int);
    CREATE TABLE uuids (k uuid PRIMARY KEY, v int);
    CREATE TABLE flags (k boolean PRIMARY KEY, v text);
    CREATE TABLE visits (tenant_id int, day date, hits int, PRIMARY KEY (tenant_id, day));
    CREATE TABLE pairs (tag text, user_id bigint, v numeric(8,2), PRIMARY KEY (tag, user_id));
    CREATE TABLE regions (k text PRIMARY KEY CHECK (k IN ('key 1', 'key 2', 'key 3', 'key 4', 'key 5')), name text);
    CREATE TABLE readings (k date PRIMARY KEY, v int);
    CREATE TABLE "Order" ("Key" bigint PRIMARY KEY, "select" text, user_id bigint);
    CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE DOMAIN shout AS text COLLATE ci;
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE shouted (k shout);
    CREATE TABLE products (product_id int PRIMARY KEY, name text, price numeric(10,2), user_id bigint, k text, label text COLLATE ci);
    CREATE TABLE days_off (k date, at timestamp, tz timestamptz);
    CREATE TABLE settings (name text PRIMARY KEY, value text, user_id bigint);
    CREATE TABLE notes (id int PRIMARY KEY, body text, user_id bigint);
    CREATE SCHEMA other;
    CREATE TABLE other.users (user_id bigint, name text);
    CREATE VIEW cheap AS SELECT product_id, name FROM products WHERE price < 60;
    CREATE VIEW user_names AS SELECT user_id, name FROM users
"#;

const ROWS: &str = r#"
    INSERT INTO users SELECT i, 'key ' || i, date '2024-03-01' + i, CASE WHEN i % 5 > 0 THEN i * 1.25 END, CASE WHEN i % 3 > 0 THEN i % 2 = 0 END FROM generate_series(1, 16) i;
    INSERT INTO orders SELECT u, o, (u % 3 + o) * 1.25, CASE WHEN o < 3 THEN 'key ' || o END, timestamp '2024-03-01 12:00' + o * interval '1 day' FROM generate_series(1, 14) u, generate_series(1, 3) o;
    INSERT INTO plain SELECT i, 'key ' || i % 4, nullif(i % 6, 0) FROM generate_series(-2, 16) i;
    INSERT INTO smalls SELECT i, i % 5 FROM generate_series(0, 14) i;
    INSERT INTO texts SELECT 'key ' || i, i FROM generate_series(1, 14) i;
    INSERT INTO texts VALUES ('', 0), ('größe €', 100), (' ', 101), ('key 1 ', 102), (E'back\\slash''s', 103);
    INSERT INTO codes SELECT 'key ' || i, nullif(i, 4), 'key ' || i + 1 FROM generate_series(1, 14) i;
    INSERT INTO codes VALUES ('', 0), ('größe €', 100), ('key 1 ', 102);
    INSERT INTO chars SELECT 'key ' || i, i FROM generate_series(1, 14) i;
    INSERT INTO chars VALUES ('', 0), ('größe €', 100);
    INSERT INTO numbers SELECT i, i FROM generate_series(-2, 12) i;
    INSERT INTO numbers SELECT i * 1.25, i FROM generate_series(1, 9) i WHERE i % 4 > 0;
    INSERT INTO numbers VALUES ('NaN', 100);
    INSERT INTO days SELECT date '2024-03-01' + i, i FROM generate_series(0, 14) i;
    INSERT INTO days VALUES ('infinity', 100);
    INSERT INTO stamps SELECT timestamp '2024-03-01 12:00' + i * interval '1 day', i FROM generate_series(0, 14) i;
    INSERT INTO stamps SELECT timestamp '2024-03-01 00:00' + i * interval '1 day', i FROM generate_series(0, 9) i;
    INSERT INTO zoned SELECT timestamptz '2024-03-01 12:00+00' + i * interval '1 day', i FROM generate_series(0, 14) i;
    INSERT INTO zoned SELECT timestamptz '2024-03-01 00:00+00' + i * interval '1 day', i FROM generate_series(0, 9) i;
    INSERT INTO uuids SELECT ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, i FROM generate_series(1, 14) i;
    INSERT INTO flags VALUES (true, 'key 1'), (false, 'key 2');
    INSERT INTO visits SELECT t, date '2024-03-01' + d, t * d FROM generate_series(1, 5) t, generate_series(1, 5) d;
    INSERT INTO pairs SELECT 'key ' || t, u, t * u * 0.25 FROM generate_series(1, 4) t, generate_series(1, 5) u;
    INSERT INTO regions SELECT 'key ' || i, 'region ' || i FROM generate_series(1, 4) i;
    INSERT INTO readings SELECT date '2024-03-01' + i, i FROM generate_series(0, 20) i;
    INSERT INTO "Order" SELECT i, 'key ' || i, i % 4 FROM generate_series(1, 14) i;
    INSERT INTO "Order" VALUES (9007199254740992, 'large');
    INSERT INTO products SELECT i, 'key ' || i, i * 9.99, nullif(i % 7, 0), 'key ' || (i % 5), 'Key ' || (i % 5) FROM generate_series(1, 12) i;
    INSERT INTO days_off SELECT date '2024-03-01' + i, timestamp '2024-03-01 00:00' + i * interval '12 hours', timestamptz '2024-03-01 00:00+00' + i * interval '12 hours' FROM generate_series(0, 6) i;
    INSERT INTO settings SELECT 'key ' || i, 'value', i FROM generate_series(1, 6) i;
    INSERT INTO notes SELECT i, 'key ' || i, i * 2 FROM generate_series(1, 6) i;
    INSERT INTO other.users SELECT i, 'other ' || i FROM generate_series(1, 6) i
"#;

const RANGE: &str =
    r#"{ shard_key: k, range: { s0: { to: "2024-03-12" }, s1: { from: "2024-03-12" } } }"#;
const LIST: &str = "{ shard_key: k, list: { s0: [key 1, key 2, key 3], s1: [key 4, key 5] } }";

impl Table {
    /// The table by its name in SQL.
    pub fn named(name: &str) -> &'static Table {
        TABLES.iter().find(|table| table.name == name).unwrap()
    }

    /// The condition that its rows on a shard meet.
    pub fn condition(&self, shard: usize) -> String {
        match self.place {
            Place::Slot(hash) => format!("({hash} & 16383) / 8192 = {shard}"),
            Place::Where(conditions) => conditions[shard].to_owned(),
            Place::Everywhere | Place::View => "true".to_owned(),
            Place::Home(home) => (home == shard).to_string(),
        }
    }
}

/// Two shards, the oracle, and the proxy on them.
pub fn cluster() -> Cluster {
    let mut builder = Cluster::new().shards(2).schema(DDL).rows(ROWS);
    for table in TABLES {
        let key = table.columns[..table.key].iter().map(|(name, _)| *name);
        let key: Vec<&str> = key.collect();
        builder = match table.place {
            Place::View => builder,
            Place::Everywhere => builder.replicated(table.name),
            Place::Home(shard) => builder.home(table.name, shard),
            Place::Slot(_) | Place::Where(_) => {
                let yaml = match table.name {
                    "readings" => RANGE.to_owned(),
                    "regions" => LIST.to_owned(),
                    _ => format!("{{ shard_key: [{}] }}", key.join(", ")),
                };
                let conditions = [table.condition(0), table.condition(1)];
                builder.placed(table.name, &yaml, &[&conditions[0], &conditions[1]])
            }
        };
    }
    builder.start()
}
