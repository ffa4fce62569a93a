//! The API as other systems call it: with real workers, on the fleet's ledger and on the embedded one.

use std::collections::BTreeMap;
use std::time::Duration;

use flowcast::sandbox::Behaviour;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::until;
use crate::schemas::assert_genuine;
use crate::servers::RedisProcess;
use crate::service::{FAST, Service, TOKENS};
use crate::support::{Reaction, Scripted, job, job_with, sandbox};
use crate::tools;

/// An audience of three rows, two of them with the same number.
const ROWS: &str = "phone,name\n+919876543210,Asha\n+919876543211,=1+1\n+919876543210,Asha\n";

async fn run_a_campaign_through_the_api(is_embedded: bool) {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(is_embedded, &provider, TOKENS).await;
    upload_audiences(&service).await;
    check_and_submit_jobs(&service).await;
    compare_results_with_the_command_line(&service).await;
    control_the_campaign_and_read_the_audit_log(&service).await;
    call_the_remaining_routes(&service).await;
}

async fn upload_audiences(service: &Service) {
    let upload = |name: &str, bytes: &'static str| {
        service.send(service.request(Method::POST, &format!("/audiences?name={name}"), "act-1").body(bytes))
    };
    let created = upload("people.csv", ROWS).await;
    assert_eq!(created.status, 201, "{created:?}");
    let expected =
        json!({ "path": "people.csv", "bytes": ROWS.len(), "rows": 3, "columns": ["phone", "name"] });
    assert_eq!(created.json(), expected);
    assert_eq!(upload("people.csv", ROWS).await.status, 200);
    assert!(upload("people.csv", "phone\n+919876543212\n").await.detail(409).contains("another file"));
    assert!(upload("bad.csv", "phone,name\n+91987,\"x\n").await.detail(422).contains("line 2"));
    assert!(upload("", ROWS).await.detail(400).contains("name"));
    for name in ["..%2Fx.csv", "a%2Fb.csv", ".x.csv", "x.txt"] {
        upload(name, ROWS).await.detail(422);
    }
    let form = reqwest::multipart::Form::new()
        .part("file", reqwest::multipart::Part::bytes(ROWS.as_bytes()).file_name("x"));
    let created = service.request(Method::POST, "/audiences?name=form.csv", "act-1").multipart(form);
    assert_eq!(service.send(created).await.status, 201);
    let files = service.get("/audiences").await.json();
    let names: Vec<&str> =
        files["items"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert!(names.contains(&"people.csv") && names.contains(&"form.csv"), "{files}");
}

async fn check_and_submit_jobs(service: &Service) {
    let mut job = job_with("/audience", json!({ "csv": { "path": "people.csv" } }));
    job["id"] = "api-1".into();
    let checked = service.post("/campaigns?check=true", &job).await;
    assert_eq!(
        (checked.status.as_u16(), checked.json()["recipients"].as_u64()),
        (200, Some(2)),
        "{checked:?}"
    );
    service.get("/campaigns/api-1").await.detail(404);
    let mut invalid = job.clone();
    invalid["acount"] = "x".into();
    let refused = service.post("/campaigns", &invalid).await;
    refused.detail(422);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/acount", "{refused:?}");
    let mut invalid = job.clone();
    invalid["audience"]["csv"]["path"] = "../../etc/passwd".into();
    assert!(service.post("/campaigns", &invalid).await.detail(422).contains("is outside the audience root"));
    service.send(service.request(Method::POST, "/campaigns", "act-1").body("{")).await.detail(422);
    let response = service.request(Method::POST, "/campaigns", "act-1").json(&job).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (201, &"/api/v1/campaigns/api-1".parse().unwrap())
    );
    let resubmitted = service.post("/campaigns", &job).await;
    assert_eq!((resubmitted.status.as_u16(), resubmitted.json()["id"].as_str()), (200, Some("api-1")));
    let mut other = job.clone();
    other["name"] = "Another".into();
    service.post("/campaigns", &other).await.detail(409);
}

async fn compare_results_with_the_command_line(service: &Service) {
    let status = service.until_state("api-1", "completed").await;
    assert_eq!(
        (status["counts"]["accepted"].as_u64(), status["skipped"]["duplicate"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(
        (&status["created_by"], &status["account"], &status["sandbox"]),
        (&"marketing".into(), &"main".into(), &false.into())
    );
    let world = &service.fleet.world;
    let shown: Value = serde_json::from_str(&world.flowcast(&["status", "api-1", "--json"]).out).unwrap();
    assert_eq!(shown, service.get("/campaigns/api-1").await.json());
    let csv = service.get("/campaigns/api-1/report.csv").await;
    assert_eq!(
        (csv.kind.as_str(), csv.text),
        ("text/csv; charset=utf-8", world.flowcast(&["report", "api-1"]).out)
    );
    let lines = service.get("/campaigns/api-1/report.jsonl?state=skipped").await;
    assert_eq!(
        lines.text,
        world.flowcast(&["report", "api-1", "--format", "jsonl", "--state", "skipped"]).out
    );
    assert_eq!(lines.text.lines().count(), 1);
    let replies = service.get("/campaigns/api-1/responses.csv").await;
    assert_eq!(replies.text, world.flowcast(&["responses", "api-1"]).out);
    let events = service.get("/campaigns/api-1/events").await;
    assert_eq!(events.kind, "text/event-stream");
    assert!(events.text.starts_with("event: status\ndata: {\"id\":\"api-1\""), "{events:?}");
}

async fn control_the_campaign_and_read_the_audit_log(service: &Service) {
    service.post("/campaigns/api-1/pause", &Value::Null).await.detail(409);
    assert_eq!(service.post("/campaigns/api-1/retry", &json!({})).await.json(), json!({ "messages": 0 }));
    let retried = service.send(service.request(Method::POST, "/campaigns/api-1/retry", "act-1")).await;
    assert_eq!(retried.json(), json!({ "messages": 0 }));
    assert_eq!(service.post("/campaigns/api-1/retry", &Value::Null).await.status, 200);
    service.post("/campaigns/api-1/retry", &json!({ "code": [] })).await.detail(422);
    service.post("/campaigns/api-1/resolve", &json!({})).await.detail(422);
    let resolved =
        service.post("/campaigns/api-1/resolve", &json!({ "resend": false, "older_than": "2h" })).await;
    assert_eq!(resolved.json(), json!({ "messages": 0 }));
    let audit = service.get("/audit?campaign=api-1").await.json();
    let actions: Vec<_> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["who"].as_str(), entry["what"].as_str()))
        .collect();
    let actor = Some("marketing");
    assert_eq!(actions, ["resolve", "retry", "retry", "retry", "submit"].map(|action| (actor, Some(action))));
    assert!(service.get("/audit?limit=2").await.json()["next"].is_string());
    service.get("/audit?cursor=zz").await.detail(400);
}

async fn call_the_remaining_routes(service: &Service) {
    let added = service.post("/suppressed", &json!({ "numbers": ["+919876500001", "+919876500002"] })).await;
    // Another test may have added them on the shared servers.
    assert!(added.json()["added"].as_u64() <= Some(2), "{added:?}");
    service.post("/suppressed", &json!({ "numbers": ["12"] })).await.detail(422);
    let mut cursor = String::new();
    let mut numbers = Vec::new();
    loop {
        let page = service.get(&format!("/suppressed?limit=1{cursor}")).await.json();
        numbers.extend(page["items"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(numbers.contains(&"+919876500001".into()) && numbers.is_sorted(), "{numbers:?}");
    for number in ["+919876500001", "%2B919876500002"] {
        let removed = service.request(Method::DELETE, &format!("/suppressed/{number}"), "act-1");
        assert_eq!(service.send(removed).await.status, 204);
    }
    let accounts = service.get("/accounts").await;
    let account = accounts.json()["items"][0].clone();
    assert_eq!((&account["name"], &account["provider"]), (&"main".into(), &"exotel".into()));
    assert_eq!(account["limits"]["messages"], "100000/s");
    for secret in ["key1", "s3cr3t-token", "look-1", "act-1"] {
        assert!(!accounts.text.contains(secret), "{accounts:?}");
    }
    assert_eq!(service.get("/codes/131026").await.json()[0]["code"], "131026");
    assert!(service.get("/codes/13102").await.detail(404).contains("did you mean"));
    assert!(service.get("/codes").await.json().as_array().unwrap().len() > 100);
    service.get("/nothing").await.detail(404);
    // The contract says that a parameter without a value is ignored.
    assert_eq!(service.get("/campaigns?state=&q=&limit=&cursor=").await.status, 200);
    service.post("/suppressed", &json!({})).await.detail(422);
    service.get("/campaigns?limit=0").await.detail(400);
    service.get("/campaigns?state=odd").await.detail(400);
    service.get("/campaigns?cursor=odd").await.detail(400);
    service.get("/openapi.json?x=1").await.detail(400);
    // The error is our own text, not a library's.
    for path in ["/campaigns?state=odd", "/campaigns?limit=many", "/campaigns?limit=1&limit=2"] {
        let detail = service.get(path).await.detail(400);
        assert!(detail.starts_with("cannot read the query: ") && !detail.contains("eserialize"), "{detail}");
    }
    let refused = service.request(Method::PUT, "/campaigns", "act-1").send().await.unwrap();
    assert_eq!(refused.headers()["allow"], "POST,GET,HEAD");
    service.send(service.request(Method::PUT, "/campaigns", "act-1")).await.detail(405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_runs_through_the_api_on_the_embedded_store() {
    run_a_campaign_through_the_api(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_runs_through_the_api_on_a_fleet() {
    run_a_campaign_through_the_api(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_requires_a_token_and_its_role() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let document = service.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "none").replace("{number}", "+919876500009").replace("{code}", "500");
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let ask = async |token: &str| service.send(service.request(method.clone(), &path, token)).await;
            ask("").await.detail(401);
            ask("look-2").await.detail(401);
            let as_viewer = ask("look-1").await;
            if method == Method::GET {
                assert!(![401, 403].contains(&as_viewer.status.as_u16()), "{path}: {as_viewer:?}");
            } else {
                assert!(as_viewer.detail(403).contains("operator"));
            }
            let as_operator = ask("act-1").await;
            assert!(![401, 403].contains(&as_operator.status.as_u16()), "{path}: {as_operator:?}");
            assert!(as_operator.status.as_u16() < 500, "{path}: {as_operator:?}");
            checked += 1;
        }
    }
    assert!(checked >= 19, "{checked}");
    // These need no token.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.client.get(format!("{}{path}", service.url)).send().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_requests_from_other_sites_change_nothing() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, "").await;
    let list = || service.request(Method::GET, "/campaigns", "");
    assert_eq!(service.send(list()).await.status, 200);
    service.send(list().header("host", "evil.example")).await.detail(403);
    let submit = |headers: &[(&'static str, &'static str)]| {
        let request = service.request(Method::POST, "/campaigns", "").json(&job());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    service.send(submit(&[("origin", "https://evil.example")])).await.detail(403);
    service.send(submit(&[("sec-fetch-site", "cross-site")])).await.detail(403);
    assert_eq!(service.send(list()).await.json()["items"], json!([]));
    assert_eq!(service.send(submit(&[])).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_pages_stay_consistent_and_events_follow_a_campaign() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let submit = async |id: &str, start_at: &str| {
        let mut job = job();
        job["id"] = id.into();
        job["audience"] = json!({ "recipients": [{ "phone": "+919876543210", "name": "Asha" }] });
        if !start_at.is_empty() {
            job["schedule"] = json!({ "start_at": start_at });
        }
        assert_eq!(service.post("/campaigns", &job).await.status, 201);
    };
    for nth in 0..7 {
        submit(&format!("wait-{nth}"), "2099-01-01T09:00:00Z").await;
    }
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = service.get("/campaigns?limit=3").await.json();
    submit("wait-7", "2099-01-01T09:00:00Z").await;
    let next = first["next"].as_str().unwrap();
    let second = service.get(&format!("/campaigns?limit=200&cursor={next}")).await.json();
    assert_eq!(ids(&first), ["wait-6", "wait-5", "wait-4"]);
    assert_eq!(
        (ids(&second), &second["next"]),
        (["wait-3", "wait-2", "wait-1", "wait-0"].map(str::to_owned).into(), &Value::Null)
    );
    assert_eq!(ids(&service.get("/campaigns?q=WAIT-3&state=scheduled").await.json()), ["wait-3"]);

    // Many clients follow one campaign while an operator pauses, resumes and cancels it.
    let all_connected = tokio::sync::Barrier::new(51);
    let follow = || async {
        let mut response =
            service.request(Method::GET, "/campaigns/wait-0/events", "look-1").send().await.unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        let mut text = std::str::from_utf8(&first).unwrap().to_owned();
        all_connected.wait().await;
        while let Some(chunk) = response.chunk().await.unwrap() {
            text += std::str::from_utf8(&chunk).unwrap();
        }
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str::<Value>(json).unwrap()["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // The operator follows the events, too, and waits for each change before the next action.
    let operate = async {
        all_connected.wait().await;
        let events = service.request(Method::GET, "/campaigns/wait-0/events", "look-1");
        let mut events = events.send().await.unwrap();
        for action in ["pause", "resume", "cancel"] {
            assert!(events.chunk().await.unwrap().unwrap().starts_with(b"event: status"));
            assert_eq!(service.post(&format!("/campaigns/wait-0/{action}"), &Value::Null).await.status, 200);
        }
    };
    let (seen, ()) = tokio::join!(join_all((0..50).map(|_| follow())), operate);
    for states in seen {
        assert_eq!(states.first().map(String::as_str), Some("scheduled"));
        assert_eq!(states.last().map(String::as_str), Some("cancelled"));
        assert!(states.contains(&"paused".into()), "{states:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_and_interrupted_uploads_leave_only_complete_files() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let rows = |nth: usize| format!("phone,name\n+9198765432{nth:02},Asha\n");
    let upload = |nth: usize| {
        let path = format!("/audiences?name=same-{}.csv", nth % 10);
        service.send(service.request(Method::POST, &path, "act-1").body(rows(nth % 20)))
    };
    let mut count = BTreeMap::<u16, usize>::new();
    for response in join_all((0..100).map(upload)).await {
        *count.entry(response.status.as_u16()).or_default() += 1;
    }
    // Ten names with two contents each: the first upload is accepted, the same content again is fine, other content is refused.
    assert_eq!((count[&201], count[&200] + count[&409]), (10, 90), "{count:?}");
    let interrupted = futures_util::stream::iter([
        Ok(bytes::Bytes::from("phone,name\n+919876543210,Asha\n")),
        Err(std::io::Error::other("gone")),
    ]);
    let interrupted = service
        .request(Method::POST, "/audiences?name=broken.csv", "act-1")
        .body(reqwest::Body::wrap_stream(interrupted));
    assert!(interrupted.send().await.is_err());
    let root = service.fleet.world.path("");
    until("the partial file to be removed", || {
        let names = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name());
        !names.into_iter().any(|name| name.to_string_lossy().starts_with(".upload-"))
    })
    .await;
    assert!(!root.join("broken.csv").exists());
}

/// Requests that schemathesis generates from the description get the documented responses, and never a 5xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_undocumented_response() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    assert_eq!(service.post("/campaigns", &job()).await.status, 201);
    let install = || tools::python("schemathesis", "schemathesis==4.32.0");
    let tool = tokio::task::spawn_blocking(install).await.unwrap().join("bin/st");
    let mut schemathesis = tokio::process::Command::new(tool);
    schemathesis.args(["run", &format!("{}/api/v1/openapi.json", service.url)]);
    schemathesis.args([
        "--header",
        "Authorization: Bearer act-1",
        "--exclude-path",
        "/campaigns/{id}/events",
    ]);
    schemathesis.args(["--max-examples", "8", "--seed", "7", "--no-color", "--checks"]);
    schemathesis.arg(
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
    );
    schemathesis.current_dir(service.fleet.world.path("")).env("no_proxy", "*");
    let ended = schemathesis.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
    assert!(out.contains("passed"), "{out}");
}

/// A client that follows a campaign, retries it and follows it again does not get the previous end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_opened_after_a_retry_shows_the_retried_run() {
    let behaviour =
        Behaviour { latency: Duration::from_millis(300), accept_rate: 0.5, ..Behaviour::default() };
    let (_sandbox, provider) = sandbox(behaviour).await;
    let service = Service::start(true, &provider, TOKENS).await;
    assert_eq!(service.post("/campaigns", &job()).await.status, 201);
    let follow = async || -> Vec<Value> {
        let stream = service.get("/campaigns/c1/events").await.text;
        stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    };
    let mut ended = follow().await.pop().unwrap();
    for _ in 0..3 {
        assert_eq!(ended["state"], "completed");
        let rejected = &ended["counts"]["rejected"];
        assert_eq!(service.post("/campaigns/c1/retry", &json!({})).await.json()["messages"], *rejected);
        let events = follow().await;
        assert_eq!(events[0]["state"], "running", "{events:?}");
        let last = events.last().unwrap().clone();
        assert_ne!(last["finished_at"], ended["finished_at"], "{events:?}");
        ended = last;
    }
}

/// An unreachable receiver is logged once; what it did not receive before the worker ended is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_receiver_is_logged_once_and_lost_events_are_counted() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let webhooks = format!("{TOKENS}\n[events]\nwebhooks = [{{ url = \"http://127.0.0.1:9/\" }}]\n");
    let service = Service::start(true, &provider, &webhooks).await;
    assert_eq!(service.post("/campaigns", &job()).await.status, 201);
    service.until_state("c1", "completed").await;
    until("the log to name the receiver", || {
        let log = service.fleet.log();
        log.lines().any(|line| line.contains("cannot forward to a receiver") && line.contains("127.0.0.1"))
    })
    .await;
    let Service { fleet, worker, .. } = service;
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.exit_status().await, Some(0));
    let log = fleet.log();
    assert_eq!(log.matches("cannot forward to a receiver").count(), 1, "{log}");
    assert!(log.contains("with events or reports lost"), "{log}");
}

/// Webhooks get signed events, which are retried until the receiver accepts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign_events_are_sent_to_webhooks() {
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let receiver = Scripted::start(|nth, _| {
            // The first request fails.
            Reaction::Answer(if nth == 0 { 503 } else { 200 }, "", String::new())
        })
        .await;
        let unrelated = Scripted::start(|_, _| Reaction::Answer(200, "", String::new())).await;
        let webhooks = format!(
            "{TOKENS}\n[events]\nwebhooks = [{{ url = \"{}/hook\" }}, {{ url = \"{}\", events = [\"flow.completed\"] }}]\n\
             [callbacks]\nsigning_key = \"{KEY}\"\n",
            receiver.url, unrelated.url
        );
        let service = Service::start(is_embedded, &provider, &webhooks).await;
        assert_eq!(service.post("/campaigns", &job()).await.status, 201);
        let names = || -> Vec<String> {
            let bodies = receiver.raw();
            let name = |(_, body): &(String, String)| {
                serde_json::from_str::<Value>(body).unwrap()["event"].as_str().unwrap().to_owned()
            };
            bodies.iter().map(name).collect()
        };
        until("the completion event", || names().contains(&"campaign.completed".to_owned())).await;
        let requests = receiver.raw();
        assert!(requests.iter().all(|(head, _)| head.contains("flowcast-signature: t=")), "{requests:?}");
        assert!(requests[0].0.starts_with("post /hook "), "{requests:?}");
        until("the refused event to be retried", || {
            requests[0].1
                == receiver.raw()[1..]
                    .iter()
                    .find(|(_, body)| *body == requests[0].1)
                    .map_or("", |(_, body)| body)
        })
        .await;
        assert_eq!(unrelated.raw().len(), 0);
        let requests = receiver.raw();
        let checked = tokio::task::spawn_blocking(move || {
            let (head, body) = &requests[0];
            assert_genuine(head, body, KEY);
            let id = serde_json::from_str::<Value>(body).unwrap()["event_id"].as_str().unwrap().to_owned();
            let retried = requests[1..].iter().find(|(_, other)| other == body).unwrap();
            for (head, _) in [&requests[0], retried] {
                assert!(head.contains(&format!("webhook-id: {id}")), "{head}");
            }
        });
        checked.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_tokens_apply_within_seconds() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let ask = async |token: &str| {
        let request = service.client.get(format!("{}/api/v1/codes", service.url)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask("look-1").await, ask("look-2").await), (200, 401));
    let world = &service.fleet.world;
    let config = std::fs::read_to_string(world.path("flowcast.toml")).unwrap();
    // If one token cannot be read, all tokens stay as they were.
    let unreadable = config.replace("\"look-1\"", "{ file = \"nowhere\" }");
    assert_ne!(unreadable, config);
    world.write("flowcast.toml", unreadable);
    until("the error to be logged", || service.fleet.log().contains("cannot read nowhere")).await;
    assert_eq!((ask("look-1").await, ask("act-1").await), (200, 200));
    let more = "\n[accounts.other]\nprovider = \"exotel\"\nregion = \"mumbai\"\n";
    world.write("flowcast.toml", format!("{}{more}", config.replace("look-1", "look-2")));
    until("the tokens to change", || service.fleet.log().contains("tokens changed")).await;
    assert_eq!((ask("look-1").await, ask("look-2").await, ask("act-1").await), (401, 200, 200));
    // An account without credentials is logged.
    until("the missing credentials to be logged", || {
        service.fleet.log().contains("accounts.other.account_sid is missing")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_in_the_response_and_in_the_log() {
    let service = Service::configured("", &["worker", "--embedded", "-v"]).await;
    let returned_id = async |given: Option<&str>| {
        let mut request = service.client.get(format!("{}/api/v1/codes", service.url));
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(returned_id(Some("crm-17")).await, "crm-17");
    until("the request id to be logged", || service.fleet.log().contains("\"request_id\":\"crm-17\"")).await;
    for given in [None, Some("two words"), Some("x".repeat(129).as_str())] {
        let generated = returned_id(given).await;
        assert!(generated.parse::<uuid::Uuid>().is_ok(), "{generated}");
    }
}

/// Runs the examples of `docs/reference/api.md` unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_documentation_run() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let page = include_str!("../../docs/reference/api.md");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let script = format!("set -euo pipefail\n{}", blocks.collect::<String>());
    assert!(script.matches("ask ").count() > 15, "{script}");
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(script).current_dir(service.fleet.world.path(""));
    bash.env("URL", format!("{}/api/v1", service.url)).env("TOKEN", "act-1").env("no_proxy", "*");
    let ended = bash.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
    assert!(out.contains("event: status") && out.contains("\"state\":\"completed\""), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_worker_needs_no_configuration_and_its_rehearsals_never_reach_recipients() {
    let (real, provider) = sandbox(Behaviour::default()).await;
    let mut service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let rows: String = (0..50).map(|row| format!("+9198765432{row:02},Asha\n")).collect();
    let upload =
        service.request(Method::POST, "/audiences?name=people.csv", "").body(format!("phone,name\n{rows}"));
    assert_eq!(service.send(upload).await.status, 201);
    let mut job = job_with("/audience", json!({ "csv": { "path": "people.csv" } }));
    job["id"] = "rehearsed".into();
    assert_eq!(service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await.status, 201);
    // It is sent, and simulated recipients read the messages and reply.
    let status = async || service.send(service.request(Method::GET, "/campaigns/rehearsed", "")).await.json();
    let mut shown = status().await;
    while shown["state"] != "completed" || shown["delivery"]["replied"] == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shown = status().await;
    }
    assert_eq!(shown["counts"]["accepted"], 50, "{shown}");
    // A second rehearsal is running when the worker is killed.
    job["id"] = "half".into();
    job["limits"] = json!({ "messages": "1/s" });
    assert_eq!(service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await.status, 201);
    until("some messages to be sent", || {
        service.fleet.status("half")["counts"]["accepted"].as_u64() > Some(0)
    })
    .await;
    service.worker.kill();

    // A worker without --sandbox on the same store ignores it and sends only real campaigns.
    let more = format!("{FAST}\n[audiences]\nroot = \".\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
    service.fleet.world.write_account("exotel", &provider, &more);
    let _worker = service.fleet.worker_with(&["worker", "--embedded"]);
    until("the rehearsal to be ignored", || service.fleet.log().contains("campaign ignored")).await;
    service.fleet.world.write_audience(3);
    service.fleet.world.write_job(&crate::support::job());
    service.fleet.submit().await;
    service.fleet.until_state("c1", "completed").await;
    assert_eq!(
        (real.stats()["accepted"].as_u64().unwrap(), service.fleet.status("half")["state"].as_str()),
        (3, Some("running"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_reports_an_outage_of_redis_and_recovers() {
    let mut redis = RedisProcess::start("--appendonly yes --appendfsync always");
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::on(false, redis.url(), &provider, TOKENS, FAST).await;
    let mut job = job();
    job["id"] = "waits".into();
    job["schedule"] = json!({ "start_at": "2099-01-01T09:00:00Z" });
    assert_eq!(service.post("/campaigns", &job).await.status, 201);
    let mut live = service.request(Method::GET, "/campaigns/waits/events", "look-1").send().await.unwrap();
    let first = live.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: status"), "{first:?}");
    redis.kill();
    for path in ["/campaigns", "/campaigns/waits", "/accounts", "/audit"] {
        let detail = service.get(path).await.detail(503);
        assert!(detail.contains("Redis is unavailable") || detail.contains("does not respond"), "{detail}");
    }
    service.post("/campaigns/waits/pause", &Value::Null).await.detail(503);
    redis.restart();
    service.until_state("waits", "scheduled").await;
    assert_eq!(service.post("/campaigns/waits/cancel", &Value::Null).await.json()["state"], "cancelled");
    // An open event stream shows the change on the same connection.
    let mut seen = String::new();
    while let Some(chunk) = live.chunk().await.unwrap() {
        seen += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(seen.contains("\"state\":\"cancelled\""), "{seen}");
}
