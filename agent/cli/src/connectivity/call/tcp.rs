//! Calls by plain TCP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Seen;

/// No protocol that a sidecar looks for begins so.
const KNOCK: [u8; 16] = [0xff; 16];

/// The most that a server tells of who calls.
const LINE: u64 = 200;

/// Sends bytes, and compares each that comes back. If it half-closes, the server sees the end, and tells how many came.
pub(super) async fn echo(
    address: SocketAddr,
    bytes: usize,
    half_close: bool,
) -> Result<Seen, String> {
    let stream = connected(address).await?;
    let (mut reader, mut writer) = stream.into_split();
    let sent: Vec<u8> = (0..bytes).map(byte).collect();
    let write = async {
        let written = writer.write_all(&sent).await;
        written.map_err(|error| format!("sending: {error}"))?;
        if half_close {
            let shut = writer.shutdown().await;
            shut.map_err(|error| format!("half-closing: {error}"))?;
        }
        Ok::<_, String>(())
    };
    let read = async {
        let mut back = vec![0; bytes];
        let mut got = 0;
        while got < bytes {
            match reader.read(&mut back[got..]).await {
                Ok(0) => return Err(format!("the end came after {got} of {bytes} bytes")),
                Ok(more) => got += more,
                Err(error) => return Err(format!("after {got} of {bytes} bytes: {error}")),
            }
        }
        Ok(back)
    };
    let ((), back) = tokio::try_join!(write, read)?;
    if let Some(wrong) = sent.iter().zip(&back).position(|(one, other)| one != other) {
        return Err(format!("byte {wrong} of {bytes} came back as another"));
    }
    if half_close {
        counted(&mut reader, bytes).await?;
    }
    Ok(Seen::default())
}

/// What the server tells when it has seen the end: how many bytes came. Nothing follows.
async fn counted(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    bytes: usize,
) -> Result<(), String> {
    let mut rest = Vec::new();
    let read = reader.take(LINE).read_to_end(&mut rest).await;
    read.map_err(|error| format!("after half-closing: {error}"))?;
    let count = <[u8; 8]>::try_from(rest.as_slice());
    match count.map(u64::from_be_bytes) {
        Ok(count) if usize::try_from(count) == Ok(bytes) => Ok(()),
        Ok(count) => Err(format!("the server got {count} of {bytes} bytes")),
        Err(_) => Err(format!(
            "the server did not see the end: it sent {} bytes and no count",
            rest.len()
        )),
    }
}

/// The byte at a place. Places are mixed well, so that what is lost, doubled or moved is seen.
fn byte(place: usize) -> u8 {
    let place = u64::try_from(place).unwrap_or_default();
    let mut mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    let [.., last] = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
    last
}

/// Asks from where it is seen to call.
pub(super) async fn peer(address: SocketAddr) -> Result<Seen, String> {
    let stream = connected(address).await?;
    let local = stream.local_addr().map_err(|error| error.to_string())?;
    let mut line = String::new();
    let read = stream.take(LINE).read_to_string(&mut line).await;
    read.map_err(|error| format!("reading who calls: {error}"))?;
    let peer = line.trim().parse();
    let peer = peer.map_err(|_| format!("the answer is no address: {line:?}"))?;
    Ok(Seen {
        peer: Some(peer),
        local: Some(local),
        ..Seen::default()
    })
}

/// Calls where nobody should answer: to be refused, reset or closed is well.
pub(super) async fn knock(address: SocketAddr) -> Result<Seen, String> {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return Ok(Seen::default());
    };
    let mut some = [0; 64];
    // A sidecar takes the connection before it knows.
    let sent = stream.write_all(&KNOCK).await;
    match (sent, stream.read(&mut some).await) {
        (Err(_), _) | (_, Err(_) | Ok(0)) => Ok(Seen::default()),
        (Ok(()), Ok(bytes)) => {
            let text = String::from_utf8_lossy(&some[..bytes]);
            Err(format!("somebody answers: {text:?}"))
        }
    }
}

/// A connection; or why there is none.
pub(super) async fn connected(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    stream.map_err(|error| format!("connecting to {address}: {error}"))
}
