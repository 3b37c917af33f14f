//! Connections: accepted, encrypted, bounded, drained.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use sidestep_runtime::{Heartbeat, Slots};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot::Receiver;
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::Limits;
use crate::metrics::Metrics;

/// Longer than the API server keeps idle connections (90 s): the side that closes first may lose a request on its way.
const IDLE: Duration = Duration::from_mins(2);

/// How often the loop that accepts connections goes round at least.
const BEAT: Duration = Duration::from_secs(1);

/// Bytes that one connection may send before the server reads them: a few reviews, not megabytes.
const WINDOW: u32 = 128 << 10;

/// Requests of one connection at a time. Of each the first frame (16 KiB) is in memory before there is room for its body. Who has
/// more makes another connection, as the API server does.
const STREAMS: u32 = 16;

/// How long a connection that makes room for another may take to say goodbye, and for the answers that it waits for.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How many may do so at a time.
const LEAVING: usize = 32;

/// The stages of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The server serves.
    Serve,
    /// The server serves, and asks HTTP/1.1 clients to close their connections: new clients may still be sent here.
    Leave,
    /// The server takes no further connection or request.
    Stop,
}

/// How a connection is served.
#[derive(Clone)]
pub struct Server {
    /// Answers requests.
    pub router: Router,
    /// Certificate and protocols.
    pub tls: Arc<ServerConfig>,
    /// How many connections, and how long they may be silent.
    pub limits: Limits,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// The stage to be in.
    pub phase: watch::Receiver<Phase>,
}

impl Server {
    /// Serves until the stage is the last one, then for at most `patience` more until the last request is answered. The loop
    /// that accepts connections beats `heartbeat`.
    pub async fn run(self, listener: TcpListener, patience: Duration, heartbeat: Heartbeat) {
        let slots = Slots::new(self.limits.connections);
        let leaving = Arc::new(Semaphore::new(LEAVING));
        let connections = GracefulShutdown::new();
        let mut phase = self.phase.clone();
        let mut beat = interval(BEAT);
        loop {
            heartbeat.beat();
            let stop = phase.wait_for(|phase| *phase == Phase::Stop);
            let accepted = tokio::select! {
                _ = stop => break,
                accepted = listener.accept() => accepted,
                _ = beat.tick() => continue,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely the process is out of file descriptors, until a connection closes.
                    tracing::warn!(%error, "could not accept a connection; will retry");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, watcher) = (self.clone(), connections.watcher());
            let (ended, leaving) = (slots.open(), Arc::clone(&leaving));
            tokio::spawn(async move {
                // Who stops the server waits for it.
                let _watched = watcher;
                let _open = server.metrics.connection();
                if let Err(error) = server.connection(stream, ended, &leaving).await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
            });
        }
        drop(listener);
        if timeout(patience, connections.shutdown()).await.is_err() {
            tracing::warn!("some connections did not end in time; closing them");
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        mut ended: Receiver<()>,
        leaving: &Semaphore,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let handshake = TlsAcceptor::from(self.tls).accept(stream);
        let stream = tokio::select! {
            stream = timeout(self.limits.handshake, handshake) => stream??,
            _ = &mut ended => return Err(made_room()),
        };
        let asked = Arc::new(AtomicBool::new(false));
        let mut phase = self.phase.clone();
        let (router, now, has_asked) = (self.router, self.phase, Arc::clone(&asked));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (router, now) = (router.clone(), now.clone());
            has_asked.store(true, Ordering::Relaxed);
            async move {
                let version = request.version();
                let response = router.oneshot(request).await;
                response.map(|response| farewell(response, version, *now.borrow()))
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .keep_alive_interval(Duration::from_secs(30));
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut connection = std::pin::pin!(connection);
        let silent = async {
            sleep(self.limits.handshake).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let stops = async { drop(phase.wait_for(|phase| *phase == Phase::Stop).await) };
        tokio::select! {
            ended = &mut connection => return ended.map_err(io::Error::other),
            () = silent => return Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")),
            () = stops => {
                connection.as_mut().graceful_shutdown();
                return connection.await.map_err(io::Error::other);
            }
            _ = ended => {}
        }
        // It is told which of its requests are taken, and waits for their answers; only so many do that at a time.
        if let Ok(_one_of_few) = leaving.try_acquire() {
            connection.as_mut().graceful_shutdown();
            let _in_time = timeout(LAST_WORDS, connection).await;
        }
        Err(made_room())
    }
}

fn made_room() -> io::Error {
    io::Error::other("it made room for another")
}

/// HTTP/2 says goodbye by itself.
fn farewell(mut response: Response, version: Version, phase: Phase) -> Response {
    if phase != Phase::Serve && version != Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Listens, and returns the address: the system may choose the port.
pub async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = sidestep_runtime::listen(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
