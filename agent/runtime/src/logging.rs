//! Logs go to standard error; `RUST_LOG` says how much, `info` unless set.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts to log. To be called once, first thing in `main`.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
