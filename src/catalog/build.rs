//! Raw rows and rules to relations that know where their rows live.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::ColumnDefault;
use crate::catalog::Hazards;
use crate::catalog::Identity;
use crate::catalog::Location;
use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::catalog::RawColumn;
use crate::catalog::RawRelation;
use crate::catalog::Reason;
use crate::catalog::Relation;
use crate::catalog::SequenceName;
use crate::catalog::TableColumn;
use crate::catalog::Ties;
use crate::catalog::Written;
use crate::catalog::behind;
use crate::catalog::behind::Behind;
use crate::catalog::through;
use crate::config;
use crate::config::TableRule;
use crate::sharding::ColumnType;
use crate::sharding::KeyType;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;

/// Inheritance and views deeper than this are taken for cycles.
const DEPTH: usize = 64;

/// Where things live that no rule names.
const FIRST_SHARD: ShardIndex = 0;

/// The relations, in the order of the rows, and what does not fit.
pub(super) fn relations(
    raw: &RawCatalog,
    database: &config::Database,
    differences: &[Problem],
) -> (Vec<Relation>, Vec<Problem>) {
    let mut builder = Builder {
        raw,
        database,
        differences,
        by_oid: raw
            .relations
            .iter()
            .enumerate()
            .map(|(index, relation)| (relation.oid, index))
            .collect(),
        parents: raw.relations.iter().filter_map(|one| one.parent).collect(),
        rules: vec![None; raw.relations.len()],
        problems: Vec::new(),
    };
    builder.assign_rules();
    let mut locations: Vec<Option<Location>> = (0..raw.relations.len())
        .map(|index| builder.table_location(index))
        .collect();
    for index in 0..raw.relations.len() {
        builder.view_location(index, &mut locations, 0);
    }
    let location_of = |oid: u32| {
        let index = builder.by_oid.get(&oid)?;
        locations.get(*index).cloned().flatten()
    };
    let leave_home: Vec<bool> = (raw.relations.iter().zip(&locations))
        .map(|(row, location)| behind::leaves_home(row, location.as_ref(), location_of))
        .collect();
    let secured: HashSet<u32> = (raw.relations.iter())
        .filter(|row| row.hazards.row_security)
        .map(|row| row.oid)
        .collect();
    let policies_read: Vec<bool> = (raw.relations.iter())
        .map(|row| behind::policies_read(row, &secured, location_of))
        .collect();
    let behind = Behind::new(raw);
    let mut relations: Vec<Relation> = raw
        .relations
        .iter()
        .zip(locations)
        .zip(leave_home.into_iter().zip(policies_read))
        .map(|((row, location), (leaves_home, policies_read))| {
            let hazards = Hazards {
                rules: row.hazards.has_rules,
                triggers: behind.triggers(row),
                code: behind.code(row),
                calls: behind.calls(row),
                row_security: row.hazards.row_security,
                policies_read,
                leaves_home,
            };
            let location = location.unwrap_or(Location::Home(FIRST_SHARD));
            Relation {
                ties: behind.ties(row),
                ..builder.compile(row, location, hazards)
            }
        })
        .collect();
    through::find(&mut relations, raw);
    (relations, builder.problems)
}

struct Builder<'a> {
    raw: &'a RawCatalog,
    database: &'a config::Database,
    /// What is known to differ between the shards.
    differences: &'a [Problem],
    by_oid: HashMap<u32, usize>,
    /// The relations that others inherit from.
    parents: HashSet<u32>,
    /// The rule of each relation that has one of its own.
    rules: Vec<Option<&'a TableRule>>,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn problem(&mut self, table: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            table: table.to_owned(),
            message: message.into(),
        });
    }

    /// Gives each table the rule that the file, the shards or the wildcard name it in.
    fn assign_rules(&mut self) {
        for (name, rule) in &self.database.tables.named {
            match self.named(name) {
                Some(index) => self.set_rule(index, rule),
                None => self.problem(
                    name,
                    "the table is in the configuration but not in the database",
                ),
            }
        }
        for stored in &self.raw.stored_placements {
            let index = self.raw.relations.iter().position(|relation| {
                relation.schema == stored.schema && relation.name == stored.table
            });
            let Some(index) = index else { continue };
            match self.rules.get(index).copied().flatten() {
                None => self.set_rule(index, &stored.rule),
                Some(rule) if *rule == stored.rule => {}
                Some(_) => {
                    let name = format!("{}.{}", stored.schema, stored.table);
                    self.problem(
                        &name,
                        "the configuration and the shards place the table differently",
                    );
                }
            }
        }
        let Some(wildcard) = &self.database.tables.wildcard else {
            return;
        };
        for (index, relation) in self.raw.relations.iter().enumerate() {
            let free = self.rules.get(index).is_some_and(Option::is_none);
            if free && is_table(relation) && relation.parent.is_none() && fits(wildcard, relation) {
                self.set_rule(index, wildcard);
            }
        }
    }

    fn set_rule(&mut self, index: usize, rule: &'a TableRule) {
        if let Some(slot) = self.rules.get_mut(index) {
            *slot = Some(rule);
        }
    }

    /// The relation that the configuration calls `name`: `schema.table`, or `table` in the first
    /// schema of the search path that has it.
    fn named(&self, name: &str) -> Option<usize> {
        let find = |schema: &str, table: &str| {
            self.raw
                .relations
                .iter()
                .position(|row| row.schema == schema && row.name == table && !row.temporary)
        };
        let qualified = name
            .split_once('.')
            .and_then(|(schema, table)| find(schema, table));
        qualified.or_else(|| {
            self.raw
                .default_search_path
                .iter()
                .find_map(|schema| find(schema, name))
        })
    }

    /// Where a relation that holds its own rows lives; none for views.
    fn table_location(&mut self, index: usize) -> Option<Location> {
        let raw = self.raw;
        let relation = raw.relations.get(index)?;
        if matches!(relation.kind, 'v' | 'm') {
            if self.rules.get(index).copied().flatten().is_some() {
                self.problem(&full_name(relation), "a view has no placement of its own");
            }
            return None;
        }
        if relation.is_rows_table() {
            return Some(Location::Home(FIRST_SHARD));
        }
        let name = full_name(relation);
        if let Some(known) = self.differences.iter().find(|known| known.table == name) {
            return Some(Location::Unserved(Reason::Differs(known.message.clone())));
        }
        let root = self.root(index);
        let own = self.rules.get(index).copied().flatten();
        let rule = self.rules.get(root).copied().flatten();
        if root != index && own.is_some() && own != rule {
            let message = "the table is placed differently from the table it is part of";
            return Some(self.unserved(relation, message));
        }
        match rule {
            None => Some(Location::Home(FIRST_SHARD)),
            Some(TableRule::Home { shard }) => Some(Location::Home(*shard)),
            Some(_) if !is_table(relation) => {
                Some(self.unserved(relation, "only tables can be sharded or replicated"))
            }
            Some(TableRule::Replicated) => Some(Location::Replicated),
            Some(rule @ TableRule::Sharded { key, .. }) => Some(
                placement(rule, key, relation, &self.database.shards)
                    .map(|placement| Location::Sharded(Arc::new(placement)))
                    .unwrap_or_else(|message| self.unserved(relation, &message)),
            ),
        }
    }

    fn unserved(&mut self, relation: &RawRelation, message: &str) -> Location {
        self.problem(&full_name(relation), message);
        no_place(message)
    }

    /// The topmost ancestor of a partition or inheritance child.
    fn root(&self, index: usize) -> usize {
        let mut root = index;
        for _ in 0..DEPTH {
            let parent = self
                .raw
                .relations
                .get(root)
                .and_then(|relation| relation.parent)
                .and_then(|oid| self.by_oid.get(&oid));
            match parent {
                Some(parent) => root = *parent,
                None => break,
            }
        }
        root
    }

    /// Where a view can be read; fills in `locations` on the way.
    fn view_location(
        &self,
        index: usize,
        locations: &mut Vec<Option<Location>>,
        depth: usize,
    ) -> Location {
        if let Some(Some(location)) = locations.get(index) {
            return location.clone();
        }
        let location = self.read_location(index, locations, depth);
        if let Some(slot) = locations.get_mut(index) {
            *slot = Some(location.clone());
        }
        location
    }

    fn read_location(
        &self,
        index: usize,
        locations: &mut Vec<Option<Location>>,
        depth: usize,
    ) -> Location {
        let Some(view) = self.raw.relations.get(index).filter(|_| depth < DEPTH) else {
            return no_place("its definition is nested too deeply");
        };
        if self.rows_table(view).is_some() {
            return Location::Home(FIRST_SHARD);
        }
        let mut home = None;
        for oid in &view.depends_on {
            // What is not in the catalogue is a system catalogue.
            let location = match self.by_oid.get(oid) {
                Some(read) => self.view_location(*read, locations, depth + 1),
                None => Location::Home(FIRST_SHARD),
            };
            match location {
                Location::Replicated => {}
                Location::Home(shard) if home.is_none_or(|home| home == shard) => {
                    home = Some(shard);
                }
                Location::Home(_) => {
                    return no_place("it reads tables of several shards");
                }
                Location::Sharded(_) => {
                    return no_place("it reads a sharded table");
                }
                Location::Unserved(reason) => return Location::Unserved(reason),
            }
        }
        match home {
            Some(shard) => Location::Home(shard),
            // Each server has refreshed its own copy of a materialised view at another time.
            None if view.depends_on.is_empty() || view.kind == 'm' => Location::Home(FIRST_SHARD),
            None => Location::Replicated,
        }
    }
}

impl Builder<'_> {
    fn compile(&self, row: &RawRelation, location: Location, hazards: Hazards) -> Relation {
        let has_children = row.kind == 'r' && self.parents.contains(&row.oid);
        let columns = row.columns.iter().map(|column| self.column(column));
        Relation {
            oid: row.oid,
            schema: row.schema.clone(),
            name: row.name.clone(),
            kind: row.kind,
            columns: columns.collect(),
            location,
            hazards,
            // It says nothing of the rows of tables that inherit.
            primary_key: match has_children {
                true => Vec::new(),
                false => row.primary_key.clone(),
            },
            definition: self.definition(row),
            rows_table: self.rows_table(row),
            ties: Ties::default(),
            written: Written::Here,
        }
    }

    /// The table that a materialised view over several shards takes its rows from.
    fn rows_table(&self, row: &RawRelation) -> Option<Arc<str>> {
        let mut reads = row.depends_on.iter().filter(|_| row.kind == 'm');
        reads.find_map(|oid| {
            let read = self.raw.relations.get(*self.by_oid.get(oid)?)?;
            read.is_rows_table().then(|| read.name.as_str().into())
        })
    }

    fn definition(&self, row: &RawRelation) -> Option<Arc<str>> {
        let definitions = self.raw.definitions.as_ref()?;
        let definition = definitions
            .get(&row.oid)
            .filter(|_| matches!(row.kind, 'v' | 'm'))?;
        Some(definition.as_str().into())
    }

    fn column(&self, column: &RawColumn) -> TableColumn {
        TableColumn {
            name: column.name.clone(),
            key_type: KeyType::from_oid(column.type_oid)
                .filter(|_| column.collation_deterministic)
                .map(|key_type| ColumnType {
                    key_type,
                    typmod: column.typmod,
                }),
            type_oid: column.type_oid,
            bytewise: column.bytewise,
            own_collation: column.own_collation,
            deterministic: column.collation_deterministic,
            not_null: column.not_null,
            sequence_default: column.default.draws,
            generated: column.generated,
            default: ColumnDefault {
                exists: column.default.exists || column.default.varies,
                varies: column.default.varies || column.default.draws,
                of_statement: column.default.of_statement,
                of_users: column.default.of_users,
                sequence: column.default.sequence.and_then(|oid| self.sequence(oid)),
                identity: match column.identity {
                    Some('a') => Some(Identity::Always),
                    Some(_) => Some(Identity::ByDefault),
                    None => None,
                },
            },
        }
    }

    fn sequence(&self, oid: u32) -> Option<SequenceName> {
        let index = self.by_oid.get(&oid)?;
        let sequence = self.raw.relations.get(*index)?;
        Some(SequenceName {
            schema: sequence.schema.clone(),
            name: sequence.name.clone(),
        })
    }
}

fn is_table(relation: &RawRelation) -> bool {
    matches!(relation.kind, 'r' | 'p') && !relation.temporary && relation.schema != "shardwire"
}

/// Whether the wildcard applies: a sharded one only to tables that have the key's columns.
fn fits(rule: &TableRule, relation: &RawRelation) -> bool {
    match rule {
        TableRule::Sharded { key, .. } => key
            .iter()
            .all(|name| relation.columns.iter().any(|column| column.name == *name)),
        TableRule::Replicated | TableRule::Home { .. } => true,
    }
}

fn placement(
    rule: &TableRule,
    key: &[String],
    relation: &RawRelation,
    shards: &[config::Shard],
) -> Result<Placement, String> {
    let mut columns = Vec::with_capacity(key.len());
    for name in key {
        let column = relation
            .columns
            .iter()
            .find(|column| column.name == *name)
            .ok_or_else(|| format!("the shard key's column \"{name}\" does not exist"))?;
        let key_type = KeyType::from_oid(column.type_oid).ok_or_else(|| {
            format!("the type of the shard key's column \"{name}\" can not be a shard key")
        })?;
        if !column.collation_deterministic {
            return Err(format!(
                "the collation of the shard key's column \"{name}\" is not deterministic"
            ));
        }
        if column.generated {
            return Err(format!("the shard key's column \"{name}\" is generated"));
        }
        let column_type = ColumnType {
            key_type,
            typmod: column.typmod,
        };
        columns.push((name.clone(), column_type));
    }
    Placement::new(rule, columns, shards).map_err(|error| error.fields().message.to_string())
}

fn no_place(reason: &str) -> Location {
    Location::Unserved(Reason::NoPlace(reason.to_owned()))
}

fn full_name(relation: &RawRelation) -> String {
    format!("{}.{}", relation.schema, relation.name)
}
