//! What operators see: SHOW SHARDWIRE, /metrics, the status page, `shardwire check` and `explain`.

pub mod check;
pub mod explain;
pub mod http;
mod page;
pub mod show;
pub mod table;
