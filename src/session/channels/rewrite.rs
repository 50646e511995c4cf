//! What servers get in place of LISTEN and of pg_listening_channels(); pure.

use crate::sql::lexer::tokenize;
use crate::sql::literal::{identifier_value, quote_literal};
use crate::sql::splice::Edit;
use crate::sql::token::{LexOptions, Token};

/// The function that names the channels of its session.
const FUNCTION: &str = "pg_listening_channels";

/// LISTEN as the UNLISTEN that fails where it would and does nothing else.
pub fn listen(text: &str, options: LexOptions) -> Vec<Edit> {
    let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
    let first = tokens.first().filter(|token| token.is_word(text, "listen"));
    let edit = first.map(|token| Edit {
        range: token.range(),
        text: "UNLISTEN".to_owned(),
    });
    edit.into_iter().collect()
}

/// Every call of `pg_listening_channels()` as a list of `channels`, under the name it would have.
pub fn listening_channels(text: &str, options: LexOptions, channels: &[&str]) -> Vec<Edit> {
    let tokens = tokenize(text.as_bytes(), options).unwrap_or_default();
    let quoted: Vec<String> = channels.iter().map(|name| quote_literal(name)).collect();
    let list = format!(
        "pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[])",
        quoted.join(", ")
    );
    let mut edits = Vec::new();
    for (at, window) in tokens.windows(3).enumerate() {
        let [name, open, close] = window else {
            continue;
        };
        let is_call = identifier_value(text, name).as_deref() == Some(FUNCTION)
            && open.is_symbol(text, "(")
            && close.is_symbol(text, ")");
        if !is_call {
            continue;
        }
        let before = tokens.get(..at).unwrap_or_default();
        let start = match before {
            [.., schema, dot] if dot.is_symbol(text, ".") => {
                if identifier_value(text, schema).as_deref() != Some("pg_catalog") {
                    continue;
                }
                schema.start
            }
            _ => name.start,
        };
        let needs_name = is_in_query(text, before) && ends_item(text, tokens.get(at + 3));
        let alias = if needs_name { " AS " } else { "" };
        let alias_name = if needs_name { FUNCTION } else { "" };
        edits.push(Edit {
            range: start..close.end,
            text: format!("{list}{alias}{alias_name}"),
        });
    }
    edits
}

/// Whether what follows stands in a SELECT list or FROM, not among the arguments of a function.
fn is_in_query(text: &str, before: &[Token]) -> bool {
    let mut depth = 0;
    for (at, token) in before.iter().enumerate().rev() {
        if token.is_symbol(text, ")") {
            depth += 1;
        } else if token.is_symbol(text, "(") {
            if depth == 0 {
                let words = ["select", "with", "values"];
                return before
                    .get(at + 1)
                    .is_some_and(|next| words.iter().any(|word| next.is_word(text, word)));
            }
            depth -= 1;
        }
    }
    true
}

/// Whether the item of a list ends before this token, without a name of its own.
fn ends_item(text: &str, next: Option<&Token>) -> bool {
    const WORDS: [&str; 20] = [
        "from",
        "where",
        "group",
        "having",
        "window",
        "order",
        "limit",
        "offset",
        "fetch",
        "for",
        "union",
        "except",
        "intersect",
        "join",
        "cross",
        "natural",
        "inner",
        "left",
        "right",
        "full",
    ];
    next.is_none_or(|token| {
        [",", ")", ";"]
            .iter()
            .any(|symbol| token.is_symbol(text, symbol))
            || WORDS.iter().any(|word| token.is_word(text, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::splice::splice;

    fn channels(text: &str) -> String {
        let options = LexOptions::default();
        let edits = listening_channels(text, options, &["a", "it's"]);
        splice(text, options, &edits).unwrap()
    }

    #[test]
    fn listen_becomes_unlisten() {
        let options = LexOptions::default();
        let text = "/* c */ Listen \"A b\"";
        let sent = splice(text, options, &listen(text, options)).unwrap();
        assert_eq!(sent, "/* c */ UNLISTEN \"A b\"");
    }

    #[test]
    fn calls_become_lists_that_keep_their_name() {
        let list = "pg_catalog.unnest(ARRAY['a', 'it''s']::pg_catalog.text[])";
        let named = format!("{list} AS pg_listening_channels");
        for (text, wanted) in [
            ("SELECT pg_listening_channels()", format!("SELECT {named}")),
            (
                "SELECT count(*) FROM pg_catalog.PG_Listening_Channels ( ) WHERE true",
                format!("SELECT count(*) FROM {named} WHERE true"),
            ),
            (
                "SELECT * FROM pg_listening_channels() AS c ORDER BY c",
                format!("SELECT * FROM {list} AS c ORDER BY c"),
            ),
            (
                "SELECT * FROM pg_listening_channels() c",
                format!("SELECT * FROM {list} c"),
            ),
            (
                "SELECT upper(pg_listening_channels()), ARRAY(SELECT pg_listening_channels())",
                format!("SELECT upper({list}), ARRAY(SELECT {named})"),
            ),
            (
                "SELECT mine.pg_listening_channels()",
                "SELECT mine.pg_listening_channels()".to_owned(),
            ),
        ] {
            assert_eq!(channels(text), wanted);
        }
    }
}
