//! The files of a bundle as rows, each read strictly.

use std::collections::BTreeMap;

use super::super::archive::Filed;
use super::super::manifest::Manifest;
use super::super::tables::{
    Approval, Finding, InventoryLine, KeyService, Mail, PasskeyLine, PolicyLine, Rotation, Table, heading,
};
use super::super::{AUDIT, Dossier, Fault, README, csv, dossier, is_plain};
use super::Report;

/// What a bundle holds.
pub(super) struct Contents<'a> {
    pub(super) manifest: Manifest,
    /// The audit log, as text.
    pub(super) audit: &'a str,
    pub(super) rotations: Vec<Rotation>,
    pub(super) approvals: Vec<Approval>,
    pub(super) passkeys: Vec<PasskeyLine>,
    pub(super) policies: Vec<PolicyLine>,
    /// The mails about a rotation, by its id.
    pub(super) mails: BTreeMap<String, Vec<Mail>>,
    /// The dossiers, in the order of the rotations.
    pub(super) dossiers: Vec<Dossier>,
}

/// The files that every bundle begins with.
const FIXED: [&str; 10] = [
    README,
    AUDIT,
    Rotation::FILE,
    Approval::FILE,
    PasskeyLine::FILE,
    KeyService::FILE,
    InventoryLine::FILE,
    PolicyLine::FILE,
    Mail::FILE,
    Finding::FILE,
];

impl<'a> Contents<'a> {
    /// Reads what the files say; `None` where one is missing or cannot be read.
    pub(super) fn read(manifest: Manifest, files: &[(Filed, &'a [u8])], report: &mut Report) -> Option<Self> {
        let before = report.faults.len();
        for (at, name) in FIXED.iter().enumerate() {
            if files.get(at).is_none_or(|(filed, _)| filed.name != *name) {
                let what = format!("it is not file {} of the archive", at + 1);
                report.fault(Fault::of("files", what).file(name));
            }
        }
        if report.faults.len() > before {
            return None;
        }
        let mut reader = Reader { files, manifest: &manifest, report };
        let audit = reader.text(1)?;
        let (rotations, approvals) = (reader.table::<Rotation>(2), reader.table::<Approval>(3));
        let (passkeys, policies) = (reader.table::<PasskeyLine>(4), reader.table::<PolicyLine>(7));
        let mails = reader.table::<Mail>(8);
        reader.table::<KeyService>(5);
        reader.table::<InventoryLine>(6);
        reader.table::<Finding>(9);
        let dossiers = reader.dossiers(rotations.as_deref().unwrap_or_default());
        let mut by_rotation: BTreeMap<String, Vec<Mail>> = BTreeMap::new();
        for mail in mails?.into_iter().filter(|it| !it.rotation_id.is_empty()) {
            by_rotation.entry(mail.rotation_id.clone()).or_default().push(mail);
        }
        Some(Self {
            audit,
            rotations: rotations?,
            approvals: approvals?,
            passkeys: passkeys?,
            policies: policies?,
            mails: by_rotation,
            dossiers: dossiers?,
            manifest,
        })
    }
}

struct Reader<'r, 'a> {
    files: &'r [(Filed, &'a [u8])],
    manifest: &'r Manifest,
    report: &'r mut Report,
}

impl<'a> Reader<'_, 'a> {
    fn text(&mut self, at: usize) -> Option<&'a str> {
        let (filed, bytes) = self.files.get(at)?;
        let text = std::str::from_utf8(bytes).ok();
        if text.is_none() {
            self.report.fault(Fault::of("files", "it is not UTF-8").file(&filed.name));
        }
        text
    }

    fn table<T: Table>(&mut self, at: usize) -> Option<Vec<T>> {
        let text = self.text(at)?;
        let bad = |line: usize, what: String| Fault::of("csv", what).file(T::FILE).line(line);
        let Some(body) = text.strip_prefix(&heading::<T>()) else {
            self.report.fault(bad(1, "its columns are not the documented ones".to_owned()));
            return None;
        };
        let rows = match csv::read(body, T::COLUMNS.len()) {
            Ok(rows) => rows,
            Err(line) => {
                self.report
                    .fault(bad(line + 1, "it is written in another way than Keywheel writes it".to_owned()));
                return None;
            }
        };
        let said = self.manifest.counts.get(T::FILE).copied();
        if said != Some(rows.len() as u64) {
            let said = said.map_or("no number".to_owned(), |it| it.to_string());
            let what = format!("it has {} rows, and the manifest says {said}", rows.len());
            self.report.fault(Fault::of("counts", what).file(T::FILE));
        }
        let mut read = Vec::new();
        for (number, cells) in rows.into_iter().enumerate() {
            let Some(row) = T::of_cells(cells) else {
                self.report.fault(bad(number + 2, "it has not one cell for each column".to_owned()));
                return None;
            };
            read.push(row);
        }
        Some(read)
    }

    fn dossiers(&mut self, rotations: &[Rotation]) -> Option<Vec<Dossier>> {
        let files = &self.files[FIXED.len()..self.files.len() - 2];
        let mut found = Vec::new();
        let names = rotations
            .iter()
            .flat_map(|it| ["json", "html"].map(|kind| format!("dossiers/{}.{kind}", it.rotation_id)));
        let names: Vec<String> = names.collect();
        if let Some(at) = (0..names.len().max(files.len()))
            .find(|at| names.get(*at) != files.get(*at).map(|(filed, _)| &filed.name))
        {
            let (is, should) = (files.get(at).map(|(filed, _)| filed.name.as_str()), names.get(at));
            let what = match (is, should) {
                (Some(is), Some(should)) => format!("{is} stands where {should} belongs"),
                (Some(is), None) => format!("{is} is of no rotation in rotations.csv"),
                (None, should) => format!("{} is missing", should.map_or("a dossier", String::as_str)),
            };
            self.report.fault(Fault::of("population", what).file(is.unwrap_or(Rotation::FILE)));
            return None;
        }
        for ((filed, bytes), rotation) in files.iter().step_by(2).zip(rotations) {
            let read = serde_json::from_slice::<Dossier>(bytes);
            let what = match read {
                Err(error) => format!("it cannot be read: {error}"),
                Ok(_) if !is_plain(bytes) => "it repeats a member of an object".to_owned(),
                Ok(it) if it.format != dossier::FORMAT => "its format is another one".to_owned(),
                Ok(it) if it.rotation != *rotation => "it differs from its row of rotations.csv".to_owned(),
                Ok(it) => {
                    found.push(it);
                    continue;
                }
            };
            self.report.fault(Fault::of("dossier", what).file(&filed.name));
        }
        (found.len() == rotations.len()).then_some(found)
    }
}
