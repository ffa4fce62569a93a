//! Sessions of the pages: people sign in with a token. Without configured tokens only people on this machine have access.
//!
//! A session is a cookie with its owner and its end, sealed with a key derived from the token. Every worker can verify it, no
//! worker stores it, and removing the token ends it. The ledger only stores sessions that were signed out of.

use axum::Form;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use minijinja::context;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::access::{Session, comes_from_elsewhere};
use super::super::problem::Problem;
use super::Dashboard;
use super::render::{Viewer, page_of};
use crate::ledger::Sessions as _;

const COOKIE: &str = "flowcast_session";
const THEME: &str = "flowcast_theme";
/// Lifetime of a session, in seconds: a long working day.
const SESSION_SECONDS: i64 = 12 * 3600;
/// Delay after a wrong token, which slows down guessing.
const AFTER_A_WRONG_ONE: Duration = Duration::from_millis(500);

/// Returns a cookie's value.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Returns the browser's theme: `light`, `dark`, or empty for the system's.
pub(super) fn theme_of(headers: &HeaderMap) -> &'static str {
    match cookie(headers, THEME) {
        Some("dark") => "dark",
        Some("light") => "light",
        _ => "",
    }
}

/// Lets viewers read and operators act; redirects all others to the sign-in page.
pub(super) async fn guard(
    State(dashboard): State<Dashboard>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let now = Timestamp::now().as_second();
    let mut session = cookie(headers, COOKIE).and_then(|value| dashboard.access.of_session(value, now));
    if let Some(known) = &session {
        match was_ended(&dashboard, known).await {
            Ok(true) => session = None,
            Ok(false) => {}
            Err(problem) => return problem.into_response(),
        }
    }
    let acts = !matches!(*request.method(), Method::GET | Method::HEAD);
    let is_signed_in = session.is_some();
    let who = match session {
        Some(_) if acts && comes_from_elsewhere(headers) => {
            return refused("comes from a page of another site; nothing was changed");
        }
        Some(session) => session.who,
        None => match dashboard.access.who(headers, peer) {
            Ok(who) => who,
            Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
                let wanted = request.uri().path_and_query().map_or("/", |wanted| wanted.as_str());
                let back = if acts { "/" } else { wanted };
                return Redirect::to(&sign_in_address(back)).into_response();
            }
            Err(problem) => return problem.into_response(),
        },
    };
    if acts && !who.may_act() {
        return refused("you have view-only access; ask an operator to do this");
    }
    let address = request.uri().path_and_query().map_or("/", |address| address.as_str()).to_owned();
    let look = Viewer { theme: theme_of(headers), is_signed_in, address, has_queue: dashboard.has_queue() };
    request.extensions_mut().insert(who);
    request.extensions_mut().insert(look);
    next.run(request).await
}

fn refused(detail: &str) -> Response {
    Problem::new(StatusCode::FORBIDDEN, detail).into_response()
}

fn sign_in_address(back: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", back).finish();
    format!("/sign-in?{query}")
}

/// Returns the path if it leads to this server, else `/`.
fn own_path(path: &str) -> &str {
    // Resolved as a browser does: it ignores tabs and line breaks, and reads a backslash as a slash.
    let resolves = |own: &str| {
        let own = url::Url::parse(own).ok()?;
        let there = own.join(path).ok()?;
        Some(there.origin() == own.origin() && there.username().is_empty() && there.password().is_none())
    };
    let is_plain = path.starts_with('/') && !path.contains(['\\']) && !path.contains(char::is_control);
    let is_own = is_plain
        && resolves("http://own.invalid/") == Some(true)
        && resolves("https://own.invalid/") == Some(true);
    if is_own { path } else { "/" }
}

#[derive(Deserialize)]
pub(super) struct BackLink {
    #[serde(default)]
    next: String,
}

/// Shows the sign-in page.
pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    Query(asked): Query<BackLink>,
    headers: HeaderMap,
) -> Response {
    if dashboard.access.is_open() {
        return Redirect::to("/").into_response();
    }
    form(&headers, own_path(&asked.next), "")
}

fn form(headers: &HeaderMap, next: &str, error: &str) -> Response {
    let look = Viewer { theme: theme_of(headers), address: "/sign-in".into(), ..Viewer::default() };
    let page = page_of(&look, None, "sign_in.html", "Sign in", context! { next, error });
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    (status, page).into_response()
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

/// Signs a person in with a token.
pub(super) async fn sign_in(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
    Form(asked): Form<SignIn>,
) -> Response {
    if comes_from_elsewhere(&headers) {
        return refused("comes from a page of another site");
    }
    let next = own_path(&asked.next);
    let ends = Timestamp::now().as_second() + SESSION_SECONDS;
    let Some(value) = dashboard.access.session(asked.token.trim().as_bytes(), ends) else {
        tokio::time::sleep(AFTER_A_WRONG_ONE).await;
        let error = if asked.token.trim().is_empty() {
            "Enter your access token."
        } else {
            "This token is not known. Check that you copied all of it."
        };
        return form(&headers, next, error);
    };
    (set_cookie(COOKIE, &value, SESSION_SECONDS, dashboard.is_secure), Redirect::to(next)).into_response()
}

/// Returns whether a session was signed out of.
///
/// Copies of its cookie are then rejected by every worker.
async fn was_ended(dashboard: &Dashboard, session: &Session) -> Result<bool, Problem> {
    let ledger = dashboard.api.ledger()?;
    Ok(ledger.is_session_ended(&session.digest).await?)
}

/// Signs a person out, also where the cookie was copied to.
pub(super) async fn sign_out(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Response {
    if comes_from_elsewhere(&headers) {
        return refused("comes from a page of another site");
    }
    let now = Timestamp::now().as_second();
    if let Some(session) = cookie(&headers, COOKIE).and_then(|value| dashboard.access.of_session(value, now))
    {
        let ended = async {
            let (ledger, ends) = (dashboard.api.ledger()?, session.ends.saturating_mul(1000));
            ledger.end_session(&session.digest, ends).await?;
            Ok::<_, Problem>(())
        };
        // Only removing the cookie would look like signing out while copies of it stay valid.
        if let Err(problem) = ended.await {
            return problem.into_response();
        }
    }
    (set_cookie(COOKIE, "", 0, dashboard.is_secure), Redirect::to("/sign-in")).into_response()
}

#[derive(Deserialize)]
pub(super) struct Theme {
    #[serde(default)]
    theme: String,
    #[serde(default)]
    next: String,
}

/// Stores the theme in a cookie.
pub(super) async fn theme(State(dashboard): State<Dashboard>, Form(asked): Form<Theme>) -> Response {
    let theme = match asked.theme.as_str() {
        "dark" => "dark",
        "light" => "light",
        _ => "",
    };
    let lasts = if theme.is_empty() { 0 } else { 365 * 86_400 };
    (set_cookie(THEME, theme, lasts, dashboard.is_secure), Redirect::to(own_path(&asked.next)))
        .into_response()
}

fn set_cookie(
    name: &str,
    value: &str,
    lasts: i64,
    is_secure: bool,
) -> [(header::HeaderName, HeaderValue); 1] {
    let secure = if is_secure { "; Secure" } else { "" };
    let line = format!("{name}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{secure}");
    [(header::SET_COOKIE, HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static("")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leads_to_another_site() {
        for own in ["/", "/campaigns/a?x=1"] {
            assert_eq!(own_path(own), own);
        }
        for foreign in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nb", "javascript:x"]
        {
            assert_eq!(own_path(foreign), "/", "{foreign}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; flowcast_theme=dark"));
        headers.append(header::COOKIE, HeaderValue::from_static("flowcast_session=x.y"));
        assert_eq!((theme_of(&headers), cookie(&headers, COOKIE)), ("dark", Some("x.y")));
        assert_eq!(cookie(&headers, "session"), None);
    }
}
