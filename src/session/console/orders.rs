//! What administrators order: PAUSE, RESUME, KILL, RELOAD and the like.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::session::console::Console;
use crate::session::console::command::{Command, Name};
use crate::session::control::{Control, Sessions};
use crate::session::gate::Gate;
use crate::session::operations::Serving;
use crate::sqlstate::SqlState;

/// Between two looks whether what is waited for has happened.
const POLL: Duration = Duration::from_millis(20);

/// What sessions that are killed get for their last words before KILL is answered all the same.
const KILL_LIMIT: Duration = Duration::from_secs(5);

impl Console {
    /// Carries an order out; done when it returns.
    ///
    /// # Errors
    /// `3D000` for a database that is not served, `55000` for a state that does not allow it, `57014`
    /// if the operator cancels or another one undoes it, and what RELOAD finds.
    pub(super) async fn order(&self, command: &Command) -> Result<()> {
        let sessions = &self.registered.sessions;
        let operations = &sessions.operations;
        tracing::info!(user = %self.user, command = ?command, "ordered in the console");
        match command {
            Command::Pause(name) => self.pause(&self.databases(name.as_ref())?).await,
            Command::Resume(name) => self.resume(name.as_ref()),
            Command::Kill(name) => self.kill(&self.databases(name.as_ref())?).await,
            Command::KillClient(id) => kill_client(sessions, *id).await,
            Command::Reconnect(name) => {
                for database in self.databases(name.as_ref())? {
                    for generation in operations.generations(&database) {
                        let pools = generation.pools().iter().flatten();
                        pools.for_each(|pool| pool.renew());
                    }
                }
                Ok(())
            }
            Command::WaitClose(name) => self.wait_close(&self.databases(name.as_ref())?).await,
            Command::Disable(name) => self.set_disabled(name, true),
            Command::Enable(name) => self.set_disabled(name, false),
            Command::Reload => operations.reload().await,
            Command::ShutDown => operations.shut_down().await,
            _ => Ok(()),
        }
    }

    pub(super) fn serving(&self) -> Result<Arc<Serving>> {
        let serving = self.registered.sessions.operations.serving();
        serving.ok_or_else(|| {
            let message = "nothing is served yet";
            Error::new(SqlState::CANNOT_CONNECT_NOW, message)
        })
    }

    /// The databases that a command means: the one it names, or all.
    fn databases(&self, name: Option<&Name>) -> Result<Vec<String>> {
        let serving = self.serving()?;
        let Some(name) = name else {
            return Ok(serving.databases.keys().cloned().collect());
        };
        let known = [&name.written, &name.folded]
            .into_iter()
            .find(|name| serving.databases.contains_key(*name));
        let known = known.ok_or_else(|| {
            let written = &name.written;
            let message = format!("database \"{written}\" does not exist");
            Error::new(SqlState::INVALID_CATALOG_NAME, message)
        })?;
        Ok(vec![known.clone()])
    }

    fn gate(&self, database: &str) -> Arc<Gate> {
        self.registered.sessions.operations.gate(database)
    }

    /// Keeps new transactions from the servers and waits until those under way have ended and no server
    /// connection is left. An operator who goes meanwhile leaves the databases as they are.
    async fn pause(&self, databases: &[String]) -> Result<()> {
        let mut closed = Vec::new();
        for database in databases {
            if self.gate(database).close() {
                closed.push(database);
            }
        }
        if closed.is_empty() {
            return Err(state("already suspended/paused"));
        }
        let is_done = || {
            let open = |database: &&&String| !self.gate(database).is_closed();
            if closed.iter().any(|database| open(&database)) {
                return Err(Error::new(
                    SqlState::QUERY_CANCELED,
                    "a database was resumed before it was paused",
                ));
            }
            Ok(closed.iter().all(|database| self.is_emptied(database)))
        };
        let paused = self.wait_for(is_done).await;
        if let Err(error) = &paused
            && error.code() == SqlState::QUERY_CANCELED
        {
            for database in closed {
                self.gate(database).open();
            }
        }
        paused
    }

    /// Whether a database has no server connection left; closes those that are idle.
    fn is_emptied(&self, database: &str) -> bool {
        let operations = &self.registered.sessions.operations;
        let generations = operations.generations(database);
        let pools = generations.iter().flat_map(|one| one.pools()).flatten();
        // Each is asked, because asking closes what is idle.
        let left = pools.filter(|pool| !pool.is_emptied()).count();
        left == 0
    }

    fn resume(&self, name: Option<&Name>) -> Result<()> {
        let mut resumed = false;
        for database in self.databases(name)? {
            resumed |= self.gate(&database).open();
        }
        match (resumed, name) {
            (true, _) => Ok(()),
            (false, None) => Err(state("pooler is not paused/suspended")),
            (false, Some(name)) => Err(state(format!("database {} is not paused", name.written))),
        }
    }

    /// Closes every session and server connection of databases, which stay paused.
    async fn kill(&self, databases: &[String]) -> Result<()> {
        for database in databases {
            self.gate(database).close();
        }
        let sessions = &self.registered.sessions;
        let killed = |control: &Arc<Control>| {
            let identity = control.activity.identity();
            identity.is_some_and(|identity| databases.contains(&identity.database))
        };
        let deadline = Instant::now() + KILL_LIMIT;
        let mut all = sessions.all();
        all.retain(killed);
        // A server that does not answer its cancel request must not keep the others alive.
        for control in all {
            tokio::spawn(async move { control.terminate().await });
        }
        let is_done = || {
            let gone = !sessions.all().iter().any(killed);
            let emptied = databases.iter().all(|database| self.is_emptied(database));
            Ok(gone && emptied || Instant::now() >= deadline)
        };
        self.wait_for(is_done).await
    }

    /// Waits until connections that were made before the last RECONNECT are gone.
    async fn wait_close(&self, databases: &[String]) -> Result<()> {
        let operations = &self.registered.sessions.operations;
        let is_done = || {
            let generations = databases
                .iter()
                .flat_map(|name| operations.generations(name));
            let mut pools = generations.flat_map(|one| one.pools().to_vec()).flatten();
            Ok(!pools.any(|pool| pool.has_outdated()))
        };
        self.wait_for(is_done).await
    }

    fn set_disabled(&self, name: &Name, is_disabled: bool) -> Result<()> {
        for database in self.databases(Some(name))? {
            self.gate(&database).set_disabled(is_disabled);
        }
        Ok(())
    }

    /// Waits until something is done, the operator cancels, or the process ends.
    async fn wait_for(&self, is_done: impl Fn() -> Result<bool>) -> Result<()> {
        let control = &self.registered.control;
        let outcome = loop {
            match is_done() {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
            let told = std::future::poll_fn(|cx| match control.poll_waiting(cx) {
                Ok(()) => std::task::Poll::Pending,
                Err(error) => std::task::Poll::Ready(error),
            });
            if let Ok(error) = tokio::time::timeout(POLL, told).await {
                break Err(error);
            }
        };
        control.stop_waiting();
        outcome
    }
}

async fn kill_client(sessions: &Sessions, id: i32) -> Result<()> {
    let all = sessions.all();
    let control = all.iter().find(|control| control.process_id == id);
    let control = control.ok_or_else(|| {
        Error::new(SqlState::UNDEFINED_OBJECT, "client not found")
            .hint("SHOW CLIENTS shows their ids.")
    })?;
    control.terminate().await;
    Ok(())
}

fn state(message: impl Into<crate::error::Text>) -> Error {
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}
