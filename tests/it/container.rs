//! The Dockerfile and compose.yaml, read as a careful person would: no engine is needed for that.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The Dockerfile's instructions: lines that go on are joined, comments are gone.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    lines
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(word, rest)| (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn all(word: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == word).map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_is_small_pinned_and_runs_as_nobody_in_particular() {
    let from = all("FROM");
    let mut stages = Vec::new();
    for base in &from {
        let words: Vec<&str> = base.split(' ').collect();
        assert!(
            stages.contains(&words[0].to_owned())
                || words[0].split_once(':').is_some_and(|(_, tag)| tag != "latest"),
            "{base} is not pinned"
        );
        stages.extend(words.get(2).map(|name| (*name).to_owned()));
    }
    assert_eq!(from.last().unwrap(), "debian:bookworm-slim", "the last stage has no compiler");
    let toolchain = read("rust-toolchain.toml");
    let version = from[0].trim_start_matches("rust:").split('-').next().unwrap();
    assert!(toolchain.contains(version), "the image builds with {version}, and {toolchain}");
    for copy in all("COPY").iter().filter_map(|copy| copy.strip_prefix("--from=")) {
        assert!(stages.contains(&copy.split(' ').next().unwrap().to_owned()), "{copy}");
    }
    for run in all("RUN").iter().filter(|run| run.contains("apt-get install")) {
        assert!(
            run.contains("--no-install-recommends") && run.contains("rm -rf /var/lib/apt/lists"),
            "{run}"
        );
    }
    for run in all("RUN").iter().filter(|run| run.contains("cargo build") || run.contains("cargo install")) {
        assert!(run.contains("--locked"), "{run}");
    }
    assert!(all("ADD").is_empty() && all("USER").last().unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(
        (all("HEALTHCHECK").len(), all("ENTRYPOINT").len(), all("STOPSIGNAL")[0].as_str()),
        (1, 1, "SIGTERM")
    );
}

#[test]
fn the_fleet_of_compose_is_whole() {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let services: BTreeMap<String, Value> = serde_json::from_value(compose["services"].clone()).unwrap();
    let command = services["redis"]["command"].to_string();
    for option in
        ["\"--appendonly\",\"yes\"", "\"--appendfsync\",\"always\"", "\"--maxmemory-policy\",\"noeviction\""]
    {
        assert!(command.contains(option), "{command}");
    }
    for (name, service) in &services {
        let needs = service["depends_on"].as_object();
        for (needed, how) in needs.into_iter().flatten() {
            assert_eq!(how["condition"], "service_healthy", "{name}");
            assert!(services[needed]["healthcheck"].is_object(), "{needed} has no health check");
        }
        let image = service["image"].as_str().unwrap();
        assert!(image == "flowcast" || image.contains(':'), "{image} is not pinned");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
            assert!(compose["volumes"].get(source).is_some() || here.is_dir(), "{source}");
        }
    }
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    // What it configures is a configuration.
    let environment = services["worker"]["environment"].as_object().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flowcast"));
    command.args(["check", "fixtures/jobs/appointment.json"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, value) in environment {
        let value = value.as_str().unwrap().replace("/var/lib/flowcast/audiences", "fixtures/jobs");
        command.env(name, value);
    }
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
