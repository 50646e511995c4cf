//! Queries (`SELECT`, `INSERT` and their like): which shard, or why none.

use std::sync::Arc;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::catalog::Relation;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Access;
use crate::plan::Combine;
use crate::plan::Replacement;
use crate::plan::Request;
use crate::plan::Route;
use crate::plan::SessionUse;
use crate::plan::bind::Bound;
use crate::plan::bind::BoundSource;
use crate::plan::by_key;
use crate::plan::combine;
use crate::plan::definition;
use crate::plan::effects;
use crate::plan::effects::Effects;
use crate::plan::fill;
use crate::plan::fill::Completion;
use crate::plan::hazards::check_hazards;
use crate::plan::hazards::check_home;
use crate::plan::hazards::check_policies;
use crate::plan::hazards::check_secured;
use crate::plan::hazards::events_of;
use crate::plan::insert;
use crate::plan::insert::listed;
use crate::plan::insert::listed::Listed;
use crate::plan::keyed::Keyed;
use crate::plan::keyed::Proof;
use crate::plan::keyed::Spread;
use crate::plan::merge::Merge;
use crate::plan::moment::Moments;
use crate::plan::names::field_call;
use crate::plan::own;
use crate::plan::own::OwnCall;
use crate::plan::own::Question;
use crate::plan::proof::Prover;
use crate::plan::pseudo;
use crate::plan::refusal;
use crate::plan::replicate;
use crate::plan::routine;
use crate::plan::scatter;
use crate::plan::staged;
use crate::plan::statement::Part;
use crate::plan::views;
use crate::sharding::ShardIndex;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Call;
use crate::sql::analysis::Clauses;
use crate::sql::analysis::Facts;
use crate::sql::analysis::SourceKind;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

pub(super) use crate::plan::assigned::check_assigned;
pub(super) use crate::plan::assigned::key_names;

/// Where the state of the whole database is kept: sequences, system catalogues, temporary tables.
pub(super) const FIRST_SHARD: ShardIndex = 0;

/// What planning a query gives.
pub(super) struct Planned {
    pub route: Route,
    pub access: Access,
    pub session: SessionUse,
    pub own: Box<[OwnCall]>,
    pub merge: Option<Arc<Merge>>,
    pub fallback: Option<Arc<Combine>>,
    pub pseudo: Box<[Replacement]>,
    pub listed: Box<[Listed]>,
    pub moments: Option<Box<Moments>>,
}

/// A query on its way to a route.
pub(super) struct Query<'a> {
    pub request: &'a Request<'a>,
    /// The tokens of the whole statement.
    pub tokens: &'a [Token],
    /// The tokens of the query alone.
    pub body: &'a [Token],
    pub facts: &'a Facts,
    pub bound: Bound<'a>,
    /// The effects of each of its calls.
    pub calls: Vec<Effects>,
    /// The calls in the definitions of its views that are read where they are.
    pub view_calls: Vec<(String, Effects)>,
    /// The effects of all of them.
    pub effects: Effects,
}

/// What the sources of a query need.
#[derive(Default)]
struct Needs {
    /// The shard of its home tables.
    home: Option<ShardIndex>,
    /// What restricts its sharded tables.
    proofs: Vec<Proof>,
    /// The first sharded table that nothing restricts.
    unproven: Option<Error>,
    /// It uses sharded tables.
    sharded: bool,
    /// It uses replicated tables.
    replicated: bool,
}

impl<'a> Query<'a> {
    pub fn new(part: Part<'a>, facts: &'a Facts) -> Query<'a> {
        let request = part.request;
        let catalog = request.catalog;
        let bound = Bound::new(facts, catalog, request.search_path);
        let spreads = !facts.modifies()
            && facts.created.is_empty()
            && bound.occurrences().any(|(_, _, source)| {
                let relation = source.relation();
                relation.is_some_and(|one| matches!(one.location, Location::Sharded(_)))
            });
        let effects_of = |call| match spreads && own::reads_setting(request, part.all, call) {
            // Its value is the session's: who runs it over several shards sees to that.
            true => Effects::NONE,
            false => effects::of_call(catalog, request.search_path, &call.name, call.arguments),
        };
        let calls: Vec<Effects> = facts.calls.iter().map(effects_of).collect();
        let view_calls = views::calls(part, &bound);
        let of_views = view_calls.iter().map(|(_, effects)| effects);
        let effects = calls.iter().chain(of_views);
        let effects = effects.fold(Effects::NONE, |all, call| all | *call);
        Query {
            request,
            tokens: part.all,
            body: part.tokens,
            facts,
            bound,
            calls,
            view_calls,
            effects,
        }
    }

    pub fn plan(&self) -> Planned {
        match self.replacements() {
            Ok(mentions) if mentions.is_empty() => self.plan_columns(),
            Ok(mentions) => Planned {
                pseudo: mentions.into(),
                ..self.refused(refusal::pseudo())
            },
            Err(error) => self.refused(error),
        }
    }

    /// What stands in the place of names that only the proxy knows or knows better.
    fn replacements(&self) -> Result<Vec<Replacement>> {
        let mut replacements = definition::into(self)?;
        replacements.extend(pseudo::find(self)?);
        replacements.extend(views::find(self)?);
        Ok(replacements)
    }

    fn refused(&self, error: Error) -> Planned {
        Planned {
            route: Route::Refused(error),
            access: self.access(),
            session: SessionUse::NONE,
            own: Box::default(),
            merge: None,
            fallback: None,
            pseudo: Box::default(),
            listed: Box::default(),
            moments: None,
        }
    }

    /// The plan of a query of nothing but columns that tables have.
    fn plan_columns(&self) -> Planned {
        let (route, merge) = if self.request.catalog.shards().len() == 1 {
            (Route::Shard(FIRST_SHARD), None)
        } else {
            let routed = self.route();
            routed.unwrap_or_else(|error| (Route::Refused(error), None))
        };
        let own = own::find(
            self.facts,
            self.request.catalog,
            self.request.search_path,
            (self.request.text, self.tokens),
        );
        // What the proxy answers in a text would move its tokens.
        let is_plain = own
            .iter()
            .all(|call| call.question == Question::CurrentSetting)
            && (own.is_empty() || !self.facts.modifies());
        let route = match (own.first(), route) {
            (Some(call), Route::Replicated(_)) => {
                Route::Refused(refusal::own_call(call.question.name()))
            }
            (_, route) if is_plain => staged::served(self, route),
            (_, route) => route,
        };
        let route = by_key::confined(self, route);
        Planned {
            access: self.access(),
            session: match self.knows_settings(&own) {
                true => self.session().without(SessionUse::SET_CONFIG) | SessionUse::ONLY_LOCKS,
                false => self.session(),
            },
            // A merge may turn out to be impossible, and a constant to mean another moment on each shard.
            fallback: match is_plain && (merge.is_some() || combine::spreads(&route)) {
                true => combine::instead(self),
                false => None,
            },
            route,
            own,
            merge: merge.map(Arc::new),
            pseudo: Box::default(),
            listed: listed::find(self),
            moments: Moments::find(self),
        }
    }

    /// Whether it does nothing but make settings, whose names and values are known when it runs.
    fn knows_settings(&self, own: &[OwnCall]) -> bool {
        let is_set = |call: &&OwnCall| call.question == Question::SetConfig;
        let known = own.iter().filter(is_set).count();
        let sets = |effects: &&Effects| effects.any(Effects::SET_CONFIG);
        known > 0
            && known == self.calls.iter().filter(sets).count()
            && !self.effects.any(Effects::WRITES | Effects::UNKNOWN)
    }

    fn session(&self) -> SessionUse {
        let mut session = self.effects.session() | self.settings_written();
        if self
            .facts
            .calls
            .iter()
            .any(|call| call.name.name == "setval")
        {
            session |= SessionUse::SETS_SEQUENCE;
        }
        if self.may_draw() {
            session |= SessionUse::MAY_DRAW;
        }
        let harmful = Effects::WRITES | Effects::SET_CONFIG | Effects::UNKNOWN;
        let changes =
            !self.facts.created.is_empty() || self.facts.modifies() || self.effects.any(harmful);
        match changes || self.access() == Access::Read {
            true => session,
            false => session | SessionUse::ONLY_LOCKS,
        }
    }

    /// Whether it may read temporary tables.
    fn reads_temporary(&self) -> bool {
        self.bound.occurrences().any(|(_, _, source)| match source {
            BoundSource::Named(Lookup::Temporary) => true,
            BoundSource::Named(Lookup::Unknown { .. }) => self.request.temporary_tables,
            _ => false,
        })
    }

    fn access(&self) -> Access {
        let locks = self
            .facts
            .blocks
            .iter()
            .any(|block| block.clauses.has(Clauses::LOCKING));
        let creates = !self.facts.created.is_empty();
        if locks
            || self.reads_temporary()
            || creates
            || self.facts.modifies()
            || self.effects.write()
        {
            Access::Write
        } else {
            Access::Read
        }
    }

    /// The route in a database of several shards.
    pub fn route(&self) -> Result<(Route, Option<Merge>)> {
        if !self.facts.created.is_empty() {
            return Err(refusal::everywhere("SELECT INTO"));
        }
        if let Err(refused) = self.check_calls() {
            let route = routine::call::plan(self).ok_or(refused)?;
            return Ok((route, None));
        }
        if let Some(relation) = replicate::target(self)? {
            check_policies(relation)?;
            self.check_events(relation)?;
            let replicate = replicate::plan(self, relation)?;
            return Ok((Route::Replicated(Arc::new(replicate)), None));
        }
        self.check_targets()?;
        match fill::plan(self) {
            Some(Completion::Fill(fill)) => return Ok((Route::Filled(Arc::new(fill)), None)),
            Some(Completion::Rejected) => return Ok((Route::Shard(FIRST_SHARD), None)),
            None => {}
        }
        if let Some(insertion) = insert::over_shards(self)? {
            return Ok((Route::Insert(Arc::new(insertion)), None));
        }
        let needs = self.needs()?;
        if needs.replicated && self.locks() && !self.locks_in_one_place() {
            // Whoever changes the rows does so on the first shard first.
            return match needs.sharded {
                false => self
                    .unsharded(&needs.locking_first()?)
                    .map(|route| (route, None)),
                true => Err(refusal::locks_replicated()),
            };
        }
        if !needs.sharded {
            return self.unsharded(&needs).map(|route| (route, None));
        }
        if let Some(name) = self.call_with(Effects::HOME) {
            return Err(refusal::global_state(name));
        }
        let scatter = match needs.home {
            None => scatter::shards(self),
            Some(_) => Err(refusal::several_shards()),
        };
        let route = match (needs.unproven, scatter) {
            (None, Ok((shards, merge))) => {
                let spread = Spread::Scatter(shards);
                return Ok((keyed(needs.proofs, None, spread), merge));
            }
            (None, Err(error)) => {
                let error = self.several(error);
                keyed(needs.proofs, needs.home, Spread::Refuse(error))
            }
            (Some(_), Ok((shards, merge))) => return Ok((Route::Scatter(shards), merge)),
            // One table alone: say what the query has that needs more than a merge.
            (Some(_), Err(error)) if self.facts.blocks.len() == 1 && needs.home.is_none() => {
                return Err(error);
            }
            (Some(error), Err(_)) => return Err(error),
        };
        Ok((route, None))
    }

    /// The refusal of executions whose keys are on several shards.
    fn several(&self, scatter: Error) -> Error {
        let mut inserts = self
            .facts
            .blocks
            .iter()
            .filter_map(|block| match &block.kind {
                BlockKind::Insert(_) => block.sources.first(),
                _ => None,
            });
        match inserts.next() {
            Some(target) => match &target.kind {
                SourceKind::Relation(name) => refusal::insert_several(&name.name),
                SourceKind::Query(_) | SourceKind::Opaque => refusal::several_shards(),
            },
            None if self.facts.modifies() || self.facts.blocks.len() > 1 => {
                refusal::several_shards()
            }
            None => scatter,
        }
    }

    /// A query without sharded tables.
    fn unsharded(&self, needs: &Needs) -> Result<Route> {
        let needs_first = Effects::HOME | Effects::SERVER | Effects::WRITES | Effects::SHARD;
        match needs.home {
            Some(home) if home != FIRST_SHARD => match self.call_with(Effects::HOME) {
                Some(name) => Err(refusal::global_state(name)),
                None => Ok(Route::Shard(home)),
            },
            Some(home) => Ok(Route::Shard(home)),
            None if self.effects.any(needs_first) || self.facts.object_ids => {
                Ok(Route::Shard(FIRST_SHARD))
            }
            None => Ok(Route::Any),
        }
    }

    /// How often the statement names a parameter.
    pub fn parameter_uses(&self, number: u32) -> usize {
        let parameters = self.tokens.iter().filter(|token| {
            let number_of = |name: &str| name.strip_prefix('$')?.parse::<u32>().ok();
            token.kind == TokenKind::Parameter
                && number_of(token.text(self.request.text)) == Some(number)
        });
        parameters.count()
    }

    /// `UPDATE pg_settings` does what `set_config` does.
    fn settings_written(&self) -> SessionUse {
        let mut sources = self.facts.blocks.iter().flat_map(|block| &block.sources);
        let names_settings = sources.any(|source| match &source.kind {
            SourceKind::Relation(name) => name.name == "pg_settings",
            SourceKind::Query(_) | SourceKind::Opaque => false,
        });
        match names_settings && self.facts.modifies() {
            true => SessionUse::SET_CONFIG,
            false => SessionUse::NONE,
        }
    }

    /// The name of the first call with one of these effects.
    pub fn call_with(&self, effects: Effects) -> Option<&str> {
        let names = self.facts.calls.iter().map(|call| call.name.name.as_str());
        let of_views = self.view_calls.iter();
        let mut calls = names
            .zip(self.calls.iter().copied())
            .chain(of_views.map(|(name, effects)| (name.as_str(), *effects)));
        calls
            .find(|(_, call)| call.any(effects))
            .map(|(name, _)| name)
    }

    /// Whether a function may return several rows.
    pub fn may_return_set(&self, call: &Call) -> bool {
        let (schema, name) = (call.name.schema.as_deref(), &call.name.name);
        let catalog = self.request.catalog;
        let mut functions = catalog.functions(schema, name, self.request.search_path);
        name == "unnest" || functions.any(|function| function.returns_set)
    }

    pub fn check_calls(&self) -> Result<()> {
        self.check_shown()?;
        if let Some(name) = self.call_with(Effects::READS_TABLES) {
            return Err(refusal::reads_tables(name));
        }
        if let Some(name) = self.call_with(Effects::USER_CODE) {
            return Err(refusal::user_code(name));
        }
        // What is a field of a row is no call that the parser tells.
        let part = Part {
            request: self.request,
            all: self.tokens,
            tokens: self.body,
        };
        let leaves = Effects::USER_CODE | Effects::READS_TABLES | Effects::HOME | Effects::WRITES;
        match field_call(part, leaves) {
            Some(name) => Err(refusal::user_code(&name)),
            None => Ok(()),
        }
    }

    /// The proofs of a query all of whose sharded tables are restricted to keys, beside nothing but replicated ones.
    pub fn proven(&self) -> Option<Vec<Proof>> {
        let needs = self.needs().ok()?;
        let is_confined = needs.unproven.is_none() && needs.home.is_none();
        (is_confined && !(needs.replicated && self.locks())).then_some(needs.proofs)
    }

    /// Looks at every occurrence of a relation.
    fn needs(&self) -> Result<Needs> {
        let mut needs = Needs::default();
        let prover = Prover::new(self);
        for (block, source, bound) in self.bound.occurrences() {
            let BoundSource::Named(lookup) = bound else {
                continue;
            };
            let relation = match lookup {
                Lookup::Relation(relation) => relation,
                Lookup::System | Lookup::Temporary => {
                    needs.at_home(FIRST_SHARD)?;
                    continue;
                }
                Lookup::Unknown {
                    configured,
                    wildcard,
                    home,
                } => {
                    if configured || (wildcard && !self.request.temporary_tables) {
                        return Err(refusal::undefined(self.written_name(block, source)));
                    }
                    // A temporary table is where all of them are.
                    let temporary = self.request.temporary_tables;
                    needs.at_home(if temporary { FIRST_SHARD } else { home })?;
                    continue;
                }
            };
            let kind = self.facts.blocks.get(block).map(|block| &block.kind);
            let target = kind.filter(|kind| source == 0 && kind.modifies());
            match &relation.location {
                Location::Unserved(reason) => {
                    return Err(refusal::unserved(&relation.name, reason));
                }
                Location::Home(shard) => {
                    let events = target.map(events_of).unwrap_or_default();
                    check_home(self.request.catalog, relation, events)?;
                    needs.at_home(*shard)?;
                }
                Location::Replicated => {
                    check_secured(relation)?;
                    match kind {
                        Some(BlockKind::Merge(_)) if source == 0 => {
                            return Err(refusal::merge(&relation.name));
                        }
                        _ if target.is_some() => {
                            return Err(refusal::writes_replicated(&relation.name));
                        }
                        _ => needs.replicated = true,
                    }
                }
                Location::Sharded(_) => {
                    needs.sharded = true;
                    check_secured(relation)?;
                    self.sharded(relation, block, source, &prover, &mut needs)?;
                }
            }
        }
        Ok(needs)
    }

    /// One occurrence of a sharded table.
    fn sharded(
        &self,
        relation: &Relation,
        block: usize,
        source: usize,
        prover: &Prover<'_>,
        needs: &mut Needs,
    ) -> Result<()> {
        let kind = self.facts.blocks.get(block).map(|block| &block.kind);
        let target = kind.filter(|kind| source == 0 && kind.modifies());
        let mut verb = None;
        if let Some(kind) = target {
            check_hazards(self.request.catalog, relation, events_of(kind))?;
        }
        match (kind, target) {
            (Some(BlockKind::Merge(_)), _) => return Err(refusal::merge(&relation.name)),
            (_, Some(BlockKind::Insert(insert))) => {
                self.check_defaults(relation, &insert.conflict_assigns, false)?;
                insert::prove(relation, insert, prover, &mut needs.proofs)?;
                return Ok(());
            }
            (_, Some(BlockKind::Update(columns))) => {
                check_assigned(relation, columns)?;
                self.check_defaults(relation, columns, false)?;
                verb = Some("UPDATE");
            }
            (_, Some(_)) => verb = Some("DELETE"),
            _ => {}
        }
        let own = prover.prove(relation, block, source);
        let by_session = || match self.request.by_key {
            true => by_key::proof(relation),
            false => None,
        };
        match own.or_else(by_session) {
            Some(proof) => needs.proofs.push(proof),
            None => {
                let key = key_names(relation);
                let error = match verb {
                    Some(verb) => refusal::write_several(verb, &relation.name, &key),
                    None => refusal::unproven(&relation.name, &key),
                };
                needs.unproven.get_or_insert(error);
            }
        }
        Ok(())
    }

    /// The name of a source as the statement has it.
    pub fn written_name(&self, block: usize, source: usize) -> &str {
        let block = self.facts.blocks.get(block);
        let source = block.and_then(|block| block.sources.get(source));
        match source.map(|source| &source.kind) {
            Some(SourceKind::Relation(name)) => &name.name,
            _ => "",
        }
    }
}

impl Needs {
    /// As they are if rows of replicated tables are locked, which is done on the first shard.
    fn locking_first(mut self) -> Result<Needs> {
        self.at_home(FIRST_SHARD)?;
        Ok(self)
    }

    fn at_home(&mut self, shard: ShardIndex) -> Result<()> {
        if self.home.is_some_and(|home| home != shard) {
            return Err(refusal::several_homes());
        }
        self.home = Some(shard);
        Ok(())
    }
}

pub(super) fn keyed(proofs: Vec<Proof>, home: Option<ShardIndex>, spread: Spread) -> Route {
    Route::Keyed(Box::new(Keyed {
        proofs: proofs.into_boxed_slice(),
        home,
        spread,
    }))
}
