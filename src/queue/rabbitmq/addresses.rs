//! `amqp.url`: the address of a server, or those of a cluster's nodes.

use std::str::FromStr;

use lapin::uri::AMQPUri;

use crate::queue::QueueError;

/// Parses one or more addresses, separated by commas.
///
/// Either each address is complete, or hosts share the user of the first and the virtual host of the last, e.g.
/// `amqp://user:password@one:5672,two:5672/%2f`.
///
/// # Errors
///
/// When an address is invalid. The error does not contain it, as it may contain a password.
pub(super) fn read(text: &str) -> Result<Vec<AMQPUri>, QueueError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut whole: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    if let [first, .., last] = parts[..]
        && !parts[1..].iter().any(|part| part.contains("://"))
    {
        let host = first.rfind('@').or_else(|| first.find("://").map(|at| at + 2)).map_or(0, |at| at + 1);
        let end = last.find(['/', '?']).unwrap_or(last.len());
        let (before, behind) = (&first[..host], &last[end..]);
        let hosts = parts.iter().enumerate().map(|(nth, part)| match nth {
            0 => &first[host..],
            _ if nth + 1 == parts.len() => &last[..end],
            _ => part,
        });
        whole = hosts.map(|host| format!("{before}{host}{behind}")).collect();
    }
    let count = whole.len();
    let parse = |(nth, text): (usize, &String)| {
        // Without a host, the parser assumes this machine.
        let host = text.split_once("://").map_or("", |(_, rest)| rest.rsplit('@').next().unwrap_or(rest));
        match AMQPUri::from_str(text) {
            Ok(uri) if count == 1 || !host.starts_with(['/', '?', ':']) && !host.is_empty() => Ok(uri),
            _ => Err(QueueError::Address(if count == 1 {
                "has an invalid address in amqp.url; the form is amqp://user:password@host:5672/%2f".into()
            } else {
                format!(
                    "has an invalid address in amqp.url, number {} of {count}; the form is \
                     amqp://user:password@one:5672,two:5672/%2f, with %2C for a comma in a password",
                    nth + 1
                )
            })),
        }
    };
    whole.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let place = |uri: &AMQPUri| {
            let (user, at) = (&uri.authority.userinfo, &uri.authority);
            format!("{}:{}@{}:{} {}", user.username, user.password, at.host, at.port, uri.vhost)
        };
        read(text).unwrap().iter().map(place).collect()
    }

    #[test]
    fn several_addresses_are_complete_or_share_user_and_virtual_host() {
        assert_eq!(places("amqp://a:b@one/%2f"), ["a:b@one:5672 /"]);
        let all = ["a:b@one:1 v", "a:b@two:2 v", "a:b@three:5672 v"];
        assert_eq!(places("amqp://a:b@one:1,two:2,three/v"), all);
        assert_eq!(places("amqp://a:b@one:1/v, amqp://a:b@two:2/v,amqp://a:b@three/v"), all);
        assert_eq!(places("amqp://one,two"), ["guest:guest@one:5672 /", "guest:guest@two:5672 /"]);
    }

    #[test]
    fn an_invalid_address_is_named_by_its_number_and_never_shown() {
        for (text, nth) in [
            ("amqp://a:s3cr3t@one:1,,two/v", "2 of 3"),
            ("amqp://a:s3cr3t@one:1/v,http://two/v", "2 of 2"),
            ("amqp://a:s3cr3t@one:1,two:x/v", "2 of 2"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(nth) && !error.contains("s3cr3t"), "{error}");
        }
        assert!(read("s3cr3t").unwrap_err().to_string().contains("the form is amqp://user"));
    }
}
