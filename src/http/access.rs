//! Who may do what: tokens with roles, and without any the people at this machine alone.
//!
//! A token is known by its digest, and digests are compared in constant time. It is never logged.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};

use super::problem::Problem;
use crate::config::Role;

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Who {
    /// The token's name, as the audit log has it.
    pub(super) name: Arc<str>,
    role: Role,
}

impl Who {
    /// Whether more than looking is allowed.
    pub(super) fn may_act(&self) -> bool {
        self.role == Role::Operator
    }
}

/// A session of the dashboard.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Whose it is.
    pub(super) who: Who,
    /// Under which it is known when it was ended before its time.
    pub(super) digest: String,
    /// When it ends by itself, in seconds since 1970.
    pub(super) ends: i64,
}

#[derive(Clone, PartialEq)]
struct Known {
    who: Who,
    digest: blake3::Hash,
    /// Seals the sessions that begin with this token.
    session_key: [u8; 32],
}

/// What the keys of sessions are made for, and for nothing else.
const SESSIONS: &str = "flowcast 2026-11-26 sessions of the dashboard";

/// The tokens there are. Clones share them.
#[derive(Clone, Default)]
pub struct Access(Arc<RwLock<Arc<Vec<Known>>>>);

impl Access {
    /// Tokens by name.
    pub fn new(tokens: impl IntoIterator<Item = (String, Role, SecretString)>) -> Self {
        let access = Self::default();
        access.replace(tokens);
        access
    }

    /// From now on these are the tokens, for requests and sessions alike. Returns whether they were others before.
    pub fn replace(&self, tokens: impl IntoIterator<Item = (String, Role, SecretString)>) -> bool {
        let known = |(name, role, token): (String, Role, SecretString)| Known {
            who: Who { name: name.into(), role },
            digest: blake3::hash(token.expose_secret().as_bytes()),
            session_key: blake3::derive_key(SESSIONS, token.expose_secret().as_bytes()),
        };
        let tokens: Arc<Vec<Known>> = Arc::new(tokens.into_iter().map(known).collect());
        let mut known = self.0.write();
        let is_new = *known != tokens;
        *known = tokens;
        is_new
    }

    fn all(&self) -> Arc<Vec<Known>> {
        self.0.read().clone()
    }

    /// Whether there are no tokens, and only people at this machine are answered.
    pub(super) fn is_open(&self) -> bool {
        self.all().is_empty()
    }

    /// A token that there is. All of them are compared, each in constant time.
    fn known(&self, token: &[u8]) -> Option<Known> {
        let digest = blake3::hash(token);
        let all = self.all();
        let found =
            all.iter().fold(None, |found, known| if known.digest == digest { Some(known) } else { found });
        found.cloned()
    }

    fn of(&self, token: &[u8]) -> Option<Who> {
        self.known(token).map(|known| known.who)
    }

    /// A session of the holder of a token that ends at a second since 1970: `end.number.seal`. No two are alike.
    pub(super) fn session(&self, token: &[u8], ends: i64) -> Option<String> {
        let known = self.known(token)?;
        let sealed = format!("{ends}.{:016x}", rand::random::<u64>());
        let seal = blake3::keyed_hash(&known.session_key, sealed.as_bytes()).to_hex();
        Some(format!("{sealed}.{seal}"))
    }

    /// A session that has not ended by now, as far as its cookie tells.
    pub(super) fn of_session(&self, session: &str, now: i64) -> Option<Session> {
        let (sealed, seal) = session.rsplit_once('.')?;
        let seal = blake3::Hash::from_hex(seal).ok()?;
        let ends = sealed.split_once('.')?.0.parse::<i64>().ok()?;
        if ends <= now {
            return None;
        }
        let is_its = |known: &Known| blake3::keyed_hash(&known.session_key, sealed.as_bytes()) == seal;
        let all = self.all();
        let who = all.iter().fold(None, |found, known| if is_its(known) { Some(&known.who) } else { found });
        let digest = blake3::hash(session.as_bytes()).to_hex().to_string();
        Some(Session { who: who?.clone(), digest, ends })
    }

    /// Who asks, if it is somebody who may look.
    pub(super) fn who(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Who, Problem> {
        if self.is_open() {
            return at_this_machine(headers, peer);
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        let refused = |detail| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let token = bearer.ok_or_else(|| refused("a token is missing: send Authorization: Bearer TOKEN"))?;
        self.of(token).ok_or_else(|| refused("the token is none of http.tokens"))
    }
}

/// Without tokens it answers people at this machine: not others whom a proxy lets in, and no page of
/// another site in their browser.
fn at_this_machine(headers: &HeaderMap, peer: SocketAddr) -> Result<Who, Problem> {
    let refused = |detail| Err(Problem::new(StatusCode::FORBIDDEN, detail));
    if !peer.ip().to_canonical().is_loopback() {
        return refused("without http.tokens in the configuration it answers on loopback only");
    }
    if ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name)) {
        return refused("comes through a proxy: that needs http.tokens in the configuration");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_loopback) {
        return refused(
            "was asked under another name than localhost: that needs http.tokens in the configuration",
        );
    }
    if comes_from_elsewhere(headers) {
        return refused("comes from a page of another site");
    }
    Ok(Who { name: "someone on this computer".into(), role: Role::Operator })
}

/// Whether a browser says that a page of another site asks.
pub(super) fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let own = |origin: &str| origin.split_once("://").map(|(_, origin)| origin) == host;
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    !origin.is_none_or(own) || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Lets those through who may: who only looks, with any role; who changes something, as an operator.
pub(super) async fn guard(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let who = match access.who(request.headers(), peer) {
        Ok(who) => who,
        Err(problem) => return problem.into_response(),
    };
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && who.role != Role::Operator {
        let detail =
            format!("the token {:?} may look and change nothing: it needs the role operator", who.name);
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    request.extensions_mut().insert(who);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_known_by_all_of_it() {
        let access = Access::new([
            ("looks".into(), Role::Viewer, "secret-1".into()),
            ("acts".into(), Role::Operator, "secret-2".into()),
        ]);
        let peer = "192.0.2.7:9".parse().unwrap();
        let who = |value: &str| access.who(&headers(&[("authorization", value)]), peer);
        assert_eq!(who("Bearer secret-2").unwrap().role, Role::Operator);
        assert_eq!(&*who("bearer secret-1").unwrap().name, "looks");
        for wrong in
            ["Bearer secret-3", "Bearer secret-", "Bearer ", "Basic secret-1", "secret-1", "Bearer secret-11"]
        {
            assert!(who(wrong).is_err(), "{wrong}");
        }
        assert!(access.who(&HeaderMap::new(), "127.0.0.1:9".parse().unwrap()).is_err());
    }

    #[test]
    fn a_session_is_its_tokens_and_ends() {
        let access = |token: &str| {
            Access::new([
                ("looks".into(), Role::Viewer, token.into()),
                ("acts".into(), Role::Operator, "secret-2".into()),
            ])
        };
        let known = access("secret-1");
        let session = known.session(b"secret-1", 1000).unwrap();
        assert_eq!(&*known.of_session(&session, 999).unwrap().who.name, "looks");
        assert_ne!(session, known.session(b"secret-1", 1000).unwrap(), "each is its own");
        assert!(known.of_session(&session, 1000).is_none());
        assert!(known.session(b"secret-3", 1000).is_none());
        assert!(access("another").of_session(&session, 999).is_none(), "it ends with its token");
        let (_, rest) = session.split_once('.').unwrap();
        let (number, seal) = rest.split_once('.').unwrap();
        for forged in [
            format!("2000.{number}.{seal}"),
            format!("1000.{:016x}.{seal}", 7),
            format!("1000.{seal}"),
            format!("1000.{number}.{}", "0".repeat(64)),
            "1000".into(),
            "..".into(),
        ] {
            assert!(known.of_session(&forged, 999).is_none(), "{forged}");
        }
    }

    #[test]
    fn without_tokens_only_this_machine_itself_is_answered() {
        let access = Access::default();
        let here: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let may = |pairs: &[(&'static str, &str)], peer| access.who(&headers(pairs), peer).is_ok();
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"] {
            assert!(may(&[("host", host)], here), "{host}");
        }
        assert!(may(
            &[("host", "localhost:1"), ("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")],
            here
        ));
        assert!(!may(&[("host", "localhost:1")], "192.0.2.7:9".parse().unwrap()));
        assert!(!may(&[], here));
        for more in [
            ("host", "campaigns.example.com"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("x-forwarded-for", "192.0.2.7"),
        ] {
            let mut pairs = vec![("host", "localhost:1")];
            pairs.retain(|(name, _)| *name != more.0);
            pairs.push(more);
            assert!(!may(&pairs, here), "{more:?}");
        }
    }
}
