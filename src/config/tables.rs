//! The placement rules of a database's tables.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::HashSet;

use super::HashKind;
use super::Method;
use super::RangePart;
use super::Shard;
use super::TableRule;
use super::Tables;
use super::decode::Field;
use super::decode::Fields;
use super::value;

/// PostgreSQL's limit on the columns of an index, and of a key.
const MAX_KEY_COLUMNS: usize = 32;
const RULE: &str = "a map such as { shard_key: user_id }";
const RULE_HINT: &str =
    "Write one of { shard_key: user_id }, { replicated: true } and { shard: s0 }.";

/// Reads the rules; shards are named by the index they have here.
pub(super) fn read(field: &Field<'_>, shards: &[Shard]) -> Option<Tables> {
    let mut tables = Tables::default();
    for (name, field) in field.entries("a map of tables")? {
        let rule = rule(&field, shards);
        if name == "*" {
            tables.wildcard = rule;
            continue;
        }
        check_name(name, &field);
        if let Some(rule) = rule {
            tables.named.insert(name.to_owned(), rule);
        }
    }
    Some(tables)
}

fn check_name(name: &str, field: &Field<'_>) {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2 {
        let hint = "Write table or schema.table.".to_owned();
        field.key_problem("the table's name has too many parts", hint);
    }
    if name.contains('*') {
        let hint = "Only \"*\" alone is a pattern.".to_owned();
        field.key_problem("the table's name holds a pattern", hint);
    }
    if let Some(fault) = parts.iter().find_map(|part| value::name(part).err()) {
        let message = format!("the table's name {}", fault.what);
        field.key_problem(message, fault.hint.to_owned());
    }
}

fn rule(field: &Field<'_>, shards: &[Shard]) -> Option<TableRule> {
    if !field.is_map() {
        let message = format!("expected {RULE}, found {}", field.shown());
        field.problem(message, RULE_HINT.to_owned());
        return None;
    }
    let mut fields = field.fields(RULE)?;
    let key = fields.get("shard_key");
    let replicated = fields.get("replicated");
    let home = fields.get("shard");
    let method = method(&mut fields, shards);
    fields.finish();
    let forms = [&key, &replicated, &home];
    match forms.iter().filter(|form| form.is_some()).count() {
        0 => field.key_problem("the rule places no row", RULE_HINT.to_owned()),
        1 => {}
        _ => field.key_problem(
            "the rule places rows in more than one way",
            RULE_HINT.to_owned(),
        ),
    }
    if key.is_none()
        && let Some(method) = method.fields.first()
    {
        method.key_problem("has no meaning without shard_key", None);
    }
    if let Some(key) = key {
        let columns = key_columns(&key)?;
        let listed = !matches!(method.method, Some(Method::Hash(_)) | None);
        if columns.len() > 1 && listed {
            let hint = "Use a hash, or a key of one column.".to_owned();
            key.problem("lists and ranges take a key of one column", hint);
        }
        let key = columns;
        let method = method.method?;
        return Some(TableRule::Sharded { key, method });
    }
    if let Some(replicated) = replicated {
        if !replicated.word::<bool>()? {
            let hint = "Leave it out; a table is replicated only when told so.".to_owned();
            replicated.problem("a rule cannot say what a table is not", hint);
        }
        return Some(TableRule::Replicated);
    }
    let home = home?;
    let name = home.text("the name of a shard")?;
    let shard = find_shard(&name, shards, |message, hint| home.problem(message, hint))?;
    Some(TableRule::Home { shard })
}

fn key_columns(field: &Field<'_>) -> Option<Vec<String>> {
    const WHAT: &str = "a column or a list of columns";
    let mut columns = Vec::new();
    for item in field.one_or_more(WHAT)? {
        let column = item.name(WHAT)?;
        if columns.contains(&column) {
            item.problem(format!("duplicate column {}", item.shown()), None);
        }
        columns.push(column);
    }
    if columns.is_empty() {
        field.problem("the key has no column", "Name at least one.".to_owned());
        return None;
    }
    if columns.len() > MAX_KEY_COLUMNS {
        let message = format!("the key has more than {MAX_KEY_COLUMNS} columns");
        field.problem(message, None);
    }
    Some(columns)
}

/// The method of a rule, none when it could not be read, and the fields that told it.
struct Told<'a> {
    method: Option<Method>,
    fields: Vec<Field<'a>>,
}

fn method<'a>(fields: &mut Fields<'a>, shards: &[Shard]) -> Told<'a> {
    let (hash, list, range) = (fields.get("hash"), fields.get("list"), fields.get("range"));
    let method = match (&hash, &list, &range) {
        (None, None, None) => Some(Method::Hash(HashKind::Postgres)),
        (Some(hash), None, None) => hash.word().map(Method::Hash),
        (None, Some(list), None) => lists(list, shards).map(Method::List),
        (None, None, Some(range)) => ranges(range, shards).map(Method::Range),
        _ => {
            let hint = "Write one of hash, list and range.".to_owned();
            fields
                .whole()
                .key_problem("the rule maps keys in more than one way", hint);
            None
        }
    };
    let fields = [hash, list, range].into_iter().flatten().collect();
    Told { method, fields }
}

/// The index of a shard; an unknown one is a problem, unless some shard's own name is.
fn find_shard(name: &str, shards: &[Shard], report: impl FnOnce(String, String)) -> Option<usize> {
    let found = shards.iter().position(|shard| shard.name == name);
    let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
    if found.is_none() && !names.is_empty() && !names.contains(&"") {
        let message = format!("there is no shard {name:?}");
        report(message, format!("The shards are {}.", names.join(", ")));
    }
    found
}

fn lists(field: &Field<'_>, shards: &[Shard]) -> Option<Vec<(usize, Vec<String>)>> {
    const WHAT: &str = "a map of shards such as { s0: [eu, uk], s1: [us] }";
    let mut lists = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    let entries = field.entries(WHAT)?;
    if entries.is_empty() {
        field.problem("the list is empty", format!("Write {WHAT}."));
    }
    for (name, field) in entries {
        let shard = find_shard(name, shards, |message, hint| {
            field.key_problem(message, hint);
        });
        let mut values = Vec::new();
        let items = field.one_or_more("a list of values").unwrap_or_default();
        if items.is_empty() {
            let hint = "List its values, or leave the shard out.".to_owned();
            field.problem("the shard has no value", hint);
        }
        for item in items {
            let Some(value) = item.text("a value (NULL is never a key)") else {
                continue;
            };
            if let Some(first) = seen.get(&value) {
                let message = format!("duplicate value {}", item.shown());
                item.problem(message, format!("It already stands at {first}."));
            }
            seen.insert(value.clone(), item.path.clone());
            values.push(value);
        }
        lists.extend(shard.map(|shard| (shard, values)));
    }
    Some(lists)
}

fn ranges(field: &Field<'_>, shards: &[Shard]) -> Option<Vec<RangePart>> {
    const WHAT: &str = "a map of shards such as { s0: { to: 100 }, s1: { from: 100 } }";
    let mut parts: Vec<(RangePart, Field<'_>)> = Vec::new();
    let entries = field.entries(WHAT)?;
    if entries.is_empty() {
        field.problem("the range is empty", format!("Write {WHAT}."));
    }
    for (name, field) in entries {
        let shard = find_shard(name, shards, |message, hint| {
            field.key_problem(message, hint);
        });
        let items = field.one_or_more("a range, or a list of ranges");
        let items = items.unwrap_or_default();
        if items.is_empty() {
            let hint = "Write { from: …, to: … }, or leave the shard out.".to_owned();
            field.problem("the shard has no range", hint);
        }
        for item in items {
            let Some(mut fields) = item.fields("a range such as { from: 1, to: 100 }") else {
                continue;
            };
            let mut bound = |key| fields.get(key).map(|field| field.text("a value"));
            let (from, to) = (bound("from"), bound("to"));
            fields.finish();
            let (shard, from, to) = match (shard, from, to) {
                (Some(shard), from, to) if from != Some(None) && to != Some(None) => {
                    (shard, from.flatten(), to.flatten())
                }
                _ => continue,
            };
            parts.push((RangePart { shard, from, to }, item));
        }
    }
    check_ranges(&parts);
    Some(parts.into_iter().map(|(part, _)| part).collect())
}

/// Finds empty and overlapping ranges, as far as the bounds can be compared without the column's type.
fn check_ranges(parts: &[(RangePart, Field<'_>)]) {
    let bounds = parts.iter().flat_map(|(part, _)| [&part.from, &part.to]);
    let bounds: HashSet<&str> = bounds.flatten().map(String::as_str).collect();
    let Some(compare) = comparison(&bounds) else {
        return;
    };
    let below = |from: &Option<String>, to: &Option<String>| match (from, to) {
        (Some(from), Some(to)) => compare(from, to) == Ordering::Less,
        _ => true,
    };
    for (index, (part, field)) in parts.iter().enumerate() {
        if !below(&part.from, &part.to) {
            let hint = "\"from\" is inside the range, \"to\" is beyond it.".to_owned();
            field.problem("the range is empty", hint);
            continue;
        }
        let overlapping = parts.iter().take(index).find(|(other, _)| {
            below(&other.from, &other.to)
                && below(&part.from, &other.to)
                && below(&other.from, &part.to)
        });
        if let Some((_, other)) = overlapping {
            let hint = format!("It shares keys with {}.", other.path);
            field.problem("the range overlaps another one", hint);
        }
    }
}

/// How bounds compare when they are all integers, or all ISO dates of one length. Nothing is known
/// about others before the column's type is.
fn comparison(bounds: &HashSet<&str>) -> Option<fn(&str, &str) -> Ordering> {
    let integer = |text: &&str| text.parse::<i128>().is_ok();
    if bounds.iter().all(integer) {
        return Some(|a, b| a.parse::<i128>().ok().cmp(&b.parse::<i128>().ok()));
    }
    let length = bounds.iter().next().map_or(0, |text| text.len());
    if bounds
        .iter()
        .all(|text| text.len() == length && is_date(text))
    {
        return Some(|a, b| a.cmp(b));
    }
    None
}

/// `2026-01-01`, alone or followed by a time without a time zone: order is that of the text.
fn is_date(text: &str) -> bool {
    let shape = |text: &str, shape: &str| {
        text.len() <= shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| {
                if wanted == b'0' {
                    byte.is_ascii_digit()
                } else {
                    byte == wanted
                }
            })
    };
    text.len() >= 10 && shape(text, "0000-00-00 00:00:00.000000")
}
