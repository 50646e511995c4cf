//! What was asked: tokens, shapes, classification, syntax trees; pure.

pub mod analysis;
pub mod block;
pub mod body;
pub mod classify;
pub mod definition;
pub mod encoding;
pub mod lexer;
pub mod literal;
pub mod parse;
pub mod relations;
pub mod routine;
pub mod shape;
pub mod shifts;
pub mod splice;
pub mod statement;
pub mod token;
pub mod values;
