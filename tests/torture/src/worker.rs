//! A process of a pod: listens, forwards and connects as it is told, one line of JSON for each order.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use sidestep_kit::actor::{Family, Kind, sys};

use super::{
    end::{Fault, WOKEN_EARLY, play},
    plan::{Side, plans},
    timing,
};

/// What a worker is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Plays the server's end of every connection here.
    Serve(SocketAddr),
    /// Connects every connection here to there, and carries bytes both ways.
    Forward(SocketAddr, SocketAddr),
    /// Plays the client's end of so many connections, from this number on, so many at a time.
    Drive {
        /// Where to.
        to: SocketAddr,
        /// The first connection's number.
        from: u64,
        /// How many.
        count: u64,
        /// How many at a time.
        at_a_time: u64,
        /// Whether calls may block.
        may_block: bool,
    },
    /// Sends every byte back, on every connection here.
    Echo(SocketAddr),
    /// Reads every connection here to its end, and then says so with a byte.
    Drain(SocketAddr),
    /// Sends so many messages of this size, one after the other was sent back; takes the time.
    Ping {
        /// Where to.
        to: SocketAddr,
        /// Bytes of a message.
        size: usize,
        /// How many messages.
        count: u64,
    },
    /// Sends so many messages of this size, and waits until all of them are read; takes the time.
    Pour {
        /// Where to.
        to: SocketAddr,
        /// Bytes of a message.
        size: usize,
        /// How many messages.
        count: u64,
    },
    /// Tells what went wrong since the last report, once all connections have ended.
    Report,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Ends played.
    pub ends: u64,
    /// Ends that got a wrong byte.
    pub corrupted: u64,
    /// Ends that did not get everything.
    pub lost: u64,
    /// Ends at which nothing moved any more.
    pub stuck: u64,
    /// How long it took, where time is taken, nanoseconds.
    #[serde(default)]
    pub nanoseconds: u64,
    /// Blocking reads that came back too early.
    pub woken_early: u64,
    /// What went wrong with each connection, the first few of them.
    pub faults: BTreeMap<u64, String>,
}

impl Report {
    /// Most faults that are kept.
    const KEPT: usize = 8;

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.ends += other.ends;
        self.corrupted += other.corrupted;
        self.lost += other.lost;
        self.stuck += other.stuck;
        self.woken_early += other.woken_early;
        for (connection, fault) in &other.faults {
            if self.faults.len() < Self::KEPT {
                self.faults.insert(*connection, fault.clone());
            }
        }
    }

    /// Whether everything arrived where it belongs.
    pub fn is_clean(&self) -> bool {
        self.corrupted + self.lost + self.stuck == 0
    }

    fn note(&mut self, connection: u64, side: Side, outcome: &Result<(), Fault>) {
        self.ends += 1;
        let Err(fault) = outcome else { return };
        match fault {
            Fault::Corrupted { .. } | Fault::TooMuch | Fault::SentAfterShutdown => {
                self.corrupted += 1;
            }
            Fault::Lost { .. } => self.lost += 1,
            Fault::Stuck { .. } => self.stuck += 1,
        }
        if self.faults.len() < Self::KEPT {
            self.faults
                .insert(connection, format!("{side:?}: {fault:?}"));
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    report: Mutex<Report>,
    open: AtomicU64,
}

/// Obeys orders on standard input until it ends; answers each with a line.
pub fn obey() -> io::Result<()> {
    let shared = Arc::new(Shared::default());
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let mut answer = Report::default();
        match order {
            Order::Serve(at) => serve(TcpListener::bind(at)?, &shared),
            Order::Forward(at, to) => forward(TcpListener::bind(at)?, to, &shared),
            Order::Drive {
                to,
                from,
                count,
                at_a_time,
                may_block,
            } => drive(to, from..from + count, at_a_time, may_block, &shared),
            Order::Echo(at) => accept(TcpListener::bind(at)?, |socket| {
                let _reset = timing::echo(socket);
            }),
            Order::Drain(at) => accept(TcpListener::bind(at)?, |socket| {
                let _reset = timing::drain(socket);
            }),
            Order::Ping { to, size, count } => answer.nanoseconds = timing::ping(to, size, count)?,
            Order::Pour { to, size, count } => answer.nanoseconds = timing::pour(to, size, count)?,
            Order::Report => {
                while shared.open.load(Ordering::SeqCst) > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                answer = std::mem::take(&mut *shared.report.lock().expect("no panic"));
                answer.woken_early = WOKEN_EARLY.swap(0, Ordering::Relaxed);
            }
        }
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn serve(listener: TcpListener, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    accept(listener, move |socket| {
        shared.open.fetch_add(1, Ordering::SeqCst);
        if let Some(number) = number_of(socket) {
            let connection = number & !NEVER_BLOCKS;
            let (client, mut server) = plans(connection);
            server.blocking &= number & NEVER_BLOCKS == 0;
            let outcome = play(socket, connection, Side::Server, &server, &client);
            let mut report = shared.report.lock().expect("no panic");
            report.note(connection, Side::Server, &outcome);
        }
        shared.open.fetch_sub(1, Ordering::SeqCst);
    });
}

/// In the number that a connection starts with: neither end blocks.
const NEVER_BLOCKS: u64 = 1 << 63;

/// Reads on where a blocking read comes back too early: see [`WOKEN_EARLY`].
struct Patient<'a>(&'a TcpStream);

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    WOKEN_EARLY.fetch_add(1, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
    }
}

/// A connection starts with its number. One that was reset before it got here has none.
fn number_of(socket: &TcpStream) -> Option<u64> {
    let mut number = [0; 8];
    Patient(socket).read_exact(&mut number).ok()?;
    Some(u64::from_ne_bytes(number))
}

fn forward(listener: TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    accept(listener, move |near| {
        shared.open.fetch_add(1, Ordering::SeqCst);
        match TcpStream::connect(to) {
            Ok(far) => thread::scope(|scope| {
                scope.spawn(|| carry(near, &far));
                carry(&far, near);
            }),
            // Then the client loses what it waits for, and says so.
            Err(error) => eprintln!("the chain to {to} is broken: {error}"),
        }
        shared.open.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Carries bytes one way, and their end.
fn carry(from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match Patient(from).read(&mut buffer) {
            Ok(0) => {
                // Whoever is there no longer needs no end.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    for socket in [from, to] {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn accept(listener: TcpListener, work: impl Fn(&TcpStream) + Send + Sync + 'static) {
    let work = Arc::new(work);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let work = Arc::clone(&work);
            thread::spawn(move || work(&socket));
        }
    });
}

fn drive(
    to: SocketAddr,
    connections: Range<u64>,
    at_a_time: u64,
    may_block: bool,
    shared: &Arc<Shared>,
) {
    let next = AtomicU64::new(connections.start);
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let connection = next.fetch_add(1, Ordering::SeqCst);
                    if connection >= connections.end {
                        return;
                    }
                    let outcome = connect(to, connection, may_block);
                    let mut report = shared.report.lock().expect("no panic");
                    report.note(connection, Side::Client, &outcome);
                }
            });
        }
    });
}

fn connect(to: SocketAddr, connection: u64, may_block: bool) -> Result<(), Fault> {
    let (mut client, server) = plans(connection);
    client.blocking &= may_block;
    let open = || -> io::Result<TcpStream> {
        let (mut socket, number) = if may_block {
            (TcpStream::connect(to)?, connection)
        } else {
            (connect_without_blocking(to)?, connection | NEVER_BLOCKS)
        };
        socket.set_nodelay(true)?;
        // There is room for it.
        socket.write_all(&number.to_ne_bytes())?;
        Ok(socket)
    };
    let socket = open().map_err(|error| Fault::Lost {
        at: 0,
        of: server.total(),
        why: format!("connect: {error}"),
    })?;
    play(&socket, connection, Side::Client, &client, &server)
}

fn connect_without_blocking(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let connected = sys::socket(family, Kind::Tcp).and_then(|socket| {
        sys::connect(socket.as_fd(), to, Duration::from_secs(20))?;
        Ok(TcpStream::from(socket))
    });
    connected.map_err(|errno| io::Error::from_raw_os_error(errno.0))
}
