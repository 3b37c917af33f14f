//! The calls of `sidestep connectivity-test` against its own servers on the loopback device, as two pods make them; and against
//! servers that are at fault, which each call must find.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidestep");

/// A MiB.
const BYTES: usize = 1 << 20;

/// What a pod runs.
struct Server {
    process: Child,
    ports: Value,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["connectivity-test", "serve", "--any-port", "--listen", "::"]);
        let mut process = command
            .env("HOSTNAME", "near")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        read.expect("it says where it listens");
        Self {
            process,
            ports: serde_json::from_str(&line).expect("JSON"),
        }
    }

    fn port(&self, name: &str) -> u64 {
        let port = self.ports[name].as_u64();
        port.unwrap_or_else(|| panic!("no port {name}: {}", self.ports))
    }

    /// Tells it to end, as kubelet does.
    fn end(mut self) -> ExitStatus {
        let mut kill = Command::new("kill");
        let killed = kill.arg(self.process.id().to_string()).status();
        assert!(killed.expect("kill starts").success());
        self.process.wait().expect("it is our child")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What came of a call.
#[track_caller]
fn called(call: &Value) -> Value {
    let mut command = Command::new(PROGRAM);
    command.args(["connectivity-test", "call", &call.to_string()]);
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{call}: {error}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

/// What was seen by a call that succeeds.
#[track_caller]
fn seen(call: &Value) -> Value {
    let made = called(call);
    let seen = &made["Ok"];
    assert!(seen["us"].as_u64() > Some(0), "{call}: {made}");
    seen.clone()
}

/// Why a call failed, which did not hang.
#[track_caller]
fn failed(call: &Value) -> String {
    let made = called(call);
    assert_eq!(made["Err"]["timed_out"], false, "{call}: {made}");
    let said = made["Err"]["said"].as_str().expect("a reason");
    said.to_owned()
}

fn to(call: &str, port: u64) -> Value {
    json!({"call": call, "host": "127.0.0.1", "port": port})
}

fn echo(port: u64, half_close: bool) -> Value {
    let mut call = to("echo", port);
    call["bytes"] = BYTES.into();
    call["half_close"] = half_close.into();
    call
}

fn many(port: u64) -> Value {
    let mut call = to("many", port);
    call["requests"] = 200.into();
    call["at_once"] = 16.into();
    call
}

/// A server that does this with each connection, until the test ends.
fn faulty(talk: impl Fn(TcpStream) + Send + 'static) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || listener.incoming().flatten().for_each(talk));
    port.into()
}

#[test]
fn every_call_is_answered_by_its_server() {
    let server = Server::start();
    for port in ["http", "grpc-unary", "http-strict"] {
        let seen = seen(&to("http", server.port(port)));
        assert_eq!(seen["answer"], json!({"pod": "near", "certificate": null}));
        seen_by_grpc(server.port(port));
    }
    let seen_by_many = seen(&many(server.port("http")));
    assert_eq!(seen_by_many["answer"]["pod"], "near");
    for half_close in [false, true] {
        seen(&echo(server.port("tcp-echo"), half_close));
    }
    // A socket for both families listens: the address is that of IPv4 all the same.
    let peer = seen(&to("peer", server.port("tcp-excluded")));
    assert_eq!(peer["peer"], peer["local"]);
    let peer = peer["peer"].as_str().expect("an address");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert!(server.end().success(), "it ends when it is told to");
}

fn seen_by_grpc(port: u64) {
    seen(&to("grpc", port));
}

#[test]
fn a_port_that_nobody_listens_on_is_seen_to_be_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    seen(&to("knock", port.into()));
    for call in ["http", "grpc", "peer"] {
        let why = failed(&to(call, port.into()));
        assert!(why.contains("connecting to 127.0.0.1"), "{call}: {why}");
    }
    // So a sidecar ends a connection that it has taken already.
    let ends = faulty(drop);
    seen(&to("knock", ends));
    let answers = faulty(|mut stream| {
        let _closed = stream.write_all(b"hello");
    });
    let why = failed(&to("knock", answers));
    assert!(why.contains("somebody answers"), "{why}");
}

#[test]
fn a_closed_port_that_hangs_is_seen_to_hang() {
    let hangs = faulty(std::mem::forget);
    let made = called(&to("knock", hangs));
    assert_eq!(made["Err"]["timed_out"], true, "{made}");
}

#[test]
fn a_byte_that_is_lost_or_changed_is_found() {
    let answers = |change: fn(&mut Vec<u8>)| {
        faulty(move |mut stream| {
            let mut bytes = vec![0; BYTES];
            if stream.read_exact(&mut bytes).is_ok() {
                change(&mut bytes);
                let _closed = stream.write_all(&bytes);
            }
        })
    };
    let why = failed(&echo(answers(|bytes| bytes[700_000] ^= 1), false));
    assert!(why.contains("byte 700000 of 1048576"), "{why}");
    let why = failed(&echo(answers(|bytes| bytes.swap(9, 500_000)), false));
    assert!(why.contains("byte 9 of"), "{why}");
    let lost = answers(|bytes| {
        bytes.pop();
    });
    let why = failed(&echo(lost, false));
    assert!(why.contains("after 1048575 of 1048576 bytes"), "{why}");
    // The bytes are right, but the other side never sees the end, or saw it too early.
    let why = failed(&echo(answers(|_| {}), true));
    assert!(why.contains("the server did not see the end"), "{why}");
    let short = answers(|bytes| bytes.extend(7_u64.to_be_bytes()));
    let why = failed(&echo(short, true));
    assert!(why.contains("the server got 7 of 1048576 bytes"), "{why}");
}

/// Answers each request of HTTP/1.1 like this.
fn answers(answer: impl Fn(usize) -> String + Send + 'static) -> u64 {
    let count = std::sync::atomic::AtomicUsize::new(0);
    faulty(move |mut stream| {
        let mut request = [0; 1024];
        let _read = stream.read(&mut request);
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let _closed = stream.write_all(answer(number).as_bytes());
    })
}

fn pod(name: &str) -> String {
    let body = json!({"pod": name, "certificate": "By=x"}).to_string();
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn unavailable() -> String {
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 19\r\nconnection: close\r\n\r\nno healthy upstream".to_owned()
}

#[test]
fn what_a_proxy_answers_in_place_of_the_server_is_told() {
    let seen = seen(&to("http", answers(|_| pod("far"))));
    assert_eq!(seen["answer"], json!({"pod": "far", "certificate": "By=x"}));
    let why = failed(&to("http", answers(|_| unavailable())));
    assert!(
        why.contains("503") && why.contains("no healthy upstream"),
        "{why}"
    );
    let why = failed(&to("http", faulty(drop)));
    assert!(!why.is_empty());
    // It does not speak HTTP/2.
    failed(&to("grpc", answers(|_| unavailable())));
}

#[test]
fn one_request_of_many_that_fails_is_found_and_so_is_another_pod() {
    let one_fails = answers(|n| if n == 150 { unavailable() } else { pod("near") });
    let why = failed(&many(one_fails));
    assert!(
        why.starts_with("1 of 200 requests failed; the first: "),
        "{why}"
    );
    let two_pods = answers(|n| pod(if n == 150 { "far" } else { "near" }));
    let why = failed(&many(two_pods));
    assert!(why.contains("both pod near and pod far answered"), "{why}");
}

#[test]
fn what_is_no_call_is_refused() {
    let mut command = Command::new(PROGRAM);
    command.args(["connectivity-test", "call", "{\"call\": \"dance\"}"]);
    let output = command.output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("dance"), "{error}");
}

#[test]
fn help_does_not_speak_of_what_runs_in_pods() {
    let mut command = Command::new(PROGRAM);
    let output = command.args(["connectivity-test", "--help"]).output();
    let help = output.expect("it starts").stdout;
    let help = String::from_utf8(help).expect("text");
    assert!(help.contains("--keep"), "{help}");
    for hidden in ["Commands:", "--any-port", "[COMMAND]"] {
        let is_told = help.lines().any(|line| line.contains(hidden));
        assert!(!is_told, "{hidden}: {help}");
    }
}
