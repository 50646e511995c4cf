//! Hashes a stream of small pieces: gathered in a buffer, and block by block once it is long.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;
use xxhash_rust::xxh3::xxh3_128;

/// Streams that are shorter are hashed in one go, which is several times faster.
const BLOCK_BYTES: usize = 4096;

/// XXH3-128 over the bytes pushed.
#[derive(Clone, Default)]
pub(super) struct Digest {
    buffer: Vec<u8>,
    /// What has been hashed of a stream longer than a block.
    stream: Option<Box<Xxh3>>,
}

impl Digest {
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.stream = None;
    }

    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.buffer.push(byte);
    }

    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BLOCK_BYTES {
            self.flush(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Appends a word with its ASCII letters in lower case.
    #[inline]
    pub fn extend_lower(&mut self, word: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(word);
        if let Some(copy) = self.buffer.get_mut(start..) {
            copy.make_ascii_lowercase();
        }
        if self.buffer.len() > BLOCK_BYTES {
            self.flush(&[]);
        }
    }

    #[cold]
    fn flush(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_or_insert_with(Box::default);
        stream.update(&self.buffer);
        stream.update(bytes);
        self.buffer.clear();
    }

    /// The hash of everything since [`Digest::clear`].
    pub fn finish(&mut self) -> u128 {
        match &mut self.stream {
            None => xxh3_128(&self.buffer),
            Some(stream) => {
                stream.update(&self.buffer);
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
