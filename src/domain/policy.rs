//! The rules a project is rotated under: cryptoperiod, reminders, quorum, windows, and verification.
//!
//! A rotation carries the [`Rules`] it was proposed under to its end, so a changed setting never
//! changes a rotation in flight. Windows are computed in their own time zone; nothing here waits.

use chrono::{TimeZone, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::approver::{Approver, Strength};
use super::emergency::{EMERGENCY, Emergency};
use super::escalation::{Escalation, escalation_fault};
use super::freeze::{Freeze, after_freezes, freeze_at};
use super::ids::GroupId;
use super::key::{KeyRef, Provider};
use super::time::{DayOffset, Span, Timestamp};
use super::zone::Zone;

/// The approvals, the windows and the reminders of a project's rotations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// How long a key may serve (cryptoperiod).
    pub interval: Span,
    /// Days before due on which owners are reminded.
    pub remind_before: Vec<DayOffset>,
    /// Days after due; the last one repeats.
    pub remind_overdue: Vec<DayOffset>,
    /// Who gets a copy when a key stays overdue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalate: Vec<Escalation>,
    /// How many people must approve.
    pub approvals: u32,
    /// Whether the proposer may approve too.
    pub self_approval: bool,
    /// How long a proposal waits for its quorum.
    pub approval_ttl: Span,
    /// How long an approved rotation may wait to run.
    pub execution_ttl: Span,
    /// Triggers whose proposals are approved without a person.
    pub auto_approve: Vec<String>,
    /// When a PATCH may be sent; empty means always.
    pub windows: Vec<Window>,
    /// Days on which no new key is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
    /// Who may approve; empty means everybody with a role that approves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<Approver>,
    /// The weakest method by which a vote counts.
    #[serde(default, skip_serializing_if = "is_session")]
    pub approval_method: Strength,
    /// Who may propose an emergency rotation; with the default, nobody.
    #[serde(default, skip_serializing_if = "Emergency::is_default")]
    pub emergency: Emergency,
    /// Whether a versionless Azure identifier may be replaced or proposed.
    #[serde(default)]
    pub allow_versionless: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_session(it: &Strength) -> bool {
    *it == Strength::Session
}

impl Default for Policy {
    fn default() -> Self {
        let days = |list: &[u32]| list.iter().copied().map(DayOffset::new).collect();
        Self {
            interval: Span::from_days(90),
            remind_before: days(&[30, 14, 7, 3, 1, 0]),
            remind_overdue: days(&[1, 3, 7]),
            escalate: Vec::new(),
            approvals: 1,
            self_approval: false,
            approval_ttl: Span::from_days(7),
            execution_ttl: Span::from_days(7),
            auto_approve: Vec::new(),
            windows: Vec::new(),
            freezes: Vec::new(),
            approvers: Vec::new(),
            approval_method: Strength::default(),
            emergency: Emergency::default(),
            allow_versionless: false,
        }
    }
}

/// The longest span a policy takes: ten years.
const LONGEST: Span = Span::from_days(3650);

/// The most people that can be asked to approve.
pub const MOST_APPROVALS: u32 = 10;

/// The most reminders or windows.
const MOST_ENTRIES: usize = 50;

impl Policy {
    /// The zone of a day that is given without one: that of the first window, or of the first freeze.
    #[must_use]
    pub fn zone(&self) -> Zone {
        let windows = self.windows.iter().map(|it| &it.timezone);
        let name = windows.chain(self.freezes.iter().map(|it| &it.timezone)).next();
        name.and_then(|name| name.parse().ok()).unwrap_or(Zone::UTC)
    }

    /// The version an approval is bound to: the first 16 hexadecimal digits of a SHA-256 over the
    /// policy's canonical JSON. Equal policies have equal versions on every machine.
    ///
    /// # Errors
    /// The policy has no JSON form. Without one, every policy would have the same version.
    pub fn version(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_vec(self)?;
        Ok(hex::encode(&Sha256::digest(json)[..8]))
    }

    /// The settings that break a rule: the field, and the rule.
    #[must_use]
    pub fn faults(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if !(1..=MOST_APPROVALS).contains(&self.approvals) {
            faults.push(("approvals", "takes 1 to 10 people".to_owned()));
        }
        for (field, span) in [
            ("interval", self.interval),
            ("approval_ttl", self.approval_ttl),
            ("execution_ttl", self.execution_ttl),
        ] {
            if span > LONGEST {
                faults.push((field, format!("takes at most {LONGEST}")));
            }
        }
        let days = |offset: &DayOffset| Span::from_days(u64::from(offset.days()));
        if self.remind_before.iter().any(|offset| days(offset) > self.interval) {
            let rule = "a reminder lies before the cryptoperiod begins (interval)".to_owned();
            faults.push(("remind_before", rule));
        }
        if self.remind_overdue.iter().any(|offset| days(offset) > LONGEST) {
            faults.push(("remind_overdue", format!("takes at most {LONGEST}")));
        }
        if let Some(why) = escalation_fault(&self.escalate) {
            faults.push(("escalate", why));
        }
        if let Some(why) = self.emergency.fault(MOST_APPROVALS) {
            faults.push(("emergency", why));
        }
        for (field, count) in [
            ("escalate", self.escalate.len()),
            ("remind_before", self.remind_before.len()),
            ("remind_overdue", self.remind_overdue.len()),
            ("windows", self.windows.len()),
            ("freezes", self.freezes.len()),
            ("approvers", self.approvers.len()),
        ] {
            if count > MOST_ENTRIES {
                faults.push((field, format!("takes at most {MOST_ENTRIES} entries")));
            }
        }
        for (number, window) in (1..).zip(&self.windows) {
            if let Err(why) = window.check(now) {
                faults.push(("windows", format!("window {number}: {why}")));
            } else if window.duration > LONGEST {
                faults.push(("windows", format!("window {number}: duration takes at most {LONGEST}")));
            }
        }
        for (number, freeze) in (1..).zip(&self.freezes) {
            if let Err(why) = freeze.check() {
                faults.push(("freezes", format!("freeze {number}: {why}")));
            }
        }
        faults
    }

    /// The rules of an emergency rotation: fewer people, none of them the proposer, no window, and never the policy alone.
    #[must_use]
    pub fn in_emergency(self) -> Self {
        Self {
            approvals: self.approvals.min(self.emergency.approvals).max(1),
            self_approval: false,
            auto_approve: Vec::new(),
            windows: Vec::new(),
            ..self
        }
    }

    /// Whether a PATCH of a new key may be sent at `now`.
    #[must_use]
    pub fn window_open(&self, now: Timestamp) -> bool {
        let open = self.windows.is_empty() || self.windows.iter().any(|window| window.is_open(now));
        open && freeze_at(&self.freezes, now).is_none()
    }

    /// The first instant at or after `now` at which some window is open and no freeze holds.
    #[must_use]
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        let mut at = now;
        // A step leaves a freeze or enters a window, and an entered window lies in a freeze or is the result.
        for _ in 0..=2 * self.freezes.len() + 1 {
            at = after_freezes(&self.freezes, at);
            if self.window_open(at) {
                return Some(at);
            }
            at = self.windows.iter().filter_map(|window| window.next_start(at)).min()?;
        }
        None
    }

    /// When an approval given at `approved_at` lapses: `execution_ttl` after the first instant in no freeze, or at the
    /// end of the second window from then, whichever is later. A window that lies in a freeze does not open.
    #[must_use]
    pub fn execution_deadline(&self, approved_at: Timestamp) -> Timestamp {
        let plain = after_freezes(&self.freezes, approved_at) + self.execution_ttl.get();
        let mut ends: Vec<Timestamp> =
            self.windows.iter().flat_map(|window| window.ends_after(approved_at, 2, &self.freezes)).collect();
        ends.sort_unstable();
        ends.get(1).or(ends.last()).map_or(plain, |second| plain.max(*second))
    }
}

/// A recurring span of time in which a PATCH may be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When it opens: a cron expression with seconds, in `timezone`.
    #[schema(examples("0 0 1 * * Sat"))]
    pub cron: String,
    /// How long it stays open.
    pub duration: Span,
    /// An IANA time zone name such as `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schema(examples("Europe/Berlin"))]
    pub timezone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Why a window cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The cron expression cannot be read.
    #[error(
        "cron {cron:?} cannot be read ({source}); it takes six fields, seconds first, such as \"0 0 1 * * Sat\""
    )]
    Cron {
        /// The expression.
        cron: String,
        /// Its fault.
        source: croner::errors::CronError,
    },
    /// The time zone is not known.
    #[error("timezone {0:?} is not an IANA name such as \"Europe/Berlin\"")]
    Timezone(String),
    /// No instant fits the cron expression.
    #[error("cron {0:?} matches no date, so the window can never open")]
    Never(String),
}

impl Window {
    fn parts(&self) -> Result<(Cron, Zone), WindowError> {
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            // Where day of month and day of week are both given, both must fit: a window is a lock, and
            // `1-7 * Sat` is the first Saturday.
            .dom_and_dow(true)
            .build()
            .parse(&self.cron)
            .map_err(|source| WindowError::Cron { cron: self.cron.clone(), source })?;
        let zone = self.timezone.parse().map_err(|_| WindowError::Timezone(self.timezone.clone()))?;
        Ok((cron, zone))
    }

    /// Checks that the window can be read and will open at some time after `now`.
    ///
    /// # Errors
    /// The error names the field and the values that it takes.
    pub fn check(&self, now: Timestamp) -> Result<(), WindowError> {
        self.parts()?;
        self.next_start(now).map(|_| ()).ok_or_else(|| WindowError::Never(self.cron.clone()))
    }

    /// The first start strictly after `now`.
    #[must_use]
    pub fn next_start(&self, now: Timestamp) -> Option<Timestamp> {
        let (cron, zone) = self.parts().ok()?;
        let local = zone.from_utc_datetime(&now.as_chrono().naive_utc());
        let next = cron.find_next_occurrence(&local, false).ok()?;
        Some(Timestamp::from_chrono(next.with_timezone(&Utc)))
    }

    /// The next three starts after `now` in the window's own zone, for people.
    #[must_use]
    pub fn openings(&self, now: Timestamp) -> Vec<String> {
        let Ok((_, zone)) = self.parts() else { return Vec::new() };
        let starts = std::iter::successors(self.next_start(now), |at| self.next_start(*at)).take(3);
        starts.map(|at| at.as_chrono().with_timezone(&zone).format("%a %Y-%m-%d %H:%M").to_string()).collect()
    }

    /// Whether the window is open at `now`: it started less than its duration ago.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        // `next_start` is strict. A start at `now` counts; a start exactly one duration ago does not,
        // because the window closes at `now`.
        let from = now - self.duration.get();
        self.next_start(from).is_some_and(|start| start <= now)
    }

    fn ends_after(&self, now: Timestamp, count: usize, freezes: &[Freeze]) -> Vec<Timestamp> {
        let mut ends = Vec::new();
        let mut from = now - self.duration.get();
        while ends.len() < count {
            let Some(start) = self.next_start(from) else { break };
            let end = start + self.duration.get();
            let opens = after_freezes(freezes, start.max(now));
            if opens < end {
                ends.push(end);
                from = start;
            } else {
                // It lies in a freeze: go on with the first window that lasts longer than that.
                from = start.max(opens - self.duration.get());
            }
        }
        ends
    }
}

/// The settings of the verification after a PATCH. The defaults are the production values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The consecutive true readings that verify a key.
    pub readings: u32,
    /// The time between two readings.
    pub every: Span,
    /// How long `valid` may stay false before a rollback.
    pub false_grace: Span,
    /// How often `valid` may fall from true to false before a rollback.
    pub max_flaps: u32,
    /// Timeout of the verification, from entering `verifying`.
    pub timeout: Span,
    /// Guard, from the first PATCH that may have been applied: verified, rolled back or paged by then.
    pub guard: Span,
    /// With private networking: how long to observe after the last PATCH before the readings count. It is
    /// longer than one of Atlas' 15-minute validity cycles.
    pub private_network_hold: Span,
    /// The time between two observations of the clusters.
    pub deploy_poll: Span,
    /// How long clusters may sit idle before a roll-out is assumed to be over.
    pub deploy_grace: Span,
    /// Timeout of the roll-out to the clusters.
    pub deploy_timeout: Span,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            readings: 3,
            every: Span::from_secs(15),
            false_grace: Span::from_secs(60),
            max_flaps: 2,
            timeout: Span::from_secs(600),
            guard: Span::from_secs(780),
            private_network_hold: Span::from_secs(960),
            deploy_poll: Span::from_secs(30),
            deploy_grace: Span::from_secs(600),
            deploy_timeout: Span::from_secs(6 * 3600),
        }
    }
}

/// The waits of the machine that are not settings in production.
///
/// The demo and the tests shrink them together with [`Verify`]; everything else uses the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// First wait after an unknown outcome; doubles up to `backoff_max`.
    pub backoff_min: Span,
    /// The longest wait after an unknown outcome.
    pub backoff_max: Span,
    /// First wait after a 429 without `Retry-After`.
    pub rate_limit_floor: Span,
    /// How long an unanswered PATCH may still take effect, and how long an observed old key counts as a
    /// stale read.
    pub settle: Span,
    /// The greatest age of the observation when a PATCH leaves.
    pub fresh: Span,
    /// How often an open proposal is compared with Atlas.
    pub idle_every: Span,
    /// How often a finished rotation is observed.
    pub watch_every: Span,
    /// How long a finished rotation that sent a PATCH is observed.
    pub watch_for: Span,
    /// How long a daemon's claim on a rotation lasts after its last renewal.
    #[serde(default = "lease")]
    pub lease: Span,
}

fn lease() -> Span {
    Span::from_secs(60)
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            backoff_min: Span::from_secs(1),
            backoff_max: Span::from_secs(30),
            rate_limit_floor: Span::from_secs(10),
            settle: Span::from_secs(120),
            fresh: Span::from_secs(1),
            idle_every: Span::from_secs(900),
            watch_every: Span::from_secs(60),
            watch_for: Span::from_secs(900),
            lease: lease(),
        }
    }
}

/// Everything a rotation was proposed under, bound to it until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The project's policy.
    pub policy: Policy,
    /// The settings of the verification.
    pub verify: Verify,
    /// The machine's fixed waits.
    pub pace: Pace,
    /// `patch_body = "whole-block"`: a PATCH leaves only while the provider block is the one that
    /// was there at the proposal.
    pub whole_block: bool,
    /// The time limit of one request.
    pub request_timeout: Span,
    /// Who owns the hook that proposed it, by name or mail address: their votes do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// The owners who may approve, where `approvers` names the owners: those of the proposal, but for who joined lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// No PATCH of the new key is sent before this instant, which the proposer has chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_for: Option<Timestamp>,
}

impl Rules {
    /// Whether a PATCH of the new key may be sent at `now`.
    #[must_use]
    pub fn window_open(&self, now: Timestamp) -> bool {
        self.planned_for.is_none_or(|at| at <= now) && self.policy.window_open(now)
    }

    /// The first instant at or after `now` at which it may be sent.
    #[must_use]
    pub fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        self.policy.next_open(self.from(now))
    }

    /// When a proposal made at `created_at` lapses without its quorum: one with a date waits until then.
    #[must_use]
    pub fn approval_deadline(&self, created_at: Timestamp) -> Timestamp {
        self.from(created_at + self.policy.approval_ttl.get())
    }

    /// When an approval given at `approved_at` lapses, counted from the planned date where that is later.
    #[must_use]
    pub fn execution_deadline(&self, approved_at: Timestamp) -> Timestamp {
        self.policy.execution_deadline(self.from(approved_at))
    }

    /// `at`, or the planned date where that is later.
    fn from(&self, at: Timestamp) -> Timestamp {
        self.planned_for.map_or(at, |planned| planned.max(at))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            verify: Verify::default(),
            pace: Pace::default(),
            whole_block: false,
            request_timeout: Span::from_secs(30),
            excluded: Vec::new(),
            owners: Vec::new(),
            planned_for: None,
        }
    }
}

/// What sets a proposal apart beside its keys and its policy, for [`proposal_hash`]: a planned date, or that it is an
/// emergency, which has none.
#[must_use]
pub fn proposal_mark(trigger: &str, planned_for: Option<Timestamp>) -> Option<String> {
    planned_for.map(|at| at.to_string()).or_else(|| (trigger == EMERGENCY).then(|| EMERGENCY.to_owned()))
}

/// The SHA-256 that an approval is bound to: exactly this project, provider, old key, new key, policy
/// version and [`proposal_mark`]. Every field is preceded by its length, so no two proposals share a text.
#[must_use]
pub fn proposal_hash(
    group: &GroupId,
    provider: Provider,
    old: &KeyRef,
    new: &KeyRef,
    policy_version: &str,
    mark: Option<&str>,
) -> String {
    let (old, new) = (old.to_string(), new.to_string());
    proposal_hash_of([group.as_str(), provider.as_str(), &old, &new, policy_version], mark)
}

/// The same of the texts as they are recorded: project, provider, old key, new key and policy version.
#[must_use]
pub fn proposal_hash_of(fields: [&str; 5], mark: Option<&str>) -> String {
    let mut hash = Sha256::new();
    // Without a mark there is one field less, as in proposals of older programs.
    for field in fields.into_iter().chain(mark) {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    hex::encode(hash.finalize())
}
