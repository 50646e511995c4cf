//! Rows that the proxy takes itself, for the next step.

use std::task::Poll;

use crate::error::{Error, Result};
use crate::exec::scatter::{Ended, Failure, Scatter};
use crate::net::buffer::Buffer;
use crate::pool::Lease;
use crate::session::change::request::Request;
use crate::session::control::Signal;
use crate::session::held::Held;
use crate::session::scatter::LARGEST_SETTLING;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sharding::ShardSet;
use crate::sqlstate::SqlState;
use crate::wire::buffer::Reader;
use crate::wire::frame;

/// The values of a row.
pub(super) type Row = Vec<Option<Vec<u8>>>;

impl Session {
    /// Runs a query of a step on some shards; its rows as texts. `bytes` counts what was collected.
    ///
    /// # Errors
    /// A shard's; `53400` for too many bytes.
    pub(super) async fn collect_rows(
        &mut self,
        work: &mut [Ended<Held>],
        shards: &ShardSet,
        request: &Request,
        bytes: &mut u64,
    ) -> Result<Vec<Row>, Stop> {
        let messages = request.own_messages();
        let mut working: Vec<&mut Ended<Held>> = work
            .iter_mut()
            .filter(|one| shards.contains(one.connection.shard))
            .collect();
        let database = &self.database;
        let connections = working.iter_mut().map(|one| {
            let name = database.shard_name(one.connection.shard).to_owned();
            (name, &mut one.connection.lease)
        });
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            messages.clone()
        };
        let mut scatter = Scatter::start(connections.collect(), send, false, HIGH_WATER_BYTES);
        let most_bytes = self.database.limits.intermediate_bytes;
        let control = &self.registered.control;
        let mut taken = Vec::new();
        let mut buffer = Buffer::new();
        let end = std::future::poll_fn(|cx| {
            loop {
                let polled = scatter.poll(cx, &mut buffer);
                let count = buffer.len();
                taken.extend_from_slice(buffer.bytes());
                buffer.consume(count);
                *bytes += count as u64;
                if *bytes > most_bytes {
                    let failure = Failure::Own(too_much(most_bytes));
                    return Poll::Ready(Some(Err(failure)));
                }
                if polled.is_ready() {
                    return polled.map(Some);
                }
                if control.poll_told(cx) == Signal::Terminate {
                    return Poll::Ready(None);
                }
                if count < HIGH_WATER_BYTES {
                    return Poll::Pending;
                }
            }
        })
        .await;
        if !matches!(end, Some(Ok(_))) {
            scatter.stop(LARGEST_SETTLING).await;
        }
        let statuses: Vec<_> = scatter.end().iter().map(|ended| ended.status).collect();
        for (one, status) in working.into_iter().zip(statuses) {
            one.status = status;
        }
        match end {
            Some(Ok(_)) => Ok(rows(&taken)?),
            Some(Err(failure)) => Err(self.told_by_shard(failure)),
            None => Err(Stop::Gone),
        }
    }
}

/// The DataRows among some frames.
fn rows(mut bytes: &[u8]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while let Some(header) = frame::header(bytes)? {
        let Some((one, rest)) = bytes.split_at_checked(header.frame_bytes) else {
            break;
        };
        if header.tag == b'D' {
            rows.push(row(frame::body(one))?);
        }
        bytes = rest;
    }
    Ok(rows)
}

fn row(body: &[u8]) -> Result<Row> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    (0..count)
        .map(|_| match usize::try_from(reader.i32()?) {
            Ok(length) => Ok(Some(reader.bytes(length)?.to_vec())),
            Err(_) => Ok(None),
        })
        .collect()
}

/// The arrays that rows of one value are, one behind the other.
pub(super) fn joined(rows: &[Row]) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for array in rows.iter().filter_map(|row| row.first()?.as_deref()) {
        let inner = array
            .strip_prefix(b"{")
            .and_then(|rest| rest.strip_suffix(b"}"));
        let inner = inner.unwrap_or_default();
        if inner.is_empty() {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(inner);
    }
    out.push(b'}');
    out
}

/// Name, type and modifier of each column of a RowDescription.
pub(super) fn columns(body: &[u8]) -> Result<Vec<(String, u32, i32)>> {
    let mut reader = Reader::new(body);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let count = reader.u16()?;
    (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(reader.cstring()?).into_owned();
            reader.bytes(6)?;
            let oid = reader.u32()?;
            reader.bytes(2)?;
            let typmod = reader.i32()?;
            reader.bytes(2)?;
            Ok((name, oid, typmod))
        })
        .collect()
}

/// More rows than a statement may have travel (`53400`).
fn too_much(most_bytes: u64) -> Error {
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        "the statement needs too many rows of other shards",
    )
    .detail(format!(
        "More than {most_bytes} bytes would have to travel to the shards that are changed."
    ))
    .hint("Restrict the tables by conditions on their own columns, or raise limits.intermediate.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_joined() {
        let row = |array: Option<&str>| vec![array.map(|array| array.as_bytes().to_vec())];
        let rows = [
            row(Some("{a,\"b,c\"}")),
            row(None),
            row(Some("{}")),
            row(Some("{d}")),
        ];
        assert_eq!(joined(&rows), b"{a,\"b,c\",d}");
        assert_eq!(joined(&[]), b"{}");
    }
}
