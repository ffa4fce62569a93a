//! A folder with a job, an audience and a configuration; the real binary; a provider that answers
//! by script.

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
    /// What its commands have in their environment besides.
    pub env: Vec<(String, String)>,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl World {
    /// A text job for `rows` clean recipients.
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

    /// Points the account `main` to Exotel, or what stands for it. `extra` is more of its TOML.
    pub fn write_config(&self, base_url: &str, extra: &str) {
        self.write_account("exotel", base_url, extra);
    }

    /// The same at any provider.
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

    pub fn flowcast(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// The same, while this test's own tasks go on: a provider in the process must answer.
    pub async fn run(&self, args: &[&str]) -> Ended {
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

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The number of a row in [`World::write_audience`].
pub fn phone(row: u64) -> String {
    format!("+91{}", 9_800_000_000 + row)
}

/// A text message to the audience.
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

/// [`job`] with one value changed.
pub fn job_with(pointer: &str, value: Value) -> Value {
    let mut job = job();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    job.pointer_mut(parent).unwrap()[key] = value;
    job
}

/// A sandbox in this process, and its address.
pub async fn sandbox(behaviour: Behaviour) -> (Sandbox, String) {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), behaviour).await.unwrap();
    let url = format!("http://{}", sandbox.address);
    (sandbox, url)
}

/// What a scripted provider does about a request.
pub enum Reaction {
    /// Answers with a status, more headers and a body.
    Answer(u16, &'static str, String),
    /// Takes the request and closes without an answer.
    Close,
    /// Takes the request and says nothing until the other side closes.
    Hang,
}

/// An address that refuses connections while the socket lives: it is bound, so that nobody else gets
/// its port, and does not listen.
pub fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// A provider that reacts by script. It keeps the recipients of each request.
pub struct Scripted {
    pub url: String,
    requests: Arc<Mutex<Vec<Vec<String>>>>,
    raw: Arc<Mutex<Vec<(String, String)>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// `react` is given the number of the request, from 0, and its recipients.
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

    /// Head, in small letters but for `webhook-signature`, and body of each request.
    pub fn raw(&self) -> Vec<(String, String)> {
        self.raw.lock().unwrap().clone()
    }

    /// How often each recipient was in a request.
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
        // Exotel's many messages, Kaleyra's one, Meta's one.
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
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// An answer that accepts everything.
pub fn accept(to: &[String]) -> Reaction {
    Reaction::Answer(202, "", entries(to.iter().map(|to| success(to))))
}

/// The entry of an accepted message; its SID is made of the number.
pub fn success(to: &str) -> Value {
    json!({ "code": 202, "error_data": null, "status": "success", "data": { "sid": format!("sid-{to}") } })
}

/// The entry of a refused one.
pub fn failure(code: u32, message: &str) -> Value {
    json!({ "code": code, "status": "failure", "error_data": { "code": code, "message": message, "description": "" } })
}

/// A 202 body.
pub fn entries(entries: impl Iterator<Item = Value>) -> String {
    json!({ "response": { "whatsapp": { "messages": entries.collect::<Vec<_>>() } } }).to_string()
}

/// Returns what a server on this machine says to a question, up to where it closes or falls silent.
pub fn ask(port: u16, question: &str) -> String {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut seen = Vec::new();
    if stream.write_all(question.as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut seen);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Every line of Rust below a folder of the project, with its file.
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

/// Returns the first seed of the commit that is checked out: each commit explores seeds of its own, and the same commit
/// always the same. Without git, as in a source archive, all start at zero.
pub fn first_seed_of_commit() -> u64 {
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok()).unwrap_or(0)
}
