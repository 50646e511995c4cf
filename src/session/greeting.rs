//! What a server has said to a client that logged in, kept a moment for others who ask for the same.
//!
//! A login asks a server twice: what it reports to new sessions, and what it makes of the client's
//! parameters. Where clients come and go all the time, that costs more than what they came for. So an
//! answer holds for [`LIFETIME`], for clients of the shared role that name the same parameters, as long as
//! - these are of a kind whose values are right or wrong whatever is in the database ([`CONSTANT`]),
//! - the connection that gave it is there: a server that has gone is noticed, and so is `RECONNECT`,
//! - the server had nothing to remark.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::backend::member::Member;
use crate::pool::Lease;
use crate::session::settings::SessionSettings;

/// How long an answer holds.
const LIFETIME: Duration = Duration::from_secs(1);
/// How many are kept.
const MOST: usize = 64;
/// The longest parameters that one is kept for, in bytes.
const MOST_BYTES: usize = 512;

/// Settings that a server takes or rejects for their values alone.
const CONSTANT: [&str; 6] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "timezone",
];

/// Parameters of a startup packet, by name.
pub type Parameters = Vec<(String, String)>;

/// The answers that hold.
#[derive(Debug, Default)]
pub struct Greetings {
    kept: Mutex<HashMap<Parameters, Greeting>>,
}

#[derive(Debug)]
struct Greeting {
    at: Instant,
    from: Weak<Member>,
    reported: Arc<Parameters>,
    settings: SessionSettings,
}

impl Greeting {
    fn holds(&self) -> bool {
        self.at.elapsed() < LIFETIME && self.from.strong_count() > 0
    }
}

impl Greetings {
    /// What is reported to a client with these parameters, and its settings.
    pub fn get(&self, parameters: &Parameters) -> Option<(Arc<Parameters>, SessionSettings)> {
        let kept = self.kept.lock();
        let greeting = kept.get(parameters).filter(|greeting| greeting.holds())?;
        Some((Arc::clone(&greeting.reported), greeting.settings.clone()))
    }

    /// Keeps what this connection's server has said of the parameters, if it may be told again.
    pub fn keep(
        &self,
        parameters: Parameters,
        lease: &Lease,
        reported: &Arc<Parameters>,
        settings: &SessionSettings,
    ) {
        if !is_constant(&parameters) {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.len() >= MOST {
            kept.retain(|_, greeting| greeting.holds());
        }
        if kept.len() < MOST {
            let greeting = Greeting {
                at: Instant::now(),
                from: Arc::downgrade(&lease.member),
                reported: Arc::clone(reported),
                settings: settings.clone(),
            };
            kept.insert(parameters, greeting);
        }
    }
}

fn is_constant(parameters: &Parameters) -> bool {
    let bytes: usize = parameters
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    bytes <= MOST_BYTES
        && parameters
            .iter()
            .all(|(name, _)| CONSTANT.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_that_speak_for_themselves_are_kept() {
        let given = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert!(is_constant(&Vec::new()));
        assert!(is_constant(&given("application_name", "psql")));
        assert!(!is_constant(&given("role", "somebody")));
        assert!(!is_constant(&given("app.tenant", "7")));
        assert!(!is_constant(&given("application_name", &"x".repeat(600))));
    }
}
