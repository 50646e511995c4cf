//! Portals that have run at their first Execute, and whose rows the client fetches in parts.
//!
//! So PostgreSQL runs what changes rows and returns them: all changes are made at once, whatever part of
//! the rows is fetched.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::net::buffer::Buffer;
use crate::session::prepared::Portal;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sqlstate::SqlState;
use crate::wire::backend::{command_complete, no_data, portal_suspended};
use crate::wire::frame;

/// A portal that has run.
#[derive(Clone, Debug)]
pub struct KeptPortal {
    /// Its RowDescription as a frame; empty if it has no rows.
    description: Arc<[u8]>,
    /// Its answer, frame by frame.
    rows: Arc<[u8]>,
    /// Where the rest begins that the client has not fetched.
    at: usize,
    /// What ends the answer, but for the number of rows.
    verb: Arc<str>,
}

/// Whether shards have described rows: what gives none is not fetched in parts.
pub(super) fn gives_rows(descriptions: &[Vec<u8>]) -> bool {
    descriptions.first().and_then(|frame| frame.first()) == Some(&b'T')
}

/// An answer that the client did not get at once.
#[derive(Debug, Default)]
pub(super) struct Captured(Buffer);

impl Captured {
    /// Rows that were kept elsewhere.
    pub(super) fn of(rows: Buffer) -> Captured {
        Captured(rows)
    }

    /// The frames.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// A portal with this answer of a query; `is_told`: its description comes first.
    ///
    /// # Errors
    /// `08P01` for what is no answer.
    pub(super) fn whole(&self, is_told: bool) -> Result<KeptPortal> {
        let bytes = self.0.bytes();
        let header = frame::header(bytes)?.filter(|header| header.tag == b'T');
        let told = header.map_or(0, |header| header.frame_bytes);
        Ok(KeptPortal {
            description: bytes.get(..told).unwrap_or_default().into(),
            rows: bytes.into(),
            at: if is_told { 0 } else { told },
            verb: "SELECT".into(),
        })
    }

    /// A portal with this answer.
    pub(super) fn portal(&self, descriptions: &[Vec<u8>], tag: &str) -> KeptPortal {
        let description = descriptions.first().filter(|_| gives_rows(descriptions));
        KeptPortal {
            description: description.map(Vec::as_slice).unwrap_or_default().into(),
            rows: self.0.bytes().into(),
            at: 0,
            verb: tag.rsplit_once(' ').map_or(tag, |(verb, _)| verb).into(),
        }
    }
}

impl Session {
    /// From now on rows of scatters are kept instead of passed on.
    pub(super) fn capture(&mut self) {
        self.unit.captured = Some(Buffer::new());
    }

    /// What was kept; from now on rows pass on again.
    pub(super) fn captured(&mut self) -> Captured {
        Captured(self.unit.captured.take().unwrap_or_default())
    }

    /// Bytes towards the client at which a scatter stops reading; what is kept has a limit of its own.
    pub(super) fn high_water_bytes(&self) -> usize {
        match self.unit.captured.is_some() || self.kept_answer().is_some() {
            true => usize::MAX,
            false => HIGH_WATER_BYTES,
        }
    }

    /// The answer at hand, if the proxy itself is to get it.
    fn kept_answer(&self) -> Option<&Buffer> {
        self.batch.execution.as_ref()?.answer.as_ref()
    }

    /// Whether the proxy itself is to get the answer at hand.
    pub(super) fn is_answered(&self) -> bool {
        self.kept_answer().is_some()
    }

    /// Whether what is kept is more than may be.
    pub(super) fn check_captured(&self) -> Result<()> {
        let kept = self.unit.captured.iter().chain(self.kept_answer());
        self.check_bytes(kept.map(Buffer::len).sum())
    }

    /// Whether so many bytes of rows are more than may be kept.
    ///
    /// # Errors
    /// `53400` if they are.
    pub(super) fn check_bytes(&self, length: usize) -> Result<()> {
        match length as u64 <= self.database.limits.query_memory_bytes {
            true => Ok(()),
            false => Err(Error::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "rows that have to be kept need more memory than a query may use",
            )
            .hint("Raise limits.query_memory, or have fewer rows at once.")),
        }
    }

    /// Serves the next part of a portal's rows; 0 means all.
    pub(super) async fn execute_kept(
        &mut self,
        name: &[u8],
        mut portal: KeptPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        self.drain().await?;
        let wanted = u64::try_from(max_rows).ok().filter(|rows| *rows > 0);
        let wanted = wanted.unwrap_or(u64::MAX);
        let start = portal.at;
        let mut rows = 0;
        let mut words = Vec::new();
        while rows < wanted {
            let rest = portal.rows.get(portal.at..).unwrap_or_default();
            let Some(header) = frame::header(rest)? else {
                break;
            };
            rows += u64::from(header.tag == b'D');
            portal.at += header.frame_bytes;
        }
        words.extend_from_slice(portal.rows.get(start..portal.at).unwrap_or_default());
        if rows == wanted {
            portal_suspended(&mut words);
        } else {
            // PostgreSQL counts what this Execute has fetched.
            command_complete(&mut words, &format!("{} {rows}", portal.verb));
        }
        self.say(words);
        self.statements.put_portal(name, Portal::Kept(portal));
        Ok(())
    }

    /// Describes a portal that has run.
    pub(super) async fn describe_kept(&mut self, portal: &KeptPortal) -> Result<(), Stop> {
        self.drain().await?;
        let mut words = portal.description.to_vec();
        if words.is_empty() {
            no_data(&mut words);
        }
        self.say(words);
        Ok(())
    }
}
