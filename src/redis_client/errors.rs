//! Classification of Redis errors: transient or not, why writes are refused, and a hint for the operator.

use std::fmt::{self, Write as _};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Reason why a server that answers accepts no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRefusal {
    /// Its memory is at `maxmemory`.
    Full,
    /// It cannot write to its disk.
    Disk,
    /// It has too few replicas (`min-replicas-to-write`).
    Replicas,
}

impl WriteRefusal {
    pub(super) fn classify(error: &RedisError) -> Option<Self> {
        match code(error)? {
            "OOM" => Some(Self::Full),
            "MISCONF" => Some(Self::Disk),
            "NOREPLICAS" => Some(Self::Replicas),
            _ => None,
        }
    }
}

impl fmt::Display for WriteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "Redis is full: give it more memory (maxmemory)",
            Self::Disk => "Redis cannot write to its disk: check its log and free space",
            Self::Replicas => "Redis has fewer replicas than its min-replicas-to-write",
        })
    }
}

/// Returns the code of an error, or of the command inside a script that failed.
///
/// Before version 7, Redis puts the line of the command's error behind the script's own, e.g.
/// `ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed`.
pub(super) fn code(error: &RedisError) -> Option<&str> {
    let of_command = || {
        let detail = error.detail()?;
        let line = detail.split_once(": -").map_or(detail, |(_, line)| line);
        line.split_once(' ').map(|(code, _)| code)
    };
    match error.code() {
        Some("ERR") => of_command().or(Some("ERR")),
        code => code,
    }
}

/// Whether the server does not know a script, e.g. after a restart.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection must be replaced after an error.
pub(super) fn is_stale(error: &RedisError) -> bool {
    // A master that became a replica answers READONLY, and the connection stays open.
    error.is_io_error() || error.is_cluster_error() || error.code() == Some("READONLY")
}

/// Whether an error is transient.
pub(super) fn passes(error: &RedisError) -> bool {
    const PASSING: [&str; 7] =
        ["LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "MOVED", "ASK"];
    error.is_io_error()
        || WriteRefusal::classify(error).is_some()
        || code(error).is_some_and(|code| PASSING.contains(&code))
}

/// Returns the text of an error, with a hint. Errors of Redis contain no secrets.
pub(super) fn words(error: &RedisError) -> String {
    let mut text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (None, Some(detail)) if error.is_io_error() => format!("connection failed: {detail}"),
        _ => error.to_string(),
    };
    let remedy = match error.code() {
        Some("READONLY") => Some("it is a replica: point redis.url to the master"),
        Some("OOM") => Some("it is full: give it more memory (maxmemory)"),
        Some("MISCONF") => Some("it cannot write to its disk: check the server"),
        Some("NOAUTH" | "WRONGPASS") => Some("set user and password in redis.url"),
        _ if error.kind() == ErrorKind::AuthenticationFailed => Some("set user and password in redis.url"),
        Some("NOPERM") => {
            Some("give the user what deploy/redis/users.acl has, on keys flowcast:* and {flowcast:*")
        }
        _ if error.is_connection_refusal() => Some("is it running, and is redis.url correct?"),
        _ => None,
    };
    if let Some(remedy) = remedy {
        let _ = write!(text, " ({remedy})");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn error(kind: ErrorKind, detail: &str) -> RedisError {
        (kind, "an error", detail.to_owned()).into()
    }

    #[test]
    fn every_failure_of_a_connection_is_retried_on_another_one() {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, TimedOut};
        for kind in [BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, TimedOut] {
            let error = RedisError::from(io::Error::from(kind));
            assert!(passes(&error) && is_stale(&error), "{kind}");
        }
    }

    #[test]
    fn a_transient_error_is_retried_also_when_a_script_reports_it() {
        let script = ErrorKind::Server(ServerErrorKind::ResponseError);
        for kind in [ServerErrorKind::Moved, ServerErrorKind::BusyLoading, ServerErrorKind::ReadOnly] {
            assert!(passes(&error(ErrorKind::Server(kind), "")), "{kind:?}");
        }
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        for (detail, refusal) in [
            (full, Some(WriteRefusal::Full)),
            ("MISCONF Redis is configured to save RDB snapshots", Some(WriteRefusal::Disk)),
            ("NOREPLICAS Not enough good replicas to write.", Some(WriteRefusal::Replicas)),
            ("LOADING Redis is loading the dataset in memory", None),
            (
                "Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write",
                None,
            ),
            (
                "Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                Some(WriteRefusal::Full),
            ),
        ] {
            let error = error(script, detail);
            assert!(passes(&error), "{detail}");
            assert_eq!(WriteRefusal::classify(&error), refusal, "{detail}");
        }
        for detail in ["WRONGTYPE Operation against a key", "user_script:1: attempt to index a nil value"] {
            assert!(!passes(&error(script, detail)), "{detail}");
        }
    }
}
