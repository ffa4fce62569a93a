//! A folder with a job, an audience and a configuration; the real binary; a scripted provider.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A folder to run flowcast in.
pub struct World {
    folder: tempfile::TempDir,
    /// Additional environment variables of its commands.
    pub env: Vec<(String, String)>,
}

/// Output and exit status of a command.
#[derive(Debug)]
pub struct CommandOutput {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl World {
    /// Creates a folder with a text job for `rows` valid recipients.
    pub fn new(rows: u64) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() };
        world.write_audience(rows);
        world.write_job(&job());
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn write_job(&self, job: &Value) {
        self.write("job.json", job.to_string());
    }

    pub fn write_audience(&self, rows: u64) {
        let mut csv = String::from("phone,name\n");
        for row in 1..=rows {
            writeln!(csv, "{},name {row}", phone(row)).unwrap();
        }
        self.write("audience.csv", csv);
    }

    /// Writes a configuration whose account `main` is Exotel at `base_url`; `extra` is TOML for the account.
    pub fn write_config(&self, base_url: &str, extra: &str) {
        self.write_account("exotel", base_url, extra);
    }

    /// Writes a configuration whose account `main` is a provider at `base_url`; `extra` is TOML for the account.
    pub fn write_account(&self, provider: &str, base_url: &str, extra: &str) {
        self.write(
            "flowcast.toml",
            format!(
                "[accounts.main]\nprovider = \"{provider}\"\nbase_url = \"{base_url}\"\naccount_sid = \"acme1\"\n\
                 api_key = \"key1\"\napi_token = \"s3cr3t-token\"\n{extra}\n"
            ),
        );
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowcast"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOWCAST_")) {
            command.env_remove(name);
        }
        command.env("TMPDIR", self.folder.path()).envs(self.env.iter().cloned());
        command
    }

    pub fn flowcast(&self, args: &[&str]) -> CommandOutput {
        self.command(args).output().unwrap().into()
    }

    /// Runs a command while the tasks of the test, such as a provider in this process, continue.
    pub async fn run(&self, args: &[&str]) -> CommandOutput {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    pub fn status(&self, id: &str) -> Value {
        let ended = self.flowcast(&["status", id, "--json"]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        serde_json::from_str(&ended.out).unwrap()
    }

    pub fn report(&self, id: &str) -> Vec<Value> {
        let ended = self.flowcast(&["report", id, "--format", "jsonl"]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Returns the phone number of a row that [`World::write_audience`] writes.
pub fn phone(row: u64) -> String {
    format!("+91{}", 9_800_000_000 + row)
}

/// Returns a job with a text message to the audience.
pub fn job() -> Value {
    json!({
        "version": 1,
        "id": "c1",
        "account": "main",
        "from": "+912248931479",
        "audience": { "csv": { "path": "audience.csv" } },
        "message": { "type": "text", "text": { "body": "Hello {{ name }}" } },
    })
}

/// Returns [`job`] with one value changed.
pub fn job_with(pointer: &str, value: Value) -> Value {
    let mut job = job();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    job.pointer_mut(parent).unwrap()[key] = value;
    job
}

/// Starts a sandbox in this process and returns it with its URL.
pub async fn sandbox(behaviour: Behaviour) -> (Sandbox, String) {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), behaviour).await.unwrap();
    let url = format!("http://{}", sandbox.address);
    (sandbox, url)
}

/// Reaction of a scripted provider to a request.
pub enum Reaction {
    /// Responds with a status, additional headers and a body.
    Answer(u16, &'static str, String),
    /// Reads the request and closes the connection without a response.
    Close,
    /// Reads the request and sends nothing until the client closes the connection.
    Hang,
}

/// Returns an address that refuses connections while the socket exists.
///
/// The socket is bound, so that no other process gets its port, and does not listen.
pub fn refusing_address() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// A provider that responds by script and records the recipients of each request.
pub struct Scripted {
    pub url: String,
    requests: Arc<Mutex<Vec<Vec<String>>>>,
    raw: Arc<Mutex<Vec<(String, String)>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// Starts a provider; `react` gets the number of the request, from 0, and its recipients.
    pub async fn start(react: impl Fn(usize, &[String]) -> Reaction + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (react, seen, all) = (Arc::new(react), requests.clone(), raw.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (react, seen, all) = (react.clone(), seen.clone(), all.clone());
                tokio::spawn(async move { serve(stream, &*react, &seen, &all).await });
            }
        });
        Self { url, requests, raw, server }
    }

    pub fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns the head, in lower case except for `webhook-signature`, and the body of each request.
    pub fn raw(&self) -> Vec<(String, String)> {
        self.raw.lock().unwrap().clone()
    }

    /// Returns how often a recipient was in a request.
    pub fn times(&self, recipient: &str) -> usize {
        self.requests().iter().flatten().filter(|to| *to == recipient).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    react: &(impl Fn(usize, &[String]) -> Reaction + Send + Sync),
    seen: &Mutex<Vec<Vec<String>>>,
    raw: &Mutex<Vec<(String, String)>>,
) {
    let mut buffer = Vec::new();
    loop {
        let (head, length) = loop {
            let text = String::from_utf8_lossy(&buffer).to_lowercase();
            if let Some(end) = text.find("\r\n\r\n") {
                let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
                break (end + 4, length.map_or(0, |length| length.trim().parse().unwrap()));
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |line: &str| match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("webhook-signature") => {
                format!("{}:{value}", name.to_lowercase())
            }
            _ => line.to_lowercase(),
        };
        let top = text(&buffer[..head]).split("\r\n").map(line).collect::<Vec<_>>().join("\r\n");
        let all = text(&buffer[head..head + length]);
        let body: Value = serde_json::from_str(&all).unwrap();
        raw.lock().unwrap().push((top, all));
        buffer.drain(..head + length);
        // Exotel has many messages in a request, Kaleyra and Meta one.
        let number = |message: &Value| message["to"].as_str().unwrap_or_default().to_owned();
        let to: Vec<String> = match &body["whatsapp"]["messages"] {
            Value::Array(messages) => messages.iter().map(number).collect(),
            _ => vec![number(body.get("messaging_object").unwrap_or(&body))],
        };
        let nth = {
            let mut seen = seen.lock().unwrap();
            seen.push(to.clone());
            seen.len() - 1
        };
        match react(nth, &to) {
            Reaction::Close => return,
            Reaction::Hang => {
                let _ = stream.read_buf(&mut buffer).await;
                return;
            }
            Reaction::Answer(status, headers, body) => {
                let response =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
                if stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Returns a response that accepts every message.
pub fn accept(to: &[String]) -> Reaction {
    Reaction::Answer(202, "", entries(to.iter().map(|to| success(to))))
}

/// Returns the entry of an accepted message; its SID contains the number.
pub fn success(to: &str) -> Value {
    json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": format!("sid-{to}") } })
}

/// Returns the entry of a rejected message.
pub fn failure(code: u32, message: &str) -> Value {
    json!({ "code": code, "status": "failure", "error_data": { "code": code, "message": message, "description": "" } })
}

/// Returns the body of a 202 response.
pub fn entries(entries: impl Iterator<Item = Value>) -> String {
    json!({ "response": { "whatsapp": { "messages": entries.collect::<Vec<_>>() } } }).to_string()
}

/// Sends text to a local server and returns the response.
///
/// The response ends when the server closes the connection or sends nothing for a second.
pub fn send_raw(port: u16, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut seen = Vec::new();
    if stream.write_all(request.as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut seen);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Returns the path and text of every Rust file below a folder of the project.
pub fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Returns the first seed of the commit that is checked out.
///
/// Each commit explores other seeds, and the same commit always the same. Without git, e.g. in a source archive, the
/// first seed is 0.
pub fn first_seed_of_commit() -> u64 {
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok()).unwrap_or(0)
}
