//! The rows of a table that is made with the rows of a query: an INSERT of the proxy's own, planned as any other,
//! in the transaction of the definition.

use std::sync::Arc;

use crate::error::Error;
use crate::exec::combine::request::Parameter;
use crate::plan::{Arguments, Parameters, Target};
use crate::session::database::{Database, Question};
use crate::session::define::Given;
use crate::session::{Session, Stop};
use crate::sharding::{Format, ShardSet};
use crate::sql::shape::{self, Shape};

impl Session {
    /// Runs an INSERT that the client has not sent, with its parameters; the number of rows stored.
    pub(super) async fn store_rows(
        &mut self,
        text: &str,
        given: Option<Given<'_>>,
    ) -> Result<u64, Stop> {
        let context = Arc::clone(self.settings.context());
        let mut shape = Shape::default();
        shape::scan(text.as_bytes(), Database::lex_options(&context), &mut shape)
            .map_err(|error| error.to_error(text.as_bytes()))?;
        let types = given.map_or(&[][..], |(types, _)| types);
        let plan = self.database.plan(&Question {
            text,
            shape: &shape,
            types,
            context: &context,
            temporary_tables: self.memory.temporary_tables,
            by_key: false,
            sight: self.own_sight(),
        })?;
        let is_plain = plan.own.is_empty() && plan.pseudo.is_empty() && plan.merge.is_none();
        let parameters = match &given {
            Some((types, bind)) => Parameters::new(types, bind.formats, bind.values),
            None => Parameters::none(),
        };
        let target = plan.target(&Arguments {
            text,
            literals: &shape.literals,
            parameters,
            encoding: context.encoding,
        })?;
        let shards = match target {
            _ if !is_plain => return Err(unfilled().into()),
            Target::Feed => {
                let written = (text, &*shape.literals);
                return self.feed_within(&plan, written, given).await;
            }
            Target::Replicated => {
                let parameters = parameters_of(given);
                let written = self.replicate_text(text, &parameters, &[], (true, false));
                return Ok(written.await?.affected);
            }
            Target::One(shard) => ShardSet::from_iter([shard]),
            Target::Many(shards) => shards,
            _ => return Err(unfilled().into()),
        };
        let joins = self.check_several(&plan, &shards).await?;
        let told = (text, given);
        Ok(self.run_on(&shards, joins, told, false).await?.affected)
    }
}

/// The parameters one by one.
pub(super) fn parameters_of(given: Option<Given<'_>>) -> Vec<Parameter<'_>> {
    let Some((types, bind)) = given else {
        return Vec::new();
    };
    let values = Parameters::new(types, bind.formats, bind.values);
    let parameter = |index: usize| -> Parameter<'_> {
        let oid = types.get(index).copied().unwrap_or(0);
        let format = values.format(index).unwrap_or(Format::Text);
        (oid, format, values.value(index).flatten())
    };
    (0..usize::from(bind.count)).map(parameter).collect()
}

/// That the rows can't be stored (`0A000`).
fn unfilled() -> Error {
    Error::refused(
        "a table with the rows of such a query is not supported on several shards",
        "Its rows would have to be stored in a way that is for statements of the client's only.",
        "Create the table WITH NO DATA, and INSERT … SELECT into it.",
    )
}
