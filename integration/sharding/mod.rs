//! Shard keys against a real PostgreSQL: values, hashes, slots, comparisons and assignments.
//!
//! The golden rule is that a key, where the proxy makes one, is that of every row that PostgreSQL
//! finds or stores; and that PostgreSQL rejects what the proxy calls rejected.

mod rows;
mod values;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio_postgres::{Client, NoTls};

use shardwire::config::{HashKind, Method, Shard, TableRule};
use shardwire::demo::postgres::{Binaries, Options, Server, Template};
use shardwire::sharding::{
    ColumnType, Format, Key, KeyError, KeyType, KeyUse, LiteralKind, Placement, hash_extended,
};

use values::{TEXTS, mutate, random_value};

/// Name, OID and send function of every key type.
const TYPES: [(&str, u32, &str); 13] = [
    ("int2", 21, "int2send"),
    ("int4", 23, "int4send"),
    ("int8", 20, "int8send"),
    ("numeric", 1700, "numeric_send"),
    ("text", 25, "textsend"),
    ("varchar", 1043, "varcharsend"),
    ("bpchar", 1042, "bpcharsend"),
    ("uuid", 2950, "uuid_send"),
    ("date", 1082, "date_send"),
    ("timestamp", 1114, "timestamp_send"),
    ("timestamptz", 1184, "timestamptz_send"),
    ("bytea", 17, "byteasend"),
    ("bool", 16, "boolsend"),
];

/// What the session may have set; none of it may decide on a key.
const SETTINGS: [&str; 3] = [
    "SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'",
    "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/New_York'; SET bytea_output = escape",
    "SET DateStyle = 'German, YMD'; SET TimeZone = 'Asia/Kathmandu'; SET timezone_abbreviations = 'Australia'",
];

struct Postgres {
    client: Client,
    _server: Server,
}

impl Postgres {
    async fn start(name: &str) -> Postgres {
        let binaries = Binaries::find().unwrap();
        let template = Template::initdb(&binaries, name, &["--locale=C.UTF-8"]).unwrap();
        let server = Server::primary(&template, name, &Options::default()).unwrap();
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(server.socket_directory())
            .port(server.port())
            .user("postgres")
            .dbname("postgres")
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.batch_execute(FUNCTIONS).await.unwrap();
        Postgres {
            client,
            _server: server,
        }
    }

    /// Whether each text is a value of the type, and then its hash and binary form.
    async fn read(
        &self,
        type_name: &str,
        send: &str,
        texts: &[String],
    ) -> Vec<(Option<i64>, Option<Vec<u8>>)> {
        let sql = "SELECT (try_value($1, $2, v)).* FROM unnest($3::text[]) WITH ORDINALITY AS u(v, n) ORDER BY n";
        let rows = self
            .client
            .query(sql, &[&type_name, &send, &texts])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn run(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// A value of a type that may not be one: nulls instead of an error.
const FUNCTIONS: &str = "
    CREATE FUNCTION try_value(type text, send text, value text, OUT hash int8, OUT bytes bytea) LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('SELECT %s(v), hash_record_extended(ROW(v), 0) FROM (SELECT %L::%s AS v) t', send, value, type)
        INTO bytes, hash;
    EXCEPTION WHEN others THEN
        bytes := NULL;
        hash := NULL;
    END $$;
";

fn column(type_name: &str) -> ColumnType {
    let (_, oid, _) = TYPES.iter().find(|(name, ..)| *name == type_name).unwrap();
    ColumnType::plain(KeyType::from_oid(*oid).unwrap())
}

fn signed_hash(key: &Key) -> i64 {
    hash_extended(key, 0).cast_signed()
}

#[tokio::test]
async fn values_and_hashes_are_those_of_postgresql() {
    let postgres = Postgres::start("values").await;
    let mut random = StdRng::seed_from_u64(1);
    for (type_name, oid, send) in TYPES {
        let column = column(type_name);
        let texts: Vec<String> = (0..2_000)
            .map(|_| random_value(&mut random, type_name))
            .collect();
        let values = postgres.read(type_name, send, &texts).await;
        for (text, (hash, bytes)) in texts.iter().zip(values) {
            let key = Key::from_literal(text, LiteralKind::String, &column, KeyUse::Compare)
                .unwrap_or_else(|error| panic!("{type_name} {text:?}: {error:?}"));
            assert_eq!(hash, Some(signed_hash(&key)), "{type_name} {text:?}");
            let bytes = bytes.unwrap();
            for (oid, format, bytes) in [
                (oid, Format::Binary, bytes.as_slice()),
                (0, Format::Binary, bytes.as_slice()),
                (oid, Format::Text, text.as_bytes()),
                (705, Format::Text, text.as_bytes()),
            ] {
                let same = Key::from_parameter(oid, format, Some(bytes), &column, KeyUse::Store);
                assert_eq!(
                    same.as_ref(),
                    Ok(&key),
                    "{type_name} {oid} {format:?} {text:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn texts_are_read_as_postgresql_reads_them() {
    let postgres = Postgres::start("texts").await;
    let mut random = StdRng::seed_from_u64(2);
    for settings in SETTINGS {
        postgres.run(settings).await;
        for (type_name, oid, send) in TYPES {
            let column = column(type_name);
            let mut texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
            texts.extend((0..1_500).map(|_| {
                let value = random_value(&mut random, type_name);
                mutate(&mut random, &value)
            }));
            let values = postgres.read(type_name, send, &texts).await;
            let (mut keys, mut rejected) = (0, 0);
            for (text, (hash, _)) in texts.iter().zip(values) {
                let context = format!("{settings}: {type_name} {text:?}");
                match Key::from_parameter(
                    oid,
                    Format::Text,
                    Some(text.as_bytes()),
                    &column,
                    KeyUse::Compare,
                ) {
                    Ok(key) => {
                        keys += 1;
                        assert_eq!(hash, Some(signed_hash(&key)), "{context}");
                    }
                    Err(KeyError::Rejected(_)) => {
                        rejected += 1;
                        assert_eq!(hash, None, "{context}");
                    }
                    Err(KeyError::Unprovable(_)) => {}
                    Err(error) => panic!("{context}: {error:?}"),
                }
            }
            println!(
                "{type_name}: {keys} keys, {rejected} rejected of {}",
                texts.len()
            );
            assert!(keys > 100, "{type_name}: too few keys");
        }
    }
}

fn placement(types: &[&str]) -> Placement {
    let names: Vec<String> = (0..types.len())
        .map(|index| format!("Key \"{index}"))
        .collect();
    let rule = TableRule::Sharded {
        key: names.clone(),
        method: Method::Hash(HashKind::Postgres),
    };
    let columns = names
        .into_iter()
        .zip(types.iter().map(|name| column(name)))
        .collect();
    let shard = Shard {
        name: "s0".to_owned(),
        servers: Vec::new(),
        slots: vec![0..=16_383],
    };
    Placement::new(&rule, columns, &[shard]).unwrap()
}

#[tokio::test]
async fn slots_are_those_of_their_sql_expression() {
    let postgres = Postgres::start("slots").await;
    let mut random = StdRng::seed_from_u64(3);
    let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
    let mut keys: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
    for _ in 0..40 {
        let columns = random.random_range(2..5);
        keys.push(
            (0..columns)
                .map(|_| *names.choose(&mut random).unwrap())
                .collect(),
        );
    }
    for types in keys {
        let placement = placement(&types);
        let columns: Vec<String> = types
            .iter()
            .enumerate()
            .map(|(index, name)| format!("\"Key \"\"{index}\" {name}"))
            .collect();
        let slot = placement.slot_sql().unwrap();
        // An index takes immutable expressions only.
        postgres
            .run(&format!(
                "DROP TABLE IF EXISTS k; CREATE TABLE k (n serial, {}, CHECK ({slot} BETWEEN 0 AND 16383)); \
                 CREATE INDEX ON k ({slot})",
                columns.join(", ")
            ))
            .await;
        let rows: Vec<Vec<String>> = (0..60)
            .map(|_| {
                types
                    .iter()
                    .map(|name| random_value(&mut random, name))
                    .collect()
            })
            .collect();
        let tuple = |row: &Vec<String>| {
            let values: Vec<String> = row
                .iter()
                .map(|value| format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
                .collect();
            format!("(DEFAULT, {})", values.join(", "))
        };
        let tuples: Vec<String> = rows.iter().map(tuple).collect();
        postgres
            .run(&format!("INSERT INTO k VALUES {}", tuples.join(", ")))
            .await;
        let slots = postgres
            .client
            .query(&format!("SELECT {slot}::int4 FROM k ORDER BY n"), &[])
            .await
            .unwrap();
        assert_eq!(slots.len(), rows.len());
        for (row, slot) in rows.iter().zip(slots) {
            let keys: Vec<Key> = row
                .iter()
                .zip(&types)
                .map(|(text, name)| {
                    Key::from_literal(text, LiteralKind::String, &column(name), KeyUse::Store)
                        .unwrap()
                })
                .collect();
            let found = placement.slot(&keys).map(i32::from);
            assert_eq!(found, Some(slot.get(0)), "{types:?} {row:?}");
        }
    }
}
