//! Catalogues of tests, from a few lines of text.

use crate::catalog::Catalog;
use crate::catalog::Problem;
use crate::catalog::RawCatalog;
use crate::catalog::RawColumn;
use crate::catalog::RawDefault;
use crate::catalog::RawForeignKey;
use crate::catalog::RawFunction;
use crate::catalog::RawRelation;
use crate::catalog::RawTrigger;
use crate::config::Config;
use crate::plan::Arguments;
use crate::plan::Parameters;
use crate::plan::Plan;
use crate::plan::Request;
use crate::plan::plan;
use crate::sql::encoding::Encoding;
use crate::sql::shape::Shape;
use crate::sql::shape::scan;
use crate::sql::token::LexOptions;

/// A catalogue and the session it is used from.
pub struct Fixture {
    pub catalog: Catalog,
    pub search_path: Vec<String>,
    pub temporary_tables: bool,
    pub parse_bytes: usize,
    /// `shardwire.shard_key` of the session.
    pub session_key: Vec<String>,
}

/// Functions of `pg_catalog`, by volatility and kind.
const BUILTINS: [(char, char, &str); 8] = [
    (
        'i',
        'f',
        "abs lower upper length substr replace round trunc ceil floor mod md5 left right repeat \
         array_length cardinality jsonb_array_elements json_array_elements regexp_replace \
         split_part date_part timezone range_merge int4 int8 text generate_series make_date xpath \
         ts_rewrite hashint8extended pg_size_pretty array_append strpos",
    ),
    (
        's',
        'f',
        "now to_char date_trunc concat format age to_jsonb row_to_json current_setting \
         pg_get_userbyid inet_server_addr version current_database pg_relation_size has_table_privilege \
         pg_table_is_visible format_type obj_description pg_get_expr array_to_string to_timestamp \
         transaction_timestamp statement_timestamp current_schemas txid_current_snapshot \
         pg_total_relation_size pg_typeof pg_get_viewdef to_regclass col_description currtid2 table_to_xml schema_to_xml",
    ),
    (
        'v',
        'f',
        "random clock_timestamp timeofday gen_random_uuid pg_sleep nextval setval currval lastval \
         set_config setseed pg_advisory_lock pg_advisory_unlock pg_try_advisory_lock \
         pg_advisory_xact_lock pg_notify lo_create loread pg_terminate_backend pg_backend_pid \
         pg_cancel_backend pg_logical_emit_message txid_current query_to_xml ts_stat",
    ),
    (
        'i',
        'a',
        "count sum avg min max array_agg string_agg jsonb_agg bool_and percentile_cont bool_or \
         every bit_and bit_or bit_xor",
    ),
    ('i', 'w', "row_number rank lag lead ntile first_value"),
    ('s', 'a', "json_agg"),
    ('v', 'p', "dummy_procedure"),
    ('s', 'f', "to_date json_build_object jsonb_build_object"),
];

impl Fixture {
    /// Reads a schema. Lines:
    ///
    /// ```text
    /// shards s0 s1
    /// table users(user_id bigint, name text): shard_key user_id
    /// table products(id bigint seq): replicated | shard s1 | home
    /// partition users_1 of users
    /// view v(id bigint) of users, products as SELECT users.id FROM public.users
    /// function f volatile plpgsql
    /// rule missing shard s1
    /// wildcard shard_key tenant_id
    /// path app, public
    /// temporary tables
    /// key 42, 7
    /// ```
    pub fn parse(text: &str) -> (Fixture, Vec<Problem>) {
        let mut reader = Reader::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            reader.line(line);
        }
        reader.finish()
    }

    /// Plans a statement whose parameters have these declared types.
    pub fn plan(&self, text: &str, parameter_types: &[u32]) -> Plan {
        let shape = self.shape(text);
        plan(&Request {
            text,
            shape: &shape,
            lex: LexOptions::default(),
            parse_bytes: self.parse_bytes,
            parameter_types,
            search_path: &self.search_path,
            is_template: false,
            temporary_tables: self.temporary_tables,
            by_key: !self.session_key.is_empty(),
            catalog: &self.catalog,
        })
    }

    /// What is evaluated before rows are placed.
    fn expressions(&self, plan: &Plan, arguments: &Arguments<'_>) -> String {
        let expressions = plan.insertion().unwrap().expressions(arguments).unwrap();
        let (edits, _) = crate::plan::together(arguments.text, &expressions.list);
        crate::sql::splice::edited(arguments.text, &edits)
    }

    /// What each shard is sent of an INSERT.
    fn parts(&self, placed: &crate::plan::Placed, text: &str) -> String {
        let parts = placed.parts(text).into_iter();
        let lines = parts.map(|part| {
            let shard = &self.catalog.shards()[part.shard];
            let with = match part.parameters.as_slice() {
                [] => String::new(),
                kept => format!(" with {kept:?}"),
            };
            format!("{shard}: {}{with}", part.text)
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    pub fn shape(&self, text: &str) -> Shape {
        let mut shape = Shape::default();
        let _ = scan(text.as_bytes(), LexOptions::default(), &mut shape);
        shape
    }

    /// Where an execution of a planned statement runs, in words.
    pub fn target(&self, plan: &Plan, text: &str, parameters: Parameters<'_>) -> String {
        let shape = self.shape(text);
        let mut parameters = parameters;
        parameters.session_key = &self.session_key;
        let arguments = Arguments {
            text,
            literals: &shape.literals,
            parameters,
            encoding: Encoding::Utf8,
        };
        match plan.target(&arguments) {
            Ok(crate::plan::Target::Any) => "any shard".to_owned(),
            Ok(crate::plan::Target::Change) => "several steps".to_owned(),
            Ok(crate::plan::Target::Combine) => "a hub".to_owned(),
            Ok(crate::plan::Target::Fill) => "filled first".to_owned(),
            Ok(crate::plan::Target::Feed) => "fed first".to_owned(),
            Ok(crate::plan::Target::Staged) => "one part behind the other".to_owned(),
            Ok(crate::plan::Target::Replicated) => "every shard".to_owned(),
            Ok(crate::plan::Target::Computed) => self.expressions(plan, &arguments),
            Ok(crate::plan::Target::Rows(placed)) => self.parts(&placed, text),
            Ok(crate::plan::Target::One(shard)) => self.catalog.shards()[shard].clone(),
            Ok(crate::plan::Target::Many(shards)) => {
                let names: Vec<&str> = shards
                    .iter()
                    .map(|shard| self.catalog.shards()[shard].as_str())
                    .collect();
                names.join(" + ")
            }
            Err(error) => {
                let fields = error.fields();
                let detail = fields.detail.as_deref().unwrap_or_default();
                format!("{}: {} ({detail})", fields.code, fields.message)
            }
        }
    }
}

#[derive(Default)]
struct Reader {
    shards: Vec<String>,
    tables: Vec<String>,
    raw: RawCatalog,
    path: Vec<String>,
    temporary_tables: bool,
    session_key: Vec<String>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let (word, rest) = line.trim().split_once(' ').unwrap();
        match word {
            "shards" => self.shards = rest.split(' ').map(str::to_owned).collect(),
            "table" => {
                let (definition, rule) = rest.split_once("): ").unwrap();
                let name = self.relation(&format!("{definition})"), 'r');
                self.rule(&name, rule.trim());
            }
            "partition" => {
                let (name, parent) = rest.split_once(" of ").unwrap();
                let parent = self.raw.relations[self.position(parent)].clone();
                self.relation(&format!("{name}()"), 'r');
                let child = self.raw.relations.last_mut().unwrap();
                child.parent = Some(parent.oid);
                child.columns = parent.columns;
            }
            "view" => {
                let (definition, reads) = rest.split_once(" of ").unwrap();
                let (reads, query) = match reads.split_once(" as ") {
                    Some((reads, query)) => (reads, Some(query.to_owned())),
                    None => (reads, None),
                };
                self.relation(definition, 'v');
                let oid = self.raw.relations.last().unwrap().oid;
                let definitions = self.raw.definitions.get_or_insert_default();
                definitions.extend(query.map(|query| (oid, query)));
                let reads = reads.split(", ").filter(|name| *name != "nothing");
                let reads = reads
                    .map(|name| self.raw.relations[self.position(name)].oid)
                    .collect();
                self.raw.relations.last_mut().unwrap().depends_on = reads;
            }
            "with" => {
                let (what, name) = rest.split_once(" on ").unwrap();
                let position = self.position(name);
                let relation = &mut self.raw.relations[position];
                let hazards = &mut relation.hazards;
                hazards.has_rules |= what == "rules";
                hazards.row_security |= what == "policies";
                if what == "triggers" {
                    self.trigger("audit of 31", name);
                }
            }
            "function" => self.user_function(rest),
            "trigger" => {
                let (what, name) = rest.split_once(" on ").unwrap();
                self.trigger(what, name);
            }
            "refers" => self.refers(rest),
            "rule" => {
                let (name, rule) = rest.split_once(' ').unwrap();
                self.rule(name, rule);
            }
            "wildcard" => self.rule("\"*\"", rest),
            "path" => self.path = rest.split(", ").map(str::to_owned).collect(),
            "temporary" => self.temporary_tables = true,
            "key" => self.session_key = rest.split(", ").map(str::to_owned).collect(),
            other => panic!("unknown line: {other}"),
        }
    }

    fn user_function(&mut self, definition: &str) {
        let (definition, source) = match definition.split_once(" as ") {
            Some((definition, source)) => (definition, Some(source.to_owned())),
            None => (definition, None),
        };
        let words: Vec<&str> = definition.split(' ').collect();
        let (kind, language) = match words[2] {
            "aggregate" => ('a', "internal"),
            language => ('f', language),
        };
        self.function("public", words[0], &words[1][..1], kind, language);
        if source.is_some() {
            self.raw.functions.last_mut().unwrap().source = source;
        }
    }

    fn trigger(&mut self, what: &str, name: &str) {
        let (function, kind) = what.split_once(" of ").unwrap();
        let position = self.position(name);
        let hazards = &mut self.raw.relations[position].hazards;
        hazards.triggers.push(RawTrigger {
            kind: kind.parse().unwrap(),
            schema: "public".to_owned(),
            function: function.to_owned(),
            is_guarded: false,
            has_transitions: false,
        });
    }

    fn refers(&mut self, rest: &str) {
        let (table, rest) = rest.split_once(" to ").unwrap();
        let (referenced, action) = rest.split_once(' ').unwrap();
        let action = action.chars().next().unwrap();
        let key = RawForeignKey {
            oid: 0,
            table: self.raw.relations[self.position(table)].oid,
            name: "key".to_owned(),
            referenced: self.raw.relations[self.position(referenced)].oid,
            columns: Vec::new(),
            referenced_columns: Vec::new(),
            actions: (action, action),
        };
        self.raw.foreign_keys.push(key);
    }

    fn position(&self, name: &str) -> usize {
        let found = self
            .raw
            .relations
            .iter()
            .position(|relation| relation.name == name);
        found.unwrap_or_else(|| panic!("no relation {name}"))
    }

    fn rule(&mut self, name: &str, rule: &str) {
        let rule = match rule.split_once(' ') {
            None if rule == "home" => return,
            None => "replicated: true".to_owned(),
            Some((key, value)) => format!("{key}: {value}"),
        };
        self.tables.push(format!("      {name}: {{ {rule} }}"));
    }

    fn relation(&mut self, definition: &str, kind: char) -> String {
        let (name, columns) = definition.split_once('(').unwrap();
        let columns = columns.rsplit_once(')').unwrap().0;
        let (schema, relation) = name.split_once('.').unwrap_or(("public", name));
        self.raw.relations.push(RawRelation {
            oid: 16_384 + u32::try_from(self.raw.relations.len()).unwrap(),
            schema: schema.to_owned(),
            name: relation.to_owned(),
            kind,
            columns: columns
                .split(", ")
                .filter(|column| !column.is_empty())
                .map(column)
                .collect(),
            primary_key: columns
                .split(", ")
                .filter(|column| column.split(' ').any(|word| word == "pk"))
                .filter_map(|column| column.split(' ').next())
                .map(str::to_owned)
                .collect(),
            ..RawRelation::default()
        });
        name.to_owned()
    }

    fn function(&mut self, schema: &str, name: &str, volatility: &str, kind: char, language: &str) {
        self.raw.functions.push(RawFunction {
            schema: schema.to_owned(),
            name: name.to_owned(),
            volatility: volatility.chars().next().unwrap(),
            kind,
            language: language.to_owned(),
            returns_set: name == "generate_series",
            takes_row: false,
            is_tree: false,
            arguments: Vec::new(),
            // As of a body that is no text, and that names no table.
            source: volatility.starts_with('i').then(String::new),
        });
    }

    fn finish(mut self) -> (Fixture, Vec<Problem>) {
        for (volatility, kind, names) in BUILTINS {
            for name in names.split_whitespace() {
                self.function(
                    "pg_catalog",
                    name,
                    &volatility.to_string(),
                    kind,
                    "internal",
                );
            }
        }
        self.raw.relations.push(RawRelation {
            oid: 1,
            schema: "public".to_owned(),
            name: "numbers".to_owned(),
            kind: 'S',
            ..RawRelation::default()
        });
        self.raw.default_search_path = vec!["public".to_owned()];
        self.raw.bytewise = true;
        let mut yaml = "
listen: 127.0.0.1:6432
auth: { method: trust }
databases:
  shop:
    backend: { database: shop, user: shop }
    shards:
"
        .to_owned();
        for (index, shard) in self.shards.iter().enumerate() {
            yaml += &format!(
                "      - {{ name: {shard}, servers: [10.0.0.{}:5432] }}\n",
                index + 1
            );
        }
        if !self.tables.is_empty() {
            yaml += &format!("    tables:\n{}\n", self.tables.join("\n"));
        }
        let config =
            Config::parse(&yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
        let (catalog, problems) = Catalog::build(1, &self.raw, &config.databases["shop"]);
        let fixture = Fixture {
            catalog,
            search_path: if self.path.is_empty() {
                vec!["public".to_owned()]
            } else {
                self.path
            },
            temporary_tables: self.temporary_tables,
            parse_bytes: 1 << 20,
            session_key: self.session_key,
        };
        (fixture, problems)
    }
}

fn column(definition: &str) -> RawColumn {
    let words: Vec<&str> = definition.split(' ').collect();
    let type_oid = match words[1] {
        "smallint" => 21,
        "int" => 23,
        "bigint" => 20,
        "text" | "ci" | "icu" => 25,
        "varchar" => 1043,
        "bpchar" => 1042,
        "uuid" => 2950,
        "date" => 1082,
        "timestamp" => 1114,
        "timestamptz" => 1184,
        "numeric" => 1700,
        "bool" => 16,
        "jsonb" => 3802,
        "bytea" => 17,
        "float" => 701,
        "interval" => 1186,
        other => panic!("unknown type {other}"),
    };
    let varying = ["seq", "varying", "now", "custom"];
    let varies = varying.iter().any(|word| words.contains(word));
    RawColumn {
        name: words[0].to_owned(),
        type_oid,
        typmod: -1,
        collation_deterministic: words[1] != "ci",
        bytewise: !matches!(words[1], "ci" | "icu"),
        own_collation: matches!(words[1], "ci" | "icu"),
        not_null: false,
        generated: words.contains(&"generated"),
        identity: match words.contains(&"always") {
            true => Some('a'),
            false => None,
        },
        default: RawDefault {
            exists: varies,
            draws: words.contains(&"seq"),
            varies,
            of_statement: words.contains(&"now"),
            of_users: words.contains(&"custom"),
            sequence: words.contains(&"seq").then_some(1),
        },
    }
}
