//! A real SMTP server (aiosmtpd) as a child process, and certificates for it. Where it cannot be had,
//! the test fails and says what to install.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// A running mail server; ended when dropped.
pub(crate) struct Smtpd {
    child: Child,
    pub(crate) port: u16,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

/// A message as it was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) to: String,
    pub(crate) encrypted: bool,
    pub(crate) user: Option<String>,
    pub(crate) content: String,
    pub(crate) helo: String,
}

impl Accepted {
    /// As a reader's program shows it: the soft line breaks of quoted-printable are gone.
    pub(crate) fn read(&self) -> String {
        // The boundary is random, and may contain any short word.
        let boundary = self.content.split_once("boundary=\"").and_then(|(_, rest)| rest.split_once('"'));
        let content = boundary.map_or(self.content.clone(), |(it, _)| self.content.replace(it, ""));
        content.replace("=\n", "").replace("=3D", "=")
    }

    /// The value of a header that stands on one line.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.content.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(&start))
    }
}

impl Drop for Smtpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has the server.
fn python() -> &'static str {
    for python in ["python3", "/usr/bin/python3"] {
        let has = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        if has.is_ok_and(|it| it.success()) {
            return python;
        }
    }
    panic!(
        "these tests need aiosmtpd, a mail server: apt-get install python3-aiosmtpd, or pip install aiosmtpd"
    );
}

impl Smtpd {
    /// Starts one; `orders` are the ones of `smtpd.py`.
    pub(crate) fn start(mut orders: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mails");
        std::fs::write(&file, "").unwrap();
        orders["file"] = json!(file);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/smtpd.py");
        let mut child = Command::new(python())
            .args([script, &orders.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server did not start");
        Self { child, port, file, _folder: folder }
    }

    /// What it has accepted so far.
    pub(crate) fn mails(&self) -> Vec<Accepted> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let mails = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        mails
            .map(|mail| Accepted {
                to: mail["to"][0].as_str().unwrap().to_owned(),
                encrypted: mail["encrypted"] == true,
                user: mail["user"].as_str().map(str::to_owned),
                content: mail["content"].as_str().unwrap().replace("\r\n", "\n"),
                helo: mail["helo"].as_str().unwrap().to_owned(),
            })
            .collect()
    }
}

/// An issuer's certificate, and a server's certificate and key made by it.
pub(crate) struct Certificates {
    pub(crate) issuer: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// For `localhost`; one that is over when `expired`.
    pub(crate) fn new(folder: &Path, expired: bool) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            issuer: write("issuer.pem", &issuer_pem),
            certificate: write("certificate.pem", &certificate),
            key: write("key.pem", &key.serialize_pem()),
        }
    }
}
