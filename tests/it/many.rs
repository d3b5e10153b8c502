//! The newest key, and proposals and approvals for many: the real binary, at a terminal and without one.

use std::io::Write;
use std::process::{Command, Stdio};

use keywheel::sim::world::demo_key;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Said, run};
use crate::support::{group, new_key, old_key};

fn azure_key(number: u32, name: &str, version: u32) -> String {
    demo_key("AZURE", name, number, version)
}

impl Daemon {
    fn does(&self, line: &str) -> Said {
        let said = self.cli(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said
    }

    /// Runs a command with NAME.token at a terminal, where `typed` is typed.
    fn at_terminal(&self, name: &str, line: &str, typed: &str) -> (Option<i32>, String) {
        let binary = env!("CARGO_BIN_EXE_keywheel");
        let line = format!("{binary} --server {} --token-file {name}.token {line}", self.base);
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"])
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stdout).unwrap().replace('\r', ""))
    }

    async fn rotations(&self, token: &str, query: &str) -> Vec<Value> {
        self.get(token, &format!("/rotations{query}")).await.json["items"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_key_is_said_before_it_is_proposed() {
    let it = Daemon::start().await;
    let (ada, victor) = (it.token("ada", "operator"), it.token("victor", "viewer"));
    it.does(&format!("project add {} --kms azure", group(5)));
    let newest = azure_key(5, "identity-prod", 2);
    let path = format!("/projects/{}/newest-key", group(5));
    let found = it.get(&ada, &path).await;
    let wanted = json!({ "key": newest, "currentKey": azure_key(5, "identity-prod", 1), "kms": "azure",
                         "alias": null, "createdAt": "2026-02-01T00:00:00.000000Z" });
    assert_eq!((found.status, &found.json), (200, &wanted));
    assert_eq!(it.get(&victor, &path).await.problem(403), "forbidden");

    let dry = it.cli_as("ada", &["rotate", "identity-prod", "--to", "latest", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.err.starts_with(&format!(
        "the newest key is {newest} (lookup azure, created 2026-02-01T00:00:00.000000Z)\n"
    )));
    assert!(it.rotations(&ada, "").await.is_empty());
    let made = it.cli_as("ada", &["rotate", "identity-prod", "--to", "latest", "--reason", "Q3"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(it.rotations(&ada, "").await[0]["newKey"], json!(newest));

    // Where it cannot be known: no lookup, AWS without an alias, the key that Atlas has, and a service that refuses.
    it.does(&format!("project add {}", group(1)));
    let refused = |code: i32, parts: &[&str]| {
        let said = it.cli_as("ada", &["rotate", "payments-prod", "--to", "latest"]);
        assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{said:?}");
        for part in parts {
            assert!(said.err.contains(part), "{part}: {said:?}");
        }
    };
    let no_lookup = "this project names no lookup (configured for AWS: aws)";
    refused(3, &["code: no-newest-key", no_lookup, "hint: name the key itself with --to KEY"]);
    it.does("project edit payments-prod --kms aws");
    refused(3, &["code: no-newest-key", "AWS does not say which key follows another", "--alias"]);
    it.does("project edit payments-prod --alias alias/payments-prod");
    refused(3, &[&format!("{} (lookup aws, alias/payments-prod, created", old_key()), "code: key-unchanged"]);
    it.sim.with(|world| world.kms.aliases.insert("alias/payments-prod".to_owned(), new_key()));
    it.sim.with(|world| world.kms.denied = ["kms:DescribeKey".to_owned()].into());
    refused(1, &["code: key-service", "kms:DescribeKey", "hint: "]);
    it.sim.with(|world| world.kms.denied.clear());
    it.does("rotate payments-prod --to latest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_proposed_by_a_filter_and_one_that_fails_stops_no_other() {
    let it = Daemon::start().await;
    let ada = it.token("ada", "operator");
    for (number, more) in [
        (1, "--environment prod --kms aws --alias alias/payments-prod"),
        (3, "--environment prod"),
        (5, "--environment prod --kms azure --owner eve@example.com"),
        (6, "--environment test --kms azure"),
        (7, "--environment prod --kms azure"),
        // Its key in force is disabled.
        (8, "--environment prod --kms azure --owner eve@example.com"),
    ] {
        it.does(&format!("project add {} --since 2026-01-01 {more}", group(number)));
    }
    let line = "rotate --environment prod --to latest";
    let all = |more: &str| it.cli_as("ada", &format!("{line} {more}").split_whitespace().collect::<Vec<_>>());
    let unasked = all("");
    assert_eq!((unasked.code, unasked.out.as_str()), (Some(2), ""));
    assert!(unasked.err.contains("--yes"), "{unasked:?}");

    let nobody = it.cli_as("ada", &["rotate", "--owner", "eva@example.com", "--to", "latest", "--dry-run"]);
    assert!(nobody.code == Some(4) && nobody.err.contains("did you mean eve@example.com"), "{nobody:?}");

    let dry = all("--dry-run");
    assert_eq!(dry.code, Some(3), "{dry:?}");
    assert!(dry.err.ends_with("nothing was proposed: 2 ready, 1 refused, 2 skipped\n"), "{dry:?}");
    let row =
        |name: &str| dry.out.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{dry:?}"));
    for (name, parts) in [
        ("payments-prod", vec!["skipped: Atlas has the newest key already"]),
        ("ledger-prod", vec!["skipped: this project names no lookup (configured for AWS: aws)"]),
        ("identity-prod", vec![" pass", "1 approval", "ready"]),
        ("mobile-prod", vec!["1 fail", "refused: "]),
    ] {
        assert!(parts.iter().all(|part| row(name).contains(part)), "{}", row(name));
    }
    assert!(
        row("identity-prod").contains(&azure_key(5, "identity-prod", 2))
            && !dry.out.contains("identity-test")
    );
    assert!(it.rotations(&ada, "").await.is_empty());

    let (code, screen) = it.at_terminal("ada", line, "n\n");
    assert!(code == Some(3) && screen.contains("Propose 2 rotations? [y/N]"), "{code:?} {screen}");
    assert!(it.rotations(&ada, "").await.is_empty());
    let (code, screen) = it.at_terminal("ada", &format!("{line} --owner eve@example.com --reason Q3"), "y\n");
    assert!(code == Some(3) && screen.contains("identity-prod: proposed as "), "{code:?} {screen}");
    let made = it.rotations(&ada, "").await;
    assert_eq!((made.len(), &made[0]["reason"], &made[0]["requestedBy"]), (1, &json!("Q3"), &json!("ada")));

    let yes = all("--yes -o json");
    assert_eq!(yes.code, Some(3), "{yes:?}");
    let report: Value = serde_json::from_str(&yes.out).unwrap();
    let of =
        |name: &str| report["items"].as_array().unwrap().iter().find(|it| it["projectName"] == name).unwrap();
    assert_eq!(of("identity-prod")["result"], "proposed_before");
    assert_eq!(
        (&of("claims-prod")["result"], &of("mobile-prod")["result"]),
        (&json!("proposed"), &json!("refused"))
    );
    assert_eq!(of("identity-prod")["rotationId"], made[0]["id"]);
    assert_eq!(it.rotations(&ada, "").await.len(), 2);

    for (line, code, part) in [
        ("rotate --provider AZURE --due 14d --environment test --to latest --yes", 0, "1 proposed"),
        ("rotate --provider GCP --to latest --yes", 0, "no project fits"),
        ("rotate --owner nobody@example.com --to latest --yes", 4, "no project has the owner"),
        ("rotate --environment prd --to latest --yes", 4, "did you mean prod?"),
        ("rotate --provider AZUR --to latest --yes", 2, "not one of AWS, AZURE, GCP"),
        ("rotate --environment prod --to 1234abcd-12ab-34cd-56ef-1234567890ab --yes", 2, "--to latest"),
        ("rotate --to latest", 2, "PROJECT"),
        ("rotate payments-prod --environment prod --to latest", 2, "cannot be used with"),
        ("rotate payments-prod --due 14d --to latest", 2, "cannot be used with"),
        ("rotate --environment prod --to latest --watch", 2, "cannot be used with"),
    ] {
        let said = it.cli_as("ada", &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.code == Some(code) && said.err.contains(part), "{line}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_approved_one_by_one_by_a_person_who_reads_each_key() {
    let it = Daemon::start().await;
    let (ada, _) = (it.token("ada", "operator"), it.token("grace", "approver"));
    for (number, environment) in [(1, "prod"), (2, "prod"), (3, "prod"), (4, "test")] {
        it.does(&format!("project add {} --environment {environment}", group(number)));
        let key = demo_key("AWS", "", u32::try_from(number).unwrap(), 2);
        it.propose(&ada, &group(number), &key).await;
    }
    for line in ["approve --all-waiting", "approve --environment prod", "approve payments-prod ledger-prod"] {
        let said = it.cli_as("grace", &line.split_whitespace().collect::<Vec<_>>());
        assert!(said.code == Some(2) && said.err.contains("asks a person at the terminal"), "{said:?}");
    }
    let end = |number: u32| demo_key("AWS", "", number, 2).split_off(30);
    // A wrong end is asked again; the second is left out, the third ends it.
    let typed = format!("0000\n{}\ns\nq\n", end(1));
    let (code, screen) = it.at_terminal("grace", "approve --environment prod --comment ok", &typed);
    assert_eq!(code, Some(0), "{screen}");
    let parts = [
        "[1/3] payments-prod (",
        "  new key   ",
        "  proposed  by ada at ",
        "  approvals 0 of 1",
        " pass",
        "the new key does not end so",
        "payments-prod: approved (1 of 1 approvals, approved)",
        "payments-staging: skipped",
        "[3/3] ledger-prod",
    ];
    for part in parts {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    let waiting = it.rotations(&ada, "?state=awaiting_approval").await;
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    let (approved, comment) = ("/approvals/given/0/by", "/approvals/given/0/comment");
    let first = &it.rotations(&ada, &format!("?groupId={}", group(1))).await[0];
    assert_eq!(
        (first.pointer(approved), first.pointer(comment)),
        (Some(&json!("grace")), Some(&json!("ok")))
    );

    // The proposer may not; the others are asked all the same. The end of the input is no approval.
    it.token("both", "operator,approver");
    let said = run(it.folder.path(), &["reject", "payments-staging"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let key = demo_key("AWS", "", 2, 2);
    let own = it.cli_as("both", &["rotate", "payments-staging", "--to", &key]);
    assert_eq!(own.code, Some(0), "{own:?}");
    let (code, screen) =
        it.at_terminal("both", "approve payments-staging ledger-prod", &format!("{}\n{}\n", end(2), end(3)));
    assert!(code == Some(3) && screen.contains("payments-staging: refused"), "{code:?} {screen}");
    assert!(screen.contains("ledger-prod: approved"), "{screen}");
    let (code, screen) = it.at_terminal("grace", "approve --all-waiting", "\u{4}");
    assert!(code == Some(0) && screen.contains("[1/2] search-prod"), "{code:?} {screen}");
    assert_eq!(it.rotations(&ada, "?state=awaiting_approval").await.len(), 2);
}
