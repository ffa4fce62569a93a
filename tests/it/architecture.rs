//! Dependencies point down, as `src/lib.rs` draws them.

use crate::support::sources;

/// What each module may use of the crate.
const MAY_USE: [(&str, &[&str]); 24] = [
    ("campaign", &[]),
    ("audience", &["campaign", "backoff", "egress"]),
    ("backoff", &["runtime"]),
    ("egress", &[]),
    ("forward", &["campaign", "backoff", "egress", "queue"]),
    ("provider", &["campaign"]),
    ("connection_slot", &[]),
    ("redis_client", &["backoff", "connection_slot"]),
    ("limiter", &["campaign", "micro_batch", "redis_client", "runtime"]),
    ("micro_batch", &[]),
    ("queue", &["campaign", "backoff", "connection_slot"]),
    ("ledger", &["campaign", "micro_batch", "redis_client", "runtime"]),
    ("sandbox", &["campaign", "routing"]),
    ("routing", &[]),
    ("runtime", &[]),
    (
        "dispatch",
        &[
            "campaign", "audience", "backoff", "provider", "limiter", "queue", "ledger", "forward",
            "runtime", "traces",
        ],
    ),
    (
        "simulation",
        &["campaign", "audience", "provider", "limiter", "queue", "ledger", "dispatch", "runtime"],
    ),
    ("callbacks", &["campaign", "ledger", "queue", "dispatch", "forward", "routing"]),
    ("config", &["campaign", "provider"]),
    ("telemetry", &["campaign"]),
    ("traces", &["campaign"]),
    ("views", &["campaign", "audience", "egress", "ledger", "dispatch"]),
    (
        "http",
        &["campaign", "audience", "config", "queue", "ledger", "dispatch", "views", "traces", "routing"],
    ),
    (
        "cli",
        &[
            "campaign",
            "audience",
            "provider",
            "limiter",
            "queue",
            "ledger",
            "redis_client",
            "sandbox",
            "dispatch",
            "callbacks",
            "forward",
            "http",
            "config",
            "telemetry",
            "traces",
            "views",
        ],
    ),
];

#[test]
fn arrows_point_down_only() {
    let mut seen = 0;
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().to_path_buf();
        let module = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "main" {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == module).expect("a module that is not drawn");
        for used in text.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            seen += 1;
            assert!(used == module || allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
    }
    assert!(seen > 50, "the test sees nothing: {seen}");
}

#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/security.md")).unwrap();
    let code: String =
        [sources("src"), sources("tests")].concat().into_iter().map(|(_, text)| text).collect();
    // The last column of the table.
    let named = text.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1));
    let named: Vec<&str> = named.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 20, "the test sees nothing: {named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}()")), "there is no test {name}");
    }
}

#[test]
fn the_domain_does_no_io_and_asks_no_clock() {
    for (path, text) in sources("src/campaign") {
        for forbidden in
            ["tokio", "std::fs", "std::net", "std::time::Instant", "SystemTime", "Timestamp::now", "async fn"]
        {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn no_code_but_the_providers_own_knows_one_by_name() {
    let mut seen = 0;
    for folder in ["dispatch", "ledger", "limiter", "queue", "http", "audience"] {
        for (path, text) in sources(&format!("src/{folder}")) {
            seen += 1;
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let line = line.to_lowercase();
                assert!(!line.contains("exotel") && !line.contains("kaleyra"), "{}: {line}", path.display());
            }
        }
    }
    assert!(seen > 30, "the test sees nothing: {seen}");
}

/// A method that a trait provides and a backend does otherwise would be done as the trait provides it, and nobody would notice.
#[test]
fn what_a_backend_does_itself_is_handed_on_to_it() {
    let handed_on =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/any.rs")).unwrap();
    let mut seen = 0;
    for (path, text) in [sources("src/ledger/redis"), sources("src/ledger/sqlite")].concat() {
        for backend in ["Redis", "Sqlite"] {
            for of_trait in
                text.split("\nimpl ").skip(1).filter(|part| part.contains(&format!(" for {backend} {{\n")))
            {
                let of_trait = of_trait.split("\n}\n").next().unwrap();
                let first = of_trait.lines().next().unwrap();
                let name = first.split(' ').next().unwrap().rsplit("::").next().unwrap();
                if !handed_on.contains(&format!("impl {name} for AnyLedger {{")) {
                    continue;
                }
                for method in of_trait.lines().filter_map(|line| line.strip_prefix("    ")) {
                    let method = method.strip_prefix("async ").unwrap_or(method);
                    let Some(method) =
                        method.strip_prefix("fn ").and_then(|method| method.split(['(', '<']).next())
                    else {
                        continue;
                    };
                    seen += 1;
                    assert!(
                        handed_on.contains(&format!("fn {method}(")),
                        "{}: {name}::{method}",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(seen > 100, "the test sees nothing: {seen}");
}
