//! The Dockerfile and compose.yaml, checked without a container engine.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the Dockerfile's instructions; continued lines are joined and comments removed.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    lines
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// Returns the arguments of every instruction of a kind.
fn arguments_of(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == name).map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_is_small_and_pinned_and_does_not_run_as_root() {
    let from = arguments_of("FROM");
    let mut stages = Vec::new();
    for base in &from {
        let words: Vec<&str> = base.split(' ').collect();
        assert!(
            stages.contains(&words[0].to_owned())
                || words[0].split_once(':').is_some_and(|(_, tag)| tag != "latest"),
            "{base} must be pinned"
        );
        stages.extend(words.get(2).map(|name| (*name).to_owned()));
    }
    assert_eq!(from.last().unwrap(), "debian:bookworm-slim", "the last stage must have no compiler");
    let toolchain = read("rust-toolchain.toml");
    let version = from[0].trim_start_matches("rust:").split('-').next().unwrap();
    assert!(
        toolchain.contains(version),
        "the image must build with the version of {toolchain}, not {version}"
    );
    for copy in arguments_of("COPY").iter().filter_map(|copy| copy.strip_prefix("--from=")) {
        assert!(stages.contains(&copy.split(' ').next().unwrap().to_owned()), "{copy}");
    }
    for run in arguments_of("RUN").iter().filter(|run| run.contains("apt-get install")) {
        assert!(
            run.contains("--no-install-recommends") && run.contains("rm -rf /var/lib/apt/lists"),
            "{run}"
        );
    }
    for run in
        arguments_of("RUN").iter().filter(|run| run.contains("cargo build") || run.contains("cargo install"))
    {
        assert!(run.contains("--locked"), "{run}");
    }
    assert!(
        arguments_of("ADD").is_empty() && arguments_of("USER").last().unwrap().parse::<u32>().unwrap() > 0
    );
    assert_eq!(
        (
            arguments_of("HEALTHCHECK").len(),
            arguments_of("ENTRYPOINT").len(),
            arguments_of("STOPSIGNAL")[0].as_str()
        ),
        (1, 1, "SIGTERM")
    );
}

#[test]
fn the_compose_fleet_is_complete() {
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
        for (needed, condition) in needs.into_iter().flatten() {
            assert_eq!(condition["condition"], "service_healthy", "{name}");
            assert!(services[needed]["healthcheck"].is_object(), "{needed} must have a health check");
        }
        let image = service["image"].as_str().unwrap();
        assert!(image == "flowcast" || image.contains(':'), "{image} must be pinned");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
            assert!(compose["volumes"].get(source).is_some() || folder.is_dir(), "{source}");
        }
    }
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    // Its environment is a valid configuration.
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
