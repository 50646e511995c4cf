//! The metric families that sessions count in.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::error::Result;
use crate::metrics::Metrics;

/// Bounds of the latency histogram, in seconds.
const LATENCY_SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// The families; one set per process.
#[derive(Clone, Debug)]
pub struct SessionFamilies {
    queries: IntCounterVec,
    errors: IntCounterVec,
    clients: prometheus::IntGaugeVec,
    latency: prometheus::HistogramVec,
}

impl SessionFamilies {
    /// Registers the families.
    ///
    /// # Errors
    /// `XX000` if a family of the same name is registered already.
    pub fn register(metrics: &Metrics) -> Result<SessionFamilies> {
        Ok(SessionFamilies {
            queries: metrics.counters(
                "queries_total",
                "Statements by where they ran.",
                &["database", "route"],
            )?,
            errors: metrics.counters(
                "errors_total",
                "Errors sent to clients, by SQLSTATE.",
                &["database", "sqlstate"],
            )?,
            clients: metrics.integers("clients", "Clients that are logged in.", &["database"])?,
            latency: metrics.histograms(
                "query_seconds",
                "Time from a statement's arrival to the end of its answer, in seconds.",
                &["database"],
                &LATENCY_SECONDS,
            )?,
        })
    }

    /// The children of one database, resolved once.
    pub fn of(&self, database: &str) -> SessionMetrics {
        let route = |route: &str| self.queries.with_label_values(&[database, route]);
        SessionMetrics {
            single: route("single"),
            any: route("any"),
            scatter: route("scatter"),
            combine: route("combine"),
            local: route("local"),
            refused: route("refused"),
            clients: self.clients.with_label_values(&[database]),
            latency: self.latency.with_label_values(&[database]),
            errors: self.errors.clone(),
            database: database.to_owned(),
        }
    }
}

/// One database's counters.
#[derive(Debug)]
pub struct SessionMetrics {
    /// Statements that ran on the one shard that owns them.
    pub single: IntCounter,
    /// Statements that any shard could answer.
    pub any: IntCounter,
    /// Statements that ran on several shards.
    pub scatter: IntCounter,
    /// Statements that a hub finished.
    pub combine: IntCounter,
    /// Statements that the proxy answered itself.
    pub local: IntCounter,
    /// Statements that were refused.
    pub refused: IntCounter,
    /// Clients that are logged in.
    pub clients: IntGauge,
    /// Seconds per unit of work.
    pub latency: Histogram,
    errors: IntCounterVec,
    database: String,
}

impl SessionMetrics {
    /// Counts an error; errors are rare enough for a look-up.
    pub fn error(&self, sqlstate: &str) {
        self.errors
            .with_label_values(&[self.database.as_str(), sqlstate])
            .inc();
    }
}
