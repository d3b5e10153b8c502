//! What `Dockerfile`, `docker-compose.yml` and `deploy/` tell the program, told to the program: their
//! settings load, the metrics they ask for exist, and compose's commands make a working fleet.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use keywheel::config::{Config, Sources};
use keywheel::domain::condition::{ConditionKind, Telling};
use keywheel::domain::time::SystemClock;
use keywheel::sim::{Sim, World};
use serde_json::json;

use crate::support::daemon::{Daemon, Ended, answer};
use crate::support::db::{Backend, TestDb};
use crate::support::smtpd::Smtpd;
use crate::support::wait::{LIMIT, eventually};

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The `KEYWHEEL_…` variables of the compose file.
fn compose_variables() -> Vec<(String, String)> {
    let text = file("docker-compose.yml");
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("KEYWHEEL_"));
    lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect()
}

#[test]
fn the_settings_of_every_deployment_are_ones_the_program_knows() {
    let env = compose_variables();
    assert!(env.len() >= 7, "{env:?}");
    Config::load(&Sources { env, ..Sources::default() }).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let manifest = file("deploy/kubernetes/keywheel.yaml");
    let (_, rest) = manifest.split_once("keywheel.toml: |\n").unwrap();
    let (block, _) = rest.split_once("\n---").unwrap();
    let mut text: String =
        block.lines().map(|line| line.strip_prefix("    ").unwrap()).collect::<Vec<_>>().join(
            "
",
        );
    for (name, secret) in [
        ("database-url", "postgres://kw:secret@db/kw"),
        ("atlas-client-secret", "secret"),
        ("smtp-url", "smtp://kw:secret@mail:587?tls=required"),
        ("installation-key", "keywheel-installation-key 00"),
    ] {
        let path = folder.path().join(name);
        crate::support::daemon::private(&path, secret);
        text = text.replace(&format!("/run/secrets/keywheel/{name}"), &path.display().to_string());
    }
    assert!(!text.contains("/run/secrets"), "{text}");
    let toml = folder.path().join("keywheel.toml");
    std::fs::write(&toml, text).unwrap();
    let loaded = Config::load(&Sources { file: Some(toml), ..Sources::default() }).unwrap();
    assert!(loaded.config.mail.smtp_url.is_some());
    // A pod that lost its key would not start, and one that lost its epoch file would send nothing.
    assert!(loaded.config.server.key_file.ends_with("installation-key"));
    assert!(manifest.contains("kind: StatefulSet") && manifest.contains("volumeClaimTemplates:"));
    assert!(!loaded.config.server.trusted_proxies.is_empty());
    let (_, policy) = manifest.split_once("kind: NetworkPolicy").unwrap();
    let (_, ingress) = policy.split_once("\n  ingress:\n").unwrap();
    let (ingress, _) = ingress.split_once("\n  egress:").unwrap();
    assert_eq!((ingress.matches("    - ").count(), ingress.matches("namespaceSelector:").count()), (4, 2));
    assert!(ingress.starts_with("    - from:"), "a source for each port: {ingress}");

    // What the image listens on needs the setting that the image has.
    let image = file("Dockerfile");
    let env: Vec<_> = image
        .lines()
        .filter_map(|line| line.strip_prefix("ENV KEYWHEEL_"))
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (format!("KEYWHEEL_{name}"), value.to_owned()))
        .collect();
    assert!(image.contains("CMD [\"serve\", \"--listen\", \"0.0.0.0:8440\"]") && env.len() == 2);
    let overrides = vec![("server.listen".to_owned(), "0.0.0.0:8440".to_owned())];
    Config::load(&Sources { env, overrides: overrides.clone(), ..Sources::default() }).unwrap();
    Config::load(&Sources { env: compose_variables(), overrides, ..Sources::default() }).unwrap();

    let unit = file("deploy/systemd/keywheel.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/keywheel serve --config /etc/keywheel/keywheel.toml\n"));
    for kept in ["UMask=0077\n", "LimitCORE=0\n", "MemorySwapMax=0\n", "ProtectProc=invisible\n"] {
        assert!(unit.contains(kept), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let it = Daemon::start_with(
        r#"webhooks = [{ name = "ops", url = "https://hooks.example.com/services/T0/B0/XXXXXXXX", format = "slack" }]"#,
    )
    .await;
    let ada = it.token("ada", "operator");
    it.add(&ada, 1).await;
    let scraped = answer(it.request("GET", "/metrics", "")).await;
    let scraped = scraped.json.as_str().unwrap();
    for name in ["deploy/prometheus/keywheel.rules.yml", "deploy/grafana/keywheel.json"] {
        let text = file(name);
        let asked: BTreeSet<&str> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("keywheel_"))
            .collect();
        assert!(asked.len() >= 8, "{name}: {asked:?}");
        for metric in asked {
            let there = scraped
                .lines()
                .any(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with([' ', '{'])));
            // Mails are counted from the first on.
            assert!(there || metric == "keywheel_mails_total", "{name} asks for {metric}");
        }
    }
    serde_json::from_str::<serde_json::Value>(&file("deploy/grafana/keywheel.json")).unwrap();
}

/// What people hear of wakes them by Prometheus, too: by its condition, or by the metric that counts it otherwise.
#[test]
fn every_condition_that_is_told_has_an_alert_rule() {
    let rules = file("deploy/prometheus/keywheel.rules.yml");
    let otherwise = |kind: ConditionKind| match kind {
        ConditionKind::NeedsOperator => Some("keywheel_rotations{state=\"needs_operator\"}"),
        ConditionKind::Invalid => Some("keywheel_projects{status=\"invalid\"}"),
        ConditionKind::WebhookDisabled => Some("keywheel_webhook_disabled"),
        _ => None,
    };
    for kind in ConditionKind::ALL.iter().filter(|kind| kind.telling() != Telling::Shown) {
        let has = match otherwise(*kind) {
            Some(asked) => rules.contains(asked),
            None => rules.lines().filter(|line| line.contains("keywheel_conditions{kind=")).any(|line| {
                line.split(|c: char| !c.is_ascii_lowercase() && c != '_').any(|word| word == kind.as_str())
            }),
        };
        assert!(has, "{kind} has no rule");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_compose_make_a_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let db = TestDb::bare(Backend::Postgres, "").await;
    let mail = Smtpd::start(json!({}));
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_keywheel"));
    let mut sim = Command::new(&binary);
    sim.args(["sim", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut sim = Ended(sim.spawn().unwrap());
    let mut address = String::new();
    BufReader::new(sim.0.stdout.take().unwrap()).read_line(&mut address).unwrap();

    // As in the file; only the other services' names are the ones they have here.
    let variables: Vec<_> = compose_variables()
        .into_iter()
        .map(|(name, value)| {
            let value = match name.as_str() {
                "KEYWHEEL_DATABASE__URL" => db.url.clone(),
                "KEYWHEEL_ATLAS__BASE_URL" => address.trim().to_owned(),
                "KEYWHEEL_MAIL__SMTP_URL" => format!("smtp://127.0.0.1:{}", mail.port),
                _ => value,
            };
            (name, value)
        })
        .chain([("KEYWHEEL_DATA_DIR".to_owned(), folder.path().display().to_string())])
        .collect();
    let told = |command: &mut Command| {
        command.env_clear().envs(variables.clone()).current_dir(folder.path());
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        command.env("PATH", path);
    };
    let mut serve = Command::new(&binary);
    told(&mut serve);
    serve.args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut serve = Ended(serve.spawn().unwrap());
    let mut log = BufReader::new(serve.0.stderr.take().unwrap()).lines();
    assert!(log.by_ref().map(Result::unwrap).any(|line| line.contains("keywheel serves")));
    std::thread::spawn(move || log.for_each(drop));

    let text = file("docker-compose.yml");
    let (_, rest) = text.split_once("command:\n      - |\n").unwrap();
    let script: Vec<&str> = rest.lines().map_while(|line| line.strip_prefix("        ")).collect();
    let script = script.join(
        "
",
    );
    assert_eq!(script.matches("project add").count(), 3, "{script}");
    let mut seed = Command::new("/bin/sh");
    told(&mut seed);
    let seeded = seed.args(["-c", &script]).output().unwrap();
    let out = String::from_utf8(seeded.stdout).unwrap();
    assert!(
        seeded.status.success() && out.contains("3 projects: "),
        "{out}{}",
        String::from_utf8_lossy(&seeded.stderr)
    );
    // The first one is overdue, so its owner hears of it.
    let heard =
        eventually(LIMIT * 6, async || mail.mails().into_iter().find(|it| it.to == "payments@example.com"));
    heard.await.expect("no reminder arrived");
}

/// Each `curl` of the document about rehearsals, as it stands there.
#[tokio::test]
async fn the_examples_of_rehearsals_are_understood() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sim = Sim::start(listener, World::demo(), Arc::new(SystemClock)).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = file("docs/rehearse.md");
    let mut ran = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("curl ")) {
        let (line, body) =
            line.split_once(" -d '").map_or((line, ""), |(line, body)| (line, body.trim_end_matches('\'')));
        let (method, address) = match line.strip_prefix("-X ").and_then(|rest| rest.split_once(' ')) {
            Some((method, address)) => (method, address),
            None => ("GET", line),
        };
        let url = format!("{}{}", sim.base_url(), address.strip_prefix("127.0.0.1:8441").unwrap());
        let sent = client.request(method.parse().unwrap(), url).body(body.to_owned()).send().await.unwrap();
        let status = sent.status();
        assert!(status.is_success(), "{line}: {status} {}", sent.text().await.unwrap());
        ran += 1;
    }
    assert!(ran >= 14, "{ran} examples");
    let unknown = json!({ "operation": "get_era", "kind": "truncate" }).to_string();
    let url = format!("{}/sim/v1/faults", sim.base_url());
    let refused = client.post(url).body(unknown).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let words = refused.text().await.unwrap();
    assert!(words.contains("did you mean") && words.contains("get_ear"), "{words}");
}
