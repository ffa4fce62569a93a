//! Connections of the HTTP side: so many at once, and none that is held by saying nothing. Whoever is on
//! the other side may be a stranger; what is asked is the router's matter.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use hyper::Request;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_http::timeout::TimeoutBody;
use tower_service::Service;

/// How long a request's head may take from its first to its last byte, and a connection may say nothing
/// between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// How long a body may say nothing.
const BODY: Duration = Duration::from_secs(30);
/// How long, and for how many bytes, a client that was answered is listened to.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 32 << 20;
/// A wait after a connection could not be taken, as where the process has too many files open.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves until it is dropped; so many connections at once, the others wait in the kernel.
pub(super) async fn serve(listener: TcpListener, router: Router, places: usize) {
    let places = Arc::new(Semaphore::new(places));
    let mut open = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let router = router.clone();
                open.spawn(async move {
                    let _place = place;
                    serve_one(stream, address, router).await;
                });
            }
            Err(fault) => {
                tracing::warn!("a connection can't be taken: {fault}");
                tokio::time::sleep(AGAIN).await;
            }
        }
        while open.try_join_next().is_some() {}
    }
}

async fn serve_one(stream: TcpStream, address: SocketAddr, router: Router) {
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        let mut router = router.clone();
        let is_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let watched = is_read.clone();
        let request = request
            .map(|body| Body::new(Box::pin(TimeoutBody::new(BODY, Watched { body, is_read: watched }))));
        async move {
            let mut answer = router.call(request).await?;
            if !is_read.load(Ordering::Relaxed) {
                // What is left of the body is never read as a request, so nothing more can be asked on this connection.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // A client that goes away or is too slow is its own matter.
    if let Ok(ended) = server.serve_connection(TokioIo::new(stream), answer).without_shutdown().await {
        linger(ended.io.into_inner()).await;
    }
}

/// A request's body, and whether it was read to its end.
struct Watched {
    body: Incoming,
    is_read: Arc<AtomicBool>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.is_read.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Takes what a client still sends that was answered before its end, as with a refusal: were the connection closed at once, the
/// system would reset it, and the client lose the answer.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async { tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
