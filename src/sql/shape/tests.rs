//! Holds shapes to what their hash must and must not depend on.

use proptest::prelude::*;

use super::*;
use crate::sql::lexer::tokenize;

fn shape(text: &str) -> Shape {
    let mut shape = Shape::default();
    scan(text.as_bytes(), LexOptions::default(), &mut shape)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    shape
}

fn statements(text: &str) -> Vec<&str> {
    let shape = shape(text);
    shape
        .statements
        .iter()
        .map(|range| &text[range.start as usize..range.end as usize])
        .collect()
}

/// The literals of `text`; those in the hash in brackets.
fn literals(text: &str) -> String {
    let shape = shape(text);
    let shown = shape.literals.iter().map(|literal| {
        let lexeme = &text[literal.start as usize..literal.end as usize];
        if literal.lifted {
            lexeme.to_owned()
        } else {
            format!("[{lexeme}]")
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn values_space_comments_and_case_do_not_count() {
    let one = shape("SELECT * FROM Users WHERE id = 42 AND name = 'x' -- c");
    let other = shape("select/* c */* from USERS\nwhere ID=7 and NAME='it''s';");
    assert_eq!(one.hash, other.hash);
    assert_ne!(one.hash, 0);
}

#[test]
fn everything_else_counts() {
    let texts = [
        "SELECT a FROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = 1234567890",
        "SELECT a FROM t WHERE b = 12345678901234567890",
        "SELECT a FROM t WHERE b = 1.5",
        "SELECT a FROM t WHERE b = 0x1F",
        "SELECT a FROM t WHERE b = '1'",
        "SELECT a FROM t WHERE b = E'1'",
        "SELECT a FROM t WHERE b = $$1$$",
        "SELECT a FROM t WHERE b = U&'1'",
        "SELECT a FROM t WHERE b = N'1'",
        "SELECT a FROM t WHERE b = B'1'",
        "SELECT a FROM t WHERE b = X'1'",
        "SELECT a FROM t WHERE b = $1",
        "SELECT a FROM t WHERE b = $2",
        "SELECT a FROM t WHERE b = -1",
        "SELECT a FROM t WHERE b < 1",
        "SELECT a FROM \"t\" WHERE b = 1",
        "SELECT a FROM \"T\" WHERE b = 1",
        "SELECT a FROM U&\"t\" WHERE b = 1",
        "SELECT a FROM t WHERE b IN (1)",
        "SELECT a FROM t WHERE b IN (1, 2)",
        "SELECT a FROM t WHERE b = 1 AND c",
        "SELECT a FROM t WHERE b = 1; SELECT 1",
        "SELECT a FROM t WHERE b = 1; SELECT 1; SELECT 1",
        "/* shardwire: shard=s1 */ SELECT a FROM t WHERE b = 1",
        "/* shardwire: shard=s2 */ SELECT a FROM t WHERE b = 1",
        "(SELECT a FROM t WHERE b = 1)",
        "((SELECT a FROM t WHERE b = 1))",
        "SELECT a . . b",
        "SELECT a .. b",
        "SELECT a:: b",
        "SELECT a: :b",
        "SELECT ab",
        "SELECT a b",
        "SELECT a + - b",
        "SELECT a @- b",
    ];
    for (at, one) in texts.iter().enumerate() {
        for other in &texts[..at] {
            assert_ne!(shape(one).hash, shape(other).hash, "{one} | {other}");
        }
    }
}

#[test]
fn literals_that_steer_planning_stay() {
    for (text, expected) in [
        (
            "SELECT 1 FROM t WHERE a = 2 GROUP BY 3, f(4, 'x') HAVING c > 5",
            "1 2 [3] [4] 'x' 5",
        ),
        (
            "SELECT a FROM t ORDER BY 1, b <-> '[1,2]' LIMIT 2",
            "[1] '[1,2]' [2]",
        ),
        ("SELECT a FROM t LIMIT '5' OFFSET 6", "['5'] [6]"),
        ("SELECT a FROM t FETCH FIRST 5 ROWS ONLY FOR UPDATE", "[5]"),
        ("SELECT (SELECT 1 LIMIT 2), 3", "1 [2] 3"),
        (
            "SELECT a FROM t ORDER BY t.limit, t.window, t.from, 2",
            "[2]",
        ),
        ("SELECT 1 AS limit, 2 AS order, 3", "1 2 3"),
        (
            "SELECT a FROM t GROUP BY GROUPING SETS ((1), (2)) UNION SELECT 3",
            "[1] [2] 3",
        ),
        ("SELECT array_agg(a ORDER BY 1), 2", "[1] 2"),
        ("SELECT DISTINCT ON (1, (2)) 3", "[1] [2] 3"),
        ("SELECT a FROM t ORDER BY a IS DISTINCT FROM b, 2", "[2]"),
        (
            "SELECT '1'::varchar(2), CAST(3 AS numeric(4, 5)), a::vector(6), f(7)",
            "'1' [2] 3 [4] [5] [6] 7",
        ),
        ("SELECT a::int FROM t WHERE (b = 1)", "1"),
        (
            "INSERT INTO t SELECT 1 LIMIT 2 ON CONFLICT (a) DO UPDATE SET b = 3",
            "1 [2] 3",
        ),
        (
            "INSERT INTO t VALUES (1, 'a'), (2, 'b') RETURNING 3",
            "1 'a' 2 'b' 3",
        ),
        ("EXECUTE p(1, 'a')", "1 'a'"),
        ("EXPLAIN SELECT 1", "[1]"),
        ("SET x = 1; SELECT 2", "[1] 2"),
        ("PREPARE p AS SELECT 1", "[1]"),
        ("(((WITH a AS (SELECT 1) SELECT 2)))", "1 2"),
        ("'x'", "['x']"),
    ] {
        assert_eq!(literals(text), expected, "{text}");
    }
}

#[test]
fn steering_literals_are_in_the_hash() {
    for (one, other) in [
        (
            "SELECT a, b FROM t ORDER BY 1",
            "SELECT a, b FROM t ORDER BY 2",
        ),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
        ("SELECT a FROM t LIMIT '1'", "SELECT a FROM t LIMIT '2'"),
        ("SELECT '1'::varchar(2)", "SELECT '1'::varchar(3)"),
        ("SET work_mem = 1", "SET work_mem = 2"),
        ("EXPLAIN SELECT 1", "EXPLAIN SELECT 2"),
        // Byte ranges in the classification must hold for every text of the shape.
        ("SET a = 1", "SET  a = 1"),
        ("SET a = 1", " SET a = 1"),
    ] {
        assert_ne!(shape(one).hash, shape(other).hash, "{one}");
    }
    assert_eq!(
        shape("/* abc */ BEGIN").hash,
        shape("/* xyz */ BEGIN; -- z").hash
    );
}

#[test]
fn statements_end_at_top_level_semicolons() {
    for (text, expected) in [
        ("", vec![]),
        (" ; -- x\n ;", vec![]),
        (" SELECT 1 ", vec!["SELECT 1"]),
        (
            ";SELECT 1 /* ; */;; SELECT ';' ;",
            vec!["SELECT 1", "SELECT ';'"],
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1",
            vec![
                "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)",
                "SELECT 1",
            ],
        ),
        (
            "create or replace function f() returns int begin atomic select case when a.case then 1 end; \
             select 2 as end; end; select 3",
            vec![
                "create or replace function f() returns int begin atomic select case when a.case then 1 end; \
                 select 2 as end; end",
                "select 3",
            ],
        ),
        (
            "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END; COMMIT",
            vec![
                "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
                "COMMIT",
            ],
        ),
        ("BEGIN; SELECT 1; END", vec!["BEGIN", "SELECT 1", "END"]),
        ("SELECT 1); DROP TABLE t", vec!["SELECT 1)", "DROP TABLE t"]),
    ] {
        assert_eq!(statements(text), expected, "{text}");
    }
}

#[test]
fn the_leading_hint_is_found() {
    let hint = |text: &str| {
        shape(text)
            .hint
            .map(|at| text[at.start as usize..at.end as usize].to_owned())
    };
    assert_eq!(
        hint("/* shardwire: shard=s1 */ SELECT 1").as_deref(),
        Some("shard=s1")
    );
    assert_eq!(
        hint("-- x\n/* y */ /*Shardwire:\ta=b c=d*/SELECT 1").as_deref(),
        Some("a=b c=d")
    );
    assert_eq!(hint("/*shardwire:*/SELECT 1").as_deref(), Some(""));
    assert_eq!(hint("SELECT 1 /* shardwire: shard=s1 */"), None);
    assert_eq!(hint("/* other */ SELECT 1"), None);
}

#[test]
fn a_reused_shape_forgets_the_text_before() {
    let mut reused = shape(&format!(
        "/* shardwire: a */ SELECT {}",
        "'x', ".repeat(5000) + "1; SELECT 2"
    ));
    for text in ["SELECT 1", "", "SELECT a FROM t WHERE b = 'c'"] {
        scan(text.as_bytes(), LexOptions::default(), &mut reused).unwrap();
        let fresh = shape(text);
        assert_eq!(reused.hash, fresh.hash);
        assert_eq!(reused.literals, fresh.literals);
        assert_eq!(reused.statements, fresh.statements);
        assert_eq!(reused.hint, None);
    }
}

/// Tokens for statements whose literals are all lifted.
fn lifted_tokens() -> impl Strategy<Value = Vec<String>> {
    const NAMES: &[&str] = &[
        "a", "SELECT", "from", "t.x", "\"Q\"", "IN", "(a)", ",", "=", "<>", "::", "$1", "- -",
    ];
    prop::collection::vec(
        prop_oneof![
            prop::sample::select(NAMES).prop_map(str::to_owned),
            (0..1000u32).prop_map(|number| number.to_string()),
            "'[a-z;]{0,5}'",
        ],
        0..30,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn texts_that_differ_in_values_and_space_have_one_shape(tokens in lifted_tokens(), long: bool) {
        let tokens = if long { vec![tokens; 40].concat() } else { tokens };
        let one = format!("SELECT {}", tokens.join(" "));
        let other = tokens.iter().map(|token| match token.as_bytes()[0] {
            b'0'..=b'9' => "7".to_owned(),
            b'\'' => "'other'".to_owned(),
            b'"' => token.clone(),
            _ => token.to_uppercase(),
        });
        let other = format!("-- x\nselect\n{} ;", other.collect::<Vec<_>>().join("\t/* y */\n "));
        prop_assert_eq!(shape(&one).hash, shape(&other).hash, "{} | {}", one, other);
    }

    #[test]
    fn different_tokens_have_different_shapes(
        one in lifted_tokens(),
        at in any::<prop::sample::Index>(),
        insert in prop::sample::select(vec!["b", ",", "1", "'s'", "||", "\"b\"", "$2"]),
    ) {
        let mut other = one.clone();
        other.insert(at.index(one.len() + 1), insert.to_owned());
        let one = format!("SELECT {}", one.join(" "));
        let other = format!("SELECT {}", other.join(" "));
        prop_assert_ne!(shape(&one).hash, shape(&other).hash, "{} | {}", one, other);
    }

    #[test]
    fn any_bytes_scan_as_they_lex(bytes in prop::collection::vec(any::<u8>(), 0..80), conforming: bool) {
        let options = LexOptions { standard_conforming_strings: conforming };
        let mut shape = Shape::default();
        let scanned = scan(&bytes, options, &mut shape);
        match tokenize(&bytes, options) {
            Err(error) => prop_assert_eq!(scanned, Err(error)),
            Ok(tokens) => {
                prop_assert!(scanned.is_ok());
                let literals = tokens.iter().filter(|token| token.kind.is_literal());
                prop_assert!(literals.map(Token::range).eq(shape.literals.iter().map(|l| l.start..l.end)));
                let mut end = 0;
                for statement in &shape.statements {
                    prop_assert!(statement.start >= end && statement.end > statement.start);
                    end = statement.end;
                }
                prop_assert!(end as usize <= bytes.len());
            }
        }
    }

    #[test]
    fn statements_are_split_as_postgresql_splits_them(text in crate::sql::lexer::tests::texts()) {
        if let Ok(pieces) = pg_query::parse(&text).and_then(|_| pg_query::split_with_parser(&text)) {
            prop_assert_eq!(statements(&text).len(), pieces.len(), "{}", text);
        }
    }
}
