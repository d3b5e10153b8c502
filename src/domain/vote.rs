//! Which votes on a rotation count: one function over all that decides it.
//!
//! A vote counts when its voter exists and may approve, is another person than the proposer and than every voter
//! before, has had that right for long enough, and has not loosened the project's rules lately.

use std::collections::BTreeMap;
use std::str::FromStr;

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
    /// The mail address of its person.
    pub person: Option<String>,
    /// Who made it; `None` for a user of the local socket.
    pub made_by: Option<String>,
    /// When it was made, got the role, or was given to its person; `None` for a user of the local socket.
    pub given_at: Option<Timestamp>,
    /// Who did that.
    pub given_by: Option<String>,
}

impl Identity {
    /// A user of the local socket.
    #[must_use]
    pub const fn local(may_approve: bool) -> Self {
        Self { may_approve, person: None, made_by: None, given_at: None, given_by: None }
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
    /// Every token, by name.
    pub identities: BTreeMap<String, Identity>,
    /// Who changed the project's rules, owners or lookup.
    pub bars: Vec<Bar>,
    /// The recorded settings.
    pub settings: BTreeMap<String, String>,
}

impl Terms {
    /// Everything that decides which votes count; `asked` is the name of who wants to vote.
    ///
    /// # Errors
    /// The name of the setting that cannot be read.
    pub fn ballot(self, stored: Stored, asked: Option<&str>) -> Result<Ballot, &'static str> {
        let Stored { votes, mut identities, bars, settings } = stored;
        let names = votes.iter().map(|vote| vote.by.as_str()).chain([self.proposer.as_str()]).chain(asked);
        for name in names.filter(|name| name.starts_with("local:")) {
            identities.insert(name.to_owned(), Identity::local(self.local_approves));
        }
        Ok(Ballot {
            loosen_after: self.delays.loosen_after(&settings)?,
            settling: self.delays.settling(&settings)?,
            proposer: self.proposer,
            proposed_at: self.proposed_at,
            self_approval: self.self_approval,
            excluded: self.excluded,
            votes,
            identities,
            bars,
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
    /// The votes, the oldest first.
    pub votes: Vec<CastVote>,
    /// The proposer, the voters and who else is asked about, by name. A name that is missing does not exist.
    pub identities: BTreeMap<String, Identity>,
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
            if let Some(why) = self.fault(&vote.by, vote.at, &voters) {
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
    pub fn refusal(&self, voter: &str) -> Option<Void> {
        let counted = self.count();
        let before = self.votes.iter().filter(|vote| vote.by != voter && !vote.of_policy);
        let before = before.filter(|vote| counted.void.iter().all(|(by, _)| *by != vote.by));
        let before: Vec<&str> = before.map(|vote| vote.by.as_str()).collect();
        self.fault(voter, self.now, &before)
    }

    /// Why the vote of `voter`, given at `at`, does not count beside those of `counted`.
    fn fault(&self, voter: &str, at: Timestamp, counted: &[&str]) -> Option<Void> {
        let name = || voter.to_owned();
        if voter == self.proposer && !self.self_approval {
            return Some(Void::Proposer(name()));
        }
        let demo = self.settling == Settling::Demo;
        let Some(identity) = self.identities.get(voter) else {
            return (!demo).then(|| Void::Unknown(name()));
        };
        if !identity.may_approve {
            return Some(Void::NotApprover(name()));
        }
        if !self.self_approval
            && let Some(why) = self.one_person(voter, &self.proposer)
        {
            return Some(Void::SamePerson { voter: name(), proposer: self.proposer.clone(), why });
        }
        if self.excluded.iter().any(|it| it == voter || Some(it) == identity.person.as_ref()) {
            return Some(Void::OwnsHook(name()));
        }
        if let Some(from) = self.counts_from(identity).filter(|from| at < *from) {
            return Some(Void::TooNew { voter: name(), span: self.loosen_after, from });
        }
        if let Some(void) = self.bars.iter().find_map(|bar| self.barred(voter, bar)) {
            return Some(void);
        }
        counted.iter().find_map(|earlier| {
            let why = self.one_person(voter, earlier)?;
            Some(Void::SecondVote { voter: name(), earlier: (*earlier).to_owned(), why })
        })
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
        let given = identity.given_at.filter(|at| !self.settling.covers(*at))?;
        Some(given + self.loosen_after.get())
    }

    /// Why two identities count as one person; `None` when they are two.
    fn one_person(&self, one: &str, other: &str) -> Option<String> {
        if one == other {
            return Some("they are the same identity".to_owned());
        }
        let (a, b) = (self.identities.get(one), self.identities.get(other));
        if let (Some(a), Some(b)) = (a, b)
            && let (Some(mine), Some(yours)) = (&a.person, &b.person)
            && mine.eq_ignore_ascii_case(yours)
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
