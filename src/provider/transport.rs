//! Posts requests, and distinguishes a request that never left from one that may have.
//!
//! hyper writes a request's head and polls its body in one step. So a body that was never polled proves that no
//! message was sent, whatever the error says; a body that was polled may have been sent, and then the outcome is
//! unknown. One atomic decides: when the request fails, the body is closed, and a body that is closed first is never
//! sent.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::redirect;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::Request;
use crate::campaign::{Doubt, DoubtCause};

/// Default timeout of a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time after which a connection is closed. It is shorter than servers' own, so that a request rarely meets a
/// connection that is being closed, which would put its messages in doubt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Maximum size of a response that is read, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The delay of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The body, or the part of it that could be read.
    pub body: Bytes,
}

impl HttpResponse {
    /// Returns whether the status is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request was never sent: no connection, or it was closed before the request was written.
    #[error("{0}")]
    NotSent(String),
    /// The request was at least partly sent, so it may have been accepted.
    #[error("{0}")]
    MayBeSent(Doubt),
}

/// A pool of HTTP connections.
#[derive(Clone)]
pub struct Transport {
    client: reqwest::Client,
    timeout: Duration,
    #[cfg(test)]
    simulated: Option<Arc<dyn SimulatedNetwork>>,
}

/// A simulated network with a provider.
#[cfg(test)]
pub(crate) trait SimulatedNetwork: Send + Sync {
    /// Returns the outcome of a request.
    fn post(
        &self,
        request: Request,
        start_by: Option<Instant>,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, Failure>> + Send>>;
}

impl Transport {
    /// Creates a pool whose requests have a total `timeout`. The system's proxy is used only if `proxied`: requests
    /// to this machine must not leave it.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up, e.g. without root certificates.
    pub fn new(timeout: Duration, proxied: bool) -> Result<Self, String> {
        // Installed once per process; a second call has no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder();
        let builder = if proxied { builder } else { builder.no_proxy() };
        let client = builder
            .user_agent(concat!("flowcast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            // A redirect or a retry would be a second request without a claim.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .build()
            .map_err(|error| format!("cannot set up HTTP: {}", chain(&error)))?;
        Ok(Self {
            client,
            timeout,
            #[cfg(test)]
            simulated: None,
        })
    }

    /// Creates a simulated pool.
    #[cfg(test)]
    pub(crate) fn simulated(timeout: Duration, network: Arc<dyn SimulatedNetwork>) -> Self {
        static CLIENT: std::sync::LazyLock<Transport> =
            std::sync::LazyLock::new(|| Transport::new(REQUEST_TIMEOUT, false).unwrap());
        Self { client: CLIENT.client.clone(), timeout, simulated: Some(network) }
    }

    /// Posts a request. If it has not started by `start_by`, it is never sent: the claim on its messages may have
    /// expired.
    ///
    /// # Errors
    ///
    /// Whether the request was never sent, or may have been accepted.
    pub async fn post(&self, request: Request, start_by: Option<Instant>) -> Result<HttpResponse, Failure> {
        #[cfg(test)]
        if let Some(network) = &self.simulated {
            return network.post(request, start_by, self.timeout).await;
        }
        let gate = Gate { state: Arc::default(), start_by };
        let (name, secret) = &request.authorization;
        let sent = self
            .client
            .post(request.url)
            .header(*name, secret.expose_secret())
            .header("content-type", "application/json")
            .timeout(self.timeout)
            .body(reqwest::Body::wrap(GatedBody { bytes: Some(request.body), gate: gate.clone() }))
            .send()
            .await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                let is_unsent = gate.close();
                let error = error.without_url();
                tracing::debug!(is_unsent, error = chain(&error), "no response");
                let seconds = self.timeout.as_secs();
                return Err(match (is_unsent, error.is_timeout()) {
                    (true, true) => {
                        Failure::NotSent("cannot connect to the provider: no connection in time".into())
                    }
                    (true, false) => {
                        Failure::NotSent(format!("cannot connect to the provider: {}", root_cause(&error)))
                    }
                    (false, true) => {
                        let detail = format!("the provider did not respond within {seconds} s");
                        Failure::MayBeSent(Doubt { cause: DoubtCause::NoResponse, detail })
                    }
                    (false, false) => Failure::MayBeSent(DoubtCause::ConnectionLost.into()),
                });
            }
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let retry_after =
            header("retry-after").and_then(|text| retry_after(&text, header("date").as_deref()));
        // The status counts even if the body is truncated.
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LIMIT {
                break;
            }
        }
        Ok(HttpResponse { status, retry_after, body: body.into() })
    }
}

/// Parses seconds or a date (RFC 9110). A date is compared with the response's own date, since clocks may differ.
fn retry_after(text: &str, answered: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let now = answered.and_then(read).unwrap_or_else(jiff::Timestamp::now);
    Some(Duration::try_from(read(text)?.duration_since(now)).unwrap_or_default())
}

/// Returns an error with all its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Returns the innermost cause of an error: the part that people can act on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

const IDLE: u8 = 0;
const STARTED: u8 = 1;
const CLOSED: u8 = 2;

/// Whether a body was polled, or closed before that.
#[derive(Clone)]
struct Gate {
    state: Arc<AtomicU8>,
    start_by: Option<Instant>,
}

impl Gate {
    /// Opens the gate. Returns whether the body may be sent.
    fn start(&self) -> bool {
        if self.start_by.is_some_and(|latest| Instant::now() >= latest) {
            return false;
        }
        self.state.compare_exchange(IDLE, STARTED, Ordering::AcqRel, Ordering::Acquire) != Err(CLOSED)
    }

    /// Closes the gate. Returns whether the body was never sent, which then stays so.
    fn close(&self) -> bool {
        self.state.compare_exchange(IDLE, CLOSED, Ordering::AcqRel, Ordering::Acquire) != Err(STARTED)
    }
}

/// A body that is sent only if its gate opens.
struct GatedBody {
    bytes: Option<Bytes>,
    gate: Gate,
}

impl http_body::Body for GatedBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if !self.gate.start() {
            return Poll::Ready(Some(Err(std::io::Error::other(
                "the request was abandoned before it began",
            ))));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    fn request(port: u16) -> Request {
        Request {
            url: format!("http://127.0.0.1:{port}/x").parse().unwrap(),
            authorization: ("authorization", "Basic c2VjcmV0".to_string().into()),
            body: Bytes::from(vec![b'x'; 4_000_000]),
        }
    }

    fn transport() -> Transport {
        Transport::new(Duration::from_secs(1), false).unwrap()
    }

    /// Posts once to a server that handles its first connection with `serve`.
    async fn post_to<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> Result<HttpResponse, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
        let result = transport().post(request(port), None).await;
        server.abort();
        result
    }

    async fn read_all(stream: &mut TcpStream) {
        let mut seen = vec![0; 5_000_000];
        let mut count = 0;
        while count < 4_000_000 {
            count += stream.read(&mut seen[count..]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_refused_connection_sent_nothing() {
        // Bound but not listening, so that no other process gets the port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(matches!(transport().post(request(port), None).await, Err(Failure::NotSent(_))));
    }

    #[tokio::test]
    async fn a_request_whose_claim_may_have_expired_is_never_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let posted = transport().post(request(port), Some(Instant::now())).await;
        assert!(matches!(posted, Err(Failure::NotSent(_))), "{posted:?}");
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        let _ = stream.read_to_end(&mut seen).await;
        assert!(!seen.windows(4).any(|bytes| bytes == b"xxxx"));
    }

    #[tokio::test]
    async fn an_unknown_host_name_sent_nothing() {
        let mut request = request(1);
        request.url = "http://no-such-host.invalid/".parse().unwrap();
        assert!(matches!(transport().post(request, None).await, Err(Failure::NotSent(_))));
    }

    #[tokio::test]
    async fn a_tls_handshake_that_fails_sent_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"this is not TLS at all").await.unwrap();
        });
        let mut request = request(port);
        request.url = format!("https://127.0.0.1:{port}/").parse().unwrap();
        assert!(matches!(transport().post(request, None).await, Err(Failure::NotSent(_))));
    }

    #[tokio::test]
    async fn a_connection_closed_while_the_request_goes_out_is_unknown() {
        let result = post_to(|mut stream| async move {
            let mut some = [0; 100];
            stream.read_exact(&mut some).await.unwrap();
        })
        .await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn a_connection_closed_after_the_request_is_unknown() {
        let result = post_to(|mut stream| async move { read_all(&mut stream).await }).await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn a_connection_closed_within_the_head_of_the_response_is_unknown() {
        let result = post_to(|mut stream| async move {
            read_all(&mut stream).await;
            stream.write_all(b"HTTP/1.1 202 Acc").await.unwrap();
        })
        .await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn a_reset_after_the_request_is_unknown() {
        let result = post_to(|mut stream| async move {
            read_all(&mut stream).await;
            stream.set_zero_linger().unwrap();
        })
        .await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn a_time_out_after_the_request_is_unknown() {
        let result = post_to(|mut stream| async move {
            read_all(&mut stream).await;
            std::future::pending::<()>().await;
        })
        .await;
        let detail = "the provider did not respond within 1 s".to_owned();
        assert_eq!(result, Err(Failure::MayBeSent(Doubt { cause: DoubtCause::NoResponse, detail })));
    }

    #[tokio::test]
    async fn a_truncated_body_keeps_its_status() {
        let reply = post_to(|mut stream| async move {
            read_all(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 401 No\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{\"a\"")
                .await
                .unwrap();
        })
        .await
        .unwrap();
        assert_eq!((reply.status, &*reply.body), (401, &b"{\"a\""[..]));
        assert_eq!(reply.retry_after, Some(Duration::from_secs(7)));
    }

    /// An idle connection that the server closed leaves no doubt: the pool sees the close, or returns the request
    /// unwritten and uses another connection.
    #[tokio::test]
    async fn an_idle_connection_that_was_closed_is_replaced_without_a_doubt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (closed, was_closed) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";
            let (mut first, _) = listener.accept().await.unwrap();
            read_all(&mut first).await;
            first.write_all(answer).await.unwrap();
            drop(first);
            closed.send(()).unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            read_all(&mut second).await;
            second.write_all(answer).await.unwrap();
        });
        let transport = transport();
        assert_eq!(transport.post(request(port), None).await.unwrap().status, 202);
        was_closed.await.unwrap();
        assert_eq!(transport.post(request(port), None).await.unwrap().status, 202);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let reply = post_to(|mut stream| async move {
            read_all(&mut stream).await;
            stream.write_all(b"HTTP/1.1 307 X\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(reply.status, 307);
    }

    #[test]
    fn a_gate_either_releases_the_body_or_closes() {
        for _ in 0..2_000 {
            let gate = Gate { state: Arc::default(), start_by: None };
            let other = gate.clone();
            let starter = std::thread::spawn(move || other.start());
            let closed = gate.close();
            assert_ne!(starter.join().unwrap(), closed);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", None), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", None), Some(Duration::ZERO));
        assert!(retry_after("Tue, 01 Jan 2999 00:00:00 GMT", None).unwrap() > Duration::from_secs(1000));
        // By the provider's clock.
        let answered = Some("Wed, 21 Oct 2015 07:27:30 GMT");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", answered), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("soon", answered), None);
    }
}
