//! The tables that the random writes change, and where their rows belong.

use crate::differential::schema::Kind;
use crate::harness::Cluster;
use crate::harness::cluster::Builder;

use Kind::{Bool, Bpchar, Date, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Uuid, Varchar};
use Place::{Everywhere, Home, Slot, Where};
use Role::{Key, Made, Number, Plain};

/// What a column is to statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A column of the shard key, or of the primary key of a table that has none.
    Key,
    Plain,
    /// GENERATED ALWAYS AS an expression.
    Made,
    /// From a sequence: which number it gets is not compared.
    Number,
}

/// Where the rows of a table are.
pub enum Place {
    /// By the slot that this SQL expression gives.
    Slot(&'static str),
    /// By a rule of proxy.yaml, and the condition that says which rows are on the first of two parts.
    Where(&'static str, &'static str),
    Everywhere,
    Home(usize),
}

/// A table as statements see it.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind, Role)],
    pub place: Place,
    /// What ON CONFLICT may name.
    pub conflicts: &'static [&'static str],
    /// Tables to join with, and the condition that gives each row one match at most.
    pub joins: &'static [(&'static str, &'static str)],
}

impl Table {
    pub fn named(name: &str) -> &'static Table {
        TABLES.iter().find(|table| table.name == name).unwrap()
    }

    /// The names of the columns whose values are the same on both sides.
    pub fn compared(&self) -> Vec<&'static str> {
        let columns = self.columns.iter();
        let same = columns.filter(|(_, _, role)| *role != Number);
        same.map(|(name, _, _)| *name).collect()
    }

    /// The columns of its key.
    pub fn key(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let columns = self.columns.iter();
        let keys = columns.filter(|(_, _, role)| *role == Key);
        keys.map(|(name, kind, _)| (*name, *kind))
    }

    /// The columns that may be assigned to, keys aside.
    pub fn plain(&self) -> Vec<(&'static str, Kind)> {
        let columns = self.columns.iter();
        let plain = columns.filter(|(_, _, role)| *role == Plain);
        plain.map(|(name, kind, _)| (*name, *kind)).collect()
    }

    pub fn is_sharded(&self) -> bool {
        matches!(self.place, Slot(_) | Where(..))
    }

    /// The condition that its rows on a shard meet.
    pub fn condition(&self, shard: usize, shards: usize) -> String {
        match self.place {
            Slot(hash) => {
                let start = |shard: usize| shard * 16_384 / shards;
                let (first, end) = (start(shard), start(shard + 1));
                format!("({hash} & 16383) >= {first} AND ({hash} & 16383) < {end}")
            }
            Where(_, first) if shard == 0 => first.to_owned(),
            Where(_, first) if shard == 1 => format!("NOT ({first})"),
            Where(..) => "false".to_owned(),
            Everywhere => "true".to_owned(),
            Home(home) => (home == shard).to_string(),
        }
    }
}

/// All tables; those that are referenced stand before those that refer to them.
pub const TABLES: &[Table] = &[
    Table {
        name: "users",
        columns: &[
            ("user_id", Int8, Key),
            ("name", Text, Plain),
            ("email", Text, Plain),
            ("score", Int4, Plain),
            ("twice", Int4, Made),
        ],
        place: Slot("hashint8extended(user_id, 0)"),
        conflicts: &["(user_id)", "(user_id, email)", "ON CONSTRAINT users_pkey"],
        joins: &[
            ("notes", "users.score = notes.id"),
            ("products", "users.score = products.id"),
            ("words", "words.word = users.name"),
        ],
    },
    Table {
        name: "orders",
        columns: &[
            ("user_id", Int8, Key),
            ("order_id", Int4, Plain),
            ("total", Numeric, Plain),
            ("note", Varchar, Plain),
        ],
        place: Slot("hashint8extended(user_id, 0)"),
        conflicts: &["(user_id, order_id)", "(order_id, user_id)"],
        joins: &[
            ("users", "users.user_id = orders.user_id"),
            ("products", "products.id = orders.order_id"),
            ("uuids", "false AND uuids.v = orders.order_id"),
        ],
    },
    Table {
        name: "items",
        columns: &[
            ("pos", Int4, Plain),
            ("user_id", Int8, Key),
            ("order_id", Int4, Plain),
            ("qty", Int4, Plain),
        ],
        place: Slot("hashint8extended(user_id, 0)"),
        conflicts: &[],
        joins: &[
            ("users", "users.user_id = items.user_id"),
            (
                "orders",
                "orders.user_id = items.user_id AND orders.order_id = items.order_id",
            ),
        ],
    },
    Table {
        name: "words",
        columns: &[("word", Text, Key), ("n", Int4, Plain)],
        place: Slot("hashtextextended(word, 0)"),
        conflicts: &["(word)", "(word, n)"],
        joins: &[
            ("codes", "codes.k = words.word"),
            ("settings", "settings.name = words.word"),
        ],
    },
    Table {
        name: "codes",
        columns: &[
            ("v", Int4, Plain),
            ("k", Varchar, Key),
            ("name", Text, Plain),
        ],
        place: Slot("hashtextextended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("words", "codes.k = words.word")],
    },
    Table {
        name: "chars",
        columns: &[("k", Bpchar, Key), ("v", Int4, Plain)],
        place: Slot("hashbpcharextended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("products", "products.id = chars.v")],
    },
    Table {
        name: "uuids",
        columns: &[("k", Uuid, Key), ("v", Int4, Plain), ("label", Text, Plain)],
        place: Slot("uuid_hash_extended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("notes", "notes.id = uuids.v")],
    },
    Table {
        name: "visits",
        columns: &[
            ("tenant", Int4, Key),
            ("day", Date, Key),
            ("hits", Int4, Plain),
        ],
        place: Slot("hash_record_extended(ROW(day), hashint8extended(tenant, 0))"),
        conflicts: &["(tenant, day)"],
        joins: &[("readings", "readings.k = visits.day")],
    },
    Table {
        name: "zoned",
        columns: &[
            ("k", Timestamptz, Key),
            ("v", Int4, Plain),
            ("note", Text, Plain),
        ],
        place: Slot("hash_record_extended(ROW(k), 0)"),
        conflicts: &["(k)"],
        joins: &[("readings", "readings.k = zoned.k")],
    },
    Table {
        name: "stamps",
        columns: &[("k", Timestamp, Key), ("v", Int4, Plain)],
        place: Slot("timestamp_hash_extended(k, 0)"),
        conflicts: &[],
        joins: &[("zoned", "zoned.k = stamps.k")],
    },
    Table {
        name: "numbers",
        columns: &[("k", Numeric, Key), ("v", Int4, Plain)],
        place: Slot("hash_numeric_extended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("users", "users.user_id = numbers.k")],
    },
    Table {
        name: "flags",
        columns: &[("k", Bool, Key), ("v", Text, Plain)],
        place: Slot("hash_record_extended(ROW(k), 0)"),
        conflicts: &[],
        joins: &[("words", "words.word = flags.v")],
    },
    Table {
        name: "loose",
        columns: &[("k", Int4, Key), ("v", Text, Plain)],
        place: Slot("hashint8extended(k, 0)"),
        conflicts: &[],
        joins: &[("users", "users.user_id = loose.k")],
    },
    Table {
        name: "serials",
        columns: &[("k", Int4, Key), ("id", Int4, Number), ("tag", Text, Plain)],
        place: Slot("hashint8extended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("loose", "false AND loose.k = serials.k")],
    },
    Table {
        name: "idents",
        columns: &[("id", Int8, Number), ("k", Text, Key), ("v", Int4, Plain)],
        place: Slot("hashtextextended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[("words", "words.word = idents.k")],
    },
    Table {
        name: "autos",
        columns: &[("id", Int8, Number), ("v", Int4, Plain)],
        place: Slot("hashint8extended(id, 0)"),
        conflicts: &[],
        joins: &[("products", "products.id = autos.v")],
    },
    Table {
        name: "regions",
        columns: &[("k", Text, Key), ("name", Text, Plain)],
        place: Where(
            "{ shard_key: k, list: { s0: [key 1, key 2, key 3], s1: [key 4, key 5] } }",
            "k IN ('key 1', 'key 2', 'key 3')",
        ),
        conflicts: &["(k)"],
        joins: &[("words", "words.word = regions.k")],
    },
    Table {
        name: "readings",
        columns: &[("k", Date, Key), ("v", Int4, Plain)],
        place: Where(
            r#"{ shard_key: k, range: { s0: { to: "2024-03-06" }, s1: { from: "2024-03-06" } } }"#,
            "k < '2024-03-06'",
        ),
        conflicts: &["(k)"],
        joins: &[("uuids", "false AND uuids.v = readings.v")],
    },
    Table {
        name: "parts",
        columns: &[("at", Date, Plain), ("k", Int4, Key), ("v", Int4, Plain)],
        place: Slot("hashint8extended(k, 0)"),
        conflicts: &["(k, at)"],
        joins: &[("users", "users.user_id = parts.k")],
    },
    Table {
        name: "products",
        columns: &[
            ("id", Int4, Key),
            ("name", Text, Plain),
            ("price", Numeric, Plain),
        ],
        place: Everywhere,
        conflicts: &["(id)", "(name)"],
        joins: &[("notes", "notes.id = products.id"), ("labels", "false")],
    },
    Table {
        name: "tags",
        columns: &[("tag", Text, Plain), ("n", Int4, Plain)],
        place: Everywhere,
        conflicts: &[],
        joins: &[("products", "products.id = tags.n")],
    },
    Table {
        name: "labels",
        columns: &[("id", Int4, Number), ("k", Text, Key), ("n", Int4, Plain)],
        place: Everywhere,
        conflicts: &["(k)"],
        joins: &[("products", "products.id = labels.n")],
    },
    Table {
        name: "sales",
        columns: &[
            ("k", Int8, Key),
            ("product_id", Int4, Plain),
            ("qty", Int4, Plain),
        ],
        place: Slot("hashint8extended(k, 0)"),
        conflicts: &["(k)"],
        joins: &[
            ("products", "products.id = sales.product_id"),
            ("users", "users.user_id = sales.k"),
        ],
    },
    Table {
        name: "settings",
        columns: &[("name", Text, Key), ("value", Text, Plain)],
        place: Home(1),
        conflicts: &["(name)"],
        joins: &[("words", "words.word = settings.name"), ("notes", "false")],
    },
    Table {
        name: "notes",
        columns: &[
            ("id", Int4, Key),
            ("body", Text, Plain),
            ("owner", Int8, Plain),
        ],
        place: Home(0),
        conflicts: &["(id)"],
        joins: &[("users", "users.user_id = notes.owner")],
    },
];

const DDL: &str = r#"
    CREATE TABLE users (user_id bigint PRIMARY KEY, name text DEFAULT 'none', email text, score int CHECK (score < 900),
                        twice int GENERATED ALWAYS AS (score * 2) STORED, UNIQUE (user_id, email));
    CREATE TABLE orders (gone int, user_id bigint REFERENCES users, order_id int DEFAULT 1, total numeric(10,2) DEFAULT 1.5,
                         note varchar(20), PRIMARY KEY (user_id, order_id));
    ALTER TABLE orders DROP COLUMN gone;
    CREATE TABLE items (pos int DEFAULT 1, user_id bigint NOT NULL, order_id int, qty int NOT NULL DEFAULT 0,
                        FOREIGN KEY (user_id, order_id) REFERENCES orders ON DELETE CASCADE);
    CREATE TABLE words (word text PRIMARY KEY, n int DEFAULT 7, UNIQUE (word, n));
    CREATE TABLE codes (v int, k varchar(6) PRIMARY KEY, name text DEFAULT 'code');
    CREATE TABLE chars (k char(8) PRIMARY KEY, v int);
    CREATE TABLE uuids (k uuid PRIMARY KEY, v int DEFAULT 1 + 1, label text);
    CREATE TABLE visits (tenant int, day date, hits int DEFAULT 0, PRIMARY KEY (tenant, day));
    CREATE TABLE zoned (k timestamptz PRIMARY KEY, v int, note text DEFAULT 'z');
    CREATE TABLE stamps (k timestamp NOT NULL, v int);
    CREATE TABLE numbers (k numeric(12,3) PRIMARY KEY, v int);
    CREATE TABLE flags (k boolean NOT NULL, v text);
    CREATE TABLE loose (k int NOT NULL, v text);
    CREATE TABLE serials (k int PRIMARY KEY, id serial, tag text);
    CREATE TABLE idents (id bigint GENERATED ALWAYS AS IDENTITY, k text PRIMARY KEY, v int);
    CREATE TABLE autos (id bigserial PRIMARY KEY, v int DEFAULT 3);
    CREATE TABLE regions (k text PRIMARY KEY CHECK (k IN ('key 1', 'key 2', 'key 3', 'key 4', 'key 5')), name text);
    CREATE TABLE readings (k date PRIMARY KEY, v int);
    CREATE TABLE parts (at date, k int, v int, PRIMARY KEY (k, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2024-03-05');
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2024-03-05') TO ('2024-03-20');
    CREATE TABLE products (id int PRIMARY KEY, name text UNIQUE, price numeric(10,2) DEFAULT 9.99);
    CREATE TABLE tags (tag text, n int);
    CREATE TABLE labels (id serial, k text PRIMARY KEY, n int);
    CREATE TABLE sales (k bigint PRIMARY KEY, product_id int REFERENCES products, qty int CHECK (qty <> 13));
    CREATE TABLE settings (name text PRIMARY KEY, value text);
    CREATE TABLE notes (id int PRIMARY KEY, body text, owner bigint)
"#;

/// Some shards, the oracle, and the proxy on them.
pub fn cluster(shards: usize) -> Cluster {
    let mut builder: Builder = Cluster::new().shards(shards).trust().schema(DDL);
    for table in TABLES {
        builder = match table.place {
            Slot(_) => {
                let mut key: Vec<&str> = table.key().map(|(name, _)| name).collect();
                if key.is_empty() {
                    key.push("id");
                }
                builder.sharded(table.name, &key)
            }
            Where(yaml, _) => {
                let conditions: Vec<String> = (0..shards)
                    .map(|shard| table.condition(shard, shards))
                    .collect();
                let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
                builder.placed(table.name, yaml, &conditions)
            }
            Everywhere => builder.replicated(table.name),
            Home(shard) => builder.home(table.name, shard),
        };
    }
    builder.start()
}
