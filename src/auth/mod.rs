//! Proofs of identity: SCRAM, md5 and their stored forms, users, rules; pure.

pub mod certificate;
pub mod maps;
pub mod md5;
pub mod rules;
pub mod scram;
pub mod users;
