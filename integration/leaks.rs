//! Clients that share one server connection, each beside a session of its own on PostgreSQL: whatever
//! they do to their sessions, none sees what another left behind, and none loses its own.
//!
//! `SEED` in the environment makes another run. A failure is shortened to the steps that it needs.

use std::collections::BTreeMap;
use std::env;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::compare::{MODES, Mode, Outcome, frames, outcome};
use crate::harness::raw::Frame;
use crate::harness::{Cluster, Raw};

/// Seeds of the runs, unless `SEED` says otherwise.
const SEEDS: [u64; 3] = [1, 2, 3];
/// What a run consists of: statements outside transactions, and whole transactions.
const UNITS: usize = 60;
/// What each client says at login.
const CLIENTS: [&[(&str, &str)]; 3] = [
    &[],
    &[("application_name", "two"), ("TimeZone", "Asia/Tokyo")],
    &[("DateStyle", "SQL"), ("search_path", "b, public")],
];

/// What a session looks like. A setting of no server module that nobody has set is NULL at first and
/// empty for good once anybody on the connection has set it: PostgreSQL has no way back.
const LOOK: &str = "SELECT current_setting('TimeZone'), current_setting('DateStyle'), \
    current_setting('work_mem'), current_setting('search_path'), current_user, session_user, \
    current_setting('application_name'), nullif(current_setting('leak.own', true), '')";

/// Steps for anywhere. Gap: `set_config(name, NULL, false)` gives the server's default where the client
/// named another value at login.
const ANYWHERE: [&str; 41] = [
    "SET work_mem = '7MB'",
    "SET work_mem TO DEFAULT",
    "SET SESSION work_mem = '8MB'",
    "RESET work_mem",
    "SET LOCAL work_mem = '9MB'",
    "SELECT set_config('work_mem', '10MB', false)",
    "SELECT set_config('work_mem', '11MB', true)",
    "SET TIME ZONE 'UTC'",
    "SET TIME ZONE LOCAL",
    "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
    "SET TimeZone = 'Europe/Paris'",
    "SET LOCAL TIME ZONE 'Asia/Kolkata'",
    "RESET TIME ZONE",
    "SELECT set_config('timezone', 'Africa/Cairo', false)",
    "SELECT set_config('TimeZone', 'America/Lima', true)",
    "SELECT set_config('datestyle', 'DMY', false)",
    "SET DateStyle = 'SQL, DMY'",
    "SET DateStyle = MDY",
    "RESET DateStyle",
    "SET search_path = a, public",
    "SET search_path TO b",
    "SET LOCAL search_path = a",
    "RESET search_path",
    "SELECT set_config('search_path', 'a, b', false)",
    "SET application_name = 'other'",
    "RESET application_name",
    "SET leak.own = 'mine'",
    "SELECT set_config('leak.own', 'local', true)",
    "SET ROLE leak_role",
    "SET LOCAL ROLE leak_role",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET SESSION AUTHORIZATION",
    "RESET ALL",
    "PREPARE p AS SELECT current_setting('TimeZone'), n FROM t",
    "PREPARE q AS SELECT current_user, n FROM t",
    "EXECUTE p",
    "EXECUTE q",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
];

/// Steps that fail anywhere.
const FAILING: [&str; 4] = [
    "SELECT 1 / 0",
    "SET work_mem = 'lots'",
    "SET ROLE nobody_at_all",
    "SET SESSION AUTHORIZATION leak_role",
];

/// Steps for outside transactions; those with a semicolon go as one Query message.
/// Gap: `RESET DateStyle` among several keeps the half that the client did not name at login.
const OUTSIDE: [&str; 8] = [
    "DISCARD ALL",
    "DISCARD PLANS",
    "SET work_mem = '12MB'; SELECT 1 / 0",
    "SET TIME ZONE 'UTC'; SET search_path = b; SELECT n FROM t",
    "SET LOCAL work_mem = '13MB'; SELECT current_setting('work_mem')",
    "BEGIN; SET LOCAL TIME ZONE 'Asia/Kolkata'; SET work_mem = '14MB'; COMMIT",
    "SET work_mem = '15MB'; RESET ALL",
    "SELECT n FROM t",
];

/// Steps for within transactions.
const WITHIN: [&str; 10] = [
    "SAVEPOINT s",
    "SAVEPOINT s",
    "SAVEPOINT r",
    "ROLLBACK TO s",
    "ROLLBACK TO SAVEPOINT s",
    "RELEASE s",
    "DECLARE c CURSOR FOR SELECT current_setting('work_mem') FROM generate_series(1, 3)",
    "FETCH 1 FROM c",
    "CLOSE c",
    "DISCARD ALL",
];

/// A statement of a client.
#[derive(Clone, Debug)]
struct Step {
    client: usize,
    mode: Mode,
    sql: &'static str,
}

/// A client and its twin, and what each was told of its settings.
struct Twins {
    proxy: (Raw, BTreeMap<String, String>),
    oracle: (Raw, BTreeMap<String, String>),
}

fn cluster() -> Cluster {
    Cluster::new()
        .schema(
            "RESET ROLE; CREATE ROLE leak_role; GRANT leak_role TO app; SET ROLE app;\n\
             CREATE SCHEMA a; CREATE SCHEMA b;\n\
             CREATE TABLE public.t (n text); CREATE TABLE a.t (n text); CREATE TABLE b.t (n text);\n\
             INSERT INTO public.t VALUES ('public'); INSERT INTO a.t VALUES ('a');\n\
             INSERT INTO b.t VALUES ('b');\n\
             GRANT USAGE ON SCHEMA a, b TO leak_role;\n\
             GRANT SELECT ON public.t, a.t, b.t TO leak_role",
        )
        .database("pool", "{ mode: transaction, max_size: 1 }")
        .trust()
        .start()
}

fn pick<'a>(random: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[random.random_range(0..choices.len())]
}

/// Statements and transactions of a run; while a client is in a transaction no other has a turn.
fn units(random: &mut StdRng) -> Vec<Vec<Step>> {
    let unit = |random: &mut StdRng| {
        let client = random.random_range(0..CLIENTS.len());
        let mut statements = Vec::new();
        if random.random_bool(0.65) {
            statements.push(match random.random_range(0..10) {
                0 => pick(random, &FAILING),
                1 | 2 => pick(random, &OUTSIDE),
                _ => pick(random, &ANYWHERE),
            });
        } else {
            statements.push("BEGIN");
            if random.random_bool(0.5) {
                statements.push("SAVEPOINT s");
            }
            for _ in 0..random.random_range(1..7) {
                statements.push(match random.random_range(0..12) {
                    0 => pick(random, &FAILING),
                    1..=4 => pick(random, &WITHIN),
                    _ => pick(random, &ANYWHERE),
                });
            }
            statements.push(pick(random, &["COMMIT", "ROLLBACK"]));
        }
        let step = |sql: &'static str| Step {
            client,
            mode: match sql.contains(';') {
                true => Mode::Simple,
                false => MODES[random.random_range(0..MODES.len())],
            },
            sql,
        };
        statements.into_iter().map(step).collect()
    };
    (0..UNITS).map(|_| unit(random)).collect()
}

impl Twins {
    fn login(cluster: &Cluster, parameters: &[(&str, &str)]) -> Twins {
        let login = |endpoint| {
            let mut raw = Raw::login_with(&endpoint, parameters).unwrap();
            let told = std::mem::take(&mut raw.parameters);
            (raw, told)
        };
        Twins {
            proxy: login(cluster.proxy()),
            oracle: login(cluster.oracle()),
        }
    }

    /// Runs it on both, and looks at both sessions where there is no failed transaction.
    fn run(&mut self, step: &Step) -> Result<(), String> {
        let is_open = self.compare(step.mode, step.sql)?;
        if is_open {
            self.compare(Mode::Simple, LOOK)?;
        }
        let (proxy, oracle) = (&self.proxy.1, &self.oracle.1);
        for (name, wanted) in oracle {
            let got = proxy.get(name);
            if got != Some(wanted) {
                return Err(format!(
                    "the client believes that {name} is {got:?}, not {wanted:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether more can be asked now.
    fn compare(&mut self, mode: Mode, sql: &str) -> Result<bool, String> {
        let [got, wanted] = [&mut self.proxy, &mut self.oracle].map(|(raw, told)| {
            let frames = frames(raw, mode, sql, &[]);
            listen(&frames, told);
            let mut outcome = outcome(&frames);
            // Of errors and notices the code counts.
            outcome
                .reports
                .iter_mut()
                .for_each(|report| report.1.clear());
            outcome
        });
        if got == wanted {
            return Ok(wanted.status != b"E");
        }
        let (got, wanted) = (show(&got), show(&wanted));
        Err(format!("{sql}\ngives      {got}\nPostgreSQL {wanted}"))
    }
}

/// Takes note of what an answer says about settings.
fn listen(frames: &[Frame], told: &mut BTreeMap<String, String>) {
    for frame in frames.iter().filter(|frame| frame.tag == b'S') {
        let text = String::from_utf8_lossy(&frame.body);
        let mut parts = text.split('\0').map(str::to_owned);
        told.insert(parts.next().unwrap(), parts.next().unwrap());
    }
}

fn show(outcome: &Outcome) -> String {
    let text = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".into(),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| row.iter().map(text).collect::<Vec<_>>().join(" | ");
    let rows: Vec<String> = outcome.rows.iter().map(row).collect();
    let status = String::from_utf8_lossy(&outcome.status);
    format!("{rows:?} {:?} {:?} {status}", outcome.tags, outcome.reports)
}

/// Runs it with new clients.
fn run(cluster: &Cluster, units: &[Vec<Step>]) -> Result<(), String> {
    let mut clients = CLIENTS.map(|parameters| Twins::login(cluster, parameters));
    for step in units.iter().flatten() {
        clients[step.client].run(step)?;
    }
    Ok(())
}

/// The steps that a failure needs, and how they fail then.
fn shortened(cluster: &Cluster, mut units: Vec<Vec<Step>>, mut failure: String) -> String {
    for unit in (0..units.len()).rev() {
        let mut fewer = units.clone();
        fewer.remove(unit);
        if let Err(error) = run(cluster, &fewer) {
            (units, failure) = (fewer, error);
            continue;
        }
        // The ends of a transaction stay.
        for step in (1..units[unit].len().saturating_sub(1)).rev() {
            let mut fewer = units.clone();
            fewer[unit].remove(step);
            if let Err(error) = run(cluster, &fewer) {
                (units, failure) = (fewer, error);
            }
        }
    }
    let show = |step: &Step| format!("{} {:?}: {}\n", step.client, step.mode, step.sql);
    let steps: String = units.iter().flatten().map(show).collect();
    format!("{steps}{failure}")
}

#[test]
fn clients_of_one_connection_keep_apart() {
    let cluster = cluster();
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(SEEDS.to_vec(), |seed: u64| vec![seed]);
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let units = units(&mut random);
        if let Err(failure) = run(&cluster, &units) {
            let steps: String = units
                .iter()
                .flatten()
                .map(|step| format!("{step:?}\n"))
                .collect();
            let short = shortened(&cluster, units, failure.clone());
            panic!("SEED={seed}\n{steps}{failure}\n\nshortened:\n{short}");
        }
    }
}
