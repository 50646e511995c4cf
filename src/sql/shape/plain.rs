//! A statement as it may be shown to others: without its constants and comments.

use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// Longer texts are cut, in bytes.
const LONGEST: usize = 2_000;

/// A statement on one line, `?` for every constant, without comments; cut after 2,000 bytes. Empty for
/// a text that has no tokens.
pub fn without_constants(text: &str, options: LexOptions) -> String {
    let mut plain = String::new();
    let mut end = 0;
    for token in tokenize(text.as_bytes(), options).unwrap_or_default() {
        if token.start > end && !plain.is_empty() {
            plain.push(' ');
        }
        end = token.end;
        match token.kind {
            kind if kind.is_literal() => plain.push('?'),
            TokenKind::Word => plain.push_str(token.text(text)),
            _ => plain.extend(slice(text, token.range()).chars().map(|letter| {
                match letter.is_control() {
                    true => ' ',
                    false => letter,
                }
            })),
        }
        if plain.len() > LONGEST {
            let cut = (0..=LONGEST).rev().find(|at| plain.is_char_boundary(*at));
            plain.truncate(cut.unwrap_or(0));
            plain.push('…');
            break;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(text: &str) -> String {
        without_constants(text, LexOptions::default())
    }

    #[test]
    fn no_constant_is_left() {
        assert_eq!(
            plain("SELECT  a /* secret */ FROM t\nWHERE b = 'secret' AND c IN (1, 2.5) -- secret"),
            "SELECT a FROM t WHERE b = ? AND c IN (?, ?)"
        );
        assert_eq!(
            plain("ALTER ROLE app PASSWORD $$secret$$; "),
            "ALTER ROLE app PASSWORD ?;"
        );
        assert_eq!(
            plain("SELECT U&'secret' UESCAPE '!', E'\\'secret'"),
            "SELECT ?, ?"
        );
        assert_eq!(plain("SELECT $1::int[]"), "SELECT $1::int[]");
        assert_eq!(plain("SELECT 'unfinished"), "");
    }

    #[test]
    fn long_texts_are_cut() {
        let text = format!("SELECT {}", "ä, ".repeat(2_000));
        assert!(plain(&text).len() < LONGEST + 10);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = plain(&text);
        }
    }
}
