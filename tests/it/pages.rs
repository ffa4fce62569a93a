//! Follows the README and the pages of `docs`: runs every block in the order of its page, starting in an empty folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;

use flowcast::campaign::Job;
use flowcast::sandbox::Behaviour;
use serde_json::Value;

use crate::servers::{amqp_url, free_port, redis_url};
use crate::support::{World, job, job_with, sandbox};

/// A code block of a page.
#[derive(Clone, Debug)]
struct Block {
    language: String,
    text: String,
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the code blocks of a page, in their order.
fn blocks(name: &str) -> Vec<Block> {
    let page = format!("\n{}", page(name));
    // Every second part is a block.
    let blocks = page.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap());
    blocks.map(|(language, text)| Block { language: language.into(), text: format!("{text}\n") }).collect()
}

/// A bash script of what a reader of a page types into a terminal and into files.
struct Script(String);

impl Script {
    /// Creates a script that ends its background processes when it ends.
    fn new() -> Self {
        Self(
            "set -euo pipefail\n\
             trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n\
             redis-cli() { command redis-cli -u \"$REDIS\" \"$@\"; }\n\
             until_answered() { until curl --silent --fail --output /dev/null \"$1\"; do sleep 0.1; done; }\n"
                .into(),
        )
    }

    fn line(&mut self, line: &str) {
        self.0 += line;
        self.0.push('\n');
    }

    /// Appends text to a file.
    fn file(&mut self, name: &str, text: &str) {
        self.line(&format!("cat >> {name} <<'END OF FILE'\n{}\nEND OF FILE", text.trim_end()));
    }

    /// Adds typed commands; a worker continues in the background.
    fn typed(&mut self, text: &str, port: u16) {
        for line in text.replace("cargo run --", "flowcast").lines() {
            let (command, _) = line.split_once("   #").unwrap_or((line, ""));
            if command.contains("flowcast worker") {
                self.line(&format!("{command} & WORKER=$!\nuntil_answered http://127.0.0.1:{port}/readyz"));
            } else {
                self.line(line);
            }
        }
    }

    fn stop_worker(&mut self) {
        self.line("kill $WORKER; wait $WORKER");
    }

    /// Starts the program of the page on events. Its queue is bound first, so that it misses no event.
    fn listen(&mut self, program: &str) {
        let (bound, rest) = program.split_once("\nfor ").unwrap();
        self.file("listen.py", program);
        self.file("bind.py", bound);
        assert!(!rest.is_empty());
        self.line("/usr/bin/python3 bind.py\n/usr/bin/python3 listen.py > events.log & LISTENER=$!");
    }

    /// Marks a position in the output.
    fn mark(&mut self, name: &str) {
        self.line(&format!("echo '@@ {name}'"));
    }

    async fn run(&self, folder: &Path, environment: &[(&str, String)]) -> Output {
        let binary = Path::new(env!("CARGO_BIN_EXE_flowcast")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let mut bash = tokio::process::Command::new("bash");
        bash.arg("-c").arg(&self.0).current_dir(folder).env("PATH", path).env("no_proxy", "*");
        bash.envs(environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        bash.output().await.unwrap()
    }
}

/// Returns the output of a script by its marks.
fn by_marks(output: &Output) -> BTreeMap<String, String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let parts = out.split("@@ ").skip(1).map(|part| part.split_once('\n').unwrap());
    parts.map(|(name, part)| (name.to_owned(), part.to_owned())).collect()
}

/// Commands that are skipped: the tests themselves, a build that takes many minutes, and commands that need Docker
/// (`scripts/check-container` covers them).
const SKIPPED: [&str; 3] = ["./scripts/test", "cargo install", "docker compose"];

/// Pages that a reader follows one after another.
const FOLLOWED: [&str; 5] = [
    "README.md",
    "docs/guide/first-campaign.md",
    "docs/guide/fleet.md",
    "docs/guide/retries-and-doubts.md",
    "docs/guide/job.md",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_and_the_guides_run_from_an_empty_folder() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    // The first commands need files of the repository.
    std::os::unix::fs::symlink(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
        folder.path().join("fixtures"),
    )
    .unwrap();
    let (port, faulty, redis, amqp) = (free_port(), free_port(), redis_url(), amqp_url());
    let with_test_addresses = |text: &str| {
        text.replace("region = \"mumbai\"", &format!("base_url = \"{provider}\""))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
            .replace("127.0.0.1:8025", &format!("127.0.0.1:{faulty}"))
            .replace("redis://127.0.0.1:6379/0", &redis)
            .replace("amqp://guest:guest@127.0.0.1:5672/%2f", &amqp)
    };
    let mut script = Script::new();
    let mut summary = String::new();
    for Block { language, text } in FOLLOWED.iter().flat_map(|name| blocks(name)) {
        let text = with_test_addresses(&text);
        let first = text.lines().next().unwrap_or_default().to_owned();
        match language.as_str() {
            "sh" if SKIPPED.iter().any(|skipped| first.starts_with(skipped)) => {}
            "sh" => {
                script.mark(&first);
                if text.contains("worker --embedded") {
                    script.line(&format!("export FLOWCAST_HTTP__LISTEN=127.0.0.1:{port}"));
                } else if text.contains("-X PUT") {
                    script.line(&format!("flowcast sandbox --fault 401=100% --listen 127.0.0.1:{faulty} & FAULTY=$!\nuntil_answered http://127.0.0.1:{faulty}/stats"));
                }
                let (before, after) = text.split_at(text.find("flowcast submit").unwrap_or(0));
                script.typed(before, port);
                if !before.is_empty() {
                    script.listen(&blocks("docs/reference/events.md")[0].text);
                }
                script.typed(after, port);
                if !before.is_empty() {
                    script.line("wait $LISTENER; cat events.log");
                }
                if text.contains("responses.csv") {
                    script.line("unset FLOWCAST_HTTP__LISTEN");
                    script.stop_worker();
                }
            }
            "toml" => script.file("flowcast.toml", &text),
            "json" if first.contains("control") => {
                script.file("control.json", &text);
                script.line("sed 's/navratri.json/control.json/' publish.py > control.py && /usr/bin/python3 control.py");
            }
            "json" => script.file("diwali.json", &text),
            "python" => {
                script.file("publish.py", &text);
                script.line("/usr/bin/python3 publish.py");
            }
            "" if first.starts_with("campaign ") => summary = text,
            other => panic!("unexpected code block in {other}"),
        }
    }
    for name in ["docs/guide/delivery-reports.md", "docs/redis.md"] {
        script.mark(name);
        blocks(name)
            .iter()
            .filter(|block| block.language == "sh")
            .for_each(|block| script.typed(&with_test_addresses(&block.text), port));
    }
    script.stop_worker();
    script.mark("docs/operations/monitoring.md");
    let traced = blocks("docs/operations/monitoring.md")
        .into_iter()
        .find(|block| block.text.contains("OTEL"))
        .unwrap();
    script.typed(&traced.text.replace("4318", &faulty.to_string()), port);
    script.stop_worker();

    let environment =
        [("EXOTEL_TOKEN", "token1".to_owned()), ("REDIS", redis.clone()), ("AMQP_URL", amqp.clone())];
    let out = by_marks(&script.run(folder.path(), &environment).await);
    // The summary in the README, except for the duration.
    let shown = &out["cargo run -- run fixtures/jobs/appointment.json --sandbox"];
    let (head, rest) = summary.split_once("completed in").unwrap();
    assert!(shown.starts_with(head), "{shown}");
    assert_eq!(shown.split_once("\n\n").unwrap().1.trim(), rest.split_once("\n\n").unwrap().1.trim());
    // The first campaign is sent to two recipients. The second one is sent once, although it is submitted four times.
    let checked = out.values().find(|out| out.contains("Dear Asha, …")).unwrap();
    assert!(checked.contains("Dear Ravi, …"), "{checked}");
    let report = std::fs::read_to_string(folder.path().join("diwali-report.csv")).unwrap();
    assert_eq!(report.matches(",accepted,").count(), 2, "{report}");
    assert_eq!(sandbox.count(), 4, "two campaigns to two recipients");
    let followed = out.iter().find(|(name, _)| name.contains("audiences?name=customers.csv")).unwrap().1;
    assert!(followed.contains("\"state\":\"completed\"") && !followed.contains("problem"), "{followed}");
    assert!(out.values().any(|out| out.contains("campaign.completed evt_")), "{out:?}");
    let redis = &out["docs/redis.md"];
    assert!(redis.starts_with("accepted ") && redis.contains("completed"), "{redis}");
}

/// Checks the configurations of each page; the environment adds the accounts.
#[test]
fn all_configurations_in_the_documentation_are_valid() {
    let mut count = 0;
    for name in pages() {
        let tables: Vec<Block> = blocks(&name).into_iter().filter(|block| block.language == "toml").collect();
        if tables.is_empty() {
            continue;
        }
        count += tables.len();
        let world = World::new(2);
        world.write("page.toml", tables.iter().map(|block| block.text.as_str()).collect::<String>());
        let mut command = world.command(&["--config", "page.toml", "check", "job.json"]);
        for (account, provider) in [("MAIN", "exotel"), ("KALEYRA", "kaleyra"), ("META", "meta")] {
            for (key, value) in [
                ("PROVIDER", provider),
                ("BASE_URL", "http://127.0.0.1:9"),
                ("ACCOUNT_SID", "acme1"),
                ("API_KEY", "key1"),
                ("API_TOKEN", "token1"),
            ] {
                command.env(format!("FLOWCAST_ACCOUNTS__{account}__{key}"), value);
            }
        }
        for name in ["NEW_KEY", "OLD_KEY", "EXOTEL_TOKEN", "KALEYRA_KEY", "CALLBACK_KEY", "META_APP_SECRET"] {
            command.env(name, "a key of more than 16 characters");
        }
        // The job lists its recipients, because the page may set another audience folder.
        world.write(
            "job.json",
            job_with(
                "/audience",
                serde_json::json!({ "recipients": [{ "phone": "+919876543210", "name": "Asha" }] }),
            )
            .to_string(),
        );
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    assert!(count > 10);
}

/// Checks the JSON documents of each page.
#[test]
fn all_json_documents_in_the_documentation_are_valid() {
    let mut count = 0;
    for name in pages() {
        for block in blocks(&name).into_iter().filter(|block| block.language == "json") {
            // A part of a document, or the whole.
            let whole =
                if block.text.starts_with('{') { block.text.clone() } else { format!("{{{}}}", block.text) };
            let document: Value =
                serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{name}: {error}\n{whole}"));
            if document.get("control").is_some() {
                continue;
            }
            let mut whole = job();
            for (key, value) in document.as_object().unwrap() {
                whole[key] = value.clone();
            }
            assert!(Job::read(whole.to_string().as_bytes()).is_ok(), "{name}: {whole}");
            count += 1;
        }
    }
    assert!(count > 2);
}

#[tokio::test]
async fn the_page_on_schemas_runs() {
    let world = World::new(0);
    let mut script = Script::new();
    script.line("printf 'phone,name\n+919876543210,Asha\n' > diwali.csv");
    for block in blocks("docs/reference/schemas.md") {
        match block.language.as_str() {
            "sh" => script.typed(&block.text, 0),
            "json" => script.file("diwali.json", &block.text),
            "toml" => script.file("flowcast.toml", &block.text),
            other => panic!("unexpected code block in {other}"),
        }
    }
    script.mark("check");
    script.line("flowcast check diwali.json");
    let out = by_marks(&script.run(&world.path(""), &[]).await);
    assert!(out["check"].contains("Dear Asha, we are open until nine."), "{out:?}");
    assert!(world.path("job.schema.json").exists());
}

/// Compares the tree on the architecture page with the entries of `src`.
#[test]
fn the_tree_on_the_architecture_page_lists_the_entries_of_src() {
    let tree = blocks("docs/architecture.md").remove(0).text;
    let drawn: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .flat_map(|line| {
            let names = line
                .split("  ")
                .take_while(|name| !name.contains(' ') && (name.ends_with('/') || has_extension(name, "rs")));
            names.map(|name| name.trim_end_matches('/').to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let file_name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let actual = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    // The parts of a module are in a folder with its name.
    let actual: BTreeSet<String> = actual.map(file_name).filter(|name| name != "config").collect();
    assert_eq!(drawn, actual);
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|known| known == extension)
}

/// Returns the paths of the README and of all pages.
fn pages() -> Vec<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/guide", "docs/reference", "docs/operations"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let names = entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
        pages.extend(names.filter(|name| has_extension(name, "md")));
    }
    pages
}

/// Returns the anchor that websites generate for a heading.
fn anchor(heading: &str) -> String {
    let plain = heading.to_lowercase().replace(' ', "-");
    plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn every_link_between_pages_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for name in
        pages().into_iter().chain(["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned))
    {
        let text = page(&name);
        // Text outside of code blocks.
        let prose: String = text.split("\n```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root.join(&name),
                file => root.join(&name).parent().unwrap().join(file),
            };
            assert!(target.exists(), "{name}: {link}");
            if !part.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|anchor| anchor == part);
                assert!(found, "{name}: {link}");
            }
        }
    }
    assert!(seen > 30, "too few links were found: {seen}");
}

/// Code blocks and the tests that run them: page, language, count, test. The tests above read all `toml` and `json` blocks.
const RUN: [(&str, &str, usize, &str); 19] = [
    ("README.md", "sh", 3, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("README.md", "", 1, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/guide/first-campaign.md", "sh", 5, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/guide/fleet.md", "sh", 5, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/guide/fleet.md", "python", 1, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/guide/retries-and-doubts.md", "sh", 3, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/reference/api.md", "sh", 7, "api::the_examples_of_the_documentation_run"),
    (
        "docs/reference/api.md",
        "yaml",
        1,
        "clients::a_generated_python_client_has_no_warnings_and_runs_a_campaign",
    ),
    ("docs/architecture.md", "", 1, "the_tree_on_the_architecture_page_lists_the_entries_of_src"),
    ("docs/guide/audiences.md", "sh", 1, "audiences::the_examples_of_the_page_on_audiences_run"),
    // Results of measurements.
    ("docs/benchmarks.md", "", 6, ""),
    ("docs/guide/delivery-reports.md", "sh", 2, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/guide/dashboard.md", "sh", 4, "dashboard::the_examples_of_the_documentation_run"),
    ("docs/reference/events.md", "python", 2, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/reference/events.md", "js", 1, "schemas::assert_genuine"),
    ("docs/operations/backups.md", "sh", 5, "power_loss::redis_is_backed_up_and_restored_as_documented"),
    ("docs/operations/monitoring.md", "sh", 1, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/redis.md", "sh", 2, "the_readme_and_the_guides_run_from_an_empty_folder"),
    ("docs/reference/schemas.md", "sh", 1, "the_page_on_schemas_runs"),
];

/// Every code block must be in [`RUN`] with a test that runs it.
#[test]
fn every_code_block_of_the_documentation_is_run_by_a_test() {
    let mut found = BTreeMap::<(String, String), usize>::new();
    for name in pages() {
        for block in
            blocks(&name).into_iter().filter(|block| !["toml", "json"].contains(&block.language.as_str()))
        {
            *found.entry((name.clone(), block.language)).or_default() += 1;
        }
    }
    let run: BTreeMap<(String, String), usize> = RUN
        .iter()
        .map(|(page, language, count, _)| ((page.to_string(), language.to_string()), *count))
        .collect();
    assert_eq!(found, run);
    for (.., test) in RUN {
        let (module, name) = test.rsplit_once("::").unwrap_or(("pages", test));
        let source = page(&format!("tests/it/{module}.rs"));
        assert!(name.is_empty() || source.contains(&format!("fn {name}(")), "{test}");
    }
}
