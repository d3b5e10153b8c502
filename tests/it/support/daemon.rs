//! The real binary as a child process, on SQLite, against a simulator in this process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use keywheel::domain::time::SystemClock;
use keywheel::sim::{Sim, World};
use serde_json::Value;

use super::wait::{LIMIT, eventually};

/// A daemon with a folder of its own; ended when dropped.
pub(crate) struct Daemon {
    pub(crate) sim: Sim,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) base: String,
    pub(crate) child: Child,
    pub(crate) log: Arc<Mutex<String>>,
    http: reqwest::Client,
}

/// What one command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) json: Value,
}

impl Answer {
    /// The stable code of a problem document; fails when it is not one.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["status"], status);
        let code = self.json["code"].as_str().unwrap();
        assert_eq!(self.json["type"], format!("urn:keywheel:problem:{code}"));
        for member in ["title", "detail"] {
            assert!(self.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {self:?}");
        }
        code
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration with waits that tests can bear.
pub(crate) fn config(folder: &Path, listen: &str, base_url: &str) {
    let text = format!(
        r#"
data_dir = "{}"
[server]
listen = "{listen}"
[atlas]
base_url = "{base_url}"
request_timeout = "5s"
[atlas.credentials.default]
kind = "service-account"
client_id = "mdb_sa_id_demo"
client_secret = "mdb_sa_sk_demo"
[verify]
every = "60ms"
false_grace = "200ms"
timeout = "20s"
guard = "30s"
private_network_hold = "31s"
deploy_poll = "60ms"
deploy_grace = "2500ms"
deploy_timeout = "20s"
[pace]
backoff_min = "50ms"
backoff_max = "300ms"
rate_limit_floor = "200ms"
settle = "400ms"
[sweep]
cron = "* * * * * *"
drift_every = "1h"
watch_every = "1s"
watch_for = "1s"
[kms.aws]
kind = "aws"
endpoint = "{base_url}/kms/aws"
access_key_id = "AKIAKEYWHEELDEMO0000"
secret_access_key = "keywheel-demo-aws"
[kms.azure]
kind = "azure"
endpoint = "{base_url}/kms/azure"
authority = "{base_url}/kms/entra"
tenant_id = "00000000-0000-4000-8000-000000000002"
client_id = "00000000-0000-4000-8000-000000000009"
client_secret = "keywheel-demo-azure"
"#,
        folder.join("data").display()
    );
    let file = folder.join("keywheel.toml");
    private(&file, text);
}

/// Writes a file that only its owner may open.
pub(crate) fn private(file: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    std::fs::write(&file, text).unwrap();
    only_for_us(file.as_ref());
}

/// Mode 0600.
pub(crate) fn only_for_us(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The binary, in `folder`, with nothing of the caller's environment that would speak into it.
pub(crate) fn keywheel(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for name in [
        "KEYWHEEL_CONFIG",
        "KEYWHEEL_SERVER",
        "KEYWHEEL_TOKEN_FILE",
        "RUST_LOG",
        "NO_COLOR",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs one command in `folder` to its end.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Said {
    let output = keywheel(folder, args).output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts `serve` in `folder`; gives its address once it answers, and its log as it grows.
pub(crate) fn serve(folder: &Path) -> (Child, String, Arc<Mutex<String>>) {
    let mut child =
        keywheel(folder, &["serve"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (log, (serves, address)) = (Arc::new(Mutex::new(String::new())), mpsc::channel());
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("keywheel serves address=") {
                let _ = serves.send(format!("http://{}", address.trim()));
            }
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    let address = address.recv_timeout(LIMIT);
    let address = address.unwrap_or_else(|_| panic!("it does not serve:\n{}", log.lock().unwrap()));
    (child, address, log)
}

/// A process that ends with its test, however that ends.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more settings, as dotted keys.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        config(folder.path(), "127.0.0.1:0", &sim.base_url());
        let file = folder.path().join("keywheel.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        // Those of the server stand in a table of their own.
        let (server, above): (Vec<_>, Vec<_>) =
            settings.lines().partition(|line| line.starts_with("server."));
        let server: String = server.iter().map(|line| line.replacen("server.", "", 1) + "\n").collect();
        let text = text.replacen("[server]\n", &format!("[server]\n{server}"), 1);
        std::fs::write(&file, format!("{}\n{text}", above.join("\n"))).unwrap();
        let (child, base, log) = serve(folder.path());
        // A server may close a connection after an answer, while the next request is on its way: each gets its own.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { sim, folder, base, child, log, http }
    }

    /// Makes a token; its file is NAME.token in the daemon's folder.
    pub(crate) fn token(&self, name: &str, roles: &str) -> String {
        let person = format!("{name}@example.com");
        let made = self.cli(&["token", "create", "--name", name, "--role", roles, "--person", &person]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let file = self.folder.path().join(format!("{name}.token"));
        std::fs::write(&file, &made.out).unwrap();
        only_for_us(&file);
        made.out.trim().to_owned()
    }

    /// Runs a command over the local socket.
    pub(crate) fn cli(&self, args: &[&str]) -> Said {
        run(self.folder.path(), args)
    }

    /// Runs a command over HTTP with NAME.token.
    pub(crate) fn cli_as(&self, name: &str, args: &[&str]) -> Said {
        let file = format!("{name}.token");
        run(self.folder.path(), &[&["--server", &self.base, "--token-file", &file], args].concat())
    }

    pub(crate) fn request(&self, method: &str, path: &str, token: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    /// One call below `/api/v1`; an empty token sends none.
    pub(crate) async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let path = format!("/api/v1{path}");
        let request = self.request(method, &path, token);
        let answer = answer(if body.is_null() { request } else { request.json(&body) }).await;
        super::document::judge(method, &path, answer.status, &answer.json);
        answer
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, Value::Null).await
    }

    /// Tracks the demo project `number`.
    pub(crate) async fn add(&self, token: &str, number: u64) -> String {
        let group = super::group(number);
        let body = serde_json::json!({ "groupId": group, "owners": ["ada@example.com"] });
        let added = self.call(token, "POST", "/projects", body).await;
        assert_eq!(added.status, 201, "{added:?}");
        group
    }

    /// Proposes a move; gives the rotation's id.
    pub(crate) async fn propose(&self, token: &str, group: &str, key: &str) -> String {
        let body = serde_json::json!({ "newKey": key });
        let made = self.call(token, "POST", &format!("/projects/{group}/rotations"), body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json["id"].as_str().unwrap().to_owned()
    }

    /// Reads a rotation until `there` is content with it.
    pub(crate) async fn until(&self, token: &str, id: &str, there: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Value::Null;
        let reached = eventually(LIMIT, async || {
            seen = self.get(token, &format!("/rotations/{id}")).await.json;
            there(&seen).then_some(())
        });
        assert!(reached.await.is_some(), "stuck at {seen:#}\n{}", self.log.lock().unwrap());
        seen
    }
}

/// Sends a request and reads its answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let reply = request.send().await.unwrap();
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let text = reply.text().await.unwrap();
    Answer { status, headers, json: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}
