//! INSERTs that leave a shard key or a global number to its default: finds the values out, and has the
//! completed statement take the client's place (`plan/fill`).

use std::sync::Arc;

use crate::catalog::SequenceName;
use crate::error::{Error, Result};
use crate::exec::scatter::Scatter;
use crate::plan::defaults::{Form, evaluation};
use crate::plan::{Arguments, Fill, Filled, Parameters, Plan, Target};
use crate::pool::Lease;
use crate::session::announce::plain_bind;
use crate::session::database::Database;
use crate::session::prepared::{Needs, Prepared, statement_id};
use crate::session::pseudo::Expanded;
use crate::session::rewrite::Rewritten;
use crate::session::scatter::{Joins, describe_and_execute};
use crate::session::study::Study;
use crate::session::{Sequences, Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::literal::{quote_identifier, quote_literal};
use crate::sql::shifts::Shifts;
use crate::sql::splice::splice;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::buffer::Reader;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

/// Where defaults are evaluated.
const FIRST_SHARD: ShardIndex = 0;

impl Session {
    /// Runs a simple Query once its rows are complete.
    pub(super) async fn query_filled(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        let expanded = self.completed(text, plan, &[]).await?;
        self.query_expanded(expanded).await
    }

    /// The statement that takes the place of a bound one whose rows are not complete, and its shards.
    pub(super) async fn bind_filled(
        &mut self,
        prepared: &Arc<Prepared>,
        bind: &Bind<'_>,
    ) -> Result<(Arc<Prepared>, Target), Stop> {
        let completed = self
            .completed(prepared.sql(), &prepared.plan, &prepared.types)
            .await?;
        Ok(self.bound_as(completed, prepared, bind)?)
    }

    /// A text that takes the place of a bound statement's, and its shards.
    pub(super) fn bound_as(
        &mut self,
        completed: Expanded,
        prepared: &Prepared,
        bind: &Bind<'_>,
    ) -> Result<(Arc<Prepared>, Target)> {
        let Study::One(plan) = completed.study else {
            return Err(incomplete());
        };
        let encoding = self.settings.context().encoding;
        let text = self.encoded(&completed.text)?.into_owned();
        let id = statement_id(false, &text, &prepared.types, prepared.context);
        let derived = Prepared {
            id,
            server_name: Box::default(),
            text: text.into(),
            read: (!encoding.is_utf8()).then(|| completed.text.as_str().into()),
            types: prepared.types.clone(),
            literals: self.shape.literals.as_slice().into(),
            hint: prepared.hint.clone(),
            plan,
            context: prepared.context,
            made_at: prepared.made_at,
            declared: None,
            needs: Needs::Nothing,
        };
        self.unit.rewritten = Some(Rewritten {
            statement: Some(id),
            shifts: completed.shifts,
        });
        let arguments = Arguments {
            text: &completed.text,
            literals: &derived.literals,
            parameters: Parameters::new(&derived.types, bind.formats, bind.values),
            encoding,
        };
        let target = self.target(&derived.plan, &arguments, derived.hint.as_deref())?;
        Ok((Arc::new(derived), target))
    }

    /// A statement with the values of its defaults.
    async fn completed(
        &mut self,
        text: &str,
        plan: &Plan,
        types: &[u32],
    ) -> Result<Expanded, Stop> {
        let options = Database::lex_options(self.settings.context());
        let edits = match (plan.fill(), plan.clock()) {
            (Some(fill), _) => {
                let mut values = Vec::with_capacity(fill.columns.len());
                let mut drawn = Vec::new();
                for column in &fill.columns {
                    values.push(self.values_of(fill, column, &mut drawn).await?);
                }
                self.memory.drawn.note(&drawn);
                if drawn.len() < fill.columns.len() {
                    // What a server evaluates may draw there.
                    self.memory.drawn.blur();
                }
                fill.edits(text, options, &values)?
            }
            (None, Some(clock)) => {
                let values = self.clock_values(clock).await?;
                clock.edits(text, options, &values)?
            }
            (None, None) => return Err(incomplete().into()),
        };
        let completed = splice(text, options, &edits)?;
        let study = self.study(Some(&completed), types)?;
        if let Study::One(plan) = &study
            && (plan.fill().is_some() || plan.clock().is_some())
        {
            return Err(incomplete().into());
        }
        Ok(Expanded {
            shifts: Shifts::of(text, &edits),
            text: completed,
            study,
        })
    }

    /// The values of a column for all rows, as SQL.
    async fn values_of(
        &mut self,
        fill: &Fill,
        column: &Filled,
        drawn: &mut Vec<(SequenceName, i64)>,
    ) -> Result<Vec<String>, Stop> {
        let count = column.count;
        if let Some(sequence) = &column.sequence {
            let numbers = self.drawn_for_rows(sequence, count).await?;
            drawn.extend(numbers.last().map(|last| (sequence.clone(), *last)));
            return Ok(numbers.iter().map(i64::to_string).collect());
        }
        let shard = match column.is_shared {
            true => self.time_shard(),
            false => ShardSet::from_iter([FIRST_SHARD]),
        };
        let evaluated = self.evaluated_on(&shard, (&fill.table, &column.name), (count, Form::Text));
        let values = evaluated.await?;
        Ok(values.into_iter().map(written).collect())
    }

    /// The next numbers of a sequence, of which `currval` will not tell.
    pub(super) async fn drawn(
        &mut self,
        sequence: &SequenceName,
        count: usize,
    ) -> Result<Vec<i64>, Stop> {
        self.memory.drawn.note_unknown(sequence);
        self.drawn_for_rows(sequence, count).await
    }

    /// The next numbers of a sequence.
    async fn drawn_for_rows(
        &mut self,
        sequence: &SequenceName,
        count: usize,
    ) -> Result<Vec<i64>, Stop> {
        let most = self.database.limits.sequence_block;
        let topology = Arc::clone(&self.database.topology);
        if self.sees_other_numbers() {
            return self.drawn_within(sequence, count).await;
        }
        if self.memory.sequences != Sequences::Untouched {
            self.drain().await?;
            topology.drop_blocks();
        }
        Ok(topology.draw(sequence, count, most).await?)
    }

    /// Whether the transaction at hand may have made or restarted a sequence, of which nobody else knows yet.
    pub(super) fn sees_other_numbers(&self) -> bool {
        let changes =
            self.memory.sequences == Sequences::Restarted || self.memory.definitions.has_changed();
        changes && self.transaction != Transaction::Idle
    }

    /// The next numbers of a sequence as the transaction at hand sees it.
    async fn drawn_within(
        &mut self,
        sequence: &SequenceName,
        count: usize,
    ) -> Result<Vec<i64>, Stop> {
        let name = quote_literal(&format!(
            "{}.{}",
            quote_identifier(&sequence.schema),
            quote_identifier(&sequence.name)
        ));
        let ask = format!(
            "SELECT pg_catalog.nextval({name}::pg_catalog.regclass) \
             FROM pg_catalog.generate_series(1, {count})"
        );
        let found = self.ask(&ShardSet::from_iter([FIRST_SHARD]), &ask).await?;
        let numbers = found.into_iter().map(|one| one?.parse().ok());
        let numbers: Option<Vec<i64>> = numbers.collect();
        let numbers = numbers.filter(|numbers| numbers.len() == count);
        numbers.ok_or_else(|| incomplete().into())
    }

    /// The transaction has ended: numbers that were taken ahead may be void. If more of the client's is
    /// under way, so may those that are taken until that has ended.
    pub(super) fn end_sequences(&mut self, is_due: bool) {
        if self.memory.sequences != Sequences::Untouched {
            self.database.topology.drop_blocks();
            if !is_due {
                self.memory.sequences = Sequences::Untouched;
            }
        }
    }

    /// Has the first shard evaluate the default of a table's column for some rows, in the client's
    /// transaction if there is one.
    pub(super) async fn evaluated(
        &mut self,
        (table, name): (&str, &str),
        count: usize,
    ) -> Result<Vec<Option<String>>, Stop> {
        let written = self.evaluated_as((table, name), (count, Form::Text));
        written.await
    }

    /// As [`Session::evaluated`], in a form.
    pub(super) async fn evaluated_as(
        &mut self,
        (table, name): (&str, &str),
        (count, form): (usize, Form),
    ) -> Result<Vec<Option<String>>, Stop> {
        let first = ShardSet::from_iter([FIRST_SHARD]);
        let evaluated = self.evaluated_on(&first, (table, name), (count, form));
        evaluated.await
    }

    /// As [`Session::evaluated_as`], on a shard.
    pub(super) async fn evaluated_on(
        &mut self,
        shard: &ShardSet,
        (table, name): (&str, &str),
        (count, form): (usize, Form),
    ) -> Result<Vec<Option<String>>, Stop> {
        let ask = evaluation(table, name, count, form);
        let mut default = self.ask(shard, &ask).await?;
        let Some(Some(default)) = default.pop() else {
            return Err(incomplete().into());
        };
        self.ask(shard, &default).await
    }

    /// Asks the primary of a shard; the first column of the rows.
    pub(super) async fn ask(
        &mut self,
        shard: &ShardSet,
        sql: &str,
    ) -> Result<Vec<Option<String>>, Stop> {
        self.ask_having(shard, sql, &[]).await
    }

    /// As [`Session::ask`], of a server that has the statements `needed`.
    pub(super) async fn ask_having(
        &mut self,
        shard: &ShardSet,
        sql: &str,
        needed: &[Arc<Prepared>],
    ) -> Result<Vec<Option<String>>, Stop> {
        self.drain().await?;
        if self.batch.is_sent() && self.transaction == Transaction::Idle {
            self.begin_implicit().await?;
        }
        let sql = self.encoded(sql)?.into_owned();
        let gathered = self.gather(shard, Joins::Keeping, needed).await?;
        let request = |lease: &mut Lease| {
            lease.unnamed = None;
            let mut out = Vec::new();
            frontend::write_parse(&mut out, b"", &sql, &[]);
            frontend::write_bind(&mut out, &plain_bind(b"", b""), b"");
            describe_and_execute(&mut out, b"");
            out
        };
        let scatter = Scatter::start(gathered, request, true, usize::MAX);
        let (_, frames) = self.collect(scatter).await?;
        let encoding = self.settings.context().encoding;
        let text = |value: &[u8]| encoding.read(value).map(|text| text.into_owned());
        let mut values = Vec::new();
        let mut rest = frames.as_slice();
        while let Some(header) = frame::header(rest)? {
            let Some((one, behind)) = rest.split_at_checked(header.frame_bytes) else {
                break;
            };
            rest = behind;
            if header.tag == b'D' {
                let mut reader = Reader::new(frame::body(one));
                reader.u16()?;
                let value = match usize::try_from(reader.i32()?) {
                    Ok(length) => text(reader.bytes(length)?),
                    Err(_) => None,
                };
                values.push(value);
            }
        }
        Ok(values)
    }
}

/// A value as SQL.
pub(super) fn written(value: Option<String>) -> String {
    match value {
        Some(value) => quote_literal(&value),
        None => "NULL".to_owned(),
    }
}

pub(super) fn incomplete() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the defaults of an INSERT could not be found out",
    )
    .hint("The table's definition may have just changed: try again.")
}
