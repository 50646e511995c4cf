//! Proofs of identity: SCRAM and its stored verifiers; pure.

pub mod certificate;
pub mod scram;
pub mod users;
