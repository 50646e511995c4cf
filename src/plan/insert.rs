//! `INSERT` into sharded tables: the key of each row.

use std::sync::Arc;

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::keyed::Part;
use crate::plan::keyed::Proof;
use crate::plan::proof::Prover;
use crate::plan::query::check_assigned;
use crate::plan::refusal;
use crate::sharding::KeyColumn;
use crate::sharding::KeyUse;
use crate::sql::analysis::Cell;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;

/// Adds a proof for each row of an `INSERT`.
///
/// # Errors
/// Why the rows' shards can't be known.
pub(super) fn prove(
    relation: &Relation,
    insert: &Insert,
    prover: &Prover<'_>,
    proofs: &mut Vec<Proof>,
) -> Result<()> {
    check_assigned(relation, &insert.conflict_assigns)?;
    if insert.overriding_user {
        return Err(refusal::overriding(&relation.name));
    }
    check_sequences(relation, insert)?;
    let rows: &[Vec<Cell>] = match &insert.rows {
        Rows::Default => &[Vec::new()],
        Rows::Values(rows) => rows,
        // All rows have the values of the select list.
        Rows::Query(cells) => std::slice::from_ref(cells),
    };
    let from_query = matches!(insert.rows, Rows::Query(_));
    for row in rows {
        proofs.push(prove_row(relation, insert, row, from_query, prover)?);
    }
    Ok(())
}

fn prove_row(
    relation: &Relation,
    insert: &Insert,
    row: &[Cell],
    from_query: bool,
    prover: &Prover<'_>,
) -> Result<Proof> {
    let computed = |key: &KeyColumn| refusal::computed_key(&relation.name, &key.name);
    let missing = |key: &KeyColumn| refusal::missing_key(&relation.name, &key.name);
    let placement = relation
        .placement()
        .ok_or_else(|| refusal::unserved(&relation.name, "it is not sharded"))?;
    let mut parts = Vec::with_capacity(placement.columns().len());
    for key in placement.columns() {
        let position = match &insert.columns {
            Some(columns) => columns.iter().position(|column| *column == key.name),
            None => relation.column(&key.name).map(|(position, _)| position),
        };
        let position = position.ok_or_else(|| missing(key))?;
        let value = match row.get(position) {
            Some(Cell::Value(value)) => value,
            Some(Cell::Default) => return Err(missing(key)),
            Some(Cell::Computed) => return Err(computed(key)),
            // The select list ends where its columns can't be counted any more.
            None if from_query => return Err(computed(key)),
            None => return Err(missing(key)),
        };
        let value = prover
            .value(value, key.column_type.key_type)
            .ok_or_else(|| computed(key))?;
        parts.push(Part {
            column: key.column_type,
            values: Box::new([value]),
        });
    }
    Ok(Proof {
        table: relation.name.clone(),
        placement: Arc::clone(placement),
        parts: parts.into_boxed_slice(),
        use_: KeyUse::Store,
        optional: from_query,
    })
}

/// Refuses rows that leave a column to a sequence: each shard has its own.
fn check_sequences(relation: &Relation, insert: &Insert) -> Result<()> {
    for (index, column) in relation.columns.iter().enumerate() {
        if !column.sequence_default {
            continue;
        }
        let position = match &insert.columns {
            Some(columns) => columns.iter().position(|name| *name == column.name),
            None => Some(index),
        };
        let given = position.is_some_and(|position| match &insert.rows {
            Rows::Default => false,
            Rows::Values(rows) => rows
                .iter()
                .all(|row| !matches!(row.get(position), None | Some(Cell::Default))),
            // With a column list the select list is as long as it.
            Rows::Query(cells) => insert.columns.is_some() || position < cells.len(),
        });
        if !given {
            return Err(refusal::sequence_default(&relation.name, &column.name));
        }
    }
    Ok(())
}
