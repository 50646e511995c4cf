//! A blocking protocol client that sends any bytes and shows every message it gets.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::{DEADLINE, Endpoint, message};

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Frame {
    /// A field of an ErrorResponse or NoticeResponse.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        let field = fields.find(|field| field.first() == Some(&code))?;
        Some(String::from_utf8_lossy(&field[1..]).into_owned())
    }
}

/// One connection.
pub struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
    /// Bytes per write; the whole when zero. Small values show what breaks at frame borders.
    pub fragment: usize,
    /// What the server said at login.
    pub parameters: BTreeMap<String, String>,
    /// The notices among it.
    pub notices: Vec<Frame>,
    /// Process and secret for cancel requests.
    pub key: Option<(i32, Vec<u8>)>,
}

impl Raw {
    /// A socket on which nothing has been said yet.
    pub fn open(port: u16) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw {
            stream,
            received: Vec::new(),
            fragment: 0,
            parameters: BTreeMap::new(),
            notices: Vec::new(),
            key: None,
        }
    }

    /// A session that is ready for queries.
    pub fn login(endpoint: &Endpoint) -> Raw {
        Raw::try_login(endpoint).unwrap_or_else(|error| panic!("login fails: {error:?}"))
    }

    /// As [`Raw::login`]; the ErrorResponse when it fails.
    pub fn try_login(endpoint: &Endpoint) -> Result<Raw, Frame> {
        Raw::login_with(endpoint, &[])
    }

    /// As [`Raw::try_login`], with further startup parameters.
    pub fn login_with(endpoint: &Endpoint, more: &[(&str, &str)]) -> Result<Raw, Frame> {
        let mut raw = Raw::open(endpoint.port);
        let own = [("user", &*endpoint.user), ("database", &*endpoint.database)];
        let parameters: Vec<_> = own.iter().chain(more).copied().collect();
        raw.send(&message::startup(&parameters));
        let mut scram = None;
        loop {
            let Some(frame) = raw.read() else {
                // As an error without a code: who asks for one gets none.
                let body = b"Mthe server hangs up during login\0\0".to_vec();
                return Err(Frame { tag: b'E', body });
            };
            match frame.tag {
                b'R' => raw.authenticate(&frame.body, endpoint, &mut scram),
                b'S' => {
                    let mut parts = frame.body.split(|byte| *byte == 0);
                    let mut part = || String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
                    let name = part();
                    raw.parameters.insert(name, part());
                }
                b'K' => {
                    let process_id = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
                    raw.key = Some((process_id, frame.body[4..].to_vec()));
                }
                b'N' => raw.notices.push(frame),
                b'E' => return Err(frame),
                b'Z' => return Ok(raw),
                _ => {}
            }
        }
    }

    fn authenticate(&mut self, body: &[u8], endpoint: &Endpoint, scram: &mut Option<ScramSha256>) {
        let (kind, data) = body.split_at(4);
        match u32::from_be_bytes(kind.try_into().unwrap()) {
            0 => {}
            3 => {
                let text = format!("{}\0", endpoint.password);
                self.send(&message::password(text.as_bytes()));
            }
            10 => {
                let password = endpoint.password.as_bytes();
                let started = ScramSha256::new(password, ChannelBinding::unsupported());
                let first = started.message();
                let mut body = b"SCRAM-SHA-256\0".to_vec();
                body.extend_from_slice(&u32::try_from(first.len()).unwrap().to_be_bytes());
                body.extend_from_slice(first);
                self.send(&message::password(&body));
                *scram = Some(started);
            }
            11 => {
                let scram = scram.as_mut().unwrap();
                scram.update(data).unwrap();
                let reply = message::password(scram.message());
                self.send(&reply);
            }
            12 => scram.as_mut().unwrap().finish(data).unwrap(),
            other => panic!("authentication {other} is not known here"),
        }
    }

    /// Sends bytes; panics when the peer has hung up.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes, in pieces if [`Raw::fragment`] says so.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.fragment {
            0 => self.stream.write_all(bytes),
            size => bytes
                .chunks(size)
                .try_for_each(|piece| self.stream.write_all(piece)),
        }
    }

    /// How long a read waits, instead of [`DEADLINE`].
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        // The peer may have hung up already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next message; `None` when the peer has hung up. Panics after [`DEADLINE`].
    pub fn read(&mut self) -> Option<Frame> {
        self.try_read()
            .unwrap_or_else(|error| panic!("no message in time: {error}"))
    }

    /// As [`Raw::read`]; an error when nothing comes in time.
    pub fn try_read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(Some(frame));
            }
            let mut piece = [0; 16 * 1024];
            match self.receive(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// One read, also when a signal (a test beside this one may wait for its children) comes first.
    fn receive(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let length = self.received.get(1..5)?;
        let length = usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap();
        if self.received.len() < length + 1 {
            return None;
        }
        let rest = self.received.split_off(length + 1);
        let frame = std::mem::replace(&mut self.received, rest);
        Some(Frame {
            tag: frame[0],
            body: frame[5..].to_vec(),
        })
    }

    /// Everything up to the end of the connection; an error when it does not come in time, or
    /// after more than `limit` bytes.
    pub fn read_to_end(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.received);
        let mut piece = [0; 16 * 1024];
        while bytes.len() <= limit {
            match self.receive(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("over {limit} bytes")))
    }

    /// The messages in bytes; bytes that are none (the answer to an SSLRequest) are skipped.
    pub fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((tag, rest)) = bytes.split_first() {
            let Some((length, body)) = rest.split_first_chunk::<4>() else {
                break;
            };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
            let Some((body, after)) = length.checked_sub(4).and_then(|l| body.split_at_checked(l))
            else {
                bytes = rest;
                continue;
            };
            frames.push(Frame {
                tag: *tag,
                body: body.to_vec(),
            });
            bytes = after;
        }
        frames
    }

    /// One byte outside any message: the answer to an SSLRequest.
    pub fn read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.receive(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) => panic!("no byte in time: {error}"),
        }
    }

    /// Messages up to and with the `count`th of a tag, or up to the end of the connection.
    pub fn read_until(&mut self, tag: u8, count: usize) -> Vec<Frame> {
        let (frames, end) = self.try_read_until(tag, count);
        end.unwrap_or_else(|error| panic!("no message in time: {error}"));
        frames
    }

    /// As [`Raw::read_until`]; what came, and an error when nothing more comes in time.
    pub fn try_read_until(&mut self, tag: u8, count: usize) -> (Vec<Frame>, io::Result<()>) {
        let mut frames = Vec::new();
        let mut left = count;
        while left > 0 {
            match self.try_read() {
                Ok(Some(frame)) => {
                    left -= usize::from(frame.tag == tag);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        (frames, Ok(()))
    }

    /// Runs a simple query to its end.
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(&message::query(sql));
        self.read_until(b'Z', 1)
    }

    /// The rows of a simple query as text; panics when it fails. NULL is an empty text.
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let frames = self.query(sql);
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            panic!("{sql}\nfails: {:?}", super::transcript::line(error));
        }
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).unwrap();
        let rows = frames.iter().filter(|frame| frame.tag == b'D');
        rows.map(|row| values(row).into_iter().map(text).collect())
            .collect()
    }

    /// The SQLSTATE of a simple query that must fail.
    pub fn code(&mut self, sql: &str) -> String {
        let frames = self.query(sql);
        let error = frames.iter().find(|frame| frame.tag == b'E');
        let error = error.unwrap_or_else(|| panic!("{sql}\ndoes not fail"));
        error.field(b'C').unwrap()
    }
}

/// The values of a DataRow.
pub fn values(row: &Frame) -> Vec<Option<Vec<u8>>> {
    let mut rest = &row.body[2..];
    let mut values = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let value = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, tail) = match value {
            Some(length) => (Some(tail[..length].to_vec()), &tail[length..]),
            None => (None, tail),
        };
        values.push(value);
        rest = tail;
    }
    values
}
