//! What operators see: SHOW SHARDWIRE, /metrics, the status page, `shardwire check`.

pub mod check;
pub mod http;
mod page;
pub mod show;
pub mod table;
