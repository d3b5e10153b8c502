//! HTTP clients under the rules that all of them share.
//!
//! A client follows no redirect, because a redirect would carry a credential to a host that no operator
//! configured. It repeats no request, because a repeated PATCH or notice is its caller's decision. It
//! reaches this machine, and every `http://` address, without a proxy. Timeouts differ by caller and are set on the builder.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect, retry};
use url::Url;

use super::cause::root_cause;
use crate::domain::address::{is_loopback, literal_address};

/// A client that could not be built.
#[derive(Debug, thiserror::Error)]
#[error(
    "the HTTPS client cannot be built ({0}): if no CA certificates were found, install the system's ca-certificates package"
)]
pub struct BuildError(String);

/// A client without a name: no redirects and no retries.
pub fn anonymous() -> ClientBuilder {
    Client::builder().redirect(redirect::Policy::none()).retry(retry::never())
}

/// A client that names Keywheel. `base` is the URL that all requests begin with; `None` stands for
/// hosts that are known later.
pub fn builder(base: Option<&Url>, connect_timeout: Duration) -> ClientBuilder {
    let mut builder = anonymous()
        .user_agent(concat!("keywheel/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout);
    let is_plain = base.is_some_and(|base| base.scheme() == "http");
    // Of a plain request, a proxy sees the token.
    if is_plain || base.is_some_and(is_local) {
        builder = builder.no_proxy();
    }
    if is_plain {
        // Plain HTTP (a simulator) needs no CA certificates, and a minimal image has none.
        builder = builder.tls_certs_only([]);
    }
    builder
}

/// Builds the client of a builder.
///
/// # Errors
/// TLS cannot be set up: usually there are no CA certificates.
pub fn build(builder: ClientBuilder) -> Result<Client, BuildError> {
    builder.build().map_err(|error| BuildError(root_cause(&error.without_url())))
}

/// Whether a URL leads to this machine or to its link: a metadata service has a link-local address.
fn is_local(url: &Url) -> bool {
    let on_link = url.host_str().and_then(literal_address).is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(_) => false,
    });
    on_link || is_loopback(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_used_for_this_machine_and_its_link() {
        for url in [
            "http://127.0.0.1",
            "http://127.9.9.9:8080",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://LOCALHOST",
            "http://localhost.",
            "http://169.254.169.254/metadata",
            "http://169.254.130.1:8081/msi/token",
        ] {
            assert!(is_local(&Url::parse(url).unwrap()), "{url}");
        }
        for url in
            ["https://127.0.0.1.example", "https://localhost.example", "https://10.0.0.1", "https://[::2]"]
        {
            assert!(!is_local(&Url::parse(url).unwrap()), "{url}");
        }
    }
}
