//! Says what a statement is from PostgreSQL's own parse tree, and from ours, in the same words.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::super::classify;
use super::super::setting_values;
use crate::sql::lexer::tokenize;
use crate::sql::statement::CopyDirection;
use crate::sql::statement::CopyEndpoint;
use crate::sql::statement::CopySource;
use crate::sql::statement::DdlObject;
use crate::sql::statement::DiscardTarget;
use crate::sql::statement::Fetch;
use crate::sql::statement::FetchDirection;
use crate::sql::statement::Query;
use crate::sql::statement::QueryKind;
use crate::sql::statement::ResetTarget;
use crate::sql::statement::SetScope;
use crate::sql::statement::SetValue;
use crate::sql::statement::Statement;
use crate::sql::statement::TokenRelation;
use crate::sql::statement::TransactionModes;
use crate::sql::token::LexOptions;
use crate::sql::token::slice;

/// What PostgreSQL makes of `text`: `None` if it is no single valid statement.
pub fn theirs(text: &str) -> Option<String> {
    let parsed = pg_query::parse(text).ok()?;
    let [statement] = parsed.protobuf.stmts.as_slice() else {
        return None;
    };
    describe(statement.stmt.as_ref()?.node.as_ref()?)
}

fn describe(node: &NodeEnum) -> Option<String> {
    Some(match node {
        NodeEnum::TransactionStmt(statement) => transaction(statement)?,
        NodeEnum::VariableSetStmt(statement) => variable(statement)?,
        NodeEnum::ConstraintsSetStmt(_) => "set constraints".to_owned(),
        NodeEnum::VariableShowStmt(statement) => format!("show {}", statement.name.to_lowercase()),
        NodeEnum::PrepareStmt(s) => format!("prepare {} {}", s.name, s.argtypes.len()),
        NodeEnum::ExecuteStmt(s) => format!("execute {} {}", s.name, s.params.len()),
        NodeEnum::DeallocateStmt(s) => format!("deallocate {:?}", (!s.isall).then_some(&s.name)),
        // SCROLL with NO SCROLL passes the grammar and fails behind it.
        NodeEnum::DeclareCursorStmt(s) if s.options & 6 == 6 => return None,
        NodeEnum::DeclareCursorStmt(s) => {
            let option = |bit| s.options & bit != 0;
            format!(
                "declare {} {} {} {} {}",
                s.portalname,
                option(0x20),
                option(1),
                option(2),
                option(4)
            )
        }
        NodeEnum::FetchStmt(s) => {
            let count = if s.how_many == i64::MAX {
                "all".to_owned()
            } else {
                s.how_many.to_string()
            };
            let verb = if s.ismove { "move" } else { "fetch" };
            format!("{verb} {} {} {count}", s.portalname, s.direction)
        }
        NodeEnum::ClosePortalStmt(s) => format!("close {}", s.portalname),
        NodeEnum::ListenStmt(s) => format!("listen {}", s.conditionname),
        NodeEnum::UnlistenStmt(s) => format!("unlisten {}", s.conditionname),
        NodeEnum::NotifyStmt(s) => format!("notify {}", s.conditionname),
        NodeEnum::DiscardStmt(s) => format!("discard {}", s.target),
        NodeEnum::CopyStmt(statement) => copy(statement),
        NodeEnum::ExplainStmt(statement) => explain(statement),
        NodeEnum::LockStmt(_) => "lock".to_owned(),
        NodeEnum::CallStmt(_) => "call".to_owned(),
        NodeEnum::DoStmt(_) => "do".to_owned(),
        NodeEnum::TruncateStmt(_) => "truncate".to_owned(),
        NodeEnum::VacuumStmt(_)
        | NodeEnum::ClusterStmt(_)
        | NodeEnum::ReindexStmt(_)
        | NodeEnum::CheckPointStmt(_)
        | NodeEnum::LoadStmt(_) => "maintenance".to_owned(),
        NodeEnum::SelectStmt(statement) => select(statement),
        NodeEnum::InsertStmt(_) => "insert".to_owned(),
        NodeEnum::UpdateStmt(_) => "update".to_owned(),
        NodeEnum::DeleteStmt(_) => "delete".to_owned(),
        NodeEnum::MergeStmt(_) => "merge".to_owned(),
        other => definition(other),
    })
}

fn definition(node: &NodeEnum) -> String {
    let temporary = |relation: &Option<pg::RangeVar>| {
        let relation = relation.as_ref();
        relation.is_some_and(|r| r.relpersistence == "t" || r.schemaname.starts_with("pg_temp"))
    };
    match node {
        NodeEnum::CreateStmt(s) => format!("create Table {}", temporary(&s.relation)),
        NodeEnum::CreateForeignTableStmt(_) => "create Table false".to_owned(),
        NodeEnum::ViewStmt(s) => format!("create View {}", temporary(&s.view)),
        NodeEnum::CreateSeqStmt(s) => format!("create Sequence {}", temporary(&s.sequence)),
        NodeEnum::IndexStmt(s) => format!("create Index concurrently {}", s.concurrent),
        NodeEnum::CreateTableAsStmt(s) => {
            let temporary = s.into.as_ref().is_some_and(|into| temporary(&into.rel));
            let object = if s.objtype() == pg::ObjectType::ObjectMatview {
                "MaterializedView"
            } else {
                "TableAs"
            };
            format!("create {object} {temporary}")
        }
        _ => "ddl".to_owned(),
    }
}

fn transaction(statement: &pg::TransactionStmt) -> Option<String> {
    use pg::TransactionStmtKind as Kind;
    let name = &statement.savepoint_name;
    Some(match statement.kind() {
        Kind::TransStmtBegin | Kind::TransStmtStart => {
            format!("begin {}", modes(&statement.options)?)
        }
        Kind::TransStmtCommit => format!("commit {}", statement.chain),
        Kind::TransStmtRollback => format!("rollback {}", statement.chain),
        Kind::TransStmtSavepoint => format!("savepoint {name}"),
        Kind::TransStmtRelease => format!("release {name}"),
        Kind::TransStmtRollbackTo => format!("rollback to {name}"),
        Kind::TransStmtPrepare => "prepare transaction".to_owned(),
        Kind::TransStmtCommitPrepared => "commit prepared".to_owned(),
        Kind::TransStmtRollbackPrepared => "rollback prepared".to_owned(),
        Kind::Undefined => return None,
    })
}

fn constant(node: &pg::Node) -> Option<String> {
    use pg::a_const::Val;
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => Some(match constant.val.as_ref()? {
            Val::Ival(value) => value.ival.to_string(),
            Val::Fval(value) => value.fval.clone(),
            Val::Sval(value) => value.sval.clone(),
            _ => return None,
        }),
        _ => None,
    }
}

fn modes(options: &[pg::Node]) -> Option<String> {
    let mut shown = [None, None, None];
    for option in options {
        let NodeEnum::DefElem(option) = option.node.as_ref()? else {
            return None;
        };
        let value = constant(option.arg.as_ref()?)?;
        let (at, value) = match option.defname.as_str() {
            "transaction_isolation" => (0, value),
            "transaction_read_only" => (1, (value == "1").to_string()),
            "transaction_deferrable" => (2, (value == "1").to_string()),
            _ => return None,
        };
        shown[at] = Some(value);
    }
    Some(format!("{shown:?}"))
}

fn variable(statement: &pg::VariableSetStmt) -> Option<String> {
    use pg::VariableSetKind as Kind;
    let name = statement.name.to_lowercase();
    let set = |value: String| format!("set {} {name} {value}", statement.is_local);
    Some(match statement.kind() {
        Kind::VarSetValue => {
            let values: Option<Vec<String>> = statement.args.iter().map(constant).collect();
            set(format!("{values:?}"))
        }
        Kind::VarSetDefault => set("default".to_owned()),
        Kind::VarSetCurrent => set("current".to_owned()),
        Kind::VarSetMulti if name == "transaction snapshot" => name,
        Kind::VarSetMulti if name == "session characteristics" && statement.is_local => {
            "other".to_owned()
        }
        Kind::VarSetMulti => format!("{name} {}", modes(&statement.args)?),
        Kind::VarReset => format!("reset {name}"),
        Kind::VarResetAll => "reset all".to_owned(),
        Kind::Undefined => return None,
    })
}

fn copy(statement: &pg::CopyStmt) -> String {
    let columns = statement
        .attlist
        .iter()
        .filter_map(|column| match column.node.as_ref()? {
            NodeEnum::String(name) => Some(name.sval.clone()),
            _ => None,
        });
    let columns: Vec<String> = columns.collect();
    let name = statement
        .relation
        .as_ref()
        .map(|r| (r.schemaname.clone(), r.relname.clone()));
    format!(
        "copy {name:?} {columns:?} from={} program={} client={} where={}",
        statement.is_from,
        statement.is_program,
        statement.filename.is_empty(),
        statement.where_clause.is_some(),
    )
}

fn explain(statement: &pg::ExplainStmt) -> String {
    let names = statement
        .options
        .iter()
        .filter_map(|option| match option.node.as_ref()? {
            NodeEnum::DefElem(option) => Some(option.defname.clone()),
            _ => None,
        });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    format!("explain {names:?}")
}

fn select(statement: &pg::SelectStmt) -> String {
    match &statement.into_clause {
        Some(into) => {
            let temporary = into.rel.as_ref().is_some_and(|relation| {
                relation.relpersistence == "t" || relation.schemaname.starts_with("pg_temp")
            });
            format!("select into {temporary}")
        }
        None => "select".to_owned(),
    }
}

/// What we make of `text`, in the same words.
pub fn ours(text: &str) -> String {
    let tokens = tokenize(text.as_bytes(), LexOptions::default()).unwrap();
    match classify(text, &tokens) {
        Statement::Begin(begin) => format!("begin {}", our_modes(begin.modes)),
        Statement::Commit { chain } => format!("commit {chain}"),
        Statement::Rollback { chain } => format!("rollback {chain}"),
        Statement::Savepoint(name) => format!("savepoint {name}"),
        Statement::RollbackTo(name) => format!("rollback to {name}"),
        Statement::Release(name) => format!("release {name}"),
        Statement::PrepareTransaction => "prepare transaction".to_owned(),
        Statement::CommitPrepared => "commit prepared".to_owned(),
        Statement::RollbackPrepared => "rollback prepared".to_owned(),
        Statement::SetTransaction(modes) => format!("transaction {}", our_modes(modes)),
        Statement::SetTransactionSnapshot => "transaction snapshot".to_owned(),
        Statement::SetSessionCharacteristics(modes) => {
            format!("session characteristics {}", our_modes(modes))
        }
        Statement::SetConstraints => "set constraints".to_owned(),
        Statement::Set {
            scope, name, value, ..
        } => {
            let value = match value {
                SetValue::Text(range) => {
                    format!("{:?}", setting_values(text, range))
                }
                SetValue::Default => "default".to_owned(),
                SetValue::Current => "current".to_owned(),
            };
            format!("set {} {name} {value}", scope == SetScope::Local)
        }
        Statement::Reset(ResetTarget::Name(name)) => format!("reset {name}"),
        Statement::Reset(ResetTarget::All) => "reset all".to_owned(),
        Statement::Show(name) => format!("show {name}"),
        other => our_session(text, other),
    }
}

fn our_session(text: &str, statement: Statement) -> String {
    match statement {
        Statement::Prepare { name, types, .. } => format!("prepare {name} {}", types.len()),
        Statement::Execute {
            name, arguments, ..
        } => format!("execute {name} {}", arguments.len()),
        Statement::Deallocate(name) => format!("deallocate {name:?}"),
        Statement::Declare {
            name,
            hold,
            binary,
            scroll,
            ..
        } => format!(
            "declare {name} {hold} {binary} {} {}",
            scroll == Some(true),
            scroll == Some(false)
        ),
        Statement::Fetch(fetch) => format!("fetch {}", our_fetch(fetch)),
        Statement::Move(fetch) => format!("move {}", our_fetch(fetch)),
        Statement::CloseCursor(name) => format!("close {}", name.unwrap_or_default()),
        Statement::Listen(name) => format!("listen {name}"),
        Statement::Unlisten(name) => format!("unlisten {}", name.unwrap_or_default()),
        Statement::Notify { channel, .. } => format!("notify {channel}"),
        Statement::Discard(target) => format!(
            "discard {}",
            match target {
                DiscardTarget::All => 1,
                DiscardTarget::Plans => 2,
                DiscardTarget::Sequences => 3,
                DiscardTarget::Temporary => 4,
            }
        ),
        Statement::Copy(copy) => our_copy(*copy),
        Statement::Explain(explain) => {
            let mut names: Vec<&str> = explain
                .options
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            if explain.options.is_empty() {
                names.extend(explain.analyze.then_some("analyze"));
                names.extend(explain.verbose.then_some("verbose"));
            }
            names.sort_unstable();
            names.dedup();
            assert!(!slice(text, explain.body).is_empty());
            format!("explain {names:?}")
        }
        other => our_utility(other),
    }
}

fn our_utility(statement: Statement) -> String {
    match statement {
        Statement::Lock => "lock".to_owned(),
        Statement::Call => "call".to_owned(),
        Statement::Do => "do".to_owned(),
        Statement::Truncate => "truncate".to_owned(),
        Statement::Maintenance(_) => "maintenance".to_owned(),
        Statement::Ddl(ddl) => match (ddl.verb, ddl.object) {
            (
                crate::sql::statement::DdlVerb::Create,
                DdlObject::Table
                | DdlObject::View
                | DdlObject::Sequence
                | DdlObject::TableAs
                | DdlObject::MaterializedView,
            ) => format!("create {:?} {}", ddl.object, ddl.temporary),
            (crate::sql::statement::DdlVerb::Create, DdlObject::Index) => {
                format!("create Index concurrently {}", ddl.outside_transaction)
            }
            _ => "ddl".to_owned(),
        },
        Statement::Query(query) => our_query(query),
        Statement::Empty => "empty".to_owned(),
        _ => "other".to_owned(),
    }
}

fn our_query(query: Query) -> String {
    match (query.kind, query.into) {
        (QueryKind::Select | QueryKind::Values | QueryKind::Table, Some(into)) => {
            format!("select into {}", into.temporary)
        }
        (QueryKind::Select | QueryKind::Values | QueryKind::Table, None) => "select".to_owned(),
        (kind, _) => format!("{kind:?}").to_lowercase(),
    }
}

fn our_fetch(fetch: Fetch) -> String {
    let (direction, count) = match fetch.direction {
        FetchDirection::Forward(count) => (1, count.to_string()),
        FetchDirection::ForwardAll => (1, "all".to_owned()),
        FetchDirection::Backward(count) => (2, count.to_string()),
        FetchDirection::BackwardAll => (2, "all".to_owned()),
        FetchDirection::Absolute(count) => (3, count.to_string()),
        FetchDirection::Relative(count) => (4, count.to_string()),
    };
    format!("{} {direction} {count}", fetch.cursor)
}

fn our_copy(copy: crate::sql::statement::Copy) -> String {
    let (name, columns) = match copy.source {
        CopySource::Relation {
            name: TokenRelation { schema, name },
            columns,
        } => (
            Some((schema.unwrap_or_default(), name)),
            columns.unwrap_or_default(),
        ),
        CopySource::Query(_) => (None, Vec::new()),
    };
    format!(
        "copy {name:?} {columns:?} from={} program={} client={} where={}",
        copy.direction == CopyDirection::From,
        copy.endpoint == CopyEndpoint::Program,
        copy.endpoint == CopyEndpoint::Client,
        copy.condition.is_some(),
    )
}

fn our_modes(modes: TransactionModes) -> String {
    let shown = [
        modes.isolation.map(|level| level.as_str().to_owned()),
        modes.read_only.map(|on| on.to_string()),
        modes.deferrable.map(|on| on.to_string()),
    ];
    format!("{shown:?}")
}

/// Whether a description is of a statement whose grammar we check to the last token.
pub fn is_exact(description: &str) -> bool {
    let first = description.split(' ').next().unwrap_or_default();
    matches!(
        first,
        "begin"
            | "commit"
            | "rollback"
            | "savepoint"
            | "release"
            | "transaction"
            | "session"
            | "set"
            | "reset"
            | "show"
            | "deallocate"
            | "fetch"
            | "move"
            | "close"
            | "listen"
            | "unlisten"
            | "notify"
            | "discard"
    ) && description != "set constraints"
}
