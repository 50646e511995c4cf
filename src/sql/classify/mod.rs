//! Tells statements apart by their tokens, as far as PostgreSQL's grammar matters to a session.

mod copy;
mod cursor;
mod ddl;
mod execute;
mod explain;
mod query;
mod session;
mod setting;
mod transaction;

use crate::sql::statement::DdlVerb;
use crate::sql::statement::Maintenance;
use crate::sql::statement::Statement;
use crate::sql::token::Token;
use cursor::Cursor;

pub use cursor::is_reserved;
pub use execute::Executed;
pub use execute::executed;
pub use setting::setting_values;

/// What the statement that `tokens` of `text` make up is: one statement, with or without semicolons
/// around it.
///
/// Statements that begin, end or change a session's state are recognised to the last token, and are
/// [`Statement::Other`] where PostgreSQL's grammar would reject them; the rest by their first words.
pub fn classify(text: &str, tokens: &[Token]) -> Statement {
    let whole = Cursor::new(text, without_semicolons(text, tokens));
    if whole.is_end() {
        return Statement::Empty;
    }
    if let Some(query) = query::classify(whole) {
        return Statement::Query(query);
    }
    transaction_statement(whole)
        .or_else(|| session_statement(whole))
        .or_else(|| utility(whole))
        .unwrap_or(Statement::Other)
}

/// The tokens of the statement alone, which may stand between semicolons.
fn without_semicolons<'a>(text: &str, tokens: &'a [Token]) -> &'a [Token] {
    let is_semicolon = |token: &Token| token.is_symbol(text, ";");
    let start = tokens
        .iter()
        .take_while(|token| is_semicolon(token))
        .count();
    let tokens = tokens.get(start..).unwrap_or_default();
    let behind = tokens
        .iter()
        .rev()
        .take_while(|token| is_semicolon(token))
        .count();
    tokens.get(..tokens.len() - behind).unwrap_or_default()
}

/// Statements about transactions and settings.
fn transaction_statement(whole: Cursor) -> Option<Statement> {
    let mut rest = whole;
    match first_word(&mut rest)?.as_str() {
        "begin" => transaction::begin(whole, rest, false),
        "start" => transaction::begin(whole, rest, true),
        "commit" => transaction::commit(rest, false),
        "end" => transaction::commit(rest, true),
        "rollback" => transaction::rollback(rest, false),
        "abort" => transaction::rollback(rest, true),
        "savepoint" => transaction::savepoint(rest),
        "release" => transaction::release(rest),
        "prepare" => transaction::prepare_transaction(rest).or_else(|| session::prepare(rest)),
        "set" => setting::set(rest),
        "reset" => setting::reset(rest),
        "show" => setting::show(rest),
        _ => None,
    }
}

/// Statements about what a session keeps.
fn session_statement(whole: Cursor) -> Option<Statement> {
    let mut rest = whole;
    match first_word(&mut rest)?.as_str() {
        "execute" => session::execute(rest),
        "deallocate" => session::deallocate(rest),
        "declare" => session::declare(rest),
        "fetch" => session::fetch(rest).map(Statement::Fetch),
        "move" => session::fetch(rest).map(Statement::Move),
        "close" => session::close(rest),
        "listen" => session::listen(rest),
        "unlisten" => session::unlisten(rest),
        "notify" => session::notify(rest),
        "discard" => session::discard(rest),
        "copy" => copy::copy(rest).map(Box::new).map(Statement::Copy),
        "explain" => explain::explain(whole, rest)
            .map(Box::new)
            .map(Statement::Explain),
        _ => None,
    }
}

/// Statements that are known by their first words.
fn utility(whole: Cursor) -> Option<Statement> {
    let mut rest = whole;
    let statement = match first_word(&mut rest)?.as_str() {
        "lock" => Statement::Lock,
        "call" => Statement::Call,
        "do" => Statement::Do,
        "truncate" => Statement::Truncate,
        "vacuum" => Statement::Maintenance(Maintenance::Vacuum),
        "analyze" | "analyse" => Statement::Maintenance(Maintenance::Analyze),
        "cluster" => Statement::Maintenance(Maintenance::Cluster),
        "reindex" => Statement::Maintenance(Maintenance::Reindex),
        "checkpoint" => Statement::Maintenance(Maintenance::Checkpoint),
        "load" => Statement::Maintenance(Maintenance::Load),
        "create" => Statement::Ddl(ddl::create(rest)),
        "alter" => Statement::Ddl(ddl::alter(rest)),
        "drop" => Statement::Ddl(ddl::drop(rest)),
        "grant" => Statement::Ddl(ddl::other(DdlVerb::Grant)),
        "revoke" => Statement::Ddl(ddl::other(DdlVerb::Revoke)),
        "comment" => Statement::Ddl(ddl::about(DdlVerb::Comment, rest)),
        "security" if rest.eat(&["label"]) => {
            Statement::Ddl(ddl::about(DdlVerb::SecurityLabel, rest))
        }
        "refresh" => Statement::Ddl(ddl::about(DdlVerb::Refresh, rest)),
        "reassign" => Statement::Ddl(ddl::about(DdlVerb::Reassign, rest)),
        "import" => Statement::Ddl(ddl::other(DdlVerb::Import)),
        _ => return None,
    };
    Some(statement)
}

/// Reads the first word, in lower case; `None` if it is quoted.
fn first_word(rest: &mut Cursor) -> Option<String> {
    if rest.peek()?.kind != crate::sql::token::TokenKind::Word {
        return None;
    }
    rest.label()
}

/// The boolean that an option's value stands for (`defGetBoolean`).
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Some(true),
        "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
