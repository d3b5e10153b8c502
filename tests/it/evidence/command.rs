//! The command line, the API and the page around bundles.

use serde_json::{Value, json};

use super::repack::{pack, replace, sign, text, unpack};
use crate::pages::{Browser, hidden};
use crate::support::daemon::{Daemon, Said};
use crate::support::new_key;

fn verified(daemon: &Daemon, args: &[&str]) -> (Said, Value) {
    let said = daemon.cli(&[&["evidence", "verify", "-o", "json"], args].concat());
    let report = serde_json::from_str(&said.out).unwrap_or(Value::Null);
    (said, report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_exported_and_verified_from_the_command_line() {
    let daemon = Daemon::start().await;
    let (ada, grace) = (daemon.token("ada", "operator"), daemon.token("grace", "approver"));
    daemon.token("ivy", "auditor");
    let project = daemon.add(&ada, 1).await;
    let id = daemon.propose(&ada, &project, &new_key()).await;
    let tail = &new_key()[new_key().len() - 6..];
    let approved =
        daemon.call(&grace, "POST", &format!("/rotations/{id}/approve"), json!({ "tail": tail })).await;
    assert_eq!(approved.status, 200, "{approved:?}");
    daemon.until(&ada, &id, |it| it["state"] == "completed").await;

    let export = ["evidence", "export", "--from", "2026-01-01", "--to", "2099-01-01", "--out"];
    let export = |who: &str, more: &[&str]| daemon.cli_as(who, &[export.as_slice(), more].concat());
    let refused = export("ada", &["a.zip"]);
    assert_eq!(refused.code, Some(3), "an operator: {refused:?}");
    let done = export("ivy", &["a.zip"]);
    assert_eq!((done.code, done.out.trim()), (Some(0), "a.zip"), "{done:?}");
    let there = export("ivy", &["a.zip"]);
    assert!(there.code == Some(2) && there.err.contains("--force"), "{there:?}");
    let again = export("ivy", &["a.zip", "--force", "--project", &project]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let nowhere = export("ivy", &["no/such/folder/a.zip"]);
    assert!(nowhere.code == Some(1) && nowhere.err.contains("cannot be written"), "{nowhere:?}");
    for (from, to, code, what) in [
        ("yesterday", "2026-02-01", 2, "is not a date"),
        ("2026-02-01", "2026-01-01", 2, "must be after from"),
        ("2098-01-01", "2099-01-01", 2, "in the future"),
    ] {
        let said = daemon.cli(&["evidence", "export", "--from", from, "--to", to, "--out", "b.zip"]);
        assert!(said.code == Some(code) && said.err.contains(what), "{said:?}");
    }
    assert!(!daemon.folder.path().join("b.zip").exists());

    let key = daemon.cli(&["evidence", "key"]);
    assert!(key.out.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{key:?}");
    std::fs::write(daemon.folder.path().join("public.pem"), &key.out).unwrap();
    let said = daemon.cli(&["evidence", "verify", "a.zip", "--key", "public.pem"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in
        ["verified: a.zip", "proven:", "claimed, by the installation alone:", "what would prove more:"]
    {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
    assert!(!said.out.contains("who signed it"), "{said:?}");
    let said = daemon.cli(&["evidence", "verify", "a.zip"]);
    assert!(said.code == Some(0) && said.out.contains("who signed it"), "{said:?}");
    // A fingerprint is one, also where a file has its name.
    let (_, report) = verified(&daemon, &["a.zip", "--key", "public.pem"]);
    let print = report["manifest"]["installation"]["fingerprint"].as_str().unwrap();
    std::fs::write(daemon.folder.path().join(print), "another key").unwrap();
    assert_eq!(verified(&daemon, &["a.zip", "--key", print]).0.code, Some(0));
    let (said, report) = verified(&daemon, &["a.zip", "--key", "public.pem", "--previous", "a.zip"]);
    assert_eq!((said.code, &report["verified"]), (Some(0), &json!(true)), "{said:?}");
    let head = format!("{}:{}", report["manifest"]["head"]["after"]["seq"], "0".repeat(64));
    let (said, report) = verified(&daemon, &["a.zip", "--expect", &head]);
    assert_eq!((said.code, &report["faults"][0]["rule"]), (Some(1), &json!("expect")), "{said:?}");
    for (args, code, what) in [
        (["verify", "a.zip", "--key", "none"], 2, "takes a PEM file"),
        (["verify", "a.zip", "--expect", "7"], 3, "colon and its hash"),
        (["verify", "none.zip", "--key", "public.pem"], 4, "there is no file none.zip"),
        (["verify", "keywheel.toml", "--key", "public.pem"], 1, "NOT verified"),
    ] {
        let said = daemon.cli(&[&["evidence"], args.as_slice()].concat());
        assert!(said.code == Some(code) && format!("{}{}", said.out, said.err).contains(what), "{said:?}");
    }
    let listed = daemon.get(&ada, "/audit?limit=200").await.json.to_string();
    assert_eq!(listed.matches("\"evidence.exported\"").count(), 2, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_exports_from_the_page() {
    let daemon = Daemon::start().await;
    let (ivy, vera) = (daemon.token("ivy", "auditor"), daemon.token("vera", "viewer"));
    let browser = Browser::signed_in(&daemon, &ivy).await;
    assert!(browser.get("/audit").await.text.contains("href=\"/evidence\""));
    let page = browser.get("/evidence").await;
    let form = hidden(&page.text, "form");
    let fields = |from: &'static str, to: &'static str| [("form", form.as_str()), ("from", from), ("to", to)];
    for (from, to, what) in [
        ("", "2026-02-01", "it takes a date"),
        ("2026-02-01", "2026-01-01", "must be after from"),
        ("2098-01-01", "2099-01-01", "in the future"),
    ] {
        let wrong = browser.post("/evidence", &fields(from, to)).await;
        assert!(wrong.status == 422 && wrong.text.contains(what), "{}", wrong.text);
        assert!(wrong.text.contains("Nothing was exported"), "{}", wrong.text);
    }
    let done = browser.post("/evidence", &fields("2026-01-01", "2099-01-01")).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.starts_with("PK"), "a zip");
    let forged =
        browser.post("/evidence", &[("form", "x"), ("from", "2026-01-01"), ("to", "2099-01-01")]).await;
    assert_eq!(forged.status, 403, "{}", forged.text);

    let browser = Browser::signed_in(&daemon, &vera).await;
    let page = browser.get("/evidence").await;
    assert!(
        page.text.contains("The role <b>auditor</b>") && !page.text.contains("name=\"to\""),
        "{}",
        page.text
    );
    let form = hidden(&page.text, "form");
    let refused =
        browser.post("/evidence", &[("form", &*form), ("from", "2026-01-01"), ("to", "2099-01-01")]).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

/// A bundle with a vote that a passkey has signed is verified, and a signature that was changed is named.
pub(crate) fn signed_by_a_passkey(daemon: &Daemon, id: &str) {
    let folder = daemon.folder.path();
    let said =
        daemon.cli(&["evidence", "export", "--from", "2026-01-01", "--to", "2099-01-01", "--out", "p.zip"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let (said, report) = verified(daemon, &["p.zip"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let proven = report["proven"].to_string();
    assert!(proven.contains("1 vote signed by passkeys"), "{proven}");

    let key = keywheel::seal::InstallationKey::read(&folder.join("data").join("installation.key"));
    let key =
        key.or_else(|_| keywheel::seal::InstallationKey::read(&folder.join("installation.key"))).unwrap();
    let bundle = std::fs::read(folder.join("p.zip")).unwrap();
    let dossier = format!("dossiers/{id}.json");
    let signature = |files| {
        let it: Value = serde_json::from_str(&text(files, &dossier)).unwrap();
        let evidence: Value = serde_json::from_str(it["votes"][0]["evidence"].as_str().unwrap()).unwrap();
        evidence["signature"].as_str().unwrap().to_owned()
    };
    let mut files = unpack(&bundle);
    let before = signature(&files);
    let mut after = before.clone().into_bytes();
    after[20] = if after[20] == b'A' { b'B' } else { b'A' };
    replace(&mut files, &dossier, &before, std::str::from_utf8(&after).unwrap());
    sign(&mut files, &key, |_| ());
    std::fs::write(folder.join("q.zip"), pack(&files)).unwrap();
    let (said, report) = verified(daemon, &["q.zip"]);
    let rules: Vec<_> = report["faults"].as_array().unwrap().iter().map(|it| it["rule"].clone()).collect();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(rules.contains(&json!("passkey")) && rules.contains(&json!("votes")), "{report}");
    let mut files = unpack(&bundle);
    replace(&mut files, "passkeys.csv", "ES256", "EdDSA");
    sign(&mut files, &key, |_| ());
    std::fs::write(folder.join("q.zip"), pack(&files)).unwrap();
    let (_, report) = verified(daemon, &["q.zip"]);
    assert_eq!(report["faults"][0]["file"], "passkeys.csv", "{report}");
}
