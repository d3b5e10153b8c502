//! What a forger, or a sender that is set up badly, sends in place of the genuine proof.

use serde::Deserialize;

/// One way in which a delivery does not prove what it should. Not every sender has every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Forge {
    /// The proof has one wrong bit; where the proof is a shared secret, another one is sent.
    Signature,
    /// There is no proof.
    Unsigned,
    /// Signed by a key that is not the sender's, under the sender's name for its own.
    Stranger,
    /// A token whose algorithm is `none`.
    AlgNone,
    /// A token signed with the public key as a shared secret.
    Hs256,
    /// A token that names a key nobody knows.
    Kid,
    /// A genuine token for somebody else.
    Audience,
    /// A genuine token of another issuer (Entra: of another tenant).
    Issuer,
    /// Genuine, but its time is over; a notification is two hours old.
    Expired,
    /// Genuine, but its time has not come.
    Early,
    /// A genuine token of another application of the same tenant.
    AppId,
    /// A genuine token of another service account.
    Email,
    /// A genuine token whose mail address nobody verified.
    EmailUnverified,
    /// A genuine notification of somebody else's topic.
    Topic,
    /// Signed by the sender's key, shown with a certificate that is over.
    Certificate,
}
