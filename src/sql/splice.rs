//! Replaces bytes of a statement, and proves that only the intended tokens changed.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

/// One replacement; an insertion if the range is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Whole tokens, or a place between two tokens, outside comments.
    pub range: Range<u32>,
    /// What stands there afterwards: whole tokens too, with the spaces they need around them.
    pub text: String,
}

/// `text` with all `edits` applied. They may come in any order (insertions at one place keep
/// theirs) but must not overlap.
///
/// # Errors
/// `XX000` if an edit begins or ends within a token or a comment, or if the new text doesn't lex
/// into exactly the old tokens with the edits' tokens in their place.
pub fn splice(text: &str, options: LexOptions, edits: &[Edit]) -> Result<String> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let tokens = lex(text, options)?;
    let lexeme = |token: &Token| (token.kind, token.text(text));
    let mut result = String::with_capacity(text.len() + 64);
    let mut expected = Vec::with_capacity(tokens.len() + edits.len());
    // What stands before is done: bytes of the text, and tokens.
    let (mut copied, mut seen) = (0, 0);
    for edit in edits {
        if edit.range.start < copied || edit.range.end < edit.range.start {
            return Err(broken("edits overlap"));
        }
        let first = tokens_before(text, options, &tokens, edit.range.start)?;
        let behind = tokens_before(text, options, &tokens, edit.range.end)?;
        expected.extend(tokens.iter().take(first).skip(seen).map(lexeme));
        let inserted = lex(&edit.text, options)?;
        expected.extend(
            inserted
                .iter()
                .map(|token| (token.kind, token.text(&edit.text))),
        );
        result.push_str(part(text, copied..edit.range.start)?);
        result.push_str(&edit.text);
        (copied, seen) = (edit.range.end, behind);
    }
    expected.extend(tokens.iter().skip(seen).map(lexeme));
    result.push_str(part(text, copied..text.len() as u32)?);
    verify(&result, options, &expected)?;
    Ok(result)
}

/// `text` with `edits` applied that are in order and don't overlap, whatever it then means.
pub fn edited(text: &str, edits: &[Edit]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        result.push_str(slice(text, at..edit.range.start));
        result.push_str(&edit.text);
        at = edit.range.end;
    }
    result.push_str(slice(
        text,
        at..u32::try_from(text.len()).unwrap_or(u32::MAX),
    ));
    result
}

/// How many tokens end before `place`, which must lie within no token and no comment.
fn tokens_before(text: &str, options: LexOptions, tokens: &[Token], place: u32) -> Result<usize> {
    let count = tokens.partition_point(|token| token.end <= place);
    if tokens.get(count).is_some_and(|token| token.start < place) {
        return Err(broken("an edit cuts a token"));
    }
    let before = count.checked_sub(1).and_then(|last| tokens.get(last));
    let end = before.map_or(0, |token| token.end);
    // Space and comments. What stands within a comment is no token there.
    let gap = part(text, end..place)?;
    match lex(&format!("{gap},"), options)?.as_slice() {
        [_] => Ok(count),
        _ => Err(broken("an edit cuts a comment")),
    }
}

fn verify(result: &str, options: LexOptions, expected: &[(TokenKind, &str)]) -> Result<()> {
    let tokens = lex(result, options)?;
    let actual = tokens.iter().map(|token| (token.kind, token.text(result)));
    if actual.eq(expected.iter().copied()) {
        Ok(())
    } else {
        Err(broken("an edit changes tokens beside it"))
    }
}

fn lex(text: &str, options: LexOptions) -> Result<Vec<Token>> {
    tokenize(text.as_bytes(), options).map_err(|error| broken(error.reason.message()))
}

/// The part of `text` at `range`, which must lie on character boundaries.
fn part(text: &str, range: Range<u32>) -> Result<&str> {
    text.get(range.start as usize..range.end as usize)
        .ok_or_else(|| broken("an edit lies outside the text"))
}

fn broken(why: &'static str) -> Error {
    Error::new(SqlState::INTERNAL_ERROR, "could not rewrite the statement").detail(format!(
        "The rewritten text would not read as intended: {why}."
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(range: Range<u32>, text: &str) -> Edit {
        Edit {
            range,
            text: text.to_owned(),
        }
    }

    fn spliced(text: &str, edits: &[Edit]) -> Result<String> {
        splice(text, LexOptions::default(), edits)
    }

    #[test]
    fn edits_apply_in_any_order() {
        let text = "SELECT a FROM t WHERE b = 1 -- c";
        let edits = [
            edit(26..27, "$1"),
            edit(14..15, "s.t"),
            edit(8..8, ", \"x\""),
        ];
        let expected = "SELECT a, \"x\" FROM s.t WHERE b = $1 -- c";
        assert_eq!(spliced(text, &edits).unwrap(), expected);
        assert_eq!(spliced(text, &[]).unwrap(), text);
        assert_eq!(
            spliced("SELECT a, b", &[edit(8..11, "")]).unwrap(),
            "SELECT a"
        );
    }

    #[test]
    fn edits_that_change_other_tokens_are_refused() {
        for (text, bad) in [
            ("SELECT a-$1", edit(9..11, "-1")),
            ("SELECT a b", edit(8..9, "")),
            ("SELECT 'a'\nFROM", edit(11..15, "'b'")),
            ("SELECT a", edit(8..8, "b")),
            ("SELECT 1", edit(8..8, "e5")),
            ("SELECT 'abc'", edit(9..10, "x")),
            ("SELECT abc", edit(9..9, " ")),
            ("SELECT /* c */ a", edit(10..10, "b")),
            ("SELECT a -- c", edit(13..13, " LIMIT 1")),
            ("SELECT a -- c", edit(11..11, " ")),
            ("SELECT a -- c\n, b", edit(10..14, "")),
            ("SELECT a /* ' */", edit(9..13, "")),
            ("SELECT a /* ' */", edit(13..16, "")),
            ("SELECT a", edit(0..99, "b")),
            ("SELECT a", edit(9..9, " b")),
            ("SELECT a", edit(7..8, "'b")),
            ("SELECT a", edit(7..8, "b --")),
        ] {
            let result = spliced(text, std::slice::from_ref(&bad));
            // A comment at the very end swallows nothing.
            if bad.text == "b --" {
                assert!(result.is_ok());
            } else {
                assert!(result.is_err(), "{text} {bad:?} {result:?}");
            }
        }
        assert!(spliced("SELECT a, b", &[edit(7..10, "x"), edit(8..9, "y")]).is_err());
    }

    proptest! {
        #[test]
        fn any_accepted_splice_lexes_into_the_expected_tokens(
            text in crate::sql::lexer::tests::texts(),
            new in crate::sql::lexer::tests::texts(),
            start in 0u32..40,
            length in 0u32..10,
        ) {
            let Ok(result) = spliced(&text, &[edit(start..start + length, &new)]) else {
                return Ok(());
            };
            let lexemes = |text: &str| {
                let tokens = lex(text, LexOptions::default()).unwrap();
                tokens.iter().map(|token| token.text(text).to_owned()).collect::<Vec<_>>()
            };
            let before = lexemes(&text[..start as usize]);
            let behind = lexemes(&text[(start + length) as usize..]);
            prop_assert_eq!([before, lexemes(&new), behind].concat(), lexemes(&result));
        }
    }
}
