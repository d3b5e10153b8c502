//! Atlas and its key service in a few lines, with a log of their own: what the machine is judged by.

use keywheel::domain::ids::{GroupId, RotationId};
use keywheel::domain::key::{KeyRef, Place, Provider};
use keywheel::domain::policy::Rules;
use keywheel::domain::rotation::machine::next;
use keywheel::domain::rotation::outcome::{
    Class, Cluster, Command, Extras, Failure, Look, Observation, Outcome, PatchReply,
};
use keywheel::domain::rotation::state::{Proposal, Rotation, Target};
use keywheel::domain::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const OLD: &str = "11111111-1111-4111-8111-111111111111";

pub(super) const NEW: &str = "22222222-2222-4222-8222-222222222222";

pub(super) const OTHER: &str = "33333333-3333-4333-8333-333333333333";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Patching {
    Good,
    DropRequest,
    DropReply,
    LateApply,
    StaleReads,
    DropReplyStale,
    RateLimited,
    RefusedBadKey,
    AppliedThen500,
    AuthLost,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Validity {
    True,
    FalseForever,
    FalseOnce,
    Flapping,
    Absent,
    SlowTrue,
    BadLater,
    Blind,
    NetworkDenied,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rollback {
    Good,
    Refused,
    DropReply,
    DropRequest,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Human {
    Nobody,
    ThirdKey,
    Revert,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) patching: Patching,
    pub(super) validity: Validity,
    pub(super) rollback: Rollback,
    pub(super) human: Human,
    pub(super) private: bool,
}

/// Nothing goes wrong.
pub(super) const PLAIN: Scenario = Scenario {
    patching: Patching::Good,
    validity: Validity::True,
    rollback: Rollback::Good,
    human: Human::Nobody,
    private: false,
};

pub(super) fn key(text: &str) -> KeyRef {
    KeyRef::parse(Provider::Aws, text).unwrap()
}

pub(super) fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub(super) fn failure(class: Class, status: Option<u16>) -> Failure {
    Failure {
        class,
        status,
        code: Some("CODE".to_owned()),
        detail: "as scripted".to_owned(),
        retry_after: None,
    }
}

/// Atlas and its key service, with a log of their own.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Timestamp,
    pub(super) key: &'static str,
    pub(super) shown: Vec<(Timestamp, &'static str)>,
    pub(super) late: Option<(Timestamp, &'static str)>,
    pub(super) patches: Vec<(Timestamp, Target)>,
    pub(super) looks: Vec<(Timestamp, &'static str, Option<bool>)>,
    pub(super) first_applied: Option<Timestamp>,
    pub(super) human_done: bool,
    pub(super) third_key_seen: bool,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            now: start(),
            key: OLD,
            shown: Vec::new(),
            late: None,
            patches: Vec::new(),
            looks: Vec::new(),
            first_applied: None,
            human_done: false,
            third_key_seen: false,
        }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        if let Some((at, key)) = self.late
            && self.now >= at
        {
            self.late = None;
            self.set(key);
        }
        let since = self.first_applied.map_or(Duration::ZERO, |at| self.now.since(at));
        let when = match self.scenario.human {
            Human::Nobody => return,
            Human::ThirdKey => Duration::from_secs(20),
            Human::Revert => Duration::from_secs(200),
        };
        if !self.human_done && since >= when {
            self.human_done = true;
            self.key = if self.scenario.human == Human::ThirdKey { OTHER } else { OLD };
        }
    }

    pub(super) fn set(&mut self, key: &'static str) {
        if self.human_done {
            return;
        }
        self.key = key;
        if key == NEW {
            self.first_applied.get_or_insert(self.now);
        }
    }

    pub(super) fn valid(&self, key: &str) -> Option<bool> {
        if key != NEW {
            return Some(true);
        }
        let since = self.first_applied.map_or(0, |at| self.now.since(at).as_secs());
        match self.scenario.validity {
            Validity::True | Validity::Blind => Some(true),
            Validity::FalseForever | Validity::NetworkDenied => Some(false),
            Validity::FalseOnce => Some(since > 10),
            Validity::Flapping => Some((since / 16).is_multiple_of(2)),
            Validity::Absent => None,
            Validity::SlowTrue => (since > 480).then_some(true),
            Validity::BadLater => Some(since < 120),
        }
    }

    pub(super) fn look(&mut self, extras: Extras) -> Result<Look, Failure> {
        let since = self.first_applied.map_or(Duration::ZERO, |at| self.now.since(at));
        if self.scenario.validity == Validity::Blind && since > Duration::from_secs(5) {
            return Err(failure(Class::Unknown, None));
        }
        let stale = matches!(self.scenario.patching, Patching::StaleReads | Patching::DropReplyStale)
            && self.key == NEW
            && since < Duration::from_secs(60);
        let shown = if stale { OLD } else { self.key };
        self.third_key_seen |= shown == OTHER;
        let valid = self.valid(shown);
        self.looks.push((self.now, shown, valid));
        self.shown.push((self.now, shown));
        Ok(Look {
            seen: Observation {
                at: self.now,
                provider: Some(Provider::Aws),
                key: Some(key(shown)),
                valid,
                private_networking: self.scenario.private,
                place: Place::default(),
                block_hash: String::new(),
                invalid_beside: None,
                skew_ms: Some(0),
            },
            network_denied: extras.alerts.then_some(self.scenario.validity == Validity::NetworkDenied),
            clusters: extras.clusters.then(|| {
                vec![Cluster {
                    name: "c0".to_owned(),
                    state: "IDLE".to_owned(),
                    paused: false,
                    ..Cluster::default()
                }]
            }),
            checks: extras.preflight.then(Vec::new),
            unanswered: BTreeMap::new(),
        })
    }

    pub(super) fn patch(&mut self, target: Target) -> PatchReply {
        assert!(!self.third_key_seen, "I7: a PATCH after a third key was seen");
        self.patches.push((self.now, target));
        let first = self.patches.iter().filter(|(_, it)| *it == target).count() == 1;
        let unknown = || PatchReply::Unknown(failure(Class::Unknown, None));
        if target == Target::Old {
            return match self.scenario.rollback {
                Rollback::Refused => PatchReply::Refused(failure(Class::Refused, Some(400))),
                Rollback::DropRequest if first => unknown(),
                Rollback::DropReply if first => {
                    self.set(OLD);
                    unknown()
                }
                _ => {
                    self.set(OLD);
                    PatchReply::Accepted
                }
            };
        }
        match self.scenario.patching {
            Patching::DropRequest if first => return unknown(),
            Patching::LateApply if first => {
                self.late = Some((self.now + Duration::from_secs(90), NEW));
                return unknown();
            }
            Patching::RateLimited if first => {
                return PatchReply::NotTaken(Failure {
                    retry_after: Some(Span::from_secs(20)),
                    ..failure(Class::Transient, Some(429))
                });
            }
            Patching::RefusedBadKey => return PatchReply::Refused(failure(Class::BadKey, Some(400))),
            Patching::AuthLost if first => return PatchReply::Auth(failure(Class::Auth, Some(403))),
            Patching::Gone => return PatchReply::Gone(failure(Class::Gone, Some(404))),
            _ => {}
        }
        self.set(NEW);
        match self.scenario.patching {
            Patching::DropReply | Patching::DropReplyStale if first => unknown(),
            Patching::AppliedThen500 if first => PatchReply::Unknown(failure(Class::Unknown, Some(500))),
            _ => PatchReply::Accepted,
        }
    }
}

pub(super) fn proposed(world: &World) -> Rotation {
    let seen = Observation {
        at: world.now,
        provider: Some(Provider::Aws),
        key: Some(key(OLD)),
        valid: Some(true),
        private_networking: world.scenario.private,
        place: Place::default(),
        block_hash: String::new(),
        invalid_beside: None,
        skew_ms: Some(0),
    };
    let rotation = Rotation::propose(
        Proposal {
            group_id: "32b6e34b3d91647abb20e7b8".parse::<GroupId>().unwrap(),
            new_key: key(NEW),
            seen,
            checks: Vec::new(),
            old_key: key(OLD),
            rules: Rules::default(),
        },
        world.now,
    );
    // Waits are spread by the id: a fixed one decides the same each time.
    Rotation { id: RotationId(uuid::Uuid::from_u128(7)), ..rotation }
}

pub(super) fn propose(world: &World) -> Rotation {
    let rotation = proposed(world);
    next(&rotation, &Outcome::Said(Command::Approve { given: 1 }), world.now).rotation
}
