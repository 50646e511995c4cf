//! What all sessions of one database share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::catalog::is_unplaced;
use crate::config;
use crate::error::Result;
use crate::plan::follow::Sight;
use crate::plan::{Plan, Request, Route, SessionUse, plan};
use crate::pool::Pool;
use crate::session::channels::hub::Hub;
use crate::session::gate::Gate;
use crate::session::greeting::Greetings;
use crate::session::metrics::SessionMetrics;
use crate::session::settings::Context;
use crate::sharding::ShardIndex;
use crate::sql::lexer::tokenize;
use crate::sql::shape::without_constants;
use crate::sql::shape::{self, Shape};
use crate::sql::token::LexOptions;
use crate::sql::values;
use crate::topology::Topology;
use crate::txn::barrier::Barrier;

/// In the epochs of catalogues that only one session sees.
const PRIVATE: u64 = 1 << 63;

/// One database as its sessions see it.
pub struct Database {
    /// Its configuration.
    pub config: Arc<config::Database>,
    /// Bounds on what clients may use.
    pub limits: config::Limits,
    /// A client that is idle outside a transaction for longer is closed.
    pub idle_client: Option<Duration>,
    /// Its replica sets and catalogue.
    pub topology: Arc<Topology>,
    /// Who listens to which channel.
    pub hub: Arc<Hub>,
    /// Counters and histograms, resolved once.
    pub metrics: SessionMetrics,
    /// Keeps sessions from its servers while an operator wants that.
    pub gate: Arc<Gate>,
    /// Turns of statements that a hub finishes: each needs two connections to one server, so that more of
    /// them at once could wait for each other's second.
    pub turns: Arc<Semaphore>,
    /// One pool per server: by shard, then by the server's index in its replica set.
    pools: Vec<Vec<Arc<Pool>>>,
    caches: Caches,
    /// Keeps commits on several shards and snapshots of several apart.
    pub barrier: Arc<Barrier>,
    /// Ends what commits have left behind; aborted on drop.
    _recovery: JoinSet<()>,
}

/// What need not be worked out or asked again.
struct Caches {
    plans: Plans,
    greetings: Greetings,
}

/// The plans of one database.
struct Plans {
    kept: Cache<PlanKey, Arc<Kept>>,
    /// How often sessions have changed definitions.
    changes: AtomicU64,
    /// How many catalogues there have been that only one session saw.
    sights: AtomicU64,
}

/// A plan that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The statement without its constants.
    pub text: Box<str>,
    /// How often it was found.
    pub hits: AtomicU64,
}

/// What a cached plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    is_template: bool,
    by_key: bool,
    shape: u128,
    types: u64,
    context: u64,
    epoch: u64,
}

/// A statement to plan.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The text.
    pub text: &'a str,
    /// Its shape.
    pub shape: &'a Shape,
    /// The declared parameter types.
    pub types: &'a [u32],
    /// The settings that planning depends on.
    pub context: &'a Context,
    /// Whether the session has made temporary tables.
    pub temporary_tables: bool,
    /// Whether the session has a key for tables that are not restricted, or a hint gives one.
    pub by_key: bool,
    /// The catalogue that only the session sees, if it has one.
    pub sight: Option<&'a Arc<Sight>>,
}

impl Database {
    /// Puts a database together; `bounds` are its limits and `timeouts.idle_client`, `pools` are by
    /// shard and server.
    pub fn new(
        config: Arc<config::Database>,
        bounds: (config::Limits, Option<Duration>),
        topology: Arc<Topology>,
        metrics: SessionMetrics,
        pools: Vec<Vec<Arc<Pool>>>,
        gate: Arc<Gate>,
    ) -> Database {
        let (limits, idle_client) = bounds;
        let barrier = Barrier::new(&topology);
        let plans = Cache::new(limits.plan_cache_entries as usize);
        let turns = config.pool.max_size as usize / 2;
        let mailbox_bytes = usize::try_from(limits.query_memory_bytes).unwrap_or(usize::MAX);
        Database {
            config,
            limits,
            idle_client,
            topology,
            hub: Hub::new(mailbox_bytes),
            metrics,
            gate,
            turns: Arc::new(Semaphore::new(turns)),
            pools,
            caches: Caches {
                plans: Plans {
                    kept: plans,
                    changes: AtomicU64::new(0),
                    sights: AtomicU64::new(0),
                },
                greetings: Greetings::default(),
            },
            barrier,
            _recovery: JoinSet::new(),
        }
    }

    /// With tasks that end what commits have left behind.
    #[must_use]
    pub fn recovering(mut self, recovery: JoinSet<()>) -> Database {
        self._recovery = recovery;
        self
    }

    /// What servers have just said to clients that logged in.
    pub fn greetings(&self) -> &Greetings {
        &self.caches.greetings
    }

    /// Whether there is only one shard, so that every statement belongs there.
    pub fn is_single(&self) -> bool {
        self.config.shards.len() == 1
    }

    /// Whether anything depends on the catalogue: where there is one server there is nothing to choose.
    pub fn needs_catalog(&self) -> bool {
        self.config
            .shards
            .iter()
            .map(|shard| shard.servers.len())
            .sum::<usize>()
            > 1
    }

    /// Notes that a session has changed a definition.
    pub fn note_change(&self) {
        self.caches.plans.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// An epoch for a catalogue that only one session sees: no other has it.
    pub fn next_epoch(&self) -> u64 {
        PRIVATE | self.caches.plans.sights.fetch_add(1, Ordering::Relaxed)
    }

    /// Differs from what it was before any change of definitions that this proxy knows of.
    pub fn definitions(&self) -> u64 {
        self.topology.epoch().rotate_left(32) ^ self.caches.plans.changes.load(Ordering::Acquire)
    }

    /// Whether every statement belongs on the first shard unless the client chooses another: there is
    /// no other, or no table is anywhere but at home.
    pub fn is_plain(&self) -> bool {
        self.is_single() || (is_unplaced(&self.config) && self.topology.catalog().is_unplaced())
    }

    /// The pools, by shard and server.
    pub fn pools(&self) -> &[Vec<Arc<Pool>>] {
        &self.pools
    }

    /// The pool of a server.
    pub fn pool(&self, shard: ShardIndex, server: usize) -> Option<&Arc<Pool>> {
        self.pools.get(shard)?.get(server)
    }

    /// The shard of this name.
    pub fn shard_named(&self, name: &str) -> Option<ShardIndex> {
        self.config
            .shards
            .iter()
            .position(|shard| shard.name == name)
    }

    /// The name of a shard.
    pub fn shard_name(&self, shard: ShardIndex) -> &str {
        self.config
            .shards
            .get(shard)
            .map_or("?", |shard| shard.name.as_str())
    }

    /// How texts of this context are lexed.
    pub fn lex_options(context: &Context) -> LexOptions {
        LexOptions {
            standard_conforming_strings: !context.backslashes,
        }
    }

    /// The plan of a statement: the cached one, or a new one that is then cached.
    pub fn plan(&self, question: &Question<'_>) -> Result<Arc<Plan>> {
        let lex = Self::lex_options(question.context);
        if let Some(plan) = self.plan_template(question, lex)? {
            return Ok(plan);
        }
        self.plan_as(question, false)
    }

    /// The plan of an INSERT of several rows by what the rows have in common, so that lists of any length
    /// share it; none if that does not serve.
    fn plan_template(&self, question: &Question<'_>, lex: LexOptions) -> Result<Option<Arc<Plan>>> {
        if self.is_single() || !may_be_template(question.text) {
            return Ok(None);
        }
        let tokens = tokenize(question.text.as_bytes(), lex).unwrap_or_default();
        let Some(template) = values::template(question.text, &tokens) else {
            return Ok(None);
        };
        let mut shape = Shape::default();
        if shape::scan(template.as_bytes(), lex, &mut shape).is_err() {
            return Ok(None);
        }
        let template = Question {
            text: &template,
            shape: &shape,
            ..*question
        };
        let plan = self.plan_as(&template, true)?;
        Ok(plan.serves_template().then_some(plan))
    }

    fn plan_as(&self, question: &Question<'_>, is_template: bool) -> Result<Arc<Plan>> {
        let shared = self.topology.catalog();
        let catalog = question.sight.map_or(&*shared, |sight| &sight.catalog);
        let is_private = question.temporary_tables || question.sight.is_some();
        let key = PlanKey {
            is_template,
            by_key: question.by_key,
            shape: question.shape.hash,
            types: types_fingerprint(question.types),
            context: question.context.fingerprint(),
            epoch: catalog.epoch,
        };
        // Such a session has names that no other has.
        if !is_private && let Some(kept) = self.caches.plans.kept.get(&key) {
            kept.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(&kept.plan));
        }
        let Context {
            whose, search_path, ..
        } = question.context;
        let search_path = whose.effective(search_path.as_ref(), catalog.default_search_path());
        let planned = Arc::new(plan(&Request {
            text: question.text,
            shape: question.shape,
            lex: Self::lex_options(question.context),
            parse_bytes: usize::try_from(self.limits.query_parse_bytes).unwrap_or(usize::MAX),
            parameter_types: question.types,
            search_path: &search_path,
            is_template,
            temporary_tables: question.temporary_tables,
            by_key: question.by_key,
            catalog,
        }));
        // A refusal speaks of its own text (where parsing stopped, which literal), not of the shape, and so
        // does a definition.
        let is_kept = !planned.session.contains(SessionUse::UNKNOWN_NAMES)
            && !matches!(planned.route, Route::Refused(_) | Route::Define(_));
        if !is_private && is_kept {
            let kept = Kept {
                plan: Arc::clone(&planned),
                text: without_constants(question.text, Self::lex_options(question.context)).into(),
                hits: AtomicU64::new(0),
            };
            self.caches.plans.kept.insert(key, Arc::new(kept));
        }
        Ok(planned)
    }

    /// The plans that are kept.
    pub fn plans(&self) -> Vec<Arc<Kept>> {
        self.caches
            .plans
            .kept
            .iter()
            .map(|(_, kept)| kept)
            .collect()
    }
}

/// Whether a text may be an INSERT of several rows: it has the parentheses of two, and of its columns or
/// a third.
fn may_be_template(text: &str) -> bool {
    let start = text.trim_ascii_start().as_bytes();
    let is_verb = |verb: &[u8]| {
        let word = start.get(..verb.len());
        word.is_some_and(|word| word.eq_ignore_ascii_case(verb))
    };
    // A comment may stand before the verb.
    let may_insert = is_verb(b"insert")
        || is_verb(b"with")
        || start.starts_with(b"/*")
        || start.starts_with(b"--");
    may_insert && memchr::memchr_iter(b'(', text.as_bytes()).nth(1).is_some()
}

fn types_fingerprint(types: &[u32]) -> u64 {
    if types.is_empty() {
        return 0;
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for oid in types {
        hasher.update(&oid.to_be_bytes());
    }
    hasher.digest()
}
