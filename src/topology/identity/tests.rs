//! Tests of the identity rules.
