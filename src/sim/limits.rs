//! Rate limits: one token bucket per set of endpoints and project, or credential.
//!
//! Off unless a world sets them, because a test that runs into a limit by chance shows nothing.

use super::answer::{Refusal, refuse};
use super::ask::Ask;
use super::operation::Operation;
use super::world::{Level, World};

const PERIOD_S: u32 = 60;

/// Takes one token; returns limit and remainder, where there is a limit.
pub(super) fn take(
    world: &mut World,
    ask: &Ask,
    operation: Operation,
) -> Result<Option<(u32, u32)>, Refusal> {
    let Some(bucket) = world.rate_limits.get(operation.limit).copied() else { return Ok(None) };
    let scope = ask.group().unwrap_or(&ask.who).to_owned();
    let full = Level { tokens: f64::from(bucket.capacity), at: ask.now };
    let level = world.levels.entry((operation.limit, scope)).or_insert(full);
    let per_second = f64::from(bucket.refill) / f64::from(PERIOD_S);
    let grown = level.tokens + ask.now.since(level.at).as_secs_f64() * per_second;
    *level = Level { tokens: grown.min(f64::from(bucket.capacity)), at: ask.now };
    if level.tokens < 1.0 {
        let wait = whole(((1.0 - level.tokens) / per_second).ceil()).max(1);
        return Err(refuse(429, "RATE_LIMITED_TOKEN_BUCKET", "Too many requests.")
            .about(ask.uri.split('?').next().unwrap_or_default())
            .about(wait)
            .about(bucket.capacity)
            .about(bucket.refill)
            .about(PERIOD_S)
            .header("retry-after", wait.to_string())
            .header("ratelimit-limit", bucket.capacity.to_string())
            .header("ratelimit-remaining", "0"));
    }
    level.tokens -= 1.0;
    Ok(Some((bucket.capacity, whole(level.tokens))))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn whole(number: f64) -> u32 {
    number.clamp(0.0, f64::from(u32::MAX)) as u32
}
