//! A catalogue without servers: what the file says of tables, and guesses about the rest.
//!
//! A plan needs to know columns, types and functions. Each table of the file gets its shard key and every
//! name that the statement has, each function that it calls is taken for one of PostgreSQL's.

use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::catalog::RawCatalog;
use crate::catalog::RawColumn;
use crate::catalog::RawFunction;
use crate::catalog::RawRelation;
use crate::config::Database;
use crate::config::Method;
use crate::config::TableRule;
use crate::plan::pseudo;
use crate::sql::classify::is_reserved;
use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::token::LexOptions;

/// What the reader should know of such a plan.
pub const NOTE: &str =
    "offline: columns are taken for numbers; only the keys of lists and ranges may be others\n";

/// OIDs of `bigint`, `date` and `text`.
const NUMBER: u32 = 20;
const DATE: u32 = 1082;
const TEXT: u32 = 25;

/// Where tables are whose name has no schema.
const SCHEMA: &str = "public";

/// The aggregates of PostgreSQL's that people call.
const AGGREGATES: &str = "count sum avg min max array_agg string_agg json_agg jsonb_agg json_object_agg \
    jsonb_object_agg bool_and bool_or every bit_and bit_or bit_xor stddev stddev_pop stddev_samp variance \
    var_pop var_samp corr covar_pop covar_samp mode percentile_cont percentile_disc any_value range_agg";

/// Its window functions.
const WINDOWS: &str = "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value";

/// Those of its functions whose value is another in each call.
const VOLATILE: &str = "random clock_timestamp timeofday gen_random_uuid pg_sleep nextval setval currval \
    lastval set_config setseed pg_notify txid_current";

/// The catalogue of a database that a statement is to be planned against.
pub fn catalog(database: &Database, sql: &str) -> Catalog {
    let names = names(sql);
    let keys = database.tables.named.values().flat_map(|rule| match rule {
        TableRule::Sharded { key, .. } => key.as_slice(),
        TableRule::Replicated | TableRule::Home { .. } => &[],
    });
    // The keys of other tables are theirs.
    let keys: BTreeSet<&String> = keys.collect();
    let others: Vec<&String> = names.iter().filter(|name| !keys.contains(name)).collect();
    let relations = database.tables.named.iter().zip(1..);
    let raw = RawCatalog {
        relations: relations
            .map(|((name, rule), oid)| relation(name, rule, oid, &others))
            .collect(),
        functions: names.iter().map(|name| function(name)).collect(),
        default_search_path: vec![SCHEMA.to_owned()],
        ..RawCatalog::default()
    };
    // What does not fit, `shardwire check` reports.
    Catalog::build(1, &raw, database).0
}

/// Every name in a text but keywords and what no table has as a column.
fn names(sql: &str) -> BTreeSet<String> {
    let tokens = tokenize(sql.as_bytes(), LexOptions::default()).unwrap_or_default();
    let names = tokens
        .iter()
        .filter_map(|token| Some(identifier_value(sql, token)?.into_owned()));
    let is_column = |name: &String| !is_reserved(name) && name != pseudo::NAME;
    names.filter(is_column).collect()
}

fn relation(name: &str, rule: &TableRule, oid: u32, others: &[&String]) -> RawRelation {
    let (schema, table) = name.split_once('.').unwrap_or((SCHEMA, name));
    let (key, method) = match rule {
        TableRule::Sharded { key, method } => (key.as_slice(), Some(method)),
        TableRule::Replicated | TableRule::Home { .. } => (&[][..], None),
    };
    let keys = key.iter().map(|column| RawColumn {
        type_oid: method.map_or(NUMBER, key_type),
        not_null: true,
        ..plain(column)
    });
    let others = others.iter().map(|name| plain(name));
    RawRelation {
        oid,
        schema: schema.to_owned(),
        name: table.to_owned(),
        kind: 'r',
        columns: keys.chain(others).collect(),
        ..RawRelation::default()
    }
}

fn plain(name: &str) -> RawColumn {
    RawColumn {
        name: name.to_owned(),
        type_oid: NUMBER,
        typmod: -1,
        collation_deterministic: true,
        bytewise: true,
        ..RawColumn::default()
    }
}

/// The type that values of lists and ranges look like.
fn key_type(method: &Method) -> u32 {
    let values: Vec<&String> = match method {
        Method::Hash(_) => return NUMBER,
        Method::List(parts) => parts.iter().flat_map(|(_, values)| values).collect(),
        Method::Range(parts) => parts
            .iter()
            .flat_map(|part| part.from.iter().chain(&part.to))
            .collect(),
    };
    let is_date = |value: &&String| {
        let parts: Vec<&str> = value.split('-').collect();
        matches!(parts.as_slice(), [year, month, day]
            if year.len() == 4 && month.len() == 2 && day.len() == 2)
    };
    match values {
        values if values.iter().all(|value| value.parse::<i64>().is_ok()) => NUMBER,
        values if values.iter().all(is_date) => DATE,
        _ => TEXT,
    }
}

fn function(name: &str) -> RawFunction {
    let among = |list: &str| list.split_whitespace().any(|known| known == name);
    RawFunction {
        schema: "pg_catalog".to_owned(),
        name: name.to_owned(),
        volatility: if among(VOLATILE) { 'v' } else { 'i' },
        kind: match () {
            () if among(AGGREGATES) => 'a',
            () if among(WINDOWS) => 'w',
            () => 'f',
        },
        language: "internal".to_owned(),
        returns_set: false,
        takes_row: false,
        is_tree: false,
        arguments: Vec::new(),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_look_like_their_values() {
        let list = |values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            key_type(&Method::List(vec![(0, values)]))
        };
        assert_eq!(list(&["eu", "1"]), TEXT);
        assert_eq!(list(&["2", "1"]), NUMBER);
        assert_eq!(list(&["2026-01-01"]), DATE);
    }
}
