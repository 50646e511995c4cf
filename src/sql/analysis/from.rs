//! `FROM`: sources, joins and what the conditions of joins say about whom.

use sqlparser::ast::Join;
use sqlparser::ast::JoinConstraint;
use sqlparser::ast::JoinOperator;
use sqlparser::ast::TableAlias;
use sqlparser::ast::TableFactor;
use sqlparser::ast::TableWithJoins;
use sqlparser::ast::XmlTableColumnOption;

use crate::sql::parse::StopReason;

use super::BlockId;
use super::Clauses;
use super::JoinKind;
use super::Merge;
use super::OuterJoin;
use super::Place;
use super::Scope;
use super::Source;
use super::SourceKind;
use super::Sources;
use super::Walk;
use super::Walker;
use super::absent;
use super::name;
use super::no_keyword;
use super::parts;

impl Walker<'_> {
    /// Adds the entries of a `FROM` to a block.
    pub(super) fn from(&mut self, from: &[TableWithJoins], block: BlockId) -> Walk {
        for item in from {
            self.joined(item, block, false)?;
        }
        Ok(())
    }

    /// A chain of joins. `nullable`: an outer join around it may null-extend it.
    fn joined(&mut self, item: &TableWithJoins, block: BlockId, nullable: bool) -> Walk<Sources> {
        self.deeper()?;
        let kinds = item
            .joins
            .iter()
            .map(|join| join_kind(&join.join_operator))
            .collect::<Walk<Vec<JoinKind>>>()?;
        // A later RIGHT or FULL join null-extends everything to its left.
        let nulled_later = |from: usize| {
            nullable
                || kinds
                    .iter()
                    .skip(from)
                    .any(|kind| matches!(kind, JoinKind::Right | JoinKind::Full))
        };
        let mut left = self.factor(&item.relation, block, nulled_later(0))?;
        for (index, (join, kind)) in item.joins.iter().zip(&kinds).enumerate() {
            let around = nulled_later(index + 1);
            let nulled = around || matches!(kind, JoinKind::Left | JoinKind::Full);
            let right = self.factor(&join.relation, block, nulled)?;
            self.join(join, *kind, block, (left.clone(), right.clone(), around))?;
            left = left.start..right.end;
        }
        self.shallower();
        Ok(left)
    }

    /// One join of two sides that are in the block already.
    fn join(
        &mut self,
        join: &Join,
        kind: JoinKind,
        block: BlockId,
        (left, right, around): (Sources, Sources, bool),
    ) -> Walk {
        absent(!join.global, "GLOBAL JOIN")?;
        let both = left.start..right.end;
        // Whom the condition restricts: see `Condition::restricts`.
        let restricts = match kind {
            JoinKind::Inner => Some(around.then(|| both.clone())),
            JoinKind::Left => Some(Some(right.clone())),
            JoinKind::Right => Some(Some(left.clone())),
            JoinKind::Full => None,
        };
        if kind != JoinKind::Inner {
            self.block(block)?.outer_joins.push(OuterJoin {
                join: kind,
                left: left.clone(),
                right: right.clone(),
            });
        }
        let columns = match constraint(&join.join_operator)? {
            JoinConstraint::On(condition) => {
                let scope = Scope {
                    block,
                    visible: both,
                };
                if let Some(restricts) = restricts {
                    self.terms(condition, &scope, restricts.clone());
                    self.conditions(condition, &scope, restricts)?;
                }
                return self.expression(condition, &scope);
            }
            JoinConstraint::Using(columns) => {
                let mut names = Vec::with_capacity(columns.len());
                for column in columns {
                    names.extend(parts(column)?.last().map(|part| part.value.clone()));
                }
                Some(names)
            }
            JoinConstraint::Natural => None,
            JoinConstraint::None => return Ok(()),
        };
        self.block(block)?.merges.push(Merge {
            columns,
            join: kind,
            left,
            right,
            restricts: restricts.flatten(),
        });
        Ok(())
    }

    fn factor(&mut self, factor: &TableFactor, block: BlockId, nullable: bool) -> Walk<Sources> {
        let start = self.block(block)?.sources.len();
        // What LATERAL sees, and what every function sees: the entries to the left.
        let left = Scope {
            block,
            visible: 0..start,
        };
        match factor {
            TableFactor::Table { .. } => self.table(factor, &left)?,
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample,
            } => {
                absent(sample.is_none(), "a sampled subquery")?;
                let outer = if *lateral {
                    Some(left)
                } else {
                    self.block(block)?.outer.clone()
                };
                let query = self.query(subquery, outer)?;
                self.add_source(block, SourceKind::Query(query), alias.as_ref())?;
            }
            TableFactor::Function {
                name: function,
                args,
                alias,
                ..
            } => {
                let at = (self.name_offset(function), Place::Other);
                self.call(name(function)?, args.len(), block, at);
                self.arguments(args, &left)?;
                self.add_source(block, SourceKind::Opaque, alias.as_ref())?;
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                ..
            } => {
                absent(!with_offset, "WITH OFFSET")?;
                self.expressions(array_exprs, &left)?;
                self.add_source(block, SourceKind::Opaque, alias.as_ref())?;
            }
            TableFactor::JsonTable {
                json_expr, alias, ..
            } => {
                self.expression(json_expr, &left)?;
                self.add_source(block, SourceKind::Opaque, alias.as_ref())?;
            }
            TableFactor::XmlTable { .. } => self.xml_table(factor, &left)?,
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let inner = self.joined(table_with_joins, block, nullable)?;
                if alias.is_some() {
                    for source in self.block(block)?.sources.iter_mut().skip(inner.start) {
                        source.hidden = true;
                    }
                    self.add_source(block, SourceKind::Opaque, alias.as_ref())?;
                }
            }
            _ => return Err(StopReason::NotAnalysed("an entry of FROM")),
        }
        Ok(start..self.block(block)?.sources.len())
    }

    /// A relation, or a function called as one.
    fn table(&mut self, factor: &TableFactor, left: &Scope) -> Walk {
        let TableFactor::Table {
            name: relation,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } = factor
        else {
            return Ok(());
        };
        absent(
            with_hints.is_empty()
                && version.is_none()
                && partitions.is_empty()
                && json_path.is_none()
                && index_hints.is_empty(),
            "a table of another dialect",
        )?;
        let block = left.block;
        if args.is_none() {
            parts(relation)?
                .first()
                .map_or(Ok(()), |first| no_keyword(first))?;
        }
        let offset = self.name_offset(relation);
        let relation = name(relation)?;
        if let Some(args) = args {
            absent(args.settings.is_none() && sample.is_none(), "SETTINGS")?;
            let place = match with_ordinality {
                true => Place::Other,
                false => Place::Source {
                    aliased: alias.is_some(),
                },
            };
            self.call(relation, args.args.len(), block, (offset, place));
            self.arguments(&args.args, left)?;
            return self.add_source(block, SourceKind::Opaque, alias.as_ref());
        }
        let mut ctes = self.ctes.iter().rev();
        let cte = ctes.find(|cte| relation.schema.is_none() && cte.name == relation.name);
        if let Some(cte) = cte {
            let kind = cte.block.map_or(SourceKind::Opaque, SourceKind::Query);
            let columns = cte.columns.clone();
            self.add_source(block, kind, alias.as_ref())?;
            if let Some(source) = self.block(block)?.sources.last_mut() {
                source.alias.get_or_insert(relation.name);
                let renamed = source.columns.len().min(columns.len());
                source.columns.extend(columns.into_iter().skip(renamed));
            }
            return Ok(());
        }
        self.add_source(block, SourceKind::Relation(relation), alias.as_ref())?;
        if let Some(source) = self.block(block)?.sources.last_mut() {
            source.sampled = sample.is_some();
            source.offset = offset;
        }
        Ok(())
    }

    fn xml_table(&mut self, factor: &TableFactor, left: &Scope) -> Walk {
        let TableFactor::XmlTable {
            namespaces,
            row_expression,
            passing,
            columns,
            alias,
        } = factor
        else {
            return Ok(());
        };
        for namespace in namespaces {
            self.expression(&namespace.uri, left)?;
        }
        self.expression(row_expression, left)?;
        for argument in &passing.arguments {
            self.expression(&argument.expr, left)?;
        }
        for column in columns {
            if let XmlTableColumnOption::NamedInfo { path, default, .. } = &column.option {
                self.optional(path.as_ref(), left)?;
                self.optional(default.as_ref(), left)?;
            }
        }
        self.add_source(left.block, SourceKind::Opaque, alias.as_ref())
    }

    pub(super) fn add_source(
        &mut self,
        block: BlockId,
        kind: SourceKind,
        alias: Option<&TableAlias>,
    ) -> Walk {
        let mut source = Source {
            kind,
            alias: None,
            columns: Vec::new(),
            hidden: false,
            sampled: false,
            locked: false,
            offset: None,
        };
        if let Some(alias) = alias {
            absent(
                alias.at.is_none() && alias.name.quote_style != Some('\''),
                "an alias of another dialect",
            )?;
            no_keyword(&alias.name)?;
            source.alias = Some(alias.name.value.clone());
            source.columns = alias
                .columns
                .iter()
                .map(|column| column.name.value.clone())
                .collect();
        }
        self.block(block)?.sources.push(source);
        Ok(())
    }

    /// Notes that `FROM` or an expression of the block needs more than concatenation.
    pub(super) fn aggregate(&mut self, block: BlockId) -> Walk {
        self.clause(block, Clauses::AGGREGATE)
    }
}

fn join_kind(operator: &JoinOperator) -> Walk<JoinKind> {
    match operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
            Ok(JoinKind::Inner)
        }
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => Ok(JoinKind::Left),
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Ok(JoinKind::Right),
        JoinOperator::FullOuter(_) => Ok(JoinKind::Full),
        _ => Err(StopReason::NotAnalysed("a join of another dialect")),
    }
}

fn constraint(operator: &JoinOperator) -> Walk<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Ok(constraint),
        _ => Err(StopReason::NotAnalysed("a join of another dialect")),
    }
}
