//! The columns that query blocks give, and who reads them.

use crate::plan::bind::Bound;
use crate::plan::bind::BoundSource;
use crate::plan::bind::ColumnId;
use crate::plan::bind::Found;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Facts;
use crate::sql::analysis::GroupKey;
use crate::sql::analysis::Output;
use crate::sql::analysis::SourceKind;

/// Who reads the rows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// An expression, the client, or nobody.
    Other,
    /// One source of a block.
    Source(BlockId, usize),
    /// A set operation, of which it is an arm.
    Arm(BlockId),
    /// Several sources: a `WITH` that is named more than once.
    Several,
}

/// A column that a block gives.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// Its name; none if it is not known.
    pub name: Option<String>,
    /// The column that it is inside the block.
    pub origin: Option<ColumnId>,
    /// Its type, if it could be a shard key.
    pub key_type: Option<ColumnType>,
}

impl Bound<'_> {
    /// Who reads the rows of a block.
    pub fn reader(&self, block: BlockId) -> Reader {
        self.readers.get(block).copied().unwrap_or(Reader::Other)
    }

    /// The column of a block that a column of its rows is.
    pub fn origin(&self, block: BlockId, column: usize) -> Option<ColumnId> {
        self.given(block, column)?.origin
    }

    /// The column of a relation that a column is, however deep it stands.
    pub fn base(&self, id: ColumnId) -> Option<ColumnId> {
        let mut id = id;
        while let BoundSource::Query(block) = self.source(id.block, id.source)? {
            let inside = self.origin(block, id.column)?;
            // A block reads others than itself, so this ends.
            id = inside;
        }
        Some(id)
    }

    /// The columns of a block's sources that its rows have.
    pub fn origins(&self, block: BlockId) -> Vec<ColumnId> {
        let given = self.outputs.get(block).and_then(Option::as_deref);
        let given = given.unwrap_or_default().iter();
        given.filter_map(|given| given.origin).collect()
    }

    /// The numbers of the columns of a block's rows that are this column of its sources.
    pub fn outputs_of(&self, id: ColumnId) -> impl Iterator<Item = usize> {
        let given = self.outputs.get(id.block).and_then(Option::as_deref);
        let given = given.unwrap_or_default().iter().enumerate();
        given
            .filter(move |(_, given)| given.origin == Some(id))
            .map(|(number, _)| number)
    }

    /// The type of a column of a block's rows, if it could be a shard key.
    pub fn given_type(&self, block: BlockId, column: usize) -> Option<ColumnType> {
        self.given(block, column)?.key_type
    }

    /// The names of the columns of a source that is a subquery; none if they are not all known.
    pub fn names_of(&self, block: BlockId, source: usize) -> Option<Vec<String>> {
        let BoundSource::Query(query) = self.source(block, source)? else {
            return None;
        };
        let written = self.facts.blocks.get(block)?.sources.get(source)?;
        let given = self.outputs.get(query)?.as_ref()?.iter().enumerate();
        let names = given.map(|(number, given)| {
            let renamed = written.columns.get(number).cloned();
            renamed.or_else(|| given.name.clone())
        });
        names.collect()
    }

    /// The columns by which a block groups its rows, as far as they are columns of its sources.
    pub fn groups(&self, block: BlockId) -> Vec<ColumnId> {
        let Some(facts) = self.facts.blocks.get(block) else {
            return Vec::new();
        };
        let is_own = |id: &ColumnId| id.block == block;
        let of_answer = |name: &str| {
            let outputs = self.outputs.get(block)?.as_ref()?;
            let given = outputs
                .iter()
                .find(|given| given.name.as_deref() == Some(name))?;
            given.origin
        };
        let columns = facts.groups.iter().filter_map(|key| match key {
            GroupKey::Number(number) => self.origin(block, number.checked_sub(1)?),
            GroupKey::Column(column) => match self.lookup(block, column) {
                Found::Column(id) => Some(id),
                Found::Nothing if column.qualifier.is_empty() => of_answer(&column.name),
                Found::Nothing | Found::Doubtful => None,
            },
        });
        columns.filter(is_own).collect()
    }

    /// Whether a condition on this column may stand inside its block as well as behind it: rows of the
    /// block's sources with another value change no row of the block's that has this one.
    pub fn holds_inside(&self, id: ColumnId) -> bool {
        let Some(facts) = self.facts.blocks.get(id.block) else {
            return false;
        };
        let clauses = facts.clauses;
        let is_grouped = clauses.has(Clauses::GROUP_BY);
        facts.kind == BlockKind::Select
            && !clauses.cuts()
            && !clauses.has(Clauses::DISTINCT_ON)
            && (!clauses.has(Clauses::HAVING) || is_grouped)
            && (!is_grouped || self.groups(id.block).contains(&id))
            && (!clauses.has(Clauses::WINDOW) || !facts.partitions.is_empty())
            && facts.partitions.iter().all(|partition| {
                let mut columns = partition.iter();
                columns.any(|column| self.resolve(id.block, column) == Some(id))
            })
    }

    pub fn given(&self, block: BlockId, column: usize) -> Option<&Given> {
        self.outputs.get(block)?.as_ref()?.get(column)
    }

    /// Finds the columns of all blocks.
    pub fn find_all_outputs(&mut self) {
        let count = self.facts.blocks.len();
        // Nobody reads the only one.
        if count == 1 {
            return;
        }
        let mut is_done = vec![false; count];
        for block in 0..count {
            self.find_outputs(block, &mut is_done);
        }
    }

    /// Finds the columns that a block gives, and before them those of the blocks that it reads.
    fn find_outputs(&mut self, block: BlockId, is_done: &mut [bool]) {
        match is_done.get_mut(block) {
            Some(done) if !*done => *done = true,
            _ => return,
        }
        let Some(facts) = self.facts.blocks.get(block) else {
            return;
        };
        let read = facts.sources.iter().filter_map(|source| match source.kind {
            SourceKind::Query(query) => Some(query),
            _ => None,
        });
        for read in read.chain(facts.arms.iter().copied()) {
            self.find_outputs(read, is_done);
        }
        let found = match facts.kind {
            BlockKind::Select => self.selected(block, facts),
            BlockKind::SetOperation => self.united(facts),
            _ => None,
        };
        if let Some(outputs) = self.outputs.get_mut(block) {
            *outputs = found;
        }
    }

    /// The columns of a `SELECT`.
    fn selected(&self, block: BlockId, facts: &Block) -> Option<Vec<Given>> {
        let mut found = Vec::new();
        for output in &facts.outputs {
            match output {
                Output::One { name, column } => {
                    let id = column
                        .as_ref()
                        .and_then(|column| self.resolve(block, column));
                    let origin = id.filter(|id| id.block == block);
                    found.push(Given {
                        name: name.clone(),
                        origin,
                        key_type: origin.and_then(|origin| self.key_type(origin)),
                    });
                }
                Output::Wildcard(qualifier) => {
                    found.extend(self.wildcard(block, facts, qualifier)?)
                }
            }
        }
        Some(found)
    }

    /// The columns of `*`, or of `table.*`.
    fn wildcard(&self, block: BlockId, facts: &Block, qualifier: &[String]) -> Option<Vec<Given>> {
        // Merged columns come first, and once; an aliased join hides its sources.
        let is_plain = facts.merges.is_empty() || !qualifier.is_empty();
        if !is_plain || qualifier.len() > 1 || facts.sources.iter().any(|source| source.hidden) {
            return None;
        }
        let (mut found, mut is_any) = (Vec::new(), qualifier.is_empty());
        for (index, source) in facts.sources.iter().enumerate() {
            let name = match (&source.alias, &source.kind) {
                (Some(alias), _) => Some(alias),
                (None, SourceKind::Relation(name)) => Some(&name.name),
                (None, _) => None,
            };
            if qualifier.first().is_some_and(|wanted| Some(wanted) != name) {
                continue;
            }
            is_any = true;
            let names = match self.source(block, index)? {
                BoundSource::Query(_) => self.names_of(block, index)?,
                source => {
                    let columns = source.relation()?.columns.iter();
                    columns.map(|column| column.name.clone()).collect()
                }
            };
            for (column, name) in names.into_iter().enumerate() {
                let origin = ColumnId {
                    block,
                    source: index,
                    column,
                };
                found.push(Given {
                    name: Some(source.columns.get(column).cloned().unwrap_or(name)),
                    origin: Some(origin),
                    key_type: self.key_type(origin),
                });
            }
        }
        // Else it is of a query around it.
        is_any.then_some(found)
    }

    /// The columns of a set operation. Of which arm a row is, is not known.
    fn united(&self, facts: &Block) -> Option<Vec<Given>> {
        let arms = facts.arms.iter();
        let arms: Option<Vec<&Vec<Given>>> =
            arms.map(|arm| self.outputs.get(*arm)?.as_ref()).collect();
        let arms = arms?;
        let first = arms.first()?;
        let same_length = arms.iter().all(|arm| arm.len() == first.len());
        let columns = first.iter().enumerate().map(|(number, given)| {
            let types = arms.iter().map(|arm| arm.get(number)?.key_type);
            let types: Option<Vec<ColumnType>> = types.collect();
            Given {
                name: given.name.clone(),
                origin: None,
                key_type: types.and_then(|types| common(&types)),
            }
        });
        same_length.then(|| columns.collect())
    }
}

/// The type of a column of a set operation whose arms have these; none if that is not one of them all.
fn common(types: &[ColumnType]) -> Option<ColumnType> {
    let first = types.first()?;
    let is_integer =
        |one: &ColumnType| matches!(one.key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    if types.iter().all(|one| one == first) {
        return Some(*first);
    }
    // Any number of the widest may be asked for.
    types.iter().all(is_integer).then_some(ColumnType {
        key_type: KeyType::Int8,
        typmod: -1,
    })
}

/// Who reads each block.
pub(super) fn readers(facts: &Facts) -> Vec<Reader> {
    let mut readers = vec![Reader::Other; facts.blocks.len()];
    let mut note = |block: BlockId, reader| {
        if let Some(known) = readers.get_mut(block) {
            *known = match known {
                Reader::Other => reader,
                _ => Reader::Several,
            };
        }
    };
    for (index, block) in facts.blocks.iter().enumerate() {
        for (number, source) in block.sources.iter().enumerate() {
            if let SourceKind::Query(query) = source.kind {
                note(query, Reader::Source(index, number));
            }
        }
        for arm in &block.arms {
            note(*arm, Reader::Arm(index));
        }
    }
    readers
}
