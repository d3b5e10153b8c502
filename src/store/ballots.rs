//! What the count of a rotation's votes depends on: votes, their voters, and who counts as no approver for a while.
//!
//! People are shown a count of what the tables say. Before a PATCH it is made anew, in the transaction that records
//! the attempt, from what is as Keywheel wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::approvals::{Approval, OWN_APPROVAL, votes_subject};
use super::loosenings::{Separations, bar};
use super::passkeys::Passkey;
use super::people::{self, Person};
use super::removals::Removal;
use super::seal::Seal;
use super::tokens::StoredToken;
use super::{Store, StoreError, Tx};
use crate::domain::approver::Strength;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::time::Timestamp;
use crate::domain::vote::{CastVote, Counted, Identity, Stored, Terms, Tie};

/// The tokens, people and settings that a transaction has read and compared with their seals. Until its end nobody else writes
/// them: on SQLite many counts share one transaction.
#[derive(Debug, Default)]
pub(super) struct Compared {
    tokens: Option<Arc<Vec<Known<StoredToken>>>>,
    people: Option<Arc<Vec<Known<Person>>>>,
    separations: Option<Arc<Separations>>,
    is_whole: bool,
    settings: Option<Arc<BTreeMap<String, String>>>,
}

impl Compared {
    /// Forgets what was read, when this transaction itself has written some of it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A token or a person, and why it is not what Keywheel wrote.
#[derive(Debug)]
struct Known<T> {
    it: T,
    fault: Option<(String, String)>,
}

fn cast(votes: Vec<Approval>) -> Vec<CastVote> {
    let cast = |vote: Approval| CastVote {
        of_policy: vote.method == OWN_APPROVAL,
        strength: Strength::of(&vote.method),
        // A vote that claims a passkey and has none is one of a passkey that is not known.
        passkey: Some(vote.signed.map(|it| it.passkey).unwrap_or_default()),
        by: vote.by,
        at: vote.at,
    };
    votes.into_iter().map(cast).collect()
}

fn tied(separations: &Separations, subject: &str, name: &str) -> Vec<Tie> {
    let tie = |(address, until)| Tie { identity: name.to_owned(), address, until };
    separations.ties(subject).into_iter().map(tie).collect()
}

/// The subject of an account with each of its names.
fn named_by(it: &Person) -> Vec<(String, String)> {
    it.names().map(|name| (it.log_subject(), name.to_owned())).collect()
}

impl Store {
    /// Tokens and people by name, without those that are not what Keywheel wrote.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn sound_identities(
        &self,
        issuers: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Identity>, StoreError> {
        let (mut people, tokens) = (self.people().await?, self.stored_tokens().await?);
        // What was written meanwhile is known then.
        self.check_seals(&[]).await?;
        let fits =
            |Seal { subject, digest }: Seal| digest.is_some_and(|digest| self.seals().fits(&subject, digest));
        people.retain(|it| fits(it.seal()));
        let mut identities = people::identities(&people.iter().collect::<Vec<_>>(), issuers);
        identities.extend(tokens.iter().filter(|it| fits(it.seal())).map(StoredToken::identity));
        Ok(identities)
    }

    /// What the tables say about the votes on a rotation of this project.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and with [`StoreError::Tampered`] when the settings are not what Keywheel
    /// wrote.
    pub async fn stored_ballot(
        &self,
        id: RotationId,
        group: &GroupId,
        issuers: &BTreeSet<String>,
    ) -> Result<Stored, StoreError> {
        self.ballot_among(id, group, self.electorate(issuers).await?).await
    }

    /// The same where everybody who may vote was read already.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn ballot_among(
        &self,
        id: RotationId,
        group: &GroupId,
        electorate: Stored,
    ) -> Result<Stored, StoreError> {
        Ok(Stored {
            votes: cast(self.approvals(id).await?),
            bars: self.standing(group).await?.iter().filter_map(bar).collect(),
            owners: self.owners(group).await?,
            ..electorate
        })
    }

    /// What the tables say about everybody who may vote, whatever the rotation.
    ///
    /// # Errors
    /// As [`Store::stored_ballot`].
    pub async fn electorate(&self, issuers: &BTreeSet<String>) -> Result<Stored, StoreError> {
        let people = self.people().await?;
        let mut identities = people::identities(&people.iter().collect::<Vec<_>>(), issuers);
        let (tokens, separations) = (self.stored_tokens().await?, self.separations().await?);
        identities.extend(tokens.iter().map(StoredToken::identity));
        let named = tokens.iter().map(|it| (it.subject(), it.name.clone()));
        let named = named.chain(people.iter().flat_map(named_by));
        let ties = named.flat_map(|(subject, name)| tied(&separations, &subject, &name)).collect();
        let (former, passkeys) = (people::former_addresses(people.iter()), self.passkeys().await?);
        Ok(Stored {
            identities,
            passkeys: passkeys.iter().map(|it| (it.id.clone(), it.facts(&former))).collect(),
            settings: self.recorded_settings().await?,
            removed: self.removals().await?,
            ties,
            ..Stored::default()
        })
    }
}

impl Tx {
    /// Counts the votes on a rotation anew, before its first PATCH, by what is stored now and is as it was sealed.
    pub(super) async fn check_votes(
        &mut self,
        id: RotationId,
        (needed, proposal_hash): (u32, &str),
        terms: &Terms,
        group: &GroupId,
    ) -> Result<(), StoreError> {
        let votes = self.sealed_votes(id).await?;
        let passkeys = self.signing_passkeys(id, proposal_hash, &votes).await?;
        let votes = cast(votes);
        if votes.iter().any(|vote| vote.of_policy) {
            return Ok(());
        }
        let bars: Vec<_> = self.sealed_loosenings(group).await?.iter().filter_map(bar).collect();
        // Who the proposer is cannot be told any more when its row was changed, so nobody can be told apart from it; the
        // same for who is barred.
        let counts = |name: &str| name == terms.proposer || bars.iter().any(|bar| bar.by == name);
        let (people, tokens) = (self.compared_people().await?, self.compared_tokens().await?);
        if !self.compared.is_whole {
            let people = people.iter().map(|known| known.it.log_subject());
            let removals = self.stored_removals().await?.iter().map(Removal::subject).collect::<Vec<_>>();
            let tokens = tokens.iter().map(|known| known.it.subject());
            let there = people.chain(tokens).chain(removals).collect::<Vec<_>>();
            self.check_none_is_missing(there.into_iter()).await?;
            self.compared.is_whole = true;
        }
        let sound: Vec<_> = people.iter().filter(|it| it.fault.is_none()).map(|known| &known.it).collect();
        let mut identities = people::identities(&sound, &terms.issuers);
        for Known { it, fault } in people.iter() {
            if let Some((subject, why)) = fault.as_ref().filter(|_| it.names().any(counts)) {
                return Err(StoreError::tampered(subject, why));
            }
        }
        for Known { it: token, fault } in tokens.iter() {
            match fault {
                None => identities.extend([token.identity()]),
                Some((subject, why)) if counts(&token.name) => {
                    return Err(StoreError::tampered(subject, why));
                }
                Some(_) => {}
            }
        }
        let settings = BTreeMap::clone(&*self.compared_settings().await?);
        let owners = if terms.owners.is_empty() { Vec::new() } else { self.sealed_owners(group).await? };
        let former = people::former_addresses(people.iter().map(|known| &known.it));
        let passkeys = passkeys.iter().map(|(id, it)| (id.clone(), it.facts(&former))).collect();
        let removed = self.sealed_removals().await?;
        let named = tokens.iter().map(|known| (known.it.subject(), known.it.name.clone()));
        let named = named.chain(people.iter().flat_map(|known| named_by(&known.it)));
        let ties = self.ties(named).await?;
        let stored = Stored { votes, identities, passkeys, bars, settings, owners, removed, ties };
        let ballot = terms.clone().ballot(stored, None).map_err(|name| StoreError::Corrupt {
            table: "settings",
            column: "value",
            id: name.to_owned(),
        })?;
        let Counted { given, void } = ballot.count();
        if given >= needed {
            return Ok(());
        }
        Err(StoreError::Unapproved { voters: void.into_iter().map(|(voter, _)| voter).collect() })
    }

    /// The passkeys that may have signed a vote. Each signature is checked again, for what is about to be sent.
    async fn signing_passkeys(
        &mut self,
        id: RotationId,
        proposal_hash: &str,
        votes: &[Approval],
    ) -> Result<BTreeMap<String, Passkey>, StoreError> {
        if votes.iter().all(|vote| vote.signed.is_none()) {
            return Ok(BTreeMap::new());
        }
        let passkeys = self.sound_passkeys().await?;
        for (vote, signed) in votes.iter().filter_map(|vote| Some((vote, vote.signed.as_ref()?))) {
            // The vote of a passkey that was removed does not count.
            let Some(passkey) = passkeys.get(&signed.passkey) else { continue };
            if let Err(why) = signed.check(id, proposal_hash, passkey) {
                let why = format!("the signature of {}'s vote: {why}", vote.by);
                return Err(StoreError::tampered(&votes_subject(id), &why));
            }
        }
        Ok(passkeys)
    }

    /// Who was removed, and when; refuses what Keywheel did not write.
    async fn sealed_removals(&mut self) -> Result<BTreeMap<String, Timestamp>, StoreError> {
        let all = self.stored_removals().await?;
        let seals: Vec<Seal> = all.iter().map(Removal::seal).collect();
        self.check_seals(&seals).await?;
        Ok(all.into_iter().map(|it| (it.address, it.at)).collect())
    }

    async fn compared_tokens(&mut self) -> Result<Arc<Vec<Known<StoredToken>>>, StoreError> {
        if let Some(tokens) = &self.compared.tokens {
            return Ok(Arc::clone(tokens));
        }
        let mut known = Vec::new();
        for it in self.stored_tokens().await? {
            let fault = self.fault_of_identity(&it.subject(), it.seal()).await?;
            known.push(Known { it, fault });
        }
        Ok(Arc::clone(self.compared.tokens.insert(Arc::new(known))))
    }

    async fn compared_people(&mut self) -> Result<Arc<Vec<Known<Person>>>, StoreError> {
        if let Some(people) = &self.compared.people {
            return Ok(Arc::clone(people));
        }
        let mut known = Vec::new();
        for it in self.people().await? {
            let fault = self.fault_of_identity(&it.log_subject(), it.seal()).await?;
            known.push(Known { it, fault });
        }
        Ok(Arc::clone(self.compared.people.insert(Arc::new(known))))
    }

    /// What separates addresses from identities, as the table has it.
    async fn compared_separations(&mut self) -> Result<Arc<Separations>, StoreError> {
        if let Some(separations) = &self.compared.separations {
            return Ok(Arc::clone(separations));
        }
        let separations = Arc::new(self.separations().await?);
        Ok(Arc::clone(self.compared.separations.insert(separations)))
    }

    /// Why an identity is not what Keywheel wrote, or what was separated from it is not.
    async fn fault_of_identity(
        &mut self,
        subject: &str,
        seal: Seal,
    ) -> Result<Option<(String, String)>, StoreError> {
        if let Some(fault) = self.fault(seal).await? {
            return Ok(Some(fault));
        }
        // Without a sealed list there is nothing, whatever the table says.
        if !self.was_changed(subject).await? {
            return Ok(None);
        }
        for seal in self.compared_separations().await?.seals(subject) {
            if let Some(fault) = self.fault(seal).await? {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }

    /// The ties of these identities beside the addresses that they name.
    async fn ties(
        &mut self,
        identities: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<Tie>, StoreError> {
        let separations = self.compared_separations().await?;
        let mut ties = Vec::new();
        for (subject, name) in identities {
            if self.was_changed(&subject).await? {
                ties.extend(tied(&separations, &subject, &name));
            }
        }
        Ok(ties)
    }

    /// The subject of a row that is not what Keywheel wrote, and why.
    async fn fault(&mut self, seal: Seal) -> Result<Option<(String, String)>, StoreError> {
        match self.check_seals(&[seal]).await {
            Err(StoreError::Tampered { subject, why }) => Ok(Some((subject, why))),
            checked => checked.map(|()| None),
        }
    }

    /// The settings as Keywheel recorded them.
    async fn compared_settings(&mut self) -> Result<Arc<BTreeMap<String, String>>, StoreError> {
        if let Some(settings) = &self.compared.settings {
            return Ok(Arc::clone(settings));
        }
        let settings = Arc::new(self.sealed_settings().await?);
        Ok(Arc::clone(self.compared.settings.insert(settings)))
    }
}
