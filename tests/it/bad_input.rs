//! Invalid input: the error says what is wrong, where, and what to do; the exit status is 2; nothing is sent.

use std::io::Write;

use flowcast::sandbox::Behaviour;
use serde_json::{Value, json};

use crate::support::{World, job, job_with, phone, sandbox};

/// Runs and checks a job that must be refused, and returns the error.
async fn run_refused(prepare: impl FnOnce(&World)) -> String {
    let world = World::new(3);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    prepare(&world);
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert_eq!(sandbox.stats()["requests"], 0, "nothing must be sent");
    assert_eq!(ended.out, "");
    let checked = world.run(&["check", "job.json"]).await;
    assert_eq!((checked.status, &checked.err), (Some(2), &ended.err));
    ended.err
}

macro_rules! is_refused {
    ($($test:ident: $prepare:expr => $error:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let error = run_refused($prepare).await;
                assert!(error.contains($error), "{error}");
            }
        )+
    };
}

fn compress(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn csv(world: &World, content: &str) {
    world.write("audience.csv", content);
}

is_refused! {
    a_missing_job_is_refused: |world: &World| std::fs::remove_file(world.path("job.json")).unwrap()
        => "no such file: job.json";
    a_missing_audience_is_refused: |world: &World| std::fs::remove_file(world.path("audience.csv")).unwrap()
        => "no such file: audience.csv";
    a_job_that_is_not_json_is_refused: |world: &World| world.write("job.json", "{\n  \"version\": 1,\n  oops\n}")
        => "job.json: the job: is not JSON: key must be a string at line 3 column 3";
    an_empty_job_is_refused: |world: &World| world.write("job.json", "") => "is not JSON";
    an_unknown_field_is_refused: |world: &World| world.write_job(&job_with("/acount", json!("main")))
        => "job.json: acount: unknown field; did you mean \"account\"? (/acount)";
    a_missing_phone_column_is_refused: |world: &World| csv(world, "number,name\n+919876543210,Asha\n")
        => "audience.csv: found no phone column among";
    a_placeholder_without_a_column_is_refused: |world: &World| csv(world, "phone,nmae\n+919876543210,Asha\n")
        => "message text body: the audience has no column \"name\"; did you mean \"nmae\"?";
    an_audience_without_rows_is_refused: |world: &World| csv(world, "phone,name\n") => "audience.csv has a header but no rows";
    an_empty_audience_is_refused: |world: &World| csv(world, "") => "audience.csv is empty";
    a_duplicate_column_is_refused: |world: &World| csv(world, "phone,name,name\n+919876543210,a,b\n")
        => "the column \"name\" occurs twice in the header";
    an_audience_that_is_not_utf8_is_refused: |world: &World| world.write("audience.csv", b"phone,name\n+919876543210,Zo\xc3\xab\n+919876543211,Jos\xe9\n")
        => "audience.csv is not UTF-8: byte 47 (line 3); save the file as \"CSV UTF-8\"";
    an_invalid_workbook_is_refused: |world: &World| {
        world.write("people.xlsx", "phone,name\n");
        world.write_job(&job_with("/audience/csv/path", json!("people.xlsx")));
    } => "cannot read people.xlsx as a workbook: ";
    a_draft_flow_to_eleven_recipients_is_refused: |world: &World| {
        world.write_audience(11);
        world.write_job(&job_with("/message", json!({
            "type": "interactive",
            "interactive": { "type": "flow", "body": { "text": "Hello" }, "action": { "name": "flow", "parameters": {
                "flow_message_version": "3", "flow_id": "1", "flow_token": "t", "flow_cta": "Go",
                "flow_action": "data_exchange", "mode": "draft" } } },
        })));
    } => "message interactive action parameters mode: a draft flow is only for tests";
    a_compressed_file_with_an_endless_row_is_refused: |world: &World| {
        world.write("audience.csv.gz", compress(&format!("phone,name\n+919876543210,{}", "a".repeat(3 << 20))));
        world.write_job(&job_with("/audience/csv/path", json!("audience.csv.gz")));
    } => "audience.csv.gz: the row on line 2 exceeds 1 MiB";
    a_caption_over_its_limit_is_refused: |world: &World| world.write_job(&job_with(
        "/message",
        json!({ "type": "image", "image": { "link": "https://a.example/x.png", "caption": "c".repeat(1025) } }),
    )) => "message image caption: is 1,025 characters long; WhatsApp allows 1,024 (Meta's documentation)";
    an_invalid_template_name_is_refused: |world: &World| world.write_job(&job_with(
        "/message",
        json!({ "type": "template", "template": { "name": "Order Ready", "language": { "code": "en" } } }),
    )) => "message template name: must contain only lower-case letters, digits and underscores";
    an_unclosed_quote_is_refused: |world: &World| csv(world, "phone,name\n+919876543210,\"Asha\n+919876543211,Bo\n")
        => "cannot read audience.csv: the quote on line 2 is never closed";
    an_unclosed_quote_that_pairs_with_a_later_row_is_refused: |world: &World| csv(
        world,
        "phone,name\n+919876543210,\"Asha\n+919876543211,\"Bo\"\n+919876543212,\"Cy\"\n",
    ) => "cannot read audience.csv: the quote on line 2 is never closed";
    a_body_too_long_for_every_recipient_is_refused: |world: &World| world.write_job(&job_with(
        "/message/text/body",
        json!(format!("{}{{{{ name }}}}", "x".repeat(5000))),
    )) => "message text body: even without its values it is 5,000 characters long; WhatsApp allows 4,096 (Exotel's documentation)";
    an_audience_outside_the_root_is_refused: |world: &World| world.write_job(&job_with("/audience/csv/path", json!("../x.csv")))
        => "../x.csv is outside the audience root";
    a_limit_that_can_never_be_met_is_refused: |world: &World| world.write_job(&job_with("/limits", json!({ "messages": "0/s" })))
        => "limits messages: a limit of 0 allows nothing";
    an_unconfigured_account_is_refused: |world: &World| world.write_job(&job_with("/account", json!("mian")))
        => "the account \"mian\" is not configured; did you mean \"main\"? (/account)";
    missing_credentials_are_refused: |world: &World| world.write(
        "flowcast.toml",
        "[accounts.main]\nprovider = \"exotel\"\nregion = \"mumbai\"\naccount_sid = \"a\"\napi_key = \"k\"\n",
    ) => "accounts.main.api_token is missing: set it in the configuration, or as FLOWCAST_ACCOUNTS__MAIN__API_TOKEN";
    a_credential_from_an_unset_variable_is_refused: |world: &World| world.write(
        "flowcast.toml",
        "[accounts.main]\nprovider = \"exotel\"\nregion = \"mumbai\"\naccount_sid = \"a\"\napi_key = { env = \"NOT_SET_AT_ALL\" }\n",
    ) => "accounts.main.api_key: the variable NOT_SET_AT_ALL is not set";
    an_account_limit_that_can_never_be_met_is_refused: |world: &World| world.write_config("http://127.0.0.1:9", "limits = { requests = \"0/min\" }")
        => "accounts.main.limits.requests";
    an_unknown_phone_column_is_refused: |world: &World| world.write_job(&job_with("/audience/csv/phone", json!("row")))
        => "the audience has no column \"row\"; expected one of: ";
    two_sources_of_an_audience_are_refused: |world: &World| world.write_job(&job_with("/audience/recipients", json!([{ "to": "+919876543210" }])))
        => "audience: has both \"csv\" and \"recipients\"; keep one";
    an_unknown_region_is_refused: |world: &World| world.write_job(&job_with("/audience/csv/default_region", json!("ZZ")))
        => "must be the two letters of a country, e.g. IN (ISO 3166)";
    an_audience_url_that_is_not_allowed_is_refused: |world: &World| world.write_job(&job_with("/audience", json!({ "csv": { "url": "https://x.example/a.csv" } })))
        => "the address does not begin with any URL prefix in audiences.allow; add its prefix there";
}

#[test]
fn the_error_without_a_configuration_says_what_to_do() {
    let world = World::new(3);
    let ended = world.flowcast(&["run", "job.json"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.err.contains(
        "add it under [accounts.main] in flowcast.toml, or test the job with `flowcast run JOB --sandbox`"
    ));
}

#[test]
fn invalid_addresses_in_the_configuration_exit_with_2() {
    for (table, args, expected) in [
        (
            "[redis]\nurl = \"http://x\"",
            &["campaigns"][..],
            "Redis has an invalid address in redis.url: the form is ",
        ),
        (
            "[amqp]\nurl = \"http://x\"",
            &["dead", "list"],
            "RabbitMQ has an invalid address in amqp.url; the form is ",
        ),
        (
            "[http]\nlisten = \"abc\"",
            &["worker", "--embedded", "--sandbox"],
            "\"abc\" is not an address (http.listen); the form is 127.0.0.1:8080",
        ),
    ] {
        let world = World::new(3);
        world.write("flowcast.toml", table);
        let ended = world.flowcast(args);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
}

#[test]
fn an_invalid_argument_says_what_to_write() {
    let world = World::new(3);
    for (args, expected) in [
        (&["suppress", "import", "missing.csv"][..], "no such file: missing.csv"),
        (&["suppress", "add", "98765"], "has no country code; write it with + and the country code\n"),
        (&["sandbox", "--listen", "foo"], "write an IP address and a port, e.g. 127.0.0.1:8025"),
        (&["check", "job.json", "--rows", "x"], "write a whole number, e.g. 20"),
    ] {
        let ended = world.flowcast(args);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let world = World::new(3);
    for args in [
        &["run"][..],
        &["frobnicate"],
        &["run", "job.json", "--accept-rate", "0.5"],
        &["--config", "none.toml", "run", "job.json"],
        &["status", "a/b"],
        &["report", "c1", "--state", "lost"],
        &["sandbox", "--rate-limit", "0/s"],
    ] {
        let ended = world.flowcast(args);
        assert_eq!(ended.status, Some(2), "{args:?} {ended:?}");
        assert!(!ended.err.is_empty());
    }
}

#[test]
fn an_unknown_campaign_is_reported_with_the_nearest_id() {
    let world = World::new(3);
    assert!(world.flowcast(&["status", "c1"]).err.contains("no such store: flowcast.db"));
    assert_eq!(world.flowcast(&["run", "job.json", "--sandbox"]).status, Some(0));
    let ended = world.flowcast(&["status", "c2"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.err.contains("there is no campaign \"c2\"; did you mean \"c1\"?"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_whose_body_is_too_long_are_skipped_and_the_others_are_sent() {
    let world = World::new(3);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    world.write(
        "audience.csv",
        format!("phone,name\n{},a\n{},{}\n{},c\n", phone(1), phone(2), "x".repeat(5000), phone(3)),
    );
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(sandbox.stats()["accepted"], 2);
    let lines = world.report("c1");
    assert_eq!(lines[1]["code"], "invalid_content");
    assert_eq!(
        lines[1]["detail"],
        "the text is 5,006 characters long; WhatsApp allows 4,096 (Exotel's documentation) (/message/text/body)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_is_held_if_its_audience_changed_between_two_runs() {
    for change in [
        |csv: String| csv.replace("name 2", "name 22"),
        |csv: String| csv + "+919811111111,one more\n",
        |csv: String| csv.lines().take(2).map(|line| format!("{line}\n")).collect(),
    ] {
        let world = World::new(3);
        let (sandbox, url) = sandbox(Behaviour::default()).await;
        world.write_config(&url, "");
        assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
        let old = std::fs::read_to_string(world.path("audience.csv")).unwrap();
        world.write("audience.csv", change(old.clone()));
        let ended = world.run(&["run", "job.json"]).await;
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(
            ended.err.contains("the audience has changed since campaign c1 was planned"),
            "{}",
            ended.err
        );
        assert_eq!(sandbox.stats()["requests"], 1);
        let status = world.status("c1");
        assert_eq!(status["state"], "held");
        assert!(status["reason"].as_str().unwrap().contains("audience has changed"));
        // With the old file restored, the campaign completes without sending more.
        world.write("audience.csv", old);
        assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
        assert_eq!(world.status("c1")["state"], "completed");
        assert_eq!(sandbox.stats()["requests"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_other_content_is_refused() {
    let world = World::new(3);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    world.write_config(&url, "");
    assert_eq!(world.run(&["run", "job.json"]).await.status, Some(0));
    let mut other: Value = job();
    other["message"]["text"]["body"] = json!("Something else");
    world.write_job(&other);
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(2));
    assert!(ended.err.contains("campaign c1 already exists with different content"), "{}", ended.err);
    assert_eq!(sandbox.stats()["accepted"], 3);
}

#[test]
fn a_second_sender_on_one_store_is_refused() {
    use flowcast::ledger::{Access, Sqlite};
    let world = World::new(3);
    let _first = Sqlite::open(&world.path("flowcast.db"), Access::Send).unwrap();
    let ended = world.flowcast(&["run", "job.json", "--sandbox"]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.err.contains("is sending from flowcast.db; wait until it ends, or use another store"));
}

#[test]
fn a_store_that_cannot_be_written_exits_with_1() {
    let world = World::new(3);
    let ended = world.flowcast(&["run", "job.json", "--sandbox", "--store", "no/such/folder/x.db"]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.err.contains("no/such/folder/x.db"), "{}", ended.err);
}

#[test]
fn control_characters_of_a_job_are_escaped() {
    let world = World::new(2);
    let mut job = job_with("/name", json!("sale \u{1b}[2J\r\nfake: line\u{9b}31m"));
    job["message"]["text"]["body"] = json!("Hi \u{1b}]0;title\u{7} {{ name }}");
    world.write_job(&job);
    for args in [
        &["check", "job.json"][..],
        &["run", "job.json", "--sandbox"],
        &["status", "c1"],
        &["campaigns"],
        &["report", "c1"],
        &["status", "c1", "--json"],
    ] {
        let ended = world.flowcast(args);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let printed = ended.out + &ended.err;
        let is_control = |c: char| c.is_control() && c != '\n';
        assert!(!printed.contains(is_control), "{args:?}: {printed:?}");
        assert!(!printed.lines().any(|line| line.starts_with("fake")), "{args:?}: {printed}");
    }
    let shown = world.flowcast(&["status", "c1"]).out;
    assert!(shown.contains("(sale \\u001b[2J\\r\\nfake: line\\u009b31m)"), "{shown}");
}

#[test]
fn a_check_reports_an_unconfigured_account() {
    let world = World::new(1);
    let ended = world.flowcast(&["check", "job.json"]);
    assert_eq!(ended.status, Some(0));
    assert!(
        ended.err.contains("no account is configured: the job is checked as if \"main\""),
        "{}",
        ended.err
    );
    assert!(ended.out.contains("forecast: 1 request of up to 100 messages"), "{}", ended.out);
}
