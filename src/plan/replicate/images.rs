//! A statement on a replicated table that is evaluated once: what returns the rows, and what applies them.

use std::fmt::Write;

use crate::catalog::Identity;
use crate::catalog::Relation;
use crate::catalog::TableColumn;
use crate::error::Result;
use crate::plan::query::Query;
use crate::plan::replicate::full_name;
use crate::plan::replicate::no_images;
use crate::plan::without_semicolons;
use crate::sql::analysis::Block;
use crate::sql::analysis::BlockKind;
use crate::sql::lexer::tokenize;
use crate::sql::literal::identifier_value;
use crate::sql::literal::quote_identifier;
use crate::sql::splice::Edit;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::Token;

/// OIDs below this are PostgreSQL's own, the same on every server.
const FIRST_USER_OID: u32 = 10_000;

/// How a statement is evaluated once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// The types of the columns that an image consists of; 0 for those that travel as text.
    pub types: Vec<u32>,
    /// How many columns the client's own RETURNING has.
    pub returned: usize,
    /// What stands behind the statement: the columns of an image.
    behind: String,
    /// Applies one image.
    pub apply: String,
}

impl Images {
    /// The statement as the first shard runs it: its rows end with their images.
    ///
    /// # Errors
    /// `XX000` if the text is not what was planned.
    pub fn text(&self, text: &str, lex: LexOptions) -> Result<String> {
        let tokens =
            tokenize(text.as_bytes(), lex).map_err(|error| error.to_error(text.as_bytes()))?;
        let end = without_semicolons(text, &tokens).last();
        let end = end.map_or(0, |token| token.end);
        let edit = Edit {
            range: end..end,
            text: self.behind.clone(),
        };
        splice(text, lex, &[edit])
    }

    /// What an image consists of, in words.
    pub(super) fn words(&self) -> String {
        format!("then {}", self.apply)
    }
}

/// How a statement on `relation` is evaluated once.
///
/// # Errors
/// `0A000`: why it can't be.
pub(super) fn plan(query: &Query<'_>, relation: &Relation, block: &Block) -> Result<Images> {
    let (image, apply) = match &block.kind {
        BlockKind::Insert(insert) => of_insert(relation, &insert.conflict_assigns)?,
        BlockKind::Update(assigned) => of_update(relation, assigned)?,
        _ => {
            let keys = keys(relation)?;
            let apply = format!(
                "DELETE FROM {} WHERE {}",
                full_name(relation),
                by_key(&keys, 1)
            );
            (keys, apply)
        }
    };
    let alias = block
        .sources
        .first()
        .and_then(|source| source.alias.as_ref());
    let alias = quote_identifier(alias.unwrap_or(&relation.name));
    let returned = returned(query, relation, block)?;
    let mut behind = String::from(if returned.is_some() {
        ","
    } else {
        " RETURNING"
    });
    for (index, column) in image.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(behind, "{comma} {alias}.{}", quote_identifier(&column.name));
    }
    Ok(Images {
        types: image
            .iter()
            .map(|column| wire_type(column.type_oid))
            .collect(),
        returned: returned.unwrap_or(0),
        behind,
        apply,
    })
}

fn of_insert<'a>(
    relation: &'a Relation,
    conflict_assigns: &[String],
) -> Result<(Vec<&'a TableColumn>, String)> {
    let columns = relation.columns.iter().filter(|column| !column.generated);
    let columns: Vec<&TableColumn> = columns.collect();
    if columns.is_empty() {
        return Err(no_images(relation, "The table has no columns to insert."));
    }
    let names: Vec<String> = columns
        .iter()
        .map(|one| quote_identifier(&one.name))
        .collect();
    let values: Vec<String> = (1..=columns.len())
        .map(|number| format!("${number}"))
        .collect();
    let mut apply = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
        full_name(relation),
        names.join(", "),
        values.join(", ")
    );
    if !conflict_assigns.is_empty() {
        check_assigned(relation, conflict_assigns)?;
        let keys = keys(relation)?;
        let keys: Vec<String> = keys.iter().map(|one| quote_identifier(&one.name)).collect();
        let changed = conflict_assigns.iter().map(|name| {
            let name = quote_identifier(name);
            format!("{name} = EXCLUDED.{name}")
        });
        let changed: Vec<String> = changed.collect();
        let _ = write!(
            apply,
            " ON CONFLICT ({}) DO UPDATE SET {}",
            keys.join(", "),
            changed.join(", ")
        );
    }
    Ok((columns, apply))
}

fn of_update<'a>(
    relation: &'a Relation,
    assigned: &[String],
) -> Result<(Vec<&'a TableColumn>, String)> {
    check_assigned(relation, assigned)?;
    let keys = keys(relation)?;
    let mut image = Vec::new();
    let mut sets = Vec::new();
    for column in &relation.columns {
        if assigned.contains(&column.name) && !column.generated {
            image.push(column);
            sets.push(format!(
                "{} = ${}",
                quote_identifier(&column.name),
                image.len()
            ));
        }
    }
    if let (true, Some(key)) = (sets.is_empty(), keys.first()) {
        // Generated columns only, or none that there is: PostgreSQL will say so.
        let key = quote_identifier(&key.name);
        sets.push(format!("{key} = {key}"));
    }
    let apply = format!(
        "UPDATE {} SET {} WHERE {}",
        full_name(relation),
        sets.join(", "),
        by_key(&keys, image.len() + 1)
    );
    image.extend(keys);
    Ok((image, apply))
}

/// Refuses assignments by which a row could not be found again, or not be given its value.
fn check_assigned(relation: &Relation, assigned: &[String]) -> Result<()> {
    for name in assigned {
        if relation.primary_key.contains(name) {
            return Err(no_images(
                relation,
                format!(
                    "It is evaluated once, and its rows are found on the other shards by their primary \
                     key, of which it assigns column \"{name}\"."
                ),
            ));
        }
        let column = relation.column(name);
        if column.is_some_and(|(_, one)| one.default.identity == Some(Identity::Always)) {
            return Err(no_images(
                relation,
                format!(
                    "Column \"{name}\" is GENERATED ALWAYS, and can't be given the same value again."
                ),
            ));
        }
    }
    Ok(())
}

/// The columns of the primary key.
fn keys(relation: &Relation) -> Result<Vec<&TableColumn>> {
    let columns = relation
        .primary_key
        .iter()
        .filter_map(|name| relation.column(name));
    let columns: Vec<&TableColumn> = columns.map(|(_, column)| column).collect();
    if columns.is_empty() {
        return Err(no_images(
            relation,
            "It has to be evaluated once, and the table has no primary key by which its rows could be \
             found on the other shards.",
        ));
    }
    Ok(columns)
}

/// The condition that finds a row by its key, whose first value is parameter `first`.
fn by_key(keys: &[&TableColumn], first: usize) -> String {
    let terms = keys
        .iter()
        .enumerate()
        .map(|(index, column)| format!("{} = ${}", quote_identifier(&column.name), first + index));
    terms.collect::<Vec<_>>().join(" AND ")
}

/// The type under which a value travels in binary format; 0 if it travels as text, because the format
/// names objects of one server, or because the type is not PostgreSQL's own.
fn wire_type(type_oid: u32) -> u32 {
    match type_oid {
        // regproc and its like, xml, aclitem, pg_node_tree; and arrays of them.
        24 | 142 | 143 | 194 | 1008 | 1033 | 1034 | 2202..=2211 | 2249 | 2287 | 3614..=3645 => 0,
        3734 | 3735 | 3769 | 3770 | 4089..=4097 | 4191 | 4192 => 0,
        own if own < FIRST_USER_OID => own,
        _ => 0,
    }
}

/// How many columns the client's RETURNING has; none if there is none.
fn returned(query: &Query<'_>, relation: &Relation, block: &Block) -> Result<Option<usize>> {
    let text = query.request.text;
    let mut depth = 0_usize;
    let mut items: Option<Vec<&[Token]>> = None;
    let mut start = 0;
    for (index, token) in query.body.iter().enumerate() {
        match token.text(text) {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            "," => {
                if let Some(items) = &mut items {
                    items.push(query.body.get(start..index).unwrap_or_default());
                    start = index + 1;
                }
            }
            _ if items.is_none() && token.is_word(text, "returning") => {
                items = Some(Vec::new());
                start = index + 1;
            }
            _ => {}
        }
    }
    let Some(mut items) = items else {
        return Ok(None);
    };
    items.push(query.body.get(start..).unwrap_or_default());
    let uncounted = || {
        no_images(
            relation,
            "It has to be evaluated once, and how many columns it returns is not known.",
        )
    };
    let mut count = 0;
    for item in items {
        count += columns_of(item, text, relation, block).ok_or_else(uncounted)?;
    }
    Ok(Some(count))
}

/// How many columns an item of RETURNING is; none if that is not known.
fn columns_of(item: &[Token], text: &str, relation: &Relation, block: &Block) -> Option<usize> {
    let is_star = |token: &Token| token.text(text) == "*";
    let all = relation.columns.len();
    let target = block.sources.first()?;
    let name = target.alias.as_ref().unwrap_or(&relation.name);
    match item {
        [first, ..] if first.is_word(text, "with") => None,
        [star] if is_star(star) => (block.sources.len() == 1).then_some(all),
        [of, dot, star] if is_star(star) && dot.is_symbol(text, ".") => {
            let of = identifier_value(text, of)?;
            (of == name.as_str()).then_some(all)
        }
        [.., last] if is_star(last) => None,
        [] => None,
        _ => Some(1),
    }
}
