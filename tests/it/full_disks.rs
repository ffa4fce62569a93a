//! Full disks of the embedded store, Redis, RabbitMQ, a worker's own files and the audience root: sending stops, the status
//! says why, and sending resumes automatically.
//!
//! Each disk is a small tmpfs. A user who may not mount one only sees that the test was skipped.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::json;

use crate::fleet::{Fleet, until};
use crate::servers::{RabbitProcess, RedisProcess, amqp_url, redis_url};
use crate::service::{Service, TOKENS};
use crate::support::{World, job, sandbox, send_raw};

/// A tmpfs of a given size.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: this user may not mount a disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk except for `left` bytes.
    ///
    /// The space is allocated in pieces: an allocation that is too large frees all of it again, and next to a server that
    /// writes, one piece of the whole size would never succeed.
    fn fill(&self, left: u64) {
        const PAGE: u64 = 4096;
        let file = std::fs::File::create(self.path().join("filler")).unwrap();
        let (mut allocated, mut piece) = (0, 1 << 20);
        loop {
            let disk = rustix::fs::statvfs(self.path()).unwrap();
            let available = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
            if available == 0 {
                return;
            }
            piece = piece.min(available);
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), allocated, piece) {
                Ok(()) => allocated += piece,
                // The server has used some of the space.
                Err(rustix::io::Errno::NOSPC) => piece = (piece / 2).max(PAGE),
                Err(error) => panic!("cannot fill the disk: {error}"),
            }
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

const ACCOUNT: &str = "limits = { messages = \"400/s,burst=10\", requests = \"1000/s\" }\nconcurrency = 4";

/// Waits until the status says why the campaign waits, and until only requests in flight were still sent.
async fn await_stop(fleet: &Fleet, sandbox: &Sandbox, why: &str) {
    until(&format!("the status to say {why:?}"), || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains(why))
    })
    .await;
    // Requests in flight end within the timeout; then nothing is sent.
    let mut last = (sandbox.count(), std::time::Instant::now());
    until("sending to stop", || {
        if sandbox.count() != last.0 {
            last = (sandbox.count(), std::time::Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(2)
    })
    .await;
}

async fn await_completion(fleet: &Fleet, sandbox: &Sandbox, rows: u64) {
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (rows, &json!(0)));
}

fn slow_job() -> serde_json::Value {
    let mut job = job();
    job["limits"] = json!({ "messages": "400/s,burst=10" });
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_embedded_store_stops_sending_until_there_is_space() {
    let Some(disk) = Disk::new(32) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet { world: World::new(4_000), redis: String::new(), amqp: String::new() };
    let store = disk.path().join("flowcast.db");
    let servers = format!(
        "{ACCOUNT}\n[store]\npath = {:?}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        store.display()
    );
    fleet.world.write_config(&url, &servers);
    fleet.world.write_job(&slow_job());
    let _worker = fleet.worker_with(&["worker", "--embedded"]);
    until("the store", || store.exists()).await;
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 500).await;
    disk.fill(1 << 20);
    await_stop(&fleet, &sandbox, "flowcast.db is full").await;
    disk.empty();
    await_completion(&fleet, &sandbox, 4_000).await;
    let log = fleet.log();
    assert!(log.contains("sending stops: the disk of") && log.contains("has free space again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_redis_stops_sending_until_there_is_space() {
    let Some(disk) = Disk::new(32) else { return };
    // With `appendfsync always`, Redis would exit when it cannot write, until it is restarted.
    let redis = RedisProcess::start(&format!(
        "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction --dir {}",
        disk.path().display()
    ));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(8_000), &redis.url(), &amqp_url(), &url, ACCOUNT);
    fleet.world.write_job(&slow_job());
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 500).await;
    disk.fill(0);
    await_stop(&fleet, &sandbox, "Redis cannot write to its disk").await;
    disk.empty();
    await_completion(&fleet, &sandbox, 8_000).await;
    let log = fleet.log();
    assert!(
        log.contains("Redis cannot write to its disk") && log.contains("Redis accepts writes again"),
        "{log}"
    );
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_at_its_maxmemory_stops_sending_until_there_is_memory() {
    let redis = RedisProcess::start("--maxmemory-policy noeviction");
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(8_000), &redis.url(), &amqp_url(), &url, ACCOUNT);
    fleet.world.write_job(&slow_job());
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 500).await;
    // Redis still serves reads.
    assert!(redis.responds("CONFIG SET maxmemory 1000000", "+OK"));
    await_stop(&fleet, &sandbox, "Redis is full: give it more memory (maxmemory)").await;
    let log = fleet.log();
    let port = log.split("http://127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let readyz = || send_raw(port, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    until("the worker not to be ready", || {
        let response = readyz();
        response.starts_with("HTTP/1.1 503") && response.contains("redis")
    })
    .await;
    assert!(redis.responds("CONFIG SET maxmemory 0", "+OK"));
    await_completion(&fleet, &sandbox, 8_000).await;
    until("the worker to be ready", || readyz().starts_with("HTTP/1.1 200")).await;
    let log = fleet.log();
    assert!(log.matches("Redis is full").count() < 5 && log.contains("Redis accepts writes again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_rabbitmq_stops_sending_until_there_is_space() {
    let Some(disk) = Disk::new(400) else { return };
    let rabbit = RabbitProcess::with_data_in(Some(disk.path()));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(12_000), &redis_url(), &rabbit.url(), &url, ACCOUNT);
    fleet.world.write_job(&slow_job());
    let _worker = fleet.worker();
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 500).await;
    // Below RabbitMQ's limit of 50 MB, which it checks every ten seconds.
    disk.fill(20 << 20);
    until("the status to say so", || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains("short of memory or disk"))
    })
    .await;
    disk.empty();
    await_completion(&fleet, &sandbox, 12_000).await;
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_a_workers_own_files_stops_sending_until_there_is_space() {
    let Some(disk) = Disk::new(4) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fast = "limits = { messages = \"1500/s,burst=10\", requests = \"1000/s\" }\nconcurrency = 4";
    let fleet = Fleet::new(20_000, &url, fast);
    let mut small = job();
    small["limits"] = json!({ "messages": "1500/s,burst=10" });
    fleet.world.write_job(&small);
    let _worker = fleet.worker_in(disk.path());
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 300).await;
    disk.fill(0);
    await_stop(&fleet, &sandbox, "cannot write the worker's journal").await;
    // A workbook is unpacked on this disk, so its job is accepted when there is space.
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    sheet.write_string(0, 0, "phone").unwrap().write_string(0, 1, "name").unwrap();
    for row in 1..2_000 {
        sheet.write_string(row, 0, format!("+91{}", 9_700_000_000_u64 + u64::from(row))).unwrap();
        sheet.write_string(row, 1, "Asha").unwrap();
    }
    book.save(fleet.world.path("people.xlsx")).unwrap();
    let mut other = job();
    other["id"] = "c2".into();
    other["audience"]["csv"]["path"] = "people.xlsx".into();
    fleet.world.write_job(&other);
    fleet.submit().await;
    until("the job to wait", || fleet.log().contains("cannot take a job now; trying again")).await;
    disk.empty();
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 20_000, "{status}");
    let status = fleet.until_state("c2", "completed").await;
    assert_eq!(status["counts"]["accepted"], 1_999, "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (21_999, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_full_disk_is_refused_and_leaves_no_partial_file() {
    let Some(disk) = Disk::new(4) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(10);
    let root = disk.path().join("audiences");
    std::fs::create_dir(&root).unwrap();
    let more = format!("[audiences]\nroot = {:?}\n", root.display());
    let service = Service::in_world(world, "", &url, TOKENS, &more).await;
    let numbers: String = (0..20_000).map(|row| format!("+91{}\n", 9_800_000_000_u64 + row)).collect();
    let upload = async || {
        let form = reqwest::multipart::Form::new().part(
            "file",
            reqwest::multipart::Part::text(format!("phone\n{numbers}")).file_name("people.csv"),
        );
        service
            .send(
                service.request(reqwest::Method::POST, "/audiences?name=people.csv", "act-1").multipart(form),
            )
            .await
    };
    disk.fill(64 << 10);
    let detail = upload().await.detail(503);
    assert!(detail.contains("cannot write the file") && detail.contains("No space left"), "{detail}");
    disk.empty();
    assert_eq!(upload().await.status, 201);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "no partial file must be left");
    drop(sandbox);
}
