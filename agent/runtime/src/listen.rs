//! A listening TCP socket, also on a machine without IPv6.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Listens. `[::]`, which is every address of both families, is every IPv4 address where the kernel has no IPv6
/// (`ipv6.disable=1`).
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let failed = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let Some(instead) = without_ipv6(address, &failed) else {
        return Err(failed);
    };
    tracing::warn!(%address, %instead, error = %failed, "this machine has no IPv6: listening on IPv4 alone");
    TcpListener::bind(instead).await
}

/// Where to listen instead, if it failed because there is no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_any = address.ip() == Ipv6Addr::UNSPECIFIED;
    let has_none = matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    );
    (is_any && has_none).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(address: &str, errno: i32) -> Option<String> {
        let address = address.parse().expect("an address");
        let error = io::Error::from_raw_os_error(errno);
        without_ipv6(address, &error).map(|address| address.to_string())
    }

    #[test]
    fn every_address_is_every_ipv4_address_where_there_is_no_ipv6() {
        for errno in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            assert_eq!(instead("[::]:8081", errno).as_deref(), Some("0.0.0.0:8081"));
        }
    }

    #[test]
    fn no_other_failure_and_no_other_address_is_replaced() {
        assert_eq!(instead("[::]:8081", libc::EADDRINUSE), None);
        assert_eq!(instead("[::]:80", libc::EACCES), None);
        assert_eq!(instead("[::1]:8081", libc::EADDRNOTAVAIL), None);
        assert_eq!(instead("192.0.2.1:8081", libc::EADDRNOTAVAIL), None);
    }
}
