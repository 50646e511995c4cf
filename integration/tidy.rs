//! Holds the layers, the pure set and the size limits of `src/`.
//!
//! Reads the sources as text: comments and the contents of literals are blanked first, and a file
//! ends, for most rules, where its `mod tests` begins.

#![allow(
    clippy::unwrap_used,
    reason = "a test that can't read its sources fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules of the crate, top to bottom. Each uses only those that stand after it.
const LAYERS: &[&str] = &[
    "main", "proxy", "demo", "session", "admin", "exec", "txn", "topology", "pool", "backend",
    "net", "plan", "catalog", "sql", "sharding", "auth", "wire", "config", "metrics", "error",
    "sqlstate",
];

/// Modules without I/O, time, locks, logs or tasks: functions of their arguments.
const PURE: &[&str] = &[
    "plan", "catalog", "sql", "sharding", "auth", "wire", "error", "sqlstate",
];

/// What a pure module can't name.
const IMPURE: &[&str] = &[
    "tokio",
    "tracing",
    "parking_lot",
    "arc_swap",
    "Mutex",
    "RwLock",
    "Condvar",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "async fn",
    "async move",
    ".await",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "crate::metrics",
];

/// Lines of a file without its tests.
const MAX_LINES: usize = 600;
/// Fields of a struct outside `config`, whose structs mirror the file.
const MAX_FIELDS: usize = 12;
/// Names that say nothing about what a module holds.
const JUNK_DRAWERS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];
/// Marks of unfinished work.
const UNFINISHED: &[&str] = &[
    "TODO",
    "FIXME",
    "XXX",
    "HACK",
    "todo!",
    "unimplemented!",
    "dbg!",
];

struct Source {
    /// Relative to `src/`, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The layer: the first folder, or the file's own name.
    fn layer(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The text up to `mod tests { … }`, or without `mod tests;`.
    fn program(&self) -> String {
        let mut kept = String::new();
        let mut lines = self.text.lines().peekable();
        while let Some(line) = lines.next() {
            let next = lines.peek().map_or("", |next| next.trim());
            if line.trim() == "#[cfg(test)]" && next.starts_with("mod tests") {
                if next.ends_with(';') {
                    lines.next();
                    continue;
                }
                break;
            }
            kept.push_str(line);
            kept.push('\n');
        }
        kept
    }
}

fn problems(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let mut report = |line: usize, what: String| {
            found.push(format!("src/{}:{line}: {what}", source.path));
        };
        check_names(source, &mut report);
        check_first_sentence(source, &mut report);
        check_marks(source, &mut report);
        if source.is_test() {
            continue;
        }
        let program = source.program();
        let code = blank(&program);
        let lines = program.lines().count();
        if lines > MAX_LINES {
            report(
                lines,
                format!("{lines} lines before the tests, limit {MAX_LINES}"),
            );
        }
        check_layers(source, &code, &mut report);
        check_purity(source, &code, &mut report);
        check_statics(&code, &mut report);
        check_fields(source, &code, &mut report);
        if source.layer() != "sql" {
            for (line, text) in numbered(&code) {
                if has_word(text, "sqlparser") {
                    report(line, "only src/sql/ names the parser crate".into());
                }
            }
        }
    }
    check_reachable(sources, &mut found);
    found
}

fn check_names(source: &Source, report: &mut dyn FnMut(usize, String)) {
    for part in source.path.split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if JUNK_DRAWERS.contains(&name) {
            report(
                1,
                format!("a module called {name} says nothing about what it holds"),
            );
        }
    }
    if source.layer() != "lib" && !LAYERS.contains(&source.layer()) {
        let layer = source.layer();
        report(
            1,
            format!("module {layer} has no place in the layers of integration/tidy.rs"),
        );
    }
}

fn check_first_sentence(source: &Source, report: &mut dyn FnMut(usize, String)) {
    let sentence: Vec<&str> = source
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//! "))
        .collect();
    let Some(last) = sentence.last() else {
        return report(1, "must start with one \"//! \" sentence".into());
    };
    if !last.trim_end().ends_with('.') {
        report(
            sentence.len(),
            "the first //! paragraph must be a sentence".into(),
        );
    }
}

fn check_marks(source: &Source, report: &mut dyn FnMut(usize, String)) {
    for (line, text) in numbered(&source.text) {
        for mark in UNFINISHED {
            if has_word(text, mark) {
                report(line, format!("unfinished: {mark}"));
            }
        }
    }
}

fn check_layers(source: &Source, code: &str, report: &mut dyn FnMut(usize, String)) {
    let own = source.layer();
    let Some(place) = LAYERS.iter().position(|layer| *layer == own) else {
        return;
    };
    for (line, text) in numbered(code) {
        for root in ["crate::", "shardwire::"] {
            if has_word(text, &format!("{root}{{")) {
                report(line, format!("import one layer per line, not {root}{{…}}"));
            }
        }
        for used in LAYERS.iter().take(place) {
            let named = |root: &str| has_word(text, &format!("{root}::{used}"));
            if named("crate") || named("shardwire") {
                report(
                    line,
                    format!("{own} must not use {used}, which stands above it"),
                );
            }
        }
        if has_word(text, "super::super") {
            report(line, "use crate::layer::… instead of super::super".into());
        }
    }
}

fn check_purity(source: &Source, code: &str, report: &mut dyn FnMut(usize, String)) {
    let layer = source.layer();
    if !PURE.contains(&layer) {
        return;
    }
    for (line, text) in numbered(code) {
        for word in IMPURE {
            if has_word(text, word) {
                report(line, format!("{layer} is pure and must not use {word}"));
            }
        }
    }
}

fn check_statics(code: &str, report: &mut dyn FnMut(usize, String)) {
    let mut before = "";
    for (line, text) in numbered(code) {
        let text = text.trim();
        let item = text
            .strip_prefix("pub ")
            .or_else(|| text.strip_prefix("pub(crate) "))
            .or_else(|| text.strip_prefix("pub(super) "))
            .unwrap_or(text);
        let global = item.starts_with("static ") || item.starts_with("thread_local!");
        if global && before != "#[global_allocator]" {
            report(line, "there are no globals but the allocator".into());
        }
        if !text.is_empty() {
            before = text;
        }
    }
}

fn check_fields(source: &Source, code: &str, report: &mut dyn FnMut(usize, String)) {
    if source.layer() == "config" {
        return;
    }
    for (start, _) in code.match_indices("struct ") {
        let (line, rest) = (code[..start].lines().count().max(1), &code[start..]);
        let Some(open) = rest.find(['{', ';', '(']) else {
            continue;
        };
        if !rest[open..].starts_with('{') {
            continue;
        }
        let fields = fields(&rest[open..]);
        if fields > MAX_FIELDS {
            report(
                line,
                format!("a struct of {fields} fields, limit {MAX_FIELDS}"),
            );
        }
    }
}

/// Counts the fields of the struct whose braces the text starts with: the single colons outside
/// all inner brackets.
fn fields(body: &str) -> usize {
    let (mut depth, mut fields) = (0_i32, 0);
    let bytes = body.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' | b'<' => depth += 1,
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'}' | b')' | b']' | b'>' => depth -= 1,
            b':' if depth == 1 => {
                let path = bytes.get(at + 1) == Some(&b':') || bytes[at - 1] == b':';
                fields += usize::from(!path);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    fields
}

/// Every file is declared by a `mod` line of the module that holds it.
fn check_reachable(sources: &[Source], found: &mut Vec<String>) {
    let paths: BTreeSet<&str> = sources.iter().map(|source| &*source.path).collect();
    for source in sources {
        let Some(stem) = source.path.strip_suffix(".rs") else {
            continue;
        };
        let module = stem.strip_suffix("/mod").unwrap_or(stem);
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let (parents, name) = match module.rsplit_once('/') {
            Some((folder, name)) => (
                vec![format!("{folder}/mod.rs"), format!("{folder}.rs")],
                name,
            ),
            None => (vec!["lib.rs".to_owned()], module),
        };
        let declared = sources
            .iter()
            .filter(|parent| parents.contains(&parent.path) && paths.contains(&*parent.path))
            .any(|parent| has_word(&parent.text, &format!("mod {name};")));
        if !declared {
            found.push(format!(
                "src/{}:1: no module declares this file",
                source.path
            ));
        }
    }
}

/// Lines with their numbers from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Whether the word stands in the text, not as a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let glued = |beside: Option<char>, edge: Option<char>| {
            beside.is_some_and(part_of_name) && edge.is_some_and(part_of_name)
        };
        !glued(text[..at].chars().next_back(), word.chars().next())
            && !glued(
                text[at + word.len()..].chars().next(),
                word.chars().next_back(),
            )
    })
}

/// The code with comments and the contents of string and character literals replaced by spaces,
/// lines kept.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' | 'b' | 'c' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                prefixed_string(rest)
            }
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(
                rest[..length]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            rest = &rest[length..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    for (at, _) in text.char_indices() {
        if text[at..].starts_with("/*") {
            depth += 1;
        } else if text[..at].ends_with("*/") && at > 3 {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `b'…'`; 0 when it is a name.
fn prefixed_string(text: &str) -> usize {
    let prefix = text
        .find(|c: char| !matches!(c, 'r' | 'b' | 'c'))
        .unwrap_or(0);
    if prefix == 0 || prefix > 2 {
        return 0;
    }
    let body = &text[prefix..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    if !text[..prefix].contains('r') {
        return match body.chars().next() {
            Some('"') => prefix + string(body),
            Some('\'') => prefix + character(body),
            _ => 0,
        };
    }
    if !body[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = prefix + hashes + 1;
    text[start..]
        .find(&end)
        .map_or(text.len(), |at| start + at + end.len())
}

/// A character literal; 0 when the quote begins a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..]
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map_or(0, |(at, _)| at + 3),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

fn read_all(folder: &Path, prefix: &str, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            read_all(&entry.path(), &format!("{prefix}{name}/"), sources);
        } else if name.ends_with(".rs") {
            sources.push(Source {
                path: format!("{prefix}{name}"),
                text: fs::read_to_string(entry.path()).unwrap(),
            });
        }
    }
}

#[test]
fn the_sources_are_tidy() {
    let mut sources = Vec::new();
    read_all(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut sources,
    );
    assert!(sources.len() > LAYERS.len(), "the sources were not found");
    let found = problems(&sources);
    assert!(
        found.is_empty(),
        "{} problems:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn every_layer_exists() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for layer in LAYERS {
        let exists = src.join(layer).is_dir() || src.join(format!("{layer}.rs")).is_file();
        assert!(exists, "src/ has no {layer}: take it out of LAYERS");
    }
}

/// What a source reports, as words that must stand in the one problem found.
fn report(path: &str, code: &str) -> Vec<String> {
    let mut declarations = String::from("//! Lib.\n");
    let module = path.split('/').next().unwrap().trim_end_matches(".rs");
    declarations.push_str(&format!("mod {module};\n"));
    let source = |path: &str, text: String| Source {
        path: path.into(),
        text,
    };
    problems(&[
        source("lib.rs", declarations),
        source(path, format!("//! A sentence.\n{code}\n")),
    ])
}

#[test]
fn what_is_not_tidy_is_reported() {
    let long = "//\n".repeat(MAX_LINES);
    let wide = format!(
        "struct S {{ {} }}",
        "a: Option<(u8, u8)>, ".repeat(MAX_FIELDS + 1)
    );
    let cases: &[(&str, &str, &str)] = &[
        (
            "plan/mod.rs",
            "use crate::exec::Run;",
            "plan must not use exec",
        ),
        (
            "pool/mod.rs",
            "fn f() { crate::session::run(); }",
            "pool must not use session",
        ),
        (
            "proxy.rs",
            "use crate::{session, exec};",
            "one layer per line",
        ),
        ("exec/mod.rs", "use super::super::session;", "super::super"),
        ("wire/mod.rs", "use tokio::io;", "must not use tokio"),
        ("sql/mod.rs", "async fn f() {}", "must not use async fn"),
        (
            "sharding/mod.rs",
            "fn f() { std::fs::read(p); }",
            "must not use std::fs",
        ),
        ("plan/mod.rs", "use sqlparser::ast;", "only src/sql/"),
        ("pool/mod.rs", "pub static A: u8 = 1;", "no globals"),
        ("pool/mod.rs", "thread_local! { }", "no globals"),
        ("pool/mod.rs", "// TODO: later", "unfinished: TODO"),
        ("utils/mod.rs", "", "says nothing"),
        ("pool/mod.rs", &long, "602 lines"),
        ("pool/mod.rs", &wide, "a struct of 13 fields"),
    ];
    for (path, code, words) in cases {
        let found = report(path, code).join("\n");
        assert!(
            found.contains(words),
            "{path} {code}\nreports {found:?}, not {words:?}"
        );
    }
}

#[test]
fn what_is_tidy_is_not_reported() {
    let long_tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", "//\n".repeat(MAX_LINES));
    let cases: &[(&str, &str)] = &[
        ("exec/mod.rs", "use crate::plan::Plan;\nuse tokio::io;"),
        ("plan/mod.rs", "// crate::exec and tokio in a comment"),
        (
            "plan/mod.rs",
            "/* crate::exec /* nested */ tokio */ fn f() {}",
        ),
        (
            "plan/mod.rs",
            r##"const A: &str = r#"tokio "crate::exec" "#;"##,
        ),
        (
            "plan/mod.rs",
            r#"const A: (&str, char) = ("\" tokio", '"'); // tokio"#,
        ),
        ("plan/mod.rs", "fn f<'a>(a: &'a str) -> &'static str { a }"),
        (
            "plan/mod.rs",
            "use crate::sql::execute; use crate::config::Database;",
        ),
        ("main.rs", "#[global_allocator]\nstatic A: M = M;"),
        ("pool/mod.rs", &long_tests),
        (
            "pool/mod.rs",
            "struct S { f: fn(u8) -> std::io::Result<u8>, g: [u8; 3] }",
        ),
    ];
    for (path, code) in cases {
        let found = report(path, code);
        assert!(found.is_empty(), "{path} {code}\nreports {found:?}");
    }
}

#[test]
fn a_file_that_nobody_declares_is_reported() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.into(),
    };
    let found = problems(&[
        source("lib.rs", "//! Lib.\nmod pool;\n"),
        source("pool/mod.rs", "//! Pool.\nmod guard;\n"),
        source("pool/guard.rs", "//! Guard.\n"),
        source("pool/forgotten.rs", "//! Forgotten.\n"),
    ]);
    assert_eq!(
        found,
        ["src/pool/forgotten.rs:1: no module declares this file"]
    );
}

#[test]
fn a_module_without_a_sentence_is_reported() {
    for text in ["use std::fs;\n", "//! no full stop\n\nfn f() {}\n", ""] {
        let sources = [Source {
            path: "lib.rs".into(),
            text: text.into(),
        }];
        assert_eq!(problems(&sources).len(), 1, "{text:?}");
    }
}
