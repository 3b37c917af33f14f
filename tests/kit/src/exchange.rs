//! Bytes there and back, every one of them checked: to an echo of plain TCP, or to [`app`](crate::app)'s `/echo` by HTTP.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A body that takes longer does not come.
const PATIENCE: Duration = Duration::from_mins(2);

/// Answers each connection's bytes with the same bytes, for ever.
pub async fn echo(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    echo_on(listener).await
}

async fn echo_on(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await.context("accept")?;
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            // A caller that goes away in between is no fault of ours.
            let _ = copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

/// Sends `count` times so many bytes to an echo, over a connection each.
pub async fn by_tcp(with: SocketAddr, bytes: usize, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let sent = pattern(number, bytes);
        let stream = TcpStream::connect(with).await;
        let stream = stream.with_context(|| format!("connect to {with}"))?;
        let (mut from, mut to) = stream.into_split();
        let mut back = Vec::with_capacity(bytes);
        let sending = async {
            to.write_all(&sent).await?;
            to.shutdown().await
        };
        let both = timeout(PATIENCE, async {
            tokio::join!(sending, from.read_to_end(&mut back))
        });
        let both = both.await.ok();
        let (written, read) = both.with_context(|| {
            format!(
                "the body {number} stands still: {} bytes of {bytes} came back",
                back.len()
            )
        })?;
        written.with_context(|| format!("sending the body {number}"))?;
        read.with_context(|| format!("reading the body {number}"))?;
        same(number, &sent, &back)?;
    }
    Ok(())
}

/// Posts `count` bodies of so many bytes to `/echo`, over one connection.
pub async fn by_http(with: SocketAddr, bytes: usize, count: usize) -> anyhow::Result<()> {
    let stream = TcpStream::connect(with).await;
    let stream = stream.with_context(|| format!("connect to {with}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also that of the request in flight.
    tokio::spawn(connection);
    for number in 0..count {
        let sent = Bytes::from(pattern(number, bytes));
        let request = Request::post("/echo").header(HOST, with.to_string());
        let request = request.body(Full::new(sent.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let back = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "the body {number}: {status}");
        same(number, &sent, &back)?;
    }
    Ok(())
}

fn same(number: usize, sent: &[u8], back: &[u8]) -> anyhow::Result<()> {
    let differs = sent.iter().zip(back).position(|(one, other)| one != other);
    ensure!(
        sent.len() == back.len() && differs.is_none(),
        "the body {number}: {} bytes came back of {}, the first other one at {differs:?}",
        back.len(),
        sent.len()
    );
    Ok(())
}

/// Bytes that differ from one body to the next, and whose order shows.
fn pattern(number: usize, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(step).collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::{by_tcp, echo_on, same};

    #[tokio::test]
    async fn an_echo_sends_back_what_it_got() {
        // Bound before anybody connects: to a free port of the ephemeral range a socket may connect to itself.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(echo_on(listener));
        by_tcp(address, 1 << 20, 3).await.expect("every byte comes");
        server.abort();
    }

    #[test]
    fn a_byte_that_is_another_or_missing_is_an_error() {
        assert!(same(0, b"abc", b"abc").is_ok());
        assert!(same(0, b"abc", b"abd").is_err());
        assert!(same(0, b"abc", b"ab").is_err());
    }
}
