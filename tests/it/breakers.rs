//! Campaigns that one breaker holds together (of an account, a sender number or a flow), or that are slowed with a flow.

use flowcast::sandbox::{Behaviour, Sandbox};
use serde_json::{Value, json};

use crate::fleet::{Fleet, until};
use crate::jobs::{listen, next_event};
use crate::servers::{amqp_url, redis_url};
use crate::support::{Reaction, Scripted, World, accept, entries, failure, job, job_with, phone, sandbox};

const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 4";

/// Returns a fleet that sends to a provider, and the sandbox that simulates the provider.
async fn fleet(provider: &str, rows: u64, faults: &[(&'static str, f64)]) -> (Fleet, Sandbox) {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    sandbox.set_faults(faults.iter().copied());
    let fleet = Fleet { world: World::new(rows), redis: redis_url(), amqp: amqp_url() };
    fleet.configure_at(provider, &url, FAST);
    (fleet, sandbox)
}

async fn submit(fleet: &Fleet, id: &str, message: Option<Value>) {
    let mut job = message.map_or_else(job, |message| job_with("/message", message));
    job["id"] = json!(id);
    fleet.world.write_job(&job);
    fleet.submit().await;
}

fn flow_message(id: &str) -> Value {
    json!({ "type": "interactive", "interactive": { "type": "flow", "body": { "text": "Hello {{ name }}" },
        "action": { "name": "flow", "parameters": {
            "flow_message_version": "3", "flow_id": id, "flow_token": "t", "flow_cta": "Go",
            "flow_action": "data_exchange" } } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_balance_holds_its_campaigns_and_releases_them_automatically() {
    let (fleet, sandbox) = fleet("kaleyra", 500, &[("E110", 1.0)]).await;
    let mut events = listen(&fleet, &["account.#"]).await;
    let _workers = [fleet.worker(), fleet.worker()];
    submit(&fleet, "c1", None).await;
    let status = fleet.until_state("c1", "held").await;
    submit(&fleet, "c2", None).await;
    let second = fleet.until_state("c2", "held").await;
    for status in [status, second] {
        let reason = status["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("account main is held until a probe request succeeds: HTTP 400: E110"),
            "{reason}"
        );
        assert!(reason.contains("top up the account"), "{reason}");
        assert_eq!(status["counts"]["rejected"], 0);
    }
    // The first probes come after five and after ten more seconds, with one request each.
    let requests = || sandbox.stats()["requests"].as_u64().unwrap();
    let before = requests();
    assert!(before <= 20, "only the requests in flight must be sent: {before}");
    until("the second probe", || requests() >= before + 2).await;
    assert_eq!((requests(), fleet.status("c1")["state"].clone()), (before + 2, json!("held")));
    sandbox.set_faults([]);
    for id in ["c1", "c2"] {
        let status = fleet.until_state(id, "completed").await;
        assert_eq!(status["counts"]["accepted"], 500, "{status}");
    }
    let stats = sandbox.stats();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(1000), &json!(0)), "{stats}");
    assert!(fleet.log().contains("breaker closed"));
    assert_eq!(next_event(&mut events).await["event"], "account.held");
    assert_eq!(next_event(&mut events).await["event"], "account.released");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_plan_in_the_entries_rejects_no_recipient() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let is_renewed = Arc::new(AtomicBool::new(false));
    let renewed = is_renewed.clone();
    // From the third batch on, each entry of a 202 says that the plan is exhausted.
    let provider = Scripted::start(move |nth, to| {
        if nth < 2 || renewed.load(Ordering::Relaxed) {
            return accept(to);
        }
        Reaction::Answer(202, "", entries(to.iter().map(|_| failure(402, "plan exhausted"))))
    })
    .await;
    let fleet = Fleet { world: World::new(1_000), redis: redis_url(), amqp: amqp_url() };
    fleet.configure(
        &provider.url,
        "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 1",
    );
    let _worker = fleet.worker();
    submit(&fleet, "c1", None).await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("account main is held") && reason.contains("402: plan exhausted"), "{reason}");
    // Except while a probe is in flight.
    let all_others_wait = || {
        let counts = &fleet.status("c1")["counts"];
        (&counts["accepted"], &counts["pending"]) == (&json!(200), &json!(800))
    };
    until("all but the first two batches to wait", all_others_wait).await;
    is_renewed.store(true, Ordering::Relaxed);
    let counts = fleet.until_state("c1", "completed").await["counts"].clone();
    assert_eq!((&counts["accepted"], &counts["rejected"]), (&json!(1000), &json!(0)), "{counts}");
    // Each recipient of a failed request is in another request; none was accepted twice.
    let requested = provider.requests().iter().map(Vec::len).sum::<usize>();
    let failed = requested - 1_000;
    assert_eq!(failed % 100, 0, "{requested}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_sender_number_holds_only_the_campaigns_that_use_it() {
    // The campaign for the first ten rows uses a sender number that is not the account's.
    let provider = Scripted::start(|_, to| {
        let is_mistyped = (1..=10).any(|row| to[0] == phone(row));
        let (status, body) = if is_mistyped {
            let text = "Phone number is not present or does not belong to the account.";
            (401, json!({ "code": "WA401", "message": "Unauthorized", "data": {}, "error": { "phone_number": text } }))
        } else {
            let data = json!({ "message_id": format!("sid-{}", to[0]) });
            (202, json!({ "code": "WA202", "message": "Request Accepted", "data": data, "error": {} }))
        };
        Reaction::Answer(status, "", body.to_string())
    })
    .await;
    let fleet = Fleet { world: World::new(10), redis: redis_url(), amqp: amqp_url() };
    fleet.configure_at("kaleyra", &provider.url, FAST);
    let mut events = listen(&fleet, &["sender.#"]).await;
    let _worker = fleet.worker();
    let mut mistyped = job();
    mistyped["from"] = json!("+912248931470");
    fleet.world.write_job(&mistyped);
    fleet.submit().await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("sender number +912248931470 of account main is held"), "{reason}");
    // The reason names the invalid field.
    assert!(reason.contains("phone_number: Phone number is not present"), "{reason}");
    let event = next_event(&mut events).await;
    assert_eq!((&event["event"], &event["from"]), (&json!("sender.held"), &json!("+912248931470")));
    let recipients: String = (100..400).map(|row| format!("{},x\n", phone(row))).collect();
    fleet.world.write("audience.csv", format!("phone,name\n{recipients}"));
    submit(&fleet, "c2", None).await;
    assert_eq!(fleet.until_state("c2", "completed").await["counts"]["accepted"], 300);
    // All of them wait, except while a probe is in flight.
    until("all messages to wait", || fleet.status("c1")["counts"]["pending"] == 10).await;
    assert_eq!(fleet.status("c1")["counts"]["rejected"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_may_not_send_flows_still_sends_text() {
    // The campaign for the first ten rows sends a flow.
    let provider = Scripted::start(|_, to| {
        if (1..=10).any(|row| to[0] == phone(row)) {
            let body = json!({ "http_code": 403, "response": { "message": "Flows not enabled on WABA" } });
            return Reaction::Answer(403, "", body.to_string());
        }
        accept(to)
    })
    .await;
    let fleet = Fleet { world: World::new(10), redis: redis_url(), amqp: amqp_url() };
    fleet.configure(&provider.url, FAST);
    let _worker = fleet.worker();
    submit(&fleet, "c1", Some(flow_message("1323"))).await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("every flow from +912248931479 of account main is held"), "{reason}");
    let recipients: String = (100..400).map(|row| format!("{},x\n", phone(row))).collect();
    fleet.world.write("audience.csv", format!("phone,name\n{recipients}"));
    submit(&fleet, "c2", None).await;
    assert_eq!(fleet.until_state("c2", "completed").await["counts"]["accepted"], 300);
    // Another flow, to the recipients for whom the provider refuses it: the probe may belong to either campaign.
    let recipients: String = (1..=10).map(|row| format!("{},x\n", phone(row))).collect();
    fleet.world.write("audience.csv", format!("phone,name\n{recipients}"));
    submit(&fleet, "c3", Some(flow_message("1400"))).await;
    fleet.until_state("c3", "held").await;
    // All of them wait, except while a probe is in flight.
    until("all messages to wait", || fleet.status("c3")["counts"]["pending"] == 10).await;
    assert_eq!(fleet.status("c3")["counts"]["rejected"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_releases_an_account_immediately() {
    let (fleet, sandbox) = fleet("exotel", 300, &[("401", 1.0)]).await;
    let mut events = listen(&fleet, &["account.#", "campaign.held"]).await;
    let _worker = fleet.worker();
    for id in ["c1", "c2"] {
        submit(&fleet, id, None).await;
    }
    for id in ["c1", "c2"] {
        let status = fleet.until_state(id, "held").await;
        assert!(status["reason"].as_str().unwrap().contains("check the credentials"), "{status}");
    }
    // One event for the account, and one for each of its campaigns.
    let mut names = Vec::new();
    for _ in 0..3 {
        let event = next_event(&mut events).await;
        assert!(event["reason"].as_str().unwrap().contains("check the credentials"), "{event}");
        names.push(event["event"].as_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["account.held", "campaign.held", "campaign.held"]);
    sandbox.set_faults([]);
    fleet.ok(&["resume", "c2"]).await;
    for id in ["c1", "c2"] {
        assert_eq!(fleet.until_state(id, "completed").await["counts"]["accepted"], 300);
    }
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_campaign_stays_paused_when_its_account_is_released() {
    let (fleet, sandbox) = fleet("exotel", 300, &[("402", 1.0)]).await;
    let _worker = fleet.worker();
    submit(&fleet, "c1", None).await;
    submit(&fleet, "c2", None).await;
    fleet.until_state("c1", "held").await;
    fleet.ok(&["pause", "c1"]).await;
    sandbox.set_faults([]);
    fleet.until_state("c2", "completed").await;
    assert_eq!((fleet.status("c1")["state"].clone(), sandbox.count()), (json!("paused"), 300));
    fleet.ok(&["resume", "c1"]).await;
    fleet.until_state("c1", "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_worker_holds_and_releases_an_account_too() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    sandbox.set_faults([("402", 1.0)]);
    let fleet = Fleet { world: World::new(300), redis: String::new(), amqp: String::new() };
    let more = format!("{FAST}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    fleet.world.write_config(&url, &more);
    let _worker = fleet.worker_with(&["worker", "--embedded"]);
    until("the store", || fleet.world.path("flowcast.db").exists()).await;
    for id in ["c1", "c2"] {
        submit(&fleet, id, None).await;
    }
    fleet.until_state("c1", "held").await;
    fleet.until_state("c2", "held").await;
    sandbox.set_faults([]);
    for id in ["c1", "c2"] {
        assert_eq!(fleet.until_state(id, "completed").await["counts"]["accepted"], 300);
    }
    assert_eq!(sandbox.stats()["sent_twice"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_flow_holds_only_the_campaigns_that_use_it() {
    let (fleet, sandbox) = fleet("exotel", 100, &[("132068", 1.0)]).await;
    let _worker = fleet.worker();
    submit(&fleet, "c1", Some(flow_message("f1"))).await;
    let status = fleet.until_state("c1", "held").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("flow f1 of account main is held: 132068"), "{reason}");
    assert_eq!((&status["counts"]["pending"], &status["counts"]["rejected"]), (&json!(100), &json!(0)));
    sandbox.set_faults([]);
    submit(&fleet, "text", None).await;
    submit(&fleet, "other", Some(flow_message("f2"))).await;
    submit(&fleet, "c2", Some(flow_message("f1"))).await;
    fleet.until_state("text", "completed").await;
    fleet.until_state("other", "completed").await;
    fleet.until_state("c2", "held").await;
    assert_eq!((sandbox.count(), fleet.status("c2")["counts"]["accepted"].clone()), (200, json!(0)));
    // Only an operator releases it: the documents call this state final.
    fleet.ok(&["resume", "c1"]).await;
    fleet.until_state("c1", "completed").await;
    fleet.until_state("c2", "completed").await;
    assert_eq!((sandbox.count(), sandbox.stats()["sent_twice"].clone()), (400, json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_flow_slows_only_the_campaigns_that_use_it() {
    let (fleet, sandbox) = fleet("exotel", 100, &[("132069", 1.0)]).await;
    let mut events = listen(&fleet, &["flow.#"]).await;
    let _worker = fleet.worker();
    submit(&fleet, "c1", Some(flow_message("f1"))).await;
    until("the flow to be slowed", || {
        fleet.status("c1")["reason"].as_str().is_some_and(|reason| reason.contains("flow f1 is throttled"))
    })
    .await;
    assert_eq!(fleet.status("c1")["counts"]["rejected"], 0);
    sandbox.set_faults([]);
    // Messages that already waited for a permit go out one by one; the next one of either campaign is due in six minutes.
    submit(&fleet, "c2", Some(flow_message("f1"))).await;
    submit(&fleet, "text", None).await;
    fleet.until_state("text", "completed").await;
    until("both campaigns to wait", || {
        ["c1", "c2"].iter().all(|id| {
            let status = fleet.status(id);
            status["state"] == "running"
                && status["reason"].as_str().is_some_and(|reason| reason.contains("waits for its limits"))
        })
    })
    .await;
    assert!(sandbox.count() <= 101, "{}", sandbox.count());
    let event = next_event(&mut events).await;
    assert_eq!((&event["event"], &event["flow"]), (&json!("flow.throttled"), &json!("f1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_forgiven_by_a_resume_do_not_hold_the_campaign_again() {
    let (fleet, sandbox) = fleet("exotel", 2_000, &[("131026", 0.5)]).await;
    let _worker = fleet.worker();
    let mut job = job_with("/stop_when", json!({ "rejected_percent": 20, "after": 300 }));
    job["id"] = json!("c1");
    fleet.world.write_job(&job);
    fleet.submit().await;
    let status = fleet.until_state("c1", "held").await;
    assert!(status["reason"].as_str().unwrap().contains("the limit in stop_when is 20 %"), "{status}");
    // Messages still in flight are rejected at the same rate; a resume after that forgives them, too.
    until("nothing to be in flight", || fleet.status("c1")["counts"]["sending"] == 0).await;
    let status = fleet.status("c1");
    let rejected = status["counts"]["rejected"].as_u64().unwrap();
    // At most the messages that were in flight when the limit was reached.
    assert!(rejected <= 700, "{status}");
    sandbox.set_faults([("131026", 0.1)]);
    fleet.ok(&["resume", "c1"]).await;
    let status = fleet.until_state("c1", "completed").await;
    assert!(status["counts"]["rejected"].as_u64().unwrap() > rejected);
}
