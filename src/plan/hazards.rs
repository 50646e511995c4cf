//! What happens behind a statement's back where it writes: rules, triggers and policies, and when that is right.
//!
//! What holds:
//! - At home a trigger may do whatever stays at home.
//! - On a sharded table a trigger may look at its row and change it, but for the shard key, since the row's shard
//!   has been found. What it reads of the clock or the server must not differ from shard to shard, so that such
//!   rows may only be changed on one shard at a time. It may read and change other sharded tables by the shard key of
//!   its row ([`routine`]).
//! - On a replicated table a trigger must do the same on every shard.
//! - What constraints, generated columns and indexes call runs where the row is, and may read nothing but replicated
//!   tables there; at home, what is at home. What defaults of users call runs on the first shard.

use crate::catalog::Catalog;
use crate::catalog::Code;
use crate::catalog::Location;
use crate::catalog::Relation;
use crate::catalog::TableColumn;
use crate::catalog::Trigger;
use crate::error::Result;
use crate::plan::bind::BoundSource;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::plan::routine;
use crate::sql::analysis::BlockKind;
use crate::sql::analysis::Insert;
use crate::sql::analysis::Rows;

/// The events that a block of a statement brings about on its target.
pub(super) fn events_of(kind: &BlockKind) -> u16 {
    match kind {
        BlockKind::Insert(insert) if insert.conflict_assigns.is_empty() => Trigger::INSERT,
        BlockKind::Insert(_) => Trigger::INSERT | Trigger::UPDATE,
        BlockKind::Update(_) => Trigger::UPDATE,
        BlockKind::Delete => Trigger::DELETE,
        _ => Trigger::INSERT | Trigger::UPDATE | Trigger::DELETE,
    }
}

impl Query<'_> {
    /// All events that the statement brings about.
    pub(super) fn events(&self) -> u16 {
        let blocks = self.facts.blocks.iter();
        let changes = blocks.filter(|block| block.kind.modifies());
        changes.fold(0, |all, block| all | events_of(&block.kind))
    }

    /// Whether a server that runs the statement may draw from a sequence for it. What is inserted into sharded
    /// tables has its numbers already.
    pub(super) fn may_draw(&self) -> bool {
        let drawing = Effects::WRITES | Effects::UNKNOWN | Effects::USER_CODE;
        let says_default = || {
            let text = self.request.text;
            let mut words = self.body.iter();
            words.any(|token| token.is_word(text, "default"))
        };
        let conduct = Conduct::new(self.request.catalog);
        let draws = |relation: &Relation, code: &Code| {
            let column = code.column.as_ref();
            let column = column.and_then(|name| relation.column(name));
            let is_sharded = matches!(relation.location, Location::Sharded(_));
            let is_drawn = |(_, column): (usize, &TableColumn)| column.default.sequence.is_some();
            let is_given = is_sharded && column.is_some_and(is_drawn);
            !is_given && conduct.made(&code.call).any(drawing)
        };
        let adds_only = self.events() == Trigger::INSERT;
        let may_draw = |(block, source, bound): (usize, usize, BoundSource<'_>)| {
            let kind = self.facts.blocks.get(block).map(|block| &block.kind);
            let is_target = source == 0 && kind.is_some_and(BlockKind::modifies);
            is_target
                && bound.relation().is_none_or(|relation| {
                    let hazards = &relation.hazards;
                    let is_sharded = matches!(relation.location, Location::Sharded(_));
                    let adds = !matches!(kind, Some(BlockKind::Update(_) | BlockKind::Delete));
                    let numbers = |column: &TableColumn| column.sequence_default;
                    (!is_sharded && adds && relation.columns.iter().any(numbers))
                        || relation.is_view()
                        || hazards.rules
                        || !hazards.triggers.is_empty()
                        || hazards.code.iter().any(|code| draws(relation, code))
                        || !adds_only && !relation.ties.followers.is_empty()
                })
        };
        self.effects.any(drawing)
            || !self.facts.created.is_empty()
            || self.facts.modifies()
                && (!adds_only && says_default() || self.bound.occurrences().any(may_draw))
    }

    /// As [`check_hazards`], for what the statement does.
    pub(super) fn check_events(&self, relation: &Relation) -> Result<()> {
        check_hazards(self.request.catalog, relation, self.events())?;
        self.check_called_defaults(relation)
    }

    /// As [`Query::check_called_defaults`], for all that the statement changes.
    pub(super) fn check_targets(&self) -> Result<()> {
        for (block, source, bound) in self.bound.occurrences() {
            let kind = self.facts.blocks.get(block).map(|block| &block.kind);
            let is_target = source == 0 && kind.is_some_and(BlockKind::modifies);
            if let Some(relation) = bound.relation().filter(|_| is_target) {
                self.check_called_defaults(relation)?;
            }
        }
        Ok(())
    }

    /// Refuses defaults that may read what is not where they are evaluated, if the statement leaves columns to them.
    pub(super) fn check_called_defaults(&self, relation: &Relation) -> Result<()> {
        if relation.hazards.code.is_empty() {
            return Ok(());
        }
        let text = self.request.text;
        let mut words = self.body.iter();
        let says_default = words.any(|token| token.is_word(text, "default"));
        let blocks = self.facts.blocks.iter();
        let is_left = |column: &str| {
            says_default
                || blocks.clone().any(|block| match &block.kind {
                    BlockKind::Insert(insert) => !is_given(relation, insert, column),
                    BlockKind::Merge(_) => true,
                    _ => false,
                })
        };
        check_called_defaults(self.request.catalog, relation, self.events(), is_left)
    }
}

/// Whether an INSERT brings a value for a column.
fn is_given(relation: &Relation, insert: &Insert, column: &str) -> bool {
    match (&insert.columns, &insert.rows) {
        (Some(listed), _) => listed.iter().any(|name| name == column),
        (None, Rows::Values(rows)) => {
            let width = rows.first().map_or(0, Vec::len);
            let position = relation.column(column).map(|(position, _)| position);
            position.is_some_and(|position| position < width)
        }
        (None, _) => false,
    }
}

/// What may not be called when rows are stored: it reads what is not there, or belongs to one shard.
const NOT_THERE: Effects = Effects::USER_CODE
    .with(Effects::READS_TABLES)
    .with(Effects::UNKNOWN);

/// Refuses defaults that may read what is not where they are evaluated, of the columns that `is_left` says.
pub(super) fn check_called_defaults(
    catalog: &Catalog,
    relation: &Relation,
    events: u16,
    is_left: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut code = relation.hazards.code.iter();
    let is_wrong = |code: &Code| {
        let Some(column) = code.column.as_deref() else {
            return false;
        };
        code.events & events != 0
            && is_left(column)
            && default_leaves(catalog, relation, column, code)
    };
    match code.any(is_wrong) {
        true => Err(refusal::hazard(&relation.name, "defaults")),
        false => Ok(()),
    }
}

/// Whether a default calls what is not where it is evaluated: the first shard, if that is known to be needed.
fn default_leaves(catalog: &Catalog, relation: &Relation, column: &str, code: &Code) -> bool {
    let column = relation.column(column).map(|(_, column)| column);
    let conduct = match relation.location {
        Location::Home(home) => Conduct { catalog, home },
        _ if column.is_some_and(|column| column.default.of_users || column.sequence_default) => {
            Conduct::new(catalog)
        }
        _ => Conduct::away(catalog),
    };
    let effects = conduct.made(&code.call);
    effects.any(NOT_THERE) || (conduct.is_away() && effects.any(Effects::HOME))
}

/// Refuses constraints, generated columns and indexes that call what may read what is not where the row is.
fn check_code(catalog: &Catalog, relation: &Relation, events: u16) -> Result<()> {
    let conduct = match relation.location {
        Location::Home(home) => Conduct { catalog, home },
        _ => Conduct::away(catalog),
    };
    let called = relation.hazards.code.iter();
    let mut called = called.filter(|code| code.column.is_none() && code.events & events != 0);
    let is_wrong = |code: &Code| {
        let effects = conduct.made(&code.call);
        effects.any(NOT_THERE) || (conduct.is_away() && effects.any(Effects::HOME))
    };
    match called.any(is_wrong) {
        true => Err(refusal::hazard(
            &relation.name,
            "constraints, generated columns or indexes",
        )),
        false => Ok(()),
    }
}

/// Whether what a table's definition calls for the rows that are there reads what is not where they are.
pub(super) fn is_code_away(catalog: &Catalog, relation: &Relation) -> bool {
    let events = Trigger::INSERT | Trigger::UPDATE;
    check_code(catalog, relation, events).is_err()
        || check_called_defaults(catalog, relation, events, |_| true).is_err()
}

/// Refuses policies that read what is not on the shard of their row. Others hold for each row where it is, as
/// long as it stays there.
pub(super) fn check_secured(relation: &Relation) -> Result<()> {
    match relation.hazards.policies_read {
        true => Err(refusal::hazard(&relation.name, "row security policies")),
        false => Ok(()),
    }
}

/// Refuses all policies: what is done would be another command's than the one that they are for.
pub(super) fn check_policies(relation: &Relation) -> Result<()> {
    if relation.hazards.row_security {
        return Err(refusal::hazard(&relation.name, "row security policies"));
    }
    Ok(())
}

/// Refuses rules and policies that leave the shard of a relation at home, and triggers of these events.
pub(super) fn check_home(catalog: &Catalog, relation: &Relation, events: u16) -> Result<()> {
    let Location::Home(home) = relation.location else {
        return Ok(());
    };
    if relation.hazards.leaves_home {
        return Err(refusal::hazard(&relation.name, "rules or policies"));
    }
    check_code(catalog, relation, events)?;
    let conduct = Conduct { catalog, home };
    let fired: Vec<Trigger> = fired(relation, events).cloned().collect();
    match conduct.leaves_home(&fired, 0) {
        Some(_) => Err(refusal::hazard(&relation.name, "triggers")),
        None => Ok(()),
    }
}

/// What the triggers of these events do on the shard of their row; none if that is not allowed. Those whose queries
/// fire triggers are followed so deep.
pub(super) fn effects_behind(
    catalog: &Catalog,
    relation: &Relation,
    events: u16,
    depth: usize,
) -> Option<Effects> {
    check_each(catalog, relation, events, depth).ok()?;
    let effects = fired(relation, events).map(|one| trigger_effects(catalog, relation, one, depth));
    Some(effects.fold(Effects::NONE, |all, one| all | one))
}

/// The effects of a trigger, whose queries may be of the shard of its row.
fn trigger_effects(
    catalog: &Catalog,
    relation: &Relation,
    trigger: &Trigger,
    depth: usize,
) -> Effects {
    let alone = Conduct::new(catalog).trigger(trigger, 0);
    match alone.any(Effects::USER_CODE) && depth > 0 {
        true => routine::trigger(catalog, relation, trigger, depth - 1).unwrap_or(alone),
        false => alone,
    }
}

/// How deep triggers are followed whose queries fire others.
const DEPTH: usize = 3;

/// Refuses rules, and triggers of these events that may do what one shard can't.
pub(super) fn check_hazards(catalog: &Catalog, relation: &Relation, events: u16) -> Result<()> {
    check_each(catalog, relation, events, DEPTH)
}

fn check_each(catalog: &Catalog, relation: &Relation, events: u16, depth: usize) -> Result<()> {
    let refuse = |what| Err(refusal::hazard(&relation.name, what));
    if let Location::Home(_) = relation.location {
        return check_home(catalog, relation, events);
    }
    if relation.hazards.rules {
        return refuse("rules");
    }
    check_code(catalog, relation, events)?;
    let conduct = Conduct::new(catalog);
    let allowed = match relation.location {
        Location::Sharded(_) => Effects::RANDOM | Effects::CLOCK | Effects::SERVER,
        _ => Effects::NONE,
    };
    for trigger in fired(relation, events) {
        if trigger_effects(catalog, relation, trigger, depth).without(allowed) != Effects::NONE {
            return refuse("triggers");
        }
        let Some(placement) = relation.placement() else {
            continue;
        };
        let is_key = |name: &String| placement.columns().iter().any(|key| key.name == *name);
        match conduct.assigned(trigger) {
            Some(assigned) if assigned.iter().any(is_key) => {
                return Err(refusal::trigger_moves(&relation.name));
            }
            // Which columns of another table are its key is not asked.
            Some(assigned) if trigger.follows && !assigned.is_empty() => return refuse("triggers"),
            Some(_) => {}
            None => return refuse("triggers"),
        }
    }
    Ok(())
}

/// Refuses triggers of a sharded table that would have another value on each shard.
pub(super) fn check_spread(catalog: &Catalog, relation: &Relation, events: u16) -> Result<()> {
    if !matches!(relation.location, Location::Sharded(_)) {
        return Ok(());
    }
    let varies = Effects::CLOCK | Effects::SERVER;
    let mut fired = fired(relation, events);
    match fired.any(|trigger| trigger_effects(catalog, relation, trigger, DEPTH).any(varies)) {
        true => Err(refusal::trigger_varies(&relation.name)),
        false => Ok(()),
    }
}

/// Refuses whatever triggers fire.
pub(super) fn check_quiet(relation: &Relation, events: u16) -> Result<()> {
    match fired(relation, events).next() {
        Some(_) => Err(refusal::hazard(&relation.name, "triggers")),
        None => Ok(()),
    }
}

/// The triggers that fire.
pub(super) fn fired(relation: &Relation, events: u16) -> impl Iterator<Item = &Trigger> {
    let triggers = relation.hazards.triggers.iter();
    triggers.filter(move |trigger| trigger.events & events != 0)
}
