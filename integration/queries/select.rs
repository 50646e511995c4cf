//! Random `SELECT`s: lists, groups, windows.

use super::expression::{key_of, row_id};
use super::generate::{Columns, Generator, Item, Query};
use super::schema::Kind;

/// What a query selects.
struct List {
    expressions: Vec<String>,
    columns: Columns,
}

impl List {
    fn push(&mut self, expression: String, name: &str, kind: Kind) {
        let free = !self.columns.iter().any(|(known, _)| known == name);
        let name = match free {
            true => name.to_owned(),
            false => format!("x{}", self.columns.len()),
        };
        self.expressions.push(format!("{expression} AS {name}"));
        self.columns.push((name, kind));
    }
}

impl Generator {
    pub fn select(&mut self, want: Option<&[Kind]>) -> Query {
        let (from, items, links) = self.from();
        self.scopes.push(items.clone());
        let mut conditions = links;
        for _ in 0..self.pick(&[0, 0, 1, 1, 2]) {
            conditions.push(self.condition(2));
        }
        conditions.extend(self.tie());
        let grouped = self.chance(30);
        let (list, groups) = match grouped {
            true => self.grouped(want),
            false => (self.plain(want, &items), String::new()),
        };
        self.scopes.pop();
        let count = list.columns.len();
        let distinct = match self.below(20) {
            0 | 1 => "DISTINCT ".to_owned(),
            2 if count > 0 => "DISTINCT ON (1) ".to_owned(),
            _ => String::new(),
        };
        let star = want.is_none() && !grouped && distinct.is_empty() && self.chance(5);
        let mut sql = format!(
            "SELECT {distinct}{} FROM {from}",
            list.expressions.join(", ")
        );
        if !conditions.is_empty() {
            sql += &format!(" WHERE {}", conditions.join(" AND "));
        }
        sql += &groups;
        if star && self.depth == 0 && items.len() == 1 {
            let columns = items[0].columns.clone();
            let sql = sql.replacen(&list.expressions.join(", "), "*", 1);
            return Query {
                sql,
                columns,
                ordered: false,
            };
        }
        let ordered = if distinct.starts_with("DISTINCT ON") {
            let keys: Vec<String> = (1..=count).map(|column| column.to_string()).collect();
            sql += &format!(" ORDER BY {}", keys.join(", "));
            true
        } else {
            self.tail(&mut sql, count)
        };
        Query {
            sql,
            columns: list.columns,
            ordered,
        }
    }

    fn plain(&mut self, want: Option<&[Kind]>, items: &[Item]) -> List {
        let mut list = List {
            expressions: Vec::new(),
            columns: Vec::new(),
        };
        if let Some(want) = want {
            for kind in want {
                let expression = self.scalar(*kind);
                self.named(&mut list, expression, *kind);
            }
            return list;
        }
        if self.local
            && self.chance(60)
            && let Some(key) = key_of(items)
        {
            list.push(key, "user_id", Kind::Int);
        }
        for _ in 0..1 + self.below(4) {
            let kind = self.kind();
            if self.chance(12) {
                let (expression, kind) = self.window(kind, items);
                list.push(expression, "w", kind);
                continue;
            }
            let expression = self.scalar(kind);
            self.named(&mut list, expression, kind);
        }
        list
    }

    /// Adds a column; one that is only named keeps its name now and then.
    fn named(&mut self, list: &mut List, expression: String, kind: Kind) {
        let name = expression.rsplit('.').next().unwrap_or_default();
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
        let name = match is_name && self.chance(60) {
            true => name.to_owned(),
            false => format!("c{}", list.columns.len()),
        };
        list.push(expression, &name, kind);
    }

    /// A window function.
    fn window(&mut self, kind: Kind, items: &[Item]) -> (String, Kind) {
        let partition = match self.chance(60) {
            true => {
                let kind = self.kind();
                format!("PARTITION BY {} ", self.value(kind, false))
            }
            false => String::new(),
        };
        let key = self.value(kind, false);
        let direction = self.pick(&["", " DESC", " NULLS FIRST"]);
        let total = format!("ORDER BY {key}{direction}, {}", row_id(items));
        let value = self.value(Kind::Int, false);
        let frame = self.pick(&[
            "",
            " ROWS 2 PRECEDING",
            " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
        ]);
        let other = self.value(kind, false);
        match self.below(8) {
            0 => (
                format!("rank() OVER ({partition}ORDER BY {key}{direction})"),
                Kind::Int,
            ),
            1 => (format!("row_number() OVER ({partition}{total})"), Kind::Int),
            2 => (format!("lag({other}) OVER ({partition}{total})"), kind),
            3 => (
                format!("first_value({other}) OVER ({partition}{total}{frame})"),
                kind,
            ),
            4 => (
                format!("sum({value}) OVER ({partition}{total}{frame})::bigint"),
                Kind::Int,
            ),
            5 => (format!("count({other}) OVER ({partition})"), Kind::Int),
            6 => (
                format!("dense_rank() OVER ({partition}ORDER BY {key}{direction})"),
                Kind::Int,
            ),
            _ => (format!("max({value}) OVER ({partition})"), Kind::Int),
        }
    }

    /// Groups and aggregates.
    fn grouped(&mut self, want: Option<&[Kind]>) -> (List, String) {
        let mut list = List {
            expressions: Vec::new(),
            columns: Vec::new(),
        };
        let mut keys = Vec::new();
        if let Some(want) = want {
            for kind in want {
                let expression = self.aggregate(*kind);
                list.push(expression, &format!("c{}", list.columns.len()), *kind);
            }
            if self.chance(50) {
                let kind = self.kind();
                keys.push(self.value(kind, false));
            }
        } else {
            if self.local
                && self.chance(50)
                && let Some(key) = self.scopes.last().and_then(|items| key_of(items))
            {
                keys.push(key.clone());
                list.push(key, "user_id", Kind::Int);
            }
            for _ in 0..self.pick(&[0, 1, 1, 1, 2, 3]) {
                let kind = self.kind();
                let key = self.value(kind, false);
                // Servers before 18 give constants in grouping sets what they like.
                if keys.contains(&key) || !key.contains('.') {
                    continue;
                }
                keys.push(key.clone());
                if self.chance(90) {
                    self.named(&mut list, key, kind);
                }
            }
            for _ in 0..1 + self.below(3) {
                let kind = self.kind();
                let expression = self.aggregate(kind);
                list.push(expression, &format!("a{}", list.columns.len()), kind);
            }
            if self.chance(8) {
                let expression = "rank() OVER (ORDER BY count(*))".to_owned();
                list.push(expression, "r", Kind::Int);
            }
        }
        let mut sql = String::new();
        if !keys.is_empty() {
            sql = format!(" GROUP BY {}", self.grouping(&keys));
        }
        if self.chance(25) {
            let condition = match self.below(5) {
                0 => "count(*) > 1".to_owned(),
                1 => "count(*) BETWEEN 1 AND 6".to_owned(),
                2 => format!("{} IS NOT NULL", self.aggregate(Kind::Int)),
                3 => format!("{} > 3 OR count(*) = 1", self.aggregate(Kind::Int)),
                _ => format!("{} < 100.00 AND count(*) > 0", self.aggregate(Kind::Num)),
            };
            sql += &format!(" HAVING {condition}");
        }
        (list, sql)
    }

    fn grouping(&mut self, keys: &[String]) -> String {
        let all = keys.join(", ");
        match self.below(10) {
            0 => format!("ROLLUP ({all})"),
            1 => format!("CUBE ({all})"),
            2 => format!("GROUPING SETS (({all}), ({}), ())", keys[0]),
            3 => format!("DISTINCT {all}"),
            _ => all,
        }
    }

    /// An aggregate that gives the family.
    fn aggregate(&mut self, kind: Kind) -> String {
        let filter = match self.chance(15) {
            true => {
                let kind = self.kind();
                format!(" FILTER (WHERE {} IS NOT NULL)", self.value(kind, false))
            }
            false => String::new(),
        };
        let distinct = self.pick(&["", "", "", "DISTINCT "]);
        match kind {
            Kind::Int => {
                let other = self.kind();
                let value = self.value(other, false);
                match self.below(6) {
                    0 => format!("count(*){filter}"),
                    1 => format!("count({distinct}{value}){filter}"),
                    2 => format!(
                        "sum({distinct}{}){filter}::bigint",
                        self.value(Kind::Int, false)
                    ),
                    3 => format!("max({}){filter}::bigint", self.value(Kind::Int, false)),
                    4 => format!(
                        "percentile_disc(0.5) WITHIN GROUP (ORDER BY {}){filter}::bigint",
                        self.value(Kind::Int, false)
                    ),
                    _ => format!("min({}){filter}::bigint", self.value(Kind::Int, false)),
                }
            }
            Kind::Num => {
                let value = self.value(Kind::Num, false);
                match self.below(4) {
                    0 => format!("sum({distinct}{value}){filter}"),
                    1 => format!("round(avg({distinct}{value}){filter}, 2)"),
                    2 => format!("round(avg({}){filter}, 2)", self.value(Kind::Int, false)),
                    _ => format!("max({value}){filter}"),
                }
            }
            Kind::Float => format!("sum({}){filter}", self.value(Kind::Float, false)),
            Kind::Text => {
                let value = self.value(Kind::Text, false);
                match self.below(4) {
                    0 => format!("string_agg({distinct}{value}, ',' ORDER BY {value}){filter}"),
                    1 => format!("array_agg({value} ORDER BY {value}){filter}::text"),
                    2 => {
                        let other = self.value(Kind::Int, false);
                        format!("jsonb_agg({other} ORDER BY {other} DESC){filter}::text")
                    }
                    _ => format!("min({value}){filter}"),
                }
            }
            Kind::Bool => format!("bool_and({}){filter}", self.value(Kind::Bool, false)),
            Kind::Words => {
                let value = self.value(Kind::Text, false);
                format!("array_agg({distinct}{value} ORDER BY {value}){filter}")
            }
            Kind::Uuid | Kind::Bytes | Kind::Json => {
                let value = self.value(kind, false);
                format!("(array_agg({value} ORDER BY {value}){filter})[1]")
            }
            _ => {
                let call = self.pick(&["max", "min"]);
                format!("{call}({}){filter}", self.value(kind, false))
            }
        }
    }
}
