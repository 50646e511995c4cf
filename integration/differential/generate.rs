//! Random statements: names, constants and conditions.
//!
//! Two random sources: one for the shape of a statement, one for the values in it. So the same shape
//! comes with several values, as a plan cache sees it.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::schema::Kind;
use super::value::{Parameter, parameter, spell};

/// Names and types of columns.
pub type Columns = Vec<(String, Kind)>;

/// Something that columns can be taken from.
#[derive(Clone)]
pub struct Item {
    pub alias: String,
    pub columns: Columns,
    /// How many of its columns, from the first, make a shard key.
    pub key: usize,
}

/// Writes one statement.
pub struct Generator {
    pub shape: StdRng,
    value: StdRng,
    pub parameters: Vec<Parameter>,
    kinds: Vec<Kind>,
    with_parameters: bool,
    /// The value that most keys of the statement have.
    focus: i32,
    /// The sources of the queries around, innermost last.
    pub outer: Vec<Vec<Item>>,
    pub ctes: Vec<(String, Columns)>,
    pub depth: usize,
}

impl Generator {
    pub fn new(shape: u64, value: u64) -> Generator {
        let mut value = StdRng::seed_from_u64(value);
        let mut shape = StdRng::seed_from_u64(shape);
        Generator {
            with_parameters: shape.random_bool(0.35),
            focus: value.random_range(1..15),
            shape,
            value,
            parameters: Vec::new(),
            kinds: Vec::new(),
            outer: Vec::new(),
            ctes: Vec::new(),
            depth: 0,
        }
    }

    /// True this often, in percent.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.shape.random_ratio(percent, 100)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.shape.random_range(0..end)
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        of.choose(&mut self.shape).unwrap()
    }

    /// One of the texts.
    pub fn word(&mut self, of: &[&'static str]) -> &'static str {
        of.choose(&mut self.shape).unwrap()
    }

    /// The text of a value of the type: mostly the statement's favourite.
    fn text(&mut self, kind: Kind) -> String {
        let index = if self.value.random_ratio(8, 10) {
            self.focus
        } else {
            self.value.random_range(-1..19)
        };
        kind.text(index)
    }

    /// A constant or parameter of the type, or of one near it.
    pub fn constant(&mut self, kind: Kind) -> String {
        let text = self.text(kind);
        if !self.with_parameters || self.chance(40) {
            return spell(kind, &text, &mut self.shape);
        }
        let known: Vec<usize> = (0..self.kinds.len())
            .filter(|index| self.kinds[*index].comparable(kind))
            .collect();
        if !known.is_empty() && self.chance(20) {
            return format!("${}", self.pick(&known) + 1);
        }
        let parameter = parameter(kind, &text, &mut self.shape);
        self.parameters.push(parameter);
        self.kinds.push(kind);
        let number = self.parameters.len();
        match self.below(12) {
            0 => format!("${number}::{}", kind.name()),
            1 if kind.is_number() => {
                let cast = self.word(&["int8", "int4", "numeric", "int2"]);
                format!("${number}::{cast}")
            }
            1 if kind.is_text() => {
                let cast = self.word(&["text", "varchar", "bpchar"]);
                format!("${number}::{cast}")
            }
            _ => format!("${number}"),
        }
    }

    /// A plain constant of the type.
    pub fn plain(&mut self, kind: Kind) -> String {
        let text = self.text(kind).replace('\'', "''");
        if kind.is_number() || kind == Kind::Bool {
            text
        } else {
            format!("'{text}'")
        }
    }

    /// A name for a source, other than those of `scope`.
    pub fn alias(&mut self, scope: &[Item]) -> String {
        let names = [
            "a", "b", "c", "d", "e", "u", "o", "users", "orders", "products", "plain", "\"T x\"",
            "k", "notes",
        ];
        loop {
            let name = self.word(&names);
            if scope.iter().all(|item| item.alias != name) {
                return name.to_owned();
            }
        }
    }

    /// A column of an item as statements name it.
    pub fn column(&mut self, item: &Item, index: usize) -> String {
        let name = &item.columns[index].0;
        if self.chance(8) {
            name.clone()
        } else {
            format!("{}.{name}", item.alias)
        }
    }

    /// Any column of the scope: its name and type.
    pub fn any_column(&mut self, scope: &[Item]) -> Option<(String, Kind)> {
        let item = scope.choose(&mut self.shape)?.clone();
        if item.columns.is_empty() {
            return None;
        }
        let index = self.below(item.columns.len());
        Some((self.column(&item, index), item.columns[index].1))
    }

    /// Some column of the scope that compares with a type.
    fn like(&mut self, scope: &[Item], kind: Kind) -> Option<String> {
        let mut found = Vec::new();
        for item in scope {
            for (index, (_, other)) in item.columns.iter().enumerate() {
                if other.comparable(kind) {
                    found.push((item.clone(), index));
                    if index < item.key {
                        found.push((item.clone(), index));
                        found.push((item.clone(), index));
                    }
                }
            }
        }
        let (item, index) = found.choose(&mut self.shape)?.clone();
        Some(self.column(&item, index))
    }

    /// A condition that says, or seems to say, what the shard key is.
    pub fn key_condition(&mut self, item: &Item) -> String {
        if item.key == 2 && self.chance(30) {
            let left = format!("({}, {})", self.column(item, 0), self.column(item, 1));
            let values = format!(
                "({}, {})",
                self.constant(item.columns[0].1),
                self.constant(item.columns[1].1)
            );
            return match self.below(4) {
                0 => format!("{left} IN ({values})"),
                1 => format!("ROW{left} = ROW{values}"),
                2 => format!("{values} = {left}"),
                _ => format!("{left} = {values}"),
            };
        }
        let mut parts = Vec::new();
        for index in 0..item.key.max(1).min(item.columns.len()) {
            let column = self.column(item, index);
            let kind = item.columns[index].1;
            parts.push(self.equality(&column, kind));
        }
        parts.join(" AND ")
    }

    /// Something like `column = constant`.
    pub fn equality(&mut self, column: &str, kind: Kind) -> String {
        let first = self.constant(kind);
        if self.chance(55) {
            return format!("{column} = {first}");
        }
        let second = self.constant(kind);
        match self.below(31) {
            0 => format!("{first} = {column}"),
            1 => format!("{column} IN ({first}, {second})"),
            2 => format!("{column} IN ({first})"),
            3 => format!("{column} = ANY (ARRAY[{first}, {second}])"),
            4 => format!("({column}) = ({first})"),
            5 => format!("({column}, 1) = ({first}, 1)"),
            6 => format!("ROW({column}, {second}) = ROW({first}, {second})"),
            7 => format!("{column} BETWEEN {first} AND {first}"),
            8 => format!("{column} IS NOT DISTINCT FROM {first}"),
            9 => format!("NOT ({column} <> {first})"),
            10 => format!("NOT {column} = {first}"),
            11 => format!("({column} = {first}) IS TRUE"),
            12 => format!("({column} = {first} OR {column} = {second})"),
            13 => format!("{column} >= {first} AND {column} <= {first}"),
            14 => format!("{column}::text = {first}::text"),
            15 => format!("coalesce({column}, {second}) = {first}"),
            16 => format!("{column} = (SELECT {first})"),
            17 => format!("{column} IN (SELECT {first})"),
            18 => format!("{column} = {first} AND {column} = {second}"),
            19 => format!("{column} <> {first}"),
            20 => format!("{first} IN ({column}, {second})"),
            21 => format!("{column} IS NULL"),
            22 => format!("{column} = {first} IS NOT FALSE"),
            23 => format!("{column} = SOME (ARRAY[{first}])"),
            24 => format!("{column} NOT IN ({first}, {second})"),
            25 => format!("{column} = ANY (VALUES ({first}), ({second}))"),
            26 => format!("({column} = {first}) = ({column} = {second})"),
            27 => format!("CASE WHEN {column} = {first} THEN true ELSE {column} = {second} END"),
            28 => format!("({column} = {first} AND true)"),
            29 => format!("{column} = {first} OPERATOR(pg_catalog.||) {second}"),
            _ => format!("{column} = ALL (ARRAY[{first}])"),
        }
    }

    /// A condition that ties an item to something else in scope, or out of it.
    pub fn link(&mut self, item: &Item, scope: &[Item]) -> Option<String> {
        let mut parts = Vec::new();
        for index in 0..item.key.max(1).min(item.columns.len()) {
            let kind = item.columns[index].1;
            let other = if self.chance(30) && !self.outer.is_empty() {
                let level = self.below(self.outer.len());
                let outer = self.outer[level].clone();
                self.like(&outer, kind)
            } else {
                self.like(scope, kind)
            };
            let column = self.column(item, index);
            let other = other?;
            parts.push(match self.below(20) {
                0 => format!("{column} = {other} + 0"),
                1 => format!("{column} IS NOT DISTINCT FROM {other}"),
                2 => format!("{column} <> {other}"),
                3 => format!("({column}, 1) = ({other}, 1)"),
                4 => format!("{column} IN ({other})"),
                5 => format!("{column} <= {other}"),
                _ => format!("{column} = {other}"),
            });
        }
        Some(parts.join(" AND "))
    }

    /// Any condition on the scope.
    pub fn condition(&mut self, scope: &[Item]) -> String {
        let Some((column, kind)) = self.any_column(scope) else {
            return "true".to_owned();
        };
        let item = self.pick(scope).clone();
        match self.below(16) {
            0..4 => self.key_condition(&item),
            4 => self.link(&item, scope).unwrap_or_else(|| "true".to_owned()),
            5 => {
                let operator = self.word(&["<", ">", "<=", ">=", "<>", "!="]);
                format!("{column} {operator} {}", self.constant(kind))
            }
            6 => format!("{column} IS {}NULL", self.word(&["", "NOT "])),
            7 if kind.is_text() => {
                format!("{column} LIKE {}", self.word(&["'key%'", "'%1'", "'_'"]))
            }
            8 => {
                let left = self.condition(scope);
                format!("NOT ({left})")
            }
            9 => {
                let (left, right) = (self.condition(scope), self.condition(scope));
                format!("({left} OR {right})")
            }
            10 | 11 if self.depth < 2 => self.subquery_condition(&column, kind),
            12 => self.soup(scope),
            13 => self
                .word(&["true", "1 = 1", "NULL IS NULL", "NOT false"])
                .to_owned(),
            _ => self.equality(&column, kind),
        }
    }

    /// `IN`, `EXISTS` and their like.
    fn subquery_condition(&mut self, column: &str, kind: Kind) -> String {
        let not = self.word(&["", "", "NOT "]);
        match self.below(4) {
            0 => {
                let query = self.subquery(None);
                format!("{not}EXISTS ({})", query.sql)
            }
            1 => {
                let query = self.subquery(Some(kind));
                let (count, _) = &query.columns[0];
                format!("{column} = (SELECT max({count}) FROM ({}) s)", query.sql)
            }
            _ => {
                let query = self.subquery(Some(kind));
                format!("{column} {not}IN ({})", query.sql)
            }
        }
    }

    /// Conditions joined by operators of all precedences, without the parentheses that would make
    /// them plain.
    pub fn soup(&mut self, scope: &[Item]) -> String {
        let mut out = String::new();
        let atoms = 2 + self.below(4);
        for index in 0..atoms {
            if index > 0 {
                out += self.word(&[
                    " AND ",
                    " AND ",
                    " AND ",
                    " OR ",
                    " OR ",
                    " IS DISTINCT FROM ",
                    " IS NOT DISTINCT FROM ",
                    " AND NOT ",
                    " OR NOT ",
                    " = ",
                    " <> ",
                    " AND true AND ",
                    " AND false OR ",
                    " BETWEEN false AND ",
                    " IN (true, false) AND ",
                    " IS TRUE OR ",
                    " IS NOT NULL AND ",
                    " COLLATE \"C\" OR ",
                    "::text LIKE 't%' OR ",
                    "::text ~ 't' AND ",
                    "::text || 'x' = 'truex' OR ",
                    " IS UNKNOWN OR ",
                    "::int = 1 OR ",
                    "::int + 1 = 2 AND ",
                    " NOT IN (true) OR ",
                    " ISNULL OR ",
                    " NOTNULL AND ",
                    "::int | 1 = 1 AND ",
                    "::int # 1 = 1 OR ",
                    "::int << 1 = 2 OR ",
                    "::text SIMILAR TO 't%' AND ",
                    " NOT BETWEEN false AND true OR ",
                    "::text NOT LIKE 't%' AND ",
                    " IS NOT TRUE AND ",
                    "::text IS NORMALIZED OR ",
                ]);
            }
            out += &match self.below(6) {
                0 => self.word(&["true", "false", "NULL::bool"]).to_owned(),
                1 => {
                    let item = self.pick(scope).clone();
                    format!("({})", self.key_condition(&item))
                }
                _ => {
                    let item = self.pick(scope).clone();
                    let column = self.column(&item, 0);
                    let value = self.constant(item.columns[0].1);
                    format!("{column} = {value}")
                }
            };
        }
        out
    }

    /// `WHERE` over a scope: mostly something that restricts each shard key.
    pub fn restriction(&mut self, scope: &[Item]) -> Option<String> {
        let mut parts = Vec::new();
        for (index, item) in scope.iter().enumerate() {
            let roll = self.below(10);
            if item.key > 0 && roll < 5 {
                parts.push(self.key_condition(item));
            } else if roll < 8 {
                let others: Vec<Item> = scope
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .map(|(_, item)| item.clone())
                    .collect();
                parts.extend(self.link(item, &others));
            }
        }
        for _ in 0..self.below(3) {
            parts.push(self.condition(scope));
        }
        if parts.is_empty() {
            return None;
        }
        let count = parts.len();
        for _ in 0..self.below(2) {
            let at = self.below(count);
            parts.swap(0, at);
        }
        let joiner = if self.chance(4) { " OR " } else { " AND " };
        Some(parts.join(joiner))
    }
}

impl Kind {
    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int2 => "int2",
            Kind::Int4 => "int4",
            Kind::Int8 => "int8",
            Kind::Numeric => "numeric",
            Kind::Text => "text",
            Kind::Varchar => "varchar",
            Kind::Bpchar => "bpchar",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::Timestamptz => "timestamptz",
            Kind::Bool => "bool",
            Kind::Uuid => "uuid",
        }
    }
}
