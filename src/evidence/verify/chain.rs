//! The audit log of a bundle: each row's place and hash.

use super::super::manifest::{Manifest, Mark};
use super::super::{AUDIT, AuditLine, Fault, Stories, is_plain};
use super::Report;
use super::contents::Contents;
use crate::domain::chain::ChainedRow;
use crate::domain::time::Timestamp;

/// The rows of the bundle.
pub(super) struct Chain {
    pub(super) rows: Vec<AuditLine>,
    pub(super) stories: Stories,
}

impl Chain {
    pub(super) fn read(contents: &Contents<'_>, report: &mut Report) -> Self {
        let mut chain = Self { rows: Vec::new(), stories: Stories::default() };
        let manifest = &contents.manifest;
        let mut before = manifest.head.before.clone();
        if (before.seq == 0) != before.hash.is_empty() || !(0..i64::MAX).contains(&before.seq) {
            report.fault(
                Fault::of("chain", "the row before the first one is no place in a log").file(super::MANIFEST),
            );
        }
        for (number, text) in contents.audit.split_inclusive('\n').enumerate() {
            let line = number + 1;
            let bad = |what: String| Fault::of("chain", what).file(AUDIT).line(line);
            let read = serde_json::from_str::<AuditLine>(text.trim_end_matches('\n'));
            let Some(it) = read.ok().filter(|it| {
                serde_json::to_string(it)
                    .is_ok_and(|written| text.strip_suffix('\n') == Some(written.as_str()))
            }) else {
                report.fault(bad("it is not written as Keywheel writes a row".to_owned()));
                continue;
            };
            if let Some(what) = fault(&it, &before) {
                report.fault(bad(what));
            }
            before = Mark { seq: it.seq, hash: it.hash.clone() };
            if it.at.parse::<Timestamp>().ok().is_none_or(|at| at.to_string() != it.at) {
                report.fault(bad(format!("row {} has no instant", it.seq)));
            }
            if !is_plain(it.detail.as_bytes()) {
                report.fault(bad(format!("row {}: its detail is no JSON, or repeats a member", it.seq)));
            }
            chain.stories.take(&it);
            chain.rows.push(it);
        }
        if before != manifest.head.after {
            let what =
                format!("it ends with row {}, and the manifest says {}", before.seq, manifest.head.after.seq);
            report.fault(Fault::of("chain", what).file(AUDIT));
        }
        if manifest.counts.get(AUDIT) != Some(&(chain.rows.len() as u64)) {
            let what = format!("it has {} rows, and the manifest gives another number", chain.rows.len());
            report.fault(Fault::of("counts", what).file(AUDIT));
        }
        chain
    }

    /// The hash of a row; of the one before the first, too.
    pub(super) fn hash_of<'a>(&'a self, seq: i64, manifest: &'a Manifest) -> Option<&'a String> {
        if seq == manifest.head.before.seq {
            return Some(&manifest.head.before.hash);
        }
        self.rows.iter().find(|row| row.seq == seq).map(|row| &row.hash)
    }

    /// Checks that the row `expected` is there.
    pub(super) fn expect(&self, expected: &Mark, manifest: &Manifest, report: &mut Report) {
        let Mark { seq, hash } = expected;
        let what = match self.hash_of(*seq, manifest) {
            Some(found) if found == hash => return,
            Some(found) => {
                format!("row {seq} has the hash {found}, and {hash} was expected: the log was rewritten")
            }
            None => format!(
                "row {seq} is not among rows {} to {}: export a period that reaches it",
                manifest.head.before.seq.saturating_add(1),
                manifest.head.after.seq
            ),
        };
        report.fault(Fault::of("expect", what).file(AUDIT));
    }
}

/// What keeps a row from following the row `before`.
fn fault(it: &AuditLine, before: &Mark) -> Option<String> {
    let seq = it.seq;
    let Some(next) = before.seq.checked_add(1) else {
        return Some(format!("row {seq} follows the largest number of a row"));
    };
    if seq != next {
        return Some(format!("row {seq} stands where row {next} belongs"));
    }
    if it.prev_hash != before.hash {
        return Some(format!("row {seq}: its prevHash is not the hash of the row before it"));
    }
    let AuditLine { at, actor, action, subject, detail, seals, prev_hash, .. } = it;
    let row = ChainedRow { seq, at, actor, action, subject, detail, prev_hash, seals };
    (row.hash() != it.hash).then(|| format!("row {seq}: its content does not match its hash"))
}
