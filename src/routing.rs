//! Routes whose handlers share one type. axum wraps each handler in about twenty types; collecting the code to generate for
//! those of a hundred handlers took 13 of the 16 seconds that rustc spent collecting for this crate. This module never decides what
//! is served where.

use std::{pin::Pin, sync::Arc};

use axum::routing::{MethodFilter, MethodRouter};
use axum::{extract::Request, handler::Handler, response::Response};

/// The future of a handler.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler of which only the type of its state is known.
struct Erased<S>(Arc<dyn Fn(Request, S) -> HandlerFuture + Send + Sync>);

impl<S> Clone for Erased<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Send + Sync + 'static> Handler<Self, S> for Erased<S> {
    type Future = HandlerFuture;

    fn call(self, request: Request, state: S) -> HandlerFuture {
        (self.0)(request, state)
    }
}

/// Routes a method to a handler.
pub(crate) fn on<S, T, H>(method: MethodFilter, handler: H) -> MethodRouter<S>
where
    H: Handler<T, S, Future = HandlerFuture> + Sync,
    S: Clone + Send + Sync + 'static,
{
    let call = move |request, state| handler.clone().call(request, state);
    MethodRouter::new().on(method, Erased(Arc::new(call)))
}

/// Routes `GET` and `HEAD`.
pub(crate) fn get<S, T, H>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S, Future = HandlerFuture> + Sync,
    S: Clone + Send + Sync + 'static,
{
    on(MethodFilter::GET, handler)
}

/// Routes `POST`.
pub(crate) fn post<S, T, H>(handler: H) -> MethodRouter<S>
where
    H: Handler<T, S, Future = HandlerFuture> + Sync,
    S: Clone + Send + Sync + 'static,
{
    on(MethodFilter::POST, handler)
}
