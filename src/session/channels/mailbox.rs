//! The notifications that wait for one client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use crate::error::Error;
use crate::sqlstate::SqlState;

/// What a waiting notification takes beside its bytes, roughly.
const LETTER_BYTES: usize = 64;

/// One notification.
#[derive(Debug)]
pub struct Letter {
    /// Its channel.
    pub channel: Arc<str>,
    /// The NotificationResponse.
    pub frame: Vec<u8>,
}

impl Letter {
    fn bytes(&self) -> usize {
        self.frame.len() + LETTER_BYTES
    }
}

/// The notifications that wait for one client.
#[derive(Debug)]
pub struct Mailbox {
    limit_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    letters: VecDeque<Arc<Letter>>,
    bytes: usize,
    /// Why no more will come.
    end: Option<Error>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// A mailbox that holds up to `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            limit_bytes,
            inner: Mutex::default(),
        })
    }

    /// Puts a notification in; a client that takes none ends here (`53200`).
    pub fn put(&self, letter: &Arc<Letter>) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return;
        }
        inner.bytes += letter.bytes();
        if inner.bytes > self.limit_bytes {
            inner.stop(self.overflow());
        } else {
            inner.letters.push_back(Arc::clone(letter));
        }
        inner.wake();
    }

    /// Says that no more will come, and why.
    pub fn end(&self, error: Error) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.stop(error);
        }
        inner.wake();
    }

    /// Why no more will come, if so.
    pub fn ended(&self) -> Option<Error> {
        self.inner.lock().end.clone()
    }

    /// Whether there is something to take or to learn; if not, wakes the task once there is.
    pub fn poll_ready(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.inner.lock();
        if !inner.letters.is_empty() || inner.end.is_some() {
            return true;
        }
        if !inner
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            inner.waker = Some(cx.waker().clone());
        }
        false
    }

    /// Takes everything that has come.
    pub fn take(&self) -> VecDeque<Arc<Letter>> {
        let mut inner = self.inner.lock();
        inner.bytes = 0;
        std::mem::take(&mut inner.letters)
    }

    /// Drops the notifications of channels that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut inner = self.inner.lock();
        inner.letters.retain(|letter| keep(&letter.channel));
        inner.bytes = inner.letters.iter().map(|letter| letter.bytes()).sum();
    }

    fn overflow(&self) -> Error {
        let message = "terminating connection because it does not take its notifications";
        Error::fatal(SqlState::OUT_OF_MEMORY, message)
            .detail(format!(
                "More than {} bytes of notifications wait for it, the most that limits.query_memory \
                 allows.",
                self.limit_bytes
            ))
            .hint("End transactions sooner, or read from the connection while it is idle.")
    }
}

impl Inner {
    fn stop(&mut self, error: Error) {
        self.letters = VecDeque::new();
        self.bytes = 0;
        self.end = Some(error);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(channel: &str, bytes: usize) -> Arc<Letter> {
        Arc::new(Letter {
            channel: channel.into(),
            frame: vec![0; bytes],
        })
    }

    #[test]
    fn letters_leave_in_the_order_they_came() {
        let mailbox = Mailbox::new(10_000);
        for channel in ["a", "b", "a", "c"] {
            mailbox.put(&letter(channel, 1));
        }
        mailbox.retain(|channel| channel != "b");
        let names: Vec<_> = mailbox.take().iter().map(|l| l.channel.clone()).collect();
        assert_eq!(names, ["a".into(), "a".into(), Arc::from("c")]);
        assert!(!mailbox.poll_ready(&Context::from_waker(Waker::noop())));
    }

    #[test]
    fn a_full_mailbox_ends() {
        let mailbox = Mailbox::new(1_000);
        for _ in 0..10 {
            mailbox.put(&letter("a", 1));
            mailbox.take();
        }
        assert!(mailbox.ended().is_none(), "what was taken does not count");
        mailbox.put(&letter("a", 500));
        mailbox.put(&letter("a", 500));
        assert_eq!(mailbox.ended().unwrap().code(), SqlState::OUT_OF_MEMORY);
        assert!(mailbox.take().is_empty());
    }
}
