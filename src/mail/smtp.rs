//! One mail to one recipient over SMTP, step by step, so that each failure names the step.
//!
//! The step decides what a refusal means: a server that does not let us in refuses nobody, and the
//! mail is tried again; one that refuses the recipient or the message with a 5xx has refused this
//! mail for good. Every step has a time limit; silence after the message was sent leaves open
//! whether it was taken, and the same Message-ID goes out again.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use percent_encoding::percent_decode_str;
use url::Url;

use super::letter::Letter;
use crate::domain::address::is_loopback_host;
use crate::domain::time::Timestamp;
use crate::net::cause::root_cause;
use crate::secret::SecretUrl;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(30);

/// How long a server may think about a message it has been given: RFC 5321 asks for ten minutes, but
/// a mail that is sent twice under one Message-ID costs less than a page that waits behind it.
const END: Duration = Duration::from_secs(60);

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct SmtpOptions {
    /// `smtp://`, `smtp://…?tls=required`, `?tls=none` or `smtps://`, with user and password.
    pub url: SecretUrl,
    /// The sender.
    pub from: String,
    /// Certificates to trust beside the system's own, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// When the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Never.
    Never,
    /// When the server offers it.
    Offered,
    /// Or nothing is sent.
    Required,
    /// From the first byte on.
    Wrapped,
}

/// A mail server that is configured; connected to for each mail anew.
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
    /// What was tried, for people.
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

/// Why a mail did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// At which step.
    pub phase: Phase,
    /// The server's code, when it was the server that refused.
    pub code: Option<u16>,
    /// The server's words, or ours.
    pub said: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}: {code} {}", self.phase.as_str(), self.said),
            None => write!(f, "{}: {}", self.phase.as_str(), self.said),
        }
    }
}

impl Trouble {
    fn new(phase: Phase, said: impl Into<String>) -> Self {
        Self { phase, code: None, said: said.into() }
    }

    fn of(phase: Phase, error: &lettre::transport::smtp::Error) -> Self {
        let phase = if error.is_tls() { Phase::Tls } else { phase };
        Self { phase, code: error.status().map(u16::from), said: root_cause(error) }
    }

    /// Whether this recipient or this message is refused for good.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.phase, Phase::Recipient | Phase::Message) && self.code.is_some_and(|code| code >= 500)
    }

    /// Whether every other mail would fail likewise now.
    #[must_use]
    pub const fn is_the_servers(&self) -> bool {
        matches!(self.phase, Phase::Connect | Phase::Tls | Phase::Login | Phase::Sender)
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match self.phase {
            Phase::Connect => "check host and port in mail.smtp_url, and that this machine may reach them",
            Phase::Tls if self.said.contains("STARTTLS") => {
                "use the server's submission port (587), or smtps:// with port 465; without ?tls=required mails may leave unencrypted"
            }
            Phase::Tls => {
                "renew the server's certificate, name the host it was made for, or trust its issuer with mail.ca_file"
            }
            Phase::Login => {
                "check user and password in mail.smtp_url (or the file that mail.smtp_url_file names)"
            }
            Phase::Sender => "choose a mail.from that the server lets this user send as",
            Phase::Recipient => "correct the address: keywheel project edit PROJECT --owner ADDRESS",
            Phase::Message => "ask the mail server's operator about these words",
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
        Ok(done) => done.map_err(|error| Trouble::of(phase, &error)),
        Err(_) => Err(Trouble::new(phase, format!("no answer within {} s", limit.as_secs()))),
    }
}

fn percent_decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Smtp {
    /// Reads the options.
    ///
    /// # Errors
    /// Says which setting cannot be used, and never shows a password.
    pub fn new(options: &SmtpOptions) -> Result<Self, String> {
        let url = Url::parse(options.url.expose()).map_err(|why| format!("mail.smtp_url: {why}"))?;
        let asked = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let tls = match (url.scheme(), asked.as_deref()) {
            ("smtps", _) => Tls::Wrapped,
            (_, Some("required")) => Tls::Required,
            (_, Some("none")) => Tls::Never,
            _ => Tls::Offered,
        };
        let host =
            url.host_str().ok_or("mail.smtp_url: it names no host")?.trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(match tls {
            Tls::Wrapped => 465,
            Tls::Required => 587,
            Tls::Never | Tls::Offered => 25,
        });
        let user = percent_decoded(url.username());
        let password = percent_decoded(url.password().unwrap_or_default());
        let credentials = (!user.is_empty()).then(|| Credentials::new(user, password));
        let from = options.from.parse().map_err(|why| format!("mail.from: {why}"))?;
        let mut certificates = Vec::new();
        if let Some(file) = &options.ca_file {
            let told = |why: &str| format!("mail.ca_file: {} {why}", file.display());
            let pem = std::fs::read(file).map_err(|why| told(&format!("cannot be read: {why}")))?;
            certificates.push(Certificate::from_pem(&pem).map_err(|_| told("holds no PEM certificate"))?);
        }
        Ok(Self { host, port, tls, credentials, from, certificates })
    }

    fn tls(&self) -> Result<TlsParameters, Trouble> {
        let mut builder = TlsParameters::builder(self.host.clone());
        for certificate in &self.certificates {
            builder = builder.add_root_certificate(certificate.clone());
        }
        builder.build().map_err(|error| Trouble::of(Phase::Tls, &error))
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
            return Err(Trouble::new(
                Phase::Tls,
                "the server offers no STARTTLS, and mail.smtp_url requires it; nothing was sent",
            ));
        }
        if offered && matches!(self.tls, Tls::Required | Tls::Offered) {
            step(Phase::Tls, STEP, connection.starttls(self.tls()?, &hello)).await?;
        }
        if let Some(credentials) = &self.credentials {
            if !connection.is_encrypted() && !is_loopback_host(&self.host) {
                return Err(Trouble::new(
                    Phase::Login,
                    "the connection is not encrypted, so the password is not sent; use smtps:// or ?tls=required",
                ));
            }
            let ways = [Mechanism::Plain, Mechanism::Login];
            step(Phase::Login, STEP, connection.auth(&ways, credentials)).await?;
        }
        Ok(connection)
    }

    /// Goes as far as a mail goes before its recipient; says what was found.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn check(&self) -> Result<String, Trouble> {
        let mut connection = self.open().await?;
        let sender = Mail::new(Some(self.from.email.clone()), vec![]);
        step(Phase::Sender, STEP, connection.command(sender)).await?;
        let how = if connection.is_encrypted() { "encrypted" } else { "NOT encrypted" };
        let who = if self.credentials.is_some() { "logged in" } else { "without a login" };
        let _ = step(Phase::Sender, STEP, connection.command(Rset)).await;
        let _ = step(Phase::Connect, STEP, connection.quit()).await;
        Ok(format!("{self} answers, {how}, {who}, and accepts mail from {}", self.from.email))
    }

    /// Sends `letter` to `recipient`; gives the server's last words.
    ///
    /// # Errors
    /// The step that failed. After [`Phase::Message`] without a code, the server may have it.
    pub async fn send(
        &self,
        letter: &Letter,
        recipient: &str,
        message_id: &str,
        at: Timestamp,
    ) -> Result<String, Trouble> {
        let refused = |why: String| Trouble { phase: Phase::Recipient, code: Some(553), said: why };
        let to: Address = recipient.parse().map_err(|why| refused(format!("no mail address: {why}")))?;
        let message = self.message(letter, to.clone(), message_id, at)?;
        let mut connection = self.open().await?;
        let mut options = Vec::new();
        if !recipient.is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let _ = step(Phase::Connect, STEP, connection.quit()).await;
                return Err(refused("the mail server takes no address with letters beyond ASCII".to_owned()));
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
        // It is delivered; whether the goodbye arrives is nobody's concern.
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
        let broken = |why: String| Trouble::new(Phase::Message, format!("the mail cannot be written: {why}"));
        let body = MultiPart::alternative_plain_html(letter.text(), letter.html().map_err(broken)?);
        builder.multipart(body).map(|it| it.formatted()).map_err(|why| broken(why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(url: &str) -> Smtp {
        let url = SecretUrl::new(url);
        Smtp::new(&SmtpOptions { url, from: "Keywheel <k@example.com>".to_owned(), ca_file: None }).unwrap()
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
        assert_eq!(percent_decoded("p%2Bq+r%25"), "p+q+r%");
    }

    #[test]
    fn what_prints_a_server_prints_no_password() {
        let it = smtp("smtp://user:canary@mail.example");
        assert_eq!(format!("{it:?} {it}"), "Smtp(mail.example:25) mail.example:25");
    }

    #[test]
    fn only_a_refused_recipient_or_message_is_final() {
        let at = |phase, code| Trouble { phase, code, said: String::new() };
        assert!(at(Phase::Recipient, Some(550)).is_final() && at(Phase::Message, Some(554)).is_final());
        assert!(!at(Phase::Recipient, Some(451)).is_final() && !at(Phase::Message, None).is_final());
        assert!(!at(Phase::Login, Some(535)).is_final() && at(Phase::Login, Some(535)).is_the_servers());
        assert!(!at(Phase::Recipient, Some(451)).is_the_servers());
    }
}
