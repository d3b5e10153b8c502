//! What the count of a rotation's votes depends on: votes, their voters, and who counts as no approver for a while.
//!
//! People are shown a count of what the tables say. Before a PATCH it is made anew, in the transaction that records
//! the attempt, from what is as Keywheel wrote it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::approvals::{Approval, OWN_APPROVAL};
use super::loosenings::bar;
use super::tokens::StoredToken;
use super::{Store, StoreError, Tx};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::vote::{CastVote, Counted, Stored, Terms};

/// The tokens and settings that a transaction has read and compared with their seals. Until its end nobody else writes
/// them: on SQLite many counts share one transaction.
#[derive(Debug, Default)]
pub(super) struct Compared {
    tokens: Option<Arc<Vec<Known>>>,
    settings: Option<Arc<BTreeMap<String, String>>>,
}

impl Compared {
    /// Forgets what was read, when this transaction itself has written some of it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A token, and why it is not what Keywheel wrote.
#[derive(Debug)]
struct Known {
    token: StoredToken,
    fault: Option<(String, String)>,
}

fn cast(votes: Vec<Approval>) -> Vec<CastVote> {
    let cast = |vote: Approval| CastVote { of_policy: vote.method == OWN_APPROVAL, by: vote.by, at: vote.at };
    votes.into_iter().map(cast).collect()
}

impl Store {
    /// What the tables say about the votes on a rotation of this project.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and with [`StoreError::Tampered`] when the settings are not what Keywheel
    /// wrote.
    pub async fn stored_ballot(&self, id: RotationId, group: &GroupId) -> Result<Stored, StoreError> {
        Ok(Stored {
            votes: cast(self.approvals(id).await?),
            identities: self.stored_tokens().await?.iter().map(StoredToken::identity).collect(),
            bars: self.standing(group).await?.iter().filter_map(bar).collect(),
            settings: self.recorded_settings().await?,
        })
    }
}

impl Tx {
    /// Counts the votes on a rotation anew, before its first PATCH, by what is stored now and is as it was sealed.
    pub(super) async fn check_votes(
        &mut self,
        id: RotationId,
        needed: u32,
        terms: &Terms,
        group: &GroupId,
    ) -> Result<(), StoreError> {
        let votes = cast(self.sealed_votes(id).await?);
        if votes.iter().any(|vote| vote.of_policy) {
            return Ok(());
        }
        let bars: Vec<_> = self.sealed_loosenings(group).await?.iter().filter_map(bar).collect();
        let mut identities = BTreeMap::new();
        for Known { token, fault } in self.compared_tokens().await?.iter() {
            match fault {
                None => identities.extend([token.identity()]),
                // Who the proposer is cannot be told any more, so nobody can be told apart from it; the same for who is
                // barred.
                Some((subject, why))
                    if token.name == terms.proposer || bars.iter().any(|bar| bar.by == token.name) =>
                {
                    return Err(StoreError::tampered(subject, why));
                }
                Some(_) => {}
            }
        }
        let settings = BTreeMap::clone(&*self.compared_settings().await?);
        let stored = Stored { votes, identities, bars, settings };
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

    async fn compared_tokens(&mut self) -> Result<Arc<Vec<Known>>, StoreError> {
        if let Some(tokens) = &self.compared.tokens {
            return Ok(Arc::clone(tokens));
        }
        let mut known = Vec::new();
        for token in self.stored_tokens().await? {
            let fault = match self.check_seals(&[token.seal()]).await {
                Err(StoreError::Tampered { subject, why }) => Some((subject, why)),
                checked => checked.map(|()| None)?,
            };
            known.push(Known { token, fault });
        }
        Ok(Arc::clone(self.compared.tokens.insert(Arc::new(known))))
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
