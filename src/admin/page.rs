//! The status page: databases, shards and servers as plain HTML.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::http::Table;
use crate::topology::Role;
use crate::topology::Server;
use crate::topology::Topology;

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"refresh\" content=\"5\"><meta name=\"viewport\" content=\"width=device-width\">\
<title>Shardwire</title><style>\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .4rem}p{margin:.3rem 0}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}\
th{font-weight:600;color:#555}.up{color:#176b2c}.out{color:#a11}small{color:#666}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}th{color:#aaa}th,td{border-color:#333}.up{color:#6c6}.out{color:#f77}small{color:#999}}\
</style></head><body><h1>Shardwire <small>";

/// The page, whole.
pub(super) fn render(topologies: &[Arc<Topology>], tables: &[Table]) -> String {
    let mut page = String::from(HEAD);
    escape(&mut page, env!("CARGO_PKG_VERSION"));
    page.push_str("</small></h1>");
    for topology in topologies {
        database(&mut page, topology);
    }
    for table in tables {
        heading(&mut page, &table.title);
        begin_table(&mut page, &table.columns);
        for row in &table.rows {
            page.push_str("<tr>");
            for cell in row {
                page.push_str("<td>");
                escape(&mut page, cell);
            }
        }
        page.push_str("</table>");
    }
    page.push_str("<p><small><a href=\"/metrics\">/metrics</a> · <a href=\"/readyz\">/readyz</a> · <a href=\"/healthz\">/healthz</a></small></p></body></html>\n");
    page
}

fn database(page: &mut String, topology: &Topology) {
    heading(page, &format!("Database {}", topology.database().name));
    let columns = [
        "shard",
        "server",
        "zone",
        "role",
        "state",
        "lag",
        "round trip",
        "in flight",
    ];
    begin_table(page, &columns);
    for set in topology.shards() {
        for server in set.servers() {
            page.push_str("<tr><td>");
            escape(page, &set.name);
            row(page, server);
        }
    }
    page.push_str("</table>");
    let problems = topology.problems();
    if !problems.is_empty() {
        page.push_str("<p class=\"out\">Problems:</p><ul>");
        for problem in problems {
            page.push_str("<li>");
            escape(page, &problem.to_string());
        }
        page.push_str("</ul>");
    }
}

fn row(page: &mut String, server: &Server) {
    let state = server.state();
    let lag = match (state.lag.time, state.lag.bytes) {
        (Some(time), Some(bytes)) => format!("{} ({bytes} bytes)", span(time)),
        (Some(time), None) => span(time),
        (None, _) => "–".to_owned(),
    };
    let role = match state.role {
        Some(Role::Primary) => "primary",
        Some(Role::Secondary) => "secondary",
        None => "–",
    };
    for cell in [
        &server.address.to_string(),
        server.zone.as_deref().unwrap_or("–"),
        role,
    ] {
        page.push_str("<td>");
        escape(page, cell);
    }
    match state.why_out() {
        None => page.push_str("<td class=\"up\">up"),
        Some(why) => {
            page.push_str("<td class=\"out\">");
            let word = if state.fence.is_some() {
                "fenced"
            } else {
                state.health.word()
            };
            escape(page, word);
            page.push_str(": ");
            escape(page, why);
        }
    }
    for cell in [lag, span(state.rtt), server.in_flight().to_string()] {
        page.push_str("<td>");
        escape(page, &cell);
    }
}

fn heading(page: &mut String, text: &str) {
    page.push_str("<h2>");
    escape(page, text);
    page.push_str("</h2>");
}

fn begin_table(page: &mut String, columns: &[&str]) {
    page.push_str("<table><tr>");
    for column in columns {
        page.push_str("<th>");
        escape(page, column);
    }
}

/// A duration with three digits or so.
fn span(duration: Duration) -> String {
    let mut text = String::new();
    let seconds = duration.as_secs_f64();
    // Writing to a String can't fail.
    let _ = if seconds == 0.0 {
        write!(text, "0")
    } else if seconds < 1.0 {
        write!(text, "{:.1} ms", seconds * 1e3)
    } else {
        write!(text, "{seconds:.1} s")
    };
    text
}

fn escape(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '&' => page.push_str("&amp;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(span(Duration::ZERO), "0");
        assert_eq!(span(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(span(Duration::from_millis(12_340)), "12.3 s");
    }

    #[test]
    fn text_is_never_markup() {
        let mut page = String::new();
        escape(&mut page, "<b onclick='x'>&\"");
        assert_eq!(page, "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;");
    }
}
