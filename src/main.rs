//! Reads flags and configuration, starts the runtime, maps failures to exit codes.

fn main() {}
