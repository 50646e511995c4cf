//! In which order the parts of a statement may run so that none sees what another has written.

use std::collections::HashSet;

use crate::catalog::Relation;
use crate::catalog::Trigger;

/// What a part reads and writes, as far as the order matters.
#[derive(Debug, Default)]
pub(super) struct Part<'a> {
    /// Tables that it reads, by OID, and the token of each mention.
    pub reads: Vec<(u32, usize)>,
    pub write: Option<Write<'a>>,
    /// The parts whose rows it uses.
    pub uses: Vec<usize>,
}

/// What a part writes.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub table: &'a Relation,
    pub events: u16,
    /// It has ON CONFLICT.
    pub avoids: bool,
    /// The columns that it assigns.
    pub assigned: Vec<String>,
}

impl Write<'_> {
    fn has(&self, event: u16) -> bool {
        self.events & event != 0
    }

    fn assigns(&self, columns: &[String]) -> bool {
        self.has(Trigger::UPDATE) && self.assigned.iter().any(|name| columns.contains(name))
    }

    /// Whether rows that refer to its own may have to follow.
    fn unsettles(&self) -> bool {
        self.has(Trigger::DELETE) || self.assigns(&self.table.ties.referenced)
    }

    /// The tables whose rows may change.
    pub fn touched(&self) -> HashSet<u32> {
        let ties = &self.table.ties;
        let mut all: HashSet<u32> = ties.kin.iter().copied().collect();
        all.insert(self.table.oid);
        if self.unsettles() {
            all.extend(ties.followers.iter().copied());
        }
        all
    }

    fn refers_to(&self, other: &Write<'_>) -> bool {
        self.table.ties.refers_to.contains(&other.table.oid)
    }
}

/// Whether a part needs the rows of another, or of one that does.
pub(super) fn depends(parts: &[Part<'_>], part: usize, on: usize) -> bool {
    let mut next = vec![part];
    let mut seen = HashSet::new();
    while let Some(at) = next.pop() {
        for used in parts.get(at).map_or(&[][..], |part| &part.uses) {
            if *used == on {
                return true;
            }
            if seen.insert(*used) {
                next.push(*used);
            }
        }
    }
    false
}

/// The order: indexes of the parts. None if there is none that is right for certain.
pub(super) fn order(parts: &[Part<'_>]) -> Option<Vec<usize>> {
    let mut before: Vec<HashSet<usize>> = parts
        .iter()
        .map(|part| part.uses.iter().copied().collect())
        .collect();
    for (at, part) in parts.iter().enumerate() {
        let Some(write) = &part.write else {
            continue;
        };
        let touched = write.touched();
        for (other, reader) in parts.iter().enumerate().filter(|(other, _)| *other != at) {
            // What reads what is written here goes first.
            if reader
                .reads
                .iter()
                .any(|(table, _)| touched.contains(table))
            {
                before.get_mut(at)?.insert(other);
            }
            let Some(second) = &reader.write else {
                continue;
            };
            if !touched.is_disjoint(&second.touched()) && !may_follow(parts, at, other) {
                return None;
            }
            if second.refers_to(write) {
                second_refers(&mut before, (at, write), (other, second))?;
            }
        }
    }
    sorted(&before)
}

/// Whether of two parts that write the same table one may follow the other: one only adds rows, and does so
/// because of what the other returns.
fn may_follow(parts: &[Part<'_>], one: usize, other: usize) -> bool {
    let (first, second) = match (depends(parts, one, other), depends(parts, other, one)) {
        (false, true) => (one, other),
        (true, false) => (other, one),
        _ => return false,
    };
    let write = |at: usize| parts.get(at).and_then(|part| part.write.as_ref());
    let (Some(first), Some(second)) = (write(first), write(second)) else {
        return false;
    };
    let adds = second.events == Trigger::INSERT && second.table.oid == first.table.oid;
    // Rows that are added may avoid those that were, in an order that nobody knows; and foreign keys look at what
    // has gone and come again only at the end.
    let is_unclear =
        second.avoids || (first.unsettles() && !first.table.ties.referenced.is_empty());
    adds && !is_unclear
}

/// Foreign keys are checked when the whole statement has run: what the second refers to must be there before,
/// and what no longer refers to it must have gone.
fn second_refers(
    before: &mut [HashSet<usize>],
    (at, referred): (usize, &Write<'_>),
    (other, referring): (usize, &Write<'_>),
) -> Option<()> {
    let comes =
        referring.has(Trigger::INSERT) || referring.assigns(&referring.table.ties.referring);
    let goes = referring.has(Trigger::DELETE) || referring.assigns(&referring.table.ties.referring);
    let is_added =
        referred.has(Trigger::INSERT) || referred.assigns(&referred.table.ties.referenced);
    if comes && is_added {
        before.get_mut(other)?.insert(at);
    }
    if goes && referred.unsettles() {
        before.get_mut(at)?.insert(other);
    }
    Some(())
}

/// The parts so that each comes behind those before it; otherwise as they are written.
fn sorted(before: &[HashSet<usize>]) -> Option<Vec<usize>> {
    let mut order = Vec::with_capacity(before.len());
    while order.len() < before.len() {
        let mut all = before.iter().enumerate();
        let next = all.find(|(at, needed)| {
            !order.contains(at) && needed.iter().all(|one| order.contains(one))
        });
        order.push(next?.0);
    }
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Hazards;
    use crate::catalog::Location;
    use crate::catalog::Ties;
    use crate::catalog::Written;

    fn table(oid: u32, refers_to: &[u32], is_referenced: bool) -> Relation {
        let referenced = if is_referenced {
            vec!["id".to_owned()]
        } else {
            Vec::new()
        };
        Relation {
            written: Written::Here,
            oid,
            schema: "public".to_owned(),
            name: format!("t{oid}"),
            kind: 'r',
            columns: Vec::new(),
            location: Location::Replicated,
            hazards: Hazards::default(),
            primary_key: Vec::new(),
            definition: None,
            rows_table: None,
            ties: Ties {
                kin: [oid].into(),
                refers_to: refers_to.into(),
                referring: ["parent".to_owned()].into(),
                referenced: referenced.into(),
                ..Ties::default()
            },
        }
    }

    fn write(table: &Relation, events: u16) -> Option<Write<'_>> {
        let assigned = vec!["other".to_owned()];
        Some(Write {
            table,
            events,
            avoids: false,
            assigned,
        })
    }

    fn part<'a>(reads: &[u32], write: Option<Write<'a>>, uses: &[usize]) -> Part<'a> {
        Part {
            reads: reads.iter().map(|oid| (*oid, 0)).collect(),
            write,
            uses: uses.to_vec(),
        }
    }

    #[test]
    fn what_reads_a_table_runs_before_what_writes_it() {
        let (a, b) = (table(1, &[], false), table(2, &[], false));
        let insert = |table| write(table, Trigger::INSERT);
        let parts = [part(&[], insert(&a), &[]), part(&[1], None, &[])];
        assert_eq!(order(&parts), Some(vec![1, 0]));
        let parts = [part(&[], insert(&a), &[]), part(&[2], insert(&b), &[0])];
        assert_eq!(order(&parts), Some(vec![0, 1]));
        // It needs the rows that are returned and those that were.
        let parts = [part(&[], insert(&a), &[]), part(&[1], None, &[0])];
        assert_eq!(order(&parts), None);
    }

    #[test]
    fn a_table_is_written_twice_only_to_add_what_the_first_lacks() {
        let a = table(1, &[], false);
        let update = || part(&[1], write(&a, Trigger::UPDATE), &[]);
        let parts = [update(), part(&[], write(&a, Trigger::INSERT), &[0])];
        assert_eq!(order(&parts), Some(vec![0, 1]));
        let parts = [update(), part(&[], write(&a, Trigger::INSERT), &[])];
        assert_eq!(order(&parts), None);
        let parts = [update(), part(&[1], write(&a, Trigger::DELETE), &[0])];
        assert_eq!(order(&parts), None);
        let referenced = table(1, &[], true);
        let delete = part(&[1], write(&referenced, Trigger::DELETE), &[]);
        let parts = [delete, part(&[], write(&referenced, Trigger::INSERT), &[0])];
        assert_eq!(order(&parts), None);
    }

    #[test]
    fn foreign_keys_hold_at_every_step() {
        let (parent, child) = (table(1, &[], true), table(2, &[1], false));
        let both = |events| {
            [
                part(&[], write(&child, events), &[]),
                part(&[], write(&parent, events), &[]),
            ]
        };
        assert_eq!(order(&both(Trigger::INSERT)), Some(vec![1, 0]));
        assert_eq!(order(&both(Trigger::DELETE)), Some(vec![0, 1]));
        // Of no column that counts.
        assert_eq!(order(&both(Trigger::UPDATE)), Some(vec![0, 1]));
        // The child needs what the parent returns, which may go only behind it.
        let parts = [
            part(&[1], write(&parent, Trigger::DELETE), &[]),
            part(&[2], write(&child, Trigger::DELETE), &[0]),
        ];
        assert_eq!(order(&parts), None);
    }
}
