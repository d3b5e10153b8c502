//! Errors that wrap other errors: the reason, or all of them in one line.

use std::error::Error;
use std::iter::successors;

use rustls::{CertificateError, OtherError};

/// `error` and its causes, the outermost first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// The innermost cause. It is the error of the operating system or the server; the errors around it only
/// repeat that the call failed.
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// `error` and its causes in one line, joined by colons. A cause that the error before it repeats already is left out.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in causes(error).map(ToString::to_string) {
        if !texts.last().is_some_and(|before| before.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// What a failure of TLS is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The other end does not speak TLS at this port.
    NotTls,
    /// Its certificate is that of a certificate authority, not of a server.
    OwnCa,
    /// Nothing here trusts the issuer of its certificate.
    UnknownIssuer,
    /// Its certificate is for another name.
    WrongName,
    /// Its certificate has expired, or is not valid yet.
    Expired,
    /// Another one.
    Other,
}

/// Which of these faults `error` comes from.
#[must_use]
pub fn tls_fault(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    causes(error).find_map(|cause| {
        // An error of input and output hides what it wraps from `source`, and may wrap another one.
        let mut inner = cause;
        while let Some(next) = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            inner = next;
        }
        let bad = match inner.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidMessage(_) => return Some(TlsFault::NotTls),
            rustls::Error::InvalidCertificate(bad) => bad,
            _ => return Some(TlsFault::Other),
        };
        match bad {
            CertificateError::Other(OtherError(why))
                if matches!(why.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
            {
                Some(TlsFault::OwnCa)
            }
            // Another CA of the same name signs otherwise.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(TlsFault::UnknownIssuer),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some(TlsFault::WrongName)
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Some(TlsFault::Expired),
            _ => Some(TlsFault::Other),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the call failed")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no answer: {0}")]
    struct Twice(#[source] Outer);

    #[test]
    fn the_root_cause_is_the_innermost_one() {
        let error = Outer(std::io::Error::other("connection refused"));
        assert_eq!(root_cause(&error), "connection refused");
        assert_eq!(with_causes(&error), "the call failed: connection refused");
        assert_eq!(root_cause(&std::io::Error::other("alone")), "alone");
        let twice = Twice(Outer(std::io::Error::other("reset")));
        assert_eq!(with_causes(&twice), "no answer: the call failed: reset");
    }
}
