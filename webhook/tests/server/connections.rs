//! Connections that are no good take nothing away from those that are.

use std::time::Duration;

use hyper::Version;
use sidestep_webhook::server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Client, tls, trusting};
use crate::common::fixture;
use crate::under_test::{SILENCE, UnderTest};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn half_open_connections_are_closed_and_make_room() {
    let server = UnderTest::with(Limits {
        connections: 8,
        handshake: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(
            TcpStream::connect(server.address)
                .await
                .expect("a connection"),
        );
    }
    let answered = async {
        let mut client = Client::connect(&server, Version::HTTP_2).await;
        client.mutate("u", &fixture("client")).await.status
    };
    assert_eq!(timeout(PATIENCE, answered).await, Ok(200));
    for mut stream in silent {
        let closed = timeout(PATIENCE, stream.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
}

#[tokio::test]
async fn the_server_is_alive_while_nobody_comes_and_while_it_has_no_room() {
    let server = UnderTest::with(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut only = None;
    for _ in 0..2 {
        sleep(SILENCE + Duration::from_millis(500)).await;
        assert_eq!(server.liveness.silent(), Vec::<String>::new());
        let connected = TcpStream::connect(server.address).await;
        only.get_or_insert(connected.expect("a connection"));
    }
    server.ended.abort();
    sleep(SILENCE + Duration::from_millis(500)).await;
    let silent = server.liveness.silent();
    assert!(
        silent
            .iter()
            .any(|why| why.starts_with("accepting connections:")),
        "{silent:?}"
    );
}

#[tokio::test]
async fn a_client_that_never_asks_is_let_go() {
    let server = UnderTest::with(Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut stream = tls(server.address, trusting(&server.trusted))
        .await
        .expect("a connection");
    stream
        .write_all(b"POST /mut")
        .await
        .expect("a request's start");
    let closed = timeout(PATIENCE, stream.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn tls_1_1_is_refused_with_an_alert() {
    let server = UnderTest::start().await;
    let mut stream = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    // ClientHello: version 1.1, a random of 32 bytes, no session, two cipher suites, no compression.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    let length = u8::try_from(hello.len()).expect("a short one");
    let record = [
        &[22, 3, 1, 0, length + 4, 1, 0, 0, length],
        hello.as_slice(),
    ]
    .concat();
    stream.write_all(&record).await.expect("a hello");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server closes");
    assert_eq!(answer.first(), Some(&21), "an alert, not a server's hello");
}

#[tokio::test]
async fn plain_http_gets_nothing_and_the_server_stays_up() {
    let server = UnderTest::start().await;
    let mut stream = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("a request");
    let mut answer = Vec::new();
    let _reset_or_closed = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an end");
    assert_ne!(answer.get(..4), Some(b"HTTP".as_slice()));
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    assert_eq!(client.mutate("u", &fixture("client")).await.status, 200);
}
