//! Rewrites what the parser crate does not know, or reads wrongly, into what it knows.
//!
//! Each rule keeps what the planner asks about: relations, conditions, functions, clauses. It may
//! drop the rest (`ONLY`, the strength of a row lock, a window frame's exclusion).

use std::borrow::Cow;

use crate::sql::token::TokenKind;

use super::piece::Piece;

/// The type that stands for "an explicit collation was here": no comparison with it proves a key.
const COLLATED: &str = "_collated";

/// The output column that `COLLATE` names where it stands at the end of the list.
const LABEL: &str = "collate";

/// Reserved words that may stand behind the last output column.
const ENDS_OUTPUT: &[&str] = &[
    "from",
    "into",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "returning",
];

/// Words of the longest type name: `timestamp with time zone`.
const TYPE_WORDS: usize = 4;

/// So many `ON CONFLICT` are looked at: each look takes time in the length of the text.
const CONFLICTS: usize = 32;

/// The alias of a function in `FROM` that has only a column list.
const COLUMNS: &str = "_columns";

/// The field that stands for `.*` behind an expression.
const STAR: &str = "_star";

/// Mended tokens and what was lost on the way.
pub(super) struct Mended<'a> {
    /// The tokens.
    pub pieces: Vec<Piece<'a>>,
    /// `OVERRIDING USER VALUE` was dropped.
    pub overriding_user: bool,
}

/// Mends the tokens of one query.
pub(super) fn mend(input: Vec<Piece<'_>>) -> Mended<'_> {
    let mut mender = Mender {
        out: Vec::with_capacity(input.len() + 8),
        input,
        at: 0,
        parens_to_drop: 0,
        overriding_user: false,
        assignments: None,
        depth: 0,
        conflicts: 0,
    };
    while mender.at < mender.input.len() {
        mender.step();
    }
    Mended {
        pieces: mender.out,
        overriding_user: mender.overriding_user,
    }
}

struct Mender<'a> {
    input: Vec<Piece<'a>>,
    out: Vec<Piece<'a>>,
    /// Next piece of the input.
    at: usize,
    /// Closing parentheses to drop because their opening one was.
    parens_to_drop: usize,
    overriding_user: bool,
    /// Depth of the parentheses within which an `UPDATE` assigns, while it does.
    assignments: Option<usize>,
    /// Open parentheses.
    depth: usize,
    /// `ON CONFLICT` seen.
    conflicts: usize,
}

impl<'a> Mender<'a> {
    fn step(&mut self) {
        let Some(piece) = self.input.get(self.at) else {
            return;
        };
        let done = match piece.kind {
            TokenKind::Word => self.word(),
            TokenKind::Punctuation => self.punctuation(),
            kind if kind.is_string() => self.typed_literal(),
            _ => false,
        };
        if !done {
            self.copy();
        }
    }

    fn copy(&mut self) {
        if let Some(piece) = self.input.get(self.at) {
            self.out.push(piece.clone());
        }
        self.at += 1;
    }

    /// The piece `offset` places ahead.
    fn ahead(&self, offset: usize) -> Option<&Piece<'a>> {
        self.input.get(self.at + offset)
    }

    fn ahead_is(&self, offset: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| {
            self.ahead(offset + i)
                .is_some_and(|piece| piece.is_word(word))
        })
    }

    fn ahead_is_symbol(&self, offset: usize, symbol: &str) -> bool {
        self.ahead(offset)
            .is_some_and(|piece| piece.is_symbol(symbol))
    }

    /// Whether the last piece put out is one of these words.
    fn after(&self, words: &[&str]) -> bool {
        self.out
            .last()
            .is_some_and(|last| words.iter().any(|word| last.is_word(word)))
    }

    fn after_symbol(&self, symbol: &str) -> bool {
        self.out.last().is_some_and(|last| last.is_symbol(symbol))
    }

    fn put_word(&mut self, word: &'static str) {
        self.put(TokenKind::Word, word);
    }

    fn put(&mut self, kind: TokenKind, text: &'static str) {
        let at = self.input.get(self.at).map_or(0, |piece| piece.at);
        self.out.push(Piece {
            kind,
            text: Cow::Borrowed(text),
            at,
        });
    }

    /// The distance to the parenthesis that closes the one `offset` ahead.
    fn closing(&self, offset: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (distance, piece) in self.input.get(self.at + offset..)?.iter().enumerate() {
            if piece.is_symbol("(") {
                depth += 1;
            } else if piece.is_symbol(")") {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(offset + distance);
                }
            }
        }
        None
    }

    /// Mends at a word; false leaves it as it is.
    fn word(&mut self) -> bool {
        // Behind a dot or AS any word is a name.
        if self.after_symbol(".") || self.after(&["as"]) {
            return false;
        }
        let Some(word) = self.input.get(self.at).map(|piece| piece.text.clone()) else {
            return false;
        };
        match word.as_ref() {
            "only" => self.only(),
            "isnull" => self.is_null(),
            "for" => self.locking(),
            "of" => self.locked_tables(),
            "variadic" => self.skip(1),
            "symmetric" if self.after(&["between"]) => self.skip(1),
            "distinct" | "all" if self.after(&["by"]) && self.group_by() => self.skip(1),
            "collate" => self.collate(),
            "as" => self.column_definitions(),
            "using" => self.join_using_alias(),
            "conflict" if self.after(&["on"]) => self.conflict_target(),
            "exclude" => self.frame_exclusion(),
            "table" => self.table_query(),
            "overriding" => self.overriding(),
            "update" if self.out.is_empty() => {
                self.assignments = Some(self.depth);
                false
            }
            "from" | "where" | "returning" => {
                if self.assignments == Some(self.depth) {
                    self.assignments = None;
                }
                false
            }
            _ => false,
        }
    }

    fn skip(&mut self, count: usize) -> bool {
        self.at += count;
        true
    }

    fn punctuation(&mut self) -> bool {
        let Some(piece) = self.input.get(self.at) else {
            return false;
        };
        match piece.text.as_ref() {
            "(" => {
                self.depth += 1;
                false
            }
            ")" => {
                self.depth = self.depth.saturating_sub(1);
                if self.parens_to_drop > 0 {
                    self.parens_to_drop -= 1;
                    return self.skip(1);
                }
                // `(expression).*`
                if self.ahead_is_symbol(1, ".") && self.ahead_is_symbol(2, "*") {
                    self.copy();
                    self.copy();
                    self.put_word(STAR);
                    return self.skip(1);
                }
                false
            }
            "[" => self.assigned_element(),
            _ => false,
        }
    }

    /// `ONLY t` and `ONLY (t)`, but not `FETCH FIRST ROW ONLY`.
    fn only(&mut self) -> bool {
        if self.after(&["row", "rows"]) {
            return false;
        }
        if self.ahead_is_symbol(1, "(") {
            self.depth += 1;
            self.parens_to_drop += 1;
            return self.skip(2);
        }
        self.ahead(1).is_some_and(Piece::is_name) && self.skip(1)
    }

    /// `x ISNULL`.
    fn is_null(&mut self) -> bool {
        let behind_expression = self.out.last().is_some_and(|last| {
            last.is_name()
                || last.kind.is_literal()
                || last.kind == TokenKind::Parameter
                || last.is_symbol(")")
                || last.is_symbol("]")
        });
        if !behind_expression {
            return false;
        }
        self.put_word("is");
        self.put_word("null");
        self.skip(1)
    }

    /// `FOR NO KEY UPDATE`, `FOR KEY SHARE`.
    fn locking(&mut self) -> bool {
        let (drop, keep) = if self.ahead_is(1, &["no", "key", "update"]) {
            (3, "update")
        } else if self.ahead_is(1, &["key", "share"]) {
            (2, "share")
        } else {
            return false;
        };
        self.put_word("for");
        self.put_word(keep);
        self.skip(drop + 1)
    }

    /// The tables behind `FOR UPDATE OF`: each gets a clause of its own, as the parser crate knows one only. With
    /// a name that PostgreSQL rejects all count as locked.
    fn locked_tables(&mut self) -> bool {
        let strength = match self.out.as_slice() {
            [.., first, last] if first.is_word("for") && last.is_word("update") => "update",
            [.., first, last] if first.is_word("for") && last.is_word("share") => "share",
            _ => return false,
        };
        let mut names = Vec::new();
        let mut is_plain = true;
        let mut offset = 1;
        loop {
            let Some(name) = self.ahead(offset).filter(|piece| piece.is_name()) else {
                return false;
            };
            names.push(name.clone());
            offset += 1;
            is_plain &= !self.ahead_is_symbol(offset, ".");
            if !self.ahead_is_symbol(offset, ",") && !self.ahead_is_symbol(offset, ".") {
                break;
            }
            offset += 1;
        }
        for (number, name) in names.into_iter().enumerate().filter(|_| is_plain) {
            if number > 0 {
                self.put_word("for");
                self.put_word(strength);
            }
            self.put_word("of");
            self.out.push(name);
        }
        self.skip(offset)
    }

    fn group_by(&self) -> bool {
        self.out
            .get(self.out.len().saturating_sub(2))
            .is_some_and(|piece| piece.is_word("group"))
    }

    /// `x::type COLLATE "c"`: becomes a cast to a type that proves nothing. Before a word that can't name a
    /// collation it is the name of an output column.
    fn collate(&mut self) -> bool {
        if ENDS_OUTPUT.iter().any(|word| self.ahead_is(1, &[word])) {
            self.put_word("as");
            self.put(TokenKind::QuotedIdentifier, LABEL);
            return self.skip(1);
        }
        let mut names = self.out.len();
        let mut offset = 2;
        while self.ahead_is_symbol(offset, ".") {
            offset += 2;
        }
        let first = names.saturating_sub(TYPE_WORDS);
        while names > first && self.out.get(names - 1).is_some_and(Piece::is_name) {
            names -= 1;
        }
        let behind_cast = names < self.out.len()
            && self
                .out
                .get(names.saturating_sub(1))
                .is_some_and(|piece| piece.is_symbol("::"));
        if !behind_cast || !self.ahead(1).is_some_and(Piece::is_name) {
            return false;
        }
        self.put(TokenKind::Punctuation, "::");
        self.put(TokenKind::QuotedIdentifier, COLLATED);
        self.skip(offset)
    }

    /// `f() AS (a int)`: gets an alias.
    fn column_definitions(&mut self) -> bool {
        let definitions = self.after_symbol(")")
            && self.ahead_is_symbol(1, "(")
            && self.ahead(2).is_some_and(|piece| {
                piece.is_name()
                    && ![
                        "select", "with", "values", "insert", "update", "delete", "merge", "table",
                    ]
                    .iter()
                    .any(|word| piece.is_word(word))
            });
        if !definitions {
            return false;
        }
        self.copy();
        self.put(TokenKind::QuotedIdentifier, COLUMNS);
        true
    }

    /// `JOIN t USING (a, b) AS x`: the alias goes.
    fn join_using_alias(&mut self) -> bool {
        if !self.ahead_is_symbol(1, "(") {
            return false;
        }
        let mut offset = 2;
        while self.ahead(offset).is_some_and(Piece::is_name)
            && !self.ahead_is(offset, &["select"])
            && self.ahead_is_symbol(offset + 1, ",")
        {
            offset += 2;
        }
        let alias = self.ahead(offset).is_some_and(Piece::is_name)
            && self.ahead_is_symbol(offset + 1, ")")
            && self.ahead_is(offset + 2, &["as"])
            && self.ahead(offset + 3).is_some_and(Piece::is_name);
        if !alias {
            return false;
        }
        for _ in 0..offset + 2 {
            self.copy();
        }
        self.skip(2)
    }

    /// `ON CONFLICT (anything) WHERE anything DO`: the target is immutable by definition; it goes.
    fn conflict_target(&mut self) -> bool {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS {
            return false;
        }
        let mut offset = 1;
        loop {
            if self.ahead_is(offset, &["do"]) {
                self.copy();
                return self.skip(offset - 1);
            }
            if self.ahead_is_symbol(offset, "(") {
                match self.closing(offset) {
                    Some(closing) => offset = closing,
                    None => return false,
                }
            } else if self.ahead(offset).is_none() {
                return false;
            }
            offset += 1;
        }
    }

    /// `EXCLUDE CURRENT ROW | GROUP | TIES | NO OTHERS` of a window frame.
    fn frame_exclusion(&mut self) -> bool {
        let behind_bound = self.after(&["row", "following", "preceding"]);
        let words = if self.ahead_is(1, &["current", "row"]) || self.ahead_is(1, &["no", "others"])
        {
            3
        } else if self.ahead_is(1, &["group"]) || self.ahead_is(1, &["ties"]) {
            2
        } else {
            return false;
        };
        behind_bound && self.ahead_is_symbol(words, ")") && self.skip(words)
    }

    /// `TABLE t` as a query.
    fn table_query(&mut self) -> bool {
        let query = self.out.is_empty()
            || self.after_symbol("(")
            || self.after_symbol(")")
            || self.after(&["union", "intersect", "except", "all", "distinct"])
            || self
                .out
                .first()
                .is_some_and(|first| first.is_word("insert"));
        if !query || !self.ahead(1).is_some_and(Piece::is_name) {
            return false;
        }
        self.put_word("select");
        self.put(TokenKind::Operator, "*");
        self.put_word("from");
        self.skip(1)
    }

    /// `OVERRIDING SYSTEM | USER VALUE`.
    fn overriding(&mut self) -> bool {
        if self.ahead_is(1, &["user", "value"]) {
            self.overriding_user = true;
            return self.skip(3);
        }
        self.ahead_is(1, &["system", "value"]) && self.skip(3)
    }

    /// `SET a[1] = x`: assigns to `a`.
    fn assigned_element(&mut self) -> bool {
        if self.assignments != Some(self.depth) {
            return false;
        }
        let target = self.out.last().is_some_and(Piece::is_name)
            && self
                .out
                .get(self.out.len().saturating_sub(2))
                .is_some_and(|piece| piece.is_word("set") || piece.is_symbol(","));
        if !target {
            return false;
        }
        let mut offset = 1;
        while !self.ahead_is_symbol(offset, "]") {
            match self.ahead(offset) {
                Some(piece) if !piece.is_symbol("(") && !piece.is_symbol("[") => offset += 1,
                _ => return false,
            }
        }
        self.ahead_is_symbol(offset + 1, "=") && self.skip(offset + 1)
    }

    /// `type 'literal'` for a type that the parser crate has no keyword for.
    fn typed_literal(&mut self) -> bool {
        let Some(last) = self.out.last() else {
            return false;
        };
        if !last.is_name()
            || (last.kind == TokenKind::Word
                && BEFORE_STRING.binary_search(&last.text.as_ref()).is_ok())
        {
            return false;
        }
        let Some(name) = self.out.pop() else {
            return false;
        };
        if self.after_symbol(".") || self.after(&["as"]) {
            self.out.push(name);
            return false;
        }
        self.put_word("cast");
        self.put(TokenKind::Punctuation, "(");
        self.copy();
        self.at -= 1;
        self.put_word("as");
        self.out.push(name);
        self.put(TokenKind::Punctuation, ")");
        self.skip(1)
    }
}

/// Keywords that a string may follow without being a typed literal of a user's type; sorted.
#[rustfmt::skip]
const BEFORE_STRING: [&str; 102] = [
    "all", "and", "any", "array", "as", "asymmetric", "between", "bigint", "bit", "boolean",
    "both", "by", "bytea", "case", "char", "character", "collate", "columns", "current",
    "current_user", "date", "dec", "decimal", "default", "distinct", "do", "else", "empty", "end",
    "error", "escape", "except", "extract", "false", "float", "following", "for", "from",
    "groups", "having", "ilike", "in", "int", "integer", "intersect", "interval", "is", "json",
    "jsonb", "leading", "like", "limit", "national", "nchar", "not", "nothing", "null", "numeric",
    "offset", "on", "or", "passing", "path", "placing", "preceding", "precision", "range", "real",
    "ref", "returning", "row", "rows", "select", "separator", "session_user", "set", "similar",
    "smallint", "some", "symmetric", "text", "then", "time", "timestamp", "to", "trailing",
    "true", "uescape", "union", "user", "using", "uuid", "value", "values", "varchar", "varying",
    "when", "where", "with", "without", "xml", "zone",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::tokenize;
    use crate::sql::parse::piece::pieces;
    use crate::sql::token::LexOptions;

    fn mended(text: &str) -> String {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        let pieces = mend(pieces(text, &tokens)).pieces;
        let words: Vec<String> = pieces
            .iter()
            .map(|piece| match piece.kind {
                TokenKind::QuotedIdentifier => format!("{:?}", piece.text),
                kind if kind.is_string() => "''".to_owned(),
                _ => piece.text.to_string(),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn mends_what_the_parser_does_not_know() {
        for (text, expected) in [
            ("SELECT * FROM ONLY t", "select * from t"),
            ("SELECT * FROM ONLY (s.t) x", "select * from s . t x"),
            (
                "SELECT \"only\".a, b AS only FROM \"only\"",
                "select \"only\" . a , b as only from \"only\"",
            ),
            (
                "SELECT 1 FETCH FIRST ROW ONLY",
                "select 1 fetch first row only",
            ),
            ("SELECT a ISNULL", "select a is null"),
            ("SELECT a AS isnull", "select a as isnull"),
            (
                "SELECT 1 FROM t FOR NO KEY UPDATE OF a, b NOWAIT",
                "select 1 from t for update of a for update of b nowait",
            ),
            (
                "SELECT 1 FROM t FOR SHARE OF a SKIP LOCKED",
                "select 1 from t for share of a skip locked",
            ),
            (
                "SELECT 1 FROM t FOR UPDATE OF s.a",
                "select 1 from t for update",
            ),
            ("SELECT 1 FROM t FOR KEY SHARE", "select 1 from t for share"),
            ("SELECT f(VARIADIC a)", "select f ( a )"),
            ("SELECT pg_lsn '0/1'", "select cast ( '' as pg_lsn )"),
            ("SELECT a LIKE 'x' ESCAPE 'y'", "select a like '' escape ''"),
            (
                "SELECT a::text COLLATE \"C\" < 'b'",
                "select a :: text :: \"_collated\" < ''",
            ),
            ("SELECT a COLLATE \"C\"", "select a collate \"C\""),
            ("SELECT a COLLATE FROM t", "select a as \"collate\" from t"),
            (
                "SELECT * FROM f() AS (a int)",
                "select * from f ( ) as \"_columns\" ( a int )",
            ),
            (
                "WITH x(a) AS (SELECT 1) TABLE x",
                "with x ( a ) as ( select 1 ) select * from x",
            ),
            (
                "SELECT 1 FROM a JOIN b USING (c) AS j",
                "select 1 from a join b using ( c )",
            ),
            (
                "INSERT INTO t VALUES (1) ON CONFLICT (lower(a)) WHERE b DO NOTHING",
                "insert into t values ( 1 ) on conflict do nothing",
            ),
            ("SELECT (f(x)).*, 1", "select ( f ( x ) ) . _star , 1"),
            (
                "UPDATE t SET a[1] = 2, b = c[1]",
                "update t set a = 2 , b = c [ 1 ]",
            ),
            (
                "INSERT INTO t OVERRIDING USER VALUE VALUES (1)",
                "insert into t values ( 1 )",
            ),
            (
                "SELECT 1 BETWEEN SYMMETRIC 2 AND 3",
                "select 1 between 2 and 3",
            ),
        ] {
            assert_eq!(mended(text), expected, "{text}");
        }
    }
}
