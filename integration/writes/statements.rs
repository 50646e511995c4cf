//! Random statements that change rows.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::differential::schema::Kind;
use crate::differential::value::{Parameter, parameter, spell};
use crate::harness::compare::Mode;
use crate::harness::message;

use super::tables::{Place, Role, TABLES, Table};

/// A statement, or several in one message.
#[derive(Clone, Debug)]
pub struct Statement {
    pub sql: String,
    pub parameters: Vec<Parameter>,
    pub mode: Mode,
    /// The rows that it returns have an order.
    pub ordered: bool,
    /// What is sent once the server asks for data.
    pub data: Option<Vec<u8>>,
}

impl Statement {
    /// A Query message.
    pub fn simple(sql: impl Into<String>) -> Statement {
        Statement {
            sql: sql.into(),
            parameters: Vec::new(),
            mode: Mode::Simple,
            ordered: false,
            data: None,
        }
    }

    pub fn show(&self) -> String {
        let parameter = |parameter: &Parameter| {
            let Parameter {
                oid, format, text, ..
            } = parameter;
            format!("{text:?} of type {oid} in format {format}")
        };
        let parameters: Vec<String> = self.parameters.iter().map(parameter).collect();
        let data = self.data.as_ref().map(|data| String::from_utf8_lossy(data));
        format!(
            "{}  -- {:?} {} {}",
            self.sql,
            self.mode,
            parameters.join(", "),
            data.unwrap_or_default()
        )
    }

    /// Its messages, without the Sync that ends them in the extended protocol.
    pub fn messages(&self) -> Vec<u8> {
        if self.mode == Mode::Simple {
            return message::query(&self.sql);
        }
        let parameters = self.parameters.iter();
        let types: Vec<u32> = parameters.clone().map(|one| one.oid).collect();
        let formats: Vec<i16> = parameters.clone().map(|one| one.format).collect();
        let values: Vec<_> = parameters.map(|one| one.bytes.clone()).collect();
        let mut out = message::parse("", &self.sql, &types);
        let results = [i16::from(self.mode == Mode::Binary)];
        out.extend(message::bind("", "", &formats, &values, &results));
        out.extend(message::describe(b'P', ""));
        out.extend(message::execute("", 0));
        out
    }
}

/// Makes statements.
pub struct Generator {
    pub random: StdRng,
    parameters: Vec<Parameter>,
    /// Values may become parameters.
    extended: bool,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: StdRng::seed_from_u64(seed),
            parameters: Vec::new(),
            extended: false,
        }
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn word(&mut self, words: &[&str]) -> String {
        (*words.choose(&mut self.random).unwrap()).to_owned()
    }

    /// A statement in any mode.
    pub fn statement(&mut self) -> Statement {
        let mode = [Mode::Simple, Mode::Text, Mode::Binary][self.below(3)];
        self.statement_in(mode)
    }

    /// A statement in a mode.
    pub fn statement_in(&mut self, mode: Mode) -> Statement {
        self.parameters.clear();
        self.extended = mode != Mode::Simple && self.chance(75);
        let table = self.table();
        let (sql, ordered) = match self.below(100) {
            0..48 => self.insert(table),
            48..74 => (self.update(table), false),
            74..90 => (self.delete(table), false),
            90..92 => (self.truncate(), false),
            92..95 => (self.around(table), false),
            _ => (self.look(table), false),
        };
        Statement {
            sql,
            parameters: std::mem::take(&mut self.parameters),
            mode,
            ordered,
            data: None,
        }
    }

    fn table(&mut self) -> &'static Table {
        TABLES.choose(&mut self.random).unwrap()
    }

    /// Some value of a kind, as text.
    fn text(&mut self, kind: Kind) -> String {
        let index = i32::try_from(self.below(9)).unwrap();
        match (kind, index) {
            (Kind::Text, 7) => self.word(&["it's", "a\\b", "key 1 ", "größe €", "now"]),
            (Kind::Bpchar, 7) => self.word(&["key 1 ", "x'", "größe €"]),
            (Kind::Varchar, 7) => self.word(&["key 1 ", "key 1  ", "größe €", "x\\"]),
            (Kind::Numeric, 7) => self.word(&["0", "-0.0", "1.5000", "0.0004", "NaN", "1e2"]),
            (Kind::Int4 | Kind::Int8, 7) => "-3".to_owned(),
            _ => kind.text(index),
        }
    }

    /// A value as the statement writes it.
    fn value(&mut self, kind: Kind) -> String {
        let text = self.text(kind);
        self.written(kind, &text)
    }

    fn written(&mut self, kind: Kind, text: &str) -> String {
        if self.extended && self.chance(60) {
            let parameter = parameter(kind, text, &mut self.random);
            self.parameters.push(parameter);
            return format!("${}", self.parameters.len());
        }
        if self.chance(12) {
            return spell(kind, text, &mut self.random);
        }
        let quoted = format!("'{}'", text.replace('\'', "''"));
        match kind {
            _ if kind.is_number() && text != "NaN" => text.to_owned(),
            Kind::Bool => text.to_owned(),
            _ => quoted,
        }
    }

    /// What is computed to a value of the kind.
    fn computed(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Int2 | Kind::Int4 | Kind::Int8 => self.word(&[
                "1 + 2",
                "length('four')",
                "(SELECT max(id) FROM notes)",
                "(SELECT count(*) FROM products)",
                "abs(-4)",
                "coalesce(NULL, 3)",
                "(SELECT min(score) FROM users)",
                "extract(year FROM now())::int - extract(year FROM now())::int",
            ]),
            Kind::Text | Kind::Varchar | Kind::Bpchar => self.word(&[
                "lower('KEY 2')",
                "'key ' || 3",
                "(SELECT name FROM products WHERE id = 2)",
                "concat('key ', 4)",
                "(SELECT max(value) FROM settings)",
                "left('key 12', 5)",
                "current_user",
            ]),
            Kind::Date => "date '2024-03-01' + 3".to_owned(),
            Kind::Timestamp => "timestamp '2024-03-02 11:00' + interval '1 hour'".to_owned(),
            Kind::Timestamptz => "timestamptz '2024-03-02 11:00+00' + interval '1 hour'".to_owned(),
            Kind::Numeric => "1.25 * 2".to_owned(),
            Kind::Bool => "1 < 2".to_owned(),
            Kind::Uuid => self.value(kind),
        }
    }

    fn insert(&mut self, table: &'static Table) -> (String, bool) {
        let alias = self.chance(15);
        let target = match alias {
            true => format!("{} AS x", table.name),
            false if self.chance(10) => format!("public.{}", table.name),
            false => table.name.to_owned(),
        };
        let name = if alias { "x" } else { table.name };
        if self.chance(2) {
            return (format!("INSERT INTO {target} DEFAULT VALUES"), true);
        }
        let mut columns: Vec<usize> = (0..table.columns.len()).collect();
        let listed = self.chance(65);
        if listed {
            let keep = |at: &usize, chance: bool| match table.columns[*at].2 {
                Role::Key => true,
                Role::Plain => chance,
                Role::Made | Role::Number => false,
            };
            let mut kept = Vec::new();
            for at in columns {
                let chance = self.chance(80);
                if keep(&at, chance) || self.chance(5) {
                    kept.push(at);
                }
            }
            columns = kept;
            if columns.len() > 1 && self.chance(40) {
                let at = self.below(columns.len());
                columns.swap(0, at);
            }
        }
        let list = match listed && !columns.is_empty() {
            true => {
                let names = columns.iter().map(|at| table.columns[*at].0);
                format!(" ({})", names.collect::<Vec<_>>().join(", "))
            }
            false => {
                columns = (0..table.columns.len()).collect();
                String::new()
            }
        };
        let count = [1, 1, 2, 3, 4, 7][self.below(6)];
        let rows: Vec<String> = (0..count).map(|_| self.row(table, &columns)).collect();
        let overriding = match columns
            .iter()
            .any(|at| table.columns[*at].2 == Role::Number)
        {
            true if self.chance(20) => "OVERRIDING USER VALUE ",
            _ => "",
        };
        let mut sql = format!(
            "INSERT INTO {target}{list} {overriding}VALUES {}",
            rows.join(", ")
        );
        let mut ordered = true;
        if self.chance(30) {
            sql += &self.conflict(table, name);
            ordered = false;
        }
        sql += &self.returning(table, name);
        (sql, ordered)
    }

    fn row(&mut self, table: &Table, columns: &[usize]) -> String {
        let values: Vec<String> = columns
            .iter()
            .map(|at| {
                let (_, kind, role) = table.columns[*at];
                match (role, self.below(40)) {
                    (Role::Made | Role::Number, _) => "DEFAULT".to_owned(),
                    (Role::Key, 0) | (Role::Plain, 0 | 1) => "NULL".to_owned(),
                    (Role::Key, 1) | (Role::Plain, 2..6) => "DEFAULT".to_owned(),
                    (Role::Key, 2) | (Role::Plain, 6 | 7) => self.computed(kind),
                    _ => self.value(kind),
                }
            })
            .collect();
        format!("({})", values.join(", "))
    }

    fn conflict(&mut self, table: &Table, name: &str) -> String {
        if table.conflicts.is_empty() || self.chance(30) {
            return " ON CONFLICT DO NOTHING".to_owned();
        }
        let target = self.word(table.conflicts);
        if self.chance(30) {
            return format!(" ON CONFLICT {target} DO NOTHING");
        }
        let plain = table.plain();
        let Some((column, kind)) = plain.choose(&mut self.random).copied() else {
            return format!(" ON CONFLICT {target} DO NOTHING");
        };
        let value = match self.below(3) {
            0 => format!("excluded.{column}"),
            1 => self.value(kind),
            _ => format!("coalesce({name}.{column}, excluded.{column})"),
        };
        let condition = match self.below(5) {
            0 => format!(" WHERE {name}.{column} IS NOT NULL"),
            1 => format!(" WHERE {name}.{column} = excluded.{column}"),
            _ => String::new(),
        };
        format!(" ON CONFLICT {target} DO UPDATE SET {column} = {value}{condition}")
    }

    fn returning(&mut self, table: &Table, name: &str) -> String {
        if self.chance(50) {
            return String::new();
        }
        let compared = table.compared();
        let whole = compared.len() == table.columns.len();
        match self.below(4) {
            0 if whole => " RETURNING *".to_owned(),
            1 => format!(" RETURNING {name}.{}, 1 AS one", self.word(&compared)),
            2 => format!(
                " RETURNING coalesce({}::text, '') || '!'",
                self.word(&compared)
            ),
            _ => format!(" RETURNING {}", compared.join(", ")),
        }
    }

    fn update(&mut self, table: &'static Table) -> String {
        let name = table.name;
        if table.key().next().is_some() && self.chance(22) {
            return self.move_rows(table);
        }
        let plain = table.plain();
        let Some((column, kind)) = plain.choose(&mut self.random).copied() else {
            return self.move_rows(table);
        };
        let join = match self.chance(20) {
            true => table.joins.choose(&mut self.random).copied(),
            false => None,
        };
        let own = format!("{name}.{column}");
        let others = join.map(|(other, _)| Table::named(other).plain());
        let other = others.unwrap_or_default().into_iter();
        let other = other
            .filter(|(_, other)| *other == kind)
            .map(|(other, _)| other)
            .next();
        let value = match (self.below(7), join, other) {
            (0, ..) => own.clone(),
            (1, ..) if kind.is_integer() => format!("{own} % 100 + 1"),
            (1, ..) if kind == Kind::Text => format!("left({own}, 3) || 'x'"),
            (2, ..) => self.computed(kind),
            (3, ..) => "DEFAULT".to_owned(),
            (4 | 5, Some((table, _)), Some(other)) => format!("{table}.{other}"),
            _ => self.value(kind),
        };
        let mut sql = format!("UPDATE {name} SET {column} = {value}");
        if let Some((other, condition)) = join {
            sql += &format!(" FROM {other} WHERE {condition}");
        }
        sql += &self.chosen(table, join.is_some());
        if join.is_none() {
            sql += &self.returning(table, name);
        }
        sql
    }

    /// An UPDATE of the key whose new keys are none of those it looks at: what PostgreSQL makes of others
    /// depends on the order of its rows.
    fn move_rows(&mut self, table: &'static Table) -> String {
        let name = table.name;
        let keys: Vec<(&str, Kind)> = table.key().collect();
        let Some((column, kind)) = keys.choose(&mut self.random).copied() else {
            return self.delete(table);
        };
        let mut sql = match (kind, self.below(3)) {
            (Kind::Int4 | Kind::Int8, 0) => {
                format!(
                    "UPDATE {name} SET {column} = {column} + 1000 WHERE {column} BETWEEN -9 AND 99"
                )
            }
            (Kind::Int4 | Kind::Int8, 1) => {
                format!("UPDATE {name} SET {column} = {column} - 1000 WHERE {column} > 900")
            }
            (Kind::Text, 0) => {
                format!("UPDATE {name} SET {column} = upper({column}) WHERE {column} LIKE 'key%'")
            }
            (Kind::Text, 1) => {
                format!("UPDATE {name} SET {column} = lower({column}) WHERE {column} LIKE 'KEY%'")
            }
            (Kind::Date | Kind::Timestamp | Kind::Timestamptz, 0) => format!(
                "UPDATE {name} SET {column} = {column} + interval '12 days' WHERE {column} < '2024-03-10'"
            ),
            (Kind::Date | Kind::Timestamp | Kind::Timestamptz, 1) => format!(
                "UPDATE {name} SET {column} = {column} - interval '12 days' WHERE {column} > '2024-03-12'"
            ),
            (Kind::Numeric, 0) => {
                format!("UPDATE {name} SET {column} = {column} + 1000.0005 WHERE {column} < 100")
            }
            _ => {
                let (old, new) = (self.value(kind), self.value(kind));
                format!("UPDATE {name} SET {column} = {new} WHERE {column} = {old}")
            }
        };
        let plain = table.plain();
        if self.chance(30)
            && let Some((other, kind)) = plain.choose(&mut self.random).copied()
        {
            let value = self.value(kind);
            sql = sql.replacen(" WHERE", &format!(", {other} = {value} WHERE"), 1);
        }
        sql += &self.returning(table, name);
        sql
    }

    fn delete(&mut self, table: &'static Table) -> String {
        let name = table.name;
        let mut sql = format!("DELETE FROM {name}");
        let join = match self.chance(15) {
            true => table.joins.choose(&mut self.random).copied(),
            false => None,
        };
        if let Some((other, condition)) = join {
            sql += &format!(" USING {other} WHERE {condition}");
        }
        sql += &self.chosen(table, join.is_some());
        if join.is_none() {
            sql += &self.returning(table, name);
        }
        sql
    }

    /// What restricts the rows that change.
    fn chosen(&mut self, table: &'static Table, joined: bool) -> String {
        let name = table.name;
        let mut terms = Vec::new();
        let keys: Vec<(&str, Kind)> = table.key().collect();
        if self.chance(60) {
            for (column, kind) in keys {
                let value = self.value(kind);
                terms.push(match self.below(8) {
                    0 => format!("{name}.{column} IN ({value}, {})", self.value(kind)),
                    1 => format!("{name}.{column} > {value}"),
                    2 => format!("{name}.{column} BETWEEN {value} AND {}", self.value(kind)),
                    3 => format!(
                        "({name}.{column} = {value} OR {name}.{column} = {})",
                        self.value(kind)
                    ),
                    _ => format!("{name}.{column} = {value}"),
                });
            }
        }
        if self.chance(45)
            && let Some((column, kind)) = table.plain().choose(&mut self.random).copied()
        {
            let value = self.value(kind);
            terms.push(match self.below(8) {
                0 => format!("{name}.{column} IS NULL"),
                1 => format!("{name}.{column} IS DISTINCT FROM {value}"),
                2 if kind.is_integer() => format!("{name}.{column} IN (SELECT id FROM notes)"),
                2 if kind == Kind::Text => format!("{name}.{column} IN (SELECT word FROM words)"),
                3 if kind.is_integer() => {
                    format!("{name}.{column} = (SELECT min(score) FROM users)")
                }
                4 if kind.is_integer() => {
                    format!("EXISTS (SELECT 1 FROM products p WHERE p.id = {name}.{column})")
                }
                5 if kind.is_integer() => {
                    format!("NOT EXISTS (SELECT 1 FROM users u WHERE u.score = {name}.{column})")
                }
                _ => format!("{name}.{column} = {value}"),
            });
        }
        if terms.is_empty() {
            return String::new();
        }
        let before = if joined { " AND " } else { " WHERE " };
        format!("{before}{}", terms.join(" AND "))
    }

    fn truncate(&mut self) -> String {
        let tables = self.word(&[
            "items",
            "orders, items",
            "users, orders, items",
            "words",
            "codes, chars",
            "uuids",
            "visits",
            "zoned, stamps",
            "numbers",
            "flags",
            "loose",
            "serials",
            "idents",
            "autos",
            "regions",
            "readings",
            "parts",
            "sales",
            "products, sales",
            "tags",
            "labels",
            "settings",
            "notes",
        ]);
        format!("TRUNCATE {tables}")
    }

    /// A change within a query.
    fn around(&mut self, table: &'static Table) -> String {
        let mut sql = match self.below(3) {
            0 => self.insert(table).0,
            1 => self.update(table),
            _ => self.delete(table),
        };
        if !sql.contains("RETURNING") {
            sql += " RETURNING 1 AS one";
        }
        format!("WITH m AS ({sql}) SELECT count(*) FROM m")
    }

    /// A query, so that what a transaction sees of itself is compared.
    fn look(&mut self, table: &'static Table) -> String {
        let columns = table.compared().join(", ");
        let condition = match self.chance(50) {
            true => self.chosen(table, false),
            false => String::new(),
        };
        let name = table.name;
        format!("SELECT {columns} FROM {name}{condition}")
    }

    /// COPY FROM STDIN with its data.
    pub fn copy(&mut self) -> Statement {
        let table = loop {
            let table = self.table();
            if !matches!(table.place, Place::Home(_)) || self.chance(20) {
                break table;
            }
        };
        self.parameters.clear();
        self.extended = false;
        let listed: Vec<(&str, Kind)> = table
            .columns
            .iter()
            .filter(|(_, _, role)| matches!(role, Role::Key | Role::Plain))
            .map(|(name, kind, _)| (*name, *kind))
            .collect();
        let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
        let is_csv = self.chance(50);
        let mut data = String::new();
        for _ in 0..self.below(6) {
            let mut cells = Vec::new();
            for (_, kind) in &listed {
                let text = self.text(*kind);
                cells.push(match (self.chance(5), is_csv) {
                    (true, true) => String::new(),
                    (true, false) => "\\N".to_owned(),
                    (false, true) => format!("\"{}\"", text.replace('"', "\"\"")),
                    (false, false) => text.replace('\\', "\\\\"),
                });
            }
            data += &cells.join(if is_csv { "," } else { "\t" });
            data.push('\n');
        }
        let options = if is_csv { " (FORMAT csv)" } else { "" };
        let list = names.join(", ");
        Statement {
            data: Some(data.into_bytes()),
            ..Statement::simple(format!("COPY {} ({list}) FROM STDIN{options}", table.name))
        }
    }
}
