//! The pages in a real browser, used as people use them: with a script and without, and looked at by axe-core.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
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

/// axe-core, as its makers publish it; what is fetched is compared with this digest (SHA-512, base64).
const AXE: (&str, &str) = (
    "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
);
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// The source of axe-core.
fn axe() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let (address, digest) = AXE;
        let fetched = Command::new("curl").args(["-sSf", "--retry", "3", address]).output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        let seen = ring::digest::digest(&ring::digest::SHA512, &fetched.stdout);
        assert_eq!(base64::engine::general_purpose::STANDARD.encode(seen), digest, "another axe-core");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("axe.tgz");
        std::fs::write(&file, fetched.stdout).unwrap();
        let unpacked =
            Command::new("tar").args(["-xOzf"]).arg(file).arg("package/axe.min.js").output().unwrap();
        assert!(unpacked.status.success());
        String::from_utf8(unpacked.stdout).unwrap()
    })
}

/// A command of the browser's own protocol.
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

/// A browser, with its driver.
struct Browser {
    client: Client,
    url: String,
    has_script: bool,
    /// Whether nothing is done with a mouse.
    by_keys: bool,
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
        Self { client, url: url.to_owned(), has_script, by_keys: false, driver, _profile: profile }
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
        // The page may give way to another one between the two questions.
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

    /// Evaluates an expression as a person at the console does: the page's policy is for the page.
    async fn evaluate(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.client.issue_cmd(Evaluate(params)).await.unwrap();
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    /// Types into a field in place of what is there.
    async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        if self.by_keys {
            self.reach(&Locator::Css(css)).await.unwrap();
            let all = Key::Control + "a";
            field.send_keys(&all).await.unwrap();
        } else {
            field.clear().await.unwrap();
        }
        field.send_keys(text).await.unwrap();
    }

    /// Chooses an option of a select.
    async fn choose(&self, css: &str, option: &str) {
        let found = self.find(&format!("{css} option{option}")).await;
        if !self.by_keys {
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
        panic!("the keys do not choose {css}{option}");
    }

    /// Moves the focus with the tabulator until it is where a person wants it; it goes round.
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
        panic!("the keys do not lead to {wanted:?} on {}:\n{}", self.path().await, self.text().await)
    }

    /// Clicks the link or button with such words, or presses the key that does.
    async fn press(&self, words: &str) {
        let path = format!("//*[self::a or self::button][starts-with(normalize-space(.), \"{words}\")]");
        let start = Instant::now();
        // A page that is live may put another one in its place between two looks.
        loop {
            let pressed = match self.client.find(Locator::XPath(&path)).await {
                Ok(_) if self.by_keys => match self.reach(&Locator::XPath(&path)).await {
                    Ok(element) => element.send_keys(&Key::Enter).await,
                    Err(error) => Err(error),
                },
                Ok(element) => element.click().await,
                Err(error) => Err(error),
            };
            match pressed {
                Ok(()) => return,
                Err(error) => assert!(start.elapsed() < LONG, "{words}: {error}\n{}", self.text().await),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page that was asked for is there and says something.
    async fn shows(&self, words: &str) {
        self.waits_for(words, false).await;
    }

    /// Waits until the page says something: by itself with a script, without one when it is loaded again.
    async fn says(&self, words: &str) {
        self.waits_for(words, !self.has_script).await;
    }

    async fn waits_for(&self, words: &str, loads_again: bool) {
        let start = Instant::now();
        loop {
            let text = self.text().await;
            if text.contains(words) {
                return;
            }
            assert!(start.elapsed() < LONG, "waited in vain for {words:?} on {}:\n{text}", self.path().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if loads_again {
                self.client.refresh().await.unwrap();
            }
        }
    }

    /// axe-core finds nothing wrong with the page, in light and dark, wide and narrow.
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
            let told: Vec<String> = violations
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
            assert!(told.is_empty(), "{} in {theme} at {width}: {}", self.path().await, told.join("\n"));
            let overflow =
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            let overflow = self.client.execute(overflow, Vec::new()).await.unwrap();
            assert_eq!(overflow, 0, "{} at {width} is wider than its window", self.path().await);
        }
        self.client.set_window_size(1280, 1000).await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver does not take its browser with it, which is a child of one of its threads.
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

/// The numbers that are refused at first, and of which nothing is heard at first.
const REFUSED: &str = "+919876500003";
const UNHEARD: &str = "+919876500007";

fn audience() -> String {
    let mut csv = String::from("customer,reach at,slot\n");
    for row in 0..40 {
        csv += &format!("Asha {row},+9198765{row:05},{}\n", if row % 2 == 0 { "morning" } else { "evening" });
    }
    csv + "Nobody,12,never\nAsha again,+919876500001,morning\n"
}

/// The same as a spreadsheet program saves it.
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

/// A provider that refuses one number until it is told otherwise, and once does not answer for another.
async fn provider() -> (Scripted, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let scripted = Scripted::start(move |_, to| {
        let is_mended = is_mended.load(Ordering::Relaxed);
        if to.iter().any(|to| to == UNHEARD) && !is_mended {
            return Reaction::Close;
        }
        let each = to.iter().map(|to| {
            if to == REFUSED && !is_mended { failure(30_013, "not on WhatsApp") } else { success(to) }
        });
        Reaction::Answer(207, "", entries(each))
    });
    (scripted.await, mended)
}

/// A person with a browser at a worker whose provider has bad days.
struct Person {
    service: Service,
    browser: Browser,
    provider: Scripted,
    mended: Arc<AtomicBool>,
    has_script: bool,
}

/// From the file to the last doubt: with a script by the keys alone, without one by clicks on a narrow page.
async fn a_campaign(has_script: bool) {
    let (provider, mended) = provider().await;
    let service =
        Service::start_with(true, &provider.url, TOKENS, "limits = { messages = \"20/s,burst=1\" }").await;
    let mut browser = Browser::start(&service.url, has_script).await;
    browser.by_keys = has_script;
    if !has_script {
        // As wide as a phone.
        browser.client.set_window_size(360, 800).await.unwrap();
    }
    let person = Person { service, browser, provider, mended, has_script };
    person.signs_in().await;
    person.hands_an_audience_in().await;
    person.writes_the_message().await;
    person.says_when().await;
    person.tests_it().await;
    let id = person.sends_it().await;
    person.pauses_and_resumes(&id).await;
    person.retries_and_resolves(&id).await;
    person.cancels_another().await;
    person.looks_around().await;
}

impl Person {
    /// Who has no token sees nothing, and who has a wrong one is told so.
    async fn signs_in(&self) {
        self.browser.open("/accounts").await;
        assert_eq!(self.browser.path().await, "/sign-in");
        self.browser.is_accessible().await;
        self.browser.fill("#token", "wrong").await;
        self.browser.press("Sign in").await;
        self.browser.says("This token is not known").await;
        self.browser.is_accessible().await;
        self.browser.fill("#token", "act-1").await;
        self.browser.press("Sign in").await;
        self.browser.says("Active").await;
        assert_eq!(self.browser.path().await, "/accounts");
        self.browser.open("/").await;
        self.browser.says("No campaigns yet").await;
        self.browser.is_accessible().await;
    }

    /// The audience: handed in, its column found, its rows shown.
    async fn hands_an_audience_in(&self) {
        self.browser.press("New campaign").await;
        self.browser.is_accessible().await;
        let folder = tempfile::tempdir().unwrap();
        // With a script it is a workbook, without one a text.
        let upload = folder.path().join(if self.has_script { "customers.xlsx" } else { "customers.csv" });
        if self.has_script {
            workbook(&audience()).save(&upload).unwrap();
        } else {
            std::fs::write(&upload, audience()).unwrap();
        }
        self.browser.fill("#name", "Diwali <b>appointments</b>").await;
        self.browser.find("#file").await.send_keys(&upload.display().to_string()).await.unwrap();
        self.browser.press("Upload and continue").await;
        self.browser.says("We couldn’t find the phone column").await;
        self.browser.says("There is a problem").await;
        self.browser.is_accessible().await;
        self.browser.choose("#phone", ":nth-child(3)").await;
        self.browser.press("Refresh preview").await;
        self.browser.says("40 people").await;
        self.browser.says("not a valid phone number").await;
        self.browser.is_accessible().await;
        self.browser.press("Continue").await;
    }

    /// The message: a form out of the rules, what is missing said beside its field, the phone beside it.
    async fn writes_the_message(&self) {
        self.browser.says("A plain message").await;
        if self.has_script {
            // Another step is looked at meanwhile: what was typed stays.
            self.browser.fill("[name=\"/message/text/body\"]", "To be kept").await;
            self.browser.press("Schedule").await;
            self.browser.says("Schedule and speed").await;
            self.browser.press("Message").await;
            self.browser.says("A plain message").await;
            let kept = "document.querySelector('[name=\"/message/text/body\"]').value";
            assert_eq!(self.browser.evaluate(kept).await, "To be kept");
        }
        self.browser.choose("#kind", "[value=flow]").await;
        self.browser.press("Update form").await;
        self.browser.says("opens a form inside the chat: people book").await;
        self.browser.press("Continue").await;
        self.browser.says("Enter the button text.").await;
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
            self.browser.says("your morning is free").await;
            let bold = self.browser.find("#phones strong").await.text().await.unwrap();
            assert_eq!(bold, "Asha 0");
            self.browser.is_accessible().await;
        } else {
            self.browser.press("Save and preview").await;
            self.browser.shows("your morning is free").await;
        }
        self.browser.press("Continue").await;
    }

    /// When and how fast: what can't be is said, and nothing is lost.
    async fn says_when(&self) {
        self.browser.says("Schedule and speed").await;
        self.browser.is_accessible().await;
        // The way back leads over a page that was the answer to a form, and the form is not sent again.
        self.browser.client.back().await.unwrap();
        self.browser.shows("Continue to the schedule").await;
        self.browser.open(&format!("{}/when", self.browser.path().await.trim_end_matches("/message"))).await;
        self.browser.fill("#zone", "Nowhere/Land").await;
        self.browser.press("Continue").await;
        self.browser.says("Choose a time zone").await;
        self.browser.fill("#zone", "Asia/Kolkata").await;
        self.browser.fill("#limit", "4").await;
        self.browser.press("Continue").await;
        self.browser.says("40 people. Estimated time").await;
        self.browser.says("at 4/s").await;
        self.browser.is_accessible().await;
    }

    /// A test to one's own number, which is a campaign of its own.
    async fn tests_it(&self) {
        self.browser.press("Continue").await;
        self.browser.is_accessible().await;
        self.browser.fill("#number", "nobody").await;
        self.browser.press("Send test").await;
        self.browser.says("Enter your number").await;
        self.browser.fill("#number", "+919999900000").await;
        self.browser.press("Send test").await;
        self.browser.says("Tests").await;
        until("the test to be sent", || self.provider.times("+919999900000") == 1).await;
        if self.has_script {
            // What becomes of it is shown without a reload.
            self.browser.says("Accepted by the provider").await;
        }
        self.browser.press("Continue").await;
    }

    /// It is sent to as many as somebody typed.
    async fn sends_it(&self) -> String {
        self.browser.is_accessible().await;
        self.browser.fill("#typed", "41").await;
        self.browser.press("Send to 40").await;
        self.browser.says("Nothing has been sent").await;
        assert_eq!(self.provider.times("+919876500000"), 0);
        self.browser.fill("#typed", "40").await;
        self.browser.press("Send to 40").await;
        self.browser.says("Submitted the campaign").await;
        let id = self.browser.path().await.rsplit('/').next().unwrap().to_owned();
        assert!(self.browser.text().await.contains("Diwali <b>appointments</b>"), "it is text, not HTML");
        id
    }

    /// It is live, is paused, and stands still until it is resumed.
    async fn pauses_and_resumes(&self, id: &str) {
        self.browser.says("Sending:").await;
        self.browser.press("Pause").await;
        self.browser.says("Paused by marketing at").await;
        self.browser.is_accessible().await;
        let before = self.service.until_state(id, "paused").await;
        assert!(before["counts"]["pending"].as_u64().unwrap() > 0, "{before}");
        self.browser.press("Resume").await;
        self.browser.says("Resumed the campaign.").await;
        self.service.until_state(id, "completed").await;
        self.browser.says("Completed: ").await;
    }

    /// A failure says what it means, and is retried; a doubt is decided, by a person who sees its number.
    async fn retries_and_resolves(&self, id: &str) {
        self.browser.says("Rejected by the provider").await;
        self.browser.says("The recipient cannot receive the message").await;
        self.browser.says("In doubt").await;
        self.browser.says(UNHEARD).await;
        self.browser.is_accessible().await;
        self.mended.store(true, Ordering::Relaxed);
        self.browser.press("Retry these").await;
        self.browser.says("Retry 1 message that failed with 30013?").await;
        self.browser.is_accessible().await;
        self.browser.press("Send to 1 person").await;
        self.browser.says("Retried 1 message that failed with 30013").await;
        until("the retry", || self.provider.times(REFUSED) == 2).await;
        self.service.until_state(id, "completed").await;
        self.browser.says("Resend…").await;
        self.browser.press("Resend").await;
        self.browser.says("Anyone who did get it will get it twice").await;
        self.browser.press("Send to").await;
        self.browser.says("in doubt.").await;
        let start = Instant::now();
        let done = loop {
            let status = self.service.get(&format!("/campaigns/{id}")).await.json();
            if status["state"] == "completed" && status["counts"]["accepted"] == 40 {
                break status;
            }
            assert!(start.elapsed() < LONG, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((&done["counts"]["rejected"], &done["counts"]["in_doubt"]), (&json!(0), &json!(0)));
        self.browser.says("40 of 40 messages accepted").await;
    }

    /// The list shows both, is filtered, and another one is cancelled.
    async fn cancels_another(&self) {
        let mut slow = job_with("/limits", json!({ "messages": "1/min" }));
        slow["id"] = "slow".into();
        assert_eq!(self.service.post("/campaigns", &slow).await.status, 201);
        self.browser.open("/?q=slow").await;
        self.browser.says("running").await;
        self.browser.is_accessible().await;
        self.browser.press("slow").await;
        self.browser.press("Cancel").await;
        self.browser.says("Cancel this campaign?").await;
        self.browser.press("Cancel the campaign").await;
        self.browser.says("Cancelled the campaign").await;
    }

    /// The other pages.
    async fn looks_around(&self) {
        self.browser.open("/suppressed").await;
        self.browser.fill("#numbers", "+919876500001\nnonsense").await;
        self.browser.press("Add").await;
        self.browser.says("“nonsense”:").await;
        self.browser.is_accessible().await;
        self.browser.fill("#numbers", "+919876500001").await;
        self.browser.press("Add").await;
        self.browser.says("Added 1 number").await;
        self.browser.press("Remove").await;
        self.browser.says("is no longer on the list").await;
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
        assert_eq!(self.provider.times("+919876500000"), 1, "nobody got two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_from_the_file_to_the_last_doubt() {
    a_campaign(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_without_a_script() {
    a_campaign(false).await;
}

/// With nothing configured: people of a sandbox answer, and what they answered is on the page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_sees_what_people_answered() {
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
    browser.says("60 of 60 messages accepted").await;
    // Reports come after the end, too, and the page tells them.
    browser.says("Responses").await;
    browser.says("monday").await;
    browser.is_accessible().await;
    // On paper a time has its date: it is read on another day.
    let times = "window.dispatchEvent(new Event('beforeprint')); \
                 [...document.querySelectorAll('time[datetime]')].filter((time) => !time.textContent.includes(new Date(time.dateTime).getFullYear())).length";
    assert_eq!(browser.evaluate(times).await, 0);
}

/// With the keys one moves through choices and submits nothing; other colours lose nothing that was typed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_filled_in_with_the_keys_alone() {
    let service = Service::configured("", &["worker", "--embedded", "--sandbox"]).await;
    let upload = service.request(reqwest::Method::POST, "/audiences?name=people.csv", "");
    let upload = service.send(upload.body("phone,First Name\n+919876500001,Asha\n")).await;
    assert_eq!(upload.status, 201, "{upload:?}");
    let form = reqwest::multipart::Form::new().text("name", "Keys").text("pick", "people.csv");
    let begun = service.client.post(format!("{}/new", service.url)).multipart(form).send().await.unwrap();
    let message = begun.url().path().replace("/audience", "/message");
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
    // The colours stay on the next page, and the button shows the fields of the kind that was chosen.
    browser.press("Update form").await;
    while browser.evaluate("window.isTheSame ?? false").await == true {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((browser.path().await, theme().await), (message.clone(), json!("dark")));
    // A column with a space in its name is put in by a click, and the phone shows its value.
    browser.open(&message).await;
    let chips =
        browser.evaluate("[...document.querySelectorAll('.chip')].map((chip) => chip.textContent)").await;
    assert!(chips.as_array().unwrap().contains(&json!("First Name")), "{chips}");
    browser.fill(body, "Dear ").await;
    browser.press("First Name").await;
    let typed = browser.evaluate(&format!("document.querySelector('{body}').value")).await;
    assert_eq!(typed, json!("Dear {{ First_Name }}"));
}
