//! `INSERT` without a list of columns: the list that it stands for.
//!
//! Which value of a row is its key depends on the order of the table's columns. Another proxy may have changed
//! them a moment ago; so the shards are sent the columns that the plan went by, and reject them rather than
//! store a row where it does not belong.

use crate::error::Result;
use crate::plan::Plan;
use crate::plan::bind::BoundSource;
use crate::plan::own::tokens_of;
use crate::plan::query::Query;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Rows;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;

/// A list of columns, and the token behind which it is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    token: usize,
    list: Box<str>,
}

/// The lists of a statement's INSERTs into sharded tables that have none.
pub(in crate::plan) fn find(query: &Query<'_>) -> Box<[Listed]> {
    if query.request.catalog.shards().len() == 1 {
        return Box::default();
    }
    let blocks = query.facts.blocks.iter().enumerate();
    blocks
        .filter_map(|(at, block)| list(query, at, block))
        .collect()
}

fn list(query: &Query<'_>, at: usize, block: &Block) -> Option<Listed> {
    let BlockKind::Insert(insert) = &block.kind else {
        return None;
    };
    let (None, Rows::Values(rows)) = (&insert.columns, &insert.rows) else {
        return None;
    };
    let relation = query.bound.source(at, 0).and_then(BoundSource::relation)?;
    relation.placement()?;
    let source = block.sources.first()?;
    let text = query.request.text;
    let mut token = query.name_tokens(source)?.end - 1;
    let next = query.tokens.get(token + 1)?;
    if next.is_word(text, "as") {
        token += 2;
    }
    let next = query.tokens.get(token + 1)?;
    if !next.is_word(text, "values") && !next.is_word(text, "overriding") {
        return None;
    }
    let columns = relation.columns.iter().take(rows.first()?.len());
    let names: Vec<String> = columns
        .map(|column| quote_identifier(&column.name))
        .collect();
    Some(Listed {
        token,
        list: format!(" ({})", names.join(", ")).into(),
    })
}

/// The edits that put the lists into a text of a plan's shape.
///
/// # Errors
/// What PostgreSQL's scanner would say.
pub fn edits(plan: &Plan, text: &str, lex: LexOptions) -> Result<Vec<Edit>> {
    if plan.listed.is_empty() {
        return Ok(Vec::new());
    }
    let tokens = tokens_of(text, lex)?;
    let edits = plan.listed.iter().filter_map(|listed| {
        let end = tokens.get(listed.token)?.end;
        Some(Edit {
            range: end..end,
            text: listed.list.clone().into(),
        })
    });
    Ok(edits.collect())
}
