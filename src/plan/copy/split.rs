//! Takes the data of a COPY FROM apart, each row for the shard of its key; pure.
//!
//! What holds:
//! - Every byte of the client's data goes to one shard or, if it is the header's, to all of them. What a
//!   shard gets is the header and whole rows in their order, so that it reads what it would have read of
//!   the client's.
//! - Any split of the data into pieces gives the same.
//! - A row that PostgreSQL rejects before it knows the key, or whose key is none, goes to some shard, so that
//!   PostgreSQL itself says what is wrong; nothing is sent behind it, and the copy fails even if that shard
//!   finds nothing wrong.
//! - Ends of lines that differ from the first are rejected here, because a shard can't know the first.
//! - A row of which the key is known needs no memory: the rest of it passes as it comes. One whose key is not
//!   known yet may have so many bytes at most.
//! - The client's line of each row is known as long as the shard may yet complain of it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::CopyIn;
use super::KeyField;
use super::Layout;
use super::field;
use super::field::Field;
use super::lines::Lines;
use super::scan;
use super::scan::Broken;
use super::scan::Scanner;
use super::scan::Span;
use super::tuple;
use super::tuple::Tuples;
use crate::error::Error;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyUse;
use crate::sharding::LiteralKind;
use crate::sharding::ShardIndex;
use crate::sql::encoding::Encoding;
use crate::sqlstate::SqlState;

/// Bytes of a row at hand from which on it passes as it comes, once its key is known.
const LONG_ROW_BYTES: usize = 32 * 1024;

/// Takes data apart.
#[derive(Debug)]
pub struct Splitter {
    copy: Arc<CopyIn>,
    layout: Arc<Layout>,
    encoding: Encoding,
    reader: Reader,
    /// What each shard has got, in the order of shards.
    parts: Vec<Part>,
    /// The row at hand, as far as it came in earlier pieces and has not passed.
    pending: Vec<u8>,
    /// Where the row at hand goes, part of which has passed.
    passing: Option<usize>,
    /// Rows have this many bytes at most before their key.
    most_bytes: usize,
    /// Lines of the client's that have ended.
    line: u64,
    /// The header is next.
    is_header: bool,
    /// Nothing that follows counts.
    is_over: bool,
}

/// What goes to a shard.
#[derive(Debug, Default)]
pub struct Part {
    /// The shard.
    pub shard: ShardIndex,
    /// Data to send; whoever sends it takes it away.
    pub bytes: Vec<u8>,
    /// Its lines.
    pub lines: Lines,
}

/// Why the data can't be copied.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The client's line.
    pub line: u64,
    /// What to say, unless the shard that has got the row says it better.
    pub error: Error,
    /// Which part has got the row.
    pub part: Option<usize>,
}

/// Reads records.
#[derive(Debug)]
enum Reader {
    Lines(Scanner),
    Tuples(Tuples),
}

/// The bytes of a row: all of them, and those of its fields.
#[derive(Clone, Copy)]
struct Row<'a> {
    all: &'a [u8],
    content: usize,
    /// The client's lines up to its end.
    line: u64,
    /// Its lines, for a shard that knows how lines end, and for one that doesn't.
    lines: (u64, u64),
}

/// Where a row goes, or why it goes nowhere.
enum Way {
    Part(usize),
    /// To some shard, which rejects it.
    Rejected(Error),
    Nowhere(Error),
}

impl Splitter {
    /// `most_bytes`: how long a row may be before its key.
    pub(super) fn new(
        copy: Arc<CopyIn>,
        layout: Arc<Layout>,
        encoding: Encoding,
        most_bytes: usize,
    ) -> Splitter {
        let fields: SmallVec<[usize; 2]> = layout.keys.iter().map(|key| key.field).collect();
        let part = |shard| Part {
            shard,
            ..Part::default()
        };
        Splitter {
            reader: match layout.is_binary {
                true => Reader::Tuples(Tuples::new(layout.columns.len(), &fields)),
                false => Reader::Lines(Scanner::new(layout.marks, &fields)),
            },
            parts: copy.shards.iter().map(part).collect(),
            pending: Vec::new(),
            passing: None,
            most_bytes,
            line: 0,
            is_header: layout.has_header,
            is_over: false,
            copy,
            layout,
            encoding,
        }
    }

    /// What goes to each shard.
    pub fn parts(&mut self) -> &mut [Part] {
        &mut self.parts
    }

    /// The client's line that is being read.
    pub fn line(&self) -> u64 {
        self.line
            + match &self.reader {
                Reader::Lines(scanner) => scanner.lines(),
                Reader::Tuples(_) => 1,
            }
    }

    /// Takes a piece of the data.
    ///
    /// # Errors
    /// What is wrong with it; nothing may follow then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over {
            let taken = match &mut self.reader {
                Reader::Lines(scanner) => {
                    let found = scanner.scan(rest);
                    self.take_line(rest, found)?
                }
                Reader::Tuples(tuples) => {
                    let found = tuples.scan(rest);
                    self.take_tuple(rest, found)?
                }
            };
            rest = rest.get(taken..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Takes the end of the data.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(&mut self) -> Result<(), Fault> {
        match &mut self.reader {
            _ if self.is_over => self.place_last(),
            Reader::Lines(scanner) => match scanner.finish() {
                Ok(None) => Ok(()),
                Ok(Some(record)) => self.end_record(&[], record, false),
                Err(broken) => Err(self.broken(broken)),
            },
            Reader::Tuples(tuples) => {
                // Without a trailer the data may end between tuples.
                match tuples.is_between() {
                    true => Ok(()),
                    false => self.rejected(&[], malformed("unexpected end of the data")),
                }
            }
        }
    }

    /// Places what stands before `\.` in its line.
    fn place_last(&mut self) -> Result<(), Fault> {
        let all = std::mem::take(&mut self.pending);
        if all.is_empty() {
            return Ok(());
        }
        self.place(Row {
            all: &all,
            content: all.len(),
            line: self.line + 1,
            lines: (1, 1),
        })
    }

    fn take_line(
        &mut self,
        rest: &[u8],
        found: Result<scan::Found, Broken>,
    ) -> Result<usize, Fault> {
        match found {
            Ok(scan::Found::More) => {
                self.keep(rest)?;
                Ok(rest.len())
            }
            Ok(scan::Found::Record(record)) => {
                let taken = record.taken;
                self.end_record(rest.get(..taken).unwrap_or(&[]), record, true)?;
                Ok(taken)
            }
            Ok(scan::Found::End { content }) => {
                self.is_over = true;
                if self.passing.is_some() {
                    // Part of it may have passed already.
                    return Err(self.broken(Broken::Marker));
                }
                // PostgreSQL takes what stands before it for a line, once all data has come.
                self.pending.extend_from_slice(rest);
                self.pending.truncate(content);
                Ok(rest.len())
            }
            Err(broken) => Err(self.broken(broken)),
        }
    }

    fn end_record(
        &mut self,
        tail: &[u8],
        record: scan::Record,
        is_ended: bool,
    ) -> Result<(), Fault> {
        let mut pending = std::mem::take(&mut self.pending);
        let is_whole = pending.is_empty();
        if !is_whole {
            pending.extend_from_slice(tail);
        }
        self.line += record.lines;
        let row = Row {
            all: if is_whole { tail } else { &pending },
            content: record.content,
            line: self.line,
            lines: (record.lines, record.first_lines),
        };
        let is_end = is_ended
            && self.layout.marks.quote.is_some()
            && !self.layout.marks.is_marker_alone
            && row.all.get(..row.content) == Some(b"\\.");
        match self.passing.take() {
            _ if is_end => self.is_over = true,
            Some(part) => self.put(part, row),
            None => self.place(row)?,
        }
        pending.clear();
        self.pending = pending;
        if let Reader::Lines(scanner) = &mut self.reader {
            scanner.next();
        }
        Ok(())
    }

    fn take_tuple(&mut self, rest: &[u8], found: tuple::Found) -> Result<usize, Fault> {
        use tuple::Found;
        let (Found::Head(taken)
        | Found::Tuple(taken)
        | Found::Trailer(taken)
        | Found::Broken(taken)) = found
        else {
            self.keep(rest)?;
            return Ok(rest.len());
        };
        let tail = rest.get(..taken).unwrap_or(&[]);
        if matches!(found, Found::Broken(_)) {
            self.rejected(tail, malformed("malformed binary data"))?;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let is_whole = pending.is_empty();
        if !is_whole {
            pending.extend_from_slice(tail);
        }
        let all: &[u8] = if is_whole { tail } else { &pending };
        if let Found::Tuple(_) = found {
            self.line += 1;
            let row = Row {
                all,
                content: all.len(),
                line: self.line,
                lines: (1, 1),
            };
            match self.passing.take() {
                Some(part) => self.put(part, row),
                None => self.place(row)?,
            }
        } else {
            let parts = self.parts.iter_mut();
            parts.for_each(|part| part.bytes.extend_from_slice(all));
        }
        pending.clear();
        self.pending = pending;
        if let Reader::Tuples(tuples) = &mut self.reader {
            tuples.next();
        }
        Ok(taken)
    }

    /// Keeps part of a row, or passes it on.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(part) = self.passing {
            self.push(part, bytes);
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let (has_key, length) = match &self.reader {
            Reader::Lines(scanner) => (scanner.has_key(), scanner.length()),
            Reader::Tuples(tuples) => (tuples.has_key(), tuples.length()),
        };
        if has_key && !self.is_header && length >= LONG_ROW_BYTES {
            let pending = std::mem::take(&mut self.pending);
            let way = self.way(&pending);
            let (part, error) = match way {
                Way::Part(part) => (part, None),
                Way::Rejected(error) => (0, Some(error)),
                Way::Nowhere(error) => return Err(self.fault(self.line(), error, None)),
            };
            self.push(part, &pending);
            if let Some(error) = error {
                return Err(self.fault(self.line(), error, Some(part)));
            }
            self.passing = Some(part);
        } else if self.pending.len() > self.most_bytes {
            return Err(self.fault(self.line(), too_long(self.most_bytes), None));
        }
        Ok(())
    }

    /// Sends a whole row where it belongs.
    fn place(&mut self, row: Row<'_>) -> Result<(), Fault> {
        if std::mem::take(&mut self.is_header) {
            (0..self.parts.len()).for_each(|part| self.put(part, row));
            return Ok(());
        }
        let content = row.all.get(..row.content).unwrap_or(row.all);
        match self.way(content) {
            Way::Part(part) => {
                self.put(part, row);
                Ok(())
            }
            Way::Rejected(error) => {
                self.put(0, row);
                Err(self.fault(row.line, error, Some(0)))
            }
            Way::Nowhere(error) => Err(self.fault(row.line, error, None)),
        }
    }

    /// The end of a row for a part.
    fn put(&mut self, part: usize, row: Row<'_>) {
        if let Some(part) = self.parts.get_mut(part) {
            part.bytes.extend_from_slice(row.all);
            let lines = match part.lines.has_any() {
                true => row.lines.0,
                false => row.lines.1,
            };
            part.lines.note(lines, row.line);
        }
    }

    fn push(&mut self, part: usize, bytes: &[u8]) {
        if let Some(part) = self.parts.get_mut(part) {
            part.bytes.extend_from_slice(bytes);
        }
    }

    /// Where the row at hand goes.
    fn way(&self, row: &[u8]) -> Way {
        let spans: &[Option<Span>] = match &self.reader {
            Reader::Lines(scanner) => &scanner.spans,
            Reader::Tuples(tuples) => &tuples.spans,
        };
        let mut keys: SmallVec<[Key; 2]> = SmallVec::new();
        for (field, span) in self.layout.keys.iter().zip(spans) {
            let bytes = span.and_then(|(start, end)| row.get(start..end));
            match self.key(field, bytes) {
                Ok(key) => keys.push(key),
                Err(way) => return way,
            }
        }
        let found = self.layout.placement.shard(&keys).map_err(|error| {
            let first = self.layout.keys.first();
            let column = first.map_or("", |key| key.name.as_str());
            Way::Nowhere(error.store_error(&self.copy.table, column))
        });
        match found {
            Ok(shard) => match self.parts.iter().position(|part| part.shard == shard) {
                Some(part) => Way::Part(part),
                None => Way::Nowhere(malformed("a row belongs to a shard without a part")),
            },
            Err(way) => way,
        }
    }

    /// The value of one column of the key.
    fn key(&self, field: &KeyField, bytes: Option<&[u8]>) -> Result<Key, Way> {
        let store_error = |error: KeyError| error.store_error(&self.copy.table, &field.name);
        let null = || self.null(field, store_error(KeyError::Null));
        let key = match (self.layout.is_binary, bytes) {
            (true, None) => return Err(null()),
            (true, Some(bytes)) => {
                let (column, oid) = (&field.column, field.column.key_type.oid());
                Key::from_parameter(oid, Format::Binary, Some(bytes), column, KeyUse::Store)
            }
            // The row ends before the field.
            (false, None) => return Err(Way::Rejected(malformed("a row without its shard key"))),
            (false, Some(bytes)) => {
                match field::read(bytes, &self.layout, self.encoding, field.forced) {
                    Field::Null => return Err(null()),
                    Field::Default => {
                        let error = super::missing_key(&self.copy.table, &field.name);
                        return Err(Way::Nowhere(error));
                    }
                    Field::Invalid => return Err(Way::Rejected(malformed("invalid characters"))),
                    Field::Text(text) => {
                        Key::from_literal(&text, LiteralKind::String, &field.column, KeyUse::Store)
                    }
                }
            }
        };
        key.map_err(|error| match error {
            KeyError::Rejected(_) => Way::Rejected(store_error(error)),
            error => Way::Nowhere(store_error(error)),
        })
    }

    /// A row without a key: PostgreSQL rejects it if the column says so, unless a condition leaves it out.
    fn null(&self, field: &KeyField, error: Error) -> Way {
        match (field.not_null, self.layout.has_condition) {
            (true, true) => Way::Part(0),
            (true, false) => Way::Rejected(error),
            (false, _) => Way::Nowhere(error),
        }
    }

    /// Sends what PostgreSQL rejects of binary data to the first shard.
    fn rejected(&mut self, tail: &[u8], error: Error) -> Result<(), Fault> {
        let part = self.passing.take().unwrap_or(0);
        let pending = std::mem::take(&mut self.pending);
        self.push(part, &pending);
        self.push(part, tail);
        Err(self.fault(self.line(), error, Some(part)))
    }

    fn broken(&self, broken: Broken) -> Fault {
        let is_csv = self.layout.marks.quote.is_some();
        self.fault(self.line(), broken.error(is_csv), None)
    }

    fn fault(&self, line: u64, error: Error, part: Option<usize>) -> Fault {
        let context = format!("COPY {}, line {line}", self.copy.table);
        Fault {
            line,
            error: error.context(context),
            part,
        }
    }
}

impl Broken {
    /// PostgreSQL's own words (`22P04`).
    fn error(self, is_csv: bool) -> Error {
        let (message, hint) = match (self, is_csv) {
            (Broken::CarriageReturn, false) => (
                "literal carriage return found in data",
                Some("Use \"\\r\" to represent carriage return."),
            ),
            (Broken::CarriageReturn, true) => (
                "unquoted carriage return found in data",
                Some("Use quoted CSV field to represent carriage return."),
            ),
            (Broken::Newline, false) => (
                "literal newline found in data",
                Some("Use \"\\n\" to represent newline."),
            ),
            (Broken::Newline, true) => (
                "unquoted newline found in data",
                Some("Use quoted CSV field to represent newline."),
            ),
            (Broken::Marker, _) => ("end-of-copy marker corrupt", None),
            (Broken::MarkerEnding, _) => (
                "end-of-copy marker does not match previous newline style",
                None,
            ),
            (Broken::MarkerNotAlone, _) => ("end-of-copy marker is not alone on its line", None),
        };
        let error = Error::new(SqlState::BAD_COPY_FILE_FORMAT, message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// What a shard should have said better (`22P04`).
fn malformed(message: &'static str) -> Error {
    Error::new(SqlState::BAD_COPY_FILE_FORMAT, message)
}

fn too_long(most_bytes: usize) -> Error {
    Error::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        "a row is too long before its shard key",
    )
    .detail(format!(
        "More than {most_bytes} bytes of it would have to be kept until its shard is known."
    ))
    .hint("Put the shard key's columns first, or raise limits.max_message.")
}

#[cfg(test)]
mod tests;
