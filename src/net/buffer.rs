//! A byte queue between a socket and the frames in it: appended at the back, consumed at the front.

/// Bytes asked of a socket by its first read. Most requests and many answers are smaller, and a queue of
/// this size is [kept](Buffer::release) while it is empty.
const FIRST_READ_BYTES: usize = 512;

/// The most memory that an empty queue of a server's keeps until it is used again.
const LARGEST_TRIMMED_BYTES: usize = 16 * 1024;

/// Bytes asked of a socket that keeps filling the buffer.
const LARGEST_READ_BYTES: usize = 128 * 1024;

/// The most memory that a queue keeps for later once nothing, or little, is left in it.
const LARGEST_KEPT_BYTES: usize = 512 * 1024;

/// A byte queue in one piece of memory. Empty and [released](Buffer::release) it holds next to none.
///
/// Its memory stays in proportion to the most that was queued at once, however much passes through:
/// what has been consumed is given up before anything is appended, once it outweighs what is left.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    /// What the next read asks for; doubles while reads come back full.
    read_bytes: usize,
}

impl Buffer {
    /// An empty queue without memory.
    pub fn new() -> Buffer {
        Buffer::default()
    }

    /// The queued bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or(&[])
    }

    /// The queued bytes, to patch in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.get_mut(self.start..).unwrap_or(&mut [])
    }

    /// How many bytes are queued.
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes `count` bytes, or all there are, from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.data.len());
        if self.start == self.data.len() {
            self.start = 0;
            if self.data.capacity() > LARGEST_KEPT_BYTES {
                self.data = Vec::new();
            } else {
                self.data.clear();
            }
        }
    }

    /// The memory to append to. What is already there must stay.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.compact();
        &mut self.data
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.data.extend_from_slice(bytes);
    }

    /// Gives up the consumed front once it outweighs what is left, so that every byte consumed pays
    /// for moving at most one.
    fn compact(&mut self) {
        if self.start > self.len() {
            self.forget_front();
        }
    }

    fn forget_front(&mut self) {
        self.data.drain(..self.start);
        self.start = 0;
        let kept = LARGEST_KEPT_BYTES.max(self.data.len().saturating_mul(4));
        if self.data.capacity() > kept {
            self.data.shrink_to(kept / 2);
        }
    }

    /// Puts `bytes` before everything that is queued.
    pub fn push_front(&mut self, bytes: &[u8]) {
        let mut data = Vec::with_capacity(bytes.len() + self.len());
        data.extend_from_slice(bytes);
        data.extend_from_slice(self.bytes());
        self.data = data;
        self.start = 0;
    }

    /// When nothing is queued, gives the memory back that goes beyond what a small message needs.
    pub fn release(&mut self) {
        if self.is_empty() && self.data.capacity() > FIRST_READ_BYTES {
            *self = Buffer::new();
        }
    }

    /// When nothing is queued, gives the memory of large messages back.
    pub fn trim(&mut self) {
        if self.is_empty() && self.data.capacity() > LARGEST_TRIMMED_BYTES {
            *self = Buffer::new();
        }
    }

    /// Whether the next read needs no more memory.
    pub fn has_room(&self) -> bool {
        self.data.capacity() - self.data.len() >= self.read_bytes.max(FIRST_READ_BYTES) / 2
    }

    /// Moves the first `count` bytes to the back of `other`; exchanges the memory instead of copying
    /// when that is the whole queue, `other` is empty, and it is more than a small message: so the small
    /// ones leave each queue its own memory.
    pub fn move_to(&mut self, count: usize, other: &mut Buffer) {
        if other.is_empty() && count == self.len() && count > FIRST_READ_BYTES {
            std::mem::swap(&mut self.data, &mut other.data);
            std::mem::swap(&mut self.start, &mut other.start);
        } else {
            other.push(self.bytes().get(..count).unwrap_or(&[]));
            self.consume(count);
        }
    }

    /// Makes room for the next read and returns the memory to read into.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if !self.has_room() {
            let wanted = self.read_bytes.max(FIRST_READ_BYTES);
            if self.start > 0 {
                self.forget_front();
            }
            self.data.reserve(wanted);
        }
        &mut self.data
    }

    /// Learns from a read of `count` bytes how much to ask for next time.
    pub fn after_read(&mut self, count: usize) {
        let wanted = self.read_bytes.max(FIRST_READ_BYTES);
        if count >= wanted {
            self.read_bytes = (wanted * 2).min(LARGEST_READ_BYTES);
        } else if count < wanted / 4 {
            self.read_bytes = (wanted / 2).max(FIRST_READ_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_released_buffer_holds_little_memory() {
        let mut buffer = Buffer::new();
        buffer.push(b"abc");
        buffer.release();
        assert_eq!(buffer.bytes(), b"abc");
        buffer.consume(3);
        buffer.release();
        assert!(buffer.data.capacity() <= FIRST_READ_BYTES);
        buffer.push(&[0; LARGEST_TRIMMED_BYTES]);
        buffer.consume(LARGEST_TRIMMED_BYTES);
        buffer.trim();
        assert_eq!(buffer.data.capacity(), LARGEST_TRIMMED_BYTES);
        buffer.release();
        assert_eq!(buffer.data.capacity(), 0);
    }

    #[test]
    fn a_large_message_leaves_no_memory_behind() {
        let mut buffer = Buffer::new();
        buffer.push(&vec![0; 8 * LARGEST_KEPT_BYTES]);
        buffer.consume(8 * LARGEST_KEPT_BYTES - 1);
        buffer.push(b"a");
        assert!(buffer.data.capacity() <= LARGEST_KEPT_BYTES);
        buffer.push(&vec![0; 8 * LARGEST_KEPT_BYTES]);
        buffer.consume(usize::MAX);
        assert_eq!(buffer.data.capacity(), 0);
    }

    proptest! {
        #[test]
        fn memory_follows_what_is_queued_not_what_has_passed(
            steps in proptest::collection::vec((1usize..4000, 1usize..4000, 0u8..3), 1..300),
        ) {
            let (mut buffer, mut other) = (Buffer::new(), Buffer::new());
            let mut most = 0;
            let (mut next, mut expected) = (0u8, 0u8);
            for (add, take, how) in steps {
                let bytes: Vec<u8> = (0..add).map(|_| { next = next.wrapping_add(1); next }).collect();
                match how {
                    0 => buffer.push(&bytes),
                    1 => buffer.tail().extend_from_slice(&bytes),
                    _ => {
                        other.push(&bytes);
                        other.move_to(bytes.len(), &mut buffer);
                    }
                }
                most = most.max(buffer.len());
                // Never empty, as the queue towards a client that reads too slowly.
                let take = take.min(buffer.len() - 1);
                for byte in buffer.bytes().iter().take(take) {
                    expected = expected.wrapping_add(1);
                    prop_assert_eq!(*byte, expected);
                }
                buffer.consume(take);
                prop_assert!(buffer.data.len() <= 2 * most + 4000, "{} for {most}", buffer.data.len());
            }
        }

        #[test]
        fn bytes_leave_in_the_order_they_came(
            pushes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            takes in proptest::collection::vec(0usize..60, 0..20),
        ) {
            let (mut from, mut to) = (Buffer::new(), Buffer::new());
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (index, push) in pushes.iter().enumerate() {
                from.push(push);
                sent.extend_from_slice(push);
                let take = takes.get(index).copied().unwrap_or(0).min(from.len());
                from.move_to(take, &mut to);
                from.room();
                if index % 3 == 0 {
                    got.extend_from_slice(to.bytes());
                    to.consume(to.len());
                }
            }
            got.extend_from_slice(to.bytes());
            got.extend_from_slice(from.bytes());
            prop_assert_eq!(sent, got);
        }
    }
}
