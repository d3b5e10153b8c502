//! The year ahead: when keys fall due, which of these dates cannot be kept, and earlier dates that can.
//!
//! Nothing is decided here that the rules do not decide: due dates come from rows, windows and freezes from the
//! [`Policy`]. Days are those of UTC. A date after the next one assumes that the key is replaced on the day it is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{Days, NaiveDate};

use super::day::{day_of, midnight};
use super::freeze::Freeze;
use super::policy::Policy;
use super::reminder;
use super::time::{Span, Timestamp};
use super::zone::Zone;

/// The furthest that anybody can look ahead, in days.
pub const MOST_DAYS: u64 = 731;

/// The most dates of one key: whose cryptoperiod is shorter than a month is not planned to the end.
const MOST_DATES: usize = 24;

/// The rules of some projects, with the days on which they let a new key be sent.
#[derive(Debug)]
pub struct Schedule {
    policy: Policy,
    /// The first open instant of each day that has one.
    openings: BTreeMap<NaiveDate, Timestamp>,
    /// The first instant of each freeze and the first one after it.
    freezes: Vec<(Timestamp, Timestamp)>,
    /// How long before a due date its first reminder is sent.
    lead: Span,
}

impl Schedule {
    /// The openings from `now` to `until`.
    #[must_use]
    pub fn new(policy: Policy, now: Timestamp, until: Timestamp) -> Self {
        let mut openings = BTreeMap::new();
        let mut from = now;
        while let Some(at) = policy.next_open(from).filter(|at| *at <= until) {
            let day = day_of(at, Zone::UTC);
            openings.insert(day, at);
            let Some(next) = day.checked_add_days(Days::new(1)) else { break };
            from = midnight(next, Zone::UTC);
        }
        let freezes = policy.freezes.iter().map(Freeze::span).collect();
        let lead = policy.remind_before.iter().map(|it| it.days()).max().unwrap_or_default();
        Self { policy, openings, freezes, lead: Span::from_days(u64::from(lead)) }
    }

    /// The rules.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The days on which a window opens; none without windows, where every day is as good.
    pub fn window_days(&self) -> impl Iterator<Item = NaiveDate> {
        self.openings.keys().copied().filter(|_| !self.policy.windows.is_empty())
    }
}

/// A key whose next due date is known.
#[derive(Clone, Debug)]
pub struct Key {
    /// When it is due.
    pub due: Timestamp,
    /// The rules of its project.
    pub schedule: Arc<Schedule>,
    /// Whether a rotation of it is open.
    pub is_open: bool,
    /// The date of that rotation.
    pub planned_for: Option<Timestamp>,
}

/// Why a due date cannot be kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It lies in this freeze.
    Freeze(String),
    /// No window opens between the first reminder, or now, and the date.
    NoWindow,
    /// More keys are due on this day than are to be.
    Crowded,
}

/// A due date of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The index of the key.
    pub key: usize,
    /// When it is due.
    pub at: Timestamp,
    /// Whether it is the next one of its key, and no assumption.
    pub is_next: bool,
    /// Why it cannot be kept.
    pub conflict: Option<Conflict>,
    /// An instant at which it could be replaced instead; only where there is a conflict that a proposal can avoid now.
    pub proposed: Option<Timestamp>,
}

/// All due dates between two instants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The dates, the earliest first.
    pub dues: Vec<Due>,
}

impl Plan {
    /// Looks ahead: from the keys that are overdue at `now` to those due by `until`, with at most `per_day` on a day
    /// where that can be reached by earlier dates. No earlier date lies more than `furthest` ahead.
    #[must_use]
    pub fn ahead(keys: &[Key], now: Timestamp, until: Timestamp, per_day: usize, furthest: Span) -> Self {
        let mut dues = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let interval = key.schedule.policy.interval.get();
            let (mut at, mut is_next) = (key.due, true);
            for _ in 0..MOST_DATES {
                if at > until {
                    break;
                }
                dues.push(Due { key: number, at, is_next, conflict: None, proposed: None });
                // What is overdue is replaced now at the earliest.
                (at, is_next) = (at.max(now) + interval, false);
            }
        }
        dues.sort_unstable_by_key(|it| (it.at, it.key));
        let mut on_day: BTreeMap<NaiveDate, usize> = BTreeMap::new();
        for due in dues.iter_mut().filter(|it| it.at > now) {
            let key = &keys[due.key];
            let count = on_day.entry(day_of(due.at, Zone::UTC)).or_default();
            *count += 1;
            due.conflict = if key.planned_for.is_some_and(|at| due.is_next && at <= due.at) {
                None
            } else {
                conflict(&key.schedule, due.at, now).or((*count > per_day).then_some(Conflict::Crowded))
            };
        }
        let mut plan = Self { dues };
        plan.spread(keys, now, per_day, now + furthest.get());
        plan
    }

    /// Proposes the latest free day for each conflict, the last due date first: who is due earlier has fewer days to
    /// choose from, and finds those free that the later ones can leave.
    fn spread(&mut self, keys: &[Key], now: Timestamp, per_day: usize, furthest: Timestamp) {
        let mut taken: BTreeMap<NaiveDate, usize> = BTreeMap::new();
        for at in keys.iter().filter_map(|it| it.planned_for).filter(|at| *at > now) {
            *taken.entry(day_of(at, Zone::UTC)).or_default() += 1;
        }
        let stays = |it: &Due| it.at > now && it.conflict.is_none() && keys[it.key].planned_for.is_none();
        for due in self.dues.iter().filter(|it| stays(it)) {
            *taken.entry(day_of(due.at, Zone::UTC)).or_default() += 1;
        }
        let movable = |it: &&mut Due| it.is_next && it.conflict.is_some() && !keys[it.key].is_open;
        // Days only fill up, so what the later ones found full needs no second look under the same rules.
        let mut latest: BTreeMap<*const Schedule, NaiveDate> = BTreeMap::new();
        for due in self.dues.iter_mut().rev().filter(movable) {
            let schedule = &keys[due.key].schedule;
            let known = latest.entry(Arc::as_ptr(schedule)).or_insert(NaiveDate::MAX);
            let before = schedule.openings.range(..=day_of(due.at, Zone::UTC).min(*known)).rev();
            let mut free = before.filter(|(day, at)| {
                **at <= due.at && **at <= furthest && taken.get(*day).is_none_or(|count| *count < per_day)
            });
            let found = free.next();
            *known = found.map_or(NaiveDate::MIN, |(day, _)| *day);
            if let Some((day, at)) = found {
                *taken.entry(*day).or_default() += 1;
                due.proposed = Some(*at);
            }
        }
    }

    /// How many keys are due on each day.
    #[must_use]
    pub fn by_day(&self) -> BTreeMap<NaiveDate, usize> {
        let mut days = BTreeMap::new();
        for due in &self.dues {
            *days.entry(day_of(due.at, Zone::UTC)).or_default() += 1;
        }
        days
    }
}

fn conflict(schedule: &Schedule, due: Timestamp, now: Timestamp) -> Option<Conflict> {
    let policy = &schedule.policy;
    let frozen = schedule.freezes.iter().position(|(from, end)| *from <= due && due < *end);
    if let Some(freeze) = frozen.and_then(|at| policy.freezes.get(at)) {
        return Some(Conflict::Freeze(freeze.name.clone()));
    }
    let from = due - schedule.lead.get();
    let days = day_of(from.max(now), Zone::UTC)..=day_of(due, Zone::UTC);
    let opens = schedule.openings.range(days).any(|(_, at)| *at <= due);
    // A window that is open at the due date may have opened before the first reminder.
    (!opens && !policy.window_open(due)).then_some(Conflict::NoWindow)
}

/// The reminders that are still to come of a key due at `due`: days from the due date and the instant. Of a key that is
/// overdue only the next one, because they repeat.
#[must_use]
pub fn reminders(policy: &Policy, due: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let mut all = Vec::new();
    let mut from = now;
    while let Some(at) = reminder::next(policy, due, from) {
        if at > due && !all.is_empty() {
            break;
        }
        all.push(at);
        if at >= due {
            break;
        }
        from = at;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOW: &str = "2026-11-28T15:42:10Z";

    /// Nothing is sent from 14 December to 4 January.
    fn winter(windows: &serde_json::Value) -> Policy {
        let winter = serde_json::json!([{ "name": "Winter", "from": "2026-12-14", "to": "2027-01-04" }]);
        Policy {
            freezes: serde_json::from_value(winter).unwrap(),
            windows: serde_json::from_value(windows.clone()).unwrap(),
            ..Policy::default()
        }
    }

    fn saturdays() -> serde_json::Value {
        serde_json::json!([{ "cron": "0 0 1 * * Sat", "duration": "4h", "timezone": "UTC" }])
    }

    fn plan(
        policy: Policy,
        dues: &[&str],
        per_day: usize,
    ) -> Vec<(String, Option<Conflict>, Option<String>)> {
        let (now, until) = (at(NOW), at("2027-02-01T00:00:00Z"));
        let schedule = Arc::new(Schedule::new(policy, now, until));
        let key =
            |due: &&str| Key { due: at(due), schedule: schedule.clone(), is_open: false, planned_for: None };
        let keys: Vec<_> = dues.iter().map(key).collect();
        let plan = Plan::ahead(&keys, now, until, per_day, Span::from_days(92));
        let text = |at: Timestamp| at.to_string()[..16].to_owned();
        plan.dues.into_iter().map(|it| (text(it.at), it.conflict, it.proposed.map(text))).collect()
    }

    fn frozen() -> Conflict {
        Conflict::Freeze("Winter".to_owned())
    }

    #[test]
    fn what_falls_into_a_freeze_is_to_be_done_before_it_and_not_all_on_one_day() {
        let dues =
            ["2026-12-10T08:00:00Z", "2026-12-14T08:00:00Z", "2026-12-18T08:00:00Z", "2027-01-04T08:00:00Z"];
        let told = plan(winter(&serde_json::json!([])), &dues, 1);
        let expected = [
            ("2026-12-10T08:00", None, None),
            ("2026-12-14T08:00", Some(frozen()), Some("2026-12-11T00:00".to_owned())),
            ("2026-12-18T08:00", Some(frozen()), Some("2026-12-12T00:00".to_owned())),
            ("2027-01-04T08:00", Some(frozen()), Some("2026-12-13T00:00".to_owned())),
        ];
        assert_eq!(told, expected.map(|(due, conflict, day)| (due.to_owned(), conflict, day)));
    }

    #[test]
    fn an_earlier_date_lies_in_a_window() {
        let told = plan(winter(&saturdays()), &["2026-12-18T08:00:00Z", "2026-12-20T08:00:00Z"], 1);
        let dates: Vec<_> = told.iter().map(|it| it.2.as_deref()).collect();
        assert_eq!(dates, [Some("2026-12-05T01:00"), Some("2026-12-12T01:00")]);
    }

    #[test]
    fn a_date_that_no_window_reaches_is_named() {
        let leap = serde_json::json!([{ "cron": "0 0 3 29 2 *", "duration": "1h", "timezone": "UTC" }]);
        let told = plan(winter(&leap), &["2026-12-10T08:00:00Z"], 1);
        assert_eq!(told, [("2026-12-10T08:00".to_owned(), Some(Conflict::NoWindow), None)]);
    }

    #[test]
    fn too_many_on_a_day_are_spread_over_those_before() {
        let told = plan(Policy::default(), &["2026-12-10T08:00:00Z"; 3], 2);
        let dates: Vec<_> = told.iter().map(|it| it.2.as_deref()).collect();
        assert_eq!(dates, [None, None, Some("2026-12-09T00:00")]);
    }

    #[test]
    fn later_dates_follow_from_the_next_one() {
        let policy = Policy { interval: Span::from_days(30), ..Policy::default() };
        let told = plan(policy, &["2026-12-01T08:00:00Z"], 9);
        let days: Vec<_> = told.iter().map(|it| &it.0[..10]).collect();
        assert_eq!(days, ["2026-12-01", "2026-12-31", "2027-01-30"]);
    }

    #[test]
    fn the_reminders_to_come_end_with_the_due_date() {
        let policy = Policy::default();
        let days = |due: &str| {
            let due = at(due);
            let all = reminders(&policy, due, at("2026-12-01T00:00:00Z"));
            all.into_iter().map(|at| at.since(due).as_secs() / 86_400).collect::<Vec<_>>().len()
        };
        assert_eq!((days("2026-12-10T00:00:00Z"), days("2027-02-10T00:00:00Z")), (4, 6));
        assert_eq!(days("2026-11-20T00:00:00Z"), 1, "overdue ones repeat");
    }

    proptest! {
        #[test]
        fn no_proposed_date_is_late_closed_or_crowded(
            hours in proptest::collection::vec(1u64..60 * 24, 1..40), per_day in 1usize..4, windows in any::<bool>()
        ) {
            let now = at(NOW);
            let until = now + Span::from_days(65).get();
            let policy = winter(&if windows { saturdays() } else { serde_json::json!([]) });
            let schedule = Arc::new(Schedule::new(policy.clone(), now, until));
            let keys: Vec<_> = hours.iter().map(|hours| Key {
                due: now + std::time::Duration::from_hours(*hours),
                schedule: schedule.clone(), is_open: false, planned_for: None,
            }).collect();
            let plan = Plan::ahead(&keys, now, until, per_day, Span::from_days(92));
            let mut days: BTreeMap<NaiveDate, usize> = BTreeMap::new();
            for due in &plan.dues {
                if let Some(at) = due.proposed {
                    prop_assert!(now <= at && at <= due.at && policy.window_open(at));
                }
                if due.conflict.is_none() || due.proposed.is_some() {
                    *days.entry(day_of(due.proposed.unwrap_or(due.at), Zone::UTC)).or_default() += 1;
                }
            }
            prop_assert!(days.values().all(|count| *count <= per_day), "{days:?}");
        }
    }
}
