//! `deploying`: the new key is verified, and the clusters take it up.

use super::sight::{Sight, sight};
use super::step::Announcement;
use super::turn::Turn;
use crate::domain::rotation::outcome::{Cluster, Look};
use crate::domain::rotation::state::{Cause, ClusterProgress, Deployed, State};

impl Turn {
    pub(super) fn begin_deploying(&mut self, look: &Look) {
        self.r.state = State::Deploying;
        self.r.readings.valid_at = Some(self.now);
        self.r.rollout.since = Some(self.now);
        (self.r.readings.false_since, self.r.readings.flaps) = (None, 0);
        // The observation that verified the key has recorded the clusters too; a second one at once would
        // add nothing.
        self.roll_out(look.clusters.is_some());
    }

    pub(super) fn deploying(&mut self, look: &Look) {
        match sight(&self.r, &look.seen) {
            Sight::Other => return self.finish(State::Superseded, Some(Cause::KeyChanged)),
            Sight::Elsewhere => return self.need_operator(Cause::ConfigChanged),
            Sight::Old if self.may_be_stale() => return self.pass_over_stale_reading(),
            Sight::Old => return self.reverted(),
            Sight::New => {}
        }
        self.count(look.seen.valid);
        // The key went bad after it was verified, perhaps hours later. Clusters may have taken it up, and
        // the old key may be gone by now: an automatic rollback is as likely to harm as to help.
        let verify = &self.r.rules.verify;
        let flaps = self.r.readings.flaps > verify.max_flaps;
        if self.false_for() > verify.false_grace.get() || flaps {
            return self.need_operator(Cause::NewKeyInvalid);
        }
        let absent = self.r.readings.absent_since.map(|since| self.now.since(since));
        if absent.is_some_and(|span| span >= verify.timeout.get()) {
            return self.need_operator(Cause::Unproven);
        }
        if let Some(clusters) = &look.clusters {
            note_clusters(&mut self.r.rollout.clusters, clusters);
        }
        self.roll_out(look.clusters.is_some());
    }

    /// Completes the rotation when the clusters have taken up the key, or waits for the next observation.
    fn roll_out(&mut self, clusters_answered: bool) {
        let deployed = self.deployed(clusters_answered);
        // `completed` states that the key works now, so it takes as many true readings as the first
        // verification.
        let verified = self.r.readings.trues >= self.r.rules.verify.readings;
        match deployed {
            Some(how) if verified => {
                self.r.rollout.deployed = Some(how);
                self.r.rollout.deployed_at = Some(self.now);
                if how == Deployed::No {
                    self.notices.push(Announcement::NotDeployed);
                }
                self.finish(State::Completed, None);
            }
            Some(Deployed::No) if self.unverified_for_too_long() => self.need_operator(Cause::Unproven),
            _ => {
                let verify = &self.r.rules.verify;
                let wait = if verified { verify.deploy_poll } else { verify.every };
                self.rest(self.now + wait.get());
            }
        }
    }

    /// Whether the time for the roll-out and for one more verification is over.
    fn unverified_for_too_long(&self) -> bool {
        let verify = &self.r.rules.verify;
        let limit = verify.deploy_timeout.get() + verify.timeout.get();
        self.r.rollout.since.is_some_and(|since| self.now.since(since) >= limit)
    }

    /// How the roll-out ended; `None` while it goes on. `observed`: this observation includes the
    /// clusters. Without them the counts are those of an earlier observation, and only the timeout may
    /// end the roll-out.
    fn deployed(&self, observed: bool) -> Option<Deployed> {
        let verify = &self.r.rules.verify;
        let waited = self.now.since(self.r.rollout.since.unwrap_or(self.now));
        let clusters: Vec<_> = self.r.rollout.clusters.iter().filter(|it| it.exception.is_none()).collect();
        // Two observations, because a cluster is IDLE for a moment before its update begins.
        let idle = clusters.iter().all(|cluster| cluster.idle >= 2);
        let updated = !clusters.is_empty() && clusters.iter().all(|cluster| cluster.seen_updating);
        if observed && idle && updated {
            Some(Deployed::Observed)
        } else if observed && idle && waited >= verify.deploy_grace.get() {
            Some(Deployed::Assumed)
        } else if waited >= verify.deploy_timeout.get() {
            Some(Deployed::No)
        } else {
            None
        }
    }
}

/// Records the state of each cluster in `seen`, and removes clusters that are gone.
pub(super) fn note_clusters(known: &mut Vec<ClusterProgress>, seen: &[Cluster]) {
    known.retain(|cluster| seen.iter().any(|it| it.name == cluster.name));
    for cluster in seen {
        if !known.iter().any(|it| it.name == cluster.name) {
            known.push(ClusterProgress {
                name: cluster.name.clone(),
                seen_updating: false,
                idle: 0,
                exception: None,
            });
        }
        let Some(progress) = known.iter_mut().find(|it| it.name == cluster.name) else { continue };
        progress.exception = match cluster.state.as_str() {
            _ if cluster.paused => Some("paused".to_owned()),
            "CREATING" | "REPAIRING" | "DELETING" => Some(cluster.state.to_ascii_lowercase()),
            _ => None,
        };
        match cluster.state.as_str() {
            "IDLE" => progress.idle += 1,
            "UPDATING" => (progress.seen_updating, progress.idle) = (true, 0),
            _ => progress.idle = 0,
        }
    }
}
