//! Bytes in one direction, as many as go through: a sink that counts them, and who pours.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::load::Measured;

/// What is written, and read, at once.
const CHUNK: usize = 64 << 10;

/// Counts each connection's bytes, and at its end says how many they were: eight bytes, the highest first.
pub async fn sink(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    sink_on(listener).await
}

async fn sink_on(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await.context("accept")?;
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK];
            let mut count = 0_u64;
            // A caller that goes away in between is no fault of ours.
            while let Ok(bytes @ 1..) = stream.read(&mut chunk).await {
                count += bytes as u64;
            }
            let _ = stream.write_u64(count).await;
        });
    }
}

/// Pours for so long, over so many connections, and prints how much arrived.
pub async fn pour(into: SocketAddr, duration: Duration, connections: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..connections {
        all.spawn(pour_one(into, duration));
    }
    let mut bytes = 0;
    while let Some(poured) = all.join_next().await {
        bytes += poured??;
    }
    println!("{bytes} bytes in {} µs", began.elapsed().as_micros());
    Ok(())
}

async fn pour_one(into: SocketAddr, duration: Duration) -> anyhow::Result<u64> {
    let began = Instant::now();
    let stream = TcpStream::connect(into).await;
    let mut stream = stream.with_context(|| format!("connect to {into}"))?;
    let chunk = vec![b'0'; CHUNK];
    let mut sent = 0;
    while began.elapsed() < duration {
        stream.write_all(&chunk).await.context("pouring")?;
        sent += CHUNK as u64;
    }
    stream.shutdown().await.context("pouring")?;
    let arrived = stream.read_u64().await.context("what arrived")?;
    ensure!(arrived == sent, "{arrived} bytes arrived of {sent}");
    Ok(sent)
}

/// Reads what [`pour`] printed. A request is a MiB.
pub fn read(output: &str) -> anyhow::Result<Measured> {
    let numbers = || {
        let (bytes, rest) = output.trim().split_once(" bytes in ")?;
        let micros = rest.strip_suffix(" µs")?;
        Some((bytes.parse::<u64>().ok()?, micros.parse::<u64>().ok()?))
    };
    let (bytes, micros) = numbers().with_context(|| format!("not what `pour` prints: {output}"))?;
    let requests = bytes >> 20;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = requests as f64 / (micros as f64 / 1e6);
    Ok(Measured {
        requests,
        rate,
        errors: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::{pour_one, read, sink_on};

    #[tokio::test]
    async fn what_is_poured_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let sink = tokio::spawn(sink_on(listener));
        let sent = pour_one(address, Duration::from_millis(10)).await;
        assert!(sent.expect("every byte arrives") > 0);
        sink.abort();
    }

    #[test]
    fn a_request_is_a_mib() {
        let measured = read("3145728 bytes in 500000 µs\n").expect("it is complete");
        assert_eq!((measured.requests, measured.errors), (3, 0));
        assert!((measured.rate - 6.0).abs() < 1e-6);
        assert!(read("connect: refused").is_err());
    }
}
