//! The options of a COPY FROM, as far as they say where a record ends and what its fields are.

use super::Marks;
use crate::error::Error;
use crate::sql::statement::{CopyFormat, CopyHeader, CopyOptions, Forced};

/// What the options say of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub is_binary: bool,
    pub marks: Marks,
    pub null: String,
    pub default: Option<String>,
    pub has_header: bool,
}

/// The first major version of PostgreSQL in which `\.` means nothing in CSV, and must stand alone in text.
const MARKER_ALONE: u32 = 18_00_00;

/// Reads the options.
///
/// # Errors
/// What PostgreSQL may understand, and the proxy does not.
pub(super) fn read(options: &CopyOptions, server_version: u32) -> Result<Form, Error> {
    let is_csv = options.format == CopyFormat::Csv;
    let quote = one_byte("QUOTE", options.quote.as_deref(), b'"')?;
    let escape = one_byte("ESCAPE", options.escape.as_deref(), quote)?;
    if is_csv && quote == b'\\' {
        // `\.` would end the data inside quotes.
        return Err(unknown("QUOTE"));
    }
    let delimiter = if is_csv { b',' } else { b'\t' };
    let marks = Marks {
        delimiter: one_byte("DELIMITER", options.delimiter.as_deref(), delimiter)?,
        quote: is_csv.then_some(quote),
        escape: (is_csv && escape != quote).then_some(escape),
        is_marker_alone: server_version >= MARKER_ALONE,
    };
    // Those that say nothing of what is stored.
    let known = ["force_quote", "force_not_null", "force_null"];
    let other = options.other.iter();
    let mut other = other.filter(|name| !known.contains(&name.as_str()));
    if let Some(name) = other.next() {
        return Err(unknown(&name.to_uppercase()));
    }
    let forced = [&options.force_not_null, &options.force_null];
    if forced.contains(&&Forced::Unknown) {
        return Err(unknown("FORCE_NULL"));
    }
    let null = if is_csv { "" } else { "\\N" };
    Ok(Form {
        is_binary: options.format == CopyFormat::Binary,
        marks,
        null: options.null.clone().unwrap_or_else(|| null.to_owned()),
        default: options.default.clone(),
        has_header: options.header != CopyHeader::Absent,
    })
}

fn one_byte(name: &str, value: Option<&str>, default: u8) -> Result<u8, Error> {
    match value.map(str::as_bytes) {
        None => Ok(default),
        Some([byte]) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(*byte),
        Some(_) => Err(unknown(name)),
    }
}

fn unknown(option: &str) -> Error {
    Error::refused(
        format!("COPY with this option {option} is not supported over several shards"),
        "The rows have to be found in the data before they can be sent to their shards.",
        "Leave the option out, or load each shard by itself.",
    )
}
