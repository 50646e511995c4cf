//! Expressions: finds the subqueries, functions and names in them.

use sqlparser::ast::AccessExpr;
use sqlparser::ast::CeilFloorKind;
use sqlparser::ast::DataType;
use sqlparser::ast::Expr;
use sqlparser::ast::Function;
use sqlparser::ast::FunctionArg;
use sqlparser::ast::FunctionArgExpr;
use sqlparser::ast::FunctionArgumentClause;
use sqlparser::ast::FunctionArgumentList;
use sqlparser::ast::FunctionArguments;
use sqlparser::ast::Ident;
use sqlparser::ast::ObjectName;
use sqlparser::ast::Subscript;
use sqlparser::ast::WindowFrameBound;
use sqlparser::ast::WindowSpec;
use sqlparser::ast::WindowType;

use crate::sql::parse;
use crate::sql::parse::StopReason;

use super::BlockId;
use super::Call;
use super::Clauses;
use super::Name;
use super::Place;
use super::Scope;
use super::Walk;
use super::Walker;
use super::absent;
use super::condition::column;
use super::condition::plain;
use super::name;
use super::no_keyword;
use super::parts;

/// Words that the grammar reads as calls although no parentheses follow.
const NILADIC: [&str; 6] = [
    "current_role",
    "current_schema",
    "current_catalog",
    "session_user",
    "system_user",
    "user",
];

impl Walker<'_> {
    pub(super) fn expressions(&mut self, expressions: &[Expr], scope: &Scope) -> Walk {
        for expression in expressions {
            self.expression(expression, scope)?;
        }
        Ok(())
    }

    pub(super) fn optional(&mut self, expression: Option<&Expr>, scope: &Scope) -> Walk {
        expression.map_or(Ok(()), |expression| self.expression(expression, scope))
    }

    fn boxed(&mut self, expression: Option<&Expr>, scope: &Scope) -> Walk {
        self.optional(expression, scope)
    }

    /// Walks an expression whose names are looked up in `scope`.
    pub(super) fn expression(&mut self, expression: &Expr, scope: &Scope) -> Walk {
        // Chains of operators lean to the left and can be long.
        let mut expression = expression;
        while let Expr::BinaryOp { left, right, .. } = expression {
            self.expression(right, scope)?;
            expression = left;
        }
        self.deeper()?;
        if !self.simple(expression, scope)? && !self.special(expression, scope)? {
            self.compound(expression, scope)?;
        }
        self.shallower();
        Ok(())
    }

    /// Leaves, and nodes with one or two children; false for others.
    fn simple(&mut self, expression: &Expr, scope: &Scope) -> Walk<bool> {
        match expression {
            Expr::Identifier(ident) => self.identifier(ident, scope)?,
            Expr::CompoundIdentifier(parts) => {
                parts.first().map_or(Ok(()), no_keyword)?;
                self.reference(parts, scope);
                self.column_name(parts.last());
            }
            Expr::Value(_) | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {}
            Expr::Nested(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::IsJson { expr: inner, .. }
            | Expr::IsNormalized { expr: inner, .. }
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::Extract { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::Named { expr: inner, .. } => self.expression(inner, scope)?,
            Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right)
            | Expr::AnyOp { left, right, .. }
            | Expr::AllOp { left, right, .. }
            | Expr::AtTimeZone {
                timestamp: left,
                time_zone: right,
            }
            | Expr::Position {
                expr: left,
                r#in: right,
            } => {
                self.expression(left, scope)?;
                self.expression(right, scope)?;
            }
            Expr::Cast {
                expr,
                data_type,
                format,
                ..
            } => {
                absent(format.is_none(), "CAST … FORMAT")?;
                self.cast(data_type);
                self.expression(expr, scope)?;
            }
            Expr::TypedString(typed) => self.cast(&typed.data_type),
            Expr::Interval(interval) => self.expression(&interval.value, scope)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Nodes of PostgreSQL's special function syntax; false for others.
    fn special(&mut self, expression: &Expr, scope: &Scope) -> Walk<bool> {
        match expression {
            Expr::Ceil { expr, field } | Expr::Floor { expr, field } => {
                let plain = matches!(field, CeilFloorKind::DateTimeField(_));
                absent(plain, "CEIL with a scale")?;
                self.expression(expr, scope)?;
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                self.expression(expr, scope)?;
                self.boxed(substring_from.as_deref(), scope)?;
                self.boxed(substring_for.as_deref(), scope)?;
            }
            Expr::Trim {
                trim_what,
                expr,
                trim_characters,
                ..
            } => {
                self.expression(expr, scope)?;
                self.boxed(trim_what.as_deref(), scope)?;
                self.expressions(trim_characters.as_deref().unwrap_or_default(), scope)?;
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.expression(expr, scope)?;
                self.expression(overlay_what, scope)?;
                self.expression(overlay_from, scope)?;
                self.boxed(overlay_for.as_deref(), scope)?;
            }
            Expr::Like {
                expr,
                pattern,
                escape_char,
                any: false,
                ..
            }
            | Expr::ILike {
                expr,
                pattern,
                escape_char,
                any: false,
                ..
            }
            | Expr::SimilarTo {
                expr,
                pattern,
                escape_char,
                ..
            } => {
                self.expression(expr, scope)?;
                self.expression(pattern, scope)?;
                self.boxed(escape_char.as_deref(), scope)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// All other nodes that PostgreSQL's grammar has.
    fn compound(&mut self, expression: &Expr, scope: &Scope) -> Walk {
        match expression {
            Expr::InList { expr, list, .. } => {
                self.expression(expr, scope)?;
                self.expressions(list, scope)
            }
            Expr::InSubquery { expr, subquery, .. } => {
                self.expression(expr, scope)?;
                self.subquery(subquery, scope)
            }
            Expr::Between {
                expr, low, high, ..
            } => {
                self.expression(expr, scope)?;
                self.expression(low, scope)?;
                self.expression(high, scope)
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.subquery(subquery, scope)
            }
            Expr::Function(function) => self.function(function, scope),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                self.boxed(operand.as_deref(), scope)?;
                for when in conditions {
                    self.expression(&when.condition, scope)?;
                    self.expression(&when.result, scope)?;
                }
                self.boxed(else_result.as_deref(), scope)
            }
            Expr::Tuple(items) => self.expressions(items, scope),
            Expr::Array(array) => self.expressions(&array.elem, scope),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                for set in sets {
                    self.expressions(set, scope)?;
                }
                Ok(())
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expression(root, scope)?;
                for access in access_chain {
                    self.access(access, scope)?;
                }
                Ok(())
            }
            _ => Err(StopReason::NotAnalysed("an expression")),
        }
    }

    fn access(&mut self, access: &AccessExpr, scope: &Scope) -> Walk {
        match access {
            AccessExpr::Dot(field) => match field {
                Expr::Identifier(name) => {
                    self.column_name(Some(name));
                    Ok(())
                }
                other => self.expression(other, scope),
            },
            AccessExpr::Subscript(Subscript::Index { index }) => self.expression(index, scope),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => {
                absent(stride.is_none(), "a stride")?;
                self.optional(lower_bound.as_ref(), scope)?;
                self.optional(upper_bound.as_ref(), scope)
            }
        }
    }

    fn subquery(&mut self, query: &sqlparser::ast::Query, scope: &Scope) -> Walk {
        self.query(query, Some(scope.clone())).map(|_| ())
    }

    fn identifier(&mut self, ident: &Ident, scope: &Scope) -> Walk {
        if ident.quote_style.is_none() && NILADIC.contains(&ident.value.as_str()) {
            let name = Name {
                schema: None,
                name: ident.value.clone(),
            };
            self.call(name, 0, scope.block, (None, Place::Expression));
            return Ok(());
        }
        self.reference(std::slice::from_ref(ident), scope);
        self.column_name(Some(ident));
        no_keyword(ident)
    }

    fn column_name(&mut self, ident: Option<&Ident>) {
        let system = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
        self.facts.system_columns |=
            ident.is_some_and(|ident| system.contains(&ident.value.as_str()));
    }

    fn cast(&mut self, data_type: &DataType) {
        let object_id = match data_type {
            DataType::Regclass => true,
            DataType::Custom(name, _) => name.0.last().is_some_and(|part| {
                part.as_ident()
                    .is_some_and(|ident| ident.value.starts_with("reg") || ident.value == "oid")
            }),
            _ => false,
        };
        self.facts.object_ids |= object_id;
    }

    /// Notes a call that stands `at` an offset and a place.
    pub(super) fn call(
        &mut self,
        name: Name,
        arguments: usize,
        block: BlockId,
        at: (Option<u32>, Place),
    ) {
        let (offset, place) = at;
        self.facts.calls.push(Call {
            name,
            arguments,
            block,
            offset,
            place,
            windowed: false,
        });
    }

    /// The offset of the last part of a name.
    pub(super) fn name_offset(&self, name: &ObjectName) -> Option<u32> {
        let last = parts(name).ok()?.pop()?;
        parse::offset(last.span.start.line, self.tokens)
    }

    fn function(&mut self, function: &Function, scope: &Scope) -> Walk {
        absent(
            !function.uses_odbc_syntax
                && matches!(function.parameters, FunctionArguments::None)
                && function.null_treatment.is_none(),
            "a function call of another dialect",
        )?;
        let called = name(&function.name)?;
        let at = (self.name_offset(&function.name), Place::Expression);
        match &function.args {
            FunctionArguments::None => self.call(called, 0, scope.block, at),
            FunctionArguments::Subquery(query) => {
                absent(
                    called.schema.is_none() && called.name == "array",
                    "a function of a query",
                )?;
                self.subquery(query, scope)?;
            }
            FunctionArguments::List(list) => {
                self.call(called, list.args.len(), scope.block, at);
                if let Some(call) = self.facts.calls.last_mut() {
                    call.windowed = function.over.is_some();
                }
                self.arguments(&list.args, scope)?;
                self.argument_clauses(list, scope)?;
            }
        }
        if !function.within_group.is_empty() || function.filter.is_some() {
            self.aggregate(scope.block)?;
        }
        self.sort_keys(&function.within_group, scope)?;
        self.boxed(function.filter.as_deref(), scope)?;
        match &function.over {
            None => Ok(()),
            Some(WindowType::NamedWindow(_)) => self.clause(scope.block, Clauses::WINDOW),
            Some(WindowType::WindowSpec(window)) => {
                self.clause(scope.block, Clauses::WINDOW)?;
                self.window(window, scope)
            }
        }
    }

    pub(super) fn arguments(&mut self, arguments: &[FunctionArg], scope: &Scope) -> Walk {
        for argument in arguments {
            let value = match argument {
                FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.expression(name, scope)?;
                    arg
                }
            };
            match value {
                FunctionArgExpr::Expr(expression) => self.expression(expression, scope)?,
                FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::WildcardWithOptions(_) => {
                    return Err(StopReason::NotAnalysed("a wildcard of another dialect"));
                }
            }
        }
        Ok(())
    }

    fn argument_clauses(&mut self, list: &FunctionArgumentList, scope: &Scope) -> Walk {
        if list.duplicate_treatment.is_some() {
            self.aggregate(scope.block)?;
        }
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(keys) => {
                    self.aggregate(scope.block)?;
                    self.sort_keys(keys, scope)?;
                }
                FunctionArgumentClause::JsonNullClause(_)
                | FunctionArgumentClause::JsonReturningClause(_) => {}
                _ => return Err(StopReason::NotAnalysed("a clause of a function call")),
            }
        }
        Ok(())
    }

    pub(super) fn window(&mut self, window: &WindowSpec, scope: &Scope) -> Walk {
        self.expressions(&window.partition_by, scope)?;
        self.sort_keys(&window.order_by, scope)?;
        // One that is made of another is partitioned as that is.
        if window.window_name.is_none() {
            let columns = window.partition_by.iter();
            let columns = columns
                .filter_map(|key| column(plain(key), scope))
                .collect();
            self.block(scope.block)?.partitions.push(columns);
        }
        let Some(frame) = &window.window_frame else {
            return Ok(());
        };
        for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()] {
            if let Some(
                WindowFrameBound::Preceding(Some(offset))
                | WindowFrameBound::Following(Some(offset)),
            ) = bound
            {
                self.expression(offset, scope)?;
            }
        }
        Ok(())
    }
}
