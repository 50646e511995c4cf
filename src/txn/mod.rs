//! The state of a client's transaction and the shards it has touched.
