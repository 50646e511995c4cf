//! Views on tables that are not all on one shard: the query that stands in the place of each mention.
//!
//! What holds:
//! - The query is the view's definition as the server prints it with nothing but `pg_catalog` in the search
//!   path: whatever is in another schema has that before its name. A definition with a call by a bare name
//!   that the session's search path has elsewhere too, or with a backslash where backslashes escape, is
//!   refused.
//! - A view of replicated tables that calls what has another value on each server, or in each call, is replaced too
//!   where a statement that changes rows may run on several shards: what is said of calls in a statement holds for it.
//! - Views in it become their definitions as well. What that makes is planned in place of the client's text,
//!   so that no rule about tables has an exception for views.
//! - Tables in it are read with the privileges of the client's role, never with more.
//! - A view that is written stays what it is: the shards get the statement as it came, and what it is written
//!   through is a table to the planner (`catalog/through`).
//! - The calls in a view that is read where it is count as calls of the query.

use crate::catalog::Adds;
use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Reason;
use crate::catalog::Relation;
use crate::catalog::Written;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Replacement;
use crate::plan::Request;
use crate::plan::bind::Bound;
use crate::plan::bind::BoundSource;
use crate::plan::combine::columns;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::names;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::plan::statement::Part;
use crate::sql::analysis;
use crate::sql::analysis::BlockId;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Rows;
use crate::sql::lexer::tokenize;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;

/// Views on views on views are expanded so far.
const DEPTH: usize = 32;

/// What stands in the place of the views of a query.
///
/// # Errors
/// `0A000` where that would mean something else.
pub(super) fn find(query: &Query<'_>) -> Result<Vec<Replacement>> {
    if query.request.catalog.shards().len() == 1 {
        return Ok(Vec::new());
    }
    let is_elsewhere = |(block, source, bound): (BlockId, usize, BoundSource<'_>)| {
        let location = bound.relation().map(|relation| &relation.location);
        match location {
            Some(Location::Sharded(_) | Location::Unserved(_)) => true,
            Some(Location::Replicated) => is_written(query, block, source),
            _ => false,
        }
    };
    // A hub reads it where it is.
    let spreads = query.facts.modifies() && query.bound.occurrences().any(is_elsewhere);
    within(query, spreads, 0)
}

/// Whether a source is what its block writes to.
fn is_written(query: &Query<'_>, block: BlockId, source: usize) -> bool {
    let block = query.facts.blocks.get(block);
    source == 0 && block.is_some_and(|block| block.kind.modifies())
}

/// `spreads` if the statement changes rows, maybe of several shards.
fn within(query: &Query<'_>, spreads: bool, depth: usize) -> Result<Vec<Replacement>> {
    let mut found = Vec::new();
    for (block, source, bound) in query.bound.occurrences() {
        let BoundSource::Named(Lookup::Relation(view)) = bound else {
            continue;
        };
        if is_written(query, block, source) {
            continue;
        }
        let varying = || match spreads && varies(query, view) {
            true => view.definition.as_deref(),
            false => None,
        };
        if let Some(definition) = definition(view).or_else(varying) {
            let text = expanded(query.request, (view, definition), depth)?;
            found.push(replacement(query, view, (block, source), &text)?);
        }
    }
    Ok(found)
}

/// The calls that a server makes without the planner seeing their names: those in the views that are read where they
/// are, and those behind operators and types.
pub(super) fn calls(part: Part<'_>, bound: &Bound<'_>) -> Vec<(String, Effects)> {
    let request = part.request;
    if request.catalog.shards().len() == 1 {
        return Vec::new();
    }
    let conduct = Conduct::new(request.catalog);
    let relations = bound
        .occurrences()
        .filter_map(|(_, _, source)| source.relation());
    let views = relations.filter(|one| one.kind == 'v' && definition(one).is_none());
    let calls = views.flat_map(|view| conduct.view(view, 0));
    // What is aggregated there is no aggregate here.
    let inner = Effects::AGGREGATE | Effects::WINDOW;
    let calls = calls.map(|(name, effects)| (name, effects.without(inner)));
    calls.chain(names::hidden_calls(part)).collect()
}

impl Query<'_> {
    /// Refuses to write through views that don't mean the same on every shard, or that leave more to a shard than it
    /// can find by itself.
    pub(super) fn check_shown(&self) -> Result<()> {
        for (block, source, bound) in self.bound.occurrences() {
            let shown = bound.relation().filter(|relation| relation.is_shown());
            let Some(shown) = shown else {
                continue;
            };
            let facts = self.facts.blocks.get(block);
            let added = facts.map_or(Adds::Nothing, |facts| self.added(&facts.kind));
            let calls = Conduct::new(self.request.catalog).view(shown, 0);
            let why = match (calls.first(), &shown.written) {
                (Some((name, _)), _) => format!(
                    "it is a view that calls \"{name}\", which may mean something else on each shard"
                ),
                (None, Written::View { adds }) if added > *adds => {
                    "it is a view without a column that has a default which no shard finds by itself".to_owned()
                }
                _ => continue,
            };
            return Err(refusal::no_place(self.written_name(block, source), &why));
        }
        Ok(())
    }

    /// What a block adds to the view that it writes to. The rows of a template stand for any number.
    fn added(&self, kind: &BlockKind) -> Adds {
        match kind {
            BlockKind::Insert(_) if self.request.is_template => Adds::Rows,
            BlockKind::Insert(insert) => match &insert.rows {
                Rows::Default => Adds::OneRow,
                Rows::Values(rows) if rows.len() < 2 => Adds::OneRow,
                Rows::Values(_) | Rows::Query(_) => Adds::Rows,
            },
            _ => Adds::Nothing,
        }
    }
}

/// Whether a view that every shard has whole would have other rows on each.
fn varies(query: &Query<'_>, view: &Relation) -> bool {
    let aggregates = Effects::AGGREGATE | Effects::WINDOW;
    let is_everywhere = matches!(view.location, Location::Replicated);
    view.kind == 'v' && is_everywhere && {
        let calls = Conduct::new(query.request.catalog).view(view, 0);
        let mut effects = calls.iter().map(|(_, effects)| effects.without(aggregates));
        effects.any(|effects| effects != Effects::NONE)
    }
}

/// The definition of a view that is not read where it is.
fn definition(view: &Relation) -> Option<&str> {
    let is_nowhere = matches!(view.location, Location::Unserved(Reason::NoPlace(_)));
    view.definition
        .as_deref()
        .filter(|_| view.is_view() && is_nowhere)
}

/// A definition, with those of the views in it.
///
/// # Errors
/// `0A000` where that would mean something else.
pub(super) fn expanded(
    request: &Request<'_>,
    (view, definition): (&Relation, &str),
    depth: usize,
) -> Result<String> {
    let refuse = |why: &str| Err(refused(view, why));
    if depth >= DEPTH {
        return refuse("is nested too deeply");
    }
    if !request.lex.standard_conforming_strings && definition.contains('\\') {
        return refuse("has a backslash, which standard_conforming_strings makes an escape");
    }
    let definition = definition.trim_end().trim_end_matches(';');
    let lex = LexOptions::default();
    let tokens = tokenize(definition.as_bytes(), lex)
        .map_err(|error| error.to_error(definition.as_bytes()))?;
    let Ok(facts) = analysis::analyse(definition, &tokens) else {
        return refuse("is not understood");
    };
    for call in facts.calls.iter().filter(|call| call.name.schema.is_none()) {
        let (catalog, path) = (request.catalog, request.search_path);
        let mut functions = catalog.functions(None, &call.name.name, path);
        if functions.any(|function| function.schema != "pg_catalog") {
            return refuse("calls a function whose name the search path has twice");
        }
    }
    let request = Request {
        text: definition,
        lex,
        search_path: &[],
        ..*request
    };
    let part = Part {
        request: &request,
        all: &tokens,
        tokens: &tokens,
    };
    let query = Query::new(part, &facts);
    let edits: Vec<Edit> = within(&query, true, depth + 1)?
        .iter()
        .filter_map(|one| one.edit(&tokens))
        .collect();
    splice(definition, lex, &edits)
}

/// What stands in the place of one mention, with a definition for its rows.
fn replacement(
    query: &Query<'_>,
    view: &Relation,
    (block, source): (BlockId, usize),
    definition: &str,
) -> Result<Replacement> {
    let refuse = |why: &str| Err(refused(view, why));
    let text = query.request.text;
    let facts = query.facts.blocks.get(block);
    let Some(source) = facts.and_then(|block| block.sources.get(source)) else {
        return refuse("has no place");
    };
    let Some(mut tokens) = query.name_tokens(source) else {
        return refuse("is written in a way that is not understood");
    };
    if source.sampled {
        return refuse("is sampled");
    }
    let known_as = source.alias.as_ref().unwrap_or(&view.name);
    let mut references = query.facts.references.iter();
    if references.any(|reference| reference.column.name == *known_as) {
        return refuse("is used as a value, which would have another type");
    }
    if source.alias.is_none() && !columns::schemas(query)?.is_empty() {
        return refuse("may stand behind a schema before a column");
    }
    let is_query = query.is_table_query(&tokens);
    if query.is_only(&tokens) {
        tokens.start -= 1;
    }
    let is_word = |index: usize, word: &str| {
        let token = query.tokens.get(index);
        token.is_some_and(|token| token.is_word(text, word))
    };
    let name = quote_identifier(known_as);
    let text = match (is_query, &source.alias) {
        (true, _) => {
            tokens.start = tokens.start.saturating_sub(1);
            if !is_word(tokens.start, "table") {
                return refuse("is written in a way that is not understood");
            }
            format!("SELECT * FROM ({definition}) AS {name}")
        }
        (false, Some(_)) => format!("({definition})"),
        (false, None) => format!("({definition}) AS {name}"),
    };
    Ok(Replacement {
        tokens,
        text: text.into(),
        is_view: true,
    })
}

fn refused(view: &Relation, why: &str) -> Error {
    refusal::no_place(
        &view.name,
        &format!("it is a view on tables of several shards, and it {why}"),
    )
}
