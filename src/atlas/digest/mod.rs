//! HTTP Digest login with an API key (RFC 7616, and RFC 2069 where a server offers no `qop`).
//!
//! A server names a nonce with a 401; the response proves possession of the private key without sending
//! it. An accepted nonce is reused: the next request carries it at once, with the next count, so that most
//! calls take one round trip. A nonce from a 401 first belongs only to the call that got it, and is shared
//! once it was accepted, because a server may refuse counts that arrive out of order. No count is ever
//! used twice with one nonce, also when the nonce is offered again.
//!
//! Supported are MD5 and SHA-256, each also as `-sess`, with `qop=auth`. `auth-int` and `userhash` are not
//! supported. The server's `rspauth` is not checked, because TLS has authenticated the server. `auth` does
//! the sending and decides how often. Neither the private key nor a hash of it is kept beyond a call, and
//! no type here can print one.

mod challenge;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use md5::Md5;
use reqwest::Method;
use reqwest::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::response::AtlasResponse;
use crate::secret::Secret;
use challenge::Challenge;
pub(super) use challenge::Unanswerable;

/// The number of nonces whose counts are kept: more than a server can offer to the calls that are under
/// way at the same time.
const REMEMBERED: usize = 256;

/// The hash algorithm of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Algorithm {
    hash: Hash,
    /// Whether the nonce pair goes into the first hash (`-sess`).
    session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
}

impl Algorithm {
    /// The default of a challenge that names none.
    const MD5: Self = Self { hash: Hash::Md5, session: false };
    const KNOWN: [Self; 4] = [
        Self::MD5,
        Self { hash: Hash::Md5, session: true },
        Self { hash: Hash::Sha256, session: false },
        Self { hash: Hash::Sha256, session: true },
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }

    fn name(self) -> &'static str {
        match (self.hash, self.session) {
            (Hash::Md5, false) => "MD5",
            (Hash::Md5, true) => "MD5-sess",
            (Hash::Sha256, false) => "SHA-256",
            (Hash::Sha256, true) => "SHA-256-sess",
        }
    }

    fn strength(self) -> Hash {
        self.hash
    }

    fn is_session(self) -> bool {
        self.session
    }

    fn hash(self, text: &str) -> String {
        match self.hash {
            Hash::Md5 => hex::encode(Md5::digest(text)),
            Hash::Sha256 => hex::encode(Sha256::digest(text)),
        }
    }
}

/// One nonce and its count of uses.
pub(super) struct Session {
    challenge: Challenge,
    /// One per nonce, so that both readings of `-sess` (hash once, hash each time) agree.
    cnonce: String,
    used: AtomicU64,
}

impl Session {
    fn new(challenge: Challenge, cnonce: String) -> Self {
        Self { challenge, cnonce, used: AtomicU64::new(0) }
    }

    /// Whether `other` offers the same nonce.
    fn is(&self, other: &Challenge) -> bool {
        self.challenge.nonce == other.nonce
            && self.challenge.realm == other.realm
            && self.challenge.algorithm == other.algorithm
            && self.challenge.opaque == other.opaque
    }
}

/// The challenge of a 401.
pub(super) struct Challenged {
    pub(super) session: Arc<Session>,
    /// Whether only the previous nonce was wrong.
    pub(super) stale: bool,
}

/// An API key and the nonces it has. No `Debug`.
pub(super) struct ApiKey {
    public_key: String,
    private_key: Secret,
    nonces: Mutex<Nonces>,
}

#[derive(Default)]
struct Nonces {
    /// The nonce of the next request: the last that was accepted.
    current: Option<Arc<Session>>,
    /// The recent nonces, the newest last: the count of a nonce that is offered again continues.
    known: VecDeque<Arc<Session>>,
}

impl ApiKey {
    pub(super) fn new(public_key: String, private_key: Secret) -> Self {
        Self { public_key, private_key, nonces: Mutex::default() }
    }

    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The nonce for a request without a challenge.
    pub(super) fn current(&self) -> Option<Arc<Session>> {
        self.lock().current.clone()
    }

    /// Reads the challenge of a 401.
    ///
    /// # Errors
    /// Fails when it cannot be answered.
    pub(super) fn challenged(&self, answer: &AtlasResponse) -> Result<Challenged, Unanswerable> {
        let challenge = challenge::choose(&answer.challenges)?;
        let stale = challenge.stale;
        Ok(Challenged { session: self.session(challenge)?, stale })
    }

    /// Shares a nonce that was accepted, or the one that the server named to follow it.
    pub(super) fn accepted(&self, session: &Arc<Session>, answer: &AtlasResponse) {
        // The RFC leaves open which nonce the first hash of a `-sess` uses after `nextnonce`, so it is
        // ignored there. A server that expects it answers with `stale`.
        let next = answer
            .authentication_info
            .as_deref()
            .filter(|_| !session.challenge.algorithm.is_session())
            .and_then(challenge::next_nonce)
            .map(|nonce| Challenge { nonce, ..session.challenge.clone() })
            .and_then(|next| self.session(next).ok());
        self.lock().current = Some(next.unwrap_or_else(|| Arc::clone(session)));
    }

    /// Stops sharing a nonce that was refused, unless another has replaced it meanwhile.
    pub(super) fn refused(&self, session: &Arc<Session>) {
        let mut nonces = self.lock();
        if nonces.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            nonces.current = None;
        }
    }

    /// The `Authorization` of one request; each call uses up a count.
    ///
    /// # Errors
    /// Fails when the public key or the challenge holds a character that no header may.
    pub(super) fn authorization(
        &self,
        session: &Session,
        method: &Method,
        uri: &str,
    ) -> Result<HeaderValue, Unanswerable> {
        let count = session.used.fetch_add(1, Ordering::Relaxed) + 1;
        let text = self.proof(session, count, method, uri);
        let mut header = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Unanswerable::NoHeader)?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn proof(&self, session: &Session, count: u64, method: &Method, uri: &str) -> String {
        let Session { challenge, cnonce, .. } = session;
        let Challenge { realm, nonce, opaque, algorithm, .. } = challenge;
        let hash = |text: String| algorithm.hash(&text);
        let mut a1 = hash(format!("{}:{realm}:{}", self.public_key, self.private_key.expose()));
        if algorithm.is_session() {
            a1 = hash(format!("{a1}:{nonce}:{cnonce}"));
        }
        let a2 = hash(format!("{method}:{uri}"));
        let response = if challenge.has_qop {
            hash(format!("{a1}:{nonce}:{count:08x}:{cnonce}:auth:{a2}"))
        } else {
            hash(format!("{a1}:{nonce}:{a2}"))
        };
        let mut header = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quoted(&self.public_key),
            quoted(realm),
            quoted(nonce),
            quoted(uri),
        );
        // Writing to a text cannot fail.
        if challenge.names_algorithm {
            let _ = write!(header, ", algorithm={}", algorithm.name());
        }
        if challenge.has_qop {
            let _ = write!(header, ", qop=auth, nc={count:08x}, cnonce={}", quoted(cnonce));
        }
        if let Some(opaque) = opaque {
            let _ = write!(header, ", opaque={}", quoted(opaque));
        }
        header
    }

    /// The session of a nonce: the known one, or a new one.
    fn session(&self, challenge: Challenge) -> Result<Arc<Session>, Unanswerable> {
        let mut nonces = self.lock();
        if let Some(known) = nonces.known.iter().find(|known| known.is(&challenge)) {
            return Ok(Arc::clone(known));
        }
        let mut bits = [0u8; 16];
        rand::fill(&mut bits).map_err(|_| Unanswerable::NoRandom)?;
        let session = Arc::new(Session::new(challenge, hex::encode(bits)));
        if nonces.known.len() == REMEMBERED {
            nonces.known.pop_front();
        }
        nonces.known.push_back(Arc::clone(&session));
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A quoted string, as in headers.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
