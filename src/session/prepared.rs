//! The client's prepared statements and portals by name, whether the protocol or SQL prepared them.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

use xxhash_rust::xxh3::Xxh3;

use crate::backend::connection::StatementId;
use crate::plan::Plan;
use crate::session::effect::Effect;
use crate::session::kept::KeptPortal;
use crate::session::nesting::Nesting;
use crate::session::portals::Place;
use crate::session::replies::Effects;
use crate::session::scatter::ScatterPortal;
use crate::session::spread::SpreadPortal;
use crate::sql::shape::Literal;
use crate::wire::format::Formats;

/// A prepared statement of the client, as it sent it.
#[derive(Debug)]
pub struct Prepared {
    /// The same for equal texts and types, whoever prepares them.
    pub id: StatementId,
    /// The name under which servers know it; empty for an unnamed one.
    pub server_name: Box<[u8]>,
    /// The text.
    pub text: Box<[u8]>,
    /// The text in UTF-8, if it is not.
    pub read: Option<Box<str>>,
    /// The declared parameter types; 0 leaves one to the server.
    pub types: Box<[u32]>,
    /// The literals in the text.
    pub literals: Box<[Literal]>,
    /// The body of the hint in the text, if there is one.
    pub hint: Option<Box<str>>,
    /// Where it runs.
    pub plan: Arc<Plan>,
    /// Of the context it was planned in.
    pub context: u64,
    /// When it was made.
    pub made_at: SystemTime,
    /// How SQL declared it, if it did.
    pub declared: Option<Arc<Declared>>,
    /// What must be so of another statement that it names before it can run.
    pub needs: Needs,
}

/// What a `PREPARE` said.
#[derive(Debug)]
pub struct Declared {
    /// The name.
    pub name: String,
    /// What stands behind the name: types and body.
    pub declaration: String,
    /// The message that it came in.
    pub source: String,
}

impl Declared {
    /// What tells declarations apart.
    pub fn key(&self) -> String {
        format!("PREPARE {}\0{}", self.name, self.declaration)
    }

    /// The `PREPARE` for a server, under the name that servers know.
    pub fn statement(&self, server_name: &[u8]) -> String {
        let name = String::from_utf8_lossy(server_name);
        format!("PREPARE {name} {}", self.declaration)
    }
}

/// What must be so of another statement on the server, before a statement that names it runs.
#[derive(Clone, Debug, Default)]
pub enum Needs {
    /// Nothing.
    #[default]
    Nothing,
    /// The server has it.
    Present(Arc<Prepared>),
    /// The server has it not.
    Absent(StatementId),
}

impl Prepared {
    /// The same statement under another id.
    pub fn under(&self, id: StatementId) -> Prepared {
        Prepared {
            id,
            server_name: match self.is_unnamed() {
                true => Box::default(),
                false => server_name(id).into_bytes().into(),
            },
            text: self.text.clone(),
            read: self.read.clone(),
            types: self.types.clone(),
            literals: self.literals.clone(),
            hint: self.hint.clone(),
            plan: Arc::clone(&self.plan),
            context: self.context,
            made_at: self.made_at,
            declared: self.declared.clone(),
            needs: self.needs.clone(),
        }
    }

    /// The text as it is to be understood.
    pub fn sql(&self) -> &str {
        match &self.read {
            Some(read) => read,
            None => std::str::from_utf8(&self.text).unwrap_or_default(),
        }
    }

    /// Whether the client gave it no name.
    pub fn is_unnamed(&self) -> bool {
        self.server_name.is_empty()
    }
}

/// How the names that servers know begin.
pub const SERVER_NAME_PREFIX: &[u8] = b"shardwire_";

/// How long they are.
pub const SERVER_NAME_BYTES: usize = SERVER_NAME_PREFIX.len() + 32;

/// The name under which servers know a named statement.
pub fn server_name(id: StatementId) -> String {
    let mut name = String::with_capacity(SERVER_NAME_BYTES);
    let _ = write!(name, "shardwire_{id:032x}");
    name
}

/// Identifies a statement by its text and types, whether it has a name, and the `context` in which
/// servers read it: the session's settings and the catalogue's epoch.
pub fn statement_id(is_named: bool, text: &[u8], types: &[u32], context: u64) -> StatementId {
    let mut hasher = Xxh3::new();
    hasher.update(&[u8::from(is_named)]);
    hasher.update(&context.to_be_bytes());
    hasher.update(text);
    hasher.update(&[0]);
    for oid in types {
        hasher.update(&oid.to_be_bytes());
    }
    hasher.digest128()
}

/// What a Bind made.
#[derive(Clone, Debug)]
pub enum Portal {
    /// It stands on a server, and may make settings.
    OnServer(Arc<Prepared>, Effects, Place),
    /// The proxy itself executes it.
    Local(LocalPortal),
    /// It needs several shards, and runs on them when it is executed.
    Bound(Arc<ScatterPortal>),
    /// It can't run any more, or not go on.
    Partial,
    /// It has run to its end: the verb of its command tag if it gives rows.
    Done(Option<&'static str>),
    /// It is open on several shards.
    Spread(SpreadPortal),
    /// It has run, and rows of its answer are left.
    Kept(KeptPortal),
}

/// A portal that the proxy itself executes.
#[derive(Clone, Debug)]
pub struct LocalPortal {
    /// Its statement.
    pub prepared: Arc<Prepared>,
    /// How its rows are to look.
    pub formats: Formats,
    /// The rows that the client has yet to get, once it has run.
    pub left: Option<Arc<[u8]>>,
    /// It has run, and gives no rows.
    pub is_done: bool,
}

/// What a client was told of a statement's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Tells the columns apart; none if there are none.
    pub columns: Option<u64>,
    /// What texts meant then.
    pub meaning: u64,
}

/// A client's prepared statements and portals.
#[derive(Debug, Default)]
pub struct Statements {
    named: HashMap<Box<[u8]>, Arc<Prepared>>,
    unnamed: Option<Arc<Prepared>>,
    /// Each with the number of savepoints that stood when it was bound.
    portals: HashMap<Box<[u8]>, (usize, Portal)>,
    nesting: Nesting,
    unnamed_portal: Option<Portal>,
    /// What PREPAREs that are under way will make.
    candidates: Vec<(Box<[u8]>, Arc<Prepared>)>,
    /// What the client was told of the results of statements that it has described.
    told: HashMap<Box<[u8]>, Told>,
    /// What the client wrote, of statements that are planned with other words.
    written: HashMap<Box<[u8]>, Arc<str>>,
    /// How many portals of the proxy's own there have been.
    spread: u64,
}

impl Statements {
    /// The statement of this name; the empty name is the unnamed one's.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// Keeps a statement that the client has just made under `name`.
    pub fn put(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        self.told.remove(name);
        self.written.remove(name);
        self.renew(name, prepared);
    }

    /// Keeps what the client wrote, if its statement of this name has other words.
    pub fn note_written(&mut self, name: &[u8], text: &str) {
        self.written.insert(name.into(), text.into());
    }

    /// What the client wrote, if its statement of this name has other words.
    pub fn written(&self, name: &[u8]) -> Option<Arc<str>> {
        self.written.get(name).cloned()
    }

    /// Keeps the client's statement `name` in a new form.
    pub fn renew(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
        } else {
            self.named.insert(name.into(), prepared);
        }
    }

    /// The client is told what the statement of this name results in.
    pub fn tell(&mut self, name: &[u8], told: Told) {
        self.told.insert(name.into(), told);
    }

    /// What the client was told of the statement of this name.
    pub fn told(&self, name: &[u8]) -> Option<Told> {
        self.told.get(name).copied()
    }

    /// Keeps what a `PREPARE` is going to make until it has completed.
    pub fn propose(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        self.candidates.push((name.into(), prepared));
    }

    /// The oldest `PREPARE` of this name has completed.
    pub fn accept(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let at = self
            .candidates
            .iter()
            .position(|(known, _)| **known == *name)?;
        let (name, prepared) = self.candidates.remove(at);
        self.named.insert(name, Arc::clone(&prepared));
        Some(prepared)
    }

    /// Forgets PREPAREs that have not completed and never will.
    pub fn drop_proposals(&mut self) {
        self.candidates.clear();
    }

    /// The named statements, to be put back by [`Statements::set_names`].
    pub fn names(&self) -> HashMap<Box<[u8]>, Arc<Prepared>> {
        self.named.clone()
    }

    /// Puts the named statements back.
    pub fn set_names(&mut self, names: HashMap<Box<[u8]>, Arc<Prepared>>) {
        self.named = names;
    }

    /// Forgets every named statement, as `DEALLOCATE ALL` does.
    pub fn clear_named(&mut self) {
        self.named.clear();
        self.told.retain(|name, _| name.is_empty());
        self.written.retain(|name, _| name.is_empty());
    }

    /// How many named statements there are.
    pub fn count(&self) -> usize {
        self.named.len()
    }

    /// Forgets a name; it need not exist.
    pub fn remove(&mut self, name: &[u8]) {
        if !self.told.is_empty() {
            self.told.remove(name);
        }
        if !self.written.is_empty() {
            self.written.remove(name);
        }
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.named.remove(name);
        }
    }

    /// Forgets the statement and the portal without a name, whose place a Query takes.
    pub fn remove_unnamed(&mut self) {
        self.remove(b"");
        self.unnamed_portal = None;
    }

    /// Forgets the statement of this name if it is of this id, which the server did not accept.
    pub fn reject(&mut self, name: &[u8], id: StatementId) {
        if self.get(name).is_some_and(|prepared| prepared.id == id) {
            self.remove(name);
        }
    }

    /// The client's name for a statement that servers know by `server_name`.
    pub fn name_of(&self, server_name: &[u8]) -> Option<&[u8]> {
        let found = self
            .named
            .iter()
            .find(|(_, prepared)| *prepared.server_name == *server_name);
        found.map(|(name, _)| &**name)
    }

    /// The portal of this name.
    pub fn portal(&self, name: &[u8]) -> Option<&Portal> {
        if name.is_empty() {
            self.unnamed_portal.as_ref()
        } else {
            self.portals.get(name).map(|(_, portal)| portal)
        }
    }

    /// Keeps a portal under `name`.
    pub fn put_portal(&mut self, name: &[u8], portal: Portal) {
        if name.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            let depth = self.portals.get(name).map(|(depth, _)| *depth);
            let depth = depth.unwrap_or(self.nesting.depth());
            self.portals.insert(name.into(), (depth, portal));
        }
    }

    /// Forgets a portal; it need not exist.
    pub fn remove_portal(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed_portal = None;
        } else {
            self.portals.remove(name);
        }
    }

    /// A name for a portal on several shards.
    pub fn next_portal(&mut self) -> String {
        self.spread += 1;
        format!("shardwire_portal_{}", self.spread)
    }

    /// Forgets every portal, as the end of a transaction does.
    pub fn clear_portals(&mut self) {
        self.unnamed_portal = None;
        self.nesting.clear();
        if !self.portals.is_empty() {
            self.portals.clear();
        }
    }

    /// A statement has completed: what was bound behind a savepoint ends when the transaction goes back to it.
    pub fn nest(&mut self, effect: &Effect) {
        if let Some(turn) = self.nesting.note(effect) {
            self.portals.retain(|_, (depth, _)| {
                let stands = turn.stands(*depth);
                *depth = stands.unwrap_or_default();
                stands.is_some()
            });
        }
    }

    /// The portal without a name stands on a server beside the client's transaction, which is left.
    pub fn leave_unnamed_portal(&mut self) {
        if let Some(Portal::OnServer(..)) = self.unnamed_portal {
            self.unnamed_portal = Some(Portal::Partial);
        }
    }

    /// The session changes rows: a portal that has been bound on several shards and has not run would see
    /// them, and in PostgreSQL it would not.
    pub fn spoil_portals(&mut self) {
        let named = self.portals.values_mut().map(|(_, portal)| portal);
        for portal in named.chain(&mut self.unnamed_portal) {
            if let Portal::Bound(_) = portal {
                *portal = Portal::Partial;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_texts_and_types_apart() {
        let id = statement_id(true, b"SELECT $1", &[23], 0);
        assert_eq!(id, statement_id(true, b"SELECT $1", &[23], 0));
        assert_ne!(id, statement_id(true, b"SELECT $1", &[23], 1));
        assert_ne!(id, statement_id(false, b"SELECT $1", &[23], 0));
        assert_ne!(id, statement_id(true, b"SELECT $1", &[20], 0));
        assert_ne!(id, statement_id(true, b"SELECT $2", &[23], 0));
    }

    #[test]
    fn server_names_fit_an_identifier() {
        let name = server_name(u128::MAX);
        assert_eq!(name.len(), SERVER_NAME_BYTES);
        assert!(name.len() < 64 && name.as_bytes().starts_with(SERVER_NAME_PREFIX));
    }
}
