//! Statements that begin and end transactions and savepoints (`TransactionStmt` in PostgreSQL's
//! grammar).

use super::cursor::Cursor;
use crate::sql::statement::Begin;
use crate::sql::statement::IsolationLevel;
use crate::sql::statement::Statement;
use crate::sql::statement::TransactionModes;

/// Behind `BEGIN`, or behind `START`.
pub(super) fn begin(whole: Cursor, mut rest: Cursor, start: bool) -> Option<Statement> {
    if start {
        if !rest.eat(&["transaction"]) {
            return None;
        }
    } else {
        rest.eat_any(&["work", "transaction"]);
    }
    let modes = if rest.is_end() {
        TransactionModes::default()
    } else {
        modes(rest)?
    };
    let text = whole.range()?;
    Some(Statement::Begin(Begin { modes, text }))
}

/// `transaction_mode_list`, to the end.
pub(super) fn modes(mut rest: Cursor) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    loop {
        mode(&mut rest, &mut modes)?;
        if rest.is_end() {
            return Some(modes);
        }
        rest.eat_symbol(",");
    }
}

fn mode(rest: &mut Cursor, modes: &mut TransactionModes) -> Option<()> {
    if rest.eat(&["isolation", "level"]) {
        let level = [
            (
                &["read", "uncommitted"][..],
                IsolationLevel::ReadUncommitted,
            ),
            (&["read", "committed"], IsolationLevel::ReadCommitted),
            (&["repeatable", "read"], IsolationLevel::RepeatableRead),
            (&["serializable"], IsolationLevel::Serializable),
        ];
        let (_, level) = level.iter().find(|(words, _)| rest.eat(words))?;
        modes.isolation = Some(*level);
    } else if rest.eat(&["read", "only"]) {
        modes.read_only = Some(true);
    } else if rest.eat(&["read", "write"]) {
        modes.read_only = Some(false);
    } else if rest.eat(&["deferrable"]) {
        modes.deferrable = Some(true);
    } else if rest.eat(&["not", "deferrable"]) {
        modes.deferrable = Some(false);
    } else {
        return None;
    }
    Some(())
}

/// Behind `COMMIT`; behind `END`, which has no `PREPARED`.
pub(super) fn commit(mut rest: Cursor, end: bool) -> Option<Statement> {
    if !end && rest.eat(&["prepared"]) {
        return gid(rest, Statement::CommitPrepared);
    }
    rest.eat_any(&["work", "transaction"]);
    chain(rest).map(|chain| Statement::Commit { chain })
}

/// Behind `ROLLBACK`; behind `ABORT`, which has neither `PREPARED` nor `TO`.
pub(super) fn rollback(mut rest: Cursor, abort: bool) -> Option<Statement> {
    if !abort && rest.eat(&["prepared"]) {
        return gid(rest, Statement::RollbackPrepared);
    }
    rest.eat_any(&["work", "transaction"]);
    if !abort && rest.eat(&["to"]) {
        let name = savepoint_name(&mut rest)?;
        return rest.end(Statement::RollbackTo(name));
    }
    chain(rest).map(|chain| Statement::Rollback { chain })
}

/// `opt_transaction_chain`, to the end.
fn chain(mut rest: Cursor) -> Option<bool> {
    let chain = rest.eat(&["and", "chain"]);
    if !chain {
        rest.eat(&["and", "no", "chain"]);
    }
    rest.end(chain)
}

fn gid(mut rest: Cursor, statement: Statement) -> Option<Statement> {
    rest.string()?;
    rest.end(statement)
}

/// Behind `SAVEPOINT`.
pub(super) fn savepoint(mut rest: Cursor) -> Option<Statement> {
    let name = rest.name()?;
    rest.end(Statement::Savepoint(name))
}

/// Behind `RELEASE`.
pub(super) fn release(mut rest: Cursor) -> Option<Statement> {
    let name = savepoint_name(&mut rest)?;
    rest.end(Statement::Release(name))
}

/// `[SAVEPOINT] ColId`: a lone `savepoint` is the name.
fn savepoint_name(rest: &mut Cursor) -> Option<String> {
    if rest.tokens().len() > 1 {
        rest.eat(&["savepoint"]);
    }
    rest.name()
}

/// Behind `PREPARE`, if it is `PREPARE TRANSACTION 'gid'`.
pub(super) fn prepare_transaction(mut rest: Cursor) -> Option<Statement> {
    if !rest.eat(&["transaction"]) {
        return None;
    }
    gid(rest, Statement::PrepareTransaction)
}
