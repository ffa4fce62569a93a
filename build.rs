//! Sets what `flowcast --version` prints: the version, and in a release build the commit. A development build has no commit,
//! because every new commit would compile the whole crate again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FLOWCAST_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let is_shipped = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // An image is built without the repository, so the variable names the commit.
    let given = std::env::var("FLOWCAST_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| is_shipped.then(commit).flatten());
    match commit {
        Some(commit) => println!("cargo::rustc-env=FLOWCAST_VERSION={version} ({commit})"),
        None if is_shipped => println!("cargo::rustc-env=FLOWCAST_VERSION={version}"),
        None => println!("cargo::rustc-env=FLOWCAST_VERSION={version} (development build)"),
    }
}

/// Returns the commit with its date, and whether tracked files differ from it.
fn commit() -> Option<String> {
    for watched in [".git/HEAD", ".git/logs/HEAD", "src", "Cargo.toml", "Cargo.lock"] {
        if Path::new(watched).exists() {
            println!("cargo::rerun-if-changed={watched}");
        }
    }
    let commit = git(&["show", "--no-patch", "--format=%h %cs", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}, changed") })
}

fn git(args: &[&str]) -> Option<String> {
    // Without this, git would find the repository of a parent folder.
    let output = Command::new("git").args(args).env("GIT_CEILING_DIRECTORIES", "..").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
