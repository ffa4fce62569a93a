//! The pages, requested without a browser: sessions used by other sites, hostile texts, many campaigns, and a ledger that
//! becomes unavailable.

use std::time::{Duration, Instant};

use flowcast::sandbox::Behaviour;
use futures_util::StreamExt;
use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::fleet::LONG;
use crate::servers::{RedisProcess, broker};
use crate::service::{FAST, Service, TOKENS};
use crate::support::{job, sandbox};

/// A signed-in user.
pub struct Visitor<'s> {
    service: &'s Service,
    client: Client,
    cookie: String,
}

impl<'s> Visitor<'s> {
    /// Signs in with a token.
    pub async fn new(service: &'s Service, token: &str) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let form =
            client.post(format!("{}/sign-in", service.url)).form(&[("token", token), ("next", "/codes")]);
        let response = form.send().await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &"/codes".parse().unwrap())
        );
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { service, client, cookie }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.service.url)).header(COOKIE, &self.cookie)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        (response.status(), response.text().await.unwrap())
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.request(Method::POST, path).form(fields).send().await.unwrap()
    }

    pub async fn submit(&self, job: &Value) {
        let response = self.service.post("/campaigns", job).await;
        assert_eq!(response.status, 201, "{response:?}");
    }
}

fn scheduled_job(id: &str) -> Value {
    let mut job = job();
    job["id"] = id.into();
    job["schedule"] = json!({ "start_at": "2099-01-01T09:00:00Z" });
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_used_by_another_site_changes_nothing() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let operator = Visitor::new(&service, "act-1").await;
    operator.submit(&scheduled_job("waits")).await;
    // A page of another site may send the cookie, but not our origin.
    for (name, value) in
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")]
    {
        let pause = operator.request(Method::POST, "/campaigns/waits/do/pause").header(name, value);
        assert_eq!(pause.form(&[("a", "b")]).send().await.unwrap().status(), 403, "{name}: {value}");
    }
    assert_eq!(service.get("/campaigns/waits").await.json()["state"], "scheduled");
    let own = operator.request(Method::POST, "/campaigns/waits/do/pause").header(ORIGIN, &service.url);
    assert_eq!(own.form(&[("a", "b")]).send().await.unwrap().status(), 303);
    assert_eq!(service.get("/campaigns/waits").await.json()["state"], "paused");

    // A viewer sees no buttons, and the actions behind them are refused.
    let viewer = Visitor::new(&service, "look-1").await;
    let (status, page) = viewer.get("/campaigns/waits").await;
    assert_eq!((status, page.contains("<body class=\"viewer\">")), (StatusCode::OK, true));
    let refused = viewer.post("/campaigns/waits/do/resume", &[]).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("view-only access"));
    assert_eq!(service.get("/campaigns/waits").await.json()["state"], "paused");

    // A session cookie is sealed, and signing out removes it from the browser.
    for forged in ["flowcast_session=", "flowcast_session=9999999999.00", "flowcast_session=x"] {
        let response =
            operator.client.get(format!("{}/", service.url)).header(COOKIE, forged).send().await.unwrap();
        assert_eq!(response.headers()[LOCATION], "/sign-in?next=%2F");
    }
    // A copy of the cookie is invalid, too, and another session of the same user continues.
    let form = [("token", "act-1"), ("next", "/")];
    let sign_in = || operator.client.post(format!("{}/sign-in", service.url)).form(&form).send();
    let cookie = |response: &reqwest::Response| {
        response.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
    };
    let (copied, other) = (cookie(&sign_in().await.unwrap()), cookie(&sign_in().await.unwrap()));
    let is_valid = async |cookie: &str| {
        let response =
            operator.client.get(format!("{}/", service.url)).header(COOKIE, cookie).send().await.unwrap();
        response.status() == StatusCode::OK
    };
    assert!(is_valid(&copied).await && is_valid(&other).await);
    let signed_out = operator
        .client
        .post(format!("{}/sign-out", service.url))
        .header(COOKIE, &copied)
        .send()
        .await
        .unwrap();
    assert!(signed_out.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert!(!is_valid(&copied).await && is_valid(&other).await);
    for next in [
        "//evil.example/x",
        "/\t/evil.example/",
        "/\n/evil.example/",
        "/\\evil.example",
        "/\u{b}/evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        " //evil.example",
        "\t//evil.example",
        "//x@evil.example/",
        "",
    ] {
        let form = [("token", "act-1"), ("next", next)];
        let response =
            operator.client.post(format!("{}/sign-in", service.url)).form(&form).send().await.unwrap();
        assert_eq!(response.headers()[LOCATION], "/", "the redirect must stay on this site: {next:?}");
    }
    let form = [("token", "act-1"), ("next", "/campaigns?q=a%09b#c")];
    let response = operator.client.post(format!("{}/sign-in", service.url)).form(&form).send().await.unwrap();
    assert_eq!(response.headers()[LOCATION], "/campaigns?q=a%09b#c");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_concurrent_actions_both_get_a_response() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&scheduled_job("waits")).await;
    for _ in 0..20 {
        let (pause, resume) = tokio::join!(
            visitor.post("/campaigns/waits/do/pause", &[]),
            visitor.post("/campaigns/waits/do/resume", &[])
        );
        for response in [pause, resume] {
            assert!([303, 409].contains(&response.status().as_u16()), "{response:?}");
        }
        let state = service.get("/campaigns/waits").await.json()["state"].clone();
        assert!(["paused", "scheduled"].map(Value::from).contains(&state), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_text_is_escaped_on_every_page() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let hostile = "<img src=x onerror=alert(1)>\"'</script>\u{202e}\u{1b}[2J";
    let mut job = scheduled_job("hostile");
    job["name"] = hostile.into();
    job["custom_data"] = "<script>alert(2)</script>".into();
    visitor.submit(&job).await;
    let (boundary, name) = ("X", format!("name\"\r\n\r\n{hostile}"));
    let csv = format!("phone,<b>column</b>\n+919876543210,{}\n", "<i>value</i>");
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\r\n--{boundary}\r\nContent-Disposition: form-data; \
         name=\"file\"; filename=\"<u>x.csv\"\r\n\r\n{csv}\r\n--{boundary}--\r\n"
    );
    let created = visitor
        .request(Method::POST, "/new")
        .header("content-type", format!("multipart/form-data; boundary={boundary}"))
        .body(body)
        .send()
        .await
        .unwrap();
    let draft = created.headers()[LOCATION].to_str().unwrap().to_owned();
    let search = format!("/?q={}", "%3Cscript%3Ealert(3)%3C/script%3E");
    let message = draft.replace("/audience", "/message");
    for path in [
        "/",
        "/campaigns/hostile",
        "/new",
        "/log",
        "/campaigns/hostile/confirm/cancel",
        &search,
        &draft,
        &message,
    ] {
        let (status, page) = visitor.get(path).await;
        assert_eq!(status, 200, "{path}: {page}");
        assert!(
            !page.contains(['\u{202e}', '\u{1b}']) || path.starts_with("/new"),
            "{path} must escape control characters"
        );
        for tag in ["<img", "<script>", "<i>", "<u>", "</b>", "onclick"] {
            assert!(!page.contains(tag), "{path} must not contain {tag}:\n{page}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn irreversible_actions_require_typing_their_number() {
    let (_sandbox, provider) = sandbox(Behaviour { accept_rate: 0.0, ..Behaviour::default() }).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    service.fleet.world.write_audience(1200);
    visitor.submit(&job()).await;
    let done = service.until_state("c1", "completed").await;
    assert_eq!(done["counts"]["rejected"], 1200, "{done}");
    let retry = "/campaigns/c1/do/retry";
    // Without a confirmation, the page asks for it.
    let confirmation = visitor.post(retry, &[]).await.text().await.unwrap();
    assert!(
        confirmation.contains("Send to 1,200 people") && confirmation.contains("Type 1,200 to confirm"),
        "{confirmation}"
    );
    for typed in ["", "12", "1201"] {
        let response =
            visitor.post(retry, &[("confirmed", "yes"), ("expected", "1200"), ("typed", typed)]).await;
        assert_eq!(response.status(), 422, "{typed}");
    }
    assert_eq!(service.get("/campaigns/c1").await.json()["state"], "completed");
    let response =
        visitor.post(retry, &[("confirmed", "yes"), ("expected", "1200"), ("typed", "1,200")]).await;
    assert_eq!(response.headers()[LOCATION], "/campaigns/c1?done=retry");
    let (_, page) = visitor.get("/campaigns/c1?done=retry").await;
    assert!(page.contains("Retried 1,200 messages that failed."), "{page}");
    let (_, page) = visitor.get("/campaigns/c1?done=pause").await;
    assert!(!page.contains("class=\"did\""), "an action that was not done must not be shown");
    for path in
        ["/campaigns/c1/confirm/nothing", "/campaigns/c1/confirm/pause", "/new/nope/message", "/assets/x"]
    {
        let (status, page) = visitor.get(path).await;
        assert!(status.is_client_error() && page.contains("<h1>"), "{path}: {status} {page}");
    }
}

/// Runs the examples of `docs/guide/dashboard.md` unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_documentation_run() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    service.fleet.world.write_audience(3);
    assert_eq!(service.post("/campaigns", &job()).await.status, 201);
    service.until_state("c1", "completed").await;
    let page = include_str!("../../docs/guide/dashboard.md");
    let blocks = page.split("```sh\n").skip(2).filter_map(|rest| rest.split("```").next());
    let script = format!("set -euo pipefail\n{}", blocks.collect::<String>());
    assert!(script.matches("look ").count() > 4, "{script}");
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(script).current_dir(service.fleet.world.path(""));
    bash.env("URL", &service.url).env("TOKEN", "act-1").env("ID", "c1").env("no_proxy", "*");
    let ended = bash.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
}

/// Reads the parts in a page's event stream until a condition holds.
async fn parts(response: Response, is_done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let (mut stream, mut text, mut parts) = (response.bytes_stream(), String::new(), Vec::new());
    while !is_done(&parts) {
        let next = tokio::time::timeout(LONG, stream.next()).await;
        let Some(chunk) = next.unwrap_or_else(|_| panic!("no further event arrived: {parts:?}")) else {
            break;
        };
        text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            if let Some((_, data)) = event.split_once("event: part\ndata: ") {
                parts.push(serde_json::from_str(data.trim()).unwrap());
            }
        }
    }
    parts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_gets_only_the_parts_that_changed() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&scheduled_job("waits")).await;
    let open = || async { visitor.request(Method::GET, "/campaigns/waits/live").send().await.unwrap() };
    let (page, row) =
        (open().await, visitor.request(Method::GET, "/live?campaigns=waits,nobody").send().await.unwrap());
    let pages = tokio::spawn(parts(page, |parts| {
        parts.iter().any(|part| part["html"].as_str().unwrap().contains("cancelled"))
    }));
    let rows = tokio::spawn(parts(row, |parts| {
        parts.iter().any(|part| part["html"].as_str().unwrap().contains("cancelled"))
    }));
    visitor.post("/campaigns/waits/do/pause", &[]).await;
    visitor.post("/campaigns/waits/do/cancel", &[("confirmed", "yes")]).await;
    let updates = pages.await.unwrap();
    let names: Vec<&str> = updates.iter().map(|part| part["id"].as_str().unwrap()).collect();
    assert_eq!(names[..7], ["head", "plot", "funnel", "failures", "doubts", "log", "answers"]);
    assert_eq!(
        names.iter().filter(|name| **name == "funnel").count(),
        1,
        "a part that never changed must be sent once: {names:?}"
    );
    assert!(rows.await.unwrap().iter().all(|part| part["id"] == "row-waits"));
    // A campaign that has ended gets all parts once; only reports add more.
    let ended = parts(open().await, |parts| parts.len() == 7).await;
    assert!(ended[0]["html"].as_str().unwrap().contains("cancelled"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_recovers_when_redis_is_back() {
    let mut redis = RedisProcess::start("--appendonly yes --appendfsync always");
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::on(false, redis.url(), &provider, TOKENS, FAST).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&scheduled_job("waits")).await;
    let live = visitor.request(Method::GET, "/campaigns/waits/live").send().await.unwrap();
    let (shown, is_shown) = std::sync::mpsc::channel();
    let old_updates = tokio::spawn(parts(live, move |parts| {
        // The receiver is dropped after the first notification.
        let _ = if parts.is_empty() { Ok(()) } else { shown.send(()) };
        false
    }));
    tokio::task::spawn_blocking(move || is_shown.recv().unwrap()).await.unwrap();
    redis.kill();
    let start = Instant::now();
    loop {
        let (status, page) = visitor.get("/campaigns/waits").await;
        if status == 503 {
            assert!(page.contains("Nothing is lost") && page.contains("<h1>"), "{page}");
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1));
    }
    // The page's event stream ends, so the page knows that its content is stale, and reconnects until events arrive.
    assert!(!old_updates.await.unwrap().is_empty());
    let reconnected = visitor.request(Method::GET, "/campaigns/waits/live").send().await.unwrap();
    assert_eq!(reconnected.status(), 503);
    redis.restart();
    service.until_state("waits", "scheduled").await;
    let live = visitor.request(Method::GET, "/campaigns/waits/live").send().await.unwrap();
    let updates = tokio::spawn(parts(live, |parts| {
        parts.iter().any(|part| part["html"].as_str().unwrap().contains("was cancelled"))
    }));
    assert_eq!(visitor.post("/campaigns/waits/do/cancel", &[("confirmed", "yes")]).await.status(), 303);
    assert!(!updates.await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_shared_and_can_be_deleted() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let account = format!("{FAST}\nprices = {{ currency = \"INR\", per_message = {{ 91 = 0.5 }} }}");
        let service = Service::start_with(is_embedded, &provider, TOKENS, &account).await;
        let visitor = Visitor::new(&service, "act-1").await;
        let form = reqwest::multipart::Form::new().text("name", "Reminder").text("pick", "audience.csv");
        let created = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
        let step = created.headers()[LOCATION].to_str().unwrap().to_owned();
        let (status, page) = visitor.get(&step).await;
        assert!(status == 200 && page.contains("<strong>200</strong> people"), "{page}");
        let (_, page) = visitor.get("/new").await;
        assert!(page.contains("Reminder"), "{page}");
        // A pasted message may be a whole job.
        let message = step.replace("/audience", "/message");
        let pasted =
            json!({ "version": 1, "message": { "type": "text", "text": { "body": "Hi {{ nmae }}" } } });
        let fields = |json: &str| {
            ["account=main", "from=%2B912248931479", "kind=json", "form_kind=json", "do=next"].join("&")
                + "&json="
                + &url::form_urlencoded::byte_serialize(json.as_bytes()).collect::<String>()
        };
        let post = |body: String| {
            let form = "application/x-www-form-urlencoded";
            visitor.request(Method::POST, &message).header("content-type", form).body(body).send()
        };
        let refused = post(fields(&pasted.to_string())).await.unwrap();
        assert_eq!(refused.status(), 422);
        let page = refused.text().await.unwrap();
        assert!(page.contains("did you mean"), "{page}");
        let invalid = post(fields("{ oops")).await.unwrap().text().await.unwrap();
        assert!(invalid.contains("This isn’t valid JSON") && invalid.contains("{ oops"), "{invalid}");
        let corrected = pasted.to_string().replace("nmae", "name");
        assert_eq!(post(fields(&corrected)).await.unwrap().status(), 303);
        let (_, page) = visitor.get(&step.replace("/audience", "/check")).await;
        assert!(page.contains("<strong>200</strong> people."), "{page}");
        assert!(page.contains("100.00 INR, by the account’s price list<"), "{page}");
        let deleted = visitor.post(&step.replace("/audience", "/remove"), &[]).await;
        assert_eq!(deleted.status(), 303);
        assert_eq!(visitor.get(&step).await.0, 404);
        let campaigns = service.get("/campaigns").await.json();
        assert_eq!(
            campaigns["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|campaign| campaign["name"] == "Reminder")
                .count(),
            0
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_job_is_shown_and_discarded() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(false, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let (_, page) = visitor.get("/refused").await;
    assert!(page.contains("No refused jobs."), "{page}");
    let broker = broker(&service.fleet.amqp).await;
    broker.submit(b"{ \"id\": \"<b>broken\" }".to_vec()).await.unwrap();
    let start = Instant::now();
    let page = loop {
        let (_, page) = visitor.get("/refused").await;
        if page.contains("broken") {
            break page;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!page.contains("<b>broken") && page.contains("is required but missing"), "{page}");
    let digest = page.split("name=\"job\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let decide =
        async |action: &str| visitor.post("/refused", &[("job", &digest), ("do", action)]).await.status();
    assert_eq!(decide("eat").await, 400);
    assert_eq!(decide("discard").await, 303);
    assert_eq!(decide("discard").await, 404, "the job must be gone");
    let (_, log) = visitor.get("/log").await;
    assert!(log.contains("Deleted 1 refused job"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_job_is_sent_once_it_is_corrected_and_retried() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(false, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let mut job = job();
    job["audience"] = json!({ "csv": { "path": "late.csv" } });
    broker(&service.fleet.amqp).await.submit(serde_json::to_vec(&job).unwrap()).await.unwrap();
    let start = Instant::now();
    let page = loop {
        let (_, page) = visitor.get("/refused").await;
        if page.contains("late.csv") {
            break page;
        }
        assert!(start.elapsed() < LONG, "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let digest = page.split("name=\"job\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    service.fleet.world.write("late.csv", "phone,name\n+919876500001,Asha\n");
    let retried = visitor.post("/refused", &[("job", &digest), ("do", "requeue")]).await;
    assert_eq!(retried.status(), 303);
    service.until_state("c1", "completed").await;
    assert_eq!(sandbox.count(), 1);
    let (_, log) = visitor.get("/log").await;
    assert!(log.contains("Requeued 1 refused job"), "{log}");
    assert!(visitor.get("/refused").await.1.contains("No refused jobs."));
}

/// Creates a draft for the whole audience and returns the path of its message.
async fn draft_message(visitor: &Visitor<'_>) -> String {
    let form = reqwest::multipart::Form::new().text("name", "Reminder").text("pick", "audience.csv");
    let created = visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
    created.headers()[LOCATION].to_str().unwrap().replace("/audience", "/message")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_for_a_kind_of_message_is_kept_when_the_kind_is_chosen_again() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let message = draft_message(&visitor).await;
    let post = async |shown: &str, chosen: &str, more: &[(&str, &str)]| {
        let fields = [("kind", chosen), ("form_kind", shown), ("do", "update")];
        visitor.post(&message, &[&fields[..], more].concat()).await.text().await.unwrap()
    };
    let text = [("/message/type", "text"), ("/message/text/body", "Dear {{ name }}, typed as a text")];
    post("flow", "text", &[]).await;
    let page = post("text", "image", &text).await;
    assert!(!page.contains("typed as a text"), "{page}");
    let image = [("/message/type", "image"), ("/message/image/link", "https://example.com/typed.png")];
    // Invalid JSON is kept as it was typed.
    let page = post("image", "json", &image).await;
    assert!(page.contains("typed.png"), "the JSON must start with the message of the form: {page}");
    let page = post("json", "text", &[("json", "{ half typed")]).await;
    assert!(page.contains("typed as a text"), "{page}");
    let page = post("text", "image", &text).await;
    assert!(page.contains("typed.png"), "{page}");
    let page = post("image", "json", &image).await;
    assert!(page.contains("{ half typed"), "{page}");
    // Another user sees it later.
    let (_, page) = visitor.get(&message).await;
    assert!(page.contains("typed.png"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_returns_to_itself_after_a_change_of_theme() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&scheduled_job("waits")).await;
    let message = draft_message(&visitor).await;
    let audience = message.replace("/message", "/audience");
    for path in ["/", "/?state=scheduled&q=wai", "/campaigns/waits", "/codes", &message, &audience] {
        let (_, page) = visitor.get(path).await;
        let next = page.split("name=\"next\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let next = next.replace("&#x2f;", "/").replace("&amp;", "&");
        assert_eq!(next, path);
        let changed = visitor.post("/theme", &[("theme", "dark"), ("next", &next)]).await;
        assert_eq!(changed.headers()[LOCATION], path);
    }
    // An error page has navigation, too.
    let (status, page) = visitor.get("/campaigns/nobody").await;
    assert!(status == 404 && page.contains("<nav aria-label=\"Pages\">"), "{page}");
}

/// Reads the counts of a campaign's page.
fn read_counts(page: &str) -> std::collections::BTreeMap<String, u64> {
    let list = page.split("<dl class=\"counts\">").nth(1).unwrap().split("</dl>").next().unwrap();
    list.split("<dt>")
        .skip(1)
        .map(|item| {
            let (name, rest) = item.split_once("</dt><dd>").unwrap();
            let number = rest.split('<').next().unwrap().replace(',', "");
            (name.to_owned(), number.parse().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_counts_of_a_campaign_always_add_up() {
    const ROWS: u64 = 50_000;
    let (_sandbox, provider) = sandbox(Behaviour { accept_rate: 0.9, ..Behaviour::default() }).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    service.fleet.world.write_audience(ROWS);
    visitor.submit(&scheduled_job("waits")).await;
    // Nothing is planned yet, and all messages are still to be sent.
    let (_, page) = visitor.get("/campaigns/waits").await;
    assert_eq!((read_counts(&page)["People, at most"], read_counts(&page)["Still to send"]), (ROWS, ROWS));
    let (_, confirmation) = visitor.get("/campaigns/waits/confirm/cancel").await;
    assert!(
        confirmation.contains("50,000 messages will never be sent")
            && confirmation.contains("Type 50,000 to confirm"),
        "{confirmation}"
    );
    let cancel = [("confirmed", "yes"), ("expected", "50000"), ("typed", "1")];
    assert_eq!(visitor.post("/campaigns/waits/do/cancel", &cancel).await.status(), 422);
    let cancel = [("confirmed", "yes"), ("expected", "50000"), ("typed", "50,000")];
    assert_eq!(visitor.post("/campaigns/waits/do/cancel", &cancel).await.status(), 303);

    visitor.submit(&job()).await;
    let mut reads = 0;
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LONG, "the campaign must complete");
        let (_, page) = visitor.get("/campaigns/c1").await;
        let counts = read_counts(&page);
        // The number is an upper bound until all rows are planned.
        let (all, parts): (Vec<_>, Vec<_>) = counts.iter().partition(|(name, _)| name.starts_with("People"));
        let total: u64 = all.iter().map(|(_, count)| **count).sum();
        let parts: u64 = parts.iter().map(|(_, count)| **count).sum();
        assert_eq!((total, parts), (ROWS, ROWS), "{counts:?}");
        reads += 1;
        if page.contains("class=\"state completed\"") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reads > 3, "the campaign must take several reads");
    let (_, page) = visitor.get("/campaigns/c1").await;
    assert!(!page.contains("confirm/cancel"), "a completed campaign must not offer to cancel");
}

/// Delivery reports and replies arrive after a campaign's end, and its page shows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_a_completed_campaign_updates_while_reports_arrive() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let rows: String = (0..50).map(|row| format!("+9198765432{row:02},Asha\n")).collect();
    let upload =
        service.request(Method::POST, "/audiences?name=people.csv", "").body(format!("phone,name\n{rows}"));
    assert_eq!(service.send(upload).await.status, 201);
    let mut job = job();
    job["audience"] = json!({ "csv": { "path": "people.csv" } });
    let submitted = service.send(service.request(Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(submitted.status, 201);
    let status = async || service.send(service.request(Method::GET, "/campaigns/c1", "")).await.json();
    let start = Instant::now();
    while status().await["state"] != "completed" {
        assert!(start.elapsed() < LONG, "the campaign must complete");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let page = service.client.get(format!("{}/campaigns/c1", service.url)).send().await.unwrap();
    assert!(!page.text().await.unwrap().contains("data-still"));
    let live = service.client.get(format!("{}/campaigns/c1/live", service.url)).send().await.unwrap();
    let updates = parts(live, |parts| {
        parts
            .iter()
            .any(|part| part["id"] == "answers" && part["html"].as_str().unwrap().contains("Responses"))
    })
    .await;
    // Our own token comes back with a form and is not shown as a reply.
    assert!(updates.iter().all(|part| !part["html"].as_str().unwrap().contains("flow_token")), "{updates:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discarding_one_of_two_identical_refused_jobs_keeps_the_other() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(false, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let broker = broker(&service.fleet.amqp).await;
    for _ in 0..2 {
        broker.submit(b"{ \"id\": \"twin\" }".to_vec()).await.unwrap();
    }
    let start = Instant::now();
    let page = loop {
        let (_, page) = visitor.get("/refused").await;
        if page.matches("name=\"job\" value").count() == 2 {
            break page;
        }
        assert!(start.elapsed() < LONG, "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let digest = page.split("name=\"job\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(visitor.post("/refused", &[("job", &digest), ("do", "discard")]).await.status(), 303);
    let (_, log) = visitor.get("/log").await;
    assert!(log.contains("Deleted 1 refused job"), "{log}");
    let (_, page) = visitor.get("/refused").await;
    assert_eq!(page.matches("name=\"job\" value").count(), 1, "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_action_is_shown_until_another_one_follows() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    visitor.submit(&scheduled_job("waits")).await;
    let act = async |action: &str| {
        let done = visitor.post(&format!("/campaigns/waits/do/{action}"), &[]).await;
        done.headers()[LOCATION].to_str().unwrap().to_owned()
    };
    let shows_action = async |address: &str| visitor.get(address).await.1.contains("class=\"did\"");
    let paused = act("pause").await;
    assert!(shows_action(&paused).await);
    // Done through the API, so this page does not show it as its own action.
    assert_eq!(service.post("/campaigns/waits/resume", &Value::Null).await.status, 200);
    assert!(!shows_action(&paused).await, "the earlier pause must not be shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_list_shows_that_there_are_new_campaigns() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let visitor = Visitor::new(&service, "act-1").await;
    let (_, page) = visitor.get("/").await;
    assert!(page.contains("/live?campaigns=&amp;newest=-\""), "an empty list must be live, too: {page}");
    // The response starts with the first event.
    let follow = async |newest: &str| {
        let address = format!("/live?campaigns=&newest={newest}");
        let response = visitor.request(Method::GET, &address).send().await.unwrap();
        parts(response, |parts| parts.iter().any(|part| part["id"] == "new-campaigns")).await
    };
    let campaign = scheduled_job("waits");
    let (empty, other, ()) = tokio::join!(follow("-"), follow("before"), visitor.submit(&campaign));
    for updates in [empty, other] {
        assert!(updates[0]["html"].as_str().unwrap().contains("There are new campaigns."), "{updates:?}");
    }
    let (_, page) = visitor.get("/").await;
    assert!(page.contains("&amp;newest=waits\""), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_sorted_and_shows_campaigns_tests_or_drafts() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let service = Service::start(is_embedded, &provider, TOKENS).await;
        let visitor = Visitor::new(&service, "act-1").await;
        for (id, name, count) in [("one", "beta", 2), ("two", "Alpha", 3), ("one-test-1-77", "Test: beta", 1)]
        {
            let mut job = scheduled_job(id);
            job["name"] = name.into();
            let recipients =
                (0..count).map(|nth| json!({ "phone": format!("+9198765432{nth:02}"), "name": "A" }));
            job["audience"] = json!({ "recipients": recipients.collect::<Vec<_>>() });
            visitor.submit(&job).await;
        }
        let listed = async |query: &str| {
            let (status, page) = visitor.get(&format!("/?{query}")).await;
            assert_eq!(status, 200, "{query}: {page}");
            let rows = page.split("<li id=\"row-").skip(1);
            rows.map(|row| row.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let test = "one-test-1-77";
        assert_eq!(listed("").await, [test, "two", "one"]);
        assert_eq!(listed("kind=&sort=").await, [test, "two", "one"]);
        assert_eq!(listed("sort=name").await, ["two", "one", test]);
        assert_eq!(listed("sort=people").await, ["two", "one", test]);
        assert_eq!(listed("kind=campaigns&sort=name").await, ["two", "one"]);
        assert_eq!(listed("kind=campaigns").await, ["two", "one"]);
        assert_eq!(listed("kind=tests").await, [test]);
        assert_eq!(listed("kind=drafts").await, [""; 0]);
        let form = reqwest::multipart::Form::new().text("name", "Reminder").text("pick", "audience.csv");
        visitor.request(Method::POST, "/new").multipart(form).send().await.unwrap();
        let (_, page) = visitor.get("/?kind=drafts").await;
        assert!(page.contains(">Reminder</a>") && !page.contains("row-one"), "{page}");
        // More than one page of campaigns.
        for nth in 0..30 {
            let mut job = scheduled_job(&format!("more-{nth:02}"));
            job["name"] = format!("C {nth:02}").into();
            visitor.submit(&job).await;
        }
        let (_, page) = visitor.get("/?sort=name&kind=campaigns").await;
        let next = page.split("rel=\"next\"").next().unwrap().rsplit("href=\"").next().unwrap();
        let next = next.split('"').next().unwrap().replace("&#x2f;", "/").replace("&amp;", "&");
        assert_eq!(next, "/?kind=campaigns&sort=name&cursor=30");
        assert_eq!(listed(&next[2..]).await, ["more-28", "more-29"]);
    }
}
