//! `INSERT … SELECT`: which columns its rows have.

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::query::check_assigned;
use crate::sql::analysis::CastType;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Insert;
use crate::sql::analysis::ValueSource;

use super::Fed;
use super::Feed;
use super::FeedPlace;
use super::FeedValue;
use super::Kind;
use super::checked;
use super::feed_of;
use super::unfed;
use super::written::Written;

/// An `INSERT … SELECT`.
#[derive(Clone, Debug)]
pub(super) struct Inserting {
    pub written: Written,
    /// The columns that the statement lists.
    pub listed: Option<Vec<String>>,
    /// Columns of the query that are constants of an open type, and their tokens; NULL has none.
    pub constants: Vec<(usize, Option<usize>)>,
}

/// How an `INSERT … SELECT` is fed.
///
/// # Errors
/// `0A000` for one that can't be.
pub(super) fn inserting(
    query: &Query<'_>,
    (insert, cells): (&Insert, &[Cell]),
    relation: &Relation,
    written: Written,
) -> Result<Feed> {
    let (place, columns) = checked(query, relation)?;
    check_assigned(relation, &insert.conflict_assigns)?;
    // Into a replicated table the statement that stores rows is planned as any other.
    if !matches!(place, FeedPlace::Replicated) && is_bound(query, &written) {
        return Err(unfed(
            "Behind its rows it has a query, or a function whose value differs between servers.",
            "Compute it first, or leave it out of ON CONFLICT and RETURNING.",
        ));
    }
    if !query.facts.ctes.is_empty() && written.queries_behind(query) {
        return Err(unfed(
            "Behind its rows it has a query, which may name a query of its WITH.",
            "Write the rows' query with a WITH of its own, behind INSERT INTO.",
        ));
    }
    let inserting = Inserting {
        listed: insert.columns.clone(),
        constants: written.constants(query, cells),
        written,
    };
    Ok(feed_of(relation, (place, columns), Kind::Insert(inserting)))
}

/// Whether what stands behind the query depends on the server that it runs on: that has the rows of its own
/// tables and no others.
fn is_bound(query: &Query<'_>, written: &Written) -> bool {
    let behind = written.behind(query.tokens);
    let start = behind.first().map_or(u32::MAX, |token| token.start);
    let mut calls = query.facts.calls.iter().zip(&query.calls);
    let varies = calls.any(|(call, effects)| {
        let is_behind = call.offset.is_none_or(|at| at >= start);
        is_behind && effects.without(Effects::RANDOM) != Effects::NONE
    });
    !behind.is_empty() && (varies || written.queries_behind(query))
}

impl Feed {
    pub(super) fn inserted(&self, inserting: &Inserting, width: usize) -> Result<Vec<Fed>> {
        let names: Vec<&String> = match &inserting.listed {
            Some(listed) => listed.iter().collect(),
            None => self.columns.iter().map(|column| &column.name).collect(),
        };
        if width == 0 || width > names.len() {
            return Err(unfed(
                "The proxy can't tell which columns its query is for.",
                "List the columns of the table.",
            ));
        }
        let mut fed = Vec::with_capacity(names.len());
        for (column, name) in names.into_iter().take(width).enumerate() {
            let constant = inserting.constants.iter().find(|(at, _)| *at == column);
            let value = match constant {
                Some((_, token)) => FeedValue::Constant {
                    token: *token,
                    column,
                },
                None => FeedValue::Query(column),
            };
            fed.push(Fed {
                name: name.clone(),
                value,
            });
        }
        let FeedPlace::Sharded(placement) = &self.place else {
            return Ok(fed);
        };
        let is_key = |name: &String| placement.columns().iter().any(|key| key.name == *name);
        for column in &self.columns {
            let given = fed.iter().position(|fed| fed.name == column.name);
            let is_overridden = inserting.written.is_user && column.identity.is_some();
            let is_needed = column.draws
                || (is_key(&column.name) && column.has_default)
                || (column.varies && !column.generated);
            let value = match &column.sequence {
                Some(sequence) => FeedValue::Number(sequence.clone()),
                None => FeedValue::Default,
            };
            match given.and_then(|at| fed.get_mut(at)) {
                Some(given) if is_overridden => given.value = value,
                Some(_) => {}
                None if is_needed => fed.push(Fed {
                    name: column.name.clone(),
                    value,
                }),
                None => {}
            }
        }
        Ok(fed)
    }
}

/// Whether a cell of a query is a constant whose type is open.
pub(super) fn is_open(cell: &Cell) -> Option<ValueSource> {
    match cell {
        Cell::Value(value) if value.cast == CastType::None => Some(value.source),
        _ => None,
    }
}
