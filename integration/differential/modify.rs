//! Random statements that change rows.

use super::generate::{Generator, Item};
use super::schema::{Place, Table};

impl Generator {
    /// `INSERT`, `UPDATE`, `DELETE`, or a query around one.
    pub fn modification(&mut self) -> String {
        let table = loop {
            let table = self.table();
            let rarely = matches!(table.place, Place::View | Place::Everywhere);
            if !rarely || self.chance(5) {
                break table;
            }
        };
        let mut sql = match self.below(10) {
            0..5 => self.insert(table),
            5..8 => self.update(table),
            _ => self.delete(table),
        };
        if self.chance(50) {
            // Which of several matches an UPDATE … FROM takes is PostgreSQL's choice.
            let joins =
                !sql.starts_with("INSERT") && (sql.contains(" FROM ") || sql.contains(" USING "));
            let list = if joins {
                "1"
            } else {
                self.word(&["*", "1", "*, 1 AS one"])
            };
            sql += &format!(" RETURNING {list}");
            if self.chance(10) {
                let name = self.word(&["m", "users", "orders"]);
                let rest = self.word(&["SELECT * FROM m", "SELECT count(*) FROM m", "SELECT 1"]);
                sql = format!(
                    "WITH {name} AS ({sql}) {}",
                    rest.replace(" m", &format!(" {name}"))
                );
            } else if self.chance(5) {
                let query = self.query(None);
                sql = format!("WITH m AS ({sql}) {}", query.sql);
            }
        }
        sql
    }

    /// A scope of the table alone, and how it is written.
    fn target(&mut self, table: &Table) -> (String, Item) {
        let mut item = Item {
            alias: table.name.to_owned(),
            columns: table
                .columns
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
            key: table.key,
        };
        if table.name.contains('.') || self.chance(25) {
            item.alias = self.alias(&[]);
            return (format!("{} AS {}", table.name, item.alias), item);
        }
        (table.name.to_owned(), item)
    }

    fn insert(&mut self, table: &Table) -> String {
        let (target, item) = self.target(table);
        let mut columns: Vec<usize> = (0..table.columns.len()).collect();
        let listed = self.chance(60);
        if listed {
            for _ in 0..self.below(3) {
                let at = self.below(columns.len());
                columns.swap(0, at);
            }
            if columns.len() > 2 && self.chance(30) {
                columns.pop();
            }
        }
        let names: Vec<&str> = columns
            .iter()
            .map(|column| table.columns[*column].0)
            .collect();
        let list = if listed {
            format!(" ({})", names.join(", "))
        } else {
            String::new()
        };
        let mut sql = format!("INSERT INTO {target}{list} ");
        if self.chance(12) {
            let query = self.source(table, &columns);
            sql += &query;
        } else if self.chance(2) {
            sql = format!("INSERT INTO {target} DEFAULT VALUES");
        } else {
            let count = [1, 1, 1, 2, 3][self.below(5)];
            let rows: Vec<String> = (0..count).map(|_| self.row(table, &columns)).collect();
            sql += &format!("VALUES {}", rows.join(", "));
        }
        if self.chance(35) {
            sql += &self.conflict(table, &item);
        }
        sql
    }

    fn row(&mut self, table: &Table, columns: &[usize]) -> String {
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                let kind = table.columns[*column].1;
                match self.below(20) {
                    0 => "DEFAULT".to_owned(),
                    1 if *column >= table.key => "NULL".to_owned(),
                    2 | 3 => self.constant(kind),
                    _ if *column < table.key => self.constant(kind),
                    _ => self.plain(kind),
                }
            })
            .collect();
        format!("({})", values.join(", "))
    }

    /// A query that gives rows for these columns.
    fn source(&mut self, table: &Table, columns: &[usize]) -> String {
        let from = self.table();
        let scope = [Item {
            alias: "f".to_owned(),
            columns: from
                .columns
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
            key: from.key,
        }];
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                let kind = table.columns[*column].1;
                if *column < table.key && self.chance(70) {
                    return self.constant(kind);
                }
                match self.any_column(&scope) {
                    Some((name, found)) if found.comparable(kind) => name,
                    _ => self.constant(kind),
                }
            })
            .collect();
        let mut sql = format!("SELECT {} FROM {} AS f", values.join(", "), from.name);
        if let Some(restriction) = self.restriction(&scope) {
            sql += &format!(" WHERE {restriction}");
        }
        sql
    }

    fn conflict(&mut self, table: &Table, item: &Item) -> String {
        if self.chance(40) || table.key == 0 {
            return " ON CONFLICT DO NOTHING".to_owned();
        }
        let mut keys: Vec<&str> = table.columns[..table.key]
            .iter()
            .map(|(name, _)| *name)
            .collect();
        if table.name == "orders" {
            keys.push("order_id");
        }
        let index = table.columns.len() - 1;
        let (name, kind) = table.columns[index];
        let value = if self.chance(50) {
            format!("excluded.{name}")
        } else {
            self.constant(kind)
        };
        let mut sql = format!(
            " ON CONFLICT ({}) DO UPDATE SET {name} = {value}",
            keys.join(", ")
        );
        if self.chance(8) {
            sql += &format!(", {} = excluded.{}", keys[0], keys[0]);
        }
        if self.chance(20) {
            let condition = self.condition(std::slice::from_ref(item));
            sql += &format!(" WHERE {condition}");
        }
        sql
    }

    fn update(&mut self, table: &Table) -> String {
        let (target, item) = self.target(table);
        let index = if self.chance(12) {
            0
        } else {
            table.columns.len() - 1 - self.below(table.columns.len() - table.key.max(1))
        };
        let (name, kind) = table.columns[index];
        let mut scope = vec![item];
        let from = self.chance(15).then(|| self.extra(&mut scope));
        let value = match self.below(4) {
            0 => name.to_owned(),
            1 => format!(
                "coalesce({}, {})",
                self.column(&scope[0].clone(), index),
                self.plain(kind)
            ),
            _ => self.constant(kind),
        };
        let mut sql = format!("UPDATE {target} SET {name} = {value}");
        if let Some(from) = from {
            sql += &format!(" FROM {from}");
        }
        sql + &self.chosen(&scope)
    }

    fn delete(&mut self, table: &Table) -> String {
        let (target, item) = self.target(table);
        let mut scope = vec![item];
        let mut sql = format!("DELETE FROM {target}");
        if self.chance(15) {
            let using = self.extra(&mut scope);
            sql += &format!(" USING {using}");
        }
        sql + &self.chosen(&scope)
    }

    /// A further table of an `UPDATE` or `DELETE`.
    fn extra(&mut self, scope: &mut Vec<Item>) -> String {
        let table = self.table();
        let alias = self.alias(scope);
        let sql = format!("{} AS {alias}", table.name);
        scope.push(Item {
            alias,
            columns: table
                .columns
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
            key: table.key,
        });
        sql
    }

    /// `WHERE` of an `UPDATE` or `DELETE`.
    fn chosen(&mut self, scope: &[Item]) -> String {
        let mut parts = Vec::new();
        if scope[0].key > 0 && self.chance(70) {
            parts.push(self.key_condition(&scope[0]));
        }
        self.outer.push(scope.to_vec());
        parts.extend(self.restriction(scope));
        self.outer.pop();
        if parts.is_empty() {
            return String::new();
        }
        format!(" WHERE {}", parts.join(" AND "))
    }
}
