//! The command `flowcast sandbox`: the API of every provider on one port, with injected faults.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::World;

struct RunningSandbox {
    child: Child,
    url: String,
}

impl Drop for RunningSandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(world: &World, faults: &[&str]) -> RunningSandbox {
    let args = ["sandbox", "--listen", "127.0.0.1:0", "--json"];
    let faults = faults.iter().flat_map(|fault| ["--fault", fault]);
    let mut command = world.command(&args.into_iter().chain(faults).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output: Value = serde_json::from_str(&line).unwrap();
    RunningSandbox { child, url: output["base_url"].as_str().unwrap().into() }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_serves_every_provider_on_one_port() {
    let world = World::new(5);
    let sandbox = start(&world, &[]);
    for (nth, provider) in flowcast::provider::PROVIDERS.iter().enumerate() {
        world.write_account(provider.name, &sandbox.url, "");
        let mut job = crate::support::job();
        job["id"] = json!(format!("c-{nth}"));
        world.write_job(&job);
        let ended = world.run(&["run", "job.json", "--json"]).await;
        assert_eq!(ended.status, Some(0), "{}: {ended:?}", provider.name);
    }
    let stats: Value = serde_json::from_str(
        &client().get(format!("{}/stats", sandbox.url)).send().await.unwrap().text().await.unwrap(),
    )
    .unwrap();
    assert_eq!((&stats["accepted"], &stats["sent_twice"]), (&json!(15), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_errors_of_each_provider_can_change_at_run_time() {
    let world = World::new(3);
    let sandbox = start(&world, &["WA400=100%", "131047=100%"]);
    let change = async |faults: Value| {
        let request =
            client().put(format!("{}/faults", sandbox.url)).header("content-type", "application/json");
        request.body(faults.to_string()).send().await.unwrap().status().as_u16()
    };
    let run = async |provider: &str, id: &str| {
        world.write_account(provider, &sandbox.url, "");
        let mut job = crate::support::job();
        job["id"] = json!(id);
        world.write_job(&job);
        let ended = world.run(&["run", "job.json", "--json"]).await;
        serde_json::from_str::<Value>(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"))
    };
    assert_eq!(run("kaleyra", "k1").await["rejected"], json!({ "WA400": 3 }));
    assert_eq!(run("meta", "m1").await["rejected"], json!({ "131047": 3 }));
    // Exotel passes Meta's code on in the entry of the message.
    assert_eq!(run("exotel", "e1").await["rejected"], json!({ "131047": 3 }));
    assert_eq!(change(json!({ "E110": 1.0 })).await, 204);
    let held = run("kaleyra", "k2").await;
    assert!(held["reason"].as_str().unwrap().contains("E110"), "{held}");
    assert_eq!(change(json!({ "no such": 1.0 })).await, 400);
    assert_eq!(change(json!({})).await, 204);
    assert_eq!(run("kaleyra", "k2").await["counts"]["accepted"], 3);
}

#[test]
fn an_unknown_fault_code_is_refused() {
    let ended = World::new(1).flowcast(&["sandbox", "--fault", "E111=1"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.err.contains("unknown code \"E111\""), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_uses_the_format_of_the_accounts_provider() {
    let world = World::new(3);
    // No server listens at the address; a rehearsal uses the sandbox in the process.
    world.write_account("kaleyra", "http://127.0.0.1:9", "");
    let mut job = crate::support::job();
    job["extra_info"] = json!({ "ref2": "Kaleyra alone takes this" });
    world.write_job(&job);
    let ended = world.run(&["run", "job.json", "--sandbox", "--fault", "WA400=1", "--json"]).await;
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(status["rejected"], json!({ "WA400": 3 }), "{ended:?}");
}
