//! Texts that name `shard_id` or views over shards, or insert without a list of columns: what is planned and
//! sent in their place.

use std::sync::Arc;

use crate::error::Result;
use crate::session::Session;
use crate::session::database::Database;
use crate::session::prepared::{Needs, Prepared, server_name};
use crate::session::study::Study;
use crate::sql::shifts::Shifts;
use crate::sql::splice::{Edit, splice};
use crate::sql::token::slice;

/// A text that stands for the client's.
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
            Study::One(plan) => edits = plan.rewording(text, options)?,
            Study::Many(plans) => {
                for (range, plan) in plans {
                    let statement = slice(text, range.clone());
                    let found = plan.rewording(statement, options)?;
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

    /// The client's statement of this name, which has other words than it wrote, in the words of today.
    ///
    /// # Errors
    /// As [`Session::study`].
    pub(super) fn expanded_anew(
        &mut self,
        name: &[u8],
        old: &Arc<Prepared>,
        written: &str,
    ) -> Result<Arc<Prepared>> {
        let mut study = self.study(Some(written), &old.types)?;
        let mut text = written.to_owned();
        if let Some(expanded) = self.expanded(written, &study, &old.types)? {
            (study, text) = (expanded.study, expanded.text);
        }
        let Study::One(plan) = study else {
            return Ok(Arc::clone(old));
        };
        let sent = self.encoded(&text)?.into_owned();
        let is_named = !old.is_unnamed();
        let id = self.identify(is_named, &sent, &old.types);
        let renewed = Arc::new(Prepared {
            id,
            server_name: match is_named {
                true => server_name(id).into_bytes().into(),
                false => Box::default(),
            },
            text: sent.into(),
            read: old.read.as_ref().map(|_| text.into()),
            types: old.types.clone(),
            literals: self.shape.literals.as_slice().into(),
            hint: old.hint.clone(),
            plan,
            context: self.reading(),
            made_at: old.made_at,
            declared: None,
            needs: Needs::Nothing,
        });
        self.statements.renew(name, Arc::clone(&renewed));
        Ok(renewed)
    }
}
