//! Documents of EXPLAIN in JSON, YAML and XML: those of several servers as parts of one.
//!
//! What holds:
//! - The outer form is PostgreSQL's: a list of one query with a `Plan`, so that programs that draw plans read it.
//! - The `Plan` is the proxy's own node. What stands beside a server's `Plan` (`Planning Time` and the like) becomes
//!   a part of it.
//! - PostgreSQL writes each member on lines of its own, indented by how deep it stands (its source,
//!   `commands/explain_format.c`). What does not look like that is not taken apart.

/// A format of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `FORMAT JSON`.
    Json,
    /// `FORMAT YAML`.
    Yaml,
    /// `FORMAT XML`.
    Xml,
}

/// A server's document.
pub struct Part<'a> {
    /// The server's shard.
    pub shard: &'a str,
    /// What it says.
    pub document: &'a str,
}

/// The members of a document.
struct Members<'a> {
    /// Lines of the `Plan`, without the indentation that they all have.
    plan: Vec<&'a str>,
    /// Lines beside it.
    beside: Vec<&'a str>,
}

impl Format {
    /// The format of this name; none for text.
    pub fn named(name: &str) -> Option<Format> {
        let formats = [
            ("json", Format::Json),
            ("yaml", Format::Yaml),
            ("xml", Format::Xml),
        ];
        let mut formats = formats.into_iter();
        let found = formats.find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map(|(_, format)| format)
    }

    /// The parts as one document, under the proxy's own plan in lines; none if one of them is not understood.
    pub fn nest(self, lines: &[String], parts: &[Part<'_>]) -> Option<String> {
        let members: Option<Vec<Members<'_>>> = parts
            .iter()
            .map(|part| self.members(part.document))
            .collect();
        let members = members?;
        let own = self.own(lines, &members);
        let children: Vec<Vec<String>> = parts
            .iter()
            .zip(&members)
            .map(|(part, members)| self.child(part.shard, members))
            .collect();
        let beside = self.beside(&members);
        Some(match self {
            Format::Json => json(own, &children, &beside),
            Format::Yaml => yaml(&own, &children, &beside),
            Format::Xml => xml(&own, &children, &beside),
        })
    }

    /// Takes a document apart.
    fn members(self, document: &str) -> Option<Members<'_>> {
        let (first, last, end, indent) = match self {
            Format::Json => ("    \"Plan\": {", "    }", "  }", 6),
            Format::Yaml => ("- Plan:", "", "", 4),
            Format::Xml => ("    <Plan>", "    </Plan>", "  </Query>", 6),
        };
        let mut lines = document.lines();
        lines.find(|line| line.trim_end() == first)?;
        let mut members = Members {
            plan: Vec::new(),
            beside: Vec::new(),
        };
        let mut is_plan = true;
        for line in lines {
            if is_plan && self != Format::Yaml && line.trim_end_matches(',') == last {
                is_plan = false;
            } else if is_plan && (self != Format::Yaml || line.starts_with("    ")) {
                // A line break in a string of XML begins a line of any form.
                members.plan.push(line.get(indent..).unwrap_or(line));
            } else if self != Format::Yaml && line == end {
                return Some(members);
            } else {
                is_plan = false;
                let outer = indent - 2;
                members.beside.push(line.get(outer..).unwrap_or(line));
            }
        }
        (self == Format::Yaml && !members.plan.is_empty()).then_some(members)
    }

    /// A member with a value that is no string.
    fn number(self, name: &str, value: &str) -> String {
        match self {
            Format::Json => format!("\"{name}\": {value},"),
            Format::Yaml => format!("{name}: {value}"),
            Format::Xml => {
                let tag = name.replace(' ', "-");
                format!("<{tag}>{value}</{tag}>")
            }
        }
    }

    /// A string as it stands for a value.
    fn string(self, value: &str) -> String {
        match self {
            Format::Json | Format::Yaml => format!("\"{}\"", escape(value)),
            Format::Xml => value
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;"),
        }
    }

    /// The value of a member of the outermost node.
    fn value<'a>(self, lines: &[&'a str], name: &str) -> Option<&'a str> {
        let before = match self {
            Format::Json => format!("\"{name}\": "),
            Format::Yaml => format!("{name}: "),
            Format::Xml => format!("<{}>", name.replace(' ', "-")),
        };
        let mut values = lines.iter().filter_map(|line| line.strip_prefix(&before));
        let value = values.next()?;
        Some(match self {
            Format::Json => value.trim_end_matches(','),
            Format::Yaml => value,
            Format::Xml => value.split('<').next()?,
        })
    }

    /// What the parts' values of a member make; none unless all have it.
    fn together(
        self,
        parts: impl Iterator<Item = Option<f64>>,
        (name, how, digits): (&str, fn(f64, f64) -> f64, usize),
    ) -> Option<String> {
        let values: Option<Vec<f64>> = parts.collect();
        let value = values?.into_iter().reduce(how)?;
        Some(self.number(name, &format!("{value:.digits$}")))
    }

    /// The members of the proxy's own node.
    fn own(self, lines: &[String], parts: &[Members<'_>]) -> Vec<String> {
        let mut own = vec![self.number("Node Type", &self.string("Shardwire"))];
        let plus: fn(f64, f64) -> f64 = |one, other| one + other;
        for (name, how, digits) in [
            ("Startup Cost", f64::min as fn(f64, f64) -> f64, 2),
            ("Total Cost", plus, 2),
            ("Plan Rows", plus, 0),
            ("Plan Width", f64::max, 0),
            ("Actual Startup Time", f64::min, 3),
            ("Actual Total Time", f64::max, 3),
            ("Actual Rows", plus, 0),
            ("Actual Loops", f64::min, 0),
        ] {
            let values = parts
                .iter()
                .map(|part| self.value(&part.plan, name)?.parse().ok());
            own.extend(self.together(values, (name, how, digits)));
        }
        let lines = lines.iter().map(|line| self.string(line));
        match self {
            Format::Json => {
                let lines: Vec<String> = lines.collect();
                own.push(format!("\"Shardwire Plan\": [{}],", lines.join(", ")));
            }
            Format::Yaml => {
                own.push("Shardwire Plan: ".to_owned());
                own.extend(lines.map(|line| format!("  - {line}")));
            }
            Format::Xml => {
                own.push("<Shardwire-Plan>".to_owned());
                own.extend(lines.map(|line| format!("  <Item>{line}</Item>")));
                own.push("</Shardwire-Plan>".to_owned());
            }
        }
        own
    }

    /// What stands beside the whole: the longest times.
    fn beside(self, parts: &[Members<'_>]) -> Vec<String> {
        let names = ["Planning Time", "Execution Time"];
        let members = names.into_iter().filter_map(|name| {
            let values = parts
                .iter()
                .map(|part| self.value(&part.beside, name)?.parse().ok());
            self.together(values, (name, f64::max, 3))
        });
        members.collect()
    }

    /// The lines of a server's plan as a child.
    fn child(self, shard: &str, members: &Members<'_>) -> Vec<String> {
        let relation = self.string("Member");
        let shard = self.string(shard);
        let mut child = vec![
            self.number("Shard", &shard),
            self.number("Parent Relationship", &relation),
        ];
        child.extend(members.plan.iter().map(|line| (*line).to_owned()));
        if self == Format::Json
            && !members.beside.is_empty()
            && let Some(last) = child.last_mut()
        {
            last.push(',');
        }
        child.extend(members.beside.iter().map(|line| (*line).to_owned()));
        child
    }
}

/// A string between quotes, as PostgreSQL's JSON and YAML have it.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            other if other.is_control() => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(other)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Lines with spaces before them.
fn indented<S: AsRef<str>>(out: &mut Vec<String>, depth: usize, lines: &[S]) {
    let spaces = " ".repeat(depth);
    out.extend(
        lines
            .iter()
            .map(|line| format!("{spaces}{}", line.as_ref())),
    );
}

fn json(own: Vec<String>, children: &[Vec<String>], beside: &[String]) -> String {
    let mut out = vec![
        "[".to_owned(),
        "  {".to_owned(),
        "    \"Plan\": {".to_owned(),
    ];
    indented(&mut out, 6, &own);
    out.push("      \"Plans\": [".to_owned());
    for (number, child) in children.iter().enumerate() {
        out.push("        {".to_owned());
        indented(&mut out, 10, child);
        let is_last = number + 1 == children.len();
        out.push(if is_last { "        }" } else { "        }," }.to_owned());
    }
    out.push("      ]".to_owned());
    out.push(if beside.is_empty() { "    }" } else { "    }," }.to_owned());
    indented(&mut out, 4, beside);
    if let Some(last) = out.last_mut().filter(|_| !beside.is_empty()) {
        last.truncate(last.trim_end_matches(',').len());
    }
    out.extend(["  }".to_owned(), "]".to_owned()]);
    out.join("\n")
}

fn yaml(own: &[String], children: &[Vec<String>], beside: &[String]) -> String {
    let mut out = vec!["- Plan: ".to_owned()];
    indented(&mut out, 4, own);
    out.push("    Plans: ".to_owned());
    for child in children {
        if let Some((first, rest)) = child.split_first() {
            out.push(format!("      - {first}"));
            indented(&mut out, 8, rest);
        }
    }
    indented(&mut out, 2, beside);
    out.join("\n")
}

fn xml(own: &[String], children: &[Vec<String>], beside: &[String]) -> String {
    let mut out = vec![
        "<explain xmlns=\"http://www.postgresql.org/2009/explain\">".to_owned(),
        "  <Query>".to_owned(),
        "    <Plan>".to_owned(),
    ];
    indented(&mut out, 6, own);
    out.push("      <Plans>".to_owned());
    for child in children {
        out.push("        <Plan>".to_owned());
        indented(&mut out, 10, child);
        out.push("        </Plan>".to_owned());
    }
    out.extend(["      </Plans>".to_owned(), "    </Plan>".to_owned()]);
    indented(&mut out, 4, beside);
    out.extend(["  </Query>".to_owned(), "</explain>".to_owned()]);
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "[\n  {\n    \"Plan\": {\n      \"Node Type\": \"Seq Scan\",\n      \"Total Cost\": 2.50,\n      \
        \"Plan Rows\": 3,\n      \"Filter\": \"(t = '\\\"}'::text)\"\n    },\n    \"Planning Time\": 0.5,\n    \
        \"Triggers\": [\n    ]\n  }\n]";

    fn nested(format: Format, document: &str) -> String {
        let part = |shard| Part { shard, document };
        let lines = ["Scatter \"x\" <all>".to_owned()];
        format.nest(&lines, &[part("s0"), part("s1")]).unwrap()
    }

    #[test]
    fn documents_become_parts_of_one() {
        let document = nested(Format::Json, JSON);
        let head = "[\n  {\n    \"Plan\": {\n      \"Node Type\": \"Shardwire\",\n      \"Total Cost\": 5.00,\n      \
            \"Plan Rows\": 6,\n      \"Shardwire Plan\": [\"Scatter \\\"x\\\" <all>\"],\n      \"Plans\": [\n        {\n          \
            \"Shard\": \"s0\",\n          \"Parent Relationship\": \"Member\",\n          \"Node Type\": \"Seq Scan\",";
        assert!(document.starts_with(head), "{document}");
        let tail = "          \"Planning Time\": 0.5,\n          \"Triggers\": [\n          ]\n        }\n      ]\n    \
            },\n    \"Planning Time\": 0.500\n  }\n]";
        assert!(document.ends_with(tail), "{document}");
        let yaml =
            "- Plan: \n    Node Type: \"Result\"\n    Total Cost: 1.00\n  Planning Time: 0.1";
        assert_eq!(
            nested(Format::Yaml, yaml),
            "- Plan: \n    Node Type: \"Shardwire\"\n    Total Cost: 2.00\n    Shardwire Plan: \n      \
             - \"Scatter \\\"x\\\" <all>\"\n    Plans: \n      - Shard: \"s0\"\n        \
             Parent Relationship: \"Member\"\n        Node Type: \"Result\"\n        Total Cost: 1.00\n        \
             Planning Time: 0.1\n      - Shard: \"s1\"\n        Parent Relationship: \"Member\"\n        \
             Node Type: \"Result\"\n        Total Cost: 1.00\n        Planning Time: 0.1\n  Planning Time: 0.100"
        );
        let xml = "<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n  <Query>\n    <Plan>\n      \
            <Node-Type>Result</Node-Type>\n    </Plan>\n    <Planning-Time>0.1</Planning-Time>\n  </Query>\n</explain>";
        let document = nested(Format::Xml, xml);
        assert!(document.contains("<Item>Scatter \"x\" &lt;all&gt;</Item>"));
        assert_eq!(document.matches("<Node-Type>Result</Node-Type>").count(), 2);
        assert!(document.ends_with(
            "    </Plan>\n    <Planning-Time>0.100</Planning-Time>\n  </Query>\n</explain>"
        ));
    }

    #[test]
    fn what_is_no_plan_is_not_taken_apart() {
        let part = |document| Part {
            shard: "s0",
            document,
        };
        for document in [
            "",
            "[\n  \"Utility Statement\"\n]",
            "[\n  {\n    \"Plan\": {\n",
        ] {
            assert_eq!(Format::Json.nest(&[], &[part(document)]), None);
        }
    }
}
