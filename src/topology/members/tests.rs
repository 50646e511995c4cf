//! Tests of the replica set's bookkeeping.
