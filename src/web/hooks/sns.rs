//! Amazon SNS over HTTP: the signature inside the body, the listed topics, and the confirmation.
//!
//! A valid signature proves only that *some* topic of SNS sent this, and anyone can own one. So the topic
//! is compared before anything is fetched. The certificate and the confirmation are fetched from hosts of
//! SNS in the topic's own region, or from a host in `cert_hosts`, without following a redirect. Signature
//! version 1 is SHA-1 and refused. The certificate is trusted because TLS authenticates its host, as in
//! AWS' own validators; `trust_roots_file` demands a chain in addition.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::Value;
use url::Url;
use x509_cert::Certificate;
use x509_cert::der::Encode;

use super::super::fetch::Fetcher;
use super::{HookReply, Received, Refusal, aws, json, verification};
use crate::domain::time::Timestamp;

/// How old a message may be: SNS tries again for an hour at most.
const OLDEST: Duration = Duration::from_secs(3600);
/// How far a clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(300);
/// The longest body that is fetched; a certificate has a few kilobytes.
const CERTIFICATE_LIMIT: usize = 64 * 1024;
/// Fetches of certificates in a burst; then one a second.
const FETCHES_AT_ONCE: u32 = 16;
/// Certificates that are kept; SNS has a handful.
const MOST_CERTIFICATES: usize = 16;

/// Why a file holds no trusted roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It cannot be parsed.
    #[error("{0}")]
    Unreadable(#[from] x509_cert::der::Error),
    /// It holds no certificate.
    #[error("the file holds no certificate")]
    None,
}

/// The settings and the fetched certificates of one hook of this kind.
#[derive(Debug)]
pub(super) struct Sns {
    topics: Vec<String>,
    cert_hosts: Vec<String>,
    roots: Vec<Vec<u8>>,
    certificates: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    fetches: DefaultDirectRateLimiter,
}

impl Sns {
    /// # Errors
    /// When the trusted roots cannot be read, or there is no certificate among them.
    pub(super) fn new(
        topics: Vec<String>,
        cert_hosts: Vec<String>,
        roots_pem: Option<&[u8]>,
    ) -> Result<Self, RootsError> {
        let roots = match roots_pem {
            None => Vec::new(),
            Some(pem) => {
                let chain = Certificate::load_pem_chain(pem)?;
                chain.iter().map(Encode::to_der).collect::<Result<Vec<_>, _>>()?
            }
        };
        let burst = NonZeroU32::new(FETCHES_AT_ONCE).unwrap_or(NonZeroU32::MIN);
        if roots_pem.is_some() && roots.is_empty() {
            return Err(RootsError::None);
        }
        Ok(Self {
            topics,
            cert_hosts,
            roots,
            certificates: Mutex::default(),
            fetches: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(burst)),
        })
    }

    /// Verifies and reads one message; confirms a subscription to a listed topic.
    pub(super) async fn receive(
        &self,
        fetcher: &Fetcher,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<HookReply, Refusal> {
        if verification::header(headers, "x-amz-sns-rawdelivery")
            .is_some_and(|it| it.eq_ignore_ascii_case("true"))
        {
            // Without its envelope a message has no signature.
            return Err(Refusal::unknown("raw-delivery"));
        }
        let message = Message::read(body)?;
        if !self.topics.iter().any(|topic| topic == message.topic()) {
            return Err(Refusal::unknown("topic-not-listed"));
        }
        message.check_time(now)?;
        let signature = message.signature()?;
        let key = self.key(fetcher, &message, now).await?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.as_slice())
            .verify(message.signed_text().as_bytes(), &signature)
            .map_err(|_| Refusal::unknown("wrong-signature"))?;
        match message.text("Type") {
            EVENT => Ok(HookReply::Events(vec![message.event()?])),
            ASKS => {
                self.confirm(fetcher, &message).await?;
                Ok(HookReply::Done(StatusCode::OK.into_response()))
            }
            // The subscription was ended at SNS. The link in the message restores it, which would undo that
            // decision, so it is not followed.
            _ => {
                tracing::warn!(
                    topic = message.topic(),
                    "subscription ended at Amazon SNS; no more events of this topic arrive"
                );
                Ok(HookReply::Done(StatusCode::OK.into_response()))
            }
        }
    }

    /// The signing key, from the certificate that the message names.
    async fn key(
        &self,
        fetcher: &Fetcher,
        message: &Message,
        now: Timestamp,
    ) -> Result<Arc<Vec<u8>>, Refusal> {
        let url = self.own_url(message, message.address("SigningCertURL", "SigningCertUrl")?)?;
        if !is_certificate(&url) || url.query().is_some() {
            return Err(Refusal::unknown("wrong-certificate"));
        }
        let known = self.lock().get(url.as_str()).cloned();
        let pem = if let Some(pem) = known {
            pem
        } else {
            // Anyone who has the topic's name can cause a fetch, so fetches are limited.
            self.fetches.check().map_err(|_| Refusal::Unavailable("certificate-not-fetched"))?;
            let pem = fetcher.get(url.as_str(), CERTIFICATE_LIMIT).await.map_err(|why| {
                tracing::warn!("certificate of Amazon SNS not fetched: {why}");
                Refusal::Unavailable("certificate-not-fetched")
            })?;
            Arc::new(pem)
        };
        let key = self.check(&pem, now).ok_or(Refusal::unknown("wrong-certificate"))?;
        let mut all = self.lock();
        if all.len() >= MOST_CERTIFICATES {
            all.clear();
        }
        all.insert(url.to_string(), pem);
        Ok(Arc::new(key))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The public key of the first certificate, when it is in force and, where roots are configured, a chain
    /// leads to one of them.
    pub(super) fn check(&self, pem: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        let chain = Certificate::load_pem_chain(pem).ok()?;
        let (own, between) = chain.split_first()?;
        let at = u64::try_from(now.as_micros() / 1_000_000).ok()?;
        let validity = own.tbs_certificate().validity();
        let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        if at < from.as_secs() || at > to.as_secs() {
            return None;
        }
        if !self.roots.is_empty() && !vouched(own, between, &self.roots, at) {
            return None;
        }
        Some(own.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec())
    }

    /// A URL in the message, when its host is SNS in the topic's region or is listed.
    pub(super) fn own_url(&self, message: &Message, text: &str) -> Result<Url, Refusal> {
        let wrong = Refusal::unknown("wrong-host");
        let url = Url::parse(text).map_err(|_| wrong)?;
        let host = url.host_str().ok_or(wrong)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong);
        }
        let with_port = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if self.cert_hosts.contains(&with_port) {
            let encrypted = url.scheme() == "https";
            let here = host == "127.0.0.1" || host == "localhost" || host == "[::1]";
            return if encrypted || (url.scheme() == "http" && here) { Ok(url) } else { Err(wrong) };
        }
        let region = message.topic().split(':').nth(3).unwrap_or_default();
        let plain = region.len() >= 3
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let hosts = [format!("sns.{region}.amazonaws.com"), format!("sns.{region}.amazonaws.com.cn")];
        let own = plain && hosts.iter().any(|own| own == host);
        if own && url.scheme() == "https" && url.port().is_none() { Ok(url) } else { Err(wrong) }
    }

    /// Fetches the confirmation's URL, when it confirms exactly this topic with exactly this token.
    async fn confirm(&self, fetcher: &Fetcher, message: &Message) -> Result<(), Refusal> {
        let wrong = Refusal::unknown("wrong-confirmation");
        let url = self.own_url(message, message.address("SubscribeURL", "SubscribeUrl")?)?;
        let parameter =
            |name: &str| url.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned());
        let token = message.text("Token");
        let right = !token.is_empty()
            && parameter("Action").as_deref() == Some("ConfirmSubscription")
            && parameter("TopicArn").as_deref() == Some(message.topic())
            && parameter("Token").as_deref() == Some(token);
        if !right {
            return Err(wrong);
        }
        fetcher.get(url.as_str(), CERTIFICATE_LIMIT).await.map_err(|why| {
            tracing::warn!("subscription to {} not confirmed: {why}", message.topic());
            Refusal::Unavailable("confirmation-failed")
        })?;
        tracing::info!(topic = message.topic(), "subscription at Amazon SNS confirmed");
        Ok(())
    }
}

/// Whether the URL has the form of SNS' certificates. At a host that is not of AWS, any PEM file will do.
pub(super) fn is_certificate(url: &Url) -> bool {
    let name = url.path().trim_start_matches('/');
    let digits = name.strip_prefix("SimpleNotificationService-").and_then(|rest| rest.strip_suffix(".pem"));
    let of_sns = digits.is_some_and(|it| it.len() == 32 && it.bytes().all(|b| b.is_ascii_hexdigit()));
    let at_aws = url.host_str().is_some_and(|host| host.contains(".amazonaws.com"));
    of_sns || (!at_aws && Path::new(name).extension().is_some_and(|it| it == "pem"))
}

/// Whether a chain leads from `own` over the certificates `between` to one of `roots`.
fn vouched(own: &Certificate, between: &[Certificate], roots: &[Vec<u8>], at: u64) -> bool {
    use rustls::pki_types::{CertificateDer, UnixTime};
    let der = |one: &Certificate| one.to_der().ok().map(CertificateDer::from);
    let (Some(own), between) = (der(own), between.iter().filter_map(der).collect::<Vec<_>>()) else {
        return false;
    };
    let roots: Vec<CertificateDer<'_>> =
        roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Vec<_> =
        roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    let Ok(own) = webpki::EndEntityCert::try_from(&own) else { return false };
    let usage = webpki::KeyUsage::server_auth();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
    own.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &between, time, usage, None, None).is_ok()
}

/// A message whose signature is not verified yet: the members that are read, and nothing else of the body.
pub(super) struct Message(pub(super) BTreeMap<&'static str, String>);

/// Every member that is read.
const MEMBERS: [&str; 13] = [
    "Message",
    "MessageId",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "SigningCertUrl",
    "Subject",
    "SubscribeURL",
    "SubscribeUrl",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// The signed members of a notification, in this order.
const NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
/// The signed members of the two other types, in this order.
const CONFIRMATION: [&str; 7] =
    ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// The type of a message that carries an event.
const EVENT: &str = "Notification";
/// The type of a message that requests consent to a subscription.
const ASKS: &str = "SubscriptionConfirmation";

impl Message {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let Value::Object(mut whole) = json(body)? else {
            return Err(Refusal::malformed("the body is not a message of SNS"));
        };
        let text = |name: &'static str| match whole.remove(name) {
            Some(Value::String(text)) => Some((name, text)),
            _ => None,
        };
        let message = Self(MEMBERS.into_iter().filter_map(text).collect());
        if ![EVENT, ASKS, "UnsubscribeConfirmation"].contains(&message.text("Type")) {
            return Err(Refusal::malformed(
                "Type is not one of Notification, SubscriptionConfirmation, UnsubscribeConfirmation",
            ));
        }
        // Only line ends separate the fields of the signed text: with one inside a field, two messages would
        // share a signed text. SNS allows none in a subject.
        let plain = ["MessageId", "Subject", "Timestamp", "Token", "SubscribeURL", "TopicArn"];
        if plain.iter().any(|name| message.text(name).chars().any(char::is_control)) {
            return Err(Refusal::unknown("wrong-signature"));
        }
        Ok(message)
    }

    /// A member's text; empty when it is absent.
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn topic(&self) -> &str {
        self.text("TopicArn")
    }

    /// A URL under either spelling of its name.
    pub(super) fn address(&self, name: &str, other: &str) -> Result<&str, Refusal> {
        let found = self.0.get(name).or_else(|| self.0.get(other));
        found.map(String::as_str).ok_or(Refusal::unknown("no-signature"))
    }

    pub(super) fn check_time(&self, now: Timestamp) -> Result<(), Refusal> {
        let at: Timestamp = self.text("Timestamp").parse().map_err(|_| Refusal::unknown("old-timestamp"))?;
        if now.since(at) > OLDEST || now.until(at) > AHEAD {
            return Err(Refusal::unknown("old-timestamp"));
        }
        Ok(())
    }

    pub(super) fn signature(&self) -> Result<Vec<u8>, Refusal> {
        if self.text("SignatureVersion") != "2" {
            return Err(Refusal::unknown("signature-version"));
        }
        STANDARD.decode(self.text("Signature")).map_err(|_| Refusal::unknown("wrong-signature"))
    }

    /// Each signed member's name and text, each on a line.
    pub(super) fn signed_text(&self) -> String {
        let names: &[&str] = if self.text("Type") == EVENT { &NOTIFICATION } else { &CONFIRMATION };
        let there = names.iter().filter(|name| self.0.contains_key(*name));
        there.flat_map(|name| [*name, "\n", self.text(name), "\n"]).collect()
    }

    /// The event inside. A message of another publisher to the topic has no hint.
    pub(super) fn event(&self) -> Result<Received, Refusal> {
        let id = self.text("MessageId");
        if id.is_empty() {
            return Err(Refusal::malformed("MessageId is missing"));
        }
        let inner = serde_json::from_str(self.text("Message")).ok().and_then(|event| aws::read(&event).ok());
        Ok(inner.unwrap_or_else(|| Received { id: id.to_owned(), hint: None }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signed_text_says_one_message() {
        let read = |message: &str, id: &str, subject: Option<&str>| {
            let mut body = json!({ "Type": EVENT, "Message": message, "MessageId": id, "TopicArn": "arn" });
            if let Some(subject) = subject {
                body["Subject"] = json!(subject);
            }
            Message::read(body.to_string().as_bytes())
        };
        let sent = read("a\nMessageId\n1\nSubject\nx", "2", None).unwrap();
        let text = sent.signed_text();
        // Line ends inside the other members would give the same text.
        assert!(text.starts_with("Message\na\nMessageId\n1\nSubject\nx\nMessageId\n2\n"), "{text}");
        assert!(read("a", "1", Some("x\nMessageId\n2")).is_err());
        assert!(read("a", "1\nSubject\nx\nMessageId\n2", None).is_err());
        assert_eq!(read("a", "1", Some("x")).unwrap().event().unwrap().id, "1");
    }
}
