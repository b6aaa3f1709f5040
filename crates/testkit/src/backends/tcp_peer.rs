//! The server's end of one TCP connection, for tests that script it frame by frame.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A server's end of a TCP connection.
pub struct TcpPeer(BufReader<TcpStream>);

impl TcpPeer {
    /// Takes an accepted connection.
    pub fn over(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends one message in its frame.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).expect("it fits into a frame");
        self.0.write_all(&[&length.to_be_bytes(), message].concat()).await
    }

    /// Receives one message.
    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.0.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        self.0.read_exact(&mut message).await?;
        Ok(message)
    }
}
