//! Rows that move to another shard because their key changes.

use crate::error::Result;
use crate::exec::scatter::Ended;
use crate::plan::{BEFORE_KEY, Steps, Written};
use crate::session::change::collect::{Row, columns};
use crate::session::change::request::{FIRST_USER_OID, Request};
use crate::session::change::{Asked, Learned, describe, value, writer};
use crate::session::held::Held;
use crate::session::scatter::Answered;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardIndex, ShardSet};
use crate::txn::commit::Work;
use crate::wire::frame;

/// A Bind has no more parameters.
const MOST_PARAMETERS: usize = 65_535;

/// An INSERT has no more bytes of values, unless one row has.
const LARGEST_INSERT_BYTES: usize = 4 << 20;

/// The rows of one shard.
#[derive(Default)]
struct Rows {
    staying: Vec<Name>,
    leaving: Vec<Name>,
}

/// What names a row on its shard: the OID of its table with its `ctid`, and that alone.
type Name = (Vec<u8>, Vec<u8>);

impl Session {
    /// Updates the rows that stay where they are and moves the others.
    pub(super) async fn run_move(
        &mut self,
        work: &mut [Ended<Held>],
        steps: &Steps<'_>,
        asked: &Asked<'_>,
        learned: &mut Learned,
    ) -> Result<Answered, Stop> {
        let selection = steps.selection(&learned.columns)?;
        let mut request = self.request(&selection, asked, learned)?;
        let one = writer(work, steps)?;
        let described = describe(one, (request.text(), &request.types)).await?;
        let described = described.rows.first().map(|frame| frame::body(frame));
        let types: Vec<u32> = columns(described.unwrap_or_default())?
            .into_iter()
            .map(|(_, oid, _)| oid)
            .collect();
        let behind = BEFORE_KEY + steps.key_columns();
        for (at, oid) in types.iter().enumerate() {
            let is_binary = at >= BEFORE_KEY && *oid < FIRST_USER_OID;
            request.results.push(match is_binary {
                true => Format::Binary,
                false => Format::Text,
            });
        }
        let mut found: Vec<(ShardIndex, Rows)> = Vec::new();
        let mut arriving: Vec<(ShardIndex, Vec<Row>)> = Vec::new();
        for shard in steps.shards.iter() {
            let only = ShardSet::from_iter([shard]);
            let rows = self
                .collect_rows(work, &only, &request, &mut learned.bytes)
                .await?;
            let rows = self.sort(steps, shard, (rows, behind), &mut arriving)?;
            found.push((shard, rows));
        }
        self.delete(work, steps, &found, (asked, learned)).await?;
        let staying = steps.staying(&learned.columns)?;
        let mut parts = Vec::new();
        for (shard, rows) in &found {
            let request = self.listing(&staying, &rows.staying, (asked, learned))?;
            parts.push((*shard, request.messages(asked.results())));
        }
        let mut answered = self
            .answer(work, parts, learned.original(), (asked, true))
            .await?;
        let images = types.get(behind..).unwrap_or_default();
        for (shard, rows) in arriving {
            if let Some(one) = work.iter_mut().find(|one| one.connection.shard == shard) {
                one.connection.note(Work::Writes);
            }
            for rows in chunks(&rows, images.len()) {
                let request = self.inserting(steps, rows, (asked, learned), images)?;
                let parts = vec![(shard, request.messages(asked.results()))];
                let more = self.answer(work, parts, None, (asked, false)).await?;
                answered.affected += more.affected;
                answered.rows += more.rows;
            }
        }
        Ok(answered)
    }

    /// Sorts the rows of a shard by what becomes of them.
    fn sort(
        &self,
        steps: &Steps<'_>,
        shard: ShardIndex,
        (found, behind): (Vec<Row>, usize),
        arriving: &mut Vec<(ShardIndex, Vec<Row>)>,
    ) -> Result<Rows> {
        let encoding = self.settings.context().encoding;
        let mut rows = Rows::default();
        let mut seen = std::collections::HashSet::new();
        for mut row in found {
            let name = row.first().cloned().flatten().unwrap_or_default();
            // Joined with several rows, it becomes what one of them makes of it.
            if !seen.insert(name.clone()) {
                continue;
            }
            let ctid = row.get(1).cloned().flatten().unwrap_or_default();
            let key = row.get(BEFORE_KEY..behind).unwrap_or_default();
            let key: Vec<Option<&[u8]>> = key.iter().map(Option::as_deref).collect();
            let (destination, may_stay) = steps.destination(&key, encoding)?;
            let destination = destination.unwrap_or(shard);
            if destination == shard && may_stay {
                rows.staying.push((name, ctid));
                continue;
            }
            if row.get(2).cloned().flatten().as_deref() != Some(b"true") {
                return Err(steps.stuck("the row belongs to a table that inherits from it"));
            }
            rows.leaving.push((name, ctid));
            let image = row.split_off(behind.min(row.len()));
            match arriving.iter_mut().find(|(at, _)| *at == destination) {
                Some((_, rows)) => rows.push(image),
                None => arriving.push((destination, vec![image])),
            }
        }
        Ok(rows)
    }

    /// Deletes the rows that move.
    async fn delete(
        &mut self,
        work: &mut [Ended<Held>],
        steps: &Steps<'_>,
        found: &[(ShardIndex, Rows)],
        with: (&Asked<'_>, &Learned),
    ) -> Result<(), Stop> {
        let moving = found.iter().filter(|(_, rows)| !rows.leaving.is_empty());
        let leaving = steps.leaving()?;
        for (number, (shard, rows)) in moving.enumerate() {
            let one = work.iter_mut().find(|one| one.connection.shard == *shard);
            if number == 0
                && let Some(one) = one
                && let Some(name) = value(one, &steps.followers()?).await?
            {
                let why =
                    format!("the foreign key \"{name}\" makes rows of another table follow it");
                return Err(steps.stuck(&why).into());
            }
            let request = self.listing(&leaving, &rows.leaving, with)?;
            let only = ShardSet::from_iter([*shard]);
            let mut bytes = 0;
            self.collect_rows(work, &only, &request, &mut bytes).await?;
        }
        Ok(())
    }

    /// A text behind whose parameters two list rows.
    fn listing(
        &self,
        written: &Written,
        rows: &[Name],
        (asked, learned): (&Asked<'_>, &Learned),
    ) -> Result<Request> {
        let mut request = self.request(written, asked, learned)?;
        let names = rows.iter().map(|(name, _)| name.as_slice());
        let ctids = rows.iter().map(|(_, ctid)| ctid.as_slice());
        request.add(0, Format::Text, Some(array(names)));
        request.add(0, Format::Text, Some(array(ctids)));
        Ok(request)
    }

    /// The INSERT of some rows.
    fn inserting(
        &self,
        steps: &Steps<'_>,
        rows: &[Row],
        (asked, learned): (&Asked<'_>, &Learned),
        types: &[u32],
    ) -> Result<Request> {
        let written = steps.arriving(&learned.columns, rows.len())?;
        let mut request = self.request(&written, asked, learned)?;
        for row in rows {
            for (value, oid) in row.iter().zip(types) {
                let (oid, format) = match *oid {
                    oid if oid < FIRST_USER_OID => (oid, Format::Binary),
                    _ => (0, Format::Text),
                };
                request.add(oid, format, value.clone());
            }
        }
        Ok(request)
    }
}

/// An array as text, of texts that need no escape.
fn array<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for (number, value) in values.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
    }
    out.push(b'}');
    out
}

/// As many rows as one INSERT may have, each with this many values.
fn chunks(rows: &[Row], values: usize) -> Vec<&[Row]> {
    // The client's own parameters need room as well.
    let most = (MOST_PARAMETERS / 2 / values.max(1)).clamp(1, 1_000);
    let mut found = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take(most).take_while(|row| {
            let values = row.iter().flatten().map(Vec::len);
            bytes += values.sum::<usize>();
            bytes <= LARGEST_INSERT_BYTES
        });
        let count = fitting.count().max(1);
        let (chunk, behind) = rest.split_at(count.min(rest.len()));
        found.push(chunk);
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_are_of_a_size() {
        let row = |bytes: usize| vec![Some(vec![0; bytes])];
        let rows = [row(10), row(LARGEST_INSERT_BYTES), row(1), row(1)];
        let sizes: Vec<usize> = chunks(&rows, 1).iter().map(|rows| rows.len()).collect();
        assert_eq!(sizes, [1, 1, 2]);
        let many = vec![row(1); 2_500];
        let sizes: Vec<usize> = chunks(&many, 1).iter().map(|rows| rows.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert_eq!(chunks(&many, 40_000).len(), 2_500);
    }
}
