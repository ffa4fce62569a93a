//! The network: posts a request and tells a request that never left from one that may have.
//!
//! hyper writes a request's head and asks for its body in one step. So a body that was never asked
//! for is proof that no message went out, whatever the error says; a body that was asked for may
//! have been sent, and then the outcome is unknown. The two sides settle it on one atomic: when the
//! request has failed, the body is closed, and a body that is closed first is never handed out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::redirect;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::Request;
use crate::campaign::{Doubt, DoubtCause};

/// How long a request may take in all.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than what servers keep idle connections for, so that a request seldom meets a
/// connection that is just being closed: that is one more message in doubt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 1 << 20;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, in seconds or as a date.
    pub retry_after: Option<Duration>,
    /// The body, or what of it could be read.
    pub body: Bytes,
}

impl Reply {
    /// Whether the status says success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request never left: no connection, or closed before it was written.
    #[error("{0}")]
    NotSent(String),
    /// The request began to go out: it may have been taken.
    #[error("{0}")]
    MayBeSent(Doubt),
}

/// A pool of connections.
#[derive(Clone)]
pub struct Transport {
    client: reqwest::Client,
    timeout: Duration,
    #[cfg(test)]
    simulated: Option<Arc<dyn SimulatedNetwork>>,
}

/// A network and a provider behind it, as a simulation has them.
#[cfg(test)]
pub(crate) trait SimulatedNetwork: Send + Sync {
    /// What becomes of a request.
    fn post(
        &self,
        request: Request,
        start_by: Option<Instant>,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send>>;
}

impl Transport {
    /// A pool that gives a request `timeout` in all. The system's proxy is used only where `proxied`:
    /// what goes to this very machine must not leave it.
    ///
    /// # Errors
    ///
    /// When TLS can't be set up, as without any root certificates.
    pub fn new(timeout: Duration, proxied: bool) -> Result<Self, String> {
        // Installed once for the process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder();
        let builder = if proxied { builder } else { builder.no_proxy() };
        let client = builder
            .user_agent(concat!("flowcast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            // A redirect or a retry would be a second request that nobody claimed.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .http1_only()
            .build()
            .map_err(|fault| format!("can't set up HTTP: {}", chain(&fault)))?;
        Ok(Self {
            client,
            timeout,
            #[cfg(test)]
            simulated: None,
        })
    }

    /// A network that is none.
    #[cfg(test)]
    pub(crate) fn simulated(timeout: Duration, network: Arc<dyn SimulatedNetwork>) -> Self {
        static CLIENT: std::sync::LazyLock<Transport> =
            std::sync::LazyLock::new(|| Transport::new(REQUEST_TIMEOUT, false).unwrap());
        Self { client: CLIENT.client.clone(), timeout, simulated: Some(network) }
    }

    /// Posts a request. One that has not begun to go out by `start_by` never does: whoever claimed its
    /// messages may have lost them then.
    ///
    /// # Errors
    ///
    /// Whether the request never left, or may have been taken.
    pub async fn post(&self, request: Request, start_by: Option<Instant>) -> Result<Reply, Failure> {
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
            Err(fault) => {
                let is_unsent = gate.close();
                let fault = fault.without_url();
                tracing::debug!(is_unsent, "no answer: {}", chain(&fault));
                let seconds = self.timeout.as_secs();
                return Err(match (is_unsent, fault.is_timeout()) {
                    (true, true) => {
                        Failure::NotSent("cannot connect to the provider: no connection in time".into())
                    }
                    (true, false) => {
                        Failure::NotSent(format!("cannot connect to the provider: {}", root_cause(&fault)))
                    }
                    (false, true) => {
                        let detail = format!("the provider did not answer within {seconds} s");
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
        // The status stands by itself; a body that breaks off is read as far as it came.
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LIMIT {
                break;
            }
        }
        Ok(Reply { status, retry_after, body: body.into() })
    }
}

/// Seconds, or a date of RFC 9110, which is held against the answer's own date: this machine's clock may be
/// another than the provider's.
fn retry_after(text: &str, answered: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let now = answered.and_then(read).unwrap_or_else(jiff::Timestamp::now);
    Some(Duration::try_from(read(text)?.duration_since(now)).unwrap_or_default())
}

/// An error with all its causes, on one line.
fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(fault) = cause {
        let next = fault.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = fault.source();
    }
    text
}

/// The innermost cause of an error: what people can act on.
fn root_cause(fault: &dyn std::error::Error) -> String {
    let mut cause = fault;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

const IDLE: u8 = 0;
const STARTED: u8 = 1;
const CLOSED: u8 = 2;

/// Whether a body was asked for, or closed before.
#[derive(Clone)]
struct Gate {
    state: Arc<AtomicU8>,
    start_by: Option<Instant>,
}

impl Gate {
    /// Whether the body may go out now.
    fn start(&self) -> bool {
        if self.start_by.is_some_and(|latest| Instant::now() >= latest) {
            return false;
        }
        self.state.compare_exchange(IDLE, STARTED, Ordering::AcqRel, Ordering::Acquire) != Err(CLOSED)
    }

    /// Whether the body never went out, and from now on never will.
    fn close(&self) -> bool {
        self.state.compare_exchange(IDLE, CLOSED, Ordering::AcqRel, Ordering::Acquire) != Err(STARTED)
    }
}

/// A body that goes out only through its gate.
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
            return Poll::Ready(Some(Err(std::io::Error::other("the request was given up before it began"))));
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

    /// Posts once to a server that does `serve` with its first connection.
    async fn post_to<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> Result<Reply, Failure> {
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
        // Bound and not listening: nobody else gets the port meanwhile.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(matches!(transport().post(request(port), None).await, Err(Failure::NotSent(_))));
    }

    #[tokio::test]
    async fn a_request_whose_claim_may_have_run_out_is_never_sent() {
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
    async fn a_name_that_is_not_known_sent_nothing() {
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
            stream.write_all(b"this is no TLS at all").await.unwrap();
        });
        let mut request = request(port);
        request.url = format!("https://127.0.0.1:{port}/").parse().unwrap();
        assert!(matches!(transport().post(request, None).await, Err(Failure::NotSent(_))));
    }

    #[tokio::test]
    async fn closed_while_the_request_goes_out_is_unknown() {
        let result = post_to(|mut stream| async move {
            let mut some = [0; 100];
            stream.read_exact(&mut some).await.unwrap();
        })
        .await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn closed_after_the_request_is_unknown() {
        let result = post_to(|mut stream| async move { read_all(&mut stream).await }).await;
        assert_eq!(result, Err(Failure::MayBeSent(DoubtCause::ConnectionLost.into())));
    }

    #[tokio::test]
    async fn closed_within_the_answers_head_is_unknown() {
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
        let detail = "the provider did not answer within 1 s".to_owned();
        assert_eq!(result, Err(Failure::MayBeSent(Doubt { cause: DoubtCause::NoResponse, detail })));
    }

    #[tokio::test]
    async fn a_body_cut_off_keeps_the_status_that_came_before_it() {
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

    /// An idle connection that the server has closed is no reason to doubt: the pool sees the
    /// close, or hands the request back unwritten and takes another connection.
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
    fn a_gate_lets_out_or_closes_but_never_both() {
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
        // By the provider's own clock.
        let answered = Some("Wed, 21 Oct 2015 07:27:30 GMT");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", answered), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("soon", answered), None);
    }
}
