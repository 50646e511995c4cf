//! Text to syntax tree: the only place that calls the parser crate.
//!
//! The parser crate never sees the text. It gets our lexer's tokens, so both agree on where a string
//! ends; before that, `mend` rewrites what the crate does not know, or reads wrongly, into something
//! it knows and that means the same to the planner. The mended tokens are only analysed: what runs is
//! always the client's text. The place of each token in our token list travels as its "line".

mod convert;
mod mend;
mod piece;

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::parser::ParserError;
use sqlparser::parser::ParserOptions;
use sqlparser::tokenizer::Token as ParserToken;

use crate::sql::token::Token;

/// How deep expressions and queries may nest.
const DEPTH: usize = 100;

/// How many operators may stand in a row within the parentheses that are open: a bound on the depth
/// of the tree, whose destructor recurses.
const OPERATORS: usize = 2_000;

/// A syntax tree and what the mending took out of it.
pub(in crate::sql) struct Tree {
    /// The tree; spans hold the index of a token plus one as their line.
    pub statement: Statement,
    /// `OVERRIDING USER VALUE` was taken out.
    pub overriding_user: bool,
}

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// What the parser missed, for a DETAIL.
    pub reason: StopReason,
    /// Offset of the byte where it stopped, if known.
    pub offset: Option<u32>,
}

/// What kept the parser from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A construct that it does not know, or a syntax error.
    Unknown,
    /// Nesting beyond the limit.
    TooDeep,
    /// A text beyond the limit.
    TooLong,
    /// A construct that parses, but that the analysis does not know.
    NotAnalysed(&'static str),
}

/// Parses the tokens of one query (`SELECT`, `INSERT` and their like).
pub(in crate::sql) fn parse(text: &str, tokens: &[Token]) -> Result<Tree, Stopped> {
    let pieces = piece::pieces(text, tokens);
    if !convert::shallow(&pieces, DEPTH, OPERATORS) {
        return Err(Stopped {
            reason: StopReason::TooDeep,
            offset: None,
        });
    }
    let mended = mend::mend(pieces);
    let parser_tokens = convert::convert(mended.pieces);
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(DEPTH)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_tokens_with_locations(parser_tokens);
    let statement = parser
        .parse_statement()
        .map_err(|error| stopped(&error, tokens))?;
    let next = parser.peek_token_ref();
    if next.token != ParserToken::EOF {
        return Err(unknown(next.span.start.line, tokens));
    }
    Ok(Tree {
        statement,
        overriding_user: mended.overriding_user,
    })
}

/// The offset of the token whose index plus one the parser crate takes for a line.
pub(in crate::sql) fn offset(line: u64, tokens: &[Token]) -> Option<u32> {
    let index = usize::try_from(line.checked_sub(1)?).ok()?;
    tokens.get(index).map(|token| token.start)
}

fn unknown(line: u64, tokens: &[Token]) -> Stopped {
    Stopped {
        reason: StopReason::Unknown,
        offset: offset(line, tokens),
    }
}

fn stopped(error: &ParserError, tokens: &[Token]) -> Stopped {
    match error {
        ParserError::RecursionLimitExceeded => Stopped {
            reason: StopReason::TooDeep,
            offset: None,
        },
        // The crate puts the position in the message: `… at Line: 7, Column: 1`.
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let line = message.rsplit_once("Line: ").and_then(|(_, rest)| {
                rest.split(|c: char| !c.is_ascii_digit())
                    .next()?
                    .parse()
                    .ok()
            });
            unknown(line.unwrap_or(0), tokens)
        }
    }
}
