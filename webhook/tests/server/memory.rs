//! Whatever is sent at once, it is answered, and memory stays bounded.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use hyper::Version;
use sidestep_webhook::admission::review_of;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, post};
use crate::common::fixture;
use crate::under_test::write_certificate;

const PATIENCE: Duration = Duration::from_secs(30);

/// A review whose pod has an annotation of so many bytes.
fn review(bytes: usize) -> Bytes {
    let mut pod = fixture("client");
    pod["metadata"]["annotations"]["filler"] = "x".repeat(bytes).into();
    review_of("u", &pod).to_string().into()
}

/// The program, as it runs in a cluster.
pub(crate) struct Program {
    process: Child,
    pub(crate) address: String,
}

impl Program {
    pub(crate) fn start(folder: &TempDir) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_sidestep-webhook"))
            .args([
                "--no-cluster",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
            ])
            .arg(format!(
                "--tls-certificate={}",
                folder.path().join("tls.crt").display()
            ))
            .arg(format!(
                "--tls-key={}",
                folder.path().join("tls.key").display()
            ))
            .envs([("RUST_LOG", "info"), ("NO_COLOR", "1")])
            .stderr(Stdio::piped())
            .spawn();
        let mut process = process.expect("the program starts");
        let mut lines = BufReader::new(process.stderr.take().expect("its messages")).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("listening")));
        let line = line.expect("it says where it listens");
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("address="));
        let address = address.expect("an address").to_owned();
        Self { process, address }
    }

    /// The most that it ever had resident, in MiB.
    pub(crate) fn peak(&self) -> u64 {
        let file = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(file).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.expect("a line").trim().trim_end_matches(" kB");
        kib.parse::<u64>().expect("a number") >> 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The chart allows it 256 MiB. Half of it would be no more than a review's text, twice what the limits let it read at once,
/// and what becomes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reviews_of_megabytes_at_once_are_answered_in_bounded_memory() {
    let folder = TempDir::new().expect("a folder");
    let trusted = write_certificate(folder.path());
    let program = Program::start(&folder);
    let address = program.address.parse().expect("an address");
    let bodies = [review(3 << 20), review(10 << 20)];
    let mut clients = JoinSet::new();
    for n in 0..200 {
        let (trusted, body) = (trusted.clone(), bodies[n / 2 % 2].clone());
        let version = if n % 2 == 0 {
            Version::HTTP_11
        } else {
            Version::HTTP_2
        };
        clients.spawn(async move {
            let client = Client::try_connect(address, &trusted, version).await;
            let mut client = client.expect("a connection");
            let answer = client.send(post("/mutate", body));
            // An HTTP/1.1 client that still sends when time is up does not read the answer.
            let Ok(answer) = answer.await else {
                return 408;
            };
            // A refusal has no uid.
            let uid = if answer.status == 200 { "u" } else { "" };
            assert_eq!(answer.response()["uid"], uid);
            answer.status
        });
    }
    let mut accelerated = 0;
    while let Some(status) = timeout(PATIENCE, clients.join_next())
        .await
        .expect("answers")
    {
        match status.expect("every one is answered") {
            200 => accelerated += 1,
            // Too large; or there was no room in time, which leaves the pod to Istio.
            413 | 408 | 503 => {}
            status => panic!("{status}"),
        }
    }
    assert!(accelerated > 0);
    assert!(program.peak() < 128, "{} MiB", program.peak());
    let client = Client::try_connect(address, &trusted, Version::HTTP_2).await;
    let answer = client
        .expect("a connection")
        .mutate("u", &fixture("client"))
        .await;
    assert_eq!(answer.status, 200);
}
