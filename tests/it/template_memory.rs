//! No expression takes the memory of a worker. The measured process is one of its own: this test's
//! executable, started again for the part that is ignored otherwise.

use std::process::Command;

use flowcast::campaign::{Batch, Columns, Job, Template};
use flowcast::provider::{Credentials, PROVIDERS};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::json;

/// How much more than at its start the measured process may take, in KiB.
const ALLOWED: u64 = 32 * 1024;

/// Expressions that try to make much of little.
fn expression() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "name".to_string(),
        "city".into(),
        "row".into(),
        "7".into(),
        "99999999".into(),
        format!("'{}'", "a".repeat(2000)),
        "''".into(),
        "range(100000)".into(),
        "range(999)".into(),
    ]);
    let filter = prop::sample::select(vec![
        "replace('a', name)",
        "replace('', city)",
        "replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')",
        "split('')",
        "split('a')",
        "join(name)",
        "list",
        "upper",
        "string",
        "tojson",
        "tojson(indent=9999999)",
        "batch(99999999, name)",
        "slice(99999999, name)",
        "map('replace', 'a', name)",
        "indent(9999999)",
        "sum(start='')",
        "round(99999999)",
        "int",
        "length",
        "escape",
        "sort",
        "reverse",
    ]);
    text.prop_recursive(6, 64, 8, move |inner| {
        let operator = prop::sample::select(vec!["~", "~", "+", "*", "-", "**"]);
        prop_oneof![
            (inner.clone(), filter.clone()).prop_map(|(value, filter)| format!("({value}) | {filter}")),
            (inner.clone(), filter.clone()).prop_map(|(value, filter)| format!("{value} | {filter}")),
            (inner.clone(), operator, inner.clone()).prop_map(|(a, by, b)| format!("({a} {by} {b})")),
            prop::collection::vec(inner.clone(), 1..8).prop_map(|all| format!("[{}]", all.join(", "))),
            prop::collection::vec(inner, 1..8).prop_map(|all| all.join(" ~ ")),
        ]
    })
}

fn template() -> impl Strategy<Value = String> {
    let whole = (expression(), expression());
    whole.prop_flat_map(|(first, second)| {
        prop::sample::select(vec![
            format!("{{{{ {first} }}}}"),
            format!("x{{{{ ({first}) | length }}}}"),
            format!("{{% for one in {first} %}}{{{{ one ~ {second} }}}}{{% endfor %}}"),
            format!("{{% for one in range(999) %}}{{{{ ({first}) | length }}}}{{% endfor %}}"),
            format!("{{% if {first} == {second} %}}x{{% endif %}}y{{{{ row }}}}"),
        ])
    })
}

/// Compiles a template as part of a flow's data, and renders it with long values. Returns whether it
/// was offered at all.
fn render(text: &str) -> bool {
    let job = json!({
        "version": 1, "account": "main", "from": "+912248931479",
        "audience": { "recipients": [{ "phone": "+919876543210" }] },
        "message": { "type": "interactive", "interactive": {
            "type": "flow", "body": { "text": "x" },
            "action": { "name": "flow", "parameters": {
                "flow_message_version": "3", "flow_token": "t", "flow_id": "1", "flow_cta": "Go",
                "flow_action": "navigate",
                "flow_action_payload": { "screen": "s", "data": { "field": text } },
            } },
        } },
    });
    let job = Job::read(job.to_string().as_bytes()).unwrap();
    let credentials = Credentials {
        account_sid: "a".into(),
        api_key: "k".into(),
        api_token: "t".into(),
        ..Credentials::default()
    };
    let provider = (PROVIDERS[0].open)(&"http://127.0.0.1:1".parse().unwrap(), &credentials).unwrap();
    let columns = Columns::new(["name", "city"].map(String::from).into());
    let envelope = provider.envelope(&job, false).unwrap();
    let compiled = Template::compile(&envelope, &job.limits_of_strings, job.check_rendered, &columns, None);
    let Ok(template) = compiled else { return false };
    let values = ["a".repeat(60_000), "Pune".into()];
    let mut batch = Batch::new("c".parse().unwrap(), 0, template.columns().len(), false);
    let used = template.columns().iter().map(|column| values[*column].as_str());
    batch.push(1, "+919876543210".parse().unwrap(), used);
    let mut out = Vec::new();
    let _ = template.render(&batch.recipient(0).unwrap(), &mut out);
    assert!(out.len() <= 64 * 1024, "{} bytes", out.len());
    true
}

/// The most memory that this process has had since the last question, in KiB, without its own code: pages of that are read
/// as they are first run, however little a template takes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let peak = of("VmHWM:").saturating_sub(of("RssFile:"));
    // Where that is not allowed, it is the most since the start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak
}

#[test]
#[ignore = "runs in a process of its own, started by the test below"]
fn measured() {
    // The ways that were found by hand.
    let many = "a".repeat(3000);
    let before = peak();
    for text in [
        format!("{{{{ '{many}' | replace('a', '{many}') | replace('a', '{many}') | length }}}}"),
        format!("{{{{ ({}) | length }}}}", vec!["name"; 9000].join(" ~ ")),
        format!("{{{{ [{}] | string | length }}}}", vec!["name"; 9000].join(", ")),
        format!("{{{{ {} }}}}", "name | split('') | join(name) | split('') ".repeat(3)),
        "{{ name | split('') | map('replace', 'a', name) | join | length }}".into(),
    ] {
        render(&text);
        let more = peak().saturating_sub(before);
        assert!(more < ALLOWED, "{more} KiB: {text:.200}");
    }
    let seed = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let (mut offered, mut most) = (0, 0);
    for _ in 0..1500 {
        let text = template().new_tree(&mut runner).unwrap().current();
        offered += u32::from(render(&text));
        let more = peak().saturating_sub(before);
        assert!(more < ALLOWED, "{more} KiB: {text:.2000}");
        most = most.max(more);
    }
    assert!(offered > 200, "only {offered} of the expressions were tried");
    eprintln!("{offered} expressions took {most} KiB at the most");
}

#[test]
fn no_expression_takes_more_than_some_mib() {
    let itself = std::env::current_exe().unwrap();
    let done = Command::new(itself)
        .args(["template_memory::measured", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}
