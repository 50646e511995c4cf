//! The rows of a query on their way to shards: an array of each column for each shard; pure.

use crate::exec::array::{Array, TEXT, array_of};
use crate::plan::Fed;
use crate::session::select::Selected;
use crate::sharding::{Format, ShardIndex, ShardSet};

/// How the rows are known in the statement that stores them.
const ROWS: &str = "shardwire_rows";

/// `pg_type.oid` of `bigint`.
pub(super) const BIGINT: u32 = 20;

/// The values of a column for all rows.
pub(super) enum Supply {
    /// Those of a column of the query.
    Query(usize),
    /// A constant in the text, which is also a column of the query.
    Constant(String, usize),
    /// Numbers.
    Numbers(Vec<i64>),
    /// Texts of values of this type.
    Texts(Vec<Option<Vec<u8>>>, String),
}

/// The rows for one shard: an array of each column that travels.
pub(super) struct Lot {
    pub shard: ShardIndex,
    pub arrays: Vec<Array>,
}

/// All rows, and how they travel.
pub(super) struct Load {
    /// The columns that get values, and their values.
    pub fed: Vec<Fed>,
    pub supplies: Vec<Supply>,
    /// Of each array the type of its elements.
    pub elements: Vec<u32>,
    /// The types of the query's columns whose values are texts.
    pub type_names: Vec<Option<String>>,
    pub lots: Vec<Lot>,
    /// For each row the shard that it goes to.
    pub order: Vec<ShardIndex>,
}

impl Supply {
    /// The type of the elements of its array; none if nothing travels.
    pub fn element(&self, selected: &Selected) -> Option<u32> {
        match self {
            Supply::Query(column) => {
                let (oid, format) = *selected.columns.get(*column)?;
                Some(match format {
                    Format::Binary => oid,
                    Format::Text => TEXT,
                })
            }
            Supply::Constant(..) => None,
            Supply::Numbers(_) => Some(BIGINT),
            Supply::Texts(..) => Some(TEXT),
        }
    }

    /// The value of a row, as it is to be read as a key.
    pub fn key(
        &self,
        row: usize,
        values: &[Option<&[u8]>],
        selected: &Selected,
    ) -> (u32, Format, Option<Vec<u8>>) {
        let of = |column: usize| {
            let (oid, format) = selected
                .columns
                .get(column)
                .copied()
                .unwrap_or((0, Format::Text));
            let value = values.get(column).copied().flatten();
            (oid, format, value.map(<[u8]>::to_vec))
        };
        match self {
            Supply::Query(column) => of(*column),
            Supply::Constant(written, column) => match of(*column) {
                // The column's own type reads it.
                (TEXT, _, value) if !written.starts_with('$') => (0, Format::Text, value),
                typed => typed,
            },
            Supply::Numbers(numbers) => {
                let number = numbers.get(row).map(|number| number.to_be_bytes().to_vec());
                (BIGINT, Format::Binary, number)
            }
            Supply::Texts(texts, _) => (0, Format::Text, texts.get(row).cloned().flatten()),
        }
    }
}

impl Load {
    /// Adds the next row.
    pub fn add(&mut self, shard: ShardIndex, values: &[Option<&[u8]>]) {
        let row = self.order.len();
        self.order.push(shard);
        let at = self.lots.iter().position(|lot| lot.shard == shard);
        let at = at.unwrap_or_else(|| {
            self.lots.push(Lot {
                shard,
                arrays: vec![Array::default(); self.elements.len()],
            });
            self.lots.len() - 1
        });
        let Some(lot) = self.lots.get_mut(at) else {
            return;
        };
        let mut arrays = lot.arrays.iter_mut();
        let mut has_any = false;
        for supply in &self.supplies {
            let mut push = |value: Option<&[u8]>| {
                has_any = true;
                if let Some(array) = arrays.next() {
                    array.push(value);
                }
            };
            match supply {
                Supply::Query(column) => push(values.get(*column).copied().flatten()),
                Supply::Constant(..) => {}
                Supply::Numbers(numbers) => {
                    let number = numbers.get(row).map(|number| number.to_be_bytes());
                    push(number.as_ref().map(|number| number.as_slice()));
                }
                Supply::Texts(texts, _) => {
                    let text = texts.get(row).and_then(Option::as_deref);
                    push(text);
                }
            }
        }
        if !has_any && let Some(array) = arrays.next() {
            array.push(None);
        }
    }

    /// The arrays of a shard's rows, each with its type.
    pub fn arrays(&self, shard: ShardIndex) -> Vec<(u32, Vec<u8>)> {
        let lot = self.lots.iter().find(|lot| lot.shard == shard);
        let none = Array::default();
        let arrays = self.elements.iter().enumerate().map(|(at, element)| {
            let array = lot.and_then(|lot| lot.arrays.get(at)).unwrap_or(&none);
            (array_of(*element).unwrap_or(0), array.bytes(*element))
        });
        arrays.collect()
    }

    /// The values of the columns as expressions, and what they are taken from; arrays are the parameters
    /// behind the first `count`.
    pub fn written(&self, count: usize) -> (Vec<String>, String) {
        let mut next = 0;
        let items = self.supplies.iter().map(|supply| {
            let mut column = || {
                next += 1;
                format!("{ROWS}.c{next}")
            };
            match supply {
                Supply::Query(at) => match self.type_names.get(*at) {
                    Some(Some(name)) => format!("{}::{name}", column()),
                    _ => column(),
                },
                Supply::Constant(written, _) => written.clone(),
                Supply::Numbers(_) => column(),
                Supply::Texts(_, name) => format!("{}::{name}", column()),
            }
        });
        let items = items.collect();
        let numbers = 1..=self.elements.len();
        let parameters: Vec<String> = numbers
            .clone()
            .map(|number| format!("${}", count + number))
            .collect();
        let columns: Vec<String> = numbers.map(|number| format!("c{number}")).collect();
        let source = format!(
            "unnest({}) AS {ROWS}({})",
            parameters.join(", "),
            columns.join(", ")
        );
        (items, source)
    }

    /// For each row which of the shards has it.
    pub fn turns(&self, shards: &ShardSet) -> Vec<usize> {
        let shards: Vec<ShardIndex> = shards.iter().collect();
        let turn = |shard: &ShardIndex| shards.binary_search(shard).unwrap_or_default();
        self.order.iter().map(turn).collect()
    }
}
