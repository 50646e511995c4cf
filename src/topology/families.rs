//! The metric families of replica sets: what operators of a sharded database watch.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec};

use crate::error::Result;
use crate::metrics::Metrics;

use super::selection::Role;
use super::server::State;

/// Metrics of every topology of a process; registered once.
#[derive(Clone)]
pub struct TopologyMetrics {
    server_up: IntGaugeVec,
    server_primary: IntGaugeVec,
    lag_seconds: GaugeVec,
    lag_bytes: IntGaugeVec,
    round_trip: GaugeVec,
    partitions: IntCounterVec,
    shard_rows: GaugeVec,
    skew: GaugeVec,
    catalog_reloads: IntCounterVec,
}

const SERVER: &[&str] = &["database", "shard", "server"];

impl TopologyMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// `XX000` when they are registered already.
    pub fn register(metrics: &Metrics) -> Result<TopologyMetrics> {
        Ok(TopologyMetrics {
            server_up: metrics.integers("server_up", "1 if the server is in service.", SERVER)?,
            server_primary: metrics.integers("server_primary", "1 if the server is its shard's primary.", SERVER)?,
            lag_seconds: metrics.gauges(
                "replication_lag_seconds",
                "Time since the secondary had everything its primary had; 0 when it has.",
                SERVER,
            )?,
            lag_bytes: metrics.integers(
                "replication_lag_bytes",
                "WAL of the primary that the secondary has not replayed.",
                SERVER,
            )?,
            round_trip: metrics.gauges(
                "server_rtt_seconds",
                "Smoothed round-trip time of probes.",
                SERVER,
            )?,
            partitions: metrics.counters(
                "partition_events_total",
                "Times the server was out of reach while others answered, stopped replaying, or was fenced off.",
                SERVER,
            )?,
            shard_rows: metrics.gauges(
                "shard_rows",
                "Estimated rows of a sharded table on one shard.",
                &["database", "table", "shard"],
            )?,
            skew: metrics.gauges(
                "shard_skew_ratio",
                "Largest over smallest shard of a sharded table, in estimated rows; alert above 1.5.",
                &["database", "table"],
            )?,
            catalog_reloads: metrics.counters(
                "catalog_reloads_total",
                "Times the catalogue was read anew.",
                &["database"],
            )?,
        })
    }

    /// The metrics of one server.
    pub(super) fn server(&self, database: &str, shard: &str, server: &str) -> ServerMetrics {
        let labels = [database, shard, server].map(str::to_owned);
        ServerMetrics {
            partitions: self.partitions.with_label_values(&labels),
            families: self.clone(),
            labels,
        }
    }

    /// Counts a catalogue that was read anew.
    pub(super) fn count_reload(&self, database: &str) {
        self.catalog_reloads.with_label_values(&[database]).inc();
    }

    /// Sets the rows of one table on every shard, in the order of `shards`, and its skew.
    pub(super) fn show_rows(&self, database: &str, table: &str, rows: &[(&str, f64)]) {
        for (shard, rows) in rows {
            let labels = [database, table, shard];
            self.shard_rows.with_label_values(&labels).set(*rows);
        }
        let counts = rows.iter().map(|(_, rows)| *rows);
        let largest = counts.clone().fold(0.0, f64::max);
        // A shard without rows counts as one row: the ratio stays a number, and large.
        let smallest = counts.fold(f64::INFINITY, f64::min).max(1.0);
        let ratio = largest.max(1.0) / smallest;
        self.skew.with_label_values(&[database, table]).set(ratio);
    }

    /// Forgets a table that is gone.
    pub(super) fn forget_rows(&self, database: &str, table: &str, shards: &[&str]) {
        for shard in shards {
            // An absent child is as good as a removed one.
            let _ = self
                .shard_rows
                .remove_label_values(&[database, table, shard]);
        }
        let _ = self.skew.remove_label_values(&[database, table]);
    }
}

/// The metrics of one server; its gauges vanish with it, its counters stay.
pub(super) struct ServerMetrics {
    families: TopologyMetrics,
    labels: [String; 3],
    partitions: IntCounter,
}

impl ServerMetrics {
    /// Shows a state. Looks the children up each time: a reload may have removed them meanwhile.
    pub(super) fn show(&self, state: &State) {
        let families = &self.families;
        let up = families.server_up.with_label_values(&self.labels);
        up.set(state.usable().into());
        let primary = state.usable() && state.role == Some(Role::Primary);
        let primaries = families.server_primary.with_label_values(&self.labels);
        primaries.set(primary.into());
        let rtt = families.round_trip.with_label_values(&self.labels);
        rtt.set(state.rtt.as_secs_f64());
        if let Some(bytes) = state.lag.bytes {
            let gauge = families.lag_bytes.with_label_values(&self.labels);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        if let Some(time) = state.lag.time {
            let gauge = families.lag_seconds.with_label_values(&self.labels);
            gauge.set(time.as_secs_f64());
        }
        if state.role == Some(Role::Primary) {
            families.lag_bytes.with_label_values(&self.labels).set(0);
            families
                .lag_seconds
                .with_label_values(&self.labels)
                .set(0.0);
        }
    }

    pub(super) fn count_partition(&self) {
        self.partitions.inc();
    }
}

impl Drop for ServerMetrics {
    fn drop(&mut self) {
        // An absent child is as good as a removed one.
        let families = &self.families;
        let _ = families.server_up.remove_label_values(&self.labels);
        let _ = families.server_primary.remove_label_values(&self.labels);
        let _ = families.lag_seconds.remove_label_values(&self.labels);
        let _ = families.lag_bytes.remove_label_values(&self.labels);
        let _ = families.round_trip.remove_label_values(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_the_largest_over_the_smallest() {
        let metrics = Metrics::new();
        let families = TopologyMetrics::register(&metrics).unwrap();
        families.show_rows("shop", "public.orders", &[("s0", 300.0), ("s1", 100.0)]);
        families.show_rows("shop", "public.empty", &[("s0", 0.0), ("s1", 0.0)]);
        families.show_rows("shop", "public.hot", &[("s0", 500.0), ("s1", 0.0)]);
        let text = metrics.render();
        for line in [
            "shardwire_shard_rows{database=\"shop\",shard=\"s0\",table=\"public.orders\"} 300",
            "shardwire_shard_skew_ratio{database=\"shop\",table=\"public.orders\"} 3",
            "shardwire_shard_skew_ratio{database=\"shop\",table=\"public.empty\"} 1",
            "shardwire_shard_skew_ratio{database=\"shop\",table=\"public.hot\"} 500",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        families.forget_rows("shop", "public.hot", &["s0", "s1"]);
        assert!(!metrics.render().contains("public.hot"));
    }
}
