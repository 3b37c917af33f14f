//! The process that the self-test puts into a cgroup of its own: it makes the network namespace, and is both ends of every
//! connection. Its capture listeners make it the proxy; its other listener is an application's.

use std::{
    io::{self, BufRead, Write},
    net::TcpListener,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use sidestep_ebpf_common::shortcut::Count;

use super::{Check, Proves, Said, checks};
use crate::{facts, sys};

/// The proxy's outbound port.
pub(super) const OUTBOUND: u16 = 15001;
/// The proxy's inbound port.
pub(super) const INBOUND: u16 = 15006;

/// What the checks use.
pub(super) struct Bench {
    /// Accepts as the proxy.
    pub(super) proxy: TcpListener,
    /// Accepts as an application.
    pub(super) application: TcpListener,
}

/// Does every check, and ends.
pub fn run() -> io::Result<()> {
    hear()?;
    // SAFETY: the process has one thread, and nothing of it depends on the network namespace it leaves.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    facts::bring_lo_up()?;
    say(&Said::Cookie(sys::netns_cookie()?))?;
    hear()?;
    let bench = Bench {
        proxy: TcpListener::bind(("127.0.0.1", INBOUND))?,
        application: TcpListener::bind(("127.0.0.1", 8080))?,
    };
    let mut into_application = None;
    for (name, proves, check) in checks::ALL {
        // Where it is not seen how applications read nothing is ever put into them.
        if proves == Proves::IntoApplication
            && !*into_application.get_or_insert_with(|| ask(&Said::Into).is_ok_and(|yes| yes == 1))
        {
            continue;
        }
        let failure = check(&bench).err();
        let check = Check {
            name: name.to_owned(),
            proves,
            failure,
        };
        say(&Said::Checked(check))?;
    }
    say(&Said::Done)
}

/// Turns the shortcut on or off.
pub(super) fn switch(on: bool) -> Result<(), String> {
    ask(&Said::Switch(on)).map(drop)
}

/// How often something was counted so far.
pub(super) fn counted(count: Count) -> Result<u64, String> {
    ask(&Said::Counted(count as u32))
}

/// What the kernel said to an MPTCP listener in a sockhash, as an error's number.
pub(super) fn mptcp_answer() -> Result<u64, String> {
    ask(&Said::Mptcp)
}

fn ask(question: &Said) -> Result<u64, String> {
    say(question)
        .and_then(|()| hear())
        .map_err(|e| format!("the agent does not answer: {e}"))
}

fn say(what: &Said) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    writeln!(out)?;
    out.flush()
}

fn hear() -> io::Result<u64> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    line.trim().parse().map_err(io::Error::other)
}
