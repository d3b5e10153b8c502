//! What readings of `valid` and states of clusters must have been there, and what must follow from them.

use keywheel::domain::rotation::outcome::{Cluster, Outcome};
use keywheel::domain::rotation::state::{Cause, Deployed, Rotation, State};
use keywheel::domain::time::Timestamp;

use super::{Judge, Shown};

impl Judge {
    /// I5 and the way back: what readings must have been there, and what must follow from them.
    pub(super) fn verifies(
        &mut self,
        before: &Rotation,
        outcome: &Outcome,
        after: &Rotation,
        now: Timestamp,
    ) -> Result<(), String> {
        use State as S;
        let Outcome::Looked(look) = outcome else { return Ok(()) };
        let (from, to) = (before.state, after.state);
        let verify = &after.rules.verify;
        let wanted = verify.readings as usize;
        let sent_at = self.sent.last().map_or(now, |it| it.at);
        let held = !look.seen.private_networking || now >= sent_at + verify.private_network_hold.get();
        let new = self.trues(Shown::New);
        let verified = matches!(to, S::Deploying | S::Completed);
        if verified && from != S::Deploying && from != to {
            rule!(new >= wanted, "I5: verified on {new} readings");
            rule!(held, "I5: verified before the nodes have reported");
        }
        if from == S::Verifying && self.last().shown == Shown::New && new >= wanted && held {
            rule!(verified, "{to} although the key is verified");
        }
        if to == S::Completed && from != to {
            rule!(new >= wanted, "I5: completed on {new} readings");
            self.rolled_out(after, now)?;
            let seen = from == S::Deploying || after.rollout.deployed == Some(Deployed::Observed);
            rule!(seen, "completed from {from} on {:?}", after.rollout.deployed);
        }
        if to == S::RolledBack && from != to {
            let good = self.trues(Shown::Old) > 0 && self.trues_of_either() >= wanted;
            rule!(good && held, "I5: rolled back on {} readings", self.trues_of_either());
        }
        if from == S::Verifying && self.last().shown == Shown::New && self.last().valid == Some(false) {
            let late = now.since(self.verifying_since) >= verify.timeout.get();
            let long = self.false_for(now) > verify.false_grace.get();
            let often = self.flaps() > verify.max_flaps as usize;
            let bad = self.round() >= wanted && (late || long || often);
            match (bad, look.network_denied) {
                (true, Some(false)) => rule!(to == S::RollingBack, "{to} on a key that is bad"),
                (true, Some(true)) => rule!(
                    (to, after.cause) == (S::NeedsOperator, Some(Cause::KmsUnreachable)),
                    "A25: {to} on a key service that is denied"
                ),
                (true, None) => {
                    let half = verify.guard.get() / 2;
                    let late = self.guard.is_some_and(|guard| now + half >= guard && now < guard);
                    let long = self.alerts_unanswered_for(now) >= verify.false_grace.get();
                    rule!((late && long) || to != S::RollingBack, "a rollback without the alerts");
                    rule!(
                        !(late && long) || to == S::RollingBack,
                        "A38: {to}, and the alerts stay unanswered"
                    );
                }
                (false, _) => rule!(
                    to == S::Verifying || after.cause == Some(Cause::Unproven),
                    "{to} after {:?} false, {} flaps",
                    self.false_for(now),
                    self.flaps()
                ),
            }
        } else if from == S::Verifying && self.last().shown == Shown::New {
            rule!(to != S::RollingBack, "a rollback on {:?}", self.last().valid);
        }
        if (from, to) == (S::RollingBack, S::Verifying) {
            self.returns += 1;
            rule!(self.returns == 1 && !self.ordered, "a second return from the rollback");
        }
        if (from, to) == (S::NeedsOperator, S::Verifying) && !before.operator.resuming {
            let refused = before.cause == Some(Cause::RollbackRefused);
            self.heals += u32::from(refused);
            rule!(before.cause == Some(Cause::Auth) || (refused && self.heals == 1), "healed again");
        }
        Ok(())
    }

    fn rolled_out(&self, after: &Rotation, now: Timestamp) -> Result<(), String> {
        let verify = &after.rules.verify;
        let waited = now.since(self.deploying_since);
        let told: Vec<_> = self.seen.iter().filter_map(|it| it.clusters.as_ref()).collect();
        let last = told.last().map_or(&[][..], |it| it.as_slice());
        let counted =
            |it: &&Cluster| !it.paused && !matches!(it.state.as_str(), "CREATING" | "REPAIRING" | "DELETING");
        let state = |name: &str, back: usize| {
            let all = told.len().checked_sub(1 + back).map(|at| told[at]);
            all.and_then(|all| all.iter().find(|it| it.name == name)).map(|it| it.state.as_str())
        };
        let counted: Vec<_> = last.iter().filter(counted).collect();
        let idle =
            counted.iter().all(|it| state(&it.name, 0) == Some("IDLE") && state(&it.name, 1) == Some("IDLE"));
        let updated = counted.iter().all(|it| {
            told.iter().any(|all| all.iter().any(|other| other.name == it.name && other.state == "UPDATING"))
        });
        match after.rollout.deployed {
            Some(Deployed::Observed) => rule!(idle && updated && !counted.is_empty(), "deployed: observed"),
            Some(Deployed::Assumed) => {
                rule!(idle && waited >= verify.deploy_grace.get(), "deployed: assumed");
            }
            Some(Deployed::No) => {
                rule!(waited >= verify.deploy_timeout.get(), "deployed: no after {waited:?}");
            }
            None => return Err("completed without a word on the roll-out".to_owned()),
        }
        Ok(())
    }
}
