//! The HTTP API below `/api/v1` of every worker, for the fleet's ledger and the embedded one. It uses the same code as the command
//! line; `openapi.json` describes it.

pub(super) mod accounts;
pub(super) mod audiences;
mod audit;
pub(super) mod campaigns;
mod codes;
mod description;
pub(super) mod extract;
pub(super) mod live;
mod refusals;
pub(super) mod reports;
pub(super) mod suppressed;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, handler::Handler};
use tokio::sync::Semaphore;
use utoipa::__dev::{SchemaReferences, Tags};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder};
use utoipa_axum::PathItemExt;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::access::{Access, guard};
use super::{Health, problem::Problem};
use crate::campaign::MessageState;
use crate::dispatch::{Context, JOB_LIMIT};
use crate::ledger::AnyLedger;
use crate::routing::{HandlerFuture, get, on};
use description::Queries;

/// Path prefix of the API.
const BASE: &str = "/api/v1";

/// Maximum number of jobs that are checked at once.
const CONCURRENT_CHECKS: usize = 16;
/// Timeout for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The ledgers that requests need: their names in [`Health`] and for people.
const LEDGERS: [(&str, &str); 2] = [("redis", "Redis"), ("store", "the store")];

/// The state of the API; empty until the ledger is connected.
#[derive(Clone, Default)]
pub struct Api(Arc<OnceLock<Backing>>);

pub(super) struct Backing {
    pub(super) ledger: AnyLedger,
    pub(super) context: Context,
    pub(super) live: live::Live,
    /// Permits to check a job.
    pub(super) intake: Semaphore,
}

impl Api {
    /// Sets the state; from now on requests are handled.
    pub fn open(&self, ledger: AnyLedger, context: Context) {
        let live = live::Live::new(ledger.clone());
        let _ = self.0.set(Backing { ledger, context, live, intake: Semaphore::new(CONCURRENT_CHECKS) });
    }

    pub(super) fn backing(&self) -> Result<&Backing, Problem> {
        self.0.get().ok_or_else(|| Problem::away("not connected yet; retry later"))
    }

    pub(super) fn ledger(&self) -> Result<&AnyLedger, Problem> {
        Ok(&self.backing()?.ledger)
    }
}

/// Returns the routes, for requests that `access` allows.
pub fn router(api: Api, access: Access, health: Health) -> Router {
    let (routes, described) = described();
    let document = description::document(&described);
    let queries = Arc::new(Queries::read(&document));
    let document = axum::body::Bytes::from(document.to_string());
    let json = [(header::CONTENT_TYPE, "application/json")];
    let routes = routes
        .route("/openapi.json", get(move || async move { (json, document) }))
        // Inside the guard, so that a missing permission is reported first.
        .route_layer(middleware::from_fn_with_state(queries, description::refuse_unknown))
        .fallback(async || Problem::not_found("unknown path; GET /api/v1/openapi.json lists all paths"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed on this path; see the Allow header",
            )
        })
        .layer(middleware::from_fn_with_state(health, with_deadline))
        .layer(middleware::from_fn_with_state(access, guard))
        .with_state(api);
    Router::new().nest(BASE, routes)
}

/// Returns the name of the ledger, if it is unavailable.
pub(super) fn away(health: &Health) -> Option<&'static str> {
    let missing = health.missing().unwrap_or_default();
    LEDGERS.iter().find(|(name, _)| missing.contains(name)).map(|(_, shown)| *shown)
}

/// Limits the time of a request: the engine waits indefinitely for an unavailable ledger, but a person should not.
pub(super) async fn with_deadline(State(health): State<Health>, request: Request, next: Next) -> Response {
    if let Some(away) = away(&health) {
        return Problem::away(format!(
            "{away} is unavailable; sending resumes automatically when it is back"
        ))
        .into_response();
    }
    // Submissions and uploads have no time limit.
    let path = request.uri().path();
    let is_long = *request.method() == Method::POST
        && matches!(path, "/campaigns" | "/audiences" | "/suppressed/import");
    // Results need the whole audience before the response begins.
    let reads_audience = path.ends_with("/results.csv") || path.ends_with("/results.xlsx");
    if is_long || reads_audience || path.starts_with("/new") {
        return next.run(request).await;
    }
    let answered = tokio::time::timeout(RESPONSE_TIMEOUT, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let detail = "the ledger does not respond; the request may still take effect, and can be repeated";
        Problem::away(detail).into_response()
    })
}

/// The routes of handlers that share a path, with their part of the document.
macro_rules! routes {
    ($($module:ident::$handler:ident),+) => {{
        let mut routes = UtoipaMethodRouter::default();
        $(utoipa_axum::paste! { add::<$module::[<__path_ $handler>], _, _>(&mut routes, &$module::$handler); })+
        routes
    }};
}

fn add<P, T, H>((schemas, paths, router): &mut UtoipaMethodRouter<Api>, handler: &H)
where
    P: utoipa::Path + SchemaReferences + for<'tag> Tags<'tag>,
    H: Handler<T, Api, Future = HandlerFuture> + Sync,
{
    let methods = P::methods();
    for method in &methods {
        *router = std::mem::take(router).merge(on(method.to_method_filter(), handler.clone()));
    }
    P::schemas(schemas);
    let mut operation = P::operation();
    operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
    paths.add_path_operation(P::path(), methods, operation);
}

/// Returns the routes and their `OpenAPI` document.
fn described() -> (Router<Api>, OpenApi) {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of `http.tokens` in the configuration"));
    let mut components = ComponentsBuilder::new().schema_from::<MessageState>().build();
    components.add_security_scheme("token", SecurityScheme::Http(token.build()));
    let about = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("flowcast")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Campaigns, their reports, audiences, suppressed numbers, accounts and codes. Errors are \
                     problem documents (RFC 9457). An unknown path is 404; a method that a path does not allow is 405, with \
                     the allowed methods in the Allow header.",
                ))
                .license(Some(License::new(env!("CARGO_PKG_LICENSE"))))
                .build(),
        )
        .components(Some(components))
        .security(Some([utoipa::openapi::security::SecurityRequirement::new("token", [] as [&str; 0])]))
        .servers(Some([utoipa::openapi::Server::new(BASE)]))
        .build();
    // An upload's size is limited while it is written.
    let files = OpenApiRouter::new()
        .routes(routes!(audiences::upload, audiences::list))
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(about)
        .routes(routes!(campaigns::create, campaigns::list))
        .routes(routes!(campaigns::show))
        .routes(routes!(campaigns::pause))
        .routes(routes!(campaigns::resume))
        .routes(routes!(campaigns::cancel))
        .routes(routes!(campaigns::retry))
        .routes(routes!(campaigns::resolve))
        .routes(routes!(reports::report_csv))
        .routes(routes!(reports::report_jsonl))
        .routes(routes!(reports::responses_csv))
        .routes(routes!(reports::responses_jsonl))
        .routes(routes!(live::events))
        .routes(routes!(suppressed::list, suppressed::add))
        .routes(routes!(suppressed::remove))
        .routes(routes!(accounts::list))
        .routes(routes!(codes::list))
        .routes(routes!(codes::show))
        .routes(routes!(audit::list))
        .layer(DefaultBodyLimit::max(JOB_LIMIT))
        .merge(files)
        .split_for_parts()
}
