//! The program itself.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::under_test::write_certificate;

struct Program(Child);

impl Program {
    fn start(folder: &TempDir, args: &[&str]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_sidestep-webhook"))
            .args([
                "--no-cluster",
                "--listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--shutdown-delay=0",
            ])
            .arg("--tls-certificate")
            .arg(folder.path().join("tls.crt"))
            .arg("--tls-key")
            .arg(folder.path().join("tls.key"))
            .args(args)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn();
        Self(program.expect("the program starts"))
    }

    /// What it says, line by line. Without a reader it could say nothing any more.
    fn messages(&mut self) -> Lines<BufReader<ChildStderr>> {
        BufReader::new(self.0.stderr.take().expect("its messages")).lines()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn admin_address(lines: &mut Lines<BufReader<ChildStderr>>) -> String {
    let listening = lines
        .find_map(|line| line.ok().filter(|line| line.contains("listening")))
        .expect("it says where it listens");
    let (_, address) = listening.split_once("admin_address=").expect("an address");
    address.to_owned()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin port");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn it_answers_probes_and_metrics_and_ends_cleanly_on_sigterm() {
    let folder = TempDir::new().expect("a folder");
    write_certificate(folder.path());
    let mut program = Program::start(&folder, &[]);
    let mut lines = program.messages();
    let address = &admin_address(&mut lines);
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").contains("sidestep_webhook_connections 0"));
    let pid = i32::try_from(program.0.id()).expect("a pid");
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::TERM).expect("a signal");
    let ended = program.0.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
}

#[test]
fn connections_held_open_at_the_admin_port_keep_no_probe_out() {
    let folder = TempDir::new().expect("a folder");
    write_certificate(folder.path());
    let mut program = Program::start(&folder, &[]);
    let mut lines = program.messages();
    let address = admin_address(&mut lines);
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(&address).expect("the admin port");
        stream.write_all(b"GET /li").expect("a request's start");
        held.push(stream);
    }
    assert!(get(&address, "/livez").starts_with("HTTP/1.1 200"));
    // The oldest were ended: reading tells.
    let mut oldest = held.swap_remove(0);
    let _reset = oldest.read_to_end(&mut Vec::new());
    let descriptors = format!("/proc/{}/fd", program.0.id());
    let open = std::fs::read_dir(descriptors).expect("a process").count();
    assert!(open < 150, "{open} descriptors");
    drop(held);
}

#[test]
fn without_a_certificate_it_says_which_file_is_missing() {
    let folder = TempDir::new().expect("a folder");
    let mut program = Program::start(&folder, &[]);
    let mut said = String::new();
    let mut messages = program.0.stderr.take().expect("its messages");
    messages.read_to_string(&mut said).expect("text");
    assert!(said.contains("tls.crt: No such file"), "{said}");
    assert!(!program.0.wait().expect("it ends").success());
}

#[test]
fn certificates_of_its_own_need_an_api_server() {
    let folder = TempDir::new().expect("a folder");
    let mut program = Program::start(&folder, &["--certificates=managed"]);
    let mut said = String::new();
    let mut messages = program.0.stderr.take().expect("its messages");
    messages.read_to_string(&mut said).expect("text");
    assert!(said.contains("use --certificates files"), "{said}");
    assert!(!program.0.wait().expect("it ends").success());
}

#[test]
fn an_argument_that_means_nothing_is_refused() {
    let folder = TempDir::new().expect("a folder");
    for (arg, message) in [
        ("--shortcut=far", "expected off, pod, namespace or node"),
        ("--enrolment=maybe", "expected opt-out, opt-in or none"),
        ("--probe-timeout=0", "0 is not in 1..=86400"),
        ("--certificates=somehow", "possible values: files, managed"),
        ("--certificate-lifetime=59", "59 is not in 60..=315360000"),
        ("--nonsense", "unexpected argument"),
    ] {
        let mut program = Program::start(&folder, &[arg]);
        let mut said = String::new();
        let mut messages = program.0.stderr.take().expect("its messages");
        messages.read_to_string(&mut said).expect("text");
        assert!(said.contains(message), "{said}");
        assert_eq!(program.0.wait().expect("it ends").code(), Some(2));
    }
}
