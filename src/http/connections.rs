//! Connections of the HTTP side: so many at once, and none that is held by saying nothing. Whoever is on
//! the other side may be a stranger; what is asked is the router's matter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
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
        router.call(request.map(|body| Body::new(Box::pin(TimeoutBody::new(BODY, body)))))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // A client that goes away or is too slow is its own matter.
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
}
