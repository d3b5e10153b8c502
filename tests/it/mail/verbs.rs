//! `keywheel mail` as an operator runs it: the real binary, and a real mail server.

use std::path::Path;

use keywheel::domain::notice::Kind;
use serde_json::{Value, json};

use crate::support::daemon::{private, run};
use crate::support::smtpd::Smtpd;

fn configured(folder: &Path, smtp: &str) {
    let text = format!(
        "[atlas.credentials.default]\nkind = \"service-account\"\nclient_id = \"x\"\nclient_secret = \"y\"\n\
         [mail]\nsmtp_url = \"{smtp}\"\nfrom = \"Keywheel <keywheel@example.com>\"\noperators = [\"ops@example.com\"]\n"
    );
    private(folder.join("keywheel.toml"), text);
}

#[test]
fn a_test_mail_shows_the_servers_answer_and_ends_with_a_code_for_each_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Smtpd::start(json!({}));
    let test = |address: &str| run(folder.path(), &["mail", "test", address]);
    configured(folder.path(), &format!("smtp://127.0.0.1:{}", server.port));
    let said = test("ada@example.com");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        said.out,
        format!("127.0.0.1:{} took the mail to ada@example.com: 250 2.0.0 queued as 4711\n", server.port)
    );
    let [mail] = &server.mails()[..] else { panic!("{:?}", server.mails()) };
    assert_eq!(mail.to, "ada@example.com");
    assert_eq!(mail.header("Subject"), Some("Keywheel: test of the mail server"));
    assert_eq!(mail.header("Auto-Submitted"), Some("auto-generated"));
    let said = run(folder.path(), &["mail", "test", "ada@example.com", "-o", "json"]);
    let reply: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(reply["reply"], "250 2.0.0 queued as 4711");

    run(folder.path(), &["mail", "test", "ada@example.com", "--kind", "completed"]);
    assert_eq!(server.mails()[2].header("Subject"), Some("Sample: payments-prod: key rotated"));

    let said = test("refused@example.com");
    assert_eq!((said.code, said.out.as_str()), (Some(3), ""), "{said:?}");
    for part in ["550 5.1.1 nobody of that name here", "hint: correct the address"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    assert_eq!(test("ada").code, Some(2));

    drop(server);
    let said = test("ada@example.com");
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.err.contains("hint: check host and port in mail.smtp_url"), "{said:?}");
    configured(folder.path(), "");
    let said = test("ada@example.com");
    assert!(said.code == Some(1) && said.err.contains("mail.smtp_url is not set"), "{said:?}");
}

#[test]
fn a_preview_needs_no_configuration_and_knows_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["mail", "preview", "--help"]).out;
    for kind in Kind::ALL {
        assert!(help.split_whitespace().any(|word| word == kind.as_str()), "{kind}: {help}");
    }
    let text = run(folder.path(), &["mail", "preview", "approval_requested"]);
    assert!(
        text.out.starts_with("Subject: payments-prod: approve a new encryption key?\n\nada proposes"),
        "{text:?}"
    );
    let html = run(folder.path(), &["mail", "preview", "reminder", "--html"]);
    assert!(html.out.starts_with("<!doctype html>") && html.code == Some(0), "{html:?}");
    let said = run(folder.path(), &["mail", "preview", "remindr"]);
    assert!(said.code == Some(2) && said.err.contains("did you mean reminder?"), "{said:?}");
    let said = run(folder.path(), &["mail", "preview", "reminder", "--server", "https://kw.example"]);
    assert!(said.code == Some(2) && said.err.contains("works on files"), "{said:?}");
}
