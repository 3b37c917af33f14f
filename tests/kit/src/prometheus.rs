//! A real Prometheus in a network namespace: it scrapes what it is told to, evaluates the chart's alerts, and answers queries.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{monitoring::RULES, net::Namespace, parts, process::Running};

/// Where it listens, in its namespace.
const LISTENS: &str = "127.0.0.1:9090";

/// A running Prometheus; it ends when dropped.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    running: Running,
    folder: TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts one that scrapes these addresses every second, each under the name of its job.
    pub fn start(namespace: &'a Namespace, targets: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs: Vec<_> = targets
            .iter()
            .map(|(job, address)| json!({"job_name": job, "static_configs": [{"targets": [address]}]}))
            .collect();
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [parts::workspace().join(RULES)],
            "scrape_configs": jobs,
        });
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, configuration.to_string()).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = namespace.command(parts::program("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={LISTENS}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            namespace,
            running: Running::start(&mut command),
            folder,
        }
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.running.exited().is_some()
    }

    /// What a path of its API answers; nothing while it does not listen.
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = self.namespace.enter(|| {
            let mut stream = TcpStream::connect(LISTENS)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        });
        let answer = answer.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// The series that a query finds now; or, where it is none, what is wrong with it.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let path = format!("query?query={}", percent_encoded(expression));
        let answer = self.get(&path).ok_or("it does not answer")?;
        match answer["data"]["result"].as_array() {
            Some(found) if answer["status"] == "success" => Ok(found.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }
}

/// What `promtool check metrics` complains of in an exposition.
pub fn complaints(text: &str) -> String {
    let mut promtool = Command::new(parts::program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;

    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes it");
        }
    }
    encoded
}
