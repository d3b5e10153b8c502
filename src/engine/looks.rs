//! The observations that run at the same time, and the order in which the others wait.
//!
//! Slow projects must not delay the others. A look that lasts longer than [`GIVES_WAY`] frees its slot for
//! another one, and a project whose last look hung waits behind those whose look did not. The credential with the
//! fewest running looks goes first, and none may have more than its share of [`MOST`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};

use crate::domain::ids::GroupId;
use crate::domain::time::Timestamp;
use crate::store::{DueLook, StoreError};

/// The most looks that run at the same time.
pub(super) const MOST: usize = 256;

/// Slots for looks, and the looks that one credential may always have.
const FEWEST: usize = 8;

/// A look that lasts longer than this frees its slot.
pub(super) const GIVES_WAY: Duration = Duration::from_millis(500);

/// A look that lasts this long hangs.
const HANGS: Duration = Duration::from_secs(2);

/// Within this time everything that is due is to be read: as long as from one beat of the sweep to the next.
const BEAT: Duration = Duration::from_secs(15);

/// When `group` is observed next: never later than `every` from `now`. Each project has its own offset within
/// `every`, so that projects that were observed at the same time, as after a restart, spread.
pub(super) fn next_look(group: &GroupId, now: Timestamp, every: Duration) -> Timestamp {
    let Some(every) = i64::try_from(every.as_micros()).ok().filter(|it| *it > 0) else { return now + every };
    let offset = i64::try_from(hash(group.as_str()) >> 1).unwrap_or_default() % every;
    let latest = now.as_micros().saturating_add(every);
    Timestamp::from_micros(latest - (latest - offset).rem_euclid(every))
}

/// A hash that is the same in every daemon.
pub(super) fn hash(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The result of a look: whether it was made.
pub(super) type Look<'a> = BoxFuture<'a, Result<bool, StoreError>>;

/// The looks that run and those that wait.
pub(super) struct Looks<'a> {
    waiting: BTreeMap<String, Waiting>,
    running: BTreeMap<GroupId, Running>,
    ends: FuturesUnordered<BoxFuture<'a, (GroupId, Result<bool, StoreError>)>>,
    /// Projects whose last look hung.
    hung: BTreeSet<GroupId>,
    /// The mean time of a look.
    mean: Duration,
    slots: usize,
}

/// The projects of one credential that wait, the most overdue first.
#[derive(Default)]
struct Waiting {
    prompt: VecDeque<GroupId>,
    hung: VecDeque<GroupId>,
}

struct Running {
    credential: String,
    since: Timestamp,
    hung: bool,
}

impl<'a> Looks<'a> {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            ends: FuturesUnordered::new(),
            hung: BTreeSet::new(),
            mean: Duration::ZERO,
            slots: FEWEST,
        }
    }

    /// Has these projects wait for their looks, instead of those that waited before. A project whose look runs is
    /// left out.
    pub(super) fn await_all(&mut self, due: Vec<DueLook>) {
        self.waiting.clear();
        let needed = 2.0 * f64::from(u32::try_from(due.len()).unwrap_or(u32::MAX)) * self.mean.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to some hundreds"
        )]
        let slots = (needed / BEAT.as_secs_f64()).ceil().clamp(0.0, 10_000.0) as usize;
        self.slots = slots.clamp(FEWEST, MOST);
        for it in due.into_iter().filter(|it| !self.running.contains_key(&it.group_id)) {
            let waiting = self.waiting.entry(it.credential).or_default();
            let queue =
                if self.hung.contains(&it.group_id) { &mut waiting.hung } else { &mut waiting.prompt };
            queue.push_back(it.group_id);
        }
    }

    /// Whether a look runs or waits.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Whether a look waits for a slot.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Starts looks while there are slots.
    pub(super) fn start(&mut self, now: Timestamp, look: impl Fn(&GroupId) -> Look<'a>) {
        let prompt = |it: &&Running| now.since(it.since) < GIVES_WAY;
        let mut taken = self.running.values().filter(prompt).count();
        while taken < self.slots && self.running.len() < MOST {
            let Some((credential, group, hung)) = self.next() else { break };
            let looking = look(&group);
            let of = group.clone();
            self.ends.push(Box::pin(async move { (of, looking.await) }));
            self.running.insert(group, Running { credential, since: now, hung });
            taken += 1;
        }
    }

    /// The next look that ends; none when no look runs.
    pub(super) async fn ended(
        &mut self,
        now: impl Fn() -> Timestamp,
    ) -> Option<(GroupId, Result<bool, StoreError>)> {
        let (group, result) = self.ends.next().await?;
        if let Some(run) = self.running.remove(&group) {
            let took = now().since(run.since);
            self.mean = (self.mean * 7 + took) / 8;
            if took >= HANGS {
                self.hung.insert(group.clone());
            } else {
                self.hung.remove(&group);
            }
        }
        Some((group, result))
    }

    /// Takes the project whose look starts next from those that wait.
    fn next(&mut self) -> Option<(String, GroupId, bool)> {
        let mut runs: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for it in self.running.values() {
            let (all, hung) = runs.entry(&it.credential).or_default();
            *all += 1;
            *hung += usize::from(it.hung);
        }
        let credentials: BTreeSet<&str> =
            runs.keys().copied().chain(self.waiting.keys().map(String::as_str)).collect();
        let share = (MOST / credentials.len().max(1)).max(FEWEST);
        let of = |name: &str| runs.get(name).copied().unwrap_or_default();
        let may = |(name, waiting): &(&String, &Waiting)| {
            let (all, hung) = of(name);
            all < share && (!waiting.prompt.is_empty() || hung < share / 2)
        };
        let name = self.waiting.iter().filter(may).min_by_key(|(name, _)| of(name).0)?.0.clone();
        let waiting = self.waiting.get_mut(&name)?;
        let hung = waiting.prompt.is_empty();
        let group = waiting.prompt.pop_front().or_else(|| waiting.hung.pop_front())?;
        if waiting.prompt.is_empty() && waiting.hung.is_empty() {
            self.waiting.remove(&name);
        }
        Some((name, group, hung))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn group(number: usize) -> GroupId {
        format!("{number:024x}").parse().unwrap()
    }

    fn due(number: usize, credential: &str) -> DueLook {
        let next_check_at = "2026-03-01T12:00:00Z".parse().unwrap();
        DueLook {
            group_id: group(number),
            credential: credential.to_owned(),
            next_check_at,
            version: 1,
            failed: false,
        }
    }

    fn hangs(_: &GroupId) -> Look<'static> {
        Box::pin(std::future::pending())
    }

    #[test]
    fn looks_spread_over_the_interval_and_come_within_it() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let every = SECOND * 90;
        let mut quarters = [0; 6];
        for number in 0..6000 {
            let next = next_look(&group(number), now, every);
            assert!(next > now && next <= now + every, "{next}");
            // A look that came late does not move the offset.
            assert_eq!(next_look(&group(number), next + SECOND * 14, every), next + every);
            quarters[usize::try_from(now.until(next - Duration::from_micros(1)).as_secs() / 15).unwrap()] +=
                1;
        }
        assert!(quarters.iter().all(|count| (800..1200).contains(count)), "{quarters:?}");
        assert_eq!(next_look(&group(1), now, Duration::ZERO), now);
    }

    /// 48 projects hang; another one of the same credential does not wait for them.
    #[test]
    fn looks_that_hang_free_their_slots() {
        let mut now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut looks = Looks::new();
        looks.await_all((0..49).map(|number| due(number, "default")).collect());
        looks.start(now, hangs);
        assert_eq!(looks.running.len(), FEWEST);
        looks.start(now, hangs);
        assert_eq!(looks.running.len(), FEWEST);
        while looks.is_waiting() {
            now = now + GIVES_WAY;
            looks.start(now, hangs);
        }
        let waited = now.since("2026-03-01T12:00:00Z".parse().unwrap());
        assert!(looks.running.contains_key(&group(48)) && waited <= SECOND * 3, "{waited:?}");
    }

    #[test]
    fn no_credential_takes_the_slots_of_another() {
        let mut now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut looks = Looks::new();
        let many = (0..1000).map(|number| due(number, "broken"));
        looks.await_all(many.clone().chain([due(1000, "default")]).collect());
        looks.start(now, hangs);
        assert!(looks.running.contains_key(&group(1000)), "the one that is alone goes first");
        for _ in 0..100 {
            now = now + GIVES_WAY;
            looks.start(now, hangs);
        }
        assert_eq!(looks.running.len(), MOST / 2 + 1);
        looks.await_all(many.chain([due(1001, "default")]).collect());
        looks.start(now, hangs);
        assert!(looks.running.contains_key(&group(1001)));
    }

    #[tokio::test]
    async fn a_project_that_hung_waits_behind_the_others_of_its_credential() {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut looks = Looks::new();
        looks.await_all((0..FEWEST).map(|number| due(number, "default")).collect());
        looks.start(start, |_| Box::pin(async { Ok(true) }));
        for _ in 0..FEWEST {
            assert!(looks.ended(|| start + HANGS).await.unwrap().1.unwrap());
        }
        assert!(looks.is_empty());
        looks.await_all((0..2 * FEWEST).map(|number| due(number, "default")).collect());
        looks.start(start, hangs);
        let started = looks.running.keys().all(|it| *it >= group(FEWEST));
        assert!(started && looks.running.len() == FEWEST);
    }

    #[tokio::test]
    async fn slots_grow_with_the_projects_and_the_time_of_a_look() {
        let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut looks = Looks::new();
        for round in 0..20 {
            looks.await_all(vec![due(round, "default")]);
            looks.start(start, |_| Box::pin(async { Ok(true) }));
            let ended = looks.ended(|| start + Duration::from_millis(200)).await.unwrap();
            assert!(ended.1.unwrap());
        }
        looks.await_all((0..1700).map(|number| due(number, "default")).collect());
        assert!((38..=46).contains(&looks.slots), "{}", looks.slots);
    }
}
