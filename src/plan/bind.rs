//! Names to relations and columns.
//!
//! A column of a subquery in `FROM`, or of a `WITH` that does not read itself, is a column too: `source` is the
//! subquery, and `column` the number of its output. [`Bound::origin`] says what it is inside.

use crate::catalog::Catalog;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::catalog::Written;
use crate::plan::outputs;
use crate::plan::outputs::Given;
use crate::plan::outputs::Reader;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Column;
use crate::sql::analysis::Equals;
use crate::sql::analysis::Facts;
use crate::sql::analysis::JoinKind;
use crate::sql::analysis::Merge;
use crate::sql::analysis::SourceKind;
use crate::sql::analysis::Sources;
use crate::sql::analysis::Value;

/// A query whose names are bound.
pub(super) struct Bound<'a> {
    pub facts: &'a Facts,
    /// For each block, what its sources are.
    pub sources: Vec<Vec<BoundSource<'a>>>,
    /// For each block, the equalities that hold in it.
    pub equations: Vec<Vec<Equation<'a>>>,
    /// For each block, who reads it.
    pub readers: Vec<Reader>,
    /// For each block, the columns that it gives; none if they are not all known.
    pub outputs: Vec<Option<Vec<Given>>>,
}

/// What a source is.
#[derive(Clone, Copy, Debug)]
pub(super) enum BoundSource<'a> {
    /// A name, looked up.
    Named(Lookup<'a>),
    /// A subquery or CTE.
    Query(BlockId),
    /// A function, an aliased join: its columns are not known.
    Opaque,
}

/// A column of an occurrence of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnId {
    pub block: BlockId,
    pub source: usize,
    pub column: usize,
}

/// An equality between columns, or of a column with values.
pub(super) struct Equation<'a> {
    pub column: ColumnId,
    pub equals: Equal<'a>,
    /// As in [`crate::sql::analysis::Condition::restricts`].
    pub restricts: Option<Sources>,
}

/// The right side of an equality.
#[derive(Clone, Copy)]
pub(super) enum Equal<'a> {
    Column(ColumnId),
    Values(&'a [Value]),
    /// A column, by its number, of some row of a subquery.
    Row(BlockId, usize),
}

impl<'a> BoundSource<'a> {
    /// The relation, if the catalogue knows it.
    pub fn relation(self) -> Option<&'a Relation> {
        match self {
            BoundSource::Named(Lookup::Relation(relation)) => Some(relation),
            _ => None,
        }
    }
}

/// What a statement writes that names this first: the table behind a view.
fn written<'a>(kind: &BlockKind, found: Lookup<'a>) -> Lookup<'a> {
    let writes = matches!(
        kind,
        BlockKind::Insert(_) | BlockKind::Update(_) | BlockKind::Delete
    );
    match found {
        Lookup::Relation(view) if writes => match &view.written {
            Written::Through(table) => Lookup::Relation(table),
            _ => found,
        },
        _ => found,
    }
}

impl<'a> Bound<'a> {
    /// Binds the names of a query.
    pub fn new(facts: &'a Facts, catalog: &'a Catalog, search_path: &[String]) -> Bound<'a> {
        let sources = facts
            .blocks
            .iter()
            .map(|block| {
                let sources = block.sources.iter().enumerate();
                sources
                    .map(|(at, source)| match &source.kind {
                        SourceKind::Opaque => BoundSource::Opaque,
                        SourceKind::Query(block) => BoundSource::Query(*block),
                        SourceKind::Relation(name) => {
                            let schema = name.schema.as_deref();
                            let found = catalog.relation(schema, &name.name, search_path);
                            BoundSource::Named(match at {
                                0 => written(&block.kind, found),
                                _ => found,
                            })
                        }
                    })
                    .collect()
            })
            .collect();
        let mut bound = Bound {
            facts,
            sources,
            equations: Vec::new(),
            readers: outputs::readers(facts),
            outputs: vec![None; facts.blocks.len()],
        };
        bound.find_all_outputs();
        bound.equations = (0..facts.blocks.len())
            .map(|block| bound.equations_of(block))
            .collect();
        bound
    }

    /// All occurrences of relations and the like: block, source, what it is.
    pub fn occurrences(&self) -> impl Iterator<Item = (BlockId, usize, BoundSource<'a>)> {
        self.sources
            .iter()
            .enumerate()
            .flat_map(|(block, sources)| {
                let sources = sources.iter().enumerate();
                sources.map(move |(source, bound)| (block, source, *bound))
            })
    }

    /// What a source is.
    pub fn source(&self, block: BlockId, source: usize) -> Option<BoundSource<'a>> {
        self.sources.get(block)?.get(source).copied()
    }

    /// The type of a column, if it could be a shard key.
    pub fn key_type(&self, id: ColumnId) -> Option<ColumnType> {
        match self.source(id.block, id.source)? {
            BoundSource::Query(block) => self.given(block, id.column)?.key_type,
            source => source.relation()?.columns.get(id.column)?.key_type,
        }
    }

    fn equations_of(&self, block: BlockId) -> Vec<Equation<'a>> {
        let Some(facts) = self.facts.blocks.get(block) else {
            return Vec::new();
        };
        let mut equations = Vec::new();
        for condition in &facts.conditions {
            let Some(column) = self.resolve(block, &condition.column) else {
                continue;
            };
            let equals = match &condition.equals {
                Equals::Values(values) => Equal::Values(values),
                Equals::Query { select, column } => {
                    let mut blocks = self.facts.blocks.iter();
                    match blocks.position(|block| block.select == Some(*select)) {
                        Some(query) => Equal::Row(query, *column),
                        None => continue,
                    }
                }
                Equals::Column(other) => match self.resolve(block, other) {
                    Some(other) => Equal::Column(other),
                    None => continue,
                },
            };
            equations.push(Equation {
                column,
                equals,
                restricts: condition.restricts.clone(),
            });
        }
        for merge in facts
            .merges
            .iter()
            .filter(|merge| merge.join != JoinKind::Full)
        {
            for name in self.merged_names(block, merge) {
                let left = self.unqualified(block, facts, name, &merge.left);
                let right = self.unqualified(block, facts, name, &merge.right);
                if let (Found::Column(column), Found::Column(other)) = (left, right) {
                    equations.push(Equation {
                        column,
                        equals: Equal::Column(other),
                        restricts: merge.restricts.clone(),
                    });
                }
            }
        }
        equations
    }

    /// The columns that a join merges, of those that relations of the catalogue have.
    fn merged_names(&self, block: BlockId, merge: &'a Merge) -> Vec<&'a str> {
        match &merge.columns {
            Some(columns) => columns.iter().map(String::as_str).collect(),
            None => merge
                .left
                .clone()
                .filter_map(|source| self.source(block, source)?.relation())
                .flat_map(|relation| relation.columns.iter())
                .map(|column| column.name.as_str())
                .filter(|name| self.may_have(block, &merge.right, name))
                .collect(),
        }
    }

    /// The column that a name in a block means; none if that can't be told.
    pub fn resolve(&self, block: BlockId, column: &Column) -> Option<ColumnId> {
        let mut block = block;
        let mut visible = column.visible.clone();
        loop {
            let facts = self.facts.blocks.get(block)?;
            // Of a column that is not read by the tree it is not known which sources it sees.
            visible.end = visible.end.min(facts.sources.len());
            let found = if column.qualifier.is_empty() {
                self.unqualified(block, facts, &column.name, &visible)
            } else {
                self.qualified(block, facts, column, &visible)
            };
            match found {
                Found::Column(id) => return Some(id),
                Found::Doubtful => return None,
                Found::Nothing => {
                    let outer = facts.outer.as_ref()?;
                    // Blocks stand behind those around them, so this ends.
                    if outer.block >= block {
                        return None;
                    }
                    block = outer.block;
                    visible = outer.visible.clone();
                }
            }
        }
    }

    /// What a name means among a block's own sources.
    pub fn lookup(&self, block: BlockId, column: &Column) -> Found {
        let Some(facts) = self.facts.blocks.get(block) else {
            return Found::Doubtful;
        };
        match column.qualifier.is_empty() {
            true => self.unqualified(block, facts, &column.name, &column.visible),
            false => self.qualified(block, facts, column, &column.visible),
        }
    }

    fn qualified(
        &self,
        block: BlockId,
        facts: &Block,
        column: &Column,
        visible: &Sources,
    ) -> Found {
        let mut found = Found::Nothing;
        for index in visible.clone() {
            let Some(source) = facts.sources.get(index) else {
                continue;
            };
            let matches = match (column.qualifier.as_slice(), &source.alias, &source.kind) {
                _ if source.hidden => false,
                ([table], Some(alias), _) => table == alias,
                ([table], None, SourceKind::Relation(name)) => *table == name.name,
                // `schema.table.column` names an occurrence without an alias, however that was
                // written.
                ([schema, table], None, SourceKind::Relation(name)) if *table == name.name => {
                    match self.source(block, index) {
                        Some(BoundSource::Named(Lookup::Relation(relation))) => {
                            relation.schema == *schema
                        }
                        _ => return Found::Doubtful,
                    }
                }
                ([_] | [_, _], _, _) => false,
                _ => return Found::Doubtful,
            };
            if matches {
                if !matches!(found, Found::Nothing) {
                    return Found::Doubtful;
                }
                found = match self.column_of(block, facts, index, &column.name) {
                    Some(id) => Found::Column(id),
                    None => Found::Doubtful,
                };
            }
        }
        found
    }

    fn unqualified(&self, block: BlockId, facts: &Block, name: &str, visible: &Sources) -> Found {
        // The outermost join that merges columns of this name decides which side it means.
        let merge = facts
            .merges
            .iter()
            .filter(|merge| visible.start <= merge.left.start && merge.right.end <= visible.end)
            .filter(|merge| self.merges(block, merge, name))
            .max_by_key(|merge| merge.right.end - merge.left.start);
        if let Some(merge) = merge {
            let outside = (visible.start..merge.left.start).chain(merge.right.end..visible.end);
            for source in outside {
                if self.column_of(block, facts, source, name).is_some() {
                    return Found::Doubtful;
                }
            }
            let left = self.unqualified(block, facts, name, &merge.left);
            let right = self.unqualified(block, facts, name, &merge.right);
            return match (left, right, merge.join) {
                (Found::Column(left), Found::Column(right), join) if self.alike(left, right) => {
                    match join {
                        JoinKind::Inner | JoinKind::Left => Found::Column(left),
                        JoinKind::Right => Found::Column(right),
                        JoinKind::Full => Found::Doubtful,
                    }
                }
                _ => Found::Doubtful,
            };
        }
        let mut found = Found::Nothing;
        let mut doubtful = false;
        for index in visible.clone() {
            match self.column_of(block, facts, index, name) {
                Some(_) if matches!(found, Found::Column(_)) => return Found::Doubtful,
                Some(id) => found = Found::Column(id),
                None => doubtful |= !self.is_known(block, index),
            }
        }
        // A second column of this name would be ambiguous to PostgreSQL too.
        match found {
            Found::Nothing if doubtful => Found::Doubtful,
            found => found,
        }
    }

    /// Whether the two compare with constants alike. Merged, columns of other types become a third,
    /// as `bigint` and `real` become `double precision`.
    fn alike(&self, left: ColumnId, right: ColumnId) -> bool {
        match (self.key_type(left), self.key_type(right)) {
            (Some(left), Some(right)) => same_family(left.key_type, right.key_type),
            _ => false,
        }
    }

    /// Whether the columns of a source are known.
    pub fn is_known(&self, block: BlockId, source: usize) -> bool {
        self.source(block, source).is_some_and(|bound| {
            bound.relation().is_some() || self.names_of(block, source).is_some()
        }) && self
            .facts
            .blocks
            .get(block)
            .and_then(|facts| facts.sources.get(source))
            .is_some_and(|source| !source.hidden)
    }

    fn column_of(
        &self,
        block: BlockId,
        facts: &Block,
        source: usize,
        name: &str,
    ) -> Option<ColumnId> {
        let written = facts.sources.get(source)?;
        if written.hidden {
            return None;
        }
        let bound = self.source(block, source)?;
        let (count, own) = match bound {
            BoundSource::Query(query) => {
                let given = self.outputs.get(query)?.as_ref()?;
                // A name that the alias takes away may be there twice.
                let mut names = given.iter().enumerate().skip(written.columns.len());
                let own = names.find(|(_, given)| given.name.as_deref() == Some(name));
                (given.len(), own.map(|(column, _)| column))
            }
            _ => {
                let relation = bound.relation()?;
                let own = relation.column(name).map(|(column, _)| column);
                (relation.columns.len(), own)
            }
        };
        let renamed = written.columns.iter().position(|column| column == name);
        let column = match renamed {
            Some(column) if column < count => column,
            Some(_) => return None,
            // Its name is gone if the alias renames it.
            None => own.filter(|column| *column >= written.columns.len())?,
        };
        Some(ColumnId {
            block,
            source,
            column,
        })
    }

    /// Whether a join merges columns of this name.
    fn merges(&self, block: BlockId, merge: &Merge, name: &str) -> bool {
        match &merge.columns {
            Some(columns) => columns.iter().any(|column| column == name),
            None => {
                self.may_have(block, &merge.left, name) && self.may_have(block, &merge.right, name)
            }
        }
    }

    /// Whether one of the sources has, or may have, a column of this name.
    fn may_have(&self, block: BlockId, sources: &Sources, name: &str) -> bool {
        let Some(facts) = self.facts.blocks.get(block) else {
            return true;
        };
        sources.clone().any(|source| {
            !self.is_known(block, source) || self.column_of(block, facts, source, name).is_some()
        })
    }
}

/// What a name means in one block.
pub(super) enum Found {
    Column(ColumnId),
    /// Nothing in this block: the one around it may have it.
    Nothing,
    /// Something, but what can't be told.
    Doubtful,
}

/// Whether values of the two types that are equal are the same key.
pub(super) fn same_family(left: KeyType, right: KeyType) -> bool {
    let family = |key_type| match key_type {
        KeyType::Int2 | KeyType::Int4 => KeyType::Int8,
        KeyType::Varchar => KeyType::Text,
        other => other,
    };
    family(left) == family(right)
}
