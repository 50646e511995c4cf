//! `SELECT`, `VALUES`, set operations, `WITH`.

use sqlparser::ast::Distinct;
use sqlparser::ast::Expr;
use sqlparser::ast::GroupByExpr;
use sqlparser::ast::GroupByWithModifier;
use sqlparser::ast::LimitClause;
use sqlparser::ast::NamedWindowExpr;
use sqlparser::ast::OrderBy;
use sqlparser::ast::OrderByExpr;
use sqlparser::ast::OrderByKind;
use sqlparser::ast::Query;
use sqlparser::ast::Select;
use sqlparser::ast::SelectFlavor;
use sqlparser::ast::SelectItem;
use sqlparser::ast::SelectItemQualifiedWildcardKind;
use sqlparser::ast::SetExpr;
use sqlparser::ast::Value;
use sqlparser::ast::Values;
use sqlparser::ast::WildcardAdditionalOptions;
use sqlparser::ast::With;

use crate::sql::parse;
use crate::sql::parse::StopReason;

use super::BlockId;
use super::BlockKind;
use super::Clauses;
use super::Cte;
use super::GroupKey;
use super::Name;
use super::Output;
use super::Scope;
use super::SourceKind;
use super::Walk;
use super::Walker;
use super::absent;
use super::condition::column;
use super::condition::plain;
use super::parts;

impl Walker<'_> {
    /// Walks a query; the block that holds its top.
    pub(super) fn query(&mut self, query: &Query, outer: Option<Scope>) -> Walk<BlockId> {
        self.deeper()?;
        let ctes = self.ctes.len();
        // A block of its own would only carry the clauses: the body's block carries them.
        let first = self.facts.blocks.len();
        if let Some(with) = &query.with {
            // The body's block must come first when it is the statement's.
            let holder = self.open(BlockKind::SetOperation, outer.clone());
            self.clause(holder, Clauses::WITH)?;
            self.with(with, outer.clone())?;
        }
        let body = self.set_expression(&query.body, outer)?;
        self.clauses(query, body)?;
        self.ctes.truncate(ctes);
        self.shallower();
        if query.with.is_some() {
            // What is asked of the whole is asked of its body.
            let clauses = self.block(body)?.clauses;
            self.clause(first, clauses)?;
        }
        Ok(body)
    }

    pub(super) fn with(&mut self, with: &With, outer: Option<Scope>) -> Walk {
        if with.recursive {
            self.facts.recursive = true;
            self.ctes.extend(with.cte_tables.iter().map(|cte| Cte {
                name: cte.alias.name.value.clone(),
                block: None,
                columns: Vec::new(),
            }));
        }
        for cte in &with.cte_tables {
            self.facts.ctes.push(cte.alias.name.value.clone());
            absent(
                cte.from.is_none() && cte.alias.at.is_none(),
                "a CTE of another dialect",
            )?;
            let block = self.query(&cte.query, outer.clone())?;
            if !with.recursive {
                let columns = cte.alias.columns.iter();
                self.ctes.push(Cte {
                    name: cte.alias.name.value.clone(),
                    block: Some(block),
                    columns: columns.map(|column| column.name.value.clone()).collect(),
                });
            }
        }
        Ok(())
    }

    /// The clauses behind a query's body.
    fn clauses(&mut self, query: &Query, body: BlockId) -> Walk {
        absent(
            query.for_clause.is_none()
                && query.settings.is_none()
                && query.format_clause.is_none()
                && query.pipe_operators.is_empty(),
            "a clause of another dialect",
        )?;
        let scope = self.everything(body)?;
        if let Some(order_by) = &query.order_by {
            self.clause(body, Clauses::ORDER_BY)?;
            self.order_by(order_by, &scope)?;
        }
        match &query.limit_clause {
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) => {
                absent(limit_by.is_empty(), "LIMIT BY")?;
                if let Some(limit) = limit {
                    self.clause(body, Clauses::LIMIT)?;
                    self.expression(limit, &scope)?;
                }
                if let Some(offset) = offset {
                    self.clause(body, Clauses::OFFSET)?;
                    self.expression(&offset.value, &scope)?;
                }
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                return Err(StopReason::NotAnalysed("LIMIT with a comma"));
            }
            None => {}
        }
        if let Some(fetch) = &query.fetch {
            self.clause(body, Clauses::LIMIT)?;
            self.optional(fetch.quantity.as_ref(), &scope)?;
        }
        self.locks(query, body)
    }

    /// Marks what `FOR UPDATE OF` names, or everything without OF.
    fn locks(&mut self, query: &Query, body: BlockId) -> Walk {
        for lock in &query.locks {
            self.clause(body, Clauses::LOCKING)?;
            let named = lock.of.as_ref().map(super::name).transpose()?;
            for source in &mut self.block(body)?.sources {
                let name = match (&source.alias, &source.kind) {
                    (Some(alias), _) => Some(alias),
                    (None, SourceKind::Relation(relation)) => Some(&relation.name),
                    (None, _) => None,
                };
                source.locked |= named
                    .as_ref()
                    .is_none_or(|locked| name.is_none_or(|name| *name == locked.name));
            }
        }
        Ok(())
    }

    fn order_by(&mut self, order_by: &OrderBy, scope: &Scope) -> Walk {
        absent(order_by.interpolate.is_none(), "INTERPOLATE")?;
        match &order_by.kind {
            OrderByKind::Expressions(keys) => self.sort_keys(keys, scope),
            OrderByKind::All(_) => Err(StopReason::NotAnalysed("ORDER BY ALL")),
        }
    }

    pub(super) fn sort_keys(&mut self, keys: &[OrderByExpr], scope: &Scope) -> Walk {
        for key in keys {
            absent(key.with_fill.is_none(), "WITH FILL")?;
            self.expression(&key.expr, scope)?;
        }
        Ok(())
    }

    fn set_expression(&mut self, body: &SetExpr, outer: Option<Scope>) -> Walk<BlockId> {
        match body {
            SetExpr::Select(select) => self.select(select, outer),
            SetExpr::Query(query) => self.query(query, outer),
            SetExpr::Values(values) => self.values(values, outer),
            SetExpr::SetOperation { .. } => self.set_operation(body, outer),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.statement(statement, outer),
            SetExpr::Table(_) => Err(StopReason::NotAnalysed("TABLE")),
        }
    }

    /// `a UNION b EXCEPT c`: the tree leans to the left and can be long.
    fn set_operation(&mut self, body: &SetExpr, outer: Option<Scope>) -> Walk<BlockId> {
        let block = self.open(BlockKind::SetOperation, outer.clone());
        let mut arms = Vec::new();
        let mut rest = body;
        while let SetExpr::SetOperation { left, right, .. } = rest {
            arms.push(right.as_ref());
            rest = left;
        }
        arms.push(rest);
        self.deeper()?;
        for arm in arms.into_iter().rev() {
            let arm = self.set_expression(arm, outer.clone())?;
            self.block(block)?.arms.push(arm);
        }
        self.shallower();
        Ok(block)
    }

    fn values(&mut self, values: &Values, outer: Option<Scope>) -> Walk<BlockId> {
        absent(!values.explicit_row, "VALUES ROW")?;
        let block = self.open(BlockKind::Values, outer);
        let scope = self.everything(block)?;
        for row in &values.rows {
            self.expressions(&row.content, &scope)?;
        }
        Ok(block)
    }

    fn select(&mut self, select: &Select, outer: Option<Scope>) -> Walk<BlockId> {
        foreign_clauses(select)?;
        let block = self.open(BlockKind::Select, outer);
        let at = parse::offset(select.select_token.0.span.start.line, self.tokens);
        self.block(block)?.select = at;
        self.from(&select.from, block)?;
        let scope = self.everything(block)?;
        self.select_items(&select.projection, &scope)?;
        self.block(block)?.outputs = outputs(&select.projection, &scope);
        if let Some(selection) = &select.selection {
            self.terms(selection, &scope, None);
            self.conditions(selection, &scope, None)?;
            self.expression(selection, &scope)?;
        }
        match &select.distinct {
            Some(Distinct::On(keys)) => {
                self.clause(block, Clauses::DISTINCT)?;
                self.clause(block, Clauses::DISTINCT_ON)?;
                self.expressions(keys, &scope)?;
            }
            Some(Distinct::Distinct) => self.clause(block, Clauses::DISTINCT)?,
            Some(Distinct::All) | None => {}
        }
        if let Some(into) = &select.into {
            self.clause(block, Clauses::INTO)?;
            for target in &into.targets {
                let name = match target {
                    Expr::Identifier(name) => Name {
                        schema: None,
                        name: name.value.clone(),
                    },
                    Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                        [schema, name] => Name {
                            schema: Some(schema.value.clone()),
                            name: name.value.clone(),
                        },
                        _ => return Err(StopReason::NotAnalysed("SELECT INTO")),
                    },
                    _ => return Err(StopReason::NotAnalysed("SELECT INTO")),
                };
                self.facts.created.push(name);
            }
        }
        self.group_by(&select.group_by, &scope)?;
        if let Some(having) = &select.having {
            self.clause(block, Clauses::HAVING)?;
            self.expression(having, &scope)?;
        }
        for window in &select.named_window {
            self.clause(block, Clauses::WINDOW)?;
            match &window.1 {
                NamedWindowExpr::WindowSpec(window) => self.window(window, &scope)?,
                NamedWindowExpr::NamedWindow(_) => {}
            }
        }
        Ok(block)
    }

    fn group_by(&mut self, group_by: &GroupByExpr, scope: &Scope) -> Walk {
        let GroupByExpr::Expressions(keys, modifiers) = group_by else {
            return Err(StopReason::NotAnalysed("GROUP BY ALL"));
        };
        if !keys.is_empty() || !modifiers.is_empty() {
            self.clause(scope.block, Clauses::GROUP_BY)?;
        }
        let groups = keys.iter().filter_map(|key| group_key(key, scope));
        self.block(scope.block)?.groups = groups.collect();
        self.expressions(keys, scope)?;
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::GroupingSets(sets) => self.expression(sets, scope)?,
                _ => return Err(StopReason::NotAnalysed("GROUP BY … WITH")),
            }
        }
        Ok(())
    }

    pub(super) fn select_items(&mut self, items: &[SelectItem], scope: &Scope) -> Walk {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expression) => self.expression(expression, scope)?,
                SelectItem::ExprWithAlias { expr, alias } => {
                    // `x 'literal'` is no alias in PostgreSQL but a typed literal.
                    absent(alias.quote_style != Some('\''), "a typed literal")?;
                    self.expression(expr, scope)?;
                }
                SelectItem::ExprWithAliases { .. } => {
                    return Err(StopReason::NotAnalysed("a list of aliases"));
                }
                SelectItem::QualifiedWildcard(kind, options) => {
                    plain_wildcard(options)?;
                    if let SelectItemQualifiedWildcardKind::Expr(expression) = kind {
                        self.expression(expression, scope)?;
                    }
                }
                SelectItem::Wildcard(options) => plain_wildcard(options)?,
            }
        }
        Ok(())
    }
}

/// The columns of a select list.
fn outputs(items: &[SelectItem], scope: &Scope) -> Vec<Output> {
    let outputs = items.iter().map(|item| match item {
        SelectItem::UnnamedExpr(expression) => {
            let column = column(plain(expression), scope);
            Output::One {
                name: column.as_ref().map(|column| column.name.clone()),
                column,
            }
        }
        SelectItem::ExprWithAlias { expr, alias } => Output::One {
            name: Some(alias.value.clone()),
            column: column(plain(expr), scope),
        },
        SelectItem::Wildcard(_) => Output::Wildcard(Vec::new()),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            let parts = parts(name).unwrap_or_default();
            let names = parts.iter().map(|part| part.value.clone());
            Output::Wildcard(names.collect())
        }
        // The fields of a value: any number of columns.
        SelectItem::QualifiedWildcard(..) | SelectItem::ExprWithAliases { .. } => {
            Output::Wildcard(vec![String::new(); 3])
        }
    });
    outputs.collect()
}

/// A key of `GROUP BY` that is a column or a number.
fn group_key(key: &Expr, scope: &Scope) -> Option<GroupKey> {
    match plain(key) {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok().map(GroupKey::Number),
            _ => None,
        },
        other => column(other, scope).map(GroupKey::Column),
    }
}

/// Clauses that other systems have.
fn foreign_clauses(select: &Select) -> Walk {
    absent(
        select.optimizer_hints.is_empty()
            && select.select_modifiers.is_none()
            && select.top.is_none()
            && select.exclude.is_none()
            && select.lateral_views.is_empty()
            && select.prewhere.is_none()
            && select.connect_by.is_empty()
            && select.cluster_by.is_empty()
            && select.distribute_by.is_empty()
            && select.sort_by.is_empty()
            && select.qualify.is_none()
            && select.value_table_mode.is_none()
            && select.flavor == SelectFlavor::Standard,
        "a clause of another dialect",
    )
}

fn plain_wildcard(options: &WildcardAdditionalOptions) -> Walk {
    absent(
        options.opt_ilike.is_none()
            && options.opt_exclude.is_none()
            && options.opt_except.is_none()
            && options.opt_replace.is_none()
            && options.opt_rename.is_none()
            && options.opt_alias.is_none(),
        "a wildcard of another dialect",
    )
}
