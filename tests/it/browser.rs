//! The dashboard in a real browser, with and without JavaScript, and checked by axe-core.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use fantoccini::actions::{InputSource, KeyAction, KeyActions, MouseActions, PointerAction};
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use url::Url;

use crate::fleet::until;
use crate::servers::free_port;
use crate::service::{Service, TOKENS};
use crate::support::{Reaction, Scripted, entries, failure, job_with, success};

/// URL and digest (SHA-512, base64) of the published axe-core; the download must match.
const AXE: (&str, &str) = (
    "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
);
/// Timeout of every wait.
const LONG: Duration = Duration::from_mins(1);

/// Returns the source of axe-core.
fn axe() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let (address, digest) = AXE;
        let fetched = Command::new("curl").args(["-sSf", "--retry", "3", address]).output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        let actual = ring::digest::digest(&ring::digest::SHA512, &fetched.stdout);
        assert_eq!(
            base64::engine::general_purpose::STANDARD.encode(actual),
            digest,
            "the digest of axe-core must match"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("axe.tgz");
        std::fs::write(&file, fetched.stdout).unwrap();
        let unpacked =
            Command::new("tar").args(["-xOzf"]).arg(file).arg("package/axe.min.js").output().unwrap();
        assert!(unpacked.status.success());
        String::from_utf8(unpacked.stdout).unwrap()
    })
}

/// A command of the browser's debugging protocol.
#[derive(Debug)]
struct Evaluate(Value);

impl WebDriverCompatibleCommand for Evaluate {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (reqwest::Method, Option<String>) {
        let body = json!({ "cmd": "Runtime.evaluate", "params": self.0 });
        (reqwest::Method::POST, Some(body.to_string()))
    }
}

/// A browser with its driver.
struct Browser {
    client: Client,
    url: String,
    has_script: bool,
    /// Whether only the keyboard is used.
    uses_keyboard: bool,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start(url: &str, has_script: bool) -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let profile = tempfile::tempdir().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000", folder],
            "prefs": { "profile.managed_default_content_settings.javascript": if has_script { 1 } else { 2 } },
        });
        let capabilities = json!({ "goog:chromeOptions": options });
        let start = Instant::now();
        let client = loop {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            builder.capabilities(capabilities.as_object().unwrap().clone());
            match builder.connect(&format!("http://127.0.0.1:{port}")).await {
                Ok(client) => break client,
                Err(error) => assert!(start.elapsed() < LONG, "no browser: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Self { client, url: url.to_owned(), has_script, uses_keyboard: false, driver, _profile: profile }
    }

    async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.url)).await.unwrap();
    }

    async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(LONG).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("{css}: {error}\n{}", self.text().await),
        }
    }

    async fn text(&self) -> String {
        // Another page may load between the two commands.
        let start = Instant::now();
        loop {
            let text = match self.client.find(Locator::Css("body")).await {
                Ok(body) => body.text().await,
                Err(error) => Err(error),
            };
            match text {
                Ok(text) => return text,
                Err(error) => assert!(start.elapsed() < LONG, "no page: {error}"),
            }
        }
    }

    /// Evaluates an expression as the browser's console does, without the content security policy of the page.
    async fn evaluate(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let response = self.client.issue_cmd(Evaluate(params)).await.unwrap();
        assert!(response["exceptionDetails"].is_null(), "{response}");
        response["result"]["value"].clone()
    }

    async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    /// Replaces the text of a field.
    async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        if self.uses_keyboard {
            self.reach(&Locator::Css(css)).await.unwrap();
            let all = Key::Control + "a";
            field.send_keys(&all).await.unwrap();
        } else {
            field.clear().await.unwrap();
        }
        field.send_keys(text).await.unwrap();
    }

    /// Chooses an option of a `select` element.
    async fn choose(&self, css: &str, option: &str) {
        let found = self.find(&format!("{css} option{option}")).await;
        if !self.uses_keyboard {
            return found.click().await.unwrap();
        }
        self.reach(&Locator::Css(css)).await.unwrap();
        let select = self.find(css).await;
        select.send_keys(&Key::Home).await.unwrap();
        for _ in 0..300 {
            if found.is_selected().await.unwrap() {
                return;
            }
            select.send_keys(&Key::Down).await.unwrap();
        }
        panic!("the keyboard cannot choose {css}{option}");
    }

    /// Moves the focus with the tab key until it reaches an element; after the last element follows the first.
    async fn reach(&self, wanted: &Locator<'_>) -> Result<Element, CmdError> {
        for _ in 0..200 {
            let (wanted, active) = (self.client.find(*wanted).await?, self.client.active_element().await?);
            if wanted.element_id() == active.element_id() {
                return Ok(wanted);
            }
            let tab = KeyActions::new("keys".into())
                .then(KeyAction::Down { value: Key::Tab.into() })
                .then(KeyAction::Up { value: Key::Tab.into() });
            self.client.perform_actions(tab).await?;
        }
        panic!("the keyboard cannot reach {wanted:?} on {}:\n{}", self.path().await, self.text().await)
    }

    /// Presses the link or button whose text starts with `label`, by mouse or keyboard.
    async fn press(&self, label: &str) {
        let path = format!("//*[self::a or self::button][starts-with(normalize-space(.), \"{label}\")]");
        let start = Instant::now();
        // A live page may replace the element between the two commands.
        loop {
            let pressed = match self.client.find(Locator::XPath(&path)).await {
                Ok(_) if self.uses_keyboard => match self.reach(&Locator::XPath(&path)).await {
                    Ok(element) => element.send_keys(&Key::Enter).await,
                    Err(error) => Err(error),
                },
                Ok(element) => element.click().await,
                Err(error) => Err(error),
            };
            match pressed {
                Ok(()) => return,
                Err(error) => assert!(start.elapsed() < LONG, "{label}: {error}\n{}", self.text().await),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page contains a text, without reloading it.
    async fn shows_without_reload(&self, text: &str) {
        self.waits_for(text, false).await;
    }

    /// Waits until the page contains a text. Without JavaScript, reloads the page.
    async fn shows(&self, text: &str) {
        self.waits_for(text, !self.has_script).await;
    }

    async fn waits_for(&self, expected: &str, reloads: bool) {
        let start = Instant::now();
        loop {
            let text = self.text().await;
            if text.contains(expected) {
                return;
            }
            assert!(
                start.elapsed() < LONG,
                "timed out waiting for {expected:?} on {}:\n{text}",
                self.path().await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            if reloads {
                self.client.refresh().await.unwrap();
            }
        }
    }

    /// Asserts that axe-core finds no violation on the page, in a light wide and a dark narrow window.
    async fn is_accessible(&self) {
        if !self.has_script {
            return;
        }
        for (theme, width) in [("light", 1280), ("dark", 360)] {
            self.client.set_window_size(width, 1000).await.unwrap();
            let set = "document.documentElement.dataset.theme = arguments[0]";
            self.client.execute(set, vec![json!(theme)]).await.unwrap();
            self.evaluate(axe()).await;
            let run = "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', \
                       'best-practice'] }).then(found => JSON.stringify(found.violations))";
            let found: Value = serde_json::from_str(self.evaluate(run).await.as_str().unwrap()).unwrap();
            let violations = found.as_array().unwrap();
            let messages: Vec<String> = violations
                .iter()
                .map(|found| {
                    let nodes: Vec<_> = found["nodes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|node| format!("{} {}", node["html"], node["failureSummary"]))
                        .collect();
                    format!("{}: {}", found["id"], nodes.join("; "))
                })
                .collect();
            assert!(
                messages.is_empty(),
                "{} in {theme} at {width}: {}",
                self.path().await,
                messages.join("\n")
            );
            let overflow =
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let overflow = self.client.execute(overflow, Vec::new()).await.unwrap();
            assert_eq!(overflow, 0, "{} at {width} must fit into its window", self.path().await);
        }
        self.client.set_window_size(1280, 1000).await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser, a child of one of the driver's threads, does not end with the driver.
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", self.driver.id())).into_iter().flatten().flatten();
        let children =
            threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        for child in children.collect::<String>().split_whitespace().filter_map(|child| child.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The number that the provider rejects at first.
const REJECTED: &str = "+919876500003";
/// The number for which the provider sends no response at first.
const UNANSWERED: &str = "+919876500007";

fn audience() -> String {
    let mut csv = String::from("customer,reach at,slot\n");
    for row in 0..40 {
        csv += &format!("Asha {row},+9198765{row:05},{}\n", if row % 2 == 0 { "morning" } else { "evening" });
    }
    csv + "Nobody,12,never\nAsha again,+919876500001,morning\n"
}

/// Returns the audience as a spreadsheet program saves it.
fn workbook(csv: &str) -> rust_xlsxwriter::Workbook {
    let mut workbook = rust_xlsxwriter::Workbook::new();
    let sheet = workbook.add_worksheet();
    for (row, line) in (0..).zip(csv.lines()) {
        for (column, value) in (0..).zip(line.split(',')) {
            sheet.write(row, column, value).unwrap();
        }
    }
    workbook
}

/// Starts a provider that rejects one number and sends no response for another, until the returned flag is set.
async fn provider() -> (Scripted, Arc<AtomicBool>) {
    let fixed = Arc::new(AtomicBool::new(false));
    let is_fixed = fixed.clone();
    let scripted = Scripted::start(move |_, to| {
        let is_fixed = is_fixed.load(Ordering::Relaxed);
        if to.iter().any(|to| to == UNANSWERED) && !is_fixed {
            return Reaction::Close;
        }
        let each = to.iter().map(|to| {
            if to == REJECTED && !is_fixed { failure(30_013, "not on WhatsApp") } else { success(to) }
        });
        Reaction::Answer(207, "", entries(each))
    });
    (scripted.await, fixed)
}

/// A marketer with a browser, at a worker whose provider fails at first.
struct Marketer {
    service: Service,
    browser: Browser,
    provider: Scripted,
    fixed: Arc<AtomicBool>,
    has_script: bool,
}

/// Runs a campaign from the upload to its last message in doubt.
///
/// With JavaScript only the keyboard is used; without it, clicks on a narrow page.
async fn run_a_campaign(has_script: bool) {
    let (provider, fixed) = provider().await;
    let service =
        Service::start_with(true, &provider.url, TOKENS, "limits = { messages = \"20/s,burst=1\" }").await;
    let mut browser = Browser::start(&service.url, has_script).await;
    browser.uses_keyboard = has_script;
    if !has_script {
        // The width of a phone.
        browser.client.set_window_size(360, 800).await.unwrap();
    }
    let marketer = Marketer { service, browser, provider, fixed, has_script };
    marketer.signs_in().await;
    marketer.uploads_the_audience().await;
    marketer.writes_the_message().await;
    marketer.sets_the_schedule().await;
    marketer.sends_a_test().await;
    let id = marketer.sends_the_campaign().await;
    marketer.pauses_and_resumes(&id).await;
    marketer.retries_and_resolves(&id).await;
    marketer.cancels_another_campaign().await;
    marketer.visits_the_other_pages().await;
}

impl Marketer {
    /// Checks that a token is required, enters a wrong one, and signs in.
    async fn signs_in(&self) {
        self.browser.open("/accounts").await;
        assert_eq!(self.browser.path().await, "/sign-in");
        self.browser.is_accessible().await;
        self.browser.fill("#token", "wrong").await;
        self.browser.press("Sign in").await;
        self.browser.shows("This token is not known").await;
        self.browser.is_accessible().await;
        self.browser.fill("#token", "act-1").await;
        self.browser.press("Sign in").await;
        self.browser.shows("Active").await;
        assert_eq!(self.browser.path().await, "/accounts");
        self.browser.open("/").await;
        self.browser.shows("No campaigns yet").await;
        self.browser.is_accessible().await;
    }

    /// Uploads the audience, chooses its phone column and checks its preview.
    async fn uploads_the_audience(&self) {
        self.browser.press("New campaign").await;
        self.browser.is_accessible().await;
        let folder = tempfile::tempdir().unwrap();
        // A workbook with JavaScript, a CSV file without.
        let upload = folder.path().join(if self.has_script { "customers.xlsx" } else { "customers.csv" });
        if self.has_script {
            workbook(&audience()).save(&upload).unwrap();
        } else {
            std::fs::write(&upload, audience()).unwrap();
        }
        self.browser.fill("#name", "Diwali <b>appointments</b>").await;
        self.browser.find("#file").await.send_keys(&upload.display().to_string()).await.unwrap();
        self.browser.press("Upload and continue").await;
        self.browser.shows("We couldn’t find the phone column").await;
        self.browser.shows("There is a problem").await;
        self.browser.is_accessible().await;
        self.browser.choose("#phone", ":nth-child(3)").await;
        self.browser.press("Refresh preview").await;
        self.browser.shows("40 people").await;
        self.browser.shows("not a valid phone number").await;
        self.browser.is_accessible().await;
        self.browser.press("Continue").await;
    }

    /// Writes a flow message in the form, which shows missing fields and a preview.
    async fn writes_the_message(&self) {
        self.browser.shows("A plain message").await;
        if self.has_script {
            // A visit to another step keeps what was typed.
            self.browser.fill("[name=\"/message/text/body\"]", "To be kept").await;
            self.browser.press("Schedule").await;
            self.browser.shows("Schedule and speed").await;
            self.browser.press("Message").await;
            self.browser.shows("A plain message").await;
            let body = "document.querySelector('[name=\"/message/text/body\"]').value";
            assert_eq!(self.browser.evaluate(body).await, "To be kept");
        }
        self.browser.choose("#kind", "[value=flow]").await;
        self.browser.press("Update form").await;
        self.browser.shows("opens a form inside the chat: people book").await;
        self.browser.press("Continue").await;
        self.browser.shows("Enter the button text.").await;
        self.browser.is_accessible().await;
        let field = |rest: &str| format!("[name=\"/message/interactive/{rest}\"]");
        self.browser.fill("#from", "+912248931479").await;
        self.browser.fill(&field("body/text"), "Dear *{{ customer }}*, your {{ slot }} is free.").await;
        for (name, value) in
            [("flow_id", "1323"), ("flow_cta", "Book now"), ("flow_action_payload/screen", "DATE")]
        {
            self.browser.fill(&field(&format!("action/parameters/{name}")), value).await;
        }
        if self.has_script {
            self.browser.shows("your morning is free").await;
            let bold = self.browser.find("#phones strong").await.text().await.unwrap();
            assert_eq!(bold, "Asha 0");
            self.browser.is_accessible().await;
        } else {
            self.browser.press("Save and preview").await;
            self.browser.shows_without_reload("your morning is free").await;
        }
        self.browser.press("Continue").await;
    }

    /// Sets the schedule and the limit; an unknown time zone is refused and loses no input.
    async fn sets_the_schedule(&self) {
        self.browser.shows("Schedule and speed").await;
        self.browser.is_accessible().await;
        // Going back to a page that was the response to a form does not submit the form again.
        self.browser.client.back().await.unwrap();
        self.browser.shows_without_reload("Continue to the schedule").await;
        self.browser.open(&format!("{}/when", self.browser.path().await.trim_end_matches("/message"))).await;
        self.browser.fill("#zone", "Nowhere/Land").await;
        self.browser.press("Continue").await;
        self.browser.shows("Choose a time zone").await;
        self.browser.fill("#zone", "Asia/Kolkata").await;
        self.browser.fill("#limit", "4").await;
        self.browser.press("Continue").await;
        self.browser.shows("40 people. Estimated time").await;
        self.browser.shows("at 4/s").await;
        self.browser.is_accessible().await;
    }

    /// Sends a test, which is a campaign of its own, to the marketer's number.
    async fn sends_a_test(&self) {
        self.browser.press("Continue").await;
        self.browser.is_accessible().await;
        self.browser.fill("#number", "nobody").await;
        self.browser.press("Send test").await;
        self.browser.shows("Enter your number").await;
        self.browser.fill("#number", "+919999900000").await;
        self.browser.press("Send test").await;
        self.browser.shows("Tests").await;
        until("the test to be sent", || self.provider.times("+919999900000") == 1).await;
        if self.has_script {
            // What becomes of it is shown without a reload.
            self.browser.shows_without_reload("Accepted by the provider").await;
        }
        self.browser.press("Continue").await;
    }

    /// Sends the campaign, which requires the exact number of recipients, and returns its id.
    async fn sends_the_campaign(&self) -> String {
        self.browser.is_accessible().await;
        self.browser.fill("#typed", "41").await;
        self.browser.press("Send to 40").await;
        self.browser.shows("Nothing has been sent").await;
        assert_eq!(self.provider.times("+919876500000"), 0);
        self.browser.fill("#typed", "40").await;
        self.browser.press("Send to 40").await;
        self.browser.shows("Submitted the campaign").await;
        let id = self.browser.path().await.rsplit('/').next().unwrap().to_owned();
        assert!(self.browser.text().await.contains("Diwali <b>appointments</b>"), "the name must be escaped");
        id
    }

    /// Pauses the campaign on its live page and resumes it.
    async fn pauses_and_resumes(&self, id: &str) {
        self.browser.shows("Sending:").await;
        self.browser.press("Pause").await;
        self.browser.shows("Paused by marketing at").await;
        self.browser.is_accessible().await;
        let before = self.service.until_state(id, "paused").await;
        assert!(before["counts"]["pending"].as_u64().unwrap() > 0, "{before}");
        self.browser.press("Resume").await;
        self.browser.shows("Resumed the campaign.").await;
        self.service.until_state(id, "completed").await;
        self.browser.shows("Completed: ").await;
    }

    /// Retries a rejected message, and resends one in doubt, whose number the page shows.
    async fn retries_and_resolves(&self, id: &str) {
        self.browser.shows("Rejected by the provider").await;
        self.browser.shows("The recipient cannot receive the message").await;
        self.browser.shows("In doubt").await;
        self.browser.shows(UNANSWERED).await;
        self.browser.is_accessible().await;
        self.fixed.store(true, Ordering::Relaxed);
        self.browser.press("Retry these").await;
        self.browser.shows("Retry 1 message that failed with 30013?").await;
        self.browser.is_accessible().await;
        self.browser.press("Send to 1 person").await;
        self.browser.shows("Retried 1 message that failed with 30013").await;
        until("the retry", || self.provider.times(REJECTED) == 2).await;
        self.service.until_state(id, "completed").await;
        self.browser.shows("Resend…").await;
        self.browser.press("Resend").await;
        self.browser.shows("Anyone who did get it will get it twice").await;
        self.browser.press("Send to").await;
        self.browser.shows("in doubt.").await;
        let start = Instant::now();
        let settled = loop {
            let status = self.service.get(&format!("/campaigns/{id}")).await.json();
            if status["state"] == "completed" && status["counts"]["accepted"] == 40 {
                break status;
            }
            assert!(start.elapsed() < LONG, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((&settled["counts"]["rejected"], &settled["counts"]["in_doubt"]), (&json!(0), &json!(0)));
        self.browser.shows("40 of 40 messages accepted").await;
    }

    /// Submits another campaign, filters the list for it and cancels it.
    async fn cancels_another_campaign(&self) {
        let mut slow = job_with("/limits", json!({ "messages": "1/min" }));
        slow["id"] = "slow".into();
        assert_eq!(self.service.post("/campaigns", &slow).await.status, 201);
        self.browser.open("/?q=slow").await;
        self.browser.shows("running").await;
        self.browser.is_accessible().await;
        self.browser.press("slow").await;
        self.browser.press("Cancel").await;
        self.browser.shows("Cancel this campaign?").await;
        self.browser.press("Cancel the campaign").await;
        self.browser.shows("Cancelled the campaign").await;
    }

    /// Changes the suppression list, visits the other pages and signs out.
    async fn visits_the_other_pages(&self) {
        self.browser.open("/suppressed").await;
        self.browser.fill("#numbers", "+919876500001\nnonsense").await;
        self.browser.press("Add").await;
        self.browser.shows("“nonsense”:").await;
        self.browser.is_accessible().await;
        self.browser.fill("#numbers", "+919876500001").await;
        self.browser.press("Add").await;
        self.browser.shows("Added 1 number").await;
        self.browser.press("Remove").await;
        self.browser.shows("is no longer on the list").await;
        for page in
            ["/audiences", "/accounts", "/codes", "/codes?q=template", "/refused", "/log", "/nowhere", "/new"]
        {
            self.browser.open(page).await;
            self.browser.is_accessible().await;
        }
        self.browser.open("/").await;
        self.browser.press("Sign out").await;
        self.browser.find("#token").await;
        assert_eq!(self.browser.path().await, "/sign-in");
        assert_eq!(self.provider.times("+919876500000"), 1, "no recipient may get two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marketer_runs_a_campaign_by_keyboard() {
    run_a_campaign(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marketer_runs_a_campaign_without_javascript() {
    run_a_campaign(false).await;
}

/// Without any configuration, recipients of the sandbox reply, and the page shows their replies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_shown_without_any_configuration() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let browser = Browser::start(&service.url, true).await;
    let recipients: Vec<Value> =
        (0..60).map(|row| json!({ "phone": format!("+9198765{row:05}"), "name": "Asha" })).collect();
    let flow = json!({ "type": "interactive", "interactive": { "type": "flow", "body": { "text": "Hello {{ name }}" },
        "action": { "name": "flow", "parameters": { "flow_message_version": "3", "flow_token": "t", "flow_id": "1",
            "flow_cta": "Book", "flow_action": "navigate", "flow_action_payload": { "screen": "A" } } } } });
    let job = json!({ "version": 1, "id": "booking", "account": "main", "from": "+912248931479",
        "audience": { "recipients": recipients }, "message": flow });
    let sent = service.send(service.request(reqwest::Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    browser.open("/campaigns/booking").await;
    browser.shows("60 of 60 messages accepted").await;
    // Reports also arrive after the campaign has completed, and the page shows them.
    browser.shows("Responses").await;
    browser.shows("monday").await;
    browser.is_accessible().await;
    // A printed time has its date, because it is read on another day.
    let times = "window.dispatchEvent(new Event('beforeprint')); \
                 [...document.querySelectorAll('time[datetime]')].filter((time) => !time.textContent.includes(new Date(time.dateTime).getFullYear())).length";
    assert_eq!(browser.evaluate(times).await, 0);
}

/// Keys move through the choices without submitting the form, and another theme keeps what was typed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_filled_in_by_keyboard() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let upload = service.request(reqwest::Method::POST, "/audiences?name=people.csv", "");
    let upload = service.send(upload.body("phone,First Name\n+919876500001,Asha\n")).await;
    assert_eq!(upload.status, 201, "{upload:?}");
    let form = reqwest::multipart::Form::new().text("name", "Keys").text("pick", "people.csv");
    let response = service.client.post(format!("{}/new", service.url)).multipart(form).send().await.unwrap();
    let message = response.url().path().replace("/audience", "/message");
    let browser = Browser::start(&service.url, true).await;
    browser.open(&message).await;
    let body = "[name=\"/message/text/body\"]";
    browser.fill(body, "Typed by hand").await;
    browser.evaluate("window.isTheSame = true").await;
    let kind = browser.find("#kind").await;
    for _ in 0..3 {
        kind.send_keys("\u{e015}").await.unwrap();
    }
    assert_ne!(browser.evaluate("document.getElementById('kind').value").await, "text");
    assert_eq!(browser.evaluate("document.activeElement.id").await, "kind");
    browser.find("#theme").await.send_keys("d").await.unwrap();
    let theme = || browser.evaluate("document.documentElement.dataset.theme ?? ''");
    while theme().await != "dark" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let typed = browser.evaluate(&format!("document.querySelector('{body}').value")).await;
    assert_eq!((typed, browser.evaluate("window.isTheSame").await), (json!("Typed by hand"), json!(true)));
    // The next page keeps the theme, and the button shows the fields of the chosen kind.
    browser.press("Update form").await;
    while browser.evaluate("window.isTheSame ?? false").await == true {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((browser.path().await, theme().await), (message.clone(), json!("dark")));
    // A column with a space in its name is offered with an underscore.
    browser.open(&message).await;
    let chips =
        browser.evaluate("[...document.querySelectorAll('.chip')].map((chip) => chip.textContent)").await;
    assert!(chips.as_array().unwrap().contains(&json!("First Name")), "{chips}");
    browser.fill(body, "Dear ").await;
    browser.press("First Name").await;
    let typed = browser.evaluate(&format!("document.querySelector('{body}').value")).await;
    assert_eq!(typed, json!("Dear {{ First_Name }}"));
}

/// What a person selects or points at stays while the page is live, and a long name fits into every width.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_read_does_not_move() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let recipients: Vec<Value> =
        (0..600).map(|row| json!({ "phone": format!("+9198765{row:05}"), "name": "Asha" })).collect();
    let job = json!({ "version": 1, "id": "long", "name": "W".repeat(100), "account": "main", "from": "+912248931479",
        "audience": { "recipients": recipients }, "message": { "type": "text", "text": { "body": "Hello {{ name }}" } },
        "limits": { "messages": "5/s,burst=1" } });
    let sent = service.send(service.request(reqwest::Method::POST, "/campaigns", "").json(&job)).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    let accepted = async || {
        let status = service.send(service.request(reqwest::Method::GET, "/campaigns/long", "")).await.json();
        status["counts"]["accepted"].as_u64().unwrap()
    };
    let more = async |count: u64| {
        let (before, start) = (accepted().await, Instant::now());
        while accepted().await < before + count {
            assert!(start.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let browser = Browser::start(&service.url, true).await;
    browser.open("/").await;
    browser.shows(&"W".repeat(100)).await;
    browser.is_accessible().await;
    browser.open("/campaigns/long").await;
    browser.shows("Sending:").await;
    browser.is_accessible().await;

    // Selected text stays, while the rest of the page is updated.
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#funnel table'))").await;
    let (funnel, head) = (browser.evaluate(&text("funnel")).await, browser.evaluate(&text("head")).await);
    let selected = browser.evaluate("getSelection().toString()").await;
    more(10).await;
    let start = Instant::now();
    while browser.evaluate(&text("head")).await == head {
        assert!(start.elapsed() < LONG, "{head}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(browser.evaluate(&text("funnel")).await, funnel);
    assert_eq!(browser.evaluate("getSelection().toString()").await, selected);
    browser.evaluate("getSelection().removeAllRanges()").await;
    let start = Instant::now();
    while browser.evaluate(&text("funnel")).await == funnel {
        assert!(start.elapsed() < LONG, "{funnel}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A button under a moving pointer stays where it is.
    let button = "document.querySelector('#head button, #head a.button')";
    browser
        .evaluate(&format!("{button}.isTheSame = true; {button}.scrollIntoView({{ block: 'center' }})"))
        .await;
    let place = format!(
        "(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({button}.getBoundingClientRect())"
    );
    let place = browser.evaluate(&place).await;
    let (x, y) = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    let pointer = MouseActions::new("mouse".into());
    let pointer = pointer.then(PointerAction::MoveTo { duration: None, x, y });
    browser.client.perform_actions(pointer).await.unwrap();
    browser
        .evaluate("setInterval(() => document.dispatchEvent(new PointerEvent('pointermove', { bubbles: true })), 100)")
        .await;
    assert_eq!(browser.evaluate(&format!("{button}.isTheSame && {button}.matches(':hover')")).await, true);
    more(10).await;
    assert_eq!(browser.evaluate(&format!("{button}.isTheSame ?? false")).await, true);
}

/// Numbers that cannot be read are counted, listed, and made readable by a country.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_unreadable_numbers_say_what_to_do() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let browser = Browser::start(&service.url, true).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    browser.open("/suppressed").await;
    let stop = file("stop.csv", "phone\n+919876500001\n12\nnobody\n");
    browser.find("#file").await.send_keys(&stop).await.unwrap();
    browser.press("Import").await;
    browser.shows("stop.csv: 1 number added, 2 rows couldn’t be read (rows 2, 3).").await;
    let download = "document.querySelector('a[download][href^=\"data:text/csv\"]') !== null";
    assert_eq!(browser.evaluate(download).await, true);
    browser.is_accessible().await;

    browser.open("/new").await;
    browser.fill("#name", "Clinic").await;
    let rows: String = (0..25).map(|row| format!("98765400{row:02},Asha\n")).collect();
    let clinic = file("clinic.csv", &format!("Mobile Number,First Name\n{rows}"));
    browser.find("#file").await.send_keys(&clinic).await.unwrap();
    browser.press("Upload and continue").await;
    browser.shows("25 of 25 unreadable numbers would be valid in").await;
    browser.is_accessible().await;
    browser.choose("#region", "[value=IN]").await;
    browser.press("Refresh preview").await;
    browser.shows("25 people").await;
    browser.shows("+919876540000").await;
}
