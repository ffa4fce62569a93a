//! The dashboard: the pages at `/` for people who run campaigns. They are rendered on the server and work without a script; with
//! it they update live. They call the same code as the API and never do anything that the API cannot do.
//!
//! No input is trusted: templates escape all of it, and the content security policy only allows this server's own scripts and
//! styles.

mod accounts;
mod actions;
mod answers;
mod assets;
mod audiences;
mod campaign;
mod campaigns;
mod captions;
mod codes;
mod countries;
mod extract;
mod first_message;
mod job_cache;
mod live;
mod log;
mod new;
mod paging;
mod phone;
mod plot;
mod refused;
mod render;
mod results;
mod session;
mod skipped;
mod suppressed;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::Health;
use super::access::Access;
use super::api::{Api, reports, with_deadline};
use super::problem::Problem;
use crate::routing::{get, post};
use answers::KnownAnswers;
use audiences::KnownAudiences;
use job_cache::JobCache;
use live::KnownNewest;
use render::{Viewer, error_page};

/// Size limit of a submitted form without a file, in bytes.
const FORM: usize = 1 << 20;
/// Content security policy: only resources of this server, and no code inside a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The state of the pages.
#[derive(Clone)]
pub(super) struct Dashboard {
    api: Api,
    access: Access,
    facts: Arc<JobCache>,
    answers: Arc<KnownAnswers>,
    audiences: Arc<KnownAudiences>,
    newest: Arc<KnownNewest>,
    health: Health,
    /// Whether browsers reach it over TLS, so that cookies are marked `Secure`.
    is_secure: bool,
}

impl Dashboard {
    /// Returns whether there is a job queue.
    fn has_queue(&self) -> bool {
        self.api.backing().is_ok_and(|backing| backing.context.events.broker.is_some())
    }
}

impl FromRef<Dashboard> for Api {
    fn from_ref(dashboard: &Dashboard) -> Self {
        dashboard.api.clone()
    }
}

/// Returns the routes of the pages.
pub fn router(api: Api, access: Access, health: Health, public_url: Option<&Url>) -> Router {
    let is_secure = public_url.is_some_and(|url| url.scheme() == "https");
    let dashboard = Dashboard {
        api,
        access,
        facts: Arc::default(),
        answers: Arc::default(),
        audiences: Arc::default(),
        newest: Arc::default(),
        health: health.clone(),
        is_secure,
    };
    // The size of an upload is limited while it is written.
    let uploads = Router::new()
        .route("/new", get(new::begin).merge(post(new::create)))
        .route("/suppressed/import", post(suppressed::import))
        .layer(DefaultBodyLimit::disable());
    let pages = Router::new()
        .route("/", get(campaigns::list))
        .route("/live", get(live::rows))
        .route("/campaigns/{id}", get(campaign::show))
        .route("/campaigns/{id}/live", get(live::parts))
        .route("/campaigns/{id}/confirm/{what}", get(actions::confirm))
        .route("/campaigns/{id}/do/{what}", post(actions::act))
        .route("/campaigns/{id}/duplicate", post(new::duplicate))
        .route("/campaigns/{id}/report.csv", get(reports::report_csv))
        .route("/campaigns/{id}/report.jsonl", get(reports::report_jsonl))
        .route("/campaigns/{id}/responses.csv", get(reports::responses_csv))
        .route("/campaigns/{id}/responses.jsonl", get(reports::responses_jsonl))
        .route("/campaigns/{id}/results.csv", get(results::csv))
        .route("/campaigns/{id}/results.xlsx", get(results::xlsx))
        .merge(new::routes())
        .route("/accounts", get(accounts::list))
        .route("/accounts/resume", post(accounts::resume))
        .route("/audiences", get(audiences::list))
        .route("/audiences/delete", post(audiences::delete))
        .route("/suppressed", get(suppressed::list).merge(post(suppressed::add)))
        .route("/suppressed/remove", post(suppressed::remove))
        .route("/refused", get(refused::list).merge(post(refused::decide)))
        .route("/codes", get(codes::list))
        .route("/log", get(log::list))
        .layer(DefaultBodyLimit::max(FORM))
        .merge(uploads)
        .layer(middleware::from_fn_with_state(dashboard.clone(), session::guard))
        .route("/sign-out", post(session::sign_out))
        // Outside the guard, because the guard reads ended sessions from the ledger.
        .layer(middleware::from_fn_with_state(health, with_deadline));
    Router::new()
        .route("/sign-in", get(session::page).merge(post(session::sign_in)))
        .route("/theme", post(session::theme))
        .route("/assets/{name}", get(assets::serve))
        .merge(pages)
        .fallback(async || Problem::not_found("this page doesn’t exist"))
        .layer(middleware::from_fn_with_state(dashboard.clone(), render_page))
        .with_state(dashboard)
}

fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

/// Renders problems as pages, and sets the security and cache headers.
async fn render_page(State(dashboard): State<Dashboard>, request: Request, next: Next) -> Response {
    let theme = session::theme_of(request.headers());
    // A posted address cannot be requested again: its error page links to the list.
    let address = match *request.method() {
        Method::GET | Method::HEAD => request.uri().path_and_query().map_or("/", |address| address.as_str()),
        _ => "/",
    };
    let look =
        Viewer { theme, address: address.to_owned(), has_queue: dashboard.has_queue(), ..Viewer::default() };
    let is_posted = request.method() == Method::POST;
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = error_page(&problem, &look);
    } else if response.status().is_client_error() && !is_page(&response) {
        // An extractor refused the address, the query or the form.
        response = error_page(&Problem::new(response.status(), "check the address"), &look);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    // The response to a form is cached for the Back button: otherwise the browser would submit the form again.
    let kept = if is_posted { "private, no-cache" } else { "no-store" };
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(kept));
    response.into_response()
}
