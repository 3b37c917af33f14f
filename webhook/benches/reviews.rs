//! How many reviews of a real injected pod a second of one core answers, how fast at 500 a second, and in how much memory.
//! Prints a table, and fails where a goal is missed: `cargo bench -p sidestep-webhook`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidestep_contract::documents::documents;
use sidestep_webhook::admission::review_of;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;

const NAME: &str = "webhook.test";
const REVIEWS: u32 = 100_000;
const PACED: u32 = 5_000;
const CLIENTS: u32 = 8;

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Server {
    /// With one worker thread, so that it is one core's work that is measured.
    fn start(folder: &TempDir) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_sidestep-webhook"))
            .args([
                "--no-cluster",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
            ])
            .arg("--tls-certificate")
            .arg(folder.path().join("tls.crt"))
            .arg("--tls-key")
            .arg(folder.path().join("tls.key"))
            .envs([
                ("TOKIO_WORKER_THREADS", "1"),
                ("NO_COLOR", "1"),
                ("RUST_LOG", "info"),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("its messages")).lines();
        let line = lines
            .find_map(|line| line.ok().filter(|line| line.contains("listening")))
            .expect("it says where it listens");
        let mut words = line.split_whitespace();
        let address = words.find_map(|word| word.strip_prefix("address="));
        Self {
            process,
            address: address.expect("an address").to_owned(),
        }
    }

    /// User and system time so far.
    fn cpu(&self) -> Duration {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("a process");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number"));
        // Linux' USER_HZ is 100 on every architecture that matters.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn resident_mib(&self) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a line");
        let kib = line
            .trim()
            .trim_end_matches(" kB")
            .parse::<u32>()
            .expect("a number");
        f64::from(kib) / 1024.0
    }

    async fn connect(&self, certificate: &[u8]) -> SendRequest<Full<Bytes>> {
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::from_pem_slice(certificate).expect("a certificate");
        roots.add(trusted).expect("a certificate to trust");
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(&self.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let stream = TokioIo::new(stream.expect("TLS"));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, body: &Bytes) {
    let request = Request::post(format!("https://{NAME}/mutate"))
        .header("content-type", "application/json")
        .body(Full::new(body.clone()))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

fn review() -> Bytes {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/client/pod.yaml"
    );
    let text = fs::read_to_string(file).expect("a fixture");
    let documents = documents(&text).expect("YAML");
    review_of("705ab4f5-6393-11e8-b7cc-42010a800002", &documents[0].value)
        .to_string()
        .into()
}

#[tokio::main]
async fn main() -> ExitCode {
    sidestep_webhook::tls::install_provider();
    let folder = TempDir::new().expect("a folder");
    let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
        generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    fs::write(folder.path().join("tls.crt"), cert.pem()).expect("a file");
    fs::write(folder.path().join("tls.key"), signing_key.serialize_pem()).expect("a file");
    let server = Server::start(&folder);
    let certificate = cert.pem().into_bytes();
    let body = review();
    eprintln!(
        "{REVIEWS} reviews of {} bytes, {CLIENTS} connections",
        body.len()
    );

    let (begun, cpu) = (Instant::now(), server.cpu());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (mut sender, body) = (server.connect(&certificate).await, body.clone());
        clients.push(tokio::spawn(async move {
            for _ in 0..REVIEWS / CLIENTS {
                ask(&mut sender, &body).await;
            }
        }));
    }
    for client in clients {
        client.await.expect("no request is lost");
    }
    let wall = begun.elapsed().as_secs_f64();
    let cpu = server.cpu().saturating_sub(cpu).as_secs_f64();
    let memory = server.resident_mib();

    let mut sender = server.connect(&certificate).await;
    let mut tick = interval(Duration::from_millis(2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut took = Vec::new();
    for _ in 0..PACED {
        let due = tick.tick().await;
        ask(&mut sender, &body).await;
        took.push(due.elapsed());
    }
    took.sort();
    let at = |part: usize| took[took.len() * part / 100 - 1].as_secs_f64() * 1000.0;

    let rows = [
        (
            "reviews per second of one core",
            f64::from(REVIEWS) / cpu,
            3000.0,
            true,
        ),
        (
            "reviews per second, as seen",
            f64::from(REVIEWS) / wall,
            0.0,
            true,
        ),
        ("ms at 500/s, median", at(50), f64::INFINITY, false),
        ("ms at 500/s, p99", at(99), 5.0, false),
        ("MiB resident after them", memory, 25.0, false),
    ];
    let mut missed = false;
    for (what, value, goal, at_least) in rows {
        let good = if at_least {
            value >= goal
        } else {
            value <= goal
        };
        missed |= !good;
        let goal = if goal > 0.0 && goal.is_finite() {
            format!("{} {goal}", if at_least { "≥" } else { "≤" })
        } else {
            String::new()
        };
        println!(
            "{what:<34}{value:>12.2}   {goal:<8}{}",
            if good { "" } else { "MISSED" }
        );
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
