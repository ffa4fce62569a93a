//! Clients that are generated from the API's description.

use std::path::Path;

use flowcast::sandbox::Behaviour;

use crate::service::Service;
use crate::support::sandbox;
use crate::tools::{interface_tools, node, run};

const TOKENS: &str = "tokens = [{ name = \"reports\", role = \"viewer\", token = \"look-1\" }, { name = \"marketing\", role = \"operator\", token = \"act-1\" }]";

/// Returns the settings that the page on the API has for the generator of Python clients.
fn generator_settings() -> String {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/api.md")).unwrap();
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_python_client_has_no_warnings_and_runs_a_campaign() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let world = &service.fleet.world;
    world.write("settings.yaml", generator_settings());
    world.write("life.py", include_str!("../clients/life.py"));
    let script = "set -euo pipefail\n\
        curl --silent --fail --header 'Authorization: Bearer look-1' \"$URL/openapi.json\" > openapi.json\n\
        \"$TOOLS/bin/openapi-spec-validator\" openapi.json\n\
        \"$TOOLS/bin/openapi-python-client\" generate --path openapi.json --config settings.yaml \\\n\
            --meta none --output-path flowcast_client\n\
        \"$TOOLS/bin/python\" life.py\n";
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(script).current_dir(world.path(""));
    bash.env("TOOLS", tokio::task::spawn_blocking(interface_tools).await.unwrap())
        .env("URL", format!("{}/api/v1", service.url))
        .env("no_proxy", "*");
    let ended = bash.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}\n{err}");
    for output in [&out, &err] {
        assert!(!output.to_lowercase().contains("warning"), "{output}");
    }
    assert!(out.contains("the campaign has led its life"), "{out}");
    assert_eq!(sandbox.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_typescript_client_has_no_warnings_and_runs_a_campaign() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let world = &service.fleet.world;
    world.write("openapi.json", service.get("/openapi.json").await.text);
    world.write("life.ts", include_str!("../clients/life.ts"));
    world.write("package.json", r#"{ "type": "module" }"#);
    let (folder, url) = (world.path(""), format!("{}/api/v1", service.url));
    let client = tokio::task::spawn_blocking(move || {
        let generate = [
            "node_modules/openapi-typescript/bin/cli.js",
            "openapi.json",
            "--default-non-nullable=false",
            "--output",
            "flowcast.ts",
        ];
        let generated = run(node(&folder).args(generate)).to_lowercase();
        assert!(!generated.contains("warn"), "{generated}");
        let strict = "--noEmit --strict --skipLibCheck --target es2022 --module nodenext --allowImportingTsExtensions --types node life.ts";
        run(node(&folder).arg("node_modules/typescript/bin/tsc").args(strict.split(' ')));
        run(node(&folder).arg("life.ts").env("URL", url))
    });
    assert!(client.await.unwrap().contains("the campaign has led its life"));
    assert_eq!(sandbox.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_parameter_is_refused_with_a_suggestion() {
    let (_sandbox, provider) = sandbox(Behaviour::default()).await;
    let service = Service::start(true, &provider, TOKENS).await;
    let refused = async |path: &str| service.get(path).await.detail(400);
    assert_eq!(
        refused("/campaigns?stat=running").await,
        "unknown parameter \"stat\"; did you mean \"state\"?"
    );
    assert_eq!(refused("/codes?limit=1").await, "unknown parameter \"limit\"");
    assert_eq!(refused("/campaigns/c1?x=1").await, "unknown parameter \"x\"");
    let posted = service.post("/campaigns?chek=true", &crate::support::job()).await;
    assert_eq!(posted.detail(400), "unknown parameter \"chek\"; did you mean \"check\"?");
    service.get("/campaigns/c1").await.detail(404);
    // Without a token, the response does not reveal which parameters exist.
    service.send(service.request(reqwest::Method::GET, "/codes?x=1", "")).await.detail(401);
    // An empty value counts as absent, but its name is checked anyway.
    assert_eq!(service.get("/campaigns?state=&q=").await.status, 200);
    service.get("/campaigns?x=").await.detail(400);
}
