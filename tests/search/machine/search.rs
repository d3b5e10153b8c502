//! Random search over the pure machine: one seed decides how Atlas, its key service, the network,
//! people and the worker behave, and `judge` checks each step against what the world knows.
//!
//! It needs no engine and no database, so it is fast enough to be run against each mutant of the
//! machine. `KEYWHEEL_SEEDS=100000` searches further, `KEYWHEEL_SEED=7` plays one seed.

mod world;

use std::time::Duration;

use keywheel::domain::rotation::machine::{Effect, Resume, Step, next, resume};
use keywheel::domain::rotation::outcome::{Command, Outcome};
use keywheel::domain::rotation::state::{Rotation, State};
use keywheel::domain::time::Timestamp;

use super::grid::{unhealthy_counts_as_done, unknown_counts_as_failed};
use super::judge::Judge;
use super::world::{PLAIN, Scenario, proposed};
pub(super) use world::World;

/// Seeds in a run; `KEYWHEEL_SEEDS` asks for more.
const SEEDS: u64 = 3000;

/// What people do at `world.now`, if anything.
fn command(world: &mut World, it: &Rotation) -> Option<Command> {
    let required = it.permission.quorum.required;
    match it.state {
        State::AwaitingApproval => match world.dice.below(20) {
            0 => Some(world.dice.one(&[0, 1, 2]))
                .map(|given| Command::Withdraw { given: given.min(it.permission.quorum.given) }),
            1 if world.dice.chance(20) => Some(Command::Reject),
            2 if world.dice.chance(20) => Some(Command::Cancel),
            3..=12 => Some(Command::Approve { given: (it.permission.quorum.given + 1).min(required) }),
            _ => None,
        },
        State::Approved => match world.dice.below(60) {
            0 => Some(Command::Withdraw { given: required - 1 }),
            1 => Some(Command::Withdraw { given: required }),
            2 if world.dice.chance(30) => Some(Command::Cancel),
            3 => Some(Command::Reject),
            _ => None,
        },
        State::NeedsOperator if world.orders > 0 && world.dice.chance(world.operators) => {
            world.orders -= 1;
            let all = [Command::Resume, Command::Rollback, Command::Accept, Command::Close];
            Some(world.dice.pick(all))
        }
        // A person presses the wrong button.
        state if state != State::NeedsOperator && world.dice.chance(1) => {
            Some(world.dice.pick([Command::Resume, Command::Rollback, Command::Cancel]))
        }
        _ => None,
    }
}

/// I13: no call before the instant that Atlas asked for.
fn before_call(world: &World) -> Result<(), String> {
    if world.now < world.closed_until {
        return Err(format!("I13: a call before {}", world.closed_until));
    }
    Ok(())
}

/// What a sender learnt is lost with it.
fn died(world: &mut World) {
    world.closed_until = world.now;
}

type Decide = fn(&Rotation, &Outcome, Timestamp) -> Step;

pub(super) fn play(decide: Decide, seed: u64) -> Result<State, String> {
    let mut world = World::new(seed);
    let base = proposed(&super::world::World::new(Scenario { private: world.private, ..PLAIN }));
    let mut durable = base;
    durable.permission.expires_at = durable.created_at + world.rules.policy.approval_ttl.get();
    durable.permission.quorum.required = world.rules.policy.approvals;
    durable.rules = world.rules.clone();
    let mut judge = Judge::new(&durable);
    let deaths = world.dice.one(&[0, 0, 2, 6]);
    let mut steps = 0;
    while let Some(wake) = durable.wake_at {
        steps += 1;
        if steps > 3000 {
            return Err("I16: does not converge".to_owned());
        }
        // A worker is rarely late, and sometimes very.
        let late = if world.dice.chance(deaths) { world.dice.secs(1, 900) } else { Duration::from_millis(1) };
        let mut outcome = None;
        if let Some(command) = command(&mut world, &durable) {
            // Somewhere in the wait.
            let until = world.now.until(wake);
            let share = u32::try_from(world.dice.below(100)).unwrap();
            world.pass(until * share / 100);
            outcome = Some(Outcome::Said(command));
        } else {
            world.pass(world.now.until(wake) + late);
        }
        if durable.state == State::NeedsOperator && judge.stuck_for(world.now) > Duration::from_secs(20_000) {
            return Ok(durable.state);
        }
        let mut effect = Effect::Rest;
        if outcome.is_none() {
            match resume(&durable, world.now) {
                Resume::Look(extras) => effect = Effect::Look(extras),
                Resume::Blind(failure) => outcome = Some(Outcome::Blind(failure)),
            }
        }
        loop {
            let called = outcome.is_none();
            let happened = match (outcome.take(), effect) {
                (Some(outcome), _) => outcome,
                (None, Effect::Rest) => break,
                (None, Effect::Look(extras)) => {
                    before_call(&world)?;
                    world.look(extras).map_or_else(Outcome::Blind, Outcome::Looked)
                }
                (None, Effect::Patch(target)) => {
                    before_call(&world)?;
                    world.sent = true;
                    if world.dice.chance(deaths) {
                        break died(&mut world);
                    }
                    let reply = world.patch(target);
                    if world.dice.chance(deaths * 2) {
                        break died(&mut world);
                    }
                    Outcome::Replied(reply)
                }
            };
            if called {
                let latency = world.latency();
                world.pass(latency);
            }
            let step = decide(&durable, &happened, world.now);
            if world.dice.chance(deaths) {
                break died(&mut world);
            }
            judge.step(&durable, &happened, &step, &mut world).map_err(|why| {
                format!("{why}\n  {} -> {} by {happened:?}", durable.state, step.rotation.state)
            })?;
            // An operator has the key read at once.
            let impatient = matches!(happened, Outcome::Said(Command::Resume | Command::Rollback));
            if impatient && !step.illegal {
                world.closed_until = world.now;
            }
            durable = step.rotation;
            // A command is committed by who serves it; a worker takes over from there.
            effect = if matches!(happened, Outcome::Said(_)) { Effect::Rest } else { step.effect };
            if world.dice.chance(deaths) {
                break died(&mut world);
            }
        }
    }
    judge.end(&durable, &world)?;
    Ok(durable.state)
}

fn broken(decide: Decide, seeds: impl Iterator<Item = u64>) -> Vec<String> {
    let played = seeds.map(|seed| (seed, std::panic::catch_unwind(|| play(decide, seed))));
    played
        .filter_map(|(seed, outcome)| match outcome {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some(format!("seed {seed}: {why}")),
            Err(_) => Some(format!("seed {seed}: panicked")),
        })
        .take(5)
        .collect()
}

#[test]
fn no_world_that_the_dice_make_breaks_a_rule() {
    let asked = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match (asked("KEYWHEEL_SEED"), asked("KEYWHEEL_SEEDS")) {
        (Some(one), _) => one..one + 1,
        (None, many) => 0..many.unwrap_or(SEEDS),
    };
    let broken = broken(next, seeds);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_dice_reach_every_end() {
    let mut missing: Vec<State> = State::ALL.iter().copied().filter(|it| it.is_final()).collect();
    missing.push(State::NeedsOperator);
    let mut seeds = 0..SEEDS;
    while let Some(seed) = seeds.next().filter(|_| !missing.is_empty()) {
        let state = play(next, seed).unwrap();
        missing.retain(|it| *it != state);
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_dice_catch_broken_machines() {
    assert!(!broken(unknown_counts_as_failed, 0..300).is_empty());
    assert!(!broken(unhealthy_counts_as_done, 0..300).is_empty());
}
