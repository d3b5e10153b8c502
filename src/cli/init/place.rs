//! Puts a new configuration and its secrets in place, or nothing at all.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tempfile::NamedTempFile;
use toml::Value;

use super::super::failure::Failure;
use crate::config::{Config, ConfigError, FILE_NAME, Loaded, Sources, written};

/// The user of the systemd unit.
const SERVICE: &str = "keywheel";

/// What is to be written.
pub(super) struct Plan {
    /// The configuration, as an absolute path.
    pub(super) file: PathBuf,
    /// The daemon's folder, as an absolute path.
    pub(super) data_dir: PathBuf,
    /// Settings, as dotted paths.
    pub(super) chosen: Vec<(String, Value)>,
    /// Files that hold a secret each.
    pub(super) secrets: Vec<(PathBuf, String)>,
    service: Option<(u32, u32)>,
}

impl Plan {
    pub(super) fn new(file: PathBuf, data_dir: PathBuf) -> Self {
        Self { file, data_dir, chosen: Vec::new(), secrets: Vec::new(), service: service() }
    }

    pub(super) fn choose(&mut self, path: &str, value: &str) {
        self.chosen.push((path.to_owned(), Value::String(value.to_owned())));
    }

    /// Keeps a secret in a file of its own, which `setting` names.
    pub(super) fn keep_secret(&mut self, setting: &str, file: PathBuf, text: String) {
        self.choose(setting, &file.to_string_lossy());
        self.secrets.push((file, text));
    }

    /// The file of a secret, beside the configuration. Another configuration in the same folder has another.
    pub(super) fn secret_file(&self, folder: &Path, name: &str) -> PathBuf {
        let own = self.file.file_stem().filter(|_| !self.file.ends_with(FILE_NAME));
        match own {
            Some(stem) => folder.join(format!("{}-{name}", stem.to_string_lossy())),
            None => folder.join(name),
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.chosen.iter().any(|(it, _)| it == path)
    }

    /// Whether root writes for the user of the service.
    pub(super) const fn is_for_service(&self) -> bool {
        self.service.is_some()
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// User and group of the service, when root writes and the machine has that user.
fn service() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok().filter(|_| is_root())?;
    let line = passwd.lines().find_map(|line| line.strip_prefix(SERVICE)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Where the configuration is searched: for a service where root writes it, else in the working directory.
pub(super) fn usual_file() -> PathBuf {
    if is_root() { Path::new("/etc/keywheel").join(FILE_NAME) } else { FILE_NAME.into() }
}

pub(super) fn usual_data_dir(folder: &Path) -> PathBuf {
    if folder == Path::new("/etc/keywheel") {
        "/var/lib/keywheel".into()
    } else {
        folder.join("keywheel-data")
    }
}

/// Refuses to replace a file.
///
/// # Errors
/// Fails when it exists and `force` is not given.
pub(super) fn may_write(file: &Path, force: bool) -> Result<(), Failure> {
    if force || std::fs::symlink_metadata(file).is_err() {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "{} exists already and is left as it is; replace it with --force, or write another file with --config FILE",
        file.display()
    )))
}

/// Writes the secrets and the configuration. The configuration comes last, and only when the daemon could use it.
///
/// # Errors
/// Fails with the faults of the configuration, or when something cannot be written. Nothing is left then.
pub(super) fn place(plan: &Plan, force: bool) -> Result<Loaded, Failure> {
    let mut made = Made::default();
    let placed = all(plan, force, &mut made);
    if placed.is_err() {
        made.undo();
    }
    placed
}

/// What was made so far.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    fn undo(self) {
        for file in self.files {
            let _ = std::fs::remove_file(file);
        }
        // The inner ones first; one that is in use by now stays.
        for folder in self.folders.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }

    /// Makes a folder, and those above it, for this user only.
    fn folder(&mut self, folder: &Path) -> Result<bool, Failure> {
        if let Some(file) = folder.ancestors().find(|it| it.exists()).filter(|it| !it.is_dir()) {
            let what = if file == folder { "it".to_owned() } else { file.display().to_string() };
            return Err(anyhow!("the folder {} cannot be made: {what} is a file", folder.display()).into());
        }
        let missing: Vec<&Path> = folder.ancestors().take_while(|it| !it.exists()).collect();
        for it in missing.iter().rev() {
            let made = std::fs::DirBuilder::new().mode(0o700).create(it);
            made.with_context(|| format!("the folder {} cannot be made", it.display()))?;
            self.folders.push((*it).to_owned());
        }
        Ok(!missing.is_empty())
    }
}

/// As [`place`], and what was made before a failure.
fn all(plan: &Plan, force: bool, made: &mut Made) -> Result<Loaded, Failure> {
    let folder = plan.file.parent().unwrap_or(Path::new("/"));
    if made.folder(folder)?
        && let Some((_, group)) = plan.service
    {
        open_to(folder, group, 0o750).with_context(|| cannot_give(folder))?;
    }
    if made.folder(&plan.data_dir)?
        && let Some((user, group)) = plan.service
    {
        chown(&plan.data_dir, Some(user), Some(group)).with_context(|| cannot_give(&plan.data_dir))?;
    }
    let mut secrets = Vec::new();
    for (file, text) in &plan.secrets {
        secrets.push((staged(file, &format!("{text}\n"), plan)?, file));
    }
    let loaded = checked(plan, &secrets)?;
    for (staged, file) in secrets {
        put(staged, file, force)?;
        // One that was replaced cannot be brought back.
        if !force {
            made.files.push(file.clone());
        }
    }
    put(staged(&plan.file, &written(&plan.chosen), plan)?, &plan.file, force)?;
    Ok(loaded)
}

/// Loads the configuration with its secrets, none of which is in place yet.
fn checked(plan: &Plan, secrets: &[(NamedTempFile, &PathBuf)]) -> Result<Loaded, Failure> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut chosen = plan.chosen.clone();
    for (staged, file) in secrets {
        for (_, value) in chosen.iter_mut().filter(|(_, it)| it.as_str() == Some(&text(file))) {
            *value = Value::String(text(staged.path()));
        }
    }
    let staged = staged(&plan.file, &written(&chosen), plan)?;
    let sources = Sources { file: Some(staged.path().to_owned()), ..Sources::default() };
    Config::load(&sources).map_err(|ConfigError(faults)| {
        let names = secrets.iter().map(|(staged, file)| (text(staged.path()), text(file)));
        let names: Vec<_> = names.chain([(text(staged.path()), text(&plan.file))]).collect();
        let placed = |fault: &String| names.iter().fold(fault.clone(), |it, (from, to)| it.replace(from, to));
        let faults: Vec<_> = faults.iter().map(placed).collect();
        anyhow!(
            "nothing was written, because the configuration could not be used:\n  {}",
            faults.join("\n  ")
        )
        .into()
    })
}

fn cannot_give(path: &Path) -> String {
    format!("{} cannot be given to {SERVICE}", path.display())
}

fn open_to(path: &Path, group: u32, mode: u32) -> std::io::Result<()> {
    chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// A file for this user only (and for the service that must read it), beside its place.
fn staged(file: &Path, text: &str, plan: &Plan) -> Result<NamedTempFile, Failure> {
    let write = || {
        let mut staged = NamedTempFile::new_in(file.parent().unwrap_or(Path::new("/")))?;
        staged.write_all(text.as_bytes())?;
        if let Some((_, group)) = plan.service {
            open_to(staged.path(), group, 0o640)?;
        }
        staged.as_file().sync_all()?;
        std::io::Result::Ok(staged)
    };
    Ok(write().with_context(|| format!("{} cannot be written", file.display()))?)
}

fn put(staged: NamedTempFile, file: &Path, force: bool) -> Result<(), Failure> {
    let placed = if force { staged.persist(file) } else { staged.persist_noclobber(file) };
    match placed.map_err(|error| error.error) {
        Ok(_) => Ok(()),
        // Made by somebody else since it was looked for.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => may_write(file, false),
        Err(error) => Err(anyhow!("{} cannot be written: {error}", file.display()).into()),
    }
}
