//! What operators see: SHOW SHARDWIRE, /metrics, the status page.
