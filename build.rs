//! Says what `flowcast --version` shows: the version, and of what is shipped the commit. A build in the dev profile does not ask
//! for the commit, because each one would compile everything here again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FLOWCAST_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let is_shipped = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // An image is built without the repository, and is told.
    let told = std::env::var("FLOWCAST_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| is_shipped.then(commit).flatten());
    match commit {
        Some(commit) => println!("cargo::rustc-env=FLOWCAST_VERSION={version} ({commit})"),
        None if is_shipped => println!("cargo::rustc-env=FLOWCAST_VERSION={version}"),
        None => println!("cargo::rustc-env=FLOWCAST_VERSION={version} (development build)"),
    }
}

/// The commit and its date, and whether the files are others than it has.
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
    // A folder that lies inside another repository is not that one's.
    let output = Command::new("git").args(args).env("GIT_CEILING_DIRECTORIES", "..").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
