//! Mail: the text of a mail ([`letter`]) and its delivery to a mail server ([`smtp`]).
//!
//! A mail is rendered from the notice that its outbox row holds, so a template can change without a
//! change of stored rows. Recipients, attempts and results are the engine's part; retries and the
//! database are not handled here.

mod age;
mod authority;
pub mod calendar;
mod facts;
mod installation;
mod keys;
pub mod letter;
mod reason;
mod refusal;
mod sentences;
pub mod smtp;

use crate::domain::text::is_hidden;

pub use calendar::Calendar;
pub use letter::Letter;
pub use refusal::{Blame, Phase, Reason, Trouble};
pub use smtp::{Checked, Smtp, SmtpConfigError, sender_domain};

/// The domain of stored Message-IDs. The one that leaves has the domain of `mail.from` in its place: the stored one stays
/// the same when that setting changes.
pub const ID_DOMAIN: &str = "keywheel";

/// A stored Message-ID as it leaves, with the domain of the sender: servers distrust one without a domain.
#[must_use]
pub fn wire_id(message_id: &str, domain: &str) -> String {
    match message_id.strip_suffix(&format!("@{ID_DOMAIN}>")) {
        Some(id) => format!("{id}@{domain}>"),
        None => message_id.to_owned(),
    }
}

/// Whether a text can be a mail address.
#[must_use]
pub fn is_address(text: &str) -> bool {
    // The crate accepts quoted local parts, in which a header could be injected.
    text.parse::<lettre::Address>().is_ok()
        && text.len() <= 254
        && !text.chars().any(|c| c.is_whitespace() || is_hidden(c) || "<>,;\"\\()".contains(c))
}

/// Whether a text can be a sender such as `Keywheel <keywheel@example.com>`.
#[must_use]
pub fn is_sender(text: &str) -> bool {
    text.parse::<lettre::message::Mailbox>().is_ok_and(|it| is_address(it.email.as_ref()))
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_can_be_told_is_an_address() {
        for good in ["ada@example.com", "ada.b+c@mail.example.com", "a@localhost", "ü@example.com"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@@example.com",
            "ada@example.com, bob@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada @example.com",
            "<ada@example.com>",
            "\"a b\"@example.com",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
        assert!(is_sender("Keywheel <keywheel@localhost>") && is_sender("k@example.com"));
        assert!(!is_sender("Keywheel") && !is_sender("K <k@e>\r\nBcc: x <x@y>"));
    }
}
