//! Texts that name `shard_id`: what is planned and sent in their place.

use crate::error::Result;
use crate::plan::pseudo;
use crate::session::Session;
use crate::session::database::Database;
use crate::session::study::Study;
use crate::sql::shifts::Shifts;
use crate::sql::splice::{Edit, splice};
use crate::sql::token::slice;

/// A text in which the shard's name is computed where the client's has `shard_id`.
pub(super) struct Expanded {
    /// It.
    pub text: String,
    /// What it asks for.
    pub study: Study,
    /// Where its characters stand in the client's text.
    pub shifts: Shifts,
}

impl Session {
    /// What a text is to be replaced by; none if it stays as it is.
    ///
    /// # Errors
    /// As [`Session::study`].
    pub(super) fn expanded(
        &mut self,
        text: &str,
        study: &Study,
        types: &[u32],
    ) -> Result<Option<Expanded>> {
        let options = Database::lex_options(self.settings.context());
        let mut edits = Vec::new();
        match study {
            Study::One(plan) => edits = pseudo::edits(plan, text, options)?,
            Study::Many(plans) => {
                for (range, plan) in plans {
                    let statement = slice(text, range.clone());
                    let found = pseudo::edits(plan, statement, options)?;
                    edits.extend(found.into_iter().map(|edit| Edit {
                        range: range.start + edit.range.start..range.start + edit.range.end,
                        ..edit
                    }));
                }
            }
            Study::Empty | Study::Opaque => {}
        }
        if edits.is_empty() {
            return Ok(None);
        }
        let expanded = splice(text, options, &edits)?;
        let study = self.study(Some(&expanded), types)?;
        Ok(Some(Expanded {
            study,
            shifts: Shifts::of(text, &edits),
            text: expanded,
        }))
    }
}
