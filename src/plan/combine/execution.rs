//! One execution of a combine: the texts that shards and hub are sent.

use std::ops::Range;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::combine::Combine;
use crate::plan::combine::Fragment;
use crate::plan::combine::Place;
use crate::plan::combine::Unfinished;
use crate::plan::keyed;
use crate::plan::own::tokens_of;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;

/// What shards and hub do for one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The statement for the hub, with the client's parameters.
    pub text: String,
    /// The same with whole rows of copies as values of the types that they are copies of, if it may use some.
    pub typed: Option<String>,
    /// The shard that the hub must be of; none if any will do.
    pub hub: Option<ShardIndex>,
    /// The intermediate relations that it reads.
    pub relations: Vec<Intermediate>,
    /// What the hub reads where it is, by whose keys others are restricted.
    pub locals: Vec<Intermediate>,
    /// It was not parsed: whoever runs it sees to it that it reads nothing else.
    pub is_unread: bool,
    /// What `text` will be, if the types of the only relation decide on it.
    pub unfinished: Option<Unfinished>,
}

/// An intermediate relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intermediate {
    /// Its name on the hub, in its temporary schema.
    pub name: String,
    /// The relation whose rows it holds, for people.
    pub of: String,
    /// The relation as it is written in SQL.
    pub source: String,
    /// The query on the hub that gives its columns and their types.
    pub columns: String,
    /// The names of its columns, as SQL, if they are those of `query`.
    pub names: Vec<String>,
    /// The query that gives its rows on each shard.
    pub query: String,
    /// The client's parameters, from 0, that are `$1`, `$2` … in `query`.
    pub parameters: Vec<usize>,
    /// The shards that have its rows.
    pub shards: ShardSet,
    /// How many conditions `query` has.
    pub conditions: usize,
    /// Other intermediate relations whose keys restrict its rows.
    pub links: Vec<KeyLink>,
}

/// An equality with a column of another intermediate relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLink {
    /// The own column, as SQL that stands in the query.
    pub column: String,
    /// Where the other column is.
    pub other: KeySource,
    /// The other column, as SQL.
    pub other_column: String,
}

/// What has the keys that restrict an intermediate relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// One of [`Execution::relations`].
    Copy(usize),
    /// One of [`Execution::locals`].
    Local(usize),
}

impl Intermediate {
    /// Whether it has the same rows as another one, before keys restrict them.
    fn has_rows_of(&self, other: &Intermediate) -> bool {
        (&self.query, &self.columns, &self.source) == (&other.query, &other.columns, &other.source)
            && self.parameters == other.parameters
            && self.shards == other.shards
    }

    /// The query, restricted to rows whose linked column is one of `keys`: an array as SQL.
    pub fn restricted(&mut self, link: &KeyLink, keys: &str) {
        let word = if self.conditions == 0 { "WHERE" } else { "AND" };
        self.conditions += 1;
        let condition = format!(" {word} ({} = ANY ({keys}))", link.column);
        self.query.push_str(&condition);
    }
}

impl Combine {
    /// The texts of one execution. `is_joined`: the hub does not see what the client's transaction has
    /// done, so that nothing is read there but what comes from its participants.
    ///
    /// # Errors
    /// `XX000` for a text that is not of the planned shape.
    pub fn execution(
        &self,
        arguments: &Arguments<'_>,
        lex: LexOptions,
        is_joined: bool,
    ) -> Result<Execution> {
        let text = arguments.text;
        let tokens = tokens_of(text, lex)?;
        let written = Written {
            text,
            tokens: &tokens,
            is_timeless: !keyed::names_moment(arguments),
        };
        let placed = self.placed(arguments, &written, is_joined)?;
        let Placed {
            mut relations,
            locals,
            places,
        } = placed;
        for (fragment, own) in self.fragments.iter().enumerate() {
            let at = match places.get(fragment) {
                Some(KeySource::Copy(at)) => *at,
                _ => continue,
            };
            if let Some(relation) = relations.get_mut(at) {
                relation.links = own.key_links(at, &places);
            }
        }
        let names: Vec<Option<String>> = places
            .iter()
            .map(|place| match place {
                KeySource::Copy(at) => Some(copy_name(*at)),
                KeySource::Local(_) => None,
            })
            .collect();
        let linked = |link: &KeyLink| matches!(link.other, KeySource::Local(_));
        let is_linked = relations.iter().any(|one| one.links.iter().any(linked));
        let plain = splice(text, lex, &self.edits(&names, &written, false)?)?;
        let typed = match self.occurrences.iter().any(|one| one.is_whole) {
            true => Some(splice(text, lex, &self.edits(&names, &written, true)?)?),
            false => None,
        };
        let (text, typed) = match typed {
            Some(typed) if self.asks_type => (typed, None),
            typed => (plain, typed),
        };
        Ok(Execution {
            text,
            typed,
            hub: self.hub,
            relations,
            locals: if is_linked { locals } else { Vec::new() },
            is_unread: self.is_unread,
            unfinished: None,
        })
    }

    /// Where each fragment's rows come from. Two that turn out to be the same have one copy: PostgreSQL must see
    /// that expressions over them are equal.
    fn placed(
        &self,
        arguments: &Arguments<'_>,
        written: &Written<'_>,
        is_joined: bool,
    ) -> Result<Placed> {
        let mut placed = Placed::default();
        let mut copied: Vec<&Fragment> = Vec::new();
        for (index, fragment) in self.fragments.iter().enumerate() {
            let is_shipped =
                is_joined || self.is_unread || matches!(fragment.place, Place::Shards(_));
            let shards = self.shards(fragment, arguments);
            if !is_shipped {
                let keys = Fragment {
                    columns: self.keys_of(index),
                    ..fragment.clone()
                };
                placed.places.push(KeySource::Local(placed.locals.len()));
                placed.locals.push(keys.intermediate("", shards, written)?);
                continue;
            }
            let mut relation = fragment.intermediate("", shards, written)?;
            let mut known = placed.relations.iter().zip(&copied);
            let same = known.position(|(known, of)| {
                known.has_rows_of(&relation)
                    && of.links == fragment.links
                    && of.sample.is_none()
                    && fragment.sample.is_none()
            });
            let at = same.unwrap_or(placed.relations.len());
            placed.places.push(KeySource::Copy(at));
            if same.is_none() {
                relation.name = copy_name(at);
                placed.relations.push(relation);
                copied.push(fragment);
            }
        }
        Ok(placed)
    }

    /// The columns of a fragment that others are restricted by. The client may not be allowed to read more.
    fn keys_of(&self, fragment: usize) -> Vec<String> {
        let links = self.fragments.iter().flat_map(|one| &one.links);
        let links = links.filter(|link| link.other == fragment);
        let mut columns: Vec<String> = links.map(|link| link.other_column.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// What makes the hub's statement of the client's; `names` are those of the copies, by fragment.
    fn edits(
        &self,
        names: &[Option<String>],
        written: &Written<'_>,
        is_typed: bool,
    ) -> Result<Vec<Edit>> {
        let mut edits = Vec::new();
        for occurrence in &self.occurrences {
            let Some(Some(name)) = names.get(occurrence.fragment) else {
                continue;
            };
            let fragment = self.fragments.get(occurrence.fragment);
            let copy = match fragment.filter(|_| is_typed && occurrence.is_whole) {
                Some(fragment) => fragment.typed(name),
                None => format!("pg_temp.{name}"),
            };
            let alias = occurrence.alias.as_ref();
            let alias = alias.map(|alias| format!(" AS {}", quote_identifier(alias)));
            edits.push(Edit {
                range: written.bytes(&occurrence.tokens)?,
                text: format!("{copy}{}", alias.unwrap_or_default()),
            });
            if let Some(sample) = &occurrence.sample {
                edits.push(Edit {
                    range: written.bytes(sample)?,
                    text: String::new(),
                });
            }
        }
        for schema in &self.schemas {
            edits.push(Edit {
                range: written.bytes(schema)?,
                text: String::new(),
            });
        }
        Ok(edits)
    }

    /// The shards that have rows of a fragment.
    fn shards(&self, fragment: &Fragment, arguments: &Arguments<'_>) -> ShardSet {
        match &fragment.place {
            Place::Shards(all) => {
                let proven = fragment.proof.as_ref();
                proven
                    .and_then(|proof| proof.shards(arguments))
                    .unwrap_or_else(|| all.clone())
            }
            Place::Home(shard) => ShardSet::from_iter([*shard]),
            Place::Everywhere => ShardSet::from_iter([self.hub.unwrap_or_default()]),
        }
    }
}

/// Where the rows of fragments come from.
#[derive(Default)]
struct Placed {
    relations: Vec<Intermediate>,
    locals: Vec<Intermediate>,
    /// Of each fragment.
    places: Vec<KeySource>,
}

/// The name of a copy on the hub.
fn copy_name(at: usize) -> String {
    format!("shardwire_{}", at + 1)
}

/// A text of the planned shape.
pub(super) struct Written<'a> {
    pub text: &'a str,
    pub tokens: &'a [Token],
    /// None of its constants means another moment on each server.
    pub is_timeless: bool,
}

impl Written<'_> {
    pub fn tokens(&self, range: &Range<usize>) -> Result<&[Token]> {
        let tokens = self.tokens.get(range.clone());
        tokens.filter(|tokens| !tokens.is_empty()).ok_or_else(|| {
            let message = "the statement is not of the shape that was planned";
            Error::new(SqlState::INTERNAL_ERROR, message)
        })
    }

    /// The bytes of some tokens.
    pub fn bytes(&self, range: &Range<usize>) -> Result<Range<u32>> {
        let tokens = self.tokens(range)?;
        let start = tokens.first().map_or(0, |token| token.start);
        Ok(start..tokens.last().map_or(start, |token| token.end))
    }
}

impl Fragment {
    /// The rows of its copy as values of the type of the relation: what names one of them gets that type.
    fn typed(&self, name: &str) -> String {
        let columns = self.columns.iter();
        let columns: Vec<String> = columns
            .map(|column| format!("copy.{}", quote_identifier(column)))
            .collect();
        format!(
            "pg_catalog.unnest((SELECT pg_catalog.array_agg(ROW({})::{}.{}) FROM pg_temp.{name} AS copy))",
            columns.join(", "),
            quote_identifier(&self.schema),
            quote_identifier(&self.relation)
        )
    }

    /// The links of its copy, which is at `at`; `places` are those of all fragments.
    fn key_links(&self, at: usize, places: &[KeySource]) -> Vec<KeyLink> {
        let links = self.links.iter();
        links
            .filter_map(|link| {
                let other = *places.get(link.other)?;
                let column = format!(
                    "{}.{}",
                    quote_identifier(&self.alias),
                    quote_identifier(&link.column)
                );
                (other != KeySource::Copy(at)).then(|| KeyLink {
                    column,
                    other,
                    other_column: quote_identifier(&link.other_column),
                })
            })
            .collect()
    }

    fn intermediate(
        &self,
        name: &str,
        shards: ShardSet,
        written: &Written<'_>,
    ) -> Result<Intermediate> {
        let alias = quote_identifier(&self.alias);
        let relation = format!(
            "{}{}.{}",
            if self.only { "ONLY " } else { "" },
            quote_identifier(&self.schema),
            quote_identifier(&self.relation)
        );
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{alias}.{}", quote_identifier(column)))
            .collect();
        let columns = format!("SELECT {} FROM {relation} AS {alias}", columns.join(", "));
        let mut query = columns.clone();
        let mut parameters = Vec::new();
        if let Some(sample) = &self.sample {
            query.push(' ');
            push_term(&mut query, written, sample, &mut parameters)?;
        }
        if written.is_timeless {
            for (number, term) in self.terms.iter().enumerate() {
                query.push_str(if number == 0 { " WHERE (" } else { " AND (" });
                push_term(&mut query, written, term, &mut parameters)?;
                query.push(')');
            }
        }
        Ok(Intermediate {
            name: name.to_owned(),
            of: self.relation.clone(),
            source: format!(
                "{}.{}",
                quote_identifier(&self.schema),
                quote_identifier(&self.relation)
            ),
            columns,
            names: Vec::new(),
            query,
            parameters,
            shards,
            conditions: if written.is_timeless {
                self.terms.len()
            } else {
                0
            },
            links: Vec::new(),
        })
    }
}

/// Appends a term whose parameters are numbered anew.
pub(super) fn push_term(
    query: &mut String,
    written: &Written<'_>,
    term: &Range<usize>,
    parameters: &mut Vec<usize>,
) -> Result<()> {
    let tokens = written.tokens(term)?;
    let mut behind = tokens.first().map_or(0, |token| token.start);
    for token in tokens {
        query.push_str(slice(written.text, behind..token.start));
        behind = token.end;
        let lexeme = token.text(written.text);
        let number = match token.kind {
            TokenKind::Parameter => lexeme
                .strip_prefix('$')
                .and_then(|number| number.parse::<usize>().ok())
                .and_then(|number| number.checked_sub(1)),
            _ => None,
        };
        let Some(number) = number else {
            query.push_str(lexeme);
            continue;
        };
        let known = parameters.iter().position(|known| *known == number);
        let at = known.unwrap_or_else(|| {
            parameters.push(number);
            parameters.len() - 1
        });
        query.push_str(&format!("${}", at + 1));
    }
    Ok(())
}
