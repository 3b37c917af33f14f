//! A namespace's TCP sockets: what the kernel counts of them, and what programs keep with them.

use std::{io, net::SocketAddr, ops::ControlFlow};

use netlink_packet_core::{DefaultNla, NLA_TYPE_MASK, Nla as _, NlasIterator};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use sidestep_agent_api::Stage;
use sidestep_ebpf_common::{SockState, shortcut::EndState};
use sidestep_kernel::storage::{Storage, value};

use super::diag::{self, Ends};

/// `TCP_ESTABLISHED` and others: how the kernel numbers the states of a socket.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

/// A connected socket, or one that is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its own address, then its peer's.
    pub ends: Ends,
    /// How far it is.
    pub stage: Stage,
    /// Whose socket it is, as the node counts users.
    pub uid: u32,
    /// Bytes that TCP sent, without those that it sent again.
    pub sent: u64,
    /// Bytes that TCP received.
    pub received: u64,
    /// What interception keeps with it.
    pub state: Option<SockState>,
    /// What the shortcut keeps with it.
    pub end: Option<EndState>,
}

/// What there is in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Its connections.
    pub connections: Vec<Connection>,
    /// Where somebody listens.
    pub listening: Vec<SocketAddr>,
    /// Whether there are more than are listed.
    pub more: bool,
}

/// Lists the sockets of the calling thread's namespace, up to so many. The maps are those of [`SockState`] and [`EndState`],
/// told apart by the size of what is in them.
pub(super) fn list(kept: &[Storage<'_>], most: usize) -> io::Result<Sockets> {
    let fds: Vec<_> = kept.iter().map(|map| map.fd).collect();
    let mut found = Sockets::default();
    diag::all_with(&fds, |answer| {
        if found.connections.len() + found.listening.len() == most {
            found.more = true;
            return ControlFlow::Break(());
        }
        let id = &answer.header.socket_id;
        let own = SocketAddr::new(id.source_address, id.source_port);
        if answer.header.state == LISTEN {
            found.listening.push(own);
        } else {
            let peer = SocketAddr::new(id.destination_address, id.destination_port);
            found.connections.push(connection(&answer, (own, peer)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn connection(answer: &InetResponse, ends: Ends) -> Connection {
    let mut connection = Connection {
        ends,
        stage: match answer.header.state {
            ESTABLISHED => Stage::Established,
            SYN_SENT => Stage::Connecting,
            _ => Stage::Closing,
        },
        uid: answer.header.uid,
        sent: 0,
        received: 0,
        state: None,
        end: None,
    };
    for attribute in &answer.nlas {
        match attribute {
            Nla::TcpInfo(info) => (connection.sent, connection.received) = counted(info),
            Nla::Other(other) if other.kind() & NLA_TYPE_MASK == STORAGES => {
                for bytes in values(other) {
                    connection.state = connection.state.or_else(|| value(&bytes));
                    connection.end = connection.end.or_else(|| value(&bytes));
                }
            }
            _ => {}
        }
    }
    connection
}

/// `INET_DIAG_SK_BPF_STORAGES`.
const STORAGES: u16 = 20;
/// `SK_DIAG_BPF_STORAGE`.
const STORAGE: u16 = 1;
/// `SK_DIAG_BPF_STORAGE_MAP_VALUE`.
const VALUE: u16 = 3;

/// What is kept with a socket in each map that was asked for.
fn values(storages: &DefaultNla) -> Vec<Vec<u8>> {
    let mut bytes = vec![0; storages.value_len()];
    storages.emit_value(&mut bytes);
    let each = nested(&bytes, STORAGE).into_iter();
    each.flat_map(|storage| nested(&storage, VALUE)).collect()
}

/// The values of the attributes of a kind in another's.
fn nested(bytes: &[u8], kind: u16) -> Vec<Vec<u8>> {
    let parts = NlasIterator::new(bytes).flatten();
    let parts = parts.filter(|part| part.kind() == kind);
    parts.map(|part| part.value().to_vec()).collect()
}

/// Sent and received, of a `struct tcp_info`: `tcpi_bytes_sent` less `tcpi_bytes_retrans` (Linux 4.19), which count neither SYN
/// nor FIN as `tcpi_bytes_acked` does, and `tcpi_bytes_received`.
fn counted(info: &[u8]) -> (u64, u64) {
    const RECEIVED: usize = 128;
    const SENT: usize = 200;
    const SENT_AGAIN: usize = 208;
    let at = |offset: usize| {
        let bytes = info.get(offset..offset + 8);
        bytes.and_then(value::<u64>).unwrap_or(0)
    };
    (at(SENT).saturating_sub(at(SENT_AGAIN)), at(RECEIVED))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn each_connection_is_told_with_its_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(at).expect("a connection");
        let (mut server, from) = listener.accept().expect("a connection");
        client.write_all(&[7; 1000]).expect("sent");
        server.read_exact(&mut [0; 1000]).expect("received");
        server.write_all(&[7; 10]).expect("sent");
        client.read_exact(&mut [0; 10]).expect("received");

        let found = list(&[], 100_000).expect("netlink");
        assert!(found.listening.contains(&at) && !found.more);
        let bytes = |ends| {
            let mut all = found.connections.iter();
            let one = all.find(|one| one.ends == ends).expect("it is there");
            assert_eq!(
                (one.stage, one.state, one.end),
                (Stage::Established, None, None)
            );
            assert_eq!(one.uid, rustix::process::getuid().as_raw());
            (one.sent, one.received)
        };
        assert_eq!(bytes((from, at)), (1000, 10));
        assert_eq!(bytes((at, from)), (10, 1000));

        drop(server);
        let found = list(&[], 100_000).expect("netlink");
        let mut all = found.connections.iter();
        let one = all.find(|one| one.ends == (from, at)).expect("it is there");
        assert_eq!(one.stage, Stage::Closing);
        let some = list(&[], 1).expect("netlink");
        assert!(some.more && some.connections.len() + some.listening.len() == 1);
    }
}
