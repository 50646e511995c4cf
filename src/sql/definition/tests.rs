//! Clauses among everything that may stand around them.

use proptest::prelude::*;

use super::*;
use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;

fn read(text: &str) -> Result<Option<Creation>> {
    let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
    creation(text, &tokens)
}

/// The statement without its clause, and the clause in words.
fn cut(text: &str) -> (String, String) {
    let creation = read(text).unwrap().unwrap();
    let Some(clause) = creation.clause else {
        return (text.to_owned(), "none".to_owned());
    };
    let words = match clause.spread {
        ClauseSpread::Sharded(columns) => columns.join(", "),
        ClauseSpread::Replicated => "replicated".to_owned(),
    };
    (blanked(text, &clause.range), words)
}

#[test]
fn the_clause_stands_among_postgresqls_own() {
    for (text, left, words) in [
        (
            "CREATE TABLE t (a int) SHARD KEY (a)",
            "CREATE TABLE t (a int)",
            "a",
        ),
        (
            "create unlogged table if not exists s.\"T\" (a int, b int) shard key(\"A b\", b) with (fillfactor = 70)",
            "create unlogged table if not exists s.\"T\" (a int, b int) with (fillfactor = 70)",
            "A b, b",
        ),
        (
            "CREATE TABLE t (a int) PARTITION BY RANGE (a) SHARD KEY (a) TABLESPACE shard",
            "CREATE TABLE t (a int) PARTITION BY RANGE (a) TABLESPACE shard",
            "a",
        ),
        (
            "CREATE TABLE t (a int) INHERITS (u) REPLICATED",
            "CREATE TABLE t (a int) INHERITS (u)",
            "replicated",
        ),
        (
            "CREATE TABLE t REPLICATED AS SELECT 1",
            "CREATE TABLE t AS SELECT 1",
            "replicated",
        ),
        (
            "CREATE TABLE replicated (shard int, key int)",
            "CREATE TABLE replicated (shard int, key int)",
            "none",
        ),
        (
            "CREATE TABLE t (a int) USING replicated",
            "CREATE TABLE t (a int) USING replicated",
            "none",
        ),
        (
            "CREATE TABLE t (a int) TABLESPACE replicated REPLICATED",
            "CREATE TABLE t (a int) TABLESPACE replicated",
            "replicated",
        ),
        (
            "CREATE TABLE t OF s.replicated",
            "CREATE TABLE t OF s.replicated",
            "none",
        ),
        (
            "CREATE TABLE t AS SELECT a replicated FROM u",
            "CREATE TABLE t AS SELECT a replicated FROM u",
            "none",
        ),
        (
            "CREATE TABLE ключ (a text DEFAULT 'é') SHARD KEY (a)",
            "CREATE TABLE ключ (a text DEFAULT 'é')",
            "a",
        ),
    ] {
        let (got, spread) = cut(text);
        let squeezed = got.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((squeezed.as_str(), spread.as_str()), (left, words));
        assert_eq!(got.chars().count(), text.chars().count());
    }
}

#[test]
fn what_is_no_clause_is_a_syntax_error() {
    for (text, position) in [
        ("CREATE TABLE t (a int) SHARD KEY", 33),
        ("CREATE TABLE t (a int) SHARD KEY a", 34),
        ("CREATE TABLE t (a int) SHARD KEY ()", 35),
        ("CREATE TABLE t (a int) SHARD KEY (a b)", 37),
        ("CREATE TABLE t (a int) SHARD KEY (a,)", 37),
        ("CREATE TABLE t (a int) SHARD KEY (lower(a))", 40),
        ("CREATE TABLE t (a int) SHARD KEY (a) REPLICATED", 38),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.code(), SqlState::SYNTAX_ERROR, "{text}");
        assert_eq!(error.fields().position, Some(position), "{text}");
    }
    let error = read("CREATE TABLE t (a int) SHARD KEY (a, A)").unwrap_err();
    assert_eq!(error.code(), SqlState::DUPLICATE_COLUMN);
}

#[test]
fn names_and_queries_are_found() {
    let creation = |text: &str| read(text).unwrap().unwrap();
    let one = creation("CREATE TABLE IF NOT EXISTS db.s.t (a) AS SELECT 1 WITH NO DATA");
    assert_eq!(one.name.schema.as_deref(), Some("s"));
    assert_eq!(one.name.name, "t");
    assert!(one.if_not_exists.is_some() && one.is_empty);
    let text = "CREATE MATERIALIZED VIEW v AS SELECT 1 WITH DATA";
    let two = creation(text);
    let query = two.query.unwrap();
    assert_eq!(&text[query.start as usize..query.end as usize], "SELECT 1");
    assert!(!two.is_empty);
    assert!(read("CREATE VIEW v AS SELECT 1").unwrap().is_none());
    assert!(read("CREATE TABLE").unwrap().is_none());
}

proptest! {
    #[test]
    fn any_text_is_read(text in "\\PC{0,80}") {
        if let Ok(tokens) = tokenize(text.as_bytes(), LexOptions::default()) {
            let _ = creation(&text, &tokens);
        }
    }

    /// Whatever stands around it, what is left when the clause is cut out is the statement without it.
    #[test]
    fn the_cut_leaves_the_rest(
        before in prop::collection::vec("( WITH \\(a = [a-z]+\\)| TABLESPACE [a-z]{3}| USING [a-z]{3}| INHERITS \\([a-z]\\)| PARTITION BY LIST \\(a\\))", 0..3),
        after in prop::collection::vec("( WITH \\(b\\)| ON COMMIT DROP| TABLESPACE é| /\\* REPLICATED \\*/| -- SHARD KEY \\(x\\)\n)", 0..3),
        key in prop::option::of("[a-z]{1,5}(, \"[A-Zé ]{1,5}\")?"),
    ) {
        let clause = match &key {
            Some(key) => format!(" SHARD KEY ({key})"),
            None => " REPLICATED".to_owned(),
        };
        let (before, after) = (before.concat(), after.concat());
        let text = format!("CREATE TABLE t (a int, shard text, key text){before}{clause}{after}");
        let creation = read(&text).unwrap().unwrap();
        let range = creation.clause.unwrap().range;
        let left = blanked(&text, &range);
        let spaces = " ".repeat(clause.chars().count());
        let expected = format!("CREATE TABLE t (a int, shard text, key text){before}{spaces}{after}");
        prop_assert_eq!(left, expected);
    }
}

#[test]
fn tables_of_select_into_are_found() {
    let found = |text: &str| {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        into_clause(text, &tokens).map(|into| {
            let first = tokens[into.tokens.start].start as usize;
            let last = tokens[into.tokens.end - 1].end as usize;
            (text[first..last].to_owned(), into.kind, into.name)
        })
    };
    let wanted = |clause: &str, kind: &str, name: &str| {
        Some((clause.to_owned(), kind.to_owned(), name.to_owned()))
    };
    assert_eq!(found("SELECT a INTO t FROM b"), wanted("INTO t", "", "t"));
    assert_eq!(
        found("WITH x AS (SELECT 1) SELECT * INTO UNLOGGED TABLE s.\"T t\" FROM x"),
        wanted("INTO UNLOGGED TABLE s.\"T t\"", "UNLOGGED", "s.\"T t\"")
    );
    assert_eq!(
        found("SELECT 1 INTO LOCAL TEMP t"),
        wanted("INTO LOCAL TEMP t", "LOCAL TEMP", "t")
    );
    assert_eq!(
        found("SELECT 1 INTO temp FROM t"),
        wanted("INTO temp", "", "temp")
    );
    assert_eq!(
        found("SELECT x.into, 1 AS into INTO table unlogged"),
        wanted("INTO table unlogged", "", "unlogged")
    );
    assert_eq!(found("SELECT 1 INTO FROM t"), None);
    assert_eq!(
        found("WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x"),
        None
    );
}
