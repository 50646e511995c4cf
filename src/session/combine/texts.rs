//! What shards and hub are sent for one execution: what each shard does its part of, or whole relations.

use crate::error::{Error, Result};
use crate::plan::{Arguments, Execution};
use crate::session::combine::Asked;
use crate::session::combine::hub::Hub;
use crate::session::database::Database;
use crate::session::{Session, Stop};
use crate::sqlstate::SqlState;

impl Session {
    /// Opens a hub for what each shard does its part of; if the types don't allow that, for whole relations.
    pub(super) async fn open_either(
        &mut self,
        execution: &mut Execution,
        gathering: Option<Execution>,
        asked: &Asked<'_>,
    ) -> Result<Hub, Stop> {
        if let Some(mut gathering) = gathering {
            match self.open_hub(&mut gathering, asked).await {
                Ok(hub) => {
                    *execution = gathering;
                    return Ok(hub);
                }
                Err(Stop::Statement(error)) if may_be_of_types(&error) => {}
                Err(stop) => return Err(stop),
            }
        }
        self.open_hub(execution, asked).await
    }

    /// The texts of one execution of which each shard does its part, if it can.
    pub(super) fn gathering(&self, asked: &Asked<'_>) -> Result<Option<Execution>> {
        let arguments = Arguments {
            text: asked.text,
            literals: asked.literals,
            parameters: asked.parameters(),
            encoding: self.settings.context().encoding,
        };
        let lex = Database::lex_options(self.settings.context());
        match asked.plan.combine() {
            Some(combine) => combine.gathering(&arguments, lex),
            None => Ok(None),
        }
    }

    /// The texts of one execution.
    pub(super) fn execution(&self, asked: &Asked<'_>, is_joined: bool) -> Result<Execution> {
        let arguments = Arguments {
            text: asked.text,
            literals: asked.literals,
            parameters: asked.parameters(),
            encoding: self.settings.context().encoding,
        };
        let lex = Database::lex_options(self.settings.context());
        match asked.plan.combine() {
            Some(combine) => combine.execution(&arguments, lex, is_joined),
            None => Err(Error::new(
                SqlState::INTERNAL_ERROR,
                "a statement without a plan for a hub was sent to one",
            )),
        }
    }
}

/// Whether an error of a server may come of what the proxy has made of the statement. Others concern the
/// connection, or are a client's wish.
fn may_be_of_types(error: &Error) -> bool {
    let code = error.code();
    ["0A", "42", "XX"]
        .iter()
        .any(|class| code.as_str().starts_with(class))
}
