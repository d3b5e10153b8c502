//! What strangers try at the API: counted, logged within limits, and told where a revoked token is used.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::Engine;
use super::announce::{News, content};
use crate::domain::network::Network;
use crate::domain::notice::{Notice, RevokedTokenUsed};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::store::{StoreError, Token};

/// Log lines about refused requests at once; after them one each [`LINE_EACH`].
const LINES_AT_ONCE: u32 = 10;
const LINE_EACH: Duration = Duration::from_secs(10);
/// How often the use of one revoked token is written. Of one day there is one notice.
const TOLD_EACH: Duration = Duration::from_hours(1);

/// The limits of log lines and notices.
#[derive(Debug)]
pub struct Strangers {
    lines: DefaultDirectRateLimiter,
    /// Refused requests without a log line since the last one.
    quiet: AtomicU64,
    told: Mutex<BTreeMap<String, Timestamp>>,
}

impl Default for Strangers {
    fn default() -> Self {
        let burst = NonZeroU32::new(LINES_AT_ONCE).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(LINE_EACH).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self {
            lines: RateLimiter::direct(quota.allow_burst(burst)),
            quiet: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }
}

impl Engine {
    /// Counts an API request whose sender is not authenticated, for `reason`; `from` is the sender's network.
    pub fn refused_stranger(&self, reason: &'static str, from: Option<Network>) {
        self.metrics.refused_stranger(reason);
        if self.strangers.lines.check().is_err() {
            self.strangers.quiet.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unlogged = self.strangers.quiet.swap(0, Ordering::Relaxed);
        let from = from.map(tracing::field::display);
        tracing::warn!(reason, from, unlogged, "an API request was refused: its sender is not authenticated");
    }

    /// Tells those who look after the security that a revoked token was used. However often it is used,
    /// there is one notice a day.
    ///
    /// # Errors
    /// Fails when the message cannot be written.
    pub async fn revoked_token_used(&self, token: &Token, from: Option<Network>) -> Result<(), StoreError> {
        let now = self.clock.now();
        {
            let mut told = self.strangers.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.get(&token.name).is_some_and(|at| now.since(*at) < TOLD_EACH) {
                return Ok(());
            }
            told.insert(token.name.clone(), now);
        }
        let written = self.tell_revoked_token(token, from, now).await;
        if written.is_err() {
            // The next use is told instead.
            self.strangers.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&token.name);
        }
        written
    }

    async fn tell_revoked_token(
        &self,
        token: &Token,
        from: Option<Network>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let notice = Notice::RevokedTokenUsed(RevokedTokenUsed {
            subject: format!("token/{}", token.name),
            revoked_at: token.revoked_at.unwrap_or(now),
            used_at: now,
            from: from.map(|it| it.to_string()),
        });
        let day = now.as_micros() / 86_400_000_000;
        let news = News {
            identity: format!("token/{}/{}/{day}", token.name, notice.kind()),
            subject: Subject::Installation,
            content: content(&self.settings, notice),
        };
        let people = match self.settings.security.as_slice() {
            [] => self.responsible().await?,
            security => security.to_vec(),
        };
        self.store.write_messages(news.rows(self, &people, now), now).await?;
        self.mail_due.notify_one();
        Ok(())
    }
}
