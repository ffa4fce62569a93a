//! A proxy whose connections to a server can be cut and stalled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A proxy between workers and a server. Its connections can be cut and stalled.
pub struct Line {
    pub port: u16,
    cut: std::sync::Mutex<CancellationToken>,
    pub stalled: Arc<AtomicBool>,
}

impl Line {
    /// Starts a proxy to a port of this machine.
    pub async fn to(server: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stalled = Arc::new(AtomicBool::new(false));
        let line = Arc::new(Self { port, cut: std::sync::Mutex::default(), stalled });
        let this = line.clone();
        tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.unwrap();
                let cut = this.cut.lock().unwrap().clone();
                let stalled = this.stalled.clone();
                tokio::spawn(async move {
                    let Ok(there) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (here_in, here_out) = here.into_split();
                    let (there_in, there_out) = there.into_split();
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = copy(here_in, there_out, &stalled) => {}
                        () = copy(there_in, here_out, &stalled) => {}
                    }
                });
            }
        });
        line
    }

    /// Closes all its connections.
    pub fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

/// Copies bytes from one connection to another; pauses while the proxy is stalled.
async fn copy(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    stalled: &AtomicBool,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
