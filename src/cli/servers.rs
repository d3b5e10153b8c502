//! The servers that `keywheel login` has saved: name, address, and the token or the command that prints it.
//!
//! They are in one file, `keywheel/servers.toml` in the user's configuration folder, which only the user may open. A
//! token is read where a command needs it and printed nowhere. Nothing here talks to a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::failure::Failure;
use crate::config::access::open_to_others;
use crate::config::user_folder;
use crate::domain::text::{decoded, distance};

/// The saved servers, by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Servers {
    #[serde(default)]
    servers: BTreeMap<String, Server>,
    #[serde(skip)]
    file: PathBuf,
}

/// A saved server. It has no `Debug`, because it may hold a token.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Its address.
    pub(super) url: String,
    token: Option<String>,
    token_command: Option<String>,
}

/// Where a token comes from.
pub(super) enum TokenSource {
    /// The token itself.
    Token(String),
    /// A command of the shell; the first line that it prints is the token.
    Command(String),
}

/// Whether `--server` has an address, and not a name.
pub(super) fn is_address(given: &str) -> bool {
    given.contains("://")
}

/// An address in the form in which two that mean the same are equal; `None` for one that is not of HTTP.
pub(super) fn address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn is_same(one: &str, other: &str) -> bool {
    let plain = |text: &str| address(text).map(|url| url.as_str().trim_end_matches('/').to_owned());
    plain(one).is_some_and(|one| Some(one) == plain(other))
}

impl Servers {
    /// The file of this user.
    ///
    /// # Errors
    /// Fails when others may open the file, and when it cannot be read.
    pub(super) fn load() -> Result<Self, Failure> {
        let folder = user_folder().ok_or_else(|| {
            Failure::Usage(
                "there is no place for saved servers: set HOME or XDG_CONFIG_HOME to a folder".to_owned(),
            )
        })?;
        Self::read(folder.join("servers.toml"))
    }

    fn read(file: PathBuf) -> Result<Self, Failure> {
        let text = match std::fs::read(&file).and_then(decoded) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(anyhow!("the saved servers ({}) cannot be read: {error}", file.display()).into());
            }
        };
        if let Some(why) = open_to_others(&file) {
            return Err(anyhow!("the saved servers hold tokens, and {why}").into());
        }
        // Unlike a secret of a service, a person's token is no group's business.
        if let Ok(found) = std::fs::metadata(&file)
            && found.permissions().mode() & 0o070 != 0
        {
            let file = file.display();
            return Err(anyhow!(
                "the saved servers hold tokens, and {file} can be opened by its group; run: chmod 600 {file}"
            )
            .into());
        }
        // The parser's own words would show the line, which may hold a token.
        let servers: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            anyhow!(
                "the saved servers cannot be read ({}:{line}): each has url, and token or token_command; repair the line, or move the \
                 file away and log in again",
                file.display()
            )
        })?;
        Ok(Self { file, ..servers })
    }

    /// The server of this name, or of this address; `None` for an address that nobody saved.
    ///
    /// # Errors
    /// Fails for a name that is not saved, with those that are, and for an address that has several names.
    pub(super) fn find(&self, given: &str) -> Result<Option<(&str, &Server)>, Failure> {
        if let Some((name, server)) = self.servers.get_key_value(given) {
            return Ok(Some((name, server)));
        }
        if !is_address(given) {
            return Err(Failure::Usage(format!(
                "--server takes an address such as https://keywheel.example.com, or the name of a saved server, and {}",
                self.unknown(given)
            )));
        }
        let same: Vec<_> = self.servers.iter().filter(|(_, it)| is_same(&it.url, given)).collect();
        match same.as_slice() {
            [] => Ok(None),
            [(name, server)] => Ok(Some((name, server))),
            many => {
                let names: Vec<_> = many.iter().map(|(name, _)| name.as_str()).collect();
                Err(Failure::Usage(format!(
                    "{given} is saved with several tokens; name one with --server: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// That no server has this name, with the nearest one and all others.
    fn unknown(&self, given: &str) -> String {
        let names: Vec<&str> = self.servers.keys().map(String::as_str).collect();
        let near = names.iter().min_by_key(|name| distance(given, name));
        let near = near.filter(|name| distance(given, name) <= given.chars().count().div_ceil(2));
        match (near, names.is_empty()) {
            (_, true) => format!("none is saved as {given:?}; `keywheel login URL --name {given}` saves one"),
            (Some(near), _) => {
                format!("none is saved as {given:?}; did you mean {near:?}? Saved: {}", names.join(", "))
            }
            (None, _) => format!("none is saved as {given:?}; saved: {}", names.join(", ")),
        }
    }

    /// Each server as it may be shown to anyone.
    pub(super) fn shown(&self) -> Vec<serde_json::Value> {
        let shown = self.servers.iter().map(|(name, it)| {
            let token = if it.token_command.is_some() { "by command" } else { "saved" };
            json!({ "name": name, "url": it.url, "token": token })
        });
        shown.collect()
    }

    /// Saves a server in the place of one of that name; returns the file.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub(super) fn save(self, name: &str, url: &Url, token: TokenSource) -> Result<PathBuf, Failure> {
        let url = url.as_str().trim_end_matches('/').to_owned();
        let (token, token_command) = match token {
            TokenSource::Token(token) => (Some(token), None),
            TokenSource::Command(command) => (None, Some(command)),
        };
        self.change(|servers| drop(servers.insert(name.to_owned(), Server { url, token, token_command })))
    }

    /// Forgets the server of this name; returns its address.
    ///
    /// # Errors
    /// Fails for a name that is not saved, and when the file cannot be written.
    pub(super) fn forget(self, name: &str) -> Result<String, Failure> {
        let Some(gone) = self.servers.get(name) else {
            return Err(Failure::NotFound(self.unknown(name)));
        };
        let url = gone.url.clone();
        self.change(|servers| drop(servers.remove(name)))?;
        Ok(url)
    }

    /// Changes the file as it is now: another login may have written it since it was read.
    fn change(self, change: impl FnOnce(&mut BTreeMap<String, Server>)) -> Result<PathBuf, Failure> {
        let folder = self.file.parent().unwrap_or(Path::new(".")).to_owned();
        let lock = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let mut options = std::fs::OpenOptions::new();
            let lock = options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(folder.join("servers.lock"))?;
            lock.lock()?;
            std::io::Result::Ok(lock)
        };
        let _lock = lock().with_context(|| format!("{} cannot be locked", self.file.display()))?;
        let mut now = Self::read(self.file)?;
        change(&mut now.servers);
        now.write()
    }

    fn write(self) -> Result<PathBuf, Failure> {
        let mut text = "# Written by `keywheel login` and `keywheel logout`.\n".to_owned();
        for (name, server) in &self.servers {
            // A JSON string is a TOML basic string.
            let _ = writeln!(text, "\n[servers.{}]\nurl = {}", json!(name), json!(server.url));
            for (key, value) in [("token", &server.token), ("token_command", &server.token_command)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{key} = {}", json!(value));
                }
            }
        }
        // A link, as into a folder of dotfiles, stays one.
        let target = std::fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let place = |folder: &Path| {
            // Made for this user only, and moved once it is whole.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&target)?;
            std::io::Result::Ok(())
        };
        let folder = target.parent().unwrap_or(Path::new("."));
        place(folder).with_context(|| format!("{} cannot be written", self.file.display()))?;
        Ok(self.file)
    }
}

impl Server {
    /// The token. A command is run for it each time.
    ///
    /// # Errors
    /// Fails when the command fails or prints nothing.
    pub(super) fn token(&self, name: &str, errors: Stdio) -> Result<String, Failure> {
        match (&self.token, &self.token_command) {
            (_, Some(command)) => printed(name, command, errors),
            (Some(token), None) => Ok(token.clone()),
            (None, None) => Err(Failure::Usage(format!(
                "the saved server {name} has no token; run `keywheel login {} --name {name}`",
                self.url
            ))),
        }
    }
}

/// The first line that the token command of the server `name` prints; `errors` is its standard error.
///
/// # Errors
/// Fails when the command fails or prints nothing. The command is not in the message: it may hold a secret.
pub(super) fn printed(name: &str, command: &str, errors: Stdio) -> Result<String, Failure> {
    let failed = |why: String| anyhow!("the token command of {name} {why}; run it by hand to see why");
    let ran = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stderr(errors).output();
    let ran = ran.map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !ran.status.success() {
        return Err(failed(format!("failed ({})", ran.status)).into());
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(failed("printed no token in its first line".to_owned()).into());
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(file: &Path) -> Servers {
        Servers::read(file.to_owned()).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn what_is_saved_is_found_by_name_and_by_address() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/servers.toml");
        for (name, url, token) in [
            ("prod", "https://k.example.com/", TokenSource::Token("kw_\"x\\".to_owned())),
            (
                "a.b:1",
                "http://127.0.0.1:8440/prefix",
                TokenSource::Command("printf 'kw_c\\nrest'".to_owned()),
            ),
        ] {
            saved(&file).save(name, &address(url).unwrap(), token).unwrap_or_else(|why| panic!("{why}"));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        let servers = saved(&file);
        let token = |given: &str| {
            let (name, server) = servers.find(given).ok().flatten().unwrap();
            (name.to_owned(), server.token(name, Stdio::inherit()).unwrap_or_else(|why| panic!("{why}")))
        };
        let prod = ("prod".to_owned(), "kw_\"x\\".to_owned());
        for given in ["prod", "https://k.example.com", "https://K.example.com:443/"] {
            assert_eq!(token(given), prod);
        }
        assert_eq!(token("http://127.0.0.1:8440/prefix/").1, "kw_c");
        assert!(servers.find("http://k.example.com").ok().flatten().is_none());
        let Err(unknown) = servers.find("prud") else { panic!("it is found") };
        assert!(unknown.to_string().ends_with("did you mean \"prod\"? Saved: a.b:1, prod"), "{unknown}");
        assert!(!serde_json::to_string(&servers.shown()).unwrap().contains("kw_"));
        saved(&file)
            .save("other", &address("https://k.example.com").unwrap(), TokenSource::Token("t".to_owned()))
            .ok();
        let Err(several) = saved(&file).find("https://k.example.com").map(|_| ()) else {
            panic!("it is found")
        };
        assert!(several.to_string().ends_with("name one with --server: other, prod"), "{several}");
        assert_eq!(saved(&file).forget("other").ok().as_deref(), Some("https://k.example.com"));
        assert!(matches!(saved(&file).forget("other"), Err(Failure::NotFound(_))));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_without_a_token_in_the_message() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("servers.toml");
        let refused = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let Err(why) = Servers::read(file.clone()) else { panic!("it is taken") };
            why.to_string()
        };
        let good = "[servers.prod]\nurl = \"https://k\"\ntoken = \"canary\"\n";
        assert!(refused(good, 0o604).contains("run: chmod o-rwx"));
        assert!(refused(good, 0o640).contains("run: chmod 600"));
        for bad in
            [good.replace("token", "tokn"), good.replace("= \"canary\"", "= canary"), format!("x{good}")]
        {
            let why = refused(&bad, 0o600);
            assert!(why.contains("servers.toml:") && !why.contains("canary"), "{why}");
        }
        for (command, why) in
            [("exit 3", "exit status: 3"), ("true", "printed no token"), ("echo", "no token")]
        {
            let Err(failed) = printed("prod", command, Stdio::inherit()) else { panic!("{command}") };
            assert!(failed.to_string().contains(why), "{failed}");
        }
    }
}
