//! Votes against their seals in the chain, their proposal, and the passkeys that signed them; and the policies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::signature::pem;
use super::super::tables::{PasskeyLine, PolicyLine, Table};
use super::super::{Dossier, Fault, Story, Vote, is_plain};
use super::Report;
use crate::domain::approver::Strength;
use crate::passkey::{Assertion, Credential, Site, bytes, challenge, verify};
use crate::seal::Digest;

/// What was counted on the way.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rotations: usize,
    pub(super) votes: usize,
    /// Votes that a passkey has signed.
    pub(super) signed: usize,
    /// Votes of versions that sealed none.
    pub(super) unsealed: usize,
    /// Votes on rotations whose new key was sent.
    pub(super) sent: usize,
    /// Rotations that were taken back to their approvals after that.
    pub(super) fallen_back: usize,
    /// What passkeys have signed in the bundle: nothing counts twice.
    nonces: BTreeSet<String>,
    /// Rotations with an event of Atlas.
    pub(super) events: usize,
}

/// The method of a vote that the policy gave.
const BY_POLICY: &str = "auto_approve";

/// The voter of such a vote.
const POLICY: &str = "policy:auto_approve";

/// The policies by their versions.
pub(super) fn policies<'a>(lines: &'a [PolicyLine], report: &mut Report) -> BTreeMap<&'a str, &'a str> {
    let mut known = BTreeMap::new();
    for (number, it) in lines.iter().enumerate() {
        let bad = |what: &str| Fault::of("policy", what).file(PolicyLine::FILE).line(number + 2);
        match it.kind.as_str() {
            "change" => {}
            "rules" => {
                if hex::encode(&Sha256::digest(&it.content)[..8]) != it.version {
                    report.fault(bad("its version is not that of its content"));
                }
                known.insert(it.version.as_str(), it.content.as_str());
            }
            _ => report.fault(bad("its kind is neither rules nor change")),
        }
    }
    known
}

/// The keys of the passkeys, by their ids.
pub(super) fn passkeys<'a>(lines: &'a [PasskeyLine], report: &mut Report) -> BTreeSet<(&'a str, &'a str)> {
    for (number, it) in lines.iter().enumerate() {
        let credential = Credential::kept(bytes(&it.public_key).unwrap_or_default(), &[]);
        let is = credential.spki().map(|spki| pem(&spki)).ok().zip(credential.algorithm().ok());
        if is.is_none_or(|(pem, algorithm)| pem != it.pem || algorithm != it.algorithm) {
            let what = "its pem or its algorithm is not that of its public_key";
            report.fault(Fault::of("passkey", what).file(PasskeyLine::FILE).line(number + 2));
        }
    }
    lines.iter().map(|it| (it.passkey.as_str(), it.public_key.as_str())).collect()
}

/// What the votes of a rotation are sealed as.
fn sealed(id: &str, votes: &[Vote]) -> String {
    let mut fields = Vec::new();
    for vote in votes {
        fields.extend([
            Some(vote.voter.as_str()),
            Some(&vote.at),
            Some(&vote.method),
            vote.comment.as_deref(),
        ]);
        if vote.nonce.is_some() {
            fields.extend([vote.nonce.as_deref(), vote.evidence.as_deref()]);
        }
    }
    Digest::of(&format!("votes/{id}"), &fields).to_string()
}

/// Checks the votes of a rotation, and the policy that it names.
pub(super) fn check(
    dossier: &Dossier,
    story: &Story,
    sealed_from: Option<i64>,
    (policies, passkeys): (&BTreeMap<&str, &str>, &BTreeSet<(&str, &str)>),
    counts: &mut Counts,
    mut say: impl FnMut(&'static str, String),
) {
    let facts = &dossier.rotation;
    let known = policies.get(facts.policy_version.as_str());
    if known != Some(&dossier.policy.as_str()) {
        say("policy", "policies.csv has not the policy that it runs under".to_owned());
    }
    if facts.approvals_given != dossier.votes.len().to_string() {
        say("votes", "approvals_given is not the number of its votes".to_owned());
    }
    counts.votes += dossier.votes.len();
    let digest = sealed(&facts.rotation_id, &dossier.votes);
    // What was settled before the first seal was sealed by nobody.
    let is_sealed = !story.is_settled_before(sealed_from);
    match &story.votes {
        Some(last) if *last != digest => {
            say("votes", "its votes are not those that audit.jsonl has sealed last".to_owned());
        }
        None if is_sealed && !dossier.votes.is_empty() => {
            say("votes", "audit.jsonl has sealed no vote on it".to_owned());
        }
        _ => {}
    }
    if !is_sealed {
        counts.unsealed += dossier.votes.len();
    }
    counts.fallen_back += usize::from(story.has_fallen_back);
    let has_sent = story.is_sent() && !story.has_fallen_back;
    if has_sent && is_sealed && story.votes_before_sent.as_ref() != Some(&digest) {
        say("votes", "its votes are not those that were sealed before its new key was sent".to_owned());
    }
    counts.sent += if has_sent { dossier.votes.len() } else { 0 };
    let policy: Value = serde_json::from_str(&dossier.policy).unwrap_or_default();
    if !is_plain(dossier.policy.as_bytes()) {
        say("policy", "the policy that it runs under is no JSON, or repeats a member".to_owned());
    }
    if policy["approvals"].as_u64().map(|it| it.to_string()).as_ref() != Some(&facts.approvals_required) {
        say("votes", "approvals_required is not the number that its policy asks for".to_owned());
    }
    let required: usize = facts.approvals_required.parse().unwrap_or(usize::MAX);
    if has_sent && dossier.votes.len() < required {
        say("votes", format!("its new key was sent with {} of {required} approvals", dossier.votes.len()));
    }
    each(dossier, &policy, &mut say);
    let mut holders = BTreeMap::new();
    for vote in &dossier.votes {
        if let Some(it) = vote.signed() {
            if !counts.nonces.insert(it.nonce) {
                say("votes", format!("{}'s vote repeats the nonce of another one", vote.voter));
            }
            if holders.insert(it.passkey, &vote.voter).is_some_and(|other| *other != vote.voter) {
                say("votes", format!("{}'s vote is signed by the passkey of another voter", vote.voter));
            }
        }
        match signed(vote, &facts.rotation_id, &facts.proposal_hash, passkeys) {
            Ok(is_signed) => counts.signed += usize::from(is_signed),
            Err(why) => say("passkey", format!("the signature of {}'s vote: {why}", vote.voter)),
        }
    }
}

/// Whether each vote is one that the policy takes, and the only one of its voter.
fn each(dossier: &Dossier, policy: &Value, say: &mut impl FnMut(&'static str, String)) {
    let facts = &dossier.rotation;
    let may_approve_own = policy["selfApproval"] == true;
    let is_automatic = policy["autoApprove"]
        .as_array()
        .is_some_and(|all| all.iter().any(|it| *it == facts.trigger.as_str()));
    // As in the policy: a strength that is not named is that of a session.
    let least = policy["approvalMethod"].as_str().map_or(Strength::default(), Strength::of);
    let mut voters = BTreeSet::new();
    for Vote { voter, method, .. } in &dossier.votes {
        if !voters.insert(voter) {
            say("votes", format!("{voter} voted twice"));
        }
        if method == BY_POLICY || voter == POLICY {
            if method != BY_POLICY || voter != POLICY || !is_automatic {
                say(
                    "votes",
                    format!("{voter} approved it ({method}), and its policy approves no such trigger"),
                );
            }
            continue;
        }
        if *voter == facts.requested_by && !may_approve_own {
            say("votes", format!("{voter} proposed it and approved it, and its policy forbids that"));
        }
        if Strength::of(method) < least {
            say("votes", format!("{voter}'s vote ({method}) is weaker than its policy asks for ({least})"));
        }
    }
}

/// Whether a passkey has signed the vote.
fn signed(
    vote: &Vote,
    id: &str,
    proposal_hash: &str,
    passkeys: &BTreeSet<(&str, &str)>,
) -> Result<bool, String> {
    if vote.evidence.is_none() && vote.nonce.is_none() {
        return if vote.method == "passkey" { Err("it is missing".to_owned()) } else { Ok(false) };
    }
    let it = vote.signed().filter(|_| vote.evidence.as_ref().is_some_and(|it| is_plain(it.as_bytes())));
    let it = it.ok_or("it cannot be read")?;
    if vote.nonce.as_ref() != Some(&it.nonce) || it.proposal_hash != proposal_hash {
        return Err("it is of another vote".to_owned());
    }
    if !passkeys.contains(&(it.passkey.as_str(), it.public_key.as_str())) {
        return Err("passkeys.csv has not the passkey that signed".to_owned());
    }
    let part = |text: &str| bytes(text).ok_or_else(|| "it cannot be read".to_owned());
    let answer = Assertion {
        client_data: part(&it.client_data)?,
        authenticator_data: part(&it.authenticator_data)?,
        signature: part(&it.signature)?,
    };
    let credential = Credential::kept(part(&it.public_key)?, &answer.authenticator_data);
    let challenge = challenge("approve", &[id, proposal_hash, &it.nonce]);
    let site = Site { id: it.site, origin: it.origin };
    verify(&site, &challenge, &credential, &answer).map_err(|fault| fault.to_string())?;
    Ok(true)
}
