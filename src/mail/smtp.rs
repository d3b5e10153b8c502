//! One mail to one recipient over SMTP, step by step, so that each failure names the step.
//!
//! The step decides the meaning of a refusal. A failure before the recipient, such as a failed log-in,
//! concerns every mail, and the mail is tried again. A 5xx to the recipient or the message refuses this
//! mail for good. Every step has a time limit. Silence after the message was sent leaves its delivery
//! unknown, and it is sent again with the same Message-ID.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use url::Url;

use super::letter::Letter;
use crate::domain::address::is_loopback_host;
use crate::domain::time::Timestamp;
use crate::net::cause::root_cause;
use crate::secret::{BadLogin, SecretUrl};

/// How long each step may take.
const STEP: Duration = Duration::from_secs(30);

/// How long the server's reply to the message may take. RFC 5321 asks for ten minutes, but a mail that
/// is sent twice under one Message-ID costs less than an urgent mail that waits behind it.
const END: Duration = Duration::from_secs(60);

/// When the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Never.
    Never,
    /// When the server offers it.
    Offered,
    /// Always; otherwise nothing is sent.
    Required,
    /// From the first byte on.
    Wrapped,
}

/// A configured mail server; each mail has a connection of its own.
#[derive(Clone)]
pub struct Smtp {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<Credentials>,
    from: Mailbox,
    certificates: Vec<Certificate>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smtp({self})")
    }
}

impl fmt::Display for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The steps of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the server.
    Connect,
    /// Encrypting.
    Tls,
    /// Logging in.
    Login,
    /// Naming the sender.
    Sender,
    /// Naming the recipient.
    Recipient,
    /// Handing the message over.
    Message,
}

impl Phase {
    /// The step as text for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Tls => "encrypt",
            Phase::Login => "log in",
            Phase::Sender => "name the sender",
            Phase::Recipient => "name the recipient",
            Phase::Message => "hand the message over",
        }
    }
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", phase.as_str())]
pub struct Trouble {
    /// The step that failed.
    pub phase: Phase,
    /// The reason.
    #[source]
    pub reason: Reason,
}

/// Why a step failed. Decisions follow from the variant and the code; the texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The server answered with a code of 4xx or 5xx.
    #[error("{code} {text}")]
    Refused {
        /// The code.
        code: u16,
        /// The server's text.
        text: String,
    },
    /// The server offers no STARTTLS, and the configuration requires it.
    #[error("the server offers no STARTTLS, and mail.smtp_url requires it; nothing was sent")]
    NoStartTls,
    /// A password is configured, and the connection would show it.
    #[error("the connection is not encrypted, so the password is not sent; use smtps:// or ?tls=required")]
    NotEncrypted,
    /// The server was silent for too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The recipient is not a mail address.
    #[error("not a mail address: {0}")]
    NoAddress(#[source] lettre::address::AddressError),
    /// The recipient's address needs SMTPUTF8, and the server does not offer it.
    #[error("the mail server accepts no address with letters beyond ASCII")]
    NoSmtpUtf8,
    /// The message cannot be rendered.
    #[error("the mail cannot be rendered: {0}")]
    Unwritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection or its encryption failed.
    #[error("{}", root_cause(.0))]
    Connection(#[source] lettre::transport::smtp::Error),
}

/// Why a mail server cannot be configured. Names the setting, and never shows a password.
#[derive(Debug, thiserror::Error)]
pub enum SmtpConfigError {
    /// The URL cannot be parsed.
    #[error("mail.smtp_url: {0}")]
    Url(#[from] url::ParseError),
    /// The URL has no host.
    #[error("mail.smtp_url: it names no host")]
    NoHost,
    /// User or password is not text.
    #[error("mail.smtp_url: {0}")]
    Login(#[from] BadLogin),
    /// The sender is not an address.
    #[error("mail.from: {0}")]
    From(#[source] lettre::address::AddressError),
    /// The file of trusted certificates cannot be read.
    #[error("mail.ca_file: {} cannot be read: {source}", file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file of trusted certificates holds none.
    #[error("mail.ca_file: {} holds no PEM certificate", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: lettre::transport::smtp::Error,
    },
}

/// A mail server that would accept a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    server: String,
    sender: String,
    encrypted: bool,
    logged_in: bool,
    on_loopback: bool,
}

impl Checked {
    /// Whether mails could be read on their way to the server.
    #[must_use]
    pub const fn is_exposed(&self) -> bool {
        !self.encrypted && !self.on_loopback
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.encrypted { "encrypted" } else { "NOT encrypted" };
        let who = if self.logged_in { "logged in" } else { "without a login" };
        write!(f, "{} answers, {how}, {who}, and accepts mail from {}", self.server, self.sender)
    }
}

impl Trouble {
    fn new(phase: Phase, reason: Reason) -> Self {
        Self { phase, reason }
    }

    fn of(phase: Phase, error: lettre::transport::smtp::Error) -> Self {
        let phase = if error.is_tls() { Phase::Tls } else { phase };
        let reason = match error.status() {
            Some(code) => Reason::Refused { code: code.into(), text: root_cause(&error) },
            None => Reason::Connection(error),
        };
        Self { phase, reason }
    }

    /// Whether this recipient or this message is refused for good.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self.reason {
            Reason::Refused { code, .. } => {
                matches!(self.phase, Phase::Recipient | Phase::Message) && code >= 500
            }
            Reason::NoAddress(_) | Reason::NoSmtpUtf8 => true,
            _ => false,
        }
    }

    /// Whether every other mail would fail in the same way now.
    #[must_use]
    pub const fn is_the_servers(&self) -> bool {
        matches!(self.phase, Phase::Connect | Phase::Tls | Phase::Login | Phase::Sender)
    }

    /// The operator's next step.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match (self.phase, &self.reason) {
            (Phase::Connect, _) => {
                "check host and port in mail.smtp_url, and that this machine may reach them"
            }
            (Phase::Tls, Reason::NoStartTls) => {
                "use the server's submission port (587), or smtps:// with port 465; without ?tls=required mails may leave unencrypted"
            }
            (Phase::Tls, Reason::Refused { .. }) | (Phase::Message, _) => {
                "ask the mail server's operator about this reply"
            }
            (Phase::Tls, _) => {
                "renew the server's certificate, name the host it was made for, or trust its issuer with mail.ca_file"
            }
            (Phase::Login, _) => {
                "check user and password in mail.smtp_url (or the file that mail.smtp_url_file names)"
            }
            (Phase::Sender, _) => "choose a mail.from that the server lets this user send as",
            (Phase::Recipient, _) => "correct the address: keywheel project edit PROJECT --owner ADDRESS",
        }
    }
}

/// Runs one step within its limit.
async fn step<T>(
    phase: Phase,
    limit: Duration,
    action: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, action).await {
        Ok(done) => done.map_err(|error| Trouble::of(phase, error)),
        Err(_) => Err(Trouble::new(phase, Reason::Silent(limit))),
    }
}

impl Smtp {
    /// The server at `url` (`smtp://`, `smtp://…?tls=required`, `?tls=none` or `smtps://`, with user and
    /// password), the sender, and a file with certificates to trust beside the system's own.
    ///
    /// # Errors
    /// Names the setting that cannot be used; never contains a password.
    pub fn new(url: &SecretUrl, from: &str, ca_file: Option<&Path>) -> Result<Self, SmtpConfigError> {
        let login = url.login()?;
        let url = Url::parse(url.expose())?;
        let asked = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let tls = match (url.scheme(), asked.as_deref()) {
            ("smtps", _) => Tls::Wrapped,
            (_, Some("required")) => Tls::Required,
            (_, Some("none")) => Tls::Never,
            _ => Tls::Offered,
        };
        let host = url.host_str().ok_or(SmtpConfigError::NoHost)?.trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(match tls {
            Tls::Wrapped => 465,
            Tls::Required => 587,
            Tls::Never | Tls::Offered => 25,
        });
        let credentials = login.map(|(user, password)| Credentials::new(user, password.expose().to_owned()));
        let from = from.parse().map_err(SmtpConfigError::From)?;
        let mut certificates = Vec::new();
        if let Some(file) = ca_file {
            let file = file.to_owned();
            let pem = match std::fs::read(&file) {
                Ok(pem) => pem,
                Err(source) => return Err(SmtpConfigError::CaFile { file, source }),
            };
            let certificate = Certificate::from_pem(&pem)
                .map_err(|source| SmtpConfigError::NoCertificate { file, source })?;
            certificates.push(certificate);
        }
        Ok(Self { host, port, tls, credentials, from, certificates })
    }

    fn tls(&self) -> Result<TlsParameters, Trouble> {
        let mut builder = TlsParameters::builder(self.host.clone());
        for certificate in &self.certificates {
            builder = builder.add_root_certificate(certificate.clone());
        }
        builder.build().map_err(|error| Trouble::of(Phase::Tls, error))
    }

    /// Connects, encrypts and logs in as configured.
    async fn open(&self) -> Result<AsyncSmtpConnection, Trouble> {
        let hello = ClientId::default();
        let wrapped = if self.tls == Tls::Wrapped { Some(self.tls()?) } else { None };
        let address = (self.host.as_str(), self.port);
        let connect = AsyncSmtpConnection::connect_tokio1(address, Some(STEP), &hello, wrapped, None);
        let mut connection = step(Phase::Connect, STEP, connect).await?;
        let offered = connection.can_starttls();
        if self.tls == Tls::Required && !offered {
            return Err(Trouble::new(Phase::Tls, Reason::NoStartTls));
        }
        if offered && matches!(self.tls, Tls::Required | Tls::Offered) {
            step(Phase::Tls, STEP, connection.starttls(self.tls()?, &hello)).await?;
        }
        if let Some(credentials) = &self.credentials {
            if !connection.is_encrypted() && !is_loopback_host(&self.host) {
                return Err(Trouble::new(Phase::Login, Reason::NotEncrypted));
            }
            let ways = [Mechanism::Plain, Mechanism::Login];
            step(Phase::Login, STEP, connection.auth(&ways, credentials)).await?;
        }
        Ok(connection)
    }

    /// Runs the steps of a mail up to its recipient; sends none.
    ///
    /// # Errors
    /// Fails with the first step that failed.
    pub async fn check(&self) -> Result<Checked, Trouble> {
        let mut connection = self.open().await?;
        let sender = Mail::new(Some(self.from.email.clone()), vec![]);
        step(Phase::Sender, STEP, connection.command(sender)).await?;
        let encrypted = connection.is_encrypted();
        let _ = step(Phase::Sender, STEP, connection.command(Rset)).await;
        let _ = step(Phase::Connect, STEP, connection.quit()).await;
        Ok(Checked {
            server: self.to_string(),
            sender: self.from.email.to_string(),
            encrypted,
            logged_in: self.credentials.is_some(),
            on_loopback: is_loopback_host(&self.host),
        })
    }

    /// Sends `letter` to `recipient`; returns the server's final reply.
    ///
    /// # Errors
    /// Fails with the step that failed. After [`Phase::Message`] without a code, the server may have the
    /// mail.
    pub async fn send(
        &self,
        letter: &Letter,
        recipient: &str,
        message_id: &str,
        at: Timestamp,
    ) -> Result<String, Trouble> {
        let refused = |reason| Trouble::new(Phase::Recipient, reason);
        let to: Address = recipient.parse().map_err(|why| refused(Reason::NoAddress(why)))?;
        let message = self.message(letter, to.clone(), message_id, at)?;
        let mut connection = self.open().await?;
        let mut options = Vec::new();
        if !recipient.is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let _ = step(Phase::Connect, STEP, connection.quit()).await;
                return Err(refused(Reason::NoSmtpUtf8));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        if !message.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = Mail::new(Some(self.from.email.clone()), options);
        step(Phase::Sender, STEP, connection.command(sender)).await?;
        step(Phase::Recipient, STEP, connection.command(Rcpt::new(to, vec![]))).await?;
        step(Phase::Message, STEP, connection.command(Data)).await?;
        let taken = step(Phase::Message, END, connection.message(&message)).await?;
        let said = format!("{} {}", taken.code(), taken.message().collect::<Vec<_>>().join(" "));
        // The mail is delivered; a failed QUIT does not matter.
        let _ = tokio::time::timeout(Duration::from_secs(2), connection.quit()).await;
        Ok(said)
    }

    fn message(
        &self,
        letter: &Letter,
        to: Address,
        message_id: &str,
        at: Timestamp,
    ) -> Result<Vec<u8>, Trouble> {
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .date(at.as_chrono().into())
            .subject(letter.subject.clone())
            .message_id(Some(message_id.to_owned()));
        if let Some(thread) = &letter.thread {
            builder = builder.references(thread.clone()).in_reply_to(thread.clone());
        }
        let host = self.from.email.domain();
        let mut headers = vec![
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("List-Id", format!("Keywheel <keywheel.{host}>")),
        ];
        if letter.urgent {
            headers.push(("Importance", "high".to_owned()));
        }
        for (name, value) in headers {
            let name = HeaderName::new_from_ascii_str(name);
            builder = builder.raw_header(HeaderValue::new(name, value));
        }
        let broken = |why| Trouble::new(Phase::Message, Reason::Unwritable(why));
        let body = MultiPart::alternative_plain_html(
            letter.text(),
            letter.html().map_err(|why| broken(why.into()))?,
        );
        builder.multipart(body).map(|it| it.formatted()).map_err(|why| broken(why.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(url: &str) -> Smtp {
        Smtp::new(&SecretUrl::new(url), "Keywheel <k@example.com>", None).unwrap()
    }

    #[test]
    fn a_url_says_port_encryption_and_login() {
        for (url, port, tls, login) in [
            ("smtp://mail.example", 25, Tls::Offered, false),
            ("smtp://mail.example:2525?tls=none", 2525, Tls::Never, false),
            ("smtp://mail.example?tls=required", 587, Tls::Required, false),
            ("smtps://me%40x:p%2Bq+r@mail.example", 465, Tls::Wrapped, true),
        ] {
            let it = smtp(url);
            assert_eq!((it.port, it.tls, it.credentials.is_some()), (port, tls, login), "{url}");
        }
    }

    #[test]
    fn what_prints_a_server_prints_no_password() {
        let it = smtp("smtp://user:canary@mail.example");
        assert_eq!(format!("{it:?} {it}"), "Smtp(mail.example:25) mail.example:25");
    }

    #[test]
    fn only_an_open_way_to_another_machine_is_exposed() {
        for (encrypted, on_loopback, exposed) in
            [(false, false, true), (true, false, false), (false, true, false), (true, true, false)]
        {
            let (server, sender) = ("NOT encrypted".to_owned(), "k@example.com".to_owned());
            let found = Checked { server, sender, encrypted, logged_in: false, on_loopback };
            assert_eq!(found.is_exposed(), exposed, "{found}");
        }
    }

    #[test]
    fn only_a_refused_recipient_or_message_is_final() {
        let at = |phase, code| Trouble::new(phase, Reason::Refused { code, text: "550 STARTTLS".to_owned() });
        assert!(at(Phase::Recipient, 550).is_final() && at(Phase::Message, 554).is_final());
        assert!(!at(Phase::Recipient, 451).is_final());
        assert!(!Trouble::new(Phase::Message, Reason::Silent(END)).is_final());
        assert!(Trouble::new(Phase::Recipient, Reason::NoSmtpUtf8).is_final());
        assert!(!at(Phase::Login, 535).is_final() && at(Phase::Login, 535).is_the_servers());
        assert!(!at(Phase::Recipient, 451).is_the_servers());
    }

    #[test]
    fn only_a_missing_offer_of_encryption_has_another_port_for_a_way_out() {
        let advice = |reason| Trouble::new(Phase::Tls, reason).way_out();
        assert!(advice(Reason::NoStartTls).contains("587"));
        let refused = Reason::Refused { code: 454, text: "STARTTLS hier nicht möglich".to_owned() };
        assert!(advice(refused).starts_with("ask the mail server's operator"));
        assert!(advice(Reason::Silent(STEP)).contains("mail.ca_file"));
    }
}
