//! The pseudo-column `shard_id`, the name of the shard that holds a row: where a statement names it.
//!
//! Every sharded table has it that has no column of that name, outside `*`. Each mention becomes a call
//! of `shardwire.shard_id()`, which every shard answers with its own name, and the text that this makes
//! is planned in place of the client's. So the shards are still asked with one text, and their rows are
//! merged like any others: [`super::effects::Effects::SHARD`] says that rows of two shards differ in it.

use std::ops::Range;

use crate::catalog::Location;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::bind::BoundSource;
use crate::plan::own::tokens_of as tokens_in;
use crate::plan::query::Query;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Column;
use crate::sql::analysis::Reference;
use crate::sql::analysis::Source;
use crate::sql::analysis::SourceKind;
use crate::sql::literal::identifier_value;
use crate::sql::splice::Edit;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

/// Its name.
pub const NAME: &str = "shard_id";

/// What stands in its place. Names of shards are ordered by their bytes on every shard; the result
/// column keeps the name, as PostgreSQL names it after the function.
const REPLACEMENT: &str = "(shardwire.shard_id() COLLATE \"C\")";

/// Tokens of a statement, and what stands in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The tokens, by index.
    pub(super) tokens: Range<usize>,
    /// What stands there.
    pub(super) text: Box<str>,
    /// It is a view's definition.
    pub(super) is_view: bool,
}

impl Replacement {
    /// The edit of a text with these tokens.
    pub(super) fn edit(&self, tokens: &[Token]) -> Option<Edit> {
        let replaced = tokens.get(self.tokens.clone())?;
        let (first, last) = (replaced.first()?, replaced.last()?);
        Some(Edit {
            range: first.start..last.end,
            text: self.text.clone().into(),
        })
    }
}

/// The place of each mention, in order.
///
/// # Errors
/// `0A000` if a name could also be that of a column of the answer.
pub(super) fn find(query: &Query<'_>) -> Result<Vec<Replacement>> {
    let references = query.facts.references.iter();
    let named: Vec<&Reference> = references
        .filter(|reference| reference.column.name == NAME)
        .collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut others: Vec<Range<usize>> = Vec::new();
    let mut is_bare = false;
    for reference in named {
        let Some(tokens) = tokens_of(query, reference) else {
            continue;
        };
        if is_pseudo(query, reference.block, &reference.column) {
            is_bare |= reference.column.qualifier.is_empty();
            found.push(tokens);
        } else {
            others.push(tokens);
        }
    }
    found.sort_by_key(|tokens| tokens.start);
    found.dedup();
    others.extend_from_slice(&found);
    if is_bare && is_alias(query, &others) {
        return Err(Error::refused(
            "the name \"shard_id\" could mean two things",
            "It is the name of the shard that holds a row, and the statement gives it to something else.",
            "Use another alias, or write the table's name before it.",
        ));
    }
    let replacements = found.into_iter().map(|tokens| Replacement {
        tokens,
        text: REPLACEMENT.into(),
        is_view: false,
    });
    Ok(replacements.collect())
}

/// The edits of a text of a plan's shape that put what is meant in the place of each mention.
///
/// # Errors
/// What PostgreSQL's scanner would say.
pub fn edits(plan: &Plan, text: &str, lex: LexOptions) -> Result<Vec<Edit>> {
    if plan.pseudo.is_empty() {
        return Ok(Vec::new());
    }
    let tokens = tokens_in(text, lex)?;
    let edits = plan.pseudo.iter();
    Ok(edits.filter_map(|mention| mention.edit(&tokens)).collect())
}

/// Whether a name in a block means the pseudo-column.
fn is_pseudo(query: &Query<'_>, block: BlockId, column: &Column) -> bool {
    let mut block = block;
    let mut visible = column.visible.clone();
    // Blocks stand behind those around them, so this ends.
    while let Some(facts) = query.facts.blocks.get(block) {
        let sources = visible.filter_map(|index| {
            let bound = query.bound.source(block, index)?;
            Some((facts.sources.get(index)?, bound))
        });
        let mut sources = sources.filter(|(source, _)| is_named(source, &column.qualifier));
        let first = sources.next();
        if column.qualifier.is_empty() {
            let mut all = first.into_iter().chain(sources).map(has_pseudo);
            match all.try_fold(false, |any, has| has.map(|has| any | has)) {
                // A column of this name may be there.
                None => return false,
                Some(true) => return true,
                Some(false) => {}
            }
        } else if let Some(first) = first {
            return sources.next().is_none() && has_pseudo(first) == Some(true);
        }
        match &facts.outer {
            Some(outer) if outer.block < block => {
                block = outer.block;
                visible = outer.visible.clone();
            }
            _ => return false,
        }
    }
    false
}

/// Whether a qualifier names a source; none names all.
fn is_named(source: &Source, qualifier: &[String]) -> bool {
    let name = match (&source.alias, &source.kind) {
        (Some(alias), _) => Some(alias),
        (None, SourceKind::Relation(name)) => Some(&name.name),
        (None, SourceKind::Query(_) | SourceKind::Opaque) => None,
    };
    match qualifier {
        [] => true,
        [table] => name == Some(table),
        [schema, table] => match &source.kind {
            SourceKind::Relation(relation) => {
                source.alias.is_none()
                    && relation.name == *table
                    && relation
                        .schema
                        .as_ref()
                        .is_none_or(|written| written == schema)
            }
            SourceKind::Query(_) | SourceKind::Opaque => false,
        },
        _ => false,
    }
}

/// Whether a source has the pseudo-column; none if it may have a column of that name.
fn has_pseudo((source, bound): (&Source, BoundSource<'_>)) -> Option<bool> {
    let is_name = |name: &String| name == NAME;
    if source.hidden || source.columns.iter().any(is_name) || source.alias.iter().any(is_name) {
        return None;
    }
    let relation = bound.relation()?;
    if relation.name == NAME || relation.columns.iter().any(|column| column.name == NAME) {
        return None;
    }
    Some(matches!(relation.location, Location::Sharded(_)))
}

/// The tokens of a name and of what qualifies it.
pub(super) fn tokens_of(query: &Query<'_>, reference: &Reference) -> Option<Range<usize>> {
    let offset = reference.offset?;
    let start = query.tokens.partition_point(|token| token.start < offset);
    let end = start + 2 * reference.column.qualifier.len() + 1;
    let last = query.tokens.get(end.checked_sub(1)?)?;
    let name = identifier_value(query.request.text, last)?;
    (name == reference.column.name).then_some(start..end)
}

/// Whether the name stands where it is none of the mentions of a column, nor the name of a function.
fn is_alias(query: &Query<'_>, mentions: &[Range<usize>]) -> bool {
    let text = query.request.text;
    query.tokens.iter().enumerate().any(|(index, token)| {
        let is_name = identifier_value(text, token).is_some_and(|name| name == NAME);
        let next = query.tokens.get(index + 1);
        is_name
            && !next.is_some_and(|next| next.is_symbol(text, "("))
            && !mentions.iter().any(|tokens| tokens.contains(&index))
    })
}
