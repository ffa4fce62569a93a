//! The alerts and the dashboard that are shipped: they query only metrics that exist.

use std::collections::BTreeSet;
use std::process::Command;

use flowcast::sandbox::Behaviour;
use serde_json::Value;

use crate::service::Service;
use crate::support::{sandbox, sources};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// Prefixes of our metrics: our own name, and that of OpenTelemetry's conventions for servers.
const OURS: [&str; 2] = ["flowcast_", "http_server_"];

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|start| name.len() > start.len() && name.starts_with(start))
}

/// Returns the metrics in a text, without the suffixes that Prometheus adds to a histogram's name.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let names = words.filter(|word| is_ours(word));
    let plain = |name: &str| {
        let endings = ["_bucket", "_sum", "_count"];
        endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
    };
    names.map(plain).collect()
}

/// Returns the metrics that the code describes.
fn described() -> BTreeSet<String> {
    let all: String = sources("src").into_iter().map(|(_, text)| text).collect();
    let names = all.split("describe_").skip(1).filter_map(|rest| rest.split('"').nth(1));
    names.filter(|name| is_ours(name)).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_described_documented_and_shown_and_no_other_is_queried() {
    let known = described();
    assert!(known.len() > 10, "the test found too little: {known:?}");
    let recorded: BTreeSet<String> = sources("src")
        .into_iter()
        .flat_map(|(_, text)| {
            let macros = [" metrics::counter!(", " metrics::gauge!(", " metrics::histogram!("];
            let names = macros.map(|start| {
                let names = text.split(start).skip(1).filter_map(|rest| rest.split('"').nth(1));
                names.map(str::to_owned).collect::<Vec<_>>()
            });
            names.concat()
        })
        .collect();
    assert_eq!(recorded, known, "every recorded metric must be described");
    let board: Value = serde_json::from_str(&read("deploy/grafana/flowcast.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let queried: BTreeSet<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .flat_map(|target| metrics(target["expr"].as_str().unwrap()))
        .collect();
    assert_eq!(queried, known, "the dashboard must show every metric");
    for panel in panels {
        assert!(
            !panel["title"].as_str().unwrap().ends_with('?'),
            "a title must be a noun phrase: {}",
            panel["title"]
        );
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
    }
    assert!(metrics(&read("deploy/prometheus/flowcast.rules.yml")).is_subset(&known));
    let documented = metrics(&read("docs/operations/monitoring.md"));
    let missing: Vec<_> = known.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/operations/monitoring.md must document {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_counter_of_an_alert_starts_at_zero() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    for is_embedded in [true, false] {
        let service = Service::start(is_embedded, &provider, "").await;
        let text = service
            .client
            .get(format!("{}/metrics", service.url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let rules = read("deploy/prometheus/flowcast.rules.yml");
        let watched: BTreeSet<String> =
            metrics(&rules).into_iter().filter(|name| name.ends_with("_total")).collect();
        assert!(watched.len() >= 8, "{watched:?}");
        for name in watched {
            let series: Vec<&str> = text.lines().filter(|line| line.starts_with(&name)).collect();
            assert!(!series.is_empty(), "{name}: {text}");
            assert!(series.iter().all(|line| line.ends_with(" 0")), "{series:?}");
        }
        for series in [
            "flowcast_messages_total{account=\"main\",state=\"in_doubt\"} 0",
            "flowcast_messages_total{account=\"main\",state=\"rejected\"} 0",
            "flowcast_breaker_opened_total{account=\"main\"} 0",
        ] {
            assert!(text.contains(series), "{series}: {text}");
        }
    }
}

#[test]
fn the_alerts_are_valid_and_fire_as_expected() {
    for args in [
        ["check", "rules", "deploy/prometheus/flowcast.rules.yml"],
        ["test", "rules", "deploy/prometheus/flowcast.test.yml"],
    ] {
        let ended = Command::new("promtool").args(args).current_dir(ROOT).output().unwrap();
        let out = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(ended.status.success(), "{out:?}");
    }
}
