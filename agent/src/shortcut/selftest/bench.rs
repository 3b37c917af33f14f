//! What the checks use: the listeners, and the agent, who counts and switches for them.

use std::{
    io::{self, BufRead, Write},
    net::TcpListener,
};

use sidestep_ebpf_common::shortcut::Count;

use super::{Said, pair::Outcome};

/// What the checks use.
pub(super) struct Bench {
    /// Accepts as the proxy.
    pub(super) proxy: TcpListener,
    /// The same by IPv6, where there is any.
    pub(super) proxy6: Option<TcpListener>,
    /// Accepts as an application.
    pub(super) application: TcpListener,
}

/// Turns the shortcut on or off.
pub(super) fn switch(on: bool) -> Result<(), String> {
    ask(&Said::Switch(on)).map(drop)
}

/// How often something was counted so far.
pub(super) fn counted(count: Count) -> Result<u64, String> {
    ask(&Said::Counted(count as u32))
}

/// Does a part of a check, in which bytes must go past TCP: what TCP carries proves nothing.
pub(super) fn past_tcp<T>(part: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let before = counted(Count::Redirected)?;
    let done = part()?;
    if counted(Count::Redirected)? > before {
        Ok(done)
    } else {
        Err("all of it goes by TCP".to_owned())
    }
}

/// What the kernel said to an MPTCP listener in a sockhash, as an error's number.
pub(super) fn mptcp_answer() -> Result<u64, String> {
    ask(&Said::Mptcp)
}

pub(super) fn ask(question: &Said) -> Result<u64, String> {
    say(question)
        .and_then(|()| hear())
        .map_err(|e| format!("the agent does not answer: {e}"))
}

pub(super) fn say(what: &Said) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    writeln!(out)?;
    out.flush()
}

pub(super) fn hear() -> io::Result<u64> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    line.trim().parse().map_err(io::Error::other)
}
