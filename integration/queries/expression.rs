//! Random expressions and conditions.

use super::generate::{Generator, Item};
use super::schema::Kind;

impl Generator {
    /// A column of this family: of the innermost query, or now and then of one around it.
    fn column(&mut self, kind: Kind, may_be_outer: bool) -> Option<String> {
        let levels = self.scopes.len();
        let level = match may_be_outer && levels > 1 && self.chance(25) {
            true => self.below(levels),
            false => levels.checked_sub(1)?,
        };
        let mut found = Vec::new();
        for item in &self.scopes[level] {
            for (name, other) in &item.columns {
                if *other == kind {
                    found.push(format!("{}.{name}", item.alias));
                }
            }
        }
        match found.is_empty() {
            true => None,
            false => Some(self.pick(&found)),
        }
    }

    /// Something of this family that columns have part in, if there are any.
    pub fn value(&mut self, kind: Kind, may_be_outer: bool) -> String {
        match self.column(kind, may_be_outer) {
            Some(column) if self.chance(65) => column,
            Some(column) => self.computed(kind, column, may_be_outer),
            None => self.converted(kind, may_be_outer),
        }
    }

    /// A value of a family of which there is no column.
    fn converted(&mut self, kind: Kind, may_be_outer: bool) -> String {
        let sources: &[(Kind, &str)] = match kind {
            Kind::Int => &[
                (Kind::Text, "length(@)"),
                (Kind::Date, "extract(day from @)::int"),
                (Kind::Words, "cardinality(@)"),
            ],
            Kind::Num => &[(Kind::Int, "@::numeric(12,2)")],
            Kind::Float => &[(Kind::Int, "(@ / 4.0)::float8")],
            Kind::Text => &[
                (Kind::Int, "@::text"),
                (Kind::German, "upper(@) COLLATE \"C\""),
            ],
            Kind::German => &[(Kind::Text, "(@ COLLATE \"de-x-icu\")")],
            Kind::Date => &[
                (Kind::Zoned, "(@ AT TIME ZONE 'UTC')::date"),
                (Kind::Stamp, "@::date"),
            ],
            Kind::Bool => &[(Kind::Int, "(@ > 3)"), (Kind::Text, "(@ = 'new')")],
            _ => &[],
        };
        for (from, form) in sources {
            if let Some(column) = self.column(*from, may_be_outer) {
                return form.replace('@', &column);
            }
        }
        let constant = self.constant(kind);
        format!("{constant}::{}", kind.name())
    }

    /// Something computed of a column.
    fn computed(&mut self, kind: Kind, column: String, may_be_outer: bool) -> String {
        let form = match kind {
            Kind::Int => self.pick(&[
                "(@ + #)",
                "(@ % 4)",
                "coalesce(@, #)",
                "abs(@ - #)",
                "greatest(@, #)",
                "CASE WHEN @ > 5 THEN 1 WHEN @ IS NULL THEN 2 ELSE 3 END",
                "nullif(@, #)",
                "(@ * 2)",
            ]),
            Kind::Num => self.pick(&[
                "(@ + #::numeric(12,2))",
                "round(@ * 3, 2)",
                "coalesce(@, 0.00)",
                "least(@, #::numeric(12,2))",
                "round(@ / 7, 2)",
            ]),
            Kind::Float => self.pick(&["(@ + 0.5::float8)", "(@ * 2)", "coalesce(@, 0.25)"]),
            Kind::Text => self.pick(&[
                "upper(@)",
                "(@ || 'x')",
                "coalesce(@, #)",
                "left(@, 2)",
                "CASE WHEN @ LIKE '%n%' THEN @ ELSE 'none' END",
                "replace(@, 'n', 'é')",
                "concat(@, '-', #)",
                "lpad(@, 5, '*')",
            ]),
            Kind::German => self.pick(&["lower(@)", "coalesce(@, #)", "(@ || 'ß')"]),
            Kind::Date => self.pick(&["(@ + 1)", "coalesce(@, #)", "date_trunc('month', @)::date"]),
            Kind::Stamp => self.pick(&["date_trunc('day', @)", "(@ + interval '2 hours')"]),
            Kind::Zoned => self.pick(&["(@ - interval '3 hours')", "coalesce(@, #)"]),
            Kind::Bool => self.pick(&["(NOT @)", "(@ IS TRUE)", "coalesce(@, false)"]),
            Kind::Json => self.pick(&["(@ -> 'n')", "jsonb_build_array(@ ->> 's')"]),
            Kind::Words => self.pick(&["(@ || 'z'::text)", "array_remove(@, 'a')"]),
            Kind::Uuid | Kind::Bytes | Kind::Span | Kind::Mood => "coalesce(@, #)",
        };
        let mut text = form.replace('@', &column);
        if text.contains('#') {
            text = text.replace('#', &self.constant(kind));
        }
        match kind == Kind::Int && self.chance(20) {
            true => format!("({text} + {})", self.value(Kind::Int, may_be_outer)),
            false => text,
        }
    }

    /// A value, or a scalar subquery for one.
    pub fn scalar(&mut self, kind: Kind) -> String {
        if self.depth < 2 && self.chance(8) {
            return self.subquery(kind);
        }
        self.value(kind, true)
    }

    /// A scalar subquery.
    fn subquery(&mut self, kind: Kind) -> String {
        let query = self.inner(Some(&[kind]));
        let name = &query.columns[0].0;
        let call = match kind {
            Kind::Bool => format!("bool_or({name})"),
            Kind::Uuid | Kind::Bytes | Kind::Json => {
                return format!(
                    "(SELECT s.{name} FROM ({}) s ORDER BY 1 LIMIT 1)",
                    query.sql
                );
            }
            _ => format!("{}({name})", self.pick(&["max", "min"])),
        };
        format!("(SELECT {call} FROM ({}) s)", query.sql)
    }

    /// Any condition.
    pub fn condition(&mut self, depth: usize) -> String {
        if depth > 0 {
            match self.below(12) {
                0 => {
                    let (one, other) = (self.condition(depth - 1), self.condition(depth - 1));
                    return format!("({one} OR {other})");
                }
                1 => return format!("NOT ({})", self.condition(depth - 1)),
                2 => {
                    let (one, other) = (self.condition(depth - 1), self.condition(depth - 1));
                    return format!("({one} AND {other})");
                }
                3..=5 if self.depth < 3 => return self.subquery_condition(),
                _ => {}
            }
        }
        let kind = self.kind();
        let value = self.value(kind, true);
        let roll = self.below(14);
        let constant = match roll {
            0 | 1 | 7 | 9 => String::new(),
            6 if matches!(kind, Kind::Text | Kind::German) => String::new(),
            _ => self.constant(kind),
        };
        match roll {
            0 => format!("{value} IS NULL"),
            1 => format!("{value} IS NOT NULL"),
            2 => format!("{value} IS DISTINCT FROM {constant}"),
            3 => format!("{value} IN ({constant}, {})", self.constant(kind)),
            4 => format!("{value} NOT IN ({constant}, {})", self.constant(kind)),
            5 if kind != Kind::Json => {
                format!("{value} BETWEEN {constant} AND {}", self.constant(kind))
            }
            6 if matches!(kind, Kind::Text | Kind::German) => {
                format!(
                    "{value} {} '%n%'",
                    self.pick(&["LIKE", "ILIKE", "NOT LIKE"])
                )
            }
            7 => format!("{value} = {}", self.value(kind, true)),
            8 => format!("{value} = ANY (ARRAY[{constant}, {}])", self.constant(kind)),
            9 => self
                .pick(&[
                    "random() < 2",
                    "now() > '2026-01-01'",
                    "current_date IS NOT NULL",
                    "true",
                ])
                .to_owned(),
            10 | 11 => {
                let operator = self.pick(&["<", ">", "<=", ">=", "<>"]);
                format!("{value} {operator} {constant}")
            }
            _ => format!("{value} = {constant}"),
        }
    }

    /// Now and then a condition that ties a subquery by the shard key to the query around it.
    pub fn tie(&mut self) -> Option<String> {
        let (inner, around) = self.scopes.split_last()?;
        let tie = format!("{} = {}", key_of(inner)?, key_of(around.last()?)?);
        (self.local && self.chance(60)).then_some(tie)
    }

    /// The shard key is among those of a table.
    fn among(&mut self) -> Option<String> {
        let key = key_of(self.scopes.last()?)?;
        let (table, columns) = self.pick(&[
            (
                "users",
                vec![
                    ("user_id".to_owned(), Kind::Int),
                    ("age".to_owned(), Kind::Int),
                ],
            ),
            (
                "orders",
                vec![
                    ("user_id".to_owned(), Kind::Int),
                    ("total".to_owned(), Kind::Num),
                ],
            ),
        ]);
        let alias = format!("k{}", self.depth);
        self.depth += 1;
        self.scopes.push(vec![Item {
            alias: alias.clone(),
            columns,
            id: Vec::new(),
        }]);
        let condition = self.condition(1);
        self.scopes.pop();
        self.depth -= 1;
        let word = self.pick(&["IN", "IN", "= ANY", "NOT IN"]);
        Some(format!(
            "{key} {word} (SELECT {alias}.user_id FROM {table} {alias} WHERE {condition})"
        ))
    }

    /// `EXISTS`, `IN` and their like.
    fn subquery_condition(&mut self) -> String {
        if self.local
            && self.chance(40)
            && let Some(condition) = self.among()
        {
            return condition;
        }
        let kind = self.kind();
        let not = self.pick(&["", "", "NOT "]);
        match self.below(7) {
            0 | 1 => format!("{not}EXISTS ({})", self.inner(None).sql),
            2 | 3 => {
                let value = self.value(kind, true);
                format!("{value} {not}IN ({})", self.inner(Some(&[kind])).sql)
            }
            4 => {
                let operator = self.pick(&["= ANY", "<> ALL", "> ALL", "< ANY", "<= SOME"]);
                let value = self.value(kind, true);
                format!("{value} {operator} ({})", self.inner(Some(&[kind])).sql)
            }
            5 => {
                let values = [self.value(Kind::Int, true), self.value(kind, true)];
                let query = self.inner(Some(&[Kind::Int, kind]));
                format!("({}, {}) {not}IN ({})", values[0], values[1], query.sql)
            }
            _ => {
                let operator = self.pick(&["=", "<", ">=", "IS DISTINCT FROM"]);
                let value = self.value(kind, true);
                format!("{value} {operator} {}", self.subquery(kind))
            }
        }
    }
}

/// What tells the rows of all items apart, as far as that can be seen.
pub fn row_id(items: &[Item]) -> String {
    let columns = items
        .iter()
        .flat_map(|item| item.id.iter().map(|name| format!("{}.{name}", item.alias)));
    columns.collect::<Vec<_>>().join(", ")
}

/// A column that is the shard key of a table, or may be that.
pub fn key_of(items: &[Item]) -> Option<String> {
    let has_key = |item: &&Item| item.columns.iter().any(|(name, _)| name == "user_id");
    let item = items.iter().find(has_key)?;
    Some(format!("{}.user_id", item.alias))
}
