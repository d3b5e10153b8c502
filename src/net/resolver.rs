//! Names that resolve to public addresses only.
//!
//! The check is part of making the connection, which then goes to a checked address. A name that resolves
//! to another address the second time gains nothing.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::address::{ONLY_PUBLIC, not_public};

/// Resolves names, and refuses those with a non-public address.
#[derive(Debug)]
pub struct Public;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            all_public(name.as_str(), found).map(|it| Box::new(it.into_iter()) as Addrs).map_err(Into::into)
        })
    }
}

/// A name with a non-public address.
#[derive(Debug, thiserror::Error)]
#[error("{name} resolves to {address}, {why}: {ONLY_PUBLIC}")]
struct LeadsInside {
    name: String,
    address: IpAddr,
    why: &'static str,
}

/// Refuses a name with even one non-public address: the client may try any of its addresses.
fn all_public(name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, LeadsInside> {
    for address in &found {
        if let Some(why) = not_public(address.ip()) {
            return Err(LeadsInside { name: name.to_owned(), address: address.ip(), why });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_inside_spoils_a_name() {
        let of = |list: &[&str]| {
            all_public("hooks.example", list.iter().map(|it| format!("{it}:0").parse().unwrap()).collect())
        };
        assert_eq!(of(&["1.1.1.1", "[2606:4700::1]"]).unwrap().len(), 2);
        let refused = of(&["1.1.1.1", "10.0.0.8"]).unwrap_err().to_string();
        assert!(refused.starts_with("hooks.example resolves to 10.0.0.8, a private address"), "{refused}");
    }
}
