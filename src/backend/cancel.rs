//! Asks a server to cancel what one of its connections is doing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::backend::dial::{self, Target, connect};
use crate::error::Result;
use crate::net::tls::Connector;
use crate::wire::startup;

/// What a server may answer to CancelRequest before it closes, in bytes; it should be nothing.
const MAX_ANSWER: u64 = 64 * 1024;

/// Cancels what the connection with this process id and secret is doing, over a connection of its
/// own. When it returns, the server has sent the signal; the statement may still be running.
///
/// # Errors
/// `08001` if the server can't be reached or doesn't answer within the target's timeout, `08P01` if
/// it breaks the protocol. Whether there was anything to cancel can't be known.
pub async fn cancel(
    target: &Target,
    connector: &Connector,
    process_id: i32,
    secret: &[u8],
) -> Result<()> {
    let address = &target.address;
    let deadline = Instant::now() + target.connect_timeout;
    let mut stream = connect(address, connector, deadline).await?;
    let mut request = Vec::new();
    startup::cancel_request(&mut request, process_id, secret);
    let asking = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        // The server closes once it has sent the signal. However the end comes, it is the end.
        let mut answer = stream.take(MAX_ANSWER);
        let _ = tokio::io::copy(&mut answer, &mut tokio::io::sink()).await;
        Ok(())
    };
    match timeout_at(deadline, asking).await {
        Ok(asked) => asked.map_err(|error| dial::unreachable(address, &error)),
        Err(_) => Err(dial::timed_out(address)),
    }
}
