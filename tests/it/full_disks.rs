//! Disks that are full: under the embedded store, Redis, RabbitMQ, a worker's own files and the audience root.
//! Sending stops, it is said why, and it goes on by itself.
//!
//! Each disk is a small one in memory. Who may not mount one is told that nothing was shown.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::json;

use crate::fleet::{Fleet, until};
use crate::servers::{RabbitProcess, RedisProcess, amqp_url, redis_url};
use crate::service::{Service, TOKENS};
use crate::support::{World, ask, job, sandbox};

/// A disk of so many MiB.
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
        eprintln!("not shown: this user may not mount a disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves so many bytes of it.
    ///
    /// It is taken in pieces: an allocation that finds less than it asks for gives all of it back, and beside a
    /// server that writes, one piece of the whole would be asked for in vain for ever.
    fn fill(&self, left: u64) {
        const PAGE: u64 = 4096;
        let file = std::fs::File::create(self.path().join("filler")).unwrap();
        let (mut taken, mut piece) = (0, 1 << 20);
        loop {
            let disk = rustix::fs::statvfs(self.path()).unwrap();
            let room = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
            if room == 0 {
                return;
            }
            piece = piece.min(room);
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                // Somebody has taken some of it meanwhile.
                Err(rustix::io::Errno::NOSPC) => piece = (piece / 2).max(PAGE),
                Err(error) => panic!("the disk can't be filled: {error}"),
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

/// The campaign says why it waits, and what was under way is all that still goes out.
async fn stops(fleet: &Fleet, sandbox: &Sandbox, why: &str) {
    until(&format!("the status to say {why:?}"), || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains(why))
    })
    .await;
    // What was under way ends within a request's time; then nothing goes out.
    let mut last = (sandbox.count(), std::time::Instant::now());
    until("sending to stop", || {
        if sandbox.count() != last.0 {
            last = (sandbox.count(), std::time::Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(2)
    })
    .await;
}

async fn completes(fleet: &Fleet, sandbox: &Sandbox, rows: u64) {
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], rows, "{status}");
    assert_eq!((sandbox.count(), &sandbox.stats()["sent_twice"]), (rows, &json!(0)));
}

fn slow() -> serde_json::Value {
    let mut slow = job();
    slow["limits"] = json!({ "messages": "400/s,burst=10" });
    slow
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_embedded_store() {
    let Some(disk) = Disk::new(32) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet { world: World::new(4_000), redis: String::new(), amqp: String::new() };
    let store = disk.path().join("flowcast.db");
    let servers = format!(
        "{ACCOUNT}\n[store]\npath = {:?}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        store.display()
    );
    fleet.world.write_config(&url, &servers);
    fleet.world.write_job(&slow());
    let _worker = fleet.worker_with(&["worker", "--embedded"]);
    until("the store", || store.exists()).await;
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 500).await;
    disk.fill(1 << 20);
    stops(&fleet, &sandbox, "flowcast.db is full").await;
    disk.empty();
    completes(&fleet, &sandbox, 4_000).await;
    let log = fleet.log();
    assert!(log.contains("sending stops: the disk of") && log.contains("has free space again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_redis() {
    let Some(disk) = Disk::new(32) else { return };
    // With `always` Redis ends itself where it can't write, and comes back when it is started again.
    let redis = RedisProcess::start(&format!(
        "--appendonly yes --appendfsync everysec --maxmemory-policy noeviction --dir {}",
        disk.path().display()
    ));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(8_000), &redis.url(), &amqp_url(), &url, ACCOUNT);
    fleet.world.write_job(&slow());
    let _workers = [fleet.worker(), fleet.worker()];
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 500).await;
    disk.fill(0);
    stops(&fleet, &sandbox, "Redis cannot write to its disk").await;
    disk.empty();
    completes(&fleet, &sandbox, 8_000).await;
    let log = fleet.log();
    assert!(
        log.contains("Redis cannot write to its disk") && log.contains("Redis accepts writes again"),
        "{log}"
    );
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_at_its_maxmemory() {
    let redis = RedisProcess::start("--maxmemory-policy noeviction");
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(8_000), &redis.url(), &amqp_url(), &url, ACCOUNT);
    fleet.world.write_job(&slow());
    let _worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 500).await;
    // It answers all who only look.
    assert!(redis.says("CONFIG SET maxmemory 1000000", "+OK"));
    stops(&fleet, &sandbox, "Redis is full: give it more memory (maxmemory)").await;
    let log = fleet.log();
    let port = log.split("http://127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let readyz = || ask(port, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    until("the worker to be not ready", || {
        let said = readyz();
        said.starts_with("HTTP/1.1 503") && said.contains("redis")
    })
    .await;
    assert!(redis.says("CONFIG SET maxmemory 0", "+OK"));
    completes(&fleet, &sandbox, 8_000).await;
    until("the worker to be ready", || readyz().starts_with("HTTP/1.1 200")).await;
    let log = fleet.log();
    assert!(log.matches("Redis is full").count() < 5 && log.contains("Redis accepts writes again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_rabbitmq() {
    let Some(disk) = Disk::new(400) else { return };
    let rabbit = RabbitProcess::with_data_in(Some(disk.path()));
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::on(World::new(12_000), &redis_url(), &rabbit.url(), &url, ACCOUNT);
    fleet.world.write_job(&slow());
    let _worker = fleet.worker();
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 500).await;
    // Below its own limit of 50 MB: it looks every ten seconds.
    disk.fill(20 << 20);
    until("the status to say so", || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains("short of memory or disk"))
    })
    .await;
    disk.empty();
    completes(&fleet, &sandbox, 12_000).await;
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_workers_own_files() {
    let Some(disk) = Disk::new(4) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fast = "limits = { messages = \"1500/s,burst=10\", requests = \"1000/s\" }\nconcurrency = 4";
    let fleet = Fleet::new(20_000, &url, fast);
    let mut small = job();
    small["limits"] = json!({ "messages": "1500/s,burst=10" });
    fleet.world.write_job(&small);
    let _worker = fleet.worker_in(disk.path());
    fleet.submit().await;
    until("it to be on its way", || sandbox.count() > 300).await;
    disk.fill(0);
    stops(&fleet, &sandbox, "cannot write the worker's journal").await;
    // A workbook is unpacked there: it is taken when there is room.
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
async fn under_the_audience_root() {
    let Some(disk) = Disk::new(4) else { return };
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let world = World::new(10);
    let root = disk.path().join("audiences");
    std::fs::create_dir(&root).unwrap();
    let more = format!("[audiences]\nroot = {:?}\n", root.display());
    let service = Service::in_world(world, "", &url, TOKENS, &more).await;
    let people: String = (0..20_000).map(|row| format!("+91{}\n", 9_800_000_000_u64 + row)).collect();
    let upload = async || {
        let form = reqwest::multipart::Form::new()
            .part("file", reqwest::multipart::Part::text(format!("phone\n{people}")).file_name("people.csv"));
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
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "nothing half is left");
    drop(sandbox);
}
