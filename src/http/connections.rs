//! The HTTP server's connections: limits on their number and on idle time, because clients are not trusted. The router handles
//! the requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::{Router, extract::ConnectInfo};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::{Request, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{sync::Semaphore, task::JoinSet};
use tower_http::timeout::TimeoutBody;
use tower_service::Service;

/// Timeout for a request's head from its first to its last byte, and for an idle connection between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// Timeout between two parts of a body.
const BODY: Duration = Duration::from_secs(30);
/// How long, and up to how many bytes, is read from a client after the response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 32 << 20;
/// Delay after a connection could not be accepted, e.g. because the process has too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves up to `places` connections at once until it is dropped; others wait in the kernel.
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
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
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
                // The rest of the body must not be read as a request, so the connection cannot be reused.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // A client that disconnects or is too slow is not an error.
    if let Ok(ended) = server.serve_connection(TokioIo::new(stream), answer).without_shutdown().await {
        linger(ended.io.into_inner()).await;
    }
}

/// A request's body that records whether it was read to its end.
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

/// Discards the rest of a request that was answered before its end, e.g. with an error. If the connection were closed
/// immediately, the system would reset it, and the client would lose the response.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async { tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
