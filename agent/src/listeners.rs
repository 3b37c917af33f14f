//! The proxy's listening sockets in a namespace, as they are now. Whoever listened before the pod was armed is found
//! this way: activation depends on what is, not on having seen it happen.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sidestep_contract::Policy;

use crate::{netns::NetnsError, sandbox::Sandbox};

/// A listening socket of the proxy's on its inbound port.
#[derive(Debug)]
pub struct Listener {
    /// The socket's inode number, which tells sockets apart.
    pub inode: u32,
    /// Whether it takes connections from outside; one on 127.0.0.1 only shows that the proxy is there.
    pub wildcard: bool,
    /// A duplicate of the proxy's descriptor, where it could be had.
    pub socket: Option<OwnedFd>,
    /// A process that holds it, where one was found.
    pub pid: Option<i32>,
}

/// What the proxy listens on.
#[derive(Debug, Default)]
pub struct Found {
    /// Its sockets on the inbound port.
    pub inbound: Vec<Listener>,
    /// Its sockets on the outbound port.
    pub outbound: Vec<Listener>,
    /// Whether it listens on every address on its outbound port.
    pub spread: bool,
}

/// Finds the proxy's listeners on its capture ports.
pub fn find(sandbox: &Sandbox, policy: &Policy) -> Result<Found, NetnsError> {
    let namespace = &sandbox.namespace;
    let io = |error| NetnsError::Io {
        path: namespace.path().to_owned(),
        error,
    };
    let inbound = policy.inbound_port.get();
    let outbound = policy.outbound_port.get();
    let sockets = namespace
        .enter(|| listening_on([inbound, outbound]))?
        .map_err(io)?;
    if sockets.is_empty() {
        return Ok(Found::default()); // the usual case, and then no process need be looked at
    }
    let owners = owners(
        namespace.inode().map_err(io)?,
        &sandbox.processes(),
        &sockets,
    );
    let mut found = Found::default();
    for socket in &sockets {
        let inode = socket.header.inode;
        let owner = owners.iter().find(|o| o.inode == inode);
        let of_proxy = policy.proxy_uids.contains(&socket.header.uid)
            || owner.is_some_and(|o| policy.proxy_gids.contains(&o.gid));
        let id = &socket.header.socket_id;
        let wildcard = id.source_address.is_unspecified();
        if !of_proxy {
            continue;
        }
        let listener = Listener {
            inode,
            wildcard,
            socket: owner.and_then(|o| duplicate(o.pid, o.fd).ok()),
            pid: owner.map(|o| o.pid),
        };
        if id.source_port == inbound {
            found.inbound.push(listener);
        } else {
            found.spread |= wildcard;
            found.outbound.push(listener);
        }
    }
    Ok(found)
}

/// Asks the kernel (`inet_diag`) for listening TCP sockets on these ports in the calling thread's namespace.
fn listening_on(ports: [u16; 2]) -> io::Result<Vec<InetResponse>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let found = dump(family)?.into_iter();
        all.extend(found.filter(|r| ports.contains(&r.header.socket_id.source_port)));
    }
    Ok(all)
}

fn dump(family: u8) -> io::Result<Vec<InetResponse>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id: if family == AF_INET {
                SocketId::new_v4()
            } else {
                SocketId::new_v6()
            },
        })
        .into(),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = message.header.length as usize;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(r)) => found.push(*r),
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(e) => return Err(e.to_io()),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            if length == 0 {
                break;
            }
        }
    }
}

/// Who holds a socket.
struct Owner {
    inode: u32,
    pid: i32,
    fd: i32,
    gid: u32,
}

/// Looks through those of the processes that are in a network namespace for the holders of these sockets.
fn owners(netns: u64, processes: &[i32], sockets: &[InetResponse]) -> Vec<Owner> {
    let mut owners = Vec::new();
    for pid in processes.iter().copied() {
        // A process that ends meanwhile is skipped by each of these.
        let path = PathBuf::from(format!("/proc/{pid}"));
        if fs::metadata(path.join("ns/net")).map(|m| m.ino()).ok() != Some(netns) {
            continue;
        }
        let Some(gid) = filesystem_gid(&path) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let link = fs::read_link(descriptor.path()).unwrap_or_default();
            let socket = link
                .to_str()
                .and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let fd = descriptor.file_name().to_str().and_then(|n| n.parse().ok());
            if let (Some(inode), Some(fd)) = (socket, fd)
                && sockets.iter().any(|r| r.header.inode == inode)
            {
                owners.push(Owner {
                    inode,
                    pid,
                    fd,
                    gid,
                });
            }
        }
    }
    owners
}

/// The fourth number of the `Gid:` line is the filesystem gid.
fn filesystem_gid(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("Gid:"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Needs `CAP_SYS_PTRACE` over the proxy.
fn duplicate(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}
