//! What PostgreSQL does behind a statement's back: triggers, over all that a statement touches, rules, policies.
//!
//! A statement on a relation fires the triggers of the relation, of its partitions and of what inherits from it,
//! of the tables below a view, and of the rows that foreign keys have follow.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::catalog::Code;
use crate::catalog::Location;
use crate::catalog::RawCatalog;
use crate::catalog::RawForeignKey;
use crate::catalog::RawRelation;
use crate::catalog::Ties;
use crate::catalog::Trigger;
use crate::sql::body::BodyCall;

/// `tgtype`: for each row.
const ROW: u16 = 1;
/// `tgtype`: before.
const BEFORE: u16 = 2;

/// Who follows whom.
pub(super) struct Behind<'a> {
    by_oid: HashMap<u32, &'a RawRelation>,
    children: HashMap<u32, Vec<u32>>,
    referring: HashMap<u32, Vec<&'a RawForeignKey>>,
    /// There are triggers at all, or calls where rows are stored.
    has_any: bool,
}

/// What one event of a statement brings about.
struct Fired {
    /// The event of the statement.
    event: u16,
    /// Relations and their events that have been seen to.
    seen: HashSet<(u32, u16)>,
    triggers: Vec<Trigger>,
    code: Vec<Code>,
}

impl<'a> Behind<'a> {
    pub fn new(raw: &'a RawCatalog) -> Behind<'a> {
        let relations = &raw.relations;
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for relation in relations {
            for &parent in relation.parent.iter().chain(&relation.more_parents) {
                children.entry(parent).or_default().push(relation.oid);
            }
        }
        let mut referring: HashMap<u32, Vec<&RawForeignKey>> = HashMap::new();
        for key in &raw.foreign_keys {
            referring.entry(key.referenced).or_default().push(key);
        }
        Behind {
            by_oid: relations
                .iter()
                .map(|relation| (relation.oid, relation))
                .collect(),
            children,
            referring,
            has_any: relations.iter().any(|relation| {
                !relation.hazards.triggers.is_empty() || !relation.hazards.code.is_empty()
            }),
        }
    }

    /// The triggers that statements on a relation may fire.
    pub fn triggers(&self, relation: &RawRelation) -> Box<[Trigger]> {
        let mut all: Vec<Trigger> = Vec::new();
        for fired in self.fired(relation) {
            for trigger in fired.triggers {
                let is_same = |known: &&mut Trigger| {
                    Trigger {
                        events: trigger.events,
                        ..(**known).clone()
                    } == trigger
                };
                match all.iter_mut().find(is_same) {
                    Some(known) => known.events |= trigger.events,
                    None => all.push(trigger),
                }
            }
        }
        all.into()
    }

    /// What is called where rows are stored that statements on a relation change.
    pub fn code(&self, relation: &RawRelation) -> Box<[Code]> {
        let mut all: Vec<Code> = Vec::new();
        for code in self.fired(relation).into_iter().flat_map(|one| one.code) {
            let is_same =
                |known: &&mut Code| known.column == code.column && known.call == code.call;
            match all.iter_mut().find(is_same) {
                Some(known) => known.events |= code.events,
                None => all.push(code),
            }
        }
        all.into()
    }

    /// What a view calls, with the views that it reads.
    pub fn calls(&self, relation: &RawRelation) -> Box<[BodyCall]> {
        let mut calls = Vec::new();
        let mut views = vec![relation.oid];
        let mut at = 0;
        while let Some(oid) = views.get(at).copied() {
            at += 1;
            let Some(view) = self.by_oid.get(&oid).filter(|one| one.kind == 'v') else {
                continue;
            };
            calls.extend(view.hazards.calls.iter().cloned());
            let new = view.depends_on.iter().filter(|oid| !views.contains(oid));
            let new: Vec<u32> = new.copied().collect();
            views.extend(new);
        }
        calls.into()
    }

    /// What each event of a statement on a relation brings about.
    fn fired(&self, relation: &RawRelation) -> Vec<Fired> {
        let events = [
            Trigger::INSERT,
            Trigger::DELETE,
            Trigger::UPDATE,
            Trigger::TRUNCATE,
        ];
        let events = events.into_iter().filter(|_| self.has_any);
        let fired = events.map(|event| {
            let mut fired = Fired {
                event,
                seen: HashSet::new(),
                triggers: Vec::new(),
                code: Vec::new(),
            };
            self.fire(relation.oid, event, false, &mut fired);
            fired
        });
        fired.collect()
    }

    /// How a relation is tied to others.
    pub fn ties(&self, relation: &RawRelation) -> Ties {
        let mut kin = HashSet::new();
        self.kin(relation.oid, &mut kin);
        let mut followers = HashSet::new();
        self.follow(&kin, &mut followers);
        let own = self.referring.values().flatten();
        let own = own.filter(|key| kin.contains(&key.table));
        let (mut refers_to, mut referring) = (HashSet::new(), HashSet::new());
        for key in own {
            self.kin(key.referenced, &mut refers_to);
            referring.extend(key.columns.iter().cloned());
        }
        let to_it = kin.iter().filter_map(|oid| self.referring.get(oid));
        let columns = to_it.flatten().flat_map(|key| &key.referenced_columns);
        let referenced: HashSet<String> = columns.cloned().collect();
        Ties {
            kin: sorted(kin),
            followers: sorted(followers),
            refers_to: sorted(refers_to),
            referring: sorted(referring),
            referenced: sorted(referenced),
        }
    }

    /// Adds a table and all that share rows with it.
    fn kin(&self, oid: u32, found: &mut HashSet<u32>) {
        let mut next = vec![oid];
        while let Some(oid) = next.pop() {
            if found.insert(oid) {
                let parents = self.by_oid.get(&oid).into_iter();
                next.extend(parents.flat_map(|one| one.parent.iter().chain(&one.more_parents)));
                next.extend(self.children.get(&oid).into_iter().flatten());
            }
        }
    }

    /// Adds the tables whose rows follow those of others, and those that follow these.
    fn follow(&self, tables: &HashSet<u32>, found: &mut HashSet<u32>) {
        let mut next: Vec<u32> = tables.iter().copied().collect();
        while let Some(oid) = next.pop() {
            for key in self.referring.get(&oid).into_iter().flatten() {
                let follows = |action| matches!(action, 'c' | 'n' | 'd');
                if !follows(key.actions.0) && !follows(key.actions.1) {
                    continue;
                }
                let mut kin = HashSet::new();
                self.kin(key.table, &mut kin);
                next.extend(kin.into_iter().filter(|one| found.insert(*one)));
            }
        }
    }

    fn fire(&self, oid: u32, event: u16, follows: bool, fired: &mut Fired) {
        let Some(relation) = self.by_oid.get(&oid) else {
            return;
        };
        if !fired.seen.insert((oid, event)) {
            return;
        }
        let own = relation.hazards.triggers.iter();
        for trigger in own.filter(|trigger| trigger.kind & event != 0) {
            fired.triggers.push(Trigger {
                events: fired.event,
                own_events: trigger.kind & !(ROW | BEFORE),
                is_row: trigger.kind & ROW != 0,
                is_before_row: trigger.kind & (ROW | BEFORE) == ROW | BEFORE,
                follows,
                schema: trigger.schema.clone(),
                function: trigger.function.clone(),
                is_guarded: trigger.is_guarded,
                has_transitions: trigger.has_transitions,
            });
        }
        let stores = matches!(event, Trigger::INSERT | Trigger::UPDATE);
        for code in relation.hazards.code.iter().filter(|_| stores) {
            fired.code.push(Code {
                events: fired.event,
                // SET DEFAULT of a foreign key names no column.
                column: code.column.clone().filter(|_| !follows),
                call: code.call.clone(),
            });
        }
        if relation.kind == 'v' {
            for table in &relation.depends_on {
                self.fire(*table, event, follows, fired);
            }
        }
        for child in self.children.get(&oid).into_iter().flatten() {
            self.fire(*child, event, follows, fired);
            // A row that changes its partition is deleted from the one and inserted into the other.
            if event == Trigger::UPDATE {
                self.fire(*child, Trigger::DELETE, follows, fired);
                self.fire(*child, Trigger::INSERT, follows, fired);
            }
        }
        for key in self.referring.get(&oid).into_iter().flatten() {
            let action = match event {
                Trigger::DELETE => key.actions.0,
                Trigger::UPDATE => key.actions.1,
                Trigger::TRUNCATE => 'c',
                _ => continue,
            };
            match action {
                'c' => self.fire(key.table, event, true, fired),
                'n' | 'd' => self.fire(key.table, Trigger::UPDATE, true, fired),
                _ => {}
            }
        }
    }
}

fn sorted<T: Ord>(all: HashSet<T>) -> Box<[T]> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort();
    all.into()
}

/// Whether a policy of a relation may read what is not on every shard, or what has policies itself.
pub(super) fn policies_read(
    relation: &RawRelation,
    secured: &HashSet<u32>,
    location_of: impl Fn(u32) -> Option<Location>,
) -> bool {
    let is_everywhere = |oid: &u32| {
        !secured.contains(oid) && matches!(location_of(*oid), Some(Location::Replicated))
    };
    let policies = &relation.hazards.policies_read;
    relation.hazards.row_security && !policies.iter().all(is_everywhere)
}

/// Whether rules and policies of a relation at home may read or change what is not at home there.
pub(super) fn leaves_home(
    relation: &RawRelation,
    location: Option<&Location>,
    location_of: impl Fn(u32) -> Option<Location>,
) -> bool {
    let Some(Location::Home(home)) = location else {
        return false;
    };
    let mut read = relation
        .hazards
        .rules_read
        .iter()
        .chain(&relation.hazards.policies_read);
    read.any(|oid| !matches!(location_of(*oid), Some(Location::Home(shard)) if shard == *home))
}
