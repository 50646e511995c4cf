//! Replica sets: probes, roles, lag, nearest selection, the catalogue's loader.
