//! Statements that a server has read before definitions changed, prepared anew where the client can't
//! tell.
//!
//! A server keeps what a text meant when it was prepared and refuses to run it once its results would be
//! others ("cached plan must not change result type"), so that nobody takes rows for what they are not.
//! Here it may have read the text for another client, before this one came. So:
//!
//! - Outside a transaction the statement is prepared under another name, and what failed is repeated.
//! - But not if the client was told, by a Describe of the statement, of other columns than those that it
//!   results in now; nor if it sends no Describe of the portal, so that it must know the columns from
//!   before, and has not prepared the statement in the same batch. It gets the error, as from PostgreSQL.
//! - A client that was told of columns and whose statement is new to a server, after definitions have
//!   changed, gets that error too unless the columns are the same ([`Session::announce_bound`]).
//! - In a transaction an error can't be taken back. That a text is prepared under a name of its own once
//!   it means something else ([`crate::session::definitions`]) keeps it from arising.
//! - On a connection that the session keeps, the error is PostgreSQL's own and is passed on.

use std::sync::Arc;

use crate::backend::connection::Failed;
use crate::backend::report;
use crate::exec::description;
use crate::pool::Lease;
use crate::session::announce::ensure_one;
use crate::session::held::Part;
use crate::session::prepared::{Needs, Prepared, Told};
use crate::session::replies::Expect;
use crate::session::{Session, Stop};
use crate::txn::Transaction;
use crate::wire::backend::ready_for_query;
use crate::wire::buffer::{cstring, message};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Parse, Subject};

/// What has become of a statement that a server has read too early.
#[derive(Debug, Default)]
pub enum Stale {
    /// There is none.
    #[default]
    None,
    /// It has failed and may be prepared anew.
    Found(Box<Found>),
    /// It was prepared anew; whatever fails now has failed.
    Healed {
        /// The client has got the parameters of the Describe that is repeated.
        has_parameters: bool,
    },
}

/// A statement to be prepared anew.
#[derive(Debug)]
pub struct Found {
    /// The client's name.
    name: Box<[u8]>,
    /// Where in the unit's requests the one stands that failed.
    at: usize,
    /// It was a Describe, and the parameters went ahead of the error.
    has_parameters: bool,
    /// What the client was told of it.
    told: Option<Told>,
    /// The server's error.
    words: Box<[u8]>,
}

/// A request of the client's: its tag and where it stands.
type Request = (u8, std::ops::Range<usize>);

/// Tells the columns of a RowDescription apart; none for NoData.
fn digest(frame: &[u8]) -> Option<u64> {
    match frame.first() {
        Some(b'T') => description::digest(frame::body(frame)),
        _ => None,
    }
}

/// The requests one after another; none if they do not end where a message does.
fn split(requests: &[u8]) -> Option<Vec<Request>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < requests.len() {
        let header = frame::header(requests.get(at..)?).ok()??;
        let end = at + header.frame_bytes;
        requests.get(at..end)?;
        all.push((header.tag, at..end));
        at = end;
    }
    Some(all)
}

/// The message whose answer a server owes by this; none if the client does not see one.
fn asked_by(expect: &Expect) -> Option<u8> {
    match expect {
        Expect::Bind => Some(b'B'),
        Expect::Describe | Expect::DescribeStatement(_) | Expect::DescribeColumns(_) => Some(b'D'),
        Expect::Execute(_) => Some(b'E'),
        Expect::Close { seen: true } => Some(b'C'),
        Expect::Parse { seen: Some(_), .. } | Expect::Known { .. } => Some(b'P'),
        _ => None,
    }
}

/// The request that failed, by its number among `all`, when those of `given_up` were not carried out: the
/// first of them, if nothing has run before it and all that came behind it is among them.
fn failed_request(all: &[Request], given_up: &[Expect]) -> Option<usize> {
    let is_certain = |one: &Expect| asked_by(one).is_some() || matches!(one, Expect::Parse { .. });
    if !given_up.iter().all(is_certain) {
        return None;
    }
    let unanswered: Vec<u8> = given_up.iter().filter_map(asked_by).collect();
    // Neither Flush nor Sync is answered here.
    let counts = |tag: u8| !matches!(tag, b'H' | b'S');
    let mut from_behind = all.iter().enumerate().rev();
    let mut at = None;
    for wanted in unanswered.iter().rev() {
        let (number, (tag, _)) = from_behind.find(|(_, (tag, _))| counts(*tag))?;
        if tag != wanted {
            return None;
        }
        at = Some(number);
    }
    let has_run = from_behind.any(|(_, (tag, _))| matches!(tag, b'B' | b'E' | b'Q' | b'S' | b'F'));
    let syncs = all.iter().filter(|(tag, _)| *tag == b'S').count();
    let is_last = all.last().is_some_and(|(tag, _)| *tag == b'S');
    at.filter(|_| !has_run && syncs == usize::from(is_last))
}

/// Makes a server have a statement and asks what it results in.
async fn columns_of(lease: &mut Lease, prepared: &Arc<Prepared>) -> Result<Option<u64>, Failed> {
    let mut messages = Vec::new();
    match prepared.is_unnamed() {
        true => frontend::write_parse(&mut messages, b"", &prepared.text, &prepared.types),
        false => ensure_one(lease, prepared).await?,
    }
    let name = &prepared.server_name;
    frontend::write_subject(&mut messages, b'D', Subject::Statement, name);
    frontend::write_sync(&mut messages);
    let columns = lease.columns(&messages).await?;
    if prepared.is_unnamed() {
        lease.unnamed = Some(prepared.id);
    }
    Ok(columns.and_then(|body| description::digest(&body)))
}

fn stop(failed: Failed) -> Stop {
    match failed {
        Failed::Refused(error) => Stop::Statement(error),
        Failed::Lost(cause) => Stop::Lost(cause),
    }
}

/// The error as PostgreSQL words it; drivers know it by the routine.
pub(super) fn changed() -> Stop {
    let mut words = Vec::new();
    message(&mut words, b'E', |out| {
        for (field, value) in [
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', "0A000"),
            (b'M', "cached plan must not change result type"),
            (b'R', "RevalidateCachedQuery"),
        ] {
            out.push(field);
            cstring(out, value.as_bytes());
        }
        out.push(0);
    });
    Stop::Words(words)
}

impl Session {
    /// The client is told what its statement of this name results in.
    pub(super) fn note_told(&mut self, name: &[u8], described: &[u8]) {
        let told = Told {
            columns: digest(described),
            meaning: self.meaning(),
        };
        self.statements.tell(name, told);
    }

    /// Whether an error says that a statement was read too early, and it may be prepared anew. Whoever
    /// prepares its text from now on gets a new statement in any case.
    pub(super) fn is_stale(&mut self, error: &[u8]) -> bool {
        if !report::is_stale_plan(frame::body(error)) {
            return false;
        }
        self.database.note_change();
        let Some(found) = self.found(error) else {
            return false;
        };
        self.unit.stale = Stale::Found(Box::new(found));
        true
    }

    fn found(&self, error: &[u8]) -> Option<Found> {
        let held = self.server.as_ref()?;
        let is_apart = self.transaction == Transaction::Idle
            && held.part == Part::Client
            && !self.is_pinned()
            && held.replies.len() <= 1;
        // Nothing is being handled, and nothing of the client's text was changed but names.
        let is_plain = self.client.at_hand.is_none()
            && !self.batch.is_skipping()
            && self.batch.pending.is_empty()
            && self.batch.scatter.is_none()
            && self.unit.rewritten.is_none();
        if !is_apart || !is_plain || !matches!(self.unit.stale, Stale::None) {
            return None;
        }
        let requests = self.unit.requests();
        let all = split(requests)?;
        let found = |name: &[u8], at, told| Found {
            name: name.into(),
            at,
            has_parameters: requests.get(at) == Some(&b'D'),
            told,
            words: error.into(),
        };
        if let [(b'Q', _)] = all.as_slice() {
            // The columns come with the rows.
            let name = self.batch.executes.as_ref()?;
            return Some(found(name.as_bytes(), 0, None));
        }
        let number = failed_request(&all, &self.unit.given_up)?;
        let body = |number: usize| {
            let (tag, range) = all.get(number)?;
            Some((*tag, frame::body(requests.get(range.clone())?)))
        };
        let (name, is_shown) = match body(number)? {
            (b'B', bound) => {
                let bind = Bind::read(bound).ok()?;
                let shows = |(tag, described): (u8, &[u8])| {
                    let subject = frontend::subject(described, "DESCRIBE").ok();
                    tag == b'D'
                        && subject.is_some_and(|(subject, name)| {
                            matches!(subject, Subject::Portal) && name == bind.portal
                        })
                };
                (bind.statement, body(number + 1).is_some_and(shows))
            }
            (b'D', described) => match frontend::subject(described, "DESCRIBE").ok()? {
                (Subject::Statement, name) => (name, true),
                (Subject::Portal, _) => return None,
            },
            _ => return None,
        };
        let is_fresh = (0..number).filter_map(body).any(|(tag, parsed)| {
            tag == b'P' && Parse::read(parsed).is_ok_and(|parse| parse.name == name)
        });
        let told = self.statements.told(name);
        let (_, range) = all.get(number)?;
        (told.is_some() || is_fresh || is_shown).then(|| found(name, range.start, told))
    }

    /// Prepares what was found under another name and has the client's requests handled again, from the
    /// one on that failed; or gives the client the error.
    ///
    /// # Errors
    /// The loss of the server.
    pub(super) async fn heal(&mut self) -> Result<(), Stop> {
        let Stale::Found(found) = std::mem::take(&mut self.unit.stale) else {
            return Ok(());
        };
        self.unit.stale = Stale::Healed {
            has_parameters: found.has_parameters,
        };
        self.take_back_given_up();
        let is_extended = self.batch.is_extended();
        self.batch.note_left();
        let mut is_ended = false;
        if let Some(held) = &mut self.server {
            is_ended = held.replies.hide_end();
            if !is_ended {
                frontend::write_sync(held.lease.socket.output.tail());
                held.replies.push(Expect::QuietSync);
            }
        }
        // What it has said behind the error.
        self.take_replies()?;
        self.drain().await?;
        let Some(renewed) = self.renewed(&found.name) else {
            return self.give(&found, is_extended, is_ended);
        };
        if let Some(told) = found.told {
            let Some(held) = &mut self.server else {
                return self.give(&found, is_extended, is_ended);
            };
            match columns_of(&mut held.lease, &renewed).await {
                Ok(columns) if columns == told.columns => {}
                Err(lost @ Failed::Lost(_)) => return Err(stop(lost)),
                _ => return self.give(&found, is_extended, is_ended),
            }
        }
        self.statements.renew(&found.name, renewed);
        self.batch.clear();
        (self.batch.rewrite, self.batch.executes) = (None, None);
        let requests = self.unit.take_requests();
        let again = requests.get(found.at..).unwrap_or_default();
        self.client.socket.input.push_front(again);
        Ok(())
    }

    /// Whether the client has got the parameters of the statement that is described now.
    pub(super) fn has_parameters(&mut self) -> bool {
        match &mut self.unit.stale {
            Stale::Healed { has_parameters } => std::mem::take(has_parameters),
            _ => false,
        }
    }

    /// The client's statement of this name as one that no server has read yet.
    fn renewed(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        let old = self.statements.get(name)?;
        let id = match &old.declared {
            Some(declared) => self.identify_declared(declared),
            None => self.identify(!old.is_unnamed(), &old.text, &old.types),
        };
        Some(Arc::new(old.under(id)))
    }

    /// Gives the client the error after all.
    fn give(&mut self, found: &Found, is_extended: bool, is_ended: bool) -> Result<(), Stop> {
        self.unit.has_failed = true;
        self.roll_back_settings();
        self.database.metrics.error("0A000");
        self.client.socket.output.push(&found.words);
        if is_extended && !is_ended {
            self.batch.skip();
            return Ok(());
        }
        self.batch.clear();
        ready_for_query(self.client.socket.output.tail(), self.transaction.status());
        self.unit.end();
        Ok(())
    }

    /// Makes the server at work have what is about to be bound as `name`, and returns it. No statement is
    /// given to a server once texts may mean something else than when it was made: one of a new name is
    /// made in its place, if the client was told of the same columns or of none.
    ///
    /// # Errors
    /// `0A000` if it was told of others.
    pub(super) async fn announce_bound(
        &mut self,
        name: &[u8],
        bound: &Arc<Prepared>,
        is_edited: bool,
    ) -> Result<Option<Arc<Prepared>>, Stop> {
        if self.server.as_mut().is_none_or(|held| held.has(bound)) {
            return Ok(None);
        }
        let is_own = !is_edited && matches!(bound.needs, Needs::Nothing);
        let renewed = match is_own {
            true => self.renewed(name).filter(|renewed| renewed.id != bound.id),
            false => None,
        };
        if let Some(renewed) = &renewed {
            self.compare_told(name, renewed).await?;
            self.statements.renew(name, Arc::clone(renewed));
        }
        if let Some(held) = &mut self.server {
            held.announce(renewed.as_ref().unwrap_or(bound), None);
        }
        Ok(renewed)
    }

    /// The client's statement to be described as `name`, under a new name if texts may mean something else
    /// now and the server at work does not have it.
    pub(super) fn described_as(&mut self, name: &[u8], described: Arc<Prepared>) -> Arc<Prepared> {
        let is_own = matches!(described.needs, Needs::Nothing);
        if !is_own || self.server.as_mut().is_none_or(|held| held.has(&described)) {
            return described;
        }
        match self
            .renewed(name)
            .filter(|renewed| renewed.id != described.id)
        {
            Some(renewed) => {
                self.statements.renew(name, Arc::clone(&renewed));
                renewed
            }
            None => described,
        }
    }

    /// The digest of the columns that the client was told of its statement of this name.
    pub(super) fn expected(&self, name: &[u8]) -> Option<u64> {
        // A part of the client's statement has columns of its own.
        let told = self.statements.told(name).filter(|_| !self.is_answered());
        told.and_then(|told| told.columns)
    }

    async fn compare_told(&mut self, name: &[u8], bound: &Arc<Prepared>) -> Result<(), Stop> {
        let meaning = self.meaning();
        let told = self.statements.told(name);
        let Some(told) = told.filter(|told| told.columns.is_some() && told.meaning != meaning)
        else {
            return Ok(());
        };
        if self.batch.is_sent() && !self.transaction.is_on_shard() {
            if !self.may_leave_batch() {
                // What was sent would be committed by asking.
                return Err(changed());
            }
            self.leave_batch().await?;
        }
        self.drain().await?;
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        match columns_of(&mut held.lease, bound).await {
            Ok(columns) if columns == told.columns => {
                self.statements.tell(name, Told { meaning, ..told });
                Ok(())
            }
            Ok(_) => Err(changed()),
            Err(failed) => Err(stop(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(tags: &[u8]) -> Vec<Request> {
        let numbered = tags.iter().enumerate();
        numbered.map(|(at, tag)| (*tag, at..at + 1)).collect()
    }

    fn parse(is_seen: bool) -> Expect {
        Expect::Parse {
            id: 1,
            seen: is_seen.then(Box::default),
        }
    }

    #[test]
    fn the_first_that_was_not_carried_out_has_failed() {
        let described = || Expect::DescribeStatement(Box::default());
        let of = |tags: &[u8], given_up: Vec<Expect>| failed_request(&requests(tags), &given_up);
        let executed = || vec![Expect::Bind, Expect::Describe, Expect::Execute(None)];
        assert_eq!(of(b"BDES", executed()), Some(0));
        assert_eq!(of(b"PHBDES", executed()), Some(2));
        assert_eq!(of(b"PDS", vec![described()]), Some(1));
        assert_eq!(
            of(b"PDBEH", vec![Expect::Bind, Expect::Execute(None)]),
            Some(2)
        );
        let more = vec![
            Expect::Bind,
            Expect::Execute(None),
            parse(true),
            parse(false),
        ];
        assert_eq!(of(b"BEPS", more), Some(0));
        // Something has run before it, or is not known to be the same.
        assert_eq!(of(b"BEBDES", executed()), None);
        assert_eq!(of(b"BDESBDES", executed()), None);
        assert_eq!(of(b"BEES", executed()), None);
        assert_eq!(of(b"ES", executed()), None);
        assert_eq!(
            of(b"BES", vec![Expect::Bind, Expect::Local(Box::default())]),
            None
        );
        assert_eq!(of(b"PS", vec![]), None);
    }

    #[test]
    fn requests_are_split_at_their_lengths() {
        let mut log = Vec::new();
        frontend::write_execute(&mut log, b"", 0);
        let end = log.len();
        frontend::write_sync(&mut log);
        let all = split(&log).unwrap();
        assert_eq!(all, [(b'E', 0..end), (b'S', end..log.len())]);
        assert_eq!(split(&log[..end + 2]), None);
    }

    #[test]
    fn columns_are_told_apart_by_name_type_and_modifier() {
        let frame = |name: &[u8], table: u32, type_oid: u32, modifier: i32| {
            let mut frame = Vec::new();
            message(&mut frame, b'T', |out| {
                out.extend_from_slice(&[0, 1]);
                cstring(out, name);
                out.extend_from_slice(&table.to_be_bytes());
                out.extend_from_slice(&[0, 1]);
                out.extend_from_slice(&type_oid.to_be_bytes());
                out.extend_from_slice(&[0, 4]);
                out.extend_from_slice(&modifier.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            });
            digest(&frame)
        };
        let one = frame(b"a", 1, 23, -1);
        assert!(one.is_some());
        assert_eq!(one, frame(b"a", 2, 23, -1));
        for other in [
            frame(b"b", 1, 23, -1),
            frame(b"a", 1, 20, -1),
            frame(b"a", 1, 23, 8),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(frame(b"a", 1, 16_400, -1), frame(b"a", 1, 16_500, -1));
        assert_eq!(digest(b"n\0\0\0\x04"), None);
    }
}
