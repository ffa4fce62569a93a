//! Rules for the source code: dependencies point down, as `src/lib.rs` shows, and the style guide is followed.

use std::path::{Path, PathBuf};

use crate::support::sources;

/// The modules of the crate that each module may use.
const MAY_USE: [(&str, &[&str]); 24] = [
    ("campaign", &[]),
    ("audience", &["campaign", "backoff", "egress"]),
    ("backoff", &["runtime"]),
    ("egress", &[]),
    ("forward", &["campaign", "backoff", "egress", "queue"]),
    ("provider", &["campaign"]),
    ("shared_connection", &[]),
    ("redis_client", &["backoff", "shared_connection"]),
    ("limiter", &["campaign", "micro_batch", "redis_client", "runtime"]),
    ("micro_batch", &[]),
    ("queue", &["campaign", "backoff", "shared_connection"]),
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
fn dependencies_point_down_only() {
    let mut seen = 0;
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap().to_path_buf();
        let module = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "main" {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == module).expect("every module is in MAY_USE");
        for used in text.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            seen += 1;
            assert!(used == module || allowed.contains(&used.as_str()), "{} uses {used}", path.display());
        }
    }
    assert!(seen > 50, "the test found too little: {seen}");
}

#[test]
fn the_tests_named_in_the_threat_model_exist() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations/security.md")).unwrap();
    let code: String =
        [sources("src"), sources("tests")].concat().into_iter().map(|(_, text)| text).collect();
    // The last column of the table.
    let named = text.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1));
    let named: Vec<&str> = named.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 20, "the test found too little: {named:?}");
    for name in named {
        assert!(
            code.contains(&format!("fn {name}()")),
            "docs/operations/security.md names {name}, which must be a test"
        );
    }
}

#[test]
fn the_domain_does_no_io_and_reads_no_clock() {
    for (path, text) in sources("src/campaign") {
        for forbidden in
            ["tokio", "std::fs", "std::net", "std::time::Instant", "SystemTime", "Timestamp::now", "async fn"]
        {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
        }
    }
}

#[test]
fn only_provider_code_names_a_provider() {
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
    assert!(seen > 30, "the test found too little: {seen}");
}

/// `AnyLedger` must forward every method that a backend implements: otherwise the trait's default would run, unnoticed.
#[test]
fn any_ledger_forwards_every_method_of_a_backend() {
    let forwarding =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/any.rs")).unwrap();
    let mut seen = 0;
    for (path, text) in [sources("src/ledger/redis"), sources("src/ledger/sqlite")].concat() {
        for backend in ["Redis", "Sqlite"] {
            for block in
                text.split("\nimpl ").skip(1).filter(|part| part.contains(&format!(" for {backend} {{\n")))
            {
                let block = block.split("\n}\n").next().unwrap();
                let first = block.lines().next().unwrap();
                let name = first.split(' ').next().unwrap().rsplit("::").next().unwrap();
                if !forwarding.contains(&format!("impl {name} for AnyLedger {{")) {
                    continue;
                }
                for method in block.lines().filter_map(|line| line.strip_prefix("    ")) {
                    let method = method.strip_prefix("async ").unwrap_or(method);
                    let Some(method) =
                        method.strip_prefix("fn ").and_then(|method| method.split(['(', '<']).next())
                    else {
                        continue;
                    };
                    seen += 1;
                    assert!(
                        forwarding.contains(&format!("fn {method}(")),
                        "{}: {name}::{method}",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(seen > 100, "the test found too little: {seen}");
}

/// Words and phrases that say less than a plain sentence does: the style guide's short list.
const BANNED: [&str; 18] = [
    "whoever",
    "somebody",
    "nobody",
    "of late",
    "lately",
    "anew",
    "under way",
    "by itself",
    "all the same",
    "at the most",
    "at the least",
    "dead ones",
    "beginnings of",
    "handed on",
    "goes on",
    "comes again",
    "so many",
    "is none of",
];

#[test]
fn no_banned_word_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    for folder in ["src", "docs", "deploy"] {
        files_below(&root.join(folder), &mut files);
    }
    let mut seen = 0;
    let mut found = Vec::new();
    for path in files {
        // Pictures are not text.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        seen += 1;
        for (number, line) in text.lines().enumerate() {
            let words = words(line);
            for banned in BANNED.iter().filter(|banned| words.contains(&format!(" {banned} "))) {
                let path = path.strip_prefix(root).unwrap().display();
                found.push(format!("{path}:{}: \"{banned}\": {}", number + 1, line.trim()));
            }
        }
    }
    assert!(seen > 300, "the test found too little: {seen}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Returns a line's words in lower case, each between single spaces. A name in code is one word.
fn words(line: &str) -> String {
    let plain = line.to_lowercase().replace(|c: char| !c.is_alphanumeric() && !['\'', '_'].contains(&c), " ");
    format!(" {} ", plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Files that are one table each.
const TABLES: [&str; 2] = ["src/campaign/codes/table.rs", "src/campaign/content/documents.rs"];

/// A file has one reason to exist, and a function fits on a screen. Unit tests are not counted.
#[test]
fn no_file_and_no_function_is_long() {
    const MAX_FILE_LINES: usize = 500;
    const MAX_FUNCTION_LINES: usize = 80;
    let mut found = Vec::new();
    for (path, text) in sources("src") {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        if TABLES.contains(&path.as_str()) || path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let lines: Vec<&str> = code.lines().collect();
        if lines.len() > MAX_FILE_LINES {
            found.push(format!("{path} has {} lines", lines.len()));
        }
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
            // A declaration without a body ends with a semicolon.
            let signature = lines[start..].iter().find(|line| line.ends_with(['{', '}', ';']));
            if !signature.is_some_and(|line| line.ends_with('{')) {
                continue;
            }
            let end = format!("{}}}", " ".repeat(line.len() - line.trim_start().len()));
            let length = lines[start..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
            if length > MAX_FUNCTION_LINES {
                found.push(format!("{path}:{}: a function of {length} lines", start + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn is_function(line: &str) -> bool {
    let words = line.split_whitespace().take_while(|word| !word.contains('('));
    let is_qualifier =
        |word: &&str| word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(word);
    let line = line.trim_start();
    !line.starts_with("//")
        && (line.starts_with("fn ") || words.take_while(is_qualifier).count() > 0 && line.contains("fn "))
}

/// A filter that matches no test would pass silently.
#[test]
fn recipes_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = [sources("src"), sources("tests/it")].concat();
    let exists = |filter: &str| {
        let (module, function) = filter.split_once("::").unwrap_or(("", filter));
        code.iter().any(|(path, text)| {
            let path = path.to_string_lossy();
            let is_module =
                |name: &str| path.contains(&format!("/{name}.rs")) || path.contains(&format!("/{name}/"));
            (module.is_empty() || is_module(module))
                && (module.is_empty() && is_module(function)
                    || text
                        .split("fn ")
                        .skip(1)
                        .any(|rest| rest.split('(').next().unwrap().contains(function)))
        })
    };
    let mut seen = 0;
    for file in ["justfile", "scripts/nightly", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // `cargo test … --lib FILTER`, `cargo test … --test it FILTER`, and the function `tests FILTER` of the script.
            let prefixes: &[&str] =
                if file == "scripts/nightly" { &["--lib ", " tests "] } else { &["--lib ", "--test it "] };
            let rest = prefixes.iter().find_map(|prefix| line.split_once(prefix));
            let Some(filter) = rest.and_then(|(_, rest)| rest.split([' ', ';', '`', '\n']).next()) else {
                continue;
            };
            if filter.is_empty() || !filter.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            seen += 1;
            assert!(exists(filter), "{file}: a test must match {filter}: {line}");
        }
    }
    assert!(seen > 15, "the test found too little: {seen}");
}
