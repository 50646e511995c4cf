//! Object identifiers of what users have made: each shard has its own; pure.
//!
//! PostgreSQL numbers types and tables per server, so one enum has another OID on every shard. Clients ask
//! `pg_type` and `pg_class` what an OID means, and those questions are answered by the first shard. So they
//! are told the OIDs of the first shard whichever shard answers, and what they declare by such an OID is
//! passed to a shard by its own.
//!
//! Told are the types and tables of columns (RowDescription), and the types of parameters
//! (ParameterDescription, Parse). What stands inside values in binary format (the elements' type of an array,
//! those of a row's fields) stays as the shard says it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::wire::frame;

/// What users have made on one server: OIDs by qualified names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Types.
    pub types: HashMap<String, u32>,
    /// Tables, views and the like.
    pub relations: HashMap<String, u32>,
}

/// Where the OIDs of one shard differ from those of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oids {
    types: HashMap<u32, u32>,
    relations: HashMap<u32, u32>,
    /// Types of the first shard, as this one numbers them.
    own_types: HashMap<u32, u32>,
}

impl Oids {
    /// The differences of a shard from the first; none if there are none.
    pub fn between(shard: &Named, first: &Named) -> Option<Oids> {
        let pairs = |own: &HashMap<String, u32>, firsts: &HashMap<String, u32>| {
            let pair = |(name, oid): (&String, &u32)| Some((*oid, *firsts.get(name)?));
            let differing = own.iter().filter_map(pair);
            differing
                .filter(|(own, first)| own != first)
                .collect::<HashMap<u32, u32>>()
        };
        let types = pairs(&shard.types, &first.types);
        let relations = pairs(&shard.relations, &first.relations);
        let own_types = types.iter().map(|(own, first)| (*first, *own)).collect();
        let differ = !types.is_empty() || !relations.is_empty();
        differ.then_some(Oids {
            types,
            relations,
            own_types,
        })
    }

    /// A whole frame of the shard's, as clients are told it.
    fn tell(&self, frame: &mut [u8]) {
        // What is torn stays as it is, for whoever reads it to say so.
        let _ = match frame.first() {
            Some(b'T') => self.tell_columns(frame),
            Some(b't') => each(frame, frame::HEADER_BYTES, &self.types),
            _ => None,
        };
    }

    fn tell_columns(&self, frame: &mut [u8]) -> Option<()> {
        let mut at = frame::HEADER_BYTES;
        let count = u16::from_be_bytes(word(frame, at)?);
        at += 2;
        for _ in 0..count {
            at = behind_string(frame, at)?;
            exchange(frame, at, &self.relations)?;
            exchange(frame, at + 6, &self.types)?;
            at += COLUMN_BYTES;
        }
        Some(())
    }

    /// A whole frame of a client's, or of the proxy's own, as the shard is told it.
    fn pass(&self, frame: &mut [u8]) {
        let types =
            behind_string(frame, frame::HEADER_BYTES).and_then(|text| behind_string(frame, text));
        let _ = types.and_then(|at| each(frame, at, &self.own_types));
    }
}

/// What follows a column's name in RowDescription: table, number, type, length, modifier, format.
const COLUMN_BYTES: usize = 4 + 2 + 4 + 2 + 4 + 2;

fn word<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Where the string that begins at `at` is over.
fn behind_string(frame: &[u8], at: usize) -> Option<usize> {
    let end = memchr::memchr(0, frame.get(at..)?)?;
    Some(at + end + 1)
}

/// Exchanges the OID at `at`, if it is one of those.
fn exchange(frame: &mut [u8], at: usize, oids: &HashMap<u32, u32>) -> Option<()> {
    let oid = u32::from_be_bytes(word(frame, at)?);
    if let Some(other) = oids.get(&oid) {
        frame
            .get_mut(at..at + 4)?
            .copy_from_slice(&other.to_be_bytes());
    }
    Some(())
}

/// Exchanges OIDs that follow their number.
fn each(frame: &mut [u8], at: usize, oids: &HashMap<u32, u32>) -> Option<()> {
    let count = u16::from_be_bytes(word(frame, at)?);
    for number in 0..usize::from(count) {
        exchange(frame, at + 2 + 4 * number, oids)?;
    }
    Some(())
}

/// A way along both directions of a server connection, from frame to frame.
///
/// Positions are counted in bytes since the connection was made. Whoever reads the queues behind it must
/// leave in them what is no whole frame yet, but for rows and COPY data.
#[derive(Clone, Debug)]
pub struct Walk {
    oids: Arc<Oids>,
    /// Where the next frame from the server begins.
    heard: u64,
    /// Where the next frame to the server begins.
    said: u64,
}

impl Walk {
    /// Begins between two frames in both directions.
    pub fn new(oids: Arc<Oids>, received: u64, sent: u64) -> Walk {
        Walk {
            oids,
            heard: received,
            said: sent,
        }
    }

    /// Whether it is by these differences.
    pub fn is_by(&self, oids: &Arc<Oids>) -> bool {
        Arc::ptr_eq(&self.oids, oids)
    }

    /// Goes along what the server has said; `bytes` are the last of `received`.
    pub fn hear(&mut self, received: u64, bytes: &mut [u8]) {
        let oids = &self.oids;
        walk(&mut self.heard, received, bytes, b"Tt", |frame| {
            oids.tell(frame);
        });
    }

    /// Goes along what the server is going to be told; `bytes` are the last of `queued`.
    pub fn say(&mut self, queued: u64, bytes: &mut [u8]) {
        let oids = &self.oids;
        walk(&mut self.said, queued, bytes, b"P", |frame| {
            oids.pass(frame);
        });
    }
}

fn walk(next: &mut u64, end: u64, bytes: &mut [u8], tags: &[u8], mut take: impl FnMut(&mut [u8])) {
    let begin = end.checked_sub(bytes.len() as u64);
    while let Some(at) = begin.and_then(|begin| next.checked_sub(begin))
        && let Some(rest) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at..))
        && let Ok(Some(header)) = frame::header(rest)
    {
        if tags.contains(&header.tag) {
            let Some(frame) = rest.get_mut(..header.frame_bytes) else {
                return;
            };
            take(frame);
        }
        // Rows come in runs.
        let run = frame::rows(rest).max(header.frame_bytes);
        *next += run as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::{Column, row_description};
    use crate::wire::buffer::message;
    use crate::wire::frontend::write_parse;
    use proptest::prelude::*;

    fn named(types: &[(&str, u32)], relations: &[(&str, u32)]) -> Named {
        let map = |pairs: &[(&str, u32)]| {
            let pair = |(name, oid): &(&str, u32)| ((*name).to_owned(), *oid);
            pairs.iter().map(pair).collect()
        };
        Named {
            types: map(types),
            relations: map(relations),
        }
    }

    /// `a` and `b` have changed places, as OIDs may; `c` is not on the first shard.
    fn oids() -> Arc<Oids> {
        let first = named(&[("a", 20_000), ("b", 20_001), ("d", 5)], &[("t", 20_000)]);
        let shard = named(
            &[("a", 20_001), ("b", 20_000), ("c", 20_002), ("d", 5)],
            &[("t", 30_000)],
        );
        Arc::new(Oids::between(&shard, &first).unwrap())
    }

    /// RowDescription of a column of this table and this type, and what goes with it.
    fn columns(table: u32, type_oid: u32) -> Vec<u8> {
        let mut out = Vec::new();
        row_description(&mut out, &[Column::text("x"), Column::text("y")]);
        let last = out.len() - COLUMN_BYTES;
        out[last..last + 4].copy_from_slice(&table.to_be_bytes());
        out[last + 6..last + 10].copy_from_slice(&type_oid.to_be_bytes());
        out
    }

    fn parameters(types: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, b't', |body| {
            body.extend_from_slice(&(types.len() as u16).to_be_bytes());
            for oid in types {
                body.extend_from_slice(&oid.to_be_bytes());
            }
        });
        out
    }

    fn parse(types: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        write_parse(&mut out, b"s", b"SELECT $1", types);
        out
    }

    fn row(bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, b'D', |body| body.resize(body.len() + bytes, b'T'));
        out
    }

    #[test]
    fn shards_that_number_alike_need_nothing() {
        let one = named(&[("a", 20_000)], &[("t", 20_000)]);
        assert_eq!(Oids::between(&one, &one), None);
        assert_eq!(Oids::between(&Named::default(), &one), None);
    }

    #[test]
    fn clients_are_told_the_oids_of_the_first_shard() {
        let (mut walk, mut heard) = (Walk::new(oids(), 7, 9), Vec::new());
        heard.extend(columns(30_000, 20_001));
        heard.extend(row(40));
        heard.extend(parameters(&[20_000, 23, 20_002]));
        let end = 7 + heard.len() as u64;
        walk.hear(end, &mut heard);
        let mut wanted = columns(20_000, 20_000);
        wanted.extend(row(40));
        wanted.extend(parameters(&[20_001, 23, 20_002]));
        assert_eq!(heard, wanted);
        let mut said = parse(&[20_000, 0, 25]);
        walk.say(9 + said.len() as u64, &mut said);
        assert_eq!(said, parse(&[20_001, 0, 25]));
    }

    proptest! {
        /// However the frames arrive, each is told once and as a whole; rows may be taken away in part.
        #[test]
        fn frames_may_come_in_pieces(
            tags in proptest::collection::vec((0u8..4, 0usize..300), 1..8),
            pieces in proptest::collection::vec(1usize..60, 1..200), eager in any::<bool>(),
        ) {
            let (mut all, mut wanted) = (Vec::new(), Vec::new());
            for (tag, bytes) in tags {
                let (frame, told) = match tag {
                    0 => (columns(30_000, 20_001), columns(20_000, 20_000)),
                    1 => (parameters(&[20_000]), parameters(&[20_001])),
                    _ => (row(bytes), row(bytes)),
                };
                all.extend(frame);
                wanted.extend(told);
            }
            let mut walk = Walk::new(oids(), 0, 0);
            let (mut queue, mut taken, mut at) = (Vec::new(), Vec::new(), 0);
            for piece in pieces.into_iter().chain([all.len()]) {
                let end = (at + piece).min(all.len());
                queue.extend_from_slice(&all[at..end]);
                at = end;
                walk.hear(at as u64, &mut queue);
                // What the reader takes: whole frames, and of rows whatever is there.
                let held = (walk.heard as usize).saturating_sub(at - queue.len());
                let free = held.min(queue.len());
                let free = if eager { free } else { free / 2 };
                taken.extend(queue.drain(..free));
            }
            taken.extend(queue);
            prop_assert_eq!(taken, wanted);
        }

        #[test]
        fn nothing_that_is_torn_breaks_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut walk = Walk::new(oids(), 0, 0);
            let end = bytes.len() as u64;
            walk.hear(end, &mut bytes);
            walk.say(end, &mut bytes);
        }
    }
}
