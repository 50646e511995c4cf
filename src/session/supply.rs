//! Values for columns that the data of a COPY over several shards leaves out (`plan/copy/supply`).
//!
//! What holds:
//! - A default that is the same for all rows is evaluated before the client is asked for data, on the first
//!   shard, in the COPY's transaction.
//! - Numbers come from where all numbers come from, as many as there are rows; what the COPY has not used, is
//!   put back.
//! - While the data comes, the shards' connections copy. A default that varies from row to row is evaluated on
//!   the connection that numbers come through; it calls no functions of users.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::CopyIn;
use crate::plan::copy::supply::{Value, number};
use crate::plan::copy::{Source, Supplied};
use crate::plan::defaults::Form;
use crate::session::{Session, Stop};
use crate::sqlstate::SqlState;

impl Session {
    /// Fails if values can't be had while the data comes.
    pub(super) fn check_supplied(&self, copy: &CopyIn) -> Result<()> {
        let is_each = copy.supplied.iter().any(|column| column.source.is_each());
        match is_each && self.sees_other_numbers() {
            true => Err(Error::refused(
                "COPY that leaves a number to its default is not supported in the transaction that made \
                 or restarted its sequence",
                "While the data comes, numbers are taken by a connection that does not see it yet.",
                "Commit first, or list the column and give its values.",
            )),
            false => Ok(()),
        }
    }

    /// The values that all rows of a COPY share.
    pub(super) async fn supply_first(&mut self, copy: &CopyIn) -> Result<Vec<Vec<Value>>, Stop> {
        let mut values = Vec::with_capacity(copy.supplied.len());
        for column in &copy.supplied {
            if column.source.is_each() {
                values.push(Vec::new());
                continue;
            }
            let name = (copy.table_sql.as_str(), column.name.as_str());
            let found = self.evaluated_as(name, (1, copy.form)).await?;
            values.push(read(found, copy.form)?);
        }
        Ok(values)
    }

    /// The values of so many rows.
    pub(super) async fn supply_rows(
        &mut self,
        copy: &CopyIn,
        rows: usize,
    ) -> Result<Vec<Vec<Value>>> {
        let mut values = Vec::with_capacity(copy.supplied.len());
        for column in &copy.supplied {
            values.push(match &column.source {
                Source::Once => Vec::new(),
                Source::Number(_) => {
                    let wanted = (rows, copy.form);
                    self.supply_numbers(column, wanted, copy.is_replicated())
                        .await?
                }
                Source::Each => {
                    let topology = Arc::clone(&self.database.topology);
                    let table = (copy.table_sql.as_str(), column.name.as_str());
                    let found = topology.evaluate(table, (rows, copy.form)).await?;
                    read(found, copy.form)?
                }
            });
        }
        Ok(values)
    }

    async fn supply_numbers(
        &mut self,
        column: &Supplied,
        (rows, form): (usize, Form),
        is_replicated: bool,
    ) -> Result<Vec<Value>> {
        let Source::Number(sequence) = &column.source else {
            return Ok(Vec::new());
        };
        // Statements on a replicated table draw its numbers where they run: none are taken ahead.
        let most = match is_replicated {
            true => 1,
            false => self.database.limits.sequence_block,
        };
        let topology = Arc::clone(&self.database.topology);
        self.memory.drawn.note_unknown(sequence);
        let drawn = match topology.draw(sequence, rows, most).await {
            // There may be enough for the rows there are.
            Err(_) if rows > 1 => topology.draw(sequence, 1, most).await?,
            drawn => drawn?,
        };
        let value = |drawn: i64| {
            let value = number(drawn, column.type_oid, form);
            value.map(Some).ok_or_else(out_of_range)
        };
        drawn.into_iter().map(value).collect()
    }

    /// Gives numbers back that no row has got.
    pub(super) fn put_back(&self, copy: &CopyIn, left: Vec<Vec<Value>>) {
        for (column, values) in copy.supplied.iter().zip(left) {
            let (Source::Number(sequence), Form::Text) = (&column.source, copy.form) else {
                continue;
            };
            let number = |value: Value| String::from_utf8(value?).ok()?.parse().ok();
            let numbers: Vec<i64> = values.into_iter().filter_map(number).collect();
            self.database.topology.put_back(sequence, numbers);
        }
    }
}

/// Values as the data has them.
fn read(found: Vec<Option<String>>, form: Form) -> Result<Vec<Value>> {
    let value = |value: Option<String>| {
        let Some(text) = value else {
            return Ok(None);
        };
        match form {
            Form::Text if !text.is_ascii() => Err(not_ascii()),
            Form::Text => Ok(Some(text.into_bytes())),
            Form::Binary => bytes(&text).map(Some).ok_or_else(unread),
        }
    };
    found.into_iter().map(value).collect()
}

/// The bytes that hexadecimal digits say.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(high)? * 16 + digit(low)?).ok()
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}

fn out_of_range() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range")
}

fn unread() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the defaults of a COPY could not be found out",
    )
}

fn not_ascii() -> Error {
    Error::refused(
        "COPY with such a default is not supported over several shards",
        "It has characters that the data may have in another encoding.",
        "List the column, and give its values.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes() {
        assert_eq!(bytes("00ff1A"), Some(vec![0, 255, 26]));
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("zz"), None);
    }
}
