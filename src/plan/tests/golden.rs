//! Golden plans: `REWRITE=1 cargo test plan` writes them anew.

use std::fmt::Write;

use crate::plan::Arguments;
use crate::plan::Parameters;
use crate::plan::Plan;
use crate::plan::Route;
use crate::plan::own::tokens_of;
use crate::sql::encoding::Encoding;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;

use super::fixture::Fixture;

#[test]
fn golden_plans() {
    datadriven::walk("src/plan/testdata", |file| {
        let mut fixture = None;
        file.run(|case| match case.directive.as_str() {
            "schema" => {
                let (parsed, problems) = Fixture::parse(&case.input);
                fixture = Some(parsed);
                problems.iter().fold(String::new(), |mut out, problem| {
                    let _ = writeln!(out, "{problem}");
                    out
                })
            }
            "plan" => {
                let fixture = fixture
                    .as_ref()
                    .expect("a schema stands before the first plan");
                let mut types = Vec::new();
                for (name, values) in &case.args {
                    assert_eq!(name, "types", "unknown argument");
                    types = values.iter().map(|oid| oid.parse().unwrap()).collect();
                }
                let statements = case.input.lines().filter(|line| !line.trim().is_empty());
                statements.fold(String::new(), |out, text| {
                    out + &planned(fixture, text, &types)
                })
            }
            "rewrite" => {
                let fixture = fixture.as_ref().expect("a schema");
                let statements = case.input.lines().filter(|line| !line.trim().is_empty());
                statements.fold(String::new(), |out, text| out + &rewritten(fixture, text))
            }
            "combine" => {
                let fixture = fixture.as_ref().expect("a schema");
                let is_joined = case.args.contains_key("joined");
                let statements = case.input.lines().filter(|line| !line.trim().is_empty());
                statements.fold(String::new(), |out, text| {
                    out + &combined(fixture, text, is_joined)
                })
            }
            "target" => target(fixture.as_ref().expect("a schema"), &case.input),
            other => panic!("unknown directive {other}"),
        });
    });
}

/// The statement and its plan; the shard too if no parameter decides it.
fn planned(fixture: &Fixture, text: &str, types: &[u32]) -> String {
    let plan = fixture.plan(text, types);
    if !plan
        .rewording(text, LexOptions::default())
        .unwrap()
        .is_empty()
    {
        let expanded = expanded(text, &plan);
        return format!("{text}\n  = {}", planned(fixture, &expanded, types));
    }
    let tree = plan.tree(fixture.catalog.shards()).to_string();
    let tree = tree.replace('\n', "\n    ");
    let mut out = format!("{text}\n    {tree}\n");
    if let Some(fill) = plan.fill() {
        let (mut next, lex) = (100, LexOptions::default());
        let values = fill.columns.iter().map(|column| {
            let mut value = || {
                next += 1;
                match column.sequence {
                    Some(_) => next.to_string(),
                    None => format!("'{next}'"),
                }
            };
            (0..column.count).map(|_| value()).collect()
        });
        let values: Vec<Vec<String>> = values.collect();
        let completed = splice(text, lex, &fill.edits(text, lex, &values).unwrap()).unwrap();
        let _ = write!(out, "  = {}", planned(fixture, &completed, types));
    }
    let decided = match plan.route {
        Route::Keyed(_) | Route::Insert(_) => true,
        // A constant may forbid to scatter.
        Route::Scatter(_) => fixture
            .target(&plan, text, Parameters::none())
            .contains("0A000"),
        _ => false,
    };
    if decided && !text.contains('$') {
        let target = fixture.target(&plan, text, Parameters::none());
        let _ = writeln!(out, "    → {target}");
        if let (Some(clock), "filled first") = (plan.clock(), &*target) {
            let lex = LexOptions::default();
            let values: Vec<String> = clock.columns().map(|name| format!("'{name}'")).collect();
            let edits = clock.edits(text, lex, &values).unwrap();
            let completed = splice(text, lex, &edits).unwrap();
            let _ = write!(out, "  = {}", planned(fixture, &completed, types));
        }
    }
    out
}

/// The statement that is planned in place of one that names pseudo-columns or leaves a list out.
fn expanded(text: &str, plan: &Plan) -> String {
    let lex = LexOptions::default();
    let edits = plan.rewording(text, lex).unwrap();
    splice(text, lex, &edits).unwrap()
}

/// The statement with an answer in place of each call that is the proxy's.
fn rewritten(fixture: &Fixture, text: &str) -> String {
    let plan = fixture.plan(text, &[]);
    let lex = LexOptions::default();
    let tokens = tokens_of(text, lex).unwrap();
    let edits: Vec<Edit> = plan
        .own
        .iter()
        .map(|call| Edit {
            range: call.range(&tokens).unwrap(),
            text: call.replacement((text, &tokens), "42", &["int4", "int8"]),
        })
        .collect();
    // An inner call is not answered if the outer one is.
    let outer = |edit: &&Edit| {
        let mut others = edits.iter();
        !others
            .any(|other| other.range.start < edit.range.start && edit.range.end < other.range.end)
    };
    let outer: Vec<Edit> = edits.iter().filter(outer).cloned().collect();
    let certain = plan.own.iter().any(|call| call.is_certain);
    let certain = if certain { " (certain)" } else { "" };
    let edited = splice(text, lex, &outer).unwrap();
    format!("{text}\n    {edited}{certain}\n")
}

/// The texts that shards and hub are sent for a statement.
fn combined(fixture: &Fixture, text: &str, is_joined: bool) -> String {
    let plan = fixture.plan(text, &[]);
    let Some(combine) = plan.combine() else {
        let tree = plan.tree(fixture.catalog.shards()).to_string();
        return format!("{text}\n    {}\n", tree.replace('\n', "\n    "));
    };
    let shape = fixture.shape(text);
    let arguments = Arguments {
        text,
        literals: &shape.literals,
        parameters: Parameters::none(),
        encoding: Encoding::Utf8,
    };
    let lex = LexOptions::default();
    let gathering = combine.gathering(&arguments, lex).unwrap();
    let mut execution = match gathering {
        Some(gathering) => gathering,
        None => combine.execution(&arguments, lex, is_joined).unwrap(),
    };
    if let Some(unfinished) = execution.unfinished.take() {
        // As if all partial results were bigint.
        execution.text = unfinished.text(&[20; 64]).unwrap().unwrap();
    }
    let mut out = format!("{text}\n");
    for relation in &execution.relations {
        let shards = relation.shards.iter();
        let names: Vec<&str> = shards
            .map(|shard| fixture.catalog.shards()[shard].as_str())
            .collect();
        let _ = write!(out, "    {} on {}: ", relation.name, names.join(" "));
        let _ = write!(out, "{}", relation.query);
        if !relation.parameters.is_empty() {
            let _ = write!(out, "  with {:?}", relation.parameters);
        }
        out.push('\n');
    }
    let hub = execution
        .hub
        .map(|hub| format!(" on {}", fixture.catalog.shards()[hub]));
    let _ = writeln!(
        out,
        "    hub{}: {}",
        hub.unwrap_or_default(),
        execution.text
    );
    if let Some(typed) = &execution.typed {
        let _ = writeln!(out, "    with rows as values: {typed}");
    }
    out
}

/// Executions of one statement: the first line is the statement, each further one has its
/// parameters in text format, `NULL` for null; `types=…` before them declares types.
fn target(fixture: &Fixture, input: &str) -> String {
    let mut lines = input.lines();
    let text = lines.next().unwrap();
    let mut out = String::new();
    for line in lines {
        let mut types = Vec::new();
        let mut values = Vec::new();
        for word in line.split(' ') {
            if let Some(oids) = word.strip_prefix("types=") {
                types = oids.split(',').map(|oid| oid.parse().unwrap()).collect();
            } else if word == "NULL" {
                values.extend((-1_i32).to_be_bytes());
            } else {
                values.extend(i32::try_from(word.len()).unwrap().to_be_bytes());
                values.extend(word.as_bytes());
            }
        }
        let plan = fixture.plan(text, &types);
        let target = fixture.target(&plan, text, Parameters::new(&types, &[], &values));
        let _ = writeln!(out, "{line} → {target}");
    }
    out
}

/// What is refused, by the golden plans, once for each kind: whoever lifts a refusal deletes its line.
#[test]
fn refusals_are_listed() {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("src/plan/testdata").unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let refused = text.lines().filter_map(|line| {
            let (_, refused) = line.split_once("Refused ")?;
            let names = refused.split('"').enumerate();
            Some(
                names.fold(String::new(), |out, (part, words)| match part % 2 {
                    0 => out + words,
                    _ => out + "\"…\"",
                }),
            )
        });
        found.extend(refused.filter(|line| line.starts_with("0A000: ")));
    }
    let found: String = found.into_iter().map(|line| line + "\n").collect();
    let path = "src/plan/refusals.txt";
    if std::env::var("REWRITE").is_ok() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        found,
        "REWRITE=1"
    );
}
