//! The README, followed from an empty folder as it stands.

use flowcast::sandbox::Behaviour;

use crate::support::sandbox;

/// The blocks of a section, each with its language, in their order.
fn blocks(section: &str) -> Vec<(&'static str, &'static str)> {
    let page = include_str!("../../README.md");
    let section = page.split(&format!("\n{section}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    // Every second part is a block.
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_campaign_is_sent_as_the_readme_says() {
    let (sandbox, url) = sandbox(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut script = String::from("set -euo pipefail\n");
    for (language, block) in blocks("## Send a campaign") {
        match language {
            "toml" => {
                let at_sandbox = block.replace("region = \"mumbai\"", &format!("base_url = \"{url}\""));
                assert_ne!(at_sandbox, block);
                std::fs::write(folder.path().join("flowcast.toml"), at_sandbox).unwrap();
            }
            "json" => std::fs::write(folder.path().join("diwali.json"), block).unwrap(),
            // What follows is a worker that stays.
            "sh" if block.contains("cargo run") => break,
            "sh" => script += block,
            other => panic!("a block of {other}"),
        }
    }
    script += "cat diwali-report.csv\n";
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_flowcast")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(script).current_dir(folder.path()).env("PATH", path).env("EXOTEL_TOKEN", "token1");
    let ended = bash.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
    assert!(out.contains("Dear Asha, …"), "{out}");
    assert_eq!(sandbox.count(), 2, "{out}\n{err}");
    assert_eq!(out.matches(",accepted,").count(), 2, "{out}");
}
