//! The probe's child: in a cgroup of the pods', in a network namespace of its own, it listens, calls, and says what came of
//! it.

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::net::{AddressFamily, SocketType, bind, listen as start, socket, sockopt};
use sidestep_kernel::process::enter_new_netns;

use super::word;
use crate::{cgroup, sandbox::facts};

/// After this long it ends, whatever it waits for.
const LIFE: Duration = Duration::from_secs(10);
/// Everything here is on one machine's loopback device.
const PATIENCE: Duration = Duration::from_secs(2);
/// A global address, so that IPv6 is captured (RFC 3849's prefix is nobody's).
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51de, 0, 0, 0, 0, 1);
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const DNS: u16 = 15053;

/// Runs it.
pub fn run(cgroup: &Path) -> anyhow::Result<()> {
    thread::spawn(|| {
        thread::sleep(LIFE);
        std::process::exit(1);
    });
    let done = work(cgroup);
    if let Err(error) = &done {
        say(&format!("{error:#}"))?;
    }
    done
}

fn work(own: &Path) -> anyhow::Result<()> {
    cgroup::join(own, std::process::id())?;
    enter_new_netns().context("making a network namespace")?;
    let v6 = facts::raise_loopback(OWN6).context("raising the loopback device")?;
    say(word::READY)?;

    let mut lines = io::stdin().lock().lines();
    let mut next = || lines.next().unwrap_or_else(|| Ok(String::new()));
    ensure!(next()? == word::LISTEN, "unexpected word");
    let v4 = Family::listen([127, 0, 0, 1].into(), [0, 0, 0, 0].into())?;
    let v6 = if v6 {
        Some(Family::listen(
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::UNSPECIFIED.into(),
        )?)
    } else {
        None
    };
    say(word::DONE)?;

    ensure!(next()? == word::AS_PROXY, "unexpected word");
    v4.calls_itself("connect4", "127.0.0.2:9".parse()?)?;
    say(word::DONE)?;

    ensure!(next()? == word::AS_APPLICATION, "unexpected word");
    v4.calls(["connect4", "getpeername4"], "192.0.2.1:80".parse()?)?;
    v4.asks(["sendmsg4", "recvmsg4"], "192.0.2.53:53".parse()?)?;
    if let Some(v6) = &v6 {
        v6.calls(["connect6", "getpeername6"], "[2001:db8::1]:80".parse()?)?;
        v6.asks(["sendmsg6", "recvmsg6"], "[2001:db8::53]:53".parse()?)?;
    }
    say(word::DONE)
}

fn say(word: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", word.replace('\n', " "))?;
    Ok(out.flush()?)
}

/// A listener of one family alone: the other has its own.
fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &at)?;
    start(&socket, 16)?;
    Ok(socket.into())
}

/// What listens, of one family.
struct Family {
    outbound: TcpListener,
    inbound: TcpListener,
    dns: UdpSocket,
}

impl Family {
    fn listen(loopback: IpAddr, any: IpAddr) -> anyhow::Result<Self> {
        let tcp = |port| listen(SocketAddr::new(any, port));
        let dns = UdpSocket::bind((loopback, DNS))?;
        dns.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            outbound: tcp(OUTBOUND)?,
            inbound: tcp(INBOUND)?,
            dns,
        })
    }

    /// As the proxy: a call to its own pod comes in.
    fn calls_itself(&self, hook: &str, to: SocketAddr) -> anyhow::Result<()> {
        let _client = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| {
            format!("{hook} did not send the proxy's call to its own pod to the inbound port")
        })?;
        Self::accept(&self.inbound, to)
    }

    /// As the application: a call arrives at the proxy, which learns where it was to go, and the application does not
    /// notice.
    fn calls(&self, [connect, getpeername]: [&str; 2], to: SocketAddr) -> anyhow::Result<()> {
        let client = TcpStream::connect_timeout(&to, PATIENCE)
            .with_context(|| format!("{connect} did not send a call to the proxy"))?;
        Self::accept(&self.outbound, to)?;
        let peer = client.peer_addr()?;
        ensure!(peer == to, "{getpeername} tells {peer} instead of {to}");
        Ok(())
    }

    fn accept(listener: &TcpListener, to: SocketAddr) -> anyhow::Result<()> {
        listener.set_nonblocking(true)?; // the call is connected: it is in the queue, or nowhere
        let (socket, _) = listener
            .accept()
            .context("a call that was redirected did not arrive")?;
        let origin = if to.is_ipv4() {
            sockopt::ip_original_dst(&socket).map(SocketAddr::from)
        } else {
            sockopt::ipv6_original_dst(&socket).map(SocketAddr::from)
        };
        let origin = origin.context("getsockopt does not tell where a call was to go")?;
        ensure!(origin == to, "getsockopt tells {origin} instead of {to}");
        Ok(())
    }

    /// As the application: a DNS query arrives at the proxy, and the answer comes from who was asked.
    fn asks(&self, [sendmsg, recvmsg]: [&str; 2], server: SocketAddr) -> anyhow::Result<()> {
        let any: IpAddr = if server.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let client = UdpSocket::bind((any, 0))?;
        client.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = [0; 8];
        client
            .send_to(b"query", server)
            .with_context(|| format!("{sendmsg} did not send a query to the DNS proxy"))?;
        let (_, from) = self
            .dns
            .recv_from(&mut buffer)
            .with_context(|| format!("{sendmsg} did not send a query to the DNS proxy"))?;
        self.dns.send_to(b"answer", from)?;
        let (_, from) = client
            .recv_from(&mut buffer)
            .context("the answer to a DNS query did not arrive")?;
        ensure!(
            from == server,
            "{recvmsg} shows an answer from {from} instead of {server}"
        );
        Ok(())
    }
}
