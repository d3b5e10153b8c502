//! Deliveries of a forger, or of a sender that is set up badly, in place of a genuine one.

use serde::Deserialize;

/// One reason for which a receiver must refuse a delivery. Not every sender has every reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Forge {
    /// The signature has one wrong bit; where a shared secret is sent, another one is sent.
    Signature,
    /// Neither signature, token nor secret is sent.
    Unsigned,
    /// Signed by a key that is not the sender's, under the sender's name for its own.
    Stranger,
    /// A token whose algorithm is `none`.
    AlgNone,
    /// A token signed with the public key as a shared secret.
    Hs256,
    /// A token that names an unknown key.
    Kid,
    /// A genuine token for another audience.
    Audience,
    /// A genuine token of another issuer (Entra: of another tenant).
    Issuer,
    /// Genuine, but expired; a notification is two hours old.
    Expired,
    /// Genuine, but not valid yet.
    Early,
    /// Signed by the sender's key, and valid for a year.
    Lasting,
    /// A genuine token of another application of the same tenant.
    AppId,
    /// A genuine token of another service account.
    Email,
    /// A genuine token whose mail address is not verified.
    EmailUnverified,
    /// A genuine notification of another topic.
    Topic,
    /// Signed by the sender's key, with an expired certificate.
    Certificate,
}
