//! Mended tokens to the parser crate's tokens.

use sqlparser::keywords::ALL_KEYWORDS;
use sqlparser::keywords::ALL_KEYWORDS_INDEX;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Location;
use sqlparser::tokenizer::Span;
use sqlparser::tokenizer::Token;
use sqlparser::tokenizer::TokenWithSpan;
use sqlparser::tokenizer::Word;

use crate::sql::token::TokenKind;

use super::piece::Piece;

/// The parser crate's longest keyword is shorter.
const KEYWORD_BYTES: usize = 48;

/// Whether parentheses nest at most `depth` deep and at most `operators` operators stand in a row
/// within the parentheses that are open.
pub(super) fn shallow(pieces: &[Piece<'_>], depth: usize, operators: usize) -> bool {
    let mut open = vec![0_usize];
    let mut total = 0;
    for piece in pieces {
        match piece.text.as_ref() {
            "(" | "[" | "{" if piece.kind == TokenKind::Punctuation => open.push(0),
            ")" | "]" | "}" if piece.kind == TokenKind::Punctuation => {
                total -= open.pop().unwrap_or(0);
                if open.is_empty() {
                    open.push(0);
                }
            }
            "," if piece.kind == TokenKind::Punctuation => {
                if let Some(count) = open.last_mut() {
                    total -= std::mem::take(count);
                }
            }
            "," => {}
            _ if deepens(piece) => {
                if let Some(count) = open.last_mut() {
                    *count += 1;
                    total += 1;
                }
            }
            _ => {}
        }
        if open.len() > depth || total > operators {
            return false;
        }
    }
    true
}

/// Whether the piece may make the tree one level deeper.
fn deepens(piece: &Piece<'_>) -> bool {
    match piece.kind {
        TokenKind::Operator => true,
        TokenKind::Punctuation => matches!(piece.text.as_ref(), "::" | "[" | "."),
        TokenKind::Word => matches!(
            piece.text.as_ref(),
            "and"
                | "or"
                | "not"
                | "is"
                | "like"
                | "ilike"
                | "similar"
                | "between"
                | "in"
                | "at"
                | "collate"
                | "case"
                | "union"
                | "intersect"
                | "except"
                | "interval"
                | "join"
                | "notnull"
        ),
        _ => false,
    }
}

/// The parser crate's tokens; the index of the source token plus one goes as the line.
pub(super) fn convert(pieces: Vec<Piece<'_>>) -> Vec<TokenWithSpan> {
    pieces
        .into_iter()
        .map(|piece| {
            let place = Location::new(u64::from(piece.at) + 1, 1);
            TokenWithSpan::new(token(piece), Span::new(place, place))
        })
        .collect()
}

fn token(piece: Piece<'_>) -> Token {
    match piece.kind {
        TokenKind::Word => Token::Word(Word {
            keyword: keyword(&piece.text),
            value: piece.text.into_owned(),
            quote_style: None,
        }),
        TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier => Token::Word(Word {
            keyword: Keyword::NoKeyword,
            value: piece.text.into_owned(),
            quote_style: Some('"'),
        }),
        TokenKind::Number => Token::Number(piece.text.into_owned(), false),
        TokenKind::Parameter => Token::Placeholder(piece.text.into_owned()),
        TokenKind::Operator | TokenKind::Punctuation => symbol(piece.text.as_ref()),
        _ => Token::SingleQuotedString(String::new()),
    }
}

fn keyword(word: &str) -> Keyword {
    let mut buffer = [0_u8; KEYWORD_BYTES];
    let Some(upper) = buffer.get_mut(..word.len()) else {
        return Keyword::NoKeyword;
    };
    upper.copy_from_slice(word.as_bytes());
    upper.make_ascii_uppercase();
    let Ok(upper) = std::str::from_utf8(upper) else {
        return Keyword::NoKeyword;
    };
    ALL_KEYWORDS
        .binary_search(&upper)
        .ok()
        .and_then(|index| ALL_KEYWORDS_INDEX.get(index).copied())
        .unwrap_or(Keyword::NoKeyword)
}

fn symbol(text: &str) -> Token {
    match text {
        "(" => Token::LParen,
        ")" => Token::RParen,
        "[" => Token::LBracket,
        "]" => Token::RBracket,
        "{" => Token::LBrace,
        "}" => Token::RBrace,
        "," => Token::Comma,
        ";" => Token::SemiColon,
        "." => Token::Period,
        ":" => Token::Colon,
        "::" => Token::DoubleColon,
        ":=" => Token::Assignment,
        "\\" => Token::Backslash,
        _ => operator(text),
    }
}

fn operator(text: &str) -> Token {
    match text {
        "=" => Token::Eq,
        "<>" | "!=" => Token::Neq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "=>" => Token::RArrow,
        "+" => Token::Plus,
        "-" => Token::Minus,
        "*" => Token::Mul,
        "/" => Token::Div,
        "%" => Token::Mod,
        "||" => Token::StringConcat,
        "^" => Token::Caret,
        "&" => Token::Ampersand,
        "|" => Token::Pipe,
        "#" => Token::Sharp,
        "@" => Token::AtSign,
        "!!" => Token::DoubleExclamationMark,
        "|/" => Token::PGSquareRoot,
        "||/" => Token::PGCubeRoot,
        "~" => Token::Tilde,
        "~*" => Token::TildeAsterisk,
        "!~" => Token::ExclamationMarkTilde,
        "!~*" => Token::ExclamationMarkTildeAsterisk,
        "~~" => Token::DoubleTilde,
        "~~*" => Token::DoubleTildeAsterisk,
        "!~~" => Token::ExclamationMarkDoubleTilde,
        "!~~*" => Token::ExclamationMarkDoubleTildeAsterisk,
        "<<" => Token::ShiftLeft,
        ">>" => Token::ShiftRight,
        "&&" => Token::Overlap,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        "#>" => Token::HashArrow,
        "#>>" => Token::HashLongArrow,
        "#-" => Token::HashMinus,
        "@>" => Token::AtArrow,
        "<@" => Token::ArrowAt,
        "@?" => Token::AtQuestion,
        "@@" => Token::AtAt,
        "?" => Token::Question,
        "?&" => Token::QuestionAnd,
        "?|" => Token::QuestionPipe,
        "^@" => Token::CaretAt,
        other => Token::CustomBinaryOperator(other.to_owned()),
    }
}
