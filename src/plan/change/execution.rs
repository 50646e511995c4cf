//! One execution of a change: the texts that shards are sent.
//!
//! The client's parameters keep their numbers in every text; what the proxy adds stands behind them, in
//! text format.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::change::Change;
use crate::plan::change::Fragment;
use crate::plan::change::Place;
use crate::plan::collation;
use crate::plan::keyed;
use crate::plan::moment::Moment;
use crate::plan::own::tokens_of;
use crate::plan::refusal;
use crate::sharding::ShardSet;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

/// `pg_type.oid` of `character`.
const BPCHAR: u32 = 1042;

/// The texts of one execution.
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    pub(super) change: &'a Change,
    text: &'a str,
    lex: LexOptions,
    tokens: Vec<Token>,
    /// How many parameters the client's text has.
    pub(super) count: usize,
    /// The shards that are written.
    pub shards: ShardSet,
    /// The rows that travel first, in their order.
    pub shipments: Vec<Shipment>,
}

/// Rows that travel to the shards that are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// The relation, for people.
    pub of: String,
    /// The query that gives them on each shard, as one value: an array of rows, or NULL.
    pub query: Written,
    /// The shards that have them.
    pub shards: ShardSet,
}

/// A text for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The text, with the client's parameters under their own numbers.
    pub text: String,
    /// The parameters behind the client's.
    pub extras: Vec<Extra>,
}

/// A parameter that the proxy adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The time at which the transaction began; if true, the statement.
    Moment(bool),
    /// The rows of a shipment.
    Rows(usize),
    /// A column of a subquery, an array; its number of rows if the column is 0.
    Value(usize, usize),
}

/// A column of a subquery that was evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as SQL.
    pub type_name: String,
    /// Its collation, as SQL; none if its values have none.
    pub collation: Option<String>,
}

impl Change {
    /// The texts of one execution.
    ///
    /// # Errors
    /// `0A000` for a constant that is another moment on each shard; `XX000` for a text that is not of the
    /// planned shape.
    pub fn steps<'a>(
        &'a self,
        arguments: &Arguments<'a>,
        lex: LexOptions,
        count: usize,
    ) -> Result<Steps<'a>> {
        if keyed::names_moment(arguments) {
            return Err(refusal::relative_time());
        }
        let mut steps = Steps {
            change: self,
            text: arguments.text,
            lex,
            tokens: tokens_of(arguments.text, lex)?,
            count,
            shards: self.shards(arguments),
            shipments: Vec::new(),
        };
        for fragment in &self.fragments {
            let proven = fragment.proof.as_ref();
            let proven = proven.and_then(|proof| proof.shards(arguments));
            let shipment = Shipment {
                of: fragment.relation.clone(),
                query: steps.shipment(fragment)?,
                shards: proven.unwrap_or_else(|| fragment.shards.clone()),
            };
            steps.shipments.push(shipment);
        }
        Ok(steps)
    }

    /// The shards that may have rows to be changed; at least one.
    fn shards(&self, arguments: &Arguments<'_>) -> ShardSet {
        let all = self.all_shards();
        let proof = self.proof.as_ref();
        match proof.and_then(|proof| proof.shards(arguments)) {
            Some(none) if none.is_empty() => all.iter().take(1).collect(),
            Some(some) => some,
            None => all,
        }
    }

    /// How many subqueries are evaluated once.
    pub fn evaluated(&self) -> usize {
        self.evaluated.len()
    }

    /// Whether the transaction's time must be known, and the statement's.
    pub fn needs_moments(&self) -> (bool, bool) {
        let needs = |of_statement| {
            let mut moments = self.moments.iter();
            moments.any(|moment| moment.of_statement == of_statement)
        };
        (needs(false), needs(true))
    }

    /// Whether the target is on a shard of its own.
    pub fn is_home(&self) -> bool {
        matches!(self.place, Place::Home(_))
    }
}

impl Steps<'_> {
    /// The subquery `index` as it is evaluated on one shard.
    ///
    /// # Errors
    /// `XX000` as for [`Change::steps`].
    pub fn subquery(&self, index: usize) -> Result<Written> {
        let range = self.change.evaluated.get(index).ok_or_else(other_shape)?;
        self.written(range, &[])
    }

    /// The query that gives a subquery's rows as one row: their number, then for each column an array of texts, the
    /// type and the collation. `types` are the OIDs and modifiers of its columns, which say nothing of domains.
    pub fn evaluation(subquery: Written, types: &[(u32, i32)]) -> Written {
        let mut text = "SELECT pg_catalog.count(s.m)::pg_catalog.text".to_owned();
        let mut columns = vec!["m".to_owned()];
        for (number, (oid, typmod)) in (1..).zip(types) {
            let column = format!("s.c{number}");
            // A cast takes the blanks at the end.
            let value = match *oid {
                BPCHAR => format!("pg_catalog.bpcharout({column})::pg_catalog.text"),
                _ => format!("{column}::pg_catalog.text"),
            };
            text.push_str(&format!(
                ", pg_catalog.array_agg({value}) FILTER (WHERE s.m)::pg_catalog.text, \
                 pg_catalog.max(pg_catalog.format_type(pg_catalog.pg_typeof({column}), \
                 CASE WHEN pg_catalog.pg_typeof({column}) = {oid}::pg_catalog.oid THEN {typmod} ELSE -1 END)), \
                 pg_catalog.max({})",
                collation::of(&column)
            ));
            columns.push(format!("c{number}"));
        }
        // There is a row to look at, whether the subquery has one or not.
        text.push_str(&format!(
            " FROM (VALUES (1)) AS one LEFT JOIN (SELECT true, q.* FROM ({}\n) AS q) AS s({}) ON true",
            subquery.text,
            columns.join(", ")
        ));
        Written { text, ..subquery }
    }

    /// The statement for each shard that is written, once the columns of its subqueries are known.
    ///
    /// # Errors
    /// `XX000` as for [`Change::steps`].
    pub fn statement(&self, values: &[Vec<Column>]) -> Result<Written> {
        self.written(&(0..self.tokens.len()), values)
    }

    fn written(&self, range: &Range<usize>, values: &[Vec<Column>]) -> Result<Written> {
        let mut extras = Vec::new();
        let text = self.part(range, values, &mut extras)?;
        Ok(Written { text, extras })
    }

    fn shipment(&self, fragment: &Fragment) -> Result<Written> {
        let alias = quote_identifier(&fragment.alias);
        let columns = fragment
            .columns
            .iter()
            .map(|(name, is_used)| match is_used {
                true => format!("{alias}.{}", quote_identifier(name)),
                false => "NULL".to_owned(),
            });
        let columns: Vec<String> = columns.collect();
        let row_type = fragment.row_type();
        let only = if fragment.only { "ONLY " } else { "" };
        let mut query = Written {
            text: format!(
                "SELECT pg_catalog.array_agg(ROW({})::{row_type})::pg_catalog.text FROM {only}{row_type} \
                 AS {alias}",
                columns.join(", ")
            ),
            extras: Vec::new(),
        };
        for (number, term) in fragment.terms.iter().enumerate() {
            query
                .text
                .push_str(if number == 0 { " WHERE (" } else { " AND (" });
            query.text.push_str(slice(self.text, self.bytes(term)?));
            query.text.push(')');
        }
        Ok(query)
    }

    /// Some tokens of the text, with what the proxy puts in the place of others. Subqueries are replaced if
    /// their columns are known.
    pub(super) fn part(
        &self,
        range: &Range<usize>,
        values: &[Vec<Column>],
        extras: &mut Vec<Extra>,
    ) -> Result<String> {
        if range.is_empty() {
            return Ok(String::new());
        }
        let mut edits = Vec::new();
        let is_within =
            |tokens: &Range<usize>| range.start <= tokens.start && tokens.end <= range.end;
        let replaced: Vec<&Range<usize>> = match values.is_empty() {
            true => Vec::new(),
            false => self.change.evaluated.iter().collect(),
        };
        let is_replaced = |tokens: &Range<usize>| {
            let mut all = replaced.iter();
            all.any(|range| range.start <= tokens.start && tokens.end <= range.end)
        };
        let mut add = |tokens: &Range<usize>, text: String| -> Result<()> {
            let range = self.bytes(tokens)?;
            edits.push(Edit { range, text });
            Ok(())
        };
        for (index, tokens) in self.change.evaluated.iter().enumerate() {
            if let Some(columns) = values.get(index).filter(|_| is_within(tokens)) {
                let text = self.values(index, columns, extras);
                add(tokens, text)?;
            }
        }
        let stays = |tokens: &Range<usize>| is_within(tokens) && !is_replaced(tokens);
        for (index, fragment) in self.change.fragments.iter().enumerate() {
            if stays(&fragment.tokens) {
                let number = self.number(Extra::Rows(index), extras);
                let alias = match fragment.is_aliased {
                    true => String::new(),
                    false => format!(" AS {}", quote_identifier(&fragment.alias)),
                };
                let row_type = fragment.row_type();
                let text = format!(" pg_catalog.unnest(${number}::{row_type}[]){alias} ");
                add(&fragment.tokens, text)?;
            }
        }
        for moment in self.change.moments.iter().filter(|one| stays(&one.tokens)) {
            let number = self.number(Extra::Moment(moment.of_statement), extras);
            add(&moment.tokens, self.moment(moment, number)?)?;
        }
        for schema in self.change.schemas.iter().filter(|one| stays(one)) {
            add(schema, String::new())?;
        }
        let bytes = self.bytes(range)?;
        for edit in &mut edits {
            edit.range = edit.range.start - bytes.start..edit.range.end - bytes.start;
        }
        splice(slice(self.text, bytes), self.lex, &edits)
    }

    /// The rows of a subquery that was evaluated.
    fn values(&self, index: usize, columns: &[Column], extras: &mut Vec<Extra>) -> String {
        if columns.is_empty() {
            let number = self.number(Extra::Value(index, 0), extras);
            return format!(
                " SELECT FROM pg_catalog.generate_series(1, ${number}::pg_catalog.int8) "
            );
        }
        let (mut list, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (column, at) in columns.iter().zip(1..) {
            let number = self.number(Extra::Value(index, at), extras);
            let name = quote_identifier(&column.name);
            // Outside the subquery it is an implicit one, as it was.
            let collation = collation::clause(column.collation.as_deref());
            let type_name = &column.type_name;
            list.push(format!("s.c{at}::{type_name}{collation} AS {name}"));
            arrays.push(format!("pg_catalog.unnest(${number}::pg_catalog.text[])"));
            names.push(format!("c{at}"));
        }
        format!(
            " SELECT {} FROM ROWS FROM ({}) AS s({}) ",
            list.join(", "),
            arrays.join(", "),
            names.join(", ")
        )
    }

    /// A moment in the place of its call.
    fn moment(&self, moment: &Moment, number: usize) -> Result<String> {
        let precision = match moment.precision {
            Some(at) => slice(self.text, self.bytes(&(at..at + 1))?),
            None => "",
        };
        Ok(moment.written(precision, number))
    }

    /// The number of a parameter that is added.
    fn number(&self, extra: Extra, extras: &mut Vec<Extra>) -> usize {
        let known = extras.iter().position(|known| *known == extra);
        let at = known.unwrap_or_else(|| {
            extras.push(extra);
            extras.len() - 1
        });
        self.count + at + 1
    }

    /// The bytes of some tokens.
    fn bytes(&self, range: &Range<usize>) -> Result<Range<u32>> {
        let tokens = self.tokens.get(range.clone()).unwrap_or_default();
        let first = tokens.first().ok_or_else(other_shape)?;
        Ok(first.start..tokens.last().map_or(first.end, |token| token.end))
    }
}

impl Fragment {
    /// The type of its rows, which is also its name.
    fn row_type(&self) -> String {
        format!(
            "{}.{}",
            quote_identifier(&self.schema),
            quote_identifier(&self.relation)
        )
    }
}

pub(super) fn other_shape() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the statement is not of the shape that was planned",
    )
}
