//! Streams, TLS and the buffers between sockets and frames.

pub mod buffer;
pub mod cores;
pub mod duplex;
pub mod home;
pub mod listener;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod verify;
