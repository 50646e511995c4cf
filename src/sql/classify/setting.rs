//! `SET`, `RESET` and `SHOW` in all their spellings (`VariableSetStmt` and its like in PostgreSQL's
//! grammar).

use std::ops::Range;

use super::cursor::Cursor;
use super::transaction;
use crate::sql::lexer::tokenize;
use crate::sql::statement::ResetTarget;
use crate::sql::statement::SetScope;
use crate::sql::statement::SetValue;
use crate::sql::statement::Statement;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// Behind `SET`.
pub(super) fn set(mut rest: Cursor) -> Option<Statement> {
    let mut scope = SetScope::Session;
    if !names_variable(&rest) {
        if rest.is(0, "constraints") {
            return Some(Statement::SetConstraints);
        }
        if rest.eat(&["local"]) {
            scope = SetScope::Local;
        } else if !rest.is(1, "authorization") && !rest.is(2, "as") {
            rest.eat(&["session"]);
        }
    }
    let assignment = rest.range()?;
    if !names_variable(&rest) && rest.eat(&["transaction"]) {
        return set_transaction(rest);
    }
    if scope == SetScope::Session && rest.eat(&["session", "characteristics", "as", "transaction"])
    {
        return transaction::modes(rest).map(Statement::SetSessionCharacteristics);
    }
    let (name, value) = assign(rest)?;
    Some(Statement::Set {
        scope,
        name,
        value,
        assignment,
    })
}

/// Whether a variable is set the plain way, so that its first word is a name and no keyword.
fn names_variable(rest: &Cursor) -> bool {
    rest.is_symbol(1, "=")
        || rest.is_symbol(1, ".")
        || rest.is_any(1, &["to"])
        || (rest.is(1, "from") && rest.is(2, "current"))
}

fn set_transaction(mut rest: Cursor) -> Option<Statement> {
    if rest.eat(&["snapshot"]) {
        rest.string()?;
        return rest.end(Statement::SetTransactionSnapshot);
    }
    transaction::modes(rest).map(Statement::SetTransaction)
}

/// The name of the setting and its value.
fn assign(mut rest: Cursor) -> Option<(String, SetValue)> {
    if names_variable(&rest) {
        let name = variable(&mut rest)?;
        if rest.eat(&["from", "current"]) {
            return rest.end((name, SetValue::Current));
        }
        if !rest.eat(&["to"]) && !rest.eat_symbol("=") {
            return None;
        }
        return Some((name, plain_value(rest)?));
    }
    let (name, value) = if rest.eat(&["time", "zone"]) {
        ("timezone", time_zone(rest)?)
    } else if rest.eat(&["names"]) {
        ("client_encoding", encoding(rest)?)
    } else if rest.eat(&["schema"]) {
        ("search_path", word_or_string(rest, false)?)
    } else if rest.eat(&["role"]) {
        ("role", word_or_string(rest, true)?)
    } else if rest.eat(&["session", "authorization"]) {
        let value = if rest.eat(&["default"]) {
            rest.end(SetValue::Default)?
        } else {
            word_or_string(rest, true)?
        };
        ("session_authorization", value)
    } else if rest.eat(&["xml", "option"]) && rest.is_any(0, &["document", "content"]) {
        ("xmloption", word_or_string(rest, true)?)
    } else {
        return None;
    };
    Some((name.to_owned(), value))
}

/// `opt_encoding`, to the end.
fn encoding(mut rest: Cursor) -> Option<SetValue> {
    if rest.is_end() || rest.eat(&["default"]) {
        return rest.end(SetValue::Default);
    }
    word_or_string(rest, false)
}

/// One string, or one word if `words` may stand there, to the end.
fn word_or_string(mut rest: Cursor, words: bool) -> Option<SetValue> {
    let range = rest.range()?;
    if rest.string().is_none() {
        if !words {
            return None;
        }
        rest.non_reserved()?;
    }
    rest.end(SetValue::Text(range))
}

/// `zone_value`, to the end.
fn time_zone(mut rest: Cursor) -> Option<SetValue> {
    let range = rest.range()?;
    if rest.eat_any(&["default", "local"]) {
        return rest.end(SetValue::Default);
    }
    if rest.is(0, "interval") && rest.tokens().len() > 1 {
        rest.next();
        if rest.is_symbol(0, "(") {
            rest.parentheses()?;
        }
        rest.string()?;
        rest.eat_any(&["hour"]);
        rest.eat(&["to", "minute"]);
    } else if rest.number().is_none() && rest.string().is_none() {
        rest.non_reserved()?;
    }
    rest.end(SetValue::Text(range))
}

/// `DEFAULT` or `var_list`, to the end.
fn plain_value(mut rest: Cursor) -> Option<SetValue> {
    let range = rest.range()?;
    if rest.eat(&["default"]) {
        return rest.end(SetValue::Default);
    }
    for mut item in rest.list()? {
        plain_item(&mut item)?;
        item.end(())?;
    }
    Some(SetValue::Text(range))
}

/// `var_value`.
fn plain_item(item: &mut Cursor) -> Option<()> {
    let found = item.number().is_some()
        || item.string().is_some()
        || item.eat_any(&["true", "false", "on"])
        || item.non_reserved().is_some();
    found.then_some(())
}

/// `var_name`, in lower case: PostgreSQL compares the names of settings without case.
fn variable(rest: &mut Cursor) -> Option<String> {
    let mut name = rest.name()?;
    while rest.eat_symbol(".") {
        name.push('.');
        name.push_str(&rest.name()?);
    }
    name.make_ascii_lowercase();
    Some(name)
}

/// A variable with or without a spelling of its own, to the end.
fn any_variable(mut rest: Cursor) -> Option<String> {
    let special = [
        (&["time", "zone"][..], "timezone"),
        (
            &["transaction", "isolation", "level"],
            "transaction_isolation",
        ),
        (&["session", "authorization"], "session_authorization"),
    ];
    if let Some((_, name)) = special.iter().find(|(words, _)| rest.eat(words)) {
        return rest.end((*name).to_owned());
    }
    let name = variable(&mut rest)?;
    rest.end(name)
}

/// Behind `RESET`.
pub(super) fn reset(mut rest: Cursor) -> Option<Statement> {
    if rest.eat(&["all"]) {
        return rest.end(Statement::Reset(ResetTarget::All));
    }
    any_variable(rest).map(|name| Statement::Reset(ResetTarget::Name(name)))
}

/// Behind `SHOW`.
pub(super) fn show(mut rest: Cursor) -> Option<Statement> {
    if rest.is(0, "shardwire") && rest.tokens().len() > 1 && !rest.is_symbol(1, ".") {
        rest.next();
        let noun = rest.label()?.to_ascii_uppercase();
        return rest.end(Statement::ShowShardwire(noun));
    }
    if rest.eat(&["all"]) {
        return rest.end(Statement::Show("all".to_owned()));
    }
    any_variable(rest).map(Statement::Show)
}

/// The values in a [`SetValue::Text`]: `a, "B", 'c', -1` gives `a`, `B`, `c`, `-1`; `None` if the
/// text is anything else (an interval), or a value can't be told: a backslash between plain quotes
/// means what `standard_conforming_strings` makes of it.
pub fn setting_values(text: &str, value: Range<u32>) -> Option<Vec<String>> {
    let text = slice(text, value);
    let tokens = tokenize(text.as_bytes(), LexOptions::default()).ok()?;
    let ambiguous =
        |token: &Token| token.kind == TokenKind::String && token.text(text).contains('\\');
    if tokens.iter().any(ambiguous) {
        return None;
    }
    let mut values = Vec::new();
    for mut item in Cursor::new(text, &tokens).list()? {
        let numeric = item.tokens().iter().all(|token| {
            token.kind == TokenKind::Number
                || token.is_symbol(text, "-")
                || token.is_symbol(text, "+")
        });
        let value = if numeric {
            let lexemes = item.tokens().iter().map(|token| token.text(text));
            let value: String = lexemes.collect();
            item.number()?;
            value.trim_start_matches('+').to_owned()
        } else if item.peek()?.kind.is_string() {
            item.string_value()?
        } else {
            item.label()?
        };
        values.push(item.end(value)?);
    }
    Some(values)
}
