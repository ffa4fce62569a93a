//! A bare sink for measuring `run`: it takes any request in Exotel's shape, counts its messages and
//! answers that all were accepted. It checks nothing; `flowcast sandbox` does.
//!
//! `cargo run --release --example sink -- 127.0.0.1:8026`

use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8026".into());
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that goes away is no failure of the sink's.
        tokio::spawn(async move { drop(serve(stream).await) });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256 * 1024);
    let mut answer = Vec::new();
    let mut sid: u64 = 0;
    loop {
        let (head, length) = loop {
            if let Some(found) = head(&buffer) {
                break found;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let count = occurrences(&buffer[head..head + length], b"\"to\":\"+");
        buffer.drain(..head + length);
        answer.clear();
        answer.extend_from_slice(
            br#"{"request_id":"0","method":"POST","http_code":202,"response":{"whatsapp":{"messages":["#,
        );
        for index in 0..count {
            sid += 1;
            let comma = if index == 0 { "" } else { "," };
            write!(
                answer,
                r#"{comma}{{"code":202,"error_data":null,"status":"success","data":{{"sid":"{sid:032x}"}}}}"#
            )?;
        }
        answer.extend_from_slice(b"]}}}");
        let head = format!(
            "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all(&[head.as_bytes(), &answer].concat()).await?;
    }
}

/// Where a request's body begins, and how long it is.
fn head(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    Some((end, length))
}

fn occurrences(haystack: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find_iter(haystack, needle).count()
}
