//! Texts that are rewritten for a server, and its errors put back into the client's terms; pure.

use crate::backend::report;
use crate::error::Result;
use crate::sql::shifts::Shifts;
use crate::sql::splice::{Edit, splice};
use crate::sql::token::LexOptions;
use crate::wire::buffer::message;
use crate::wire::frame;

/// What was changed in the text that a server was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    shifts: Shifts,
    /// Names that servers know, with the client's.
    names: Vec<(String, String)>,
}

impl Rewrite {
    /// Applies `edits` to the client's text; `names` are those of servers with those of the client.
    ///
    /// # Errors
    /// `XX000` if the text would not read as intended.
    pub fn apply(
        text: &str,
        options: LexOptions,
        edits: &[Edit],
        names: Vec<(String, String)>,
    ) -> Result<(String, Rewrite)> {
        let sent = splice(text, options, edits)?;
        let shifts = Shifts::of(text, edits);
        Ok((sent, Rewrite { shifts, names }))
    }

    /// An ErrorResponse frame in the client's terms.
    pub fn restore(&self, error: &[u8]) -> Vec<u8> {
        let body = frame::body(error);
        let original = |position| self.shifts.original(position);
        let mut body = report::moved(body, original).unwrap_or_else(|| body.to_vec());
        for (server, client) in &self.names {
            body = replaced(&body, server.as_bytes(), client.as_bytes());
        }
        let mut out = Vec::with_capacity(body.len() + 5);
        message(&mut out, b'E', |out| out.extend_from_slice(&body));
        out
    }
}

fn replaced(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, old) {
        let (before, behind) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(new);
        rest = behind.get(old.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::sqlstate::SqlState;
    use crate::wire::backend::error_response;

    #[test]
    fn errors_speak_of_the_clients_text() {
        let text = "EXECUTE é('ü', x); EXECUTE bb(y)";
        let edit = |from: &str, to: &str| {
            let start = text.find(from).unwrap() as u32;
            Edit {
                range: start..start + from.len() as u32,
                text: to.to_owned(),
            }
        };
        let edits = [edit("bb", "b"), edit("é", "server_name")];
        let names = vec![("server_name".to_owned(), "é".to_owned())];
        let (sent, rewrite) = Rewrite::apply(text, LexOptions::default(), &edits, names).unwrap();
        assert_eq!(sent, "EXECUTE server_name('ü', x); EXECUTE b(y)");
        let at = |text: &str, part: &str| text[..text.find(part).unwrap()].chars().count() + 1;
        let mut frame = Vec::new();
        let error = Error::new(
            SqlState::UNDEFINED_TABLE,
            "prepared statement \"server_name\"",
        )
        .position(at(&sent, "x") as u32);
        error_response(&mut frame, &error);
        let restored = rewrite.restore(&frame);
        let restored = String::from_utf8_lossy(&restored);
        assert!(restored.contains("Mprepared statement \"é\"\0"));
        assert!(restored.contains(&format!("P{}\0", at(text, "x"))));
    }
}
