//! Where the rows of one sharded table live.

use std::collections::HashMap;

use crate::config::HashKind;
use crate::config::Method;
use crate::config::RangePart;
use crate::config::Shard;
use crate::config::TableRule;
use crate::error::Error;
use crate::sharding::ColumnType;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sharding::LiteralKind;
use crate::sharding::SLOTS;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sqlstate::SqlState;

/// A column of a shard key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name, as the catalog spells it.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
}

/// Placement of one sharded table: from a key to its shard.
#[derive(Clone, Debug)]
pub struct Placement {
    columns: Vec<KeyColumn>,
    places: Places,
    shards: ShardSet,
}

/// How keys become shards.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    Slots {
        hash: HashKind,
        map: SlotMap,
    },
    List(HashMap<Key, ShardIndex>),
    /// Ascending and apart.
    Range(Vec<KeyRange>),
}

/// Runs of slots in ascending order: the last slot of each and its shard. Together they are all slots.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotMap(Vec<(u16, ShardIndex)>);

/// Keys on one shard, from inclusive, to exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyRange {
    from: Option<Key>,
    to: Option<Key>,
    shard: ShardIndex,
}

impl Placement {
    /// The placement that a rule gives a table whose key has these columns (names and types, in the
    /// rule's order).
    ///
    /// # Errors
    /// `F0000` when the rule is no sharded one, when columns and rule differ in number, when list
    /// values or range bounds aren't values of the column or overlap, or when the shards' slots
    /// aren't all slots once.
    pub fn new(
        rule: &TableRule,
        columns: Vec<(String, ColumnType)>,
        shards: &[Shard],
    ) -> Result<Placement, Error> {
        let TableRule::Sharded { key, method } = rule else {
            return Err(invalid("the table is not sharded"));
        };
        if key.len() != columns.len() || columns.is_empty() {
            return Err(invalid(
                "the shard key has another number of columns than its types",
            ));
        }
        let columns: Vec<KeyColumn> = columns
            .into_iter()
            .map(|(name, column_type)| KeyColumn { name, column_type })
            .collect();
        let places = match (method, columns.as_slice()) {
            (Method::Hash(hash), _) => Places::Slots {
                hash: *hash,
                map: SlotMap::new(shards)?,
            },
            (Method::List(lists), [column]) => Places::List(read_lists(lists, column)?),
            (Method::Range(parts), [column]) => Places::Range(read_ranges(parts, column)?),
            _ => {
                return Err(invalid("list and range placement take a key of one column"));
            }
        };
        let used = places.shards();
        if used.iter().any(|shard| shard >= shards.len()) {
            return Err(invalid("the placement names a shard that does not exist"));
        }
        Ok(Placement {
            columns,
            places,
            shards: used,
        })
    }

    /// The key's columns in order.
    pub fn columns(&self) -> &[KeyColumn] {
        &self.columns
    }

    /// The shards that can hold rows of the table.
    pub fn shards(&self) -> &ShardSet {
        &self.shards
    }

    /// The shard of a key: one value for each column, in order.
    ///
    /// # Errors
    /// [`KeyError::OutOfRange`] when no list or range has the key, [`KeyError::Unprovable`] when it
    /// has another number of values than columns.
    pub fn shard(&self, keys: &[Key]) -> Result<ShardIndex, KeyError> {
        match (&self.places, keys) {
            _ if keys.len() != self.columns.len() => {
                Err(KeyError::Unprovable("the shard key is incomplete"))
            }
            (Places::Slots { hash, map }, _) => Ok(map.shard(slot(*hash, keys))),
            (Places::List(list), [key]) => list.get(key).copied().ok_or(KeyError::OutOfRange),
            (Places::Range(ranges), [key]) => find_range(ranges, key).ok_or(KeyError::OutOfRange),
            _ => Err(KeyError::OutOfRange),
        }
    }

    /// Whether ranges of keys have their shards.
    pub fn is_range(&self) -> bool {
        matches!(self.places, Places::Range(_))
    }

    /// The hash slot of a key; none for list and range placement or another number of values than
    /// columns.
    pub fn slot(&self, keys: &[Key]) -> Option<u16> {
        match self.places {
            Places::Slots { hash, .. } if keys.len() == self.columns.len() => {
                Some(slot(hash, keys))
            }
            _ => None,
        }
    }

    /// Whether rows of the two tables with equal keys (column by column, in order) are always on the
    /// same shard.
    pub fn colocated_with(&self, other: &Placement) -> bool {
        let families = |placement: &Placement| {
            placement
                .columns
                .iter()
                .map(|column| column.column_type.key_type.family())
                .collect::<Vec<_>>()
        };
        self.places == other.places && families(self) == families(other)
    }

    /// The SQL expression of a row's slot, for CHECK constraints, row filters and to verify
    /// placement by hand: `(hashint8extended("user_id"::int8, 0) & 16383)`. None when there are no
    /// slots (list, range) or when SQL has no such hash (`hash: xxh3`). For key columns that are not
    /// NULL; immutable, built-in functions only.
    pub fn slot_sql(&self) -> Option<String> {
        let Places::Slots {
            hash: HashKind::Postgres,
            ..
        } = self.places
        else {
            return None;
        };
        let hash = self
            .columns
            .iter()
            .fold("0".to_owned(), |seed, column| column.hash_sql(&seed));
        Some(format!("({hash} & {})", SLOTS - 1))
    }
}

impl KeyColumn {
    /// The SQL expression of the column's hash.
    fn hash_sql(&self, seed: &str) -> String {
        let name = format!("\"{}\"", self.name.replace('"', "\"\""));
        match self.column_type.key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                format!("hashint8extended({name}::int8, {seed})")
            }
            KeyType::Numeric => format!("hash_numeric_extended({name}, {seed})"),
            KeyType::Text | KeyType::Varchar => format!("hashtextextended({name}::text, {seed})"),
            KeyType::Bpchar => format!("hashbpcharextended({name}, {seed})"),
            KeyType::Uuid => format!("uuid_hash_extended({name}, {seed})"),
            KeyType::Timestamp => format!("timestamp_hash_extended({name}, {seed})"),
            // The hash functions of these can't be called with their values, but the hash of a row
            // of one column is that column's hash.
            KeyType::Date | KeyType::Timestamptz | KeyType::Bytea | KeyType::Bool => {
                format!("hash_record_extended(ROW({name}), {seed})")
            }
        }
    }
}

/// Each further column takes the previous hash as its seed.
fn slot(hash: HashKind, keys: &[Key]) -> u16 {
    let hash = keys.iter().fold(0, |seed, key| match hash {
        HashKind::Postgres => key.hash_extended(seed),
        HashKind::Xxh3 => key.hash_xxh3(seed),
    });
    // 14 bits fit.
    (hash & u64::from(SLOTS - 1)) as u16
}

impl Places {
    fn shards(&self) -> ShardSet {
        match self {
            Places::Slots { map, .. } => map.0.iter().map(|(_, shard)| *shard).collect(),
            Places::List(list) => list.values().copied().collect(),
            Places::Range(ranges) => ranges.iter().map(|range| range.shard).collect(),
        }
    }
}

impl SlotMap {
    fn new(shards: &[Shard]) -> Result<SlotMap, Error> {
        let mut runs: Vec<(u16, u16, ShardIndex)> = shards
            .iter()
            .enumerate()
            .flat_map(|(index, shard)| {
                let runs = shard.slots.iter();
                runs.map(move |run| (*run.start(), *run.end(), index))
            })
            .collect();
        runs.sort_unstable();
        let mut next = 0_u32;
        for &(first, last, _) in &runs {
            if u32::from(first) != next || first > last {
                return Err(invalid("the shards' slots do not cover every slot once"));
            }
            next = u32::from(last) + 1;
        }
        if next != SLOTS {
            return Err(invalid("the shards' slots do not cover every slot once"));
        }
        let mut map: Vec<(u16, ShardIndex)> = Vec::with_capacity(runs.len());
        for (_, last, shard) in runs {
            // Neighbouring runs of one shard are one, so that equal maps are equal.
            match map.last_mut() {
                Some(run) if run.1 == shard => run.0 = last,
                _ => map.push((last, shard)),
            }
        }
        Ok(SlotMap(map))
    }

    fn shard(&self, slot: u16) -> ShardIndex {
        let run = self.0.partition_point(|(last, _)| *last < slot);
        // There is a run: the map covers every slot.
        self.0.get(run).map_or(0, |(_, shard)| *shard)
    }
}

fn read_lists(
    lists: &[(ShardIndex, Vec<String>)],
    column: &KeyColumn,
) -> Result<HashMap<Key, ShardIndex>, Error> {
    let mut map = HashMap::new();
    for (shard, values) in lists {
        for value in values {
            let key = read_value(value, column, KeyUse::Store)?;
            if map.insert(key, *shard).is_some() {
                return Err(invalid(format!(
                    "the list value \"{value}\" of column \"{}\" is there twice",
                    column.name
                )));
            }
        }
    }
    Ok(map)
}

fn read_ranges(parts: &[RangePart], column: &KeyColumn) -> Result<Vec<KeyRange>, Error> {
    let bound = |value: &Option<String>| {
        let value = value.as_ref();
        value
            .map(|value| read_value(value, column, KeyUse::Compare))
            .transpose()
    };
    let mut ranges = Vec::with_capacity(parts.len());
    for part in parts {
        let (from, to) = (bound(&part.from)?, bound(&part.to)?);
        if let (Some(from), Some(to)) = (&from, &to)
            && from >= to
        {
            return Err(invalid(format!(
                "a range of column \"{}\" is empty: its end is not after its beginning",
                column.name
            )));
        }
        let shard = part.shard;
        ranges.push(KeyRange { from, to, shard });
    }
    // Without a beginning comes first.
    ranges.sort_by(|left, right| left.from.cmp(&right.from));
    let apart = |pair: &[KeyRange]| match pair {
        [left, right] => left.to.is_some() && right.from.is_some() && left.to <= right.from,
        _ => true,
    };
    if !ranges.windows(2).all(apart) {
        return Err(invalid(format!(
            "ranges of column \"{}\" overlap",
            column.name
        )));
    }
    Ok(ranges)
}

fn find_range(ranges: &[KeyRange], key: &Key) -> Option<ShardIndex> {
    let after = ranges.partition_point(|range| range.from.as_ref().is_none_or(|from| from <= key));
    let range = ranges.get(after.checked_sub(1)?)?;
    let inside = range.to.as_ref().is_none_or(|to| key < to);
    inside.then_some(range.shard)
}

fn read_value(value: &str, column: &KeyColumn, use_: KeyUse) -> Result<Key, Error> {
    Key::from_literal(value, LiteralKind::String, &column.column_type, use_).map_err(|error| {
        let why = match error {
            KeyError::Unprovable(why) | KeyError::Rejected(why) => why,
            KeyError::Null | KeyError::OutOfRange => "no value of the column's type",
        };
        invalid(format!(
            "\"{value}\" can't place rows by column \"{}\": {why}",
            column.name
        ))
    })
}

fn invalid(message: impl Into<crate::error::Text>) -> Error {
    Error::new(SqlState::CONFIG_FILE_ERROR, message)
}
