//! The memory of template expressions is limited. It is measured in a process of its own: the executable of the tests, which
//! runs an otherwise ignored test.

use std::process::Command;

use flowcast::campaign::{Batch, Columns, Job, Template};
use flowcast::provider::{Credentials, PROVIDERS};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::json;

/// Maximum growth of the measured process, in KiB.
const MAX_GROWTH: u64 = 32 * 1024;

/// Generates expressions that try to create large values from small ones.
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

/// Compiles a template as part of a flow's data, and renders it with long values. Returns whether it compiled.
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

/// Returns the peak memory of this process since the last call, in KiB.
///
/// Excludes pages of the executable, which are loaded when their code first runs, independently of templates.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let peak = field("VmHWM:").saturating_sub(field("RssFile:"));
    // If the reset is not permitted, the peak is since the start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak
}

#[test]
#[ignore = "the test below runs it in a process of its own"]
fn every_expression_stays_below_the_limit() {
    // Expressions that once needed much memory.
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
        let growth = peak().saturating_sub(before);
        assert!(growth < MAX_GROWTH, "{growth} KiB: {text:.200}");
    }
    let seed = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let (mut compiled, mut max_growth) = (0, 0);
    for _ in 0..1500 {
        let text = template().new_tree(&mut runner).unwrap().current();
        compiled += u32::from(render(&text));
        let growth = peak().saturating_sub(before);
        assert!(growth < MAX_GROWTH, "{growth} KiB: {text:.2000}");
        max_growth = max_growth.max(growth);
    }
    assert!(compiled > 200, "only {compiled} of the expressions compiled");
    eprintln!("{compiled} expressions took at most {max_growth} KiB");
}

#[test]
fn no_expression_takes_more_than_32_mib() {
    let executable = std::env::current_exe().unwrap();
    let output = Command::new(executable)
        .args([
            "template_memory::every_expression_stays_below_the_limit",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
