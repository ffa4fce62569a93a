//! Sends delivery reports as Exotel does, to measure how fast they are accepted: each URL in a file gets a report that its
//! message was sent, and then one that it was delivered, over many connections at the same time.
//!
//! `cargo run --release --example reporter -- FILE [CONNECTIONS]`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("the file of addresses is missing")?;
    let connections = args.next().map_or(Ok(128), |text| text.parse())?;
    let addresses: Arc<Vec<String>> =
        Arc::new(std::fs::read_to_string(file)?.lines().map(str::to_owned).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (addresses, next) = (addresses.clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut reporter = None;
            let mut sent = 0_usize;
            loop {
                // First the reports `sent` of all messages, then the reports `delivered`.
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(address) = addresses.get(nth % addresses.len()) else { return Ok(sent) };
                let state = match nth / addresses.len() {
                    0 => "EX_MESSAGE_SENT",
                    1 => "EX_MESSAGE_DELIVERED",
                    _ => return Ok::<_, Failed>(sent),
                };
                report(&mut reporter, address, state).await?;
                sent += 1;
            }
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let line = format!("{sent} reports in {seconds:.2} s, {:.0} a second\n", sent as f64 / seconds);
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    Ok(())
}

/// Sends a report and waits for the response.
async fn report(connection: &mut Option<TcpStream>, address: &str, state: &str) -> Result<(), Failed> {
    let rest = address.strip_prefix("http://").ok_or("an address is not http://")?;
    let (host, path) = rest.split_once('/').ok_or("an address has no path")?;
    if connection.is_none() {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        *connection = Some(stream);
    }
    let stream = connection.as_mut().ok_or("there is no connection")?;
    let body = format!(
        r#"{{"whatsapp":{{"messages":[{{"callback_type":"dlr","sid":"s","exo_detailed_status":"{state}"}}]}}}}"#
    );
    let request = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 1024];
    let mut length = 0;
    // The response has no body, or a short one that arrives with its head.
    while !answer[..length].windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut answer[length..]).await?;
        if count == 0 {
            return Err("the connection was closed".into());
        }
        length += count;
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&answer[..length]).into_owned().into());
    }
    Ok(())
}
