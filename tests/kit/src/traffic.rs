//! Kinds of load on a server, and the programs that make it: `wrk`, `h2load`, and our own `pour`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use tempfile::NamedTempFile;

use crate::{
    app::GRPC_PATH,
    binary,
    load::{self, Measured},
    pour,
};

/// What a load generator does.
#[derive(Debug, Clone)]
pub struct Load {
    /// Connections at a time.
    pub connections: u32,
    /// What goes over each.
    pub traffic: Traffic,
    /// How long, in whole seconds.
    pub duration: Duration,
    /// What to ask for, where the traffic is HTTP.
    pub path: String,
}

/// What goes over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP/1.1, one request after the other.
    Http,
    /// HTTP/1.1, one request.
    HttpOnce,
    /// HTTP/2 by prior knowledge, so many requests at a time.
    Http2 {
        /// Streams.
        streams: u32,
    },
    /// Unary calls of gRPC, so many at a time; they have a path of their own.
    Grpc {
        /// Streams.
        streams: u32,
    },
    /// Bytes of plain TCP, in one direction. A request is a MiB.
    Stream,
}

/// A program to run, and what it reads.
#[derive(Debug)]
pub struct Generator {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The body of each call: a file that goes when this does.
    _body: Option<NamedTempFile>,
}

impl Load {
    /// The program that loads a server at this address.
    pub fn generator(&self, server: SocketAddr) -> anyhow::Result<Generator> {
        let seconds = self.duration.as_secs().max(1);
        let connections = self.connections;
        let url = |path: &str| format!("http://{server}{path}");
        let h2load = |streams: u32| {
            words(&format!(
                "--threads=1 --clients={connections} --max-concurrent-streams={streams} --duration={seconds}"
            ))
        };
        let (program, arguments, body) = match self.traffic {
            Traffic::Http | Traffic::HttpOnce => {
                let mut arguments = words(&format!(
                    "--threads 1 --timeout 10s --connections {connections} --duration {seconds}s"
                ));
                if self.traffic == Traffic::HttpOnce {
                    arguments.extend(["--header", "Connection: close"].map(str::to_owned));
                }
                arguments.push(url(&self.path));
                (load::tool("wrk")?, arguments, None)
            }
            Traffic::Http2 { streams } => {
                let mut arguments = h2load(streams);
                arguments.push(url(&self.path));
                (load::tool("h2load")?, arguments, None)
            }
            Traffic::Grpc { streams } => {
                let message = empty_message()?;
                let mut arguments = h2load(streams);
                arguments.push(format!("--data={}", message.path().display()));
                let headers = ["content-type: application/grpc", "te: trailers"];
                arguments.extend(headers.map(|header| format!("--header={header}")));
                arguments.push(url(GRPC_PATH));
                (load::tool("h2load")?, arguments, Some(message))
            }
            Traffic::Stream => {
                let arguments = words(&format!(
                    "pour --into {server} --seconds {seconds} --connections {connections}"
                ));
                (binary("sidestep-app"), arguments, None)
            }
        };
        Ok(Generator {
            program,
            arguments,
            _body: body,
        })
    }

    /// Reads what the generator printed.
    pub fn measured(&self, output: &str) -> anyhow::Result<Measured> {
        match self.traffic {
            Traffic::Http | Traffic::HttpOnce => Measured::of_wrk(output),
            Traffic::Http2 { .. } | Traffic::Grpc { .. } => of_h2load(output),
            Traffic::Stream => pour::read(output),
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A call's body: a message of gRPC without a field. Whoever the generator runs as may read it.
fn empty_message() -> anyhow::Result<NamedTempFile> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let mut file = NamedTempFile::new()?;
    file.write_all(&[0; 5])?;
    file.as_file()
        .set_permissions(PermissionsExt::from_mode(0o644))?;
    Ok(file)
}

/// Reads what `h2load` printed.
fn of_h2load(output: &str) -> anyhow::Result<Measured> {
    // In a line that begins so, what stands before this unit.
    let find = |line: &str, unit: &str| {
        let line = output.lines().find_map(|one| one.strip_prefix(line));
        let found = line.and_then(|line| line.split(", ").find_map(|part| part.strip_suffix(unit)));
        found.with_context(|| format!("h2load did not print {line:?} with {unit:?}:\n{output}"))
    };
    Ok(Measured {
        requests: find("requests: ", " succeeded")?.parse()?,
        rate: find("finished in ", " req/s")?.parse()?,
        errors: find("requests: ", " failed")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::of_h2load;

    #[test]
    fn h2load_tells_rate_and_errors() {
        let output = "starting benchmark...\n\nfinished in 1.00s, 2345.50 req/s, 1.20MB/s\n\
            requests: 2349 total, 2350 started, 2346 done, 2345 succeeded, 1 failed, 1 errored, 0 timeout\n\
            status codes: 2345 2xx, 0 3xx, 0 4xx, 1 5xx\n";
        let measured = of_h2load(output).expect("it is complete");
        assert_eq!((measured.requests, measured.errors), (2345, 1));
        assert!((measured.rate - 2345.5).abs() < 1e-6);
        assert!(of_h2load("could not connect").is_err());
    }
}
