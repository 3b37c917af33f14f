//! The application inside a pod: a server, or a client that asks one a number of times.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use sidestep_kit::{app, exchange, load, pour};

/// The application of the demo's pods.
#[derive(Debug, Parser)]
enum Args {
    /// Answer HTTP requests.
    Serve {
        /// The name to answer with.
        #[arg(long)]
        pod: String,
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Ask for `/` and print each answer as a line of JSON.
    Get {
        /// The server.
        #[arg(long)]
        from: SocketAddr,
        /// How many times.
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// A connection for each request.
        #[arg(long)]
        close: bool,
    },
    /// Answer the bytes of every connection with the same bytes.
    Echo {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Count the bytes of every connection.
    Sink {
        /// The address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Send as many bytes to a sink as go through.
    Pour {
        /// The sink.
        #[arg(long)]
        into: SocketAddr,
        /// How long.
        #[arg(long, default_value_t = 1)]
        seconds: u64,
        /// Over how many connections at a time.
        #[arg(long, default_value_t = 1)]
        connections: u32,
    },
    /// Send bodies to an echo, and check every byte that comes back.
    Exchange {
        /// The server: of `echo`, or with --http of `serve`.
        #[arg(long)]
        with: SocketAddr,
        /// By HTTP.
        #[arg(long)]
        http: bool,
        /// A body's size.
        #[arg(long, default_value_t = 1 << 20)]
        bytes: usize,
        /// How many.
        #[arg(long, default_value_t = 1)]
        count: usize,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Args::parse() {
        Args::Serve { pod, listen } => app::serve(pod.leak(), listen).await,
        Args::Get { from, count, close } => load::get(from, count, close).await,
        Args::Echo { listen } => exchange::echo(listen).await,
        Args::Sink { listen } => pour::sink(listen).await,
        Args::Pour {
            into,
            seconds,
            connections,
        } => pour::pour(into, Duration::from_secs(seconds), connections).await,
        Args::Exchange {
            with,
            http: true,
            bytes,
            count,
        } => exchange::by_http(with, bytes, count).await,
        Args::Exchange {
            with, bytes, count, ..
        } => exchange::by_tcp(with, bytes, count).await,
    }
}
