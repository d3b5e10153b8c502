//! Verifies a bundle from its bytes: no database, no network, no clock, and no key but the one that an auditor brings.
//!
//! Every rule has a name, and every fault names its rule, its file and its line. What is left is divided into what was
//! proven, and what only the installation says.

mod chain;
mod contents;
mod rotations;
mod verdict;
mod votes;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::archive::{self, Filed};
use super::manifest::{Manifest, Mark};
use super::signature::{self, TrustedKey, key_id};
use super::{ENVELOPE, FORMAT, Fault, MANIFEST};
use crate::seal::fingerprint;

use chain::Chain;
use contents::Contents;
pub use rotations::changes_rules;

/// A row that must be in the bundle, as it was noted elsewhere.
pub type Expected = Mark;

/// An earlier bundle of the same installation.
pub type Previous<'a> = &'a [u8];

/// The faults that are kept; a bundle with more is no better known.
const MOST_FAULTS: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing was found that does not fit.
    pub verified: bool,
    /// What does not fit.
    pub faults: Vec<Fault>,
    /// What follows from the bundle and the key alone.
    pub proven: Vec<String>,
    /// What only the installation says.
    pub claimed: Vec<String>,
    /// What would prove more.
    pub needed: Vec<String>,
    /// What the bundle is about; `None` where that cannot be read.
    pub manifest: Option<Manifest>,
    /// Every rule that is broken, also by faults that are not kept.
    #[serde(skip)]
    broken: BTreeSet<&'static str>,
}

impl Report {
    fn fault(&mut self, fault: Fault) {
        self.broken.insert(fault.rule);
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(fault);
        }
    }

    fn has(&self, rules: &[&str]) -> bool {
        rules.iter().any(|rule| self.broken.contains(rule))
    }
}

/// What is compared with what an auditor brings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brought<'a> {
    trusted: Option<&'a TrustedKey>,
    expected: Option<&'a Expected>,
    previous: Option<Previous<'a>>,
}

/// Verifies a bundle: with `trusted`, that this key signed it; with `expected`, that it holds this row; with `previous`,
/// that its log goes on where the earlier one's ended.
#[must_use]
pub fn verify(
    bundle: &[u8],
    trusted: Option<&TrustedKey>,
    expected: Option<&Expected>,
    previous: Option<Previous<'_>>,
) -> Report {
    let mut report = Report::default();
    let brought = Brought { trusted, expected, previous };
    if let Some((contents, chain)) = opened(bundle, trusted, &mut report) {
        let mut earliest = contents.manifest.head.before.seq.saturating_add(1);
        let votes = rotations::check(&contents, &chain, &mut report);
        if let Some(expected) = expected {
            chain.expect(expected, &contents.manifest, &mut report);
        }
        let changes = signature_changes(&contents, trusted, &mut report);
        if let Some(previous) = previous {
            earliest = goes_on(&contents, &chain, previous, trusted, &mut report).unwrap_or(earliest);
        }
        verdict::judge(&contents, &votes, (changes, earliest), brought, &mut report);
        report.manifest = Some(contents.manifest);
    }
    report.verified = report.broken.is_empty();
    report
}

/// The contents of a bundle and its chain; `None` where it cannot be read further.
fn opened<'a>(
    bundle: &'a [u8],
    trusted: Option<&TrustedKey>,
    report: &mut Report,
) -> Option<(Contents<'a>, Chain)> {
    let files = match archive::read(bundle) {
        Ok(files) => files,
        Err(fault) => {
            report.fault(fault);
            return None;
        }
    };
    let manifest = match manifest(&files, trusted) {
        Ok(manifest) => manifest,
        Err(fault) => {
            report.fault(fault);
            return None;
        }
    };
    compare_files(&manifest, &files, report);
    let contents = Contents::read(manifest, &files, report)?;
    let chain = Chain::read(&contents, report);
    Some((contents, chain))
}

/// The manifest, as far as its own form and its signature fit.
fn manifest(files: &[(Filed, &[u8])], trusted: Option<&TrustedKey>) -> Result<Manifest, Fault> {
    let bad = |what: &str| Fault::of("manifest", what).file(MANIFEST);
    let [.., (first, bytes), (second, envelope)] = files else {
        return Err(bad("it is missing"));
    };
    if first.name != MANIFEST || second.name != ENVELOPE {
        return Err(bad("the last two files are not manifest.json and manifest.dsse.json"));
    }
    let read: Result<Manifest, _> = serde_json::from_slice(bytes);
    let manifest = read.map_err(|error| bad(&format!("it cannot be read: {error}")))?;
    if manifest.format != FORMAT {
        return Err(bad(&format!("its format is {:?}, and this program reads {FORMAT:?}", manifest.format)));
    }
    if serde_json::to_vec(&manifest).ok().as_deref() != Some(*bytes) {
        return Err(bad("it is written in another way than Keywheel writes it"));
    }
    let it = &manifest.installation;
    let key = STANDARD.decode(&it.public_key).map_err(|_| bad("its public key cannot be read"))?;
    if it.fingerprint != fingerprint(&key) || it.key_id != key_id(&key) {
        return Err(bad("the fingerprint or the keyId is not that of the public key"));
    }
    signature::check(envelope, bytes, &key)?;
    // Who signed with another key may have made up all the rest.
    if let Some(trusted) = trusted {
        signature::follow(trusted, &manifest.keys, &key)?;
    }
    Ok(manifest)
}

fn compare_files(manifest: &Manifest, files: &[(Filed, &[u8])], report: &mut Report) {
    let found = &files[..files.len() - 2];
    for (entry, (filed, _)) in manifest.files.iter().zip(found) {
        let what = if entry.name != filed.name {
            format!("the manifest has {} in this place", entry.name)
        } else if entry.size != filed.size {
            format!("it has {} bytes, and the manifest says {}", filed.size, entry.size)
        } else if entry.sha256 != filed.sha256 {
            "its SHA-256 is not the one in the manifest".to_owned()
        } else {
            continue;
        };
        report.fault(Fault::of("files", what).file(&filed.name));
    }
    for entry in manifest.files.iter().skip(found.len()) {
        report.fault(Fault::of("files", "it is in the manifest and not in the archive").file(&entry.name));
    }
    for (filed, _) in found.iter().skip(manifest.files.len()) {
        report.fault(Fault::of("files", "it is in the archive and not in the manifest").file(&filed.name));
    }
}

/// How many changes of keys lead from the trusted key to the one that signed.
fn signature_changes(
    contents: &Contents<'_>,
    trusted: Option<&TrustedKey>,
    report: &mut Report,
) -> Option<usize> {
    let key = STANDARD.decode(&contents.manifest.installation.public_key).unwrap_or_default();
    match signature::follow(trusted?, &contents.manifest.keys, &key) {
        Ok(changes) => Some(changes),
        Err(fault) => {
            report.fault(fault);
            None
        }
    }
}

/// Checks that this bundle's log goes on where the previous one's ended, and that nothing is left out that was open then;
/// returns the first row of the previous one.
fn goes_on(
    contents: &Contents<'_>,
    chain: &Chain,
    previous: Previous<'_>,
    trusted: Option<&TrustedKey>,
    report: &mut Report,
) -> Option<i64> {
    let manifest = &contents.manifest;
    let mut earlier = Report::default();
    let opened = opened(previous, trusted, &mut earlier);
    for fault in earlier.faults {
        let what = format!("the previous bundle does not fit itself: {fault}");
        report.fault(Fault::of("previous", what));
    }
    let (before, known) = opened?;
    let end = &before.manifest.head.after;
    let (first, last) = (manifest.head.before.seq.saturating_add(1), manifest.head.after.seq);
    let what = if end.seq > last {
        format!(
            "the previous bundle ends with row {}, this one already with row {last}: it is the later one, or rows were removed",
            end.seq
        )
    } else if end.seq < manifest.head.before.seq {
        format!(
            "the previous bundle ends with row {}, this one begins with row {first}: export this period from an earlier date on",
            end.seq
        )
    } else {
        match chain.hash_of(end.seq, manifest) {
            Some(hash) if *hash == end.hash => {
                for id in rotations::left_out(contents, chain, known.stories, end.seq) {
                    let what = format!(
                        "rotation {id} was open in the period, by the rows of the previous bundle and of this one, and is missing"
                    );
                    report.fault(Fault::of("previous", what));
                }
                return Some(before.manifest.head.before.seq.saturating_add(1));
            }
            _ => format!(
                "row {} has another hash than in the previous bundle: the log was rewritten between the two",
                end.seq
            ),
        }
    };
    report.fault(Fault::of("previous", what));
    None
}
