//! The columns that a select list gives, wildcards expanded.

use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::TableColumn;
use crate::plan::query::Query;
use crate::sql::analysis::Block;
use crate::sql::analysis::Column;
use crate::sql::analysis::Source;
use crate::sql::analysis::SourceKind;
use crate::sql::analysis::outline::Form;
use crate::sql::analysis::outline::Outline;
use crate::sql::literal::quote_identifier;

use super::edit::Piece;
use super::order::Meant;

/// The columns of a select list.
pub(super) struct List {
    pub columns: Vec<ListColumn>,
}

/// A column of a select list.
#[derive(Clone)]
pub(super) struct ListColumn {
    /// Its name, if it is known.
    pub label: Option<String>,
    /// Its expression.
    pub pieces: Vec<Piece>,
    pub form: Form,
}

impl ListColumn {
    /// What a key that names it means.
    pub fn meant(&self) -> Meant {
        Meant {
            pieces: self.pieces.clone(),
            form: self.form.clone(),
            name: self.label.clone().unwrap_or_else(|| "a column".to_owned()),
        }
    }
}

impl List {
    /// None if a wildcard's columns are not known.
    pub fn new(query: &Query<'_>, outline: &Outline) -> Option<List> {
        let mut columns = Vec::new();
        for item in &outline.items {
            match &item.expression.form {
                Form::Wildcard => columns.extend(expanded(query, &[])?),
                Form::WildcardOf(qualifier) => columns.extend(expanded(query, qualifier)?),
                // `(u).*` is as many columns as its type has.
                _ if ends_in_wildcard(query, &item.expression.tokens) => return None,
                form => columns.push(ListColumn {
                    label: item.label.clone(),
                    pieces: vec![Piece::Copy(item.expression.tokens.clone())],
                    form: form.clone(),
                }),
            }
        }
        Some(List { columns })
    }

    /// The column that a bare name in `ORDER BY` means: the outer none if that is not known, the
    /// inner if it is none of these.
    pub fn named(&self, name: &str) -> Option<Option<&ListColumn>> {
        let label = |column: &&ListColumn| column.label.as_deref() == Some(name);
        match self.columns.iter().find(label) {
            // If another column has the name too, PostgreSQL says so.
            Some(column) => Some(Some(column)),
            None if self.columns.iter().any(|column| column.label.is_none()) => None,
            None => Some(None),
        }
    }
}

/// Whether the last of some tokens of the query is the `*` of `.*`.
fn ends_in_wildcard(query: &Query<'_>, tokens: &Range<usize>) -> bool {
    let tokens = query.body.get(tokens.clone()).unwrap_or_default();
    let text = query.request.text;
    match tokens {
        [.., dot, star] => dot.is_symbol(text, ".") && star.is_symbol(text, "*"),
        _ => false,
    }
}

/// The columns of `*` or `qualifier.*`.
fn expanded(query: &Query<'_>, qualifier: &[String]) -> Option<Vec<ListColumn>> {
    let top = query.facts.top;
    let block = query.facts.blocks.get(top)?;
    let mut columns = Vec::new();
    let mut found = 0;
    // Merged columns come first, and once.
    if qualifier.is_empty() && !block.merges.is_empty() {
        return None;
    }
    for (index, source) in block.sources.iter().enumerate() {
        let name = name_of(block, source)?;
        match qualifier {
            [] => {}
            [table] if table == name => found += 1,
            [_] => continue,
            _ => return None,
        }
        let names = match query.bound.source(top, index)?.relation() {
            Some(relation) => relation.columns.iter().map(column_name).collect(),
            None => distinct(query.bound.names_of(top, index)?)?,
        };
        for (number, known) in names.iter().enumerate() {
            let label = source.columns.get(number).unwrap_or(known);
            let written = format!("{}.{}", quote_identifier(name), quote_identifier(label));
            columns.push(ListColumn {
                label: Some(label.clone()),
                pieces: vec![Piece::Text(written.into())],
                form: Form::Column(Column {
                    qualifier: vec![name.to_owned()],
                    name: label.clone(),
                    visible: 0..usize::MAX,
                }),
            });
        }
    }
    (qualifier.is_empty() || found == 1).then_some(columns)
}

fn column_name(column: &TableColumn) -> String {
    column.name.clone()
}

/// Names that each mean one column; none if two are alike.
fn distinct(names: Vec<String>) -> Option<Vec<String>> {
    let known: HashSet<&String> = names.iter().collect();
    (known.len() == names.len()).then_some(names)
}

/// The name of a source in its block; none if it is not visible.
fn name_of<'a>(block: &Block, source: &'a Source) -> Option<&'a str> {
    // A `*` of an aliased join has no merges of its own here.
    if source.hidden || block.sources.iter().any(|source| source.hidden) {
        return None;
    }
    match (&source.alias, &source.kind) {
        (Some(alias), _) => Some(alias),
        (None, SourceKind::Relation(name)) => Some(&name.name),
        (None, SourceKind::Query(_) | SourceKind::Opaque) => None,
    }
}
