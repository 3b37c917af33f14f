//! A socket of an actor, with its system calls as methods.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use super::{
    channel::{Channel, unexpected},
    parse, pidfd,
    protocol::{Answer, Errno, Family, Report, Request, SocketId},
    seen::Seen,
};

/// How long one call of an actor may wait: longer than a virtual machine stands still (18 s were seen).
const CALL_MS: u32 = 30_000;

/// A socket of an actor; closed when dropped.
#[derive(Debug)]
pub struct Socket {
    channel: Arc<Channel>,
    id: SocketId,
    open: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.open {
            // The process may be gone already, and its sockets with it.
            let _ = self.close_now();
        }
    }
}

impl Socket {
    pub(super) fn new(channel: Arc<Channel>, id: SocketId) -> Self {
        Self {
            channel,
            id,
            open: true,
        }
    }

    /// bind
    pub fn bind(&self, address: &str) -> Result<(), Errno> {
        self.channel.done(&Request::Bind {
            socket: self.id,
            address: parse(address),
        })
    }

    /// `SO_BINDTODEVICE`
    pub fn bind_to_device(&self, device: &str) -> Result<(), Errno> {
        self.channel.done(&Request::BindToDevice {
            socket: self.id,
            device: device.to_owned(),
        })
    }

    /// connect, with a deadline
    pub fn connect(&self, address: &str) -> Result<(), Errno> {
        self.connect_to(parse(address))
    }

    /// connect, with a deadline of its own: for those that are expected not to be answered
    pub fn connect_within(&self, address: &str, deadline: Duration) -> Result<(), Errno> {
        let timeout_ms = u32::try_from(deadline.as_millis()).expect("a short time");
        self.channel.done(&Request::Connect {
            socket: self.id,
            address: parse(address),
            timeout_ms,
        })
    }

    pub(super) fn connect_to(&self, address: SocketAddr) -> Result<(), Errno> {
        self.channel.done(&Request::Connect {
            socket: self.id,
            address,
            timeout_ms: CALL_MS,
        })
    }

    /// connect with `AF_UNSPEC`
    pub fn disconnect(&self) -> Result<(), Errno> {
        self.channel.done(&Request::Disconnect { socket: self.id })
    }

    /// listen
    pub fn listen(&self) -> Result<(), Errno> {
        self.channel.done(&Request::Listen {
            socket: self.id,
            backlog: 1024,
        })
    }

    /// accept, with a deadline
    pub fn accept(&self) -> Result<(Self, SocketAddr), Errno> {
        let request = Request::Accept {
            socket: self.id,
            timeout_ms: CALL_MS,
        };
        match self.channel.ask(&request)? {
            Answer::Accepted(id, peer) => Ok((Self::new(Arc::clone(&self.channel), id), peer)),
            other => unexpected(&other),
        }
    }

    /// Answers everybody who connects with a [`Report`], then echoes, until this socket is closed.
    pub fn serve(&self, name: &str) {
        let request = Request::Serve {
            socket: self.id,
            name: name.to_owned(),
        };
        self.channel
            .done(&request)
            .expect("a listener can be served");
    }

    /// getpeername
    pub fn peer_name(&self) -> Result<SocketAddr, Errno> {
        self.address(&Request::PeerName { socket: self.id })
    }

    /// getsockname
    pub fn name(&self) -> Result<SocketAddr, Errno> {
        self.address(&Request::SocketName { socket: self.id })
    }

    /// `SO_ORIGINAL_DST` at `SOL_IP` or `SOL_IPV6`
    pub fn original_destination(&self, family: Family) -> Result<SocketAddr, Errno> {
        self.address(&Request::OriginalDestination {
            socket: self.id,
            family,
        })
    }

    /// setsockopt of an integer
    pub fn set_option(&self, level: i32, name: i32, value: i32) -> Result<(), Errno> {
        self.channel.done(&Request::SetOption {
            socket: self.id,
            level,
            name,
            value,
        })
    }

    /// getsockopt with a buffer of `size` bytes
    pub fn option(&self, level: i32, name: i32, size: usize) -> Result<Vec<u8>, Errno> {
        self.bytes(&Request::GetOption {
            socket: self.id,
            level,
            name,
            size,
        })
        .map(|(bytes, _)| bytes)
    }

    /// send
    pub fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.channel.done(&Request::Send {
            socket: self.id,
            bytes: bytes.to_vec(),
            to: None,
        })
    }

    /// sendto
    pub fn send_to(&self, bytes: &[u8], address: &str) -> Result<(), Errno> {
        let to = Some(parse(address));
        self.channel.done(&Request::Send {
            socket: self.id,
            bytes: bytes.to_vec(),
            to,
        })
    }

    /// recv, with a deadline; nothing at all is the end of the stream
    pub fn receive(&self) -> Result<Vec<u8>, Errno> {
        self.receive_from().map(|(bytes, _)| bytes)
    }

    /// recvfrom, with a deadline
    pub fn receive_from(&self) -> Result<(Vec<u8>, Option<SocketAddr>), Errno> {
        self.bytes(&Request::Receive {
            socket: self.id,
            size: 64 * 1024,
            timeout_ms: CALL_MS,
        })
    }

    /// The same with a deadline of its own: for answers that are not expected
    pub fn receive_from_within(
        &self,
        deadline: Duration,
    ) -> Result<(Vec<u8>, Option<SocketAddr>), Errno> {
        let timeout_ms = u32::try_from(deadline.as_millis()).expect("a short time");
        self.bytes(&Request::Receive {
            socket: self.id,
            size: 64 * 1024,
            timeout_ms,
        })
    }

    /// Reads what a server of [`Socket::serve`] says about this connection.
    pub fn report(&self) -> Result<Report, Errno> {
        self.report_within(Duration::from_millis(CALL_MS.into()))
    }

    fn report_within(&self, deadline: Duration) -> Result<Report, Errno> {
        let (bytes, _) = self.receive_from_within(deadline)?;
        if bytes.is_empty() {
            return Err(Errno(libc::ECONNRESET));
        }
        // What was sent before comes back behind it.
        let line = bytes.split(|byte| *byte == b'\n').next();
        let line = line.expect("a split has a first part");
        Ok(serde_json::from_slice(line).expect("a server answers with a report"))
    }

    /// Compares what both ends see of this connection to a server of [`Socket::serve`].
    pub fn seen(&self) -> Result<Seen, Errno> {
        self.seen_within(Duration::from_millis(CALL_MS.into()))
    }

    /// The same with a deadline of its own: for those that are expected not to be answered
    pub fn seen_within(&self, deadline: Duration) -> Result<Seen, Errno> {
        let report = self.report_within(deadline)?;
        Ok(Seen {
            own_name: self.name()?,
            peer_name: self.peer_name()?,
            by: report.name,
            source: report.peer,
            local: report.local,
            original: report.original,
        })
    }

    /// close
    pub fn close(mut self) {
        self.close_now().expect("an open socket can be closed");
    }

    /// Hands the socket over to the test: the actor has it no more.
    pub fn take(self) -> TcpStream {
        let asked = self.channel.ask(&Request::Descriptor { socket: self.id });
        let Ok(Answer::Descriptor(descriptor)) = asked else {
            panic!("the actor has no such socket: {asked:?}");
        };
        let taken = pidfd::take(self.channel.pid(), descriptor);
        TcpStream::from(taken.expect("root can take a socket of its child's"))
    }

    /// close with `SO_LINGER` 0: the peer gets a reset.
    pub fn reset(mut self) {
        self.open = false;
        self.channel
            .done(&Request::Reset { socket: self.id })
            .expect("an open socket can be reset");
    }

    fn close_now(&mut self) -> Result<(), Errno> {
        self.open = false;
        self.channel.done(&Request::Close { socket: self.id })
    }

    fn address(&self, request: &Request) -> Result<SocketAddr, Errno> {
        match self.channel.ask(request)? {
            Answer::Address(address) => Ok(address),
            other => unexpected(&other),
        }
    }

    fn bytes(&self, request: &Request) -> Result<(Vec<u8>, Option<SocketAddr>), Errno> {
        match self.channel.ask(request)? {
            Answer::Bytes(bytes, from) => Ok((bytes, from)),
            other => unexpected(&other),
        }
    }
}
