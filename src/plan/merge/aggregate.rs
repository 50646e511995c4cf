//! Aggregates of the rows of several shards: what each shard computes, and how the proxy goes on.
//!
//! Each shard groups its own rows. Group keys and partial results go behind the client's columns in
//! binary; `HAVING`, `ORDER BY` and `LIMIT` are the proxy's. What is neither an aggregate nor has one in
//! it depends on the group keys alone, so that any row of the group has it.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::colocation::Joined;
use crate::plan::effects::Effects;
use crate::plan::own;
use crate::plan::refusal;
use crate::sql::analysis::Call;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Column;
use crate::sql::analysis::Name;
use crate::sql::analysis::Place;
use crate::sql::analysis::outline::Distinct;
use crate::sql::analysis::outline::Expression;
use crate::sql::analysis::outline::Form;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;

use super::Builder;
use super::Merge;
use super::SortKey;
use super::edit::Change;
use super::edit::Piece;
use super::grouping::Fold;
use super::grouping::GroupKey;
use super::grouping::Grouping;
use super::grouping::How;
use super::grouping::Value;
use super::order::Meant;

/// An aggregate call and its tokens.
pub(super) struct Aggregate {
    pub name: String,
    /// All of it.
    pub tokens: Range<usize>,
    /// What follows its name.
    pub rest: Range<usize>,
    pub argument: Range<usize>,
    pub distinct: bool,
}

impl Builder<'_> {
    /// The merge of groups whose rows are on several shards.
    pub fn groups(mut self, joined: &Joined<'_>) -> Result<Merge> {
        let outline = self.outline;
        let clauses = self.top().map(|block| block.clauses);
        let clauses = clauses.unwrap_or_default();
        if clauses.has(Clauses::WINDOW) {
            return Err(refusal::combine("a window function over groups"));
        }
        if outline.distinct != Distinct::No {
            return Err(refusal::combine("DISTINCT of groups"));
        }
        if self.returns_sets() {
            return Err(refusal::combine(
                "groups and a function that returns several rows",
            ));
        }
        if outline.group_by.is_empty() && clauses.has(Clauses::GROUP_BY) {
            return Err(refusal::combine("GROUP BY of nothing"));
        }
        let mut grouping = Grouping::default();
        let mut folds = Folds::default();
        let mut outputs = Vec::new();
        for index in 0..self.list()?.columns.len() {
            let column = self.list()?.columns.get(index).map(|column| column.meant());
            let Some(meant) = column else { continue };
            outputs.push(match self.value(&meant, joined, &mut folds)? {
                Some(value) => value,
                None => Value::Column(index),
            });
        }
        grouping.outputs = outputs.into();
        grouping.keys = self.group_keys()?.into();
        grouping.having = self.having(joined, &mut folds)?.into();
        let order = self.order_of_groups(joined, &mut folds)?;
        grouping.folds = folds.0.into();
        self.finish_groups(grouping, order)
    }

    /// The merge of `DISTINCT` rows.
    pub fn distinct(mut self) -> Result<Merge> {
        let outline = self.outline;
        if outline.distinct != Distinct::All || !outline.group_by.is_empty() {
            return Err(refusal::combine("DISTINCT"));
        }
        let mut keys = Vec::new();
        let mut outputs = Vec::new();
        for index in 0..self.list()?.columns.len() {
            let column = self.list()?.columns.get(index).map(|column| column.meant());
            let Some(meant) = column else { continue };
            keys.push(self.group_key(meant)?);
            outputs.push(Value::Column(index));
        }
        let grouping = Grouping {
            keys: keys.into(),
            outputs: outputs.into(),
            ..Grouping::default()
        };
        let order = self.order()?;
        self.finish_groups(grouping, order)
    }

    fn finish_groups(mut self, grouping: Grouping, order: Vec<SortKey>) -> Result<Merge> {
        let outline = self.outline;
        if !outline.places.order_clause.is_empty() {
            self.changes
                .push(Change::new(outline.places.order_clause.clone(), Vec::new()));
        }
        let cut = self.counts()?;
        if !outline.places.limit_clause.is_empty() {
            let kept = Piece::Text(cut.parameters().into());
            self.changes
                .push(Change::new(outline.places.limit_clause.clone(), vec![kept]));
        }
        let mut merge = self.finish(order, cut)?;
        merge.grouping = Some(grouping);
        Ok(merge)
    }

    /// Whether an expression may have several rows of its own.
    pub fn returns_sets(&self) -> bool {
        let request = self.query.request;
        let mut calls = self.query.facts.calls.iter();
        calls.any(|call| {
            let schema = call.name.schema.as_deref();
            let catalog = request.catalog;
            let mut functions = catalog.functions(schema, &call.name.name, request.search_path);
            call.place == Place::Expression
                && (call.name.name == "unnest" || functions.any(|function| function.returns_set))
        })
    }

    fn group_keys(&mut self) -> Result<Vec<GroupKey>> {
        let outline = self.outline;
        let mut keys = Vec::new();
        for key in &outline.group_by {
            if key.form == Form::Several {
                return Err(refusal::combine("GROUP BY several sets"));
            }
            let Some(meant) = self.meant_by_group(key)? else {
                continue;
            };
            keys.push(self.group_key(meant)?);
        }
        Ok(keys)
    }

    fn group_key(&mut self, meant: Meant) -> Result<GroupKey> {
        let deterministic = self.deterministic(&meant)?;
        let column = self.hide(meant.pieces)?;
        Ok(GroupKey {
            column,
            deterministic,
        })
    }

    /// What a key of `GROUP BY` means: a name is first that of a column of a table.
    pub fn meant_by_group(&self, key: &Expression) -> Result<Option<Meant>> {
        let unclear = || refusal::combine("GROUP BY a name that may mean several things");
        match &key.form {
            Form::Number(number) => self.ordinal(number),
            Form::Column(column)
                if column.qualifier.is_empty() && self.column(column).is_none() =>
            {
                if !self.knows_sources() {
                    return Err(unclear());
                }
                let listed = self.list()?.named(&column.name).ok_or_else(unclear)?;
                // What is neither is PostgreSQL's to reject.
                Ok(Some(listed.map_or_else(
                    || self.written(key),
                    |listed| listed.meant(),
                )))
            }
            _ => Ok(Some(self.written(key))),
        }
    }

    /// The value of an expression if it is an aggregate; none if there is no aggregate in it.
    fn value(
        &mut self,
        meant: &Meant,
        joined: &Joined<'_>,
        folds: &mut Folds,
    ) -> Result<Option<Value>> {
        let [Piece::Copy(tokens)] = meant.pieces.as_slice() else {
            return Ok(None);
        };
        if self.calls_in(tokens).next().is_none() {
            return Ok(None);
        }
        let aggregate = self.aggregate(tokens)?;
        let aggregate = aggregate.ok_or_else(|| refusal::combine("an expression of aggregates"))?;
        self.fold(&aggregate, joined, folds).map(Some)
    }

    /// The aggregates that are called in these tokens.
    pub fn calls_in<'c>(&'c self, tokens: &Range<usize>) -> impl Iterator<Item = &'c Call> {
        let start = self
            .query
            .body
            .get(tokens.start)
            .map_or(0, |token| token.start);
        let last = tokens
            .end
            .checked_sub(1)
            .and_then(|last| self.query.body.get(last));
        let end = last.map_or(0, |token| token.end);
        let calls = self.query.facts.calls.iter().zip(&self.query.calls);
        calls
            .filter(|(_, effects)| effects.any(Effects::AGGREGATE))
            .map(|(call, _)| call)
            .filter(move |call| call.offset.is_none_or(|at| (start..end).contains(&at)))
    }

    /// The aggregate call that an expression is.
    pub fn aggregate(&self, tokens: &Range<usize>) -> Result<Option<Aggregate>> {
        let tokens = self.bare(tokens.clone());
        let Some(call) = self.calls_in(&tokens).next() else {
            return Ok(None);
        };
        let catalog = self.query.request.catalog;
        if self.calls_in(&tokens).count() > 1
            || !own::is_builtin(catalog, self.query.request.search_path, &call.name)
        {
            return Ok(None);
        }
        let name_at = if self.is_symbol(tokens.start + 1, ".") {
            tokens.start + 2
        } else {
            tokens.start
        };
        let is_called = self.query.body.get(name_at).map(|token| token.start) == call.offset;
        if !is_called || !self.is_symbol(name_at + 1, "(") {
            return Ok(None);
        }
        let text = self.query.request.text;
        let Some((end, arguments)) = own::arguments(text, self.query.body, name_at + 2) else {
            return Ok(None);
        };
        let is_filter = self.is_word(end, "filter") && self.is_symbol(end + 1, "(");
        let close = if is_filter {
            own::arguments(text, self.query.body, end + 2).map(|(close, _)| close)
        } else {
            Some(end)
        };
        let [argument] = arguments.as_slice() else {
            return Ok(None);
        };
        if close != Some(tokens.end) || self.has_order(argument) {
            return Ok(None);
        }
        let mut argument = argument.clone();
        let distinct = self.is_word(argument.start, "distinct");
        if distinct || self.is_word(argument.start, "all") {
            argument.start += 1;
        }
        Ok(Some(Aggregate {
            name: call.name.name.clone(),
            rest: name_at + 1..tokens.end,
            tokens,
            argument,
            distinct,
        }))
    }

    /// Whether an argument ends with `ORDER BY`.
    fn has_order(&self, argument: &Range<usize>) -> bool {
        argument
            .clone()
            .any(|at| self.is_word(at, "order") && self.is_word(at + 1, "by"))
    }

    /// Without parentheses around it.
    pub fn bare(&self, mut tokens: Range<usize>) -> Range<usize> {
        let text = self.query.request.text;
        while self.is_symbol(tokens.start, "(") {
            match own::arguments(text, self.query.body, tokens.start + 1) {
                Some((end, _)) if end == tokens.end => tokens = tokens.start + 1..end - 1,
                _ => break,
            }
        }
        tokens
    }

    pub fn is_word(&self, at: usize, word: &str) -> bool {
        let token = self.query.body.get(at);
        token.is_some_and(|token| token.is_word(self.query.request.text, word))
    }

    pub fn is_symbol(&self, at: usize, symbol: &str) -> bool {
        let token = self.query.body.get(at);
        token.is_some_and(|token| token.is_symbol(self.query.request.text, symbol))
    }

    /// Has each shard compute its part of an aggregate.
    pub fn fold(
        &mut self,
        aggregate: &Aggregate,
        joined: &Joined<'_>,
        folds: &mut Folds,
    ) -> Result<Value> {
        let name = aggregate.name.as_str();
        let argument = self.form_of(&aggregate.argument);
        let how = match name {
            "count" => How::Count,
            "sum" | "avg" => How::Sum,
            "min" => How::Min,
            "max" => How::Max,
            "bool_and" | "every" => How::And,
            "bool_or" => How::Or,
            "bit_and" => How::BitAnd,
            "bit_or" => How::BitOr,
            "bit_xor" => How::BitXor,
            _ => return Err(refusal::combine(&format!("the aggregate \"{name}\""))),
        };
        if aggregate.distinct && matches!(how, How::Count | How::Sum | How::BitXor) {
            let column = match &argument {
                Form::Column(column) => self.column(column),
                _ => None,
            };
            // Values of the shard key are on one shard each.
            if !column.is_some_and(|column| joined.is_within(&[column])) {
                return Err(refusal::combine(&format!("{name}(DISTINCT …)")));
            }
        }
        if how == How::Sum && self.is_inexact(&argument) {
            return Err(inexact(name));
        }
        let bytewise = match how {
            How::Min | How::Max => self.bytewise(&Meant {
                pieces: Vec::new(),
                form: argument,
                name: String::new(),
            })?,
            _ => false,
        };
        if name == "avg" {
            let mut part = |name: &str, how| {
                let pieces = vec![
                    Piece::Text(format!("pg_catalog.{name}").into()),
                    Piece::Copy(aggregate.rest.clone()),
                ];
                let column = self.hide(pieces)?;
                Ok::<usize, Error>(folds.add(Fold {
                    column,
                    how,
                    bytewise: false,
                }))
            };
            let sum = part("sum", How::Sum)?;
            let count = part("count", How::Count)?;
            return Ok(Value::Average { sum, count });
        }
        let column = self.hide(vec![Piece::Copy(aggregate.tokens.clone())])?;
        Ok(Value::Fold(folds.add(Fold {
            column,
            how,
            bytewise,
        })))
    }

    /// What an argument is, as far as it is a column.
    fn form_of(&self, argument: &Range<usize>) -> Form {
        let text = self.query.request.text;
        let tokens = self.query.body.get(argument.clone()).unwrap_or_default();
        let name = |token: &Token| identifier_value(text, token).map(Cow::into_owned);
        if let [_, .., collate, collation] = tokens
            && collate.is_word(text, "collate")
            && let Some(collation) = name(collation)
        {
            let inner = self.form_of(&(argument.start..argument.end - 2));
            let collation = Name {
                schema: None,
                name: collation,
            };
            return Form::Collated(Box::new(inner), collation);
        }
        let names: Option<Vec<String>> = tokens.iter().step_by(2).map(name).collect();
        let mut dots = tokens.iter().skip(1).step_by(2);
        let is_dotted = tokens.len() % 2 == 1 && dots.all(|dot| dot.is_symbol(text, "."));
        match names.filter(|_| is_dotted) {
            Some(mut names) => Form::Column(Column {
                name: names.pop().unwrap_or_default(),
                qualifier: names,
                visible: 0..usize::MAX,
            }),
            None => Form::Other,
        }
    }

    /// Whether sums of a column depend on the order of rows, or are of a type that is not added here.
    fn is_inexact(&self, form: &Form) -> bool {
        let Form::Column(column) = form else {
            return false;
        };
        // real, double precision, money, interval.
        let types = [700, 701, 790, 1186];
        self.type_of(column)
            .is_some_and(|type_oid| types.contains(&type_oid))
    }

    /// `ORDER BY` of groups.
    fn order_of_groups(&mut self, joined: &Joined<'_>, folds: &mut Folds) -> Result<Vec<SortKey>> {
        let outline = self.outline;
        let mut keys = Vec::new();
        for key in &outline.order_by {
            let Some(meant) = self.meant_by_order(key)? else {
                continue;
            };
            let (value, bytewise) = match self.value(&meant, joined, folds)? {
                Some(value) => {
                    let fold = match value {
                        Value::Fold(fold) => folds.0.get(fold),
                        _ => None,
                    };
                    (value, fold.is_some_and(|fold| fold.bytewise))
                }
                None => {
                    let bytewise = self.bytewise(&meant)?;
                    (Value::Column(self.hide(meant.pieces)?), bytewise)
                }
            };
            keys.push(SortKey {
                value,
                descending: key.descending,
                nulls_first: key.nulls_first,
                bytewise,
                name: meant.name.into(),
            });
        }
        Ok(keys)
    }
}

/// The folds of a merge, each once.
#[derive(Default)]
pub(super) struct Folds(Vec<Fold>);

impl Folds {
    fn add(&mut self, fold: Fold) -> usize {
        let known = self.0.iter().position(|known| *known == fold);
        known.unwrap_or_else(|| {
            self.0.push(fold);
            self.0.len() - 1
        })
    }
}

/// Sums that are not exact.
fn inexact(name: &str) -> Error {
    Error::refused(
        format!("a query over several shards with {name} of this type is not supported"),
        "Sums of floating-point numbers depend on the order of the rows, and those of money and intervals \
         are not added up by the proxy.",
        "Cast the argument to numeric.",
    )
}
