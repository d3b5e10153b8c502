//! Evidence bundles: what is exported is verified, and whatever is changed afterwards is found and named.

mod command;
mod repack;

use std::sync::OnceLock;

use keywheel::domain::rotation::state::State;
use keywheel::domain::time::Timestamp;
use keywheel::engine::command::OperatorVerb;
use keywheel::engine::evidence::{EvidenceRequest, MadeBundle};
use keywheel::engine::propose::Proposed;
use keywheel::engine::witness;
use keywheel::evidence::{Mark, Report, TrustedKey, verify};
use keywheel::seal::InstallationKey;
use keywheel::sim::World;
use keywheel::sim::fault::{Fault, Kind};
use keywheel::sim::world::{KeyState, demo_key};
use keywheel::store::NewAudit;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::support::db::{Backend, key};
use crate::support::{TestApp, group, new_key};
pub(crate) use command::signed_by_a_passkey;
use repack::{Files, file, pack, rechain, replace, sign, text, unpack};

fn trusted() -> TrustedKey {
    TrustedKey::parse(&key().fingerprint()).unwrap()
}

fn checked(bundle: &[u8]) -> Report {
    verify(bundle, Some(&trusted()), None, None)
}

/// Whether a file of a bundle is of this kind.
fn is(name: &str, kind: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end == kind)
}

/// The faults, a line each.
fn faults(report: &Report) -> String {
    report.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn finds(bundle: &[u8], what: &str) {
    let report = checked(bundle);
    assert!(!report.verified && faults(&report).contains(what), "{what}:\n{}", faults(&report));
}

async fn fetched(made: &MadeBundle) -> std::io::Result<Vec<u8>> {
    let mut bundle = Vec::new();
    loop {
        let part = made.bytes.read().await?;
        if part.is_empty() {
            return Ok(bundle);
        }
        bundle.extend(part);
    }
}

async fn export(app: &TestApp, from: Timestamp, to: Timestamp) -> Vec<u8> {
    let asked = EvidenceRequest { from, to, project: None };
    let made = app.engine.export_evidence("ada", &asked).await.unwrap();
    let bundle = fetched(&made).await.unwrap();
    assert_eq!(bundle.len() as u64, made.size);
    bundle
}

async fn propose(app: &TestApp, number: u64, key: &str) -> keywheel::store::RotationRow {
    let group = group(number).parse().unwrap();
    let proposed = app.engine.propose("ada", &group, key.parse().unwrap(), Some("=1+1".to_owned()), false);
    let Proposed::Created(row) = proposed.await.unwrap() else { panic!("not new") };
    row
}

/// A project whose key was changed, a proposal that was rejected, and one that is open.
async fn history(backend: Backend) -> (TestApp, Timestamp, Timestamp) {
    let app = TestApp::on(backend, World::demo()).await;
    let from = app.engine.clock.now();
    app.track(2).await;
    let row = app.approved().await;
    app.settle(&row).await;
    app.pass(std::time::Duration::from_secs(5));
    witness::once(&app.engine, &CancellationToken::new()).await.unwrap();
    let next = demo_key("AWS", "payments-prod", 1, 3);
    let rejected = propose(&app, 1, &next).await;
    app.engine.say("grace", rejected.rotation.id, OperatorVerb::Reject, None, None).await.unwrap();
    app.pass(std::time::Duration::from_secs(5));
    let open = propose(&app, 1, &next).await;
    app.engine
        .say("bob", open.rotation.id, OperatorVerb::Approve, Some("ünd \"so\"".to_owned()), None)
        .await
        .unwrap();
    app.pass(std::time::Duration::from_secs(5));
    let to = app.engine.clock.now();
    (app, from, to)
}

/// The bundle that the tests tamper with.
fn bundle() -> &'static [u8] {
    static BUNDLE: OnceLock<Vec<u8>> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let (app, from, to) = history(Backend::Sqlite).await;
                export(&app, from, to).await
            })
        })
        .join()
        .unwrap()
    })
}

async fn exported_and_verified(backend: Backend) {
    let (app, from, to) = history(backend).await;
    let first = export(&app, from, to).await;
    let report = checked(&first);
    assert!(report.verified, "{}", faults(&report));
    let manifest = report.manifest.clone().unwrap();
    assert_eq!(manifest.counts["rotations.csv"], 3, "{manifest:?}");
    assert_eq!(manifest.counts["approvals.csv"], 2, "{manifest:?}");
    assert!(report.proven.iter().any(|it| it.contains("signed by the key that was given")), "{report:?}");
    assert!(
        report.proven.iter().any(|it| it.contains("the population is complete: 3 rotations")),
        "{report:?}"
    );

    // Without a key from elsewhere the signer is only claimed; a row from elsewhere proves the log.
    let alone = verify(&first, None, None, None);
    assert!(alone.verified && alone.claimed[0].contains("is the installation's"), "{alone:?}");
    let head = manifest.head.after.clone();
    let noted = verify(&first, Some(&trusted()), Some(&head), None);
    assert!(noted.verified && noted.proven.iter().any(|it| it.contains("noted elsewhere")), "{noted:?}");
    let wrong = verify(&first, None, Some(&Mark { hash: "0".repeat(64), ..head.clone() }), None);
    assert!(faults(&wrong).contains("expect: row"), "{}", faults(&wrong));
    let missing = verify(&first, None, Some(&Mark { seq: head.seq + 1, ..head }), None);
    assert!(faults(&missing).contains("export a period that reaches it"), "{}", faults(&missing));

    // The next one goes on where it ended, and not the other way round.
    let second = export(&app, to, to + std::time::Duration::from_secs(86_400)).await;
    let on = verify(&second, Some(&trusted()), None, Some(&first));
    assert!(on.verified, "{}", faults(&on));
    assert!(on.proven.iter().any(|it| it.contains("goes on")), "{on:?}");
    assert_eq!(on.manifest.unwrap().counts["rotations.csv"], 1, "the one that is open");
    let back = verify(&first, Some(&trusted()), None, Some(&second));
    assert!(faults(&back).contains("it is the later one"), "{}", faults(&back));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_is_verified_on_sqlite() {
    exported_and_verified(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_is_verified_on_postgres() {
    exported_and_verified(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_period_without_rotations_gives_a_bundle_that_says_so() {
    let (app, from, _) = history(Backend::Sqlite).await;
    let year = std::time::Duration::from_secs(365 * 86_400);
    let report = checked(&export(&app, from - 2 * year, from - year).await);
    assert!(report.verified, "{}", faults(&report));
    assert!(report.proven.iter().any(|it| it.contains("no rotation was open")), "{report:?}");
    for (from, to) in [(from, from), (from, from - year), (from + year, from + 2 * year)] {
        let asked = EvidenceRequest { from, to, project: None };
        let refused = app.engine.export_evidence("ada", &asked).await.unwrap_err().to_string();
        assert!(refused.contains("must be after from") || refused.contains("in the future"), "{refused}");
    }
    let project = Some(group(9).parse().unwrap());
    let asked = EvidenceRequest { from, to: from + year, project };
    let refused = app.engine.export_evidence("ada", &asked).await.unwrap_err().to_string();
    assert!(refused.contains("is not tracked"), "{refused}");
    let asked = EvidenceRequest { project: Some(group(2).parse().unwrap()), ..asked };
    let bundle = fetched(&app.engine.export_evidence("ada", &asked).await.unwrap()).await.unwrap();
    let report = checked(&bundle);
    assert!(report.verified, "{}", faults(&report));
    assert_eq!(report.manifest.unwrap().counts["rotations.csv"], 0, "project 2 had none");
}

#[test]
fn the_bundle_is_packed_as_the_document_says() {
    let files = unpack(bundle());
    assert_eq!(pack(&files), bundle(), "the format has one spelling");
    let rotations = text(&files, "rotations.csv");
    assert!(rotations.contains("\"'=1+1\""), "no formula: {rotations}");
    let pages: Vec<_> = files.iter().filter(|(name, _)| is(name, "html")).collect();
    assert_eq!(pages.len(), 3);
    let page = String::from_utf8(pages[0].1.clone()).unwrap();
    assert!(
        page.contains("payments-prod") && page.contains(&new_key()) && !page.contains("<script"),
        "{page}"
    );
    assert!(text(&files, "README.txt").contains("keywheel evidence verify"));
    assert!(text(&files, "findings.csv").lines().count() >= 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte_anywhere_is_found_and_named(at in any::<proptest::sample::Index>(), by in 1..=255_u8) {
        let mut changed = bundle().to_vec();
        let at = at.index(changed.len());
        changed[at] ^= by;
        let report = checked(&changed);
        prop_assert!(!report.verified, "byte {at}");
        let found = faults(&report);
        prop_assert!(found.contains("byte ") || found.contains(".json") || found.contains(".csv"), "{}", found);
    }

    #[test]
    fn one_changed_byte_of_a_file_is_found_where_the_archive_is_repaired(at in any::<proptest::sample::Index>(), which in any::<proptest::sample::Index>(), by in 1..=255_u8) {
        let mut files = unpack(bundle());
        let which = which.index(files.len());
        let (name, content) = &mut files[which];
        let at = at.index(content.len());
        content[at] ^= by;
        let name = name.clone();
        let report = checked(&pack(&files));
        prop_assert!(!report.verified, "{} byte {}", name, at);
        let named = report.faults.iter().any(|it| it.file.as_ref() == Some(&name) || name.starts_with("manifest"));
        prop_assert!(named, "{}: {}", name, faults(&report));
    }

    #[test]
    fn a_bundle_that_is_cut_off_or_longer_is_refused(at in any::<proptest::sample::Index>(), more in proptest::collection::vec(any::<u8>(), 1..40)) {
        let cut = &bundle()[..at.index(bundle().len())];
        prop_assert!(!checked(cut).verified);
        let longer = [bundle(), more.as_slice()].concat();
        prop_assert!(faults(&checked(&longer)).contains("something follows"));
    }
}

/// The bundle after `change`, with its manifest repaired and signed by the installation's own key again: what its
/// operators could do.
fn resigned(change: impl FnOnce(&mut Files)) -> Vec<u8> {
    let mut files = unpack(bundle());
    change(&mut files);
    sign(&mut files, &key(), |_| ());
    pack(&files)
}

fn lines(files: &mut Files, name: &str, change: impl FnOnce(&mut Vec<String>)) {
    let before = text(files, name);
    let mut lines: Vec<String> = before.split_inclusive('\n').map(str::to_owned).collect();
    change(&mut lines);
    *file(files, name) = lines.concat().into_bytes();
}

#[test]
fn a_repaired_bundle_that_says_the_same_is_verified() {
    let report = checked(&resigned(|_| ()));
    assert!(report.verified, "{}", faults(&report));
    assert_eq!(resigned(|_| ()), bundle(), "signatures of Ed25519 are the same each time");
}

#[test]
fn rows_that_are_dropped_doubled_moved_or_changed_are_named() {
    let audit = |change: fn(&mut Vec<String>)| resigned(|files| lines(files, "audit.jsonl", change));
    finds(&audit(|lines| drop(lines.remove(3))), "audit.jsonl, line 4: chain: row");
    finds(&audit(|lines| lines.insert(3, lines[3].clone())), "audit.jsonl, line 5: chain: row");
    finds(&audit(|lines| lines.swap(3, 4)), "audit.jsonl, line 4: chain: row");
    finds(&audit(|lines| drop(lines.pop())), "audit.jsonl: chain: it ends with row");
    finds(&audit(|lines| lines[2] = lines[2].replacen("ada", "bob", 1)), "audit.jsonl, line 3: chain: row");
    finds(
        &audit(|lines| lines[2] = lines[2].replacen("{\"seq\"", "{ \"seq\"", 1)),
        "line 3: chain: it is not written",
    );
    finds(&audit(|lines| lines.remove(0).clear()), "audit.jsonl, line 1: chain: row");
}

/// Leaves the first rotation out everywhere, but in the chain.
fn left_out(files: &mut Files) -> String {
    let table = text(files, "rotations.csv");
    let id = table.lines().nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    files.retain(|(name, _)| !name.contains(&id));
    for name in ["rotations.csv", "approvals.csv", "mails.csv"] {
        lines(files, name, |lines| lines.retain(|line| !line.contains(&id)));
    }
    id
}

#[test]
fn a_rotation_that_is_left_out_or_added_is_named() {
    let mut id = String::new();
    let bundle = resigned(|files| id = left_out(files));
    finds(&bundle, &format!("rotations.csv: population: rotation {id} was open in the period"));
    let other = InstallationKey::of([8; 32]).unwrap();
    let mut files = unpack(&bundle);
    sign(&mut files, &other, |_| ());
    finds(&pack(&files), "the bundle is signed by another key than the one given");
    let alone = verify(&pack(&files), None, None, None);
    assert!(faults(&alone).contains(&id), "without a key, too: {}", faults(&alone));
    // A shorter period makes rotations of others.
    let mut files = unpack(self::bundle());
    sign(&mut files, &key(), |manifest| manifest["period"]["to"] = manifest["period"]["from"].clone());
    finds(&pack(&files), "was not open in the period");
    finds(&resigned(|files| drop(files.remove(10))), "population: ");
}

#[test]
fn what_the_tables_and_dossiers_say_beside_the_chain_is_named() {
    let dossier = |files: &Files| files.iter().find(|(name, _)| is(name, "json")).unwrap().0.clone();
    let both = |from: &'static str, to: &'static str| {
        resigned(move |files| {
            let name = dossier(files);
            replace(files, &name, from, to);
            if text(files, "rotations.csv").contains(from) {
                replace(files, "rotations.csv", from, to);
            }
            if text(files, "approvals.csv").contains(from) {
                replace(files, "approvals.csv", from, to);
            }
        })
    };
    finds(
        &both("\"voter\":\"grace\"", "\"voter\":\"edsger\""),
        "its votes are not those that audit.jsonl has sealed last",
    );
    finds(&both("\"state\":\"completed\"", "\"state\":\"failed\""), "dossier: it differs from its row");
    let new = new_key();
    finds(
        &resigned(|files| {
            let name = dossier(files);
            for name in [name.as_str(), "rotations.csv"] {
                replace(files, name, &new, &new.replace('2', "3"));
            }
        }),
        "proposal: rotation",
    );
    finds(
        &resigned(|files| {
            let name = dossier(files);
            replace(files, &name, "\"to\":\"verifying\"", "\"to\":\"failed\"");
        }),
        "journal: rotation",
    );
    finds(
        &resigned(|files| {
            let name = dossier(files);
            replace(files, &name, "\"auditRows\":[", "\"auditRows\":[1,");
        }),
        "its auditRows are not",
    );
    finds(
        &resigned(|files| lines(files, "approvals.csv", |lines| drop(lines.pop()))),
        "approvals.csv, line 3: votes",
    );
    finds(
        &resigned(|files| replace(files, "policies.csv", "90d", "91d")),
        "its version is not that of its content",
    );
    finds(
        &resigned(|files| {
            lines(files, "policies.csv", |lines| lines.retain(|it| !it.contains("project.added")));
        }),
        "changes rules",
    );
    finds(
        &resigned(|files| replace(files, "keys.csv", "project_id", "project")),
        "keys.csv, line 1: csv: its columns",
    );
    finds(&resigned(|files| replace(files, "mails.csv", "\"completed\"", "\"failed\"")), "mails: rotation");
}

#[test]
fn hostile_archives_are_refused() {
    let files = unpack(bundle());
    let named = |name: &str| {
        let mut files = files.clone();
        files.insert(1, (name.to_owned(), b"x".to_vec()));
        pack(&files)
    };
    for name in ["../../etc/passwd", "/etc/passwd", "a/../b", "a//b", ".hidden", "a/.b"] {
        finds(&named(name), "leads out of the bundle");
    }
    finds(&named("a\\b"), "characters that no name");
    finds(&named(&"a".repeat(65)), "longer than 64 bytes");
    finds(&named("README.txt"), "two files named README.txt");
    finds(&named("more.txt"), "the manifest has audit.jsonl in this place");
    // A compressed file, as in an archive that swells: nothing is inflated.
    let mut bomb = bundle().to_vec();
    bomb[8] = 8;
    finds(&bomb, "the header of README.txt differs");
    let mut long = bundle().to_vec();
    long[22..26].fill(0xff);
    finds(&long, "the header of README.txt differs");
    for nothing in [&b""[..], b"PK\x05\x06", b"not a zip", &[0; 22]] {
        assert!(!checked(nothing).verified);
    }
    let empty = pack(&Files::new());
    finds(&empty, "manifest.json: manifest: it is missing");
}

#[test]
fn a_key_is_followed_over_its_changes_and_no_further() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let (old, new) = (InstallationKey::of([9; 32]).unwrap(), key());
    let next = [b"keywheel installation key\n", new.public_key()].concat();
    let link = |signature: Vec<u8>| {
        serde_json::json!({
            "row": 7, "at": "2026-01-01T00:00:00.000000Z", "from": old.fingerprint(), "to": new.fingerprint(),
            "oldPublicKey": STANDARD.encode(old.public_key()), "publicKey": STANDARD.encode(new.public_key()),
            "signature": STANDARD.encode(signature),
        })
    };
    let with = |signature: Vec<u8>| {
        let mut files = unpack(bundle());
        sign(&mut files, &new, |manifest| manifest["keys"] = serde_json::json!([link(signature)]));
        pack(&files)
    };
    let trusted = TrustedKey::parse(&STANDARD.encode(old.public_key())).unwrap();
    let report = verify(&with(old.sign(&next)), Some(&trusted), None, None);
    assert!(report.verified, "{}", faults(&report));
    assert!(report.proven.iter().any(|it| it.contains("over 1 signed change")), "{report:?}");
    let report = verify(&with(new.sign(&next)), Some(&trusted), None, None);
    assert!(faults(&report).contains("did not sign that"), "{}", faults(&report));
    let stranger = TrustedKey::parse(&"ab".repeat(16)).unwrap();
    let report = verify(bundle(), Some(&stranger), None, None);
    assert!(faults(&report).contains("signed by another key"), "{}", faults(&report));
    for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &"g".repeat(64)] {
        assert_eq!(TrustedKey::parse(text), None, "{text}");
    }
}

/// A bundle that an insider with the installation's key has made, and what both verifiers say about it.
type Forgery = (&'static str, &'static str, Vec<u8>);

/// The first vote of a dossier, and the name of its file.
fn first_vote(files: &Files) -> (String, String) {
    let voted = files
        .iter()
        .find(|(name, content)| is(name, "json") && content.windows(9).any(|it| it == b"\"voter\":\""));
    let name = voted.unwrap().0.clone();
    let dossier = text(files, &name);
    let begin = dossier.find("\"votes\":[").unwrap() + 9;
    let end = dossier[begin..].find('}').unwrap() + begin;
    (name, dossier[begin..=end].to_owned())
}

fn forgeries() -> Vec<Forgery> {
    let vote = |from: &str, to: &str| {
        resigned(|files| {
            let (name, vote) = first_vote(files);
            replace(files, &name, &vote, &vote.replace(from, to));
        })
    };
    let twice = resigned(|files| {
        let (name, vote) = first_vote(files);
        replace(files, &name, &vote, &format!("{vote},{vote}"));
    });
    let quorum = resigned(|files| {
        let (name, _) = first_vote(files);
        replace(files, &name, "\\\"approvals\\\":1", "\\\"approvals\\\":2");
    });
    let log = |change: &dyn Fn(&mut Vec<String>)| {
        resigned(|files| {
            lines(files, "audit.jsonl", change);
            rechain(files);
        })
    };
    let sent = |rows: &mut Vec<String>| {
        let at = rows.iter().position(|row| row.contains("\"rotation.patch_intent\"")).unwrap();
        let row = rows.remove(at);
        let at = rows.iter().position(|row| row.contains("\\\"to\\\":\\\"approved\\\"")).unwrap();
        rows.insert(at, row);
    };
    let repeated = |rows: &mut Vec<String>| {
        rows[2] = rows[2].replacen("\"detail\":\"{", "\"detail\":\"{\\\"a\\\":1,\\\"a\\\":2,", 1);
    };
    let largest = {
        let mut files = unpack(bundle());
        sign(&mut files, &key(), |manifest| {
            manifest["head"]["before"] = serde_json::json!({ "seq": i64::MAX, "hash": "0".repeat(64) });
        });
        pack(&files)
    };
    vec![
        ("voted twice", "a voter twice", twice),
        ("is not the number that its policy asks for", "another quorum than the policy's", quorum),
        (
            "its policy approves no such trigger",
            "the policy approves no such trigger",
            vote("\"method\":\"api\"", "\"method\":\"auto_approve\""),
        ),
        (
            "(link) is weaker than its policy",
            "a weaker method",
            vote("\"method\":\"api\"", "\"method\":\"link\""),
        ),
        ("sends its new key while it waits", "its rows", log(&sent)),
        ("repeats a member", "a member twice", log(&repeated)),
        ("is no place in a log", "the row before the first", largest),
        (
            "it is not written as Keywheel",
            "no line feed",
            resigned(|files| file(files, "audit.jsonl").extend(b"x")),
        ),
    ]
}

#[test]
fn what_an_insider_with_the_key_makes_up_is_named() {
    for (what, _, bundle) in forgeries() {
        finds(&bundle, what);
    }
    let chained = log_of_the_same();
    assert!(checked(&chained).verified, "{}", faults(&checked(&chained)));
}

/// The same rows, linked anew: the helper of the forgeries changes nothing else.
fn log_of_the_same() -> Vec<u8> {
    resigned(rechain)
}

#[test]
fn faults_beyond_the_hundredth_still_take_back_what_is_proven() {
    let forged = resigned(|files| {
        let rows = text(files, "audit.jsonl");
        let bad = rows.lines().next().unwrap().replacen("{\"seq\"", "{ \"seq\"", 1) + "\n";
        let (name, vote) = first_vote(files);
        replace(files, &name, &vote, &format!("{vote},{vote}"));
        *file(files, "audit.jsonl") = (bad.repeat(120) + &rows).into_bytes();
    });
    let report = checked(&forged);
    assert_eq!(report.faults.len(), 100);
    assert!(!report.proven.iter().any(|it| it.contains("stood before")), "{:?}", report.proven);
    assert!(!report.proven.iter().any(|it| it.contains("are whole")), "{:?}", report.proven);
}

#[test]
fn a_fault_writes_no_line_of_its_own() {
    let mut files = unpack(bundle());
    sign(&mut files, &key(), |manifest| {
        manifest["files"][1]["name"] = "a\nproven:\n  - all".into();
    });
    let said = faults(&checked(&pack(&files)));
    assert!(said.contains("\\u{a}proven:") && !said.contains("\nproven:"), "{said}");
}

#[test]
fn what_an_early_mark_or_no_seals_leave_open_is_claimed() {
    let report = checked(bundle());
    let last = report.manifest.unwrap().head.after;
    assert!(
        report.proven.iter().any(|it| it.starts_with("1 sealed vote stood before")),
        "{:?}",
        report.proven
    );
    let rows = text(&unpack(bundle()), "audit.jsonl");
    let early: Mark = {
        let row: serde_json::Value = serde_json::from_str(rows.lines().nth(2).unwrap()).unwrap();
        Mark { seq: row["seq"].as_i64().unwrap(), hash: row["hash"].as_str().unwrap().to_owned() }
    };
    let noted = |mark: &Mark| verify(bundle(), Some(&trusted()), Some(mark), None).claimed.join("\n");
    let claims = noted(&early);
    assert!(
        claims.contains(&format!("that rows {} to {} were not rewritten", early.seq + 1, last.seq)),
        "{claims}"
    );
    let claims = noted(&last);
    assert!(!claims.contains("not rewritten") && claims.contains("that no row followed row"), "{claims}");

    // As before the first seal: nothing is a fault, and the votes are claimed.
    let unsealed = resigned(|files| {
        lines(files, "audit.jsonl", |rows| {
            for row in rows {
                let begin = row.find("\"seals\":\"").unwrap() + 9;
                let end = row.find("\",\"prevHash\"").unwrap();
                row.replace_range(begin..end, "");
            }
        });
        rechain(files);
    });
    let report = checked(&unsealed);
    assert!(report.verified, "{}", faults(&report));
    assert!(!report.proven.iter().any(|it| it.contains("stood before")), "{:?}", report.proven);
    assert!(
        report.claimed.iter().any(|it| it.contains("from before the rows sealed any")),
        "{:?}",
        report.claimed
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_nobody_fetches_keeps_its_turn_for_a_while() {
    let (app, from, to) = history(Backend::Sqlite).await;
    let asked = EvidenceRequest { from, to, project: None };
    let first = app.engine.export_evidence("ada", &asked).await.unwrap();
    let waits = app.engine.export_evidence("ada", &asked).await.unwrap_err().to_string();
    assert!(waits.contains("ask again when it has arrived"), "{waits}");
    app.pass(std::time::Duration::from_mins(10));
    let second = app.engine.export_evidence("ada", &asked).await.unwrap();
    assert_eq!(fetched(&first).await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(checked(&fetched(&second).await.unwrap()).verified);
    drop(second);
    assert!(app.engine.export_evidence("ada", &asked).await.is_ok(), "what was fetched gives way at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_log_is_not_signed() {
    let (app, from, to) = history(Backend::Sqlite).await;
    let asked = EvidenceRequest { from, to, project: None };
    app.raw("UPDATE audit SET actor = 'eve' WHERE seq = 2".to_owned()).await;
    app.engine.store.seals().begin_anew();
    app.engine.store.follow_seals().await.unwrap();
    let refused = app.engine.export_evidence("ada", &asked).await.unwrap_err().to_string();
    assert!(refused.contains("--accept-broken-chain 2"), "{refused}");
}

/// The bundle of everything since `from`.
async fn since(app: &TestApp, from: Timestamp) -> Vec<u8> {
    app.pass(std::time::Duration::from_secs(5));
    export(app, from, app.engine.clock.now()).await
}

/// A rotation whose PATCH Atlas puts off until it waits as approved again and its vote is withdrawn; and the same when
/// it was sent with the vote of another one.
async fn put_off() -> [Vec<u8>; 2] {
    let app = TestApp::on(Backend::Sqlite, World::demo()).await;
    let from = app.engine.clock.now();
    let code = Some("RATE_LIMITED_TOKEN_BUCKET".to_owned());
    let kind = Kind::Status { status: 429, code, retry_after: Some(3600) };
    let put_off = Fault { operation: "patch_ear".to_owned(), group_id: None, skip: 0, times: None, kind };
    app.sim.with(|world| world.faults.push(put_off));
    let row = app.approved().await;
    app.until(&row, |state| state == State::Applying).await;
    app.until(&row, |state| state == State::Approved).await;
    assert!(!app.patches().is_empty());
    app.engine.say("grace", row.rotation.id, OperatorVerb::Withdraw, None, None).await.unwrap();
    let left = since(&app, from).await;
    app.sim.with(|world| world.faults.clear());
    app.pass(std::time::Duration::from_hours(1));
    app.engine.say("bob", row.rotation.id, OperatorVerb::Approve, None, None).await.unwrap();
    app.settle(&row).await;
    [left, since(&app, from).await]
}

/// An approved rotation, and then an older copy of the database that was accepted; where another daemon vouches for
/// it nothing is void.
async fn accepted(is_vouched: bool) -> Vec<u8> {
    let app = TestApp::on(Backend::Sqlite, World::demo()).await;
    let from = app.engine.clock.now();
    let row = app.approved().await;
    let accepted = NewAudit {
        actor: "local:root".to_owned(),
        action: "database.restore_accepted".to_owned(),
        subject: "database".to_owned(),
        detail: "{}".to_owned(),
    };
    let now = app.engine.clock.now();
    if is_vouched {
        app.engine.store.append(&[accepted], now).await.unwrap();
    } else {
        app.engine.store.void_after_restore(accepted, now).await.unwrap();
    }
    let state = app.engine.rotation(row.rotation.id).await.unwrap().rotation.state;
    assert_eq!(state, if is_vouched { State::Approved } else { State::AwaitingApproval });
    since(&app, from).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_that_change_after_a_patch_that_was_put_off_are_no_fault() {
    let [left, sent] = put_off().await.map(|bundle| checked(&bundle));
    assert!(left.verified && sent.verified, "{}{}", faults(&left), faults(&sent));
    assert!(left.claimed.iter().any(|it| it.contains("taken back to approval")), "{left:?}");
    assert!(!left.proven.iter().any(|it| it.contains("sealed vote")), "{left:?}");
    // Sent again with the vote of another one, nothing is left open.
    assert!(!sent.claimed.iter().any(|it| it.contains("taken back to approval")), "{sent:?}");
    assert!(sent.proven.iter().any(|it| it.starts_with("1 sealed vote stood")), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_that_was_accepted_takes_back_only_what_it_seals() {
    for is_vouched in [true, false] {
        let report = checked(&accepted(is_vouched).await);
        assert!(report.verified, "{is_vouched}: {}", faults(&report));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_open_when_the_previous_bundle_ended_must_be_in_the_next_one() {
    let (app, from, to) = history(Backend::Sqlite).await;
    let first = export(&app, from, to).await;
    let second = export(&app, to, to + std::time::Duration::from_secs(86_400)).await;
    let mut files = unpack(&second);
    let open = left_out(&mut files);
    // The rows that tell of it are cut off, so that the bundle alone shows nothing of it.
    let rows = text(&files, "audit.jsonl");
    let kept = rows.lines().skip_while(|row| !row.contains("\"evidence.exported\"")).collect::<Vec<_>>();
    let row: serde_json::Value = serde_json::from_str(kept[0]).unwrap();
    *file(&mut files, "audit.jsonl") = (kept.join("\n") + "\n").into_bytes();
    lines(&mut files, "policies.csv", |lines| lines.retain(|it| !it.starts_with("\"change\"")));
    sign(&mut files, &key(), |manifest| {
        let before = serde_json::json!({ "seq": row["seq"].as_i64().unwrap() - 1, "hash": row["prevHash"] });
        manifest["head"]["before"] = before;
    });
    let cut = pack(&files);
    let alone = checked(&cut);
    assert!(alone.verified, "{}", faults(&alone));
    assert!(alone.claimed.iter().any(|it| it.contains("that no rotation from before row")), "{alone:?}");
    let on = verify(&cut, Some(&trusted()), None, Some(&first));
    assert!(faults(&on).contains(&format!("previous: rotation {open} was open")), "{}", faults(&on));
    let on = verify(&second, Some(&trusted()), None, Some(&first));
    // What came before the first row of the previous bundle is shown by neither.
    let row = checked(&first).manifest.unwrap().head.before.seq + 1;
    let left = format!("that no rotation from before row {row} was open");
    assert!(on.claimed.iter().any(|it| it.contains(&left)), "{on:?}");
}

/// A small generator, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// One of many ways to change a bundle; some of them change nothing that is said.
fn tampered(dice: &mut Dice) -> Vec<u8> {
    let mut files = unpack(bundle());
    let kind = dice.roll(6);
    let which = dice.roll(files.len() - 2);
    let (name, content) = &mut files[which];
    let (name, at) = (name.clone(), dice.roll(content.len()));
    match kind {
        0 => return bundle().to_vec(),
        1 => content[at] ^= 1 << dice.roll(7),
        2 => drop(content.remove(at)),
        3 => {
            // One digit for another: most texts stay texts.
            let digit = content[at..].iter().position(u8::is_ascii_digit).map_or(at, |it| at + it);
            content[digit] = b'0' + u8::try_from(dice.roll(10)).unwrap();
        }
        4 => lines(&mut files, &name, |lines| {
            let at = dice.roll(lines.len());
            lines.remove(at);
        }),
        _ => lines(&mut files, &name, |lines| {
            let (one, other) = (dice.roll(lines.len()), dice.roll(lines.len()));
            lines.swap(one, other);
        }),
    }
    if dice.roll(5) > 0 {
        let key = if dice.roll(6) == 0 { InstallationKey::of([8; 32]).unwrap() } else { key() };
        sign(&mut files, &key, |_| ());
    }
    pack(&files)
}

/// What the verifier in Python says of a bundle, and whether it takes it; with or without the installation's key.
fn second(bundle: &[u8], is_trusted: bool) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let (file, public) = (folder.path().join("bundle.zip"), folder.path().join("public.pem"));
    std::fs::write(&file, bundle).unwrap();
    std::fs::write(&public, keywheel::evidence::pem(&keywheel::seal::spki(key().public_key()))).unwrap();
    let python = std::env::var("KEYWHEEL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = std::process::Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify/verify.py")).arg(file);
    if is_trusted {
        command.arg("--key").arg(public);
    }
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(!text.contains("Traceback"), "{text}");
    (said.status.success(), text)
}

/// The verifier in Python, written from docs/evidence.md, comes to the same verdict as ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python with cryptography: scripts/interop-evidence"]
async fn the_second_verifier_agrees() {
    let seed = std::env::var("KEYWHEEL_SEED").map_or(1, |it| it.parse().unwrap());
    let (mut dice, mut good) = (Dice(seed), 0);
    let [left, sent] = put_off().await;
    for bundle in [left, sent, accepted(true).await, accepted(false).await] {
        let (takes, text) = second(&bundle, true);
        assert!(takes, "{text}");
    }
    for (what, theirs, forged) in forgeries() {
        let (takes, text) = second(&forged, false);
        assert!(!takes && text.contains(theirs), "{what}: {text}");
    }
    for round in 0..200 {
        let changed = if round == 0 { bundle().to_vec() } else { tampered(&mut dice) };
        let ours = checked(&changed);
        let (theirs, text) = second(&changed, true);
        assert_eq!(ours.verified, theirs, "round {round}\nours: {}\ntheirs: {text}", faults(&ours));
        good += usize::from(theirs);
    }
    assert!((20..180).contains(&good), "{good} of 200 verified");
}

/// Figures for docs/figures.md: `KEYWHEEL_ROTATIONS=1200 cargo nextest run --release --run-ignored only -E 'test(a_year_of_a_fleet)'`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; it measures"]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn a_year_of_a_fleet_is_exported_and_verified_in_time() {
    let rotations: usize = std::env::var("KEYWHEEL_ROTATIONS").map_or(40, |it| it.parse().unwrap());
    let projects = rotations.div_ceil(4) as u64;
    let key_of =
        |number: u64, version: u32| demo_key("AWS", "twin", u32::try_from(1000 + number).unwrap(), version);
    let mut world = World::demo();
    let model = world.projects[&group(1)].clone();
    for number in 100..100 + projects {
        let mut twin = model.clone();
        (1..=5).for_each(|version| _ = world.keys.insert(key_of(number, version), KeyState::Enabled));
        twin.block.insert("customerMasterKeyID".to_owned(), key_of(number, 1).into());
        world.projects.insert(group(number), twin);
    }
    let app = TestApp::on(Backend::Sqlite, world).await;
    let from = app.engine.clock.now();
    for number in 100..100 + projects {
        app.track(number).await;
        for version in 2..=5 {
            let row = app.approved_to(number, &key_of(number, version)).await;
            app.settle(&row).await;
            app.pass(std::time::Duration::from_secs(60));
        }
    }
    let begun = keywheel::domain::time::monotonic();
    let bundle = export(&app, from, app.engine.clock.now()).await;
    let exported = begun.elapsed();
    let begun = keywheel::domain::time::monotonic();
    let report = checked(&bundle);
    let verified = begun.elapsed();
    assert!(report.verified, "{}", faults(&report));
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let count = report.manifest.unwrap().counts["rotations.csv"];
    println!(
        "{count} rotations: {} bytes, exported in {exported:?}, verified in {verified:?}, {peak}",
        bundle.len()
    );
}
