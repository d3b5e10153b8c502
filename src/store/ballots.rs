//! What the count of a rotation's votes depends on: votes, their voters, and who counts as no approver for a while.
//!
//! The same statements serve a read and a transaction, so that the check before a PATCH counts what a person was shown.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::types::Instant;
use super::{Sql, Store, StoreError, Tx, each, urgent};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::{Bar, CastVote, Identity};

/// The method of the policy's own approval.
pub const OWN_APPROVAL: &str = "auto_approve";

const VOTES: Sql = Sql {
    sqlite: "SELECT approver, at, method FROM approvals WHERE rotation_id = $1 ORDER BY at, approver",
    postgres: "SELECT approver, at, method FROM approvals WHERE rotation_id = $1 ORDER BY at, approver COLLATE \"C\"",
};
const BARS: Sql = Sql::same(
    "SELECT requested_by, kind, CASE WHEN state = 'effective' THEN effective_at ELSE NULL END AS since FROM loosenings \
     WHERE subject = $1 AND kind <> 'tightening' AND state <> 'withdrawn' ORDER BY requested_at, id",
);
// Tokens are few, and a bar may concern any of them. Who made one of an earlier version, the audit log knows.
const TOKENS: Sql = Sql::same(
    "SELECT name, roles, created_at, revoked_at, COALESCE(made_by, (SELECT a.actor FROM audit a WHERE a.action = \
     'token.created' AND a.subject = 'token/' || name ORDER BY a.seq LIMIT 1)) AS made_by, person, given_at, given_by \
     FROM tokens ORDER BY name",
);

pub(super) const STATEMENTS: &[&Sql] = &[&VOTES, &BARS, &TOKENS];

/// What is stored about the votes on a rotation.
#[derive(Clone, Debug, Default)]
pub struct BallotFacts {
    /// The votes, the oldest first.
    pub votes: Vec<CastVote>,
    /// Every token, by name.
    pub identities: BTreeMap<String, Identity>,
    /// Who changed the project's rules, owners or lookup.
    pub bars: Vec<Bar>,
}

#[derive(FromRow)]
struct VoteRow {
    approver: String,
    at: Timestamp,
    method: String,
}

#[derive(FromRow)]
struct BarRow {
    requested_by: String,
    kind: String,
    since: Option<Timestamp>,
}

#[derive(FromRow)]
struct HolderRow {
    name: String,
    roles: String,
    created_at: Instant,
    revoked_at: Option<Instant>,
    made_by: Option<String>,
    person: Option<String>,
    given_at: Option<Instant>,
    given_by: Option<String>,
}

impl HolderRow {
    /// The token's holder, by name. A token whose instants or role cannot be read approves nothing.
    fn identity(self) -> Option<(String, Identity)> {
        let bad = |column| StoreError::corrupt("tokens", column, &self.name);
        let given_at = self.given_at.unwrap_or(self.created_at).or(bad("given_at")).ok()?;
        let approves = |role: &str| role.parse::<Role>().is_ok_and(|it| it.includes(Role::Approver));
        let identity = Identity {
            may_approve: self.revoked_at.is_none() && self.roles.split_whitespace().any(approves),
            person: self.person,
            made_by: self.made_by,
            given_at: Some(given_at),
            given_by: self.given_by,
        };
        Some((self.name, identity))
    }
}

impl BallotFacts {
    fn of(votes: Vec<VoteRow>, bars: Vec<BarRow>, holders: Vec<HolderRow>) -> Self {
        let votes = votes.into_iter().map(|row| CastVote {
            by: row.approver,
            at: row.at,
            of_policy: row.method == OWN_APPROVAL,
        });
        let bars = bars.into_iter().map(|row| Bar {
            by: row.requested_by,
            what: match row.kind.as_str() {
                "owners" => "changed the owners of this project",
                "lookup" => "changed the lookup of this project",
                _ => "loosened a rule of this project",
            },
            effective_at: row.since,
        });
        let identities = holders.into_iter().filter_map(HolderRow::identity);
        Self { votes: votes.collect(), identities: identities.collect(), bars: bars.collect() }
    }
}

/// Reads the three parts by `urgent!` or `each!`.
macro_rules! gather {
    ($how:ident, $from:expr, $id:expr, $group:expr) => {{
        let votes: Vec<VoteRow> =
            $how!($from, VOTES, |conn, text| sqlx::query_as(text).bind($id.0).fetch_all(conn).await)?;
        let bars: Vec<BarRow> = $how!($from, BARS, |conn, text| sqlx::query_as(text)
            .bind($group.as_str())
            .fetch_all(conn)
            .await)?;
        let holders: Vec<HolderRow> =
            $how!($from, TOKENS, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        Ok(BallotFacts::of(votes, bars, holders))
    }};
}

impl Store {
    /// What is stored about the votes on a rotation of this project.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn ballot_facts(&self, id: RotationId, group: &GroupId) -> Result<BallotFacts, StoreError> {
        gather!(urgent, self, id, group)
    }
}

impl Tx {
    /// The same inside a transaction.
    pub(super) async fn ballot_facts(
        &mut self,
        id: RotationId,
        group: &GroupId,
    ) -> Result<BallotFacts, StoreError> {
        gather!(each, self, id, group)
    }
}
