//! `COPY` (`CopyStmt` in PostgreSQL's grammar).

use super::cursor::Cursor;
use crate::sql::statement::Copy;
use crate::sql::statement::CopyDirection;
use crate::sql::statement::CopyEndpoint;
use crate::sql::statement::CopyFormat;
use crate::sql::statement::CopyHeader;
use crate::sql::statement::CopyOptions;
use crate::sql::statement::CopySource;
use crate::sql::statement::Forced;

/// Behind `COPY`.
pub(super) fn copy(mut rest: Cursor) -> Option<Copy> {
    let mut options = CopyOptions::default();
    let source = source(&mut rest, &mut options)?;
    let direction = if rest.eat(&["from"]) {
        CopyDirection::From
    } else if rest.eat(&["to"]) {
        CopyDirection::To
    } else {
        return None;
    };
    if matches!(source, CopySource::Query(_)) && direction == CopyDirection::From {
        return None;
    }
    let endpoint = endpoint(&mut rest)?;
    let old_delimiter = [&["using", "delimiters"][..], &["delimiters"]];
    if old_delimiter.iter().any(|words| rest.eat(words)) {
        options.delimiter = Some(rest.string_value()?);
    }
    rest.eat(&["with"]);
    if rest.is_symbol(0, "(") {
        for option in rest.parentheses()?.list()? {
            listed_option(option, &mut options)?;
        }
    } else {
        while !rest.is_end() && !rest.is(0, "where") {
            bare_option(&mut rest, &mut options)?;
        }
    }
    let condition = if rest.eat(&["where"]) {
        Some(rest.range()?)
    } else {
        rest.end(None)?
    };
    Some(Copy {
        source,
        direction,
        endpoint,
        options,
        condition,
    })
}

fn source(rest: &mut Cursor, options: &mut CopyOptions) -> Option<CopySource> {
    if rest.is_symbol(0, "(") {
        return Some(CopySource::Query(rest.parentheses()?.range()?));
    }
    if rest.eat(&["binary"]) {
        options.format = CopyFormat::Binary;
    }
    let name = rest.relation()?;
    let columns = if rest.is_symbol(0, "(") {
        let mut columns = Vec::new();
        for mut column in rest.parentheses()?.list()? {
            let name = column.name()?;
            columns.push(column.end(name)?);
        }
        Some(columns)
    } else {
        None
    };
    Some(CopySource::Relation { name, columns })
}

fn endpoint(rest: &mut Cursor) -> Option<CopyEndpoint> {
    if rest.eat_any(&["stdin", "stdout"]) {
        return Some(CopyEndpoint::Client);
    }
    let program = rest.eat(&["program"]);
    rest.string()?;
    Some(if program {
        CopyEndpoint::Program
    } else {
        CopyEndpoint::File
    })
}

/// One of the options in parentheses (`copy_generic_opt_elem`).
fn listed_option(mut option: Cursor, options: &mut CopyOptions) -> Option<()> {
    let name = option.label()?.to_ascii_lowercase();
    match name.as_str() {
        "force_not_null" => options.force_not_null = listed_columns(option),
        "force_null" => options.force_null = listed_columns(option),
        _ => {}
    }
    let value = value(option);
    let understood = match (name.as_str(), value) {
        ("format", Some(Value::Word(format))) => set_format(&format, options),
        ("header", value) => set_header(value, options),
        ("freeze", value) => boolean(value).map(|freeze| options.freeze = freeze),
        (name, Some(Value::Word(text))) => set_text(name, text, options),
        _ => None,
    };
    if understood.is_none() {
        options.other.push(name);
    }
    Some(())
}

/// `*` or `(columns)`.
fn listed_columns(mut option: Cursor) -> Forced {
    if option.eat_symbol("*") {
        return option.end(Forced::All).unwrap_or(Forced::Unknown);
    }
    let listed = option.parentheses().and_then(Cursor::list);
    let names = listed.and_then(|columns| {
        let name = |mut column: Cursor| column.name().and_then(|name| column.end(name));
        columns.into_iter().map(name).collect()
    });
    match option.end(names).flatten() {
        Some(names) => Forced::Columns(names),
        None => Forced::Unknown,
    }
}

/// The value of an option.
enum Value {
    Absent,
    Word(String),
}

/// What is left of an option: nothing, or one word, string or number; `None` for anything else.
fn value(mut option: Cursor) -> Option<Value> {
    if option.is_end() {
        return Some(Value::Absent);
    }
    let word = match option.string_value().or_else(|| option.label()) {
        Some(word) => word,
        None => option.integer()?.to_string(),
    };
    option.end(Value::Word(word))
}

fn set_text(name: &str, text: String, options: &mut CopyOptions) -> Option<()> {
    let option = match name {
        "delimiter" => &mut options.delimiter,
        "null" => &mut options.null,
        "default" => &mut options.default,
        "quote" => &mut options.quote,
        "escape" => &mut options.escape,
        "encoding" => &mut options.encoding,
        _ => return None,
    };
    *option = Some(text);
    Some(())
}

fn set_format(format: &str, options: &mut CopyOptions) -> Option<()> {
    options.format = match format {
        "text" => CopyFormat::Text,
        "csv" => CopyFormat::Csv,
        "binary" => CopyFormat::Binary,
        _ => return None,
    };
    Some(())
}

fn set_header(value: Option<Value>, options: &mut CopyOptions) -> Option<()> {
    options.header = match value {
        Some(Value::Word(word)) if word.eq_ignore_ascii_case("match") => CopyHeader::Match,
        value => match boolean(value)? {
            true => CopyHeader::Present,
            false => CopyHeader::Absent,
        },
    };
    Some(())
}

/// `defGetBoolean`: nothing at all is true.
fn boolean(value: Option<Value>) -> Option<bool> {
    match value? {
        Value::Absent => Some(true),
        Value::Word(word) => super::boolean(&word),
    }
}

/// One of the options without parentheses (`copy_opt_item`).
fn bare_option(rest: &mut Cursor, options: &mut CopyOptions) -> Option<()> {
    if rest.eat(&["binary"]) {
        options.format = CopyFormat::Binary;
    } else if rest.eat(&["csv"]) {
        options.format = CopyFormat::Csv;
    } else if rest.eat(&["header"]) {
        options.header = CopyHeader::Present;
    } else if rest.eat(&["freeze"]) {
        options.freeze = true;
    } else if rest.eat(&["delimiter"]) {
        options.delimiter = Some(as_string(rest)?);
    } else if rest.eat(&["null"]) {
        options.null = Some(as_string(rest)?);
    } else if rest.eat(&["quote"]) {
        options.quote = Some(as_string(rest)?);
    } else if rest.eat(&["escape"]) {
        options.escape = Some(as_string(rest)?);
    } else if rest.eat(&["encoding"]) {
        options.encoding = Some(rest.string_value()?);
    } else {
        force(rest, options)?;
    }
    Some(())
}

/// `[AS] 'string'`.
fn as_string(rest: &mut Cursor) -> Option<String> {
    rest.eat(&["as"]);
    rest.string_value()
}

/// `FORCE QUOTE|NOT NULL|NULL columns`.
fn force(rest: &mut Cursor, options: &mut CopyOptions) -> Option<()> {
    let forced = [
        (&["force", "quote"][..], "force_quote"),
        (&["force", "not", "null"], "force_not_null"),
        (&["force", "null"], "force_null"),
    ];
    let (_, name) = forced.iter().find(|(words, _)| rest.eat(words))?;
    options.other.push((*name).to_owned());
    let columns = if rest.eat_symbol("*") {
        Forced::All
    } else {
        let mut columns = vec![rest.name()?];
        while rest.eat_symbol(",") {
            columns.push(rest.name()?);
        }
        Forced::Columns(columns)
    };
    match *name {
        "force_not_null" => options.force_not_null = columns,
        "force_null" => options.force_null = columns,
        _ => {}
    }
    Some(())
}
