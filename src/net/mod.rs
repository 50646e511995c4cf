//! Streams, TLS and the buffers between sockets and frames.
