//! Why a mail was not sent, whose fault that is, and the setting to change.
//!
//! Servers refuse a sender, a login or a host name as late as at the recipient or after the message, so the
//! step alone does not tell. The enhanced status code (RFC 3463) does: only what it says about the
//! recipient's own address ends a mail. All else is Keywheel's to fix, and the mail is tried again.

use std::time::Duration;

use crate::net::cause::{TlsFault, root_cause, tls_fault};

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

/// Why a step failed. Decisions follow from the variant and the codes; the texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The server answered with a code of 4xx or 5xx.
    #[error("{code} {text}")]
    Refused {
        /// The code.
        code: u16,
        /// The server's text, which begins with the enhanced code where there is one.
        text: String,
    },
    /// The server offers no STARTTLS, and the configuration requires it.
    #[error("the server offers no STARTTLS, and mail.smtp_url requires it; nothing was sent")]
    NoStartTls,
    /// A password is configured, and the connection would show it.
    #[error("the connection is not encrypted, so the password is not sent; use smtps:// or ?tls=required")]
    NotEncrypted,
    /// The server takes no login of user and password.
    #[error("the server offers no login with user and password{}", if *.xoauth2 { ", only XOAUTH2" } else { "" })]
    NoPasswordLogin {
        /// It offers XOAUTH2.
        xoauth2: bool,
    },
    /// The server was silent for too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The server sent plain text where TLS should begin.
    #[error("the server does not begin with TLS")]
    SpeaksPlain,
    /// The server's certificate is its own issuer.
    #[error("the server's certificate is its own CA")]
    OwnCa,
    /// The recipient is not a mail address.
    #[error("not a mail address: {0}")]
    NoAddress(#[source] lettre::address::AddressError),
    /// The address has letters beyond ASCII before the @, and the server does not offer SMTPUTF8.
    #[error("the mail server accepts no address with letters beyond ASCII before the @")]
    NoSmtpUtf8,
    /// The message cannot be rendered.
    #[error("the mail cannot be rendered: {0}")]
    Unwritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection or its encryption failed.
    #[error("{}", root_cause(.0))]
    Connection(#[source] lettre::transport::smtp::Error),
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The recipient's address: no later attempt helps.
    Recipient,
    /// The sender's address, or that this login may use it.
    Sender,
    /// The login.
    Login,
    /// The name in EHLO.
    Helo,
    /// A limit: of this sender, or the recipient's full mailbox.
    Quota,
    /// A permanent refusal of the recipient without a word about the reason.
    Unnamed,
    /// Anything else of the server.
    Server,
}

/// An enhanced status code: class, subject and detail.
type Enhanced = (u16, u16, u16);

/// The enhanced code in a reply, at its beginning or as `(#5.7.1)`, which is how qmail writes it.
fn enhanced(text: &str) -> Option<Enhanced> {
    let code = |word: &str| {
        let mut parts = word.split('.').map(str::parse::<u16>);
        let (class, subject, detail) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        (matches!(class, 2 | 4 | 5) && parts.next().is_none()).then_some((class, subject, detail))
    };
    let first = text.split_whitespace().next()?;
    let is_part = |it: char| it.is_ascii_digit() || it == '.';
    code(first).or_else(|| {
        let hashed = text.split('#').nth(1)?;
        code(hashed.split(|it| !is_part(it)).next()?)
    })
}

fn blame(phase: Phase, code: u16, text: &str) -> Blame {
    if phase == Phase::Login || matches!(code, 530 | 534 | 535 | 538) {
        return Blame::Login;
    }
    match (phase, enhanced(text), code) {
        (Phase::Connect, _, 501..=504) => Blame::Helo,
        (Phase::Connect | Phase::Tls, ..) => Blame::Server,
        (Phase::Recipient | Phase::Message, Some((5, 1, 0..7 | 9..) | (5, 2, 1)), 500..) => Blame::Recipient,
        (_, Some((_, 7, 8 | 9 | 57)), _) => Blame::Login,
        // A mailbox, a system or a day's limit that is full.
        (_, Some((_, 2, 2 | 3) | (_, 3, 1 | 4) | (_, 4, 5) | (_, 5, 3) | (4, 7, 28)), _)
        | (_, _, 452 | 552) => Blame::Quota,
        (_, _, 504) | (_, Some((5, 5, 2 | 4)), _) => Blame::Helo,
        (Phase::Recipient, None, 550 | 551) => Blame::Unnamed,
        // Exchange names a refused sender 5.2.252.
        (_, Some((_, 1, 7 | 8) | (5, 7, _) | (5, 2, 100..)), _)
        | (Phase::Sender, Some((5, ..)), _)
        | (_, None, 550..) => Blame::Sender,
        _ => Blame::Server,
    }
}

impl Trouble {
    pub(super) fn new(phase: Phase, reason: Reason) -> Self {
        Self { phase, reason }
    }

    pub(super) fn of(phase: Phase, error: lettre::transport::smtp::Error) -> Self {
        let fault = tls_fault(&error);
        let phase = if error.is_tls() || fault.is_some() { Phase::Tls } else { phase };
        let reason = match (error.status(), fault) {
            (Some(code), _) => Reason::Refused { code: code.into(), text: root_cause(&error) },
            (None, Some(TlsFault::NotTls)) => Reason::SpeaksPlain,
            (None, Some(TlsFault::OwnCa)) => Reason::OwnCa,
            (None, _) => Reason::Connection(error),
        };
        Self { phase, reason }
    }

    /// What it is about; `None` without an answer of the server's.
    #[must_use]
    pub fn blame(&self) -> Option<Blame> {
        match &self.reason {
            Reason::Refused { code, text } => Some(blame(self.phase, *code, text)),
            _ => None,
        }
    }

    /// Whether the recipient's address is refused for good.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let own = matches!(self.reason, Reason::NoAddress(_) | Reason::NoSmtpUtf8);
        self.blame() == Some(Blame::Recipient) || (own && self.phase == Phase::Recipient)
    }

    /// Whether other mails would fail in the same way now. A recipient that is only put off (greylisting)
    /// keeps back no other.
    #[must_use]
    pub fn pauses(&self) -> bool {
        match (self.phase, &self.reason, self.blame()) {
            (Phase::Connect | Phase::Tls | Phase::Login | Phase::Sender, ..)
            | (_, _, Some(Blame::Sender | Blame::Login | Blame::Helo)) => true,
            (_, _, Some(Blame::Recipient | Blame::Unnamed)) => false,
            (_, Reason::Refused { code, .. }, _) => *code >= 500 || *code == 421,
            _ => false,
        }
    }

    /// The operator's next step.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        if let Some(blame) = self.blame()
            && !(blame == Blame::Server && self.phase == Phase::Connect)
        {
            return blame.way_out(matches!(self.reason, Reason::Refused { code: 530, .. }));
        }
        match (self.phase, &self.reason) {
            (Phase::Connect, Reason::Silent(_)) => {
                "check host and port in mail.smtp_url, and that this machine may reach them; a port that begins with TLS (465) takes smtps://"
            }
            (Phase::Connect, Reason::Refused { .. }) => {
                "the server takes no mail from this machine now; ask its operator about this reply"
            }
            (Phase::Connect, _) => {
                "check host and port in mail.smtp_url, and that this machine may reach them"
            }
            (Phase::Tls, Reason::NoStartTls) => {
                "use the server's submission port (587), or smtps:// with port 465; without ?tls=required mails may leave unencrypted"
            }
            (Phase::Tls, Reason::SpeaksPlain) => {
                "use smtp://HOST:PORT?tls=required, which begins in plain text and then encrypts, or port 465"
            }
            (Phase::Tls, Reason::OwnCa) => "put a server certificate that this CA has signed on the server",
            (Phase::Tls, _) => {
                "renew the server's certificate, name the host it was made for, or trust its issuer with mail.ca_file"
            }
            (Phase::Login, Reason::NoPasswordLogin { xoauth2: true }) => {
                "Keywheel logs in with user and password only: use an app password, a relay, or a server that takes them"
            }
            (Phase::Login, Reason::NoPasswordLogin { .. }) => {
                "remove user and password from mail.smtp_url, or use the submission port (587), where servers offer a login"
            }
            (Phase::Login, _) => Blame::Login.way_out(false),
            (Phase::Sender, _) => "take a mail.from without such letters before the @",
            (Phase::Recipient, _) => Blame::Recipient.way_out(false),
            (Phase::Message, _) => Blame::Server.way_out(false),
        }
    }
}

impl Blame {
    const fn way_out(self, wants_login: bool) -> &'static str {
        match self {
            Blame::Recipient => "correct the address: keywheel project edit PROJECT --owner ADDRESS",
            Blame::Sender => {
                "choose a mail.from that the server lets this login (mail.smtp_url) send as, or a login that may; without a login, add user and password to mail.smtp_url"
            }
            Blame::Login if wants_login => {
                "the server wants a login: add user and password to mail.smtp_url, and ?tls=required where it wants encryption first"
            }
            Blame::Login => {
                "check user and password in mail.smtp_url (or the file that mail.smtp_url_file names)"
            }
            Blame::Helo => {
                "the server does not take this machine's name: set mail.helo to a host name with a domain that it takes"
            }
            Blame::Quota => {
                "a limit is reached: wait, lower mail.per_minute, or ask the mail server's operator; a full mailbox is the recipient's to empty"
            }
            Blame::Unnamed => {
                "the server gives no reason: correct the address if it is wrong (keywheel project edit PROJECT --owner ADDRESS), else choose another mail.from or login"
            }
            Blame::Server => "ask the mail server's operator about this reply",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, reply: &str) -> Trouble {
        let (code, text) = reply.split_once(' ').unwrap();
        Trouble::new(phase, Reason::Refused { code: code.parse().unwrap(), text: text.to_owned() })
    }

    #[test]
    fn the_enhanced_code_tells_whose_fault_a_refusal_is() {
        use Blame::{Helo, Login, Quota, Recipient, Sender, Server, Unnamed};
        for (phase, reply, blamed, last, pauses) in [
            (Phase::Recipient, "550 5.1.1 <a@x>: User unknown", Recipient, true, false),
            (Phase::Message, "550 5.1.10 RESOLVER.ADR.RecipientNotFound", Recipient, true, false),
            (Phase::Recipient, "550 5.2.1 mailbox disabled", Recipient, true, false),
            (Phase::Recipient, "450 4.1.1 try again", Server, false, false),
            (Phase::Recipient, "553 5.7.1 <k@x>: not owned by user mailer", Sender, false, true),
            (Phase::Recipient, "553 sorry, not in my list (#5.7.1)", Sender, false, true),
            (Phase::Recipient, "550 5.1.8 bad outbound sender", Sender, false, true),
            (
                Phase::Recipient,
                "450 4.1.8 <k@x>: Sender address rejected: Domain not found",
                Sender,
                false,
                true,
            ),
            (Phase::Recipient, "550 5.1.7 bad sender address", Sender, false, true),
            (Phase::Sender, "550 5.1.0 sender rejected", Sender, false, true),
            (Phase::Message, "554 5.2.252 SendAsDenied; m@x not allowed", Sender, false, true),
            (Phase::Recipient, "554 5.7.1 Relay access denied", Sender, false, true),
            (Phase::Recipient, "554 relay denied", Sender, false, true),
            (Phase::Recipient, "504 5.5.2 <kw-0>: need fully-qualified hostname", Helo, false, true),
            (Phase::Connect, "501 5.5.4 Invalid domain name", Helo, false, true),
            (Phase::Sender, "530 5.7.0 Authentication Required", Login, false, true),
            (Phase::Recipient, "530 authentication required", Login, false, true),
            (Phase::Login, "535 5.7.8 no", Login, false, true),
            (Phase::Sender, "550 5.7.57 client not authenticated", Login, false, true),
            (Phase::Recipient, "552 5.2.2 mailbox full", Quota, false, true),
            (Phase::Recipient, "452 4.2.2 mailbox full", Quota, false, false),
            (Phase::Message, "550 5.4.5 Daily sending quota exceeded", Quota, false, true),
            (Phase::Recipient, "550 no such user", Unnamed, false, false),
            (Phase::Recipient, "451 4.7.1 greylisted", Server, false, false),
            (Phase::Recipient, "421 4.7.0 closing", Server, false, true),
            (Phase::Message, "550 5.6.0 message content", Server, false, true),
            (Phase::Connect, "421 4.7.0 Try again later", Server, false, true),
            (Phase::Connect, "554 5.7.1 bad reputation", Server, false, true),
        ] {
            let it = at(phase, reply);
            assert_eq!((it.blame(), it.is_final(), it.pauses()), (Some(blamed), last, pauses), "{reply}");
        }
        assert!(!Trouble::new(Phase::Message, Reason::Silent(Duration::from_secs(60))).is_final());
        assert!(Trouble::new(Phase::Recipient, Reason::NoSmtpUtf8).is_final());
        assert!(!Trouble::new(Phase::Sender, Reason::NoSmtpUtf8).is_final());
    }

    #[test]
    fn the_way_out_names_the_setting() {
        for (phase, reply, setting) in [
            (Phase::Recipient, "553 5.7.1 not owned by user", "mail.from"),
            (Phase::Message, "554 5.2.252 SendAsDenied", "mail.from"),
            (Phase::Recipient, "504 5.5.2 need fully-qualified hostname", "mail.helo"),
            (Phase::Sender, "530 5.7.0 Must authenticate", "add user and password to mail.smtp_url"),
            (Phase::Login, "535 5.7.8 wrong", "check user and password"),
            (Phase::Message, "550 5.4.5 limit", "mail.per_minute"),
            (Phase::Recipient, "550 5.1.1 unknown", "--owner"),
            (Phase::Connect, "554 no", "ask its operator"),
            (Phase::Tls, "454 STARTTLS hier nicht möglich", "ask the mail server's operator"),
        ] {
            let way_out = at(phase, reply).way_out();
            assert!(way_out.contains(setting), "{reply}: {way_out}");
        }
        let advice = |phase, reason| Trouble::new(phase, reason).way_out();
        assert!(advice(Phase::Tls, Reason::NoStartTls).contains("587"));
        assert!(advice(Phase::Tls, Reason::SpeaksPlain).contains("smtp://HOST:PORT?tls=required"));
        assert!(advice(Phase::Connect, Reason::Silent(Duration::from_secs(30))).contains("smtps://"));
        assert!(advice(Phase::Tls, Reason::Silent(Duration::from_secs(30))).contains("mail.ca_file"));
        assert!(advice(Phase::Login, Reason::NoPasswordLogin { xoauth2: true }).contains("app password"));
    }
}
