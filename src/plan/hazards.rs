//! What happens behind a statement's back where it writes: rules, triggers and policies, and when that is right.
//!
//! What holds:
//! - At home a trigger may do whatever stays at home.
//! - On a sharded table a trigger may look at its row and change it, but for the shard key, since the row's shard
//!   has been found. What it reads of the clock or the server must not differ from shard to shard, so that such
//!   rows may only be changed on one shard at a time. It may read and change other sharded tables by the shard key of
//!   its row ([`routine`]).
//! - On a replicated table a trigger must do the same on every shard.

use crate::catalog::Catalog;
use crate::catalog::Location;
use crate::catalog::Relation;
use crate::catalog::Trigger;
use crate::error::Result;
use crate::plan::conduct::Conduct;
use crate::plan::effects::Effects;
use crate::plan::query::Query;
use crate::plan::refusal;
use crate::plan::routine;
use crate::sql::analysis::BlockKind;

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

    /// As [`check_hazards`], for what the statement does.
    pub(super) fn check_events(&self, relation: &Relation) -> Result<()> {
        check_hazards(self.request.catalog, relation, self.events())
    }
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
