//! `ORDER BY`: what each key is, and whether its strings are ordered by their bytes.

use crate::catalog::TableColumn;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::query::Query;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::Column;
use crate::sql::analysis::Name;
use crate::sql::analysis::SourceKind;
use crate::sql::analysis::outline;
use crate::sql::analysis::outline::Form;

use super::Builder;
use super::SortKey;
use super::edit::Piece;
use super::grouping::Value;
use super::list::ListColumn;
use super::unordered;

/// `text`, `varchar`, `bpchar`.
const STRINGS: [u32; 3] = [25, 1043, 1042];

/// `smallint`, `integer`, `bigint`, `real`, `double precision`, `numeric`, `boolean`, `date`, `time`,
/// `timetz`, `timestamp`, `timestamptz`, `interval`, `uuid`, `bytea`, `oid`, `"char"`, `name`,
/// `money`, `pg_lsn`: [`crate::plan::merge`] leaves it to the executor to compare them.
const ORDERED: [u32; 20] = [
    21, 23, 20, 700, 701, 1700, 16, 1082, 1083, 1266, 1114, 1184, 1186, 2950, 17, 26, 18, 19, 790,
    3220,
];

/// What a sort key or group key is, once names and ordinals are followed.
pub(super) struct Meant {
    pub pieces: Vec<Piece>,
    pub form: Form,
    pub name: String,
}

impl Builder<'_> {
    /// The keys of `ORDER BY` as hidden columns.
    pub fn order(&mut self) -> Result<Vec<SortKey>> {
        let mut keys = Vec::new();
        for key in &self.outline.order_by {
            // What is no column's number PostgreSQL rejects on every shard.
            let Some(meant) = self.meant_by_order(key)? else {
                continue;
            };
            let bytewise = self.bytewise(&meant)?;
            let column = self.hide(meant.pieces)?;
            keys.push(SortKey {
                value: Value::Column(column),
                descending: key.descending,
                nulls_first: key.nulls_first,
                bytewise,
                name: meant.name.into(),
            });
        }
        Ok(keys)
    }

    /// What a key of `ORDER BY` means: a name is first that of a column of the answer.
    pub fn meant_by_order(&self, key: &outline::SortKey) -> Result<Option<Meant>> {
        let expression = &key.expression;
        let listed = match &expression.form {
            Form::Number(number) => return self.ordinal(number),
            Form::Column(Column {
                qualifier, name, ..
            }) if qualifier.is_empty() => self
                .list()?
                .named(name)
                .ok_or_else(|| unordered("a name that may be that of a computed column"))?
                .cloned(),
            _ => None,
        };
        Ok(Some(match listed {
            Some(column) => column.meant(),
            None => self.written(expression),
        }))
    }

    /// The column of the answer with this number.
    pub fn ordinal(&self, number: &str) -> Result<Option<Meant>> {
        let index = number.parse::<usize>().ok();
        let index = index.and_then(|number| number.checked_sub(1));
        let columns = &self.list()?.columns;
        Ok(index
            .and_then(|index| columns.get(index))
            .map(ListColumn::meant))
    }

    /// An expression as it is written.
    pub fn written(&self, expression: &outline::Expression) -> Meant {
        let name = match &expression.form {
            Form::Column(column) => column.name.clone(),
            _ => "an expression".to_owned(),
        };
        Meant {
            pieces: vec![Piece::Copy(expression.tokens.clone())],
            form: expression.form.clone(),
            name,
        }
    }

    /// Whether strings of an expression are ordered by their bytes, if it is a string.
    ///
    /// # Errors
    /// Its order is not one that the proxy knows.
    pub fn bytewise(&self, meant: &Meant) -> Result<bool> {
        match &meant.form {
            Form::Collated(inner, collation) => {
                if !is_bytewise(collation) {
                    return Err(unordered("a string of a collation other than C"));
                }
                self.check_type(inner)?;
                Ok(true)
            }
            Form::Column(column) => match self.table_column(column) {
                Some(column) => {
                    if STRINGS.contains(&column.type_oid) && !column.bytewise {
                        return Err(unordered("a string of a collation other than C"));
                    }
                    self.check_type(&meant.form)?;
                    Ok(column.bytewise)
                }
                None => Ok(is_all_bytewise(self.query)),
            },
            _ => Ok(is_all_bytewise(self.query)),
        }
    }

    /// Whether equal strings of an expression are equal bytes.
    ///
    /// # Errors
    /// It is of a type whose values the proxy can't compare.
    pub fn deterministic(&self, meant: &Meant) -> Result<bool> {
        let known = match &meant.form {
            Form::Column(column) => self.table_column(column),
            Form::Collated(inner, collation) if is_bytewise(collation) => {
                self.check_type(inner)?;
                return Ok(true);
            }
            _ => None,
        };
        self.check_type(&meant.form)?;
        Ok(match known {
            Some(column) => column.deterministic,
            None => {
                let occurrences = self.query.bound.occurrences().filter(is_not_query);
                let mut relations = occurrences.map(|(_, _, source)| source.relation());
                !has_collation(self.query)
                    && relations.all(|relation| {
                        let columns = relation.map(|relation| relation.columns.iter());
                        columns.is_some_and(|mut all| all.all(|column| column.deterministic))
                    })
            }
        })
    }

    /// The type of a column of a table.
    pub fn type_of(&self, column: &Column) -> Option<u32> {
        self.table_column(column).map(|column| column.type_oid)
    }

    /// Whether the columns of all sources are known.
    pub fn knows_sources(&self) -> bool {
        let top = self.query.facts.top;
        let sources = self.top().map_or(0, |block| block.sources.len());
        (0..sources).all(|source| self.query.bound.is_known(top, source))
    }

    /// The block whose rows are the answer.
    pub fn top(&self) -> Option<&Block> {
        self.query.facts.blocks.get(self.query.facts.top)
    }

    fn table_column(&self, column: &Column) -> Option<&TableColumn> {
        let id = self.query.bound.base(self.column(column)?)?;
        let relation = self.query.bound.source(id.block, id.source)?.relation()?;
        relation.columns.get(id.column)
    }

    /// Fails if it is a column of a type that the proxy can't compare.
    fn check_type(&self, form: &Form) -> Result<()> {
        let Form::Column(column) = form else {
            return Ok(());
        };
        match self.table_column(column) {
            Some(column)
                if !STRINGS.contains(&column.type_oid) && !ORDERED.contains(&column.type_oid) =>
            {
                Err(unordered("a column of this type"))
            }
            _ => Ok(()),
        }
    }

    /// The column of a table that a name means.
    pub fn column(&self, column: &Column) -> Option<ColumnId> {
        let top = self.query.facts.top;
        let block = self.query.facts.blocks.get(top)?;
        let column = Column {
            visible: 0..block.sources.len(),
            ..column.clone()
        };
        self.query.bound.resolve(top, &column)
    }
}

fn is_bytewise(collation: &Name) -> bool {
    let is_builtin = matches!(collation.schema.as_deref(), None | Some("pg_catalog"));
    is_builtin && matches!(collation.name.as_str(), "C" | "POSIX" | "ucs_basic")
}

fn has_collation(query: &Query<'_>) -> bool {
    let mut tokens = query.tokens.iter();
    tokens.any(|token| token.is_word(query.request.text, "collate"))
}

/// Whether it is no subquery: those are made of others.
fn is_not_query((_, _, source): &(BlockId, usize, BoundSource<'_>)) -> bool {
    !matches!(source, BoundSource::Query(_))
}

/// Whether every string that a query can make is ordered by its bytes.
fn is_all_bytewise(query: &Query<'_>) -> bool {
    let sources = query.facts.blocks.iter().flat_map(|block| &block.sources);
    let is_opaque = |kind: &SourceKind| matches!(kind, SourceKind::Opaque);
    query.request.catalog.is_bytewise()
        && !has_collation(query)
        && !sources.into_iter().any(|source| is_opaque(&source.kind))
        && query
            .bound
            .occurrences()
            .filter(is_not_query)
            .all(|(_, _, source)| {
                let relation = source.relation();
                relation
                    .is_some_and(|relation| relation.columns.iter().all(|column| column.bytewise))
            })
}
