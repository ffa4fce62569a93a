//! The policy for requests to addresses that jobs name. Jobs are untrusted, so requests into the own network are refused.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Policy, and resolver of names for public addresses only.
///
/// Names are resolved and checked when the connection is made, so a name cannot change its address after the check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EgressPolicy {
    /// Whether private addresses are allowed, too.
    pub(crate) allow_private: bool,
}

impl EgressPolicy {
    /// Parses a URL, if requests to it are allowed.
    ///
    /// Host names are checked when they are resolved.
    pub(crate) fn admitted(self, url: &str) -> Option<Url> {
        let url: Url = url.parse().ok()?;
        let is_outside = match url.host()? {
            Host::Domain(_) => true,
            Host::Ipv4(ip) => is_public(ip.into()),
            Host::Ipv6(ip) => is_public(ip.into()),
        };
        let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty();
        (is_plain && (is_outside || self.allow_private)).then_some(url)
    }
}

impl Resolve for EgressPolicy {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if found.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is public.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.is_documentation()
                || a == 0
                || a >= 240
                // Carrier-grade NAT, protocol assignments, benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b));
            !is_special
        }
        IpAddr::V6(ip) => {
            if let Some(ip) = ip.to_ipv4() {
                return is_public(ip.into());
            }
            let [first, second, ..] = ip.segments();
            // NAT64 and 6to4 addresses contain an IPv4 address.
            let hides = first == 0x64 && second == 0xff9b || first == 0x2002;
            let is_global = first & 0xe000 == 0x2000;
            is_global && !hides && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused_and_public_ones_allowed() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_not_resolved() {
        let outside = EgressPolicy { allow_private: false };
        assert!(outside.resolve("localhost".parse().unwrap()).await.is_err());
        let any = EgressPolicy { allow_private: true };
        assert!(any.resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
