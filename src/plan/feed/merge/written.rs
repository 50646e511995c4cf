//! Where the parts of a MERGE stand, by its tokens.

use std::ops::Range;

use crate::plan::feed::written::closing;
use crate::plan::query::Query;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::SourceKind;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;

/// The parts, as tokens of the whole statement.
pub(super) struct Written {
    /// `WITH` and its queries; empty if there is none.
    pub with: Range<usize>,
    /// What stands between `USING` and `ON`.
    pub source: Range<usize>,
    /// The name by which the statement knows the source.
    pub name: String,
    /// The end of the list of columns, `VALUES`, and the end of the row of each INSERT.
    pub inserts: Vec<(Option<usize>, usize, usize)>,
}

impl Written {
    pub fn read(query: &Query<'_>, block: BlockId) -> Option<Written> {
        let text = query.request.text;
        let tokens = query.tokens;
        let first = query.body.first()?.start;
        let base = tokens.partition_point(|token| token.start < first);
        let outside = outside(text, tokens, base);
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|one| one.is_word(text, word));
        let after = |from: usize, word: &str| {
            let mut found = outside.iter().copied();
            found.find(|at| *at >= from && is(*at, word))
        };
        let merge = after(base, "merge").filter(|at| is(at + 1, "into"))?;
        if merge != base && !is(base, "with") {
            return None;
        }
        let using = after(merge, "using")?;
        let on = after(using, "on")?;
        let mut inserts = Vec::new();
        for at in outside.iter().copied().filter(|at| *at > on) {
            if !is(at, "then") || !is(at + 1, "insert") {
                continue;
            }
            let values = after(at, "values")?;
            let closed = |open: usize| {
                let is_open = tokens.get(open)?.is_symbol(text, "(");
                is_open.then(|| closing(text, tokens, open))?
            };
            let list = closed(at + 2);
            inserts.push((list, values, closed(values + 1)?));
        }
        let source = using + 1..on;
        let facts = query.facts.blocks.get(block)?.sources.get(1)?;
        let name = match (&facts.alias, &facts.kind) {
            (Some(alias), _) => alias.clone(),
            (None, SourceKind::Relation(name)) => name.name.clone(),
            (None, SourceKind::Opaque | SourceKind::Query(_)) if source.len() == 1 => {
                identifier_value(text, tokens.get(source.start)?)?.into_owned()
            }
            (None, SourceKind::Opaque | SourceKind::Query(_)) => return None,
        };
        Some(Written {
            with: base..merge,
            source,
            name,
            inserts,
        })
    }
}

/// The tokens from `base` on that stand in no parentheses and in no CASE.
fn outside(text: &str, tokens: &[Token], base: usize) -> Vec<usize> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().skip(base) {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let is_name = before.is_some_and(|one| one.is_symbol(text, "."));
        let opens = token.is_symbol(text, "(")
            || token.is_symbol(text, "[")
            || (!is_name && token.is_word(text, "case"));
        let closes = token.is_symbol(text, ")")
            || token.is_symbol(text, "]")
            || (!is_name && token.is_word(text, "end"));
        if closes {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 && !opens && !closes && !is_name {
            found.push(at);
        }
        depth += usize::from(opens);
    }
    found
}
