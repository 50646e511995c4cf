//! Ways between the proxy and its servers, on which one message can be waited for and lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How connections of the proxy's own are called.
const CONTROL: &[u8] = b"shardwire control";

/// Which message a trap waits for.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// One that holds these bytes.
    Holds(&'static [u8]),
    /// So many others pass before it.
    After(usize),
}

/// Waits for a message.
pub struct Trap {
    pub moment: Moment,
    /// The server gets the message before the fault.
    pub is_late: bool,
    /// Gets the number of the shard.
    pub sprung: Sender<usize>,
    /// Says whether the connection goes on.
    pub goes_on: Receiver<bool>,
}

/// The ways to the servers.
#[derive(Clone, Default)]
pub struct Wires {
    trap: Arc<Mutex<Option<Trap>>>,
    /// Messages that have passed since the trap was set.
    passed: Arc<AtomicUsize>,
}

impl Wires {
    /// Sets a trap.
    pub fn set(&self, trap: Trap) {
        let mut place = self.trap.lock().unwrap();
        self.passed.store(0, Ordering::Relaxed);
        *place = Some(trap);
    }

    /// Takes the trap away; whether it still waited.
    pub fn unset(&self) -> bool {
        self.trap.lock().unwrap().take().is_some()
    }

    /// A way to a server; its port.
    pub fn lay(&self, shard: usize, server: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wires = self.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let wires = wires.clone();
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                thread::spawn(move || wires.carry(shard, client, server));
            }
        });
        port
    }

    /// The trap, if it waits for this message.
    fn spring(&self, message: &[u8]) -> Option<Trap> {
        let mut place = self.trap.lock().unwrap();
        let number = self.passed.fetch_add(1, Ordering::Relaxed);
        place.take_if(|trap| match trap.moment {
            Moment::After(others) => others == number,
            Moment::Holds(bytes) => {
                let mut parts = message.windows(bytes.len());
                parts.any(|part| part == bytes)
            }
        })
    }

    fn carry(&self, shard: usize, mut client: TcpStream, mut server: TcpStream) {
        let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        // While it is locked the client hears nothing.
        let gate = Arc::new(Mutex::new(true));
        let open = Arc::clone(&gate);
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count) = back.read(&mut bytes)
                && count > 0
                && *open.lock().unwrap()
                && to.write_all(&bytes[..count]).is_ok()
            {}
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 65536];
        let mut is_control = false;
        while let Ok(count) = client.read(&mut bytes)
            && count > 0
        {
            let message = &bytes[..count];
            // Probes and the like; they come at any time.
            is_control |= message.windows(CONTROL.len()).any(|part| part == CONTROL);
            let trap = match is_control {
                true => None,
                false => self.spring(message),
            };
            let Some(trap) = trap else {
                if server.write_all(message).is_err() {
                    break;
                }
                continue;
            };
            let mut passes = gate.lock().unwrap();
            if trap.is_late {
                let _ = server.write_all(message);
                thread::sleep(Duration::from_millis(100));
            }
            let _ = trap.sprung.send(shard);
            let goes_on = trap.goes_on.recv().unwrap_or(false);
            *passes = goes_on;
            drop(passes);
            if !goes_on || (!trap.is_late && server.write_all(message).is_err()) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}
