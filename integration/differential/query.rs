//! Random queries.

use super::generate::{Columns, Generator, Item};
use super::schema::{Kind, TABLES, Table};

/// A query and what it gives.
pub struct Query {
    pub sql: String,
    pub columns: Columns,
    /// Whether `ORDER BY` puts every row in its place.
    pub ordered: bool,
}

impl Generator {
    /// A query in a statement, with one column that compares with `kind` if that is given.
    pub fn subquery(&mut self, kind: Option<Kind>) -> Query {
        self.depth += 1;
        let query = self.query(kind);
        self.depth -= 1;
        query
    }

    /// A whole query.
    pub fn query(&mut self, kind: Option<Kind>) -> Query {
        let known = self.ctes.len();
        let mut with = String::new();
        if self.depth < 2 && self.chance(10) {
            with = self.with();
        }
        let mut query = match self.below(20) {
            0 if self.depth < 2 => self.set_operation(kind),
            1 => self.values(kind),
            _ => self.select(kind),
        };
        self.ctes.truncate(known);
        query.sql.insert_str(0, &with);
        query
    }

    /// `WITH`, with names that may hide tables.
    fn with(&mut self) -> String {
        let recursive = self.word(&["", "", "", "RECURSIVE "]);
        let mut parts = Vec::new();
        for _ in 0..1 + self.below(2) {
            let name = self.word(&[
                "w",
                "users",
                "orders",
                "products",
                "x",
                "\"Order\"",
                "plain",
            ]);
            let query = self.subquery(None);
            let materialized = self.word(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
            parts.push(format!("{name} AS {materialized}({})", query.sql));
            self.ctes.push((name.to_owned(), query.columns));
        }
        format!("WITH {recursive}{} ", parts.join(", "))
    }

    fn set_operation(&mut self, kind: Option<Kind>) -> Query {
        let kind =
            kind.unwrap_or_else(|| *self.pick(&[Kind::Int8, Kind::Text, Kind::Int4, Kind::Date]));
        let left = self.subquery(Some(kind));
        let right = self.subquery(Some(kind));
        let operator = self.word(&["UNION ALL", "UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
        let mut sql = format!("({}) {operator} ({})", left.sql, right.sql);
        let ordered = self.chance(40);
        if ordered {
            sql += " ORDER BY 1";
        }
        Query {
            sql,
            columns: left.columns,
            ordered,
        }
    }

    fn values(&mut self, kind: Option<Kind>) -> Query {
        let kind = kind.unwrap_or(Kind::Int8);
        let (first, second) = (self.plain(kind), self.plain(kind));
        let cast = kind.name();
        Query {
            sql: format!("VALUES ({first}::{cast}), ({second}::{cast})"),
            columns: vec![("column1".to_owned(), kind)],
            ordered: false,
        }
    }

    fn select(&mut self, kind: Option<Kind>) -> Query {
        let (from, scope) = self.from();
        let mut sql = String::from("SELECT ");
        let grouped = kind.is_none() && self.chance(15);
        let (list, columns, grouping) = if grouped {
            self.grouped_list(&scope)
        } else {
            let (list, columns) = self.select_list(&scope, kind);
            (list, columns, None)
        };
        let distinct = !grouped && self.chance(6);
        if distinct {
            sql += "DISTINCT ";
        }
        sql += &list;
        if !from.is_empty() {
            sql += &format!(" FROM {from}");
        }
        self.outer.push(scope.clone());
        let restriction = self.restriction(&scope);
        self.outer.pop();
        if let Some(restriction) = restriction {
            sql += &format!(" WHERE {restriction}");
        }
        if let Some(grouping) = grouping {
            sql += &grouping;
        }
        let ordered = self.tail(&mut sql, columns.len(), grouped || distinct);
        Query {
            sql,
            columns,
            ordered,
        }
    }

    /// `ORDER BY`, `LIMIT`, `FOR UPDATE`. Whether it puts every row in its place.
    fn tail(&mut self, sql: &mut String, columns: usize, merged: bool) -> bool {
        let total = columns > 0 && self.chance(25);
        if total {
            let keys: Vec<String> = (1..=columns).map(|column| column.to_string()).collect();
            let direction = self.word(&["", " DESC", " NULLS FIRST"]);
            *sql += &format!(" ORDER BY {}{direction}", keys.join(", "));
            match self.below(6) {
                0 => *sql += " LIMIT 3",
                1 => *sql += " OFFSET 1",
                2 => *sql += " LIMIT 2 OFFSET 1",
                3 => *sql += " FETCH FIRST 2 ROWS ONLY",
                _ => {}
            }
        }
        if !merged && self.depth == 0 && self.chance(5) {
            *sql += self.word(&[
                " FOR UPDATE",
                " FOR SHARE",
                " FOR NO KEY UPDATE",
                " FOR KEY SHARE NOWAIT",
            ]);
        }
        total
    }

    /// What a query selects: its text and columns.
    fn select_list(&mut self, scope: &[Item], kind: Option<Kind>) -> (String, Columns) {
        if let Some(kind) = kind {
            for _ in 0..20 {
                if let Some((column, found)) = self.any_column(scope)
                    && found.comparable(kind)
                {
                    return (format!("{column} AS x1"), vec![("x1".to_owned(), found)]);
                }
            }
            let constant = self.plain(kind);
            return (
                format!("{constant}::{} AS x1", kind.name()),
                vec![("x1".to_owned(), kind)],
            );
        }
        let total: usize = scope.iter().map(|item| item.columns.len()).sum();
        if self.depth == 0 && total > 0 && self.chance(25) {
            // Joins with USING have fewer columns: their number is only known without.
            let star = self.word(&["*", "*", "count(*)", "a.*", "users"]);
            return (star.to_owned(), Columns::new());
        }
        let mut list = Vec::new();
        let mut columns = Columns::new();
        for number in 0..1 + self.below(4) {
            let (expression, kind) = self.scalar(scope);
            // Now and then it hides a shard key.
            let name = if self.chance(20) {
                self.word(&["user_id", "k", "name", "total"]).to_owned()
            } else {
                format!("x{number}")
            };
            if columns.iter().any(|(known, _)| *known == name) {
                continue;
            }
            list.push(format!("{expression} AS {name}"));
            columns.push((name, kind));
        }
        (list.join(", "), columns)
    }

    /// Aggregates, by groups or not.
    fn grouped_list(&mut self, scope: &[Item]) -> (String, Columns, Option<String>) {
        let mut list = Vec::new();
        let mut columns = Columns::new();
        let mut grouping = None;
        if let Some((column, kind)) = self.any_column(scope)
            && self.chance(65)
        {
            list.push(format!("{column} AS g"));
            columns.push(("g".to_owned(), kind));
            let by = self.word(&["1", "g", ""]);
            let by = if by.is_empty() { &column } else { by };
            let having = self.word(&["", "", " HAVING count(*) > 1"]);
            grouping = Some(format!(" GROUP BY {by}{having}"));
        }
        if let Some((column, kind)) = self.any_column(scope) {
            let sum = if kind.is_number() { "sum" } else { "count" };
            let form = match self.below(8) {
                0 => format!("{sum}({column})"),
                1 => format!("count(DISTINCT {column})"),
                2 => format!("string_agg({column}::text, ',' ORDER BY {column}::text)"),
                3 => format!("array_agg({column} ORDER BY {column})::text"),
                4 => format!("count(*) FILTER (WHERE {column} IS NOT NULL)"),
                5 if kind.is_number() => format!("avg({column})"),
                6 => format!("count(*) + {sum}({column})"),
                _ => "count(*)".to_owned(),
            };
            list.push(format!("{form} AS x1"));
            columns.push(("x1".to_owned(), Kind::Int8));
        } else {
            list.push("count(*) AS x1".to_owned());
            columns.push(("x1".to_owned(), Kind::Int8));
        }
        (list.join(", "), columns, grouping)
    }

    /// An expression over the scope.
    fn scalar(&mut self, scope: &[Item]) -> (String, Kind) {
        let Some((column, kind)) = self.any_column(scope) else {
            let kind = *self.pick(&[Kind::Int8, Kind::Text]);
            return (format!("{}::{}", self.plain(kind), kind.name()), kind);
        };
        match self.below(24) {
            0 if kind.is_number() => (format!("{column} + 1"), kind),
            1 if kind.is_text() => (format!("upper({column})"), Kind::Text),
            2 => (format!("{column}::text"), Kind::Text),
            3 => (format!("{column} = {}", self.plain(kind)), Kind::Bool),
            4 => (format!("coalesce({column}, {})", self.plain(kind)), kind),
            5 => {
                let value = self.plain(kind);
                (
                    format!("CASE WHEN {column} = {value} THEN {column} END"),
                    kind,
                )
            }
            6 if self.depth < 2 => {
                self.outer.push(scope.to_vec());
                let query = self.subquery(Some(kind));
                self.outer.pop();
                let name = &query.columns[0].0;
                let aggregate = if matches!(kind, Kind::Bool | Kind::Uuid) {
                    "count"
                } else {
                    "max"
                };
                (
                    format!("(SELECT {aggregate}({name}) FROM ({}) s)", query.sql),
                    kind,
                )
            }
            7 => (format!("count(*) OVER (PARTITION BY {column})"), Kind::Int8),
            8 => (format!("rank() OVER (ORDER BY {column})"), Kind::Int8),
            9 => (format!("{column} IS NULL"), Kind::Bool),
            10 => (
                self.word(&[
                    "1::int8",
                    "NULL::int8",
                    "length('abc')::int8",
                    "current_date IS NULL",
                ])
                .to_owned(),
                Kind::Int8,
            ),
            11 => (format!("concat({column}, 'x')"), Kind::Text),
            _ => (column, kind),
        }
    }

    /// `FROM`: its text and what it brings.
    fn from(&mut self) -> (String, Vec<Item>) {
        if self.chance(2) {
            return (String::new(), Vec::new());
        }
        let mut scope = Vec::new();
        let mut sql = self.factor(&mut scope, false);
        let count = [1, 1, 1, 1, 2, 2, 2, 3][self.below(8)];
        while scope.len() < count {
            if self.chance(15) {
                let lateral = self.chance(40);
                sql += &format!(", {}", self.factor(&mut scope, lateral));
                continue;
            }
            sql = self.join(sql, &mut scope);
        }
        (sql, scope)
    }

    fn join(&mut self, left: String, scope: &mut Vec<Item>) -> String {
        let kind = self.word(&[
            "JOIN",
            "JOIN",
            "INNER JOIN",
            "LEFT JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "CROSS JOIN",
            "NATURAL JOIN",
            "NATURAL LEFT JOIN",
            "LEFT OUTER JOIN",
        ]);
        let before = scope.clone();
        let lateral = matches!(kind, "JOIN" | "LEFT JOIN" | "CROSS JOIN") && self.chance(25);
        let right = self.factor(scope, lateral);
        let item = scope.last().unwrap().clone();
        let on = if kind.starts_with("CROSS") || kind.starts_with("NATURAL") {
            String::new()
        } else {
            let shared: Vec<&String> = item
                .columns
                .iter()
                .map(|(name, _)| name)
                .filter(|name| {
                    before
                        .iter()
                        .any(|item| item.columns.iter().any(|(other, _)| other == *name))
                })
                .collect();
            if !shared.is_empty() && self.chance(25) {
                format!(" USING ({})", self.pick(&shared))
            } else {
                let mut parts = Vec::new();
                if self.chance(80) {
                    parts.extend(self.link(&item, &before));
                }
                if self.chance(25) {
                    parts.push(self.condition(&scope.clone()));
                }
                if parts.is_empty() {
                    parts.push("true".to_owned());
                }
                format!(" ON {}", parts.join(" AND "))
            }
        };
        if self.chance(15) {
            return format!("({left} {kind} {right}{on})");
        }
        format!("{left} {kind} {right}{on}")
    }

    /// An entry of `FROM`.
    fn factor(&mut self, scope: &mut Vec<Item>, lateral: bool) -> String {
        if (lateral || self.chance(10)) && self.depth < 2 {
            return self.derived(scope, lateral);
        }
        if !self.ctes.is_empty() && self.chance(50) {
            let (name, columns) = self.pick(&self.ctes.clone()).clone();
            let alias = self.alias(scope);
            scope.push(Item {
                alias: alias.clone(),
                columns,
                key: 0,
            });
            return format!("{name} AS {alias}");
        }
        if self.chance(3) {
            let alias = self.alias(scope);
            let columns = vec![("user_id".to_owned(), Kind::Int4)];
            let sql = format!("generate_series(1, 3) AS {alias}(user_id)");
            scope.push(Item {
                alias,
                columns,
                key: 0,
            });
            return sql;
        }
        let table = self.table();
        let mut item = Item {
            alias: table.name.to_owned(),
            columns: table
                .columns
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), *kind))
                .collect(),
            key: table.key,
        };
        let only = self.word(&["", "", "", "", "", "", "", "", "ONLY "]);
        let schema = if table.name.contains('.') {
            ""
        } else {
            self.word(&["", "", "", "public."])
        };
        let mut sql = format!("{only}{schema}{}", table.name);
        let taken = scope.iter().any(|item| item.alias == table.name) || table.name.contains('.');
        if taken || self.chance(50) {
            item.alias = self.alias(scope);
            sql += &format!("{}{}", self.word(&[" ", " AS "]), item.alias);
            if self.chance(6) {
                // The names of the first columns, the other way round.
                let names: Vec<String> = item
                    .columns
                    .iter()
                    .take(2)
                    .map(|(name, _)| name.clone())
                    .collect();
                for (column, name) in item.columns.iter_mut().zip(names.iter().rev()) {
                    column.0.clone_from(name);
                }
                sql += &format!(
                    "({})",
                    names.iter().rev().cloned().collect::<Vec<_>>().join(", ")
                );
            }
        }
        if self.chance(2) {
            sql += " TABLESAMPLE SYSTEM (100)";
        }
        scope.push(item);
        sql
    }

    fn derived(&mut self, scope: &mut Vec<Item>, lateral: bool) -> String {
        if lateral {
            self.outer.push(scope.clone());
        }
        let query = self.subquery(None);
        if lateral {
            self.outer.pop();
        }
        let alias = self.alias(scope);
        let word = if lateral { "LATERAL " } else { "" };
        let sql = format!("{word}({}) AS {alias}", query.sql);
        let columns = query.columns;
        scope.push(Item {
            alias,
            columns,
            key: 0,
        });
        sql
    }

    /// A table: those that are joined most, most often.
    pub fn table(&mut self) -> &'static Table {
        if self.chance(40) {
            let name = self.word(&["users", "orders", "plain", "products"]);
            return Table::named(name);
        }
        self.pick(TABLES)
    }
}
