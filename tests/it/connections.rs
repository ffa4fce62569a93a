//! Clients that hold connections and send nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use serde_json::Value;

use crate::fleet::until;
use crate::servers::free_port;
use crate::service::{Service, TOKENS};
use crate::support::{World, sandbox, send_raw};

/// A process that is killed when the test ends.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_alive(port: u16) -> bool {
    send_raw(port, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").contains("200 OK")
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_stop_no_campaign_and_lose_their_connections() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(2_000);
    let port = free_port();
    let more = format!(
        "limits = {{ messages = \"1000/s,burst=100\", requests = \"1000/s\" }}\n[audiences]\nroot = \".\"\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    world.write_config(&url, &more);
    // 200 files allow a hundred connections; the clients hold all of them.
    let worker = Command::new("bash")
        .args(["-c", "ulimit -n 200; exec \"$0\" worker --embedded", env!("CARGO_BIN_EXE_flowcast")])
        .current_dir(world.path("."))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _worker = KillOnDrop(worker);
    until("the worker", || is_alive(port)).await;
    let start = Instant::now();
    let mut idle = Vec::new();
    for nth in 0..120 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        let request = match nth % 3 {
            0 => "",
            1 => "GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
            // This body never completes, so it is read until its deadline.
            _ => {
                "POST /api/v1/campaigns HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
            }
        };
        stream.write_all(request.as_bytes()).unwrap();
        idle.push(stream);
    }
    assert!(!is_alive(port), "all connections must be in use");
    let ended = world.run(&["submit", "job.json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    until("the campaign's end", || {
        let status: Value =
            serde_json::from_str(&world.flowcast(&["status", "c1", "--json"]).out).unwrap_or_default();
        status["state"] == "completed"
    })
    .await;
    assert_eq!(sandbox.count(), 2_000);
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "the campaign must complete before a client loses its connection"
    );
    until("a free connection", || is_alive(port)).await;
    let mut closed = Vec::new();
    assert!(idle[0].read_to_end(&mut closed).is_ok(), "the worker must close the connection");
}

/// A client that is refused while it still sends gets the response and not a connection error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = bytes::Bytes::from(vec![b'['; 3 << 20]);
    for _ in 0..100 {
        for (path, status) in [("/callbacks/main/x", 404), ("/api/v1/campaigns", 401)] {
            let response =
                client.post(format!("{}{path}", service.url)).body(body.clone()).send().await.unwrap();
            assert_eq!(response.status(), status);
        }
    }
}
