//! What a test's pod runs: a server of each kind, on the ports of [`Port`].

mod http;
mod tcp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ports::Port;

/// After a connection could not be taken, as where there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers the calls of a connectivity test, until it is told to end.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "::")]
    listen: IpAddr,

    /// Listen on ports that the kernel chooses, instead of the test's own
    #[arg(long)]
    any_port: bool,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { listen, any_port } = self;
        // A container's first process has no default of what a signal does.
        let mut told = signal(SignalKind::terminate())?;
        let pod = std::env::var("HOSTNAME").unwrap_or_default();
        let pod: Arc<str> = pod.into();
        let mut servers = JoinSet::new();
        let mut ports = Map::new();
        for port in Port::ALL {
            let number = if any_port { 0 } else { port.number() };
            let listener = listener(listen, number).await?;
            let at = listener.local_addr()?.port();
            ports.insert(port.name().to_owned(), at.into());
            servers.spawn(serve(listener, port, Arc::clone(&pod)));
        }
        println!("{}", Value::Object(ports));
        told.recv().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where IPv6 is off, the address of all means those of IPv4.
async fn listener(address: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((address, port)).await;
    let listener = match listener {
        Err(_) if address.is_ipv6() && address.is_unspecified() => {
            TcpListener::bind(("0.0.0.0", port)).await
        }
        listener => listener,
    };
    listener.with_context(|| format!("listening on port {port} of {address}"))
}

async fn serve(listener: TcpListener, port: Port, pod: Arc<str>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // A caller that goes away is nobody's concern.
                let _ends_by_itself =
                    tokio::spawn(talk(stream, port, canonical(from), Arc::clone(&pod)));
            }
            Err(error) => {
                eprintln!("sidestep: port {}: {error}", port.name());
                sleep(PAUSE).await;
            }
        }
    }
}

async fn talk(stream: TcpStream, port: Port, from: SocketAddr, pod: Arc<str>) -> io::Result<()> {
    match port {
        Port::Http | Port::Grpc | Port::Strict => {
            http::talk(stream, pod).await;
            Ok(())
        }
        Port::Echo => tcp::echo(stream).await,
        Port::Excluded => tcp::tell(stream, from).await,
    }
}

/// A socket for both families sees addresses of IPv4 in those of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
