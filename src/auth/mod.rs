//! Proofs of identity: SCRAM and its stored verifiers; pure.
