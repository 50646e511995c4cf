//! Random queries of every kind that leave PostgreSQL no choice: sources, clauses and what binds them.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::schema::{KINDS, Kind, TABLES};

/// Names and families of columns.
pub type Columns = Vec<(String, Kind)>;

/// A parameter of a query.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The declared type; 0 leaves it to the server.
    pub oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    pub bytes: Option<Vec<u8>>,
}

/// Something that columns can be taken from.
#[derive(Clone)]
pub struct Item {
    pub alias: String,
    pub columns: Columns,
    /// Columns that tell its rows apart, as far as that can be seen.
    pub id: Vec<String>,
}

/// A query and what it gives.
pub struct Query {
    pub sql: String,
    pub columns: Columns,
    /// Its `ORDER BY` leaves no choice.
    pub ordered: bool,
}

/// Writes one query.
pub struct Generator {
    pub random: StdRng,
    pub parameters: Vec<Parameter>,
    with_parameters: bool,
    /// What the queries around see, the innermost last.
    pub scopes: Vec<Vec<Item>>,
    ctes: Vec<(String, Columns)>,
    names: usize,
    /// How many more tables the query may read.
    budget: usize,
    /// Most of it can be answered by each shard: its tables are tied by their keys.
    pub local: bool,
    pub depth: usize,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        let mut random = StdRng::seed_from_u64(seed);
        Generator {
            with_parameters: random.random_bool(0.3),
            budget: random.random_range(1..7),
            local: random.random_bool(0.35),
            random,
            parameters: Vec::new(),
            scopes: Vec::new(),
            ctes: Vec::new(),
            names: 0,
            depth: 0,
        }
    }

    /// True this often, in percent.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).unwrap().clone()
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// A constant of the family, or a parameter with it.
    pub fn constant(&mut self, kind: Kind) -> String {
        let value = self.pick(kind.values());
        if !self.with_parameters || self.chance(50) || self.parameters.len() >= 6 {
            let quoted = format!("'{value}'::{}", kind.name());
            return match kind {
                Kind::Int | Kind::Bool if !value.starts_with('-') => value.to_owned(),
                Kind::Text if self.chance(70) => format!("'{value}'"),
                Kind::Num if self.chance(50) && !value.starts_with('-') => value.to_owned(),
                _ => quoted,
            };
        }
        let is_null = self.chance(4);
        let (format, bytes) = match kind {
            Kind::Int if self.chance(50) => {
                (1, value.parse::<i64>().unwrap().to_be_bytes().to_vec())
            }
            Kind::Bool if self.chance(50) => (1, vec![u8::from(value == "true")]),
            Kind::Text | Kind::German if self.chance(50) => (1, value.as_bytes().to_vec()),
            Kind::Float if self.chance(50) => {
                (1, value.parse::<f64>().unwrap().to_be_bytes().to_vec())
            }
            _ => (0, value.as_bytes().to_vec()),
        };
        let declared = format == 1 || self.chance(40);
        self.parameters.push(Parameter {
            oid: if declared { kind.oid() } else { 0 },
            format,
            bytes: (!is_null).then_some(bytes),
        });
        let cast = format!("${}::{}", self.parameters.len(), kind.name());
        // What stands alone would be of the family's type anyhow.
        match declared && kind != Kind::Num && kind != Kind::Mood && self.chance(60) {
            true => format!("${}", self.parameters.len()),
            false => cast,
        }
    }

    /// A query on one level below.
    pub fn inner(&mut self, want: Option<&[Kind]>) -> Query {
        self.depth += 1;
        let query = self.query(want);
        self.depth -= 1;
        query
    }

    /// A whole query.
    pub fn query(&mut self, want: Option<&[Kind]>) -> Query {
        let known = self.ctes.len();
        let with = match self.depth < 2 && self.chance(if self.depth == 0 { 20 } else { 6 }) {
            true => self.with(),
            false => String::new(),
        };
        let mut query = match self.depth < 3 && self.chance(12) {
            true => self.set_operation(want),
            false => self.select(want),
        };
        self.ctes.truncate(known);
        query.sql.insert_str(0, &with);
        query
    }

    fn with(&mut self) -> String {
        let mut parts = Vec::new();
        let mut recursive = "";
        for _ in 0..1 + self.below(2) {
            if self.chance(25) && self.budget > 1 {
                recursive = "RECURSIVE ";
                parts.push(self.recursion());
                continue;
            }
            // Now and then it hides a table.
            let name = match self.chance(10) {
                true => "tags".to_owned(),
                false => self.name("w"),
            };
            if self.ctes.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let query = self.inner(None);
            let how = self.pick(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
            parts.push(format!("{name} AS {how}({})", query.sql));
            self.ctes.push((name, query.columns));
        }
        match parts.is_empty() {
            true => String::new(),
            false => format!("WITH {recursive}{} ", parts.join(", ")),
        }
    }

    /// A recursive CTE that ends.
    fn recursion(&mut self) -> String {
        let name = self.name("r");
        self.budget = self.budget.saturating_sub(2);
        let union = self.pick(&["UNION", "UNION ALL"]);
        let start = self.pick(&[
            "SELECT 1, user_id FROM users WHERE age = 3",
            "SELECT 1, min(user_id) FROM orders",
            "SELECT 1, user_id::bigint FROM events WHERE tenant = 2 AND user_id IS NOT NULL",
            "VALUES (1, 3::bigint), (2, 8)",
        ]);
        let step = self.pick(&[
            "SELECT @.n + 1, o.user_id + 1 FROM @ JOIN orders o ON o.user_id = @.user_id WHERE @.n < 3",
            "SELECT @.n + 1, @.user_id + 1 FROM @ WHERE @.n < 5 AND EXISTS (SELECT FROM users u WHERE u.user_id = @.user_id)",
            "SELECT @.n + 1, i.order_id FROM items i, @ WHERE i.item_id = @.user_id AND @.n < 4",
        ]);
        let columns = vec![
            ("n".to_owned(), Kind::Int),
            ("user_id".to_owned(), Kind::Int),
        ];
        self.ctes.push((name.clone(), columns));
        let step = step.replace('@', &name);
        format!("{name}(n, user_id) AS ({start} {union} {step})")
    }

    fn set_operation(&mut self, want: Option<&[Kind]>) -> Query {
        let kinds: Vec<Kind> = match want {
            Some(want) => want.to_vec(),
            None => (0..1 + self.below(3)).map(|_| self.kind()).collect(),
        };
        let first = self.inner(Some(&kinds));
        let mut sql = format!("({})", first.sql);
        for _ in 0..1 + self.below(2) {
            let operator = self.pick(&[
                "UNION",
                "UNION ALL",
                "UNION ALL",
                "INTERSECT",
                "INTERSECT ALL",
                "EXCEPT",
                "EXCEPT ALL",
            ]);
            let next = self.inner(Some(&kinds));
            sql = format!("{sql} {operator} ({})", next.sql);
        }
        let columns = first.columns;
        let ordered = self.tail(&mut sql, columns.len());
        Query {
            sql,
            columns,
            ordered,
        }
    }

    /// A family: the everyday ones mostly.
    pub fn kind(&mut self) -> Kind {
        match self.chance(60) {
            true => self.pick(&[Kind::Int, Kind::Text, Kind::Num, Kind::German]),
            false => self.pick(&KINDS),
        }
    }

    /// `ORDER BY` over all columns and what may follow; whether it leaves no choice.
    pub fn tail(&mut self, sql: &mut String, columns: usize) -> bool {
        let wanted = if self.depth == 0 { 60 } else { 25 };
        if columns == 0 || !self.chance(wanted) {
            return false;
        }
        let mut keys: Vec<usize> = (1..=columns).collect();
        let (one, other) = (self.below(columns), self.below(columns));
        keys.swap(one, other);
        if self.chance(10) {
            let direction = self.pick(&["", " DESC"]);
            *sql += &format!(" ORDER BY {}{direction}", keys[0]);
            *sql += self.pick(&[
                " FETCH FIRST 3 ROWS WITH TIES",
                " FETCH NEXT 1 ROW WITH TIES",
            ]);
            return false;
        }
        let keys: Vec<String> = keys
            .iter()
            .map(|key| {
                let direction = self.pick(&["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
                format!("{key}{direction}")
            })
            .collect();
        *sql += &format!(" ORDER BY {}", keys.join(", "));
        if self.depth > 0 || self.chance(40) {
            *sql += self.pick(&[
                " LIMIT 1",
                " LIMIT 3",
                " LIMIT 7 OFFSET 2",
                " OFFSET 3",
                " OFFSET 2 ROWS FETCH FIRST 4 ROWS ONLY",
                " LIMIT ALL",
                " LIMIT 20",
            ]);
        }
        true
    }

    /// `FROM`: its text, what it brings, and what binds what no join binds.
    pub fn from(&mut self) -> (String, Vec<Item>, Vec<String>) {
        let mut items = Vec::new();
        let mut links = Vec::new();
        let mut sql = self.source(&mut items, false);
        for _ in 0..self.pick(&[0, 0, 1, 1, 1, 2, 2, 3]) {
            if self.budget == 0 {
                break;
            }
            if self.chance(12) {
                sql = format!("{sql} CROSS JOIN {}", self.unbound(&mut items, &mut links));
            } else {
                sql = self.join(sql, &mut items);
            }
        }
        if self.budget > 0 && self.chance(10) {
            sql = format!("{sql}, {}", self.unbound(&mut items, &mut links));
        }
        (sql, items, links)
    }

    /// A source that no join binds, and mostly a condition that does.
    fn unbound(&mut self, items: &mut Vec<Item>, links: &mut Vec<String>) -> String {
        let before = items.clone();
        let sql = self.source(items, true);
        let pairs = self.pairs(&before, items.last().unwrap());
        if !pairs.is_empty() && self.chance(85) {
            let (one, other) = self.pick(&pairs);
            let operator = self.pick(&["=", "=", "=", "<>", "<"]);
            links.push(format!("{one} {operator} {other}"));
        }
        sql
    }

    fn pairs(&self, before: &[Item], item: &Item) -> Vec<(String, String)> {
        pairs(before, item, self.local)
    }

    fn join(&mut self, left: String, items: &mut Vec<Item>) -> String {
        let word = self.pick(&[
            "JOIN",
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
        ]);
        let before = items.clone();
        let right = self.source(items, word == "JOIN" || word == "LEFT JOIN");
        let item = items.last().unwrap().clone();
        let pairs = self.pairs(&before, &item);
        let Some((one, other)) = pairs.choose(&mut self.random).cloned() else {
            return format!("{left} {word} {right} ON {}", word == "JOIN");
        };
        let column = one.rsplit('.').next().unwrap_or_default().to_owned();
        let is_shared = other.ends_with(&format!(".{column}"));
        let is_unique = before
            .iter()
            .filter(|item| item.columns.iter().any(|(name, _)| *name == column))
            .count()
            == 1;
        if is_shared && is_unique && self.chance(20) {
            return format!("{left} {word} {right} USING ({column})");
        }
        let mut condition = format!("{one} = {other}");
        if word != "FULL JOIN" {
            if self.chance(8) {
                condition = format!("{one} IS NOT DISTINCT FROM {other}");
            }
            if self.chance(30) {
                self.scopes.push(items.clone());
                let more = self.condition(2);
                self.scopes.pop();
                condition += &format!(" AND {more}");
            }
        }
        format!("{left} {word} {right} ON {condition}")
    }

    /// An entry of `FROM`.
    fn source(&mut self, items: &mut Vec<Item>, may_look_left: bool) -> String {
        let roll = self.below(100);
        if roll < 14 && self.depth < 3 && self.budget > 0 {
            return self.derived(items, may_look_left);
        }
        if roll < 30 && !self.ctes.is_empty() {
            let (name, columns) = self.pick(&self.ctes.clone());
            let alias = self.name("c");
            items.push(Item {
                alias: alias.clone(),
                id: names(&columns),
                columns,
            });
            return format!("{name} AS {alias}");
        }
        if roll < 33 {
            return self.values(items);
        }
        if roll < 36 {
            let alias = self.name("g");
            let columns = vec![("n".to_owned(), Kind::Int)];
            items.push(Item {
                alias: alias.clone(),
                id: names(&columns),
                columns,
            });
            return format!("generate_series(1, 4) AS {alias}(n)");
        }
        if roll < 39
            && may_look_left
            && let Some(word) = column_of(items, Kind::Words)
        {
            let alias = self.name("g");
            let columns = vec![("tag".to_owned(), Kind::Text), ("n".to_owned(), Kind::Int)];
            items.push(Item {
                alias: alias.clone(),
                id: names(&columns),
                columns,
            });
            return format!("unnest({word}) WITH ORDINALITY AS {alias}(tag, n)");
        }
        self.table(items)
    }

    fn table(&mut self, items: &mut Vec<Item>) -> String {
        self.budget = self.budget.saturating_sub(1);
        let table = match self.local && self.chance(95) {
            true => &TABLES[self.pick(&[0, 0, 1, 1, 1, 5])],
            false => &TABLES[self.below(TABLES.len())],
        };
        let hidden = self.ctes.iter().any(|(name, _)| name == table.name);
        let taken = items.iter().any(|item| item.alias == table.name);
        let columns: Columns = table
            .columns
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect();
        let schema = if hidden || self.chance(12) {
            "public."
        } else {
            ""
        };
        let only = if self.chance(4) { "ONLY " } else { "" };
        let name = format!("{only}{schema}{}", table.name);
        let (alias, sql) = match taken || self.chance(60) {
            true => {
                let alias = self.name("t");
                let sql = format!("{name} AS {alias}");
                (alias, sql)
            }
            false => (table.name.to_owned(), name),
        };
        items.push(Item {
            alias,
            columns,
            id: table.id.iter().map(|name| (*name).to_owned()).collect(),
        });
        sql
    }

    fn values(&mut self, items: &mut Vec<Item>) -> String {
        let alias = self.name("v");
        let kinds = [Kind::Int, self.kind()];
        let rows: Vec<String> = (0..1 + self.below(4))
            .map(|_| {
                let values: Vec<String> = kinds
                    .iter()
                    .map(|kind| format!("{}::{}", self.constant(*kind), kind.name()))
                    .collect();
                format!("({})", values.join(", "))
            })
            .collect();
        let columns = vec![("user_id".to_owned(), kinds[0]), ("x".to_owned(), kinds[1])];
        items.push(Item {
            alias: alias.clone(),
            id: names(&columns),
            columns,
        });
        format!("(VALUES {}) AS {alias}(user_id, x)", rows.join(", "))
    }

    fn derived(&mut self, items: &mut Vec<Item>, may_look_left: bool) -> String {
        let lateral = may_look_left && self.chance(50);
        if lateral {
            self.scopes.push(items.clone());
        }
        let query = self.inner(None);
        if lateral {
            self.scopes.pop();
        }
        let alias = self.name("d");
        let word = if lateral { "LATERAL " } else { "" };
        let sql = format!("{word}({}) AS {alias}", query.sql);
        items.push(Item {
            alias,
            id: names(&query.columns),
            columns: query.columns,
        });
        sql
    }
}

fn names(columns: &Columns) -> Vec<String> {
    columns.iter().map(|(name, _)| name.clone()).collect()
}

/// A column of this family, if there is one.
fn column_of(items: &[Item], kind: Kind) -> Option<String> {
    let mut all = items.iter().flat_map(|item| {
        let columns = item.columns.iter().filter(|(_, other)| *other == kind);
        columns.map(|(name, _)| format!("{}.{name}", item.alias))
    });
    all.next()
}

/// Columns on the left with those of an item that they could equal; those of one name more often.
pub fn pairs(before: &[Item], item: &Item, local: bool) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for left in before {
        for (one, kind) in &left.columns {
            for (other, other_kind) in &item.columns {
                if kind != other_kind || *kind == Kind::Json || *kind == Kind::Words {
                    continue;
                }
                let count = match one == other {
                    true if local && one == "user_id" => 150,
                    true => 8,
                    false => 1,
                };
                let pair = (
                    format!("{}.{one}", left.alias),
                    format!("{}.{other}", item.alias),
                );
                pairs.extend(std::iter::repeat_n(pair, count));
            }
        }
    }
    pairs
}
