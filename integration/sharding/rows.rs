//! Keys against the rows that PostgreSQL finds and stores.

use std::error::Error as StdError;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::Format as WireFormat;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use shardwire::sharding::{ColumnType, Format, Key, KeyError, KeyUse, LiteralKind, hash_extended};

use super::values::TEXTS;
use super::{Postgres, SETTINGS, TYPES, column, signed_hash};

/// Types of parameters that no key has.
const OTHER_TYPES: [(&str, u32, &str); 3] = [
    ("float8", 701, "float8send"),
    ("name", 19, "namesend"),
    ("oid", 26, "oidsend"),
];

/// Columns with a length, precision or scale.
const MODIFIED: [(&str, &str); 7] = [
    ("varchar(5)", "varchar"),
    ("char(5)", "bpchar"),
    ("numeric(6,2)", "numeric"),
    ("numeric(3,0)", "numeric"),
    ("timestamp(3)", "timestamp"),
    ("timestamp(0)", "timestamp"),
    ("timestamptz(2)", "timestamptz"),
];

/// A parameter's bytes as they are.
#[derive(Debug)]
struct Raw<'a>(Format, &'a [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(self.1);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.to_sql(ty, out)
    }

    fn encode_format(&self, _: &Type) -> WireFormat {
        match self.0 {
            Format::Text => WireFormat::Text,
            Format::Binary => WireFormat::Binary,
        }
    }
}

/// A table `t_<type>` for each type with every text that is a value of it, and the rows' keys.
async fn make_tables(postgres: &Postgres) -> Vec<Vec<Key>> {
    let mut tables = Vec::new();
    for (type_name, oid, send) in TYPES {
        postgres
            .run(&format!(
                "CREATE TABLE t_{type_name} (n int4, x {type_name})"
            ))
            .await;
        let texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
        let values = postgres.read(type_name, send, &texts).await;
        let bytes = values.into_iter().filter_map(|(_, bytes)| bytes);
        let mut keys = Vec::new();
        let insert = format!("INSERT INTO t_{type_name} VALUES ({{n}}, $1)");
        for bytes in bytes {
            let n = keys.len();
            let insert = insert.replace("{n}", &n.to_string());
            postgres
                .client
                .execute(&insert, &[&Raw(Format::Binary, &bytes)])
                .await
                .unwrap();
            let key = Key::from_parameter(
                oid,
                Format::Binary,
                Some(&bytes),
                &column(type_name),
                KeyUse::Compare,
            );
            keys.push(key.unwrap());
        }
        tables.push(keys);
    }
    tables
}

/// What became of the questions asked.
#[derive(Debug, Default)]
struct Tally {
    keys: usize,
    found: usize,
    rejected: usize,
    absent: usize,
    unprovable: usize,
}

impl Tally {
    /// Holds a comparison's key against the rows that PostgreSQL found.
    fn compare(
        &mut self,
        key: Result<Key, KeyError>,
        rows: Result<Vec<Row>, tokio_postgres::Error>,
        table: &[Key],
        context: &str,
    ) {
        match key {
            Ok(key) => {
                self.keys += 1;
                for row in rows.unwrap_or_default() {
                    self.found += 1;
                    let n = usize::try_from(row.get::<_, i32>(0)).unwrap();
                    let (stored, asked) = (hash_extended(&table[n], 0), hash_extended(&key, 0));
                    assert_eq!(stored, asked, "{context}: {:?} and {key:?}", table[n]);
                    assert_eq!(table[n], key, "{context}");
                }
            }
            Err(KeyError::OutOfRange) => {
                self.absent += 1;
                assert!(
                    rows.unwrap_or_default().is_empty(),
                    "{context}: rows for no key"
                );
            }
            Err(KeyError::Rejected(why)) => {
                self.rejected += 1;
                assert!(rows.is_err(), "{context}: PostgreSQL takes it, not {why}");
            }
            Err(KeyError::Unprovable(_)) => self.unprovable += 1,
            Err(KeyError::Null) => panic!("{context}: NULL"),
        }
    }

    /// Holds a stored value's key against the hash of what PostgreSQL stored.
    fn store(
        &mut self,
        key: Result<Key, KeyError>,
        stored: Result<Vec<Row>, tokio_postgres::Error>,
        context: &str,
    ) {
        match key {
            Ok(key) => {
                self.keys += 1;
                for row in stored.unwrap_or_default() {
                    self.found += 1;
                    assert_eq!(
                        row.get::<_, i64>(0),
                        signed_hash(&key),
                        "{context}: {key:?}"
                    );
                }
            }
            Err(KeyError::Rejected(why)) => {
                self.rejected += 1;
                assert!(stored.is_err(), "{context}: PostgreSQL takes it, not {why}");
            }
            Err(KeyError::Unprovable(_)) => self.unprovable += 1,
            Err(error) => panic!("{context}: {error:?}"),
        }
    }

    fn check(&self, what: &str) {
        println!("{what}: {self:?}");
        assert!(
            self.keys > 500 && self.found > 300 && self.rejected > 100,
            "{what} prove too little"
        );
    }
}

/// Texts and binary forms of the values of a type, some of them damaged.
async fn parameters(postgres: &Postgres, type_name: &str, send: &str) -> Vec<(Format, Vec<u8>)> {
    let texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
    let values = postgres.read(type_name, send, &texts).await;
    let mut parameters: Vec<(Format, Vec<u8>)> = texts
        .into_iter()
        .map(|text| (Format::Text, text.into_bytes()))
        .collect();
    let mut binary: Vec<Vec<u8>> = values.into_iter().filter_map(|(_, bytes)| bytes).collect();
    for (position, byte) in [(0, 0xff), (3, 0x7f), (5, 0x40), (7, 1)] {
        let damaged = binary.first().map(|bytes| {
            let mut bytes = bytes.clone();
            if let Some(target) = bytes.get_mut(position) {
                *target = byte;
            }
            bytes
        });
        binary.extend(damaged);
    }
    binary.push(Vec::new());
    binary.push(vec![0xff; 3]);
    binary.push(vec![0; 12]);
    parameters.extend(binary.into_iter().map(|bytes| (Format::Binary, bytes)));
    parameters
}

#[tokio::test]
async fn a_key_is_that_of_the_rows_a_comparison_finds() {
    let postgres = Postgres::start("compare").await;
    let tables = make_tables(&postgres).await;
    let mut tally = Tally::default();
    postgres.run(SETTINGS[1]).await;
    for ((type_name, _, own_send), table) in TYPES.iter().zip(&tables) {
        let column = column(type_name);
        let undeclared = [(*type_name, 0, *own_send)];
        for (declared, oid, send) in TYPES.iter().chain(&OTHER_TYPES).chain(&undeclared) {
            let sql = format!("SELECT n FROM t_{type_name} WHERE x = $1");
            let types: Vec<Type> = Type::from_oid(*oid).into_iter().collect();
            let Ok(statement) = postgres.client.prepare_typed(&sql, &types).await else {
                continue;
            };
            for (format, bytes) in parameters(&postgres, declared, send).await {
                let key = Key::from_parameter(*oid, format, Some(&bytes), &column, KeyUse::Compare);
                let rows = postgres
                    .client
                    .query(&statement, &[&Raw(format, &bytes)])
                    .await;
                let value = String::from_utf8_lossy(&bytes);
                tally.compare(
                    key,
                    rows,
                    table,
                    &format!("{type_name} = {declared}({oid}) {format:?} {value:?}"),
                );
            }
        }
        for text in TEXTS {
            for (literal, kind) in literals(text) {
                let key = Key::from_literal(text, kind, &column, KeyUse::Compare);
                // Alone and in a list.
                for sql in [
                    format!("SELECT n FROM t_{type_name} WHERE x = {literal}"),
                    format!("SELECT n FROM t_{type_name} WHERE x IN ({literal}, {literal})"),
                ] {
                    let rows = postgres.client.query(&sql, &[]).await;
                    tally.compare(key.clone(), rows, table, &sql);
                }
            }
        }
    }
    tally.check("comparisons");
    assert!(tally.absent > 50, "{tally:?}");
}

/// The text as a string constant and, if it can be one, as a number or boolean.
fn literals(text: &str) -> Vec<(String, LiteralKind)> {
    let mut literals = vec![(
        format!("E'{}'", text.replace('\\', "\\\\")),
        LiteralKind::String,
    )];
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = number.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && number
            .chars()
            .all(|character| character.is_ascii_digit() || "e.-".contains(character));
    if plain && !number.contains("-0") {
        literals.push((text.to_owned(), LiteralKind::Number));
    }
    if ["true", "TRUE"].contains(&text) {
        literals.push((text.to_owned(), LiteralKind::Bool));
    }
    literals
}

#[tokio::test]
async fn a_key_is_that_of_the_value_an_assignment_stores() {
    let postgres = Postgres::start("store").await;
    let mut tally = Tally::default();
    let plain = TYPES.iter().map(|(name, ..)| (*name, *name));
    for (position, (declaration, type_name)) in plain.chain(MODIFIED).enumerate() {
        postgres.run(SETTINGS[position % SETTINGS.len()]).await;
        postgres
            .run(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (x {declaration})"
            ))
            .await;
        let sql =
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'x'";
        let column = ColumnType {
            typmod: postgres.client.query_one(sql, &[]).await.unwrap().get(0),
            ..column(type_name)
        };
        let undeclared = TYPES
            .iter()
            .filter(|(name, ..)| *name == type_name)
            .map(|(name, _, send)| (*name, 0, *send));
        for (declared, oid, send) in TYPES.into_iter().chain(OTHER_TYPES).chain(undeclared) {
            let sql = "INSERT INTO t VALUES ($1) RETURNING hash_record_extended(ROW(x), 0)";
            let types: Vec<Type> = Type::from_oid(oid).into_iter().collect();
            let Ok(statement) = postgres.client.prepare_typed(sql, &types).await else {
                continue;
            };
            for (format, bytes) in parameters(&postgres, declared, send).await {
                let key = Key::from_parameter(oid, format, Some(&bytes), &column, KeyUse::Store);
                let stored = postgres
                    .client
                    .query(&statement, &[&Raw(format, &bytes)])
                    .await;
                let value = String::from_utf8_lossy(&bytes);
                tally.store(
                    key,
                    stored,
                    &format!("{declaration} := {declared}({oid}) {format:?} {value:?}"),
                );
            }
        }
        for text in TEXTS {
            for (literal, kind) in literals(text) {
                let key = Key::from_literal(text, kind, &column, KeyUse::Store);
                let sql = format!(
                    "INSERT INTO t VALUES ({literal}) RETURNING hash_record_extended(ROW(x), 0)"
                );
                let stored = postgres.client.query(&sql, &[]).await;
                tally.store(key, stored, &format!("{declaration}: {sql}"));
            }
        }
    }
    tally.check("assignments");
}
