//! Which columns of a relation a statement may use.

use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Source;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;

/// Words that can stand behind a `*` that is no operator.
const BEHIND_WILDCARD: [&str; 14] = [
    "from",
    "into",
    "where",
    "group",
    "having",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "window",
];

/// The names in a statement.
pub(in crate::plan) struct Names {
    /// Every name and word.
    all: HashSet<String>,
    /// What stands before a `.*`.
    starred: HashSet<String>,
    /// A `*` stands by itself.
    is_starred: bool,
}

impl Names {
    pub fn of(query: &Query<'_>) -> Names {
        let text = query.request.text;
        let mut names = Names {
            all: HashSet::new(),
            starred: HashSet::new(),
            is_starred: false,
        };
        for (index, token) in query.tokens.iter().enumerate() {
            if let Some(name) = identifier_value(text, token) {
                names.all.insert(name.into_owned());
            }
            if token.is_symbol(text, "*") && is_wildcard(query, index) {
                let before = |distance: usize| {
                    index
                        .checked_sub(distance)
                        .and_then(|index| query.tokens.get(index))
                };
                let qualifier = before(1)
                    .filter(|dot| dot.is_symbol(text, "."))
                    .and_then(|_| before(2))
                    .and_then(|name| identifier_value(text, name));
                match qualifier {
                    Some(name) => {
                        names.starred.insert(name.into_owned());
                    }
                    None => names.is_starred = true,
                }
            }
        }
        names
    }

    /// The columns that a source may need, in the order of the table; at least one.
    pub fn columns(
        &self,
        query: &Query<'_>,
        block: BlockId,
        source: &Source,
        relation: &Relation,
    ) -> Vec<String> {
        let known_as = source.alias.as_ref().unwrap_or(&relation.name);
        let facts = query.facts.blocks.get(block);
        let is_natural = facts.is_none_or(|block| {
            let mut merges = block.merges.iter();
            merges.any(|merge| merge.columns.is_none())
        });
        let all = self.is_starred
            || self.starred.contains(known_as)
            || is_natural
            || source.hidden
            || !source.columns.is_empty()
            || is_whole_row(query, known_as);
        let names = relation.columns.iter().map(|column| &column.name);
        let used: Vec<String> = names
            .clone()
            .filter(|name| all || self.all.contains(*name))
            .cloned()
            .collect();
        match used.is_empty() {
            // COPY and clients know no rows without columns.
            true => narrowest(relation).into_iter().collect(),
            false => used,
        }
    }

    /// Whether a whole row of what is known by this name may be used as a value.
    pub fn is_whole(&self, query: &Query<'_>, known_as: &str) -> bool {
        is_whole_row(query, known_as) || self.starred.contains(known_as)
    }
}

/// A column of the shard key if there is one, else the first.
fn narrowest(relation: &Relation) -> Option<String> {
    let key = relation
        .placement()
        .and_then(|placement| placement.columns().first())
        .map(|column| column.name.clone());
    key.or_else(|| relation.columns.first().map(|column| column.name.clone()))
}

/// Whether an expression may mean the whole row of what is known by this name.
fn is_whole_row(query: &Query<'_>, known_as: &str) -> bool {
    let mut references = query.facts.references.iter();
    references.any(|reference| reference.column.name == known_as)
}

/// Whether the `*` at `index` stands for columns.
fn is_wildcard(query: &Query<'_>, index: usize) -> bool {
    let text = query.request.text;
    let next = query.tokens.get(index + 1);
    let before = index
        .checked_sub(1)
        .and_then(|index| query.tokens.get(index));
    let is_count = before.is_some_and(|token| token.is_symbol(text, "("))
        && next.is_some_and(|token| token.is_symbol(text, ")"));
    let ends = |token: &Token| {
        [",", ")", ";"]
            .iter()
            .any(|symbol| token.is_symbol(text, symbol))
            || BEHIND_WILDCARD.iter().any(|word| token.is_word(text, word))
    };
    !is_count && next.is_none_or(ends)
}

/// The tokens of schemas before tables before columns: `public.` of `public.orders.id`.
pub(in crate::plan) fn schemas(query: &Query<'_>) -> Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let text = query.request.text;
    for reference in &query.facts.references {
        if reference.column.qualifier.len() < 2 {
            continue;
        }
        let at = reference.offset.and_then(|offset| query.token_at(offset));
        let at = at.ok_or_else(|| refusal::differs("a column behind a schema"))?;
        let is_dot = |index: usize| {
            let token = query.tokens.get(index);
            token.is_some_and(|token| token.is_symbol(text, "."))
        };
        if reference.column.qualifier.len() != 2 || !is_dot(at + 1) || !is_dot(at + 3) {
            return Err(refusal::differs("a column behind a database"));
        }
        found.push(at..at + 2);
    }
    // `schema.table.*` is no reference.
    for (index, token) in query.tokens.iter().enumerate() {
        let is_dot = |distance: usize| {
            let token = index
                .checked_sub(distance)
                .and_then(|index| query.tokens.get(index));
            token.is_some_and(|token| token.is_symbol(text, "."))
        };
        if token.is_symbol(text, "*") && is_dot(1) && is_dot(3) {
            found.push(index.saturating_sub(4)..index.saturating_sub(2));
        }
    }
    Ok(found)
}
