//! The zip of a bundle: one sequence of bytes for each list of files, written and read here.
//!
//! Every file is stored as it is. So the archive follows from its files without a compressor, whose output differs
//! between programs and versions, and nothing is inflated that a stranger has packed. The reader takes what the writer
//! writes and nothing else: no gap, no comment, no extra field, no second name for the same bytes.

use std::collections::BTreeSet;
use std::io::{self, Seek, SeekFrom, Write};

use flate2::Crc;
use sha2::{Digest, Sha256};

use super::Fault;

/// The largest archive, in bytes. Sizes in a zip have 32 bits.
pub const LARGEST: u64 = 2 << 30;

/// The most files. Their count in a zip has 16 bits.
pub const MOST_FILES: usize = 60_000;

/// The longest name of a file, in bytes.
const LONGEST_NAME: usize = 64;

/// 1 January 1980, midnight, as DOS writes it: the instant of every file.
const DATE: u16 = 0x21;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;

/// The length of a file's header without its name.
const HEADER: usize = 30;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filed {
    /// Its name.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its SHA-256, in hexadecimal.
    pub(super) sha256: String,
    crc: u32,
    offset: u64,
}

fn header(name: &str, crc: u32, size: u32) -> Vec<u8> {
    let mut bytes = LOCAL.to_le_bytes().to_vec();
    // Version 1.0, no flag, stored, midnight.
    for number in [10, 0, 0, 0, DATE] {
        bytes.extend(u16::to_le_bytes(number));
    }
    for number in [crc, size, size] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(name.as_bytes());
    bytes
}

/// The central directory and the end of an archive with these files.
fn directory(files: &[Filed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let cut = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    for file in files {
        let local = header(&file.name, file.crc, cut(file.size));
        bytes.extend(CENTRAL.to_le_bytes());
        bytes.extend([10, 0]);
        bytes.extend(&local[4..HEADER]);
        // No comment, the first disk, no attributes.
        bytes.extend([0; 10]);
        bytes.extend(cut(file.offset).to_le_bytes());
        bytes.extend(file.name.as_bytes());
    }
    let begin = files.last().map_or(0, |it| it.offset + (HEADER + it.name.len()) as u64 + it.size);
    let (count, size) = (u16::try_from(files.len()).unwrap_or(u16::MAX), cut(bytes.len() as u64));
    bytes.extend(END.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([size.to_le_bytes(), cut(begin).to_le_bytes()].concat());
    bytes.extend([0; 2]);
    bytes
}

/// Writes an archive, file by file.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    files: Vec<Filed>,
    /// Where the next byte goes.
    end: u64,
    open: Option<(String, Crc, Sha256, u64)>,
}

impl<W: Write + Seek> Archive<W> {
    /// An archive without files, written to the beginning of `out`.
    pub(super) const fn new(out: W) -> Self {
        Self { out, files: Vec::new(), end: 0, open: None }
    }

    /// Ends the file before, and begins the next one.
    ///
    /// # Errors
    /// Fails when it cannot be written, or would be too large.
    pub(super) fn begin(&mut self, name: &str) -> io::Result<()> {
        self.close()?;
        if self.files.len() >= MOST_FILES {
            return Err(too_large());
        }
        self.out.write_all(&header(name, 0, 0))?;
        self.open = Some((name.to_owned(), Crc::new(), Sha256::new(), 0));
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((name, crc, hash, size)) = self.open.take() else { return Ok(()) };
        let offset = self.end;
        let head = header(&name, crc.sum(), u32::try_from(size).map_err(|_| too_large())?);
        self.end += head.len() as u64 + size;
        self.out.seek(SeekFrom::Start(offset))?;
        self.out.write_all(&head)?;
        self.out.seek(SeekFrom::Start(self.end))?;
        let sha256 = hex::encode(hash.finalize());
        self.files.push(Filed { name, size, sha256, crc: crc.sum(), offset });
        Ok(())
    }

    /// The files that were ended.
    ///
    /// # Errors
    /// Fails when the last one cannot be written.
    pub(super) fn files(&mut self) -> io::Result<&[Filed]> {
        self.close()?;
        Ok(&self.files)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Fails when it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.close()?;
        self.out.write_all(&directory(&self.files))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write + Seek> Write for Archive<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((_, crc, hash, size)) = &mut self.open else {
            return Err(io::Error::other("no file of the archive is open"));
        };
        if self.end + *size + bytes.len() as u64 > LARGEST - (1 << 24) {
            return Err(too_large());
        }
        self.out.write_all(bytes)?;
        crc.update(bytes);
        hash.update(bytes);
        *size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        "the bundle would be larger than 2 GiB or 60,000 files; take a shorter period, or one project",
    )
}

/// Reads an archive: each file with its bytes.
///
/// # Errors
/// The first thing in it that [`Archive`] would not have written. The offset is that of the archive.
pub(super) fn read(archive: &[u8]) -> Result<Vec<(Filed, &[u8])>, Fault> {
    let bad = |at: usize, what: &str| Fault::of("zip", format!("{what} (byte {at} of the archive)"));
    if archive.len() as u64 > LARGEST {
        return Err(bad(0, "it is larger than 2 GiB"));
    }
    let mut files: Vec<(Filed, &[u8])> = Vec::new();
    let (mut names, mut at) = (BTreeSet::new(), 0);
    while archive[at..].starts_with(&LOCAL.to_le_bytes()) {
        let (found, content, next) = one(archive, at).map_err(|what| bad(at, &what))?;
        if !names.insert(found.name.clone()) {
            return Err(bad(at, &format!("it holds two files named {}", found.name)));
        }
        if files.len() >= MOST_FILES {
            return Err(bad(at, "it holds more than 60,000 files"));
        }
        files.push((found, content));
        at = next;
    }
    let list: Vec<Filed> = files.iter().map(|(it, _)| it.clone()).collect();
    let (expected, found) = (directory(&list), &archive[at..]);
    if expected != found {
        let same = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
        let what = match (same == expected.len(), same == found.len()) {
            (true, _) => "something follows the end of the archive",
            (_, true) => "the archive is cut off",
            _ => "the list of its files is not the one that follows from them",
        };
        return Err(bad(at + same, what));
    }
    Ok(files)
}

/// The file at `at`, and where the next one begins.
fn one(archive: &[u8], at: usize) -> Result<(Filed, &[u8], usize), String> {
    let cut = || "the archive is cut off".to_owned();
    let head = archive.get(at..at + HEADER).ok_or_else(cut)?;
    let number = |from: usize| {
        head.get(from..from + 4).map_or(0, |it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]))
    };
    let length = usize::from(u16::from_le_bytes([head[26], head[27]]));
    if length > LONGEST_NAME {
        return Err("a file's name is longer than 64 bytes".to_owned());
    }
    let begin = at + HEADER + length;
    let name = archive.get(at + HEADER..begin).ok_or_else(cut)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
    let name = std::str::from_utf8(name).ok().filter(|it| !it.is_empty() && it.bytes().all(|it| plain(&it)));
    let name = name.ok_or("a file's name has characters that no name of a bundle has")?;
    if name.starts_with('/') || name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(format!("the name {name:?} leads out of the bundle"));
    }
    let (crc, size) = (number(14), number(22));
    if header(name, crc, size) != archive[at..begin] {
        return Err(format!(
            "the header of {name} differs from the one of a stored file of this name, size and checksum"
        ));
    }
    let content = archive.get(begin..begin + size as usize).ok_or_else(cut)?;
    let mut sum = Crc::new();
    sum.update(content);
    if sum.sum() != crc {
        return Err(format!("the content of {name} does not fit its checksum"));
    }
    let sha256 = hex::encode(Sha256::digest(content));
    let filed = Filed { name: name.to_owned(), size: u64::from(size), sha256, crc, offset: at as u64 };
    Ok((filed, content, begin + content.len()))
}
