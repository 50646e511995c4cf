//! `shardwire explain`: where a statement would run, and how.

mod offline;

use std::fmt::Write;
use std::path::Path;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::Database;
use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::Parameters;
use crate::plan::Plan;
use crate::plan::Request;
use crate::plan::Target;
use crate::plan::plan;
use crate::plan::spell_out;
use crate::sharding::ShardSet;
use crate::sql::encoding::Encoding;
use crate::sql::lexer::tokenize;
use crate::sql::shape::Shape;
use crate::sql::shape::scan;
use crate::sql::splice::splice;
use crate::sql::token::LexOptions;
use crate::sql::token::TokenKind;
use crate::sql::token::slice;
use crate::sqlstate::SqlState;
use crate::topology::Dialer;
use crate::topology::catalog;

use super::check::Outcome;

/// Exit codes.
const SERVED: u8 = 0;
const REFUSED: u8 = 1;
const UNREADABLE: u8 = 2;

/// What is asked on the command line.
#[derive(Clone, Debug)]
pub struct Asked {
    /// One or several statements.
    pub sql: String,
    /// The database; may be left out where there is one.
    pub database: Option<String>,
    /// Ask no server: columns have the types that [`offline`] supposes.
    pub offline: bool,
}

/// The whole command. Its exit code is 1 if a statement is refused, and 2 if the file, the servers or the
/// text can't be read.
pub async fn command(path: &Path, env: &dyn Fn(&str) -> Option<String>, asked: &Asked) -> Outcome {
    let config = match Config::load(path, env) {
        Ok(config) => config,
        Err(problems) => {
            return Outcome {
                text: format!("{problems}\n"),
                code: UNREADABLE,
            };
        }
    };
    match explain(&config, asked).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome {
            text: said(&error),
            code: UNREADABLE,
        },
    }
}

async fn explain(config: &Config, asked: &Asked) -> Result<Outcome> {
    let database = named(config, asked.database.as_deref())?;
    let mut explanation = String::new();
    let mut code = SERVED;
    let catalog = match asked.offline {
        true => {
            explanation.push_str(offline::NOTE);
            offline::catalog(database, &asked.sql)
        }
        false => {
            let dialer = Dialer::new(&database.backend, config.timeouts.connect)?;
            catalog(database, &dialer).await.map_err(|error| {
                let message = "the tables could not be looked at";
                Error::new(SqlState::SYSTEM_ERROR, message)
                    .detail(format!("Reason: {error}."))
                    .hint("shardwire check says what is wrong; --offline asks no server.")
            })?
        }
    };
    let mut shape = Shape::default();
    scan(asked.sql.as_bytes(), LexOptions::default(), &mut shape)
        .map_err(|error| error.to_error(asked.sql.as_bytes()))?;
    let parse_bytes = usize::try_from(config.limits.query_parse_bytes).unwrap_or(usize::MAX);
    for statement in &shape.statements {
        let text = slice(&asked.sql, statement.clone());
        match explained(&catalog, text, parse_bytes) {
            Ok(lines) => explanation.push_str(&lines),
            Err(error) => {
                explanation.push_str(&said(&error));
                code = REFUSED;
            }
        }
    }
    Ok(Outcome {
        text: explanation,
        code,
    })
}

fn named<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Database> {
    let found = match name {
        Some(name) => config.databases.get(name),
        None if config.databases.len() == 1 => config.databases.values().next(),
        None => None,
    };
    found.map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<&str> = config.databases.keys().map(String::as_str).collect();
        let message = match name {
            Some(name) => format!("database \"{name}\" does not exist"),
            None => "the file has several databases".to_owned(),
        };
        Error::new(SqlState::INVALID_CATALOG_NAME, message).hint(format!(
            "Name one of them with --database: {}.",
            names.join(", ")
        ))
    })
}

/// The plan of a statement and the shards of this text.
fn explained(catalog: &Catalog, text: &str, parse_bytes: usize) -> Result<String> {
    let planned = Planned::new(catalog, text, parse_bytes)?;
    let mut lines = String::new();
    let tree = planned.plan.tree(catalog.shards()).to_string();
    for line in tree.lines() {
        let line = spell_out(line, (&planned.text, &planned.shape.literals));
        let _ = writeln!(lines, "{line}");
    }
    if planned.has_parameters() {
        return Ok(lines);
    }
    let target = planned.plan.target(&Arguments {
        text: &planned.text,
        literals: &planned.shape.literals,
        parameters: Parameters::none(),
        encoding: Encoding::Utf8,
    })?;
    let name = |shard: usize| catalog.shards().get(shard).map_or("?", String::as_str);
    let several = |shards: &ShardSet| {
        let names: Vec<&str> = shards.iter().map(name).collect();
        format!("shards {}", names.join(", "))
    };
    let place = match target {
        Target::Any => "any shard".to_owned(),
        Target::Combine | Target::Change => return Ok(lines),
        Target::One(shard) => format!("shard {}", name(shard)),
        Target::Fill | Target::Feed | Target::Staged => "the shards of its rows".to_owned(),
        Target::Replicated => "every shard, the first one first".to_owned(),
        Target::Computed => "shards of the rows".to_owned(),
        Target::Rows(placed) => several(&placed.shards()),
        Target::Many(shards) => several(&shards),
    };
    let _ = writeln!(lines, "->  {place}");
    Ok(lines)
}

/// A statement and its plan.
struct Planned {
    text: String,
    shape: Shape,
    plan: Plan,
}

impl Planned {
    fn new(catalog: &Catalog, text: &str, parse_bytes: usize) -> Result<Planned> {
        let planned = Planned::of(catalog, text.to_owned(), parse_bytes)?;
        let edits = planned.plan.rewording(text, LexOptions::default())?;
        if edits.is_empty() {
            return Ok(planned);
        }
        let expanded = splice(text, LexOptions::default(), &edits)?;
        Planned::of(catalog, expanded, parse_bytes)
    }

    fn of(catalog: &Catalog, text: String, parse_bytes: usize) -> Result<Planned> {
        let mut shape = Shape::default();
        scan(text.as_bytes(), LexOptions::default(), &mut shape)
            .map_err(|error| error.to_error(text.as_bytes()))?;
        let plan = plan(&Request {
            text: &text,
            shape: &shape,
            lex: LexOptions::default(),
            parse_bytes,
            parameter_types: &[],
            search_path: catalog.default_search_path(),
            is_template: false,
            temporary_tables: false,
            by_key: false,
            catalog,
        });
        Ok(Planned { text, shape, plan })
    }

    fn has_parameters(&self) -> bool {
        let tokens = tokenize(self.text.as_bytes(), LexOptions::default()).unwrap_or_default();
        let mut tokens = tokens.iter();
        tokens.any(|token| token.kind == TokenKind::Parameter)
    }
}

/// An error as psql shows it.
fn said(error: &Error) -> String {
    let fields = error.fields();
    let mut words = format!("ERROR:  {}: {}\n", fields.code, fields.message);
    if let Some(detail) = &fields.detail {
        let _ = writeln!(words, "DETAIL:  {detail}");
    }
    if let Some(hint) = &fields.hint {
        let _ = writeln!(words, "HINT:  {hint}");
    }
    words
}
