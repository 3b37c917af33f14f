//! What a pod's policy alone does not tell: its namespace's addresses, and its name servers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        route::RouteType,
    },
};

use sidestep_kernel::netns::{Namespace, NetnsError};

use crate::rules::ADDRESSES;
pub use crate::rules::{Facts, PASSTHROUGH6};

/// `lo` has this index in every namespace.
const LO: u32 = 1;
/// How long a new address may take until it is the namespace's own, and between looks.
const SETTLES: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// Reads a namespace.
pub fn read(namespace: &Namespace, name_servers: Vec<IpAddr>) -> Result<Facts, NetnsError> {
    let io = |error| NetnsError::Io {
        path: namespace.path().to_owned(),
        error,
    };
    let cookie = namespace.cookie()?;
    let addresses = namespace.enter(|| with_netlink(addresses))?.map_err(io)?;
    let (source4, source6) = namespace.enter(|| {
        // Nothing is sent: connecting a datagram socket only asks for the route.
        let source = |any: IpAddr, far: IpAddr| {
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.connect((far, 9)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        };
        (
            source(
                Ipv4Addr::UNSPECIFIED.into(),
                Ipv4Addr::new(192, 0, 2, 1).into(),
            ),
            source(
                Ipv6Addr::UNSPECIFIED.into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            ),
        )
    })?;
    let first = |v4: bool| {
        let mut global = addresses
            .iter()
            .filter(|a| a.is_ipv4() == v4 && Facts::is_global(a));
        global.next().copied()
    };
    Ok(Facts {
        cookie,
        source4: source4.or_else(|| first(true)).and_then(|a| match a {
            IpAddr::V4(a) => Some(a),
            IpAddr::V6(_) => None,
        }),
        source6: source6.or_else(|| first(false)).and_then(|a| match a {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        }),
        addresses,
        name_servers,
    })
}

/// Brings up `lo` of the calling thread's namespace and gives it an address; whether there is IPv6 here at all.
pub(crate) fn raise_loopback(address: Ipv6Addr) -> io::Result<bool> {
    with_netlink(async |handle| {
        raise(&handle).await?;
        Ok(give_loopback(&handle, address).await.is_ok())
    })
}

/// Adds `::6/128` to `lo`. Already there is fine.
pub fn raise_passthrough6(namespace: &Namespace) -> Result<(), NetnsError> {
    namespace
        .enter(|| {
            with_netlink(
                async |handle| match give_loopback(&handle, PASSTHROUGH6).await {
                    Err(rtnetlink::Error::NetlinkError(e))
                        if e.to_io().kind() == io::ErrorKind::AlreadyExists =>
                    {
                        Ok(())
                    }
                    other => other.map_err(io::Error::other),
                },
            )
        })?
        .map_err(|error| NetnsError::Io {
            path: namespace.path().to_owned(),
            error,
        })
}

/// Gives `lo` an address, and waits until packets to it arrive. The kernel makes its local route later, in a work queue
/// (`addrconf_dad_work`), which takes its time on a busy machine; until then it discards them silently, for the route of the
/// prefix is one that rejects (`fib6_is_reject`).
async fn give_loopback(handle: &Handle, address: Ipv6Addr) -> Result<(), rtnetlink::Error> {
    let request = handle.address().add(LO, address.into(), 128);
    request.execute().await?;
    let is_local = async || {
        let to = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128);
        let routes: Result<Vec<_>, _> =
            handle.route().get(to.build()).execute().try_collect().await;
        routes.is_ok_and(|all| {
            all.iter()
                .any(|route| route.header.kind == RouteType::Local)
        })
    };
    let settled = async {
        while !is_local().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    // What needs it and comes too early fails, and is tried again.
    let _in_time = tokio::time::timeout(SETTLES, settled).await;
    Ok(())
}

/// The `nameserver` lines of a `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver"))
                .then(|| words.next()?.split('%').next()?.parse().ok())
                .flatten()
        })
        .collect()
}

/// Brings `lo` up in the calling thread's namespace.
pub(crate) fn bring_lo_up() -> io::Result<()> {
    with_netlink(async |handle| raise(&handle).await)
}

async fn raise(handle: &Handle) -> io::Result<()> {
    let up = LinkUnspec::new_with_index(LO).up().build();
    let request = handle.link().set(up);
    request.execute().await.map_err(io::Error::other)
}

async fn addresses(handle: Handle) -> io::Result<Vec<IpAddr>> {
    // A pod may give itself as many as it likes. With one more than it may have it is refused.
    let messages: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .take(ADDRESSES + 1)
        .try_collect()
        .await
        .map_err(io::Error::other)?;
    let address = |message: &AddressMessage| {
        // On point-to-point links `Address` is the peer's and `Local` ours.
        let find = |local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(addr) if local => Some(*addr),
                AddressAttribute::Address(addr) if !local => Some(*addr),
                _ => None,
            })
        };
        find(true).or_else(|| find(false))
    };
    Ok(messages.iter().filter_map(address).collect())
}

/// Runs a netlink exchange in the calling thread's namespace.
fn with_netlink<T, F: Future<Output = io::Result<T>>>(
    f: impl FnOnce(Handle) -> F,
) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            let connection = tokio::spawn(connection);
            let answer = f(handle).await;
            connection.abort();
            answer
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.53\n nameserver\tfe80::1%eth0 # x\nnameserver bad\n";
        let want: Vec<IpAddr> = vec![
            "10.0.0.53".parse().expect("v4"),
            "fe80::1".parse().expect("v6"),
        ];
        assert_eq!(parse_resolv_conf(text), want);
    }
}
