//! Which line of the client's data a shard's line is.

use std::collections::VecDeque;

/// Bytes of memory at which the older half is forgotten: it is of lines that the shard has read long ago,
/// since no connection holds so many lines on their way.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The records that a shard has got, a byte or two for each.
///
/// A record is kept as two numbers: the client's lines between the shard's record before and this one, and
/// its own lines, unless that is one. Both take as many bytes as they need; the first has a bit that says
/// whether the second follows.
#[derive(Debug, Default)]
pub struct Lines {
    records: VecDeque<u8>,
    /// The last line before the records that are kept: the shard's number and the client's.
    before: (u64, u64),
    /// The last line of all.
    last: (u64, u64),
    has_any: bool,
    has_forgotten: bool,
}

impl Lines {
    /// Whether the shard has got a record.
    pub fn has_any(&self) -> bool {
        self.has_any
    }

    /// How many lines the shard has got.
    pub fn count(&self) -> u64 {
        self.last.0
    }

    /// Notes a record that has `lines` lines for the shard and ends with line `end` of the client's data.
    pub fn note(&mut self, lines: u64, end: u64) {
        let elsewhere = end.saturating_sub(self.last.1).saturating_sub(lines);
        self.last = (self.last.0 + lines, end);
        if !std::mem::replace(&mut self.has_any, true) {
            // The lines of its first record may be counted in another way: their end is what agrees.
            self.before = self.last;
            return;
        }
        self.push(elsewhere << 1 | u64::from(lines != 1));
        if lines != 1 {
            self.push(lines);
        }
        if self.records.len() > MOST_BYTES {
            self.forget();
        }
    }

    /// The client's number of the shard's line; none if that is not known any more.
    pub fn of_client(&self, line: u64) -> Option<u64> {
        if line <= self.before.0 && self.has_forgotten {
            return None;
        }
        if line <= self.before.0 {
            return self.before.1.checked_sub(self.before.0 - line);
        }
        let mut end = self.before;
        let mut bytes = self.records.iter().copied();
        while let Some((lines, elsewhere)) = next(&mut bytes) {
            end = (end.0 + lines, end.1 + lines + elsewhere);
            if line <= end.0 {
                return Some(end.1 - (end.0 - line));
            }
        }
        // A line that the shard was waiting for.
        Some(end.1 + (line - end.0))
    }

    fn push(&mut self, mut number: u64) {
        while number >= 0x80 {
            // Seven bits fit.
            self.records.push_back((number & 0x7F) as u8 | 0x80);
            number >>= 7;
        }
        self.records.push_back(number as u8);
    }

    fn forget(&mut self) {
        let kept = self.records.len() / 2;
        while self.records.len() > kept {
            let mut taken = std::iter::from_fn(|| self.records.pop_front());
            let Some((lines, elsewhere)) = next(&mut taken) else {
                break;
            };
            self.before = (self.before.0 + lines, self.before.1 + lines + elsewhere);
        }
        self.has_forgotten = true;
    }
}

/// A record: its lines, and the client's lines before it.
fn next(bytes: &mut impl Iterator<Item = u8>) -> Option<(u64, u64)> {
    let first = number(bytes)?;
    let lines = match first & 1 {
        0 => 1,
        _ => number(bytes)?,
    };
    Some((lines, first >> 1))
}

fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    let mut shift = 0;
    loop {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_that_is_yet_to_come_follows_the_last() {
        let mut lines = Lines::default();
        assert_eq!(lines.of_client(1), Some(1));
        lines.note(1, 5);
        assert_eq!(lines.of_client(1), Some(5));
        assert_eq!(lines.of_client(2), Some(6));
    }

    #[test]
    fn old_lines_are_forgotten() {
        let mut lines = Lines::default();
        let count = MOST_BYTES as u64 + 10;
        (1..=count).for_each(|line| lines.note(1, line * 3));
        assert!(lines.records.len() <= MOST_BYTES);
        assert_eq!(lines.of_client(1), None);
        assert_eq!(lines.of_client(count - 1), Some((count - 1) * 3));
    }

    proptest! {
        #[test]
        fn every_line_is_found(records in proptest::collection::vec((0..3usize, 1..4u64), 0..60)) {
            let mut shards: [(Lines, Vec<u64>); 3] = Default::default();
            let mut end = 0;
            for (shard, lines) in records {
                let (noted, wanted) = &mut shards[shard];
                wanted.extend(end + 1..=end + lines);
                end += lines;
                noted.note(lines, end);
            }
            for (noted, wanted) in shards {
                for (line, wanted) in (1..).zip(wanted) {
                    prop_assert_eq!(noted.of_client(line), Some(wanted));
                }
            }
        }
    }
}
