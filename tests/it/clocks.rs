//! Workers whose clocks are an hour off: campaigns use the ledger's clock.

use std::time::Duration;

use flowcast::sandbox::Behaviour;
use jiff::{Timestamp, ToSpan};
use serde_json::json;

use crate::fleet::{Fleet, Worker, until};
use crate::support::{job, sandbox};

/// Starts a worker whose clock is off by a number of seconds.
fn worker(fleet: &Fleet, seconds: i64) -> Worker {
    let mut command = fleet.world.command(&["worker"]);
    shift(&mut command, seconds);
    fleet.start(command)
}

/// Shifts the wall clock that a command sees; its monotonic clock stays right.
fn shift(command: &mut std::process::Command, seconds: i64) {
    let found = std::fs::read_dir("/usr/lib").unwrap().flatten().find_map(|entry| {
        let library = entry.path().join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    });
    let library = found.expect("libfaketime is missing: apt-get install faketime");
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{seconds:+}"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
}

const ACCOUNT: &str = "limits = { messages = \"100/s,burst=10\", requests = \"1000/s\" }\nconcurrency = 4";

#[tokio::test(flavor = "multi_thread")]
async fn workers_an_hour_off_start_no_campaign_early_and_lose_no_claim() {
    let behaviour = Behaviour { latency: Duration::from_millis(200), ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    let fleet = Fleet::new(600, &url, ACCOUNT);
    let start = Timestamp::now() + 8.seconds();
    let mut early = job();
    early["schedule"] = json!({ "start_at": start.to_string() });
    early["limits"] = json!({ "messages": "100/s,burst=10" });
    fleet.world.write_job(&early);
    let _workers = [worker(&fleet, 3600), worker(&fleet, -3600)];
    fleet.submit().await;
    let mut seen = 0;
    until("the campaign's start", || {
        seen = sandbox.count();
        assert!(
            seen == 0 || Timestamp::now() >= start,
            "no message must be sent before the start, but {seen} were"
        );
        seen > 0
    })
    .await;
    // The worker that is behind starts it, too, and not an hour later.
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 600, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
    let of = |name: &str| status[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(of("started_at") >= start && of("finished_at") <= Timestamp::now() + 2.seconds(), "{status}");
    let log = fleet.log();
    assert!(log.contains("s ahead of the ledger's") && log.contains("s behind the ledger's"), "{log}");
    assert!(!log.contains("planned again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_window_is_open_for_workers_an_hour_off() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(100, &url, ACCOUNT);
    // A zone in which it is about noon, so that the window does not cross midnight.
    let hour = i64::from(Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour());
    let zone = if hour < 12 { format!("Etc/GMT-{}", 12 - hour) } else { format!("Etc/GMT+{}", hour - 12) };
    let now = Timestamp::now().in_tz(&zone).unwrap();
    let at = |minutes: i64| (&now + minutes.minutes()).strftime("%H:%M").to_string();
    let mut open = job();
    open["schedule"] = json!({ "window": { "from": at(-20), "to": at(20), "timezone": zone } });
    fleet.world.write_job(&open);
    let _workers = [worker(&fleet, 3600), worker(&fleet, -3600)];
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!(status["counts"]["accepted"], 100, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_an_hour_off_leaves_only_what_it_was_sending_in_doubt() {
    let behaviour = Behaviour { latency: Duration::from_millis(300), ..Behaviour::default() };
    let (sandbox, url) = sandbox(behaviour).await;
    let fleet = Fleet::new(1_500, &url, &format!("{ACCOUNT}\ntimeout = \"2s\""));
    let mut slow = job();
    slow["limits"] = json!({ "messages": "100/s,burst=10" });
    fleet.world.write_job(&slow);
    let mut ahead = worker(&fleet, 3600);
    fleet.submit().await;
    until("the campaign to be sending", || sandbox.count() > 100).await;
    ahead.kill();
    // Its claims expire by the ledger's clock, also for a worker that is behind.
    let _behind = worker(&fleet, -3600);
    let status = fleet.until_state("c1", "completed").await;
    let of = |state: &str| status["counts"][state].as_u64().unwrap();
    assert_eq!((of("accepted") + of("in_doubt"), of("pending")), (1_500, 0), "{status}");
    assert!(of("in_doubt") <= 40, "{status}");
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_reports_how_far_the_clocks_are_apart() {
    let (_sandbox, url) = sandbox(Behaviour::default()).await;
    let fleet = Fleet::new(1, &url, ACCOUNT);
    let mut command = fleet.world.command(&["doctor"]);
    shift(&mut command, 3600);
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(
        text.contains("s apart; campaigns use Redis' clock: run an NTP client on both machines"),
        "{text}"
    );
    assert_eq!(ended.status.code(), Some(1));
}
