//! What a hub makes of the groups or rows that each shard has made of its own rows, instead of whole relations
//! ([`crate::plan::merge::partial`]): the texts of one execution.

use std::ops::Range;

use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::bind::BoundSource;
use crate::plan::combine::Combine;
use crate::plan::combine::Execution;
use crate::plan::combine::Intermediate;
use crate::plan::combine::execution::Written;
use crate::plan::combine::execution::push_term;
use crate::plan::effects::Effects;
use crate::plan::keyed;
use crate::plan::keyed::Proof;
use crate::plan::merge::Partial;
use crate::plan::merge::partial;
use crate::plan::merge::partial::Part;
use crate::plan::own::tokens_of;
use crate::plan::proof::Prover;
use crate::plan::query::Query;
use crate::plan::scatter;
use crate::sharding::ShardSet;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::slice;

/// What stands in the shards' query for the hub's `now()`, until that is known.
pub const NOW: &str = "\"?shardwire now?\"";

/// A query of which each shard does its part.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Gathered {
    partial: Partial,
    /// Calls that ask for the time, which is the hub's: their tokens, and what it is cast to.
    moments: Vec<(Range<usize>, &'static str)>,
    /// The shards that have its rows.
    pub shards: ShardSet,
    /// What restricts it to some of them.
    pub proof: Option<Proof>,
}

/// The hub's text, until the types of the table's columns are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The statement as the client wrote it.
    text: String,
    lex: LexOptions,
    /// The bytes of its query.
    range: Range<u32>,
    /// The hub's query.
    parts: Vec<Part>,
}

/// Finds how each shard does its part, if it can.
pub(super) fn find(query: &Query<'_>) -> Option<Gathered> {
    let joined = scatter::joined(query, Effects::CLOCK).ok()?;
    let partial = partial::of(query, &joined).ok()?;
    let moments = moments(query)?;
    let anchor = joined.key().first()?;
    let relation = query.bound.source(anchor.block, anchor.source);
    let relation = relation.and_then(BoundSource::relation)?;
    Some(Gathered {
        partial,
        moments,
        shards: joined.shards(),
        proof: Prover::new(query).prove(relation, anchor.block, anchor.source),
    })
}

/// The calls that ask for the time; none if one of them can't be told.
fn moments(query: &Query<'_>) -> Option<Vec<(Range<usize>, &'static str)>> {
    let text = query.request.text;
    let is = |at: usize, symbol: &str| {
        let token = query.tokens.get(at);
        token.is_some_and(|token| token.is_symbol(text, symbol))
    };
    let calls = query.facts.calls.iter().zip(&query.calls);
    let asking = calls.filter(|(_, effects)| effects.any(Effects::CLOCK));
    let found = asking.map(|(call, _)| {
        let at = query.token_at(call.offset?)?;
        let start = match &call.name.schema {
            Some(schema) if schema == "pg_catalog" => at.checked_sub(2)?,
            Some(_) => return None,
            None => at,
        };
        let has_parentheses = is(at + 1, "(");
        let cast = match (call.name.name.as_str(), has_parentheses) {
            ("now" | "transaction_timestamp", true) => "timestamptz",
            ("current_timestamp", false) => "timestamptz",
            ("current_date", false) => "date",
            ("localtimestamp", false) => "timestamp",
            _ => return None,
        };
        let is_whole = !has_parentheses || is(at + 2, ")");
        is_whole.then_some((start..at + 1 + 2 * usize::from(has_parentheses), cast))
    });
    found.collect()
}

impl Gathered {
    /// Some tokens of the shards' query as they are, but for calls that ask for the time.
    fn copied(&self, written: &Written<'_>, range: &Range<usize>) -> Result<String> {
        let mut inside: Vec<_> = self.moments.iter().collect();
        inside.retain(|(tokens, _)| range.start <= tokens.start && tokens.end <= range.end);
        inside.sort_by_key(|(tokens, _)| tokens.start);
        let bytes = written.bytes(range)?;
        let (mut copied, mut at) = (String::new(), bytes.start);
        for (tokens, cast) in inside {
            let call = written.bytes(tokens)?;
            copied.push_str(slice(written.text, at..call.start));
            copied.push_str(&format!("{NOW}::pg_catalog.{cast}"));
            at = call.end;
        }
        copied.push_str(slice(written.text, at..bytes.end));
        Ok(copied)
    }

    /// What each shard makes, for people.
    pub fn words(&self) -> &'static str {
        match (self.partial.is_grouped, self.partial.is_cut) {
            (true, _) => "groups that each shard makes",
            (false, true) => "the first rows of each shard",
            (false, false) => "rows of each shard",
        }
    }
}

impl Combine {
    /// The texts of one execution of which each shard does its part; none if there is no such.
    ///
    /// # Errors
    /// `XX000` for a text that is not of the planned shape.
    pub fn gathering(
        &self,
        arguments: &Arguments<'_>,
        lex: LexOptions,
    ) -> Result<Option<Execution>> {
        let Some(gathered) = self.gathered.as_ref() else {
            return Ok(None);
        };
        let (text, partial) = (arguments.text, &gathered.partial);
        let tokens = tokens_of(text, lex)?;
        let written = Written {
            text,
            tokens: &tokens,
            is_timeless: true,
        };
        let words = |range: &Range<usize>| {
            let tokens = written.tokens(range)?.iter();
            Ok(tokens.map(|token| token.text(text)).collect::<Vec<&str>>())
        };
        let mut is_alike = true;
        for (one, other) in &partial.alike {
            is_alike &= words(one)? == words(other)?;
        }
        if !is_alike || keyed::names_moment(arguments) || text.contains(NOW) {
            return Ok(None);
        }
        let of_shard = partial.of_shard.iter().map(|part| match part {
            Part::Copy(range) => gathered.copied(&written, range),
            part => Ok(part.sql(&[]).unwrap_or_default()),
        });
        let of_shard = of_shard.collect::<Result<Vec<String>>>()?.join(" ");
        let (query, parameters) = numbered(&of_shard, lex)?;
        let parts = partial.of_hub.iter().map(|part| match part {
            Part::Copy(range) => {
                let words = slice(text, written.bytes(range)?);
                Ok(Part::Text(words.into()))
            }
            part => Ok(part.clone()),
        });
        let shards = gathered
            .proof
            .as_ref()
            .and_then(|proof| proof.shards(arguments));
        Ok(Some(Execution {
            text: text.to_owned(),
            typed: None,
            hub: None,
            locals: Vec::new(),
            relations: vec![Intermediate {
                name: partial::TABLE.to_owned(),
                of: gathered.words().to_owned(),
                source: String::new(),
                columns: format!("SELECT * FROM pg_temp.{}", partial::TABLE),
                names: partial.columns.to_vec(),
                query,
                parameters,
                shards: shards.unwrap_or_else(|| gathered.shards.clone()),
                conditions: 0,
                links: Vec::new(),
            }],
            is_unread: false,
            unfinished: Some(Unfinished {
                text: text.to_owned(),
                lex,
                range: written.bytes(&partial.body)?,
                parts: parts.collect::<Result<Vec<Part>>>()?,
            }),
        }))
    }
}

/// A query with its parameters numbered anew, and which of the client's they are, from 0.
fn numbered(text: &str, lex: LexOptions) -> Result<(String, Vec<usize>)> {
    let tokens = tokens_of(text, lex)?;
    let written = Written {
        text,
        tokens: &tokens,
        is_timeless: true,
    };
    let (mut query, mut parameters) = (String::new(), Vec::new());
    push_term(&mut query, &written, &(0..tokens.len()), &mut parameters)?;
    Ok((query, parameters))
}

impl Unfinished {
    /// The statement for the hub, over a table whose columns have these types; none if PostgreSQL can't add up
    /// partial results of such types exactly.
    ///
    /// # Errors
    /// `XX000` if that is no statement.
    pub fn text(&self, types: &[u32]) -> Result<Option<String>> {
        let parts = self.parts.iter().map(|part| part.sql(types));
        let Some(parts) = parts.collect::<Option<Vec<String>>>() else {
            return Ok(None);
        };
        let edit = Edit {
            range: self.range.clone(),
            text: parts.join(" "),
        };
        splice(&self.text, self.lex, &[edit]).map(Some)
    }
}
