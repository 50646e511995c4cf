//! Rows gathered in groups, and what is computed of them.
//!
//! A group keeps its first row, which has all that is equal within it, and a state for each fold. For the
//! smallest and largest values that is the row that has it, so that the client gets it as the shard wrote
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::exec::merge::key::{self, Direction, Kind, encode};
use crate::exec::merge::numeric::{Numeric, Sum};
use crate::exec::merge::row::{self, Described};
use crate::exec::merge::{Bounds, direction, kind_of, other_columns, too_large};
use crate::plan::Merge;
use crate::plan::merge::grouping::{Fold, Grouping, How, Test, Value};
use crate::sqlstate::SqlState;
use crate::wire::buffer::message;

const BOOL: u32 = 16;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;

/// What a group takes beside its bytes, roughly.
const GROUP_BYTES: usize = 160;

/// What a state takes beside its bytes, roughly.
const STATE_BYTES: usize = 64;

/// The values of a row.
type Values<'a> = SmallVec<[Option<&'a [u8]>; 16]>;

/// Rows gathered in groups.
#[derive(Debug)]
pub struct Groups {
    plan: Arc<Merge>,
    bounds: Bounds,
    columns: Vec<Described>,
    keys: Vec<(usize, Kind)>,
    folds: Vec<(Fold, Folding)>,
    /// The conditions of groups with their numbers.
    tests: Vec<(Test, Vec<u8>)>,
    index: HashMap<Box<[u8]>, usize>,
    groups: Vec<Group>,
    /// Roughly the memory in use.
    bytes: usize,
    scratch: Vec<u8>,
    /// The groups of the answer, once they are known.
    answer: Option<std::vec::IntoIter<usize>>,
    passed: u64,
}

/// How partial results of a type become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folding {
    Integers,
    Numerics,
    /// The row with the least encoding.
    Best(Kind, Direction),
    Bits,
}

#[derive(Debug)]
struct Group {
    /// The first row's body.
    row: Box<[u8]>,
    states: SmallVec<[State; 4]>,
}

#[derive(Debug)]
enum State {
    Null,
    Integer(i128),
    Number(Box<Sum>),
    Best { key: Vec<u8>, row: Box<[u8]> },
    Bits(i64),
}

/// What a group has as a value.
enum Computed {
    Null,
    Integer(i64),
    Number(Numeric),
    Bits(i64),
    /// A column of a row.
    Of(usize),
}

impl Groups {
    /// No rows yet, of these columns.
    ///
    /// # Errors
    /// `0A000` for types that can't be combined.
    pub fn new(plan: Arc<Merge>, columns: Vec<Described>, bounds: Bounds) -> Result<Groups> {
        let grouping = plan.grouping.clone().unwrap_or_default();
        let mut keys = Vec::new();
        for key in &grouping.keys {
            let described = columns.get(key.column).ok_or_else(other_columns)?;
            let kind = Kind::of(described.type_oid).filter(|_| described.is_binary);
            let is_exact = key.deterministic || !key::is_string(described.type_oid);
            keys.push((key.column, kind.filter(|_| is_exact).ok_or_else(ungrouped)?));
        }
        let mut folds = Vec::new();
        for fold in &grouping.folds {
            let described = columns.get(fold.column).ok_or_else(other_columns)?;
            folds.push((*fold, folding(fold, described, bounds)?));
        }
        for sort in &plan.order {
            let column = match sort.value {
                Value::Column(column) => column,
                Value::Fold(fold) => match folds.get(fold) {
                    Some((fold, Folding::Best(..))) => fold.column,
                    _ => continue,
                },
                Value::Average { .. } => continue,
            };
            kind_of(sort, column, &columns, bounds)?;
        }
        let groups = Groups {
            plan,
            bounds,
            columns,
            keys,
            folds,
            tests: Vec::new(),
            index: HashMap::new(),
            groups: Vec::new(),
            bytes: 0,
            scratch: Vec::new(),
            answer: None,
            passed: 0,
        };
        groups.check_outputs(&grouping)?;
        Ok(groups)
    }

    /// With the numbers of its conditions.
    ///
    /// # Errors
    /// `0A000` for numbers that can't be read, or values that are none.
    pub fn comparing(mut self, numbers: &[String]) -> Result<Groups> {
        let grouping = self.plan.grouping.clone().unwrap_or_default();
        if grouping.having.len() != numbers.len() {
            return Err(other_columns());
        }
        for (test, number) in grouping.having.iter().zip(numbers) {
            let is_number = match test.value {
                Value::Average { .. } => true,
                Value::Column(_) => false,
                Value::Fold(fold) => self.folds.get(fold).is_some_and(|(fold, _)| {
                    let described = self.columns.get(fold.column);
                    described
                        .is_some_and(|column| matches!(column.type_oid, 20 | 21 | 23 | NUMERIC))
                }),
            };
            let number = Numeric::decimal(number).filter(|_| is_number);
            let number = number.ok_or_else(uncompared)?;
            let mut key = Vec::new();
            encode(
                Kind::Numeric,
                Some(&number.binary()),
                Direction::ANY,
                &mut key,
            )?;
            self.tests.push((*test, key));
        }
        Ok(self)
    }

    /// What is computed must be of the type that the client's column has.
    fn check_outputs(&self, grouping: &Grouping) -> Result<()> {
        for (column, output) in grouping.outputs.iter().enumerate() {
            let shown = self.columns.get(column).ok_or_else(other_columns)?.type_oid;
            let computed = match output {
                Value::Column(_) => shown,
                Value::Average { sum, .. } => match self.folds.get(*sum) {
                    Some((_, Folding::Integers | Folding::Numerics)) => NUMERIC,
                    _ => return Err(uncombined()),
                },
                Value::Fold(fold) => {
                    let fold = self.folds.get(*fold).ok_or_else(other_columns)?;
                    self.columns
                        .get(fold.0.column)
                        .ok_or_else(other_columns)?
                        .type_oid
                }
            };
            if computed != shown {
                return Err(uncombined());
            }
        }
        Ok(())
    }

    /// Adds a row's body.
    ///
    /// # Errors
    /// `53400` if it needs more memory than it may have, `08P01` for what is no row.
    pub fn add(&mut self, body: &[u8]) -> Result<()> {
        let values = values(body, self.columns.len())?;
        self.scratch.clear();
        for (column, kind) in &self.keys {
            let value = values.get(*column).copied().flatten();
            encode(*kind, value, Direction::ANY, &mut self.scratch)?;
        }
        let at = match self.index.get(self.scratch.as_slice()) {
            Some(at) => *at,
            None => {
                let at = self.groups.len();
                self.bytes += self.scratch.len() + body.len() + GROUP_BYTES;
                self.bytes += STATE_BYTES * self.folds.len();
                self.index.insert(self.scratch.as_slice().into(), at);
                let states = self.folds.iter().map(|_| State::Null).collect();
                let row = body.into();
                self.groups.push(Group { row, states });
                at
            }
        };
        if let Some(group) = self.groups.get_mut(at) {
            for ((fold, folding), state) in self.folds.iter().zip(&mut group.states) {
                if let Some(value) = values.get(fold.column).copied().flatten() {
                    self.bytes += state.add((fold.how, *folding), value, body)?;
                }
            }
        }
        match u64::try_from(self.bytes) {
            Ok(bytes) if bytes <= self.bounds.memory_bytes => Ok(()),
            _ => Err(too_large()),
        }
    }

    /// How many rows have been given out.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Appends rows of the answer until `out` is long enough; whether that was all.
    ///
    /// # Errors
    /// `22003` for sums that are too large.
    pub fn drain(&mut self, out: &mut Vec<u8>, high_water_bytes: usize) -> Result<bool> {
        if self.answer.is_none() {
            self.answer = Some(self.arranged()?.into_iter());
        }
        let plan = Arc::clone(&self.plan);
        let outputs = plan
            .grouping
            .as_ref()
            .map_or(&[][..], |grouping| &grouping.outputs);
        while out.len() < high_water_bytes {
            let next = self.answer.as_mut().and_then(Iterator::next);
            let Some(group) = next.and_then(|next| self.groups.get(next)) else {
                return Ok(true);
            };
            self.write(group, outputs, out)?;
            self.passed += 1;
        }
        Ok(false)
    }

    /// The groups of the answer in their order.
    fn arranged(&mut self) -> Result<Vec<usize>> {
        let mut order = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            if !self.passes(group)? {
                continue;
            }
            let mut key = Vec::new();
            for sort in &self.plan.order {
                let value = self.compute(group, sort.value)?;
                let (kind, binary) = match (&value, sort.value) {
                    (Computed::Null, _) => (Kind::Signed, None),
                    (Computed::Integer(integer) | Computed::Bits(integer), _) => {
                        (Kind::Signed, Some(integer.to_be_bytes().to_vec()))
                    }
                    (Computed::Number(number), _) => (Kind::Numeric, Some(number.binary())),
                    (Computed::Of(column), _) => {
                        let kind = kind_of(sort, *column, &self.columns, self.bounds)?;
                        (kind, self.column(group, sort.value, *column)?)
                    }
                };
                encode(kind, binary.as_deref(), direction(sort), &mut key)?;
            }
            order.push((key, at));
        }
        if !self.plan.order.is_empty() {
            order.sort_unstable();
        }
        let window = self.bounds.window;
        let skip = usize::try_from(window.skip).unwrap_or(usize::MAX);
        let take = usize::try_from(window.take).unwrap_or(usize::MAX);
        let kept = order.into_iter().skip(skip).take(take);
        Ok(kept.map(|(_, at)| at).collect())
    }

    fn passes(&self, group: &Group) -> Result<bool> {
        for (test, number) in &self.tests {
            let binary = match self.compute(group, test.value)? {
                Computed::Null => return Ok(false),
                Computed::Integer(value) | Computed::Bits(value) => {
                    Numeric::integer(i128::from(value)).binary()
                }
                Computed::Number(number) => number.binary(),
                Computed::Of(column) => {
                    let Some(value) = self.column(group, test.value, column)? else {
                        return Ok(false);
                    };
                    let is_numeric = |column: &Described| column.type_oid == NUMERIC;
                    match self.columns.get(column).is_some_and(is_numeric) {
                        true => value,
                        false => Numeric::integer(i128::from(integer(&value))).binary(),
                    }
                }
            };
            let mut key = Vec::new();
            encode(Kind::Numeric, Some(&binary), Direction::ANY, &mut key)?;
            let [less, equal, greater] = test.allows;
            let passes = match key.as_slice().cmp(number) {
                std::cmp::Ordering::Less => less,
                std::cmp::Ordering::Equal => equal,
                std::cmp::Ordering::Greater => greater,
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn compute(&self, group: &Group, value: Value) -> Result<Computed> {
        let state = |fold: usize| group.states.get(fold).unwrap_or(&State::Null);
        Ok(match value {
            Value::Column(column) => Computed::Of(column),
            Value::Fold(fold) => match state(fold) {
                State::Null => match self.folds.get(fold) {
                    Some((fold, _)) if fold.how == How::Count => Computed::Integer(0),
                    _ => Computed::Null,
                },
                State::Integer(sum) => {
                    Computed::Integer(i64::try_from(*sum).map_err(|_| out_of_range())?)
                }
                State::Number(sum) => Computed::Number(sum.total()),
                State::Bits(bits) => Computed::Bits(*bits),
                State::Best { .. } => {
                    Computed::Of(self.folds.get(fold).map_or(0, |(fold, _)| fold.column))
                }
            },
            Value::Average { sum, count } => {
                let count = match state(count) {
                    State::Integer(count) => u64::try_from(*count).unwrap_or(0),
                    _ => 0,
                };
                match state(sum) {
                    _ if count == 0 => Computed::Null,
                    State::Integer(sum) => Computed::Number(Numeric::integer(*sum).divided(count)),
                    State::Number(sum) => Computed::Number(sum.total().divided(count)),
                    _ => Computed::Null,
                }
            }
        })
    }

    /// A column of the row that has a value.
    fn column(&self, group: &Group, value: Value, column: usize) -> Result<Option<Vec<u8>>> {
        let row = row_of(group, value);
        let values = values(row, self.columns.len())?;
        Ok(values.get(column).copied().flatten().map(<[u8]>::to_vec))
    }

    /// Appends a group as a row of the client's.
    fn write(&self, group: &Group, outputs: &[Value], out: &mut Vec<u8>) -> Result<()> {
        let first = values(&group.row, self.columns.len())?;
        let mut failed = Ok(());
        message(out, b'D', |body| {
            body.extend_from_slice(
                &u16::try_from(outputs.len())
                    .unwrap_or(u16::MAX)
                    .to_be_bytes(),
            );
            for (index, output) in outputs.iter().enumerate() {
                if let Err(error) = self.write_value(group, (index, *output), &first, body) {
                    failed = Err(error);
                }
            }
        });
        failed
    }

    fn write_value(
        &self,
        group: &Group,
        (index, output): (usize, Value),
        first: &Values<'_>,
        body: &mut Vec<u8>,
    ) -> Result<()> {
        let column = self.columns.get(index).ok_or_else(other_columns)?;
        let text = |value: i64| match (column.is_binary, column.type_oid) {
            (false, _) => value.to_string().into_bytes(),
            (true, 21) => (value as i16).to_be_bytes().to_vec(),
            (true, 23) => (value as i32).to_be_bytes().to_vec(),
            (true, _) => value.to_be_bytes().to_vec(),
        };
        match self.compute(group, output)? {
            Computed::Null => push(body, None),
            Computed::Integer(value) | Computed::Bits(value) => push(body, Some(&text(value))),
            Computed::Number(number) if column.is_binary => push(body, Some(&number.binary())),
            Computed::Number(number) => push(body, Some(number.text().as_bytes())),
            Computed::Of(_) => match output {
                Value::Column(_) => push(body, first.get(index).copied().flatten()),
                _ => {
                    let values = values(row_of(group, output), self.columns.len())?;
                    push(body, values.get(index).copied().flatten());
                }
            },
        }
        Ok(())
    }
}

/// The row that has a value.
fn row_of(group: &Group, value: Value) -> &[u8] {
    match value {
        Value::Fold(fold) => match group.states.get(fold) {
            Some(State::Best { row, .. }) => row,
            _ => &group.row,
        },
        _ => &group.row,
    }
}

impl State {
    /// Adds a partial result; how much memory that took.
    fn add(&mut self, (how, folding): (How, Folding), value: &[u8], body: &[u8]) -> Result<usize> {
        let before = self.bytes();
        match folding {
            Folding::Integers => {
                let value = i128::from(integer(value));
                match self {
                    State::Integer(sum) => *sum += value,
                    _ => *self = State::Integer(value),
                }
            }
            Folding::Numerics => {
                if let State::Null = self {
                    *self = State::Number(Box::default());
                }
                if let State::Number(sum) = self {
                    sum.add(&Numeric::read(value)?);
                }
            }
            Folding::Bits => {
                let value = integer(value);
                match self {
                    State::Bits(bits) => {
                        *bits = match how {
                            How::BitAnd => *bits & value,
                            How::BitOr => *bits | value,
                            _ => *bits ^ value,
                        }
                    }
                    _ => *self = State::Bits(value),
                }
            }
            Folding::Best(kind, direction) => {
                let mut new = Vec::new();
                encode(kind, Some(value), direction, &mut new)?;
                let is_better = match self {
                    State::Best { key, .. } => new < *key,
                    _ => true,
                };
                if is_better {
                    *self = State::Best {
                        key: new,
                        row: body.into(),
                    };
                }
            }
        }
        Ok(self.bytes().saturating_sub(before))
    }

    fn bytes(&self) -> usize {
        match self {
            State::Best { key, row } => key.len() + row.len(),
            State::Number(_) => 2 * STATE_BYTES,
            State::Null | State::Integer(_) | State::Bits(_) => 0,
        }
    }
}

/// How partial results of a column become one.
fn folding(fold: &Fold, described: &Described, bounds: Bounds) -> Result<Folding> {
    let kind = Kind::of(described.type_oid).filter(|_| described.is_binary);
    let kind = kind.ok_or_else(uncombined)?;
    let best = |descending| {
        let direction = Direction {
            descending,
            nulls_first: false,
        };
        Folding::Best(kind, direction)
    };
    Ok(match (fold.how, described.type_oid) {
        (How::Count | How::Sum, INT8) => Folding::Integers,
        (How::Sum, NUMERIC) => Folding::Numerics,
        (How::Min | How::Max, type_oid)
            if key::is_string(type_oid) && !(fold.bytewise && bounds.is_utf8) =>
        {
            return Err(uncombined());
        }
        (How::Min, _) => best(false),
        (How::Max, _) => best(true),
        (How::And, BOOL) => best(false),
        (How::Or, BOOL) => best(true),
        (How::BitAnd | How::BitOr | How::BitXor, 20 | 21 | 23) => Folding::Bits,
        _ => return Err(uncombined()),
    })
}

fn values(body: &[u8], columns: usize) -> Result<Values<'_>> {
    let mut values = Values::new();
    row::walk(body, columns, |_, value, _| {
        values.push(value);
        Ok(())
    })?;
    Ok(values)
}

/// A big-endian integer of up to 8 bytes.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(start, |value, byte| (value << 8) | i64::from(*byte))
}

fn push(body: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            body.extend_from_slice(&i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
            body.extend_from_slice(value);
        }
    }
}

fn ungrouped() -> Error {
    Error::refused(
        "groups of rows of several shards by a value of this type are not supported",
        "The proxy compares numbers, dates and times, booleans, uuids, bytea and strings.",
        "Add the shard key to the groups, or a condition that equates it with a constant or parameter.",
    )
}

fn uncombined() -> Error {
    Error::refused(
        "an aggregate of this type over several shards is not supported",
        "The shards' results can't be combined exactly.",
        "Cast its argument, or add a condition that equates the shard key with a constant or parameter.",
    )
}

fn uncompared() -> Error {
    Error::refused(
        "a HAVING of this type over several shards is not supported",
        "The proxy compares integers and numerics with plain decimal numbers.",
        "Write the number with digits and a point only.",
    )
}

fn out_of_range() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range")
}
