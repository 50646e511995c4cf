//! The shard key where columns are assigned to.

use crate::catalog::Relation;
use crate::error::Result;
use crate::plan::refusal;

/// The columns of the shard key, for messages.
pub(super) fn key_names(relation: &Relation) -> String {
    let columns = relation.placement().map(|placement| placement.columns());
    let names: Vec<String> = columns
        .unwrap_or_default()
        .iter()
        .map(|column| format!("\"{}\"", column.name))
        .collect();
    names.join(", ")
}

/// Refuses assignments to the shard key.
pub(super) fn check_assigned(relation: &Relation, assigned: &[String]) -> Result<()> {
    let key = relation.placement().map(|placement| placement.columns());
    let moved = key
        .unwrap_or_default()
        .iter()
        .find(|column| assigned.contains(&column.name));
    match moved {
        Some(column) => Err(refusal::assigns_key(&relation.name, &column.name)),
        None => Ok(()),
    }
}
