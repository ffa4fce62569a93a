//! Connections to providers and RabbitMQ over TLS: an untrusted server gets nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use flowcast::sandbox::{Behaviour, Sandbox};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::fleet::Fleet;
use crate::servers::{amqp_url, redis_url};
use crate::service::FAST;
use crate::support::{CommandOutput, World, sandbox};

/// Starts a sandbox behind TLS. Returns its URL and the certificate of its authority, too.
async fn sandbox_with_tls() -> (Sandbox, String, String) {
    let (sandbox, _) = sandbox(Behaviour::default()).await;
    let (port, certificate) = tls_proxy(sandbox.address).await;
    (sandbox, format!("https://localhost:{port}"), certificate)
}

/// Starts a TLS proxy for a server, with the name `localhost`. Returns its port and the certificate of its authority.
async fn tls_proxy(behind: SocketAddr) -> (u16, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server =
        CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate aborts the handshake.
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (port, authority.pem())
}

async fn run_trusting(world: &World, certificate: &str) -> CommandOutput {
    world.write("authority.pem", certificate);
    let mut command = world.command(&["run", "job.json"]);
    command.env("SSL_CERT_FILE", world.path("authority.pem"));
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_reached_over_tls() {
    let world = World::new(200);
    let (sandbox, url, certificate) = sandbox_with_tls().await;
    world.write_config(&url, "limits = { messages = \"100000/s\", requests = \"1000/s\" }");
    let ended = run_trusting(&world, &certificate).await;
    assert_eq!((ended.status, sandbox.count()), (Some(0), 200), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_trusted_gets_nothing() {
    let world = World::new(3);
    let (sandbox, url, _) = sandbox_with_tls().await;
    let (_, _, another) = sandbox_with_tls().await;
    world.write_config(&url, "");
    let ended = run_trusting(&world, &another).await;
    assert_eq!(ended.status, Some(3), "{ended:?}");
    let status = world.status("c1");
    assert_eq!((&status["state"], &status["counts"]["pending"]), (&json!("held"), &json!(3)));
    assert!(status["reason"].as_str().unwrap().contains("certificate"), "{status}");
    assert_eq!(sandbox.stats()["requests"], 0);
}

/// Starts a TLS proxy for the broker. Returns its URL and the certificate of its authority.
async fn broker_with_tls() -> (String, String) {
    let mut url: url::Url = amqp_url().parse().unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap_or(5672));
    let behind = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    let (port, certificate) = tls_proxy(behind).await;
    url.set_host(Some("localhost")).unwrap();
    url.set_port(Some(port)).unwrap();
    (url.as_str().replacen("amqp://", "amqps://", 1), certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_over_tls() {
    let (sandbox, provider) = sandbox(Behaviour::default()).await;
    let (amqp, certificate) = broker_with_tls().await;
    let mut fleet = Fleet::on(World::new(500), &redis_url(), &amqp, &provider, FAST);
    fleet.world.write("authority.pem", certificate);
    let trusted = fleet.world.path("authority.pem").display().to_string();
    fleet.world.env.push(("SSL_CERT_FILE".into(), trusted));
    let _worker = fleet.worker();
    fleet.submit().await;
    let status = fleet.until_state("c1", "completed").await;
    assert_eq!((&status["counts"]["accepted"], sandbox.count()), (&json!(500), 500), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_trusted_gets_no_job() {
    let (amqp, _) = broker_with_tls().await;
    let (_, another) = broker_with_tls().await;
    let mut fleet = Fleet::on(World::new(1), &redis_url(), &amqp, "http://127.0.0.1:1", FAST);
    fleet.world.write("authority.pem", another);
    let trusted = fleet.world.path("authority.pem").display().to_string();
    fleet.world.env.push(("SSL_CERT_FILE".into(), trusted));
    let ended = fleet.world.run(&["submit", "job.json"]).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.err.contains("certificate"), "{ended:?}");
    // The error must not contain the password.
    assert!(!ended.err.contains("guest:"), "{ended:?}");
}
