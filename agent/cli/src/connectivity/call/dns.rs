//! Names, asked of the pod's name servers as its application would. The queries are made here, because the C library's resolver
//! does not let a program choose between UDP and TCP.

mod message;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use self::message::{Kind, Query};

/// Where a pod's name servers and search domains are.
const FILE: &str = "/etc/resolv.conf";

/// How long a name server may take, before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(4);

/// No answer by UDP is longer.
const LONGEST: usize = 4096;

/// Name servers, and the domain in which names without a dot are looked up: that of the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    domain: Option<String>,
}

impl Resolver {
    /// What the pod's file says. If there is none, only addresses can be called.
    pub(super) fn of_this_pod() -> Self {
        Self::parsed(&fs::read_to_string(FILE).unwrap_or_default())
    }

    fn parsed(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => {
                    let server = server.parse().ok();
                    let server = server.map(|ip: IpAddr| SocketAddr::new(ip, 53));
                    resolver.servers.extend(server);
                }
                (Some("search"), first) => resolver.domain = first.map(ToOwned::to_owned),
                _ => {}
            }
        }
        resolver
    }

    /// Where a host, which is a name or an address, is reached.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
        if let Ok(ip) = host.parse() {
            return Ok(SocketAddr::new(ip, port));
        }
        for kind in [Kind::A, Kind::Aaaa] {
            let found = self.ask(&self.query(host, kind), false).await?;
            if let Some(first) = found.first() {
                return Ok(SocketAddr::new(*first, port));
            }
        }
        Err(format!("the name {} has no address", self.full(host)))
    }

    /// All addresses of a name.
    pub(super) async fn addresses(&self, name: &str, tcp: bool) -> Result<Vec<IpAddr>, String> {
        let mut addresses = Vec::new();
        for kind in [Kind::A, Kind::Aaaa] {
            addresses.extend(self.ask(&self.query(name, kind), tcp).await?);
        }
        if addresses.is_empty() {
            return Err(format!("the name {} has no address", self.full(name)));
        }
        Ok(addresses)
    }

    fn query(&self, name: &str, kind: Kind) -> Query {
        Query::new(&self.full(name), kind)
    }

    fn full(&self, name: &str) -> String {
        match &self.domain {
            Some(domain) if !name.contains('.') => format!("{name}.{domain}"),
            _ => name.to_owned(),
        }
    }

    /// Asks one name server after the other, until one answers.
    async fn ask(&self, query: &Query, tcp: bool) -> Result<Vec<IpAddr>, String> {
        let mut why = format!("{FILE} names no name server");
        for server in &self.servers {
            let asked = async {
                if tcp {
                    by_tcp(*server, query).await
                } else {
                    by_udp(*server, query).await
                }
            };
            let by = if tcp { "TCP" } else { "UDP" };
            why = match timeout(PATIENCE, asked).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(why)) => format!("name server {server}, by {by}: {why}"),
                Err(_) => {
                    let seconds = PATIENCE.as_secs();
                    format!("name server {server} does not answer by {by} within {seconds} s")
                }
            };
        }
        Err(why)
    }
}

/// By a socket that is not connected: what comes back must be from whom was asked.
async fn by_udp(server: SocketAddr, query: &Query) -> Result<Vec<IpAddr>, String> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => [0, 0, 0, 0].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let text = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind((any, 0)).await.map_err(text)?;
    socket.send_to(query.bytes(), server).await.map_err(text)?;
    let mut answer = vec![0; LONGEST];
    let (length, from) = socket.recv_from(&mut answer).await.map_err(text)?;
    if from != server {
        return Err(format!("the answer is from {from}"));
    }
    query.addresses(&answer[..length])
}

async fn by_tcp(server: SocketAddr, query: &Query) -> Result<Vec<IpAddr>, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(server).await.map_err(text)?;
    let length = u16::try_from(query.bytes().len()).map_err(|error| error.to_string())?;
    let message = [&length.to_be_bytes(), query.bytes()].concat();
    stream.write_all(&message).await.map_err(text)?;
    let length = stream.read_u16().await.map_err(text)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(text)?;
    query.addresses(&answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_pods_file_names_servers_and_the_domain_of_its_namespace() {
        let text = "search shop.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n";
        let resolver = Resolver::parsed(text);
        assert_eq!(resolver.full("near"), "near.shop.svc.cluster.local");
        assert_eq!(resolver.full("istio.io"), "istio.io");
        let wanted = ["10.96.0.10:53", "[fd00::a]:53"].map(|one| one.parse().expect("one"));
        assert_eq!(resolver.servers, wanted);
    }

    /// Asks a name server that answers each question with one address, or with none.
    async fn asked(tcp: bool, address: Option<[u8; 4]>) -> Result<Vec<IpAddr>, String> {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let server = udp.local_addr().expect("an address");
        let listener = TcpListener::bind(server).await.expect("a listener");
        let resolver = Resolver {
            servers: vec![server],
            domain: None,
        };
        let serve = async {
            let mut question = vec![0; LONGEST];
            for _ in [Kind::A, Kind::Aaaa] {
                if tcp {
                    let (mut stream, _) = listener.accept().await.expect("a caller");
                    let length = stream.read_u16().await.expect("a length");
                    let question = &mut question[..usize::from(length)];
                    stream.read_exact(question).await.expect("a question");
                    let answer = message::answered(question, address);
                    let length = u16::try_from(answer.len()).expect("it is short");
                    let answer = [&length.to_be_bytes()[..], &answer].concat();
                    stream.write_all(&answer).await.expect("it is read");
                } else {
                    let (length, from) = udp.recv_from(&mut question).await.expect("a question");
                    let answer = message::answered(&question[..length], address);
                    udp.send_to(&answer, from).await.expect("it is sent");
                }
            }
        };
        let ((), found) = tokio::join!(serve, resolver.addresses("near.shop", tcp));
        found
    }

    #[tokio::test]
    async fn a_name_is_looked_up_by_udp_and_by_tcp() {
        for tcp in [false, true] {
            let found = asked(tcp, Some([10, 0, 0, 7])).await;
            assert_eq!(found, Ok(vec![IpAddr::from([10, 0, 0, 7])]), "{tcp}");
            let none = asked(tcp, None).await;
            let none = none.expect_err("there is none");
            assert!(none.contains("near.shop has no address"), "{none}");
        }
    }

    #[tokio::test]
    async fn a_name_server_that_is_not_there_is_named() {
        let none = Resolver::default();
        let why = none.resolve("near", 80).await.expect_err("nobody knows it");
        assert!(why.contains("names no name server"), "{why}");
        let at = none.resolve("10.0.0.7", 80).await;
        assert_eq!(at, Ok("10.0.0.7:80".parse().expect("an address")));
    }
}
