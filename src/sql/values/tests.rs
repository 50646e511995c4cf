//! Tests of rows and their patterns.

use proptest::prelude::*;

use super::*;
use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;

fn tokens(text: &str) -> Vec<Token> {
    tokenize(text.as_bytes(), LexOptions::default()).unwrap()
}

/// The rows of a statement as they are written.
fn written_rows(text: &str) -> Option<Vec<String>> {
    let tokens = tokens(text);
    let rows = rows(text, &tokens)?;
    let row = |row: Range<usize>| written(text, &tokens[row]).to_owned();
    Some(rows.into_iter().map(row).collect())
}

#[test]
fn rows_are_found_wherever_they_stand() {
    for text in [
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        "insert into s.t as \"x y\" (a, \"b,)\") overriding system value values (1, 'a'), (2, 'b') returning (1)",
        "INSERT INTO values AS values (values) VALUES (1, 'a') , (2, 'b') ON CONFLICT (a) DO UPDATE SET b = (1)",
        "WITH insert AS (INSERT INTO u VALUES (7)), c(i) AS (SELECT 1) INSERT INTO db.s.t VALUES (1, 'a'), (2, 'b')",
        "INSERT /* ( */ INTO t -- )\n VALUES --(\n (1, 'a'), /* (3) */ (2, 'b') --, (3)",
    ] {
        assert_eq!(
            written_rows(text).unwrap_or_else(|| panic!("{text}")),
            ["(1, 'a')", "(2, 'b')"],
            "{text}"
        );
    }
}

#[test]
fn what_is_no_list_of_rows_is_left_alone() {
    for text in [
        "SELECT 1",
        "VALUES (1), (2)",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t (VALUES (1), (2))",
        "INSERT INTO t ((SELECT 1))",
        "INSERT INTO t (SELECT 1)",
        "INSERT INTO t VALUES (1), (2) ORDER BY 1",
        "INSERT INTO t VALUES (1), (2) UNION ALL SELECT 3",
        "INSERT INTO t VALUES (1), (2) LIMIT 1",
        "INSERT INTO t VALUES (1), ",
        "INSERT INTO t VALUES (1",
        "INSERT INTO t VALUES",
        "WITH a AS (INSERT INTO t VALUES (1), (2) RETURNING *) SELECT * FROM a",
        "MERGE INTO t USING u ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
    ] {
        assert_eq!(written_rows(text), None, "{text}");
    }
}

#[test]
fn rows_of_one_pattern_differ_in_their_values_only() {
    let same = |one: &str, other: &str| {
        let (first, second) = (tokens(one), tokens(other));
        Pattern::of(one, &first).fits(other, &second, &cells(other, &second))
    };
    assert!(same("(1, 'a', NULL)", "($3, -7.5, true)"));
    assert!(same("(LOWER('a'), $1::int)", "(lower('bcd'), $22::INT)"));
    for (one, other) in [
        ("(1, 2)", "(1)"),
        ("(1)", "(1, 2)"),
        ("(1, DEFAULT)", "(1, 2)"),
        ("(1, 2)", "(1, DEFAULT)"),
        ("(lower('a'))", "(upper('a'))"),
        ("(lower('a'))", "(lower($1))"),
        ("(\"A\")", "(\"a\")"),
        ("(1 + 1)", "(1 - 1)"),
        ("(f(1, 2))", "(f(1), 2)"),
        ("(f(1), 2)", "(f(1, 2))"),
        ("('1'::int)", "('1'::text)"),
    ] {
        assert!(!same(one, other), "{one} {other}");
    }
}

#[test]
fn a_template_has_each_kind_of_row_once() {
    let of = |text: &str| template(text, &tokens(text));
    assert_eq!(
        of(
            "INSERT INTO t VALUES (1, 'a'), ($1, NULL), (2, now()), (3, 'c'), (4, now()) RETURNING a;"
        ),
        Some("INSERT INTO t VALUES (NULL, NULL), (NULL, now()) RETURNING a;".to_owned())
    );
    assert_eq!(of("INSERT INTO t VALUES (1)"), None);
    assert_eq!(of("INSERT INTO t VALUES (1), ((SELECT 2))"), None);
}

/// A row of an INSERT, with whatever may stand in one.
fn row() -> impl Strategy<Value = String> {
    let cell = prop_oneof![
        "-?[0-9]{1,3}",
        "'[a-z(),\\[ ]{0,5}(''[)])?'",
        Just("$q$),('$q$".to_owned()),
        Just("E'\\'),('".to_owned()),
        Just("f(1, (2), ARRAY[3, 4])".to_owned()),
        Just("(ARRAY[1, 2])[1]".to_owned()),
        Just("/* ) */ $1::numeric(10, 2)".to_owned()),
        Just("1 -- )\n".to_owned()),
        Just("\"a)(\"".to_owned()),
        Just("DEFAULT".to_owned()),
    ];
    proptest::collection::vec(cell, 1..4).prop_map(|cells| format!("({})", cells.join(",")))
}

proptest! {
    #[test]
    fn rows_come_apart_as_they_were_put_together(
        list in proptest::collection::vec(row(), 1..6),
        tail in prop_oneof![Just(""), Just(" RETURNING (a)"), Just(" -- )\n ON CONFLICT DO NOTHING")],
    ) {
        let text = format!("INSERT INTO t (a, b) VALUES {}{tail}", list.join(" , "));
        prop_assert_eq!(written_rows(&text), Some(list));
    }

    #[test]
    fn every_row_is_of_a_pattern_of_the_template(list in proptest::collection::vec(row(), 2..8)) {
        let text = format!("INSERT INTO t VALUES {}", list.join(","));
        let Some(template) = template(&text, &tokens(&text)) else {
            return Ok(());
        };
        let known = tokens(&template);
        let patterns: Vec<Pattern> = rows(&template, &known)
            .unwrap()
            .into_iter()
            .map(|row| Pattern::of(&template, &known[row]))
            .collect();
        let all = tokens(&text);
        for row in rows(&text, &all).unwrap() {
            let row = &all[row];
            let cells = cells(&text, row);
            prop_assert!(patterns.iter().any(|known| known.fits(&text, row, &cells)));
        }
    }

    #[test]
    fn no_text_panics(text in crate::sql::lexer::tests::texts()) {
        let text = format!("INSERT INTO t VALUES ({text}), ({text})");
        if let Ok(tokens) = tokenize(text.as_bytes(), LexOptions::default()) {
            let _ = template(&text, &tokens);
        }
    }
}
