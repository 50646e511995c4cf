//! `INSERT … SELECT` and `MERGE` whose rows pass through the proxy (`plan/feed`, which has what holds).
//!
//! The client's statement is described by a shard as the client wrote it, before anything else: its errors
//! are PostgreSQL's, and the types of its parameters are those that PostgreSQL infers. Then its query is
//! asked (`session/select.rs`) and its rows kept, in no more memory than a query may use (`53400`). They
//! travel to the shards as arrays, one of each column, all in one transaction.

mod load;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::array::TEXT;
use crate::exec::combine::request::{self, Described, FIRST_USER_OID, Parameter};
use crate::exec::scatter::Scatter;
use crate::plan::{Arguments, Fed, FedValue, Feed, FeedPlace, FeedValue, Parameters, Plan};
use crate::pool::Lease;
use crate::session::change::request::used;
use crate::session::database::{Database, Question};
use crate::session::feed::load::{BIGINT, Load, Supply};
use crate::session::kept::gives_rows;
use crate::session::prepared::{Needs, Prepared, statement_id};
use crate::session::replicated::Written;
use crate::session::scatter::{Answered, Joins, ScatterPortal, tag};
use crate::session::select::{Selected, Use};
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::literal::quote_literal;
use crate::sql::shape::{self, Literal, Shape};
use crate::sqlstate::SqlState;
use crate::wire::frame;
use crate::wire::frontend::Bind;

/// An execution.
struct Feeding<'a> {
    plan: &'a Plan,
    text: &'a str,
    literals: &'a [Literal],
    /// The declared types of its parameters.
    types: &'a [u32],
    /// None for a simple Query.
    bind: Option<Bind<'a>>,
    is_described: bool,
    /// The client fetches the rows returned in parts.
    keeps_rows: bool,
    /// It is a part of another statement, to which the Bind belongs.
    is_part: bool,
}

/// The statement that stores rows, and the client's parameters in it.
struct Storing<'a> {
    text: String,
    parameters: Vec<Parameter<'a>>,
}

impl<'a> Feeding<'a> {
    /// Whether nothing but rows is said to the client.
    fn is_query(&self) -> bool {
        self.bind.is_none() || self.is_part
    }

    fn arguments<'b>(&'b self, encoding: crate::sql::encoding::Encoding) -> Arguments<'b> {
        Arguments {
            text: self.text,
            literals: self.literals,
            parameters: self.given(),
            encoding,
        }
    }

    fn given(&self) -> Parameters<'a> {
        match &self.bind {
            Some(bind) => Parameters::new(self.types, bind.formats, bind.values),
            None => Parameters::none(),
        }
    }

    /// The client's parameters for another text: those that it has, under their numbers.
    fn parameters(&self, used: &[bool], described: &Described) -> Vec<Parameter<'a>> {
        let given = self.given();
        let parameter = |(index, is_used): (usize, &bool)| {
            if !is_used {
                // What has no use has no type either.
                return (TEXT, Format::Text, None);
            }
            let declared = self.types.get(index).copied().filter(|oid| *oid != 0);
            let oid = declared.or_else(|| described.types.get(index).copied());
            // Types that users made have other numbers on other servers.
            let oid = oid.filter(|oid| *oid < FIRST_USER_OID).unwrap_or(0);
            let format = given.format(index).unwrap_or(Format::Text);
            (oid, format, given.value(index).flatten())
        };
        used.iter().enumerate().map(parameter).collect()
    }

    /// How many parameters it has.
    fn count(&self) -> usize {
        self.bind.as_ref().map_or(0, |bind| usize::from(bind.count))
    }

    /// It must have as many parameters as the statement names.
    fn check_count(&self, wanted: usize) -> Result<()> {
        match &self.bind {
            None if wanted > 0 => Err(Error::new(
                SqlState::UNDEFINED_PARAMETER,
                "there is no parameter $1",
            )),
            Some(bind) if usize::from(bind.count) != wanted => Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
                    bind.count,
                    String::from_utf8_lossy(bind.statement)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The formats of its results.
    fn results(&self) -> Vec<bool> {
        match &self.bind {
            Some(_) if self.is_part => Vec::new(),
            Some(bind) => bind.results.chunks(2).map(|code| code == [0, 1]).collect(),
            None => Vec::new(),
        }
    }
}

impl Session {
    /// Runs a simple Query.
    pub(super) async fn feed_query(&mut self, text: &str, plan: &Plan) -> Result<(), Stop> {
        self.rest_pinned();
        let literals = std::mem::take(&mut self.shape.literals);
        let feeding = Feeding {
            plan,
            text,
            literals: &literals,
            types: &[],
            bind: None,
            is_described: true,
            keeps_rows: false,
            is_part: false,
        };
        let answered = self.feed(&feeding).await?;
        self.end_query(&tag(plan, &answered)).await
    }

    /// Executes a kept portal.
    pub(super) async fn execute_feed(
        &mut self,
        portal: ScatterPortal,
        max_rows: i32,
    ) -> Result<(), Stop> {
        let prepared = &portal.prepared;
        let feeding = Feeding {
            plan: &prepared.plan,
            text: prepared.sql(),
            literals: &prepared.literals,
            types: &prepared.types,
            bind: Some(Bind::read(frame::body(&portal.bind))?),
            is_described: portal.is_described,
            keeps_rows: max_rows > 0,
            is_part: false,
        };
        let answered = self.feed(&feeding).await;
        let captured = self.captured();
        let answered = answered?;
        let tag = tag(&prepared.plan, &answered);
        if feeding.keeps_rows && gives_rows(&answered.descriptions) {
            let kept = captured.portal(&answered.descriptions, &tag);
            return self.execute_kept(&portal.portal, kept, max_rows).await;
        }
        self.conclude(captured.bytes().to_vec(), &tag);
        Ok(())
    }

    /// Runs one that is a part of another statement; the number of rows stored.
    pub(super) async fn feed_within(
        &mut self,
        plan: &Plan,
        (text, literals): (&str, &[Literal]),
        given: Option<(&[u32], Bind<'_>)>,
    ) -> Result<u64, Stop> {
        let feeding = Feeding {
            plan,
            text,
            literals,
            types: given.map_or(&[], |(types, _)| types),
            bind: given.map(|(_, bind)| bind),
            is_described: false,
            keeps_rows: false,
            is_part: true,
        };
        Ok(self.feed(&feeding).await?.affected)
    }

    async fn feed(&mut self, feeding: &Feeding<'_>) -> Result<Answered, Stop> {
        self.note_temporary(feeding.plan);
        let Some(feed) = feeding.plan.feed().cloned() else {
            return Err(without_plan().into());
        };
        let targets = feed.shards(self.database.config.shards.len());
        let first: ShardSet = targets.iter().take(1).collect();
        self.check_several(feeding.plan, &first).await?;
        let asked = (feeding.text, feeding.types);
        let described = self.described_on(asked, Joins::Keeping, &first).await?;
        feeding.check_count(described.types.len())?;
        let lex = Database::lex_options(self.settings.context());
        let query = feed.query(feeding.text, lex)?;
        let parameters = feeding.parameters(&used(&query, lex, feeding.count())?, &described);
        let mut selected = self.select_for(Use::Elements, &query, &parameters).await?;
        if feed.is_merge() {
            // What is only stored is of no other type than its column.
            self.learn_kinds((&query, &parameters), &mut selected)
                .await?;
        }
        let load = self.load(&feed, feeding.text, &selected).await?;
        let moments = self.moments(&feed, feeding.text, &first).await?;
        let storing = self.storing(feeding, &feed, (&load, &described), &moments)?;
        if let FeedPlace::Replicated = feed.place {
            if feed.is_merge() {
                return self
                    .merge_replicated(feeding, &feed, (&load, &storing), &described)
                    .await;
            }
            return self.feed_replicated(feeding, &load, storing).await;
        }
        let mut shards: ShardSet = match feed.is_everywhere() {
            true => targets,
            false => load.lots.iter().map(|lot| lot.shard).collect(),
        };
        if shards.len() > 1 {
            let encoding = self.settings.context().encoding;
            feed.check_several(&feeding.arguments(encoding))?;
        }
        if shards.is_empty() {
            // PostgreSQL looks at a statement's rights though it has no rows.
            shards = first;
        }
        let told = Some(&described);
        self.store(feeding, &feed, (&load, &storing), (&shards, told))
            .await
    }

    /// The values of calls that have one value in a statement, as SQL.
    async fn moments(
        &mut self,
        feed: &Feed,
        text: &str,
        shard: &ShardSet,
    ) -> Result<Vec<String>, Stop> {
        let lex = Database::lex_options(self.settings.context());
        let mut found = Vec::new();
        for (call, kind) in feed.moments(text, lex)? {
            // JSON has times in ISO form, whatever is set.
            let ask = format!("SELECT pg_catalog.to_jsonb({call}) #>> '{{}}'");
            let value = self.ask(shard, &ask).await?.pop().flatten();
            let value = quote_literal(&value.ok_or_else(without_plan)?);
            found.push(format!("({value}::pg_catalog.{kind})"));
        }
        Ok(found)
    }

    /// Takes the rows apart by their shards.
    async fn load(&mut self, feed: &Feed, text: &str, selected: &Selected) -> Result<Load, Stop> {
        let fed = feed.columns(&selected.names)?;
        let keys = feed.keys(&fed)?;
        let mut count = 0;
        selected.each(|_| {
            count += 1;
            Ok(())
        })?;
        let mut supplies = Vec::with_capacity(fed.len());
        for one in &fed {
            supplies.push(self.supply(feed, (one, text), count).await?);
        }
        let mut elements: Vec<u32> = supplies
            .iter()
            .filter_map(|supply| supply.element(selected))
            .collect();
        if elements.is_empty() {
            // Something has to say how many rows there are.
            elements.push(BIGINT);
        }
        let encoding = self.settings.context().encoding;
        let mut load = Load {
            fed,
            supplies,
            elements,
            type_names: selected.text_types(),
            lots: Vec::new(),
            order: Vec::with_capacity(count),
        };
        selected.each(|values| {
            let row = load.order.len();
            let supplied = |at: usize| {
                let supply = load.supplies.get(at);
                supply.map_or((0, Format::Text, None), |one| {
                    one.key(row, values, selected)
                })
            };
            let key: Vec<(u32, Format, Option<Vec<u8>>)> =
                keys.iter().map(|at| supplied(*at)).collect();
            let key: Vec<FedValue<'_>> = key
                .iter()
                .map(|(oid, format, value)| (*oid, *format, value.as_deref()))
                .collect();
            let shard = feed.shard(&key, encoding)?;
            load.add(shard, values);
            Ok(())
        })?;
        load.lots.sort_by_key(|lot| lot.shard);
        Ok(load)
    }

    /// Finds out the values of a column.
    async fn supply(
        &mut self,
        feed: &Feed,
        (one, text): (&Fed, &str),
        count: usize,
    ) -> Result<Supply, Stop> {
        let lex = Database::lex_options(self.settings.context());
        Ok(match &one.value {
            FeedValue::Query(column) => Supply::Query(*column),
            FeedValue::Constant { token, column } => {
                Supply::Constant(feed.constant(*token, text, lex)?, *column)
            }
            FeedValue::Number(_) | FeedValue::Default if count == 0 => {
                Supply::Texts(Vec::new(), "pg_catalog.text".to_owned())
            }
            FeedValue::Number(sequence) => Supply::Numbers(self.drawn(sequence, count).await?),
            FeedValue::Default => {
                let column = (feed.table.as_str(), one.name.as_str());
                let values = self.evaluated(column, count).await?;
                let (table, name) = (quote_literal(&feed.table), quote_literal(&one.name));
                let ask = format!(
                    "SELECT pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute \
                     WHERE attrelid = {table}::pg_catalog.regclass AND attname = {name}"
                );
                let first = ShardSet::from_iter([0]);
                let names = self.ask(&first, &ask).await?;
                let name = names.into_iter().next().flatten();
                let name = name.ok_or_else(without_plan)?;
                let encoded = |value: Option<String>| -> Result<Option<Vec<u8>>> {
                    let bytes = value.map(|text| Ok(self.encoded(&text)?.into_owned()));
                    bytes.transpose()
                };
                let values = values.into_iter().map(encoded).collect::<Result<_>>()?;
                Supply::Texts(values, name)
            }
        })
    }

    /// The statement that stores rows, and the parameters of the client's in it.
    fn storing<'a>(
        &self,
        feeding: &Feeding<'a>,
        feed: &Feed,
        (load, described): (&Load, &Described),
        moments: &[String],
    ) -> Result<Storing<'a>> {
        let lex = Database::lex_options(self.settings.context());
        let count = feeding.count();
        let (items, source) = load.written(count);
        let written = (feeding.text, lex);
        let text = feed.statement(written, &load.fed, (&items, &source), moments)?;
        let mut used = used(&text, lex, count + load.elements.len())?;
        used.truncate(count);
        let parameters = feeding.parameters(&used, described);
        Ok(Storing { text, parameters })
    }

    /// Stores rows, each on its shard; nothing is told if it is not described.
    async fn store(
        &mut self,
        feeding: &Feeding<'_>,
        feed: &Feed,
        (load, storing): (&Load, &Storing<'_>),
        (shards, described): (&ShardSet, Option<&Described>),
    ) -> Result<Answered, Stop> {
        let text = self.encoded(&storing.text)?.into_owned();
        let joins = self.check_scatter(feeding.plan, shards).await?;
        let all = load.lots.first().filter(|_| feed.is_copied());
        let mut requests = VecDeque::with_capacity(shards.len());
        for shard in shards.iter() {
            let arrays = load.arrays(all.map_or(shard, |lot| lot.shard));
            let mut parameters = storing.parameters.clone();
            parameters.extend(
                arrays
                    .iter()
                    .map(|(oid, bytes)| -> Parameter<'_> { (*oid, Format::Binary, Some(bytes)) }),
            );
            let mut out = Vec::new();
            request::write_select(&mut out, &text, &parameters, &feeding.results());
            requests.push_back(out);
        }
        let gathered = self.gather(shards, joins, &[]).await?;
        if !feeding.is_query() && described.is_some() {
            self.acknowledge_bind();
        }
        let requests = RefCell::new(requests);
        // Connections are in the order of shards, as the requests are.
        let send = |lease: &mut Lease| {
            lease.unnamed = None;
            requests.borrow_mut().pop_front().unwrap_or_default()
        };
        let high_water_bytes = self.high_water_bytes();
        let Some(described) = described else {
            let scatter = Scatter::start(gathered, send, false, high_water_bytes);
            return self.drive(scatter.silent()).await;
        };
        if feeding.keeps_rows {
            self.capture();
        }
        let mut scatter = Scatter::start(gathered, send, feeding.is_described, high_water_bytes);
        if feeding.is_query() {
            scatter = scatter.of_query();
        }
        if let Some(original) = described.rows.first() {
            scatter = scatter.described_as(original.clone());
        }
        if !feed.is_merge() {
            scatter = scatter.ordered(load.turns(shards));
        }
        self.drive(scatter.changing(true)).await
    }

    /// Runs a MERGE over the same rows on every shard: on the first of them first, as whatever writes to a
    /// replicated table.
    async fn merge_replicated(
        &mut self,
        feeding: &Feeding<'_>,
        feed: &Feed,
        (load, storing): (&Load, &Storing<'_>),
        described: &Described,
    ) -> Result<Answered, Stop> {
        let encoding = self.settings.context().encoding;
        feed.check_several(&feeding.arguments(encoding))?;
        let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", feed.table);
        let all = ShardSet::all(self.database.config.shards.len());
        let first: ShardSet = all.iter().take(1).collect();
        let others: ShardSet = all.iter().skip(1).collect();
        let joins = self.check_several(feeding.plan, &all).await?;
        self.lock_tables((&first, joins), Some(&lock)).await?;
        let rows = (load, storing);
        let told = self.store(feeding, feed, rows, (&first, Some(described)));
        let told = told.await?;
        self.lock_tables((&others, joins), Some(&lock)).await?;
        let behind = self.store(feeding, feed, rows, (&others, None)).await?;
        self.check_alike(&feed.table, told.affected, &behind)?;
        Ok(told)
    }

    /// Stores the same rows on every shard.
    async fn feed_replicated(
        &mut self,
        feeding: &Feeding<'_>,
        load: &Load,
        storing: Storing<'_>,
    ) -> Result<Answered, Stop> {
        let Storing {
            text,
            mut parameters,
        } = storing;
        let arrays = load.arrays(0);
        parameters.extend(
            arrays
                .iter()
                .map(|(oid, bytes)| -> Parameter<'_> { (*oid, Format::Binary, Some(bytes)) }),
        );
        let told = (feeding.is_query(), feeding.is_described);
        self.replicate_text(&text, &parameters, &feeding.results(), told)
            .await
    }

    /// Runs a text of the proxy's own that writes to a replicated table, as an answer to a Query or a bound
    /// statement.
    pub(super) async fn replicate_text(
        &mut self,
        text: &str,
        parameters: &[Parameter<'_>],
        results: &[bool],
        (is_query, is_described): (bool, bool),
    ) -> Result<Answered, Stop> {
        let types: Vec<u32> = parameters.iter().map(|(oid, _, _)| *oid).collect();
        let mut shape = Shape::default();
        let context = Arc::clone(self.settings.context());
        shape::scan(text.as_bytes(), Database::lex_options(&context), &mut shape)
            .map_err(|error| error.to_error(text.as_bytes()))?;
        let plan = self.database.plan(&Question {
            text,
            shape: &shape,
            types: &types,
            context: &context,
            temporary_tables: self.memory.temporary_tables,
            by_key: false,
            sight: self.own_sight(),
        })?;
        if let crate::plan::Route::Refused(error) = &plan.route {
            return Err(error.clone().into());
        }
        let encoded = self.encoded(text)?.into_owned();
        let reading = self.reading();
        let prepared = Arc::new(Prepared {
            id: statement_id(false, &encoded, &types, reading),
            server_name: Box::default(),
            text: encoded.into(),
            read: (!context.encoding.is_utf8()).then(|| text.into()),
            types: types.into(),
            literals: shape.literals.into(),
            hint: None,
            plan: Arc::clone(&plan),
            context: reading,
            made_at: std::time::SystemTime::now(),
            declared: None,
            needs: Needs::Nothing,
        });
        let mut bound = Vec::new();
        request::write_bind(&mut bound, parameters, results);
        let bind = Bind::read(frame::body(&bound))?;
        let written = Written {
            plan: &plan,
            text,
            literals: &prepared.literals,
            portal: Some((&prepared, bind)),
            is_query: is_query || self.batch.execution.is_some(),
            is_described,
        };
        self.write_replicated(&written).await
    }
}

fn without_plan() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "an INSERT of a query's rows could not be planned",
    )
    .hint("The table's definition may have just changed: try again.")
}
