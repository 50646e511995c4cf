//! What the tokens of a statement name, for what is not parsed and as a check on what is.

use std::borrow::Cow;

use crate::catalog::Location;
use crate::catalog::Lookup;
use crate::error::Result;
use crate::plan::conduct::Conduct;
use crate::plan::effects;
use crate::plan::effects::Effects;
use crate::plan::query::FIRST_SHARD;
use crate::plan::refusal;
use crate::plan::statement::Part;
use crate::sharding::ShardIndex;
use crate::sql::analysis::Facts;
use crate::sql::analysis::Name;
use crate::sql::literal::identifier_value;
use crate::sql::relations::relations;
use crate::sql::token::Token;
use crate::sql::token::TokenKind;

/// The words that start PostgreSQL's statements.
const COMMANDS: [&str; 54] = [
    "abort",
    "alter",
    "analyze",
    "analyse",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "fetch",
    "grant",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "repack",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "show",
    "start",
    "table",
    "truncate",
    "unlisten",
    "update",
    "vacuum",
    "values",
    "with",
];

/// The words that stand before the name of a relation.
const BEFORE_RELATION: [&str; 7] = ["from", "join", "into", "update", "using", "table", "only"];

/// Whether a token starts a statement.
pub(super) fn is_command(part: Part<'_>, token: &Token) -> bool {
    let text = part.request.text;
    token.is_symbol(text, "(") || COMMANDS.iter().any(|command| token.is_word(text, command))
}

/// The statement's first words, as a name for it.
pub(super) fn command(part: Part<'_>) -> String {
    let words = part
        .tokens
        .iter()
        .take_while(|token| token.kind == TokenKind::Word);
    let text = part.request.text;
    let takes_object = |word: &str| {
        [
            "create", "alter", "drop", "comment", "prepare", "commit", "rollback", "refresh",
        ]
        .iter()
        .any(|verb| word.eq_ignore_ascii_case(verb))
    };
    let mut words = words.map(|token| token.text(text));
    match (words.next(), words.next()) {
        (Some(verb), Some(object)) if takes_object(verb) => {
            format!(
                "{} {}",
                verb.to_ascii_uppercase(),
                object.to_ascii_uppercase()
            )
        }
        (Some(verb), _) => verb.to_ascii_uppercase(),
        _ => "this statement".to_owned(),
    }
}

/// Whether the statement may reach beyond the tables it names.
pub(super) fn cascades(part: Part<'_>) -> bool {
    let text = part.request.text;
    part.tokens
        .iter()
        .any(|token| token.is_word(text, "cascade"))
}

/// The shard of the home tables that a statement names; none if it names none.
///
/// # Errors
/// A table that is not at home, or tables of several shards.
pub(super) fn home(part: Part<'_>, what: &str) -> Result<Option<ShardIndex>> {
    let mut home = None;
    for name in relations(part.request.text, part.tokens) {
        let lookup = part.request.catalog.relation(
            name.schema.as_deref(),
            &name.name,
            part.request.search_path,
        );
        let shard = match lookup {
            Lookup::Relation(relation) => match &relation.location {
                Location::Home(shard) => *shard,
                _ => return Err(refusal::everywhere(what)),
            },
            Lookup::Temporary => FIRST_SHARD,
            Lookup::Unknown {
                configured: true, ..
            } => return Err(refusal::everywhere(what)),
            // A name of anything, unless the configuration gives it a home elsewhere.
            Lookup::Unknown { home, .. } if home != FIRST_SHARD => home,
            Lookup::System | Lookup::Unknown { .. } => continue,
        };
        if home.is_some_and(|home| home != shard) {
            return Err(refusal::several_homes());
        }
        home = Some(shard);
    }
    Ok(home)
}

/// Names that stand where only relations stand, with their schema.
fn after_keywords<'a>(part: Part<'a>) -> impl Iterator<Item = Name> + 'a {
    let text = part.request.text;
    part.tokens
        .windows(2)
        .enumerate()
        .filter_map(move |(index, pair)| {
            let [keyword, first] = pair else { return None };
            let expected = BEFORE_RELATION
                .iter()
                .any(|word| keyword.is_word(text, word));
            let name = expected.then(|| name_of(text, first)).flatten()?;
            let dot = part
                .tokens
                .get(index + 2)
                .is_some_and(|token| token.is_symbol(text, "."));
            let second = part
                .tokens
                .get(index + 3)
                .and_then(|token| name_of(text, token));
            // A function is no relation.
            let behind = if dot { index + 4 } else { index + 2 };
            if part
                .tokens
                .get(behind)
                .is_some_and(|token| token.is_symbol(text, "("))
            {
                return None;
            }
            Some(match (dot, second) {
                (true, Some(second)) => Name {
                    schema: Some(name),
                    name: second,
                },
                _ => Name { schema: None, name },
            })
        })
}

fn name_of(text: &str, token: &Token) -> Option<String> {
    identifier_value(text, token).map(Cow::into_owned)
}

/// Whether the analysis has found every relation of the catalogue that stands where only relations
/// stand: a net under the parser.
pub(super) fn all_known(part: Part<'_>, facts: &Facts) -> bool {
    after_keywords(part).all(|name| {
        let known = |found: &Name| {
            found.name == name.name
                && (found.schema == name.schema || found.schema.is_none() || name.schema.is_none())
        };
        facts.relations().any(known)
            || facts.created.iter().any(known)
            || facts.ctes.contains(&name.name)
            || !matches!(
                part.request.catalog.relation(
                    name.schema.as_deref(),
                    &name.name,
                    part.request.search_path
                ),
                Lookup::Relation(_)
            )
    })
}

/// Whether a query over several shards names a relation that the catalogue does not know.
pub(super) fn unknown(part: Part<'_>, facts: &Facts) -> bool {
    let catalog = part.request.catalog;
    part.is_sharded()
        && facts.relations().any(|name| {
            let schema = name.schema.as_deref();
            let lookup = catalog.relation(schema, &name.name, part.request.search_path);
            matches!(lookup, Lookup::Unknown { .. }) && !facts.ctes.contains(&name.name)
        })
}

/// Whether a name stands where only a relation stands and is not known to the catalogue.
pub(super) fn unknown_relation(part: Part<'_>) -> Option<Name> {
    after_keywords(part).find(|name| {
        matches!(
            part.request.catalog.relation(
                name.schema.as_deref(),
                &name.name,
                part.request.search_path
            ),
            Lookup::Unknown { .. }
        )
    })
}

/// The first name of a field that may be a call of a function with effects of `wanted`.
pub(super) fn field_call(part: Part<'_>, wanted: Effects) -> Option<String> {
    let text = part.request.text;
    let conduct = Conduct::new(part.request.catalog);
    let fields = part.tokens.windows(2).filter_map(|pair| match pair {
        [dot, name] if dot.is_symbol(text, ".") => name_of(text, name),
        _ => None,
    });
    let mut fields = fields.filter(|name| conduct.field(name).any(wanted));
    fields.next()
}

/// The calls behind operators and types that have effects. A name may be of a type wherever it stands.
pub(super) fn hidden_calls(part: Part<'_>) -> Vec<(String, Effects)> {
    let (text, catalog) = (part.request.text, part.request.catalog);
    if !catalog.has_hidden_calls() {
        return Vec::new();
    }
    let conduct = Conduct::new(catalog);
    let marks = part.all.iter().map(|token| {
        let name = identifier_value(text, token);
        name.unwrap_or(Cow::Borrowed(token.text(text)))
    });
    let calls = marks.map(|mark| {
        let effects = conduct.behind(&mark, 0);
        (mark.into_owned(), effects)
    });
    calls
        .filter(|(_, effects)| *effects != Effects::NONE)
        .collect()
}

/// The effects of everything that looks like a call of a function that the catalogue knows, and the
/// name of the first with one of `wanted`.
pub(super) fn calls(part: Part<'_>, wanted: Effects) -> (Effects, Option<String>) {
    let text = part.request.text;
    let mut all = Effects::NONE;
    let mut first = None;
    for (mark, effects) in hidden_calls(part) {
        all |= effects;
        if first.is_none() && effects.any(wanted) {
            first = Some(mark);
        }
    }
    for (index, pair) in part.tokens.windows(2).enumerate() {
        let [token, open] = pair else { continue };
        if !open.is_symbol(text, "(") {
            continue;
        }
        let Some(name) = name_of(text, token) else {
            continue;
        };
        let token_before = |distance: usize| {
            index
                .checked_sub(distance)
                .and_then(|index| part.tokens.get(index))
        };
        let schema = token_before(1)
            .filter(|dot| dot.is_symbol(text, "."))
            .and_then(|_| token_before(2))
            .and_then(|schema| name_of(text, schema));
        let name = Name { schema, name };
        let effects = effects::of_call(part.request.catalog, part.request.search_path, &name, 2);
        if effects.any(Effects::UNKNOWN) {
            continue;
        }
        all |= effects;
        if first.is_none() && effects.any(wanted) {
            first = Some(name.name);
        }
    }
    (all, first)
}
