//! What the kernel (`inet_diag`) says of TCP sockets in the calling thread's namespace.

use std::{
    io,
    net::SocketAddr as StdSocketAddr,
    ops::ControlFlow,
    os::fd::{AsRawFd as _, BorrowedFd},
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

/// Most sockets of a family and port that are kept. A proxy has one for each of its threads.
const KEPT: usize = 1024;

/// Most that are read. A port may have one for each address there is.
const READ: usize = 65_536;

/// `1 << TCP_CLOSING`, which the library does not name.
const CLOSING: u32 = 1 << 11;

/// Both ends of a socket: its own, then its peer's.
pub type Ends = (StdSocketAddr, StdSocketAddr);

/// Sockets that listen on these ports in the calling thread's namespace, of users that are `wanted`.
pub(super) fn listening_on(
    ports: [u16; 2],
    wanted: impl Fn(u32) -> bool,
) -> io::Result<Vec<InetResponse>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        for port in ports {
            all.extend(dump(family, port, &wanted)?);
        }
    }
    Ok(all)
}

/// Sockets of this namespace that are connected, or about to be, to this port of whichever host. `None` where there are more
/// than `most`: who then looks like missing may be there.
pub(crate) fn connected_to(port: u16, most: usize) -> io::Result<Option<Vec<Ends>>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let request = request(family, open_states(), (0, port));
        ask(&request, |answer| {
            let id = answer.header.socket_id;
            if id.destination_port == port {
                all.push((
                    (id.source_address, id.source_port).into(),
                    (id.destination_address, port).into(),
                ));
            }
            go_on(all.len() <= most)
        })?;
    }
    Ok(Some(all).filter(|all| all.len() <= most))
}

/// Sockets of this namespace that are connected, about to be, or listen, each handed over with more than its addresses:
/// `struct tcp_info`, and what is kept with it in these maps.
pub(super) fn all_with(
    kept: &[BorrowedFd<'_>],
    mut take: impl FnMut(InetResponse) -> ControlFlow<()>,
) -> io::Result<()> {
    let states = open_states() | StateFlags::LISTEN;
    let mut enough = ControlFlow::Continue(());
    for family in [AF_INET, AF_INET6] {
        let mut request = encoded(request_of(
            family,
            states.clone(),
            (0, 0),
            ExtensionFlags::INFO,
        ));
        add_storages(&mut request, kept);
        ask(&request, |answer| {
            enough = take(answer);
            enough
        })?;
        if enough.is_break() {
            break;
        }
    }
    Ok(())
}

/// Adds the attribute by which a question names maps of socket storage: each by an attribute with its descriptor.
fn add_storages(request: &mut Vec<u8>, maps: &[BorrowedFd<'_>]) {
    /// `INET_DIAG_REQ_SK_BPF_STORAGES`, with `NLA_F_NESTED`.
    const STORAGES: u16 = 2 | 1 << 15;
    /// `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`.
    const MAP_FD: u16 = 1;
    if maps.is_empty() {
        return;
    }
    let mut attribute = |kind: u16, length: usize, value: &[u8]| {
        let length = u16::try_from(4 + length).unwrap_or(u16::MAX);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(value);
    };
    attribute(STORAGES, 8 * maps.len(), &[]);
    for map in maps {
        attribute(MAP_FD, 4, &map.as_raw_fd().to_ne_bytes());
    }
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&length.to_ne_bytes()); // nlmsg_len
}

/// From the first packet on, until the socket is of no use to its owner.
fn open_states() -> StateFlags {
    StateFlags::SYN_SENT
        | StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::from_bits_retain(CLOSING)
}

fn dump(family: u8, port: u16, wanted: impl Fn(u32) -> bool) -> io::Result<Vec<InetResponse>> {
    let (mut found, mut read) = (Vec::new(), 0);
    // The kernel leaves out what listens on other ports (`inet_diag_dump_icsk`).
    let request = request(family, StateFlags::LISTEN, (port, 0));
    ask(&request, |answer| {
        read += 1;
        if answer.header.socket_id.source_port == port && wanted(answer.header.uid) {
            found.push(answer);
        }
        go_on(found.len() < KEPT && read < READ)
    })?;
    Ok(found)
}

fn go_on(does: bool) -> ControlFlow<()> {
    if does {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// Hands over every answer, until there is no more or it is enough: the kernel ends a dump whose socket is closed.
fn ask(request: &[u8], mut take: impl FnMut(InetResponse) -> ControlFlow<()>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(request, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = message.header.length as usize;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(r)) => {
                    let enough = take(*r).is_break();
                    if enough {
                        return Ok(());
                    }
                }
                NetlinkPayload::Done(_) => return Ok(()),
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

/// For sockets of these ports, their own and their peer's; 0 is any.
fn request(family: u8, states: StateFlags, ports: (u16, u16)) -> Vec<u8> {
    encoded(request_of(family, states, ports, ExtensionFlags::empty()))
}

fn request_of(
    family: u8,
    states: StateFlags,
    (own, of_peer): (u16, u16),
    extensions: ExtensionFlags,
) -> InetRequest {
    let any = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions,
        states,
        socket_id: SocketId {
            source_port: own,
            destination_port: of_peer,
            ..any
        },
    }
}

fn encoded(request: InetRequest) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        (listener, port)
    }

    #[test]
    fn the_kernel_tells_of_listeners_on_the_port_alone() {
        let ((first, port), (second, other)) = (listener(), listener());
        let _connection = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).expect("netlink");
        socket.bind_auto().expect("netlink");
        socket.connect(&SocketAddr::new(0, 0)).expect("netlink");
        let request = request(AF_INET, StateFlags::LISTEN, (port, 0));
        socket.send(&request, 0).expect("netlink");
        let (answer, _) = socket.recv_from_full().expect("an answer");
        let first_message = <NetlinkMessage<SockDiagMessage>>::deserialize(&answer);
        let length = first_message.expect("a message").header.length as usize;
        // One socket, or the end; what is not asked for the kernel does not write.
        let second_message = <NetlinkMessage<SockDiagMessage>>::deserialize(
            answer.get(length.next_multiple_of(4)..).unwrap_or(&[]),
        );
        let more = second_message.is_ok_and(|message| {
            matches!(
                message.payload,
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(_))
            )
        });
        assert!(!more, "the kernel told of other sockets, too");

        let found = dump(AF_INET, port, |_| true).expect("netlink");
        let ports: Vec<u16> = found
            .iter()
            .map(|of| of.header.socket_id.source_port)
            .collect();
        assert_eq!(ports, [port]);
        let both = listening_on([port, other], |_| true).expect("netlink");
        assert_eq!(both.len(), 2);
        assert!(
            listening_on([port, other], |_| false)
                .expect("netlink")
                .is_empty()
        );
        drop((first, second));
    }

    #[test]
    fn the_kernel_tells_of_connections_to_the_port_alone() {
        let ((first, port), (second, other)) = (listener(), listener());
        let open = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let _another = TcpStream::connect(("127.0.0.1", other)).expect("a connection");
        let closed = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        drop((first.accept().expect("a connection"), first.accept()));
        drop(closed);
        let ends = (
            open.local_addr().expect("an address"),
            open.peer_addr().expect("an address"),
        );
        let found = connected_to(port, 10).expect("netlink");
        assert_eq!(found, Some(vec![ends]));
        assert_eq!(connected_to(port, 0).expect("netlink"), None);
        drop(second);
    }
}
