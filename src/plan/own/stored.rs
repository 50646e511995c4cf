//! `pg_prepared_statements`: where a statement names the view or its function, and what stands there
//! instead.

use crate::catalog::Catalog;
use crate::catalog::Lookup;
use crate::error::Error;
use crate::plan::own::OwnCall;
use crate::plan::own::Question;
use crate::sql::analysis::Facts;
use crate::sql::analysis::Place;
use crate::sql::analysis::SourceKind;
use crate::sql::literal::identifier_value;
use crate::sql::literal::quote_identifier;
use crate::sql::token::Token;

/// The view.
pub const VIEW: &str = "pg_prepared_statements";

/// The function.
pub const FUNCTION: &str = "pg_prepared_statement";

/// Where a query reads the view.
pub(super) fn views(
    facts: &Facts,
    catalog: &Catalog,
    search_path: &[String],
    written: (&str, &[Token]),
) -> Vec<OwnCall> {
    let mut found = Vec::new();
    for block in &facts.blocks {
        let target = usize::from(block.kind.modifies());
        for source in block.sources.iter().skip(target) {
            let SourceKind::Relation(name) = &source.kind else {
                continue;
            };
            let schema = name.schema.as_deref();
            let is_view = name.name == VIEW
                && schema.is_none_or(|schema| schema == "pg_catalog")
                && matches!(catalog.relation(schema, VIEW, search_path), Lookup::System);
            if is_view {
                let place = Place::Source {
                    aliased: source.alias.is_some(),
                };
                let located = source
                    .offset
                    .filter(|_| !source.sampled)
                    .and_then(|offset| locate(written, offset, place));
                found.push(located.unwrap_or_else(unanswered));
            }
        }
    }
    found
}

/// Where a statement that is not analysed names the view or its function.
pub(crate) fn mentions(text: &str, all: &[Token]) -> Box<[OwnCall]> {
    let mut found = Vec::new();
    for (at, token) in all.iter().enumerate() {
        let name = identifier_value(text, token);
        let is_view = name.as_deref() == Some(VIEW);
        if !is_view && name.as_deref() != Some(FUNCTION) {
            continue;
        }
        let place = Place::Source { aliased: false };
        let located = locate((text, all), token.start, place);
        let is_command = |call: &OwnCall| {
            let first = all.get(call.tokens.start);
            first.is_some_and(|first| first.is_word(text, "table")) && call.tokens.end == at + 1
        };
        let located = located.filter(|call| is_view && is_command(call));
        found.push(located.unwrap_or_else(unanswered));
    }
    found.into()
}

/// One that nothing can stand for.
pub(super) fn unanswered() -> OwnCall {
    OwnCall {
        question: Question::Prepared { is_view: true },
        place: Place::Other,
        tokens: 0..1,
        arguments: Vec::new(),
        is_certain: false,
        if_there: None,
    }
}

/// The tokens of the view at an offset: its schema and `ONLY`, which means nothing to a view, or the
/// `TABLE` of a command belong to it.
fn locate((text, all): (&str, &[Token]), offset: u32, place: Place) -> Option<OwnCall> {
    let name = all.partition_point(|token| token.start < offset);
    let is_word = |index: usize, word| all.get(index).is_some_and(|one| one.is_word(text, word));
    let is_symbol = |index: usize, it| all.get(index).is_some_and(|one| one.is_symbol(text, it));
    identifier_value(text, all.get(name)?)?;
    let mut start = name;
    if name >= 2 && is_symbol(name - 1, ".") {
        start = name - 2;
    }
    let before = start.checked_sub(1);
    if let Some(before) = before.filter(|at| is_word(*at, "only") || is_word(*at, "table")) {
        start = before;
    }
    let is_enclosed = before.is_some_and(|at| {
        let only = at.checked_sub(1);
        is_symbol(at, "(") && only.is_some_and(|only| is_word(only, "only"))
    });
    (!is_enclosed && !is_symbol(name + 1, "*")).then_some(OwnCall {
        question: Question::Prepared { is_view: true },
        place,
        tokens: start..name + 1,
        arguments: Vec::new(),
        is_certain: false,
        if_there: None,
    })
}

impl OwnCall {
    /// What stands in place of the view or its function: `table`, a query in parentheses.
    ///
    /// # Errors
    /// `0A000` where no entry of `FROM` can stand.
    pub fn stored(&self, (text, tokens): (&str, &[Token]), table: &str) -> Result<String, Error> {
        let Place::Source { aliased } = self.place else {
            return Err(refused("in this place"));
        };
        let name = match aliased {
            true => String::new(),
            false => format!(" AS {}", quote_identifier(self.question.name())),
        };
        let first = tokens.get(self.tokens.start);
        let command = match first.is_some_and(|first| first.is_word(text, "table")) {
            true => "SELECT * FROM ",
            false => "",
        };
        Ok(format!("{command}{table}{name}"))
    }

    /// Whether it asks for the session's prepared statements.
    pub fn asks_prepared(&self) -> bool {
        matches!(self.question, Question::Prepared { .. })
    }
}

/// That the view can't be answered (`0A000`).
pub fn refused(place: &str) -> Error {
    Error::refused(
        format!("{VIEW} is not supported {place}"),
        "Servers know the statements of all clients under other names, so the session's own are put \
         into the query that asks for them.",
        format!("Write SELECT … FROM {VIEW} as a query of its own."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::tokenize;
    use crate::sql::token::LexOptions;

    fn answered(text: &str) -> Vec<String> {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        let calls = mentions(text, &tokens);
        let calls = calls.iter().map(|call| {
            let range = call.range(&tokens);
            match call.stored((text, &tokens), "(X)") {
                Ok(answer) => format!("{:?} {answer}", &text[range.unwrap().start as usize..]),
                Err(error) => error.code().as_str().to_owned(),
            }
        });
        calls.collect()
    }

    #[test]
    fn a_table_command_is_answered_and_other_mentions_are_not() {
        let answer = "SELECT * FROM (X) AS \"pg_prepared_statements\"";
        for text in [
            "TABLE pg_prepared_statements",
            "TABLE \"pg_catalog\" . PG_Prepared_Statements",
        ] {
            assert_eq!(answered(text), [format!("{text:?} {answer}")]);
        }
        for text in [
            "CREATE TABLE t AS SELECT * FROM pg_prepared_statements",
            "TABLE ONLY (pg_prepared_statements)",
            "SELECT (pg_prepared_statement()).name",
        ] {
            assert_eq!(answered(text), ["0A000"], "{text}");
        }
        assert!(answered("SELECT 'pg_prepared_statements'").is_empty());
    }
}
