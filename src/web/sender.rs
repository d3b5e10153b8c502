//! Where a request came from: its connection, the address of its client, and what a sender of wrong secrets may still do.
//!
//! Behind a proxy every connection has the proxy's address, so the client's own comes from a header. Anyone
//! can write that header; it counts only on a connection from a configured proxy, and only as far back as
//! configured proxies reach.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use tokio::net::UnixStream;

use crate::domain::network::Network;
use crate::domain::time::Timestamp;

/// Where a connection came from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The TCP port: nothing is known of the caller but the address of the connection.
    Network {
        /// The address at the other end, which may be a proxy's.
        peer: IpAddr,
    },
    /// The local socket, whose user the kernel names.
    Local {
        /// The user's name, or `uid-N` when it has none.
        user: String,
    },
}

impl Origin {
    /// The user of a connection to the local socket. A connection whose user the kernel does not name counts
    /// as one from the network, so it needs a token.
    #[must_use]
    pub fn local(stream: &UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(peer) => Origin::Local { user: user_name(peer.uid()) },
            Err(_) => Origin::Network { peer: IpAddr::V4(Ipv4Addr::LOCALHOST) },
        }
    }
}

/// The name of a user of this machine, or `uid-N` when it has none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid-{uid}"))
}

/// The network of the client of a request; `None` on the local socket.
pub(super) fn network(extensions: &Extensions, headers: &HeaderMap, proxies: &[Network]) -> Option<Network> {
    match extensions.get::<ConnectInfo<Origin>>() {
        Some(ConnectInfo(Origin::Network { peer })) => {
            Some(Network::of_client(client(*peer, headers, proxies)))
        }
        _ => None,
    }
}

/// The client's address. Where the two headers disagree, one of them was passed on from a stranger, and
/// the proxy's own address counts.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let trusted = |address: IpAddr| proxies.iter().any(|it| it.contains(address));
    if !trusted(peer) {
        return peer;
    }
    let lists = [("x-forwarded-for", address as fn(&str) -> Option<IpAddr>), ("forwarded", forwarded)];
    let named = lists.map(|(name, parse)| {
        let values = headers.get_all(name).iter().map(|it| it.to_str().unwrap_or(""));
        let hops: Vec<&str> = values.flat_map(|it| it.split(',')).collect();
        // The last hop was written by the proxy itself, each one before it by the hop that follows.
        let mut last = None;
        for hop in hops.iter().rev() {
            let Some(found) = parse(hop.trim()) else { break };
            last = Some(found);
            if !trusted(found) {
                break;
            }
        }
        (!hops.is_empty()).then_some(last.unwrap_or(peer))
    });
    match named {
        [Some(one), Some(other)] if one != other => peer,
        [Some(one), _] | [None, Some(one)] => one,
        [None, None] => peer,
    }
}

/// An address, with or without brackets and a port.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse::<IpAddr>().ok().or_else(|| {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        bare.and_then(|it| it.parse().ok())
    });
    let parsed = parsed.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|it| it.ip()));
    parsed.map(|it| it.to_canonical())
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = found.next()?;
    address(value.trim().trim_matches('"'))
}

/// Wrong secrets of one sender that cost nothing.
const AT_ONCE: u32 = 20;
/// After them, one more may be tried in this time.
const EACH: Duration = Duration::from_secs(1);
/// Senders that are remembered. Beyond them the one whose last wrong secret is oldest is forgotten.
const SENDERS: usize = 4096;

/// The senders of wrong secrets, each slowed down by itself.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<BTreeMap<Network, Guesser>>);

/// One sender: its wrong secrets that still count, and the last one.
#[derive(Clone, Copy, Debug)]
struct Guesser {
    wrong: u32,
    last: Timestamp,
}

impl Guesser {
    /// What still counts at `now`.
    fn at(self, now: Timestamp) -> Self {
        let forgiven = now.since(self.last).as_millis() / EACH.as_millis();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven == 0 {
            return self;
        }
        // What is left of a second counts on.
        let last = if forgiven >= self.wrong { now } else { self.last + EACH * forgiven };
        Self { wrong: self.wrong.saturating_sub(forgiven), last }
    }
}

impl Guesses {
    /// Whether `sender` has to wait: nothing it sends is compared, right or wrong.
    pub(super) fn is_slowed(&self, sender: Network, now: Timestamp) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&sender).is_some_and(|it| it.at(now).wrong >= AT_ONCE)
    }

    /// Counts a wrong secret.
    pub(super) fn wrong(&self, sender: Network, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(&sender).map_or(Guesser { wrong: 0, last: now }, |it| it.at(now));
        all.insert(sender, Guesser { wrong: own.wrong + 1, ..own });
        if all.len() > SENDERS {
            all.retain(|_, it| it.at(now).wrong > 0);
        }
        if all.len() > SENDERS
            && let Some(oldest) = all.iter().min_by_key(|(_, it)| it.last).map(|(network, _)| *network)
        {
            all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, proxies: &[&str], headers: &[(&'static str, &str)]) -> String {
        let proxies: Vec<Network> = proxies.iter().map(|it| it.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(peer.parse().unwrap(), &map, &proxies).to_string()
    }

    #[test]
    fn only_a_configured_proxy_names_the_client() {
        let (proxy, stranger) = ("10.0.0.7", "203.0.113.9");
        let xff = [("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen(stranger, &["10.0.0.0/8"], &xff), stranger);
        assert_eq!(seen(proxy, &[], &xff), proxy);
        assert_eq!(seen(proxy, &["10.0.0.0/8"], &xff), "192.0.2.1");
        for (name, value) in [
            ("forwarded", "for=192.0.2.1;proto=https"),
            ("forwarded", "proto=https; For=\"192.0.2.1:4711\""),
            ("forwarded", "for=203.0.113.1, for=192.0.2.1"),
            ("x-forwarded-for", "203.0.113.1, 192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1:4711, 10.9.9.9"),
            ("x-forwarded-for", "rubbish, 192.0.2.1, 10.0.0.8"),
        ] {
            assert_eq!(seen(proxy, &["10.0.0.0/8"], &[(name, value)]), "192.0.2.1", "{value}");
        }
        assert_eq!(seen(proxy, &["10.0.0.0/8"], &[("forwarded", "for=\"[2001:db8::1]:80\"")]), "2001:db8::1");
        // What a client wrote before its own proxy does not count, and neither does what cannot be read.
        for value in ["", "unknown", "192.0.2.1, unknown", "_hidden"] {
            assert_eq!(seen(proxy, &["10.0.0.0/8"], &[("x-forwarded-for", value)]), proxy, "{value}");
        }
        let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        assert_eq!(seen(proxy, &["10.0.0.0/8"], &both), proxy, "one of them is a stranger's");
        let lines = [("x-forwarded-for", "192.0.2.2"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen(proxy, &["10.0.0.0/8"], &lines), "192.0.2.1");
    }

    #[test]
    fn a_sender_of_wrong_secrets_is_slowed_down_and_no_other_one() {
        let guesses = Guesses::default();
        let of = |text: &str| Network::of_client(text.parse().unwrap());
        let (bad, good) = (of("192.0.2.1"), of("192.0.2.2"));
        let mut now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for _ in 0..AT_ONCE {
            assert!(!guesses.is_slowed(bad, now));
            guesses.wrong(bad, now);
        }
        assert!(guesses.is_slowed(bad, now) && !guesses.is_slowed(good, now));
        now = now + EACH;
        assert!(!guesses.is_slowed(bad, now), "one more may be tried");
        guesses.wrong(bad, now);
        assert!(guesses.is_slowed(bad, now));
        now = now + EACH * (2 * AT_ONCE);
        assert!((0..AT_ONCE).all(|_| {
            guesses.wrong(bad, now);
            true
        }));
        assert!(guesses.is_slowed(bad, now));
    }

    #[test]
    fn many_senders_take_bounded_memory_and_the_last_ones_stay_slowed() {
        let guesses = Guesses::default();
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let later = now + Duration::from_millis(500);
        for at in 0..u32::try_from(SENDERS).unwrap() * 2 {
            guesses.wrong(Network::of_client(IpAddr::V4((0x0a00_0000 + at).into())), now);
        }
        let last = Network::of_client("192.0.2.1".parse().unwrap());
        (0..AT_ONCE).for_each(|_| guesses.wrong(last, later));
        guesses.wrong(Network::of_client("192.0.2.2".parse().unwrap()), later);
        assert!(guesses.is_slowed(last, later));
        assert_eq!(guesses.0.lock().unwrap().len(), SENDERS);
    }
}
