//! Calls that the proxy answers: found once per shape, put into the text once per execution.
//!
//! `pg_backend_pid()` must be the number that the client got at login, and cancelling that number must
//! reach the client. No server knows it. Where a call's name would name a column, the answer that takes
//! its place does so too: it is a scalar subquery whose column has the function's name.

pub mod stored;

use std::ops::Range;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::plan::Request;
use crate::plan::sizes::Measure;
use crate::plan::sizes::Sizes;
use crate::plan::without_semicolons;
use crate::sql::analysis::Call;
use crate::sql::analysis::Facts;
use crate::sql::analysis::Name;
use crate::sql::analysis::Place;
use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::literal::quote_identifier;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;

/// A call that the proxy answers, by the places of its tokens in the statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCall {
    /// What it asks.
    pub question: Question,
    /// Where it stands.
    place: Place,
    /// From the first token of its name to its closing parenthesis.
    tokens: Range<usize>,
    /// The tokens of each argument.
    arguments: Vec<Range<usize>>,
    /// The statement does nothing but make such calls, each of them once.
    pub is_certain: bool,
    /// It is made only if there is a setting of the name in its first argument: whether there are
    /// [those that newer servers have](is_recent).
    pub if_there: Option<bool>,
}

/// What a call asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `pg_backend_pid()`.
    BackendPid,
    /// `pg_cancel_backend(pid)`.
    CancelBackend,
    /// `pg_terminate_backend(pid [, timeout])`.
    TerminateBackend,
    /// `pg_table_size(relation)` and the like.
    Size(Measure),
    /// `current_setting(name [, missing_ok])`: the proxy has settings of its own.
    CurrentSetting,
    /// `set_config(name, value, is_local)` of arguments that are known: a server does it, and the proxy
    /// remembers it.
    SetConfig,
    /// `pg_prepared_statements`, or the function behind that view.
    Prepared {
        /// The view.
        is_view: bool,
    },
}

impl Question {
    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Question::BackendPid => "pg_backend_pid",
            Question::CancelBackend => "pg_cancel_backend",
            Question::TerminateBackend => "pg_terminate_backend",
            Question::Size(measure) => measure.name(),
            Question::CurrentSetting => "current_setting",
            Question::SetConfig => "set_config",
            Question::Prepared { is_view: true } => stored::VIEW,
            Question::Prepared { is_view: false } => stored::FUNCTION,
        }
    }

    /// What a call by this name and number of arguments asks.
    fn of(name: &str, arguments: usize) -> Option<Question> {
        Some(match (name, arguments) {
            ("pg_backend_pid", 0) => Question::BackendPid,
            ("pg_cancel_backend", 1) => Question::CancelBackend,
            ("pg_terminate_backend", 1 | 2) => Question::TerminateBackend,
            ("current_setting", 1 | 2) => Question::CurrentSetting,
            ("set_config", 3) => Question::SetConfig,
            (stored::FUNCTION, 0) => Question::Prepared { is_view: false },
            _ => return Measure::of(name, arguments).map(Question::Size),
        })
    }
}

/// The calls of a query that the proxy answers; `all` are the tokens of the whole statement.
pub(super) fn find(
    facts: &Facts,
    catalog: &Catalog,
    search_path: &[String],
    (text, all): (&str, &[Token]),
) -> Box<[OwnCall]> {
    let is_asked = |call: &Call| Question::of(&call.name.name, call.arguments).is_some();
    let mut found = stored::views(facts, catalog, search_path, (text, all));
    if found.is_empty() && !facts.calls.iter().any(is_asked) {
        return Box::default();
    }
    let about_servers = speaks_of_servers(facts);
    for call in &facts.calls {
        let Some(question) = Question::of(&call.name.name, call.arguments) else {
            continue;
        };
        let is_stored = matches!(question, Question::Prepared { .. });
        if (call.place == Place::Other && !is_stored)
            || !is_builtin(catalog, search_path, &call.name)
            || (question == Question::BackendPid && about_servers)
            || (matches!(question, Question::Size(_)) && catalog.shards().len() == 1)
        {
            continue;
        }
        match locate(text, all, call, question) {
            None if is_stored => found.push(stored::unanswered()),
            located => found.extend(located),
        }
    }
    found.sort_by_key(|call| call.tokens.start);
    if let [call] = found.as_mut_slice()
        && call.sets_if_there((text, all))
    {
        call.is_certain = true;
        call.if_there = Some(has_recent(catalog.server_version()));
        return found.into();
    }
    let is_certain = reads_nothing_else(facts, &found) && is_calls_only(text, all, &found);
    for call in &mut found {
        call.is_certain = is_certain;
    }
    found.retain(|call| {
        call.question != Question::SetConfig || (is_certain && call.is_plain(text, all))
    });
    found.into()
}

/// Whether it is a call of `current_setting` that [`find`] finds.
pub(super) fn reads_setting(request: &Request<'_>, tokens: &[Token], call: &Call) -> bool {
    Question::of(&call.name.name, call.arguments) == Some(Question::CurrentSetting)
        && call.place != Place::Other
        && is_builtin(request.catalog, request.search_path, &call.name)
        && locate(request.text, tokens, call, Question::CurrentSetting).is_some()
}

/// Whether it is a setting that only newer minor versions have.
pub fn is_recent(name: &str) -> bool {
    name == "restrict_nonsystem_relation_kind"
}

/// Whether it is one that clients set only where it is there, and every server that is supported has.
pub fn is_old(name: &str) -> bool {
    ["bytea_output", "jit", "row_security", "search_path"].contains(&name)
}

/// Whether a server has it: since the releases of August 2024.
fn has_recent(version: u32) -> bool {
    let minor = version % 10_000;
    match version / 10_000 {
        12 => minor >= 20,
        13 => minor >= 16,
        14 => minor >= 13,
        15 => minor >= 8,
        16 => minor >= 4,
        major => major >= 17,
    }
}

/// Whether the name is that of PostgreSQL's own function and of no other.
pub(super) fn is_builtin(catalog: &Catalog, search_path: &[String], name: &Name) -> bool {
    let schema = name.schema.as_deref();
    let mut functions = catalog.functions(schema, &name.name, search_path);
    let first = functions.next();
    first
        .into_iter()
        .chain(functions)
        .all(|function| function.schema == "pg_catalog")
        && first.is_some()
}

/// Whether a query is about the processes of a server: `pg_backend_pid()` then means the one that works
/// for it, as in `SELECT … FROM pg_stat_activity WHERE pid <> pg_backend_pid()`.
fn speaks_of_servers(facts: &Facts) -> bool {
    let relation = facts.relations().any(|name| {
        let name = &name.name;
        name.starts_with("pg_stat_") || matches!(name.as_str(), "pg_locks" | "pg_replication_slots")
    });
    let call = facts.calls.iter().any(|call| {
        let name = &call.name.name;
        name.starts_with("pg_stat_get_")
            || name.starts_with("pg_log_backend")
            || name.ends_with("blocking_pids")
            || name == "pg_lock_status"
    });
    relation || call
}

fn locate(text: &str, all: &[Token], call: &Call, question: Question) -> Option<OwnCall> {
    let offset = call.offset?;
    let name = all.partition_point(|token| token.start < offset);
    let is_name = |index: usize, expected: &str| {
        all.get(index)
            .and_then(|token| identifier_value(text, token))
            .is_some_and(|value| value == expected)
    };
    let is_symbol = |index: usize, symbol: &str| {
        all.get(index)
            .is_some_and(|token| token.is_symbol(text, symbol))
    };
    if !is_name(name, question.name()) || !is_symbol(name + 1, "(") {
        return None;
    }
    let mut start = name;
    if name >= 2 && is_symbol(name - 1, ".") {
        if !is_name(name - 2, "pg_catalog") || (name >= 3 && is_symbol(name - 3, ".")) {
            return None;
        }
        start = name - 2;
    }
    let (end, arguments) = arguments(text, all, name + 2)?;
    (arguments.len() == call.arguments).then_some(OwnCall {
        question,
        place: call.place,
        tokens: start..end,
        arguments,
        is_certain: false,
        if_there: None,
    })
}

/// The arguments that begin at a token, and where the call ends.
pub(super) fn arguments(
    text: &str,
    all: &[Token],
    first: usize,
) -> Option<(usize, Vec<Range<usize>>)> {
    let mut depth = 0_usize;
    let mut arguments = Vec::new();
    let mut start = first;
    for (index, token) in all.iter().enumerate().skip(first) {
        if token.kind != TokenKind::Punctuation {
            continue;
        }
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" if depth == 0 => {
                if index > first {
                    arguments.push(start..index);
                }
                return Some((index + 1, arguments));
            }
            ")" | "]" => depth = depth.checked_sub(1)?,
            "," if depth == 0 => {
                arguments.push(start..index);
                start = index + 1;
            }
            _ => {}
        }
    }
    None
}

/// Whether a query has one row, whatever the tables hold.
fn reads_nothing_else(facts: &Facts, calls: &[OwnCall]) -> bool {
    let is_source = |call: &&OwnCall| matches!(call.place, Place::Source { .. });
    let sources = calls.iter().filter(is_source).count();
    match facts.blocks.as_slice() {
        [block] => block.sources.len() == sources,
        _ => false,
    }
}

/// Whether a statement is `SELECT`, such calls and names for them, so that each call is made once.
fn is_calls_only(text: &str, all: &[Token], calls: &[OwnCall]) -> bool {
    let is_within = |index: usize| calls.iter().any(|call| call.tokens.contains(&index));
    let plain = |(index, token): (usize, &Token)| {
        is_within(index)
            || match token.kind {
                TokenKind::Word => ![
                    "where",
                    "case",
                    "and",
                    "or",
                    "not",
                    "limit",
                    "offset",
                    "fetch",
                    "having",
                    "group",
                    "union",
                    "except",
                    "intersect",
                    "between",
                    "in",
                    "is",
                ]
                .iter()
                .any(|word| token.is_word(text, word)),
                kind => {
                    kind.is_quoted_identifier()
                        || token.is_symbol(text, ",")
                        || token.is_symbol(text, "*")
                }
            }
    };
    let starts = all
        .first()
        .is_some_and(|token| token.is_word(text, "select"));
    starts && all.iter().enumerate().all(plain)
}

/// The tokens of a statement of the shape for which calls were found.
///
/// # Errors
/// What PostgreSQL's scanner would say.
pub fn tokens_of(text: &str, lex: LexOptions) -> Result<Vec<Token>> {
    let tokens = tokenize(text.as_bytes(), lex).map_err(|error| error.to_error(text.as_bytes()))?;
    Ok(without_semicolons(text, &tokens).to_vec())
}

/// Whether the source of a query's rows is `pg_settings` or the function behind that view.
fn is_settings(text: &str, source: &[Token]) -> bool {
    let name = match source {
        [schema, dot, name @ ..]
            if schema.is_word(text, "pg_catalog") && dot.is_symbol(text, ".") =>
        {
            name
        }
        name => name,
    };
    match name {
        [view] => view.is_word(text, "pg_settings"),
        [function, open, close] => {
            function.is_word(text, "pg_show_all_settings")
                && open.is_symbol(text, "(")
                && close.is_symbol(text, ")")
        }
        _ => false,
    }
}

impl OwnCall {
    /// Its bytes in a text with these tokens.
    pub fn range(&self, tokens: &[Token]) -> Option<Range<u32>> {
        let first = tokens.get(self.tokens.start)?;
        let last = tokens.get(self.tokens.end.checked_sub(1)?)?;
        Some(first.start..last.end)
    }

    /// Whether every argument is a constant or a parameter, which may be cast.
    fn is_plain(&self, text: &str, all: &[Token]) -> bool {
        self.arguments.iter().all(|argument| {
            let tokens = all.get(argument.clone()).unwrap_or_default();
            let (first, is_cast) = match tokens {
                [first] => (first, true),
                [first, colons, kind] => (
                    first,
                    colons.is_symbol(text, "::") && kind.kind == TokenKind::Word,
                ),
                _ => return false,
            };
            let is_word = |word| first.is_word(text, word);
            let is_known = first.kind.is_string()
                || first.kind == TokenKind::Parameter
                || ["true", "false", "null"].into_iter().any(is_word);
            is_cast && is_known
        })
    }

    /// Whether it is what pg_dump asks: `SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'x'`,
    /// which sets `x` where there is such a setting; or pgAdmin, with `'x'` twice, and `pg_show_all_settings()`. Its
    /// first argument is then that name.
    fn sets_if_there(&mut self, (text, all): (&str, &[Token])) -> bool {
        let is_name = |token: &Token| token.is_word(text, "name");
        let behind = all.get(self.tokens.end..).unwrap_or_default();
        let [from, source @ .., condition, column, equals, name] = behind else {
            return false;
        };
        // Names of settings are compared as they are written.
        let is_lower = !name
            .text(text)
            .bytes()
            .any(|byte| byte.is_ascii_uppercase());
        let [first, value, local] = self.arguments.as_slice() else {
            return false;
        };
        let rest = OwnCall {
            arguments: vec![value.clone(), local.clone()],
            ..self.clone()
        };
        let is_asked = self.question == Question::SetConfig
            && matches!(all.get(first.clone()), Some([only]) if is_name(only) || only.text(text) == name.text(text))
            && rest.is_plain(text, all)
            && all
                .first()
                .is_some_and(|token| token.is_word(text, "select"))
            && is_calls_only(
                text,
                all.get(..self.tokens.end).unwrap_or_default(),
                std::slice::from_ref(self),
            )
            && from.is_word(text, "from")
            && is_settings(text, source)
            && condition.is_word(text, "where")
            && is_name(column)
            && equals.is_symbol(text, "=")
            && name.kind == TokenKind::String
            && is_lower;
        if is_asked && let Some(argument) = self.arguments.first_mut() {
            *argument = all.len() - 1..all.len();
        }
        is_asked
    }

    /// The tokens of an argument.
    pub fn argument<'a>(&self, number: usize, tokens: &'a [Token]) -> Option<&'a [Token]> {
        tokens.get(self.arguments.get(number)?.clone())
    }

    /// What stands in its place: an expression whose value is `value`. The parameters in its arguments
    /// stay in the text, each as the type in `types`: the client is going to bind them.
    pub fn replacement(
        &self,
        (text, tokens): (&str, &[Token]),
        value: &str,
        types: &[&str],
    ) -> String {
        let mut expression = String::new();
        for (number, type_name) in types.iter().enumerate() {
            let argument = self.argument(number, tokens).unwrap_or_default();
            if let ([first, ..], Some(last)) = (argument, argument.last())
                && argument
                    .iter()
                    .any(|token| token.kind == TokenKind::Parameter)
            {
                let written = slice(text, first.start..last.end);
                expression.push_str(&format!("({written})::{type_name} IS NOT NULL AND "));
            }
        }
        expression.push_str(value);
        let name = quote_identifier(self.question.name());
        match self.place {
            Place::Source { .. } => self.source(&expression),
            Place::Expression | Place::Other => format!("(SELECT {expression} AS {name})"),
        }
    }

    /// The entry of `FROM` that stands in its place.
    fn source(&self, expression: &str) -> String {
        let name = quote_identifier(self.question.name());
        match self.place {
            Place::Source { aliased: true } => format!("unnest(ARRAY[{expression}])"),
            _ => format!("unnest(ARRAY[{expression}]) AS {name}"),
        }
    }

    /// What stands in its place if it asks for a size.
    pub fn size(
        &self,
        (text, tokens): (&str, &[Token]),
        measure: Measure,
        sizes: &Sizes,
    ) -> String {
        let written = |argument: &Range<usize>| {
            let tokens = tokens.get(argument.clone()).unwrap_or_default();
            match (tokens.first(), tokens.last()) {
                (Some(first), Some(last)) => slice(text, first.start..last.end),
                _ => "",
            }
        };
        let arguments: Vec<&str> = self.arguments.iter().map(written).collect();
        let expression = sizes.expression(measure, &arguments);
        match self.place {
            Place::Source { .. } => self.source(&expression),
            Place::Expression | Place::Other => expression,
        }
    }
}
