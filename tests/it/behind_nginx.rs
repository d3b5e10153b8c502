//! A real nginx with the server block of `docs/operations.md` in front of the real daemon.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::daemon::{Daemon, Ended, answer, keywheel};
use crate::support::new_key;
use crate::support::smtpd::Certificates;
use crate::support::wait::{LIMIT, eventually};

const SECRET: &str = "a secret of at least sixteen letters";

struct Nginx {
    folder: tempfile::TempDir,
    certificates: Certificates,
    port: u16,
    _process: Ended,
}

impl Nginx {
    /// In front of `daemon`; the document's names of files and its ports are replaced, nothing else.
    async fn start(daemon: &Daemon) -> Self {
        assert!(Path::new("/usr/sbin/nginx").exists(), "this test needs nginx: apt-get install nginx-light");
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let certificates = Certificates::new(folder.path(), false);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));
        let (_, block) = document.split_once("```nginx\n").unwrap();
        let mut server = block.split_once("```").unwrap().0.to_owned();
        for (written, here) in [
            ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
            ("/etc/nginx/keywheel.pem", certificates.certificate.display().to_string()),
            ("/etc/nginx/keywheel.key", certificates.key.display().to_string()),
            ("http://127.0.0.1:8440", daemon.base.clone()),
        ] {
            assert!(server.contains(written), "the document does not say {written}");
            server = server.replace(written, &here);
        }
        let here = folder.path().display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {here}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{server}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(folder.path().join("start.log")).arg("-c").arg(&file);
        let process = Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let ready = eventually(LIMIT, async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        let log = || std::fs::read_to_string(folder.path().join("start.log")).unwrap_or_default();
        assert!(ready.is_some(), "{}", log());
        Self { folder, certificates, port, _process: process }
    }

    fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A client of one of this machine's addresses.
    fn client(&self, address: &str) -> reqwest::Client {
        let issuer = std::fs::read(&self.certificates.issuer).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&issuer).unwrap()])
            .local_address(address.parse::<std::net::IpAddr>().unwrap())
            .build()
            .unwrap()
    }

    /// A command of the command line, through nginx with ada's token.
    fn command(&self, daemon: &Daemon, args: &[&str]) -> Command {
        let base = self.base();
        let more = [&["--server", &base, "--token-file", "ada.token"], args].concat();
        let mut command = keywheel(daemon.folder.path(), &more);
        command.env("SSL_CERT_FILE", &self.certificates.issuer);
        command
    }
}

async fn daemon() -> Daemon {
    Daemon::start_with(&format!(
        "hooks = [{{ name = \"atlas\", kind = \"atlas\", secret = \"{SECRET}\" }}]\nserver.trusted_proxies = [\"127.0.0.1\"]"
    ))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_followed_live_through_nginx() {
    let daemon = daemon().await;
    let ada = daemon.token("ada", "operator");
    let grace = daemon.token("grace", "approver");
    let nginx = Nginx::start(&daemon).await;
    let project = daemon.add(&ada, 1).await;
    let proposed =
        nginx.command(&daemon, &["rotate", &project, "--to", &new_key(), "-o", "json"]).output().unwrap();
    assert!(proposed.status.success(), "{proposed:?}");
    let made: serde_json::Value = serde_json::from_slice(&proposed.stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    let mut watch = nginx.command(&daemon, &["rotation", "watch", id, "-o", "json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let watch = Ended(watch);
    // The first entry arrives although the next one does not come before a person acts.
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (first, lines) =
        tokio::time::timeout(LIMIT, first).await.expect("nginx keeps the events back").unwrap();
    assert!(first.contains("awaiting_approval"), "{first}");
    daemon.call(&grace, "POST", &format!("/rotations/{id}/approve"), json!({})).await;
    let last =
        tokio::task::spawn_blocking(move || lines.map_while(Result::ok).last()).await.unwrap().unwrap();
    assert!(last.contains("completed"), "{last}");
    let mut watch = watch;
    assert_eq!(watch.0.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guesser_behind_nginx_slows_nobody_else_down() {
    let daemon = daemon().await;
    let nginx = Nginx::start(&daemon).await;
    let hook = format!("{}/hooks/atlas", nginx.base());
    let body = crate::hooks::alert("AWS_ENCRYPTION_KEY_NEEDS_ROTATION", "OPEN", "x").to_string();
    let right = crate::hooks::atlas_signature(SECRET, body.as_bytes());
    let deliver = async |from: &str, signature: &str, named: Option<&str>| {
        let mut request =
            nginx.client(from).post(&hook).header("x-mms-signature", signature).body(body.clone());
        if let Some(named) = named {
            request = request.header("x-forwarded-for", named);
        }
        answer(request).await.status
    };
    let mut guesses = 0;
    while deliver("127.0.0.1", "guess", None).await != 429 {
        guesses += 1;
        assert!(guesses < 500, "nobody is slowed down");
    }
    assert_eq!(deliver("127.0.0.1", &right, Some("127.0.0.3")).await, 429, "a header makes nobody another");
    assert_eq!(deliver("127.0.0.2", &right, None).await, 202);
    // A body that a hook takes passes, a larger one ends at nginx.
    let sized = async |size: usize| {
        let request =
            nginx.client("127.0.0.4").post(&hook).header("x-mms-signature", "guess").body("x".repeat(size));
        answer(request).await.status
    };
    assert_eq!(sized(300_000).await, 401);
    assert_eq!(sized(1_500_000).await, 413);
    let log = std::fs::read_to_string(nginx.folder.path().join("error.log")).unwrap_or_default();
    assert!(!log.contains("[emerg]"), "{log}");
}
