//! Where a tuple of binary COPY data ends, and where its key's fields are.

use smallvec::SmallVec;

use super::scan::Span;

/// What stands at the beginning of binary COPY data.
const SIGNATURE: [u8; 11] = *b"PGCOPY\n\xff\r\n\0";

/// Bytes of signature, flags and length of the extension.
const HEAD_BYTES: usize = SIGNATURE.len() + 8;

/// What a piece of data ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The middle of a tuple, of the head, or of what comes behind everything.
    More,
    /// The head, which ends so many bytes into the piece.
    Head(usize),
    /// A tuple, which ends so many bytes into the piece.
    Tuple(usize),
    /// The trailer, which ends so many bytes into the piece.
    Trailer(usize),
    /// What PostgreSQL rejects, which ends so many bytes into the piece.
    Broken(usize),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Head,
    Extension,
    Count,
    Length,
    Value,
    Behind,
}

/// Reads tuples.
#[derive(Debug)]
pub(super) struct Tuples {
    columns: usize,
    /// For each field up to the last of the key, which of the key's it is.
    wanted: SmallVec<[Option<usize>; 8]>,
    /// Where the values of the key's fields are, by the key's order; none for NULL.
    pub spans: SmallVec<[Option<Span>; 2]>,
    step: Step,
    /// Bytes of the tuple in earlier pieces.
    before: usize,
    field: usize,
    /// The number that is being read, or bytes of the value or extension that are yet to come.
    number: SmallVec<[u8; HEAD_BYTES]>,
    left: usize,
}

impl Tuples {
    /// Of tuples with so many columns. `fields`: the key's fields in the key's order.
    pub fn new(columns: usize, fields: &[usize]) -> Tuples {
        let count = fields.iter().max().map_or(0, |last| last + 1);
        let position = |field| fields.iter().position(|one| *one == field);
        Tuples {
            columns,
            wanted: (0..count).map(position).collect(),
            spans: fields.iter().map(|_| None).collect(),
            step: Step::Head,
            before: 0,
            field: 0,
            number: SmallVec::new(),
            left: 0,
        }
    }

    /// Whether all fields of the key have been seen.
    pub fn has_key(&self) -> bool {
        let count = self.wanted.len();
        self.field > count || (self.field == count && self.step == Step::Length)
    }

    /// Whether the data may end here.
    pub fn is_between(&self) -> bool {
        matches!(self.step, Step::Count | Step::Behind) && self.number.is_empty()
    }

    /// Bytes of the tuple so far.
    pub fn length(&self) -> usize {
        self.before
    }

    /// Goes on to the next tuple.
    pub fn next(&mut self) {
        (self.before, self.field) = (0, 0);
        self.spans.iter_mut().for_each(|span| *span = None);
    }

    /// Reads on up to the end of the tuple, or of the bytes.
    pub fn scan(&mut self, bytes: &[u8]) -> Found {
        let mut next = 0;
        loop {
            let rest = bytes.get(next..).unwrap_or(&[]);
            if matches!(self.step, Step::Value | Step::Extension) {
                let count = self.left.min(rest.len());
                next += count;
                self.left -= count;
                if self.left > 0 {
                    self.before += bytes.len();
                    return Found::More;
                }
                if self.step == Step::Extension {
                    self.step = Step::Count;
                    return Found::Head(next);
                }
                if self.field == self.columns {
                    self.step = Step::Count;
                    return Found::Tuple(next);
                }
                self.step = Step::Length;
                continue;
            }
            let needed = match self.step {
                Step::Head => HEAD_BYTES,
                Step::Count => 2,
                Step::Behind => 1,
                _ => 4,
            };
            let missing = needed - self.number.len();
            let taken = rest.get(..missing).unwrap_or(rest);
            self.number.extend_from_slice(taken);
            next += taken.len();
            if taken.len() < missing {
                self.before += bytes.len();
                return Found::More;
            }
            let number = std::mem::take(&mut self.number);
            if let Some(found) = self.step(&number, next) {
                return found;
            }
        }
    }

    /// Takes what a step has read, which ends `next` bytes into the piece.
    fn step(&mut self, number: &[u8], next: usize) -> Option<Found> {
        match self.step {
            Step::Head => {
                let length = int4(number.get(HEAD_BYTES - 4..));
                match (number.starts_with(&SIGNATURE), usize::try_from(length)) {
                    (true, Ok(length)) => self.left = length,
                    _ => return Some(Found::Broken(next)),
                }
                self.step = Step::Extension;
            }
            Step::Count => match number {
                [0xFF, 0xFF] => {
                    self.step = Step::Behind;
                    return Some(Found::Trailer(next));
                }
                [high, low] if usize::from(u16::from_be_bytes([*high, *low])) == self.columns => {
                    self.step = Step::Length;
                    if self.columns == 0 {
                        self.step = Step::Count;
                        return Some(Found::Tuple(next));
                    }
                }
                _ => return Some(Found::Broken(next)),
            },
            Step::Length => {
                let length = int4(Some(number));
                let wanted = self.wanted.get(self.field).copied().flatten();
                self.field += 1;
                match usize::try_from(length) {
                    Ok(length) => {
                        let start = self.before + next;
                        if let Some(span) = wanted.and_then(|key| self.spans.get_mut(key)) {
                            *span = Some((start, start + length));
                        }
                        self.left = length;
                        self.step = Step::Value;
                    }
                    Err(_) if length == -1 => self.step = Step::Value,
                    Err(_) => return Some(Found::Broken(next)),
                }
            }
            _ => return Some(Found::Broken(next)),
        }
        None
    }
}

fn int4(bytes: Option<&[u8]>) -> i32 {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    i32::from_be_bytes(bytes.unwrap_or_default())
}
