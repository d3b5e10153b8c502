//! TLS by the daemon itself, over real connections: the real binary with certificates of an authority of
//! our own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Version;

use crate::support::daemon::{Daemon, keywheel, only_for_us, run, serve};
use crate::support::wait::{LIMIT, eventually, eventually_blocking};

/// An authority, and the files of one server in a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The years between which a certificate is valid.
const VALID: (i32, i32) = (2020, 2099);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `server.pem` and `server.key`.
    fn issue(&self, folder: &Path, (from, until): (i32, i32)) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("server.pem"), cert.pem()).unwrap();
        let file = folder.join("server.key");
        std::fs::write(&file, key.serialize_pem()).unwrap();
        only_for_us(&file);
    }

    fn client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root])
    }
}

const TLS: &str = "[server.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n";

/// A daemon that serves TLS only.
async fn daemon(authority: &Authority) -> Daemon {
    let mut it = Daemon::start().await;
    authority.issue(it.folder.path(), VALID);
    it.restart_with(|text| format!("{text}{TLS}"));
    it.base = it.base.replace("http:", "https:");
    it
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_and_the_command_line_arrive_over_tls() {
    let authority = Authority::new();
    let it = daemon(&authority).await;
    let token = it.token("ada", "operator,viewer");
    let url = format!("{}/api/v1/projects", it.base);
    for (client, version) in
        [(authority.client(), Version::HTTP_2), (authority.client().http1_only(), Version::HTTP_11)]
    {
        let client = client.build().unwrap();
        for (token, status) in [(token.as_str(), 200), ("kw_wrong", 401)] {
            let answer = client.get(&url).bearer_auth(token).send().await.unwrap();
            assert_eq!((answer.version(), answer.status().as_u16()), (version, status));
        }
        // Many at once, with bodies: on HTTP/2 they share one connection.
        let body = serde_json::json!({ "groupId": "x".repeat(60_000) });
        let posts = (0..40).map(|_| client.post(&url).bearer_auth(&token).json(&body).send());
        for answer in futures_util::future::join_all(posts).await {
            assert_eq!(answer.unwrap().status(), 422);
        }
    }
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(url.replace("https:", "http:")).send().await.is_err(), "plain HTTP is not served");

    std::fs::write(it.folder.path().join("ca.pem"), &authority.pem).unwrap();
    let status = |trusts: bool| {
        let args = ["--server", &it.base, "--token-file", "ada.token", "status"];
        let mut command = keywheel(it.folder.path(), &args);
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if trusts {
            command.env("SSL_CERT_FILE", it.folder.path().join("ca.pem"));
        }
        command.output().unwrap()
    };
    let said = status(true);
    assert!(said.status.success(), "{said:?}");
    let said = status(false);
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("certificate"),
        "{said:?}"
    );
}

fn hang_up(it: &Daemon) {
    let pid = it.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_takes_a_new_certificate_and_keeps_the_old_one_where_the_new_one_is_bad() {
    let (old, new) = (Authority::new(), Authority::new());
    let it = daemon(&old).await;
    let url = format!("{}/healthz", it.base);
    let trusts = async |authority: &Authority| {
        authority.client().build().unwrap().get(&url).send().await.is_ok_and(|it| it.status() == 200)
    };
    assert!(trusts(&old).await && !trusts(&new).await);
    let kept = authority_client(&old);
    assert!(kept.get(&url).send().await.is_ok());

    new.issue(it.folder.path(), (2001, 2002));
    hang_up(&it);
    let told = || it.log.lock().unwrap().contains("expired at 2002-01-01").then_some(());
    assert!(eventually_blocking(LIMIT, told).is_some(), "{}", it.log.lock().unwrap());
    assert!(it.log.lock().unwrap().contains("the old one stays in force"));
    assert!(trusts(&old).await && !trusts(&new).await);

    new.issue(it.folder.path(), VALID);
    hang_up(&it);
    assert!(eventually(LIMIT, async || trusts(&new).await.then_some(())).await.is_some());
    assert!(!trusts(&old).await);
    // A connection from before goes on.
    assert!(kept.get(&url).send().await.is_ok());
}

fn authority_client(authority: &Authority) -> reqwest::Client {
    authority.client().build().unwrap()
}

/// Makes the configuration one that `config check` takes as it is, and returns it.
fn keep_promise(file: &Path) -> String {
    let text =
        std::fs::read_to_string(file).unwrap().replace("drift_every = \"1h\"", "drift_every = \"90s\"");
    std::fs::write(file, &text).unwrap();
    text
}

#[test]
fn bad_certificates_and_keys_are_refused_with_the_way_out() {
    use std::os::unix::fs::PermissionsExt;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    crate::support::daemon::config(at, "127.0.0.1:0", "http://127.0.0.1:9");
    let file = at.join("keywheel.toml");
    let plain = keep_promise(&file);
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let good = format!("{plain}{TLS}");
    let check = || run(at, &["config", "check"]);
    write(&good);
    authority.issue(at, VALID);
    assert_eq!(check().code, Some(0), "{:?}", check());

    let key = at.join("server.key");
    let cases: [(&str, &dyn Fn(), &str); 9] = [
        ("expired", &|| authority.issue(at, (2001, 2002)), "server.tls.cert_file (keywheel.toml"),
        ("is not valid before 2098", &|| authority.issue(at, (2098, 2099)), "check this machine's clock"),
        (
            "does not belong to the certificate",
            &|| {
                let kept = std::fs::read(&key).unwrap();
                other.issue(at, VALID);
                std::fs::write(&key, kept).unwrap();
            },
            "name the key with which",
        ),
        (
            "server.key can be read by others",
            &|| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap(),
            "run: chmod o-rwx server.key",
        ),
        ("server.key cannot be read", &|| std::fs::remove_file(&key).unwrap(), "name a readable PEM file"),
        ("holds no private key", &|| std::fs::write(&key, "kw-canary").unwrap(), "without a passphrase"),
        (
            "server.pem cannot be read",
            &|| std::fs::remove_file(at.join("server.pem")).unwrap(),
            "name a readable PEM file",
        ),
        (
            "holds no certificate",
            &|| std::fs::write(at.join("server.pem"), "nothing").unwrap(),
            "the server's certificate first",
        ),
        (
            "server.tls.key_file",
            &|| write(&format!("{plain}[server.tls]\ncert_file = \"server.pem\"\n")),
            "is missing beside cert_file",
        ),
    ];
    for (wanted, spoil, way_out) in cases {
        write(&good);
        authority.issue(at, VALID);
        spoil();
        for verb in [&["config", "check"][..], &["serve"]] {
            let said = run(at, verb);
            assert_eq!(said.code, Some(1), "{verb:?}: {said:?}");
            assert!(said.err.contains(wanted) && said.err.contains(way_out), "{wanted}: {said:?}");
            assert!(!said.err.contains("kw-canary"), "{said:?}");
        }
    }
}

#[test]
fn plain_http_for_other_machines_needs_a_proxy_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8440"] {
        crate::support::daemon::config(at, listen, "http://127.0.0.1:9");
        for verb in [&["config", "check"][..], &["serve"]] {
            let said = run(at, verb);
            assert_eq!(said.code, Some(1), "{said:?}");
            for part in [
                "server.listen (keywheel.toml",
                "server.tls.cert_file",
                "server.plain_http = \"behind-a-proxy\"",
            ] {
                assert!(said.err.contains(part), "{part}: {said:?}");
            }
        }
    }
    for listen in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        crate::support::daemon::config(at, listen, "http://127.0.0.1:9");
        keep_promise(&at.join("keywheel.toml"));
        assert_eq!(run(at, &["config", "check"]).code, Some(0), "{listen}");
    }
    let file = at.join("keywheel.toml");
    crate::support::daemon::config(at, "0.0.0.0:0\"\nplain_http = \"behind-a-proxy", "http://127.0.0.1:9");
    let text = keep_promise(&file);
    let said = run(at, &["config", "check"]);
    assert!(said.code == Some(0) && said.err.contains("server.trusted_proxies is empty"), "{said:?}");
    let with = |proxies: &str| {
        std::fs::write(
            &file,
            text.replace("[atlas]", &format!("trusted_proxies = [\"{proxies}\"]\n[atlas]")),
        )
        .unwrap();
        run(at, &["config", "check"])
    };
    let said = with("10.0.0.0/8");
    assert!(said.code == Some(0) && !said.err.contains("trusted_proxies"), "{said:?}");
    let said = with("proxy.example");
    assert!(said.code == Some(1) && said.err.contains("takes an address or a network"), "{said:?}");
    let (mut child, base, _) = {
        with("10.0.0.0/8");
        serve(at)
    };
    assert!(base.starts_with("http://0.0.0.0:"), "{base}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_hang_are_slow_heads_and_keep_nobody_out() {
    let authority = Authority::new();
    let it = daemon(&authority).await;
    let token = it.token("ada", "viewer");
    let address = it.base.strip_prefix("https://").unwrap();
    let client = authority_client(&authority);
    let projects = || client.get(format!("{}/api/v1/projects", it.base)).bearer_auth(&token).send();
    assert_eq!(projects().await.unwrap().status(), 200);
    // Half of them send nothing, half of them the beginning of a handshake.
    let hanging: Vec<TcpStream> = (0..700)
        .map(|at| {
            let mut stream = TcpStream::connect(address).unwrap();
            if at % 2 == 0 {
                stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
            }
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        })
        .collect();
    // The connection that was authenticated before them is still there, and a new one finds a place.
    assert_eq!(projects().await.unwrap().status(), 200);
    assert_eq!(
        authority_client(&authority).get(format!("{}/healthz", it.base)).send().await.unwrap().status(),
        200
    );
    let ended = |mut stream: &TcpStream| matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_));
    assert!(ended(&hanging[0]), "the first ones made room");
    let began = crate::support::wait::Stopwatch::start();
    assert!(ended(hanging.last().unwrap()), "the last one had its ten seconds");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(projects().await.unwrap().status(), 200);
}
