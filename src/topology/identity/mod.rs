//! Whether a server is the shard that the configuration says it is.
//!
//! Each shard holds a row that names its cluster, itself, the number of shards and its slots. A proxy
//! that meets a cluster for the first time writes the rows, the first shard's first; every probe compares
//! them with the configuration. So a swapped address, another slot map or a server of another cluster is
//! an error and never a row in the wrong place.

pub(super) mod store;

use parking_lot::Mutex;

use crate::config::Database;

use super::members::Verdict;

/// The row of `shardwire.shard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Names the cluster: all shards of one database.
    pub cluster: String,
    /// The shard's name.
    pub shard: String,
    /// How many shards there are.
    pub shard_count: usize,
    /// The shard's slots, as [`slots_text`] writes them.
    pub slots: String,
    /// Version of the slot map.
    pub epoch: i64,
    /// Every shard has had its row: a server without one is a stranger.
    pub complete: bool,
    /// The primary's timeline when last seen; reaches a secondary only by replaying that timeline.
    pub timeline: u32,
}

/// What the configuration says a shard is.
#[derive(Clone, Debug)]
struct Expected {
    shard: String,
    slots: String,
}

/// What is known of one shard's row.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Its primary has not been asked yet.
    Unknown,
    /// Its primary holds no row.
    Empty,
    /// Its primary can't hold one; with the reason.
    Without(String),
    /// Its row.
    Recorded(Record),
}

/// What to do with a primary that has no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FirstContact {
    /// Other shards have to be heard first.
    Wait(String),
    /// Write the row, with the cluster's name if it has one already.
    Record {
        /// The cluster of the other shards.
        cluster: Option<String>,
    },
    /// It must not be taken in.
    Refuse(String),
}

/// The rows of all shards of a database, as far as this proxy has seen them.
#[derive(Debug)]
pub struct Book {
    expected: Vec<Expected>,
    entries: Mutex<Vec<Entry>>,
}

impl Book {
    /// Nothing seen yet.
    pub fn new(database: &Database) -> Book {
        let expected = database.shards.iter().map(|shard| Expected {
            shard: shard.name.clone(),
            slots: slots_text(&shard.slots),
        });
        Book {
            expected: expected.collect(),
            entries: Mutex::new(vec![Entry::Unknown; database.shards.len()]),
        }
    }

    /// The row to write for a shard.
    pub(super) fn record_for(&self, shard: usize, cluster: String) -> Option<Record> {
        let expected = self.expected.get(shard)?;
        Some(Record {
            cluster,
            shard: expected.shard.clone(),
            shard_count: self.expected.len(),
            slots: expected.slots.clone(),
            epoch: 1,
            complete: false,
            timeline: 0,
        })
    }

    /// A shard's primary showed its row.
    pub(super) fn recorded(&self, shard: usize, record: &Record) {
        self.set(shard, Entry::Recorded(record.clone()));
    }

    /// A secondary showed its row: believed until the primary is heard.
    pub(super) fn replicated(&self, shard: usize, record: &Record) {
        if let Some(entry) = self.entries.lock().get_mut(shard)
            && *entry == Entry::Unknown
        {
            *entry = Entry::Recorded(record.clone());
        }
    }

    /// A shard's primary can't hold a row.
    pub(super) fn without(&self, shard: usize, reason: &str) {
        self.set(shard, Entry::Without(reason.to_owned()));
    }

    fn set(&self, shard: usize, new: Entry) {
        if let Some(entry) = self.entries.lock().get_mut(shard) {
            *entry = new;
        }
    }

    /// A shard's primary has no row: what to do.
    pub(super) fn first_contact(&self, shard: usize) -> FirstContact {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(shard)
            && !matches!(entry, Entry::Empty | Entry::Without(_))
        {
            *entry = Entry::Empty;
        }
        first_contact(&entries, &self.expected, shard)
    }

    /// Whether a row fits the configuration and the other shards' rows.
    pub(super) fn judge(&self, shard: usize, record: &Record) -> Verdict {
        let entries = self.entries.lock();
        match judge(&entries, &self.expected, shard, record) {
            Ok(()) => Verdict::Identified(record.cluster.as_str().into()),
            Err(why) => Verdict::Misplaced(why),
        }
    }

    /// Of a secondary without a row.
    pub(super) fn judge_unrecorded(&self, shard: usize) -> Verdict {
        match self.entries.lock().get(shard) {
            Some(Entry::Without(reason)) => Verdict::Unidentified(reason.clone()),
            Some(Entry::Recorded(_)) => Verdict::Pending(
                "it has not replicated its shard's identity (schema \"shardwire\") yet".to_owned(),
            ),
            _ => Verdict::Pending(
                "it holds no identity (schema \"shardwire\") and its shard's primary has not been heard yet"
                    .to_owned(),
            ),
        }
    }

    /// Whether this shard's row is the one to be marked complete now.
    pub(super) fn completes(&self, shard: usize) -> bool {
        let entries = self.entries.lock();
        let record = |entry: &Entry| match entry {
            Entry::Recorded(record) => Some((record.cluster.clone(), record.complete)),
            _ => None,
        };
        let first = entries.first().and_then(record);
        shard == 0
            && first.as_ref().is_some_and(|(_, complete)| !complete)
            && entries.iter().all(|entry| {
                record(entry).map(|(cluster, _)| cluster) == first.as_ref().map(|(c, _)| c.clone())
            })
    }
}

/// Slots as they are recorded: `0-8191`, or `0-99,200-299`.
pub fn slots_text(slots: &[std::ops::RangeInclusive<u16>]) -> String {
    let ranges = slots
        .iter()
        .map(|range| format!("{}-{}", range.start(), range.end()));
    ranges.collect::<Vec<_>>().join(",")
}

/// The row that the others are held against: the first shard's that has one.
fn reference(entries: &[Entry]) -> Option<(usize, &Record)> {
    let mut entries = entries.iter().enumerate();
    entries.find_map(|(index, entry)| match entry {
        Entry::Recorded(record) => Some((index, record)),
        _ => None,
    })
}

fn first_contact(entries: &[Entry], expected: &[Expected], shard: usize) -> FirstContact {
    let name = |index: usize| expected.get(index).map_or("", |e| e.shard.as_str());
    if let Some((of, record)) = reference(entries) {
        if record.shard_count != expected.len() {
            return FirstContact::Refuse(format!(
                "it is empty, and cluster {} was set up with {} shards while the configuration has {}; a shard joins by moving rows to it, not by naming it in the file: restore the list of shards",
                record.cluster,
                record.shard_count,
                expected.len(),
            ));
        }
        if record.complete {
            return FirstContact::Refuse(format!(
                "it holds no identity although all shards of cluster {} have had one, so it seems to have been replaced by an empty server; restore it, or if it is meant to be empty run on shard \"{}\": UPDATE shardwire.shard SET complete = false",
                record.cluster,
                name(of),
            ));
        }
        return FirstContact::Record {
            cluster: Some(record.cluster.clone()),
        };
    }
    // Before the first row is written anywhere every shard must have been heard: one of them might
    // belong to a cluster already.
    let mut states = entries.iter().enumerate();
    if let Some((unheard, _)) = states.find(|(_, entry)| **entry == Entry::Unknown) {
        return FirstContact::Wait(format!(
            "first contact with this cluster waits for the primary of shard \"{}\"",
            name(unheard)
        ));
    }
    let leader = entries.iter().position(|entry| *entry == Entry::Empty);
    match leader {
        Some(leader) if leader != shard => FirstContact::Wait(format!(
            "its identity is recorded after that of shard \"{}\"",
            name(leader)
        )),
        _ => FirstContact::Record { cluster: None },
    }
}

fn judge(
    entries: &[Entry],
    expected: &[Expected],
    shard: usize,
    record: &Record,
) -> Result<(), String> {
    let Some(own) = expected.get(shard) else {
        return Err("it is no shard of the configuration".to_owned());
    };
    if let Some((of, other)) = reference(entries)
        && other.cluster != record.cluster
    {
        let of = expected.get(of).map_or("", |e| e.shard.as_str());
        return Err(format!(
            "it belongs to cluster {}, but shard \"{of}\" to cluster {}; correct the addresses of the shards",
            record.cluster, other.cluster
        ));
    }
    if record.shard != own.shard {
        let advice = if expected.iter().any(|e| e.shard == record.shard) {
            "the addresses of these shards seem to be swapped in the configuration; exchange them"
                .to_owned()
        } else {
            format!(
                "correct the address, or if the shard was renamed run there: UPDATE shardwire.shard SET shard_name = '{}'",
                own.shard.replace('\'', "''")
            )
        };
        return Err(format!(
            "it is shard \"{}\", not \"{}\"; {advice}",
            record.shard, own.shard
        ));
    }
    if record.shard_count != expected.len() {
        return Err(format!(
            "its rows were placed for {} shards, but the configuration has {}; restore the list of shards",
            record.shard_count,
            expected.len()
        ));
    }
    if record.slots != own.slots {
        return Err(format!(
            "it holds the slots {}, but the configuration gives it {}; restore the order or the slots of the shards",
            record.slots, own.slots
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
