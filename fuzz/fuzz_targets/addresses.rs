//! Addresses that webhooks may go to: what passes is https, has no user, and lies outside of every network
//! that the standard library or this target knows for an inner one, however it is written.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keywheel::domain::address::{check_url, not_public};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<4>() {
        is_outside(Ipv4Addr::from(*bytes).into());
    }
    if let Some(bytes) = data.first_chunk::<16>() {
        is_outside(Ipv6Addr::from(*bytes).into());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    for text in [text.to_owned(), format!("https://{text}/x")] {
        let Ok(url) = check_url(&text, false) else {
            continue;
        };
        assert_eq!(url.scheme(), "https");
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
        let host = url.host_str().expect("a host");
        assert!(!host.is_empty());
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // One dot may end a name; a second one makes it none.
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            assert_eq!(not_public(address), None, "{text}");
            is_outside(address);
        }
        // What a resolver would read as a number is a number here too.
        let last = host.rsplit('.').next().unwrap_or_default();
        let digits = last.strip_prefix("0x").unwrap_or(last);
        let number = (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
            || (digits.len() < last.len() && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!number || host.parse::<IpAddr>().is_ok(), "{text}");
        let again = check_url(url.as_str(), false).expect("it passes again");
        assert_eq!(again, url);
        assert!(check_url(&text, true).is_ok(), "{text}");
    }
});

fn is_outside(address: IpAddr) {
    if not_public(address).is_some() {
        return;
    }
    assert!(!address.is_loopback() && !address.is_unspecified() && !address.is_multicast(), "{address}");
    match address {
        IpAddr::V4(it) => is_outside_v4(it),
        IpAddr::V6(it) => {
            assert!(!it.is_unique_local() && !it.is_unicast_link_local(), "{it}");
            assert_eq!(it.to_ipv4(), None, "{it}");
            let segments = it.segments();
            if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                let [.., a, b, c, d] = it.octets();
                is_outside_v4(Ipv4Addr::new(a, b, c, d));
            } else {
                // All that was ever given out.
                assert_eq!(segments[0] >> 13, 1, "{it}");
                assert_ne!(segments[0], 0x2002, "{it}");
                assert_ne!((segments[0], segments[1]), (0x2001, 0xdb8), "{it}");
            }
        }
    }
}

fn is_outside_v4(it: Ipv4Addr) {
    assert!(!it.is_private() && !it.is_link_local() && !it.is_loopback() && !it.is_multicast(), "{it}");
    assert!(!it.is_broadcast() && !it.is_documentation() && !it.is_unspecified(), "{it}");
    let (bits, inside) = (it.to_bits(), |net: [u8; 4], size| {
        Ipv4Addr::from(net).to_bits() >> (32 - size) == it.to_bits() >> (32 - size)
    });
    for (net, size) in [([0, 0, 0, 0], 8), ([100, 64, 0, 0], 10), ([198, 18, 0, 0], 15), ([192, 0, 0, 0], 24)]
    {
        assert!(!inside(net, size), "{it}");
    }
    assert!(bits >> 28 != 15, "{it}");
    assert_ne!(it, Ipv4Addr::new(168, 63, 129, 16));
}
