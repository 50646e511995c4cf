//! Queries that the parser does not know, which a hub finishes over whole copies of what they read.
//!
//! What holds:
//! - Relations are found by tokens alone, and each that is found is copied with all its columns and rows,
//!   wherever it is.
//! - What is not found, or is taken for a relation and is none, can't do harm: before anything is copied the
//!   hub is asked which relations the changed statement reads. There must be none but copies
//!   ([`super::Execution::is_unread`]). The statement is then run in a transaction that only reads.
//! - A name that a `WITH` may have given to a query is never taken for a relation.

use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::plan::combine::Combine;
use crate::plan::combine::Fragment;
use crate::plan::combine::Occurrence;
use crate::plan::combine::Place;
use crate::plan::combine::column_name;
use crate::plan::effects::Effects;
use crate::plan::names;
use crate::plan::own::stored;
use crate::plan::statement::Part;
use crate::sql::literal::identifier_value;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// Words that say something of one server, or of a relation that is not a copy.
const REFUSED: [&str; 22] = [
    "ctid",
    "xmin",
    "xmax",
    "cmin",
    "cmax",
    "tableoid",
    "tablesample",
    "shard_id",
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "regcollation",
    "table",
    "into",
    "pg_typeof",
];

/// Words that end a `FROM`.
const BEHIND_FROM: [&str; 12] = [
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "union",
    "intersect",
    "except",
];

/// Words that stand behind a relation without an alias.
const NO_ALIAS: [&str; 9] = [
    "join", "inner", "left", "right", "full", "cross", "natural", "on", "using",
];

/// Whatever a call may do that is not only computing.
const HARMFUL: Effects = Effects::WRITES
    .with(Effects::PINS)
    .with(Effects::SET_CONFIG)
    .with(Effects::NOTIFIES)
    .with(Effects::ASKS_CHANNELS)
    .with(Effects::READS_TABLES)
    .with(Effects::USER_CODE)
    .with(Effects::HOME)
    .with(Effects::SERVER)
    .with(Effects::SHARD);

/// Between two parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// It has a `SELECT`.
    selects: bool,
    /// It is in a `FROM`.
    in_from: bool,
    /// A source begins here.
    expects: bool,
}

/// The plan of a query that only reads; none if there is none.
pub(in crate::plan) fn plan(part: Part<'_>) -> Option<Combine> {
    let text = part.request.text;
    let is_refused = |token: &Token| REFUSED.iter().any(|word| token.is_word(text, word));
    if part.tokens.iter().any(is_refused)
        || part.request.temporary_tables
        || !stored::mentions(text, part.all).is_empty()
        || names::calls(part, HARMFUL).1.is_some()
    {
        return None;
    }
    let mut reader = Reader {
        part,
        queries: queries(part),
        combine: Combine {
            fragments: Vec::new(),
            occurrences: Vec::new(),
            hub: None,
            schemas: Vec::new(),
            is_unread: true,
            asks_type: false,
            gathered: None,
        },
    };
    reader.read()?;
    (!reader.combine.fragments.is_empty()).then_some(reader.combine)
}

/// The names that a `WITH` may give to queries.
fn queries(part: Part<'_>) -> HashSet<String> {
    let text = part.request.text;
    let mut found = HashSet::new();
    for (index, token) in part.tokens.iter().enumerate() {
        let Some(name) = identifier_value(text, token) else {
            continue;
        };
        let next = |distance: usize| part.tokens.get(index + distance);
        let is_body = |token: &Token| {
            let words = ["materialized", "not"];
            token.is_symbol(text, "(") || words.iter().any(|word| token.is_word(text, word))
        };
        let is_named = next(1).is_some_and(|token| token.is_word(text, "as"));
        let has_columns = next(1).is_some_and(|token| token.is_symbol(text, "("));
        if has_columns || (is_named && next(2).is_some_and(is_body)) {
            found.insert(name.into_owned());
        }
    }
    found
}

struct Reader<'a> {
    part: Part<'a>,
    queries: HashSet<String>,
    combine: Combine,
}

impl Reader<'_> {
    /// Finds the relations; none if that can't be done.
    fn read(&mut self) -> Option<()> {
        let text = self.part.request.text;
        let mut levels = vec![Level::default()];
        let mut at = 0;
        while let Some(token) = self.part.tokens.get(at) {
            let level = levels.last_mut()?;
            let is = |word: &str| token.is_word(text, word);
            let expects = std::mem::take(&mut level.expects);
            at += 1;
            match token.text(text) {
                "(" => levels.push(Level {
                    in_from: expects,
                    expects,
                    ..Level::default()
                }),
                ")" => drop(levels.pop()?),
                "," => level.expects = level.in_from,
                _ if is("select") => {
                    *level = Level {
                        selects: true,
                        ..Level::default()
                    };
                }
                _ if is("from") => {
                    let is_query = level.selects && !self.is_behind(at - 1, "distinct");
                    level.in_from |= is_query;
                    level.expects = is_query;
                }
                _ if is("join") => level.expects = level.in_from,
                _ if BEHIND_FROM.iter().any(|word| is(word)) => level.in_from = false,
                _ if expects && (is("only") || is("lateral")) => level.expects = true,
                _ if expects && (is("values") || is("with") || is("rows")) => {
                    level.in_from = false;
                }
                _ if expects => at = self.source(at - 1)?,
                _ => {}
            }
        }
        (levels.len() == 1).then_some(())
    }

    fn is_behind(&self, index: usize, word: &str) -> bool {
        let before = index.checked_sub(1);
        let token = before.and_then(|index| self.part.tokens.get(index));
        token.is_some_and(|token| token.is_word(self.part.request.text, word))
    }

    /// Takes in what begins at a token in `FROM`; where it ends.
    fn source(&mut self, start: usize) -> Option<usize> {
        let text = self.part.request.text;
        let tokens = self.part.tokens;
        let name = |index: usize| identifier_value(text, tokens.get(index)?);
        let is = |index: usize, symbol: &str| {
            let token = tokens.get(index);
            token.is_some_and(|token| token.is_symbol(text, symbol))
        };
        let first = name(start)?.into_owned();
        let (schema, relation, mut end) = match is(start + 1, ".") {
            true => (Some(first), name(start + 2)?.into_owned(), start + 3),
            false => (None, first, start + 1),
        };
        if is(end, "(") {
            return Some(end);
        }
        let request = self.part.request;
        let lookup = request
            .catalog
            .relation(schema.as_deref(), &relation, request.search_path);
        let is_query = schema.is_none() && self.queries.contains(&relation);
        let known = match lookup {
            Lookup::Relation(_) if is_query || is(end, ".") => return None,
            Lookup::Relation(known) => known,
            Lookup::System | Lookup::Temporary => return None,
            // It is a query's, or PostgreSQL says that there is none.
            Lookup::Unknown { .. } => return Some(end),
        };
        if is(end, "*") {
            end += 1;
        }
        let is_only = self.is_behind(start, "only");
        self.occurrence(start..end, known, is_only)?;
        Some(end)
    }

    /// One mention of a relation.
    fn occurrence(&mut self, tokens: Range<usize>, relation: &Relation, only: bool) -> Option<()> {
        let place = match &relation.location {
            _ if relation.hazards.row_security => return None,
            Location::Unserved(_) => return None,
            Location::Home(shard) => Place::Home(*shard),
            Location::Replicated => Place::Everywhere,
            Location::Sharded(placement) => Place::Shards(placement.shards().clone()),
        };
        let is_same = |known: &Fragment| {
            (&known.schema, &known.relation, known.only) == (&relation.schema, &relation.name, only)
        };
        let mut known = self.combine.fragments.iter();
        let fragment = known.position(is_same).unwrap_or_else(|| {
            self.combine.fragments.push(Fragment {
                schema: relation.schema.clone(),
                relation: relation.name.clone(),
                only,
                alias: relation.name.clone(),
                columns: relation.columns.iter().map(column_name).collect(),
                terms: Vec::new(),
                place,
                proof: None,
                sample: None,
                links: Vec::new(),
            });
            self.combine.fragments.len() - 1
        });
        let text = self.part.request.text;
        let has_alias = self.part.tokens.get(tokens.end).is_some_and(|token| {
            let is = |word: &&str| token.is_word(text, word);
            let is_name = token.kind == TokenKind::Word || token.kind.is_quoted_identifier();
            is_name && !NO_ALIAS.iter().chain(&BEHIND_FROM).any(is)
        });
        let first = self.part.tokens.first()?.start;
        let base = self.part.all.partition_point(|token| token.start < first);
        self.combine.occurrences.push(Occurrence {
            fragment,
            tokens: base + tokens.start..base + tokens.end,
            alias: (!has_alias).then(|| relation.name.clone()),
            is_whole: false,
            sample: None,
        });
        Some(())
    }
}
