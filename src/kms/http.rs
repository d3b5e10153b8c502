//! One HTTP round trip to a key service or to where its tokens come from.
//!
//! A trip ends in time, follows no redirect (it would carry the token elsewhere), and never holds
//! more than [`BODY_CAP`] of a body. Headers, bodies and queries are never logged, and no message
//! holds a URL. What a reply means is its caller's business.

use std::time::Duration;

use reqwest::{RequestBuilder, redirect, retry};
use serde_json::Value;
use url::{Host, Url};

use super::error::{KmsError, root_cause};

/// The longest body that is read, in bytes after decompression.
const BODY_CAP: usize = 1024 * 1024;

/// A client for one kind of host.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
}

/// A reply with its status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A client for `base` and what lies below; `None` for whatever https host a key names.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(base: Option<&Url>, timeout: Duration) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("keywheel/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .connect_timeout(timeout)
            .read_timeout(timeout)
            .timeout(timeout);
        // This machine and its metadata service are never asked through a proxy.
        if base.and_then(Url::host).is_some_and(|host| is_here(&host)) {
            builder = builder.no_proxy();
        }
        if base.is_some_and(|base| base.scheme() == "http") {
            // Without TLS (a simulator), an image without CA certificates must do.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| {
            format!(
                "the HTTPS client cannot be built ({}): if no CA certificates were found, install the system's ca-certificates package",
                root_cause(&error)
            )
        })?;
        Ok(Self { client })
    }

    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.client.get(url)
    }

    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.client.post(url)
    }
}

/// Whether a host is this machine, or on its own link.
fn is_here(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        Host::Ipv4(ip) => ip.is_loopback() || ip.is_link_local(),
        Host::Ipv6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| is_here(&Host::Ipv4(ip))),
    }
}

/// Sends a request and takes the whole reply in.
///
/// # Errors
/// `Unreachable` without a reply, `Broken` for one that cannot be taken in.
pub(super) async fn send(request: RequestBuilder, service: &str) -> Result<Reply, KmsError> {
    let mut response = request.send().await.map_err(|error| unreachable(&error.without_url(), service))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| unreachable(&error.without_url(), service))?
    {
        if body.len() + chunk.len() > BODY_CAP {
            return Err(KmsError::broken(format!("the reply of {service} is larger than 1 MiB")));
        }
        body.extend_from_slice(&chunk);
    }
    if (300..400).contains(&status) {
        return Err(KmsError::broken(format!(
            "{service} answered {status}, a redirect, which is not followed"
        )));
    }
    Ok(Reply { status, body })
}

fn unreachable(error: &reqwest::Error, service: &str) -> KmsError {
    if error.is_builder() {
        return KmsError::broken(format!("the request to {service} could not be put together"));
    }
    let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
    KmsError::unreachable(format!("{service} {what}: {}", root_cause(error)))
}

impl Reply {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The same without a text that nobody may read, should the service have sent it back: before
    /// anything of it is cut or quoted.
    pub(super) fn without(self, secret: &str) -> Self {
        fn mask(value: &mut Value, secret: &str) {
            match value {
                Value::String(text) if text.contains(secret) => *text = text.replace(secret, "***"),
                Value::Array(items) => items.iter_mut().for_each(|item| mask(item, secret)),
                Value::Object(fields) => fields.values_mut().for_each(|field| mask(field, secret)),
                _ => {}
            }
        }
        let mut body = self.json();
        if !secret.is_empty() {
            mask(&mut body, secret);
        }
        Self { status: self.status, body: body.to_string().into_bytes() }
    }

    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON object of a successful reply.
    pub(super) fn object(&self, service: &str) -> Result<Value, KmsError> {
        match self.json() {
            body @ Value::Object(_) => Ok(body),
            _ => Err(KmsError::broken(format!("the reply of {service} is no JSON object"))),
        }
    }
}

/// `base` with more path segments, each escaped as needed; its query is kept.
pub(super) fn below<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_link_are_here() {
        let here = |url: &str| is_here(&Url::parse(url).unwrap().host().unwrap());
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
            assert!(here(url), "{url}");
        }
        for url in
            ["https://127.0.0.1.example", "https://localhost.example", "https://10.0.0.1", "https://[::2]"]
        {
            assert!(!here(url), "{url}");
        }
    }

    #[test]
    fn a_secret_is_masked_before_a_text_is_cut() {
        let secret = "canary".repeat(50);
        let body = serde_json::json!({ "error": { "message": format!("{}{secret}", "x".repeat(1900)) } });
        let reply = Reply { status: 400, body: body.to_string().into_bytes() }.without(&secret);
        let error = KmsError::broken(reply.json()["error"]["message"].as_str().unwrap());
        assert!(error.message.ends_with("x***"), "{error}");
    }
}
