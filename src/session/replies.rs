//! Which reply of a server answers which request, and what becomes of it; pure.
//!
//! Every message sent to a server whose answer matters is noted here in order. The server's replies
//! then meet the head of that queue:
//!
//! ```text
//! request        replies that belong to it               the last of them
//! Query          T D* C | G … C | H … C | I | E, any number of times   Z
//! Parse          1 | E                                     either
//! Bind           2 | E                                     either
//! Describe       t? then T | n, or E                       T, n or E
//! Execute        D* then C | I | s, or G … C, H … C, or E   C, I, s or E
//! Close          3                                         3
//! Sync           Z                                         Z
//! FunctionCall   V | E                                     Z
//! ```
//!
//! An error inside an extended batch ends every request up to the next Sync (PostgreSQL
//! documentation, 55.2.3). A server in COPY-in mode ignores Sync, so Syncs that reached it before the
//! copy's end get no answer. Unless the copy fails before the server reads on: whether it had come to
//! them by then is not to be seen, so one more `Z` may come for each ([`Replies::is_in_doubt`]). `N`, `S` and `A` come at any time and belong to nobody.

use std::collections::VecDeque;

use crate::backend::connection::StatementId;
use crate::session::effect::Effect;
use crate::session::quick::Outlook;
use crate::wire::backend::{Status, parse_complete};

/// A request whose answer is due.
#[derive(Debug)]
pub enum Expect {
    /// The BEGIN that goes ahead of a transaction's first statement, out of the client's sight.
    Opening,
    /// A simple Query: what its statements do to the session, in their order.
    Query(Effects),
    /// A simple Query of one EXPLAIN: rows of the proxy's own that go before the server's.
    Explain(Box<[u8]>),
    /// A Parse, of the client's own or of the proxy's.
    Parse {
        /// The statement it prepares.
        id: StatementId,
        /// The client's name for it, if the client waits for ParseComplete.
        seen: Option<Box<[u8]>>,
    },
    /// A Bind.
    Bind,
    /// A Describe.
    Describe,
    /// A Describe of the client's statement of this name.
    DescribeStatement(Box<[u8]>),
    /// The same, when the client has got the parameters already.
    DescribeColumns(Box<[u8]>),
    /// An Execute: what the statement does to the session.
    Execute(Effects),
    /// A Close, of the client's own (`seen`) or of the proxy's.
    Close {
        /// Whether the client waits for CloseComplete.
        seen: bool,
    },
    /// A message of the proxy's own whose one answer, of this tag, the client does not see.
    Quiet(u8),
    /// The end of a PREPARE of the proxy's own.
    Prepared(StatementId),
    /// A Sync.
    Sync,
    /// A Sync of the proxy's own, out of the client's sight.
    QuietSync,
    /// A FunctionCall.
    FunctionCall,
    /// The end of the client's COPY data; nothing answers it.
    CopyEnd,
    /// A Parse of a statement that the server has already.
    Known {
        /// The statement.
        id: StatementId,
        /// The client's name for it.
        name: Box<[u8]>,
    },
    /// Words of the proxy's own that belong at this place.
    Local(Box<[u8]>),
    /// A message made to fail; the client gets this error in place of the server's.
    Refused(Box<[u8]>),
}

impl Expect {
    /// Whether ReadyForQuery is what ends it.
    pub fn ends_unit(&self) -> bool {
        matches!(
            self,
            Expect::Query(_) | Expect::Explain(_) | Expect::Sync | Expect::FunctionCall
        )
    }
}

/// What statements do to the session once they have completed; nothing for most, and then no memory.
pub type Effects = Option<Box<VecDeque<Effect>>>;

/// What to do with a server's message.
#[derive(Debug, PartialEq)]
pub enum Reply {
    /// Pass it on.
    Forward,
    /// Pass it on, and these bytes behind it.
    ForwardWith(Box<[u8]>),
    /// Drop it.
    Drop,
    /// ReadyForQuery out of the client's sight: drop it.
    Quiet(Status),
    /// Pass it on; a statement has completed and did this to the session.
    Completed(Option<Effect>),
    /// An error: pass it on, or these bytes in its place.
    Failed(Option<Box<[u8]>>),
    /// ReadyForQuery: pass it on with the status that the client is to see.
    Ready(Status),
    /// CopyInResponse: pass it on.
    CopyIn,
    /// A notification that the connection itself listened for.
    Notification,
    /// The columns of the statement of this name, or that it has none: pass it on.
    Described(Box<[u8]>),
    /// It answers nothing: the connection can't be trusted any more.
    OutOfStep,
}

/// The requests whose answers are due, oldest first.
#[derive(Debug, Default)]
pub struct Replies {
    queue: VecDeque<Expect>,
    /// An error came and the Sync that ends it has not been sent.
    skipping: bool,
    /// The server takes COPY data and ignores Syncs.
    copying: bool,
    /// Syncs that came before the end of the COPY data at hand.
    swallowed: usize,
    /// Those of a COPY that has failed: each may be answered yet or not.
    doubtful: usize,
    /// A request with effects is among those that are due.
    effects: bool,
    /// How the answer will look, if it may be passed on at a glance.
    pub outlook: Option<Outlook>,
}

impl Replies {
    /// How many answers are due.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no answer is due.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a statement is under way on whose effect the meaning of the next message depends.
    pub fn has_effects(&self) -> bool {
        self.effects && !self.queue.is_empty()
    }

    /// Whether it is not known yet that the server accepts a statement.
    pub fn is_parsing(&self, wanted: StatementId) -> bool {
        let is_it = |one: &Expect| matches!(one, Expect::Parse { id, .. } if *id == wanted);
        self.queue.iter().any(is_it)
    }

    /// Whether the server ignores everything up to the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether the server takes COPY data.
    pub fn is_copying(&self) -> bool {
        self.copying
    }

    /// Whether answers may come that nothing due asks for; a request whose answer is certain settles it.
    pub fn is_in_doubt(&self) -> bool {
        self.doubtful > 0
    }

    /// Notes a request that is being sent; gives it back if the server is going to ignore it.
    pub fn push(&mut self, expect: Expect) -> Option<Expect> {
        match expect {
            Expect::Sync if self.copying => {
                self.swallowed += 1;
                return None;
            }
            Expect::Sync | Expect::QuietSync => self.skipping = false,
            Expect::CopyEnd if self.copying || self.queue.is_empty() => {
                self.copying = false;
                return None;
            }
            _ if self.skipping => return Some(expect),
            _ => {}
        }
        let has_effects = matches!(expect, Expect::Query(Some(_)) | Expect::Execute(Some(_)));
        self.effects = has_effects || self.has_effects();
        self.queue.push_back(expect);
        None
    }

    /// Whether the proxy's own words are next, for which nothing of the server's has to be waited for.
    pub fn is_local_next(&self) -> bool {
        let front = self.queue.front();
        matches!(front, Some(Expect::Local(_) | Expect::Known { .. }))
    }

    /// The proxy's own words, if it is their turn.
    pub fn take_local(&mut self) -> Option<Box<[u8]>> {
        if !self.is_local_next() {
            return None;
        }
        match self.queue.pop_front()? {
            Expect::Local(bytes) => Some(bytes),
            _ => {
                let mut words = Vec::new();
                parse_complete(&mut words);
                Some(words.into())
            }
        }
    }

    /// Takes the server's next message; `given_up` gets the requests that an error ended.
    pub fn take(&mut self, tag: u8, body: &[u8], given_up: &mut Vec<Expect>) -> Reply {
        match (tag, self.queue.front_mut()) {
            (b'N' | b'S', _) => Reply::Forward,
            (b'A', _) => Reply::Notification,
            (b'E', _) => self.take_error(given_up),
            (b'C', Some(Expect::Opening)) => Reply::Drop,
            (b'C', Some(Expect::Prepared(_))) => self.answered(Reply::Drop),
            (b'Z', Some(Expect::QuietSync)) => {
                match body.first().copied().and_then(Status::from_byte) {
                    Some(status) => self.answered(Reply::Quiet(status)),
                    None => Reply::OutOfStep,
                }
            }
            (tag, Some(Expect::Quiet(awaited))) if tag == *awaited => self.answered(Reply::Drop),
            (b'Z', Some(Expect::Opening)) if body == b"T" => self.answered(Reply::Drop),
            (b'1', Some(Expect::Parse { seen, .. })) => {
                let seen = seen.is_some();
                self.answered(if seen { Reply::Forward } else { Reply::Drop })
            }
            (b'3', Some(Expect::Close { seen })) => {
                let seen = *seen;
                self.doubtful = 0;
                self.answered(if seen { Reply::Forward } else { Reply::Drop })
            }
            (b'2', Some(Expect::Bind)) | (b'T' | b'n', Some(Expect::Describe)) => {
                self.answered(Reply::Forward)
            }
            (
                b'T' | b'n',
                Some(Expect::DescribeStatement(name) | Expect::DescribeColumns(name)),
            ) => {
                let name = std::mem::take(name);
                self.answered(Reply::Described(name))
            }
            (b't', Some(Expect::DescribeColumns(_))) => Reply::Drop,
            (b't', Some(Expect::Describe | Expect::DescribeStatement(_)))
            | (b'T', Some(Expect::Query(_)))
            | (b'H' | b'W' | b'c', Some(Expect::Query(_) | Expect::Execute(_)))
            | (b'V', Some(Expect::FunctionCall)) => Reply::Forward,
            (b'T', Some(Expect::Explain(rows))) => Reply::ForwardWith(std::mem::take(rows)),
            (b'C', Some(Expect::Explain(_))) => Reply::Completed(None),
            (b's', Some(Expect::Execute(_))) => self.answered(Reply::Forward),
            (b'C' | b'I', Some(Expect::Query(effects))) => {
                self.swallowed = 0;
                Reply::Completed(effects.as_mut().and_then(|effects| effects.pop_front()))
            }
            (b'C' | b'I', Some(Expect::Execute(effects))) => {
                let effect = effects.as_mut().and_then(|effects| effects.pop_front());
                self.swallowed = 0;
                self.answered(Reply::Completed(effect))
            }
            (b'G', Some(Expect::Query(_) | Expect::Execute(_))) => {
                self.start_copying();
                Reply::CopyIn
            }
            (b'Z', Some(ends)) if ends.ends_unit() => {
                self.copying = false;
                match body.first().copied().and_then(Status::from_byte) {
                    Some(status) => self.answered(Reply::Ready(status)),
                    None => Reply::OutOfStep,
                }
            }
            (b'Z', _) if self.doubtful > 0 => {
                self.doubtful -= 1;
                self.skipping = false;
                let status = body.first().copied().and_then(Status::from_byte);
                status.map_or(Reply::OutOfStep, Reply::Ready)
            }
            _ => Reply::OutOfStep,
        }
    }

    fn answered(&mut self, reply: Reply) -> Reply {
        self.queue.pop_front();
        // Data of a copy that never began: the server has dropped it too.
        while let Some(Expect::CopyEnd) = self.queue.front() {
            self.queue.pop_front();
        }
        reply
    }

    fn take_error(&mut self, given_up: &mut Vec<Expect>) -> Reply {
        self.copying = false;
        self.doubtful += std::mem::take(&mut self.swallowed);
        let mut in_place = None;
        match self.queue.front() {
            // Nothing asked: the server says why it is about to close the connection.
            None => return Reply::Failed(None),
            // Nothing that can fail is sent this way; what follows must not run without it.
            Some(Expect::Opening) => return Reply::OutOfStep,
            Some(request) if request.ends_unit() => return Reply::Failed(None),
            _ => {}
        }
        loop {
            match self.queue.pop_front() {
                None => {
                    self.skipping = true;
                    break;
                }
                Some(sync @ (Expect::Sync | Expect::QuietSync)) => {
                    self.queue.push_front(sync);
                    break;
                }
                Some(Expect::Refused(bytes)) if given_up.is_empty() => in_place = Some(bytes),
                Some(expect) => given_up.push(expect),
            }
        }
        Reply::Failed(in_place)
    }

    /// Syncs that were sent before the end of the data are ignored by the server.
    fn start_copying(&mut self) {
        let mut ended = false;
        let mut swallowed = 0;
        self.queue.retain(|expect| match expect {
            Expect::CopyEnd if !ended => {
                ended = true;
                false
            }
            Expect::Sync if !ended => {
                swallowed += 1;
                false
            }
            _ => true,
        });
        self.swallowed = swallowed;
        self.copying = !ended;
    }

    /// Every answer that was due has come.
    pub fn finish(&mut self) {
        self.queue.clear();
        self.swallowed = 0;
    }

    /// Makes what ends the unit that has just failed one of the proxy's own; false if more is due.
    pub fn hide_end(&mut self) -> bool {
        match (self.queue.pop_front(), self.queue.is_empty()) {
            (Some(Expect::Sync), true) => self.queue.push_back(Expect::QuietSync),
            (Some(Expect::Query(_)), true) => self.queue.push_back(Expect::Quiet(b'Z')),
            (Some(other), _) => {
                self.queue.push_front(other);
                return false;
            }
            (None, _) => return false,
        }
        true
    }

    /// Gives up everything that is due, as when the connection is lost.
    pub fn clear(&mut self) -> impl Iterator<Item = Expect> {
        self.skipping = false;
        self.copying = false;
        (self.swallowed, self.doubtful) = (0, 0);
        self.outlook = None;
        std::mem::take(&mut self.queue).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Reply = Reply::Ready(Status::Idle);

    fn run(replies: &mut Replies, messages: &[u8]) -> Vec<Reply> {
        messages
            .iter()
            .map(|tag| replies.take(*tag, b"I", &mut Vec::new()))
            .collect()
    }

    fn queue(expects: Vec<Expect>) -> Replies {
        let mut replies = Replies::default();
        for expect in expects {
            assert!(replies.push(expect).is_none());
        }
        replies
    }

    fn parse() -> Expect {
        Expect::Parse {
            id: 1,
            seen: Some(Box::default()),
        }
    }

    #[test]
    fn a_query_ends_with_ready() {
        let mut replies = queue(vec![Expect::Query(None)]);
        let got = run(&mut replies, b"TCTCIZ");
        assert_eq!(got.last(), Some(&IDLE));
        assert!(replies.is_empty());
    }

    #[test]
    fn an_opening_stays_out_of_sight_and_must_succeed() {
        let mut replies = queue(vec![Expect::Opening, Expect::Query(None)]);
        assert_eq!(replies.take(b'C', b"", &mut Vec::new()), Reply::Drop);
        assert_eq!(replies.take(b'Z', b"T", &mut Vec::new()), Reply::Drop);
        assert_eq!(run(&mut replies, b"CZ").last(), Some(&IDLE));
        assert_eq!(
            run(&mut queue(vec![Expect::Opening]), b"E"),
            [Reply::OutOfStep]
        );
    }

    #[test]
    fn a_hidden_parse_is_dropped() {
        let hidden = Expect::Parse { id: 1, seen: None };
        let mut replies = queue(vec![
            hidden,
            Expect::Bind,
            Expect::Execute(None),
            Expect::Sync,
        ]);
        let got = run(&mut replies, b"12CZ");
        assert_eq!(
            got,
            [Reply::Drop, Reply::Forward, Reply::Completed(None), IDLE]
        );
    }

    #[test]
    fn an_error_ends_the_batch_up_to_its_sync() {
        let mut replies = queue(vec![
            parse(),
            Expect::Bind,
            Expect::Sync,
            parse(),
            Expect::Sync,
        ]);
        let mut given_up = Vec::new();
        assert_eq!(replies.take(b'E', b"", &mut given_up), Reply::Failed(None));
        assert_eq!(given_up.len(), 2);
        assert_eq!(run(&mut replies, b"Z1Z"), [IDLE, Reply::Forward, IDLE]);
    }

    #[test]
    fn after_an_error_the_server_ignores_everything_but_sync() {
        let mut replies = queue(vec![parse()]);
        assert_eq!(
            replies.take(b'E', b"", &mut Vec::new()),
            Reply::Failed(None)
        );
        assert!(replies.push(Expect::Bind).is_some());
        assert!(replies.push(Expect::Sync).is_none());
        assert_eq!(run(&mut replies, b"Z"), [IDLE]);
    }

    #[test]
    fn a_refusal_takes_the_place_of_the_error_it_provoked() {
        let words = Expect::Refused(Box::from(&b"no"[..]));
        let mut replies = queue(vec![words, Expect::Sync]);
        let reply = replies.take(b'E', b"", &mut Vec::new());
        assert_eq!(reply, Reply::Failed(Some(Box::from(&b"no"[..]))));
    }

    #[test]
    fn an_earlier_error_hides_a_refusal_behind_it() {
        let words = Expect::Refused(Box::from(&b"no"[..]));
        let mut replies = queue(vec![parse(), words, Expect::Sync]);
        assert_eq!(
            replies.take(b'E', b"", &mut Vec::new()),
            Reply::Failed(None)
        );
    }

    #[test]
    fn syncs_before_the_end_of_copy_data_get_no_answer() {
        let mut replies = queue(vec![Expect::Execute(None), Expect::Sync]);
        assert_eq!(run(&mut replies, b"G"), [Reply::CopyIn]);
        assert!(replies.is_copying());
        assert!(replies.push(Expect::Sync).is_none());
        assert!(replies.push(Expect::CopyEnd).is_none());
        assert!(replies.push(Expect::Sync).is_none());
        assert_eq!(run(&mut replies, b"CZ"), [Reply::Completed(None), IDLE]);
        assert!(replies.is_empty());
    }

    #[test]
    fn a_sync_before_a_copy_that_fails_may_be_answered_or_not() {
        for answers in [&b"GEZ"[..], &b"GEZZ"[..]] {
            let all = vec![
                Expect::Execute(None),
                Expect::Sync,
                Expect::CopyEnd,
                Expect::Sync,
            ];
            let mut replies = queue(all);
            assert_eq!(run(&mut replies, answers).last(), Some(&IDLE));
            assert!(replies.is_empty());
            assert_eq!(replies.is_in_doubt(), answers.len() == 3);
            assert!(replies.push(Expect::Close { seen: false }).is_none());
            assert_eq!(run(&mut replies, b"3"), [Reply::Drop]);
            assert!(!replies.is_in_doubt());
        }
        let mut replies = queue(vec![Expect::Execute(None), Expect::Sync]);
        assert_eq!(run(&mut replies, b"GEZ").last(), Some(&IDLE));
        assert!(replies.is_empty() && !replies.is_skipping() && !replies.is_in_doubt());
    }

    #[test]
    fn copy_data_may_be_sent_before_the_server_asks_for_it() {
        let all = vec![
            Expect::Execute(None),
            Expect::Sync,
            Expect::CopyEnd,
            Expect::Sync,
        ];
        let mut replies = queue(all);
        assert_eq!(run(&mut replies, b"GCZ").last(), Some(&IDLE));
        assert!(replies.is_empty() && !replies.is_copying());
    }

    #[test]
    fn data_for_a_copy_that_failed_to_start_is_nothing_to_wait_for() {
        let mut replies = queue(vec![Expect::Query(None), Expect::CopyEnd]);
        assert_eq!(run(&mut replies, b"EZ"), [Reply::Failed(None), IDLE]);
        assert!(replies.is_empty());
        assert!(replies.push(Expect::CopyEnd).is_none());
        assert!(replies.is_empty());
    }

    #[test]
    fn a_quiet_sync_ends_an_error_too() {
        let mut replies = queue(vec![parse(), Expect::Bind, Expect::QuietSync]);
        assert_eq!(
            replies.take(b'E', b"", &mut Vec::new()),
            Reply::Failed(None)
        );
        assert_eq!(run(&mut replies, b"Z"), [Reply::Quiet(Status::Idle)]);
        assert!(!replies.is_skipping() && replies.is_empty());
    }

    #[test]
    fn own_words_come_out_in_turn() {
        let words = Expect::Local(Box::from(&b"words"[..]));
        let mut replies = queue(vec![Expect::Query(None), words]);
        assert_eq!(replies.take_local(), None);
        run(&mut replies, b"CZ");
        assert_eq!(replies.take_local().as_deref(), Some(&b"words"[..]));
        assert!(replies.is_empty());
    }

    #[test]
    fn an_answer_nobody_asked_for_is_noticed() {
        assert_eq!(run(&mut Replies::default(), b"2"), [Reply::OutOfStep]);
        assert_eq!(
            run(&mut queue(vec![Expect::Bind]), b"1"),
            [Reply::OutOfStep]
        );
        assert_eq!(run(&mut queue(vec![Expect::Bind]), b"N"), [Reply::Forward]);
    }

    proptest! {
        #[test]
        fn any_replies_end_in_step_or_out_of_it(tags in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut replies = queue(vec![parse(), Expect::Bind, Expect::Describe,
                Expect::Execute(None), Expect::Sync, Expect::Query(None)]);
            for tag in tags {
                let before = replies.queue.len();
                replies.take(tag, b"I", &mut Vec::new());
                prop_assert!(replies.queue.len() <= before);
            }
        }
    }
}
