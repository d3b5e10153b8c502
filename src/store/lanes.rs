//! The order in which waiting work is served: the most urgent lane first, and no lane starves.

use std::collections::VecDeque;

/// The callers that wait for a transaction, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Steps of rotations and rollbacks, and writes that a step waits for.
    Step,
    /// Votes and commands of people.
    Command,
    /// Events of senders that wait for their answer.
    Intake,
    /// Everything else: sweeps, messages, reminders, probes.
    Rest,
}

/// How many lanes there are.
const COUNT: usize = Lane::Rest as usize + 1;

/// A waiting lane gets one pick after this many picks of more urgent lanes.
const SHARE: u32 = 8;

/// Work that waits, by lane. Within a lane the first to arrive is the first served.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    waiting: [VecDeque<T>; COUNT],
    /// Picks of more urgent lanes since this one had its last.
    passed: [u32; COUNT],
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { waiting: std::array::from_fn(|_| VecDeque::new()), passed: [0; COUNT] }
    }
}

impl<T> Lanes<T> {
    pub(super) fn push(&mut self, lane: Lane, work: T) {
        self.waiting[lane as usize].push_back(work);
    }

    /// Whether work waits in this lane.
    pub(super) fn waits(&self, lane: Lane) -> bool {
        !self.waiting[lane as usize].is_empty()
    }

    /// Takes the next piece of work. A lane that was passed over too often goes before a more urgent one.
    pub(super) fn pop(&mut self) -> Option<T> {
        let waits = |lane: &usize| !self.waiting[*lane].is_empty();
        let first = (0..COUNT).find(waits)?;
        let starved = (first..COUNT).filter(|lane| waits(lane) && self.passed[*lane] >= SHARE);
        let lane = starved.max_by_key(|lane| self.passed[*lane]).unwrap_or(first);
        let work = self.waiting[lane].pop_front();
        for (below, passed) in self.passed.iter_mut().enumerate().skip(lane + 1) {
            *passed = if self.waiting[below].is_empty() { 0 } else { *passed + 1 };
        }
        self.passed[lane] = 0;
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Lane; COUNT] = [Lane::Step, Lane::Command, Lane::Intake, Lane::Rest];

    #[test]
    fn the_most_urgent_is_served_first_and_within_a_lane_the_first_to_come() {
        let mut lanes = Lanes::default();
        for number in 0..2 {
            for lane in ALL.into_iter().rev() {
                lanes.push(lane, (lane, number));
            }
        }
        let served: Vec<_> = std::iter::from_fn(|| lanes.pop()).collect();
        let wanted: Vec<_> = ALL.into_iter().flat_map(|lane| [(lane, 0), (lane, 1)]).collect();
        assert_eq!(served, wanted);
    }

    #[test]
    fn no_lane_starves_while_all_the_others_are_never_empty() {
        let mut lanes = Lanes::default();
        for lane in ALL {
            lanes.push(lane, lane);
        }
        let mut served = Vec::new();
        for _ in 0..1000 {
            let lane = lanes.pop().unwrap();
            served.push(lane);
            // Every lane always has waiting work.
            lanes.push(lane, lane);
        }
        for lane in ALL {
            let turns: Vec<usize> = (0..served.len()).filter(|at| served[*at] == lane).collect();
            let longest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            // The other lanes that are owed a pick take theirs in between.
            assert!(longest <= SHARE as usize + 2 * COUNT, "{lane:?} waited for {longest} picks");
        }
        let steps = served.iter().filter(|lane| **lane == Lane::Step).count();
        assert!(steps > 600, "the most urgent lane keeps the larger part: {steps}");
    }

    #[test]
    fn a_lane_that_did_not_wait_has_saved_nothing_up() {
        let mut lanes = Lanes::default();
        for number in 0..100 {
            lanes.push(Lane::Step, number);
            lanes.pop();
        }
        lanes.push(Lane::Rest, 1000);
        lanes.push(Lane::Step, 100);
        assert_eq!(lanes.pop(), Some(100));
        assert_eq!(lanes.pop(), Some(1000));
    }
}
