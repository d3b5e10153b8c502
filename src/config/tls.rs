//! The daemon's own TLS: `[server.tls]`, its certificate chain and its key.
//!
//! Both files are read once, checked against each other and the clock, and become the settings of the
//! handshake, so that nothing else is served than was checked. Each fault names the setting, the rule and
//! the way out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::access::open_to_others;
use super::reader::Reader;
use crate::domain::time::Timestamp;

/// A certificate that ends within this time draws a warning.
const ENDS_SOON: Duration = Duration::from_hours(14 * 24);

/// A certificate and its key, ready for handshakes.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The settings of the handshake: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
    pub handshake: Arc<ServerConfig>,
}

/// A fault of one of the two files: the setting's name, and the message.
type Fault = (&'static str, String);

/// The files as they are named; `None` where neither is.
pub(super) fn check(cert_file: &str, key_file: &str, r: &mut Reader, now: Timestamp) -> Option<Tls> {
    let (cert, key) = (PathBuf::from(cert_file), PathBuf::from(key_file));
    match (cert_file.is_empty(), key_file.is_empty()) {
        (true, true) => return None,
        (false, true) => {
            r.fault(
                "server.tls.key_file",
                "is missing beside cert_file; name the file of the certificate's private key",
            );
            return None;
        }
        (true, false) => {
            r.fault(
                "server.tls.cert_file",
                "is missing beside key_file; name the file of the certificate chain",
            );
            return None;
        }
        (false, false) => {}
    }
    match read(&cert, &key, now) {
        Ok((tls, ends)) => {
            if ends.since(now) < ENDS_SOON {
                r.warnings.push(format!(
                    "server.tls.cert_file: the certificate in {cert_file} ends at {ends}; renew it, then send SIGHUP"
                ));
            }
            Some(tls)
        }
        Err((setting, why)) => {
            r.fault(&format!("server.tls.{setting}"), &why);
            None
        }
    }
}

/// Reads both files; returns the end of the certificate too.
fn read(cert_file: &Path, key_file: &Path, now: Timestamp) -> Result<(Tls, Timestamp), Fault> {
    let (cert, key) = (cert_file.display(), key_file.display());
    let cert_fault = |why: String| ("cert_file", why);
    let key_fault = |why: String| ("key_file", why);
    let chain = std::fs::read(cert_file)
        .map_err(|why| cert_fault(format!("{cert} cannot be read: {why}; name a readable PEM file")))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|why| {
        cert_fault(format!("{cert} is not PEM: {why}; it takes the chain, the server's certificate first"))
    })?;
    let Some(leaf) = chain.first() else {
        return Err(cert_fault(format!(
            "{cert} holds no certificate; it takes the chain as PEM, the server's certificate first"
        )));
    };
    let ends = in_force(leaf, cert_file, now).map_err(cert_fault)?;
    if let Some(why) = open_to_others(key_file) {
        return Err(key_fault(why));
    }
    // The parser's error could quote the key.
    let text = std::fs::read(key_file)
        .map_err(|why| key_fault(format!("{key} cannot be read: {why}; name a readable PEM file")))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        key_fault(format!("{key} holds no private key; it takes one as PEM, without a passphrase"))
    })?;
    let built = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|it| it.with_no_client_auth().with_single_cert(chain, private));
    let mut handshake = built.map_err(|why| match why {
        rustls::Error::InconsistentKeys(_) => key_fault(format!(
            "the key in {key} does not belong to the certificate in {cert}; name the key with which that certificate was requested"
        )),
        rustls::Error::InvalidCertificate(_) => {
            cert_fault(format!("the certificate in {cert} cannot be used: {why}; request a new one"))
        }
        other => key_fault(format!("the key in {key} cannot be used: {other}; use an ECDSA, Ed25519 or RSA key")),
    })?;
    handshake.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Tls { handshake: Arc::new(handshake) }, ends))
}

/// The end of a certificate that is in force now.
fn in_force(leaf: &CertificateDer<'_>, file: &Path, now: Timestamp) -> Result<Timestamp, String> {
    let file = file.display();
    let parsed = Certificate::from_der(leaf).map_err(|why| {
        format!("the first certificate in {file} cannot be parsed: {why}; request a new one")
    })?;
    let validity = parsed.tbs_certificate().validity();
    let at = |time: &x509_cert::time::Time| {
        let micros = time.to_unix_duration().as_micros();
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    };
    let (from, until) = (at(&validity.not_before), at(&validity.not_after));
    if now < from {
        return Err(format!(
            "the certificate in {file} is not valid before {from}; use one that is valid now, and check this machine's clock"
        ));
    }
    if now > until {
        return Err(format!("the certificate in {file} expired at {until}; renew it and name the new file"));
    }
    Ok(until)
}
