//! What the body of a function says of itself, by its tokens alone.
//!
//! Nothing here resolves a name. A body that can't be told is taken for the worst: it runs whatever text it makes.
//! What holds, for bodies in SQL and PL/pgSQL:
//! - A relation is read or changed only by a statement with `FROM`, `TABLE` or a verb that changes rows, and its
//!   name is a token of the body, unless the body makes statements of strings.
//! - A function is called by its name before a parenthesis, or behind an operator or the name of a type.
//! - A trigger changes the row that is stored by assigning to a field of `NEW`, to `NEW`, or by returning
//!   something else.

use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::literal::token_value;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// A function's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Every name in it, sorted.
    pub names: Vec<String>,
    /// The operators in it, sorted.
    pub operators: Vec<String>,
    /// Whom it calls.
    pub calls: Vec<BodyCall>,
    /// It has statements that read or change relations.
    pub queries: bool,
    /// It has statements that change rows.
    pub writes: bool,
    /// It runs text that it makes, or statements that are no queries.
    pub dynamic: bool,
    /// It reads what belongs to a server: object identifiers and the like.
    pub reports: bool,
    /// The columns of `NEW` that it assigns to; none if it may store another row altogether.
    pub assigned: Option<Vec<String>>,
}

/// A call in a body.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BodyCall {
    /// The schema, if it is written.
    pub schema: Option<String>,
    /// The function's name.
    pub name: String,
    /// How many arguments it has.
    pub arguments: usize,
}

/// Words before a parenthesis that call nothing.
const NO_CALLS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "collate",
    "conflict",
    "decimal",
    "dec",
    "distinct",
    "do",
    "else",
    "elsif",
    "except",
    "exists",
    "filter",
    "float",
    "from",
    "group",
    "having",
    "if",
    "ilike",
    "in",
    "index",
    "insert",
    "intersect",
    "interval",
    "into",
    "is",
    "like",
    "limit",
    "nchar",
    "not",
    "numeric",
    "offset",
    "on",
    "or",
    "over",
    "return",
    "returning",
    "select",
    "set",
    "some",
    "then",
    "time",
    "timestamp",
    "union",
    "using",
    "values",
    "varchar",
    "when",
];

/// Further such words, of PL/pgSQL above all.
const NO_CALLS_EITHER: &[&str] = &[
    "where", "while", "within", "perform", "reverse", "slice", "assert", "raise", "next", "query",
    "varying", "with",
];

/// Functions that are called without parentheses.
const BARE_CALLS: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
];

/// Statements that are no queries and no statements of PL/pgSQL's own.
const COMMANDS: &[&str] = &[
    "abort",
    "alter",
    "analyse",
    "analyze",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "copy",
    "create",
    "deallocate",
    "discard",
    "do",
    "drop",
    "explain",
    "fetch",
    "grant",
    "import",
    "listen",
    "load",
    "lock",
    "move",
    "notify",
    "open",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "savepoint",
    "security",
    "set",
    "show",
    "start",
    "truncate",
    "unlisten",
    "vacuum",
];

/// Names of what each server has for itself.
const REPORTS: &[&str] = &[
    "cmax",
    "cmin",
    "ctid",
    "oid",
    "regclass",
    "regcollation",
    "regconfig",
    "regnamespace",
    "regoper",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "tableoid",
    "tg_relid",
];

impl Body {
    /// Reads a body in SQL or PL/pgSQL; none if it has no tokens.
    pub fn read(source: &str) -> Option<Body> {
        let tokens = tokenize(source.as_bytes(), LexOptions::default()).ok()?;
        let mut reader = Reader {
            source,
            tokens: &tokens,
            body: Body {
                assigned: Some(Vec::new()),
                ..Body::default()
            },
            parentheses: Vec::new(),
        };
        for at in 0..tokens.len() {
            reader.token(at);
        }
        let mut body = reader.body;
        body.names.sort_unstable();
        body.names.dedup();
        body.operators.sort_unstable();
        body.operators.dedup();
        body.calls.sort_unstable();
        body.calls.dedup();
        Some(body)
    }

    /// What may call functions without their names: operators, and names that may be of types.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        let marks = self.operators.iter().chain(&self.names);
        marks.map(String::as_str)
    }
}

struct Reader<'a> {
    source: &'a str,
    tokens: &'a [Token],
    body: Body,
    /// Of each open parenthesis, whether a `FROM` in it is part of a function's arguments.
    parentheses: Vec<bool>,
}

impl Reader<'_> {
    fn token(&mut self, at: usize) {
        let Some(token) = self.tokens.get(at) else {
            return;
        };
        if token.is_symbol(self.source, "(") {
            let before = at.checked_sub(1).and_then(|at| self.word(at));
            let keywords = ["extract", "substring", "trim", "overlay"];
            self.parentheses
                .push(before.is_some_and(|word| keywords.contains(&word.as_str())));
        } else if token.is_symbol(self.source, ")") {
            self.parentheses.pop();
        } else if token.kind.is_string() {
            self.string(token);
        } else if token.kind == TokenKind::Operator {
            self.body.operators.push(token.text(self.source).to_owned());
        } else if let Some(name) = self.name(at) {
            if token.kind == TokenKind::Word && !self.is_field(at) {
                self.keyword(at, &name);
            }
            if self.is_start(at) {
                self.assignment(at);
            }
            self.call(at, &name);
            self.body.names.push(name);
        }
    }

    /// A string that stands for a moment is as good as a call of now().
    fn string(&mut self, token: &Token) {
        let value = token_value(self.source, token).unwrap_or_default();
        let value = value.trim_start().to_ascii_lowercase();
        let moments = ["now", "today", "tomorrow", "yesterday"];
        if moments.iter().any(|moment| value.starts_with(moment)) {
            self.called(None, "now", 0);
        }
    }

    fn keyword(&mut self, at: usize, word: &str) {
        match word {
            "from" if !self.is_argument(at) => self.body.queries = true,
            "table" => self.body.queries = true,
            "insert" | "update" | "delete" | "merge" => {
                self.body.queries = true;
                self.body.writes = true;
            }
            "execute" | "cursor" | "refcursor" => self.dynamic(),
            "into" if self.is_target(at) => {}
            "into" | "alias" | "get" => self.body.assigned = None,
            "for" | "foreach" => self.loop_over(at),
            "return" => self.returned(at),
            _ => {}
        }
        if self.is_start(at) && COMMANDS.contains(&word) && !self.is_assigned(at) {
            self.dynamic();
        }
        if REPORTS.contains(&word) {
            self.body.reports = true;
        }
        if BARE_CALLS.contains(&word) && !self.symbol(at + 1, "(") {
            self.called(None, word, 0);
        }
    }

    /// Whether an `INTO` names the table of an INSERT or MERGE.
    fn is_target(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.word(at));
        before.is_some_and(|word| word == "insert" || word == "merge")
    }

    fn dynamic(&mut self) {
        self.body.queries = true;
        self.body.dynamic = true;
    }

    /// Whether a `FROM` is one of `IS DISTINCT FROM`, `extract(… FROM …)` and their like.
    fn is_argument(&self, at: usize) -> bool {
        let before = |back: usize| at.checked_sub(back).and_then(|at| self.word(at));
        let is_distinct = before(1).is_some_and(|word| word == "distinct")
            && before(2).is_some_and(|word| word == "is" || word == "not");
        is_distinct || self.parentheses.last() == Some(&true)
    }

    /// What a loop assigns to stands before `IN`.
    fn loop_over(&mut self, at: usize) {
        let target = (at + 1..self.tokens.len()).take_while(|at| {
            !self.symbol(*at, ";") && self.word(*at).is_none_or(|word| word != "in")
        });
        if target
            .filter_map(|at| self.name(at))
            .any(|name| name == "new")
        {
            self.body.assigned = None;
        }
    }

    /// A trigger that returns neither `NEW` nor `OLD` nor nothing stores another row.
    fn returned(&mut self, at: usize) {
        let words: Vec<String> = (at + 1..self.tokens.len())
            .take_while(|at| !self.symbol(*at, ";"))
            .filter_map(|at| Some(self.tokens.get(at)?.text(self.source).to_ascii_lowercase()))
            .collect();
        let known = [
            "",
            "new",
            "old",
            "null",
            "coalesce ( new , old )",
            "coalesce ( old , new )",
        ];
        if !known.contains(&words.join(" ").as_str()) {
            self.body.assigned = None;
        }
    }

    /// `NEW.column := …`, perhaps with the label of a block before it.
    fn assignment(&mut self, at: usize) {
        let mut at = at;
        while self.name(at).is_some_and(|name| name != "new") {
            if !self.symbol(at + 1, ".") {
                return;
            }
            at += 2;
        }
        if self.name(at).is_none() {
            return;
        }
        match self.name(at + 2).filter(|_| self.symbol(at + 1, ".")) {
            Some(column) if self.is_assigned(at + 2) => {
                if let Some(assigned) = &mut self.body.assigned {
                    assigned.push(column);
                }
            }
            Some(_) => {}
            None => self.body.assigned = None,
        }
    }

    fn call(&mut self, at: usize, name: &str) {
        if !self.symbol(at + 1, "(") {
            return;
        }
        let schema = match self.is_field(at) {
            true => at.checked_sub(2).and_then(|at| self.name(at)),
            false => None,
        };
        let is_keyword = schema.is_none()
            && self.word(at).is_some()
            && (NO_CALLS.contains(&name) || NO_CALLS_EITHER.contains(&name));
        if !is_keyword {
            let arguments = self.arguments(at + 1);
            self.called(schema, name, arguments);
        }
    }

    fn called(&mut self, schema: Option<String>, name: &str, arguments: usize) {
        self.body.calls.push(BodyCall {
            schema,
            name: name.to_owned(),
            arguments,
        });
    }

    /// The number of arguments between a parenthesis and the one that closes it.
    fn arguments(&self, open: usize) -> usize {
        let (mut depth, mut count) = (0_usize, 1);
        for at in open..self.tokens.len() {
            if self.symbol(at, "(") || self.symbol(at, "[") {
                depth += 1;
            } else if self.symbol(at, ")") || self.symbol(at, "]") {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            } else if depth == 1 && self.symbol(at, ",") {
                count += 1;
            }
        }
        match self.symbol(open + 1, ")") {
            true => 0,
            false => count,
        }
    }

    /// Whether a statement begins here, for all that can be seen.
    fn is_start(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else {
            return true;
        };
        self.symbol(before, ";")
            || self.symbol(before, ">>")
            || self.word(before).is_some_and(|word| {
                matches!(
                    word.as_str(),
                    "begin" | "then" | "else" | "loop" | "declare" | "atomic"
                )
            })
    }

    /// Whether a variable of this name is assigned to.
    fn is_assigned(&self, at: usize) -> bool {
        [":=", "=", ".", "["]
            .iter()
            .any(|symbol| self.symbol(at + 1, symbol))
    }

    fn is_field(&self, at: usize) -> bool {
        at.checked_sub(1)
            .is_some_and(|before| self.symbol(before, "."))
    }

    fn symbol(&self, at: usize, symbol: &str) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| token.is_symbol(self.source, symbol))
    }

    /// The word here, if it is not in quotes, in lower case.
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

    fn read(source: &str) -> Body {
        Body::read(source).unwrap()
    }

    fn calls(body: &Body) -> Vec<&str> {
        body.calls.iter().map(|call| call.name.as_str()).collect()
    }

    #[test]
    fn a_body_of_expressions_reads_nothing() {
        for source in [
            "SELECT $1 + 1",
            "BEGIN NEW.at := now(); RETURN NEW; END",
            "BEGIN IF NEW.* IS DISTINCT FROM OLD.* THEN NEW.n = OLD.n + 1; END IF; RETURN NEW; END",
            "BEGIN RETURN extract(epoch FROM now()) || trim(both ' ' from x) || substring(x from 2 for 3); END",
            "DECLARE i int; BEGIN FOR i IN 1..3 LOOP RAISE NOTICE 'from t %', i; END LOOP; END",
            "BEGIN IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END",
        ] {
            let body = read(source);
            assert!(!body.queries && !body.dynamic && !body.writes, "{source}");
        }
    }

    #[test]
    fn whatever_reads_or_changes_relations_is_seen() {
        for source in [
            "SELECT count(*) FROM t",
            "BEGIN x := n FROM t; END",
            "BEGIN x := (TABLE t); END",
            "BEGIN RETURN extract(epoch FROM (SELECT at FROM t)); END",
            "SELECT DISTINCT FROM t",
        ] {
            let body = read(source);
            assert!(body.queries && !body.writes, "{source}");
            assert!(body.names.contains(&"t".to_owned()), "{source}");
        }
        for source in [
            "BEGIN UPDATE T SET n = 1; END",
            "BEGIN INSERT INTO \"t\" VALUES (1); END",
            "BEGIN MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE; END",
        ] {
            let body = read(source);
            assert!(body.writes && !body.dynamic, "{source}");
            assert!(body.names.contains(&"t".to_owned()), "{source}");
        }
    }

    #[test]
    fn what_runs_other_text_is_dynamic() {
        for source in [
            "BEGIN EXECUTE 'SELECT 1'; END",
            "BEGIN RETURN QUERY EXECUTE x; END",
            "BEGIN CREATE TABLE x (); END",
            "BEGIN IF true THEN TRUNCATE t; END IF; END",
            "DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; END",
            "BEGIN CALL p(); END",
            "BEGIN SET LOCAL x.y = 1; END",
        ] {
            assert!(read(source).dynamic, "{source}");
        }
        for source in ["BEGIN comment := 1; END", "BEGIN UPDATE t SET a = 1; END"] {
            assert!(!read(source).dynamic, "{source}");
        }
    }

    #[test]
    fn calls_are_told_from_keywords_and_types() {
        let body = read(
            "BEGIN IF (a) THEN x := lower(s.f(1, (2, 3))::varchar(3)) IN ('today'); END IF; RETURN current_user; END",
        );
        assert_eq!(calls(&body), ["current_user", "lower", "now", "f"]);
        let last = body.calls.last().unwrap();
        assert_eq!((last.schema.as_deref(), last.arguments), (Some("s"), 2));
        assert!(read("SELECT 't'::regclass").reports);
    }

    #[test]
    fn assignments_to_the_new_row_are_seen() {
        for (source, assigned) in [
            (
                "BEGIN NEW.a := 1; new.\"B\" = 2; RETURN NEW; END",
                Some(vec!["a", "B"]),
            ),
            (
                "BEGIN IF x THEN NEW.a = 1; ELSE f.new.b := 1; END IF; RETURN COALESCE(NEW, OLD); END",
                Some(vec!["a", "b"]),
            ),
            (
                "BEGIN IF NEW.a = 1 THEN RAISE 'no'; END IF; RETURN OLD; END",
                Some(vec![]),
            ),
            ("BEGIN NEW := ROW(1, 2); RETURN NEW; END", None),
            ("BEGIN SELECT 1 INTO NEW.a; RETURN NEW; END", None),
            (
                "BEGIN FOR NEW.a IN SELECT 1 LOOP END LOOP; RETURN NEW; END",
                None,
            ),
            (
                "BEGIN FOREACH NEW.a IN ARRAY x LOOP END LOOP; RETURN NEW; END",
                None,
            ),
            ("BEGIN r.a := 1; RETURN r; END", None),
            (
                "DECLARE n ALIAS FOR NEW; BEGIN n.a := 1; RETURN NEW; END",
                None,
            ),
        ] {
            let assigned =
                assigned.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(read(source).assigned, assigned, "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(source in "[ -~]{0,60}") {
            let _ = Body::read(&source);
        }

        #[test]
        fn any_tokens_are_read_without_a_panic(
            words in prop::collection::vec(
                prop::sample::select(vec!["new", ".", "(", ")", ";", "for", "in", "return", "from", "a", ":=", ",", "'x'", "begin"]),
                0..30,
            )
        ) {
            let _ = Body::read(&words.join(" "));
        }
    }
}
