//! What the kernel (`inet_diag`) says of listening TCP sockets.

use std::io;

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

fn dump(family: u8, port: u16, wanted: impl Fn(u32) -> bool) -> io::Result<Vec<InetResponse>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(family, port), 0)?;
    let (mut found, mut read) = (Vec::new(), 0);
    while found.len() < KEPT && read < READ {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let length = message.header.length as usize;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(r)) => {
                    read += 1;
                    if r.header.socket_id.source_port == port && wanted(r.header.uid) {
                        found.push(*r);
                    }
                }
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
    // The kernel ends a dump whose socket is closed.
    Ok(found)
}

/// The kernel leaves out what listens on other ports (`inet_diag_dump_icsk`).
fn request(family: u8, port: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let any = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let mut request = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id: SocketId {
                source_port: port,
                ..any
            },
        })
        .into(),
    );
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
        socket.send(&request(AF_INET, port), 0).expect("netlink");
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
}
