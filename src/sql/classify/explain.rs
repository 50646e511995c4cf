//! `EXPLAIN` (`ExplainStmt` in PostgreSQL's grammar).

use super::cursor::Cursor;
use crate::sql::statement::Explain;

/// Words that a statement which can be explained starts with, besides a parenthesis.
const EXPLAINABLE: &[&str] = &[
    "select", "values", "table", "with", "insert", "update", "delete", "merge", "declare",
    "create", "refresh", "execute",
];

/// Behind `EXPLAIN`, which is the first token of `whole`.
pub(super) fn explain(whole: Cursor, mut rest: Cursor) -> Option<Explain> {
    let mut analyze = false;
    let mut verbose = false;
    let mut options = Vec::new();
    let query = rest.is_symbol(1, "(")
        || rest.is_any(1, &["select", "table", "with"])
        || (rest.is(1, "values") && rest.is_symbol(2, "("));
    if rest.is_symbol(0, "(") && !query {
        for option in rest.parentheses()?.list()? {
            let (name, value) = read_option(option)?;
            // The server rejects what is no boolean.
            let on = || value.as_deref().and_then(super::boolean).unwrap_or(true);
            match name.as_str() {
                "analyze" => analyze = on(),
                "verbose" => verbose = on(),
                _ => {}
            }
            options.push((name, value));
        }
    } else {
        analyze = rest.eat_any(&["analyze", "analyse"]);
        verbose = rest.eat(&["verbose"]);
    }
    if !rest.is_symbol(0, "(") && !rest.is_any(0, EXPLAINABLE) {
        return None;
    }
    let body = rest.range()?;
    let prefix = whole.range()?.start..body.start;
    Some(Explain {
        analyze,
        verbose,
        options,
        prefix,
        body,
    })
}

/// `utility_option_elem`.
fn read_option(mut option: Cursor) -> Option<(String, Option<String>)> {
    let mut name = option.label()?.to_ascii_lowercase();
    if name == "analyse" {
        name = "analyze".to_owned();
    }
    if option.is_end() {
        return Some((name, None));
    }
    let value = if option.peek()?.kind.is_string() {
        option.string_value()?
    } else if let Some(word) = option.label() {
        word
    } else {
        option.integer()?.to_string()
    };
    option.end((name, Some(value)))
}
