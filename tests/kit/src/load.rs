//! Load on a server: a few requests by our own client, many by `wrk`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::app::Seen;

/// Asks for `/` and prints the answers, one line of JSON each; one connection, or one each.
pub async fn get(from: SocketAddr, count: usize, close: bool) -> anyhow::Result<()> {
    let mut kept: Option<SendRequest<Empty<Bytes>>> = None;
    for _ in 0..count {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(from).await?,
        };
        let seen = ask(&mut connection, from, close).await?;
        println!("{}", serde_json::to_string(&seen)?);
        if !close {
            kept = Some(connection);
        }
    }
    Ok(())
}

async fn connect(to: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(to)
        .await
        .with_context(|| format!("connect to {to}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is also that of the request in flight.
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(
    connection: &mut SendRequest<Empty<Bytes>>,
    from: SocketAddr,
    close: bool,
) -> anyhow::Result<Seen> {
    let request = Request::get("/")
        .header(HOST, from.to_string())
        .header(CONNECTION, if close { "close" } else { "keep-alive" });
    connection.ready().await?;
    let response = connection.send_request(request.body(Empty::new())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(
        status == StatusCode::OK,
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(serde_json::from_slice(&body)?)
}

/// The path of a load generator.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .with_context(|| format!("{name} is missing: run `make setup`"))
}

/// What a load generator measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Answers received.
    pub requests: u64,
    /// Answers per second.
    pub rate: f64,
    /// Answers that were no 2xx or 3xx, and connections that failed.
    pub errors: u64,
}

impl Measured {
    /// Reads what `wrk` printed.
    pub fn of_wrk(output: &str) -> anyhow::Result<Self> {
        let field = |prefix: &str| {
            let line = output.lines().find(|line| line.trim().starts_with(prefix));
            line.map(|line| line.trim().trim_start_matches(prefix).trim())
        };
        let requests = output
            .lines()
            .find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok())
            .with_context(|| format!("wrk counted no requests:\n{output}"))?;
        let rate = field("Requests/sec:")
            .and_then(|rate| rate.parse().ok())
            .with_context(|| format!("wrk gave no rate:\n{output}"))?;
        let refused = field("Non-2xx or 3xx responses:").map_or(Ok(0), str::parse)?;
        let socket_errors: u64 = field("Socket errors:").map_or(0, |errors| {
            let numbers = errors.split([' ', ',']);
            numbers.filter_map(|word| word.parse::<u64>().ok()).sum()
        });
        Ok(Self {
            requests,
            rate,
            errors: refused + socket_errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Measured;

    #[test]
    fn wrk_tells_rate_and_errors() {
        let output = "Running 2s test @ http://10.77.0.11:8080/\n  1 threads and 8 connections\n  \
            8123 requests in 2.01s, 1.24MB read\n  Socket errors: connect 0, read 2, write 1, timeout 0\n  \
            Non-2xx or 3xx responses: 4\nRequests/sec:   4041.29\nTransfer/sec:    631.45KB\n";
        let measured = Measured::of_wrk(output).expect("it is complete");
        assert_eq!((measured.requests, measured.errors), (8123, 7));
        assert!((measured.rate - 4041.29).abs() < 1e-6);
    }

    #[test]
    fn an_output_without_a_rate_is_refused() {
        assert!(Measured::of_wrk("unable to connect to 10.77.0.11:8080").is_err());
    }
}
