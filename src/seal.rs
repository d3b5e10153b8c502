//! The installation key, and what is derived from it: seals of audit rows, signatures, other keys by purpose.
//!
//! The key is 32 random bytes in a file that only the daemon's user may read. It is never in the database, so that
//! who writes the database can make no seal. Cookies that carry state through a browser are encrypted with it. One key for each purpose is derived from it (HKDF-SHA-256): what is
//! learnt about one of them says nothing about another. Nothing here reads or writes the database.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};

/// The purposes of derived keys. Applied names never change: what was sealed under one could not be checked.
const SEALS: &[u8] = b"keywheel/1/seals";
const SIGNATURES: &[u8] = b"keywheel/1/signatures";
const LINKS: &[u8] = b"keywheel/1/links";
const COOKIES: &[u8] = b"keywheel/1/cookies";

/// Bytes of the key.
const LENGTH: usize = 32;

/// The first word of the file, so that another secret in its place is noticed.
const KIND: &str = "keywheel-installation-key";

/// Why the installation key cannot be used. Each says the way out, and none the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error(
        "server.key_file: there is no {}; put the file of this installation's key there, or, when it is lost, run `keywheel key replace`",
        .0.display()
    )]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error("server.key_file: {} cannot be {doing} ({source}); make it and its folder accessible to this user only", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Others than owner and group may read or write the file.
    #[error(
        "server.key_file: others may read or write {} (mode {mode:03o}); anyone who reads it can approve in everybody's name: run `chmod o-rwx {}`",
        file.display(), file.display()
    )]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "server.key_file: {} holds no installation key ({found}); it takes the line `{KIND} ` and 64 hexadecimal digits: restore it from the place where its copy is kept",
        file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// The file exists, and a new key was to be made.
    #[error("server.key_file: {} exists already, and is left as it is", .0.display())]
    Exists(PathBuf),
    /// The system gives no random bytes, or its cryptography is switched off.
    #[error("no key can be made from the random bytes of this system")]
    Random,
}

/// The key of an installation. `Debug` shows its fingerprint.
#[derive(Clone)]
pub struct InstallationKey {
    bytes: [u8; LENGTH],
    sealer: Sealer,
    links: hmac::Key,
    signing: Arc<Ed25519KeyPair>,
    cookies: Arc<RandomizedNonceKey>,
}

impl fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstallationKey({})", self.fingerprint())
    }
}

impl InstallationKey {
    /// A fresh key.
    ///
    /// # Errors
    /// Fails when the system gives no random bytes.
    pub fn random() -> Result<Self, KeyFileError> {
        let mut bytes = [0; LENGTH];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyFileError::Random)?;
        Self::of(bytes)
    }

    /// The key of these bytes.
    ///
    /// # Errors
    /// Fails when the system's cryptography refuses to derive keys from it.
    pub fn of(bytes: [u8; LENGTH]) -> Result<Self, KeyFileError> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"keywheel").extract(&bytes);
        let derived = |purpose: &[u8]| {
            let mut key = [0; LENGTH];
            let expanded = extracted.expand(&[purpose], hkdf::HKDF_SHA256).and_then(|it| it.fill(&mut key));
            expanded.map(|()| key).map_err(|_| KeyFileError::Random)
        };
        let sealer = Sealer(hmac::Key::new(hmac::HMAC_SHA256, &derived(SEALS)?));
        let links = hmac::Key::new(hmac::HMAC_SHA256, &derived(LINKS)?);
        let signing = Ed25519KeyPair::from_seed_unchecked(&derived(SIGNATURES)?);
        let cookies = RandomizedNonceKey::new(&AES_256_GCM, &derived(COOKIES)?);
        Ok(Self {
            bytes,
            sealer,
            links,
            signing: Arc::new(signing.map_err(|_| KeyFileError::Random)?),
            cookies: Arc::new(cookies.map_err(|_| KeyFileError::Random)?),
        })
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// [`KeyFileError`] names the file, the rule and the way out.
    pub fn read(file: &Path) -> Result<Self, KeyFileError> {
        let fault = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing(file.to_owned()),
            _ => KeyFileError::Io { file: file.to_owned(), doing: "read", source },
        };
        let mode = fs::metadata(file).map_err(fault)?.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(KeyFileError::Exposed { file: file.to_owned(), mode });
        }
        let text = fs::read_to_string(file).map_err(fault)?;
        let bad = |found| KeyFileError::Unreadable { file: file.to_owned(), found };
        let text = text.trim();
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let digits = text.strip_prefix(KIND).ok_or_else(|| bad("it does not begin with that word"))?.trim();
        if digits.len() < 2 * LENGTH {
            return Err(bad("it is too short"));
        }
        let bytes = hex::decode(digits).map_err(|_| bad("its digits cannot be read"))?;
        Self::of(bytes.try_into().map_err(|_| bad("it is too long"))?)
    }

    /// Writes the key to a file that does not exist yet, readable by this user alone.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`], or the reason why it cannot be written.
    pub fn create(&self, file: &Path) -> Result<(), KeyFileError> {
        let fault = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists(file.to_owned()),
            _ => KeyFileError::Io { file: file.to_owned(), doing: "written", source },
        };
        let mut fresh =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(fault)?;
        writeln!(fresh, "{KIND} {}", hex::encode(self.bytes))
            .and_then(|()| fresh.sync_all())
            .map_err(fault)?;
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|it| it.sync_all()).map_err(fault)
    }

    /// What distinguishes this key from others without showing it: the first 32 hexadecimal digits of the SHA-256 of
    /// the public key of its signatures.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.public_key())
    }

    /// What seals audit rows.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        self.sealer.clone()
    }

    /// What proves that a link with these contents was made here.
    #[must_use]
    pub fn link_proof(&self, contents: &[u8]) -> Vec<u8> {
        hmac::sign(&self.links, contents).as_ref().to_vec()
    }

    /// Whether `proof` is that of `contents`.
    #[must_use]
    pub fn is_link_proof(&self, contents: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.links, contents, proof).is_ok()
    }

    /// The public half of the key that signs, as Ed25519 writes it.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.signing.public_key().as_ref()
    }

    /// The Ed25519 signature of `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }
}

/// Bytes of the nonce before an encrypted cookie.
const NONCE: usize = 12;

impl InstallationKey {
    /// Encrypts what a browser is to keep for this server, as the value of a cookie; `None` without random bytes.
    /// `purpose` is what it is for: it opens for no other.
    #[must_use]
    pub fn close(&self, purpose: &str, text: &str) -> Option<String> {
        let mut sealed = text.as_bytes().to_vec();
        let nonce = self.cookies.seal_in_place_append_tag(Aad::from(purpose), &mut sealed).ok()?;
        Some(BASE64.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// What [`InstallationKey::close`] has encrypted for this purpose.
    #[must_use]
    pub fn open(&self, purpose: &str, cookie: &str) -> Option<String> {
        let mut bytes = BASE64.decode(cookie).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.cookies.open_in_place(nonce, Aad::from(purpose), sealed).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// The fingerprint of a public key.
#[must_use]
pub fn fingerprint(public_key: &[u8]) -> String {
    hex::encode(&Sha256::digest(public_key)[..16])
}

/// A public key as other programs read it (`SubjectPublicKeyInfo`, DER, RFC 8410).
#[must_use]
pub fn spki(public_key: &[u8]) -> Vec<u8> {
    [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", public_key].concat()
}

/// Whether `signature` is that of `message` by the installation key with this public half.
#[must_use]
pub fn is_signed(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

/// What the key before signs about the next one: `keywheel key rotate` writes it into the audit log.
#[must_use]
pub fn succession(next_public_key: &[u8]) -> Vec<u8> {
    [b"keywheel installation key\n", next_public_key].concat()
}

/// Makes and checks the seals of audit rows.
#[derive(Clone)]
pub struct Sealer(hmac::Key);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// The seal of an audit row, by its hash, which covers its number, its content and the row before it.
    #[must_use]
    pub fn seal(&self, hash: &str) -> String {
        BASE64.encode(hmac::sign(&self.0, &message(hash)))
    }

    /// Whether `seal` is the one that this key makes.
    #[must_use]
    pub fn fits(&self, hash: &str, seal: &str) -> bool {
        BASE64.decode(seal).is_ok_and(|seal| hmac::verify(&self.0, &message(hash), &seal).is_ok())
    }
}

fn message(hash: &str) -> Vec<u8> {
    [b"keywheel audit row\n".as_slice(), hash.as_bytes()].concat()
}

/// What a row that authorises says, in 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `fields` about `subject`. The subject and every field are preceded by their length, and an
    /// absent field differs from an empty one, so that no two rows share their bytes.
    #[must_use]
    pub fn of(subject: &str, fields: &[Option<&str>]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"keywheel row\n");
        for field in [Some(subject)].iter().chain(fields) {
            match field {
                None => hash.update([0]),
                Some(text) => {
                    hash.update([1]);
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text.as_bytes());
                }
            }
        }
        Self(hash.finalize().into())
    }

    /// The digest that [`Digest`] shows as this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(BASE64.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("installation.key");
        let key = InstallationKey::random().unwrap();
        key.create(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let read = InstallationKey::read(&file).unwrap();
        assert_eq!(read.fingerprint(), key.fingerprint());
        assert!(!format!("{read:?}").contains(&hex::encode(key.bytes)));
        assert!(matches!(key.create(&file), Err(KeyFileError::Exists(_))));
    }

    #[test]
    fn a_file_that_is_no_key_or_that_others_read_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("installation.key");
        let read = || InstallationKey::read(&file).unwrap_err().to_string();
        assert!(read().contains("keywheel key replace"), "{}", read());
        for (text, found) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("hunter2", "it does not begin with that word"),
            ("keywheel-installation-key 00ff", "it is too short"),
            (&format!("keywheel-installation-key {}", "zz".repeat(32)), "its digits cannot be read"),
            (&format!("keywheel-installation-key {}", "00".repeat(33)), "it is too long"),
        ] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(read().contains(found), "{text}: {}", read());
        }
        for mode in [0o604, 0o602, 0o644] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read().contains("chmod o-rwx"), "{}", read());
        }
    }

    #[test]
    fn seals_fit_one_row_and_one_key_only() {
        let [one, two] = [1, 2].map(|byte| InstallationKey::of([byte; 32]).unwrap().sealer());
        let seal = one.seal("abc");
        assert!(one.fits("abc", &seal));
        assert!(!one.fits("abd", &seal) && !two.fits("abc", &seal) && !one.fits("abc", ""));
    }

    #[test]
    fn a_cookie_opens_for_its_purpose_and_its_installation_alone() {
        let [one, two] = [1, 2].map(|byte| InstallationKey::of([byte; 32]).unwrap());
        let cookie = one.close("signing in", "state").unwrap();
        assert_eq!(one.open("signing in", &cookie).as_deref(), Some("state"));
        assert_ne!(one.close("signing in", "state").unwrap(), cookie, "each has a nonce of its own");
        assert_eq!(one.open("another purpose", &cookie), None);
        assert_eq!(two.open("signing in", &cookie), None);
        let (mut changed, last) = (cookie.clone().into_bytes(), cookie.len() - 3);
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        for bad in [std::str::from_utf8(&changed).unwrap(), "", "AAAA", "\u{fc}", &cookie[..20]] {
            assert_eq!(one.open("signing in", bad), None, "{bad}");
        }
    }

    #[test]
    fn no_two_rows_share_a_digest() {
        let rows = [
            Digest::of("a", &[Some("b"), Some("c")]),
            Digest::of("a", &[Some("bc"), None]),
            Digest::of("a", &[Some("bc"), Some("")]),
            Digest::of("ab", &[Some("c")]),
            Digest::of("a", &[Some("b")]),
        ];
        for (number, row) in rows.iter().enumerate() {
            assert!(rows[number + 1..].iter().all(|other| other != row));
            assert_eq!(Digest::parse(&row.to_string()), Some(*row));
        }
    }
}
