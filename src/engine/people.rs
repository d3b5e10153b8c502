//! Everybody who is known here: by an identity provider, a token, a link that was used or a passkey, and whether a
//! vote would count. What shares an address, or had it, is one person. Also what is told of a sign-in.
//!
//! Which vote counts is decided in `domain/vote.rs`, and who is let in by `web/oidc`.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::authority::{plain, rows, together};
use super::settling::{delays, unreadable};
use crate::domain::approver::{Named, Strength};
use crate::domain::notice::{Authority, Kind};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::{BY_MAIL, Ballot, Terms, Void};
use crate::mail::is_address;
use crate::store::{NewOutbox, Passkey, Person, PersonRefusal, SeenPerson, StoreError, Token, WebSession};

/// How often a sign-in is written when another one was first.
const TRIES: usize = 8;

/// Somebody who is known here.
#[derive(Clone, Debug)]
pub struct Known {
    /// The mail address, or the name of an account without a verified one.
    pub address: String,
    /// Other addresses and names of the same person.
    pub others: BTreeSet<String>,
    /// The accounts at identity providers, and whether each one's provider is configured.
    pub accounts: Vec<(Person, bool)>,
    /// The tokens in force.
    pub tokens: Vec<Token>,
    /// When a link was used last.
    pub link_used_at: Option<Timestamp>,
    /// The roles of all of them.
    pub roles: BTreeSet<Role>,
    /// The groups that a policy names as approvers.
    pub approver_groups: BTreeSet<String>,
    /// The passkeys, and why each signs no votes.
    pub passkeys: Vec<(Passkey, Option<String>)>,
    /// The open sessions of the pages, the latest first.
    pub sessions: Vec<WebSession>,
    /// Why a vote would not count; `None` when it would.
    pub refused: Option<Refused>,
}

impl Known {
    /// Somebody of whom nothing but the address is known.
    #[must_use]
    pub(super) const fn named(address: String) -> Self {
        Self {
            address,
            others: BTreeSet::new(),
            accounts: Vec::new(),
            tokens: Vec::new(),
            link_used_at: None,
            roles: BTreeSet::new(),
            approver_groups: BTreeSet::new(),
            passkeys: Vec::new(),
            sessions: Vec::new(),
            refused: None,
        }
    }
}

/// Why a person's vote would not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// From when on it would count, where that is known.
    pub from: Option<Timestamp>,
}

impl Known {
    /// All addresses and names of the person.
    pub fn all_addresses(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.address).chain(&self.others).map(String::as_str)
    }
}

/// Which addresses and names are one person's.
#[derive(Debug, Default)]
struct Ties(BTreeMap<String, String>);

impl Ties {
    fn root(&self, key: &str) -> String {
        let mut at = key;
        while let Some(next) = self.0.get(at) {
            at = next;
        }
        at.to_owned()
    }

    fn tie(&mut self, one: &str, other: &str) {
        let (one, other) = (self.root(one), self.root(other));
        if one != other {
            self.0.insert(one, other);
        }
    }
}

/// The address behind the name of an identity; other names stay as they are.
pub(in crate::engine) fn address(name: &str) -> String {
    name.strip_prefix(BY_MAIL).unwrap_or(name).to_ascii_lowercase()
}

/// What a list of everybody is made of.
struct Found {
    accounts: Vec<Person>,
    tokens: Vec<Token>,
    links: BTreeMap<String, Timestamp>,
    passkeys: Vec<Passkey>,
    sessions: Vec<WebSession>,
    former: BTreeSet<String>,
    ties: Ties,
}

impl Found {
    /// The address of each person, the one in use where one is known to be.
    fn people(&self) -> BTreeMap<String, String> {
        let mut people = BTreeMap::new();
        let tokens = self.tokens.iter().filter_map(|it| it.person.as_deref());
        let in_use = self.accounts.iter().map(|it| it.name.as_str()).chain(tokens);
        let rest = self.passkeys.iter().map(|it| it.holder.as_str());
        for name in in_use.chain(self.links.keys().map(String::as_str)).chain(rest) {
            people.entry(self.ties.root(&address(name))).or_insert_with(|| address(name));
        }
        people
    }

    fn known(&self, root: &str, of: String, engine: &Engine, electorate: &Electorate) -> Known {
        let is_theirs = |name: &str| self.ties.root(&address(name)) == root;
        let now = engine.clock.now();
        let issuers = &engine.settings.issuers;
        let accounts: Vec<_> = self.accounts.iter().filter(|it| is_theirs(&it.name)).cloned().collect();
        let tokens: Vec<_> =
            self.tokens.iter().filter(|it| it.person.as_deref().is_some_and(is_theirs)).cloned().collect();
        let mut others: BTreeSet<String> = accounts.iter().flat_map(Person::names).map(address).collect();
        others.extend(tokens.iter().filter_map(|it| it.person.as_deref()).map(address));
        others.remove(&of);
        let names: BTreeSet<&str> = accounts.iter().map(|it| it.name.as_str()).collect();
        let token_names: BTreeSet<&str> = tokens.iter().map(|it| it.name.as_str()).collect();
        let holds = |it: &&WebSession| match &it.issuer {
            Some(_) => names.contains(it.name.as_str()),
            None => token_names.contains(it.name.as_str()),
        };
        let sessions = self.sessions.iter().filter(holds).filter(|it| it.lasts(now)).cloned().collect();
        let roles = accounts.iter().flat_map(|it| &it.roles).chain(tokens.iter().flat_map(|it| &it.roles));
        let groups = accounts.iter().flat_map(|it| &it.groups);
        let passkeys = self.passkeys.iter().filter(|it| is_theirs(&it.holder));
        let identities: Vec<String> = names.iter().chain(&token_names).map(|it| (*it).to_owned()).collect();
        Known {
            roles: roles.copied().collect(),
            approver_groups: groups.filter(|it| electorate.groups.contains(*it)).cloned().collect(),
            passkeys: passkeys.map(|it| (it.clone(), engine.why_unsigned(it, &self.former))).collect(),
            link_used_at: self.links.iter().filter(|(name, _)| is_theirs(name)).map(|(_, at)| *at).max(),
            refused: electorate.refused(&identities),
            tokens,
            accounts: accounts
                .into_iter()
                .map(|it| {
                    let is_configured = issuers.contains(&it.issuer);
                    (it, is_configured)
                })
                .collect(),
            address: of,
            others,
            sessions,
        }
    }
}

/// Who may vote, on a rotation that a stranger proposes.
struct Electorate {
    ballot: Ballot,
    strength: Strength,
    /// The groups that a policy names as approvers.
    groups: BTreeSet<String>,
}

impl Electorate {
    /// Why none of these identities of a person could give a vote that counts: what ends first, or what all have.
    fn refused(&self, identities: &[String]) -> Option<Refused> {
        let mut found: Vec<Void> = Vec::new();
        for name in identities {
            found.push(self.ballot.refusal(name, self.strength, None)?);
        }
        let ends = found.iter().filter(|it| it.from().is_some()).min_by_key(|it| it.from());
        let lacks_role = |it: &&Void| matches!(it, Void::NotApprover(_));
        let why = ends.or_else(|| found.iter().find(|it| !lacks_role(it))).or_else(|| found.first());
        Some(match why {
            Some(Void::NotApprover(_)) => Refused {
                why: "none of the roles approves; a project's policy may name the person all the same"
                    .to_owned(),
                from: None,
            },
            Some(why) => Refused { why: why.to_string(), from: why.from() },
            None => Refused {
                why: "only by the link of a mail, where a project's policy names the address".to_owned(),
                from: None,
            },
        })
    }
}

impl Engine {
    /// Everybody who is known, by address.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn known_people(&self) -> Result<Vec<Known>, StoreError> {
        let found = self.found_people().await?;
        let electorate = self.electorate().await?;
        let mut known: Vec<Known> = found
            .people()
            .into_iter()
            .map(|(root, address)| found.known(&root, address, self, &electorate))
            .collect();
        known.sort_by(|one, other| one.address.cmp(&other.address));
        Ok(known)
    }

    async fn found_people(&self) -> Result<Found, StoreError> {
        let (mut accounts, removed) = (self.store.people().await?, self.store.removals().await?);
        let mut tokens: Vec<Token> = self.store.list_tokens().await?.into_iter().flatten().collect();
        tokens.retain(|it| it.revoked_at.is_none());
        let mut ties = Ties::default();
        for it in &accounts {
            for name in it.names() {
                ties.tie(&address(name), &address(&it.name));
            }
        }
        let former = self.store.former_addresses().await?;
        accounts.retain(|it| !it.is_removed());
        let mut links = self.store.link_users().await?;
        links.retain(|name, used| removed.get(&address(name)).is_none_or(|at| *used > *at));
        Ok(Found {
            accounts,
            tokens,
            links,
            passkeys: self.store.passkeys().await?,
            sessions: self.store.all_web_sessions().await?,
            former,
            ties,
        })
    }

    async fn electorate(&self) -> Result<Electorate, StoreError> {
        let now = self.clock.now();
        let stored = self.store.electorate(&self.settings.issuers).await?;
        let terms = Terms {
            proposer: String::new(),
            proposed_at: now,
            self_approval: false,
            excluded: Vec::new(),
            local_approves: false,
            approvers: Vec::new(),
            owners: Vec::new(),
            least: self.settings.policy.approval_method,
            issuers: self.settings.issuers.clone(),
            site: self.site().ok().map(|it| it.id),
            delays: delays(self),
            now,
        };
        let ballot = terms.ballot(stored, None).map_err(unreadable)?;
        let mut named = self.store.named_approvers().await?;
        named
            .extend(self.settings.policy.approvers.iter().chain(&self.settings.policy.emergency.by).cloned());
        let groups = named.into_iter().filter_map(|it| match it.who {
            Named::Group(group) => Some(group),
            Named::Owners | Named::Mail(_) => None,
        });
        let strength = Strength::Session.max(ballot.least);
        Ok(Electorate { ballot, strength, groups: groups.collect() })
    }

    /// Signs in whom an identity provider vouches for. Who may newly approve, or has another address, is told to those who
    /// look after the security.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written, and with [`StoreError::Tampered`] when what is known of the
    /// person is not what Keywheel wrote.
    pub async fn sign_in_person(
        &self,
        seen: &SeenPerson,
    ) -> Result<Result<Person, PersonRefusal>, StoreError> {
        let mut tries = 0..TRIES;
        loop {
            let now = self.clock.now();
            let before = self.store.account(&seen.issuer, &seen.subject).await?;
            let outbox = self.told_of_sign_in(before.as_ref(), seen, now).await?;
            match self.store.sign_in_person(seen, before.as_ref(), &outbox, now).await {
                Err(StoreError::Conflict) if tries.next().is_some() => {}
                done => {
                    self.mail_due.notify_one();
                    return done;
                }
            }
        }
    }

    /// The messages about a sign-in that changes who may approve, or under which name.
    async fn told_of_sign_in(
        &self,
        before: Option<&Person>,
        seen: &SeenPerson,
        now: Timestamp,
    ) -> Result<Vec<NewOutbox>, StoreError> {
        let gained = self.gained(before, seen).await?;
        let left = before.map(|it| it.name.as_str()).filter(|name| *name != seen.name);
        if gained.is_empty() && left.is_none() {
            return Ok(Vec::new());
        }
        let hearers = self.hears_of_people().await?;
        let told = |kind: Kind, people: &[String], detail: String| {
            let subject = format!("person/{}", address(&seen.name));
            let facts = Authority { detail: Some(detail), ..plain(kind, subject, &seen.name, now) };
            let identity = format!("person/{}#{}/{kind}/{}", seen.issuer, seen.subject, now.as_micros());
            rows(self, &identity, facts, people, now)
        };
        let mut outbox = Vec::new();
        if !gained.is_empty() {
            let detail = format!("It has signed in at {} as {}.", seen.issuer, gained.join(", "));
            outbox.extend(told(Kind::PersonJoined, &hearers, detail));
        }
        if let Some(left) = left {
            let own: Vec<String> =
                [left, &seen.name].map(address).into_iter().filter(|it| is_address(it)).collect();
            let detail = format!("At {} it was {} before.", seen.issuer, address(left));
            outbox.extend(told(Kind::PersonRenamed, &together(&own, &hearers), detail));
        }
        Ok(outbox)
    }

    /// By what somebody may newly approve: roles, groups that a policy names, or the address, where one names that.
    async fn gained(&self, before: Option<&Person>, seen: &SeenPerson) -> Result<Vec<String>, StoreError> {
        let had = |role: &Role| before.is_some_and(|it| it.roles.contains(role));
        let roles = seen.roles.iter().filter(|it| it.includes(Role::Approver) && !had(it));
        let mut gained: Vec<String> = roles.map(ToString::to_string).collect();
        let mut named = self.store.named_approvers().await?;
        named
            .extend(self.settings.policy.approvers.iter().chain(&self.settings.policy.emergency.by).cloned());
        let is_new = before.is_none_or(|it| it.is_removed() || it.name != seen.name);
        for who in named.into_iter().map(|it| it.who) {
            match who {
                Named::Group(group) => {
                    let was_in = before.is_some_and(|it| it.groups.contains(&group));
                    if seen.groups.contains(&group) && !was_in {
                        gained.push(format!("member of {group}"));
                    }
                }
                Named::Mail(mail) if is_new && address(&mail) == address(&seen.name) => {
                    gained.push("approver by address".to_owned());
                }
                Named::Mail(_) | Named::Owners => {}
            }
        }
        gained.sort();
        gained.dedup();
        Ok(gained)
    }

    /// Why a passkey signs no votes now; `None` when it does. `former` are addresses that accounts had before.
    #[must_use]
    pub fn why_unsigned(&self, it: &Passkey, former: &BTreeSet<String>) -> Option<String> {
        let now = self.clock.now();
        if former.contains(&it.holder) {
            return Some(format!(
                "it is of the former address {}; its person enrols another one, and this one is to be removed",
                it.holder
            ));
        }
        if self.site().map_or(true, |site| site.id != it.site) {
            return Some(format!("it works at {}, not at this address", it.site));
        }
        match (it.confirmed_at, it.counts_from) {
            (None, _) => {
                Some("it waits until an admin, or another passkey of its person, confirms it".to_owned())
            }
            (Some(_), None) => {
                Some(format!("it counts a while after these have heard of it: {}", it.told.join(", ")))
            }
            (Some(_), Some(from)) if from > now => Some(format!("it counts from {from} on")),
            (Some(_), Some(_)) => None,
        }
    }
}
