//! SHOW SHARDWIRE: what a session may see of the proxy, of itself and of others.
//!
//! As in `pg_stat_activity`, everybody sees that a session exists and as whom; what it does, only its
//! own user, administrators and `auth.stats_users`. The text of a kept plan, whose
//! constants are removed, and settings beyond the session's own database are for the latter only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::show::{self, View};
use crate::admin::table::{Table, Value};
use crate::error::Result;
use crate::plan::{Access, Route};
use crate::session::Session;
use crate::session::activity::{Identity, State};
use crate::session::control::{Control, Sessions};
use crate::session::database::Database;
use crate::session::operations::Serving;
use crate::topology::PreparedTransaction;

/// What stands in place of what somebody may not see.
const HIDDEN: &str = "<insufficient privilege>";

/// Who looks.
#[derive(Clone, Copy)]
pub(super) struct Onlooker<'a> {
    /// The user.
    pub user: &'a str,
    /// Whether it may see what is not its own.
    pub sees_all: bool,
}

impl Onlooker<'_> {
    fn may_see(&self, identity: &Identity) -> bool {
        self.sees_all || identity.user == self.user
    }
}

impl Session {
    /// The rows of a view.
    ///
    /// # Errors
    /// None today; views may come to ask servers.
    pub(super) async fn view(&self, view: View) -> Result<Table> {
        let sessions = &self.registered.sessions;
        self.registered.control.activity.set_state(State::Active);
        let identity = self.registered.control.activity.identity();
        let user = identity.map_or("", |identity| identity.user.as_str());
        let onlooker = Onlooker {
            user,
            sees_all: sessions.operations.may_look(user),
        };
        let database = &self.database;
        Ok(match view {
            View::Shards => show::shards(&database.config, &database.topology),
            View::Servers => show::servers(&database.topology),
            View::Pools => show::pools(&database.topology, database.pools()),
            View::Tables => show::tables(&database.config),
            View::Clients => clients(sessions, onlooker),
            View::Plans => plans(database, onlooker),
            View::Transactions => transactions(sessions, database, onlooker).await,
            View::Config => match sessions.operations.serving() {
                Some(serving) => settings(&serving, &database.config.name, onlooker),
                None => view.empty(),
            },
        })
    }
}

/// The shards and the servers that work for a session.
fn places(control: &Control) -> (String, String) {
    let links = control.links();
    let pools = || links.iter().map(|(pool, _)| pool);
    let shards: BTreeSet<&str> = pools().map(|pool| pool.shard()).collect();
    let servers: BTreeSet<String> = pools()
        .map(|pool| pool.target().address.to_string())
        .collect();
    (
        shards.into_iter().collect::<Vec<_>>().join(", "),
        servers.into_iter().collect::<Vec<_>>().join(", "),
    )
}

fn clients(sessions: &Sessions, onlooker: Onlooker<'_>) -> Table {
    let mut table = View::Clients.empty();
    for control in sessions.all() {
        let activity = &control.activity;
        let Some(identity) = activity.identity() else {
            continue;
        };
        let mut row: Vec<Value> = vec![
            control.process_id.into(),
            identity.user.as_str().into(),
            identity.database.as_str().into(),
        ];
        if onlooker.may_see(identity) {
            let (shards, servers) = places(&control);
            let totals = activity.totals();
            row.extend([
                identity.peer.to_string().into(),
                activity.state().word().into(),
                Value::Time(identity.since),
                shards.into(),
                servers.into(),
                totals.transactions.into(),
                totals.queries.into(),
                activity.application_name().into(),
                identity.tls.into(),
            ]);
        } else {
            row.resize(table.columns().len(), Value::Null);
        }
        table.rows.push(row);
    }
    table
}

fn plans(database: &Database, onlooker: Onlooker<'_>) -> Table {
    let mut table = View::Plans.empty();
    let mut plans = database.plans();
    let hits = |kept: &crate::session::database::Kept| {
        kept.hits.load(std::sync::atomic::Ordering::Relaxed)
    };
    plans.sort_by(|a, b| hits(b).cmp(&hits(a)).then_with(|| a.text.cmp(&b.text)));
    for kept in plans {
        let route = match &kept.plan.route {
            Route::Any => "any".to_owned(),
            Route::Shard(shard) => format!("shard {}", database.shard_name(*shard)),
            Route::Keyed(_) => "by key".to_owned(),
            Route::Scatter(_) => "scatter".to_owned(),
            Route::Combine(_) => "combine".to_owned(),
            Route::Replicated(_) => "replicated".to_owned(),
            Route::Insert(_) => "by row".to_owned(),
            Route::CopyIn(_) => "copy".to_owned(),
            Route::Change(_) => "change".to_owned(),
            Route::Filled(_) => "filled".to_owned(),
            Route::Feed(_) => "feed".to_owned(),
            Route::Staged(_) => "staged".to_owned(),
            Route::Define(_) => "define".to_owned(),
            Route::Refused(_) => "refused".to_owned(),
        };
        let access = match kept.plan.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        let text = if onlooker.sees_all {
            &*kept.text
        } else {
            HIDDEN
        };
        table.rows.push(vec![
            text.into(),
            route.into(),
            access.into(),
            hits(&kept).into(),
            kept.plan.epoch.into(),
        ]);
    }
    table
}

/// The open transactions of the database's sessions, and what is prepared on its servers.
async fn transactions(sessions: &Sessions, database: &Database, onlooker: Onlooker<'_>) -> Table {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut table = View::Transactions.empty();
    for control in sessions.all() {
        let Some(identity) = control.activity.identity() else {
            continue;
        };
        if identity.database == database.config.name
            && let Some(row) = open_transaction(&control, identity, (onlooker, now))
        {
            table.rows.push(row);
        }
    }
    for prepared in database.topology.prepared_transactions().await {
        let PreparedTransaction {
            gid,
            owner,
            shard,
            since,
        } = prepared;
        let is_seen = onlooker.sees_all || owner == onlooker.user;
        table.rows.push(vec![
            if is_seen { gid.into() } else { HIDDEN.into() },
            Value::Null,
            owner.into(),
            database.config.name.as_str().into(),
            "prepared".into(),
            shard.into(),
            Value::Time(since),
            millis(now.saturating_sub(since)),
        ]);
    }
    table
}

fn open_transaction(
    control: &Arc<Control>,
    identity: &Identity,
    (onlooker, now): (Onlooker<'_>, Duration),
) -> Option<Vec<Value>> {
    let activity = &control.activity;
    let (shards, _) = places(control);
    let state = activity.state();
    let in_block = matches!(state, State::InTransaction | State::Failed);
    let start = activity.transaction().or(activity.request());
    if !in_block && activity.transaction().is_none() && shards.is_empty() {
        return None;
    }
    let mut row: Vec<Value> = vec![
        Value::Null,
        control.process_id.into(),
        identity.user.as_str().into(),
        identity.database.as_str().into(),
    ];
    if onlooker.may_see(identity) {
        let start = identity.since + start.unwrap_or_default();
        row.extend([
            state.word().into(),
            shards.into(),
            Value::Time(start),
            millis(now.saturating_sub(start)),
        ]);
    } else {
        row.resize(row.len() + 4, Value::Null);
    }
    Some(row)
}

fn millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .into()
}

fn settings(serving: &Serving, database: &str, onlooker: Onlooker<'_>) -> Table {
    let mut table = View::Config.empty();
    for setting in serving.config.settings() {
        let is_seen = onlooker.sees_all || is_public(&setting.path, database);
        if !is_seen && setting.path.starts_with("auth.users") {
            continue;
        }
        if !is_seen && setting.path.starts_with("databases.") && !setting.is_of(database) {
            continue;
        }
        let value = if is_seen {
            setting.value
        } else {
            HIDDEN.into()
        };
        table.rows.push(vec![
            setting.path.into(),
            value.into(),
            setting.default.into(),
            setting.source.into(),
        ]);
    }
    table
}

/// Whether anybody may see a setting: how its own database is served, and what bounds its sessions.
fn is_public(path: &str, database: &str) -> bool {
    let bounds = ["limits.", "timeouts."];
    if bounds.iter().any(|section| path.starts_with(section)) {
        return true;
    }
    crate::config::within_database(path, database).is_some_and(|rest| !rest.starts_with("backend."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_database_and_the_bounds_are_public() {
        assert!(is_public("limits.max_clients", "shop"));
        assert!(is_public("databases.shop.pool.max_size", "shop"));
        assert!(!is_public("databases.shop.backend.user", "shop"));
        assert!(!is_public("databases.shopping.pool.max_size", "shop"));
        assert!(!is_public("auth.users.shop.password", "shop"));
        assert!(!is_public("tls.key", "shop"));
        assert!(is_public("databases.\"a b\".zone", "a b"));
    }
}
