//! The moves of a cursor that is one cursor on each of several shards; pure.
//!
//! Its rows are those of the first shard, then those of the second, and so on. Wherever it stands, the
//! cursors of the shards before the one it stands on are behind their last row, those of the shards
//! after it before their first. So each shard's own cursor remembers its place, and only the number of
//! the shard is remembered here.

use std::collections::VecDeque;

use crate::sql::statement::FetchDirection;

/// What one shard's cursor is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Go before the first row.
    Rewind,
    /// Go behind the last row.
    End,
    /// The row it stands on.
    Here,
    /// So many rows forward; none means all.
    Forward(Option<u64>),
    /// So many rows backward; none means all.
    Backward(Option<u64>),
}

impl Command {
    /// The direction as SQL has it.
    pub fn sql(self) -> String {
        match self {
            Command::Rewind => "ABSOLUTE 0".into(),
            Command::End | Command::Forward(None) => "FORWARD ALL".into(),
            Command::Here => "RELATIVE 0".into(),
            Command::Forward(Some(rows)) => format!("FORWARD {rows}"),
            Command::Backward(Some(rows)) => format!("BACKWARD {rows}"),
            Command::Backward(None) => "BACKWARD ALL".into(),
        }
    }
}

/// A command for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which of the cursor's shards.
    pub shard: usize,
    /// What its cursor is to do.
    pub command: Command,
    /// Whether its rows are what the client asked for; else it only moves.
    pub delivers: bool,
}

/// The steps of one FETCH or MOVE.
#[derive(Debug)]
pub struct Walk {
    /// The shard it stands on.
    at: usize,
    shards: usize,
    legs: VecDeque<Leg>,
}

#[derive(Clone, Copy, Debug)]
enum Leg {
    /// Every shard up to this one goes before its first row.
    Rewind(usize),
    /// Every shard from this one on goes behind its last row.
    End(usize),
    Here,
    Forward {
        wanted: Option<u64>,
        delivers: bool,
    },
    Backward {
        wanted: Option<u64>,
        delivers: bool,
    },
}

impl Walk {
    /// Sets out in a direction from the shard that the cursor stands on.
    pub fn new(direction: FetchDirection, at: usize, shards: usize) -> Walk {
        let forward = |wanted, delivers| Leg::Forward { wanted, delivers };
        let backward = |wanted, delivers| Leg::Backward { wanted, delivers };
        let legs = match direction {
            FetchDirection::ForwardAll => vec![forward(None, true)],
            FetchDirection::BackwardAll => vec![backward(None, true)],
            FetchDirection::Forward(0)
            | FetchDirection::Backward(0)
            | FetchDirection::Relative(0) => vec![Leg::Here],
            FetchDirection::Forward(rows) if rows > 0 => {
                vec![forward(Some(rows.unsigned_abs()), true)]
            }
            FetchDirection::Forward(rows) => vec![backward(Some(rows.unsigned_abs()), true)],
            FetchDirection::Backward(rows) if rows > 0 => {
                vec![backward(Some(rows.unsigned_abs()), true)]
            }
            FetchDirection::Backward(rows) => vec![forward(Some(rows.unsigned_abs()), true)],
            FetchDirection::Relative(rows) if rows > 0 => vec![
                forward(Some(rows.unsigned_abs() - 1), false),
                forward(Some(1), true),
            ],
            FetchDirection::Relative(rows) => vec![
                backward(Some(rows.unsigned_abs() - 1), false),
                backward(Some(1), true),
            ],
            FetchDirection::Absolute(0) => vec![Leg::Rewind(at), Leg::Here],
            FetchDirection::Absolute(row) if row > 0 => vec![
                Leg::Rewind(at),
                forward(Some(row.unsigned_abs() - 1), false),
                forward(Some(1), true),
            ],
            FetchDirection::Absolute(row) => vec![
                Leg::End(at),
                backward(Some(row.unsigned_abs() - 1), false),
                backward(Some(1), true),
            ],
        };
        Walk {
            at,
            shards,
            legs: legs.into(),
        }
    }

    /// The shard that the cursor stands on.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next step; none once the walk is over.
    pub fn step(&mut self) -> Option<Step> {
        let step = |shard, command, delivers| {
            Some(Step {
                shard,
                command,
                delivers,
            })
        };
        loop {
            match *self.legs.front()? {
                Leg::Rewind(shard) => return step(shard, Command::Rewind, false),
                Leg::End(shard) => return step(shard, Command::End, false),
                Leg::Here => return step(self.at, Command::Here, true),
                Leg::Forward {
                    wanted: Some(0),
                    delivers: false,
                }
                | Leg::Backward {
                    wanted: Some(0),
                    delivers: false,
                } => drop(self.legs.pop_front()),
                Leg::Forward { wanted, delivers } => {
                    return step(self.at, Command::Forward(wanted), delivers);
                }
                Leg::Backward { wanted, delivers } => {
                    return step(self.at, Command::Backward(wanted), delivers);
                }
            }
        }
    }

    /// Notes that the step at hand passed over so many rows.
    pub fn passed(&mut self, rows: u64) {
        let Some(leg) = self.legs.front_mut() else {
            return;
        };
        let last = self.shards.saturating_sub(1);
        let is_over = match leg {
            Leg::Here => true,
            Leg::Rewind(shard) => {
                let is_over = *shard == 0;
                *shard = shard.saturating_sub(1);
                self.at = if is_over { 0 } else { self.at };
                is_over
            }
            Leg::End(shard) => {
                let is_over = *shard >= last;
                *shard += 1;
                self.at = if is_over { last } else { self.at };
                is_over
            }
            Leg::Forward { wanted, .. } => {
                let is_enough = take(wanted, rows);
                let is_over = is_enough || self.at >= last;
                self.at = if is_over { self.at } else { self.at + 1 };
                is_over
            }
            Leg::Backward { wanted, .. } => {
                let is_enough = take(wanted, rows);
                let is_over = is_enough || self.at == 0;
                self.at = if is_over { self.at } else { self.at - 1 };
                is_over
            }
        };
        if is_over {
            self.legs.pop_front();
        }
    }
}

/// Takes `rows` off what is wanted; true once there are enough.
fn take(wanted: &mut Option<u64>, rows: u64) -> bool {
    match wanted {
        Some(wanted) => {
            *wanted = wanted.saturating_sub(rows);
            *wanted == 0
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// PostgreSQL's cursor over so many rows: 0 is before the first, `rows + 1` behind the last.
    struct Model {
        rows: i64,
        place: i64,
    }

    impl Model {
        fn go(&mut self, by: i64) -> Vec<i64> {
            let target = (self.place + by).clamp(0, self.rows + 1);
            let step = if by < 0 { -1 } else { 1 };
            let mut rows = Vec::new();
            while self.place != target {
                self.place += step;
                rows.push(self.place);
            }
            rows.retain(|row| (1..=self.rows).contains(row));
            rows
        }

        fn fetch(&mut self, direction: FetchDirection) -> Vec<i64> {
            let here = |model: &Model| {
                let row = Some(model.place).filter(|row| (1..=model.rows).contains(row));
                row.into_iter().collect()
            };
            match direction {
                FetchDirection::Forward(0)
                | FetchDirection::Backward(0)
                | FetchDirection::Relative(0) => here(self),
                FetchDirection::Forward(rows) => self.go(rows),
                FetchDirection::Backward(rows) => self.go(-rows),
                FetchDirection::ForwardAll => self.go(self.rows + 1),
                FetchDirection::BackwardAll => self.go(-self.rows - 1),
                FetchDirection::Relative(rows) => {
                    self.place = (self.place + rows).clamp(0, self.rows + 1);
                    here(self)
                }
                FetchDirection::Absolute(row) => {
                    let place = if row < 0 { self.rows + 1 + row } else { row };
                    self.place = place.clamp(0, self.rows + 1);
                    here(self)
                }
            }
        }
    }

    /// The same over shards.
    fn fetch(shards: &mut [Model], at: &mut usize, direction: FetchDirection) -> Vec<i64> {
        let mut walk = Walk::new(direction, *at, shards.len());
        let mut delivered = Vec::new();
        while let Some(step) = walk.step() {
            let before: i64 = shards[..step.shard].iter().map(|shard| shard.rows).sum();
            let shard = &mut shards[step.shard];
            let rows = match step.command {
                Command::Rewind => shard.fetch(FetchDirection::Absolute(0)),
                Command::End | Command::Forward(None) => shard.fetch(FetchDirection::ForwardAll),
                Command::Here => shard.fetch(FetchDirection::Relative(0)),
                Command::Forward(Some(rows)) => shard.go(rows as i64),
                Command::Backward(Some(rows)) => shard.go(-(rows as i64)),
                Command::Backward(None) => shard.fetch(FetchDirection::BackwardAll),
            };
            walk.passed(rows.len() as u64);
            if step.delivers {
                delivered.extend(rows.into_iter().map(|row| row + before));
            }
        }
        *at = walk.at();
        delivered
    }

    fn direction() -> impl Strategy<Value = FetchDirection> {
        prop_oneof![
            (-6..6i64).prop_map(FetchDirection::Forward),
            (-6..6i64).prop_map(FetchDirection::Backward),
            (-6..6i64).prop_map(FetchDirection::Relative),
            (-12..12i64).prop_map(FetchDirection::Absolute),
            Just(FetchDirection::ForwardAll),
            Just(FetchDirection::BackwardAll),
        ]
    }

    proptest! {
        #[test]
        fn shards_one_after_another_are_one_cursor(
            sizes in proptest::collection::vec(0..4i64, 1..5),
            directions in proptest::collection::vec(direction(), 1..20),
        ) {
            let mut whole = Model { rows: sizes.iter().sum(), place: 0 };
            let mut shards: Vec<Model> =
                sizes.iter().map(|rows| Model { rows: *rows, place: 0 }).collect();
            let mut at = 0;
            for direction in directions {
                let got = fetch(&mut shards, &mut at, direction);
                prop_assert_eq!(got, whole.fetch(direction), "{:?}", direction);
            }
        }
    }
}
