//! Where a line of COPY data in text or CSV format ends, and where its key's fields are; nothing is
//! decoded.
//!
//! What a line is, is what PostgreSQL says (`CopyReadLineText`): the first end of a line decides how all of
//! them must look; in text format a backslash takes the next byte with it, in CSV a quote anywhere in a line
//! begins what may hold the ends of lines. Any split of the data into pieces gives the same lines.

use memchr::memchr;
use memchr::memchr2;
use memchr::memchr2_iter;
use memchr::memchr3;
use smallvec::SmallVec;

use super::Marks;

/// How lines end, once the first has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Unknown,
    Lf,
    Cr,
    CrLf,
}

/// What a piece of data ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The middle of a record.
    More,
    /// A whole record.
    Record(Record),
    /// In text format `\.`, behind which nothing counts.
    End {
        /// Bytes of the record before it.
        content: usize,
    },
}

/// A whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes of the piece that it ends with.
    pub taken: usize,
    /// Bytes of it without the end of the line.
    pub content: usize,
    /// Its lines, for the client.
    pub lines: u64,
    /// Its lines, for a shard that has seen no end of a line.
    pub first_lines: u64,
}

/// What PostgreSQL rejects before it looks at fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A carriage return where lines end otherwise.
    CarriageReturn,
    /// A newline where lines end otherwise.
    Newline,
    /// `\.` with something behind it.
    Marker,
    /// `\.` with another end of the line.
    MarkerEnding,
    /// `\.` behind something else.
    MarkerNotAlone,
}

/// Bytes of a record.
pub(super) type Span = (usize, usize);

/// Reads lines.
#[derive(Debug)]
pub(super) struct Scanner {
    marks: Marks,
    /// For each field up to the last of the key, which of the key's it is.
    wanted: SmallVec<[Option<usize>; 8]>,
    ending: Ending,
    /// Where the key's fields are, by the key's order; none where the record ends before.
    pub spans: SmallVec<[Option<Span>; 2]>,
    at: Place,
}

/// A place within a record.
#[derive(Clone, Debug, Default)]
struct Place {
    /// Bytes of the record in earlier pieces.
    before: usize,
    /// The field.
    field: usize,
    /// Where it begins.
    start: usize,
    /// Behind a carriage return that may be half of an end: bytes before it.
    after_cr: Option<usize>,
    /// Behind a backslash.
    is_escaped: bool,
    /// Inside quotes.
    is_quoted: bool,
    /// Behind `\.`: bytes before it, and what has followed.
    marker: Option<(usize, SmallVec<[u8; 2]>)>,
    /// Newlines and carriage returns inside quotes.
    inside: (u64, u64),
}

impl Scanner {
    /// `fields`: the key's fields in the key's order.
    pub fn new(marks: Marks, fields: &[usize]) -> Scanner {
        let count = fields.iter().max().map_or(0, |last| last + 1);
        let position = |field| fields.iter().position(|one| *one == field);
        Scanner {
            marks,
            wanted: (0..count).map(position).collect(),
            ending: Ending::Unknown,
            spans: fields.iter().map(|_| None).collect(),
            at: Place::default(),
        }
    }

    /// Reads on up to the end of the record, or of the bytes.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Found, Broken> {
        let found = match self.marks.quote {
            None => self.scan_text(bytes)?,
            Some(quote) => self.scan_csv(bytes, quote)?,
        };
        if found == Found::More {
            self.at.before += bytes.len();
        }
        Ok(found)
    }

    /// The record that the end of the data ends, if there is one.
    pub fn finish(&mut self) -> Result<Option<Record>, Broken> {
        if let Some(content) = self.at.after_cr {
            return match self.ending {
                Ending::CrLf => Err(Broken::CarriageReturn),
                _ => Ok(Some(self.end(Ending::Cr, content, 0))),
            };
        }
        if self.at.marker.is_some() {
            return Err(Broken::Marker);
        }
        Ok((self.at.before > 0).then(|| self.end(self.ending, self.at.before, 0)))
    }

    /// Goes on to the next record.
    pub fn next(&mut self) {
        self.at = Place::default();
        self.spans.iter_mut().for_each(|span| *span = None);
    }

    /// Whether all fields of the key have been seen.
    pub fn has_key(&self) -> bool {
        self.at.field >= self.wanted.len()
    }

    /// Bytes of the record so far.
    pub fn length(&self) -> usize {
        self.at.before
    }

    /// Lines of the record so far.
    pub fn lines(&self) -> u64 {
        let (newlines, returns) = self.at.inside;
        1 + match self.ending {
            Ending::Lf => newlines,
            _ => returns,
        }
    }

    /// Ends the record; its end lies `taken` bytes into the piece.
    fn end(&mut self, ending: Ending, content: usize, taken: usize) -> Record {
        if !self.has_key() {
            self.end_field(content);
        }
        let record = Record {
            taken,
            content,
            lines: self.lines(),
            first_lines: 1 + self.at.inside.1,
        };
        self.ending = ending;
        record
    }

    /// Ends a field.
    fn end_field(&mut self, end: usize) {
        if let Some(Some(key)) = self.wanted.get(self.at.field)
            && let Some(span) = self.spans.get_mut(*key)
        {
            *span = Some((self.at.start, end));
        }
        self.at.field += 1;
        self.at.start = end + 1;
    }

    fn scan_text(&mut self, bytes: &[u8]) -> Result<Found, Broken> {
        let mut next = 0;
        loop {
            if self.at.marker.is_some() {
                return self.behind_marker(bytes.get(next..).unwrap_or(&[]));
            }
            if self.has_key() && !self.at.is_escaped && self.at.after_cr.is_none() {
                let rest = bytes.get(next..).unwrap_or(&[]);
                next = memchr3(b'\\', b'\n', b'\r', rest).map_or(bytes.len(), |skip| next + skip);
            }
            let Some(&byte) = bytes.get(next) else {
                return Ok(Found::More);
            };
            if let Some(content) = self.at.after_cr {
                return self.behind_return(byte, content, next).map(Found::Record);
            }
            if std::mem::take(&mut self.at.is_escaped) {
                if byte == b'.' {
                    self.at.marker = Some((self.at.before + next - 1, SmallVec::new()));
                }
                next += 1;
                continue;
            }
            match byte {
                b'\\' => self.at.is_escaped = true,
                b'\n' | b'\r' => {
                    if let Some(record) = self.line_end(byte, next)? {
                        return Ok(Found::Record(record));
                    }
                }
                _ if byte == self.marks.delimiter => self.end_field(self.at.before + next),
                _ => {}
            }
            next += 1;
        }
    }

    fn scan_csv(&mut self, bytes: &[u8], quote: u8) -> Result<Found, Broken> {
        let mut next = 0;
        loop {
            if self.at.is_quoted {
                next = self.inside_quotes(bytes, next, quote);
                if self.at.is_quoted {
                    return Ok(Found::More);
                }
                continue;
            }
            if self.has_key() && self.at.after_cr.is_none() {
                let rest = bytes.get(next..).unwrap_or(&[]);
                next = memchr3(quote, b'\n', b'\r', rest).map_or(bytes.len(), |skip| next + skip);
            }
            let Some(&byte) = bytes.get(next) else {
                return Ok(Found::More);
            };
            if let Some(content) = self.at.after_cr {
                return self.behind_return(byte, content, next).map(Found::Record);
            }
            match byte {
                _ if byte == quote => self.at.is_quoted = true,
                b'\n' | b'\r' => {
                    if let Some(record) = self.line_end(byte, next)? {
                        return Ok(Found::Record(record));
                    }
                }
                _ if byte == self.marks.delimiter => self.end_field(self.at.before + next),
                _ => {}
            }
            next += 1;
        }
    }

    /// Reads on to behind the closing quote, or to the end.
    fn inside_quotes(&mut self, bytes: &[u8], mut next: usize, quote: u8) -> usize {
        let escape = self.marks.escape;
        loop {
            if self.at.is_escaped {
                let Some(&byte) = bytes.get(next) else {
                    return next;
                };
                self.at.is_escaped = false;
                if byte == quote || Some(byte) == escape {
                    next += 1;
                    continue;
                }
            }
            let rest = bytes.get(next..).unwrap_or(&[]);
            let found = match escape {
                Some(escape) => memchr2(quote, escape, rest),
                None => memchr(quote, rest),
            };
            let passed = rest.get(..found.unwrap_or(rest.len())).unwrap_or(&[]);
            for at in memchr2_iter(b'\n', b'\r', passed) {
                let inside = &mut self.at.inside;
                match passed.get(at) {
                    Some(b'\n') => inside.0 += 1,
                    _ => inside.1 += 1,
                }
            }
            let Some(found) = found else {
                return bytes.len();
            };
            next += found + 1;
            if rest.get(found) == Some(&quote) {
                self.at.is_quoted = false;
                return next;
            }
            self.at.is_escaped = true;
        }
    }

    /// Ends the record at a newline or carriage return, unless the next byte has to be seen.
    fn line_end(&mut self, byte: u8, at: usize) -> Result<Option<Record>, Broken> {
        let content = self.at.before + at;
        match (byte, self.ending) {
            (b'\n', Ending::Unknown | Ending::Lf) => {
                Ok(Some(self.end(Ending::Lf, content, at + 1)))
            }
            (b'\n', _) => Err(Broken::Newline),
            (_, Ending::Cr) => Ok(Some(self.end(Ending::Cr, content, at + 1))),
            (_, Ending::Lf) => Err(Broken::CarriageReturn),
            (_, Ending::Unknown | Ending::CrLf) => {
                self.at.after_cr = Some(content);
                Ok(None)
            }
        }
    }

    /// Ends the record before or behind the byte that follows a carriage return.
    fn behind_return(&mut self, byte: u8, content: usize, at: usize) -> Result<Record, Broken> {
        match (byte, self.ending) {
            (b'\n', _) => Ok(self.end(Ending::CrLf, content, at + 1)),
            (_, Ending::CrLf) => Err(Broken::CarriageReturn),
            _ => Ok(self.end(Ending::Cr, content, at)),
        }
    }

    /// What follows `\.` must end the line as every line ends.
    fn behind_marker(&mut self, rest: &[u8]) -> Result<Found, Broken> {
        let Some((content, behind)) = &mut self.at.marker else {
            return Ok(Found::More);
        };
        let content = *content;
        let needed = match self.ending {
            Ending::CrLf => 2,
            _ => 1,
        };
        behind.extend(rest.iter().copied().take(needed - behind.len().min(needed)));
        let corrupt = match self.marks.is_marker_alone {
            true => Broken::MarkerNotAlone,
            false => Broken::Marker,
        };
        match (self.ending, behind.as_slice()) {
            (_, []) | (Ending::CrLf, [b'\r']) => return Ok(Found::More),
            (Ending::CrLf, [b'\n', ..]) => return Err(Broken::MarkerEnding),
            (Ending::CrLf, [b'\r', b'\n']) => {}
            (Ending::CrLf, [b'\r', b'\r']) => return Err(Broken::MarkerEnding),
            (Ending::CrLf, _) => return Err(corrupt),
            (Ending::Unknown, [b'\n' | b'\r', ..])
            | (Ending::Lf, [b'\n', ..])
            | (Ending::Cr, [b'\r', ..]) => {}
            (_, [b'\n' | b'\r', ..]) => return Err(Broken::MarkerEnding),
            _ => return Err(corrupt),
        }
        if content > 0 && self.marks.is_marker_alone {
            return Err(Broken::MarkerNotAlone);
        }
        if content > 0 && !self.has_key() {
            self.end_field(content);
        }
        Ok(Found::End { content })
    }
}
