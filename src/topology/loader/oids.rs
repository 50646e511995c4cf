//! Learns which OIDs each shard has for what users have made.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::Loader;
use super::Reader;
use crate::topology::control::ControlError;
use crate::wire::oids::{Named, Oids};

/// Types and relations of users by name. Those of temporary tables are one session's own.
const NAMES: &str = "\
SELECT 't', t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname) \
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(temp|toast)' \
UNION ALL \
SELECT 'r', c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_(temp|toast)'";

async fn names(client: &Client) -> Result<Named, ControlError> {
    let mut named = Named::default();
    for message in client.simple_query(NAMES).await? {
        let SimpleQueryMessage::Row(row) = message else {
            continue;
        };
        let oid = row.get(1).and_then(|oid| oid.parse().ok());
        let (Some(oid), Some(name)) = (oid, row.get(2)) else {
            return Err(ControlError::answer("a name can't be read"));
        };
        let of_its_kind = match row.get(0) {
            Some("t") => &mut named.types,
            _ => &mut named.relations,
        };
        of_its_kind.insert(name.to_owned(), oid);
    }
    Ok(named)
}

impl Loader {
    /// Learns the OIDs of every shard that answers; of the others what was known stays.
    pub(super) async fn learn_oids(&self, reader: &mut Reader) {
        if self.sets.len() < 2 {
            return;
        }
        let Some(first) = self.names_on(reader, 0).await else {
            return;
        };
        for set in self.sets.iter().skip(1) {
            let Some(own) = self.names_on(reader, set.shard).await else {
                continue;
            };
            let oids = Oids::between(&own, &first);
            // Connections compare by identity, and have nothing to do while nothing has changed.
            if set.oids.load().as_deref() != oids.as_ref() {
                set.oids.store(oids.map(Into::into));
            }
        }
    }

    async fn names_on(&self, reader: &mut Reader, shard: usize) -> Option<Named> {
        let server = self.server_of(shard)?;
        let read = async {
            let source = self.open(reader, server).await?;
            let names = names(source.control.client()).await?;
            reader.sources.insert(shard, source);
            Ok::<_, ControlError>(names)
        };
        match read.await {
            Ok(names) => Some(names),
            Err(error) => {
                tracing::debug!(%server, %error, "names can't be read");
                None
            }
        }
    }
}
