//! Authentication and authorization: tokens with roles. Without tokens, only requests from this machine are allowed.
//!
//! Only digests of tokens are stored, and they are compared in constant time. A token is never logged.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{http::uri::Authority, middleware::Next};
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};

use super::problem::Problem;
use crate::config::Role;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caller {
    /// The token's name, as in the audit log.
    pub(super) name: Arc<str>,
    role: Role,
}

impl Caller {
    /// Returns whether the caller may change something.
    pub(super) fn may_act(&self) -> bool {
        self.role == Role::Operator
    }
}

/// A session of the dashboard.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The person who signed in.
    pub(super) who: Caller,
    /// The key under which a session that was ended early is stored.
    pub(super) digest: String,
    /// When it expires, in seconds since 1970.
    pub(super) ends: i64,
}

#[derive(Clone, PartialEq)]
struct KnownToken {
    who: Caller,
    digest: blake3::Hash,
    /// Key that signs the sessions of this token.
    session_key: [u8; 32],
}

/// Context of the key derivation; session keys are used for nothing else.
const SESSIONS: &str = "flowcast 2026-11-26 sessions of the dashboard";

/// The configured tokens. Clones share them.
#[derive(Clone, Default)]
pub struct Access(Arc<RwLock<Arc<Vec<KnownToken>>>>);

impl Access {
    /// Creates it from names, roles and tokens.
    pub fn new(tokens: impl IntoIterator<Item = (String, Role, SecretString)>) -> Self {
        let access = Self::default();
        access.replace(tokens);
        access
    }

    /// Replaces the tokens, for requests and sessions; returns whether they have changed.
    pub fn replace(&self, tokens: impl IntoIterator<Item = (String, Role, SecretString)>) -> bool {
        let known = |(name, role, token): (String, Role, SecretString)| KnownToken {
            who: Caller { name: name.into(), role },
            digest: blake3::hash(token.expose_secret().as_bytes()),
            session_key: blake3::derive_key(SESSIONS, token.expose_secret().as_bytes()),
        };
        let tokens: Arc<Vec<KnownToken>> = Arc::new(tokens.into_iter().map(known).collect());
        let mut known = self.0.write();
        let is_new = *known != tokens;
        *known = tokens;
        is_new
    }

    fn all(&self) -> Arc<Vec<KnownToken>> {
        self.0.read().clone()
    }

    /// Returns whether there are no tokens, so that only requests from this machine are allowed.
    pub(super) fn is_open(&self) -> bool {
        self.all().is_empty()
    }

    /// Looks up a token. All of them are compared, each in constant time.
    fn find_token(&self, token: &[u8]) -> Option<KnownToken> {
        let digest = blake3::hash(token);
        let all = self.all();
        let found =
            all.iter().fold(None, |found, known| if known.digest == digest { Some(known) } else { found });
        found.cloned()
    }

    /// Creates a session for a token: `end.number.seal`, with the end in seconds since 1970 and a random number.
    pub(super) fn session(&self, token: &[u8], ends: i64) -> Option<String> {
        let known = self.find_token(token)?;
        let sealed = format!("{ends}.{:016x}", rand::random::<u64>());
        let seal = blake3::keyed_hash(&known.session_key, sealed.as_bytes()).to_hex();
        Some(format!("{sealed}.{seal}"))
    }

    /// Returns a session whose cookie is valid and has not expired.
    pub(super) fn of_session(&self, session: &str, now: i64) -> Option<Session> {
        let (sealed, seal) = session.rsplit_once('.')?;
        let seal = blake3::Hash::from_hex(seal).ok()?;
        let ends = sealed.split_once('.')?.0.parse::<i64>().ok()?;
        if ends <= now {
            return None;
        }
        let is_its = |known: &KnownToken| blake3::keyed_hash(&known.session_key, sealed.as_bytes()) == seal;
        let all = self.all();
        let who = all.iter().fold(None, |found, known| if is_its(known) { Some(&known.who) } else { found });
        let digest = blake3::hash(session.as_bytes()).to_hex().to_string();
        Some(Session { who: who?.clone(), digest, ends })
    }

    /// Returns the caller, if the request is allowed to read.
    pub(super) fn who(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Caller, Problem> {
        if self.is_open() {
            return at_this_machine(headers, peer);
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        let refused = |detail| Problem::new(StatusCode::UNAUTHORIZED, detail);
        let token = bearer.ok_or_else(|| refused("missing token; send Authorization: Bearer TOKEN"))?;
        self.find_token(token).map(|known| known.who).ok_or_else(|| refused("unknown token"))
    }
}

/// Allows requests from this machine, but not through a proxy and not from another site's page in a browser.
fn at_this_machine(headers: &HeaderMap, peer: SocketAddr) -> Result<Caller, Problem> {
    let refused = |detail| Err(Problem::new(StatusCode::FORBIDDEN, detail));
    if !peer.ip().to_canonical().is_loopback() {
        return refused("only requests from loopback are allowed unless http.tokens is set");
    }
    if ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name)) {
        return refused("requests through a proxy are not allowed unless http.tokens is set");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_loopback) {
        return refused(
            "requests must be addressed to localhost or a loopback address unless http.tokens is set",
        );
    }
    if comes_from_elsewhere(headers) {
        return refused("requests from pages of other sites are not allowed");
    }
    Ok(Caller { name: "someone on this computer".into(), role: Role::Operator })
}

/// Returns whether a browser reports that a page of another site sent the request.
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

/// Requires a token of any role to read, and the operator role to change something.
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
        let detail = format!("the token {:?} is read-only; this request needs the operator role", who.name);
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
    fn only_a_complete_token_is_accepted() {
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
    fn a_session_belongs_to_its_token_and_expires() {
        let access = |token: &str| {
            Access::new([
                ("looks".into(), Role::Viewer, token.into()),
                ("acts".into(), Role::Operator, "secret-2".into()),
            ])
        };
        let known = access("secret-1");
        let session = known.session(b"secret-1", 1000).unwrap();
        assert_eq!(&*known.of_session(&session, 999).unwrap().who.name, "looks");
        assert_ne!(session, known.session(b"secret-1", 1000).unwrap(), "sessions differ");
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
    fn without_tokens_only_this_machine_is_allowed() {
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
