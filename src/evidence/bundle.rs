//! Makes a bundle, file by file in the order of the archive. Of what was written it keeps names, lengths and hashes; it
//! holds one row, or one dossier, at a time.

use std::io::{self, Seek, Write};

use crate::seal::InstallationKey;

use super::archive::Archive;
use super::manifest::{FileEntry, Manifest};
use super::tables::{
    Approval, Finding, InventoryLine, KeyService, Mail, PasskeyLine, PolicyLine, Rotation, Table, heading,
};
use super::{AUDIT, AuditLine, Dossier, ENVELOPE, MANIFEST, README, csv, page, signature};

/// A bundle that is being made.
#[derive(Debug)]
pub struct Bundle<W> {
    archive: Archive<W>,
    manifest: Manifest,
    /// The file that is being written.
    at: &'static str,
}

impl<W: Write + Seek> Bundle<W> {
    /// A bundle about what `manifest` says; its counts and files are filled in here.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn new(out: W, manifest: Manifest) -> io::Result<Self> {
        let mut archive = Archive::new(out);
        archive.begin(README)?;
        archive.write_all(readme().as_bytes())?;
        archive.begin(AUDIT)?;
        let mut bundle = Self { archive, manifest, at: AUDIT };
        bundle.manifest.counts.insert(AUDIT.to_owned(), 0);
        Ok(bundle)
    }

    /// The next row of the audit log, before any table.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn audit(&mut self, row: &AuditLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.archive, row)?;
        self.archive.write_all(b"\n")?;
        self.count();
        Ok(())
    }

    /// Begins the next table. The tables come in the order of README.txt.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn begin<T: Table>(&mut self) -> io::Result<()> {
        self.archive.begin(T::FILE)?;
        self.archive.write_all(heading::<T>().as_bytes())?;
        self.at = T::FILE;
        self.manifest.counts.insert(T::FILE.to_owned(), 0);
        Ok(())
    }

    /// The next row of the table that was begun last.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn row<T: Table>(&mut self, row: &T) -> io::Result<()> {
        self.archive.write_all(csv::line(row.cells()).as_bytes())?;
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        if let Some(count) = self.manifest.counts.get_mut(self.at) {
            *count += 1;
        }
    }

    /// The next dossier, in the order of rotations.csv.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn dossier(&mut self, it: &Dossier) -> io::Result<()> {
        let name = format!("dossiers/{}", it.rotation.rotation_id);
        self.archive.begin(&format!("{name}.json"))?;
        serde_json::to_writer(&mut self.archive, it)?;
        self.archive.begin(&format!("{name}.html"))?;
        self.archive.write_all(page::page(it).as_bytes())
    }

    /// Ends the bundle, signed with `key`.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub fn finish(mut self, key: &InstallationKey) -> io::Result<W> {
        let files = self.archive.files()?.iter();
        let files =
            files.map(|it| FileEntry { name: it.name.clone(), size: it.size, sha256: it.sha256.clone() });
        self.manifest.files = files.collect();
        let manifest = serde_json::to_vec(&self.manifest)?;
        self.archive.begin(MANIFEST)?;
        self.archive.write_all(&manifest)?;
        self.archive.begin(ENVELOPE)?;
        self.archive.write_all(&signature::envelope(&manifest, key)?)?;
        self.archive.finish()
    }
}

fn explain<T: Table>(text: &mut String) {
    text.extend(["\n", T::FILE, "\n", T::ABOUT, "\n"]);
    for (name, meaning) in T::COLUMNS {
        text.extend(["  ", name, ": ", meaning, "\n"]);
    }
}

/// The text that explains the files.
fn readme() -> String {
    let mut text = include_str!("readme.txt").to_owned();
    explain::<Rotation>(&mut text);
    explain::<Approval>(&mut text);
    explain::<PasskeyLine>(&mut text);
    explain::<KeyService>(&mut text);
    explain::<InventoryLine>(&mut text);
    explain::<PolicyLine>(&mut text);
    explain::<Mail>(&mut text);
    explain::<Finding>(&mut text);
    text
}
