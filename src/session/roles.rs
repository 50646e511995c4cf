//! What the servers know of users: `auth_query`, asked once for all who wait, remembered for a while.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::auth::users::{Account, Maker};
use crate::config::Address;
use crate::config::ReadPreference;
use crate::topology::{Access, Control, ControlError, Dialer, Topology, Want};

/// How many users are remembered, those included whom the servers do not know.
const MOST_ANSWERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// How long a failure to ask holds: until then nobody asks again, and the user counts as unknown.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// An answer this old is asked for anew once a proof against it has failed: the password may have
/// been changed. Younger ones are not, or guessing passwords would load the servers.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// How to ask, and what comes of it.
#[derive(Clone, Debug)]
pub struct Question {
    /// The query; `$1` is the user, the answer its name and its password.
    pub sql: String,
    /// How long an answer holds.
    pub holds: Duration,
    /// How long the servers get to answer.
    pub patience: Duration,
}

/// Asks the servers of one database for users.
pub struct Roles {
    question: Question,
    topology: Arc<Topology>,
    dialer: Dialer,
    maker: Maker,
    answers: Mutex<LruCache<Box<str>, Arc<Asked>>>,
    connection: tokio::sync::Mutex<Option<Arc<Connected>>>,
}

/// What was asked about a user, and the answer once it is there.
struct Asked {
    since: Instant,
    answer: OnceCell<Answer>,
}

enum Answer {
    Known(Account),
    Unknown,
    /// The servers could not be asked.
    Failed,
}

struct Connected {
    control: Control,
    address: Address,
}

impl Roles {
    /// Asks the servers of `topology`, with connections of `dialer`.
    pub fn new(question: Question, topology: Arc<Topology>, dialer: Dialer, maker: Maker) -> Roles {
        Roles {
            question,
            topology,
            dialer,
            maker,
            answers: Mutex::new(LruCache::new(MOST_ANSWERS)),
            connection: tokio::sync::Mutex::default(),
        }
    }

    /// The account of a user; none if the servers know none, or can't be asked. Nobody who logs in
    /// can tell which: the log can.
    pub async fn account(&self, user: &str) -> Option<Account> {
        let asked = self.asked(user);
        // Who waits for the same user waits for the same answer.
        let answer = asked.answer.get_or_init(|| self.answer(user)).await;
        match answer {
            Answer::Known(account) => Some(account.clone()),
            Answer::Unknown | Answer::Failed => None,
        }
    }

    /// Notes that a proof has failed: the next time the servers are asked anew.
    pub fn doubt(&self, user: &str) {
        let mut answers = self.answers.lock();
        let is_old = |asked: &Arc<Asked>| asked.since.elapsed() >= DOUBT_AFTER;
        if answers.peek(user).is_some_and(is_old) {
            answers.pop(user);
        }
    }

    /// What is being asked or was answered about the user.
    fn asked(&self, user: &str) -> Arc<Asked> {
        let mut answers = self.answers.lock();
        let known = answers.get(user).filter(|asked| match asked.answer.get() {
            None => true,
            Some(Answer::Failed) => asked.since.elapsed() < FAILURE_HOLDS.min(self.question.holds),
            Some(_) => asked.since.elapsed() < self.question.holds,
        });
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let asked = Arc::new(Asked {
            since: Instant::now(),
            answer: OnceCell::new(),
        });
        answers.put(user.into(), Arc::clone(&asked));
        asked
    }

    async fn answer(&self, user: &str) -> Answer {
        let database = &self.topology.database().name;
        let password = match self.ask(user).await {
            Ok(Some(password)) => password,
            Ok(None) => return Answer::Unknown,
            Err(error) => {
                tracing::warn!(database, %error, "auth_query failed, the user counts as unknown");
                return Answer::Failed;
            }
        };
        let (maker, user) = (self.maker, user.to_owned());
        // A password in clear takes thousands of hashes: not on a thread that serves others.
        let made =
            tokio::task::spawn_blocking(move || maker.account(&user, password.as_deref())).await;
        made.map_or(Answer::Failed, Answer::Known)
    }

    /// Asks the first shard. Of a user that exists the password, if it has one.
    async fn ask(&self, user: &str) -> Result<Option<Option<String>>, ControlError> {
        let deadline = Instant::now() + self.question.patience;
        self.topology.ready(deadline).await;
        let (connected, is_old) = self.connected().await?;
        match self.query(&connected, user).await {
            // The server has closed it since it was last used.
            Err(_) if is_old && connected.control.client().is_closed() => {
                let (connected, _) = self.connected().await?;
                self.query(&connected, user).await
            }
            answer => answer,
        }
    }

    /// A connection to the server that answers now, and whether it was there before.
    async fn connected(&self) -> Result<(Arc<Connected>, bool), ControlError> {
        let want = Want {
            access: Access::Read,
            preference: ReadPreference::PrimaryPreferred,
            max_staleness: self.topology.database().max_staleness,
            wrote_at: None,
        };
        let shard = self.topology.shards().first();
        let shard = shard.ok_or_else(|| ControlError::answer("there is no shard"))?;
        let server = shard.choose(&want)?;
        let mut connection = self.connection.lock().await;
        if let Some(known) = &*connection
            && known.address == server.address
            && !known.control.client().is_closed()
        {
            return Ok((Arc::clone(known), true));
        }
        let connected = Arc::new(Connected {
            control: self.dialer.connect(&server.address).await?,
            address: server.address.clone(),
        });
        *connection = Some(Arc::clone(&connected));
        Ok((connected, false))
    }

    async fn query(
        &self,
        connected: &Connected,
        user: &str,
    ) -> Result<Option<Option<String>>, ControlError> {
        let client = connected.control.client();
        let asking = async {
            let rows = client.query_raw(&self.question.sql, [user]).await?;
            // A query that forgets its parameter must not fill the memory.
            let mut rows = std::pin::pin!(rows);
            let Some(row) = rows.try_next().await? else {
                return Ok(None);
            };
            if row.len() != 2 {
                let message = format!("the query has {} columns instead of 2", row.len());
                return Err(ControlError::answer(message));
            }
            let name: Option<String> = row.try_get(0)?;
            let password: Option<String> = row.try_get(1)?;
            if name.as_deref() != Some(user) {
                return Err(ControlError::answer("the query answers for another user"));
            }
            match rows.try_next().await? {
                None => Ok(Some(password)),
                Some(_) => Err(ControlError::answer("the query has more than one row")),
            }
        };
        let patience = self.question.patience;
        tokio::time::timeout(patience, asking)
            .await
            .unwrap_or_else(|_| Err(ControlError::timed_out("auth_query", patience)))
    }
}
