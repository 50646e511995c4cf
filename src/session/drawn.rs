//! What the proxy has drawn from sequences for a session, as `currval` and `lastval` tell it.
//!
//! The numbers of sharded tables come from blocks (`topology/sequences.rs`), so no server connection knows
//! which of them a session has got. What holds:
//! - What is told is what one PostgreSQL would tell, or it is not known and refused.
//! - A number that was drawn for a statement counts once that has been executed and has not failed: one PostgreSQL
//!   might have drawn less for it.
//! - Whatever a server may have drawn for the session since makes all of it unknown.
//! - Of a sequence that the proxy has never drawn from for the session the server connection knows, as without it.
//! - A call stands in the text with its number, so that the statement is planned with that: as a shard key, too.

use std::sync::Arc;

use crate::catalog::{Lookup, SequenceName};
use crate::error::Result;
use crate::plan::own::tokens_of;
use crate::plan::{Filled, Parameters, Plan, Route, SessionUse};
use crate::session::configure::value;
use crate::session::database::Database;
use crate::session::held::Held;
use crate::session::pseudo::Expanded;
use crate::session::refusal::sequence_elsewhere;
use crate::session::study::Study;
use crate::session::{Session, Stop};
use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::shifts::Shifts;
use crate::sql::splice::{Edit, splice};
use crate::sql::statement::{QueryKind, Statement};
use crate::sql::token::{LexOptions, Token, TokenKind};

/// The numbers.
#[derive(Debug, Default)]
pub struct Drawn {
    /// The last of each sequence; none where that is not known any more.
    numbers: Vec<(SequenceName, Option<i64>)>,
    /// The last of all.
    last: Option<i64>,
    /// What they were drawn for is not known to have ended well.
    is_open: bool,
    /// What they were drawn for has been bound and not been executed.
    is_bound: bool,
    /// The transaction at hand has done what may draw at its end.
    is_deferred: bool,
    /// The servers know what the statement at hand asks beside what stands in its text by now.
    servers_know: bool,
}

/// Who knows a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is this one.
    Here(i64),
    /// The server connection, if anybody.
    Server,
    /// Nobody.
    Nobody,
}

impl Drawn {
    /// Numbers were drawn from these sequences, whose last ones these are, in the order in which one row gets them.
    pub fn note(&mut self, numbers: &[(SequenceName, i64)]) {
        if self.is_bound {
            // Which of two is executed first is not known.
            self.blur();
        }
        for (sequence, number) in numbers {
            let known = self.numbers.iter_mut().find(|(name, _)| name == sequence);
            match known {
                Some((_, known)) => *known = Some(*number),
                None => self.numbers.push((sequence.clone(), Some(*number))),
            }
        }
        self.last = match numbers {
            [(_, only)] => Some(*only),
            _ => None,
        };
        self.is_open = !numbers.is_empty();
    }

    /// The proxy has drawn from a sequence for the session in a way that is not followed.
    pub fn note_unknown(&mut self, sequence: &SequenceName) {
        if !self.numbers.iter().any(|(name, _)| name == sequence) {
            self.numbers.push((sequence.clone(), None));
        }
        self.blur();
    }

    /// None of it is known any more.
    pub fn blur(&mut self) {
        self.last = None;
        for (_, number) in &mut self.numbers {
            *number = None;
        }
    }

    /// The statement that they were drawn for is bound, and executed later if at all.
    pub fn bind(&mut self) {
        self.is_bound = self.is_open;
    }

    /// A statement is executed, which a server may draw for. What is deferred runs with COMMIT.
    pub fn execute(&mut self, statement: &Statement, session: SessionUse) {
        self.is_bound = false;
        let may_draw = match statement {
            Statement::Query(_) => session.contains(SessionUse::MAY_DRAW),
            Statement::Commit { .. } | Statement::Rollback { .. } => {
                std::mem::take(&mut self.is_deferred)
            }
            Statement::Empty
            | Statement::Begin(_)
            | Statement::Savepoint(_)
            | Statement::RollbackTo(_)
            | Statement::Release(_)
            | Statement::SetTransaction(_)
            | Statement::SetSessionCharacteristics(_)
            | Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::Show(_)
            | Statement::ShowShardwire(_)
            | Statement::Prepare { .. }
            | Statement::Deallocate(_)
            | Statement::CloseCursor(_)
            | Statement::Listen(_)
            | Statement::Unlisten(_)
            | Statement::Notify { .. } => false,
            _ => true,
        };
        let ends = matches!(
            statement,
            Statement::Commit { .. } | Statement::Rollback { .. }
        );
        self.is_deferred |= may_draw && !ends;
        if may_draw {
            self.blur();
        }
    }

    /// A statement has failed, perhaps that which they were drawn for.
    pub fn fail(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.blur();
        }
    }

    /// All that was sent has been answered.
    pub fn settle(&mut self) {
        self.is_open &= self.is_bound;
    }

    /// The transaction at hand has ended.
    pub fn end(&mut self) {
        self.is_deferred = false;
    }

    /// A request begins, of which no server is known to know.
    pub fn begin(&mut self) {
        self.servers_know = false;
    }

    /// Whether a statement that asks must not reach a server.
    pub fn keeps_from_servers(&self) -> bool {
        !self.numbers.is_empty() && !self.servers_know
    }

    /// Whether the proxy has not drawn for the session.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn of(&self, sequence: &SequenceName) -> Known {
        match self.numbers.iter().find(|(name, _)| name == sequence) {
            None => Known::Server,
            Some((_, Some(number))) if !self.is_open => Known::Here(*number),
            Some(_) => Known::Nobody,
        }
    }

    fn last(&self) -> Known {
        match self.last {
            Some(number) if !self.is_open => Known::Here(number),
            _ => Known::Nobody,
        }
    }
}

impl Session {
    /// A request begins.
    pub(super) fn begin_drawn(&mut self) {
        self.memory.drawn.begin();
        if self.server.as_ref().is_none_or(Held::is_at_rest) {
            self.memory.drawn.settle();
        }
    }

    /// A query of the proxy's own is asked for the client, on any connection of its shard.
    ///
    /// # Errors
    /// `0A000` if only one of them knows what it asks of sequences.
    pub(super) fn note_asked(&mut self, plan: &Plan) -> Result<()> {
        if self.is_sticky(plan) {
            return Err(sequence_elsewhere());
        }
        self.note_temporary(plan);
        Ok(())
    }

    /// A statement that asks what the session last drew, with what the proxy has drawn in its text; none if the
    /// servers answer it.
    ///
    /// # Errors
    /// `0A000` if nobody knows.
    pub(super) async fn with_drawn(
        &mut self,
        (text, plan): (&str, &Arc<Plan>),
        parameters: Parameters<'_>,
        types: &[u32],
    ) -> Result<Option<Expanded>, Stop> {
        let asks = plan.session.contains(SessionUse::READS_SEQUENCE);
        let drawn = &self.memory.drawn;
        let Statement::Query(query) = &plan.statement else {
            return Ok(None);
        };
        if !asks || drawn.is_empty() || drawn.servers_know || self.database.is_single() {
            return Ok(None);
        }
        // What was drawn counts once it is known to be used.
        self.drain().await?;
        if self.is_skipping() {
            return Err(Stop::Skip);
        }
        self.memory.drawn.settle();
        let options = Database::lex_options(self.settings.context());
        let tokens = tokens_of(text, options)?;
        let calls = self.sequence_calls(text, &tokens, types)?;
        let (edits, asked) = self.calls_told(query.kind, (text, &calls), &parameters)?;
        self.memory.drawn.servers_know = edits.len() < calls.len();
        if edits.is_empty() {
            return Ok(None);
        }
        let told = splice(text, options, &edits)?;
        let study = self.study(Some(&told), types)?;
        if !matches!(&study, Study::One(plan) if self.leaves(plan, &asked)) {
            return Err(sequence_elsewhere().into());
        }
        Ok(Some(Expanded {
            study,
            shifts: Shifts::of(text, &edits),
            text: told,
        }))
    }

    /// Whether a statement that stands for one which asks of these sequences, or which was the last where there is
    /// none, leaves what it asks as it is: one PostgreSQL tells what the statement itself has drawn.
    fn leaves(&self, plan: &Plan, asked: &[Option<SequenceName>]) -> bool {
        let draws = SessionUse::MAY_DRAW | SessionUse::DRAWS_SEQUENCE;
        let is_other = |column: &Filled| {
            let drawn = column.sequence.as_ref();
            let is_same = |one: &Option<SequenceName>| one.is_none() || one.as_ref() == drawn;
            drawn.is_some() && !asked.iter().any(is_same)
        };
        let fill = plan.fill();
        plan.session.without(draws) == plan.session
            && plan.feed().is_none()
            && !matches!(plan.route, Route::Staged(_))
            && plan.pseudo.is_empty()
            && plan.listed.is_empty()
            && fill.is_none_or(|fill| fill.columns.iter().all(is_other))
    }

    /// All calls of a statement that asks what was drawn.
    fn sequence_calls<'a>(
        &mut self,
        text: &str,
        tokens: &'a [Token],
        types: &[u32],
    ) -> Result<Vec<Call<'a>>> {
        let found = calls(text, tokens).ok_or_else(sequence_elsewhere)?;
        let is_plain = {
            let shared = self.database.topology.catalog();
            let catalog = self.own_sight().map_or(&*shared, |sight| &sight.catalog);
            let mut functions = found
                .iter()
                .flat_map(|call| catalog.functions_named(None, call.name));
            functions.all(|function| function.schema == "pg_catalog")
        };
        // Others may stand in views.
        let without = found.iter().map(|call| Edit {
            range: call.range.clone(),
            text: "0".to_owned(),
        });
        let without: Vec<Edit> = without.collect();
        let options = Database::lex_options(self.settings.context());
        let rest = splice(text, options, &without)?;
        match self.study(Some(&rest), types)? {
            Study::One(rest) if is_plain && !rest.session.contains(SessionUse::READS_SEQUENCE) => {
                Ok(found)
            }
            _ => Err(sequence_elsewhere()),
        }
    }

    /// What stands in the place of calls that the proxy answers, and what these ask of.
    fn calls_told(
        &self,
        kind: QueryKind,
        (text, calls): (&str, &[Call<'_>]),
        parameters: &Parameters<'_>,
    ) -> Result<(Vec<Edit>, Vec<Option<SequenceName>>)> {
        let options = Database::lex_options(self.settings.context());
        let drawn = &self.memory.drawn;
        let (mut edits, mut asked) = (Vec::new(), Vec::new());
        for call in calls {
            let sequence = match call.argument {
                None => None,
                Some(argument) => {
                    let name = value(text, std::slice::from_ref(argument), parameters);
                    let name = name.flatten().ok_or_else(sequence_elsewhere)?;
                    let sequence = self.sequence_named(&name, options);
                    Some(sequence.ok_or_else(sequence_elsewhere)?)
                }
            };
            let known = match &sequence {
                None => drawn.last(),
                Some(sequence) => drawn.of(sequence),
            };
            // What is a parameter for it would not be in the text.
            let is_parameter = (call.argument).is_some_and(|one| one.kind == TokenKind::Parameter);
            match known {
                Known::Server => {}
                Known::Here(number) if !is_parameter => {
                    asked.push(sequence);
                    edits.push(Edit {
                        range: call.range.clone(),
                        text: match kind {
                            QueryKind::Insert => format!("'{number}'::pg_catalog.int8"),
                            _ => format!("(SELECT '{number}'::pg_catalog.int8 AS {})", call.name),
                        },
                    });
                }
                Known::Here(_) | Known::Nobody => return Err(sequence_elsewhere()),
            }
        }
        Ok((edits, asked))
    }

    /// The sequence that a text names as `regclass` reads it; none if that is not certain.
    fn sequence_named(&self, written: &str, options: LexOptions) -> Option<SequenceName> {
        let tokens = tokenize(written.as_bytes(), options).ok()?;
        let name = |token: &Token| identifier_value(written, token).map(|name| name.to_string());
        let (schema, name) = match tokens.as_slice() {
            [only] => (None, name(only)?),
            [schema, dot, last] if dot.is_symbol(written, ".") => {
                (Some(name(schema)?), name(last)?)
            }
            _ => return None,
        };
        if schema.is_none() && self.memory.temporary_tables {
            return None;
        }
        let shared = self.database.topology.catalog();
        let catalog = self.own_sight().map_or(&*shared, |sight| &sight.catalog);
        let context = self.settings.context();
        let default = catalog.default_search_path();
        let path = (context.whose).effective(context.search_path.as_ref(), default);
        match catalog.relation(schema.as_deref(), &name, &path) {
            Lookup::Relation(relation) => Some(SequenceName {
                schema: relation.schema.clone(),
                name: relation.name.clone(),
            }),
            _ => None,
        }
    }
}

/// A call of `currval` or `lastval`.
#[derive(Debug)]
struct Call<'a> {
    name: &'static str,
    range: std::ops::Range<u32>,
    /// The constant or parameter that names the sequence.
    argument: Option<&'a Token>,
}

/// Words behind which the sources of rows stand no more.
const BEHIND_SOURCES: [&str; 12] = [
    "where",
    "group",
    "having",
    "order",
    "limit",
    "offset",
    "fetch",
    "union",
    "except",
    "intersect",
    "select",
    "returning",
];

/// All calls of them; none if one is not in a form that is known, or is a source of rows.
fn calls<'a>(text: &str, tokens: &'a [Token]) -> Option<Vec<Call<'a>>> {
    let mut found = Vec::new();
    // Of each parenthesis that is open: whether sources of rows stand here.
    let mut sources = vec![false];
    let symbol = |at: usize, symbol: &str| {
        tokens
            .get(at)
            .is_some_and(|one| one.is_symbol(text, symbol))
    };
    for (at, token) in tokens.iter().enumerate() {
        if token.is_symbol(text, "(") {
            sources.push(false);
        } else if token.is_symbol(text, ")") {
            sources.pop();
        } else if token.is_word(text, "from") || token.is_word(text, "using") {
            *sources.last_mut()? = true;
        } else if BEHIND_SOURCES.iter().any(|word| token.is_word(text, word)) {
            *sources.last_mut()? = false;
        }
        let name = identifier_value(text, token);
        let name = match name.as_deref() {
            Some("currval") => "currval",
            Some("lastval") => "lastval",
            _ => continue,
        };
        if !symbol(at + 1, "(") {
            continue;
        }
        if *sources.last()? {
            return None;
        }
        let start = match at.checked_sub(2) {
            Some(schema) if symbol(at - 1, ".") => {
                let schema = tokens.get(schema)?;
                schema.is_word(text, "pg_catalog").then_some(schema.start)?
            }
            _ => token.start,
        };
        let (argument, end) = match name {
            "lastval" => (None, at + 2),
            _ => {
                let is_cast = symbol(at + 3, "::") && tokens.get(at + 4)?.is_word(text, "regclass");
                (
                    Some(tokens.get(at + 2)?),
                    if is_cast { at + 5 } else { at + 3 },
                )
            }
        };
        if !symbol(end, ")") {
            return None;
        }
        found.push(Call {
            name,
            range: start..tokens.get(end)?.end,
            argument,
        });
    }
    (!found.is_empty()).then_some(found)
}
