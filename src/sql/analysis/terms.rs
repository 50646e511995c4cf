//! The terms of conditions, and the columns that expressions name.

use sqlparser::ast::BinaryOperator;
use sqlparser::ast::Expr;
use sqlparser::ast::Ident;
use sqlparser::ast::UnaryOperator;

use crate::sql::parse;

use super::Column;
use super::Conjunction;
use super::Reference;
use super::Scope;
use super::Sources;
use super::Term;
use super::Walker;
use super::condition::column;
use super::condition::is_null;
use super::condition::plain;

impl Walker<'_> {
    /// Notes the terms of a `WHERE` or `ON`. What stands in parentheses is one term.
    pub(super) fn terms(&mut self, condition: &Expr, scope: &Scope, restricts: Option<Sources>) {
        let mut terms = Vec::new();
        let mut rest = condition;
        while let Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } = rest
        {
            terms.push(self.term(right, scope));
            rest = left;
        }
        terms.push(self.term(rest, scope));
        terms.reverse();
        self.facts.conjunctions.push(Conjunction {
            block: scope.block,
            restricts,
            terms,
        });
    }

    fn term(&self, term: &Expr, scope: &Scope) -> Term {
        Term {
            offset: self.literal_offset(term),
            strict: strict(term, scope),
        }
    }

    /// Notes a name that an expression uses.
    pub(super) fn reference(&mut self, parts: &[Ident], scope: &Scope) {
        let Some((name, qualifier)) = parts.split_last() else {
            return;
        };
        let first = qualifier.first().unwrap_or(name);
        self.facts.references.push(Reference {
            block: scope.block,
            column: Column {
                qualifier: qualifier.iter().map(|part| part.value.clone()).collect(),
                name: name.value.clone(),
                visible: scope.visible.clone(),
            },
            offset: parse::offset(first.span.start.line, self.tokens),
        });
    }
}

/// The columns without which a term is not true.
fn strict(term: &Expr, scope: &Scope) -> Vec<Column> {
    let sides: [Option<&Expr>; 2] = match plain(term) {
        // With transform_null_equals, `column = NULL` means IS NULL.
        Expr::BinaryOp { left, right, .. } if is_null(plain(left)) || is_null(plain(right)) => {
            return Vec::new();
        }
        Expr::BinaryOp {
            left,
            op:
                BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq,
            right,
        } => [Some(left), Some(right)],
        Expr::InList { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::Like {
            expr, any: false, ..
        }
        | Expr::ILike {
            expr, any: false, ..
        }
        | Expr::IsNotNull(expr)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => [Some(expr), None],
        other => [Some(other), None],
    };
    let sides = sides.into_iter().flatten();
    sides
        .filter_map(|side| column(plain(side), scope))
        .collect()
}
