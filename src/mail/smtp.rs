//! One mail to one recipient over SMTP, step by step, so that each failure names the step.
//!
//! Every step has a time limit. Silence after the message was sent leaves its delivery unknown, and it is
//! sent again with the same Message-ID. What a refusal means is said in `refusal.rs`.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::header::{ContentDisposition, ContentType, ContentTypeErr, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use url::{Host, Url};

use super::calendar::Calendar;
use super::letter::Letter;
use super::refusal::{Blame, Phase, Reason, Trouble};
use super::{ID_DOMAIN, wire_id};
use crate::domain::address::is_loopback_host;
use crate::domain::time::Timestamp;
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
    hello: ClientId,
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

/// The address with its domain as DNS has it. Only a part before the @ beyond ASCII needs SMTPUTF8 (RFC 6531).
fn with_ascii_domain(address: &Address) -> Result<Address, lettre::address::AddressError> {
    match Host::parse(address.domain()) {
        Ok(Host::Domain(domain)) => Address::new(address.user(), domain),
        _ => Ok(address.clone()),
    }
}

/// The domain of a sender, as it stands in the Message-IDs that leave.
#[must_use]
pub fn sender_domain(from: &str) -> String {
    let from = from.parse::<Mailbox>().and_then(|it| with_ascii_domain(&it.email));
    from.map_or_else(|_| ID_DOMAIN.to_owned(), |it| it.domain().to_owned())
}

/// The name for EHLO: this machine's where it has a domain, else the domain of `mail.from`. Servers refuse a
/// name without a dot.
fn own_name(from: &Address) -> String {
    match ClientId::default() {
        ClientId::Domain(name) if name.trim_matches('.').contains('.') => name,
        _ => from.domain().to_owned(),
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
    /// password), the sender, the name in EHLO, and a file with certificates to trust beside the system's own.
    ///
    /// # Errors
    /// Names the setting that cannot be used; never contains a password.
    pub fn new(
        url: &SecretUrl,
        from: &str,
        helo: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<Self, SmtpConfigError> {
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
        let mut from: Mailbox = from.parse().map_err(SmtpConfigError::From)?;
        from.email = with_ascii_domain(&from.email).map_err(SmtpConfigError::From)?;
        let own = helo.map_or_else(|| own_name(&from.email), str::to_owned);
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
        Ok(Self { host, port, tls, credentials, from, hello: ClientId::Domain(own), certificates })
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
        let hello = &self.hello;
        let wrapped = if self.tls == Tls::Wrapped { Some(self.tls()?) } else { None };
        let address = (self.host.as_str(), self.port);
        let connect = AsyncSmtpConnection::connect_tokio1(address, Some(STEP), hello, wrapped, None);
        let mut connection = step(Phase::Connect, STEP, connect).await?;
        let offered = connection.can_starttls();
        if self.tls == Tls::Required && !offered {
            return Err(Trouble::new(Phase::Tls, Reason::NoStartTls));
        }
        if offered && matches!(self.tls, Tls::Required | Tls::Offered) {
            step(Phase::Tls, STEP, connection.starttls(self.tls()?, hello)).await?;
        }
        if let Some(credentials) = &self.credentials {
            if !connection.is_encrypted() && !is_loopback_host(&self.host) {
                return Err(Trouble::new(Phase::Login, Reason::NotEncrypted));
            }
            let ways = [Mechanism::Plain, Mechanism::Login];
            let offered = connection.server_info();
            if !ways.iter().any(|way| offered.supports_auth_mechanism(*way)) {
                let xoauth2 = offered.supports_auth_mechanism(Mechanism::Xoauth2);
                return Err(Trouble::new(Phase::Login, Reason::NoPasswordLogin { xoauth2 }));
            }
            step(Phase::Login, STEP, connection.auth(&ways, credentials)).await?;
        }
        Ok(connection)
    }

    /// Runs the steps of a mail up to its recipient, which is the sender's own address; sends none.
    ///
    /// # Errors
    /// Fails with the first step that failed. That nobody has the sender's address is no failure, nor is a
    /// server that puts off unknown senders.
    pub async fn check(&self) -> Result<Checked, Trouble> {
        let mut connection = self.open().await?;
        let options = self.options(&connection, &[&self.from.email], true)?;
        let sender = Mail::new(Some(self.from.email.clone()), options);
        step(Phase::Sender, STEP, connection.command(sender)).await?;
        let encrypted = connection.is_encrypted();
        let recipient = Rcpt::new(self.from.email.clone(), vec![]);
        if let Err(trouble) = step(Phase::Recipient, STEP, connection.command(recipient)).await {
            let harmless = matches!(trouble.blame(), Some(Blame::Recipient | Blame::Unnamed));
            let put_off = matches!(trouble.reason, Reason::Refused { code: ..500, .. });
            if !harmless && !put_off {
                return Err(trouble);
            }
        }
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

    /// What MAIL FROM asks of the server for these addresses and a message that is ASCII or not.
    fn options(
        &self,
        connection: &AsyncSmtpConnection,
        addresses: &[&Address],
        is_ascii: bool,
    ) -> Result<Vec<MailParameter>, Trouble> {
        let offers = |it| connection.server_info().supports_feature(it);
        let mut options = Vec::new();
        if let Some(wide) = addresses.iter().find(|it| !it.user().is_ascii()) {
            if !offers(Extension::SmtpUtfEight) {
                let phase = if **wide == self.from.email { Phase::Sender } else { Phase::Recipient };
                return Err(Trouble::new(phase, Reason::NoSmtpUtf8));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        if !is_ascii && offers(Extension::EightBitMime) {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(options)
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
        let to = recipient.parse().and_then(|it| with_ascii_domain(&it));
        let to: Address = to.map_err(|why| refused(Reason::NoAddress(why)))?;
        let message = self.message(letter, to.clone(), message_id, at)?;
        let mut connection = self.open().await?;
        let options = match self.options(&connection, &[&self.from.email, &to], message.is_ascii()) {
            Ok(options) => options,
            Err(trouble) => {
                let _ = step(Phase::Connect, STEP, connection.quit()).await;
                return Err(trouble);
            }
        };
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
            .message_id(Some(wire_id(message_id, self.from.email.domain())));
        if let Some(thread) = &letter.thread {
            let thread = wire_id(thread, self.from.email.domain());
            builder = builder.references(thread.clone()).in_reply_to(thread.clone());
        }
        let mut headers =
            vec![("Auto-Submitted", "auto-generated".to_owned()), ("List-Id", letter.list_id())];
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
        // Beside the text and not among its alternatives: a program that shows entries would show nothing else.
        let body = match &letter.calendar {
            Some(calendar) => MultiPart::mixed().multipart(body).singlepart(
                SinglePart::builder()
                    .content_type(calendar_type(calendar).map_err(|why| broken(why.into()))?)
                    .header(ContentDisposition::attachment("key-due.ics"))
                    .body(calendar.text()),
            ),
            None => body,
        };
        builder.multipart(body).map(|it| it.formatted()).map_err(|why| broken(why.into()))
    }
}

fn calendar_type(calendar: &Calendar) -> Result<ContentType, ContentTypeErr> {
    ContentType::parse(&format!("text/calendar; charset=utf-8; method={}", calendar.method()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(url: &str) -> Smtp {
        Smtp::new(&SecretUrl::new(url), "Keywheel <k@bücher.example>", None, None).unwrap()
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
    fn domains_leave_as_dns_has_them() {
        let it = smtp("smtp://mail.example");
        assert_eq!(it.from.email.to_string(), "k@xn--bcher-kva.example");
        assert_eq!(sender_domain("Keywheel <k@bücher.example>"), "xn--bcher-kva.example");
        let ClientId::Domain(hello) = it.hello else { panic!("{:?}", it.hello) };
        assert!(hello.contains('.') && hello.is_ascii(), "{hello}");
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
}
