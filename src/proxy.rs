//! Accepts clients, spawns sessions, drains on shutdown, swaps the configuration.
