//! The virtual database `shardwire`: the console that operators know from PgBouncer.
//!
//! It needs no server and answers both protocols. Administrators may do everything in it,
//! `auth.stats_users` may look; nobody else comes in.

pub mod command;
mod orders;
pub mod stats;
pub mod tables;

use std::collections::HashMap;
use std::task::Poll;

use crate::admin::table::{Kind, Table, Value};
use crate::error::{Error, Result};
use crate::net::duplex::Duplex;
use crate::session::activity::{Identity, State};
use crate::session::console::command::Command;
use crate::session::control::{Registered, Sessions, Signal};
use crate::session::handshake::Startup;
use crate::sqlstate::SqlState;
use crate::wire::backend::{
    Status, backend_key_data, bind_complete, close_complete, command_complete,
    empty_query_response, error_response, no_data, notice_response, parameter_status,
    parse_complete, portal_suspended, ready_for_query,
};
use crate::wire::format::Formats;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Parse, Subject};

/// The name of the virtual database.
pub const NAME: &str = "shardwire";

/// Consoles open at a time, at most.
const MAX_CONSOLES: usize = 100;

/// The longest message that is read, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Statements and portals of a client at a time, at most.
const MAX_STATEMENTS: usize = 1_000;

const HELP: &str = "
\tSHOW HELP|VERSION|STATE|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|SOCKETS|USERS|LISTS|MEM
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tPAUSE [<db>]
\tRESUME [<db>]
\tRECONNECT [<db>]
\tWAIT_CLOSE [<db>]
\tKILL [<db>]
\tKILL_CLIENT <id>
\tDISABLE <db>
\tENABLE <db>
\tRELOAD
\tSHUTDOWN
";

/// An operator's session.
pub struct Console {
    socket: Duplex,
    registered: Registered,
    user: String,
    may_change: bool,
    status: Status,
    statements: HashMap<Vec<u8>, Option<Command>>,
    portals: HashMap<Vec<u8>, Portal>,
    /// An error has come; everything up to Sync is ignored.
    is_skipping: bool,
    commands: u64,
}

/// A bound command, and what is left of its answer.
struct Portal {
    command: Option<Command>,
    formats: Formats,
    /// Its answer, once it has been executed, and how many rows of it were sent.
    answer: Option<(Table, usize)>,
}

/// Why the session ends.
enum End {
    Gone,
    Told(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Told(error)
    }
}

impl Console {
    /// Lets an operator in, if it is one, and greets it.
    ///
    /// # Errors
    /// `28000` if it is none, `53300` if there are too many consoles.
    pub fn open(
        startup: Startup,
        user: &str,
        sessions: &std::sync::Arc<Sessions>,
        secret_bytes: usize,
    ) -> Result<Console, Box<(Startup, Error)>> {
        let serving = sessions.operations.serving();
        let auth = serving.as_ref().map(|serving| &serving.config.auth);
        if !auth.is_some_and(|auth| auth.may_look(user)) {
            let message = format!("user \"{user}\" may not use the console");
            let error = Error::fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message)
                .hint("auth.administrators and auth.stats_users name those who may.");
            return Err(Box::new((startup, error)));
        }
        let is_console = |control: &&std::sync::Arc<crate::session::control::Control>| {
            let identity = control.activity.identity();
            identity.is_some_and(|identity| identity.database == NAME)
        };
        if sessions.all().iter().filter(is_console).count() >= MAX_CONSOLES {
            let error = Error::fatal(SqlState::TOO_MANY_CONNECTIONS, "too many consoles are open");
            return Err(Box::new((startup, error)));
        }
        let registered = sessions.enter(secret_bytes, user);
        let identity = Identity::new(user, NAME, &startup.stream);
        registered.control.activity.identify(identity);
        let mut console = Console {
            may_change: auth.is_some_and(|auth| auth.may_change(user)),
            socket: Duplex::new(startup.stream),
            registered,
            user: user.to_owned(),
            status: Status::Idle,
            statements: HashMap::new(),
            portals: HashMap::new(),
            is_skipping: false,
            commands: 0,
        };
        console.greet(&startup.unsent);
        Ok(console)
    }

    fn greet(&mut self, before: &[u8]) {
        let control = &self.registered.control;
        let out = self.socket.output.tail();
        out.extend_from_slice(before);
        for (name, value) in [
            ("server_version", "1.24.0/shardwire"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("IntervalStyle", "postgres"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "off"),
            ("session_authorization", self.user.as_str()),
            ("default_transaction_read_only", "off"),
            ("in_hot_standby", "off"),
        ] {
            parameter_status(out, name, value);
        }
        backend_key_data(out, control.process_id, control.secret());
        ready_for_query(out, Status::Idle);
    }

    /// Serves the operator until it leaves or the process ends.
    pub async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        if let End::Told(error) = end {
            error_response(self.socket.output.tail(), &error.into_fatal());
        }
        let limit = std::time::Duration::from_secs(5);
        // An operator who does not read any more is not told.
        let _ = tokio::time::timeout(limit, self.socket.flush()).await;
    }

    async fn step(&mut self) -> Result<(), End> {
        while let Some(header) = frame::header(self.socket.input.bytes())? {
            if frontend::is_small(header.tag).is_none() {
                let tag = header.tag;
                return Err(Error::protocol(format!("invalid frontend message type {tag}")).into());
            }
            if header.frame_bytes > MAX_MESSAGE_BYTES {
                let message = "message is too long for the console";
                return Err(Error::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, message).into());
            }
            let Some(frame) = self.socket.input.bytes().get(..header.frame_bytes) else {
                break;
            };
            let frame = frame.to_vec();
            self.socket.input.consume(header.frame_bytes);
            self.registered.control.activity.set_state(State::Active);
            self.handle(header.tag, frame::body(&frame)).await?;
        }
        self.socket.flush().await.map_err(|_| End::Gone)?;
        self.show_activity();
        self.listen().await
    }

    fn show_activity(&mut self) {
        let Registered { control, tally, .. } = &mut self.registered;
        control.activity.set_state(match self.status {
            Status::Idle => State::Idle,
            Status::Transaction => State::InTransaction,
            Status::Failed => State::Failed,
        });
        let bytes = (self.socket.received, self.socket.sent);
        tally.show(&control.activity, None, self.commands, bytes);
    }

    /// Waits until the operator says something, or somebody tells the session to end.
    async fn listen(&mut self) -> Result<(), End> {
        let (socket, control) = (&mut self.socket, &self.registered.control);
        std::future::poll_fn(|cx| {
            match socket.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => return Poll::Ready(Ok(())),
                Poll::Ready(_) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => {}
            }
            match control.poll_told(cx) {
                Signal::None => Poll::Pending,
                Signal::Drain | Signal::Terminate => Poll::Ready(Err(End::Told(Error::fatal(
                    SqlState::ADMIN_SHUTDOWN,
                    "terminating connection due to administrator command",
                )))),
            }
        })
        .await
    }

    async fn handle(&mut self, tag: u8, body: &[u8]) -> Result<(), End> {
        if self.is_skipping && !matches!(tag, b'S' | b'X') {
            return Ok(());
        }
        let done = match tag {
            b'Q' => return self.query(body).await,
            b'X' => return Err(End::Gone),
            b'S' => {
                frontend::empty(body)?;
                self.is_skipping = false;
                if self.status == Status::Idle {
                    self.portals.clear();
                }
                self.ready();
                Ok(())
            }
            b'H' => frontend::empty(body),
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(body).await,
            b'C' => self.close(body),
            // Data of a copy that never began is dropped, as PostgreSQL does.
            b'd' | b'c' | b'f' => Ok(()),
            _ => Err(Error::refused(
                "function call messages are not supported in the console",
                "There are no functions.",
                "SHOW HELP lists the commands.",
            )),
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) if error.is_fatal() => Err(End::Told(error)),
            Err(error) => {
                self.fail(&error);
                self.is_skipping = true;
                Ok(())
            }
        }
    }

    fn ready(&mut self) {
        ready_for_query(self.socket.output.tail(), self.status);
    }

    fn fail(&mut self, error: &Error) {
        error_response(self.socket.output.tail(), error);
        if self.status == Status::Transaction {
            self.status = Status::Failed;
        }
    }

    /// A Query: its commands one after the other, up to the first that fails.
    async fn query(&mut self, body: &[u8]) -> Result<(), End> {
        let done = self.run_all(frontend::query(body)?).await;
        match done {
            Err(error) if error.is_fatal() => return Err(End::Told(error)),
            Err(error) => self.fail(&error),
            Ok(()) => {}
        }
        self.ready();
        Ok(())
    }

    async fn run_all(&mut self, text: &[u8]) -> Result<()> {
        let commands = command::parse(utf8(text)?)?;
        if commands.is_empty() {
            empty_query_response(self.socket.output.tail());
        }
        for command in commands {
            let table = self.perform(&command).await?;
            let out = self.socket.output.tail();
            if let Some(table) = table {
                let formats = Formats::default();
                table.describe(out, &formats);
                table.write(out, &formats);
            }
            command_complete(out, command.tag());
        }
        Ok(())
    }

    /// Does what a command says; its rows, if it has any.
    async fn perform(&mut self, command: &Command) -> Result<Option<Table>> {
        self.commands += 1;
        if self.status == Status::Failed && !matches!(command, Command::End(_)) {
            return Err(crate::session::simple::aborted());
        }
        if command.changes() && !self.may_change {
            let message = format!("{} is for administrators only", command.tag());
            return Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
                .hint("auth.administrators names them."));
        }
        match command {
            Command::Help => {
                let notice = Error::new(SqlState::SUCCESSFUL_COMPLETION, "Console usage");
                notice_response(self.socket.output.tail(), "NOTICE", &notice.detail(HELP));
                Ok(None)
            }
            Command::Show(view) => {
                let serving = self.serving()?;
                Ok(Some(view.table(&self.registered.sessions, &serving)))
            }
            Command::Begin(_) => {
                self.status = Status::Transaction;
                Ok(None)
            }
            Command::End(_) => {
                self.status = Status::Idle;
                Ok(None)
            }
            Command::Select(number) => {
                let mut table = Table::new(&[("?column?", Kind::Int4)]);
                table.rows.push(vec![Value::from(*number)]);
                Ok(Some(table))
            }
            Command::Nothing(_) => Ok(None),
            order => self.order(order).await.map(|()| None),
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<()> {
        let parse = Parse::read(body)?;
        let mut commands = command::parse(utf8(parse.text)?)?;
        if commands.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Error::new(SqlState::SYNTAX_ERROR, message));
        }
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new(SqlState::DUPLICATE_PSTATEMENT, message));
        }
        check_room(self.statements.len())?;
        self.statements.insert(parse.name.to_vec(), commands.pop());
        parse_complete(self.socket.output.tail());
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<()> {
        let bind = Bind::read(body)?;
        let command = self.statement(bind.statement)?.clone();
        if bind.count > 0 {
            let message = format!(
                "bind message supplies {} parameters, but the command takes none",
                bind.count
            );
            return Err(Error::new(SqlState::PROTOCOL_VIOLATION, message));
        }
        let formats = Formats::new(bind.results);
        if let Some(table) = columns(command.as_ref()) {
            table.check(&formats)?;
        }
        check_room(self.portals.len())?;
        let portal = Portal {
            command,
            formats,
            answer: None,
        };
        self.portals.insert(bind.portal.to_vec(), portal);
        bind_complete(self.socket.output.tail());
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Option<Command>> {
        self.statements.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let message = format!("prepared statement \"{name}\" does not exist");
            Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    fn describe(&mut self, body: &[u8]) -> Result<()> {
        let (subject, name) = frontend::subject(body, "DESCRIBE")?;
        let mut words = Vec::new();
        let (command, formats) = match subject {
            Subject::Statement => {
                // ParameterDescription: none.
                words.extend_from_slice(b"t\0\0\0\x06\0\0");
                (self.statement(name)?.as_ref(), Formats::default())
            }
            Subject::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.command.as_ref(), portal.formats.clone())
            }
        };
        match columns(command) {
            Some(table) => table.describe(&mut words, &formats),
            None => no_data(&mut words),
        }
        self.socket.output.push(&words);
        Ok(())
    }

    async fn execute(&mut self, body: &[u8]) -> Result<()> {
        let (name, max_rows) = frontend::execute(body)?;
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let Some(command) = portal.command.clone() else {
            empty_query_response(self.socket.output.tail());
            return Ok(());
        };
        if portal.answer.is_none() {
            let table = self.perform(&command).await?;
            portal.answer = table.map(|table| (table, 0));
        }
        let out = self.socket.output.tail();
        let Some((table, sent)) = &mut portal.answer else {
            command_complete(out, command.tag());
            return Ok(());
        };
        let limit = usize::try_from(max_rows).ok().filter(|limit| *limit > 0);
        let rest = table.rows.get(*sent..).unwrap_or(&[]);
        let count = limit.map_or(rest.len(), |limit| limit.min(rest.len()));
        for row in rest.iter().take(count) {
            table.write_row(out, row, &portal.formats);
        }
        *sent += count;
        // As PostgreSQL does, a full portion is followed by another, which may be empty.
        match limit == Some(count) {
            true => portal_suspended(out),
            false => command_complete(out, command.tag()),
        }
        self.portals.insert(name.to_vec(), portal);
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Result<()> {
        let (subject, name) = frontend::subject(body, "CLOSE")?;
        match subject {
            Subject::Statement => drop(self.statements.remove(name)),
            Subject::Portal => drop(self.portals.remove(name)),
        }
        close_complete(self.socket.output.tail());
        Ok(())
    }
}

/// A table with the columns that a command's answer has.
fn columns(command: Option<&Command>) -> Option<Table> {
    match command? {
        Command::Show(view) => Some(view.empty()),
        Command::Select(_) => Some(Table::new(&[("?column?", Kind::Int4)])),
        _ => None,
    }
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_| {
        let message = "invalid byte sequence for encoding \"UTF8\"";
        Error::new(SqlState::SYNTAX_ERROR, message)
    })
}

fn check_room(count: usize) -> Result<()> {
    if count < MAX_STATEMENTS {
        return Ok(());
    }
    let message = "too many prepared statements";
    Err(Error::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message))
}

fn no_portal(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    let message = format!("portal \"{name}\" does not exist");
    Error::new(SqlState::INVALID_CURSOR_NAME, message)
}
