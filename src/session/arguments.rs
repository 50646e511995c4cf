//! The arguments of EXECUTE as the parameters of the statement that it names; pure.

use std::ops::Range;

use crate::sql::lexer::tokenize;
use crate::sql::literal::token_value;
use crate::sql::token::{LexOptions, Token, TokenKind, slice};

/// No type's OID: nothing is known of the value.
const NO_TYPE: u32 = u32::MAX;

/// `pg_type` OIDs of the types in which numbers and booleans are looked at.
const NUMERIC: u32 = 1700;
const BOOLEAN: u32 = 16;

/// Arguments as parameters in text format.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// How many there are.
    pub count: usize,
    /// The parameters' types; of those whose value is not known, none that exists.
    pub types: Vec<u32>,
    /// The values as in a Bind message.
    pub values: Vec<u8>,
    /// The arguments that are not constants, joined by commas.
    pub computed: String,
}

impl Carried {
    /// Whether the parameter's type reads each as PostgreSQL would.
    pub fn is_known(&self) -> bool {
        self.computed.is_empty() && !self.types.contains(&NO_TYPE)
    }
}

/// Reads the arguments at `ranges` of `text`; `declared` are the parameters' types.
pub(super) fn carried(text: &str, ranges: &[Range<u32>], declared: &[u32]) -> Carried {
    let mut carried = Carried {
        count: ranges.len(),
        ..Carried::default()
    };
    for (index, range) in ranges.iter().enumerate() {
        let argument = slice(text, range.clone());
        let declared = declared.get(index).copied().unwrap_or(0);
        match constant(argument, declared) {
            Some((type_oid, value)) => {
                carried.types.push(type_oid);
                push_value(&mut carried.values, value.as_deref());
            }
            None => {
                carried.types.push(NO_TYPE);
                push_value(&mut carried.values, Some(""));
                if !carried.computed.is_empty() {
                    carried.computed.push_str(", ");
                }
                carried.computed.push_str(argument);
            }
        }
    }
    carried
}

fn push_value(out: &mut Vec<u8>, value: Option<&str>) {
    let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(-1));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default().as_bytes());
}

/// The type and value of a constant as the parameter gets it; none if it is no constant.
fn constant(argument: &str, declared: u32) -> Option<(u32, Option<String>)> {
    let tokens = tokenize(argument.as_bytes(), LexOptions::default()).ok()?;
    match tokens.as_slice() {
        // Its type is open, so the type's input function reads it.
        [token] if token.kind.is_string() && !is_ambiguous(argument, token) => {
            let value = token_value(argument, token)?;
            Some((declared, Some(value.into_owned())))
        }
        [token] if token.kind == TokenKind::Number => {
            Some(number("", token.text(argument), declared))
        }
        [sign, token]
            if token.kind == TokenKind::Number
                && (sign.is_symbol(argument, "-") || sign.is_symbol(argument, "+")) =>
        {
            let sign = sign.text(argument).trim_start_matches('+');
            Some(number(sign, token.text(argument), declared))
        }
        [token] if token.is_word(argument, "null") => Some((declared, None)),
        [token] if token.is_word(argument, "true") || token.is_word(argument, "false") => {
            let known = matches!(declared, 0 | BOOLEAN);
            let value = argument.to_ascii_lowercase();
            Some((if known { declared } else { NO_TYPE }, Some(value)))
        }
        _ => None,
    }
}

/// Whether the setting `standard_conforming_strings` decides on what the string says.
fn is_ambiguous(text: &str, token: &Token) -> bool {
    token.kind == TokenKind::String && token.text(text).contains('\\')
}

/// A number is an integer or numeric first, and is cast to the parameter's type, which may round it.
fn number(sign: &str, digits: &str, declared: u32) -> (u32, Option<String>) {
    let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_integer {
        let type_oid = if declared == NUMERIC {
            declared
        } else {
            NO_TYPE
        };
        return (type_oid, Some(format!("{sign}{digits}")));
    }
    let digits = digits.trim_start_matches('0');
    let value = match digits {
        "" => "0".to_owned(),
        digits => format!("{sign}{digits}"),
    };
    (declared, Some(value))
}

/// The OID of a built-in type that can be a shard key's, as it is written in a PREPARE; for any other
/// one that no type has, so that nothing is concluded from it.
pub(super) fn type_oid(written: &str) -> u32 {
    let mut name = String::new();
    let tokens = tokenize(written.as_bytes(), LexOptions::default()).unwrap_or_default();
    for token in tokens {
        if !name.is_empty() {
            name.push(' ');
        }
        name.push_str(&token.text(written).to_ascii_lowercase());
    }
    match name.strip_prefix("pg_catalog . ").unwrap_or(&name) {
        "boolean" | "bool" => BOOLEAN,
        "bytea" => 17,
        "bigint" | "int8" => 20,
        "smallint" | "int2" => 21,
        "integer" | "int" | "int4" => 23,
        "text" => 25,
        "varchar" | "character varying" => 1043,
        "date" => 1082,
        "timestamp" | "timestamp without time zone" => 1114,
        "timestamptz" | "timestamp with time zone" => 1184,
        "numeric" | "decimal" => NUMERIC,
        "uuid" => 2950,
        _ => NO_TYPE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(argument: &str, declared: u32) -> (u32, Option<String>) {
        constant(argument, declared).unwrap()
    }

    #[test]
    fn constants_are_read_as_the_parameter_gets_them() {
        assert_eq!(read("007", 25), (25, Some("7".into())));
        assert_eq!(read("- 5", 20), (20, Some("-5".into())));
        assert_eq!(read("'it''s'", 0), (0, Some("it's".into())));
        assert_eq!(read("NULL", 20), (20, None));
        assert_eq!(read("1.50", 1700), (1700, Some("1.50".into())));
        // What is rounded or printed first is not known.
        assert_eq!(read("1.5", 0).0, NO_TYPE);
        assert_eq!(read("true", 25).0, NO_TYPE);
        assert_eq!(constant("f(1)", 20), None);
        assert_eq!(constant("$1", 20), None);
        assert_eq!(constant("'a\\b'", 25), None);
    }

    #[test]
    fn arguments_become_parameters() {
        let text = "EXECUTE p(1, now(), NULL)";
        let carried = carried(text, &[10..11, 13..18, 20..24], &[20]);
        assert_eq!(carried.types, [20, NO_TYPE, 0]);
        assert_eq!(carried.values, b"\0\0\0\x011\0\0\0\0\xff\xff\xff\xff");
        assert_eq!((carried.count, carried.computed.as_str()), (3, "now()"));
    }

    #[test]
    fn types_are_known_by_their_sql_names() {
        assert_eq!(type_oid("INT"), 23);
        assert_eq!(type_oid("timestamp  with time zone"), 1184);
        assert_eq!(type_oid("pg_catalog.int8"), 20);
        assert_eq!(type_oid("numeric(1, 2)"), NO_TYPE);
        assert_eq!(type_oid("\"Int\""), NO_TYPE);
    }
}
