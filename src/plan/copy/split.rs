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
//! - Of a replicated table every shard gets every row, with the same values for what the data leaves out.

mod faults;
mod keys;

use std::sync::Arc;

use smallvec::SmallVec;

use super::At;
use super::CopyIn;
use super::KeyField;
use super::Layout;
use super::lines::Lines;
use super::scan;
use super::scan::Broken;
use super::scan::Scanner;
use super::scan::Span;
use super::supply;
use super::supply::Supply;
use super::supply::Value;
use super::tuple;
use super::tuple::Tuples;
use crate::error::Error;
use crate::sharding::Key;
use crate::sharding::ShardIndex;
use crate::sql::encoding::Encoding;
use faults::malformed;
use faults::too_long;

/// Bytes of a row at hand from which on it passes as it comes, once its key is known.
const LONG_ROW_BYTES: usize = 32 * 1024;

/// Characters of a row that an error shows (`MAX_COPY_DATA_DISPLAY`).
const MOST_SHOWN: usize = 100;

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
    passing: Option<To>,
    /// Values for what the data leaves out.
    supply: Supply,
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

/// Which shards get something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Part(usize),
    All,
}

/// Where a row goes, or why it goes nowhere.
enum Way {
    To(To),
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
        let field = |key: &KeyField| match key.at {
            At::Field(field) => Some(field),
            At::Supplied(_) => None,
        };
        let fields: SmallVec<[usize; 2]> = layout.keys.iter().filter_map(field).collect();
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
            supply: Supply::new(&copy.supplied),
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

    /// Whether every shard gets every row.
    pub fn is_for_all(&self) -> bool {
        self.layout.placement.is_none()
    }

    /// Takes values for further rows: of each column that is supplied, in their order.
    ///
    /// # Errors
    /// `0A000` for one that the data's format can't say.
    pub fn supply(&mut self, values: Vec<Vec<Value>>) -> Result<(), Error> {
        let mut all = values.iter().flatten();
        if all.any(|value| supply::is_unwritable(value, &self.layout)) {
            return Err(Error::refused(
                "COPY with an empty default is not supported over several shards",
                "It can't be told from NULL in the format of the data.",
                "List the column, or use another string for NULL.",
            ));
        }
        self.supply.extend(values);
        Ok(())
    }

    /// There are no values for further rows: the next one fails.
    pub fn exhaust(&mut self, error: Error) {
        self.supply.end(error);
    }

    /// What of a line that a shard shows is the client's.
    pub fn of_client<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        supply::behind_head(line, self.copy.supplied.len(), &self.layout)
    }

    /// Values that no row has got.
    pub fn left(&mut self) -> Vec<Vec<Value>> {
        self.supply.left()
    }

    /// Takes a piece of the data, or as much of it as there are values for; how many bytes that were.
    ///
    /// # Errors
    /// What is wrong with it; nothing may follow then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over {
            if self.passing.is_none() && !self.supply.may_begin() {
                return Ok(bytes.len() - rest.len());
            }
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
        Ok(bytes.len())
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
            Some(to) => self.put(to, row, &[]),
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
                Some(to) => self.put(to, row, &[]),
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
        if let Some(to) = self.passing {
            self.push(to, bytes);
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let (has_key, length) = match &self.reader {
            Reader::Lines(scanner) => (scanner.has_key(), scanner.length()),
            Reader::Tuples(tuples) => (tuples.has_key(), tuples.length()),
        };
        if has_key && !self.is_header && length >= LONG_ROW_BYTES {
            let pending = std::mem::take(&mut self.pending);
            let values = self.supply.take();
            let values = values.map_err(|error| self.fault_of(self.line(), error, &pending))?;
            let (to, error) = match self.way(&pending, &values) {
                Way::To(to) => (to, None),
                Way::Rejected(error) => (To::Part(0), Some(error)),
                Way::Nowhere(error) => return Err(self.fault(self.line(), error, None)),
            };
            self.begin(to, &pending, &supply::head(&values, &self.layout));
            if let Some(error) = error {
                return Err(self.fault(self.line(), error, Some(0)));
            }
            self.passing = Some(to);
        } else if self.pending.len() > self.most_bytes {
            return Err(self.fault(self.line(), too_long(self.most_bytes), None));
        }
        Ok(())
    }

    /// Sends a whole row where it belongs.
    fn place(&mut self, row: Row<'_>) -> Result<(), Fault> {
        if std::mem::take(&mut self.is_header) {
            self.put(
                To::All,
                row,
                &supply::header(&self.copy.supplied, &self.layout),
            );
            return Ok(());
        }
        let content = row.all.get(..row.content).unwrap_or(row.all);
        let values = self.supply.take();
        let values = values.map_err(|error| self.fault_of(row.line, error, content))?;
        let head = supply::head(&values, &self.layout);
        match self.way(content, &values) {
            Way::To(to) => {
                self.put(to, row, &head);
                Ok(())
            }
            Way::Rejected(error) => {
                self.put(To::Part(0), row, &head);
                Err(self.fault(row.line, error, Some(0)))
            }
            Way::Nowhere(error) => Err(self.fault(row.line, error, None)),
        }
    }

    fn parts_of(&mut self, to: To) -> &mut [Part] {
        match to {
            To::Part(part) => self.parts.get_mut(part..=part).unwrap_or_default(),
            To::All => &mut self.parts,
        }
    }

    /// The end of a row, or all of it behind a head.
    fn put(&mut self, to: To, row: Row<'_>, head: &[u8]) {
        self.begin(to, row.all, head);
        for part in self.parts_of(to) {
            let lines = match part.lines.has_any() {
                true => row.lines.0,
                false => row.lines.1,
            };
            part.lines.note(lines, row.line);
        }
    }

    /// The beginning of a row, behind its head.
    fn begin(&mut self, to: To, bytes: &[u8], head: &[u8]) {
        // The head of a tuple has the number of its fields.
        let skipped = if self.layout.is_binary && !head.is_empty() {
            2
        } else {
            0
        };
        self.push(to, head);
        self.push(to, bytes.get(skipped..).unwrap_or_default());
    }

    fn push(&mut self, to: To, bytes: &[u8]) {
        for part in self.parts_of(to) {
            part.bytes.extend_from_slice(bytes);
        }
    }

    /// Where the row at hand goes.
    fn way(&self, row: &[u8], values: &[Value]) -> Way {
        let Some(placement) = &self.layout.placement else {
            return Way::To(To::All);
        };
        let spans: &[Option<Span>] = match &self.reader {
            Reader::Lines(scanner) => &scanner.spans,
            Reader::Tuples(tuples) => &tuples.spans,
        };
        let mut spans = spans.iter();
        let mut keys: SmallVec<[Key; 2]> = SmallVec::new();
        for field in &self.layout.keys {
            let key = match field.at {
                At::Field(_) => {
                    let span = spans.next().copied().flatten();
                    self.key(field, span.and_then(|(start, end)| row.get(start..end)))
                }
                At::Supplied(at) => self.supplied_key(field, values.get(at).cloned().flatten()),
            };
            match key {
                Ok(key) => keys.push(key),
                Err(way) => return way,
            }
        }
        let found = placement.shard(&keys).map_err(|error| {
            let first = self.layout.keys.first();
            let column = first.map_or("", |key| key.name.as_str());
            Way::Nowhere(error.store_error(&self.copy.table, column))
        });
        match found {
            Ok(shard) => match self.parts.iter().position(|part| part.shard == shard) {
                Some(part) => Way::To(To::Part(part)),
                None => Way::Nowhere(malformed("a row belongs to a shard without a part")),
            },
            Err(way) => way,
        }
    }

    /// Sends what PostgreSQL rejects of binary data to the first shard.
    fn rejected(&mut self, tail: &[u8], error: Error) -> Result<(), Fault> {
        let to = self.passing.take().unwrap_or(To::Part(0));
        let pending = std::mem::take(&mut self.pending);
        self.push(to, &pending);
        self.push(to, tail);
        let part = match to {
            To::Part(part) => part,
            To::All => 0,
        };
        Err(self.fault(self.line(), error, Some(part)))
    }

    fn broken(&self, broken: Broken) -> Fault {
        let is_csv = self.layout.marks.quote.is_some();
        self.fault(self.line(), broken.error(is_csv), None)
    }

    /// A fault of a row that is shown.
    fn fault_of(&self, line: u64, error: Error, row: &[u8]) -> Fault {
        let row = self.encoding.read(row).filter(|_| !self.layout.is_binary);
        let Some(row) = row else {
            return self.fault(line, error, None);
        };
        let shown: String = row.chars().take(MOST_SHOWN).collect();
        let dots = if shown.len() < row.len() { "..." } else { "" };
        let table = &self.copy.table;
        let context = format!("COPY {table}, line {line}: \"{shown}{dots}\"");
        Fault {
            line,
            error: error.context(context),
            part: None,
        }
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

#[cfg(test)]
mod tests;
