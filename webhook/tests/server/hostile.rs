//! Whoever reaches the port, and whatever he does there, reviews are answered meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Version;
use sidestep_webhook::admission::review_of;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Client, post, tls, trusting, was_not_taken};
use crate::common::fixture;
use crate::memory::Program;
use crate::under_test::{NAME, write_certificate};

const PATIENCE: Duration = Duration::from_mins(1);
/// That are being made at once.
const AT_ONCE: usize = 8;
/// Streams of one connection.
const STREAMS: usize = 16;

/// What somebody does who means no good.
#[derive(Clone, Copy)]
enum Attack {
    /// Connects, and says nothing.
    Idle,
    /// Says hello, and asks for nothing.
    Encrypted,
    /// Sends the beginning of a review.
    Stalled,
    /// The same, over and over.
    Streams,
}

impl Attack {
    /// Does it until the server ends the connection.
    async fn run(
        self,
        address: SocketAddr,
        trusted: &str,
        made: tokio::sync::OwnedSemaphorePermit,
    ) {
        // Whatever fails, the server has ended it.
        let _ended: std::io::Result<()> = async {
            match self {
                Self::Idle => {
                    let mut stream = TcpStream::connect(address).await?;
                    drop(made);
                    stream.read_u8().await?;
                }
                Self::Encrypted => {
                    let mut stream = tls(address, trusting(trusted)).await?;
                    drop(made);
                    stream.read_u8().await?;
                }
                Self::Stalled => {
                    let mut stream = tls(address, trusting(trusted)).await?;
                    let head = format!(
                        "POST /mutate HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\n\
                         content-length: 131072\r\n\r\n{{"
                    );
                    stream.write_all(head.as_bytes()).await?;
                    drop(made);
                    stream.read_to_end(&mut Vec::new()).await?;
                }
                Self::Streams => {
                    let mut config = trusting(trusted);
                    config.alpn_protocols = vec![b"h2".to_vec()];
                    let stream = tls(address, config).await?;
                    let shaken = h2::client::handshake(stream).await;
                    let (mut sender, connection) = shaken.map_err(std::io::Error::other)?;
                    let driver = tokio::spawn(connection);
                    let mut bodies = Vec::new();
                    for _ in 0..STREAMS {
                        let request = hyper::Request::post(format!("https://{NAME}/mutate"))
                            .header("content-type", "application/json")
                            .header("content-length", "131072")
                            .body(())
                            .expect("a request");
                        sender = sender.ready().await.map_err(std::io::Error::other)?;
                        let sent = sender.send_request(request, false);
                        let (answer, mut body) = sent.map_err(std::io::Error::other)?;
                        let first = Bytes::from(vec![b'{'; 16 << 10]);
                        let _refused = body.send_data(first, false);
                        bodies.push((answer, body));
                    }
                    drop(made);
                    let _ended = driver.await;
                }
            }
            Ok(())
        }
        .await;
    }
}

/// Asks again and again while the attack lasts, on one connection until the server says goodbye, or on another each time; how long
/// each answer took.
async fn ask(address: SocketAddr, trusted: Arc<str>, lasts: Arc<()>, keeps: bool) -> Vec<Duration> {
    let review = Bytes::from(review_of("u", &fixture("client")).to_string());
    let connect = async || {
        let client = Client::try_connect(address, &trusted, Version::HTTP_2).await;
        client.expect("a connection")
    };
    let mut took = Vec::new();
    let mut client = connect().await;
    while Arc::strong_count(&lasts) > 2 {
        let begun = Instant::now();
        if !keeps || !client.is_open().await {
            client = connect().await;
        }
        let answer = match client.send(post("/mutate", review.clone())).await {
            // As the API server does.
            Err(error) if was_not_taken(&error) => {
                client = connect().await;
                client.send(post("/mutate", review.clone())).await
            }
            answer => answer,
        };
        let n = took.len();
        let answer = answer.unwrap_or_else(|error| panic!("the {n}th review: {error:?}"));
        assert_eq!(answer.status, 200, "the {n}th review");
        took.push(begun.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    took
}

/// Connections of the attack. Those with streams have sixteen each.
const ATTACKS: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_connections_hold_up_no_review_and_take_bounded_memory() {
    let folder = TempDir::new().expect("a folder");
    let trusted: Arc<str> = write_certificate(folder.path()).into();
    let program = Program::start(&folder);
    let address: SocketAddr = program.address.parse().expect("an address");
    let lasts = Arc::new(());
    let honest = [true, false].map(|keeps| {
        let (trusted, lasts) = (Arc::clone(&trusted), Arc::clone(&lasts));
        tokio::spawn(ask(address, trusted, lasts, keeps))
    });

    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut attacks = JoinSet::new();
    let kinds = [
        Attack::Idle,
        Attack::Encrypted,
        Attack::Stalled,
        Attack::Streams,
    ];
    for n in 0..ATTACKS {
        if honest.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        let made = Arc::clone(&room).acquire_owned().await.expect("room");
        let trusted = Arc::clone(&trusted);
        attacks.spawn(async move { kinds[n % 4].run(address, &trusted, made).await });
        while attacks.try_join_next().is_some() {}
    }
    drop(lasts);
    for (honest, how) in honest.into_iter().zip(["one connection", "one each"]) {
        let took = timeout(PATIENCE, honest).await;
        let took = took.expect("an answer in time");
        let mut took = took.expect("every review is answered");
        took.sort_unstable();
        let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        let count = took.len();
        eprintln!("{how}: {count} reviews, median {median:?}, slowest {slowest:?}");
    }
    attacks.shutdown().await;
    eprintln!("{} MiB at most", program.peak());
    assert!(program.peak() < 192, "{} MiB", program.peak());
}
