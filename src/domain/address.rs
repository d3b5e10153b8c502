//! Public network addresses.
//!
//! Without this check, the URL of a target could direct our requests to this machine or its neighbours.
//! It could also reach the metadata service that hands out a cloud's credentials. Only addresses in
//! public ranges count as public. Nothing here resolves names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The rule that a non-public address breaks, and the way out.
pub const ONLY_PUBLIC: &str = "only public addresses are called, unless the target has allow_private = true";

/// Why a text cannot be the URL of a target. The text may be secret, so it is not in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is missing or not allowed.
    #[error("takes an address that begins with {}", if *.allow_private { "http:// or https://" } else { "https:// (http:// only with allow_private = true)" })]
    Scheme {
        /// Whether plain http is allowed.
        allow_private: bool,
    },
    /// The URL holds a login or a fragment.
    #[error("takes an address without a user, a password and a \"#\"; use token for a bearer token")]
    Login,
    /// The URL has no host.
    #[error("takes an address with a host")]
    NoHost,
    /// The host is a non-public address.
    #[error("names {0}: {ONLY_PUBLIC}")]
    Inside(&'static str),
}

/// Parses `text` as the URL of a target. A host name in it may still resolve to a non-public address; the
/// resolver checks that.
///
/// # Errors
/// The error states the rule and the way out.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, AddressError> {
    let url = Url::parse(text)
        .ok()
        .filter(|it| it.scheme() == "https" || (allow_private && it.scheme() == "http"))
        .ok_or(AddressError::Scheme { allow_private })?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(AddressError::Login);
    }
    let literal = match url.host() {
        Some(Host::Ipv4(it)) => Some(it.into()),
        Some(Host::Ipv6(it)) => Some(it.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(AddressError::NoHost),
    };
    match literal.and_then(not_public).filter(|_| !allow_private) {
        Some(why) => Err(AddressError::Inside(why)),
        None => Ok(url),
    }
}

/// Whether `url` leads to this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

/// Whether `host` is this machine: `localhost`, or a loopback address with or without brackets.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
        || literal_address(host).is_some_and(|ip| ip.is_loopback())
}

/// The IP address in `host`; `None` for a name. An IPv4 address in IPv6 form is an IPv4 address.
#[must_use]
pub fn literal_address(host: &str) -> Option<IpAddr> {
    // `Url` parses no addresses in the hosts of other schemes than HTTP's, so every host is parsed here.
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// The kind of a non-public address; `None` for a public one.
#[must_use]
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(it) => not_public_v4(it),
        IpAddr::V6(it) => not_public_v6(it),
    }
}

fn not_public_v4(it: Ipv4Addr) -> Option<&'static str> {
    match it.octets() {
        [0, ..] => Some("an unspecified address"),
        [127, ..] => Some("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("an address of a provider's own network"),
        [169, 254, ..] => Some("a link-local address"),
        // Azure's platform serves virtual machines from this address.
        [168, 63, 129, 16] => Some("a cloud platform's address"),
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => {
            Some("a reserved address")
        }
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn not_public_v6(it: Ipv6Addr) -> Option<&'static str> {
    match it.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Some("an IPv4 address in IPv6 form"),
        // A network without IPv4 reaches public IPv4 hosts through these.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            not_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        [0xfc00..=0xfdff, ..] => Some("a unique local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => {
            Some("a reserved address")
        }
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_localhost_and_its_addresses() {
        for url in [
            "http://localhost",
            "smtp://LOCALHOST:25",
            "smtp://127.0.0.1",
            "smtp://[::1]:25",
            "http://127.9.9.9",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
        for url in ["http://localhost.example", "http://169.254.1.1", "smtp://10.0.0.1", "file:///x"] {
            assert!(!is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(is_loopback_host("::1") && !is_loopback_host("") && !is_loopback_host("::2"));
    }

    #[test]
    fn only_the_open_internet_is_public() {
        for inner in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:93.184.216.34",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(not_public(inner.parse().unwrap()).is_some(), "{inner}");
        }
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.1",
            "192.167.0.1",
            "223.255.255.255",
            "64:ff9b::101:101",
            "2606:4700:4700::1111",
            "2a00:1450:4001:82a::200e",
        ] {
            assert_eq!(not_public(public.parse().unwrap()), None, "{public}");
        }
    }
}
