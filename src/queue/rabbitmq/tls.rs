//! TLS for the connection to RabbitMQ (`amqps://`), with the system's certificates and the same rustls as HTTP.
//!
//! lapin's own TLS includes parsers of PKCS#12 and CMS, which flowcast does not need. This module does not use AMQP.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};
use std::{future::Future, net::SocketAddr, sync::Arc};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::connections::CONNECT;

/// A stream with or without TLS.
trait Transport: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Transport for T {}

type Boxed = Compat<Box<dyn Transport>>;

/// Tokio's reactor with streams that may use TLS.
#[derive(Clone, Debug)]
struct TlsReactor(Tokio);

impl Reactor for TlsReactor {
    type TcpStream = Boxed;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = TcpStream::connect(address);
        async move { Ok(boxed(connecting.await?)) }
    }
}

fn boxed(stream: impl Transport + 'static) -> Boxed {
    let stream: Box<dyn Transport> = Box::new(stream);
    stream.compat()
}

/// Opens a connection to a node, with TLS for `amqps://`.
///
/// # Errors
///
/// The errors of lapin, and an error if the node's certificate is not trusted.
pub(super) async fn connect(uri: AMQPUri, properties: ConnectionProperties) -> lapin::Result<Connection> {
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), TlsReactor(Tokio::current())));
    let open = async |uri: AMQPUri, _| {
        // lapin runs this on a thread of its own, which ends only when this returns.
        let opened = tokio::time::timeout(CONNECT, open(uri)).await;
        Ok(AsyncTcpStream::Plain(opened.map_err(io::Error::other)??))
    };
    Connection::connector(uri, runtime, open, properties).await
}

async fn open(uri: AMQPUri) -> io::Result<Boxed> {
    let host = uri.authority.host;
    let stream = TcpStream::connect((host.as_str(), uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(boxed(stream)),
        AMQPScheme::AMQPS => {
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            // Blocking: reads the system's certificates.
            let config = tokio::task::spawn_blocking(client_config).await.map_err(io::Error::other)??;
            Ok(boxed(TlsConnector::from(config).connect(name, stream).await?))
        }
    }
}

/// Returns a configuration that trusts the system's certificates.
///
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` select other certificates.
fn client_config() -> io::Result<Arc<ClientConfig>> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let why = loaded.errors.first().map_or_else(|| "install ca-certificates".into(), ToString::to_string);
        return Err(io::Error::other(format!("found no trusted certificates: {why}")));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
