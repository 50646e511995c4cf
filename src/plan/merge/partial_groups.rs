//! Groups that each shard makes for a hub: see [`super::partial`].

use std::ops::Range;

use crate::error::Result;
use crate::plan::bind::ColumnId;
use crate::plan::effects::Effects;
use crate::plan::own;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::outline::Distinct;
use crate::sql::analysis::outline::Form;
use crate::sql::literal::quote_identifier;

use super::Builder;
use super::aggregate::Aggregate;
use super::edit::Piece;
use super::partial::Part;
use super::partial::Partial;
use super::partial::TABLE;
use super::partial::column_name;
use super::partial::unclear;

/// A key of `GROUP BY`.
struct Key {
    tokens: Range<usize>,
    column: Option<ColumnId>,
    is_atom: bool,
}

/// The hub's query on its way.
struct Groups<'a, 'b> {
    builder: &'a Builder<'b>,
    keys: Vec<Key>,
    /// What is counted without repetitions.
    distinct: Vec<Range<usize>>,
    /// Partial results, each a column of the shards' query.
    results: Vec<Vec<Part>>,
    alike: Vec<(Range<usize>, Range<usize>)>,
    /// The tokens that by themselves are keys of `ORDER BY` or `DISTINCT ON` and name or number columns of the
    /// answer.
    labels: Vec<usize>,
}

/// What stands on the hub in the place of a call, until the numbers of columns are known.
enum Made {
    Part(Part),
    Distinct(usize),
    Result(&'static str, usize),
    Count(usize),
    Sum(usize),
    Average(usize, usize),
}

impl Builder<'_> {
    /// Groups whose rows are on several shards.
    pub fn partial_groups(self) -> Result<Partial> {
        let outline = self.outline;
        let block = self.top().ok_or_else(unclear)?;
        if self.returns_sets()
            || self.has_sublinks()
            || block.clauses.has(Clauses::GROUP_BY) == outline.group_by.is_empty()
        {
            return Err(unclear());
        }
        let mut groups = Groups {
            builder: &self,
            keys: self.partial_keys()?,
            distinct: Vec::new(),
            results: Vec::new(),
            alike: Vec::new(),
            labels: self.labels()?,
        };
        let mut hub = vec![Made::text("SELECT")];
        groups.rewrite(
            outline.places.select + 1..outline.places.list_start,
            &mut hub,
        )?;
        for (index, item) in outline.items.iter().enumerate() {
            if matches!(item.expression.form, Form::Wildcard | Form::WildcardOf(_)) {
                return Err(unclear());
            }
            if index > 0 {
                hub.push(Made::text(","));
            }
            groups.rewrite(item.expression.tokens.clone(), &mut hub)?;
            if let Some(label) = &item.label {
                hub.push(Made::text(&format!("AS {}", quote_identifier(label))));
            }
        }
        hub.push(Made::text(&format!("FROM pg_temp.{TABLE}")));
        if !groups.keys.is_empty() {
            let names: Vec<String> = (0..groups.keys.len()).map(column_name).collect();
            hub.push(Made::text(&format!("GROUP BY {}", names.join(", "))));
        }
        groups.rewrite(outline.places.rest..self.query.body.len(), &mut hub)?;
        let partial = groups.finish(hub)?;
        Ok(self.placed(partial))
    }

    /// What each key of `GROUP BY` is.
    fn partial_keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for key in &self.outline.group_by {
            if key.form == Form::Several {
                return Err(unclear());
            }
            let meant = self.meant_by_group(key)?.ok_or_else(unclear)?;
            let [Piece::Copy(tokens)] = meant.pieces.as_slice() else {
                return Err(unclear());
            };
            let column = match &meant.form {
                Form::Column(column) => Some(self.column(column).ok_or_else(unclear)?),
                _ => None,
            };
            let tokens = tokens.clone();
            keys.push(Key {
                is_atom: self.is_atom(&tokens),
                tokens,
                column,
            });
        }
        Ok(keys)
    }

    /// Whether an expression means the same wherever it stands: a call, or one in parentheses.
    fn is_atom(&self, tokens: &Range<usize>) -> bool {
        let text = self.query.request.text;
        let start = self.query.body.get(tokens.start).map(|token| token.start);
        let mut calls = self.query.facts.calls.iter();
        let open = if self.is_symbol(tokens.start, "(") {
            tokens.start
        } else if calls.any(|call| call.offset.is_some() && call.offset == start) {
            tokens.start + 1
        } else {
            // `NOT (a)` and the like bind less tightly than what may follow.
            return false;
        };
        let close = own::arguments(text, self.query.body, open + 1);
        self.is_symbol(open, "(") && close.is_some_and(|(end, _)| end == tokens.end)
    }

    /// The places of keys that name or number columns of the answer.
    fn labels(&self) -> Result<Vec<usize>> {
        let order = self.outline.order_by.iter().map(|key| &key.expression);
        let distinct = match &self.outline.distinct {
            Distinct::On(keys) => keys.as_slice(),
            Distinct::All | Distinct::No => &[],
        };
        let mut labels = Vec::new();
        for key in order.chain(distinct) {
            let column = match &key.form {
                Form::Column(column) => column,
                Form::Number(_) => {
                    labels.push(self.bare(key.tokens.clone()).start);
                    continue;
                }
                _ => continue,
            };
            if column.qualifier.is_empty()
                && self
                    .list()?
                    .named(&column.name)
                    .ok_or_else(unclear)?
                    .is_some()
            {
                labels.push(self.bare(key.tokens.clone()).start);
            }
        }
        Ok(labels)
    }
}

impl Groups<'_, '_> {
    /// Appends some tokens of the client's with columns of the table in the place of keys and aggregates.
    fn rewrite(&mut self, range: Range<usize>, out: &mut Vec<Made>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            if let Some((key, end)) = self.key_at(at, &range) {
                // Its parentheses may be those of a call.
                let name = match self.builder.is_symbol(at, "(") {
                    true => format!("({})", column_name(key)),
                    false => column_name(key),
                };
                out.push(Made::text(&name));
                at = end;
                continue;
            }
            if let Some(end) = self.aggregate_at(at, &range)? {
                let aggregate = self.builder.aggregate(&(at..end))?.ok_or_else(unclear)?;
                let made = self.made(&aggregate)?;
                out.push(made);
                at = end;
                continue;
            }
            if self.names_column(at) && !self.labels.contains(&at) {
                return Err(unclear());
            }
            match out.last_mut() {
                Some(Made::Part(Part::Copy(last))) if last.end == at => last.end += 1,
                _ => out.push(Made::Part(Part::Copy(at..at + 1))),
            }
            at += 1;
        }
        Ok(())
    }

    /// The key that stands at a token, and where it ends.
    fn key_at(&mut self, at: usize, range: &Range<usize>) -> Option<(usize, usize)> {
        if self.labels.contains(&at) {
            return None;
        }
        let builder = self.builder;
        let query = builder.query;
        let start = query.body.get(at)?.start;
        let mut references = query.facts.references.iter();
        let reference =
            references.find(|one| one.offset == Some(start) && one.block == query.facts.top);
        if let Some(reference) = reference {
            let column = builder.column(&reference.column);
            let end = at + 2 * reference.column.qualifier.len() + 1;
            let is_it = |key: &Key| key.column.is_some() && key.column == column;
            let found = self.keys.iter().position(is_it);
            if let Some(found) = found.filter(|_| end <= range.end) {
                return Some((found, end));
            }
        }
        let (found, end) = self.keys.iter().enumerate().find_map(|(index, key)| {
            let end = at + key.tokens.len();
            let is_there = key.column.is_none()
                && end <= range.end
                && (key.is_atom || self.is_whole(at..end, range))
                && self.has_same_words(&key.tokens, &(at..end));
            is_there.then_some((index, end))
        })?;
        let tokens = self.keys.get(found)?.tokens.clone();
        if tokens != (at..end) {
            self.alike.push((tokens, at..end));
        }
        Some((found, end))
    }

    fn has_same_words(&self, one: &Range<usize>, other: &Range<usize>) -> bool {
        let text = self.builder.query.request.text;
        let words = |range: &Range<usize>| {
            let tokens = self.builder.query.body.get(range.clone());
            let tokens = tokens.unwrap_or_default().iter();
            tokens
                .map(|token| (token.kind, token.text(text)))
                .collect::<Vec<_>>()
        };
        words(one) == words(other)
    }

    /// Whether tokens are a whole expression.
    fn is_whole(&self, tokens: Range<usize>, range: &Range<usize>) -> bool {
        let builder = self.builder;
        let before = tokens.start.checked_sub(1);
        let begins = tokens.start == range.start
            || before.is_some_and(|at| {
                builder.is_symbol(at, "(")
                    || builder.is_symbol(at, ",")
                    || builder.is_word(at, "by")
            });
        let behind = ["asc", "desc", "nulls", "limit", "offset", "fetch"];
        let ends = tokens.end == range.end
            || builder.is_symbol(tokens.end, ")")
            || builder.is_symbol(tokens.end, ",")
            || behind.iter().any(|word| builder.is_word(tokens.end, word));
        begins && ends
    }

    /// Whether a name of a column begins at a token.
    fn names_column(&self, at: usize) -> bool {
        let query = self.builder.query;
        let start = query.body.get(at).map(|token| token.start);
        let mut references = query.facts.references.iter();
        references.any(|one| one.offset.is_none() || one.offset == start)
            || self.builder.is_word(at, "select")
    }

    /// Where the aggregate ends that is called at a token, if one is that is no window function.
    fn aggregate_at(&self, at: usize, range: &Range<usize>) -> Result<Option<usize>> {
        let builder = self.builder;
        let query = builder.query;
        let name = match builder.is_symbol(at + 1, ".") {
            true => at + 2,
            false => at,
        };
        let start = query.body.get(name).map(|token| token.start);
        let mut calls = query.facts.calls.iter().zip(&query.calls);
        let call = calls.find(|(call, _)| call.offset.is_some() && call.offset == start);
        let Some((call, effects)) = call else {
            return Ok(None);
        };
        if call.windowed || !effects.any(Effects::AGGREGATE) {
            return Ok(None);
        }
        let text = query.request.text;
        let arguments = own::arguments(text, query.body, name + 2);
        let (mut end, _) = arguments
            .filter(|_| builder.is_symbol(name + 1, "("))
            .ok_or_else(unclear)?;
        if builder.is_word(end, "filter") && builder.is_symbol(end + 1, "(") {
            end = own::arguments(text, query.body, end + 2)
                .ok_or_else(unclear)?
                .0;
        }
        match end <= range.end && !builder.is_word(end, "within") {
            true => Ok(Some(end)),
            false => Err(unclear()),
        }
    }

    /// What stands in the place of an aggregate.
    fn made(&mut self, aggregate: &Aggregate) -> Result<Made> {
        let whole = Part::Copy(aggregate.tokens.clone());
        let rest = |name: &str| {
            vec![
                Part::Text(format!("pg_catalog.{name}").into()),
                Part::Copy(aggregate.rest.clone()),
            ]
        };
        let repeats = [
            "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or",
        ];
        Ok(match aggregate.name.as_str() {
            "count" if aggregate.distinct => {
                let is_filtered = aggregate.argument.end + 1 != aggregate.tokens.end;
                if is_filtered {
                    return Err(unclear());
                }
                self.distinct.push(aggregate.argument.clone());
                Made::Distinct(self.distinct.len() - 1)
            }
            name if repeats.contains(&name) => {
                let name = repeats.iter().find(|known| **known == name);
                Made::Result(name.ok_or_else(unclear)?, self.result(vec![whole]))
            }
            _ if aggregate.distinct => return Err(unclear()),
            "bit_xor" => Made::Result("bit_xor", self.result(vec![whole])),
            "count" => Made::Count(self.result(vec![whole])),
            "sum" => Made::Sum(self.result(vec![whole])),
            "avg" => Made::Average(self.result(rest("sum")), self.result(rest("count"))),
            _ => return Err(unclear()),
        })
    }

    fn result(&mut self, parts: Vec<Part>) -> usize {
        let known = self.results.iter().position(|known| *known == parts);
        known.unwrap_or_else(|| {
            self.results.push(parts);
            self.results.len() - 1
        })
    }

    fn finish(self, hub: Vec<Made>) -> Result<Partial> {
        let outline = self.builder.outline;
        let keys = self.keys.len();
        let groups = keys + self.distinct.len();
        let count = groups + self.results.len();
        if count == 0 {
            return Err(unclear());
        }
        let mut shard = Vec::new();
        if outline.places.select > 0 {
            shard.push(Part::Copy(0..outline.places.select));
        }
        shard.push(Part::Text("SELECT".into()));
        let tokens = self.keys.into_iter().map(|key| key.tokens);
        let expressions = tokens
            .chain(self.distinct)
            .map(|tokens| vec![Part::Copy(tokens)]);
        for (index, parts) in expressions.chain(self.results).enumerate() {
            if index > 0 {
                shard.push(Part::Text(",".into()));
            }
            shard.extend(parts);
        }
        shard.push(Part::Copy(outline.places.list_end..outline.places.rows_end));
        if groups > 0 {
            let numbers: Vec<String> = (1..=groups).map(|number| number.to_string()).collect();
            shard.push(Part::Text(
                format!("GROUP BY {}", numbers.join(", ")).into(),
            ));
        }
        let hub = hub.into_iter().map(|made| made.part(keys, groups));
        Ok(Partial {
            body: 0..0,
            of_shard: shard.into(),
            of_hub: hub.collect(),
            columns: (0..count).map(column_name).collect(),
            alike: self.alike.into(),
            is_grouped: true,
            is_cut: false,
        })
    }
}

impl Made {
    fn text(words: &str) -> Made {
        Made::Part(Part::Text(words.into()))
    }

    /// With the number of keys, and of all columns by which the shards group.
    fn part(self, keys: usize, groups: usize) -> Part {
        Part::Text(match self {
            Made::Part(part) => return part,
            Made::Sum(result) => return Part::Sum(groups + result),
            Made::Average(sum, count) => return Part::Average(groups + sum, groups + count),
            Made::Distinct(index) => {
                format!("pg_catalog.count(DISTINCT {})", column_name(keys + index)).into()
            }
            Made::Result(name, result) => {
                format!("pg_catalog.{name}({})", column_name(groups + result)).into()
            }
            Made::Count(result) => format!(
                "coalesce(pg_catalog.sum({}), 0)::pg_catalog.int8",
                column_name(groups + result)
            )
            .into(),
        })
    }
}
