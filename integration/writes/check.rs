//! The rows of all servers: together the oracle's, each where it belongs.

use std::collections::BTreeMap;

use crate::harness::{Cluster, Raw};

use super::tables::{Place, Role, TABLES, Table};

/// Sessions on the servers, past the proxy.
pub struct Checker {
    shards: Vec<Raw>,
    oracle: Raw,
}

/// Of each table how many rows there are, and the sum of their hashes: both add up over shards.
type Sums = BTreeMap<&'static str, (i64, i128)>;

impl Checker {
    pub fn new(cluster: &Cluster) -> Checker {
        let shards = 0..cluster.shards.len();
        Checker {
            shards: shards.map(|shard| cluster.shard(shard).raw()).collect(),
            oracle: cluster.oracle().raw(),
        }
    }

    /// Empties all tables.
    pub fn reset(&mut self) {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        let script = format!("TRUNCATE {}", names.join(", "));
        for raw in self.shards.iter_mut().chain([&mut self.oracle]) {
            raw.rows(&script);
        }
    }

    /// Compares the shards' rows with the oracle's.
    pub fn check(&mut self) -> Result<(), String> {
        let wanted = sums(&mut self.oracle, None)?;
        let count = self.shards.len();
        let mut total = Sums::new();
        let mut copies: Vec<Sums> = Vec::new();
        for (number, raw) in self.shards.iter_mut().enumerate() {
            copies.push(whole(raw));
            for (table, (rows, hash)) in sums(raw, Some((number, count)))? {
                match Table::named(table).place {
                    Place::Everywhere => {
                        total.insert(table, (rows, hash));
                    }
                    _ => {
                        let sum = total.entry(table).or_default();
                        sum.0 += rows;
                        sum.1 += hash;
                    }
                }
            }
        }
        if let Some((number, _)) = copies
            .iter()
            .enumerate()
            .find(|(_, copy)| **copy != copies[0])
        {
            return Err(format!(
                "replicated rows differ on shard {number}: {copies:?}"
            ));
        }
        let differing = TABLES
            .iter()
            .filter(|table| total.get(table.name) != wanted.get(table.name));
        let report: String = differing.map(|table| self.difference(table)).collect();
        if report.is_empty() {
            Ok(())
        } else {
            Err(report)
        }
    }

    /// Whether numbers of sequences are given once.
    pub fn check_numbers(&mut self) -> Result<(), String> {
        for table in TABLES.iter().filter(|table| table.is_sharded()) {
            let mut numbers = table
                .columns
                .iter()
                .filter(|(_, _, role)| *role == Role::Number);
            let Some((column, ..)) = numbers.next() else {
                continue;
            };
            let sql = format!("SELECT {column} FROM {}", table.name);
            let mut all = Vec::new();
            for raw in &mut self.shards {
                all.extend(raw.rows(&sql).concat());
            }
            let count = all.len();
            all.sort();
            all.dedup();
            if all.len() != count {
                return Err(format!(
                    "a number of {}.{column} is there twice",
                    table.name
                ));
            }
        }
        Ok(())
    }

    /// The rows that one side has and the other has not.
    fn difference(&mut self, table: &Table) -> String {
        let sql = format!(
            "SELECT ROW({})::text FROM {} ORDER BY 1",
            table.compared().join(", "),
            table.name
        );
        let wanted: Vec<String> = self.oracle.rows(&sql).concat();
        let mut got = Vec::new();
        let shards = match table.place {
            Place::Everywhere => 1,
            _ => self.shards.len(),
        };
        for raw in self.shards.iter_mut().take(shards) {
            got.extend(raw.rows(&sql).concat());
        }
        format!(
            "{}: {} rows on the shards, {} wanted; only there {:?}; missing {:?}\n",
            table.name,
            got.len(),
            wanted.len(),
            without(&got, &wanted),
            without(&wanted, &got)
        )
    }
}

/// What is left of a list without the elements of another, each taken as often as it is there.
fn without(list: &[String], taken: &[String]) -> Vec<String> {
    let mut taken = taken.to_vec();
    let mut left = list.to_vec();
    left.retain(|one| match taken.iter().position(|other| other == one) {
        Some(at) => {
            taken.swap_remove(at);
            false
        }
        None => true,
    });
    left
}

/// The sums of one server; an error if a row is on the wrong shard.
fn sums(raw: &mut Raw, shard: Option<(usize, usize)>) -> Result<Sums, String> {
    let parts = TABLES.iter().map(|table| {
        let misplaced = shard.map_or("false".to_owned(), |(shard, count)| {
            format!("({}) IS NOT TRUE", table.condition(shard, count))
        });
        let (name, columns) = (table.name, table.compared().join(", "));
        format!(
            "SELECT '{name}', count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0), \
             count(*) FILTER (WHERE {misplaced}) FROM {name}"
        )
    });
    let parts: Vec<String> = parts.collect();
    let mut sums = Sums::new();
    for row in raw.rows(&parts.join(" UNION ALL ")) {
        if row[3] != "0" {
            return Err(format!(
                "{} rows of {} are on the wrong shard {shard:?}",
                row[3], row[0]
            ));
        }
        sums.insert(
            Table::named(&row[0]).name,
            (row[1].parse().unwrap(), row[2].parse().unwrap()),
        );
    }
    Ok(sums)
}

/// The sums of replicated tables with all their columns.
fn whole(raw: &mut Raw) -> Sums {
    let copies = TABLES
        .iter()
        .filter(|table| matches!(table.place, Place::Everywhere));
    let mut sums = Sums::new();
    for table in copies {
        let name = table.name;
        let sql = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {name} t"
        );
        for row in raw.rows(&sql) {
            sums.insert(name, (row[0].parse().unwrap(), row[1].parse().unwrap()));
        }
    }
    sums
}
