//! Everybody who is known here: by an identity provider, a token, a link that was used or a passkey, and whether a
//! vote would count. What shares an address, or had it, is one person.
//!
//! It only reads. Which vote counts is decided in `domain/vote.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::passkeys::holder;
use super::settling::{delays, unreadable};
use crate::domain::approver::{Named, Strength};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::{BY_MAIL, Ballot, Terms, Void};
use crate::store::{Passkey, Person, StoreError, Token, WebSession};

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

/// Why a person's vote would not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: String,
    /// From when on it would count, where that is known.
    pub from: Option<Timestamp>,
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
fn address(name: &str) -> String {
    holder(name.strip_prefix(BY_MAIL).unwrap_or(name))
}

/// What a list of everybody is made of.
struct Found {
    accounts: Vec<Person>,
    tokens: Vec<Token>,
    links: BTreeMap<String, Timestamp>,
    passkeys: Vec<Passkey>,
    sessions: Vec<WebSession>,
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
            passkeys: passkeys.map(|it| (it.clone(), engine.why_unsigned(it))).collect(),
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
        let accounts = self.store.people().await?;
        let mut tokens: Vec<Token> = self.store.list_tokens().await?.into_iter().flatten().collect();
        tokens.retain(|it| it.revoked_at.is_none());
        let mut ties = Ties::default();
        for it in &accounts {
            for name in it.names() {
                ties.tie(&address(name), &address(&it.name));
            }
        }
        Ok(Found {
            accounts,
            tokens,
            links: self.store.link_users().await?,
            passkeys: self.store.passkeys().await?,
            sessions: self.store.all_web_sessions().await?,
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
            delays: delays(self),
            now,
        };
        let ballot = terms.ballot(stored, None).map_err(unreadable)?;
        let mut named = self.store.named_approvers().await?;
        named.extend(self.settings.policy.approvers.iter().cloned());
        let groups = named.into_iter().filter_map(|it| match it.who {
            Named::Group(group) => Some(group),
            Named::Owners | Named::Mail(_) => None,
        });
        let strength = Strength::Session.max(ballot.least);
        Ok(Electorate { ballot, strength, groups: groups.collect() })
    }

    /// Why a passkey signs no votes now; `None` when it does.
    #[must_use]
    pub fn why_unsigned(&self, it: &Passkey) -> Option<String> {
        let now = self.clock.now();
        if self.site().map_or(true, |site| site.id != it.site) {
            return Some(format!("it works at {}, not at this address", it.site));
        }
        match (it.confirmed_at, it.counts_from) {
            (None, _) => Some("it waits until an admin, or another passkey of its person, confirms it".to_owned()),
            (Some(_), None) => {
                Some(format!("it counts a while after these have heard of it: {}", it.told.join(", ")))
            }
            (Some(_), Some(from)) if from > now => Some(format!("it counts from {from} on")),
            (Some(_), Some(_)) => None,
        }
    }
}
