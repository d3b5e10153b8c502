//! Which votes on a rotation count: one function over all that decides it.
//!
//! A vote counts when its voter exists and may approve, is another person than the proposer and than every voter
//! before, has had that right for long enough, and has not loosened the project's rules lately.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::approver::{Approver, Strength};
use super::time::{Span, Timestamp};

/// The first day of an installation, in which nothing is delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// It ended, or ends, at this instant.
    Until(Timestamp),
    /// A demo: it does not end.
    Demo,
}

impl Settling {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn covers(self, at: Timestamp) -> bool {
        match self {
            Self::Until(end) => at < end,
            Self::Demo => true,
        }
    }
}

/// A voter or a proposer, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether it is in force and has a role that approves.
    pub may_approve: bool,
    /// The mail address of its person, or its name where no address is verified.
    pub person: Option<String>,
    /// Addresses and names that its person had before.
    pub former: Vec<String>,
    /// Who made it; `None` for a user of the local socket.
    pub made_by: Option<String>,
    /// When it was made, got the role, or was given to its person; `None` for a user of the local socket.
    pub given_at: Option<Timestamp>,
    /// Who did that.
    pub given_by: Option<String>,
    /// Its groups at the identity provider.
    pub groups: BTreeSet<String>,
}

/// What the name of a person begins with who comes by mail.
pub const BY_MAIL: &str = "mail:";

impl Identity {
    /// A user of the local socket.
    #[must_use]
    pub const fn local(may_approve: bool) -> Self {
        let groups = BTreeSet::new();
        let former = Vec::new();
        Self { may_approve, person: None, former, made_by: None, given_at: None, given_by: None, groups }
    }

    /// A person who is known by a mail address alone.
    #[must_use]
    pub fn mail(address: &str) -> Self {
        Self { person: Some(address.to_owned()), ..Self::local(false) }
    }

    /// Adds what another account of the same person may.
    pub fn join(&mut self, other: Self) {
        // A new account of the same address may be somebody else's doing.
        self.given_at = self.given_at.max(other.given_at);
        self.may_approve |= other.may_approve;
        self.former.extend(other.person);
        self.former.extend(other.former);
        self.groups.extend(other.groups);
    }

    /// Every address and name that its person has or had.
    pub fn people(&self) -> impl Iterator<Item = &String> {
        self.person.iter().chain(&self.former)
    }

    /// From when on what it was given counts; `None` where that was on the first day.
    #[must_use]
    pub fn counts_from(&self, settling: Settling, loosen_after: Span) -> Option<Timestamp> {
        let given = self.given_at.filter(|at| !settling.covers(*at))?;
        Some(given + loosen_after.get())
    }

    /// An address or a name that both have or had.
    fn shared(&self, other: &Self) -> Option<&String> {
        self.people().find(|it| other.people().any(|yours| it.eq_ignore_ascii_case(yours)))
    }
}

/// A vote as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CastVote {
    /// The voter.
    pub by: String,
    /// The instant.
    pub at: Timestamp,
    /// Whether the policy gave it in the place of people.
    pub of_policy: bool,
    /// How it was given.
    pub strength: Strength,
    /// With a passkey: its id; `None` for any of the voter's.
    pub passkey: Option<String>,
}

/// A passkey, as far as it decides whether a vote counts that it has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Whose it is: a mail address in lower case, or the name of an account.
    pub holder: String,
    /// The host at which it works.
    pub site: String,
    /// From when on its signatures count; `None` until it is confirmed and told.
    pub counts_from: Option<Timestamp>,
    /// Whether its holder is an address that an account had before, and none has now.
    pub is_of_former: bool,
}

/// An address that counts as one of an identity, although it does not name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The name of the identity.
    pub identity: String,
    /// The address.
    pub address: String,
    /// On rotations proposed until then; `None` for all.
    pub until: Option<Timestamp>,
}

/// Somebody who counts as no approver of the project for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The identity.
    pub by: String,
    /// What it did, as a clause such as `changed the owners`.
    pub what: &'static str,
    /// When that took effect; `None` while it is to come.
    pub effective_at: Option<Timestamp>,
}

/// The name under which the delay of what loosens is recorded.
pub const LOOSEN_AFTER: &str = "policy.loosen_after";

/// The name under which the length of the first day is recorded.
pub const SETTLE_IN: &str = "policy.settle_in";

/// The name under which the beginning of the first day is recorded. Another installation key begins no other.
pub const SINCE: &str = "installation.since";

/// The delays as they are configured. A lower value takes effect later, so those in force are those on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// How long after its announcement a loosened rule takes effect, and how long votes do not count.
    pub loosen_after: Span,
    /// The length of the first day; `None` in a demo.
    pub settle_in: Option<Span>,
    /// When the first day began, where that is not on record.
    pub began: Timestamp,
}

impl Delays {
    /// How long after its announcement a loosened rule takes effect.
    ///
    /// # Errors
    /// The name of the setting that cannot be read.
    pub fn loosen_after(&self, recorded: &BTreeMap<String, String>) -> Result<Span, &'static str> {
        match self.settle_in {
            Some(_) => in_force(recorded, LOOSEN_AFTER, self.loosen_after),
            None => Ok(self.loosen_after),
        }
    }

    /// The first day.
    ///
    /// # Errors
    /// The name of the setting that cannot be read.
    pub fn settling(&self, recorded: &BTreeMap<String, String>) -> Result<Settling, &'static str> {
        let Some(configured) = self.settle_in else { return Ok(Settling::Demo) };
        let began = in_force(recorded, SINCE, self.began)?;
        Ok(Settling::Until(began + in_force(recorded, SETTLE_IN, configured)?.get()))
    }
}

/// The value on record; without one, the configured one.
fn in_force<T: FromStr>(
    recorded: &BTreeMap<String, String>,
    name: &'static str,
    configured: T,
) -> Result<T, &'static str> {
    recorded.get(name).map_or(Ok(configured), |text| text.parse().map_err(|_| name))
}

/// What a count depends on beside votes, tokens, changes of rules and recorded settings.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The proposer.
    pub proposer: String,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// Whether the proposer may approve too.
    pub self_approval: bool,
    /// Names and mail addresses of those who own the hook that proposed.
    pub excluded: Vec<String>,
    /// Whether users of the local socket may approve.
    pub local_approves: bool,
    /// Whom the policy names as approvers; empty for everybody with a role that approves.
    pub approvers: Vec<Approver>,
    /// The owners whom it names.
    pub owners: Vec<String>,
    /// The weakest vote that counts.
    pub least: Strength,
    /// The issuers of the configured identity providers. With one, a token votes only for a person.
    pub issuers: BTreeSet<String>,
    /// The host of the pages, at which a passkey can sign now; `None` where none can.
    pub site: Option<String>,
    /// The delays.
    pub delays: Delays,
    /// The present instant.
    pub now: Timestamp,
}

/// What is stored about the votes on a rotation.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The votes, the oldest first.
    pub votes: Vec<CastVote>,
    /// Every token, and every person of an identity provider, by name.
    pub identities: BTreeMap<String, Identity>,
    /// The passkeys, by id.
    pub passkeys: BTreeMap<String, Passkey>,
    /// Who changed the project's rules, owners or lookup.
    pub bars: Vec<Bar>,
    /// The recorded settings.
    pub settings: BTreeMap<String, String>,
    /// The project's owners.
    pub owners: Vec<String>,
    /// Addresses in lower case whose person was removed, and when.
    pub removed: BTreeMap<String, Timestamp>,
    /// Addresses that count as those of an identity beside those that it names.
    pub ties: Vec<Tie>,
}

impl Terms {
    /// Everything that decides which votes count; `asked` is the name of who wants to vote.
    ///
    /// # Errors
    /// The name of the setting that cannot be read.
    pub fn ballot(self, stored: Stored, asked: Option<&str>) -> Result<Ballot, &'static str> {
        let Stored { votes, mut identities, passkeys, bars, settings, owners, removed, ties } = stored;
        let names = votes.iter().map(|vote| vote.by.as_str()).chain([self.proposer.as_str()]).chain(asked);
        for name in names.chain(bars.iter().map(|bar| bar.by.as_str())) {
            if name.starts_with("local:") {
                identities.insert(name.to_owned(), Identity::local(self.local_approves));
            } else if let Some(address) = name.strip_prefix(BY_MAIL) {
                identities.entry(name.to_owned()).or_insert_with(|| Identity::mail(address));
            }
        }
        // To separate two comes too late for what is proposed.
        for it in ties.into_iter().filter(|it| it.until.is_none_or(|until| self.proposed_at <= until)) {
            if let Some(identity) = identities.get_mut(&it.identity) {
                identity.former.push(it.address);
            }
        }
        // Who joined after the proposal decides nothing about it, and who left does not either.
        let stays = |owner: &String| owners.iter().any(|it| it.eq_ignore_ascii_case(owner));
        let owners = self.owners.into_iter().filter(stays).collect();
        Ok(Ballot {
            loosen_after: self.delays.loosen_after(&settings)?,
            settling: self.delays.settling(&settings)?,
            proposer: self.proposer,
            proposed_at: self.proposed_at,
            self_approval: self.self_approval,
            excluded: self.excluded,
            approvers: self.approvers,
            owners,
            least: self.least,
            only_people: !self.issuers.is_empty(),
            site: self.site,
            votes,
            identities,
            passkeys,
            bars,
            removed,
            now: self.now,
        })
    }
}

/// Everything that decides which votes count.
#[derive(Clone, Debug)]
pub struct Ballot {
    /// The proposer.
    pub proposer: String,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// Whether the proposer may approve too.
    pub self_approval: bool,
    /// Names and mail addresses of those who own the hook that proposed.
    pub excluded: Vec<String>,
    /// Whom the policy names as approvers; empty for everybody with a role that approves.
    pub approvers: Vec<Approver>,
    /// The owners whom it names.
    pub owners: Vec<String>,
    /// The weakest vote that counts.
    pub least: Strength,
    /// Whether the vote of a token that was given to nobody is void: people sign in with an identity provider.
    pub only_people: bool,
    /// The host of the pages, at which a passkey can sign now; `None` where none can.
    pub site: Option<String>,
    /// The votes, the oldest first.
    pub votes: Vec<CastVote>,
    /// The proposer, the voters and who else is asked about, by name. A name that is missing does not exist.
    pub identities: BTreeMap<String, Identity>,
    /// The passkeys, by id.
    pub passkeys: BTreeMap<String, Passkey>,
    /// Addresses in lower case whose person was removed, and when.
    pub removed: BTreeMap<String, Timestamp>,
    /// Who counts as no approver of the project for a while.
    pub bars: Vec<Bar>,
    /// For how long.
    pub loosen_after: Span,
    /// The first day.
    pub settling: Settling,
    /// The present instant.
    pub now: Timestamp,
}

/// Why a vote does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Nobody has that name.
    #[error("{0} is not known here")]
    Unknown(String),
    /// The token was revoked, or lost its role.
    #[error("{0} was revoked, or may not approve any more")]
    NotApprover(String),
    /// The policy names others.
    #[error("the project's policy names who may approve ({named}), and {voter} is not among them{}", hint(*has_person, voter))]
    NotNamed {
        /// The voter.
        voter: String,
        /// Whom it names.
        named: String,
        /// Whether it is known whose identity it is.
        has_person: bool,
    },
    /// Others of the same entry have voted, and one vote of them counts.
    #[error("{voter} is named by {entry}, and one vote of those it names counts; another has voted")]
    OneOfThem {
        /// The voter.
        voter: String,
        /// The entries that name it.
        entry: String,
    },
    /// The vote was given in a weaker way than the policy takes.
    #[error("{voter} voted by {method}, and this project's policy takes {least} or stronger")]
    TooWeak {
        /// The voter.
        voter: String,
        /// How the vote was given.
        method: Strength,
        /// The weakest that counts.
        least: Strength,
    },
    /// The passkey that signed it is not one of the voter's, or does not count.
    #[error("{0} has no passkey that counts; one is added under the own name, at the top of each page")]
    NoPasskey(String),
    /// The voter is a token without a person, where people sign in with an identity provider.
    #[error(
        "{0} is a token that was given to nobody, and where people sign in with an identity provider such a vote does not count; `keywheel token edit {0} --person MAIL` names its person"
    )]
    NoPerson(String),
    /// The voter proposed the rotation, or is the same person.
    #[error("{0} proposed this rotation and cannot approve it; another approver must")]
    Proposer(String),
    /// The voter is the same person as the proposer.
    #[error(
        "{voter} and {proposer}, who proposed this rotation, count as one person: {why}; another approver must decide"
    )]
    SamePerson {
        /// The voter.
        voter: String,
        /// The proposer.
        proposer: String,
        /// Why they count as one.
        why: String,
    },
    /// Another vote of the same person counts.
    #[error("{voter} and {earlier}, who has approved, count as one person: {why}")]
    SecondVote {
        /// The voter.
        voter: String,
        /// The voter whose vote counts.
        earlier: String,
        /// Why they count as one.
        why: String,
    },
    /// The voter owns the hook that proposed the rotation.
    #[error("{0} owns the hook that proposed this rotation and cannot approve it; another approver must")]
    OwnsHook(String),
    /// The token is too new.
    #[error(
        "{voter} was made, got its role or was given to another person less than {span} before; its votes count from {from} on"
    )]
    TooNew {
        /// The voter.
        voter: String,
        /// How long that takes.
        span: Span,
        /// From when on its votes count.
        from: Timestamp,
    },
    /// The voter loosened a rule of the project, or changed its owners or its lookup.
    #[error("{voter} {what}{}", counts(*from, *span))]
    Barred {
        /// The voter.
        voter: String,
        /// What it did.
        what: &'static str,
        /// From when on its votes count; `None` while that is not known.
        from: Option<Timestamp>,
        /// How long it takes after the change.
        span: Span,
    },
}

fn hint(has_person: bool, voter: &str) -> String {
    if has_person {
        return String::new();
    }
    format!("; nobody is named as the person of {voter} (`keywheel token edit {voter} --person MAIL`)")
}

fn counts(from: Option<Timestamp>, span: Span) -> String {
    match from {
        Some(from) => format!("; its votes on this project count from {from} on"),
        None => format!(
            "; its votes on this project count {span} after that took effect, or when it is withdrawn"
        ),
    }
}

impl Void {
    /// From when on a vote would count, where that is known.
    #[must_use]
    pub const fn from(&self) -> Option<Timestamp> {
        match self {
            Self::TooNew { from, .. } => Some(*from),
            Self::Barred { from, .. } => *from,
            _ => None,
        }
    }
}

/// The result of a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many votes count.
    pub given: u32,
    /// The voters whose votes do not, with the reasons.
    pub void: Vec<(String, Void)>,
}

/// How a vote is given, and when.
#[derive(Clone, Copy)]
struct Way<'a> {
    at: Timestamp,
    strength: Strength,
    passkey: Option<&'a str>,
}

impl Ballot {
    /// Counts the votes.
    #[must_use]
    pub fn count(&self) -> Counted {
        let mut counted = Counted::default();
        let mut voters: Vec<&str> = Vec::new();
        for vote in &self.votes {
            if vote.of_policy {
                counted.given += 1;
                continue;
            }
            let way = Way { at: vote.at, strength: vote.strength, passkey: vote.passkey.as_deref() };
            if let Some(why) = self.fault(&vote.by, way, &voters) {
                counted.void.push((vote.by.clone(), why));
            } else {
                counted.given += 1;
                voters.push(&vote.by);
            }
        }
        counted
    }

    /// Why a vote that `voter` gives now would not count; `None` when it would.
    #[must_use]
    pub fn refusal(&self, voter: &str, strength: Strength, passkey: Option<&str>) -> Option<Void> {
        let counted = self.count();
        let before = self.votes.iter().filter(|vote| vote.by != voter && !vote.of_policy);
        let before = before.filter(|vote| counted.void.iter().all(|(by, _)| *by != vote.by));
        let before: Vec<&str> = before.map(|vote| vote.by.as_str()).collect();
        self.fault(voter, Way { at: self.now, strength, passkey }, &before)
    }

    /// The vote of the same person as `voter`, by this or another identity.
    #[must_use]
    pub fn own_vote(&self, voter: &str) -> Option<&CastVote> {
        let own = self.identities.get(voter);
        let is_same = |by: &str| {
            by == voter || own.zip(self.identities.get(by)).is_some_and(|(a, b)| a.shared(b).is_some())
        };
        self.votes.iter().find(|vote| !vote.of_policy && is_same(&vote.by))
    }

    /// Why the vote of `voter`, given at `at`, does not count beside those of `counted`.
    fn fault(&self, voter: &str, way: Way<'_>, counted: &[&str]) -> Option<Void> {
        let Way { at, strength, passkey } = way;
        let name = || voter.to_owned();
        if voter == self.proposer && !self.self_approval {
            return Some(Void::Proposer(name()));
        }
        let demo = self.settling == Settling::Demo;
        let Some(identity) = self.identities.get(voter) else {
            return (!demo).then(|| Void::Unknown(name()));
        };
        if let Some(void) = self.without_right(voter, identity) {
            return Some(void);
        }
        if let Some(void) = self.removed(voter, identity, at) {
            return Some(void);
        }
        // Names of tokens have no colon.
        if self.only_people && identity.person.is_none() && !voter.contains(':') {
            return Some(Void::NoPerson(name()));
        }
        if !self.self_approval
            && let Some(why) = self.one_person(voter, &self.proposer)
        {
            return Some(Void::SamePerson { voter: name(), proposer: self.proposer.clone(), why });
        }
        let is_own = |it: &String| identity.people().any(|own| own.eq_ignore_ascii_case(it));
        if self.excluded.iter().any(|it| it == voter || is_own(it)) {
            return Some(Void::OwnsHook(name()));
        }
        if let Some(from) = self.counts_from(identity).filter(|from| at < *from) {
            return Some(Void::TooNew { voter: name(), span: self.loosen_after, from });
        }
        if let Some(void) = self.bars.iter().find_map(|bar| self.barred(voter, bar)) {
            return Some(void);
        }
        if strength < self.least {
            return Some(Void::TooWeak { voter: name(), method: strength, least: self.least });
        }
        if strength == Strength::Passkey && !self.has_passkey(identity, passkey, at) {
            return Some(Void::NoPasskey(name()));
        }
        let second = counted.iter().find_map(|earlier| {
            let why = self.one_person(voter, earlier)?;
            Some(Void::SecondVote { voter: name(), earlier: (*earlier).to_owned(), why })
        });
        second.or_else(|| self.one_of_them(voter, counted))
    }

    /// Whether a passkey of this person counted at `at`: the one with this id, or any that can sign now. One of a former
    /// address counts for nobody: who has that mailbox now is not known.
    fn has_passkey(&self, identity: &Identity, id: Option<&str>, at: Timestamp) -> bool {
        let person = identity.person.as_deref();
        let is_theirs =
            |it: &Passkey| !it.is_of_former && person.is_some_and(|own| own.eq_ignore_ascii_case(&it.holder));
        let counts = |it: &Passkey| it.counts_from.is_some_and(|from| from <= at);
        self.passkeys.iter().any(|(it, passkey)| {
            let is_asked = id.map_or(self.site.as_deref() == Some(&passkey.site), |id| id == it);
            is_asked && is_theirs(passkey) && counts(passkey)
        })
    }

    /// Why a vote given at `at` does not count because the voter's person was removed, and is not known again for long
    /// enough: by a sign-in or a token of after the removal.
    fn removed(&self, voter: &str, identity: &Identity, at: Timestamp) -> Option<Void> {
        let person = identity.person.as_ref()?.to_ascii_lowercase();
        let removed_at = *self.removed.get(&person)?;
        let is_same = |it: &&Identity| it.person.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(&person));
        let given = self.identities.values().filter(is_same).filter_map(|it| it.given_at);
        let Some(again) = given.filter(|it| *it > removed_at && at > removed_at).min() else {
            return Some(Void::NotApprover(voter.to_owned()));
        };
        let from = again + self.loosen_after.get();
        let is_young = at < from && !self.settling.covers(again);
        is_young.then(|| Void::TooNew { voter: voter.to_owned(), span: self.loosen_after, from })
    }

    /// Why a voter has no right to vote: it lacks the role, or the policy names others. A person who is
    /// named needs no role; a token does.
    fn without_right(&self, voter: &str, identity: &Identity) -> Option<Void> {
        let is_named = !self.approvers.is_empty();
        // Names of tokens have no colon.
        let is_person = voter.contains(':') && !voter.starts_with("local:");
        let needs_role = !(is_named && is_person);
        if needs_role && !identity.may_approve {
            return Some(Void::NotApprover(voter.to_owned()));
        }
        if !is_named || self.naming(voter).next().is_some() {
            return None;
        }
        let named = self.approvers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(Void::NotNamed { voter: voter.to_owned(), named, has_person: identity.person.is_some() })
    }

    /// The entries of the policy that name a voter, by their place.
    fn naming<'a>(&'a self, voter: &str) -> impl Iterator<Item = usize> + 'a {
        let identity = self.identities.get(voter);
        let names = move |entry: &Approver| {
            identity.is_some_and(|it| entry.who.names(it.person.as_deref(), &it.groups, &self.owners))
        };
        self.approvers.iter().enumerate().filter(move |(_, entry)| names(entry)).map(|(place, _)| place)
    }

    /// Why `voter` is one too many of those whom an entry names once.
    fn one_of_them(&self, voter: &str, counted: &[&str]) -> Option<Void> {
        let is_once = |name: &&str| {
            let mut entries = self.naming(name).peekable();
            entries.peek().is_some()
                && entries.all(|place| self.approvers.get(place).is_some_and(|it| it.once))
        };
        let voters: Vec<&str> = counted.iter().copied().chain([voter]).filter(is_once).collect();
        // Each voter takes an entry of its own; who stands in the way of another moves on to a free one.
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        let fits =
            (0..voters.len()).all(|voter| self.takes(&voters, voter, &mut taken, &mut BTreeSet::new()));
        if fits {
            return None;
        }
        let entries = self.naming(voter).filter_map(|place| self.approvers.get(place));
        let entry = entries.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(Void::OneOfThem { voter: voter.to_owned(), entry })
    }

    fn takes(
        &self,
        voters: &[&str],
        voter: usize,
        taken: &mut BTreeMap<usize, usize>,
        tried: &mut BTreeSet<usize>,
    ) -> bool {
        let entries: Vec<usize> = voters.get(voter).into_iter().flat_map(|name| self.naming(name)).collect();
        for entry in entries {
            if !tried.insert(entry) {
                continue;
            }
            let free = match taken.get(&entry).copied() {
                None => true,
                Some(other) => self.takes(voters, other, taken, tried),
            };
            if free {
                taken.insert(entry, voter);
                return true;
            }
        }
        false
    }

    fn barred(&self, voter: &str, bar: &Bar) -> Option<Void> {
        if bar.by != voter && self.one_person(voter, &bar.by).is_none() {
            return None;
        }
        let from = bar.effective_at.map(|at| at + self.loosen_after.get());
        let over = bar.effective_at.is_some_and(|at| self.settling.covers(at))
            || from.is_some_and(|from| self.now >= from);
        let (what, span) = (bar.what, self.loosen_after);
        (!over).then(|| Void::Barred { voter: voter.to_owned(), what, from, span })
    }

    /// From when on the votes of a token count; `None` for one that was given its right on the first day.
    fn counts_from(&self, identity: &Identity) -> Option<Timestamp> {
        identity.counts_from(self.settling, self.loosen_after)
    }

    /// Why two identities count as one person; `None` when they are two.
    #[must_use]
    pub fn one_person(&self, one: &str, other: &str) -> Option<String> {
        if one == other {
            return Some("they are the same identity".to_owned());
        }
        let (a, b) = (self.identities.get(one), self.identities.get(other));
        if let (Some(a), Some(b)) = (a, b)
            && let Some(mine) = a.shared(b)
        {
            return Some(format!("both belong to {mine}"));
        }
        if self.settling == Settling::Demo {
            return None;
        }
        self.made(a, one, other).or_else(|| self.made(b, other, one))
    }

    /// Why `token` counts as the same person as `maker`.
    fn made(&self, identity: Option<&Identity>, token: &str, maker: &str) -> Option<String> {
        let it = identity?;
        let local = maker.starts_with("local:");
        if local && it.person.is_none() && it.made_by.as_deref() == Some(maker) {
            return Some(format!(
                "{maker} made {token} on this machine, and it was given to nobody (`keywheel token edit {token} --person MAIL`)"
            ));
        }
        let new = self.counts_from(it).is_some_and(|from| self.proposed_at < from || self.now < from);
        let gave = it.given_by.as_deref() == Some(maker) || it.made_by.as_deref() == Some(maker);
        (new && gave)
            .then(|| format!("{maker} made {token}, or gave it, less than {} before", self.loosen_after))
    }
}

#[cfg(test)]
mod tests;
