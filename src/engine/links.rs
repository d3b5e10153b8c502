//! One-time links, by which a person answers a proposal from a mailbox.
//!
//! A link exists in the mail alone. It is computed when the mail leaves, from the installation key, the rotation, the
//! proposal's hash, the recipient and the instant; nothing of it is stored before it is used. To open one changes nothing:
//! mail scanners do that. It decides once, with the tail of the new key typed in.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};

use super::Engine;
use super::announce::{content, facts_to_ask, message_id};
use super::command::{CommandError, OperatorVerb, Voter};
use crate::domain::approver::{Named, Strength};
use crate::domain::ids::RotationId;
use crate::domain::rotation::state::State;
use crate::domain::time::Timestamp;
use crate::domain::vote::{BY_MAIL, Identity};
use crate::store::{Channel, LinkUse, NewOutbox, RotationRow, StoreError};

/// How long a link is good, unless the proposal ends before.
const GOOD_FOR: Duration = Duration::from_hours(3 * 24);

/// A recipient gets one link of its own accord in this time.
const FRESH_EVERY: Duration = Duration::from_mins(10);

/// A link that fits a rotation and a recipient.
#[derive(Clone, Debug)]
pub struct Link {
    /// The rotation.
    pub row: RotationRow,
    /// The mailbox that it was sent to.
    pub recipient: String,
    /// The identity of its owner: `mail:` and the address.
    pub name: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What it was used for.
    pub used: Option<LinkUse>,
    hash: String,
}

impl Link {
    /// The owner as a voter.
    #[must_use]
    pub fn voter(&self) -> Voter<'_> {
        Voter { name: &self.name, method: Strength::Link.as_str(), link: Some(&self.hash), signed: None }
    }

    /// Whether there is still something to decide.
    #[must_use]
    pub const fn waits(&self) -> bool {
        matches!(self.row.rotation.state, State::AwaitingApproval | State::Approved)
    }
}

/// What a link holds beside its proof.
struct Head {
    rotation: RotationId,
    /// When it was made, in microseconds since 1970: no two links of one recipient are alike.
    made: u64,
}

const HEAD: usize = 16 + 8;

impl Head {
    fn bytes(&self) -> Vec<u8> {
        [self.rotation.0.as_bytes().as_slice(), &self.made.to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, proof) = bytes.split_at_checked(HEAD)?;
        let (id, made) = head.split_at_checked(16)?;
        let rotation = RotationId(uuid::Uuid::from_slice(id).ok()?);
        Some((Self { rotation, made: u64::from_be_bytes(made.try_into().ok()?) }, proof))
    }

    /// What the proof covers.
    fn covered(&self, hash: &str, recipient: &str) -> Vec<u8> {
        [self.bytes().as_slice(), hash.as_bytes(), b"\n", recipient.as_bytes()].concat()
    }

    fn made_at(&self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.made).unwrap_or(i64::MAX))
    }

    fn expires_at(&self) -> Timestamp {
        self.made_at() + GOOD_FOR
    }
}

impl Engine {
    /// Who may answer a proposal by a link.
    pub(super) async fn answerers(&self, row: &RotationRow) -> Result<BTreeSet<String>, StoreError> {
        let rules = &row.rotation.rules;
        if rules.policy.approval_method != Strength::Link {
            return Ok(BTreeSet::new());
        }
        let mut found = BTreeSet::new();
        for entry in &rules.policy.approvers {
            match &entry.who {
                Named::Mail(mail) => {
                    found.insert(mail.to_ascii_lowercase());
                }
                Named::Owners => {
                    let now = self.store.owners(&row.rotation.group_id).await?;
                    let now: BTreeSet<_> = now.iter().map(|it| it.to_ascii_lowercase()).collect();
                    let then = rules.owners.iter().map(|it| it.to_ascii_lowercase());
                    found.extend(then.filter(|owner| now.contains(owner)));
                }
                Named::Group(_) => {}
            }
        }
        Ok(found)
    }

    /// Whether the person of this address was removed, and has neither signed in nor got a token since.
    pub(super) async fn is_removed(&self, recipient: &str) -> Result<bool, StoreError> {
        let Some(removed_at) = self.store.removed_at(recipient).await? else { return Ok(false) };
        let all = self.store.electorate(&self.settings.issuers).await?;
        let is_back = |it: &Identity| {
            let is_theirs = it.person.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(recipient));
            is_theirs && it.given_at.is_some_and(|at| at > removed_at)
        };
        Ok(!all.identities.values().any(is_back))
    }

    /// The path of a link with which `recipient` can answer `id`; `None` where the policy gives none.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and without the installation key.
    pub async fn link_for(&self, id: RotationId, recipient: &str) -> Result<Option<String>, StoreError> {
        let Some(row) = self.store.rotation(id).await? else { return Ok(None) };
        let recipient = recipient.to_ascii_lowercase();
        if row.rotation.state != State::AwaitingApproval
            || !self.answerers(&row).await?.contains(&recipient)
            || self.is_removed(&recipient).await?
        {
            return Ok(None);
        }
        let made = self.clock.now().as_micros().max(0).unsigned_abs();
        let head = Head { rotation: id, made };
        let proof = self.store.seals().key()?.link_proof(&head.covered(&row.proposal_hash, &recipient));
        Ok(Some(format!("/a/{}", BASE64.encode([head.bytes(), proof].concat()))))
    }

    /// The link with this text; `None` for one that was not made here, or whose recipient may not answer any more.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and without the installation key.
    pub async fn link(&self, text: &str) -> Result<Option<Link>, StoreError> {
        let Ok(bytes) = BASE64.decode(text) else { return Ok(None) };
        let Some((head, proof)) = Head::read(&bytes) else { return Ok(None) };
        let Some(row) = self.store.rotation(head.rotation).await? else { return Ok(None) };
        let key = self.store.seals().key()?;
        let mut answerers = self.answerers(&row).await?.into_iter();
        let fits = |it: &String| key.is_link_proof(&head.covered(&row.proposal_hash, it), proof);
        let Some(recipient) = answerers.find(fits) else { return Ok(None) };
        let hash = hex::encode(Sha256::digest(&bytes));
        let used = self.store.link_use(&hash).await?;
        let name = format!("{BY_MAIL}{recipient}");
        // With its person, or an older copy of the database, each link ended that was made before.
        let removed = self.store.links_ended_at(&recipient).await?.filter(|at| *at >= head.made_at());
        let expires_at = removed.map_or(head.expires_at(), |at| at.min(head.expires_at()));
        Ok(Some(Link { row, recipient, name, expires_at, used, hash }))
    }

    /// Decides by a link. It is used up by that.
    ///
    /// # Errors
    /// As [`Engine::say`], and for a link that was used or has ended.
    pub async fn answer(
        &self,
        link: &Link,
        verb: OperatorVerb,
        comment: Option<String>,
    ) -> Result<RotationRow, CommandError> {
        if self.clock.now() >= link.expires_at {
            return Err(CommandError::LinkEnded(link.expires_at));
        }
        self.say(link.voter(), link.row.rotation.id, verb, comment, Some(&link.row.proposal_hash)).await
    }

    /// Counts a request with a link: `opened`, `decided`, `used`, `expired`, `superseded` or `forwarded`.
    pub fn link_met(&self, outcome: &'static str) {
        self.metrics.link(outcome);
    }

    /// Mails a fresh link to the recipient of `link`, once in ten minutes.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn send_fresh_link(&self, link: &Link) -> Result<(), StoreError> {
        let now = self.clock.now();
        if self.is_removed(&link.recipient).await? {
            return Ok(());
        }
        let notice = facts_to_ask(&link.row);
        let slot = now.as_micros() / i64::try_from(FRESH_EVERY.as_micros()).unwrap_or(i64::MAX);
        let identity = format!("{}/{}/fresh/{slot}/{}", link.row.rotation.id, notice.kind(), link.recipient);
        let row = NewOutbox {
            channel: Channel::Mail,
            content: content(&self.settings, notice),
            subject: (&link.row.rotation.group_id).into(),
            message_id: message_id(&identity),
            recipient: link.recipient.clone(),
            next_try_at: now,
        };
        self.store.write_messages(vec![row], now).await?;
        self.mail_due.notify_one();
        Ok(())
    }
}
