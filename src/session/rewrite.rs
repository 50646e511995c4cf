//! Statements that servers get in other words, because the proxy answers some of their calls itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::connection::StatementId;
use crate::error::{Error, Result};
use crate::plan::own::{Question, stored, tokens_of};
use crate::plan::sizes::Sizes;
use crate::plan::{OwnCall, Parameters, Plan};
use crate::session::channels::concerns_channels;
use crate::session::control::Control;
use crate::session::database::Database;
use crate::session::prepared::{Needs, Prepared, statement_id};
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardIndex};
use crate::sql::literal::token_value;
use crate::sql::shifts::Shifts;
use crate::sql::splice::{Edit, splice};
use crate::sql::token::{Token, TokenKind};
use crate::sqlstate::SqlState;
use crate::wire::frontend::{self, Bind};

/// Between two looks whether a client that was told to leave has left.
const LEAVING_POLL: Duration = Duration::from_millis(10);

/// What was rewritten last, to translate the places of errors in it.
#[derive(Debug)]
pub struct Rewritten {
    /// The prepared statement; none for a simple Query, which is then the only one under way.
    pub statement: Option<StatementId>,
    /// Where its characters stand in the client's text.
    pub shifts: Shifts,
}

impl Session {
    /// The edits that put the proxy's answers into a statement, which is alone in its message or not. What its
    /// calls do is done.
    ///
    /// # Errors
    /// `42501` for another user's session, `57014` and `57P01` when the session's own is meant, `0A000`
    /// where it is not certain that the call is made.
    pub(super) async fn own_answers(
        &mut self,
        plan: &Plan,
        text: &str,
        parameters: Parameters<'_>,
        (shard, is_alone): (Option<ShardIndex>, bool),
    ) -> Result<Vec<Edit>, Stop> {
        let mut edits = self.channel_edits(plan, text);
        if !plan.own.iter().any(|call| is_edited(call, text)) {
            return Ok(edits);
        }
        let tokens = tokens_of(text, Database::lex_options(self.settings.context()))?;
        let sizes = self.sizes(plan, shard).await?;
        let mut done = 0;
        for (number, call) in plan.own.iter().enumerate() {
            let Some(range) = call.range(&tokens).filter(|range| range.start >= done) else {
                continue;
            };
            let answer = match call.question {
                Question::BackendPid => {
                    let pid = self.registered.control.process_id.to_string();
                    Some(call.replacement((text, &tokens), &pid, &[]))
                }
                Question::Size(measure) => sizes
                    .as_ref()
                    .map(|sizes| call.size((text, &tokens), measure, sizes)),
                Question::SetConfig => None,
                Question::Prepared { .. } => {
                    let table = self.stored_table().await?;
                    Some(call.stored((text, &tokens), &table)?)
                }
                Question::CurrentSetting => {
                    let before = plan.own.get(..number).filter(|_| is_alone);
                    let written = (text, &*tokens);
                    let answer = self.setting_answer(call, written, (&parameters, before))?;
                    self.setting_text(answer).await?
                }
                Question::CancelBackend | Question::TerminateBackend => {
                    let numbers = [0, 1].map(|argument| match call.argument(argument, &tokens) {
                        Some(written) => self.number(written, text, &parameters),
                        None => Some(0),
                    });

                    self.signal_client(call, (text, &tokens), numbers).await?
                }
            };
            if let Some(text) = answer {
                done = range.end;
                edits.push(Edit { range, text });
            }
        }
        Ok(edits)
    }

    /// The body of a PREPARE with the answers that are always the same.
    ///
    /// # Errors
    /// `0A000` for calls that are carried out when the statement runs.
    pub(super) fn lasting_answers(&self, plan: &Plan, text: &str) -> Result<String> {
        if plan.own.is_empty() {
            return Ok(text.to_owned());
        }
        let options = Database::lex_options(self.settings.context());
        let tokens = tokens_of(text, options)?;
        let pid = self.registered.control.process_id.to_string();
        let mut edits = Vec::new();
        for call in &plan.own {
            match call.question {
                Question::BackendPid => {}
                Question::Size(_) => return Err(passing(call.question.name())),
                Question::CurrentSetting | Question::SetConfig => continue,
                Question::Prepared { .. } => return Err(stored::refused("in PREPARE")),
                _ => return Err(uncertain(call.question.name())),
            }
            if let Some(range) = call.range(&tokens) {
                let text = call.replacement((text, &tokens), &pid, &[]);
                edits.push(Edit { range, text });
            }
        }
        splice(text, options, &edits)
    }

    /// What the other shards have on disk, if a plan asks for sizes of tables: not if the user has chosen
    /// a shard to ask.
    async fn sizes(&self, plan: &Plan, shard: Option<ShardIndex>) -> Result<Option<Sizes>, Stop> {
        let is_size = |call: &OwnCall| matches!(call.question, Question::Size(_));
        let is_chosen = self.settings.context().shard.is_some() || shard != Some(0);
        if is_chosen || !plan.own.iter().any(is_size) {
            return Ok(None);
        }
        Ok(Some(self.database.topology.sizes().await?))
    }

    /// Sends a signal to another client of this proxy, if `numbers` name one: the arguments of the call,
    /// none where it is not known.
    async fn signal_client(
        &mut self,
        call: &OwnCall,
        written: (&str, &[Token]),
        numbers: [Option<i64>; 2],
    ) -> Result<Option<String>, Stop> {
        let own = &self.registered.control;
        let [pid, timeout] = numbers;
        let target = pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(|pid| self.registered.find(pid));
        let timeout = timeout.and_then(|limit| u64::try_from(limit).ok());
        let (Some(target), Some(timeout)) = (target, timeout) else {
            // A process of a server, or an argument for a server to reject.
            return Ok(None);
        };
        let is_terminate = call.question == Question::TerminateBackend;
        if !call.is_certain {
            return Err(uncertain(call.question.name()).into());
        }
        let operations = &self.registered.sessions.operations;
        if target.user != own.user && !operations.may_change(&own.user) {
            return Err(denied(is_terminate).into());
        }
        let is_own = Arc::ptr_eq(&target, own);
        self.unit.make_final();
        let done = match (is_terminate, is_own) {
            (false, true) => return Err(cancelled().into()),
            (true, true) => return Err(Stop::Session(terminated())),
            (false, false) => {
                target.cancel().await;
                true
            }
            (true, false) => {
                target.terminate().await;
                self.has_left(&target, Duration::from_millis(timeout)).await
            }
        };
        let types: &[&str] = &["int4", "int8"];
        Ok(Some(call.replacement(written, &done.to_string(), types)))
    }

    /// Waits for a client to leave; true at once if there is no time to wait.
    async fn has_left(&self, target: &Control, limit: Duration) -> bool {
        if limit.is_zero() {
            return true;
        }
        let gone = async {
            while self.registered.find(target.process_id).is_some() {
                tokio::time::sleep(LEAVING_POLL).await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    /// The value of an argument that is a number as it stands, a parameter or `pg_backend_pid()`.
    fn number(&self, argument: &[Token], text: &str, parameters: &Parameters<'_>) -> Option<i64> {
        let is_pid = argument.len() >= 3
            && argument
                .iter()
                .any(|token| token.is_word(text, "pg_backend_pid"))
            && argument.iter().all(|token| {
                ["pg_catalog", "pg_backend_pid"]
                    .iter()
                    .any(|word| token.is_word(text, word))
                    || ["(", ")", "."]
                        .iter()
                        .any(|symbol| token.is_symbol(text, symbol))
            });
        if is_pid {
            return Some(self.registered.control.process_id.into());
        }
        let first = match argument {
            [first] => first,
            [first, colons, _] if colons.is_symbol(text, "::") => first,
            _ => return None,
        };
        if first.kind != TokenKind::Parameter {
            return token_value(text, first)?.trim().parse().ok();
        }
        let number: usize = first.text(text).strip_prefix('$')?.parse().ok()?;
        let index = number.checked_sub(1)?;
        let value = parameters.value(index)??;
        match parameters.format(index)? {
            Format::Text => std::str::from_utf8(value).ok()?.trim().parse().ok(),
            Format::Binary => match *value {
                [a, b] => Some(i16::from_be_bytes([a, b]).into()),
                [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
                _ => Some(i64::from_be_bytes(value.try_into().ok()?)),
            },
        }
    }

    /// A text as the client would have written it.
    pub(super) fn encoded<'a>(&self, text: &'a str) -> Result<Cow<'a, [u8]>> {
        self.settings.context().encoding.write(text).ok_or_else(|| {
            Error::refused(
                "statement that the proxy answers in part can't be written in its client encoding",
                "It has characters beyond ASCII that the proxy does not know.",
                "SET client_encoding TO 'UTF8'.",
            )
        })
    }

    /// The Query frame that a server gets in place of the client's; none if nothing is edited.
    pub(super) async fn edited_query(
        &mut self,
        text: &str,
        edits: &[Edit],
    ) -> Result<Option<Vec<u8>>, Stop> {
        if edits.is_empty() {
            return Ok(None);
        }
        let options = Database::lex_options(self.settings.context());
        let edited = splice(text, options, edits)?;
        // Errors from now on are about this text.
        self.drain().await?;
        self.unit.rewritten = Some(Rewritten {
            statement: None,
            shifts: Shifts::of(text, edits),
        });
        let mut frame = Vec::new();
        frontend::write_query(&mut frame, &self.encoded(&edited)?);
        Ok(Some(frame))
    }

    /// The statement to bind in place of the client's, which servers keep under no name: it is good for
    /// this one execution.
    pub(super) async fn edited_statement(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
        shard: Option<ShardIndex>,
    ) -> Result<Option<Arc<Prepared>>, Stop> {
        self.note_notify(&prepared.plan);
        self.claim().await?;
        let has_calls = !prepared.plan.own.is_empty();
        // A PREPARE has the answers in it already.
        let is_answered = has_calls && prepared.declared.is_some();
        if is_answered || !(has_calls || concerns_channels(&prepared.plan)) {
            return Ok(None);
        }
        let text = prepared.sql();
        let parameters = Parameters::new(&prepared.types, bind.formats, bind.values);
        let edits = self
            .own_answers(&prepared.plan, text, parameters, (shard, true))
            .await?;
        if edits.is_empty() {
            return Ok(None);
        }
        let options = Database::lex_options(self.settings.context());
        let edited = splice(text, options, &edits)?;
        let edited = self.encoded(&edited)?.into_owned();
        let id = statement_id(false, &edited, &prepared.types, prepared.context);
        self.unit.rewritten = Some(Rewritten {
            statement: Some(id),
            shifts: Shifts::of(text, &edits),
        });
        Ok(Some(Arc::new(Prepared {
            id,
            server_name: Box::default(),
            text: edited.into(),
            read: None,
            types: prepared.types.clone(),
            literals: Box::default(),
            hint: None,
            plan: Arc::clone(&prepared.plan),
            context: prepared.context,
            made_at: prepared.made_at,
            declared: None,
            needs: Needs::Nothing,
        })))
    }
}

/// Whether a call in this text may get another text.
fn is_edited(call: &OwnCall, text: &str) -> bool {
    match call.question {
        Question::SetConfig => false,
        // A name without a point is a server's own.
        Question::CurrentSetting => text.contains(['.', '$']),
        _ => true,
    }
}

fn passing(function: &str) -> Error {
    Error::refused(
        format!(
            "{function} in a statement that PREPARE makes is not supported over several shards"
        ),
        "What the other shards have is measured when a statement runs, and would be what it was then.",
        "Send the statement itself, or prepare it by the extended protocol.",
    )
}

fn uncertain(function: &str) -> Error {
    Error::refused(
        format!("{function} of a client of the proxy must stand alone"),
        "The proxy carries it out before the statement runs, so it must be certain that it is called.",
        format!("Write SELECT {function}(…) without conditions."),
    )
}

/// PostgreSQL's words up to version 15.
fn denied(is_terminate: bool) -> Error {
    let what = match is_terminate {
        true => "process is being terminated",
        false => "query is being canceled",
    };
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("must be a member of the role whose {what} or member of pg_signal_backend"),
    )
}

fn cancelled() -> Error {
    Error::new(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

fn terminated() -> Error {
    Error::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}
