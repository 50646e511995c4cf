//! Server connections kept for reuse.
