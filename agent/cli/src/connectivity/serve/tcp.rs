//! Plain TCP.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::TcpStream;

/// Sends back what comes. When the caller half-closes, it is told how many bytes came.
pub(super) async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let bytes = copy(&mut reader, &mut writer).await?;
    writer.write_all(&bytes.to_be_bytes()).await?;
    writer.shutdown().await
}

/// Tells the caller from where it is seen to call.
pub(super) async fn tell(mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.write_all(format!("{from}\n").as_bytes()).await?;
    stream.shutdown().await
}
