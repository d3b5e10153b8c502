//! The API as the verbs use it: over the local socket without a token, or over HTTP with one.
//!
//! A failure names the socket or address that was tried, and how to start a server. Redirects are not
//! followed: a token must not travel to an address that the user did not name. Nothing is retried: the
//! error states that a request may have taken effect.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use url::Url;

use super::Global;
use super::failure::{Failure, Problem};
use super::printer::Printer;
use super::reply::{ApiResponse, List, read};
use super::servers::{Servers, address, is_address};
use crate::api::Page;
use crate::api::project::Project;
use crate::api::rotation::Rotation;
use crate::config::{Config, Sources};
use crate::domain::address::is_loopback;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::text::{decoded, nearest, visible};
use crate::net::body::{self, BodyError};
use crate::net::cause::{TlsFault, causes, root_cause, tls_fault};
use crate::net::client;

/// Timeout of a request: adding a project waits for Atlas.
const ANSWER: Duration = Duration::from_mins(2);
/// Timeout of a file: a bundle of ten thousand projects is made in minutes.
const DOWNLOAD: Duration = Duration::from_mins(30);
/// Timeout of a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);
/// The newest rotations that are searched for the beginning of an id.
const SEARCHED: usize = 2000;
/// The largest response that is read, in bytes.
const LARGEST: usize = 64 << 20;

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    target: String,
    hint: String,
}

impl Client {
    /// The server that the command line, the environment or the configuration names.
    pub(super) fn new(global: &Global, printer: &mut Printer) -> Result<Self, Failure> {
        if let Some(given) = &global.server {
            return Self::of_server(given, global, printer);
        }
        let socket = Config::socket(&Sources::from_process(global.config.clone()))?;
        let socket = socket.ok_or_else(|| {
            Failure::Usage(
                "the local socket is off (server.socket = \"\"); name a server with --server URL --token-file FILE"
                    .to_owned(),
            )
        })?;
        Self::over_socket(&socket)
    }

    /// A saved server, or an address with a token file. A saved token goes only to the address that it was saved for.
    fn of_server(given: &str, global: &Global, printer: &mut Printer) -> Result<Self, Failure> {
        let file = global.token_file.as_deref();
        if is_address(given) && file.is_some() {
            return Self::over_http(given, file, printer);
        }
        let servers = Servers::load()?;
        let Some((name, saved)) = servers.find(given)? else {
            return Self::over_http(given, None, printer);
        };
        match global.token_file_flag() {
            Some(file) => Self::over_http(&saved.url, Some(file), printer),
            None => Self::with_token(&saved.url, &saved.token(name, printer.errors())?, printer),
        }
    }

    /// A server on this machine; anyone who may open the socket is its admin.
    pub(super) fn over_socket(socket: &Path) -> Result<Self, Failure> {
        let base = Url::parse("http://localhost").map_err(broken)?;
        let http = client::builder(Some(&base), CONNECT).unix_socket(socket.to_owned());
        Ok(Self {
            http: client::build(http).map_err(broken)?,
            base,
            target: format!("the local socket {}", socket.display()),
            hint: "start a server with `keywheel serve` (its data_dir holds the socket), or name one with --server URL --token-file FILE".to_owned(),
        })
    }

    /// A server anywhere, with a token.
    pub(super) fn over_http(
        server: &str,
        token: Option<&Path>,
        printer: &mut Printer,
    ) -> Result<Self, Failure> {
        let token = token.ok_or_else(|| {
            Failure::Usage(
                "--server needs a token: save one with `keywheel login URL`, or name its file with --token-file FILE (or \
                 KEYWHEEL_TOKEN_FILE); `keywheel token create` on the server makes one"
                    .to_owned(),
            )
        })?;
        Self::with_token(server, &token_in(token, printer)?, printer)
    }

    /// The same with the token itself.
    pub(super) fn with_token(server: &str, token: &str, printer: &mut Printer) -> Result<Self, Failure> {
        let base = address(server).ok_or_else(|| {
            Failure::Usage("--server takes an address such as https://keywheel.example.com".to_owned())
        })?;
        if base.scheme() == "http" && !is_loopback(&base) {
            printer
                .note("warning: --server is plain http: the token crosses the network readable; use https");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, bearer(token)?);
        Ok(Self {
            http: client::build(client::builder(Some(&base), CONNECT).default_headers(headers))
                .map_err(broken)?,
            target: format!("the server {}", shown(&base)),
            hint: "check the address, and that `keywheel serve` runs there and listens on it".to_owned(),
            base,
        })
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/api/v1{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Sends a GET.
    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<ApiResponse, Failure> {
        self.call(Method::GET, path, query, None::<&()>).await
    }

    /// Sends a request that changes something.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<ApiResponse, Failure> {
        self.call(method, path, &[], body).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<ApiResponse, Failure> {
        let reads = method == Method::GET;
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, self.url(path, query)).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error, reads))?;
        let status = response.status();
        let text = self.body(response, reads).await?;
        if !status.is_success() {
            return Err(problem(status, &text));
        }
        let created = status == StatusCode::CREATED;
        if !text.trim().is_empty() && serde_json::from_str::<IgnoredAny>(&text).is_err() {
            return Err(Failure::Failed(anyhow::anyhow!(
                "the response of {} is not JSON; check that it is a Keywheel server",
                self.target
            )));
        }
        Ok(ApiResponse { text, created, asked })
    }

    async fn body(&self, mut response: Response, reads: bool) -> Result<String, Failure> {
        let body = body::read(&mut response, LARGEST).await.map_err(|error| match error {
            BodyError::TooLong => {
                Failure::Failed(anyhow::anyhow!("{} answered more than 64 MiB", self.target))
            }
            BodyError::Broken(error) => self.unreachable(&error, reads),
        })?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a request whose answer is a file, and writes it to `out` as it comes; returns its length in bytes.
    pub(super) async fn download(
        &self,
        path: &str,
        body: &impl Serialize,
        out: &mut impl Write,
    ) -> Result<u64, Failure> {
        let request = self.http.post(self.url(path, &[])).timeout(DOWNLOAD).json(body);
        let mut response = request.send().await.map_err(|error| self.unreachable(&error, true))?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem(status, &self.body(response, true).await?));
        }
        let (expected, mut size) = (response.content_length(), 0);
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error, true))? {
            size += part.len() as u64;
            out.write_all(&part).map_err(broken)?;
        }
        if expected.is_some_and(|it| it != size) {
            return Err(broken(format!("{} sent {size} bytes of a longer file; ask again", self.target)));
        }
        Ok(size)
    }

    /// Opens the event stream of a rotation, after the entry `after`.
    pub(super) async fn stream(&self, path: &str, after: Option<&str>) -> Result<Response, Failure> {
        let mut request = self.http.get(self.url(path, &[])).header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error, true))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(problem(status, &self.body(response, true).await?))
    }

    /// Reads the data of an event of a stream.
    pub(super) fn event<T: DeserializeOwned>(&self, data: &str) -> Result<T, Failure> {
        read(&format!("the stream of {}", self.target), data)
    }

    /// Up to `limit` items of a list, page by page, and whether there are more.
    pub(super) async fn items(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: Option<usize>,
    ) -> Result<List, Failure> {
        let asked = format!("GET {path}");
        let mut items = Vec::new();
        let mut cursor = None::<String>;
        loop {
            let mut query = query.to_vec();
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let Page { items: mut page, next } = self.get(path, &query).await?.read::<Page<Value>>()?;
            items.append(&mut page);
            if let Some(limit) = limit.filter(|limit| items.len() >= *limit) {
                let more = items.len() > limit || next.is_some();
                items.truncate(limit);
                return Ok(List { items, more, asked });
            }
            // A server that hands out the same cursor twice would keep this loop running for ever.
            if next.is_none() || next == cursor {
                return Ok(List { items, more: false, asked });
            }
            cursor = next;
        }
    }

    /// The group id of a project given by id or by its unique name.
    pub(super) async fn project(&self, given: &str) -> Result<GroupId, Failure> {
        if let Ok(id) = given.parse() {
            return Ok(id);
        }
        let all: Vec<Project> = self.items("/projects", &[("name", given)], None).await?.read()?;
        // An older server ignores the parameter and returns all projects.
        let named: Vec<GroupId> =
            all.into_iter().filter(|project| project.name == given).map(|project| project.group_id).collect();
        match named.as_slice() {
            [] => {
                let all: Vec<Project> = self.items("/projects", &[("limit", "500")], None).await?.read()?;
                let near = nearest(given, all.iter().map(|it| it.name.as_str()));
                let near = near.map(|name| format!("did you mean {}? ", visible(name))).unwrap_or_default();
                Err(Failure::NotFound(format!(
                    "no project is named {given:?}; {near}`keywheel project list` shows them all, `keywheel project add` tracks one"
                )))
            }
            [only] => Ok(only.clone()),
            many => Err(Failure::Usage(format!(
                "{given:?} is the name of {} projects; use the id: {}",
                many.len(),
                many.iter().map(GroupId::as_str).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// The id of a rotation given by id, by the beginning of its id, as `@latest`, or by its project, whose newest one is
    /// meant.
    pub(super) async fn rotation(&self, given: &str) -> Result<RotationId, Failure> {
        if let Ok(id) = given.parse() {
            return Ok(id);
        }
        if given == "@latest" {
            let newest: Vec<Rotation> = self.items("/rotations", &[], Some(1)).await?.read()?;
            let newest = newest.first().map(|it| it.id);
            return newest.ok_or_else(|| Failure::NotFound("there are no rotations yet".to_owned()));
        }
        let is_part = given.len() >= 4 && given.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if is_part {
            let begin = given.to_ascii_lowercase();
            let all: Vec<Rotation> = self.items("/rotations", &[], Some(SEARCHED)).await?.read()?;
            let fits: Vec<_> = all.iter().filter(|it| it.id.to_string().starts_with(&begin)).collect();
            match fits[..] {
                [] => {}
                [only] => return Ok(only.id),
                [..] => {
                    let some = fits
                        .iter()
                        .take(5)
                        .map(|it| format!("{} ({}, {})", it.id, it.project_name, it.state));
                    return Err(Failure::Usage(format!(
                        "{} rotations begin with {given:?}; name more of the id: {}",
                        fits.len(),
                        some.collect::<Vec<_>>().join(", ")
                    )));
                }
            }
        }
        let group = match self.project(given).await {
            Ok(group) => group,
            Err(Failure::NotFound(why)) => {
                return Err(Failure::NotFound(format!(
                    "no rotation's id begins with {given:?} (`keywheel rotation list` shows them), and {why}"
                )));
            }
            Err(error) => return Err(error),
        };
        let query = [("groupId", group.as_str())];
        let newest: Vec<Rotation> = self.items("/rotations", &query, Some(1)).await?.read()?;
        let newest = newest.first().map(|it| it.id);
        newest.ok_or_else(|| {
            Failure::NotFound(format!(
                "{given} has no rotations; `keywheel rotate {given} --to KEY` proposes one"
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error, reads: bool) -> Failure {
        let why = match tls_fault(error) {
            Some(TlsFault::NotTls) => "the server speaks plain HTTP there".to_owned(),
            _ => root_cause(error),
        };
        if error.is_connect() || reads {
            let hint = if matches!(tls_fault(error), Some(TlsFault::NotTls)) {
                "use http:// in --server, or turn on TLS on the server ([server.tls])"
            } else if is_denied(error) {
                "the socket is open only to the user that runs the server: become that user, or use --server URL --token-file FILE"
            } else {
                &self.hint
            };
            return Failure::Unreachable {
                what: format!("cannot reach {}: {why}", self.target),
                hint: hint.to_owned(),
            };
        }
        Failure::Unreachable {
            what: format!("{} did not answer: {why}. The request may have taken effect", self.target),
            hint: "check before you repeat it: `keywheel rotation list`, `keywheel project list`".to_owned(),
        }
    }
}

/// Whether the operating system refused the access. The text depends on the language; the kind does not.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref()
            .is_some_and(|cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// The token in a file.
///
/// # Errors
/// Fails when it cannot be read, or is empty.
pub(super) fn token_in(file: &Path, printer: &mut Printer) -> Result<String, Failure> {
    let refuse =
        |why: String| Failure::Usage(format!("the token file {} {why}", PathBuf::from(file).display()));
    let text =
        std::fs::read(file).and_then(decoded).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let open = std::fs::metadata(file).is_ok_and(|found| found.mode() & 0o077 != 0);
    if open {
        let file = file.display();
        printer.note(&format!(
            "warning: the token file {file} is open to others than its owner; chmod 600 {file}"
        ));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(refuse("is empty".to_owned()));
    }
    Ok(text.to_owned())
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
        Failure::Usage("the token has a line break or another character that no token has".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn problem(status: StatusCode, body: &str) -> Failure {
    Failure::Problem(Box::new(Problem::read(status.as_u16(), body)))
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(anyhow::anyhow!("{error}"))
}

/// The address without user and password.
fn shown(base: &Url) -> String {
    let mut base = base.clone();
    let _ = base.set_password(None);
    let _ = base.set_username("");
    base.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("permission denied")]
    struct Outer(#[source] Error);

    #[test]
    fn a_refusal_of_the_system_is_recognised_in_any_language() {
        assert!(is_denied(&Outer(Error::new(ErrorKind::PermissionDenied, "Keine Berechtigung"))));
        assert!(is_denied(&Error::from_raw_os_error(13)));
        assert!(!is_denied(&Outer(Error::new(ErrorKind::ConnectionRefused, "Permission denied"))));
    }
}
