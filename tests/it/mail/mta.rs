//! A real Postfix: what it refuses, in its own words, and what it delivers. It runs only as root, so these tests are ignored
//! unless asked for; `scripts/test --full` asks.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::support::daemon::Ended;
use crate::support::wait::{LIMIT, eventually};

/// A Postfix with queue, configuration and accounts in a folder of its own; ended when dropped.
struct Postfix {
    folder: tempfile::TempDir,
    certificates: Certificates,
    port: u16,
    _login: Dovecot,
}

/// Who knows the accounts: Postfix asks Dovecot, as mail servers commonly do.
struct Dovecot(Ended);

impl Dovecot {
    fn start(at: &Path) -> Self {
        assert!(
            Path::new("/usr/sbin/dovecot").exists(),
            "this test needs Dovecot: apt-get install dovecot-core"
        );
        std::fs::create_dir_all(at.join("run")).unwrap();
        let here = at.display();
        std::fs::write(at.join("users"), "kw:canary\n").unwrap();
        std::fs::write(
            at.join("dovecot.conf"),
            format!(
                "base_dir = {here}/run\nstate_dir = {here}/run\nlog_path = {here}/log\nprotocols =\nssl = no\n\
                 disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
                 passdb {{\n driver = passwd-file\n args = scheme=PLAIN username_format=%u {here}/users\n}}\n\
                 userdb {{\n driver = static\n args = uid=postfix gid=postfix home={here}\n}}\n\
                 service auth {{\n unix_listener {here}/socket {{\n mode = 0666\n }}\n}}\nservice stats {{\n chroot =\n}}\n"
            ),
        )
        .unwrap();
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(at.join("dovecot.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        Self(Ended(command.spawn().unwrap()))
    }
}

impl Drop for Dovecot {
    /// Its children end with it only when it is asked to.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.0.id().to_string()).status();
        let _ = self.0.0.wait();
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = Self::ask(self.folder.path(), "stop");
    }
}

impl Postfix {
    fn ask(folder: &Path, what: &str) -> std::io::Result<std::process::ExitStatus> {
        let mut command = Command::new("/usr/sbin/postfix");
        command
            .arg("-c")
            .arg(folder.join("etc"))
            .arg(what)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    }

    /// For the domain `example.com`, where ada and keywheel have mailboxes, and for the login `kw` with the password `canary`,
    /// who owns the address keywheel only where `owns` says so; `more` settings come last.
    async fn start(owns: bool, more: &str) -> Self {
        assert!(
            Path::new("/usr/sbin/postfix").exists(),
            "this test needs Postfix: apt-get install postfix dovecot-core"
        );
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let at = folder.path();
        std::fs::set_permissions(at, PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["etc", "spool", "data", "mail", "tls"] {
            std::fs::create_dir(at.join(name)).unwrap();
        }
        let certificates = Certificates::new(&at.join("tls"), false);
        let owner = std::fs::metadata("/var/lib/postfix").unwrap();
        for name in ["data", "mail"] {
            std::os::unix::fs::chown(at.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = at.display();
        let sender = if owns { "kw" } else { "somebody.else" };
        let uid = owner.uid();
        std::fs::write(
            at.join("etc/main.cf"),
            format!(
                "compatibility_level = 3.6\nqueue_directory = {here}/spool\ndata_directory = {here}/data\n\
                 command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\n\
                 setgid_group = postdrop\nmyhostname = mx.example.com\nmydestination =\ninet_protocols = ipv4\nmynetworks =\n\
                 maillog_file = {here}/data/log\nmaillog_file_prefixes = /tmp\n\
                 alias_maps =\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {here}/login/socket\n\
                 smtpd_tls_auth_only = yes\nsmtpd_tls_received_header = yes\nsmtpd_tls_security_level = may\n\
                 smtpd_tls_chain_files = {key}, {certificate}\n\
                 smtpd_sender_login_maps = inline:{{ keywheel@example.com={sender} }}\n\
                 smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n\
                 virtual_mailbox_domains = example.com\nvirtual_mailbox_base = {here}/mail\n\
                 virtual_mailbox_maps = inline:{{ ada@example.com=ada/, keywheel@example.com=keywheel/ }}\n\
                 virtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:{gid}\nvirtual_minimum_uid = 1\n{more}\n",
                key = certificates.key.display(),
                certificate = certificates.certificate.display(),
                gid = owner.gid(),
            ),
        )
        .unwrap();
        let services = "pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
                        rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
                        trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nvirtual unix - n n - - virtual\n\
                        anvil unix - - n - 1 anvil\ntlsmgr unix - - n 1000? 1 tlsmgr\npostlog unix-dgram n - n - 1 postlogd\n\
                        error unix - - n - - error\nretry unix - - n - - error\n";
        std::fs::write(
            at.join("etc/master.cf"),
            format!("127.0.0.1:{port} inet n - n - - smtpd\n{services}"),
        )
        .unwrap();
        let login = Dovecot::start(&at.join("login"));
        let started = Self::ask(at, "start").unwrap();
        assert!(started.success(), "{}", std::fs::read_to_string(at.join("data/log")).unwrap_or_default());
        let it = Self { folder, certificates, port, _login: login };
        let ready = eventually(LIMIT, async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        assert!(ready.is_some(), "{}", it.log());
        it
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("data/log")).unwrap_or_default()
    }

    fn url(&self, login: &str) -> String {
        format!("smtp://{login}localhost:{}?tls=required", self.port)
    }

    /// What lies in a mailbox.
    async fn delivered(&self, mailbox: &str) -> String {
        let new = self.folder.path().join("mail").join(mailbox).join("new");
        let first = async || std::fs::read_dir(&new).ok()?.next()?.ok().map(|it| it.path());
        let Some(file) = eventually(LIMIT, first).await else {
            panic!("nothing for {mailbox}: {}", self.log())
        };
        std::fs::read_to_string(file).unwrap()
    }
}

const KW: &str = "kw:canary@";

#[tokio::test]
#[ignore = "Postfix runs only as root: scripts/test --full"]
async fn postfix_delivers_what_its_rules_allow_and_ends_only_what_is_the_recipients() {
    let server = Postfix::start(
        true,
        "smtpd_sender_restrictions = reject_sender_login_mismatch\nsmtpd_helo_required = yes\n\
         smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname",
    )
    .await;
    let it = MailFixture::new(&["ada@example.com", "nobody@example.com"]).await;
    it.propose().await;
    let mail_sender = it.mail_sender_with(&server.url(KW), Some(&server.certificates), 100);
    round(&mail_sender).await;
    let rows = it.rows().await;
    assert_eq!(rows[0].state, MessageState::Sent, "{rows:?}\n{}", server.log());
    assert!(rows[0].last_reply.as_deref().unwrap().starts_with("250 2.0.0 Ok: queued as "), "{rows:?}");
    assert_eq!(rows[1].state, MessageState::Failed, "{rows:?}");
    assert!(rows[1].last_reply.as_deref().unwrap().contains("550 5.1.1"), "{rows:?}");
    let mail = server.delivered("ada").await;
    assert!(mail.contains("Subject: payments-prod: approve a new encryption key?"), "{mail}");
    assert!(mail.contains("using TLSv1.3"), "{mail}");
    let found = examined(&it, &server.url(KW), Some(&server.certificates)).await;
    assert_eq!(found["result"], "pass", "{found}");
}

#[tokio::test]
#[ignore = "Postfix runs only as root: scripts/test --full"]
async fn what_postfix_holds_against_the_sender_ends_no_mail_and_names_the_setting() {
    let mismatch = "smtpd_sender_restrictions = reject_sender_login_mismatch";
    for (owns, more, login, why, way_out) in [
        (false, mismatch, KW, "not owned by user kw", "mail.from"),
        (true, mismatch, "", "not logged in", "add user and password"),
        (
            false,
            "smtpd_sender_restrictions = reject_known_sender_login_mismatch",
            KW,
            "553 5.7.1",
            "mail.from",
        ),
        (
            true,
            "smtpd_client_restrictions = permit_sasl_authenticated, reject",
            "",
            "Access denied",
            "add user and password",
        ),
        (true, "", "kw:canary-of-yesterday@", "535 5.7.8", "check user and password"),
    ] {
        let server = Postfix::start(owns, more).await;
        unusable(&server.url(login), Some(&server.certificates), why, way_out).await;
    }
    let server = Postfix::start(true, "smtpd_helo_restrictions = reject_non_fqdn_helo_hostname").await;
    let it = MailFixture::new(&["ada@example.com"]).await;
    it.propose().await;
    let ca = Some(server.certificates.issuer.as_path());
    let url = SecretUrl::new(server.url(KW));
    let smtp = Smtp::new(&url, "keywheel@example.com", Some("keywheel-0"), ca).unwrap();
    let few = NonZeroU32::new(100).unwrap();
    let mail_sender = MailSender::new(it.engine.clone(), watch::channel(Some(smtp)).1, few);
    assert_eq!(round(&mail_sender).await, Rest::Pause);
    let row = it.row().await;
    let said = row.last_reply.unwrap();
    assert!(
        row.state == MessageState::Waiting && said.contains("504 5.5.2 <keywheel-0>: Helo command rejected"),
        "{said}"
    );
}
