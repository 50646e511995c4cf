//! What a client is told of a commit on several shards that did not go as it wanted.

use crate::error::Error;
use crate::sqlstate::SqlState;
use crate::txn::gid::Gid;

/// It is rolled back, for no reason that a shard gave (`40001`); `lost`: the shard that was lost.
pub(super) fn rolled_back(lost: Option<&str>) -> Error {
    let error = Error::new(
        SqlState::T_R_SERIALIZATION_FAILURE,
        "the transaction could not be committed on all its shards and was rolled back",
    );
    let error = match lost {
        Some(shard) => error.detail(format!("The connection to shard {shard} was lost.")),
        None => error.detail("A shard had rolled it back before."),
    };
    error.hint("The transaction might succeed if retried.")
}

/// Whether it is committed can't be known now (`08007`).
pub(super) fn in_doubt(lost: Option<&str>, gid: Option<&Gid>) -> Error {
    let shard = lost.unwrap_or("?");
    let error = Error::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        "connection to the server was lost during COMMIT",
    );
    match gid {
        Some(gid) => error
            .detail(format!(
                "Shard {shard} decides on transaction {gid} and can't be asked."
            ))
            .hint(
                "Its table shardwire.decisions tells later whether the transaction was committed.",
            ),
        None => error
            .detail(format!("The transaction was written on shard {shard}."))
            .hint("Check whether the transaction's changes are there before repeating it."),
    }
}

/// It is committed, and with a connection that is lost something of the session's is gone.
pub(super) fn bereft() -> Error {
    Error::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection because its server connection was lost",
    )
    .detail("The transaction was committed; a connection that held state of the session is gone.")
}
