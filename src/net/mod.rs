//! Streams, TLS and the buffers between sockets and frames.

pub mod listener;
pub mod stream;
pub mod tls;
pub mod verify;
