//! Statements about what a session keeps: prepared statements, cursors, channels.

use super::cursor::Cursor;
use super::query;
use crate::sql::statement::DiscardTarget;
use crate::sql::statement::Fetch;
use crate::sql::statement::FetchDirection;
use crate::sql::statement::Statement;

/// Behind `PREPARE`.
pub(super) fn prepare(mut rest: Cursor) -> Option<Statement> {
    let name_range = rest.peek()?.range();
    let name = rest.name()?;
    let types = if rest.is_symbol(0, "(") {
        let types = rest.parentheses()?.list()?;
        types
            .iter()
            .map(Cursor::range)
            .collect::<Option<Vec<_>>>()?
    } else {
        Vec::new()
    };
    if !rest.eat(&["as"]) {
        return None;
    }
    query::classify(rest)?;
    let body = rest.range()?;
    Some(Statement::Prepare {
        name,
        name_range,
        types,
        body,
    })
}

/// Behind `EXECUTE`.
pub(super) fn execute(mut rest: Cursor) -> Option<Statement> {
    let name_range = rest.peek()?.range();
    let name = rest.name()?;
    let arguments = if rest.is_symbol(0, "(") {
        let arguments = rest.parentheses()?.list()?;
        arguments
            .iter()
            .map(Cursor::range)
            .collect::<Option<Vec<_>>>()?
    } else {
        Vec::new()
    };
    rest.end(Statement::Execute {
        name,
        name_range,
        arguments,
    })
}

/// Behind `DEALLOCATE`: a lone `prepare` is the name.
pub(super) fn deallocate(mut rest: Cursor) -> Option<Statement> {
    if rest.tokens().len() > 1 {
        rest.eat(&["prepare"]);
    }
    all_or_name(rest).map(Statement::Deallocate)
}

/// Behind `CLOSE`.
pub(super) fn close(rest: Cursor) -> Option<Statement> {
    all_or_name(rest).map(Statement::CloseCursor)
}

fn all_or_name(mut rest: Cursor) -> Option<Option<String>> {
    if rest.eat(&["all"]) {
        return rest.end(None);
    }
    let name = rest.name()?;
    rest.end(Some(name))
}

/// Behind `DECLARE`.
pub(super) fn declare(mut rest: Cursor) -> Option<Statement> {
    let name = rest.name()?;
    let mut binary = false;
    let mut scroll = None;
    while !rest.eat(&["cursor"]) {
        if rest.eat(&["no", "scroll"]) {
            scroll = Some(false);
        } else if rest.eat(&["scroll"]) {
            scroll = Some(true);
        } else if rest.eat(&["binary"]) {
            binary = true;
        } else if !rest.eat_any(&["asensitive", "insensitive"]) {
            return None;
        }
    }
    let hold = rest.eat(&["with", "hold"]);
    if !hold {
        rest.eat(&["without", "hold"]);
    }
    if !rest.eat(&["for"]) {
        return None;
    }
    query::classify(rest)?;
    Some(Statement::Declare {
        name,
        hold,
        binary,
        scroll,
        body: rest.range()?,
    })
}

/// Behind `FETCH` or `MOVE`.
pub(super) fn fetch(rest: Cursor) -> Option<Fetch> {
    let (last, before) = rest.tokens().split_last()?;
    let cursor = Cursor::new(rest.text, std::slice::from_ref(last)).name()?;
    let mut rest = Cursor::new(rest.text, before);
    let direction = direction(&mut rest)?;
    rest.eat_any(&["from", "in"]);
    rest.end(Fetch { cursor, direction })
}

fn direction(rest: &mut Cursor) -> Option<FetchDirection> {
    if rest.is_end() || rest.is_any(0, &["from", "in"]) {
        return Some(FetchDirection::Forward(1));
    }
    if let Some(count) = rest.integer() {
        return Some(FetchDirection::Forward(count));
    }
    let fixed = [
        ("next", FetchDirection::Forward(1)),
        ("prior", FetchDirection::Backward(1)),
        ("first", FetchDirection::Absolute(1)),
        ("last", FetchDirection::Absolute(-1)),
        ("all", FetchDirection::ForwardAll),
    ];
    if let Some((_, direction)) = fixed.iter().find(|(word, _)| rest.eat(&[word])) {
        return Some(*direction);
    }
    if rest.eat(&["absolute"]) {
        return rest.integer().map(FetchDirection::Absolute);
    }
    if rest.eat(&["relative"]) {
        return rest.integer().map(FetchDirection::Relative);
    }
    let forward = rest.eat(&["forward"]);
    if !forward && !rest.eat(&["backward"]) {
        return None;
    }
    let (all, count): (_, fn(i64) -> FetchDirection) = if forward {
        (FetchDirection::ForwardAll, FetchDirection::Forward)
    } else {
        (FetchDirection::BackwardAll, FetchDirection::Backward)
    };
    if rest.eat(&["all"]) {
        return Some(all);
    }
    if rest.is_end() || rest.is_any(0, &["from", "in"]) {
        return Some(count(1));
    }
    rest.integer().map(count)
}

/// Behind `LISTEN`.
pub(super) fn listen(mut rest: Cursor) -> Option<Statement> {
    let channel = rest.name()?;
    rest.end(Statement::Listen(channel))
}

/// Behind `UNLISTEN`.
pub(super) fn unlisten(mut rest: Cursor) -> Option<Statement> {
    if rest.eat_symbol("*") {
        return rest.end(Statement::Unlisten(None));
    }
    let channel = rest.name()?;
    rest.end(Statement::Unlisten(Some(channel)))
}

/// Behind `NOTIFY`.
pub(super) fn notify(mut rest: Cursor) -> Option<Statement> {
    let channel = rest.name()?;
    let payload = if rest.eat_symbol(",") {
        Some(rest.string()?.range())
    } else {
        None
    };
    rest.end(Statement::Notify { channel, payload })
}

/// Behind `DISCARD`.
pub(super) fn discard(mut rest: Cursor) -> Option<Statement> {
    let targets = [
        ("all", DiscardTarget::All),
        ("plans", DiscardTarget::Plans),
        ("sequences", DiscardTarget::Sequences),
        ("temp", DiscardTarget::Temporary),
        ("temporary", DiscardTarget::Temporary),
    ];
    let (_, target) = targets.iter().find(|(word, _)| rest.eat(&[word]))?;
    rest.end(Statement::Discard(*target))
}
