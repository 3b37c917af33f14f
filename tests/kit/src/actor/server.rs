//! What an actor does in the background: servers that tell what they saw, and clients that count what they got.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    protocol::{Errno, Family, Kind, Load, Report},
    sys,
};

/// Long enough for a busy machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(10);
const FOREVER: Duration = Duration::from_hours(1);

/// Serves a listener, or a bound UDP socket, until it is shut down.
pub fn serve(socket: Arc<OwnedFd>, name: String) {
    if option_i32(socket.as_fd(), libc::SO_TYPE) == Ok(libc::SOCK_DGRAM) {
        thread::spawn(move || answer_datagrams(socket.as_fd(), &name));
    } else {
        thread::spawn(move || {
            while let Ok((connection, _)) = sys::accept(socket.as_fd(), FOREVER) {
                let name = name.clone();
                thread::spawn(move || answer_connection(connection.as_fd(), &name));
            }
        });
    }
}

fn answer_datagrams(socket: BorrowedFd<'_>, name: &str) {
    let mut buffer = [0; 2048];
    while let Ok((_, peer)) = sys::receive(socket, &mut buffer, FOREVER) {
        let Some(peer) = peer else { continue };
        let report = Report {
            name: name.to_owned(),
            peer,
            local: sys::socket_name(socket).unwrap_or(peer),
            original: Err(Errno(libc::ENOPROTOOPT)),
        };
        if let Err(errno) = sys::send(socket, &line(&report), Some(peer)) {
            eprintln!("{name}: no answer to {peer}: {errno}");
        }
    }
}

fn answer_connection(socket: BorrowedFd<'_>, name: &str) {
    let Ok(report) = report(socket, name) else {
        return;
    };
    let mut data = line(&report);
    let mut buffer = [0; 16 * 1024];
    while sys::send(socket, &data, None).is_ok() {
        match sys::receive(socket, &mut buffer, FOREVER) {
            Ok((count @ 1.., _)) => data = buffer[..count].to_vec(),
            _ => return,
        }
    }
}

fn report(socket: BorrowedFd<'_>, name: &str) -> Result<Report, Errno> {
    let local = sys::socket_name(socket)?;
    let family = match local {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => Family::V6,
        _ => Family::V4,
    };
    Ok(Report {
        name: name.to_owned(),
        peer: sys::peer_name(socket)?,
        local,
        original: sys::original_destination(socket, family),
    })
}

fn line(report: &Report) -> Vec<u8> {
    let mut line = serde_json::to_vec(report).expect("a report is JSON");
    line.push(b'\n');
    line
}

fn option_i32(socket: BorrowedFd<'_>, name: i32) -> Result<i32, Errno> {
    let mut value = [0; 4];
    sys::option(socket, libc::SOL_SOCKET, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// Connects, and reads the report of the server.
fn open(address: SocketAddr) -> Result<(OwnedFd, Report), String> {
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let socket = sys::socket(family, Kind::Tcp).map_err(|errno| format!("socket: {errno}"))?;
    sys::connect(socket.as_fd(), address, PATIENCE).map_err(|errno| format!("connect: {errno}"))?;
    let mut buffer = [0; 2048];
    let (count, _) = sys::receive(socket.as_fd(), &mut buffer, PATIENCE)
        .map_err(|errno| format!("report: {errno}"))?;
    let report: Report =
        serde_json::from_slice(&buffer[..count]).map_err(|error| format!("report: {error}"))?;
    let peer = sys::peer_name(socket.as_fd()).map_err(|errno| format!("getpeername: {errno}"))?;
    if peer != address {
        return Err(format!("getpeername gives {peer} for {address}"));
    }
    match report.original {
        Ok(original) if original != address => {
            Err(format!("original destination {original} for {address}"))
        }
        _ => Ok((socket, report)),
    }
}

fn exchange(socket: BorrowedFd<'_>) -> Result<(), String> {
    sys::send(socket, b"ping", None).map_err(|errno| format!("send: {errno}"))?;
    let mut buffer = [0; 16];
    match sys::receive(socket, &mut buffer, PATIENCE) {
        Ok((4, _)) => Ok(()),
        Ok((count, _)) => Err(format!("{count} bytes of echo")),
        Err(errno) => Err(format!("echo: {errno}")),
    }
}

/// Opens and closes connections one after the other. They end in a reset, so that no port stays in `TIME_WAIT`.
pub fn connect_many(addresses: &[SocketAddr], count: u32) -> Load {
    let mut load = Load::default();
    for address in addresses.iter().cycle().take(count as usize) {
        let opened = open(*address).and_then(|(socket, report)| {
            sys::reset_on_close(socket.as_fd()).map_err(|errno| format!("reset: {errno}"))?;
            Ok(report)
        });
        load.count(opened.map(|report| report.name));
    }
    load
}

/// Workers that send requests until stopped.
#[derive(Debug)]
pub struct Workers {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Load>>,
}

impl Workers {
    /// Starts them; `fresh` workers make a connection per request, `kept` workers keep theirs.
    pub fn start(address: SocketAddr, fresh: u32, kept: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for _ in 0..fresh {
            let stop = Arc::clone(&stop);
            workers.push(thread::spawn(move || request_afresh(address, &stop)));
        }
        for _ in 0..kept {
            let stop = Arc::clone(&stop);
            workers.push(thread::spawn(move || request_on_one(address, &stop)));
        }
        Self { stop, workers }
    }

    /// Stops them and adds up what they saw.
    pub fn stop(self) -> Load {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Load::default();
        for worker in self.workers {
            total.add(worker.join().expect("a worker does not panic"));
        }
        total
    }
}

fn request_afresh(address: SocketAddr, stop: &AtomicBool) -> Load {
    let mut load = Load::default();
    while !stop.load(Ordering::Relaxed) {
        load.count(open(address).and_then(|(socket, report)| {
            exchange(socket.as_fd())?;
            Ok(report.name)
        }));
        // Keeps the rate below what TIME_WAIT leaves of the port range.
        thread::sleep(Duration::from_millis(1));
    }
    load
}

fn request_on_one(address: SocketAddr, stop: &AtomicBool) -> Load {
    let mut load = Load::default();
    match open(address) {
        Err(error) => load.count(Err(error)),
        Ok((socket, report)) => {
            while !stop.load(Ordering::Relaxed) {
                let exchanged = exchange(socket.as_fd());
                let broken = exchanged.is_err();
                load.count(exchanged.map(|()| report.name.clone()));
                if broken {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    load
}

impl Load {
    fn count(&mut self, outcome: Result<String, String>) {
        let counter = match outcome {
            Ok(name) => self.answered.entry(name),
            Err(error) => self.failed.entry(error),
        };
        *counter.or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (name, count) in other.answered {
            *self.answered.entry(name).or_default() += count;
        }
        for (error, count) in other.failed {
            *self.failed.entry(error).or_default() += count;
        }
    }
}
