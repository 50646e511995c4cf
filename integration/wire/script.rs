//! Reads and writes the script files, and turns their lines into messages.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::harness::message;

/// A directive with its input and the recorded answer.
pub struct Block {
    /// Comments above it.
    comment: String,
    /// Directive and arguments.
    pub head: String,
    /// Line of the directive, from 1.
    pub line: usize,
    pub input: String,
    pub output: String,
}

impl Block {
    pub fn directive(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub fn argument(&self, name: &str) -> Option<&str> {
        let mut words = self.head.split(' ');
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

pub fn read(path: &Path) -> Vec<Block> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().enumerate();
    let mut blocks = Vec::new();
    let mut comment = String::new();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            comment.push_str(line);
            comment.push('\n');
            continue;
        }
        let mut collect = |end: &str| -> String {
            let taken = lines.by_ref().take_while(|(_, line)| *line != end);
            taken.map(|(_, line)| format!("{line}\n")).collect()
        };
        blocks.push(Block {
            comment: std::mem::take(&mut comment),
            head: line.to_owned(),
            line: number + 1,
            input: collect("----"),
            output: collect(""),
        });
    }
    blocks
}

pub fn write(path: &Path, blocks: &[Block], answers: &[String]) {
    let mut out = String::new();
    for (block, answer) in blocks.iter().zip(answers) {
        let Block {
            comment,
            head,
            input,
            ..
        } = block;
        let _ = write!(out, "{comment}{head}\n{input}----\n{answer}\n");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    fs::write(path, out).unwrap();
}

/// The bytes of message lines, and how many ReadyForQuery they ask for.
pub fn messages(input: &str) -> (Vec<u8>, usize) {
    let (mut bytes, mut answers) = (Vec::new(), 0);
    for line in input.lines() {
        let mut words = Words { rest: line };
        let name = words.word();
        bytes.extend(match name {
            "Query" => message::query(&words.text()),
            "Parse" => message::parse(&words.text(), &words.text(), &words.numbers()),
            "Bind" => bind(&mut words),
            "Describe" => message::describe(words.word().as_bytes()[0], &words.text()),
            "Close" => message::close(words.word().as_bytes()[0], &words.text()),
            "Execute" => message::execute(&words.text(), words.number()),
            "Sync" => message::sync(),
            "Flush" => message::flush(),
            "CopyData" => message::copy_data(&words.bytes()),
            "CopyDone" => message::copy_done(),
            "CopyFail" => message::copy_fail(&words.text()),
            "Terminate" => message::terminate(),
            // A frame with any tag and body.
            "Frame" => message::frame(words.word().as_bytes()[0], &words.bytes()),
            other => panic!("no message is called {other}: {line}"),
        });
        assert!(
            words.rest.trim().is_empty(),
            "{line} goes on with {}",
            words.rest
        );
        let asks = ["Query", "Sync", "Frame Q", "Frame S", "Frame F"];
        answers += usize::from(asks.iter().any(|start| line.starts_with(start)));
    }
    (bytes, answers)
}

fn bind(words: &mut Words) -> Vec<u8> {
    let (portal, statement, formats) = (words.text(), words.text(), words.numbers());
    let values = words.values();
    message::bind(&portal, &statement, &formats, &values, &words.numbers())
}

/// The tag of a server's message by its name.
pub fn tag(name: &str) -> u8 {
    match name {
        "ReadyForQuery" => b'Z',
        "CommandComplete" => b'C',
        "CopyInResponse" => b'G',
        "CopyOutResponse" => b'H',
        "CopyDone" => b'c',
        "ErrorResponse" => b'E',
        "ParseComplete" => b'1',
        "BindComplete" => b'2',
        "CloseComplete" => b'3',
        "NoData" => b'n',
        "PortalSuspended" => b's',
        "RowDescription" => b'T',
        "ParameterDescription" => b't',
        "NotificationResponse" => b'A',
        "EmptyQueryResponse" => b'I',
        other => panic!("no message is called {other}"),
    }
}

/// The words of a line: names, numbers, `"text"` with `\n \t \\ \"`, `0x` bytes, `[lists]`.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let end = text.find([' ', ']']).unwrap_or(text.len());
        self.rest = &text[end..];
        &text[..end]
    }

    fn number(&mut self) -> i32 {
        self.word().parse().unwrap()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.rest = self.rest.trim_start();
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let digits = self.word().strip_prefix("0x").unwrap();
            let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            return (0..digits.len()).step_by(2).map(pair).collect();
        };
        let mut out = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return out.into_bytes();
                }
                '\\' => out.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    't' => '\t',
                    '0' => '\0',
                    other => other,
                }),
                other => out.push(other),
            }
        }
        panic!("unterminated text: {quoted}")
    }

    fn open(&mut self) {
        self.rest = self.rest.trim_start().strip_prefix('[').unwrap();
    }

    fn closes(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        let closed = self.rest.strip_prefix(']');
        self.rest = closed.unwrap_or(self.rest);
        closed.is_some()
    }

    fn numbers<N: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> Vec<N> {
        self.open();
        let mut numbers = Vec::new();
        while !self.closes() {
            numbers.push(self.word().parse().unwrap());
        }
        numbers
    }

    fn values(&mut self) -> Vec<Option<Vec<u8>>> {
        self.open();
        let mut values = Vec::new();
        while !self.closes() {
            let null = self.rest.strip_prefix("NULL");
            self.rest = null.unwrap_or(self.rest);
            values.push(if null.is_some() {
                None
            } else {
                Some(self.bytes())
            });
        }
        values
    }
}
