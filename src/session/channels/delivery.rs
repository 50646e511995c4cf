//! A client's channels through its statements, and its notifications' way to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Context;

use crate::error::{Error, Result};
use crate::plan::{Plan, SessionUse};
use crate::session::channels::hub::Hub;
use crate::session::channels::mailbox::Mailbox;
use crate::session::channels::{Channels, HOME, rewrite};
use crate::session::database::Database;
use crate::session::effect::Effect;
use crate::session::replies::Effects;
use crate::session::{HIGH_WATER_BYTES, Session, Stop};
use crate::sql::encoding::Encoding;
use crate::sql::splice::Edit;
use crate::sql::statement::Statement;
use crate::sqlstate::SqlState;
use crate::txn::Transaction;
use crate::wire::buffer::message;
use crate::wire::frame::HEADER_BYTES;

/// What a client hears.
#[derive(Debug, Default)]
pub struct Mail {
    subscription: Option<Subscription>,
    /// The transaction at hand notifies explicitly.
    is_notifying: bool,
    /// A server's ReadyForQuery has come; the client gets it behind its notifications.
    pub(in crate::session) is_ready_due: bool,
    /// What servers have reported of settings that the client has values of its own for, which they don't have yet.
    pub(in crate::session) reports: Vec<(String, String)>,
}

/// A client that listens, or has said LISTEN in a transaction that is still open. Dropped, it does not
/// listen any more.
#[derive(Debug)]
struct Subscription {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    channels: HashSet<Arc<str>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for channel in &self.channels {
            self.hub.unsubscribe(channel, &self.mailbox);
        }
    }
}

impl Mail {
    /// Whether the client listens, or has said LISTEN in a transaction that is still open.
    pub fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    /// Whether the transaction at hand notifies explicitly.
    pub fn is_notifying(&self) -> bool {
        self.is_notifying
    }
}

impl Session {
    /// Whether LISTEN is left to the server connection, which is the client's own.
    fn listens_natively(&self) -> bool {
        self.database.is_single() && self.is_session_pooled()
    }

    /// Takes note of a statement that is about to be sent.
    pub(in crate::session) fn note_notify(&mut self, plan: &Plan) {
        self.client.mail.is_notifying |= plan.session.contains(SessionUse::NOTIFIES);
    }

    /// Prepares for what statements that are about to be sent do to the client's channels.
    ///
    /// # Errors
    /// Why nobody can listen: the home shard has no primary.
    pub(in crate::session) async fn foresee(
        &mut self,
        mut effects: Effects,
    ) -> Result<Effects, Stop> {
        for effect in effects.iter_mut().flat_map(|all| all.iter_mut()) {
            if matches!(effect, Effect::Listen(_)) && self.listens_natively() {
                *effect = Effect::Pin;
            }
            self.foresee_one(effect).await?;
        }
        Ok(effects)
    }

    /// As [`Session::foresee`].
    ///
    /// # Errors
    /// As there.
    pub(in crate::session) async fn foresee_one(&mut self, effect: &Effect) -> Result<(), Stop> {
        match effect {
            Effect::Listen(channel) => {
                // A ReadyForQuery on its way would end what begins here.
                self.drain().await?;
                match self.is_skipping() {
                    true => Err(Stop::Skip),
                    false => self.subscribe(channel).await,
                }
            }
            Effect::End => self.hear_out().await,
            _ => Ok(()),
        }
    }

    /// Has the shared connection listen, whatever becomes of the transaction.
    async fn subscribe(&mut self, channel: &str) -> Result<(), Stop> {
        self.pass_gate().await?;
        let database = Arc::clone(&self.database);
        let subscription = self
            .client
            .mail
            .subscription
            .get_or_insert_with(|| Subscription {
                hub: Arc::clone(&database.hub),
                mailbox: database.hub.mailbox(),
                channels: HashSet::new(),
            });
        if subscription.channels.contains(channel) {
            return Ok(());
        }
        let mailbox = Arc::clone(&subscription.mailbox);
        let subscribed = Hub::subscribe(&database, channel, &mailbox).await;
        if let Some(error) = mailbox.ended() {
            return Err(Stop::Session(error));
        }
        match subscribed {
            Ok(()) => {
                subscription.channels.insert(channel.into());
            }
            Err(error) => {
                self.settle_channels();
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Before a COMMIT is sent with which the client begins to listen to channels: drops what was
    /// notified there until now.
    async fn hear_out(&mut self) -> Result<(), Stop> {
        let committed = Arc::clone(self.settings.committed_channels());
        let Some(subscription) = &self.client.mail.subscription else {
            return Ok(());
        };
        let mut heard = subscription.channels.iter();
        if heard.all(|channel| committed.contains(channel)) {
            return Ok(());
        }
        let passed = subscription.hub.pass().await;
        subscription
            .mailbox
            .retain(|channel| committed.contains(channel));
        match (subscription.mailbox.ended(), passed) {
            (Some(error), _) => Err(Stop::Session(error)),
            (None, passed) => Ok(passed?),
        }
    }

    /// Whether the next ReadyForQuery has to wait for notifications.
    pub(in crate::session) fn awaits_mail(&mut self) -> bool {
        if self.transaction != Transaction::Idle {
            return false;
        }
        let is_notifying = std::mem::take(&mut self.client.mail.is_notifying);
        self.client.mail.subscription.is_some() || (is_notifying && self.database.hub.is_active())
    }

    /// Before ReadyForQuery: everything that was committed by now and the client listens to, as
    /// PostgreSQL sends it there.
    ///
    /// # Errors
    /// What ends a session that may have missed something.
    pub(in crate::session) async fn before_ready(&mut self) -> Result<(), Stop> {
        if self.transaction != Transaction::Idle {
            return Ok(());
        }
        self.settle_channels();
        let passed = self.database.hub.pass().await;
        let Some(subscription) = &self.client.mail.subscription else {
            return Ok(());
        };
        if let (Err(error), None) = (passed, subscription.mailbox.ended()) {
            return Err(Stop::Session(error.into_fatal()));
        }
        self.put_mail()
    }

    /// Gives up the channels that the client does not listen to after all, or not any more.
    fn settle_channels(&mut self) {
        let committed = self.settings.committed_channels();
        let mail = &mut self.client.mail;
        let Some(subscription) = &mut mail.subscription else {
            return;
        };
        if self.transaction != Transaction::Idle || subscription.channels.len() == committed.len() {
            return;
        }
        let Subscription {
            hub,
            mailbox,
            channels,
        } = subscription;
        channels.retain(|channel| {
            let is_kept = committed.contains(channel);
            if !is_kept {
                hub.unsubscribe(channel, mailbox);
            }
            is_kept
        });
        if channels.is_empty() {
            mail.subscription = None;
        }
    }

    /// Passes on what has come, if this is a time for it; else wakes the task once something comes.
    ///
    /// # Errors
    /// What ends a session that may have missed something.
    pub(in crate::session) fn poll_mail(&mut self, cx: &Context<'_>) -> Result<(), Stop> {
        let Some(subscription) = &self.client.mail.subscription else {
            return Ok(());
        };
        if !subscription.mailbox.poll_ready(cx) || !self.is_receptive() {
            return Ok(());
        }
        self.put_mail()?;
        if let Some(subscription) = &self.client.mail.subscription {
            // Nothing is left, so this asks to be woken; what came just now wakes at once.
            if subscription.mailbox.poll_ready(cx) {
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    /// Passes on what has come, if this is a time for it.
    ///
    /// # Errors
    /// As [`Session::poll_mail`].
    pub(in crate::session) fn take_mail(&mut self) -> Result<(), Stop> {
        match self.is_receptive() {
            true => self.put_mail(),
            false => Ok(()),
        }
    }

    /// Whether the client is outside a transaction, has all its answers, and keeps up.
    fn is_receptive(&self) -> bool {
        self.transaction == Transaction::Idle
            && !self.batch.is_open()
            && !self.client.is_mid_copy()
            && self.client.socket.output.len() < HIGH_WATER_BYTES
            && self
                .server
                .as_ref()
                .is_none_or(|held| held.replies.is_empty() && held.rest == 0)
    }

    /// Moves the notifications of the client's channels into its queue.
    fn put_mail(&mut self) -> Result<(), Stop> {
        let Some(subscription) = &self.client.mail.subscription else {
            return Ok(());
        };
        let committed: &Channels = self.settings.committed_channels();
        for letter in subscription.mailbox.take() {
            if !committed.contains(&letter.channel) {
                continue;
            }
            let encoding = self.settings.context().encoding;
            if encoding.is_utf8() {
                self.client.socket.output.push(&letter.frame);
            } else {
                let words = translated(&letter.frame, encoding);
                let words = words.ok_or_else(|| Stop::Session(untranslatable()))?;
                self.client.socket.output.push(&words);
            }
        }
        match subscription.mailbox.ended() {
            Some(error) => Err(Stop::Session(error)),
            None => Ok(()),
        }
    }

    /// Whether a NotificationResponse of the held connection itself is for the client, which then gets
    /// it under its own process id if it is the notifier. If not, some LISTEN was hidden from the proxy,
    /// and the connection is of no use to others.
    pub(in crate::session) fn hears_itself(&mut self, frame: &mut [u8]) -> bool {
        let Some(held) = &mut self.server else {
            return false;
        };
        held.is_lost |= !held.is_pinned;
        let own = held.lease.cancel_key.process_id.to_be_bytes();
        if let Some(process) = frame.get_mut(HEADER_BYTES..HEADER_BYTES + 4)
            && *process == own
        {
            process.copy_from_slice(&self.registered.control.process_id.to_be_bytes());
        }
        self.is_pinned()
    }

    /// Has it known that the server process which is held works for this client. A client that listens
    /// or notifies waits until nobody can be taken for it.
    ///
    /// # Errors
    /// What ends a session that may have missed something.
    pub(in crate::session) async fn claim(&mut self) -> Result<(), Stop> {
        let hub = &self.database.hub;
        if !hub.is_active() {
            return Ok(());
        }
        let Some(held) = &mut self.server else {
            return Ok(());
        };
        if held.shard != HOME || !held.is_primary {
            return Ok(());
        }
        let process = held.lease.cancel_key.process_id;
        let client = self.registered.control.process_id;
        let holding = match held.seat.holding.take() {
            Some(holding) if holding.is_of(process) => holding,
            _ => hub.hold(process, client, held.lease.last_client),
        };
        let is_certain = holding.is_certain();
        held.seat.holding = Some(holding);
        let mail = &self.client.mail;
        if !is_certain && (mail.subscription.is_some() || mail.is_notifying) {
            // Whether it is lost is for the mailbox to say.
            let _ = hub.pass().await;
        }
        Ok(())
    }

    /// What stands for a statement, or for those of its parts that concern channels, on the server.
    pub(in crate::session) fn channel_edits(&self, plan: &Plan, text: &str) -> Vec<Edit> {
        let options = Database::lex_options(self.settings.context());
        let is_listen = matches!(plan.statement, Statement::Listen(_));
        if is_listen && !self.listens_natively() {
            return rewrite::listen(text, options);
        }
        if plan.session.contains(SessionUse::ASKS_CHANNELS) && !self.listens_natively() {
            let channels = self.settings.committed_channels().names();
            return rewrite::listening_channels(text, options, &channels);
        }
        Vec::new()
    }
}

/// A NotificationResponse in the client's encoding; none if it can't be written.
fn translated(frame: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let (process, text) = frame.get(HEADER_BYTES..)?.split_at_checked(4)?;
    let text = encoding.write(std::str::from_utf8(text).ok()?)?;
    let mut words = Vec::with_capacity(frame.len());
    message(&mut words, b'A', |out| {
        out.extend_from_slice(process);
        out.extend_from_slice(&text);
    });
    Some(words)
}

fn untranslatable() -> Error {
    Error::fatal(
        SqlState::FEATURE_NOT_SUPPORTED,
        "terminating connection because a notification can't be told in its client encoding",
    )
    .detail("It has characters that the encoding has not, or that the proxy can't write in it.")
    .hint("SET client_encoding TO 'UTF8'.")
}
