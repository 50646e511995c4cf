//! Frame headers: where a message begins and ends in a buffer.
