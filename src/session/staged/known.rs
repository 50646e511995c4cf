//! What the parts of a statement are made of: the client's parameters, and what has been found out, as parameters
//! behind them; pure.

use crate::error::{Error, Result};
use crate::exec::array::{Array, TEXT, array_of};
use crate::exec::combine::request::{Described, FIRST_USER_OID, Parameter};
use crate::plan::{Known, Parameters, Plan, ROWS};
use crate::session::select::Selected;
use crate::sharding::Format;
use crate::sql::literal::quote_identifier;
use crate::sqlstate::SqlState;
use crate::wire::frontend::Bind;

/// An execution.
pub(super) struct Running<'a> {
    pub plan: &'a Plan,
    pub text: &'a str,
    /// The declared types of its parameters.
    pub types: &'a [u32],
    /// None for a simple Query.
    pub bind: Option<Bind<'a>>,
}

/// What the parts have in common.
#[derive(Default)]
pub(super) struct Common {
    /// What a shard says of the whole.
    pub described: Described,
    /// The transaction's time and the statement's.
    pub moments: [Option<Vec<u8>>; 2],
    /// Of each part whose rows others use the types of the columns.
    pub told: Vec<Option<Vec<u32>>>,
    /// Of each part the columns, and its rows once it has run.
    pub rows: Vec<Selected>,
}

/// A value that stands in a part for what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// A column of a part.
    Column(usize, usize),
    Moment(bool),
}

/// The parameters behind the client's own in the text of a part.
pub(super) struct Extras<'a> {
    pub common: &'a Common,
    /// How many the client has.
    pub count: usize,
    pub list: Vec<Extra>,
}

impl<'a> Running<'a> {
    pub fn given(&self) -> Parameters<'a> {
        match &self.bind {
            Some(bind) => Parameters::new(self.types, bind.formats, bind.values),
            None => Parameters::none(),
        }
    }

    pub fn count(&self) -> usize {
        self.bind.as_ref().map_or(0, |bind| usize::from(bind.count))
    }

    /// The client's parameters for a part, under their numbers.
    pub fn parameters(&self, used: &[bool], described: &Described) -> Vec<Parameter<'a>> {
        let given = self.given();
        let parameter = |(index, is_used): (usize, &bool)| {
            if !is_used {
                // What has no use has no type either.
                return (TEXT, Format::Text, None);
            }
            let oid = described.types.get(index).copied();
            // Types that users made have other numbers on other servers.
            let oid = oid.filter(|oid| *oid < FIRST_USER_OID).unwrap_or(0);
            let format = given.format(index).unwrap_or(Format::Text);
            (oid, format, given.value(index).flatten())
        };
        used.iter().enumerate().map(parameter).collect()
    }

    /// The formats of its results.
    pub fn results(&self) -> Vec<bool> {
        let results = self.bind.as_ref().map(|bind| bind.results);
        let codes = results.unwrap_or_default().chunks(2);
        codes.map(|code| code == [0, 1]).collect()
    }

    pub fn check_count(&self, wanted: usize) -> Result<()> {
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
}

impl Extras<'_> {
    fn number(&mut self, extra: Extra) -> usize {
        let known = self.list.iter().position(|known| *known == extra);
        let at = known.unwrap_or_else(|| {
            self.list.push(extra);
            self.list.len() - 1
        });
        self.count + at + 1
    }
}

impl Known for Extras<'_> {
    fn rows(&mut self, part: usize) -> String {
        let common = self.common;
        let Some(selected) = common.rows.get(part) else {
            return String::new();
        };
        let type_names = selected.text_types();
        let (mut list, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name) in selected.names.iter().enumerate() {
            let number = self.number(Extra::Column(part, at));
            let type_name = type_names.get(at).cloned().flatten();
            let cast = type_name.map_or_else(String::new, |name| format!("::{name}"));
            list.push(format!("{ROWS}.c{at}{cast} AS {}", quote_identifier(name)));
            arrays.push(format!("${number}"));
            names.push(format!("c{at}"));
        }
        format!(
            "SELECT {} FROM unnest({}) AS {ROWS}({})",
            list.join(", "),
            arrays.join(", "),
            names.join(", ")
        )
    }

    fn moment(&mut self, of_statement: bool) -> usize {
        self.number(Extra::Moment(of_statement))
    }
}

impl Common {
    /// The type of a parameter that is added, and its value, which is in binary format if it is an array.
    pub fn extra(&self, extra: Extra) -> (u32, Format, Vec<u8>) {
        match extra {
            Extra::Moment(of_statement) => {
                let moment = self.moments.get(usize::from(of_statement)).cloned();
                (TEXT, Format::Text, moment.flatten().unwrap_or_default())
            }
            Extra::Column(part, column) => {
                let element = self.element(part, column);
                let mut array = Array::default();
                if let Some(selected) = self.rows.get(part) {
                    // They have been read before.
                    let _ = selected.each(|values| {
                        array.push(values.get(column).copied().flatten());
                        Ok(())
                    });
                }
                let of_array = array_of(element).unwrap_or(0);
                (of_array, Format::Binary, array.bytes(element))
            }
        }
    }

    pub fn element(&self, part: usize, column: usize) -> u32 {
        let columns = self.rows.get(part).map(|selected| &selected.columns);
        match columns.and_then(|columns| columns.get(column)) {
            Some((oid, Format::Binary)) => *oid,
            _ => TEXT,
        }
    }

    pub fn extra_type(&self, extra: Extra) -> u32 {
        match extra {
            Extra::Moment(_) => TEXT,
            Extra::Column(part, column) => array_of(self.element(part, column)).unwrap_or(0),
        }
    }
}
