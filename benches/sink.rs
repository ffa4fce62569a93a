//! A bare sink for measurements: it accepts any request in Exotel's or Kaleyra's format, counts its messages and responds
//! that all were accepted. It checks nothing; `flowcast sandbox` does.
//!
//! `cargo run --release --example sink -- 127.0.0.1:8026 [FILE]`: with a file, it writes the
//! callback URLs of the messages there, for `reporter.rs`.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8026".into());
    let file: Option<&'static Mutex<File>> = match std::env::args().nth(2) {
        Some(path) => {
            Some(Box::leak(Box::new(Mutex::new(File::options().create(true).append(true).open(path)?))))
        }
        None => None,
    };
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that disconnects is not an error of the sink.
        tokio::spawn(async move { drop(serve(stream, file).await) });
    }
}

async fn serve(mut stream: TcpStream, addresses: Option<&Mutex<File>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256 * 1024);
    let mut answer = Vec::new();
    let mut sid: u64 = 0;
    loop {
        let (head, length, is_kaleyra) = loop {
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
        let body = &buffer[head..head + length];
        let count = occurrences(body, b"\"to\":\"+");
        if let Some(file) = addresses {
            write_addresses(body, file)?;
        }
        buffer.drain(..head + length);
        answer.clear();
        if is_kaleyra {
            sid += 1;
            write!(
                answer,
                r#"{{"code":"WA202","message":"Request Accepted","data":{{"message_id":"{sid:032x}"}},"error":{{}}}}"#
            )?;
            respond(&mut stream, &answer).await?;
            continue;
        }
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
        respond(&mut stream, &answer).await?;
    }
}

async fn respond(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await
}

fn write_addresses(body: &[u8], file: &Mutex<File>) -> std::io::Result<()> {
    const BEFORE: &[u8] = b"\"status_callback\":\"";
    let mut lines = Vec::new();
    for at in memchr::memmem::find_iter(body, BEFORE) {
        let address = &body[at + BEFORE.len()..];
        let end = memchr::memchr(b'"', address).unwrap_or(address.len());
        lines.extend_from_slice(&address[..end]);
        lines.push(b'\n');
    }
    file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines)
}

/// Returns where a request's body begins, its length, and whether it is in Kaleyra's format.
fn head(buffer: &[u8]) -> Option<(usize, usize, bool)> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..end]).ok()?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    Some((end, length, text.contains("/whatsapp/")))
}

fn occurrences(haystack: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find_iter(haystack, needle).count()
}
