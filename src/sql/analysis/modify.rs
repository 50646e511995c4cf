//! `INSERT`, `UPDATE`, `DELETE`, `MERGE`.

use sqlparser::ast::Assignment;
use sqlparser::ast::AssignmentTarget;
use sqlparser::ast::Delete;
use sqlparser::ast::Expr;
use sqlparser::ast::FromTable;
use sqlparser::ast::Insert as ParsedInsert;
use sqlparser::ast::Merge as ParsedMerge;
use sqlparser::ast::MergeAction;
use sqlparser::ast::MergeClauseKind;
use sqlparser::ast::MergeInsertKind;
use sqlparser::ast::MergeUpdateKind;
use sqlparser::ast::ObjectName;
use sqlparser::ast::OnConflictAction;
use sqlparser::ast::OnInsert;
use sqlparser::ast::OutputClause;
use sqlparser::ast::Query;
use sqlparser::ast::SelectItem;
use sqlparser::ast::SetExpr;
use sqlparser::ast::TableFactor;
use sqlparser::ast::TableObject;
use sqlparser::ast::TableWithJoins;
use sqlparser::ast::Update;
use sqlparser::ast::UpdateTableFromKind;

use crate::sql::parse::StopReason;

use super::BlockId;
use super::BlockKind;
use super::Cell;
use super::Insert;
use super::MergeActions;
use super::MergeInsert;
use super::MergeValue;
use super::Rows;
use super::Scope;
use super::Source;
use super::SourceKind;
use super::Walk;
use super::Walker;
use super::absent;
use super::condition::column;
use super::condition::plain;
use super::name;
use super::no_keyword;
use super::parts;

impl Walker<'_> {
    pub(super) fn insert(&mut self, insert: &ParsedInsert, outer: Option<Scope>) -> Walk<BlockId> {
        foreign_insert(insert)?;
        let TableObject::TableName(target) = &insert.table else {
            return Err(StopReason::NotAnalysed("the target of an INSERT"));
        };
        let offset = self.name_offset(target);
        let target = name(target)?;
        let columns = insert
            .columns
            .iter()
            .map(inserted_column)
            .collect::<Walk<Vec<String>>>()?;
        let facts = Insert {
            columns: (!columns.is_empty()).then_some(columns),
            overriding_user: self.overriding_user,
            ..Insert::default()
        };
        let block = self.open(BlockKind::Insert(facts), outer.clone());
        let alias = insert.table_alias.as_ref();
        self.block(block)?.sources.push(Source {
            kind: SourceKind::Relation(target),
            alias: alias.map(|alias| alias.alias.value.clone()),
            columns: Vec::new(),
            hidden: false,
            sampled: false,
            locked: false,
            offset,
        });
        let rows = match &insert.source {
            None => Rows::Default,
            Some(query) => self.rows(query, outer)?,
        };
        let scope = self.everything(block)?;
        let mut conflict_assigns = Vec::new();
        match &insert.on {
            None => {}
            Some(OnInsert::OnConflict(conflict)) => {
                if let OnConflictAction::DoUpdate(update) = &conflict.action {
                    conflict_assigns = self.assignments(&update.assignments, &scope)?;
                    self.optional(update.selection.as_ref(), &scope)?;
                }
            }
            Some(_) => return Err(StopReason::NotAnalysed("ON DUPLICATE KEY")),
        }
        self.returning(insert.returning.as_deref(), &scope)?;
        if let BlockKind::Insert(facts) = &mut self.block(block)?.kind {
            facts.rows = rows;
            facts.conflict_assigns = conflict_assigns;
        }
        Ok(block)
    }

    /// The rows that an `INSERT` takes from a query.
    fn rows(&mut self, query: &Query, outer: Option<Scope>) -> Walk<Rows> {
        let bare = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none();
        let values = match query.body.as_ref() {
            SetExpr::Values(values) if bare && !values.explicit_row => values,
            SetExpr::Select(select) => {
                let mut cells = Vec::new();
                for item in &select.projection {
                    match item {
                        SelectItem::UnnamedExpr(expression)
                        | SelectItem::ExprWithAlias {
                            expr: expression, ..
                        } if !expands(expression) => cells.push(self.cell(expression)),
                        _ => break,
                    }
                }
                self.query(query, outer)?;
                return Ok(Rows::Query(cells));
            }
            _ => {
                self.query(query, outer)?;
                return Ok(Rows::Query(Vec::new()));
            }
        };
        // The rows see nothing but the queries around them.
        let block = self.open(BlockKind::Values, outer);
        let scope = self.everything(block)?;
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            let mut cells = Vec::with_capacity(row.content.len());
            for expression in &row.content {
                let cell = self.cell(expression);
                if cell == Cell::Computed {
                    self.expression(expression, &scope)?;
                }
                cells.push(cell);
            }
            rows.push(cells);
        }
        Ok(Rows::Values(rows))
    }

    fn cell(&self, expression: &Expr) -> Cell {
        match expression {
            Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value == "default" => {
                Cell::Default
            }
            _ => self.value(expression).map_or(Cell::Computed, Cell::Value),
        }
    }

    /// Walks assignments; the names of the columns they assign.
    fn assignments(&mut self, assignments: &[Assignment], scope: &Scope) -> Walk<Vec<String>> {
        let mut columns = Vec::new();
        for assignment in assignments {
            let targets = match &assignment.target {
                AssignmentTarget::ColumnName(column) => std::slice::from_ref(column),
                AssignmentTarget::Tuple(columns) => columns.as_slice(),
            };
            for target in targets {
                // `a.b` assigns a field of column `a`.
                columns.extend(parts(target)?.first().map(|part| part.value.clone()));
            }
            if !is_default(&assignment.value) {
                self.expression(&assignment.value, scope)?;
            }
        }
        Ok(columns)
    }

    fn returning(&mut self, items: Option<&[SelectItem]>, scope: &Scope) -> Walk {
        self.select_items(items.unwrap_or_default(), scope)
    }

    pub(super) fn update(&mut self, update: &Update, outer: Option<Scope>) -> Walk<BlockId> {
        absent(
            update.optimizer_hints.is_empty()
                && update.output.is_none()
                && update.or.is_none()
                && update.order_by.is_empty()
                && update.limit.is_none()
                && update.table.joins.is_empty(),
            "an UPDATE of another dialect",
        )?;
        let block = self.open(BlockKind::Update(Vec::new()), outer);
        self.target(&update.table, block)?;
        match &update.from {
            Some(UpdateTableFromKind::AfterSet(from)) => self.from(from, block)?,
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                return Err(StopReason::NotAnalysed("UPDATE … FROM … SET"));
            }
            None => {}
        }
        let scope = self.everything(block)?;
        let columns = self.assignments(&update.assignments, &scope)?;
        self.selection(update.selection.as_ref(), &scope)?;
        self.returning(update.returning.as_deref(), &scope)?;
        self.block(block)?.kind = BlockKind::Update(columns);
        Ok(block)
    }

    pub(super) fn delete(&mut self, delete: &Delete, outer: Option<Scope>) -> Walk<BlockId> {
        absent(
            delete.optimizer_hints.is_empty()
                && delete.tables.is_empty()
                && delete.output.is_none()
                && delete.order_by.is_empty()
                && delete.limit.is_none(),
            "a DELETE of another dialect",
        )?;
        let FromTable::WithFromKeyword(targets) = &delete.from else {
            return Err(StopReason::NotAnalysed("DELETE without FROM"));
        };
        let [target] = targets.as_slice() else {
            return Err(StopReason::NotAnalysed("a DELETE of several tables"));
        };
        absent(target.joins.is_empty(), "a DELETE of a join")?;
        let block = self.open(BlockKind::Delete, outer);
        self.target(target, block)?;
        self.from(delete.using.as_deref().unwrap_or_default(), block)?;
        let scope = self.everything(block)?;
        self.selection(delete.selection.as_ref(), &scope)?;
        self.returning(delete.returning.as_deref(), &scope)?;
        Ok(block)
    }

    /// The target of an `UPDATE`, `DELETE` or `MERGE`, which is never a CTE.
    fn target(&mut self, target: &TableWithJoins, block: BlockId) -> Walk {
        match &target.relation {
            TableFactor::Table {
                name: relation,
                alias,
                args: None,
                with_hints,
                version: None,
                with_ordinality: false,
                partitions,
                json_path: None,
                sample: None,
                index_hints,
            } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
                parts(relation)?
                    .first()
                    .map_or(Ok(()), |first| no_keyword(first))?;
                let offset = self.name_offset(relation);
                let relation = name(relation)?;
                self.add_source(block, SourceKind::Relation(relation), alias.as_ref())?;
                if let Some(source) = self.block(block)?.sources.last_mut() {
                    source.offset = offset;
                }
                Ok(())
            }
            _ => Err(StopReason::NotAnalysed("the target of a change")),
        }
    }

    fn selection(&mut self, selection: Option<&Expr>, scope: &Scope) -> Walk {
        let Some(selection) = selection else {
            return Ok(());
        };
        self.terms(selection, scope, None);
        self.conditions(selection, scope, None)?;
        self.expression(selection, scope)
    }

    /// A `MERGE`. Its `ON` restricts the rows of the target that take part, and no rows of the source.
    pub(super) fn merge(&mut self, merge: &ParsedMerge, outer: Option<Scope>) -> Walk<BlockId> {
        absent(merge.optimizer_hints.is_empty(), "a hint")?;
        let block = self.open(BlockKind::Merge(MergeActions::default()), outer);
        let side = |side: &TableFactor| TableWithJoins {
            relation: side.clone(),
            joins: Vec::new(),
        };
        self.target(&side(&merge.table), block)?;
        self.from(&[side(&merge.source)], block)?;
        let scope = self.everything(block)?;
        self.conditions(&merge.on, &scope, Some(0..1))?;
        self.expression(&merge.on, &scope)?;
        let mut actions = MergeActions::default();
        for clause in &merge.clauses {
            self.optional(clause.predicate.as_ref(), &scope)?;
            actions.by_source |= clause.clause_kind == MergeClauseKind::NotMatchedBySource;
            self.merge_action(&clause.action, &scope, &mut actions)?;
        }
        match &merge.output {
            None => {}
            Some(OutputClause::Returning { select_items, .. }) => {
                actions.returns = true;
                self.select_items(select_items, &scope)?;
            }
            Some(OutputClause::Output { .. }) => return Err(StopReason::NotAnalysed("OUTPUT")),
        }
        self.block(block)?.kind = BlockKind::Merge(actions);
        Ok(block)
    }

    fn merge_action(
        &mut self,
        action: &MergeAction,
        scope: &Scope,
        actions: &mut MergeActions,
    ) -> Walk {
        match action {
            MergeAction::Insert(insert) => {
                absent(insert.insert_predicate.is_none(), "INSERT … WHERE")?;
                let MergeInsertKind::Values(values) = &insert.kind else {
                    return Err(StopReason::NotAnalysed("an action of a MERGE"));
                };
                let [row] = values.rows.as_slice() else {
                    return Err(StopReason::NotAnalysed(
                        "an INSERT of several rows in a MERGE",
                    ));
                };
                let columns = insert.columns.iter().map(inserted_column);
                let columns = columns.collect::<Walk<Vec<String>>>()?;
                let mut found = MergeInsert {
                    columns: (!columns.is_empty()).then_some(columns),
                    values: Vec::new(),
                };
                for value in &row.content {
                    if is_default(value) {
                        found.values.push(MergeValue::Default);
                        continue;
                    }
                    absent(!expands(value), "a whole row in a MERGE")?;
                    self.expression(value, scope)?;
                    found.values.push(match column(plain(value), scope) {
                        Some(column) => MergeValue::Column(column),
                        None => MergeValue::Computed,
                    });
                }
                actions.inserts.push(found);
            }
            MergeAction::Update(update) => match &update.kind {
                MergeUpdateKind::Set(assignments)
                    if update.update_predicate.is_none() && update.delete_predicate.is_none() =>
                {
                    let assigned = self.assignments(assignments, scope)?;
                    actions.assigned.extend(assigned);
                }
                _ => return Err(StopReason::NotAnalysed("an action of a MERGE")),
            },
            MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
        }
        Ok(())
    }
}

fn inserted_column(column: &ObjectName) -> Walk<String> {
    match parts(column)?.as_slice() {
        [column] => Ok(column.value.clone()),
        _ => Err(StopReason::NotAnalysed("a column of an INSERT")),
    }
}

/// Clauses that other systems have.
fn foreign_insert(insert: &ParsedInsert) -> Walk {
    absent(
        insert.optimizer_hints.is_empty()
            && insert.or.is_none()
            && !insert.ignore
            && insert.into
            && !insert.overwrite
            && insert.assignments.is_empty()
            && insert.partitioned.is_none()
            && insert.after_columns.is_empty()
            && !insert.has_table_keyword
            && insert.output.is_none()
            && !insert.replace_into
            && insert.priority.is_none()
            && insert.insert_alias.is_none()
            && insert.settings.is_none()
            && insert.format_clause.is_none()
            && insert.multi_table_insert_type.is_none()
            && insert.multi_table_into_clauses.is_empty()
            && insert.multi_table_when_clauses.is_empty()
            && insert.multi_table_else_clause.is_none(),
        "an INSERT of another dialect",
    )
}

/// Whether a select item becomes several columns: `(f(x)).*`.
fn expands(expression: &Expr) -> bool {
    match plain(expression) {
        Expr::CompoundFieldAccess { .. } | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => true,
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|part| part.value == "_star"),
        _ => false,
    }
}

/// Whether the expression is the word `DEFAULT`.
fn is_default(expression: &Expr) -> bool {
    matches!(expression, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value == "default")
}
