//! The application inside a pod: a server, or a client that asks one a number of times.

use std::net::SocketAddr;

use clap::Parser;
use sidestep_kit::{app, load};

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
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Args::parse() {
        Args::Serve { pod, listen } => app::serve(pod.leak(), listen).await,
        Args::Get { from, count, close } => load::get(from, count, close).await,
    }
}
