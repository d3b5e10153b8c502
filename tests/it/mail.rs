//! Mails at a real mail server: how they arrive, and what becomes of those that do not.

mod mta;
mod verbs;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use keywheel::app::{Accept, doctor};
use keywheel::config::{Config, Sources};
use keywheel::domain::condition::ConditionKind;
use keywheel::domain::notice::{ConditionFacts, Content, Kind, Notice};
use keywheel::domain::rotation::state::State;
use keywheel::domain::time::{Clock, ManualClock, SystemClock, Timestamp};
use keywheel::engine::command::{NewProject, ProjectEdit};
use keywheel::engine::mail_sender::{MailSender, Rest};
use keywheel::engine::{Engine, remind};
use keywheel::mail::{Smtp, wire_id};
use keywheel::secret::SecretUrl;
use keywheel::sim::{Sim, World};
use keywheel::store::{MessageState, OutboxRow};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::db::{Backend, TestDb};
use crate::support::smtpd::{Certificates, Smtpd};
use crate::support::{TestApp, engine_at, group, new_key, notice, old_key};

/// A fleet whose owners are the given ones, a clock of its own, and no mail server yet.
struct MailFixture {
    engine: Engine,
    clock: ManualClock,
    db: TestDb,
    _sim: Sim,
}

impl MailFixture {
    async fn on(backend: Backend, owners: &[&str]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::new(SystemClock.now());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = Sim::start(listener, World::demo(), Arc::new(clock.clone())).unwrap();
        let db = TestDb::new(backend).await;
        crate::support::people(&db.store).await;
        let engine = engine_at(&sim, db.store.clone(), Arc::new(clock.clone()));
        let owners = owners.iter().map(|it| (*it).to_owned()).collect();
        let new = NewProject { group_id: group(1), owners, ..NewProject::default() };
        engine.add_project("ada", new).await.unwrap();
        Self { engine, clock, db, _sim: sim }
    }

    async fn new(owners: &[&str]) -> Self {
        Self::on(Backend::Sqlite, owners).await
    }

    /// Writes one mail to each owner.
    async fn propose(&self) {
        let group = group(1).parse().unwrap();
        self.engine
            .propose("ada", &group, new_key().parse().unwrap(), Some("Q3".to_owned()), false)
            .await
            .unwrap();
    }

    fn mail_sender(&self, url: &str) -> MailSender {
        self.mail_sender_with(url, None, 100_000)
    }

    fn mail_sender_with(&self, url: &str, ca: Option<&Certificates>, per_minute: u32) -> MailSender {
        let ca_file = ca.map(|it| it.issuer.as_path());
        let smtp = Smtp::new(&SecretUrl::new(url), "Keywheel <keywheel@example.com>", None, ca_file).unwrap();
        MailSender::new(
            self.engine.clone(),
            watch::channel(Some(smtp)).1,
            NonZeroU32::new(per_minute).unwrap(),
        )
    }

    async fn rows(&self) -> Vec<OutboxRow> {
        let mut rows = self.engine.store.outbox(None, 500).await.unwrap();
        // What others are told of a refused address has tests of its own.
        rows.retain(|row| row.kind != "address_refused");
        rows.sort_by(|a, b| a.recipient.cmp(&b.recipient));
        rows
    }

    /// The only mail there is.
    async fn row(&self) -> OutboxRow {
        let mut rows = self.rows().await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }
}

async fn round(mail_sender: &MailSender) -> Rest {
    mail_sender.round(&CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn a_mail_arrives_encrypted_logged_in_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(folder.path(), false);
    let orders = json!({ "certificate": certificates.certificate, "key": certificates.key, "user": "kw@x", "password": "p:+w %" });
    for (wrapped, scheme, query) in
        [(false, "smtp", "?tls=required"), (false, "smtp", ""), (true, "smtps", "")]
    {
        let mut orders = orders.clone();
        orders["wrapped"] = json!(wrapped);
        let server = Smtpd::start(orders);
        let it = MailFixture::new(&["ada@example.com"]).await;
        it.propose().await;
        let url = format!("{scheme}://kw%40x:p%3A%2Bw%20%25@localhost:{}{query}", server.port);
        let mail_sender = it.mail_sender_with(&url, Some(&certificates), 100);
        round(&mail_sender).await;
        let row = it.row().await;
        assert_eq!((row.state.as_str(), row.attempts), ("sent", 1), "{row:?}");
        assert_eq!(row.last_reply.as_deref(), Some("250 2.0.0 queued as 4711"));
        let [mail] = &server.mails()[..] else { panic!("{:?}", server.mails()) };
        assert!(mail.encrypted && mail.user.as_deref() == Some("kw@x"), "{mail:?}");
        assert_eq!(mail.header("From"), Some("Keywheel <keywheel@example.com>"));
        assert_eq!(mail.header("Message-ID"), Some(wire_id(&row.message_id, "example.com").as_str()));
        assert_eq!(mail.header("Auto-Submitted"), Some("auto-generated"));
        assert_eq!(mail.header("Subject"), Some("payments-prod: approve a new encryption key?"));
        assert!(mail.content.contains("text/plain") && mail.content.contains("text/html"));
        assert_eq!(mail.header("List-Id"), Some("Keywheel <keywheel.127.0.0.1>"));
        let read = mail.read().replace("<span style=\"white-space:nowrap\">", "");
        for part in [old_key(), new_key(), "Q3".to_owned(), format!("approve {}", row.rotation_id.unwrap())] {
            assert_eq!(read.matches(&part).count(), 2, "{part} is not in both parts: {}", mail.content);
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_for_what_was_decided_before_the_mail_could_leave() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let id = it.row_id().await;
    it.engine.say("bob", id, keywheel::engine::command::OperatorVerb::Reject, None, None).await.unwrap();
    round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
    let subjects: Vec<_> = server.mails().iter().map(|it| it.header("Subject").unwrap().to_owned()).collect();
    assert_eq!(subjects, ["payments-prod: rotation rejected"]);
    let rows = it.engine.store.outbox(None, 10).await.unwrap();
    let asked = rows.iter().find(|row| row.kind == "approval_requested").unwrap();
    assert!(asked.last_reply.as_deref().unwrap().contains("decided before"), "{asked:?}");
}

#[tokio::test]
async fn a_rotation_that_cannot_be_read_keeps_no_mail_back() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    crate::four_eyes::raw(&it.engine.store, "UPDATE rotations SET machine = 'x'").await;
    round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
    let [mail] = &server.mails()[..] else { panic!("{:?}", server.mails()) };
    assert_eq!(mail.header("Subject"), Some("payments-prod: approve a new encryption key?"));
}

#[tokio::test]
async fn nobody_is_reminded_of_a_key_that_was_replaced_before_the_mail_could_leave() {
    let it = MailFixture::new(&["ada@example.com"]).await;
    let since = async |days: u64| {
        let since = Some(it.clock.now() - Duration::from_hours(24 * days));
        let edit = ProjectEdit { key_since: since, ..ProjectEdit::default() };
        it.engine.edit_project("ada", &group(1).parse().unwrap(), edit).await.unwrap();
    };
    let subjects = |server: &Smtpd| {
        server.mails().iter().map(|it| it.header("Subject").unwrap().to_owned()).collect::<Vec<_>>()
    };
    since(80).await;
    assert_eq!(remind::once(&it.engine).await.unwrap(), 1);
    since(1).await;
    let server = Smtpd::start(json!({}));
    let sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    round(&sender).await;
    assert_eq!(subjects(&server), [] as [&str; 0]);
    assert!(it.row().await.last_reply.unwrap().contains("no date that it tells"));
    // One whose date still holds leaves.
    since(85).await;
    assert_eq!(remind::once(&it.engine).await.unwrap(), 1);
    round(&sender).await;
    assert_eq!(subjects(&server).len(), 1, "{:?}", subjects(&server));
}

/// A row that somebody spoilt keeps no mail back, and nobody from hearing of another address.
#[tokio::test]
async fn a_refused_address_that_cannot_be_read_makes_nobody_mute() {
    let it = MailFixture::new(&["ada@example.com", "refused@example.com"]).await;
    let spoilt = "INSERT INTO refused_addresses (address, reply, since) VALUES ('x@example.com', 'no', 'x')";
    crate::four_eyes::raw(&it.engine.store, spoilt).await;
    it.propose().await;
    let server = Smtpd::start(json!({}));
    let sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    for _ in 0..3 {
        round(&sender).await;
        it.clock.advance(Duration::from_secs(60));
    }
    let mails = server.mails();
    assert_eq!(mails.iter().map(|it| it.to.as_str()).collect::<Vec<_>>(), ["ada@example.com"; 2]);
    assert!(mails.iter().any(|it| it.content.contains("is refused")), "{mails:?}");
}

#[tokio::test]
async fn all_mails_of_one_rotation_are_one_thread_for_each_reader() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com", "bob@example.com"]).await;
    it.propose().await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    let id = it.row_id().await;
    round(&mail_sender).await;
    it.engine.say("bob", id, keywheel::engine::command::OperatorVerb::Reject, None, None).await.unwrap();
    round(&mail_sender).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 4);
    let ids: std::collections::BTreeSet<_> =
        mails.iter().map(|it| it.header("Message-ID").unwrap()).collect();
    let threads: std::collections::BTreeSet<_> =
        mails.iter().map(|it| it.header("References").unwrap()).collect();
    assert!(mails.iter().all(|it| it.header("In-Reply-To") == it.header("References")));
    assert_eq!((ids.len(), threads.len()), (4, 1));
    // Once sent is sent.
    it.clock.advance(Duration::from_secs(86_400));
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 4);
}

impl MailFixture {
    async fn row_id(&self) -> keywheel::domain::ids::RotationId {
        self.rows().await[0].rotation_id.unwrap()
    }
}

#[tokio::test]
async fn one_refused_recipient_keeps_nobody_else_from_hearing() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        // Two tries of this mail, and two of the one that tells of the refused address.
        let server = Smtpd::start(json!({ "put_off": 4 }));
        let it =
            MailFixture::on(backend, &["ada@example.com", "later@example.com", "refused@example.com"]).await;
        it.propose().await;
        let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
        round(&mail_sender).await;
        let states = |rows: &[OutboxRow]| rows.iter().map(|it| it.state.as_str()).collect::<Vec<_>>();
        let rows = it.rows().await;
        assert_eq!(states(&rows), ["sent", "waiting", "failed"]);
        assert_eq!(
            rows[2].last_reply.as_deref(),
            Some("name the recipient: 550 5.1.1 nobody of that name here"),
            "the server's own words"
        );
        assert_eq!(
            rows[1].last_reply.as_deref(),
            Some("name the recipient: 451 4.7.1 greylisted, come back later")
        );
        // One minute, then five, then half an hour.
        for (wait, state) in [(59, "waiting"), (2, "waiting"), (298, "waiting"), (3, "sent")] {
            it.clock.advance(Duration::from_secs(wait));
            round(&mail_sender).await;
            assert_eq!(it.rows().await[1].state.as_str(), state, "after another {wait} s");
        }
        assert_eq!(it.rows().await[1].attempts, 3);
        let mut to: Vec<_> = server.mails().into_iter().map(|it| it.to).collect();
        to.sort();
        // Each is told of the refused address, too.
        to.dedup();
        assert_eq!(to, ["ada@example.com", "later@example.com"]);
    }
}

/// Who may hear nothing is said, and said to somebody else, once; the next mail that is taken ends it.
#[tokio::test]
async fn an_address_that_is_refused_is_marked_and_told_to_the_others_until_a_mail_is_taken() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let it = MailFixture::on(backend, &["ada@example.com", "Refused@example.com"]).await;
        let project =
            || async { it.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap() };
        let said = || async { it.engine.why(&project().await).await.unwrap().sentences.join("\n") };
        it.propose().await;
        let strict = Smtpd::start(json!({}));
        let sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", strict.port));
        assert!(!said().await.contains("is refused"));
        for _ in 0..3 {
            round(&sender).await;
            it.clock.advance(Duration::from_secs(60));
        }
        let why = said().await;
        assert!(
            why.contains("Mail to refused@example.com is refused since")
                && why.contains("550 5.1.1 nobody of that name here; the other owners are told."),
            "{why}"
        );
        let told: Vec<_> =
            strict.mails().into_iter().filter(|it| it.content.contains("is refused")).collect();
        let [mail] = &told[..] else { panic!("{told:?}") };
        assert_eq!(mail.to, "ada@example.com");
        assert_eq!(mail.header("Subject"), Some("Keywheel: mail to refused@example.com is refused"));
        for part in ["It owns payments-prod.", "550 5.1.1 nobody of that name here"] {
            assert!(mail.read().contains(part), "{part}: {}", mail.content);
        }
        // The mailbox is there again.
        let kind = Smtpd::start(json!({ "takes_all": true }));
        let sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", kind.port));
        it.engine.retry_messages("ada", None).await.unwrap();
        round(&sender).await;
        assert!(!said().await.contains("is refused"), "{}", said().await);
        assert_eq!(kind.mails().len(), 1);
    }
}

/// A project whose only owner is refused is told to those who look after the installation.
#[tokio::test]
async fn where_nobody_else_owns_it_those_who_look_after_the_installation_are_told() {
    let it = MailFixture::new(&["refused@example.com"]).await;
    let mut engine = it.engine.clone();
    let mut settings = (*engine.settings).clone();
    settings.operators = vec!["ops@example.com".to_owned()];
    engine.settings = std::sync::Arc::new(settings);
    it.propose().await;
    let server = Smtpd::start(json!({}));
    let smtp =
        Smtp::new(&SecretUrl::new(format!("smtp://127.0.0.1:{}", server.port)), "k@example.com", None, None);
    let sender =
        MailSender::new(engine, watch::channel(Some(smtp.unwrap())).1, NonZeroU32::new(100_000).unwrap());
    for _ in 0..3 {
        round(&sender).await;
        it.clock.advance(Duration::from_secs(60));
    }
    let to: Vec<_> = server.mails().into_iter().map(|it| it.to).collect();
    assert_eq!(to, ["ops@example.com"]);
    let project = it.engine.store.project(&group(1).parse().unwrap()).await.unwrap().unwrap();
    let why = it.engine.why(&project).await.unwrap().sentences.join("\n");
    assert!(why.contains("nobody may be told."), "{why}");
}

/// What a server that cannot be used comes to: the mail waits and says why, and doctor says what to do.
async fn unusable(url: &str, ca: Option<&Certificates>, why: &str, way_out: &str) {
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let mail_sender = it.mail_sender_with(url, ca, 100);
    assert_eq!(round(&mail_sender).await, Rest::Pause, "{url}: it is not asked again at once");
    let row = it.row().await;
    let said = row.last_reply.unwrap();
    assert!(row.state == MessageState::Waiting && said.contains(why), "{url}: {said}");
    assert!(!said.contains("canary"), "{said}");
    let found = examined(&it, url, ca).await;
    let (result, detail) = (found["result"].as_str().unwrap(), found["detail"].as_str().unwrap());
    assert!(result == "fail" && detail.contains(why) && detail.contains(way_out), "{url}: {detail}");
    assert!(!detail.contains("canary"), "{detail}");
}

/// Doctor's word on mail.
async fn examined(it: &MailFixture, url: &str, ca: Option<&Certificates>) -> Value {
    let set = |path: &str, value: String| (path.to_owned(), value);
    let mut overrides = vec![
        set("data_dir", it.db.folder.path().display().to_string()),
        set("database.url", it.db.url.clone()),
        set("mail.smtp_url", url.to_owned()),
        set("mail.from", "keywheel@example.com".to_owned()),
    ];
    overrides.extend(ca.map(|ca| set("mail.ca_file", ca.issuer.display().to_string())));
    let loaded = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
    let report = doctor(loaded, Accept::default()).await.unwrap();
    report["checks"].as_array().unwrap().iter().find(|it| it["name"] == "mail").unwrap().clone()
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let good = Certificates::new(folder.path(), false);
    let plain = Smtpd::start(json!({}));
    unusable(
        &format!("smtp://localhost:{}?tls=required", plain.port),
        None,
        "the server offers no STARTTLS, and mail.smtp_url requires it",
        "submission port (587)",
    )
    .await;
    let strict =
        json!({ "certificate": good.certificate, "key": good.key, "user": "kw", "password": "right" });
    let strict = Smtpd::start(strict);
    unusable(
        &format!("smtp://kw:canary@localhost:{}?tls=required", strict.port),
        Some(&good),
        "log in: 535",
        "check user and password",
    )
    .await;
    unusable(
        &format!("smtp://kw:canary@localhost:{}", strict.port),
        None,
        "encrypt: ",
        "trust its issuer with mail.ca_file",
    )
    .await;
    let other = tempfile::tempdir().unwrap();
    let over = Certificates::new(other.path(), true);
    let expired = Smtpd::start(json!({ "certificate": over.certificate, "key": over.key }));
    unusable(&format!("smtp://localhost:{}?tls=required", expired.port), Some(&over), "xpired", "renew")
        .await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    unusable(&format!("smtp://127.0.0.1:{free}"), None, "connect: ", "check host and port").await;
    // Before the first start there is no database, and mail can be tried all the same.
    let folder = tempfile::tempdir().unwrap();
    let set = |path: &str, value: String| (path.to_owned(), value);
    let overrides = vec![
        set("data_dir", folder.path().display().to_string()),
        set("mail.smtp_url", format!("smtp://127.0.0.1:{}", plain.port)),
        set("server.public_url", "https://keywheel.example.com".to_owned()),
    ];
    let loaded = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
    let report = doctor(loaded, Accept::default()).await.unwrap();
    let results: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter_map(|it| it["result"].as_str()).collect();
    assert_eq!(
        (&report["ok"], results),
        (&json!(true), vec!["pass", "pass", "pass", "warn", "warn", "pass"]),
        "{report:#}"
    );
    let it = MailFixture::new(&[]).await;
    let found = examined(&it, &format!("smtp://127.0.0.1:{}", plain.port), None).await;
    assert_eq!(found["result"], "pass", "{found}");
    let found = examined(&it, "", None).await;
    assert!(found["result"] == "warn" && found["detail"].as_str().unwrap().contains("outbox"), "{found}");
}

#[tokio::test]
async fn a_password_in_the_url_reaches_the_server_as_it_is() {
    for (written, password) in
        [("a&b=c", "a&b=c"), ("a+b", "a+b"), ("a%2Bb%26", "a+b&"), ("100%25 x", "100% x"), ("a:b%3A", "a:b:")]
    {
        let server = Smtpd::start(json!({ "user": "k w", "password": password }));
        let it = MailFixture::new(&[]).await;
        let found = examined(&it, &format!("smtp://k%20w:{written}@127.0.0.1:{}", server.port), None).await;
        assert_eq!(found["result"], "pass", "{written}: {found}");
        assert!(found["detail"].as_str().unwrap().contains("logged in"), "{found}");
    }
    let overrides = vec![("mail.smtp_url".to_owned(), "smtp://kw:canary%FF@localhost".to_owned())];
    let refused = Config::load(&Sources { overrides, ..Sources::default() }).unwrap_err().to_string();
    assert!(refused.contains("mail.smtp_url") && refused.contains("not UTF-8"), "{refused}");
    assert!(!refused.contains("canary"), "{refused}");
}

/// A server that answers in German, and each command with what `answer` says.
async fn german(answer: fn(&str) -> &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    crate::support::wait::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 post.example bereit\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                if write.write_all(answer(&line).as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    port
}

/// What decides is the extension that is offered, the step and the code, whatever the words around them are.
#[tokio::test]
async fn a_server_of_another_language_is_judged_by_its_codes() {
    let deaf = german(|line| match line.get(..4) {
        Some("EHLO") => "250-post.example\r\n250 8BITMIME\r\n",
        _ => "250 gut\r\n",
    });
    let port = deaf.await;
    unusable(&format!("smtp://localhost:{port}?tls=required"), None, "STARTTLS", "submission port (587)")
        .await;
    let it = MailFixture::new(&[]).await;
    let found = examined(&it, &format!("smtp://localhost:{port}"), None).await;
    assert_eq!(found["result"], "pass", "on this machine nobody reads along: {found}");
    let busy = german(|line| match line.get(..4) {
        Some("EHLO") => "250-post.example\r\n250 STARTTLS\r\n",
        Some("STAR") => "454 STARTTLS zurzeit nicht m\u{f6}glich\r\n",
        _ => "250 gut\r\n",
    });
    let port = busy.await;
    let words = "STARTTLS zurzeit nicht m\u{f6}glich";
    unusable(&format!("smtp://localhost:{port}?tls=required"), None, words, "ask the mail server's operator")
        .await;
}

#[tokio::test]
async fn three_days_without_a_server_lose_no_mail_and_repeat_none() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let it = MailFixture::new(&["ada@example.com", "bob@example.com"]).await;
    it.propose().await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{port}"));
    for _ in 0..3 * 24 * 4 {
        round(&mail_sender).await;
        it.clock.advance(Duration::from_secs(900));
    }
    let rows = it.rows().await;
    assert!(rows.iter().all(|row| row.state == MessageState::Waiting && row.attempts > 100), "{rows:?}");
    let server = Smtpd::start(json!({ "port": port }));
    for _ in 0..8 {
        round(&mail_sender).await;
        it.clock.advance(Duration::from_secs(900));
    }
    let mut to: Vec<_> = server.mails().into_iter().map(|it| it.to).collect();
    to.sort();
    assert_eq!(to, ["ada@example.com", "bob@example.com"]);
}

#[tokio::test]
async fn after_five_days_a_mail_is_given_up_with_the_last_words() {
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{free}"));
    round(&mail_sender).await;
    it.clock.advance(Duration::from_secs(5 * 86_400 + 1));
    round(&mail_sender).await;
    let row = it.row().await;
    assert_eq!(row.state, MessageState::Failed);
    let said = row.last_reply.unwrap();
    assert!(said.contains("not sent within five days; last: connect: "), "{said}");
}

#[tokio::test]
async fn a_killed_mail_sender_sends_the_same_mail_again_under_the_same_id() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    // Claimed, and its process is gone before anything is written.
    let claimed = it
        .engine
        .store
        .claim_mail(
            it.clock.now(),
            Duration::from_secs(300),
            keywheel::domain::time::Timestamp::from_micros(0),
        )
        .await
        .unwrap()
        .unwrap();
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    round(&mail_sender).await;
    assert!(server.mails().is_empty(), "another one may still be at it");
    it.clock.advance(Duration::from_secs(301));
    round(&mail_sender).await;
    let row = it.row().await;
    assert_eq!((row.state.as_str(), row.attempts), ("sent", 2));
    let id = wire_id(&claimed.row.message_id, "example.com");
    assert_eq!(server.mails()[0].header("Message-ID"), Some(id.as_str()));
}

/// Writes that the keys of these projects cannot be read.
async fn unreachable(it: &MailFixture, projects: std::ops::Range<u64>) {
    let now = it.clock.now();
    let row = |number| {
        let facts = ConditionFacts {
            kind: Kind::Unreachable,
            group_id: group(number).parse().unwrap(),
            project_name: format!("payments-{number}"),
            provider: None,
            rotation_id: None,
            condition: ConditionKind::Unreachable,
            condition_id: format!("{}/unreachable", group(number)),
            current_key: None,
            since: now,
            over_at: None,
            cause: Some("auth".to_owned()),
            repeat: 0,
        };
        keywheel::store::NewOutbox {
            channel: keywheel::store::Channel::Mail,
            content: Content { server: "https://kw.example".to_owned(), notice: Notice::Condition(facts) },
            subject: group(number).parse().unwrap(),
            recipient: "ada@example.com".to_owned(),
            message_id: format!("<unreachable-{number}@keywheel>"),
            next_try_at: now,
        }
    };
    it.engine.store.tell(Vec::new(), projects.map(row).collect(), Vec::new(), now).await.unwrap();
}

#[tokio::test]
async fn many_projects_in_one_condition_are_one_list() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    unreachable(&it, 10..150).await;
    round(&mail_sender).await;
    let mails = server.mails();
    let [mail] = mails.as_slice() else { panic!("{} mails", mails.len()) };
    let subject = mail.header("Subject").unwrap();
    // The rest of it is on the next line of the header.
    assert!(subject.starts_with("ACTION NEEDED: 140 projects: Keywheel cannot read the key"), "{subject}");
    for number in [10, 99, 149] {
        assert!(mail.content.contains(&group(number)), "{number}");
    }
    assert!(it.rows().await.iter().all(|row| row.state == MessageState::Sent));
    // What comes within ten minutes waits for their end, and is one list again.
    it.clock.advance(Duration::from_secs(300));
    unreachable(&it, 150..160).await;
    for _ in 0..12 {
        round(&mail_sender).await;
    }
    assert_eq!(server.mails().len(), 1);
    it.clock.advance(Duration::from_secs(301));
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 2);
    assert!(server.mails()[1].header("Subject").unwrap().contains("10 projects"));
}

#[tokio::test]
async fn three_mails_in_ten_minutes_are_single_ones() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    unreachable(&it, 10..13).await;
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 3);
    unreachable(&it, 13..14).await;
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 3);
    let waits = it.rows().await.into_iter().find(|row| row.state == MessageState::Waiting).unwrap();
    assert_eq!(waits.next_try_at.since(it.clock.now()), Duration::from_secs(600));
    assert!(waits.last_reply.unwrap().contains("the next is one list"));
    it.clock.advance(Duration::from_secs(601));
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 4);
}

#[tokio::test]
async fn a_list_that_is_refused_is_tried_again_with_all_its_mails() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let it = MailFixture::new(&["ada@example.com"]).await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{port}"));
    unreachable(&it, 10..20).await;
    round(&mail_sender).await;
    assert!(it.rows().await.iter().all(|row| row.state == MessageState::Waiting && row.attempts == 1));
    it.clock.advance(Duration::from_secs(10));
    let server = Smtpd::start(json!({ "port": port }));
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 1);
    assert!(it.rows().await.iter().all(|row| row.state == MessageState::Sent));
}

#[tokio::test]
async fn a_page_is_tried_again_soon_and_after_a_restart_at_once() {
    let it = MailFixture::new(&["ada@example.com"]).await;
    let content = notice(&group(1), Notice::NeedsOperator);
    let now = it.clock.now();
    let page = keywheel::store::NewOutbox {
        channel: keywheel::store::Channel::Mail,
        content,
        subject: group(1).parse().unwrap(),
        recipient: "ada@example.com".to_owned(),
        message_id: "<page@keywheel>".to_owned(),
        next_try_at: now,
    };
    it.engine.store.tell(Vec::new(), vec![page], Vec::new(), now).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{free}"));
    for wait in [10, 30, 60, 120, 300, 300, 300] {
        round(&mail_sender).await;
        let next = it.row().await.next_try_at;
        assert_eq!(next.since(it.clock.now()), Duration::from_secs(wait));
        it.clock.advance(Duration::from_secs(wait));
    }
    // The process dies in the middle of an attempt; on SQLite the next one knows that it is gone.
    let claimed = it
        .engine
        .store
        .claim_mail(
            it.clock.now(),
            Duration::from_secs(300),
            keywheel::domain::time::Timestamp::from_micros(0),
        )
        .await
        .unwrap();
    assert!(claimed.is_some() && it.row().await.next_try_at > it.clock.now());
    it.engine.store.clear_leases().await.unwrap();
    let server = Smtpd::start(json!({ "port": free }));
    round(&mail_sender).await;
    assert_eq!((it.row().await.state.as_str(), server.mails().len()), ("sent", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_stops_nothing_but_mail() {
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let test_app = TestApp::new().await;
    let url = SecretUrl::new(format!("smtp://127.0.0.1:{port}"));
    let smtp = Smtp::new(&url, "k@example.com", None, None).unwrap();
    let stop = CancellationToken::new();
    let mail_sender =
        MailSender::new(test_app.engine.clone(), watch::channel(Some(smtp)).1, NonZeroU32::new(100).unwrap());
    let running = crate::support::wait::spawn(mail_sender.run(stop.clone()));
    let row = test_app.approved().await;
    assert_eq!(test_app.settle(&row).await.rotation.state, State::Completed);
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn no_more_mails_leave_in_a_minute_than_are_allowed() {
    let owners: Vec<_> = (0..8).map(|number| format!("o{number}@example.com")).collect();
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&owners).await;
    it.propose().await;
    let mail_sender = it.mail_sender_with(&format!("smtp://127.0.0.1:{}", server.port), None, 3);
    round(&mail_sender).await;
    round(&mail_sender).await;
    assert_eq!(server.mails().len(), 3);
}

#[tokio::test]
async fn a_project_without_an_owner_is_said_so_and_mailed_to_nobody() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&[]).await;
    it.propose().await;
    round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
    let row = it.row().await;
    assert_eq!((row.recipient.as_str(), row.state, row.attempts), ("nobody", MessageState::Waiting, 0));
    assert!(server.mails().is_empty());
    let counts = it.engine.store.mail_counts().await.unwrap();
    assert_eq!((counts.unaddressed, counts.waiting, counts.oldest_waiting), (1, 0, None));
}

#[tokio::test]
async fn what_needs_a_person_goes_first() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let page = keywheel::store::NewOutbox {
        channel: keywheel::store::Channel::Mail,
        content: notice(&group(1), Notice::NeedsOperator),
        subject: group(1).parse().unwrap(),
        recipient: "ada@example.com".to_owned(),
        message_id: "<page@keywheel>".to_owned(),
        next_try_at: it.clock.now(),
    };
    it.engine.store.remind(&[], &[page], &[], it.clock.now()).await.unwrap();
    round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
    let first: Timestamp = it.clock.now();
    assert!(first >= it.row_created().await);
    assert!(
        server.mails()[0].header("Subject").unwrap().starts_with("ACTION NEEDED"),
        "{:?}",
        server.mails()
    );
    assert_eq!(server.mails()[0].header("Importance"), Some("high"));
}

/// Changes stored mails.
async fn tamper(it: &MailFixture, change: &'static str) {
    let keywheel::store::Store::Sqlite { write, .. } = &it.db.store else { panic!("not SQLite") };
    sqlx::query(change).execute(write).await.unwrap();
}

#[tokio::test]
async fn a_mail_that_cannot_be_read_is_set_aside_with_the_reason_and_others_go_on() {
    for (change, why) in [
        (
            "UPDATE outbox SET model = 'torn' WHERE recipient = 'ada@example.com'",
            "invalid type: string \"torn\"",
        ),
        (
            "UPDATE outbox SET model = json_remove(model, '$.newKey') WHERE recipient = 'ada@example.com'",
            "missing field `newKey`",
        ),
        (
            "UPDATE outbox SET model = json_set(model, '$.state', 'asleep') WHERE recipient = 'ada@example.com'",
            "state: unknown variant `asleep`",
        ),
    ] {
        let server = Smtpd::start(json!({}));
        let it = MailFixture::new(&["ada@example.com", "bob@example.com"]).await;
        it.propose().await;
        tamper(&it, change).await;
        round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
        let rows = it.rows().await;
        let (ada, bob) = (&rows[0], &rows[1]);
        assert_eq!((ada.state.as_str(), ada.attempts, bob.state.as_str()), ("failed", 1, "sent"));
        let said = ada.last_reply.as_deref().unwrap();
        assert!(
            said.starts_with(&format!("message {} cannot be read: ", ada.id)) && said.contains(why),
            "{said}"
        );
        assert!(ada.sent_at.is_none() && bob.sent_at.is_some());
        assert_eq!(server.mails().len(), 1);
    }
}

#[tokio::test]
async fn a_mail_of_a_kind_that_only_a_newer_version_knows_waits_for_one_for_five_days() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@example.com", "bob@example.com"]).await;
    it.propose().await;
    tamper(&it, "UPDATE outbox SET kind = 'renewed' WHERE recipient = 'ada@example.com'").await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    round(&mail_sender).await;
    let rows = it.rows().await;
    let (ada, bob) = (&rows[0], &rows[1]);
    assert_eq!((ada.state.as_str(), ada.attempts, bob.state.as_str()), ("waiting", 1, "sent"));
    let said = ada.last_reply.as_deref().unwrap();
    assert!(said.contains("\"renewed\" is not a kind of notice of this version"), "{said}");
    assert!(ada.next_try_at > it.clock.now());
    // The version that knows the kind sends it.
    tamper(&it, "UPDATE outbox SET kind = 'approval_requested' WHERE kind = 'renewed'").await;
    it.clock.advance(Duration::from_mins(2));
    round(&mail_sender).await;
    assert_eq!((it.rows().await[0].state.as_str(), server.mails().len()), ("sent", 2));

    it.reject_later().await;
    tamper(&it, "UPDATE outbox SET kind = 'renewed' WHERE state = 'waiting'").await;
    round(&mail_sender).await;
    it.clock.advance(Duration::from_secs(5 * 86_400 + 1));
    round(&mail_sender).await;
    let states: Vec<_> = it.rows().await.into_iter().map(|row| row.state).collect();
    assert_eq!(
        (states.iter().filter(|it| **it == MessageState::Failed).count(), states.len()),
        (2, 4),
        "{states:?}"
    );
}

impl MailFixture {
    /// Writes one more mail to each owner.
    async fn reject_later(&self) {
        let id = self.rows().await[0].rotation_id.unwrap();
        self.engine
            .say("bob", id, keywheel::engine::command::OperatorVerb::Reject, None, None)
            .await
            .unwrap();
    }

    async fn row_created(&self) -> Timestamp {
        self.rows().await[0].created_at
    }
}

/// Whose fault a refusal is: the mail waits unless it is the recipient's, and says which setting to change.
#[tokio::test]
async fn a_refusal_of_the_sender_ends_no_mail() {
    for (orders, why, way_out) in [
        (
            json!({ "rcpt": "553 5.7.1 <keywheel@example.com>: Sender address rejected: not owned by user mailer" }),
            "name the recipient: 553 5.7.1",
            "mail.from",
        ),
        (
            json!({ "rcpt": "504 5.5.2 <keywheel-0>: Helo command rejected: need fully-qualified hostname" }),
            "name the recipient: 504 5.5.2",
            "mail.helo",
        ),
        (json!({ "helo": "501 5.5.4 Invalid domain name" }), "connect: 501 5.5.4", "mail.helo"),
        (json!({ "mail": "550 5.1.0 sender rejected" }), "name the sender: 550 5.1.0", "mail.from"),
        (
            json!({ "mail": "530 5.7.0 Authentication Required" }),
            "name the sender: 530",
            "add user and password",
        ),
        (json!({ "rcpt": "550 5.4.5 daily quota" }), "name the recipient: 550 5.4.5", "mail.per_minute"),
    ] {
        let server = Smtpd::start(orders);
        unusable(&format!("smtp://127.0.0.1:{}", server.port), None, why, way_out).await;
    }
    let offers = Smtpd::start(json!({ "auth": "XOAUTH2" }));
    let url = format!("smtp://kw:canary@127.0.0.1:{}", offers.port);
    unusable(&url, None, "only XOAUTH2", "app password").await;

    // After the message, where doctor does not go.
    let refusing =
        Smtpd::start(json!({ "data": "554 5.2.252 SendAsDenied; mailer not allowed to send as keywheel" }));
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", refusing.port));
    assert_eq!(round(&mail_sender).await, Rest::Pause);
    let row = it.row().await;
    assert_eq!(row.state, MessageState::Waiting);
    assert!(row.last_reply.unwrap().starts_with("hand the message over: 554 5.2.252 SendAsDenied"));
}

#[tokio::test]
async fn a_sender_that_nobody_has_as_an_address_is_no_fault() {
    for reply in ["550 5.1.1 User unknown", "550 no such user here", "451 4.7.1 greylisted"] {
        let server = Smtpd::start(json!({ "rcpt": reply }));
        let it = MailFixture::new(&["ada@example.com"]).await;
        let found = examined(&it, &format!("smtp://127.0.0.1:{}", server.port), None).await;
        assert_ne!(found["result"], "fail", "{reply}: {found}");
    }
}

#[tokio::test]
async fn a_port_that_speaks_otherwise_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = Certificates::new(folder.path(), false);
    let plain = Smtpd::start(json!({}));
    unusable(
        &format!("smtps://localhost:{}", plain.port),
        Some(&good),
        "encrypt: the server does not begin with TLS",
        "smtp://HOST:PORT?tls=required",
    )
    .await;
}

#[tokio::test]
async fn names_leave_as_servers_take_them() {
    let server = Smtpd::start(json!({}));
    let it = MailFixture::new(&["ada@b\u{fc}cher.example"]).await;
    it.propose().await;
    round(&it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port))).await;
    let mail = server.mails().pop().unwrap();
    assert_eq!(mail.to, "ada@xn--bcher-kva.example");
    let id = mail.header("Message-ID").unwrap();
    assert!(id.ends_with("@example.com>"), "{id}");
    assert!(mail.header("References").unwrap().ends_with("@example.com>"));
    assert!(mail.helo.contains('.'), "{}", mail.helo);
}

/// What failed can be sent again or dismissed, and then counts as failed no more.
#[tokio::test]
async fn a_mail_that_failed_is_sent_again_or_dismissed() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let it = MailFixture::on(backend, &["ada@example.com", "refused@example.com"]).await;
        it.propose().await;
        let server = Smtpd::start(json!({}));
        let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
        round(&mail_sender).await;
        // The other owner is told of the refused address.
        round(&mail_sender).await;
        let failed = it.rows().await.pop().unwrap();
        let sent = it.rows().await.remove(0);
        assert_eq!((failed.state, sent.state), (MessageState::Failed, MessageState::Sent));
        let refused = it.engine.retry_messages("ada", Some(sent.id)).await.unwrap_err();
        assert!(refused.to_string().contains("it was sent already"), "{refused}");

        // Long after the five days that a mail is tried.
        it.clock.advance(Duration::from_secs(9 * 86_400));
        assert_eq!(it.engine.retry_messages("ada", None).await.unwrap(), 1);
        round(&mail_sender).await;
        let again = it.rows().await.pop().unwrap();
        assert_eq!((again.state, again.attempts), (MessageState::Failed, 1), "{again:?}");
        assert_eq!(again.last_reply, failed.last_reply, "it was tried, and not given up for its age");

        assert_eq!(it.engine.dismiss_messages("ada", Some(failed.id)).await.unwrap(), 1);
        assert_eq!(it.engine.store.mail_counts().await.unwrap().failed, 0);
        let gone = it.rows().await.pop().unwrap();
        let words = gone.last_reply.unwrap();
        assert!(
            gone.sent_at.is_none() && words.starts_with("dismissed by ada; last: name the recipient: 550"),
            "{words}"
        );
        assert_eq!(it.engine.dismiss_messages("ada", None).await.unwrap(), 0);
        let log = it.engine.store.audit(None, 10).await.unwrap();
        let actions: Vec<_> = log.iter().map(|row| row.action.as_str()).collect();
        assert_eq!(actions[..2], ["outbox.dismissed", "outbox.retried"]);
    }
}

/// A server that refuses many recipients in the words of a refused sender keeps nobody else waiting for longer than a pause.
#[tokio::test]
async fn many_refusals_of_one_kind_pause_once() {
    let owners: Vec<String> = (0..12).map(|number| format!("barred{number:02}@example.com")).collect();
    let mut owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    owners.push("zoe@example.com");
    let it = MailFixture::new(&owners).await;
    it.propose().await;
    let server = Smtpd::start(json!({}));
    let mail_sender = it.mail_sender(&format!("smtp://127.0.0.1:{}", server.port));
    assert_eq!(round(&mail_sender).await, Rest::Pause);
    it.clock.advance(Duration::from_secs(10));
    assert_ne!(round(&mail_sender).await, Rest::Pause);
    assert_eq!(server.mails().iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>(), ["zoe@example.com"]);
    let rows = it.rows().await;
    assert_eq!(rows.iter().filter(|row| row.state == MessageState::Waiting).count(), 12);
}
