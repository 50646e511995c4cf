//! The messages of one step: the client's parameters under their numbers, and the proxy's behind them.

use crate::error::Result;
use crate::plan::Parameters;
use crate::session::change::Asked;
use crate::sharding::Format;
use crate::sql::lexer::tokenize;
use crate::sql::token::{LexOptions, TokenKind};
use crate::wire::buffer::{cstring, message};
use crate::wire::frontend::{self, Subject};

/// The first OID of types that users made; it differs between servers.
pub(super) const FIRST_USER_OID: u32 = 16_384;

/// The OID of `text`.
const TEXT: u32 = 25;

/// A statement with the values of its parameters.
pub(super) struct Request {
    text: Vec<u8>,
    /// The types of its parameters, as they are declared.
    pub types: Vec<u32>,
    /// The formats of the results that the proxy takes itself; none is text.
    pub results: Vec<Format>,
    /// Format and value of each parameter.
    values: Vec<(Format, Option<Vec<u8>>)>,
}

impl Request {
    /// `used` says which of the client's parameters the text has, `inferred` which types they are.
    pub fn new(
        text: Vec<u8>,
        used: &[bool],
        (asked, inferred): (&Asked<'_>, &[u32]),
        extras: Vec<Vec<u8>>,
    ) -> Request {
        let parameters: Parameters<'_> = asked.parameters();
        let mut types = Vec::with_capacity(used.len());
        let mut values = Vec::with_capacity(used.len() + extras.len());
        for (index, is_used) in used.iter().enumerate() {
            if !is_used {
                // What has no use has no type either.
                types.push(TEXT);
                values.push((Format::Text, None));
                continue;
            }
            let declared = asked.types.get(index).copied().filter(|oid| *oid != 0);
            let oid = declared.or_else(|| inferred.get(index).copied());
            types.push(match oid {
                Some(oid) if oid < FIRST_USER_OID => oid,
                _ => 0,
            });
            let value = parameters.value(index).flatten().map(<[u8]>::to_vec);
            let format = parameters.format(index).unwrap_or(Format::Text);
            values.push((format, value));
        }
        let mut request = Request {
            text,
            types,
            results: Vec::new(),
            values,
        };
        for value in extras {
            request.add(0, Format::Text, Some(value));
        }
        request
    }

    /// Adds a parameter behind the others.
    pub fn add(&mut self, oid: u32, format: Format, value: Option<Vec<u8>>) {
        self.types.push(oid);
        self.values.push((format, value));
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The messages up to Sync for results that the proxy takes itself.
    pub fn own_messages(&self) -> Vec<u8> {
        let codes = self.results.iter().map(|format| match format {
            Format::Text => [0, 0],
            Format::Binary => [0, 1],
        });
        let codes: Vec<[u8; 2]> = codes.collect();
        self.messages(codes.as_flattened())
    }

    /// The messages up to Sync, with these result formats.
    pub fn messages(&self, results: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frontend::write_parse(&mut out, b"", &self.text, &self.types);
        message(&mut out, b'B', |body| {
            cstring(body, b"");
            cstring(body, b"");
            let count = u16::try_from(self.values.len()).unwrap_or(u16::MAX);
            body.extend_from_slice(&count.to_be_bytes());
            for (format, _) in &self.values {
                let code: i16 = match format {
                    Format::Text => 0,
                    Format::Binary => 1,
                };
                body.extend_from_slice(&code.to_be_bytes());
            }
            body.extend_from_slice(&count.to_be_bytes());
            for (_, value) in &self.values {
                let length = value.as_ref().map(|value| i32::try_from(value.len()));
                let length = length.map_or(-1, |length| length.unwrap_or(i32::MAX));
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            let formats = u16::try_from(results.len() / 2).unwrap_or_default();
            body.extend_from_slice(&formats.to_be_bytes());
            body.extend_from_slice(results);
        });
        frontend::write_subject(&mut out, b'D', Subject::Portal, b"");
        frontend::write_execute(&mut out, b"", 0);
        frontend::write_sync(&mut out);
        out
    }
}

/// Which of the client's parameters a text has.
pub(in crate::session) fn used(text: &str, lex: LexOptions, count: usize) -> Result<Vec<bool>> {
    let mut used = vec![false; count];
    if count == 0 {
        return Ok(used);
    }
    let tokens = tokenize(text.as_bytes(), lex).map_err(|error| error.to_error(text.as_bytes()))?;
    for token in tokens {
        if token.kind != TokenKind::Parameter {
            continue;
        }
        let number = token.text(text).strip_prefix('$');
        let number = number.and_then(|digits| digits.parse::<usize>().ok());
        let at = number.and_then(|number| number.checked_sub(1));
        if let Some(used) = at.and_then(|at| used.get_mut(at)) {
            *used = true;
        }
    }
    Ok(used)
}
