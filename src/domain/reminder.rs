//! Which reminder a project has reached, and when the next one comes.
//!
//! A threshold counts as passed from its instant on, even if no daemon ran at that instant. Due reminders
//! follow from the recorded ones, never from a day on which a daemon must run. Sending and recording are
//! elsewhere.

use std::time::Duration;

use super::policy::Policy;
use super::time::{DayOffset, Span, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);

/// Days from the due date: negative before it, 0 on it, positive after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(pub i32);

impl Threshold {
    /// Whether it is the due date or later: such a reminder waits for no hour and stands in no list with others.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        self.0 >= 0
    }

    /// Its instant for a project due at `due`.
    #[must_use]
    pub fn at(self, due: Timestamp) -> Timestamp {
        let span = DAY * self.0.unsigned_abs();
        if self.0 < 0 { due - span } else { due + span }
    }
}

fn configured(policy: &Policy) -> Vec<Threshold> {
    let days = |days: u32| i32::try_from(days).unwrap_or(i32::MAX);
    // A threshold before the start of the cycle does not belong to it.
    let fits = |it: &&DayOffset| Span::from_days(u64::from(it.days())) < policy.interval;
    let before = policy.remind_before.iter().filter(fits).map(|it| Threshold(-days(it.days())));
    let after = policy.remind_overdue.iter().map(|it| Threshold(days(it.days())));
    let mut all: Vec<_> = before.chain(after).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The distance at which the last overdue reminder repeats.
fn repeat(policy: &Policy) -> Option<i32> {
    let last = policy.remind_overdue.iter().map(|it| it.days()).max()?;
    i32::try_from(last).ok().filter(|days| *days > 0)
}

/// The thresholds that have passed at `now`, in order; of the repeats only the latest.
#[must_use]
pub fn passed(policy: &Policy, due: Timestamp, now: Timestamp) -> Vec<Threshold> {
    let mut passed: Vec<_> = configured(policy).into_iter().filter(|it| it.at(due) <= now).collect();
    if let Some(repeat) = repeat(policy).filter(|_| now >= due) {
        let days = i32::try_from(now.since(due).as_secs() / DAY.as_secs()).unwrap_or(i32::MAX);
        let latest = Threshold(days / repeat * repeat);
        if latest.0 >= repeat && passed.last() < Some(&latest) {
            passed.push(latest);
        }
    }
    passed
}

/// The thresholds that have passed for those who get a copy `after` days from due on, in order.
#[must_use]
pub fn copied(passed: &[Threshold], after: Threshold, due: Timestamp, now: Timestamp) -> Vec<Threshold> {
    if now < after.at(due) {
        return Vec::new();
    }
    std::iter::once(after).chain(passed.iter().copied().filter(|it| *it > after)).collect()
}

/// The first threshold after `now`; `None` when nothing follows.
#[must_use]
pub fn next(policy: &Policy, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let plain = configured(policy).into_iter().map(|it| it.at(due)).find(|at| *at > now);
    plain.or_else(|| {
        let repeat = repeat(policy)?;
        let days = i32::try_from(now.since(due).as_secs() / DAY.as_secs()).ok()?;
        Some(Threshold((days / repeat).checked_add(1)?.checked_mul(repeat)?).at(due))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(number: i64) -> Timestamp {
        let start: Timestamp = "2026-01-01T08:30:00Z".parse().unwrap();
        let span = DAY * u32::try_from(number.unsigned_abs()).unwrap();
        if number < 0 { start - span } else { start + span }
    }

    fn passed_on(number: i64) -> Vec<i32> {
        passed(&Policy::default(), day(0), day(number)).into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn what_was_missed_is_passed_all_the_same() {
        assert_eq!(passed_on(-31), Vec::<i32>::new());
        assert_eq!(passed_on(-30), [-30]);
        assert_eq!(passed_on(-5), [-30, -14, -7]);
        assert_eq!(passed_on(0), [-30, -14, -7, -3, -1, 0]);
        assert_eq!(passed_on(8).last(), Some(&7));
        assert_eq!(passed_on(14).last(), Some(&14));
        assert_eq!(passed_on(3650).last(), Some(&3647));
        assert_eq!(passed_on(3650).len(), 10, "of the repeats only the latest");
    }

    #[test]
    fn a_short_cycle_leaves_out_what_would_lie_before_it() {
        let policy = Policy { interval: Span::from_days(10), ..Policy::default() };
        let all: Vec<_> = passed(&policy, day(0), day(0)).into_iter().map(|it| it.0).collect();
        assert_eq!(all, [-7, -3, -1, 0]);
    }

    #[test]
    fn without_overdue_reminders_nothing_repeats() {
        let policy = Policy { remind_overdue: vec![], ..Policy::default() };
        assert_eq!(next(&policy, day(0), day(1)), None);
        assert_eq!(passed(&policy, day(0), day(400)).last(), Some(&Threshold(0)));
    }

    proptest! {
        #[test]
        fn the_next_one_is_the_first_that_was_not_passed(hours in -60 * 24i64..400 * 24) {
            let policy = Policy::default();
            let due = day(0);
            let span = Duration::from_secs(hours.unsigned_abs() * 3600);
            let now = if hours < 0 { due - span } else { due + span };
            let at = next(&policy, due, now).unwrap();
            prop_assert!(at > now);
            prop_assert_eq!(passed(&policy, due, at - Duration::from_secs(1)), passed(&policy, due, now));
            prop_assert_ne!(passed(&policy, due, at), passed(&policy, due, now));
        }
    }
}
