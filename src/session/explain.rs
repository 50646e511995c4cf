//! EXPLAIN over shards: the proxy's plan above one shard's, or all shards' documents in one; and SHOW ALL, with the
//! proxy's own settings.

use crate::error::{Error, Result};
use crate::exec::scatter::Scatter;
use crate::plan::document::{Format, Part};
use crate::plan::{Access, Plan, Target, spell_out};
use crate::session::held::Held;
use crate::session::own_values;
use crate::session::scatter::Answered;
use crate::session::{Session, Stop};
use crate::sharding::{ShardIndex, ShardSet};
use crate::sql::shape::Literal;
use crate::sql::statement::{Explain, Statement};
use crate::wire::backend::data_row;
use crate::wire::buffer::Reader;
use crate::wire::frame;

/// Where an EXPLAIN runs, and the rows that stand above its server's.
pub(super) struct Explained {
    /// The shard whose plan is shown.
    pub shard: Option<ShardIndex>,
    /// DataRows.
    pub rows: Box<[u8]>,
}

impl Session {
    /// Whether a plan is an EXPLAIN that the proxy has something to say about, or SHOW ALL.
    pub(super) fn explains(&self, plan: &Plan) -> bool {
        match &plan.statement {
            Statement::Explain(_) => !self.is_plain(),
            statement => shows_all(statement),
        }
    }

    /// Where a statement runs that may be an EXPLAIN, and the rows that stand above its server's.
    ///
    /// # Errors
    /// As for [`Session::explain`].
    pub(super) fn explained(
        &self,
        plan: &Plan,
        (target, measured): (Target, Vec<String>),
        written: (&str, &[Literal]),
    ) -> Result<(Target, Box<[u8]>)> {
        // A hub explains by itself.
        if is_gathered(plan, &target) || target == Target::Combine || !self.explains(plan) {
            return Ok((target, Box::default()));
        }
        let explained = self.explain(plan, &target, written, &measured)?;
        let target = explained.shard.map_or(Target::Any, Target::One);
        Ok((target, explained.rows))
    }

    /// What the proxy says about an EXPLAIN of a statement with this target; `written` is its text and
    /// the literals in it, `measured` are lines of what each shard has sent.
    ///
    /// # Errors
    /// `0A000` for several shards' plan in a format other than text, if it does not go to all of them.
    pub(super) fn explain(
        &self,
        plan: &Plan,
        target: &Target,
        written: (&str, &[Literal]),
        measured: &[String],
    ) -> Result<Explained> {
        let Statement::Explain(explain) = &plan.statement else {
            let shard = match target {
                Target::One(shard) => Some(*shard),
                _ => None,
            };
            let rows = match shows_all(&plan.statement) {
                true => own_values::rows(self.settings.context(), &self.database.config),
                false => Vec::new(),
            };
            return Ok(Explained {
                shard,
                rows: rows.into(),
            });
        };
        let shard = match target {
            Target::Any
            | Target::Combine
            | Target::Computed
            | Target::Replicated
            | Target::Feed
            | Target::Staged
            | Target::Fill => None,
            Target::Change => plan
                .change()
                .and_then(|change| change.all_shards().iter().next()),
            Target::One(shard) => Some(*shard),
            Target::Many(shards) => shards.iter().next(),
            Target::Rows(placed) => placed.shards().iter().next(),
        };
        // What is no EXECUTE goes to all of them.
        let is_change = runs_change(plan) && !matches!(target, Target::One(_) | Target::Any);
        if is_change || !is_text(explain) && matches!(target, Target::Many(_)) {
            return Err(Error::refused(
                "EXPLAIN of such an EXECUTE over several shards is not supported",
                "It would be sent to one of them.",
                "EXPLAIN the statement itself.",
            ));
        }
        if !is_text(explain) {
            return Ok(Explained {
                shard,
                rows: Box::default(),
            });
        }
        let mut rows = Vec::new();
        for line in self.plan_lines(plan, written) {
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        for line in measured {
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        if let Some(shard) = shard {
            let line = format!("->  plan of shard {}", self.database.shard_name(shard));
            data_row(&mut rows, [Some(line.as_bytes())].into_iter());
        }
        Ok(Explained {
            shard,
            rows: rows.into(),
        })
    }

    /// The proxy's plan, for people.
    fn plan_lines(&self, plan: &Plan, written: (&str, &[Literal])) -> Vec<String> {
        let shards = self.database.config.shards.iter();
        let names: Vec<String> = shards.map(|shard| shard.name.clone()).collect();
        let tree = plan.tree(&names).to_string();
        tree.lines().map(|line| spell_out(line, written)).collect()
    }

    /// As [`Session::drive`]: what shards explain becomes one answer.
    pub(super) async fn drive_shown(
        &mut self,
        scatter: Scatter<Held>,
        plan: &Plan,
        (written, shards): ((&str, &[Literal]), &ShardSet),
    ) -> Result<Answered, Stop> {
        let format = document_of(plan);
        if format.is_none() && !runs_change(plan) {
            return self.drive(scatter).await;
        }
        let most_rows = format.map_or(MOST_LINES, |_| 1);
        let turns = (0..shards.len()).flat_map(|branch| std::iter::repeat_n(branch, most_rows));
        self.capture();
        let answered = self.drive(scatter.ordered(turns.collect())).await;
        let captured = self.captured();
        let answered = answered?;
        let lines = self.plan_lines(plan, written);
        let names = shards.iter().map(|shard| self.database.shard_name(shard));
        let names: Vec<&str> = names.collect();
        let words = match format {
            Some(format) => nested(format, (&lines, &names), captured.bytes())?,
            None => listed(&lines, (&names, &answered.bytes), captured.bytes())?,
        };
        self.say(words);
        Ok(answered)
    }
}

/// A plan in text has fewer lines.
const MOST_LINES: usize = 10_000;

/// Whether a plan is an EXPLAIN ANALYZE that changes rows.
pub(super) fn runs_change(plan: &Plan) -> bool {
    matches!(&plan.statement, Statement::Explain(explain) if explain.analyze)
        && plan.access == Access::Write
}

/// Whether all shards explain, and their answers become one.
pub(super) fn is_gathered(plan: &Plan, target: &Target) -> bool {
    matches!(target, Target::Many(_)) && (document_of(plan).is_some() || runs_change(plan))
}

/// The lines of servers with these names, which have given so many bytes of rows each, below the proxy's own.
///
/// # Errors
/// `08P01` for what is no answer.
fn listed(lines: &[String], (names, bytes): (&[&str], &[u64]), answer: &[u8]) -> Result<Vec<u8>> {
    let head = frame::header(answer)?.filter(|header| header.tag == b'T');
    let head = head.map_or(0, |header| header.frame_bytes);
    let (told, mut rows) = answer.split_at_checked(head).unwrap_or_default();
    let mut words = told.to_vec();
    for line in lines {
        data_row(&mut words, [Some(line.as_bytes())].into_iter());
    }
    for (name, bytes) in names.iter().zip(bytes) {
        let line = format!("->  plan of shard {name}");
        data_row(&mut words, [Some(line.as_bytes())].into_iter());
        let count = usize::try_from(*bytes).unwrap_or(usize::MAX);
        let (own, behind) = rows.split_at_checked(count).unwrap_or((rows, &[]));
        words.extend_from_slice(own);
        rows = behind;
    }
    Ok(words)
}

/// The format of an EXPLAIN that gives a document.
pub(super) fn document_of(plan: &Plan) -> Option<Format> {
    let Statement::Explain(explain) = &plan.statement else {
        return None;
    };
    let named = explain.options.iter().rfind(|(name, _)| name == "format");
    Format::named(named?.1.as_deref()?)
}

/// The answer of servers with these names, one document of each, with one document of them all.
///
/// # Errors
/// `08P01` for what is no answer.
pub(super) fn nested(
    format: Format,
    (lines, names): (&[String], &[&str]),
    answer: &[u8],
) -> Result<Vec<u8>> {
    let mut words = Vec::new();
    let mut documents = Vec::new();
    let mut rest = answer;
    while let Some(header) = frame::header(rest)? {
        let Some((one, behind)) = rest.split_at_checked(header.frame_bytes) else {
            break;
        };
        match header.tag {
            b'D' => documents.push(first_value(frame::body(one))?),
            _ => words.extend_from_slice(one),
        }
        rest = behind;
    }
    let parts: Vec<Part<'_>> = names
        .iter()
        .zip(&documents)
        .map(|(shard, document)| Part { shard, document })
        .collect();
    let is_whole = !parts.is_empty() && parts.len() == names.len();
    let whole = format.nest(lines, &parts).filter(|_| is_whole);
    // What is not understood is shown as it came.
    let shown = whole.or_else(|| documents.into_iter().next());
    data_row(
        &mut words,
        [shown.as_deref().map(str::as_bytes)].into_iter(),
    );
    Ok(words)
}

/// The only value of a row.
fn first_value(row: &[u8]) -> Result<String> {
    let mut reader = Reader::new(row);
    reader.bytes(2)?;
    let length = usize::try_from(reader.i32()?).unwrap_or_default();
    Ok(String::from_utf8_lossy(reader.bytes(length)?).into_owned())
}

/// Whether it is SHOW ALL.
fn shows_all(statement: &Statement) -> bool {
    matches!(statement, Statement::Show(name) if name.eq_ignore_ascii_case("all"))
}

pub(super) fn is_text(explain: &Explain) -> bool {
    explain
        .options
        .iter()
        .filter(|(name, _)| name == "format")
        .all(|(_, value)| {
            value
                .as_deref()
                .is_none_or(|value| value.eq_ignore_ascii_case("text"))
        })
}
