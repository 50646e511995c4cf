//! Hashes a stream of small pieces: gathered in a buffer, and block by block once it is long.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;
use xxhash_rust::xxh3::xxh3_128;

/// Streams that are shorter are hashed in one go, which is several times faster.
const BLOCK_BYTES: usize = 512;

/// XXH3-128 over the bytes pushed.
#[derive(Clone)]
pub(super) struct Digest {
    buffer: Box<[u8; BLOCK_BYTES]>,
    used: usize,
    /// What has been hashed of a stream longer than a block.
    stream: Option<Box<Xxh3>>,
}

impl Default for Digest {
    fn default() -> Digest {
        Digest {
            buffer: Box::new([0; BLOCK_BYTES]),
            used: 0,
            stream: None,
        }
    }
}

impl Digest {
    pub fn clear(&mut self) {
        self.used = 0;
        self.stream = None;
    }

    #[inline]
    pub fn push(&mut self, byte: u8) {
        if self.used == BLOCK_BYTES {
            self.flush(&[]);
        }
        if let Some(slot) = self.buffer.get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
    }

    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.used..self.used + bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.flush(bytes),
        }
    }

    /// Appends the first `length` of the eight bytes.
    #[inline]
    pub fn extend_short(&mut self, bytes: [u8; 8], length: usize) {
        match self
            .buffer
            .get_mut(self.used..)
            .and_then(<[u8]>::first_chunk_mut)
        {
            Some(free) => {
                *free = bytes;
                self.used += length.min(8);
            }
            None => self.flush(bytes.get(..length).unwrap_or(&bytes)),
        }
    }

    #[cold]
    #[inline(never)]
    fn flush(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_or_insert_with(Box::default);
        stream.update(self.buffer.get(..self.used).unwrap_or_default());
        stream.update(bytes);
        self.used = 0;
    }

    /// The hash of everything since [`Digest::clear`].
    pub fn finish(&mut self) -> u128 {
        let rest = self.buffer.get(..self.used).unwrap_or_default();
        match &mut self.stream {
            None => xxh3_128(rest),
            Some(stream) => {
                stream.update(rest);
                self.used = 0;
                stream.digest128()
            }
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}
