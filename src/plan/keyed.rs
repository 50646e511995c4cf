//! Routes that depend on literals and parameters, and their evaluation for each execution.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::error::Result;
use crate::plan::Arguments;
use crate::plan::Change;
use crate::plan::Combine;
use crate::plan::Feed;
use crate::plan::Staged;
use crate::plan::Target;
use crate::plan::by_key;
use crate::plan::refusal;
use crate::sharding::ColumnType;
use crate::sharding::Format;
use crate::sharding::Key;
use crate::sharding::KeyError;
use crate::sharding::KeyType;
use crate::sharding::KeyUse;
use crate::sharding::LiteralKind;
use crate::sharding::Placement;
use crate::sharding::ShardIndex;
use crate::sharding::ShardSet;
use crate::sql::literal::literal_value;
use crate::sql::token::TokenKind;

/// Longest number that a minus sign is put before without an allocation.
const NUMBER_BYTES: usize = 64;

/// A route whose shard depends on literals and parameters: all the proofs must name the same one.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// What restricts each sharded table to a shard.
    pub(super) proofs: Box<[Proof]>,
    /// The shard of the home tables that are read along.
    pub(super) home: Option<ShardIndex>,
    /// What becomes of an execution whose keys are on several shards.
    pub(super) spread: Spread,
}

/// What becomes of an execution whose keys are on several shards.
#[derive(Clone, Debug)]
pub(super) enum Spread {
    /// It goes to all of them; to these if the keys can't be known.
    Scatter(ShardSet),
    /// It is refused.
    Refuse(Error),
    /// A hub finishes it.
    Combine(Arc<Combine>),
    /// It is changed in several steps.
    Change(Arc<Change>),
    /// The rows of its query are asked for first.
    Feed(Arc<Feed>),
    /// Its parts run one behind the other.
    Staged(Arc<Staged>),
}

/// That one occurrence of a sharded table is restricted to the keys listed.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// The table's name, for messages.
    pub table: String,
    /// The table's placement.
    pub placement: Arc<Placement>,
    /// For each column of the shard key the values it may have.
    pub parts: Box<[Part]>,
    /// Whether the values are compared with the key or stored in it.
    pub use_: KeyUse,
    /// Whether there may be no row to store: `INSERT … SELECT`.
    pub optional: bool,
}

/// The values that a column of the shard key may have.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The type of the column that they are compared with or stored in.
    pub column: ColumnType,
    /// The values, at least one.
    pub values: Box<[KeyValue]>,
}

/// Where a value of the shard key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub source: KeySource,
    /// The type it is cast to; 0 is none.
    pub cast: u32,
    /// A parameter that the statement also uses elsewhere: undeclared, its type may come from there.
    pub shared: bool,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySource {
    /// A literal of the text.
    Literal {
        /// Its index in the shape.
        index: usize,
        /// A minus sign stands before it.
        negative: bool,
    },
    /// A parameter, from 0.
    Parameter(usize),
    /// A value of the session's own key, which must have so many.
    Session {
        index: usize,
        count: usize,
    },
    Null,
    Bool(bool),
}

/// The shards that a proof names.
enum Places {
    /// No row can match: any shard will do.
    None,
    One(ShardIndex),
    Many(ShardSet),
}

/// Integers up to this are different numbers in every type of numbers: `real` has 24 bits.
const EXACT_IN_FLOATS: u64 = 1 << 24;

/// Keys of the columns of one row; a key of a few short columns needs no allocation.
type Keys = SmallVec<[Key; 2]>;

impl Keyed {
    /// The shards of one execution.
    pub(super) fn target(&self, arguments: &Arguments<'_>) -> Result<Target> {
        let mut shard = self.home;
        // Which shards the rows may be on that the proofs allow, once those are several.
        let mut several: Option<ShardSet> = None;
        for proof in &self.proofs {
            match proof.places(arguments) {
                Ok(Places::None) => {}
                Ok(Places::One(one)) if shard.is_none_or(|shard| shard == one) => shard = Some(one),
                Ok(Places::One(one)) => several.get_or_insert_default().extend([one]),
                Ok(Places::Many(set)) => several.get_or_insert_default().extend(set.iter()),
                Err((KeyError::Unprovable(why), _)) if proof.use_ == KeyUse::Compare => {
                    return match &self.spread {
                        Spread::Scatter(all) => Ok(scatter(all.clone(), arguments)),
                        Spread::Combine(_) => Ok(Target::Combine),
                        Spread::Change(_) => Ok(Target::Change),
                        Spread::Feed(_) => Ok(Target::Feed),
                        Spread::Staged(_) => Ok(Target::Staged),
                        Spread::Refuse(_) => Err(refusal::unprovable(&proof.table, why)),
                    };
                }
                // The rows say what can't be stored, if there are any.
                Err(_) if proof.optional && matches!(self.spread, Spread::Feed(_)) => {
                    return Ok(Target::Feed);
                }
                Err(_) if proof.optional && matches!(self.spread, Spread::Staged(_)) => {
                    return Ok(Target::Staged);
                }
                Err((KeyError::Null | KeyError::OutOfRange, column)) if proof.optional => {
                    return Err(refusal::nowhere(&proof.table, column));
                }
                Err((error, column)) => return Err(error.store_error(&proof.table, column)),
            }
        }
        match (several, &self.spread) {
            (None, _) => Ok(shard.map_or(Target::Any, Target::One)),
            (Some(mut shards), Spread::Scatter(_)) => {
                shards.extend(shard);
                Ok(scatter(shards, arguments))
            }
            (Some(_), Spread::Refuse(error)) => Err(error.clone()),
            (Some(_), Spread::Combine(_)) => Ok(Target::Combine),
            (Some(_), Spread::Change(_)) => Ok(Target::Change),
            (Some(_), Spread::Feed(_)) => Ok(Target::Feed),
            (Some(_), Spread::Staged(_)) => Ok(Target::Staged),
        }
    }
}

/// A target of several shards; a hub, unless there is none, if a constant means something else on each.
pub(super) fn scatter(shards: ShardSet, arguments: &Arguments<'_>) -> Target {
    if let Some(shard) = shards.single() {
        return Target::One(shard);
    }
    match names_moment(arguments) {
        true => Target::Combine,
        false => Target::Many(shards),
    }
}

/// Whether a constant may mean another moment on each server.
pub(super) fn names_moment(arguments: &Arguments<'_>) -> bool {
    let literals = arguments.literals.iter();
    let mut strings = literals.filter(|literal| literal.kind.is_string());
    strings.any(|literal| {
        let value = literal_value(arguments.text, literal);
        value.is_some_and(|value| is_relative_time(value.as_bytes()))
    }) || arguments.parameters.texts().any(is_relative_time)
}

/// Whether a date or time type would read the string as a moment relative to the transaction's start.
pub(super) fn is_relative_time(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    [&b"now"[..], b"today", b"tomorrow", b"yesterday"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

impl Proof {
    /// The shards of the keys listed; none if they can't be known.
    pub(super) fn shards(&self, arguments: &Arguments<'_>) -> Option<ShardSet> {
        match self.places(arguments).ok()? {
            Places::None => Some(ShardSet::default()),
            Places::One(shard) => Some(ShardSet::from_iter([shard])),
            Places::Many(shards) => Some(shards),
        }
    }

    /// The shards of the keys listed; an error comes with the name of its column.
    fn places(&self, arguments: &Arguments<'_>) -> Result<Places, (KeyError, &str)> {
        let mut keys = Keys::new();
        let mut found = Places::None;
        self.walk(arguments, &mut keys, &mut found)?;
        Ok(found)
    }

    /// Goes through all combinations of the values of the columns behind those in `keys`.
    fn walk(
        &self,
        arguments: &Arguments<'_>,
        keys: &mut Keys,
        found: &mut Places,
    ) -> Result<(), (KeyError, &str)> {
        let at = keys.len();
        let Some(part) = self.parts.get(at) else {
            return self.place(keys, found);
        };
        for value in &part.values {
            match value.key(arguments, &part.column, self.use_) {
                Ok(key) if key.requires_utf8() && !arguments.encoding.is_exact() => {
                    return Err((NOT_UTF8, self.column(at)));
                }
                Ok(key) => keys.push(key),
                Err(error) if self.matches_nothing(error) => continue,
                Err(error) => return Err((error, self.column(at))),
            }
            self.walk(arguments, keys, found)?;
            keys.truncate(at);
        }
        Ok(())
    }

    /// Adds the shard of one key.
    fn place(&self, keys: &Keys, found: &mut Places) -> Result<(), (KeyError, &str)> {
        let shard = match self.placement.shard(keys) {
            Ok(shard) => shard,
            Err(error) if self.matches_nothing(error) => return Ok(()),
            Err(error) => return Err((error, self.column(0))),
        };
        *found = match std::mem::replace(found, Places::None) {
            Places::None => Places::One(shard),
            Places::One(one) if one == shard => Places::One(one),
            Places::One(one) => Places::Many([one, shard].into_iter().collect()),
            Places::Many(mut set) => {
                set.insert(shard);
                Places::Many(set)
            }
        };
        Ok(())
    }

    /// Whether any server may be asked about the value: it matches no row, or PostgreSQL rejects it.
    fn matches_nothing(&self, error: KeyError) -> bool {
        match error {
            // No condition of the statement's: it chooses a shard.
            _ if self.is_by_session() => false,
            KeyError::Rejected(_) => true,
            KeyError::Null | KeyError::OutOfRange => self.use_ == KeyUse::Compare,
            KeyError::Unprovable(_) => false,
        }
    }

    /// Whether the key is the session's own.
    fn is_by_session(&self) -> bool {
        let value = self.parts.first().and_then(|part| part.values.first());
        value.is_some_and(|value| matches!(value.source, KeySource::Session { .. }))
    }

    fn column(&self, index: usize) -> &str {
        self.placement
            .columns()
            .get(index)
            .map_or("", |column| column.name.as_str())
    }
}

pub(super) const NOT_UTF8: KeyError = KeyError::Unprovable(
    "the key has characters beyond ASCII and the client's encoding is not UTF-8",
);

const SHARED_PARAMETER: KeyError = KeyError::Unprovable(
    "the parameter has no declared type and is used in several places, which may give it another type",
);

const OTHER_TYPE: KeyError =
    KeyError::Unprovable("the parameter's declared type is not the type it is cast to");

const ROUNDED: KeyError = KeyError::Unprovable("the cast rounds the value");

const NOT_THERE: KeyError = KeyError::Unprovable("the parameter is missing");

const OTHER_LITERAL: KeyError =
    KeyError::Unprovable("the literal's type is not that of the shard key's column");

impl KeyValue {
    /// The key that a column of this type has of it.
    pub(super) fn key(
        &self,
        arguments: &Arguments<'_>,
        column: &ColumnType,
        use_: KeyUse,
    ) -> Result<Key, KeyError> {
        match self.source {
            KeySource::Null => Err(KeyError::Null),
            KeySource::Bool(value) => {
                let text = if value { "true" } else { "false" };
                Key::from_literal(text, LiteralKind::Bool, column, use_)
            }
            KeySource::Literal { index, negative } => {
                let (value, kind) = literal(arguments, index)?;
                // A cast rounds what is no integer.
                let digits = || value.bytes().all(|byte| byte.is_ascii_digit());
                if kind == LiteralKind::Number && is_integer_oid(self.cast) && !digits() {
                    return Err(ROUNDED);
                }
                literal_key(&value, kind, negative, column, use_)
            }
            KeySource::Parameter(index) => self.parameter_key(arguments, index, column, use_),
            KeySource::Session { index, count } => {
                let key = arguments.parameters.session_key;
                let value = key.get(index).filter(|_| key.len() == count);
                let value = value.ok_or(by_key::OTHER_COUNT)?;
                Key::from_literal(value, LiteralKind::String, column, use_)
            }
        }
    }

    fn parameter_key(
        &self,
        arguments: &Arguments<'_>,
        index: usize,
        column: &ColumnType,
        use_: KeyUse,
    ) -> Result<Key, KeyError> {
        let parameters = &arguments.parameters;
        let declared = parameters.type_oid(index);
        let format = parameters.format(index).ok_or(NOT_THERE)?;
        let type_oid = match (declared, self.cast) {
            (declared, 0) => declared,
            (0, cast) => cast,
            (declared, cast) if declared == cast => declared,
            // The cast keeps the value, or the server says that it is out of range.
            (declared, cast) if is_integer_oid(declared) && is_integer_oid(cast) => declared,
            _ => return Err(OTHER_TYPE),
        };
        let value = parameters.value(index).ok_or(NOT_THERE)?;
        let value = value
            .map(|bytes| in_utf8(arguments, bytes, column, (type_oid, format)))
            .transpose()?;
        let key = Key::from_parameter(type_oid, format, value.as_deref(), column, use_);
        let certain = match &key {
            Ok(key) => self.means_its_digits(format, key),
            Err(error) => *error == KeyError::Null,
        };
        if self.shared && declared == 0 && !certain {
            return Err(SHARED_PARAMETER);
        }
        key
    }

    /// Whether a text has this key as a number of any type. Its bytes have not; nor has a text that
    /// is cast, which rounds it, or takes it for a character or bits.
    fn means_its_digits(&self, format: Format, key: &Key) -> bool {
        let digits = matches!(key, Key::Int(value) if value.unsigned_abs() <= EXACT_IN_FLOATS);
        digits && format == Format::Text && self.cast == 0
    }
}

/// The bytes of a parameter; those of a text in UTF-8.
fn in_utf8<'a>(
    arguments: &Arguments<'_>,
    bytes: &'a [u8],
    column: &ColumnType,
    (type_oid, format): (u32, Format),
) -> Result<Cow<'a, [u8]>, KeyError> {
    let is_text = |kind| matches!(kind, KeyType::Text | KeyType::Varchar | KeyType::Bpchar);
    let source = KeyType::from_oid(type_oid).unwrap_or(column.key_type);
    if bytes.is_ascii()
        || arguments.encoding.is_utf8()
        || !(format == Format::Text || is_text(source))
    {
        return Ok(Cow::Borrowed(bytes));
    }
    match arguments.encoding.read(bytes) {
        Some(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        Some(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
        None => Err(NOT_UTF8),
    }
}

fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
}

/// The OIDs of `smallint`, `integer` and `bigint`.
fn is_integer_oid(oid: u32) -> bool {
    KeyType::from_oid(oid).is_some_and(is_integer)
}

/// The value and kind of a literal that can be a key.
fn literal<'a>(
    arguments: &Arguments<'a>,
    index: usize,
) -> Result<(Cow<'a, str>, LiteralKind), KeyError> {
    let literal = arguments.literals.get(index).ok_or(OTHER_LITERAL)?;
    let kind = match literal.kind {
        TokenKind::Number => LiteralKind::Number,
        TokenKind::String
        | TokenKind::EscapeString
        | TokenKind::UnicodeString
        | TokenKind::DollarString => LiteralKind::String,
        _ => return Err(OTHER_LITERAL),
    };
    let value = literal_value(arguments.text, literal).ok_or(OTHER_LITERAL)?;
    Ok((value, kind))
}

fn literal_key(
    value: &str,
    kind: LiteralKind,
    negative: bool,
    column: &ColumnType,
    use_: KeyUse,
) -> Result<Key, KeyError> {
    if !negative {
        return Key::from_literal(value, kind, column, use_);
    }
    let mut signed = SmallVec::<[u8; NUMBER_BYTES]>::from_slice(b"-");
    signed.extend_from_slice(value.as_bytes());
    let signed = std::str::from_utf8(&signed).map_err(|_| OTHER_LITERAL)?;
    Key::from_literal(signed, kind, column, use_)
}
