//! Global numbers: those of the first shard's sequences, taken ahead in blocks.
//!
//! What holds:
//! - A number is the result of a `nextval` on the first shard's primary, whose commit has been flushed to
//!   disk before the number is given out. So no two proxies have the same, nor does one after a crash.
//! - A block grows while numbers are asked for quickly, up to a limit, and is one number otherwise. What is
//!   left of it when the proxy ends, or when it is dropped, is lost, as with PostgreSQL's own CACHE.
//! - Blocks are dropped when this proxy sees a `setval` or a changed definition. Other proxies' blocks stay.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use crate::catalog::SequenceName;
use crate::error::{Error, Result};
use crate::plan::defaults::{Form, evaluation};
use crate::sql::literal::{quote_identifier, quote_literal};
use crate::sqlstate::SqlState;
use crate::topology::{Control, Topology};

/// Where sequences are.
const FIRST_SHARD: usize = 0;

/// A block that was used up sooner is followed by one twice as large.
const BRISK: Duration = Duration::from_secs(1);

/// How long the first shard may take to give numbers.
const PATIENCE: Duration = Duration::from_secs(30);

/// The blocks of a database's sequences.
#[derive(Default)]
pub struct Sequences {
    blocks: Mutex<HashMap<SequenceName, Block>>,
    /// Who gets numbers goes through it, with the connection and the primary it leads to.
    line: tokio::sync::Mutex<Option<(usize, Control)>>,
    /// How often all blocks have been dropped.
    drops: AtomicU64,
}

/// Numbers that have been taken and not yet been given out.
#[derive(Debug, Default)]
struct Block {
    numbers: VecDeque<i64>,
    /// How many were taken last, and when.
    taken: Option<(u32, Instant)>,
}

impl Block {
    /// How many numbers to take now.
    fn next_size(&self, now: Instant, most: u32) -> u32 {
        match self.taken {
            Some((size, then)) if now.duration_since(then) < BRISK => {
                size.saturating_mul(2).min(most.max(1))
            }
            _ => 1,
        }
    }
}

impl Sequences {
    /// Drops all blocks: a sequence may have been set.
    pub fn drop_blocks(&self) {
        self.drops.fetch_add(1, Ordering::AcqRel);
        self.blocks().clear();
    }

    fn blocks(&self) -> MutexGuard<'_, HashMap<SequenceName, Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of a block that is there, if it has as many.
    fn ready(&self, sequence: &SequenceName, count: usize) -> Option<Vec<i64>> {
        let mut blocks = self.blocks();
        let block = blocks.get_mut(sequence)?;
        (block.numbers.len() >= count).then(|| block.numbers.drain(..count).collect())
    }

    /// Keeps what was taken, behind what is left, and gives out the first of it all.
    fn keep(&self, sequence: &SequenceName, taken: Vec<i64>, count: usize, drops: u64) -> Vec<i64> {
        let mut blocks = self.blocks();
        if self.drops.load(Ordering::Acquire) != drops {
            // What was taken before may have been set back since; what is given out now was due then.
            return taken.into_iter().take(count).collect();
        }
        let block = blocks.entry(sequence.clone()).or_default();
        let size = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        block.taken = Some((size, Instant::now()));
        block.numbers.extend(taken);
        let count = count.min(block.numbers.len());
        block.numbers.drain(..count).collect()
    }
}

impl Topology {
    /// The next `count` numbers of a sequence; takes up to `most` at once.
    ///
    /// # Errors
    /// PostgreSQL's own, such as `2200H` when there are no more; `58000` when the first shard's primary
    /// can't be asked.
    pub async fn draw(&self, sequence: &SequenceName, count: usize, most: u32) -> Result<Vec<i64>> {
        if let Some(numbers) = self.sequences.ready(sequence, count) {
            return Ok(numbers);
        }
        let mut line = self.sequences.line.lock().await;
        // Whoever was before in the line may have brought enough.
        if let Some(numbers) = self.sequences.ready(sequence, count) {
            return Ok(numbers);
        }
        let drops = self.sequences.drops.load(Ordering::Acquire);
        let (left, size) = {
            let blocks = self.sequences.blocks();
            let block = blocks.get(sequence);
            let size = block.map_or(1, |block| block.next_size(Instant::now(), most));
            (block.map_or(0, |block| block.numbers.len()), size)
        };
        let needed = count.saturating_sub(left);
        let taken = self.take(&mut line, sequence, (needed, size)).await?;
        let numbers = self.sequences.keep(sequence, taken, count, drops);
        match numbers.len() == count {
            true => Ok(numbers),
            false => Err(unreachable("it gave fewer numbers than were asked for")),
        }
    }

    async fn take(
        &self,
        line: &mut Option<(usize, Control)>,
        sequence: &SequenceName,
        (needed, size): (usize, u32),
    ) -> Result<Vec<i64>> {
        self.connect(line).await?;
        let sql = taking(sequence, needed, size);
        Ok(numbers(&asked(line, &sql).await?))
    }

    /// What the default of a table's column gives for some rows, on the first shard, in a transaction of its
    /// own, whose commit is flushed before anything is given out.
    ///
    /// # Errors
    /// As [`Topology::draw`].
    pub async fn evaluate(
        &self,
        (table, column): (&str, &str),
        (count, form): (usize, Form),
    ) -> Result<Vec<Option<String>>> {
        let mut line = self.sequences.line.lock().await;
        self.connect(&mut line).await?;
        let ask = evaluation(table, column, count, form);
        let found = values(&asked(&mut line, &ask).await?);
        let Some(Some(sql)) = found.into_iter().next() else {
            return Err(unreachable("the default is unknown"));
        };
        let found = values(&asked(&mut line, &lasting(&sql)).await?);
        match found.len() == count {
            true => Ok(found),
            false => Err(unreachable("it gave fewer values than were asked for")),
        }
    }

    /// Puts numbers back that were drawn and not used.
    pub fn put_back(&self, sequence: &SequenceName, numbers: Vec<i64>) {
        let mut blocks = self.sequences.blocks();
        // If its block is gone, it may have been set meanwhile.
        if let Some(block) = blocks.get_mut(sequence) {
            for number in numbers.into_iter().rev() {
                block.numbers.push_front(number);
            }
        }
    }

    /// Connects to the first shard's primary, unless there is a connection to it.
    async fn connect(&self, line: &mut Option<(usize, Control)>) -> Result<()> {
        let primary = self.shards().get(FIRST_SHARD).and_then(|set| set.primary());
        let index = primary.map(|primary| primary.index);
        let index = index.ok_or_else(|| unreachable("it has no primary"))?;
        let is_kept =
            |(kept, control): &(usize, Control)| *kept == index && !control.client().is_closed();
        if !line.as_ref().is_some_and(is_kept) {
            *line = None;
            let control = self.control(FIRST_SHARD).await;
            *line = Some((
                index,
                control.map_err(|error| unreachable(&error.to_string()))?,
            ));
        }
        Ok(())
    }
}

/// Asks the first shard.
async fn asked(line: &mut Option<(usize, Control)>, sql: &str) -> Result<Vec<SimpleQueryMessage>> {
    let Some((_, control)) = line else {
        return Err(unreachable("there is no connection"));
    };
    let answer = tokio::time::timeout(PATIENCE, control.client().simple_query(sql)).await;
    match answer {
        Ok(Ok(messages)) => Ok(messages),
        Ok(Err(error)) => {
            // It is in a failed transaction, or gone.
            *line = None;
            Err(told(&error))
        }
        Err(_) => {
            *line = None;
            Err(unreachable("it did not answer in time"))
        }
    }
}

/// Takes `needed` numbers at least, and up to `size` as long as there are.
fn taking(sequence: &SequenceName, needed: usize, size: u32) -> String {
    let name = format!(
        "{}.{}",
        quote_identifier(&sequence.schema),
        quote_identifier(&sequence.name)
    );
    let name = quote_literal(&name);
    let more = usize::try_from(size).unwrap_or(usize::MAX).max(needed);
    lasting(&format!(
        "SELECT pg_catalog.nextval({name}::pg_catalog.regclass) AS number FROM pg_catalog.generate_series(1, \
         (SELECT CASE WHEN s.seqcycle THEN {more} ELSE greatest({needed}, least({more}, pg_catalog.trunc(( \
         CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END::numeric - \
         coalesce(pg_catalog.pg_sequence_last_value(s.seqrelid), s.seqstart::numeric - s.seqincrement)) \
         / s.seqincrement))) END FROM pg_catalog.pg_sequence s \
         WHERE s.seqrelid = {name}::pg_catalog.regclass)::int)"
    ))
}

/// A query that may draw numbers, in a transaction that is on disk when it has been answered. The message that
/// is logged makes the commit wait until all that was logged before is on disk, also what another session has
/// logged ahead for a sequence.
fn lasting(query: &str) -> String {
    format!(
        "BEGIN; SET LOCAL synchronous_commit = on; {query}; \
         SELECT pg_catalog.pg_logical_emit_message(true, 'shardwire', ''); COMMIT"
    )
}

fn numbers(messages: &[SimpleQueryMessage]) -> Vec<i64> {
    let number = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) if row.columns().first()?.name() == "number" => {
            row.get(0)?.parse().ok()
        }
        _ => None,
    };
    messages.iter().filter_map(number).collect()
}

/// The values of the column `value`.
fn values(messages: &[SimpleQueryMessage]) -> Vec<Option<String>> {
    let value = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) if row.columns().first()?.name() == "value" => {
            Some(row.get(0).map(str::to_owned))
        }
        _ => None,
    };
    messages.iter().filter_map(value).collect()
}

/// A server's error as the client gets it.
fn told(error: &tokio_postgres::Error) -> Error {
    let Some(server) = error.as_db_error() else {
        return unreachable(&error.to_string());
    };
    let code = <[u8; 5]>::try_from(server.code().code().as_bytes());
    let code = code.map_or(SqlState::SYSTEM_ERROR, SqlState);
    let told = Error::new(code, server.message().to_owned());
    match server.hint() {
        Some(hint) => told.hint(hint.to_owned()),
        None => told,
    }
}

fn unreachable(why: &str) -> Error {
    Error::new(
        SqlState::SYSTEM_ERROR,
        "the next number of a sequence can't be had",
    )
    .detail(format!("The first shard keeps the sequences: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence() -> SequenceName {
        SequenceName {
            schema: "public".to_owned(),
            name: "s".to_owned(),
        }
    }

    #[test]
    fn numbers_are_given_out_once_and_in_order() {
        let sequences = Sequences::default();
        assert_eq!(sequences.ready(&sequence(), 1), None);
        assert_eq!(sequences.keep(&sequence(), vec![1, 2, 3, 4], 2, 0), [1, 2]);
        assert_eq!(sequences.ready(&sequence(), 3), None);
        assert_eq!(sequences.keep(&sequence(), vec![9], 3, 0), [3, 4, 9]);
        assert_eq!(sequences.ready(&sequence(), 1), None);
    }

    #[test]
    fn nothing_is_kept_of_a_block_that_was_dropped() {
        let sequences = Sequences::default();
        sequences.drop_blocks();
        assert_eq!(sequences.keep(&sequence(), vec![1, 2, 3], 1, 0), [1]);
        assert_eq!(sequences.ready(&sequence(), 1), None);
        sequences.keep(&sequence(), vec![7, 8], 1, 1);
        sequences.drop_blocks();
        assert_eq!(sequences.ready(&sequence(), 1), None);
    }

    #[test]
    fn blocks_grow_while_they_are_used_up_quickly() {
        let now = Instant::now();
        let mut block = Block::default();
        assert_eq!(block.next_size(now, 100), 1);
        block.taken = Some((60, now));
        assert_eq!(block.next_size(now, 100), 100);
        assert_eq!(block.next_size(now + BRISK, 100), 1);
    }
}
