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

use crate::client::{Client, tls, trusting};
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

/// Asks again and again while the attack lasts, on a connection of its own each time; how long each answer took.
async fn ask(address: SocketAddr, trusted: Arc<str>, lasts: Arc<()>) -> Vec<Duration> {
    let review = Bytes::from(review_of("u", &fixture("client")).to_string());
    let mut took = Vec::new();
    while Arc::strong_count(&lasts) > 1 {
        let begun = Instant::now();
        let client = Client::try_connect(address, &trusted, Version::HTTP_2).await;
        let answer = client
            .expect("a connection")
            .post("/mutate", review.clone())
            .await;
        assert_eq!(answer.status, 200, "the {}th review", took.len());
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
    let honest = tokio::spawn(ask(address, Arc::clone(&trusted), Arc::clone(&lasts)));

    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut attacks = JoinSet::new();
    let kinds = [
        Attack::Idle,
        Attack::Encrypted,
        Attack::Stalled,
        Attack::Streams,
    ];
    for n in 0..ATTACKS {
        assert!(
            !honest.is_finished(),
            "a review was not answered: {:?}",
            honest.await
        );
        let made = Arc::clone(&room).acquire_owned().await.expect("room");
        let trusted = Arc::clone(&trusted);
        attacks.spawn(async move { kinds[n % 4].run(address, &trusted, made).await });
        while attacks.try_join_next().is_some() {}
    }
    drop(lasts);
    let mut took = timeout(PATIENCE, honest)
        .await
        .expect("every review is answered in time")
        .expect("every review is answered");
    attacks.shutdown().await;
    took.sort_unstable();
    eprintln!(
        "{} reviews: median {:?}, slowest {:?}; {} MiB at most",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1],
        program.peak()
    );
    assert!(program.peak() < 192, "{} MiB", program.peak());
}
