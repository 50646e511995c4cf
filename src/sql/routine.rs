//! The queries in the body of a function in SQL or PL/pgSQL, each as a statement of its own.
//!
//! What holds:
//! - Every statement of the body that reads or changes relations becomes a [`Query`], and so does every expression
//!   with a query in it (`SELECT` before it). A body with anything else that could run one is not read at all.
//! - Every variable that the body declares or assigns to is among [`Routine::variables`], whatever its scope is:
//!   such a name does not stand for an argument everywhere.
//! - No name is resolved here. [`Routine::text`] puts parameters in the places of names that the caller knows.

use std::ops::Range;

use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Words without which an expression reads nothing.
const QUERY_WORDS: [&str; 9] = [
    "select", "from", "insert", "update", "delete", "merge", "with", "table", "values",
];

/// The body of a function.
#[derive(Clone, Debug, Default)]
pub struct Routine {
    source: String,
    tokens: Vec<Token>,
    /// Its queries.
    pub queries: Vec<Query>,
    /// What it declares or assigns to; of `NEW.a` it is `new.a`.
    pub variables: Vec<String>,
}

/// A query of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// It is an expression.
    is_expression: bool,
    /// Its tokens.
    tokens: Vec<usize>,
}

/// A name in a query, and the number of the parameter that stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A variable.
    Variable(String, usize),
    /// A field of `NEW` and `OLD`.
    Field(String, usize),
}

/// Which rows of a trigger a query takes known fields of, where the other does not stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsUsed {
    /// `NEW`.
    pub new: bool,
    /// `OLD`.
    pub old: bool,
}

impl Routine {
    /// Reads a body; none if it has what is not known here.
    pub fn read(source: &str, is_plpgsql: bool) -> Option<Routine> {
        // A setting decides what a backslash means in a string.
        if source.contains('\\') {
            return None;
        }
        let tokens = tokenize(source.as_bytes(), LexOptions::default()).ok()?;
        // In PL/pgSQL `$1` is another name of the argument, which may be assigned to, and OUT arguments count.
        let is_number = |token: &Token| token.kind == TokenKind::Parameter;
        if is_plpgsql && tokens.iter().any(is_number) {
            return None;
        }
        let mut reader = Reader {
            source,
            tokens: &tokens,
            at: 0,
            queries: Vec::new(),
            variables: Vec::new(),
        };
        while reader.at < tokens.len() {
            match is_plpgsql {
                true => reader.statement()?,
                false => reader.query_statement()?,
            }
        }
        let Reader {
            queries, variables, ..
        } = reader;
        Some(Routine {
            source: source.to_owned(),
            tokens,
            queries,
            variables,
        })
    }

    /// Every name in a query.
    pub fn names(&self, query: &Query) -> Vec<String> {
        let names = query.tokens.iter();
        names.filter_map(|at| self.name(*at)).collect()
    }

    /// Whether a name stands behind a dot, or before one or a parenthesis.
    pub fn is_named_otherwise(&self, query: &Query, name: &str) -> bool {
        let mut tokens = query.tokens.iter();
        tokens.any(|at| !self.is_bare(*at) && self.name(*at).is_some_and(|known| known == name))
    }

    /// A query as a statement, with parameters in the places of names.
    pub fn text(&self, query: &Query, known: &[Known]) -> String {
        let mut text = String::new();
        if query.is_expression {
            text.push_str("SELECT");
        }
        let mut rest = query.tokens.as_slice();
        while let Some(at) = rest.first() {
            if !text.is_empty() {
                text.push(' ');
            }
            let (number, taken) = self.parameter(*at, known).unwrap_or((0, 1));
            match number {
                0 => text.push_str(self.written(*at)),
                number => text.push_str(&format!("${number}")),
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        text
    }

    /// Which rows of a trigger a query takes fields of.
    pub fn rows_used(&self, query: &Query, known: &[Known]) -> RowsUsed {
        let mut used = RowsUsed::default();
        let mut rest = query.tokens.as_slice();
        while let Some(at) = rest.first() {
            let (_, taken) = self.parameter(*at, known).unwrap_or((0, 1));
            if taken == 3 {
                let is_new = self.name(*at).is_some_and(|name| name == "new");
                used.new |= is_new;
                used.old |= !is_new;
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        used
    }

    /// The parameter that the tokens from here on are, and how many they are.
    fn parameter(&self, at: usize, known: &[Known]) -> Option<(usize, usize)> {
        if let Some(number) = self.field(at, known) {
            return Some((number, 3));
        }
        // In a trigger one of them is null, or both are the same.
        if self.is(at, "coalesce") && self.is(at + 1, "(") {
            let pair = (self.field(at + 2, known), self.field(at + 6, known));
            let is_whole = self.is(at + 5, ",") && self.is(at + 9, ")");
            if let (Some(one), Some(other)) = pair
                && is_whole
                && one == other
                && self.name(at + 2) != self.name(at + 6)
            {
                return Some((one, 10));
            }
        }
        let name = self.name(at).filter(|_| self.is_bare(at))?;
        known.iter().find_map(|known| match known {
            Known::Variable(variable, number) if *variable == name => Some((*number, 1)),
            _ => None,
        })
    }

    /// The parameter that `NEW.column` or `OLD.column` is.
    fn field(&self, at: usize, known: &[Known]) -> Option<usize> {
        let is_row = self
            .name(at)
            .is_some_and(|name| name == "new" || name == "old");
        let is_first = at.checked_sub(1).is_none_or(|at| !self.is(at, "."));
        if !is_row || !is_first || !self.is(at + 1, ".") {
            return None;
        }
        let column = self.name(at + 2)?;
        let is_whole = !self.is(at + 3, ".") && !self.is(at + 3, "(") && !self.is(at + 3, "[");
        known.iter().find_map(|known| match known {
            Known::Field(field, number) if *field == column && is_whole => Some(*number),
            _ => None,
        })
    }

    fn is_bare(&self, at: usize) -> bool {
        let is_behind = at.checked_sub(1).is_some_and(|at| self.is(at, "."));
        !is_behind && !self.is(at + 1, ".") && !self.is(at + 1, "(") && !self.is(at + 1, "[")
    }

    fn is(&self, at: usize, what: &str) -> bool {
        let token = self.tokens.get(at);
        token.is_some_and(|token| {
            token.is_symbol(&self.source, what) || token.is_word(&self.source, what)
        })
    }

    fn name(&self, at: usize) -> Option<String> {
        let name = identifier_value(&self.source, self.tokens.get(at)?)?;
        Some(name.into_owned())
    }

    fn written(&self, at: usize) -> &str {
        let token = self.tokens.get(at);
        token.map_or("", |token| token.text(&self.source))
    }
}

/// Reads statement after statement.
struct Reader<'a> {
    source: &'a str,
    tokens: &'a [Token],
    at: usize,
    queries: Vec<Query>,
    variables: Vec<String>,
}

impl Reader<'_> {
    /// A statement of a body in SQL.
    fn query_statement(&mut self) -> Option<()> {
        let tokens = self.until(";")?;
        self.at += 1;
        match self.word(tokens.start).as_deref() {
            None if tokens.is_empty() => Some(()),
            Some("select" | "insert" | "update" | "delete" | "with" | "values" | "table") => {
                self.note(tokens.collect(), false);
                Some(())
            }
            _ => None,
        }
    }

    /// A statement of a body in PL/pgSQL, or the head of one.
    fn statement(&mut self) -> Option<()> {
        if self.is(self.at, ";") {
            self.at += 1;
            return Some(());
        }
        if self.is(self.at, "<<") {
            let end = (self.at..self.tokens.len()).find(|at| self.is(*at, ">>"))?;
            self.at = end + 1;
            return Some(());
        }
        let start = self.at;
        let word = self.word(start);
        let is_assigned = [":=", "=", ".", "["]
            .iter()
            .any(|one| self.is(start + 1, one));
        match word.as_deref().filter(|_| !is_assigned) {
            Some("declare") => {
                self.at += 1;
                while !self.is(self.at, "begin") {
                    self.declaration()?;
                }
                Some(())
            }
            Some("begin" | "else" | "loop" | "exception") => {
                self.at += 1;
                Some(())
            }
            Some("end") => self.skip(),
            Some("if" | "elsif" | "elseif" | "when") => self.head("then"),
            Some("while") => self.head("loop"),
            Some("case") => self.head("when"),
            Some("for" | "foreach") => self.loop_over(),
            Some("perform") => {
                self.at += 1;
                self.expression()
            }
            Some("return") => self.returned(),
            Some("select" | "insert" | "update" | "delete" | "with" | "values" | "table") => {
                let tokens = self.until(";")?;
                let tokens = self.without_into(tokens)?;
                self.note(tokens, false);
                Some(())
            }
            Some("raise" | "exit" | "continue" | "null" | "assert") => {
                let tokens = self.until(";")?;
                (!self.has_query(&tokens)).then_some(())
            }
            Some("get") => {
                // Which of its names are items of PostgreSQL's does not matter.
                let tokens = self.until(";")?;
                let names: Vec<String> = tokens.filter_map(|at| self.name(at)).collect();
                self.variables.extend(names);
                Some(())
            }
            _ if is_assigned => self.assignment(),
            _ => None,
        }
    }

    /// `name type := value;`
    fn declaration(&mut self) -> Option<()> {
        let name = self.name(self.at)?;
        self.variables.push(name);
        let tokens = self.until(";")?;
        let words = ["cursor", "alias", "refcursor"];
        let is_other = |at: usize| {
            self.word(at)
                .is_some_and(|word| words.contains(&word.as_str()))
        };
        if tokens.clone().skip(1).any(is_other) {
            return None;
        }
        let is_default = |at: &usize| [":=", "=", "default"].iter().any(|one| self.is(*at, one));
        let value = tokens.clone().skip(1).find(is_default);
        if let Some(value) = value {
            self.note_expression(value + 1..tokens.end);
        }
        self.at += 1;
        Some(())
    }

    /// A condition up to a word.
    fn head(&mut self, end: &str) -> Option<()> {
        self.at += 1;
        let tokens = self.until(end)?;
        self.note_expression(tokens);
        // The next WHEN is a head of its own.
        if end != "when" {
            self.at += 1;
        }
        Some(())
    }

    /// `FOR … IN … LOOP`.
    fn loop_over(&mut self) -> Option<()> {
        self.at += 1;
        let target = self.until("in")?;
        self.assigned_to(target);
        self.at += 1;
        let tokens = self.until("loop")?;
        self.at += 1;
        if !self.has_query(&tokens) {
            return Some(());
        }
        let is_query = [
            "select", "with", "insert", "update", "delete", "values", "table",
        ];
        let first = self.word(tokens.start)?;
        match is_query.contains(&first.as_str()) {
            true => self.note(tokens.collect(), false),
            // An array, which may be of a subquery.
            false if first == "array" => self.note(tokens.skip(1).collect(), true),
            false => return None,
        }
        Some(())
    }

    fn returned(&mut self) -> Option<()> {
        self.at += 1;
        if self.is(self.at, "query") {
            self.at += 1;
            let tokens = self.until(";")?;
            self.note(tokens.collect(), false);
            return Some(());
        }
        if self.is(self.at, "next") {
            self.at += 1;
        }
        self.expression()
    }

    /// `name := value;`
    fn assignment(&mut self) -> Option<()> {
        self.name(self.at)?;
        let tokens = self.until(";")?;
        let sign = tokens
            .clone()
            .find(|at| self.is(*at, ":=") || self.is(*at, "="))?;
        if self.has_query(&(tokens.start..sign)) {
            return None;
        }
        self.assigned_to(tokens.start..sign);
        self.note_expression(sign + 1..tokens.end);
        Some(())
    }

    /// Variables, or fields of some, between commas. Before a name there may be the label of its block, so that any of
    /// `a.b.c` may be what is meant.
    fn assigned_to(&mut self, tokens: Range<usize>) {
        for at in tokens.clone() {
            let Some(name) = self.name(at) else { continue };
            let is_first = at == tokens.start || self.is(at - 1, ",");
            let is_of_row = at >= 2 && (self.is(at - 2, "new") || self.is(at - 2, "old"));
            if !is_first && (is_of_row || !self.is(at - 1, ".")) {
                continue;
            }
            let is_row = name == "new" || name == "old";
            let field = self.name(at + 2).filter(|_| is_row && self.is(at + 1, "."));
            self.variables.push(match field {
                Some(field) => format!("{name}.{field}"),
                None => name,
            });
        }
    }

    /// An expression up to the end of the statement.
    fn expression(&mut self) -> Option<()> {
        let tokens = self.until(";")?;
        self.note_expression(tokens);
        Some(())
    }

    fn skip(&mut self) -> Option<()> {
        self.until(";").map(|_| ())
    }

    /// The tokens from here to a word or symbol, outside parentheses and CASE; to the end if that is a semicolon.
    fn until(&mut self, end: &str) -> Option<Range<usize>> {
        let start = self.at;
        let (mut parentheses, mut cases) = (0_usize, 0_usize);
        let is_statement = end == ";" && self.is(start, "end");
        for at in start..self.tokens.len() {
            if parentheses == 0 && cases == 0 && self.is(at, end) {
                self.at = at;
                return Some(start..at);
            }
            if self.is(at, "(") || self.is(at, "[") {
                parentheses += 1;
            } else if self.is(at, ")") || self.is(at, "]") {
                parentheses = parentheses.checked_sub(1)?;
            } else if self.is(at, "case") && !is_statement {
                cases += 1;
            } else if self.is(at, "end") && !is_statement {
                cases = cases.checked_sub(1)?;
            } else if self.is(at, ";") {
                return None;
            }
        }
        if end != ";" || parentheses > 0 || cases > 0 {
            return None;
        }
        self.at = self.tokens.len();
        Some(start..self.at)
    }

    /// A query without what it assigns to.
    fn without_into(&mut self, tokens: Range<usize>) -> Option<Vec<usize>> {
        let mut kept = Vec::new();
        let mut parentheses = 0_usize;
        let mut at = tokens.start;
        let mut has_into = false;
        while at < tokens.end {
            if self.is(at, "(") {
                parentheses += 1;
            } else if self.is(at, ")") {
                parentheses = parentheses.saturating_sub(1);
            }
            let before = at.checked_sub(1).and_then(|at| self.word(at));
            let is_table = before.is_some_and(|word| word == "insert" || word == "merge");
            if parentheses > 0 || is_table || !self.is(at, "into") {
                kept.push(at);
                at += 1;
                continue;
            }
            if has_into {
                return None;
            }
            has_into = true;
            at += 1;
            if self.is(at, "strict") {
                at += 1;
            }
            let start = at;
            loop {
                self.name(at)?;
                at += 1;
                while self.is(at, ".") {
                    self.name(at + 1)?;
                    at += 2;
                }
                if !self.is(at, ",") {
                    break;
                }
                at += 1;
            }
            self.assigned_to(start..at);
        }
        Some(kept)
    }

    fn note_expression(&mut self, tokens: Range<usize>) {
        if self.has_query(&tokens) {
            self.note(tokens.collect(), true);
        }
    }

    fn note(&mut self, tokens: Vec<usize>, is_expression: bool) {
        self.queries.push(Query {
            is_expression,
            tokens,
        });
    }

    fn has_query(&self, tokens: &Range<usize>) -> bool {
        tokens.clone().any(|at| {
            let word = self.word(at);
            word.is_some_and(|word| QUERY_WORDS.contains(&word.as_str()))
        })
    }

    fn is(&self, at: usize, what: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| {
            token.is_symbol(self.source, what) || token.is_word(self.source, what)
        })
    }

    fn word(&self, at: usize) -> Option<String> {
        let token = self.tokens.get(at)?;
        (token.kind == TokenKind::Word).then(|| token.text(self.source).to_ascii_lowercase())
    }

    fn name(&self, at: usize) -> Option<String> {
        let name = identifier_value(self.source, self.tokens.get(at)?)?;
        Some(name.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(source: &str, known: &[Known]) -> Option<Vec<String>> {
        let routine = Routine::read(source, true)?;
        let queries = routine.queries.iter();
        Some(queries.map(|query| routine.text(query, known)).collect())
    }

    #[test]
    fn queries_are_found_wherever_they_stand() {
        let known = [Known::Variable("p".to_owned(), 1)];
        for (source, wanted) in [
            (
                "BEGIN RETURN QUERY SELECT * FROM t WHERE id = p; END",
                "SELECT * FROM t WHERE id = $1",
            ),
            (
                "BEGIN PERFORM 1 FROM t WHERE id = p; END;",
                "SELECT 1 FROM t WHERE id = $1",
            ),
            (
                "DECLARE n int := (SELECT max(n) FROM t); BEGIN END",
                "SELECT ( SELECT max ( n ) FROM t )",
            ),
            (
                "BEGIN SELECT a, b INTO STRICT x, y.z FROM t WHERE id = p; END",
                "SELECT a , b FROM t WHERE id = $1",
            ),
            (
                "BEGIN INSERT INTO t (a) VALUES (p) RETURNING a INTO x; END",
                "INSERT INTO t ( a ) VALUES ( $1 ) RETURNING a",
            ),
            (
                "BEGIN IF CASE WHEN EXISTS (SELECT FROM t) THEN true END THEN NULL; END IF; END",
                "SELECT CASE WHEN EXISTS ( SELECT FROM t ) THEN true END",
            ),
            (
                "BEGIN FOR r IN SELECT * FROM t LOOP x := r.p; END LOOP; EXCEPTION WHEN OTHERS THEN NULL; END",
                "SELECT * FROM t",
            ),
            (
                "BEGIN x = n FROM t WHERE t.p = f.p; END",
                "SELECT n FROM t WHERE t . p = f . p",
            ),
            (
                "BEGIN CASE x WHEN 1 THEN DELETE FROM t; ELSE x := 1; END CASE; END",
                "DELETE FROM t",
            ),
        ] {
            let wanted = vec![wanted.to_owned()];
            assert_eq!(texts(source, &known), Some(wanted), "{source}");
        }
    }

    #[test]
    fn fields_of_the_row_become_parameters() {
        let known = [Known::Field("id".to_owned(), 2)];
        let source = "BEGIN INSERT INTO t VALUES (NEW.id, coalesce(new.id, old.id), NEW.a, r.new.id, OLD.id.x); END";
        let wanted = "INSERT INTO t VALUES ( $2 , $2 , NEW . a , r . new . id , OLD . id . x )";
        assert_eq!(texts(source, &known), Some(vec![wanted.to_owned()]));
    }

    #[test]
    fn what_is_not_known_is_not_read() {
        for source in [
            "BEGIN EXECUTE 'SELECT 1'; END",
            "BEGIN COMMIT; END",
            "BEGIN CALL p(); END",
            "DECLARE c CURSOR FOR SELECT 1; BEGIN END",
            "BEGIN MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE; END",
            "BEGIN RAISE NOTICE '%', (SELECT 1 FROM t); END",
            "BEGIN MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DO NOTHING; END",
            "BEGIN a[(SELECT 1 FROM t)] := 1; END",
            "#variable_conflict use_variable BEGIN END",
            "BEGIN FOR r IN EXECUTE 'x' || (SELECT 'y') LOOP END LOOP; END",
        ] {
            assert_eq!(texts(source, &[]), None, "{source}");
        }
    }

    #[test]
    fn variables_are_what_is_declared_or_assigned_to() {
        let source = "<<a>> DECLARE x int; y t%ROWTYPE = NULL; BEGIN z := 1; NEW.k := 2; \
                      SELECT 1 INTO u.v, w FROM t; FOR i IN 1..3 LOOP END LOOP; END";
        let routine = Routine::read(source, true).unwrap();
        let of_label = Routine::read(
            "<<t>> BEGIN t.NEW.id := 1; SELECT 1 INTO t.new FROM u; END",
            true,
        );
        assert_eq!(of_label.unwrap().variables, ["t", "new.id", "t", "new"]);
        assert!(Routine::read("BEGIN RETURN (SELECT a FROM t WHERE id = $1); END", true).is_none());
        assert!(Routine::read("SELECT a FROM t WHERE id = $1", false).is_some());
        assert!(Routine::read("SELECT '\\' FROM t", false).is_none());
        assert_eq!(
            routine.variables,
            ["x", "y", "z", "new.k", "u", "v", "w", "i"]
        );
    }

    proptest! {
        #[test]
        fn any_tokens_are_read_without_a_panic(
            words in prop::collection::vec(
                prop::sample::select(vec!["new", ".", "(", ")", ";", "for", "in", "return", "query", "from", "a", ":=", ",", "'x'",
                    "begin", "case", "when", "end", "loop", "into", "select", "insert", "declare", "coalesce", "if", "then", "<<"]),
                0..30,
            ),
            is_plpgsql in any::<bool>(),
        ) {
            let known = [Known::Field("a".to_owned(), 1), Known::Variable("a".to_owned(), 2)];
            if let Some(routine) = Routine::read(&words.join(" "), is_plpgsql) {
                for query in &routine.queries {
                    routine.text(query, &known);
                    routine.names(query);
                }
            }
        }
    }
}
