//! A worker with its HTTP server, and a client of it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::fleet::{Fleet, Worker};
use crate::servers::{amqp_url, free_port, redis_url};
use crate::support::World;

pub const FAST: &str = "limits = { messages = \"100000/s\", requests = \"10000/s\" }\nconcurrency = 4";
pub const TOKENS: &str = "tokens = [{ name = \"reports\", role = \"viewer\", token = \"look-1\" }, \
                      { name = \"marketing\", role = \"operator\", token = \"act-1\" }]";

/// A worker with an API, and a client of it.
pub struct Service {
    pub fleet: Fleet,
    pub url: String,
    pub worker: Worker,
    pub client: reqwest::Client,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    /// Value of `Content-Type`.
    pub kind: String,
    pub text: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Returns the detail of a problem document; the response must have `status`.
    pub fn detail(&self, status: u16) -> String {
        assert_eq!(
            (self.status.as_u16(), self.kind.as_str()),
            (status, "application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

impl Service {
    pub async fn start(is_embedded: bool, provider: &str, http: &str) -> Self {
        Self::on(is_embedded, redis_url(), provider, http, FAST).await
    }

    /// Starts a service; `account` is TOML for the account and what follows it.
    pub async fn start_with(is_embedded: bool, provider: &str, http: &str, account: &str) -> Self {
        Self::on(is_embedded, redis_url(), provider, http, account).await
    }

    pub async fn on(is_embedded: bool, redis: String, provider: &str, http: &str, account: &str) -> Self {
        let fleet = Fleet { world: World::new(200), redis, amqp: amqp_url() };
        let servers = if is_embedded {
            String::new()
        } else {
            format!("[redis]\nurl = \"{}\"\n[amqp]\nurl = \"{}\"\n", fleet.redis, fleet.amqp)
        };
        let more = format!("{servers}[audiences]\nroot = \".\"\n");
        let args: &[&str] = if is_embedded { &["worker", "--embedded"] } else { &["worker"] };
        Self::with(fleet, args, "", provider, http, &format!("{account}\n{more}")).await
    }

    /// Starts a service on the embedded store in an existing folder; `top` precedes all tables of the configuration.
    pub async fn in_world(world: World, top: &str, provider: &str, http: &str, account: &str) -> Self {
        let fleet = Fleet { world, redis: redis_url(), amqp: amqp_url() };
        Self::with(fleet, &["worker", "--embedded"], top, provider, http, account).await
    }

    async fn with(fleet: Fleet, args: &[&str], top: &str, provider: &str, http: &str, more: &str) -> Self {
        let port = free_port();
        let http = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n{http}\n");
        fleet.world.write_account("exotel", provider, &format!("{more}\n{http}"));
        let config = std::fs::read_to_string(fleet.world.path("flowcast.toml")).unwrap();
        fleet.world.write("flowcast.toml", format!("{top}{config}"));
        Self::run(fleet, port, args).await
    }

    /// Starts a service whose configuration has only its listening address and `more`.
    pub async fn configured(more: &str, args: &[&str]) -> Self {
        let (fleet, port) =
            (Fleet { world: World::new(0), redis: redis_url(), amqp: amqp_url() }, free_port());
        fleet.world.write("flowcast.toml", format!("[http]\nlisten = \"127.0.0.1:{port}\"\n{more}"));
        Self::run(fleet, port, args).await
    }

    pub async fn run(fleet: Fleet, port: u16, args: &[&str]) -> Self {
        // Fails if a sandbox in this process has already installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let worker = fleet.worker_with(args);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let service = Self { fleet, url: format!("http://127.0.0.1:{port}"), worker, client };
        let mut is_ready = false;
        while !is_ready {
            let ready = service.client.get(format!("{}/readyz", service.url)).send().await;
            is_ready = ready.is_ok_and(|response| response.status() == 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let response = request.send().await.unwrap();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        Response {
            status: response.status(),
            kind: kind.unwrap_or_default(),
            text: response.text().await.unwrap(),
        }
    }

    pub fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}/api/v1{path}", self.url));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path, "look-1")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(Method::POST, path, "act-1").json(body)).await
    }

    pub async fn until_state(&self, id: &str, state: &str) -> Value {
        for _ in 0..3000 {
            let status = self.get(&format!("/campaigns/{id}")).await.json();
            // While the ledger is unavailable, the response is a problem without a state.
            if status["state"] == state {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("timed out waiting for {id} to be {state}");
    }
}
