//! Equalities that a condition demands, and the constants they demand it of.

use sqlparser::ast::BinaryOperator;
use sqlparser::ast::CastKind;
use sqlparser::ast::DataType;
use sqlparser::ast::ExactNumberInfo;
use sqlparser::ast::Expr;
use sqlparser::ast::Query;
use sqlparser::ast::SetExpr;
use sqlparser::ast::TimezoneInfo;
use sqlparser::ast::UnaryOperator;
use sqlparser::ast::Value as ParsedValue;

use crate::sql::parse;

use super::CastType;
use super::Column;
use super::Condition;
use super::Equals;
use super::Scope;
use super::Sources;
use super::Value;
use super::ValueSource;
use super::Walk;
use super::Walker;

impl Walker<'_> {
    /// Adds to the scope's block what the conjunction `condition` demands. What is no equality of
    /// its own `AND` demands nothing.
    pub(super) fn conditions(
        &mut self,
        condition: &Expr,
        scope: &Scope,
        restricts: Option<Sources>,
    ) -> Walk {
        let mut rest = vec![condition];
        let mut found = Vec::new();
        while let Some(condition) = rest.pop() {
            match condition {
                Expr::Nested(inner) => rest.push(inner),
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::And,
                    right,
                } => rest.extend([right.as_ref(), left.as_ref()]),
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::Eq,
                    right,
                } => self.equality(left, right, scope, &mut found),
                Expr::InList {
                    expr,
                    list,
                    negated: false,
                } => found.extend(self.membership(expr, list, scope)),
                Expr::AnyOp {
                    left,
                    compare_op: BinaryOperator::Eq,
                    right,
                    ..
                } => match plain(right) {
                    Expr::Array(array) => {
                        found.extend(self.membership(left, &array.elem, scope));
                    }
                    Expr::Subquery(query) => self.among(left, query, scope, &mut found),
                    _ => {}
                },
                Expr::InSubquery {
                    expr,
                    subquery,
                    negated: false,
                } => self.among(expr, subquery, scope, &mut found),
                _ => {}
            }
        }
        let block = self.block(scope.block)?;
        block
            .conditions
            .extend(found.into_iter().map(|(column, equals)| Condition {
                column,
                equals,
                restricts: restricts.clone(),
            }));
        Ok(())
    }

    fn equality(
        &self,
        left: &Expr,
        right: &Expr,
        scope: &Scope,
        found: &mut Vec<(Column, Equals)>,
    ) {
        let (left, right) = (plain(left), plain(right));
        if let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) {
            if left.len() == right.len() {
                for (left, right) in left.iter().zip(right) {
                    if !matches!(plain(left), Expr::Tuple(_)) {
                        self.equality(left, right, scope, found);
                    }
                }
            }
            return;
        }
        // With transform_null_equals, `column = NULL` means IS NULL.
        if is_null(left) || is_null(right) {
            return;
        }
        match (column(left, scope), column(right, scope)) {
            (Some(left), Some(right)) => found.push((left, Equals::Column(right))),
            (Some(column), None) => found.extend(
                self.value(right)
                    .map(|value| (column, Equals::Values(vec![value]))),
            ),
            (None, Some(column)) => found.extend(
                self.value(left)
                    .map(|value| (column, Equals::Values(vec![value]))),
            ),
            (None, None) => {}
        }
    }

    fn membership(&self, left: &Expr, list: &[Expr], scope: &Scope) -> Option<(Column, Equals)> {
        let column = column(plain(left), scope)?;
        let values = list
            .iter()
            .map(|item| self.value(plain(item)))
            .collect::<Option<Vec<Value>>>()?;
        (!values.is_empty()).then_some((column, Equals::Values(values)))
    }

    /// `left` is equal to a row of a subquery.
    fn among(&self, left: &Expr, query: &Query, scope: &Scope, found: &mut Vec<(Column, Equals)>) {
        let SetExpr::Select(select) = query.body.as_ref() else {
            return;
        };
        let line = select.select_token.0.span.start.line;
        let (None, Some(select)) = (&query.with, parse::offset(line, self.tokens)) else {
            return;
        };
        let left = plain(left);
        let sides = match left {
            Expr::Tuple(sides) => sides.as_slice(),
            other => std::slice::from_ref(other),
        };
        for (number, side) in sides.iter().enumerate() {
            if let Some(side) = column(plain(side), scope) {
                let column = number;
                found.push((side, Equals::Query { select, column }));
            }
        }
    }

    /// The constant or parameter that an expression is.
    pub(super) fn value(&self, expression: &Expr) -> Option<Value> {
        match expression {
            Expr::Nested(inner) => self.value(inner),
            Expr::Value(value) => {
                let source = match &value.value {
                    ParsedValue::Number(..) | ParsedValue::SingleQuotedString(_) => {
                        ValueSource::Literal {
                            offset: self.literal_offset(value)?,
                            negative: false,
                        }
                    }
                    ParsedValue::Placeholder(name) => {
                        ValueSource::Parameter(name.strip_prefix('$')?.parse().ok()?)
                    }
                    ParsedValue::Null => ValueSource::Null,
                    ParsedValue::Boolean(value) => ValueSource::Bool(*value),
                    _ => return None,
                };
                Some(Value {
                    source,
                    cast: CastType::None,
                })
            }
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => match plain(expr) {
                Expr::Value(value) if matches!(value.value, ParsedValue::Number(..)) => {
                    Some(Value {
                        source: ValueSource::Literal {
                            offset: self.literal_offset(value)?,
                            negative: true,
                        },
                        cast: CastType::None,
                    })
                }
                _ => None,
            },
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let inner = self.value(expr)?;
                (inner.cast == CastType::None).then_some(Value {
                    source: inner.source,
                    cast: cast_type(data_type),
                })
            }
            Expr::TypedString(typed) => match &typed.value.value {
                ParsedValue::SingleQuotedString(_) => Some(Value {
                    source: ValueSource::Literal {
                        offset: self.literal_offset(&typed.value)?,
                        negative: false,
                    },
                    cast: cast_type(&typed.data_type),
                }),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The expression without parentheses around it.
pub(super) fn plain(expression: &Expr) -> &Expr {
    let mut expression = expression;
    while let Expr::Nested(inner) = expression {
        expression = inner;
    }
    expression
}

pub(super) fn is_null(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if value.value == ParsedValue::Null)
}

/// The column that an expression is.
pub(super) fn column(expression: &Expr, scope: &Scope) -> Option<Column> {
    let (qualifier, name) = match expression {
        Expr::Identifier(name) => (Vec::new(), name.value.clone()),
        Expr::CompoundIdentifier(parts) => {
            let (name, qualifier) = parts.split_last()?;
            let qualifier = qualifier.iter().map(|part| part.value.clone()).collect();
            (qualifier, name.value.clone())
        }
        _ => return None,
    };
    Some(Column {
        qualifier,
        name,
        visible: scope.visible.clone(),
    })
}

/// OIDs of `pg_type.dat`.
pub(super) fn cast_type(data_type: &DataType) -> CastType {
    let oid = match data_type {
        DataType::SmallInt(None) | DataType::Int2(None) => 21,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => 23,
        DataType::BigInt(None) | DataType::Int8(None) => 20,
        DataType::Numeric(ExactNumberInfo::None)
        | DataType::Decimal(ExactNumberInfo::None)
        | DataType::Dec(ExactNumberInfo::None) => 1700,
        DataType::Text => 25,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None) => 1043,
        DataType::Uuid => 2950,
        DataType::Date => 1082,
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => 1114,
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => 1184,
        DataType::Bytea => 17,
        DataType::Bool | DataType::Boolean => 16,
        _ => return CastType::Other,
    };
    CastType::To(oid)
}
