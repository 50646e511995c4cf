//! Learns for which roles the proxy could end what they have prepared, were they gone.

use std::collections::HashSet;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::Loader;
use super::Reader;
use crate::topology::control::ControlError;

/// Roles that the proxy's own can become: only who has prepared a transaction, or a superuser, may end it
/// (PostgreSQL documentation, COMMIT PREPARED).
const ROLES: &str = "SELECT rolname FROM pg_catalog.pg_roles \
     WHERE pg_catalog.pg_has_role(current_user, oid, 'MEMBER')";

async fn roles(client: &Client) -> Result<HashSet<Box<str>>, ControlError> {
    let messages = client.simple_query(ROLES).await?;
    let names = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(Into::into),
        _ => None,
    });
    Ok(names.collect())
}

impl Loader {
    /// Learns the roles of every shard that answers; of the others what was known stays.
    pub(super) async fn learn_roles(&self, reader: &mut Reader) {
        // With one shard nothing is ever prepared.
        if self.sets.len() < 2 {
            return;
        }
        for set in self.sets.iter() {
            let Some(server) = self.server_of(set.shard) else {
                continue;
            };
            let read = async {
                let source = self.open(reader, server).await?;
                let roles = roles(source.control.client()).await?;
                reader.sources.insert(set.shard, source);
                Ok::<_, ControlError>(roles)
            };
            match read.await {
                Ok(roles) => set.roles.store(Some(roles.into())),
                Err(error) => tracing::debug!(%server, %error, "roles can't be read"),
            }
        }
    }
}
