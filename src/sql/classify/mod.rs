//! Tells statements apart by their tokens.

use std::ops::Range;

use crate::sql::statement::Statement;
use crate::sql::token::Token;

/// What the statement that `tokens` of `text` make up is (one statement, without semicolons around
/// it or with).
pub fn classify(text: &str, tokens: &[Token]) -> Statement {
    let _ = (text, tokens);
    Statement::Other
}

/// The values in a [`crate::sql::statement::SetValue::Text`]: `a, "B", 'c', -1` gives `a`, `B`,
/// `c`, `-1`; `None` if the text is anything else.
pub fn setting_values(text: &str, value: Range<u32>) -> Option<Vec<String>> {
    let _ = (text, value);
    None
}
