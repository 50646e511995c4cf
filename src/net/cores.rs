//! One thread per core, each with a runtime of its own, and who is served where.
//!
//! A task stays on its thread, so that what wakes it is its own runtime's doing: the thread that learns
//! from the kernel that bytes have come is the one that handles them. With one runtime over all threads
//! a wake-up crosses them, which costs more than what a query needs otherwise.
//!
//! Two threads that are half busy wake twice as often as one that is busy, so clients are *packed*: the
//! first core serves all until it has no time left. Ten times a second [`Cores::balance`] looks how busy
//! each is and asks a few of the clients that were active to move ([`Station::is_leaving`]): to a core
//! with time to spare, or back when the rest can do the work. A client moves when it is at rest, as its
//! session decides.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Between two looks at how busy the cores are.
const BALANCE_INTERVAL: Duration = Duration::from_millis(100);

/// A core that is busier than this, in parts of a thousand, sheds clients.
const BUSY: u32 = 850;
/// A core that is less busy than this takes new ones.
const READY: u32 = 600;
/// Two cores that are together less busy than this become one.
const IDLE: u32 = 400;

/// The threads. Dropped, they end once what they are at waits, with all that was spawned on them.
#[derive(Debug)]
pub struct Cores {
    first: Handle,
    cores: Arc<[Core]>,
    /// Dropped to end the threads.
    _stops: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Core {
    handle: Handle,
    /// How busy it was of late, in parts of a thousand.
    busy: AtomicU32,
    /// The number of the period at hand.
    period: AtomicU32,
    /// How many of its clients were active in it.
    active: AtomicUsize,
    /// How many of them are to leave.
    leaving: AtomicUsize,
    /// Where to.
    destination: AtomicUsize,
    /// How many have left so far.
    left: AtomicUsize,
}

/// What a client's task runs as.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A client's place on a core.
#[derive(Debug)]
pub struct Station {
    cores: Arc<[Core]>,
    at: usize,
    /// The period in which it was last active.
    period: u32,
}

impl Cores {
    /// Starts one thread per core that the process may use.
    ///
    /// # Errors
    /// What the system says when it has no more threads or files.
    pub fn start() -> io::Result<Cores> {
        Cores::with(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// As [`Cores::start`].
    pub fn with(count: usize) -> io::Result<Cores> {
        let (first, stop) = Core::start(0)?;
        let handle = first.handle.clone();
        let (mut cores, mut stops) = (vec![first], vec![stop]);
        for number in 1..count {
            let (core, stop) = Core::start(number)?;
            cores.push(core);
            stops.push(stop);
        }
        Ok(Cores {
            first: handle,
            cores: cores.into(),
            _stops: stops,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// How many clients have moved so far.
    pub fn moved(&self) -> usize {
        let left = |core: &Core| core.left.load(Ordering::Relaxed);
        self.cores.iter().map(left).sum()
    }

    /// The runtime of the first, where clients arrive.
    pub fn first(&self) -> &Handle {
        &self.first
    }

    /// Serves a client on the first core that has time for it.
    pub fn spawn<F>(&self, serve: impl FnOnce(Station) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let busy = |core: &Core| core.busy.load(Ordering::Relaxed);
        let ready = self.cores.iter().position(|core| busy(core) < READY);
        let least = || (0..self.count()).min_by_key(|at| self.cores.get(*at).map(busy));
        let at = ready.or_else(least).unwrap_or(0);
        if let Some(core) = self.cores.get(at) {
            core.handle.spawn(serve(Station::new(&self.cores, at)));
        }
    }

    /// Keeps the work where it is done best; never returns.
    pub async fn balance(&self) {
        let total = |core: &Core| core.handle.metrics().worker_total_busy_duration(0);
        let mut before: Vec<Duration> = self.cores.iter().map(total).collect();
        let mut then = Instant::now();
        let mut loads = Vec::with_capacity(before.len());
        loop {
            tokio::time::sleep(BALANCE_INTERVAL).await;
            let passed = then.elapsed();
            then = Instant::now();
            loads.clear();
            for (core, before) in self.cores.iter().zip(&mut before) {
                let now = total(core);
                loads.push(core.end_period(now.saturating_sub(*before), passed));
                *before = now;
            }
            if let Some(shift) = shift(&loads) {
                self.shift(shift.from, shift.to, shift.clients);
            }
        }
    }

    /// Asks so many clients of one core, the next that are active, to move to another.
    pub fn shift(&self, from: usize, to: usize, clients: usize) {
        if let Some(core) = self.cores.get(from)
            && to < self.count()
            && to != from
        {
            core.destination.store(to, Ordering::Relaxed);
            core.leaving.store(clients, Ordering::Relaxed);
        }
    }
}

/// A session's steps call each other deeply where a statement takes several, on frames that are large without
/// optimisation: 2 MiB, the default, were not enough for all. Only what is used takes memory.
const STACK_BYTES: usize = 8 << 20;

impl Core {
    fn start(number: usize) -> io::Result<(Core, oneshot::Sender<()>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Nothing is ever sent: it ends with the sender.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        std::thread::Builder::new()
            .name(format!("core {number}"))
            .stack_size(STACK_BYTES)
            .spawn(run)?;
        let core = Core {
            handle,
            busy: AtomicU32::new(0),
            period: AtomicU32::new(0),
            active: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            destination: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        };
        Ok((core, stop))
    }

    /// Notes how busy it was, and begins anew. Who has not left by now stays.
    fn end_period(&self, spent: Duration, passed: Duration) -> Load {
        let busy = spent.as_micros() * 1000 / passed.as_micros().max(1);
        let busy = u32::try_from(busy).unwrap_or(u32::MAX).min(1000);
        self.busy.store(busy, Ordering::Relaxed);
        self.leaving.store(0, Ordering::Relaxed);
        self.period.fetch_add(1, Ordering::Relaxed);
        let active = self.active.swap(0, Ordering::Relaxed);
        Load { busy, active }
    }
}

impl Station {
    fn new(cores: &Arc<[Core]>, at: usize) -> Station {
        Station {
            cores: Arc::clone(cores),
            at,
            period: 0,
        }
    }

    /// Which core it is on.
    pub fn number(&self) -> usize {
        self.at
    }

    /// Notes that the client is active; whether it is asked to move.
    pub fn is_leaving(&mut self) -> bool {
        let Some(core) = self.cores.get(self.at) else {
            return false;
        };
        let period = core.period.load(Ordering::Relaxed);
        if period != self.period {
            self.period = period;
            core.active.fetch_add(1, Ordering::Relaxed);
        }
        core.leaving.load(Ordering::Relaxed) > 0
    }

    /// Serves the client on the core where it was asked to move.
    pub fn leave(self, serve: impl FnOnce(Station) -> Task) {
        let Some(core) = self.cores.get(self.at) else {
            return;
        };
        let one_less = |left: usize| Some(left.saturating_sub(1));
        let _ = core
            .leaving
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        core.left.fetch_add(1, Ordering::Relaxed);
        let to = core.destination.load(Ordering::Relaxed);
        if let Some(next) = self.cores.get(to) {
            next.handle.spawn(serve(Station::new(&self.cores, to)));
        }
    }
}

/// What a core did in one period.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// How busy it was, in parts of a thousand.
    busy: u32,
    /// How many clients asked for something.
    active: usize,
}

/// Clients to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    from: usize,
    to: usize,
    clients: usize,
}

/// What would make the work lighter: half of the difference from a core that has no time left to the one
/// that has most, or all of the last core's to one that can do it beside its own.
fn shift(loads: &[Load]) -> Option<Shift> {
    let numbered = || loads.iter().enumerate();
    let (from, most) = numbered().max_by_key(|(_, load)| load.busy)?;
    let (to, least) = numbered().min_by_key(|(_, load)| load.busy)?;
    if most.busy > BUSY && least.busy < READY && most.active > 1 {
        let share = (most.busy - least.busy) as usize * most.active / (2 * most.busy as usize);
        let clients = share.clamp(1, most.active - 1);
        return Some(Shift { from, to, clients });
    }
    let (from, last) = numbered().rfind(|(_, load)| load.active > 0)?;
    let fits = |(at, load): &(usize, &Load)| *at < from && load.busy + last.busy < IDLE;
    let (to, _) = numbered().find(fits)?;
    let clients = last.active;
    Some(Shift { from, to, clients })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::home::Home;
    use tokio::sync::mpsc;

    fn loads(loads: &[(u32, usize)]) -> Vec<Load> {
        let load = |(busy, active): &(u32, usize)| Load {
            busy: *busy,
            active: *active,
        };
        loads.iter().map(load).collect()
    }

    #[test]
    fn clients_move_only_where_that_makes_the_work_lighter() {
        let moves = |from, to, clients| Some(Shift { from, to, clients });
        for (given, expected) in [
            (&[(900, 100), (0, 0)][..], moves(0, 1, 50)),
            (&[(900, 100), (450, 50)], moves(0, 1, 25)),
            (&[(1000, 2), (500, 9), (0, 0)], moves(0, 2, 1)),
            // One that takes all the time is as well where it is.
            (&[(1000, 1), (0, 0)], None),
            // Enough to do for both, or not too much for one.
            (&[(900, 100), (700, 50)], None),
            (&[(800, 100), (0, 0)], None),
            (&[(300, 10), (200, 10)], None),
            (&[(150, 10), (200, 10)], moves(1, 0, 10)),
            (&[(500, 10), (100, 10), (150, 3)], moves(2, 1, 3)),
            (&[(100, 10), (0, 0)], None),
            (&[(900, 10)], None),
            (&[], None),
        ] {
            assert_eq!(shift(&loads(given)), expected, "{given:?}");
        }
    }

    fn report(sender: mpsc::UnboundedSender<(Home, Station)>, station: Station) -> Task {
        Box::pin(async move {
            let _ = sender.send((Home::here(), station));
            std::future::pending::<()>().await;
        })
    }

    #[tokio::test]
    async fn clients_are_packed_move_when_asked_and_end_with_their_core() {
        let cores = Cores::with(2).unwrap();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for _ in 0..2 {
            let sender = sender.clone();
            cores.spawn(move |station| report(sender, station));
        }
        let (first, mut stays) = receiver.recv().await.unwrap();
        let (second, mut leaves) = receiver.recv().await.unwrap();
        assert_eq!(first, second);
        assert_ne!(first, Home::here());
        assert!(!leaves.is_leaving());
        cores.shift(0, 1, 1);
        assert!(stays.is_leaving() && leaves.is_leaving());
        let again = sender.clone();
        leaves.leave(move |station| report(again, station));
        assert!(!stays.is_leaving());
        let (third, moved) = receiver.recv().await.unwrap();
        assert_eq!(moved.number(), 1);
        assert_ne!(third, first);
        drop((sender, stays, moved));
        drop(cores);
        // The tasks are dropped, and their senders with them.
        assert!(receiver.recv().await.is_none());
    }
}
