//! Terms of conditions that the shards can check before they send rows.

use std::ops::Range;

use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Conjunction;
use crate::sql::analysis::JoinKind;
use crate::sql::analysis::Term;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Words that end a `WHERE`.
const BEHIND_WHERE: [&str; 12] = [
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "intersect",
    "except",
    "returning",
];

/// Words that end an `ON`, unless a parenthesis follows: `left` and `right` are functions too.
const BEHIND_ON: [&str; 8] = [
    "join", "inner", "left", "right", "full", "cross", "natural", "on",
];

/// Words of the grammar whose meaning is the same everywhere.
const GRAMMAR: [&str; 73] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "true",
    "false",
    "unknown",
    "between",
    "symmetric",
    "asymmetric",
    "like",
    "ilike",
    "similar",
    "to",
    "escape",
    "case",
    "when",
    "then",
    "else",
    "end",
    "distinct",
    "from",
    "any",
    "some",
    "all",
    "array",
    "row",
    "cast",
    "as",
    "interval",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "timetz",
    "with",
    "without",
    "zone",
    "at",
    "extract",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "epoch",
    "dow",
    "isodow",
    "doy",
    "quarter",
    "week",
    "substring",
    "for",
    "trim",
    "both",
    "leading",
    "trailing",
    "position",
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "numeric",
    "decimal",
    "integer",
    "bigint",
    "text",
    "double",
    "precision",
    "varying",
];

/// Operators that PostgreSQL has; those that users make may be anything.
const OPERATORS: [&str; 42] = [
    "=", "<>", "!=", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "^", "||", "~", "!~", "~*",
    "!~*", "~~", "!~~", "~~*", "!~~*", "->", "->>", "#>", "#>>", "@>", "<@", "&&", "?", "?|", "?&",
    "&", "|", "#", "<<", ">>", "&<", "&>", "-|-", "@@", "^@",
];

/// The terms of a statement's conditions, by their tokens.
pub(in crate::plan) struct Terms {
    /// For each conjunction of the facts the tokens of its terms; none if they are not known.
    ranges: Vec<Option<Vec<Range<usize>>>>,
}

impl Terms {
    pub fn of(query: &Query<'_>) -> Terms {
        // What has no place in the text might be taken for a word of the grammar.
        let mut references = query.facts.references.iter();
        if references.any(|reference| reference.offset.is_none()) {
            return Terms { ranges: Vec::new() };
        }
        let clauses: Vec<Vec<Range<usize>>> = (0..query.facts.blocks.len())
            .map(|block| clauses(query, block))
            .collect();
        let conjunctions = query.facts.conjunctions.iter();
        let ranges = conjunctions.map(|conjunction| {
            let clauses = clauses.get(conjunction.block)?;
            clauses
                .iter()
                .map(|clause| split(query, clause.clone()))
                .find(|ranges| fits(query, conjunction, ranges))
        });
        Terms {
            ranges: ranges.collect(),
        }
    }

    /// The terms that the shards can check for one occurrence.
    pub fn pushed(&self, query: &Query<'_>, at: (BlockId, usize)) -> Vec<Range<usize>> {
        let mut pushed = Vec::new();
        let conjunctions = query.facts.conjunctions.iter().zip(&self.ranges);
        for (conjunction, ranges) in conjunctions.filter(|(one, _)| one.block == at.0) {
            let Some(ranges) = ranges else { continue };
            let applies = conjunction
                .restricts
                .as_ref()
                .is_none_or(|sources| sources.contains(&at.1));
            if !applies {
                continue;
            }
            let must_be_strict = is_nullable(query, conjunction, at);
            for (term, range) in conjunction.terms.iter().zip(ranges) {
                let reads = reads_only(query, range, at);
                let passes = match reads {
                    Reads::Only => !must_be_strict || is_strict(query, term, at),
                    // True or not of all rows of the block at once.
                    Reads::Nothing => conjunction.restricts.is_none(),
                    Reads::More => false,
                };
                if passes {
                    pushed.push(range.clone());
                }
            }
        }
        pushed
    }
}

/// Whether two lists of terms are the same in all texts of the shape.
pub(super) fn alike(
    query: &Query<'_>,
    tokens: &[Token],
    (one, other): (&[Range<usize>], &[Range<usize>]),
) -> bool {
    let text = query.request.text;
    let words = |ranges: &[Range<usize>]| {
        let ranges = ranges.iter();
        ranges
            .map(|range| tokens.get(range.clone()).unwrap_or_default())
            .map(|tokens| {
                let words = tokens.iter().map(|token| token.text(text));
                words.collect::<Vec<&str>>()
            })
            .collect::<Vec<_>>()
    };
    let is_constant = |token: &Token| token.kind.is_literal();
    let has_constants = one.iter().any(|range| {
        let tokens = tokens.get(range.clone()).unwrap_or_default();
        tokens.iter().any(is_constant)
    });
    !has_constants && words(one) == words(other)
}

/// The tokens of the `WHERE` and of the `ON`s of a block that stand in no parentheses of its own.
fn clauses(query: &Query<'_>, block: BlockId) -> Vec<Range<usize>> {
    let text = query.request.text;
    let Some(facts) = query.facts.blocks.get(block) else {
        return Vec::new();
    };
    // The statement itself has no SELECT if it changes rows; a WITH before it stands in parentheses.
    let first = match facts.kind.modifies() {
        true => query.body.first().map(|token| token.start),
        false => facts.select,
    };
    let Some(select) = first.and_then(|offset| query.token_at(offset)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut open: Option<usize> = None;
    let mut depth = 0_usize;
    let mut in_where = false;
    let tokens = query.tokens;
    for (index, token) in tokens.iter().enumerate().skip(select + 1) {
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" | "]" if depth == 0 => {
                found.extend(open.map(|start| start..index));
                return found;
            }
            ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth > 0 || token.kind != TokenKind::Word && token.text(text) != "," {
            continue;
        }
        let is = |word: &&str| token.is_word(text, word);
        let before_parenthesis = tokens
            .get(index + 1)
            .is_some_and(|next| next.is_symbol(text, "("));
        let is_where = is(&"where");
        let is_on = is(&"on") && !preceded(query, index, "distinct");
        let ends_where = BEHIND_WHERE.iter().any(&is);
        let ends_on = is_where
            || ends_where
            || token.is_symbol(text, ",")
            || (BEHIND_ON.iter().any(is) && (is_on || !before_parenthesis));
        if ends_where || (ends_on && !in_where) {
            found.extend(open.take().map(|start| start..index));
        }
        if ends_where {
            return found;
        }
        if is_where || (is_on && !in_where) {
            in_where |= is_where;
            open = Some(index + 1);
        }
    }
    found.extend(open.map(|start| start..tokens.len()));
    found
}

fn preceded(query: &Query<'_>, index: usize, word: &str) -> bool {
    let before = index
        .checked_sub(1)
        .and_then(|index| query.tokens.get(index));
    before.is_some_and(|token| token.is_word(query.request.text, word))
}

/// Splits a condition at the `AND`s that join its terms.
fn split(query: &Query<'_>, clause: Range<usize>) -> Vec<Range<usize>> {
    let text = query.request.text;
    let tokens = query.tokens.get(clause.clone()).unwrap_or_default();
    let mut terms = Vec::new();
    let (mut depth, mut betweens, mut start) = (0_usize, 0_usize, clause.start);
    for (index, token) in (clause.start..).zip(tokens) {
        let is = |word: &str| token.is_word(text, word);
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ if is("case") => depth += 1,
            _ if is("end") => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            // All of it is one term then.
            _ if is("or") => return std::iter::once(clause).collect(),
            _ if is("between") => betweens += 1,
            _ if is("and") && betweens > 0 => betweens -= 1,
            _ if is("and") => {
                terms.push(start..index);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(start..clause.end);
    terms
}

/// Whether the parser has found the same terms.
fn fits(query: &Query<'_>, conjunction: &Conjunction, ranges: &[Range<usize>]) -> bool {
    conjunction.terms.len() == ranges.len()
        && conjunction.terms.iter().zip(ranges).all(|(term, range)| {
            let at = term.offset.and_then(|offset| query.token_at(offset));
            at.is_some_and(|at| range.contains(&at))
        })
}

/// What a term reads.
enum Reads {
    /// Nothing but one occurrence.
    Only,
    /// No column at all.
    Nothing,
    /// Something else, or what is not known.
    More,
}

/// What a term reads, every word of which must be known.
fn reads_only(query: &Query<'_>, range: &Range<usize>, at: (BlockId, usize)) -> Reads {
    let text = query.request.text;
    let Some(tokens) = query.tokens.get(range.clone()) else {
        return Reads::More;
    };
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return Reads::More;
    };
    let bytes = first.start..last.end;
    let mut known = vec![false; tokens.len()];
    let mut reads = Reads::Nothing;
    for reference in &query.facts.references {
        let Some(offset) = reference.offset.filter(|offset| bytes.contains(offset)) else {
            continue;
        };
        let column = query.bound.resolve(reference.block, &reference.column);
        let is_own = column.is_some_and(|column| (column.block, column.source) == at);
        if !is_own || reference.column.qualifier.len() > 1 {
            return Reads::More;
        }
        reads = Reads::Only;
        note(
            query,
            range,
            (offset, reference.column.qualifier.len()),
            &mut known,
        );
    }
    for (call, effects) in query.facts.calls.iter().zip(&query.calls) {
        let Some(offset) = call.offset.filter(|offset| bytes.contains(offset)) else {
            continue;
        };
        if *effects != Effects::NONE || call.name.schema.is_some() {
            return Reads::More;
        }
        note(query, range, (offset, 0), &mut known);
    }
    let is_known = |(index, token): (usize, &Token)| {
        known.get(index).copied().unwrap_or(false)
            || match token.kind {
                TokenKind::Word => {
                    let after_cast = index
                        .checked_sub(1)
                        .and_then(|before| tokens.get(before))
                        .is_some_and(|before| before.is_symbol(text, "::"));
                    (after_cast && !is_object_id(token.text(text)))
                        || GRAMMAR.iter().any(|word| token.is_word(text, word))
                }
                TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier => false,
                TokenKind::Operator => OPERATORS.contains(&token.text(text)),
                _ => true,
            }
    };
    match tokens.iter().enumerate().all(is_known) {
        true => reads,
        false => Reads::More,
    }
}

/// Whether a type's values mean another object on each server.
fn is_object_id(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "oid" || name.starts_with("reg")
}

/// Marks the tokens of a name with this many qualifiers as known.
fn note(query: &Query<'_>, range: &Range<usize>, name: (u32, usize), known: &mut [bool]) {
    let (offset, qualifiers) = name;
    let at = query.token_at(offset).unwrap_or(range.start);
    for part in 0..=qualifiers {
        let index = at.saturating_sub(range.start) + 2 * part;
        if let Some(known) = known.get_mut(index) {
            *known = true;
        }
    }
}

/// Whether an outer join below the condition may have null-extended the occurrence.
fn is_nullable(query: &Query<'_>, conjunction: &Conjunction, at: (BlockId, usize)) -> bool {
    let Some(block) = query.facts.blocks.get(at.0) else {
        return true;
    };
    block.outer_joins.iter().any(|join| {
        let sides = match join.join {
            JoinKind::Left => [Some(&join.right), None],
            JoinKind::Right => [Some(&join.left), None],
            JoinKind::Full => [Some(&join.left), Some(&join.right)],
            JoinKind::Inner => [None, None],
        };
        // The join's own condition says which rows take part in it.
        let is_own = |side: &&std::ops::Range<usize>| conjunction.restricts.as_ref() == Some(*side);
        let mut sides = sides.into_iter().flatten();
        sides.any(|side| side.contains(&at.1) && (join.join == JoinKind::Full || !is_own(&side)))
    })
}

/// Whether a term is untrue where the occurrence is null-extended.
fn is_strict(query: &Query<'_>, term: &Term, at: (BlockId, usize)) -> bool {
    term.strict.iter().any(|column| {
        let column = query.bound.resolve(at.0, column);
        column.is_some_and(|column| (column.block, column.source) == at)
    })
}
