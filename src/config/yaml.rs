//! YAML text to a tree in which every node knows where it stands; duplicate keys are problems.

use std::collections::HashMap;

use saphyr_parser::Event;
use saphyr_parser::Marker;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;

use super::path;
use super::problem::Problem;

/// Deeper nesting is refused; proxy.yaml needs eight levels.
const MAX_DEPTH: usize = 32;
/// Bound on the tree after aliases are replaced by what they stand for.
const MAX_NODES: usize = 200_000;

/// A place in the text, both 1-based, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// What a node holds. Scalars stay text: what they mean is for the reader of each section to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) node: Node,
}

/// Reads the one document of a text. Without a tree there is at least one problem.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, position(&span.start)),
            Err(error) => Err(syntax_problem(text, error.info(), position(error.marker()))),
        };
        if let Err(problem) = step {
            builder.problems.push(problem);
            return (None, builder.problems);
        }
    }
    if builder.root.is_none() {
        let start = Position { line: 1, column: 1 };
        builder
            .problems
            .push(problem_at(start, String::new(), "the file is empty"));
    }
    (builder.root, builder.problems)
}

/// A list or map that is still open.
struct Open {
    position: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// The line where each key stood last.
    lines: HashMap<String, usize>,
    /// The key whose value comes next.
    key: Option<(String, Position)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

impl Builder {
    /// Takes one event; an error ends the reading.
    fn event(&mut self, event: Event<'_>, position: Position) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.problem(position, "only one YAML document is allowed"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), position);
                let null = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null && !self.wants_key() {
                    Value::Null
                } else {
                    Value::Scalar(text.into_owned())
                };
                return self.finished(Node { position, value }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), position);
                return self.opened(position, anchor, Content::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), position);
                return self.opened(position, anchor, Content::Map(OpenMap::default()));
            }
            Event::SequenceEnd | Event::MappingEnd => return self.closed(),
            Event::Alias(anchor) => return self.alias(anchor, position),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn opened(
        &mut self,
        position: Position,
        anchor: usize,
        content: Content,
    ) -> Result<(), Problem> {
        if self.wants_key() {
            return Err(self.problem(position, "a key must be text, not a list or a map"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.problem(position, "the file is nested too deeply"));
        }
        self.open.push(Open {
            position,
            anchor,
            content,
        });
        Ok(())
    }

    fn closed(&mut self) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(nodes) => Value::List(nodes),
            Content::Map(map) => Value::Map(map.entries),
        };
        let position = open.position;
        self.finished(Node { position, value }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Result<(), Problem> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self.problem(position, "an alias cannot stand inside its own anchor"));
        };
        let (nodes, depth) = measure(&node);
        self.nodes += nodes;
        if self.open.len() + depth > MAX_DEPTH {
            return Err(self.problem(position, "the file is nested too deeply"));
        }
        if self.wants_key() && !matches!(node.value, Value::Scalar(_)) {
            return Err(self.problem(position, "a key must be text, not a list or a map"));
        }
        self.finished(node, 0)
    }

    /// Puts a finished node where it belongs: root, element, key or value.
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.problem(node.position, "the file holds too many values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(nodes)) => nodes.push(node),
            Some(Content::Map(map)) => match (map.key.take(), node.value) {
                (None, Value::Scalar(text)) => {
                    let first = map.lines.insert(text.clone(), node.position.line);
                    map.key = Some((text, node.position));
                    self.report_duplicate(first, node.position);
                }
                (None, _) => {}
                (Some((key, position)), value) => {
                    let node = Node {
                        position: node.position,
                        value,
                    };
                    map.entries.push(Entry {
                        key,
                        position,
                        node,
                    });
                }
            },
        }
        Ok(())
    }

    fn report_duplicate(&mut self, earlier: Option<usize>, position: Position) {
        if let Some(line) = earlier {
            let mut problem = self.problem(position, "duplicate key");
            problem.hint = Some(format!("The key already stands in line {line}."));
            self.problems.push(problem);
        }
    }

    fn refuse_tag(&mut self, tagged: bool, position: Position) {
        if tagged {
            let mut problem = self.problem(position, "YAML tags have no meaning here");
            problem.hint = Some("Remove the word that begins with \"!\".".to_owned());
            self.problems.push(problem);
        }
    }

    fn wants_key(&self) -> bool {
        let content = self.open.last().map(|open| &open.content);
        matches!(content, Some(Content::Map(map)) if map.key.is_none())
    }

    /// A problem at the place that is being read.
    fn problem(&self, position: Position, message: &str) -> Problem {
        let mut at = String::new();
        for open in &self.open {
            at = match &open.content {
                Content::List(nodes) => path::index(&at, nodes.len()),
                Content::Map(map) => match &map.key {
                    Some((key, _)) => path::key(&at, key),
                    None => at,
                },
            };
        }
        problem_at(position, at, message)
    }
}

/// Number of nodes below and including this one, and its depth. The tree is at most [`MAX_DEPTH`] deep.
fn measure(node: &Node) -> (usize, usize) {
    let children: Vec<&Node> = match &node.value {
        Value::Null | Value::Scalar(_) => return (1, 0),
        Value::List(nodes) => nodes.iter().collect(),
        Value::Map(entries) => entries.iter().map(|entry| &entry.node).collect(),
    };
    let below = children.into_iter().map(measure);
    let (nodes, depth) = below.fold((0, 0), |all, one| (all.0 + one.0, all.1.max(one.1)));
    (nodes + 1, depth + 1)
}

fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn problem_at(position: Position, path: String, message: &str) -> Problem {
    Problem {
        path,
        line: position.line,
        column: position.column,
        message: message.to_owned(),
        hint: None,
    }
}

/// Says what the parser said, and adds what most often causes it.
fn syntax_problem(text: &str, info: &str, position: Position) -> Problem {
    let mut problem = problem_at(position, String::new(), &format!("YAML syntax: {info}"));
    let line = text.lines().nth(position.line - 1).unwrap_or_default();
    let indentation = line.len() - line.trim_start().len();
    problem.hint = if line[..indentation].contains('\t') {
        Some("YAML is indented with spaces, not with tabs.".to_owned())
    } else if line.contains("[::") {
        Some("Quote IPv6 addresses: \"[::1]:5432\".".to_owned())
    } else {
        None
    };
    problem
}
