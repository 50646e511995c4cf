//! The Prometheus registry that owners register their families with.
