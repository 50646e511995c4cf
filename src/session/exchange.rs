//! Moves bytes between the client and the server until something has to be decided.
//!
//! Rows are never decoded: whole runs of a server's frames move from its input queue to the client's
//! output queue, by exchanging the queues' memory when nothing stands in between. Only the headers are
//! read, and the bodies of the few messages that change the session's state. Reading from one side
//! stops while much is queued towards the other, so that a client can't make the proxy hold more than
//! [`HIGH_WATER_BYTES`](crate::session) and a read, nor a server more than [`PASSED_BYTES`] and a read.

use std::io;
use std::task::{Context, Poll};

use crate::backend::connection::LARGEST_HELD_FRAME_BYTES;
use crate::net::buffer::Buffer;
use crate::session::activity::State;
use crate::session::control::Signal;
use crate::session::effect::Effect;
use crate::session::held::Held;
use crate::session::replies::{Expect, Reply};
use crate::session::{Session, Stop};
use crate::txn::Transaction;
use crate::wire::backend::{Status, command_complete, ready_for_query};
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::frontend;

/// Bytes of an answer that are passed on before more are read: little enough to stay in the processor's
/// cache, and the queues' memory is exchanged then instead of copied.
const PASSED_BYTES: usize = 32 * 1024;

/// A Flush message.
const FLUSH: &[u8] = b"H\0\0\0\x04";

/// What ended an exchange.
#[derive(Debug)]
pub enum Event {
    /// The client has sent something.
    Heard,
    /// Every request has its answer.
    Answered,
    /// The session is told to do something.
    Told(Signal),
    /// A server is ready; the client is told so behind its notifications.
    Ready,
}

impl Session {
    /// Moves bytes until something has to be decided. `listen`: the client may speak.
    pub(super) async fn exchange(&mut self, listen: bool) -> Result<Event, Stop> {
        loop {
            match std::future::poll_fn(|cx| self.poll_exchange(cx, listen)).await? {
                Event::Ready => self.pass_ready().await?,
                event => return Ok(event),
            }
        }
    }

    /// Passes a ReadyForQuery on behind the client's notifications.
    pub(super) async fn pass_ready(&mut self) -> Result<(), Stop> {
        self.client.mail.is_ready_due = false;
        self.before_ready().await?;
        let applied = self.report_reset().await;
        ready_for_query(self.client.socket.output.tail(), self.transaction.status());
        applied?;
        // What the server has sent behind it.
        self.take_replies()
    }

    /// Waits for a statement on whose effect the meaning of the client's next message depends, and for
    /// the notifications of a transaction that must reach the client before the next one's.
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        let awaits_mail = self.client.mail.is_subscribed() && !self.batch.is_open();
        // What runs beside the transaction may yet break it.
        let is_beside =
            !self.batch.is_open() && self.server.as_ref().is_some_and(Held::is_detached);
        if awaits_mail
            || is_beside
            || self
                .server
                .as_ref()
                .is_some_and(|held| held.replies.has_effects())
        {
            self.drain().await?;
        }
        if awaits_mail {
            // What was committed before the client spoke stands before the answer.
            self.take_mail()?;
        }
        if self.batch.has_turned && self.batch.is_sent() && !self.is_skipping() {
            // What follows is no part of what came before, or is another transaction's.
            self.leave_batch().await?;
        }
        Ok(())
    }

    /// Waits until every request that was sent has its answer, or the server takes COPY data.
    pub(super) async fn drain(&mut self) -> Result<(), Stop> {
        let sent = self.batch.is_sent();
        let mut is_flushed = !sent;
        while let Some(held) = &mut self.server
            && !held.replies.is_empty()
            && !held.replies.is_copying()
        {
            if !std::mem::replace(&mut is_flushed, true) {
                // Without it the server may keep its answers until the batch ends.
                held.lease.socket.output.push(FLUSH);
            }
            if let Event::Told(Signal::Terminate) = self.exchange(false).await? {
                self.told(Signal::Terminate)?;
            }
        }
        Ok(())
    }

    pub(super) fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        listen: bool,
    ) -> Poll<Result<Event, Stop>> {
        loop {
            if let Err(stop) = self.poll_server(cx) {
                return Poll::Ready(Err(stop));
            }
            if let Err(stop) = self.poll_others(cx) {
                return Poll::Ready(Err(stop));
            }
            if let Some(event) = self.event(listen) {
                return Poll::Ready(Ok(event));
            }
            if let Err(stop) = self.poll_mail(cx) {
                return Poll::Ready(Err(stop));
            }
            let was_full = self.client.socket.output.len() >= PASSED_BYTES;
            if let Poll::Ready(Err(_)) = self.client.socket.poll_flush(cx) {
                return Poll::Ready(Err(Stop::Gone));
            }
            // The server was not read while the client's queue was full; there is room again.
            if !was_full || self.client.socket.output.len() >= PASSED_BYTES {
                break;
            }
        }
        if self.registered.control.told() == Signal::Terminate {
            // What the client says after it was ended comes too late.
            return Poll::Ready(Ok(Event::Told(Signal::Terminate)));
        }
        if listen && !self.is_congested() {
            if std::mem::take(&mut self.client.is_held_up) {
                // Frames were left unhandled while the server was behind.
                return Poll::Ready(Ok(Event::Heard));
            }
            match self.client.socket.poll_fill(cx) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Event::Heard)),
                Poll::Pending => {}
            }
        }
        match self.registered.control.poll_told(cx) {
            Signal::Drain if self.is_between_transactions() => {
                return Poll::Ready(Ok(Event::Told(Signal::Drain)));
            }
            Signal::Terminate => return Poll::Ready(Ok(Event::Told(Signal::Terminate))),
            _ => {}
        }
        if self.server.is_none() {
            self.client.socket.release();
        }
        self.show_activity(listen);
        Poll::Pending
    }

    /// Shows others what the session does, before it waits.
    fn show_activity(&mut self, listen: bool) {
        let is_due = self
            .server
            .as_ref()
            .is_some_and(|held| !held.replies.is_empty());
        let state = match self.transaction.status() {
            _ if is_due || !listen => State::Active,
            Status::Idle => State::Idle,
            Status::Transaction => State::InTransaction,
            Status::Failed => State::Failed,
        };
        let (activity, tally) = (
            &self.registered.control.activity,
            &mut self.registered.tally,
        );
        if self.transaction == Transaction::Idle && !is_due {
            tally.ended();
        }
        let socket = &self.client.socket;
        let bytes = (socket.received, socket.sent);
        activity.set_state(state);
        tally.show(activity, self.unit.latest(), self.unit.ended(), bytes);
        tally.show_settings(activity, self.settings.server());
        tally.show_resting(activity, self.others.links());
        activity.set_prepared(self.statements.count());
    }

    /// What there is to decide about the server, if anything.
    fn event(&self, listen: bool) -> Option<Event> {
        if self.client.mail.is_ready_due {
            return Some(Event::Ready);
        }
        let held = self.server.as_ref()?;
        let is_copying = !listen && held.replies.is_copying();
        let is_done = held.replies.is_empty()
            && (!listen
                || self.may_let_go()
                || self.may_rest_pinned()
                || self.others.has_news()
                || self.must_undo_others()
                || self.is_schema_due());
        (is_copying || is_done).then_some(Event::Answered)
    }

    /// Whether nothing would be lost if the session ended now.
    fn is_between_transactions(&self) -> bool {
        self.transaction == Transaction::Idle
            && self
                .server
                .as_ref()
                .is_none_or(|held| held.replies.is_empty())
            && !self.batch.is_open()
            && self.client.socket.input.is_empty()
            && self.client.socket.output.is_empty()
    }

    /// Writes to the server what is queued, and takes what it says.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        self.poll_send(cx)?;
        let held = self.server.as_ref();
        if held.is_some_and(|held| held.rest == 0 && held.replies.is_local_next()) {
            // A server that has nothing to answer says nothing that would bring them out.
            self.take_replies()?;
        }
        while self.client.socket.output.len() < PASSED_BYTES {
            let Some(held) = &mut self.server else {
                return Ok(());
            };
            match held.lease.socket.poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(Stop::Lost(error)),
                Poll::Ready(Ok(0)) => return Err(Stop::Lost(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => self.take_replies()?,
            }
            if self.client.mail.is_ready_due {
                break;
            }
            // A connection that stays is read until it has nothing to say, so that its next word wakes
            // the task.
            if self.may_let_go() {
                break;
            }
        }
        // An answer may have called for a question of the proxy's own.
        self.poll_send(cx)
    }

    /// Writes to the server what is queued.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        if let Some(held) = &mut self.server
            && !held.lease.socket.output.is_empty()
            && let Poll::Ready(Err(error)) = held.lease.socket.poll_flush(cx)
        {
            // It may have said why before it closed.
            let _ = self.take_replies();
            return Err(Stop::Lost(error));
        }
        Ok(())
    }

    /// Takes the frames that the server has sent.
    pub(super) fn take_replies(&mut self) -> Result<(), Stop> {
        if self.quick_answer() {
            return Ok(());
        }
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut held.lease.socket.input);
        let result = self.scan(&mut input);
        if let Some(held) = &mut self.server {
            held.lease.socket.input = input;
        }
        result
    }

    /// Passes frames on; `run` counts the bytes at the front of `input` that are to go to the client
    /// and have not been moved yet.
    fn scan(&mut self, input: &mut Buffer) -> Result<(), Stop> {
        let mut run = 0;
        while let Some(held) = &mut self.server
            && !self.client.mail.is_ready_due
        {
            let available = input.len() - run;
            if held.rest > 0 {
                let count = held.rest.min(available);
                run += count;
                held.rest -= count;
                if held.rest > 0 {
                    break;
                }
            }
            if let Some(words) = held.replies.take_local() {
                self.pass(input, run);
                self.client.socket.output.push(&words);
                self.unit_seen(words.len());
                run = 0;
                continue;
            }
            let bytes = input.bytes().get(run..).unwrap_or(&[]);
            let Some(header) = frame::header(bytes).map_err(out_of_step)? else {
                break;
            };
            if matches!(header.tag, b'D' | b'd') {
                // Of many rows only the last is in part.
                let whole = frame::rows(bytes);
                run += whole;
                if whole == 0 {
                    held.rest = header.frame_bytes;
                }
                continue;
            }
            if bytes.len() < header.frame_bytes {
                if header.frame_bytes > LARGEST_HELD_FRAME_BYTES {
                    return Err(out_of_step("a message is too long"));
                }
                break;
            }
            self.take_frame(input, &mut run, header)?;
        }
        self.pass(input, run);
        Ok(())
    }

    /// Moves the run to the client's queue.
    fn pass(&mut self, input: &mut Buffer, run: usize) {
        self.unit_seen(run);
        input.move_to(run, &mut self.client.socket.output);
    }

    /// The client is about to see part of the unit's answer.
    fn unit_seen(&mut self, bytes: usize) {
        if bytes > 0
            && self
                .server
                .as_ref()
                .is_some_and(|held| !held.replies.is_empty())
        {
            self.unit.make_final();
        }
    }

    /// Passes on what stands before a frame, which the client does not get.
    fn leave_out(&mut self, input: &mut Buffer, run: &mut usize, frame_bytes: usize) {
        self.pass(input, *run);
        input.consume(frame_bytes);
        *run = 0;
    }

    /// Takes one whole frame that stands behind the run.
    fn take_frame(
        &mut self,
        input: &mut Buffer,
        run: &mut usize,
        header: frame::Header,
    ) -> Result<(), Stop> {
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        let range = *run..*run + header.frame_bytes;
        let frame = input.bytes().get(range.clone()).unwrap_or(&[]);
        let reply = held
            .replies
            .take(header.tag, frame::body(frame), &mut self.unit.given_up);
        match reply {
            Reply::Forward if self.keeps_report(frame) => {
                self.leave_out(input, run, header.frame_bytes);
            }
            Reply::Forward | Reply::CopyIn => *run = range.end,
            Reply::ForwardWith(words) => {
                *run = range.end;
                self.pass(input, *run);
                *run = 0;
                self.client.socket.output.push(&words);
            }
            Reply::Described(name) => {
                self.note_told(&name, frame);
                *run = range.end;
            }
            Reply::Completed(effect) => self.take_completed(input, run, header, effect),
            Reply::Drop => self.leave_out(input, run, header.frame_bytes),
            Reply::Quiet(status) => {
                if !self.server.as_ref().is_some_and(Held::is_detached) {
                    self.transaction.report(status);
                }
                self.leave_out(input, run, header.frame_bytes);
            }
            Reply::Notification => {
                let frame = input.bytes_mut().get_mut(range.clone());
                if frame.is_some_and(|frame| self.hears_itself(frame)) {
                    *run = range.end;
                } else {
                    self.leave_out(input, run, header.frame_bytes);
                }
            }
            Reply::Failed(None) if self.is_stale(frame) => {
                self.leave_out(input, run, header.frame_bytes);
                return Err(Stop::Stale);
            }
            Reply::Failed(in_place) => match self.failed(frame, in_place) {
                None => *run = range.end,
                Some(words) => {
                    self.leave_out(input, run, header.frame_bytes);
                    self.client.socket.output.push(&words);
                }
            },
            Reply::Ready(status) => self.pass_status(input, run, header, status),
            Reply::OutOfStep => {
                return Err(out_of_step(format!(
                    "unexpected message '{}'",
                    char::from(header.tag)
                )));
            }
        }
        Ok(())
    }

    /// ReadyForQuery: passes it on with the status that the client is to see.
    fn pass_status(
        &mut self,
        input: &mut Buffer,
        run: &mut usize,
        header: frame::Header,
        status: Status,
    ) {
        self.batch.has_turned = false;
        let seen = self.ready(status);
        if self.must_wait(seen) {
            self.leave_out(input, run, header.frame_bytes);
            return;
        }
        let end = *run + header.frame_bytes;
        if let Some(byte) = input.bytes_mut().get_mut(end - 1) {
            *byte = seen.byte();
        }
        *run = end;
        self.settle_doubt();
    }

    /// Takes a CommandComplete or EmptyQueryResponse.
    fn take_completed(
        &mut self,
        input: &mut Buffer,
        run: &mut usize,
        header: frame::Header,
        effect: Option<Effect>,
    ) {
        let tag = effect.as_ref().and_then(Effect::tag);
        let end = *run + header.frame_bytes;
        if let Some(effect) = effect {
            let said = input.bytes().get(*run + HEADER_BYTES..end);
            self.complete(effect, said.unwrap_or(&[]));
        }
        match tag {
            Some(tag) => {
                self.leave_out(input, run, header.frame_bytes);
                command_complete(self.client.socket.output.tail(), tag);
            }
            None => *run = end,
        }
    }

    /// Whether the client is not to hear yet that a server is ready: the next statement of the same
    /// message, or its notifications, come first.
    fn must_wait(&mut self, seen: Status) -> bool {
        if self.unit.is_script {
            return true;
        }
        let is_due = seen == Status::Idle && self.awaits_mail() || self.awaits_settings(seen);
        self.client.mail.is_ready_due |= is_due;
        is_due
    }

    /// Asks something whose answer is certain, behind which no doubtful ReadyForQuery can come.
    fn settle_doubt(&mut self) {
        if let Some(held) = &mut self.server
            && held.replies.is_in_doubt()
            && held.replies.is_empty()
        {
            let out = held.lease.socket.output.tail();
            frontend::write_subject(out, b'C', frontend::Subject::Portal, b"");
            held.replies.push(Expect::Close { seen: false });
            frontend::write_sync(held.lease.socket.output.tail());
            held.replies.push(Expect::QuietSync);
        }
    }
}

fn out_of_step(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Stop {
    Stop::Lost(io::Error::new(io::ErrorKind::InvalidData, why))
}
