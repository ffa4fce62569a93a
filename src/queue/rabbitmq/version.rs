//! The version probe of the broker's nodes.

use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{broker::Broker, connections::CONNECT};

impl Broker {
    /// Returns each node as `host:port`, with its version or the reason why it is unreachable.
    ///
    /// The version is unknown over TLS.
    pub async fn nodes(&self) -> Vec<(String, Result<Option<String>, String>)> {
        let asked = self.shared.nodes.iter().map(async |node| {
            let place = format!("{}:{}", node.authority.host, node.authority.port);
            let found = tokio::time::timeout(CONNECT, version(node)).await;
            (place, found.unwrap_or_else(|_| Err("does not respond".into())))
        });
        futures_util::future::join_all(asked).await
    }
}

/// Returns the version that a node sends when a connection starts; `None` over TLS.
async fn version(node: &AMQPUri) -> Result<Option<String>, String> {
    let asked = async {
        let mut stream = TcpStream::connect((node.authority.host.as_str(), node.authority.port)).await?;
        if node.scheme != AMQPScheme::AMQP {
            return Ok(None);
        }
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        // The first frame is `connection.start`; its properties contain the version.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]).min(1 << 16);
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let name = b"\x07versionS";
        let Some(at) = frame.windows(name.len()).position(|bytes| bytes == name) else { return Ok(None) };
        let text = frame.get(at + name.len()..).and_then(|rest| {
            let length = usize::from(*rest.get(3)?);
            String::from_utf8(rest.get(4..4 + length)?.to_vec()).ok()
        });
        Ok(text)
    };
    asked.await.map_err(|error: std::io::Error| error.to_string())
}
