//! `flowcast explain`, and how status and report explain a code.

use flowcast::sandbox::Behaviour;
use serde_json::Value;

use crate::support::{World, sandbox};

#[test]
fn a_code_is_explained_by_its_name_or_its_number() {
    let world = World::new(1);
    let explained = |code: &str| {
        let ended = world.flowcast(&["explain", code]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        ended.out
    };
    insta::assert_snapshot!(["131049", "E110", "400", "132068"].map(explained).join("\n"));
    assert_eq!(explained("30005"), explained("ex_number_error"));
    let ended = world.flowcast(&["--json", "explain", "130429"]);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&json[0]["action"], &json[0]["source"]), (&"wait".into(), &"WhatsApp (Meta)".into()));
}

#[test]
fn an_unknown_code_is_refused_with_the_nearest() {
    let ended = World::new(1).flowcast(&["explain", "EX_NUMBER_EROR"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.err.contains("did you mean \"EX_NUMBER_ERROR\"?"), "{ended:?}");
}

#[test]
fn the_page_of_codes_matches_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/codes.md");
    let document = std::fs::read_to_string(path).unwrap_or_default();
    let ended = World::new(1).flowcast(&["explain", "--markdown"]);
    assert!(ended.out == document, "docs/reference/codes.md must match the table: run `just codes`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_the_status_and_the_report_say_what_to_do() {
    let world = World::new(20);
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    sandbox.set_faults([("131026", 1.0)]);
    world.write_config(&url, "");
    let ended = world.run(&["run", "job.json"]).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let what_to_do = "Skip this person: remove the number from the list, or use another channel.";
    for text in [&ended.out, &world.flowcast(&["status", "c1"]).out] {
        assert!(text.contains("  131026: ") && text.contains(what_to_do), "{text}");
    }
    let line = &world.report("c1")[0];
    assert_eq!(line["code"], "131026");
    assert!(line["detail"].as_str().unwrap().contains(what_to_do), "{line}");
}
