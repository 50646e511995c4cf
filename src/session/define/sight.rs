//! The catalogue as the session's transaction sees it on the first shard.

use std::sync::Arc;

use crate::backend::connection::Failed;
use crate::catalog::RawCatalog;
use crate::error::Error;
use crate::plan::Define;
use crate::plan::follow::{self, Outcome, Scene, Sight};
use crate::pool::Lease;
use crate::session::define::{FIRST_SHARD, stop};
use crate::session::definitions::View;
use crate::session::{Session, Stop};
use crate::sql::encoding::Encoding;
use crate::sqlstate::SqlState;
use crate::topology::{ControlError, RowSource, TextRow, read_catalog};
use crate::txn::Transaction;
use crate::wire::buffer::Reader;

/// Runs statements as the role that the connection has logged in as: others may not read or write where
/// tables are placed.
pub(super) fn as_login_role(sql: &str) -> String {
    format!(
        "SELECT pg_catalog.set_config('shardwire.role', pg_catalog.current_setting('role'), true), \
         pg_catalog.set_config('role', 'none', true); {sql}; \
         SELECT pg_catalog.set_config('role', pg_catalog.current_setting('shardwire.role'), true)"
    )
}

/// A connection of the session's that is asked.
struct Asked<'a> {
    lease: &'a mut Lease,
    encoding: Encoding,
    failure: Option<Failed>,
}

impl RowSource for Asked<'_> {
    async fn rows(&mut self, sql: &str) -> Result<Vec<TextRow>, ControlError> {
        let mut rows = Vec::new();
        let encoding = self.encoding;
        let mut is_malformed = false;
        let mut note = |tag, body: &[u8]| {
            if tag == b'D' {
                match values(body, encoding) {
                    Some(row) => rows.push(row),
                    None => is_malformed = true,
                }
            }
        };
        // Of several statements only one is a query with rows that are wanted.
        let ran = self.lease.run_noting(sql, &mut note).await;
        if let Err(failed) = ran {
            self.failure = Some(failed);
            return Err(ControlError::answer("the question failed"));
        }
        match is_malformed {
            true => Err(ControlError::answer("a row can't be read")),
            false => Ok(rows),
        }
    }
}

/// The values of a DataRow.
fn values(body: &[u8], encoding: Encoding) -> Option<TextRow> {
    let mut reader = Reader::new(body);
    let count = reader.bytes(2).ok()?;
    let count = u16::from_be_bytes(count.try_into().ok()?);
    let mut row = Vec::with_capacity(count.into());
    for _ in 0..count {
        row.push(match usize::try_from(reader.i32().ok()?) {
            Ok(length) => Some(encoding.read(reader.bytes(length).ok()?)?.into_owned()),
            Err(_) => None,
        });
    }
    Some(row)
}

impl Session {
    /// The catalogue as the transaction sees it.
    pub(super) async fn sight(&mut self) -> Result<Arc<Sight>, Stop> {
        if let View::Own(sight) = self.memory.definitions.view() {
            return Ok(Arc::clone(sight));
        }
        let raw = self.read_raw().await?;
        let epoch = self.database.next_epoch();
        Ok(Arc::new(Sight::new(epoch, raw, &self.database.config)))
    }

    /// Sees what a definition has done on the first shard.
    pub(super) async fn followed(
        &mut self,
        define: &Define,
        before: &Sight,
    ) -> Result<Outcome, Stop> {
        let after = self.read_raw().await?;
        let context = Arc::clone(self.settings.context());
        let catalog = self.database.topology.catalog();
        let search_path = context
            .whose
            .effective(context.search_path.as_ref(), catalog.default_search_path());
        let scene = Scene {
            database: &self.database.config,
            search_path: &search_path,
            epoch: self.database.next_epoch(),
        };
        Ok(follow::follow(define, before, after, scene)?)
    }

    /// Reads the catalogue again if the transaction has undone a part of what it has defined.
    pub(in crate::session) async fn look_again(&mut self) -> Result<(), Stop> {
        let is_unknown = matches!(self.memory.definitions.view(), View::Unknown);
        if is_unknown && self.transaction == Transaction::Open {
            let sight = self.sight().await?;
            self.memory.definitions.note_sight(sight);
        }
        Ok(())
    }

    async fn read_raw(&mut self) -> Result<RawCatalog, Stop> {
        self.hold_here(FIRST_SHARD, false).await?;
        let encoding = self.settings.context().encoding;
        let Some(held) = &mut self.server else {
            return Err(internal("the first shard's connection is gone").into());
        };
        let mut asked = Asked {
            lease: &mut held.lease,
            encoding,
            failure: None,
        };
        let has_role = self.settings.server().get("role").is_some();
        let built_in = self.database.topology.catalog().built_in();
        let read = async {
            if has_role {
                asked.rows(AS_LOGIN).await?;
            }
            let raw = read_catalog(&mut asked, &self.database.config, &built_in).await?;
            if has_role {
                asked.rows(AS_BEFORE).await?;
            }
            Ok::<_, ControlError>(raw)
        }
        .await;
        let failure = asked.failure.take();
        let mut raw = match (read, failure) {
            (Ok(raw), _) => raw,
            (Err(_), Some(failed)) => return Err(stop(failed)),
            (Err(error), None) => {
                return Err(internal(error.to_string()).into());
            }
        };
        let catalog = self.database.topology.catalog();
        raw.default_search_path = catalog.default_search_path().to_vec();
        Ok(raw)
    }
}

fn internal(message: impl Into<crate::error::Text>) -> Error {
    Error::new(SqlState::INTERNAL_ERROR, message)
}

const AS_LOGIN: &str = "SELECT pg_catalog.set_config('shardwire.role', pg_catalog.current_setting('role'), true), \
     pg_catalog.set_config('role', 'none', true)";
const AS_BEFORE: &str =
    "SELECT pg_catalog.set_config('role', pg_catalog.current_setting('shardwire.role'), true)";
