//! What is unwise or impossible about keys, indexes and foreign keys over several shards.
//!
//! Advice is a function of the catalogue alone, so that a definition and `shardwire check` say the same. A
//! piece of advice is known by its code and the object it is about: a definition tells what is new.

use std::collections::HashMap;

use crate::catalog::Catalog;
use crate::catalog::Location;
use crate::catalog::RawCatalog;
use crate::catalog::RawForeignKey;
use crate::catalog::RawIndex;
use crate::catalog::RawRelation;
use crate::sharding::KeyType;
use crate::sharding::Placement;

/// How much a piece of advice weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdviceLevel {
    /// Everything works, but some statements go to every shard.
    Notice,
    /// Something holds on each shard only, or the load will be uneven.
    Warning,
    /// It can't be kept, and is refused.
    Error,
}

/// What a piece of advice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdviceCode {
    /// A range key that grows: all new rows go to one shard.
    HotSpot,
    /// A key of few values: few shards have rows.
    LowCardinality,
    /// An index without the shard key.
    IndexWithoutKey,
    /// A unique index without the shard key.
    UniqueWithoutKey,
    /// A foreign key whose rows are on different shards.
    ForeignKey,
}

impl AdviceCode {
    /// As users see it; stable.
    pub fn as_str(self) -> &'static str {
        match self {
            AdviceCode::HotSpot => "SW101",
            AdviceCode::LowCardinality => "SW102",
            AdviceCode::IndexWithoutKey => "SW103",
            AdviceCode::UniqueWithoutKey => "SW104",
            AdviceCode::ForeignKey => "SW105",
        }
    }

    /// How much it weighs.
    pub fn level(self) -> AdviceLevel {
        match self {
            AdviceCode::IndexWithoutKey => AdviceLevel::Notice,
            AdviceCode::HotSpot | AdviceCode::LowCardinality | AdviceCode::UniqueWithoutKey => {
                AdviceLevel::Warning
            }
            AdviceCode::ForeignKey => AdviceLevel::Error,
        }
    }
}

/// A piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it is about.
    pub code: AdviceCode,
    /// The OID of the object.
    pub object: u32,
    /// The table, as `schema.name`.
    pub table: String,
    /// What is so: lower case, no full stop.
    pub message: String,
    /// What follows from it, in whole sentences.
    pub detail: String,
    /// What to do, in whole sentences.
    pub hint: &'static str,
}

impl Advice {
    /// Whether it is the same advice about the same object.
    pub fn is_same(&self, other: &Advice) -> bool {
        self.code == other.code && self.object == other.object
    }
}

/// Everything there is to say about a catalogue that was built from these rows.
pub fn advice(raw: &RawCatalog, catalog: &Catalog) -> Vec<Advice> {
    let tables: HashMap<u32, Table<'_>> = raw
        .relations
        .iter()
        .zip(catalog.relations())
        .map(|(row, relation)| {
            let location = &relation.location;
            (row.oid, Table { row, location })
        })
        .collect();
    let mut all = Vec::new();
    for row in &raw.relations {
        if let Some((table, placement)) = tables.get(&row.oid).and_then(Table::sharded) {
            all.extend(of_key(table, placement));
        }
    }
    for index in &raw.indexes {
        if let Some((table, placement)) = tables.get(&index.table).and_then(Table::sharded) {
            all.extend(of_index(table, placement, index));
        }
    }
    for key in &raw.foreign_keys {
        let both = tables.get(&key.table).zip(tables.get(&key.referenced));
        all.extend(both.and_then(|(table, referenced)| of_foreign_key(table, referenced, key)));
    }
    all
}

struct Table<'a> {
    row: &'a RawRelation,
    location: &'a Location,
}

impl<'a> Table<'a> {
    /// Itself and its placement, if it is sharded, and not merely a part of a sharded table.
    fn sharded(&self) -> Option<(&'a RawRelation, &'a Placement)> {
        match self.location {
            Location::Sharded(placement) if self.row.parent.is_none() => {
                Some((self.row, placement))
            }
            _ => None,
        }
    }

    fn name(&self) -> String {
        name(self.row)
    }
}

fn name(row: &RawRelation) -> String {
    format!("{}.{}", row.schema, row.name)
}

fn key_of(placement: &Placement) -> String {
    let names = placement
        .columns()
        .iter()
        .map(|column| column.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn of_key(row: &RawRelation, placement: &Placement) -> Option<Advice> {
    let [column] = placement.columns() else {
        return None;
    };
    let key_type = column.column_type.key_type;
    let is_time = matches!(
        key_type,
        KeyType::Date | KeyType::Timestamp | KeyType::Timestamptz
    );
    let mut columns = row.columns.iter();
    let is_drawn = columns.any(|one| one.name == column.name && one.default.draws);
    let advice = |code, message: String, detail: &str, hint| Advice {
        code,
        object: row.oid,
        table: name(row),
        message,
        detail: detail.to_owned(),
        hint,
    };
    if placement.is_range() && (is_time || is_drawn) {
        return Some(advice(
            AdviceCode::HotSpot,
            format!(
                "shard key \"{}\" of table \"{}\" grows",
                column.name, row.name
            ),
            "Rows are placed by ranges of it, so that all new rows go to one shard.",
            "Place the rows by hash, or by another column.",
        ));
    }
    // Values that are listed are few on purpose.
    let is_few = key_type == KeyType::Bool && placement.slot_sql().is_some();
    is_few.then(|| {
        advice(
            AdviceCode::LowCardinality,
            format!(
                "shard key \"{}\" of table \"{}\" has few values",
                column.name, row.name
            ),
            "At most two shards get rows of the table.",
            "Choose a column with many values, or add one to the key.",
        )
    })
}

fn of_index(row: &RawRelation, placement: &Placement, index: &RawIndex) -> Option<Advice> {
    let mut key = placement.columns().iter();
    if key.all(|column| index.columns.contains(&column.name)) {
        return None;
    }
    let key = key_of(placement);
    let what = match (index.is_primary, index.is_unique) {
        (true, _) => "primary key",
        (_, true) => "unique constraint or index",
        _ => "index",
    };
    let message = format!(
        "{what} \"{}\" of table \"{}\" does not contain the shard key ({key})",
        index.name, row.name
    );
    let (code, detail, hint) = match index.is_unique {
        true => (
            AdviceCode::UniqueWithoutKey,
            "It is enforced on each shard only: rows on different shards may have equal values.",
            "Add the shard key to its columns, or make sure that values are unique in another way: by a \
             sequence or a random UUID.",
        ),
        false => (
            AdviceCode::IndexWithoutKey,
            "A query by its columns alone goes to every shard.",
            "Queries that also give the shard key go to one shard.",
        ),
    };
    Some(Advice {
        code,
        object: index.oid,
        table: name(row),
        message,
        detail: detail.to_owned(),
        hint,
    })
}

fn of_foreign_key(
    table: &Table<'_>,
    referenced: &Table<'_>,
    key: &RawForeignKey,
) -> Option<Advice> {
    let detail = match (table.location, referenced.location) {
        (Location::Unserved(_), _) | (_, Location::Unserved(_) | Location::Replicated) => {
            return None;
        }
        (Location::Home(one), Location::Home(other)) if one == other => return None,
        (Location::Sharded(one), Location::Sharded(other)) => {
            let pairs = key.columns.iter().zip(&key.referenced_columns);
            let mut keys = one.columns().iter().zip(other.columns());
            let is_tied = keys.all(|(one, other)| {
                let mut pairs = pairs.clone();
                pairs.any(|(column, referenced)| *column == one.name && *referenced == other.name)
            });
            if one.colocated_with(other) && is_tied {
                return None;
            }
            format!(
                "Both tables are sharded, by ({}) and ({}), and the foreign key does not tie the two, so \
                 that rows that belong together may be on different shards.",
                key_of(one),
                key_of(other)
            )
        }
        (from, to) => format!(
            "\"{}\" {}, but \"{}\" {}: a shard does not have all the rows that it would check.",
            table.row.name,
            words(from),
            referenced.row.name,
            words(to)
        ),
    };
    Some(Advice {
        code: AdviceCode::ForeignKey,
        object: key.oid,
        table: table.name(),
        message: format!(
            "foreign key \"{}\" from table \"{}\" to \"{}\" can't be kept over several shards",
            key.name, table.row.name, referenced.row.name
        ),
        detail,
        hint: "Shard both tables alike and add the shard key to the foreign key, replicate the table that \
               is referred to, or leave the foreign key out.",
    })
}

fn words(location: &Location) -> &'static str {
    match location {
        Location::Home(_) => "is at home on one shard",
        Location::Replicated => "is replicated",
        Location::Sharded(_) => "is sharded",
        Location::Unserved(_) => "has no place",
    }
}

#[cfg(test)]
mod tests;
