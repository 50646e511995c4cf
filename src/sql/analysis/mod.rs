//! Syntax tree to [`Facts`]: what the planner needs to know, and nothing it could misread.
//!
//! The walk knows every node by name. What it does not know it does not skip: the query then counts
//! as not parsed, because a relation or a condition might hide there.

mod condition;
mod expression;
mod facts;
mod from;
mod modify;
pub mod outline;
mod query;
mod terms;

use sqlparser::ast::Ident;
use sqlparser::ast::ObjectName;
use sqlparser::ast::ObjectNamePart;
use sqlparser::ast::Spanned;
use sqlparser::ast::Statement;

use crate::sql::classify::is_reserved;
use crate::sql::parse;
use crate::sql::parse::StopReason;
use crate::sql::parse::Stopped;
use crate::sql::token::Token;

pub use facts::Block;
pub use facts::BlockId;
pub use facts::BlockKind;
pub use facts::Call;
pub use facts::CastType;
pub use facts::Cell;
pub use facts::Clauses;
pub use facts::Column;
pub use facts::Condition;
pub use facts::Conjunction;
pub use facts::Equals;
pub use facts::Facts;
pub use facts::GroupKey;
pub use facts::Insert;
pub use facts::JoinKind;
pub use facts::Merge;
pub use facts::MergeActions;
pub use facts::MergeInsert;
pub use facts::MergeValue;
pub use facts::Name;
pub use facts::OuterJoin;
pub use facts::Output;
pub use facts::Place;
pub use facts::Reference;
pub use facts::Rows;
pub use facts::Scope;
pub use facts::Source;
pub use facts::SourceKind;
pub use facts::Sources;
pub use facts::Term;
pub use facts::Value;
pub use facts::ValueSource;

/// How deep the walk may recurse.
const DEPTH: usize = 250;

/// The end of a walk that met something it does not know.
type Walk<T = ()> = Result<T, StopReason>;

/// Takes one query (`SELECT`, `INSERT` and their like) apart. `tokens` are its own, out of those of
/// `text`.
///
/// # Errors
/// Where the parser stopped, or what the analysis does not know.
pub fn analyse(text: &str, tokens: &[Token]) -> Result<Facts, Stopped> {
    let tree = parse::parse(text, tokens)?;
    let mut walker = Walker {
        tokens,
        facts: Facts::default(),
        ctes: Vec::new(),
        overriding_user: tree.overriding_user,
        depth: 0,
    };
    match walker.statement(&tree.statement, None) {
        Ok(top) => {
            walker.facts.top = top;
            Ok(walker.facts)
        }
        Err(reason) => Err(Stopped {
            reason,
            offset: None,
        }),
    }
}

/// A walk over a tree.
struct Walker<'a> {
    tokens: &'a [Token],
    facts: Facts,
    /// The CTEs in scope, innermost last.
    ctes: Vec<Cte>,
    overriding_user: bool,
    depth: usize,
}

/// A CTE that is in scope.
struct Cte {
    name: String,
    /// Its query; none while it may be one that reads itself.
    block: Option<BlockId>,
    /// The names that it gives its first columns.
    columns: Vec<String>,
}

impl Walker<'_> {
    /// Walks a statement that may stand at the top or in a `WITH`; the block it became.
    fn statement(&mut self, statement: &Statement, outer: Option<Scope>) -> Walk<BlockId> {
        match statement {
            Statement::Query(query) => self.query(query, outer),
            Statement::Insert(insert) => self.insert(insert, outer),
            Statement::Update(update) => self.update(update, outer),
            Statement::Delete(delete) => self.delete(delete, outer),
            Statement::Merge(merge) => self.merge(merge, outer),
            _ => Err(StopReason::NotAnalysed("a statement of this kind")),
        }
    }

    /// Goes one level deeper.
    fn deeper(&mut self) -> Walk {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(StopReason::TooDeep);
        }
        Ok(())
    }

    /// Comes back from a level.
    fn shallower(&mut self) {
        self.depth -= 1;
    }

    /// A new block.
    fn open(&mut self, kind: BlockKind, outer: Option<Scope>) -> BlockId {
        self.facts.blocks.push(Block {
            kind,
            outer,
            ..Block::default()
        });
        self.facts.blocks.len() - 1
    }

    /// The block, which exists.
    fn block(&mut self, block: BlockId) -> Walk<&mut Block> {
        self.facts
            .blocks
            .get_mut(block)
            .ok_or(StopReason::NotAnalysed("a query block that is not there"))
    }

    /// All sources that the block has so far.
    fn everything(&mut self, block: BlockId) -> Walk<Scope> {
        let visible = 0..self.block(block)?.sources.len();
        Ok(Scope { block, visible })
    }

    /// Adds clauses to a block.
    fn clause(&mut self, block: BlockId, clause: Clauses) -> Walk {
        self.block(block)?.clauses.add(clause);
        Ok(())
    }

    /// The offset of the literal at a node's place in the text.
    fn literal_offset(&self, node: &impl Spanned) -> Option<u32> {
        parse::offset(node.span().start.line, self.tokens)
    }
}

/// Fails if the parser crate took one of PostgreSQL's reserved words for a name.
fn no_keyword(ident: &Ident) -> Walk {
    absent(
        ident.quote_style.is_some() || !is_reserved(&ident.value),
        "a keyword where a name should stand",
    )
}

/// The parts of a dotted name.
fn parts(name: &ObjectName) -> Walk<Vec<&Ident>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(ident),
            ObjectNamePart::Function(_) => Err(StopReason::NotAnalysed("a computed name")),
        })
        .collect()
}

/// The name of a relation or function; a database name before the schema is dropped.
fn name(name: &ObjectName) -> Walk<Name> {
    match parts(name)?.as_slice() {
        [name] => Ok(Name {
            schema: None,
            name: name.value.clone(),
        }),
        [schema, name] | [_, schema, name] => Ok(Name {
            schema: Some(schema.value.clone()),
            name: name.value.clone(),
        }),
        _ => Err(StopReason::NotAnalysed("a name of many parts")),
    }
}

/// Fails if a field that PostgreSQL's grammar has no use for is filled.
fn absent(is_absent: bool, what: &'static str) -> Walk {
    if is_absent {
        Ok(())
    } else {
        Err(StopReason::NotAnalysed(what))
    }
}

#[cfg(test)]
mod tests;
