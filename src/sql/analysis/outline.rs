//! The outline of a `SELECT`: which tokens are its select list, its sort keys, its limit.
//!
//! The tree says what there is, our own tokens say where it stands: the clauses of a `SELECT` begin
//! with reserved words outside parentheses, and their parts are separated by commas. Where the two
//! don't agree in number or kind there is no outline.

use std::ops::Range;

use sqlparser::ast::Distinct as ParsedDistinct;
use sqlparser::ast::Expr;
use sqlparser::ast::GroupByExpr;
use sqlparser::ast::LimitClause;
use sqlparser::ast::OrderByExpr;
use sqlparser::ast::OrderByKind;
use sqlparser::ast::OrderBySort;
use sqlparser::ast::Query;
use sqlparser::ast::Select;
use sqlparser::ast::SelectItem;
use sqlparser::ast::SelectItemQualifiedWildcardKind;
use sqlparser::ast::SetExpr;
use sqlparser::ast::Statement;
use sqlparser::ast::Value as ParsedValue;

use crate::sql::literal::identifier_value;
use crate::sql::parse;
use crate::sql::token::Token;

use super::CastType;
use super::Column;
use super::Name;
use super::condition::cast_type;
use super::condition::plain;
use super::name;

mod clause;

use clause::Clauses;

/// A `SELECT` without set operations, as far as it is to be rewritten. Ranges count tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The select list.
    pub items: Vec<Item>,
    /// `DISTINCT`.
    pub distinct: Distinct,
    /// `GROUP BY`.
    pub group_by: Vec<Expression>,
    /// The condition of `HAVING`.
    pub having: Option<Range<usize>>,
    /// `ORDER BY`.
    pub order_by: Vec<SortKey>,
    /// `LIMIT` or `FETCH`.
    pub limit: Quantity,
    /// `OFFSET`.
    pub offset: Quantity,
    /// `WITH TIES`.
    pub with_ties: bool,
    /// Where its clauses stand.
    pub places: Places,
}

/// Where the clauses of a `SELECT` stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `SELECT` itself.
    pub select: usize,
    /// Where the list begins, behind `DISTINCT` and the like.
    pub list_start: usize,
    /// From `SELECT` to the last token before `FROM`, without the list.
    pub list_end: usize,
    /// Where `FROM` and `WHERE` end.
    pub rows_end: usize,
    /// What stands behind `GROUP BY`, or behind the rows if there is none.
    pub rest: usize,
    /// `HAVING` and its condition.
    pub having_clause: Range<usize>,
    /// `ORDER BY` and its keys.
    pub order_clause: Range<usize>,
    /// `LIMIT`, `OFFSET` and `FETCH`.
    pub limit_clause: Range<usize>,
}

/// `DISTINCT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distinct {
    /// There is none.
    No,
    /// `DISTINCT`.
    All,
    /// `DISTINCT ON (…)`.
    On(Vec<Expression>),
}

/// An entry of a select list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is, without its alias.
    pub expression: Expression,
    /// The name of its column; none if it is not known. A wildcard has none.
    pub label: Option<String>,
}

/// An expression and its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// What it is.
    pub form: Form,
}

/// What an expression is, as far as it matters; parentheses around it don't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// An unsigned number.
    Number(String),
    /// A column.
    Column(Column),
    /// `… COLLATE …`.
    Collated(Box<Form>, Name),
    /// A function call.
    Call(Name),
    /// `*`.
    Wildcard,
    /// `a.*`.
    WildcardOf(Vec<String>),
    /// A list of expressions: a row, `ROLLUP` and the like.
    Several,
    /// Anything else.
    Other,
}

/// An entry of `ORDER BY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// The expression.
    pub expression: Expression,
    /// From the largest to the smallest.
    pub descending: bool,
    /// Where NULLs go.
    pub nulls_first: bool,
}

/// A number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The clause is not there, or says `ALL` or `NULL`.
    None,
    /// A constant.
    Number(u64),
    /// A parameter, from 1, and what it is cast to.
    Parameter(u32, CastType),
    /// Something to be computed.
    Other,
}

/// The outline of a query; none if it is no plain `SELECT` or its parts can't be told apart.
pub fn outline(text: &str, tokens: &[Token]) -> Option<Outline> {
    let tree = parse::parse(text, tokens).ok()?;
    let Statement::Query(query) = &tree.statement else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let reader = Reader { text, tokens };
    reader.read(query, select)
}

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl Reader<'_> {
    fn read(&self, query: &Query, select: &Select) -> Option<Outline> {
        let clauses = Clauses::find(self.text, self.tokens)?;
        let items = self.items(select, clauses.list())?;
        let distinct = match &select.distinct {
            Some(ParsedDistinct::On(keys)) => {
                Distinct::On(self.expressions(keys, clauses.distinct_on.clone()?)?)
            }
            Some(ParsedDistinct::Distinct) => Distinct::All,
            Some(ParsedDistinct::All) | None => Distinct::No,
        };
        let group_by = match &select.group_by {
            GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => match keys {
                keys if keys.is_empty() => Vec::new(),
                keys => self.expressions(keys, clauses.group_by.clone()?)?,
            },
            _ => return None,
        };
        let order_by = match query.order_by.as_ref().map(|order| &order.kind) {
            Some(OrderByKind::Expressions(keys)) => {
                self.sort_keys(keys, clauses.order_by.clone()?)?
            }
            Some(OrderByKind::All(_)) => return None,
            None => Vec::new(),
        };
        let (limit, offset, with_ties) = quantities(query)?;
        if select.having.is_some() != clauses.having.is_some() {
            return None;
        }
        let whole = |part: &Option<Range<usize>>, words: usize| match part {
            Some(part) => part.start - words..part.end,
            None => 0..0,
        };
        Some(Outline {
            items,
            distinct,
            group_by,
            having: clauses.having.clone(),
            order_by,
            limit,
            offset,
            with_ties,
            places: Places {
                select: clauses.select,
                list_start: clauses.list().start,
                list_end: clauses.list().end,
                rows_end: clauses.rows_end,
                rest: clauses.rest,
                having_clause: whole(&clauses.having, 1),
                order_clause: whole(&clauses.order_by, 2),
                limit_clause: clauses.limit.clone(),
            },
        })
    }

    fn items(&self, select: &Select, list: Range<usize>) -> Option<Vec<Item>> {
        let parts = clause::split(self.text, self.tokens, list);
        if parts.len() != select.projection.len() {
            return None;
        }
        let items = parts.into_iter().zip(&select.projection);
        items
            .map(|(tokens, item)| {
                let (form, label, end) = match item {
                    SelectItem::UnnamedExpr(expr) => {
                        (self.form(expr)?, self.label(expr), tokens.end)
                    }
                    SelectItem::ExprWithAlias { expr, alias } => {
                        let at = usize::try_from(alias.span.start.line.checked_sub(1)?).ok()?;
                        if at + 1 != tokens.end {
                            return None;
                        }
                        let is_as = self.tokens.get(at - 1)?.is_word(self.text, "as");
                        let end = if is_as { at - 1 } else { at };
                        (self.form(expr)?, Some(alias.value.clone()), end)
                    }
                    SelectItem::Wildcard(_) => (Form::Wildcard, None, tokens.end),
                    SelectItem::QualifiedWildcard(
                        SelectItemQualifiedWildcardKind::ObjectName(of),
                        _,
                    ) => {
                        let parts = super::parts(of).ok()?;
                        let parts = parts.iter().map(|part| part.value.clone()).collect();
                        (Form::WildcardOf(parts), None, tokens.end)
                    }
                    _ => return None,
                };
                let tokens = tokens.start..end;
                let is_there = !tokens.is_empty();
                is_there.then_some(Item {
                    expression: Expression { tokens, form },
                    label,
                })
            })
            .collect()
    }

    fn expressions(&self, keys: &[Expr], tokens: Range<usize>) -> Option<Vec<Expression>> {
        let parts = clause::split(self.text, self.tokens, tokens);
        if parts.len() != keys.len() {
            return None;
        }
        let keys = parts.into_iter().zip(keys);
        keys.map(|(tokens, key)| {
            let form = self.form(key)?;
            Some(Expression { tokens, form })
        })
        .collect()
    }

    fn sort_keys(&self, keys: &[OrderByExpr], tokens: Range<usize>) -> Option<Vec<SortKey>> {
        let parts = clause::split(self.text, self.tokens, tokens);
        if parts.len() != keys.len() {
            return None;
        }
        let keys = parts.into_iter().zip(keys);
        keys.map(|(tokens, key)| self.sort_key(key, tokens))
            .collect()
    }

    fn sort_key(&self, key: &OrderByExpr, tokens: Range<usize>) -> Option<SortKey> {
        let Range { start, mut end } = tokens;
        let mut ends_with = |words: &[&str]| {
            let from = end.checked_sub(words.len()).filter(|from| *from > start)?;
            let is_so = words.iter().enumerate().all(|(index, word)| {
                let token = self.tokens.get(from + index);
                token.is_some_and(|token| {
                    token.is_word(self.text, word) || token.is_symbol(self.text, word)
                })
            });
            is_so.then(|| end = from)
        };
        if let Some(first) = key.options.nulls_first {
            ends_with(&["nulls", if first { "first" } else { "last" }])?;
        }
        let descending = match &key.options.sort {
            None => false,
            Some(OrderBySort::Asc) => {
                ends_with(&["asc"])?;
                false
            }
            Some(OrderBySort::Desc) => {
                ends_with(&["desc"])?;
                true
            }
            Some(OrderBySort::Using(_)) => match ends_with(&["using", "<"]) {
                Some(()) => false,
                None => {
                    ends_with(&["using", ">"])?;
                    true
                }
            },
        };
        Some(SortKey {
            expression: Expression {
                tokens: start..end,
                form: self.form(&key.expr)?,
            },
            descending,
            nulls_first: key.options.nulls_first.unwrap_or(descending),
        })
    }

    fn form(&self, expression: &Expr) -> Option<Form> {
        Some(match plain(expression) {
            Expr::Value(value) => match &value.value {
                ParsedValue::Number(digits, _) => Form::Number(digits.clone()),
                _ => Form::Other,
            },
            Expr::Identifier(name) => Form::Column(Column {
                qualifier: Vec::new(),
                name: name.value.clone(),
                visible: 0..usize::MAX,
            }),
            Expr::CompoundIdentifier(parts) => {
                let (name, qualifier) = parts.split_last()?;
                Form::Column(Column {
                    qualifier: qualifier.iter().map(|part| part.value.clone()).collect(),
                    name: name.value.clone(),
                    visible: 0..usize::MAX,
                })
            }
            Expr::Collate { expr, collation } => {
                Form::Collated(Box::new(self.form(expr)?), name(collation).ok()?)
            }
            Expr::Function(function) if function.over.is_none() => {
                Form::Call(name(&function.name).ok()?)
            }
            Expr::Tuple(_) | Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                Form::Several
            }
            _ => Form::Other,
        })
    }

    /// The name that PostgreSQL gives the column of an expression without an alias.
    fn label(&self, expression: &Expr) -> Option<String> {
        self.named(expression).map(|(name, _)| name)
    }

    /// A column's name, and whether it is one that a cast or CASE around it keeps.
    fn named(&self, expression: &Expr) -> Option<(String, bool)> {
        match plain(expression) {
            Expr::Identifier(name) => Some((name.value.clone(), true)),
            Expr::CompoundIdentifier(parts) => parts.last().map(|part| (part.value.clone(), true)),
            Expr::Function(function) => {
                let last = super::parts(&function.name).ok()?.pop()?;
                let at = usize::try_from(last.span.start.line.checked_sub(1)?).ok()?;
                let written = identifier_value(self.text, self.tokens.get(at)?)?;
                (written == last.value).then(|| (last.value.clone(), true))
            }
            Expr::Collate { expr, .. } => self.named(expr),
            // Of any other the type is the name.
            Expr::Cast { expr, .. } => self.named(expr).filter(|(_, stays)| *stays),
            Expr::Case { else_result, .. } => {
                let other = else_result.as_ref().map(|other| self.named(other));
                match other {
                    Some(None) => None,
                    Some(Some((name, true))) => Some((name, true)),
                    Some(Some((_, false))) | None => Some(("case".to_owned(), false)),
                }
            }
            Expr::BinaryOp { .. }
            | Expr::UnaryOp { .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::Between { .. }
            | Expr::InList { .. }
            | Expr::Like { .. }
            | Expr::Value(_) => Some(("?column?".to_owned(), false)),
            _ => None,
        }
    }
}

/// `LIMIT` or `FETCH`, `OFFSET`, `WITH TIES`.
fn quantities(query: &Query) -> Option<(Quantity, Quantity, bool)> {
    let (mut limit, mut offset) = match &query.limit_clause {
        None => (Quantity::None, Quantity::None),
        Some(LimitClause::LimitOffset { limit, offset, .. }) => (
            limit.as_ref().map_or(Quantity::None, quantity),
            offset
                .as_ref()
                .map_or(Quantity::None, |offset| quantity(&offset.value)),
        ),
        Some(LimitClause::OffsetCommaLimit { .. }) => return None,
    };
    let mut with_ties = false;
    if let Some(fetch) = &query.fetch {
        if fetch.percent || limit != Quantity::None {
            return None;
        }
        with_ties = fetch.with_ties;
        limit = fetch
            .quantity
            .as_ref()
            .map_or(Quantity::Number(1), quantity);
    }
    for quantity in [&mut limit, &mut offset] {
        if let Quantity::Number(number) = quantity
            && i64::try_from(*number).is_err()
        {
            *quantity = Quantity::Other;
        }
    }
    Some((limit, offset, with_ties))
}

fn quantity(expression: &Expr) -> Quantity {
    match plain(expression) {
        Expr::Value(value) => match &value.value {
            ParsedValue::Number(digits, _) => {
                digits.parse().map_or(Quantity::Other, Quantity::Number)
            }
            ParsedValue::Null => Quantity::None,
            ParsedValue::Placeholder(name) => parameter(name, CastType::None),
            _ => Quantity::Other,
        },
        Expr::Cast {
            expr, data_type, ..
        } => match plain(expr) {
            Expr::Value(value) => match &value.value {
                ParsedValue::Placeholder(name) => parameter(name, cast_type(data_type)),
                _ => Quantity::Other,
            },
            _ => Quantity::Other,
        },
        _ => Quantity::Other,
    }
}

fn parameter(name: &str, cast: CastType) -> Quantity {
    match name.strip_prefix('$').map(str::parse) {
        Some(Ok(number)) => Quantity::Parameter(number, cast),
        _ => Quantity::Other,
    }
}
