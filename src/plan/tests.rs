//! Golden plans, the parser held against PostgreSQL's own, and mutated statements.

pub(super) mod fixture;
mod golden;

use crate::plan::Access;
use crate::plan::Parameters;
use crate::plan::Route;

use fixture::Fixture;

const SCHEMA: &str = "shards s0 s1
table users(user_id bigint, name text): shard_key user_id
table log(id bigint): home";

#[test]
fn long_texts_are_not_parsed() {
    let (mut fixture, _) = Fixture::parse(SCHEMA);
    fixture.parse_bytes = 30;
    let plan = fixture.plan("SELECT name FROM users WHERE user_id = 1", &[]);
    assert!(plan.to_string().contains("too long"), "{plan}");
    let plan = fixture.plan("SELECT id FROM log WHERE id = 1 AND true", &[]);
    assert!(matches!(plan.route, Route::Shard(0)), "{plan}");
    assert_eq!(plan.access, Access::Write);
}

#[test]
fn binary_parameters_name_the_shard_that_text_names() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    let text = "SELECT count(*) FROM users WHERE user_id = $1";
    let plan = fixture.plan(text, &[]);
    for key in [1_i64, 42, -7] {
        let digits = key.to_string();
        let mut as_text = u32::try_from(digits.len()).unwrap().to_be_bytes().to_vec();
        as_text.extend(digits.as_bytes());
        let mut as_binary = 8_u32.to_be_bytes().to_vec();
        as_binary.extend(key.to_be_bytes());
        let by_text = fixture.target(&plan, text, Parameters::new(&[], &[], &as_text));
        let by_binary = fixture.target(&plan, text, Parameters::new(&[], &[0, 1], &as_binary));
        assert_eq!(by_text, by_binary);
        assert!(by_text.starts_with('s'), "{by_text}");
    }
}

/// The type of such a parameter comes from its first use: eight bytes may be a float.
#[test]
fn bytes_of_a_parameter_used_elsewhere_prove_nothing() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    let text = "SELECT count(*) FROM users WHERE length(name) > $1 AND user_id = $1";
    let mut value = 8_u32.to_be_bytes().to_vec();
    value.extend(1_i64.to_be_bytes());
    let plan = fixture.plan(text, &[]);
    let undeclared = fixture.target(&plan, text, Parameters::new(&[], &[0, 1], &value));
    assert_eq!(undeclared, "s0 + s1");
    let declared = fixture.target(&plan, text, Parameters::new(&[20], &[0, 1], &value));
    assert_eq!(declared, "s0");
}

#[test]
fn missing_parameters_are_no_keys() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    let text = "SELECT count(*) FROM users WHERE user_id = $1";
    let plan = fixture.plan(text, &[]);
    let target = fixture.target(&plan, text, Parameters::none());
    assert_eq!(target, "s0 + s1");
}

/// Where the value of one undeclared parameter in text format leads.
fn by_text(fixture: &Fixture, text: &str, value: &str) -> String {
    let mut bytes = u32::try_from(value.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(value.as_bytes());
    let plan = fixture.plan(text, &[]);
    fixture.target(&plan, text, Parameters::new(&[], &[], &bytes))
}

/// The first use makes it a number with a fraction, which the cast rounds.
#[test]
fn a_cast_parameter_used_elsewhere_proves_nothing() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    for text in [
        "SELECT count(*) FROM users WHERE length(name) > $1::numeric AND user_id = $1::bigint",
        "SELECT count(*) FROM users WHERE length(name) > $1 AND user_id = $1::int",
    ] {
        for value in ["1.4", "1"] {
            let target = by_text(&fixture, text, value);
            assert_eq!(target, "s0 + s1", "{text} {value}");
        }
    }
    let alone = "SELECT name FROM users WHERE user_id = $1::bigint";
    assert_eq!(by_text(&fixture, alone, "1"), "s0");
}

/// `real` and `double precision` take neighbouring integers for one.
#[test]
fn large_digits_of_a_parameter_used_elsewhere_prove_nothing() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    let text = "SELECT count(*) FROM users WHERE length(name) > $1 AND user_id = $1";
    assert_eq!(by_text(&fixture, text, "1"), "s0");
    let large = by_text(&fixture, text, "9007199254740993");
    assert_eq!(large, "s0 + s1");
}

#[test]
fn a_query_that_may_give_no_rows_is_no_missing_key() {
    let (fixture, _) = Fixture::parse(SCHEMA);
    let text = "INSERT INTO users SELECT NULL, line FROM (SELECT 'x') v (line) WHERE false";
    let target = fixture.target(&fixture.plan(text, &[]), text, Parameters::none());
    // Its rows are asked for.
    assert_eq!(target, "fed first");
    let text = "INSERT INTO users VALUES (NULL, 'x')";
    let target = fixture.target(&fixture.plan(text, &[]), text, Parameters::none());
    assert!(target.starts_with("23502"), "{target}");
}
