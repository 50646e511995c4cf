//! The rows of all servers: together the oracle's, each where it belongs.

use std::collections::BTreeMap;

use crate::harness::{Cluster, Raw};

use super::schema::{Place, TABLES, Table};

/// Sessions on the servers, past the proxy.
pub struct Checker {
    shards: Vec<Raw>,
    oracle: Raw,
}

/// Sums over the rows of a table, which add up over shards: how many, and of their hashes.
type Sums = BTreeMap<String, (i64, i128)>;

fn tables() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(|table| table.place != Place::View)
}

fn saved(table: &Table) -> String {
    format!(
        "pg_temp.saved_{}",
        table.name.replace(['.', '"'], "").to_lowercase()
    )
}

impl Checker {
    /// Remembers the rows as they are.
    pub fn new(cluster: &Cluster) -> Checker {
        let mut checker = Checker {
            shards: vec![cluster.shard(0).raw(), cluster.shard(1).raw()],
            oracle: cluster.oracle().raw(),
        };
        for table in tables() {
            let save = format!(
                "CREATE TEMP TABLE {} AS TABLE {}",
                saved(table).replace("pg_temp.", ""),
                table.name
            );
            for raw in checker.servers() {
                raw.rows(&save);
            }
        }
        checker
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Raw> {
        self.shards.iter_mut().chain([&mut self.oracle])
    }

    /// Brings the remembered rows back.
    pub fn reset(&mut self) {
        let restore = |table: &Table| {
            format!(
                "DELETE FROM {0}; INSERT INTO {0} TABLE {1};",
                table.name,
                saved(table)
            )
        };
        let script: String = tables().map(restore).collect();
        for raw in self.servers() {
            raw.rows(&script);
        }
    }

    /// Compares the shards' rows with the oracle's.
    pub fn check(&mut self) -> Result<(), String> {
        let wanted = sums(&mut self.oracle, None)?;
        let mut total = Sums::new();
        for (number, raw) in self.shards.iter_mut().enumerate() {
            for (table, (rows, hash)) in sums(raw, Some(number))? {
                if Table::named(&table).place == Place::Everywhere {
                    if wanted.get(&table) != Some(&(rows, hash)) {
                        return Err(format!("{table} differs on shard {number}"));
                    }
                    total.insert(table, (rows, hash));
                    continue;
                }
                let sum = total.entry(table).or_default();
                sum.0 += rows;
                sum.1 += hash;
            }
        }
        if total == wanted {
            return Ok(());
        }
        let mut report = String::new();
        for table in tables().filter(|table| total.get(table.name) != wanted.get(table.name)) {
            report += &self.difference(table);
        }
        Err(report)
    }

    /// The rows that one side has and the other has not.
    fn difference(&mut self, table: &Table) -> String {
        let sql = format!("SELECT t::text FROM {} t ORDER BY 1", table.name);
        let wanted: Vec<String> = self.oracle.rows(&sql).concat();
        let mut got = Vec::new();
        for raw in &mut self.shards {
            got.extend(raw.rows(&sql).concat());
        }
        let only = |left: &[String], right: &[String]| {
            let rows: Vec<String> = left
                .iter()
                .filter(|row| !right.contains(row))
                .cloned()
                .collect();
            rows.join(" ")
        };
        format!(
            "{}: {} rows on the shards, {} wanted; only there {}; missing {}\n",
            table.name,
            got.len(),
            wanted.len(),
            only(&got, &wanted),
            only(&wanted, &got)
        )
    }
}

/// The sums of one server; an error if a row is on the wrong shard.
fn sums(raw: &mut Raw, shard: Option<usize>) -> Result<Sums, String> {
    let parts: Vec<String> = tables()
        .map(|table| {
            let misplaced = shard.map_or("false".to_owned(), |shard| {
                format!("({}) IS NOT TRUE", table.condition(shard))
            });
            let name = table.name;
            format!(
                "SELECT '{name}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0), \
                 count(*) FILTER (WHERE {misplaced}) FROM {name} t"
            )
        })
        .collect();
    let mut sums = Sums::new();
    for row in raw.rows(&parts.join(" UNION ALL ")) {
        if row[3] != "0" {
            return Err(format!(
                "{} rows of {} are on the wrong shard {shard:?}",
                row[3], row[0]
            ));
        }
        sums.insert(
            row[0].clone(),
            (row[1].parse().unwrap(), row[2].parse().unwrap()),
        );
    }
    Ok(sums)
}
