//! One database of proxy.yaml: its servers, pools and how it is read.

use std::collections::HashMap;
use std::time::Duration;

use super::Address;
use super::Backend;
use super::BackendTls;
use super::BackendTlsMode;
use super::Consistency;
use super::Database;
use super::Pool;
use super::ReadPreference;
use super::RoleHint;
use super::SLOTS;
use super::Server;
use super::Shard;
use super::Tables;
use super::decode::Field;
use super::decode::Fields;
use super::tables;
use super::users;
use super::value;

/// How far behind a secondary may serve reads, unless the file says otherwise.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(10);

/// Reads the database that clients know by this name.
pub(super) fn read(name: &str, field: &Field<'_>) -> Option<Database> {
    let mut fields = field.fields("a map with backend, shards and tables")?;
    let backend = fields
        .required("backend", "Write { user: …, password: \"${NAME}\" }.")
        .and_then(|field| backend(name, &field));
    let mut auth_query = None;
    fields.read("auth_query", &mut auth_query, users::query);
    let mut pool = Pool::default();
    fields.read("pool", &mut pool, read_pool);
    let mut max_clients = None;
    fields.read("max_clients", &mut max_clients, users::limit);
    let zone = fields.get("zone").and_then(|field| field.name("a zone"));
    let shards = fields
        .required(
            "shards",
            "List at least one: { name: s0, primary: 10.0.0.1:5432 }.",
        )
        .and_then(|field| shards(&field));
    let mut read_preference = ReadPreference::Nearest;
    fields.read("read_preference", &mut read_preference, Field::word);
    let mut max_staleness = MAX_STALENESS;
    fields.read("max_staleness", &mut max_staleness, Field::duration);
    let mut consistency = Consistency::Session;
    fields.read("consistency", &mut consistency, Field::word);
    let shards = shards.unwrap_or_default();
    let mut tables = Tables::default();
    fields.read("tables", &mut tables, |field| tables::read(field, &shards));
    fields.finish();
    Some(Database {
        name: name.to_owned(),
        backend: backend?,
        auth_query,
        pool,
        max_clients,
        zone,
        shards,
        read_preference,
        max_staleness,
        consistency,
        tables,
    })
}

fn backend(name: &str, field: &Field<'_>) -> Option<Backend> {
    let mut fields = field.fields("a map with database, user, password, per_user and tls")?;
    let mut database = name.to_owned();
    fields.read("database", &mut database, |field| {
        field.name("the name of a database")
    });
    let user = fields
        .required("user", "Name the role to use on the servers.")
        .and_then(|field| field.name("the name of a role"));
    let password = fields.get("password");
    let password = password.and_then(|field| users::server_password(&field));
    let mut per_user = false;
    fields.read("per_user", &mut per_user, Field::word);
    let mut tls = BackendTls::default();
    fields.read("tls", &mut tls, backend_tls);
    fields.finish();
    Some(Backend {
        database,
        user: user?,
        password,
        per_user,
        tls,
    })
}

fn backend_tls(field: &Field<'_>) -> Option<BackendTls> {
    let mut tls = BackendTls::default();
    if field.is_scalar() {
        tls.mode = field.word()?;
        return Some(tls);
    }
    let mut fields = field.fields("a mode, or a map with mode, ca, cert and key")?;
    fields.read("mode", &mut tls.mode, Field::word);
    let (ca, cert, key) = (fields.get("ca"), fields.get("cert"), fields.get("key"));
    fields.finish();
    if cert.is_some() != key.is_some() {
        let hint = "Name both, or neither.".to_owned();
        field.key_problem("a certificate and its key go together", hint);
    }
    let verifies = matches!(
        tls.mode,
        BackendTlsMode::VerifyCa | BackendTlsMode::VerifyFull
    );
    if let Some(ca) = ca.as_ref().filter(|_| !verifies) {
        ca.key_problem(
            "the authorities would not be asked",
            "Set mode to verify-full or verify-ca, or leave ca out.".to_owned(),
        );
    }
    tls.ca = ca.and_then(|field| field.file());
    tls.cert = cert.and_then(|field| field.file());
    tls.key = key.and_then(|field| field.file());
    Some(tls)
}

fn read_pool(field: &Field<'_>) -> Option<Pool> {
    let mut fields = field.fields("a map with mode and max_size")?;
    let mut pool = Pool::default();
    let f = &mut fields;
    f.read("mode", &mut pool.mode, Field::word);
    f.read("max_size", &mut pool.max_size, Field::count);
    f.read("queue_timeout", &mut pool.queue_timeout, Field::duration);
    f.read("max_queue", &mut pool.max_queue, Field::count);
    f.read("idle_timeout", &mut pool.idle_timeout, Field::duration);
    f.read("max_lifetime", &mut pool.max_lifetime, Field::duration);
    fields.finish();
    Some(pool)
}

/// What has been read of the shards so far, for the checks across them.
#[derive(Default)]
struct Seen {
    names: HashMap<String, String>,
    addresses: HashMap<Address, String>,
}

/// The shards. One whose name is missing or wrong keeps its place under an empty name.
fn shards(field: &Field<'_>) -> Option<Vec<Shard>> {
    let items = field.items("a list of shards")?;
    if items.is_empty() {
        let hint = "List at least one: { name: s0, primary: 10.0.0.1:5432 }.".to_owned();
        field.problem("there is no shard", hint);
    }
    if items.len() > usize::from(SLOTS) {
        field.problem(format!("there are more than {SLOTS} shards"), None);
        return None;
    }
    let mut seen = Seen::default();
    let mut slots = Vec::new();
    let mut shards = Vec::new();
    for item in &items {
        let mut shard = Shard {
            name: String::new(),
            servers: Vec::new(),
            slots: Vec::new(),
        };
        let mut own_slots = None;
        if let Some(mut fields) = item.fields("a map with name and servers") {
            shard.name = shard_name(&mut fields, &mut seen).unwrap_or_default();
            shard.servers = servers(&mut fields, &mut seen);
            own_slots = fields.get("slots");
            fields.finish();
        }
        shards.push(shard);
        slots.push(own_slots);
    }
    assign_slots(field, &items, &slots, &mut shards);
    Some(shards)
}

fn shard_name(fields: &mut Fields<'_>, seen: &mut Seen) -> Option<String> {
    let field = fields.required("name", "Name it once and for all: s0.")?;
    let name = field.text("the name of a shard")?;
    field.parsed("the name of a shard", value::simple_name)?;
    if let Some(first) = seen.names.get(&name) {
        let message = format!("duplicate shard name {}", field.shown());
        field.problem(message, format!("It already stands at {first}."));
        return None;
    }
    seen.names.insert(name.clone(), field.path.clone());
    Some(name)
}

fn servers(fields: &mut Fields<'_>, seen: &mut Seen) -> Vec<Server> {
    const WHAT: &str = "a list of servers";
    let primary = fields.get("primary");
    let secondaries = fields.get("secondaries");
    let others = fields.get("servers");
    let mut named: Vec<(Field<'_>, Option<RoleHint>)> = Vec::new();
    let mut malformed = false;
    named.extend(primary.map(|field| (field, Some(RoleHint::Primary))));
    for (list, hint) in [(secondaries, Some(RoleHint::Secondary)), (others, None)] {
        let Some(list) = list else { continue };
        match list.items(WHAT) {
            Some(items) => named.extend(items.into_iter().map(|item| (item, hint))),
            None => malformed = true,
        }
    }
    if named.is_empty() && !malformed {
        fields.whole().key_problem(
            "the shard has no server",
            "Write primary: 10.0.0.1:5432, or servers: [10.0.0.1:5432, 10.0.0.2:5432].".to_owned(),
        );
    }
    named
        .into_iter()
        .filter_map(|(field, hint)| server(&field, hint, seen))
        .collect()
}

fn server(field: &Field<'_>, hint: Option<RoleHint>, seen: &mut Seen) -> Option<Server> {
    let mut zone = None;
    let mut place = Some(field.clone());
    if field.is_map() {
        let mut fields = field.fields("a map with address and zone")?;
        place = fields.required("address", "Write { address: 10.0.0.1:5432, zone: … }.");
        zone = fields.get("zone").and_then(|field| field.name("a zone"));
        fields.finish();
    }
    let place = place?;
    let what = "an address such as 10.0.0.1:5432";
    let address = place.parsed(what, value::server_address)?;
    if let Some(first) = seen.addresses.get(&address) {
        let message = format!("duplicate server {}", place.shown());
        place.problem(message, format!("It already stands at {first}."));
        return None;
    }
    seen.addresses.insert(address.clone(), place.path.clone());
    Some(Server {
        address,
        zone,
        hint,
    })
}

/// Gives every slot to one shard: equal runs, unless the file says otherwise for every shard.
fn assign_slots(
    whole: &Field<'_>,
    items: &[Field<'_>],
    given: &[Option<Field<'_>>],
    shards: &mut [Shard],
) {
    if given.iter().all(Option::is_none) {
        let count = shards.len();
        let start = |index: usize| (index * usize::from(SLOTS) / count.max(1)) as u16;
        for (index, shard) in shards.iter_mut().enumerate() {
            shard.slots = vec![start(index)..=start(index + 1) - 1];
        }
        return;
    }
    let mut owners: Vec<Option<usize>> = vec![None; usize::from(SLOTS)];
    let mut complete = true;
    for (index, (item, given)) in items.iter().zip(given).enumerate() {
        let Some(given) = given else {
            let hint = "Write slots for every shard, [] for one without, or for none.".to_owned();
            item.key_problem("slots are given for other shards only", hint);
            complete = false;
            continue;
        };
        complete &= claim_slots(given, index, &mut owners, items);
    }
    if complete {
        report_free_slots(whole, &owners);
    }
    for (slot, owner) in (0..SLOTS).zip(owners) {
        let shard = owner.and_then(|owner| shards.get_mut(owner));
        let Some(shard) = shard else { continue };
        match shard.slots.last_mut() {
            Some(run) if slot > 0 && *run.end() == slot - 1 => *run = *run.start()..=slot,
            _ => shard.slots.push(slot..=slot),
        }
    }
}

fn report_free_slots(whole: &Field<'_>, owners: &[Option<usize>]) {
    const MOST: usize = 5;
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (slot, _) in owners.iter().enumerate().filter(|(_, o)| o.is_none()) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => runs.push((slot, slot)),
        }
    }
    let shown = runs.iter().take(MOST);
    let mut shown: Vec<String> = shown.map(|(a, b)| format!("{a}-{b}")).collect();
    if runs.len() > MOST {
        shown.push("…".to_owned());
    }
    if !runs.is_empty() {
        let message = format!("slots {} belong to no shard", shown.join(", "));
        let hint = format!("The shards must share all slots from 0 to {}.", SLOTS - 1);
        whole.key_problem(message, hint);
    }
}

/// Notes the slots that a shard wants. Answers whether they could all be read.
fn claim_slots(
    given: &Field<'_>,
    shard: usize,
    owners: &mut [Option<usize>],
    items: &[Field<'_>],
) -> bool {
    const WHAT: &str = "slots such as [0-8191]";
    let Some(runs) = given.one_or_more(WHAT) else {
        return false;
    };
    let mut readable = true;
    for run in runs {
        let Some(range) = run.parsed(WHAT, value::slots) else {
            readable = false;
            continue;
        };
        let mut taken = None;
        for slot in range {
            match owners.get_mut(usize::from(slot)) {
                Some(Some(owner)) => taken = taken.or(Some((slot, *owner))),
                Some(free) => *free = Some(shard),
                None => {}
            }
        }
        if let Some((slot, owner)) = taken {
            let first = items.get(owner).map_or("", |item| item.path.as_str());
            let message = format!("slot {slot} belongs to two shards");
            run.problem(message, format!("It already stands at {first}."));
        }
    }
    readable
}
