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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::backend::principal::Principal;
    use crate::config::Address;
    use crate::sqlstate::SqlState;

    fn target(address: Address) -> Target {
        Target {
            address,
            database: "shop".to_owned(),
            principal: Principal::new("role", None),
            application_name: "shardwire".to_owned(),
            parameters: Vec::new(),
            connect_timeout: Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn it_ends_when_the_server_has_closed() {
        let directory = tempfile::tempdir().unwrap();
        let server = UnixListener::bind(directory.path().join(".s.PGSQL.7")).unwrap();
        let target = target(Address::Unix {
            directory: directory.path().to_owned(),
            port: 7,
        });
        for secret in [vec![9; 4], vec![9; 256]] {
            let connector = Connector::off();
            let mut cancelling = Box::pin(cancel(&target, &connector, -2, &secret));
            let mut expected = Vec::new();
            startup::cancel_request(&mut expected, -2, &secret);
            let mut request = vec![0; expected.len()];
            let hearing = async {
                let (mut socket, _) = server.accept().await.unwrap();
                socket.read_exact(&mut request).await.unwrap();
                socket
            };
            let socket = tokio::select! {
                biased;
                ended = &mut cancelling => panic!("too early: {ended:?}"),
                socket = hearing => socket,
            };
            assert_eq!(request, expected);
            assert!(futures_util::poll!(&mut cancelling).is_pending());
            drop(socket);
            cancelling.await.unwrap();
        }
    }

    #[tokio::test]
    async fn it_waits_no_longer_than_it_should() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut target = target(Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        });
        target.connect_timeout = Duration::from_millis(20);
        let error = cancel(&target, &Connector::off(), 1, &[0; 4]).await;
        let code = SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
        assert_eq!(error.unwrap_err().code(), code);
    }
}
