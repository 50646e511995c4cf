//! The metrics registry and its Prometheus text; each owner registers its own families here.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::{Error, Result};
use crate::sqlstate::SqlState;

/// The content type of [`Metrics::render`] (Prometheus text format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every family's name starts with.
const PREFIX: &str = "shardwire_";

/// A registry of metric families. Cheap to clone; there is one per process, and one per test.
///
/// Owners make their families once, at start, and keep the children (`with_label_values`) they use: the
/// look-up takes a lock, so nothing does it per query.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Counters by label. `name` is without the `shardwire_` prefix.
    ///
    /// # Errors
    /// `XX000` for a name that is taken or malformed, which is a mistake in the program.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(options(name, help), labels))
    }

    /// Whole-number gauges by label; otherwise as [`Metrics::counters`].
    ///
    /// # Errors
    /// As [`Metrics::counters`].
    pub fn integers(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(options(name, help), labels))
    }

    /// Gauges by label; otherwise as [`Metrics::counters`].
    ///
    /// # Errors
    /// As [`Metrics::counters`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.register(GaugeVec::new(options(name, help), labels))
    }

    /// Histograms by label with the given upper bounds (seconds, if they are times).
    ///
    /// # Errors
    /// As [`Metrics::counters`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    /// Every family in Prometheus text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }

    fn register<C: Collector + Clone + 'static>(&self, family: prometheus::Result<C>) -> Result<C> {
        let family = family.map_err(internal)?;
        self.registry
            .register(Box::new(family.clone()))
            .map_err(internal)?;
        Ok(family)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

fn internal(error: prometheus::Error) -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        format!("metric family cannot be registered: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_was_registered() {
        let metrics = Metrics::new();
        let up = metrics
            .integers("server_up", "1 if up.", &["server"])
            .unwrap();
        up.with_label_values(&["a:1"]).set(1);
        let text = metrics.render();
        assert!(text.contains("# TYPE shardwire_server_up gauge"), "{text}");
        assert!(
            text.contains("shardwire_server_up{server=\"a:1\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn a_name_registers_once() {
        let metrics = Metrics::new();
        metrics.counters("x_total", "X.", &[]).unwrap();
        let error = metrics.counters("x_total", "X.", &[]).err().unwrap();
        assert_eq!(error.code(), SqlState::INTERNAL_ERROR);
    }

    #[test]
    fn label_values_are_escaped() {
        let metrics = Metrics::new();
        let family = metrics.gauges("g", "G.", &["table"]).unwrap();
        family.with_label_values(&["a\"b\nc"]).set(0.5);
        assert!(metrics.render().contains("{table=\"a\\\"b\\nc\"} 0.5"));
    }
}
