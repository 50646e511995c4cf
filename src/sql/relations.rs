//! Finds by tokens alone every name of a statement that could be a relation.

use crate::sql::classify::is_reserved;
use crate::sql::literal::identifier_value;
use crate::sql::statement::TokenRelation;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Every name of the statement that could be a relation, each once, and many that are not (columns,
/// aliases, functions, keywords): for when the parser gives up. Of `a.b.c` come `a`, `a.b`, `b.c`.
///
/// Names inside strings (`'t'::regclass`, dynamic SQL) are not found, nor those with escapes that
/// PostgreSQL rejects.
pub fn relations(text: &str, tokens: &[Token]) -> Vec<TokenRelation> {
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    let mut dotted = false;
    for token in tokens {
        if token.is_symbol(text, ".") {
            dotted = before.is_some();
            continue;
        }
        let schema = before.take().filter(|_| dotted);
        let Some(name) = identifier_value(text, token) else {
            dotted = false;
            continue;
        };
        let reserved = token.kind == TokenKind::Word && is_reserved(&name);
        let name = name.into_owned();
        if schema.is_some() || !reserved {
            before = Some(name.clone());
            // Behind a dot the name can't stand for itself.
            found.push(TokenRelation { schema, name });
        }
        dotted = false;
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::tokenize;
    use crate::sql::token::LexOptions;

    fn found(text: &str) -> String {
        let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
        let relations = relations(text, &tokens).into_iter();
        let names = relations.map(|relation| match relation.schema {
            Some(schema) => format!("{schema}.{}", relation.name),
            None => relation.name,
        });
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_name_is_found_once() {
        let text = "SELECT a.x FROM A, s.T, d.s.u WHERE \"From\" = 'z' AND a = $1";
        assert_eq!(found(text), "From a d s a.x d.s s.t s.u");
        assert_eq!(found("TABLE ONLY t *"), "t");
        assert_eq!(found("SELECT t.*, (f(x)).y FROM f"), "f t x y");
        assert_eq!(found("SELECT 1"), "");
    }
}
