//! The rows of `INSERT … VALUES`, told apart by their tokens.
//!
//! What holds:
//! - A row is a run of whole tokens from its opening parenthesis to the one that closes it. So any choice
//!   of rows, with commas between them, may stand in place of all.
//! - Two rows of one [`Pattern`] have the same tokens but for the values of their constants and the
//!   numbers of their parameters; a cell that is nothing but a constant or a parameter is like any
//!   other such cell. A plan of one of them says of the other what it says of the first.

use std::ops::Range;

use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// Rows of more different patterns than this are planned as they stand.
const MOST_PATTERNS: usize = 16;

/// What rows have in common that differ only in their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<[Symbol]>);

/// What tokens become in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Symbol {
    /// A cell that is one value: see [`is_atom`].
    Atom,
    /// A constant within an expression.
    Literal(TokenKind),
    /// A parameter within an expression.
    Parameter,
    /// Any other token; words in lower case.
    Token(TokenKind, Box<str>),
}

/// How many tokens of an `EXPLAIN` stand before the INSERT that it explains; none of any other statement.
pub fn explained(text: &str, tokens: &[Token]) -> usize {
    let is_explain = |first: &Token| first.is_word(text, "explain");
    if !tokens.first().is_some_and(is_explain) {
        return 0;
    }
    let mut depth = 0_usize;
    let begins = tokens.iter().position(|token| {
        if token.is_symbol(text, "(") {
            depth += 1;
        } else if token.is_symbol(text, ")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && (token.is_word(text, "insert") || token.is_word(text, "with"))
    });
    begins.unwrap_or(0)
}

/// The rows of `INSERT … VALUES (…), (…)`, as ranges of `tokens`, each with its parentheses; none if the
/// statement is anything else.
pub fn rows(text: &str, tokens: &[Token]) -> Option<Vec<Range<usize>>> {
    let is_word = |at: usize, word: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_word(text, word))
    };
    let is_symbol = |at: usize, symbol: &str| {
        let token = tokens.get(at);
        token.is_some_and(|token| token.is_symbol(text, symbol))
    };
    let mut at = insert(text, tokens)? + 2;
    // The table's name, its alias, its columns.
    at += 1;
    while is_symbol(at, ".") {
        at += 2;
    }
    if is_word(at, "as") {
        at += 2;
    }
    if is_symbol(at, "(") {
        let is_query = ["select", "with", "table"]
            .iter()
            .any(|word| is_word(at + 1, word));
        let is_list = is_word(at + 1, "values") && is_symbol(at + 2, "(");
        if is_query || is_list || is_symbol(at + 1, "(") {
            return None;
        }
        at = closing(text, tokens, at)? + 1;
    }
    if is_word(at, "overriding") {
        at += 3;
    }
    if !is_word(at, "values") {
        return None;
    }
    at += 1;
    let mut rows = Vec::new();
    while is_symbol(at, "(") {
        let end = closing(text, tokens, at)? + 1;
        rows.push(at..end);
        at = end;
        if !is_symbol(at, ",") {
            break;
        }
        at += 1;
    }
    let ends = at == tokens.len() || is_word(at, "on") || is_word(at, "returning");
    let is_whole = rows.last().is_some_and(|row| row.end == at);
    (ends && is_whole).then_some(rows)
}

/// The `INSERT` of a statement, which may stand behind a `WITH`.
fn insert(text: &str, tokens: &[Token]) -> Option<usize> {
    let first = tokens.first()?;
    if !first.is_word(text, "with") {
        return first.is_word(text, "insert").then_some(0);
    }
    let mut depth = 0_usize;
    let mut pairs = tokens.windows(2).enumerate();
    let found = pairs.find(|(_, pair)| {
        let [token, next] = pair else { return false };
        if token.is_symbol(text, "(") {
            depth += 1;
        } else if token.is_symbol(text, ")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_word(text, "insert") && next.is_word(text, "into")
    });
    found.map(|(at, _)| at)
}

/// The parenthesis that closes the one at `open`.
fn closing(text: &str, tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match (token.kind, text.as_bytes().get(token.start as usize)) {
            (TokenKind::Punctuation, Some(b'(')) => depth += 1,
            (TokenKind::Punctuation, Some(b')')) => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The cells of a row, whose tokens these are, as ranges of them.
pub fn cells(text: &str, row: &[Token]) -> Vec<Range<usize>> {
    let mut cells = Vec::new();
    let mut depth = 0_usize;
    let mut start = 1;
    for (at, token) in row.iter().enumerate() {
        if token.kind != TokenKind::Punctuation {
            continue;
        }
        match text.as_bytes().get(token.start as usize) {
            Some(b'(' | b'[') => depth += 1,
            Some(b')' | b']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    cells.push(start..at);
                }
            }
            Some(b',') if depth == 1 => {
                cells.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    cells
}

/// Whether a cell is a constant, a number with a minus sign, `NULL`, `TRUE`, `FALSE` or a parameter.
pub fn is_atom(text: &str, cell: &[Token]) -> bool {
    match cell {
        [one] => {
            one.kind.is_literal()
                || one.kind == TokenKind::Parameter
                || ["null", "true", "false"]
                    .iter()
                    .any(|word| one.is_word(text, word))
        }
        [sign, number] => number.kind == TokenKind::Number && sign.is_symbol(text, "-"),
        _ => false,
    }
}

impl Pattern {
    /// The pattern of a row, and its cells.
    pub fn of(text: &str, row: &[Token]) -> Pattern {
        let mut symbols = Vec::new();
        for cell in cells(text, row) {
            let tokens = row.get(cell).unwrap_or_default();
            if is_atom(text, tokens) {
                symbols.push(Symbol::Atom);
            } else {
                symbols.extend(tokens.iter().map(|token| Symbol::of(text, token)));
            }
            symbols.push(Symbol::Token(TokenKind::Punctuation, ",".into()));
        }
        Pattern(symbols.into())
    }

    /// Whether a row with these cells is of this pattern.
    pub fn fits(&self, text: &str, row: &[Token], cells: &[Range<usize>]) -> bool {
        let mut symbols = self.0.iter();
        for cell in cells {
            let tokens = row.get(cell.clone()).unwrap_or_default();
            let fits = if is_atom(text, tokens) {
                symbols.next() == Some(&Symbol::Atom)
            } else {
                tokens.iter().all(|token| {
                    let symbol = symbols.next();
                    symbol.is_some_and(|symbol| symbol.is_of(text, token))
                })
            };
            if !fits || !matches!(symbols.next(), Some(Symbol::Token(_, comma)) if **comma == *",")
            {
                return false;
            }
        }
        symbols.next().is_none()
    }
}

impl Symbol {
    fn of(text: &str, token: &Token) -> Symbol {
        match token.kind {
            kind if kind.is_literal() => Symbol::Literal(kind),
            TokenKind::Parameter => Symbol::Parameter,
            TokenKind::Word => {
                let word = token.text(text).to_ascii_lowercase();
                Symbol::Token(token.kind, word.into())
            }
            kind => Symbol::Token(kind, token.text(text).into()),
        }
    }

    fn is_of(&self, text: &str, token: &Token) -> bool {
        match self {
            Symbol::Atom => false,
            Symbol::Literal(kind) => *kind == token.kind,
            Symbol::Parameter => token.kind == TokenKind::Parameter,
            Symbol::Token(TokenKind::Word, word) => token.is_word(text, word),
            Symbol::Token(kind, written) => *kind == token.kind && token.text(text) == &**written,
        }
    }
}

/// The statement with one row of each pattern, in which `NULL` stands for values; none if it has not several rows, or its rows can't be
/// planned so: a query in a row has conditions of its own.
pub fn template(text: &str, tokens: &[Token]) -> Option<String> {
    let rows = rows(text, tokens)?;
    let [first, .., last] = rows.as_slice() else {
        return None;
    };
    let (start, end) = (
        tokens.get(first.start)?.start,
        tokens.get(last.end - 1)?.end,
    );
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut kept = String::new();
    for row in &rows {
        let tokens = tokens.get(row.clone())?;
        let cells = cells(text, tokens);
        if patterns
            .iter()
            .any(|known| known.fits(text, tokens, &cells))
        {
            continue;
        }
        let is_query = |token: &Token| {
            let words = ["select", "with", "table", "values"];
            words.iter().any(|word| token.is_word(text, word))
        };
        if patterns.len() == MOST_PATTERNS || tokens.iter().any(is_query) {
            return None;
        }
        patterns.push(Pattern::of(text, tokens));
        if !kept.is_empty() {
            kept.push_str(", ");
        }
        push_general(&mut kept, text, tokens, &cells);
    }
    let mut template = slice(text, 0..start).to_owned();
    template.push_str(&kept);
    template.push_str(slice(text, end..u32::try_from(text.len()).ok()?));
    Some(template)
}

/// Appends a row with `NULL` in place of each cell that is one value.
fn push_general(out: &mut String, text: &str, row: &[Token], cells: &[Range<usize>]) {
    out.push('(');
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        let tokens = row.get(cell.clone()).unwrap_or_default();
        out.push_str(match is_atom(text, tokens) {
            true => "NULL",
            false => written(text, tokens),
        });
    }
    out.push(')');
}

/// What stands in the text from the first of these tokens to the last.
pub fn written<'a>(text: &'a str, tokens: &[Token]) -> &'a str {
    match tokens {
        [] => "",
        [first, ..] => {
            let end = tokens.last().map_or(first.end, |last| last.end);
            slice(text, first.start..end)
        }
    }
}

#[cfg(test)]
mod tests;
