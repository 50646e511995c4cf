//! The analysis held against PostgreSQL's own grammar, and against nonsense.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use proptest::prelude::*;

use super::*;

use crate::sql::lexer::tokenize;
use crate::sql::token::LexOptions;

const APPLICATIONS: &str = include_str!("testdata/applications.sql");
const PSQL: &str = include_str!("testdata/psql.sql");

/// The statements of the planner's golden files are a corpus too.
const GOLDEN: [&str; 10] = [
    include_str!("../../plan/testdata/select.test"),
    include_str!("../../plan/testdata/join.test"),
    include_str!("../../plan/testdata/scatter.test"),
    include_str!("../../plan/testdata/write.test"),
    include_str!("../../plan/testdata/function.test"),
    include_str!("../../plan/testdata/name.test"),
    include_str!("../../plan/testdata/type.test"),
    include_str!("../../plan/testdata/unparsed.test"),
    include_str!("../../plan/testdata/single.test"),
    include_str!("../../plan/testdata/change.test"),
];

fn corpus() -> BTreeSet<&'static str> {
    let golden = GOLDEN.iter().flat_map(|file| file.lines());
    let words = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE", "(",
    ];
    let golden = golden.filter(|line| words.iter().any(|word| line.starts_with(word)));
    APPLICATIONS
        .lines()
        .chain(PSQL.lines())
        .chain(golden)
        .map(|line| line.trim_end_matches(';'))
        .collect()
}

fn analysed(text: &str) -> Result<Facts, Stopped> {
    let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap_or_default();
    analyse(text, &tokens)
}

/// What both sides say of a statement.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    relations: BTreeSet<(String, String)>,
    modifies: bool,
    clauses: Vec<&'static str>,
}

#[test]
fn agrees_with_postgresql_or_says_that_it_does_not_know() {
    let (mut compared, mut unknown) = (0, Vec::new());
    for text in corpus() {
        let Some(tree) = oracle_tree(text) else {
            continue;
        };
        let Ok(facts) = analysed(text) else {
            unknown.push(text);
            continue;
        };
        compared += 1;
        assert_eq!(ours(&facts), theirs(&tree, &facts), "{text}\n{facts:#?}");
        // Those of an index need not be known: they are immutable.
        let calls = Some(functions(&tree)).filter(|_| !text.contains("ON CONFLICT"));
        for function in calls.into_iter().flatten() {
            let known = facts.calls.iter().any(|call| call.name.name == function);
            assert!(known, "{text}\ncalls {function}: {:?}", facts.calls);
        }
    }
    assert!(compared > 500, "only {compared} statements were compared");
    // Lifting a limit deletes a line here.
    let expected = include_str!("testdata/unknown.sql");
    let found = unknown.join("\n") + "\n";
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write("src/sql/analysis/testdata/unknown.sql", &found).unwrap();
    } else {
        assert_eq!(found, expected);
    }
}

/// The queries of PostgreSQL's regression tests, if `REGRESS_SQL` names their directory
/// (`integration/drivers/suites/regress.sh` fetches them): so many of them are compared that agree, and so many are not
/// known.
#[test]
fn regression_tests_agree_or_are_not_known() {
    let Some(directory) = std::env::var_os("REGRESS_SQL") else {
        return;
    };
    let (mut compared, mut unknown, mut wrong) = (0, Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        for text in statements(&text) {
            let Some(tree) = oracle_tree(&text) else {
                continue;
            };
            let Ok(facts) = analysed(&text) else {
                unknown.push(text);
                continue;
            };
            compared += 1;
            if ours(&facts) != theirs(&tree, &facts) {
                wrong.push(text);
            }
        }
    }
    println!("{compared} agree, {} are not known", unknown.len());
    for text in &unknown {
        println!("{text}\n");
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    // Most of what is not known is wrong on purpose, or in clauses that hardly anybody writes.
    assert!(
        unknown.len() * 20 < compared,
        "{} of {compared}",
        unknown.len()
    );
}

/// The statements of a script for psql that PostgreSQL's grammar takes.
fn statements(script: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), String::new());
    for line in script.lines() {
        if line.starts_with('\\') || (line.trim().is_empty() && open.len() > 4_000) {
            open.clear();
            continue;
        }
        if !open.is_empty() || !line.trim().is_empty() && !line.starts_with("--") {
            open.push_str(line);
            open.push('\n');
        }
        let is_ended = line.trim_end().ends_with(';');
        if is_ended && pg_query::parse(&open).is_ok() {
            found.push(
                std::mem::take(&mut open)
                    .trim()
                    .trim_end_matches(';')
                    .to_owned(),
            );
        } else if is_ended && pg_query::parse(line).is_ok() {
            open.clear();
            found.push(line.trim().trim_end_matches(';').to_owned());
        }
    }
    found
}

/// The debug form of PostgreSQL's tree, if the text is one query; without the names behind `FOR
/// UPDATE OF`, which are no relations.
fn oracle_tree(text: &str) -> Option<String> {
    let parsed = pg_query::parse(text).ok()?;
    let [statement] = parsed.protobuf.stmts.as_slice() else {
        return None;
    };
    let node = statement.stmt.as_ref()?.node.as_ref()?;
    let query = matches!(
        node,
        NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_)
    );
    let tree = format!("{node:?}");
    let mut kept = String::new();
    let mut rest = tree.as_str();
    while let Some(start) = rest.find("locked_rels: [") {
        kept += &rest[..start];
        let mut depth = 0;
        let end = rest[start..].find(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            c == ']' && depth == 0
        });
        rest = &rest[start + end?..];
    }
    query.then(|| kept + rest)
}

/// The value of a field of the debug form that starts at `from`.
fn field(tree: &str, from: usize, name: &str) -> String {
    let start = from + tree[from..].find(name).unwrap() + name.len();
    let mut value = String::new();
    let mut rest = tree[start..].chars();
    while let Some(c) = rest.next().filter(|c| *c != '"') {
        value.push(if c == '\\' { rest.next().unwrap() } else { c });
    }
    value
}

fn theirs(tree: &str, facts: &Facts) -> Summary {
    let mut relations = BTreeSet::new();
    for (start, _) in tree.match_indices("RangeVar { ") {
        let schema = field(tree, start, "schemaname: \"");
        let name = field(tree, start, "relname: \"");
        if !(schema.is_empty() && facts.ctes.contains(&name)) {
            relations.insert((schema, name));
        }
    }
    let clauses = [
        ("distinct", &["distinct_clause: [N"][..]),
        ("group by", &["group_clause: [N"]),
        ("having", &["having_clause: Some"]),
        // LIMIT ALL is none.
        (
            "limit",
            &[
                "limit_count: Some(Node { node: Some(AConst(AConst { isnull: false",
                "limit_count: Some(Node { node: Some(P",
                "limit_count: Some(Node { node: Some(S",
                "limit_count: Some(Node { node: Some(T",
                "limit_count: Some(Node { node: Some(C",
                "limit_count: Some(Node { node: Some(F",
                "limit_count: Some(Node { node: Some(AE",
            ],
        ),
        ("offset", &["limit_offset: Some"]),
        ("locking", &["LockingClause {"]),
        ("window", &["over: Some", "window_clause: [N"]),
        (
            "aggregate",
            &["agg_filter: Some", "agg_distinct: true", "agg_order: [N"],
        ),
        (
            "set operation",
            &["op: SetopUnion", "op: SetopIntersect", "op: SetopExcept"],
        ),
    ];
    let clauses = clauses
        .iter()
        .filter(|(_, marks)| marks.iter().any(|mark| tree.contains(mark)));
    let modifies = [
        "InsertStmt {",
        "UpdateStmt {",
        "DeleteStmt {",
        "MergeStmt {",
    ];
    Summary {
        relations,
        modifies: modifies.iter().any(|kind| tree.contains(kind)),
        clauses: clauses.map(|(name, _)| *name).collect(),
    }
}

fn ours(facts: &Facts) -> Summary {
    let named = facts.relations().chain(&facts.created);
    let relations = named.map(|name| (name.schema.clone().unwrap_or_default(), name.name.clone()));
    let relations =
        relations.filter(|(schema, name)| !(schema.is_empty() && facts.ctes.contains(name)));
    let clauses = [
        ("distinct", Clauses::DISTINCT),
        ("group by", Clauses::GROUP_BY),
        ("having", Clauses::HAVING),
        ("limit", Clauses::LIMIT),
        ("offset", Clauses::OFFSET),
        ("locking", Clauses::LOCKING),
        ("window", Clauses::WINDOW),
        ("aggregate", Clauses::AGGREGATE),
    ];
    let has = |clause: Clauses| facts.blocks.iter().any(|block| block.clauses.has(clause));
    let mut found: Vec<&'static str> = clauses
        .iter()
        .filter(|(_, clause)| has(*clause))
        .map(|(name, _)| *name)
        .collect();
    // A WITH opens such a block too, without arms of its own.
    let arms =
        |block: &Block| block.kind == BlockKind::SetOperation && !block.clauses.has(Clauses::WITH);
    if facts.blocks.iter().any(arms) {
        found.push("set operation");
    }
    Summary {
        relations: relations.collect(),
        modifies: facts.modifies(),
        clauses: found,
    }
}

/// The functions that are called by name, rather than by special syntax.
fn functions(tree: &str) -> BTreeSet<String> {
    let special = [
        "extract",
        "btrim",
        "ltrim",
        "rtrim",
        "substring",
        "position",
        "overlay",
        "timezone",
        "overlaps",
        "like_escape",
        "similar_to_escape",
        "xmlexists",
        "unnest",
        "ceil",
        "floor",
    ];
    let mut found = BTreeSet::new();
    for (start, mark) in tree.match_indices("FuncCall { funcname: [") {
        let names = &tree[start + mark.len()..];
        let names = &names[..names.find("], args").unwrap()];
        let last = names.rfind("sval: \"").unwrap();
        let name = field(names, last, "sval: \"");
        if !special.contains(&name.as_str()) {
            found.insert(name);
        }
    }
    found
}

#[test]
fn nesting_and_length_are_bounded() {
    for (open, close) in [
        ("(", ")"),
        ("ARRAY[", "]"),
        ("(SELECT ", ")"),
        ("f(", ")"),
        ("NOT ", ""),
    ] {
        let deep = format!("SELECT {}1{}", open.repeat(20_000), close.repeat(20_000));
        assert_eq!(
            analysed(&deep).unwrap_err().reason,
            StopReason::TooDeep,
            "{open}"
        );
    }
    let from = format!(
        "SELECT * FROM {}t{}",
        "(".repeat(5_000),
        " JOIN t ON true)".repeat(5_000)
    );
    assert!(analysed(&from).is_err());
    for chain in [
        " + 1",
        " AND true",
        " IS NULL",
        "::int",
        " COLLATE \"C\"",
        " UNION SELECT 1",
    ] {
        let long = format!("SELECT 1 {}", chain.repeat(100_000));
        assert!(analysed(&long).is_err(), "{chain}");
        // Whatever is let through must neither overflow the stack on the way in nor when dropped.
        let _ = analysed(&format!("SELECT 1 {}", chain.repeat(1_900)));
    }
    for mended in [
        "ON CONFLICT ",
        "USING (a, ",
        "FOR UPDATE OF a, ",
        "1::a COLLATE b ",
        "SET a[1 ",
    ] {
        assert!(
            analysed(&format!("SELECT {}", mended.repeat(50_000))).is_err(),
            "{mended}"
        );
    }
    let list = format!("SELECT 1 FROM t WHERE a IN ({}1)", "-1, ".repeat(100_000));
    assert_eq!(analysed(&list).unwrap().blocks.len(), 1);
    let rows = format!(
        "INSERT INTO t VALUES {}(1, -1 + 2)",
        "(1, -1 + 2), ".repeat(10_000)
    );
    assert_eq!(analysed(&rows).unwrap().blocks.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Statements with tokens dropped, doubled and swapped: no panic, and never fewer relations than
    /// PostgreSQL finds in what is still a statement.
    #[test]
    fn mutated_statements_agree_or_are_unknown(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 1..4),
    ) {
        let corpus: Vec<&str> = corpus().into_iter().collect();
        let text = corpus[pick.index(corpus.len())];
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap_or_default();
        let mut words: Vec<&str> = tokens.iter().map(|token| token.text(text)).collect();
        for (from, to, edit) in edits {
            if words.len() < 2 { break; }
            let (from, to) = (from.index(words.len()), to.index(words.len()));
            match edit {
                0 => { words.remove(from); }
                1 => words.swap(from, to),
                2 => words.insert(to, words[from]),
                _ => words[to] = ["ONLY", "ISNULL", "(", ")", "AS", "'x'", "FROM", "orders", ",", "."][from % 10],
            }
        }
        let mutated = words.join(" ");
        if let (Ok(facts), Some(tree)) = (analysed(&mutated), oracle_tree(&mutated)) {
            let (ours, theirs) = (ours(&facts), theirs(&tree, &facts));
            prop_assert!(theirs.relations.is_subset(&ours.relations), "{mutated}\n{ours:?}\n{theirs:?}");
            prop_assert_eq!(ours.modifies, theirs.modifies, "{}", mutated);
            for clause in &theirs.clauses {
                prop_assert!(ours.clauses.contains(clause), "{mutated}: {clause}\n{facts:?}");
            }
        }
    }

    #[test]
    fn nonsense_does_not_panic(text in "(?s).{0,200}") {
        let _ = analysed(&text);
    }
}
