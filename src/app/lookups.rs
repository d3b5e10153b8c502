//! The lookups of the configuration as the engine holds them, each replaceable while it runs: a new
//! client secret is taken over on SIGHUP. A lookup that is added, removed or changed in kind needs a
//! restart.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;

use crate::config::Config;
use crate::domain::key::{KeyRef, Place, Provider};
use crate::domain::time::Timestamp;
use crate::kms::{Connected, Found, KeyService, KmsError, Watched, connect};

/// Lookups by name.
pub(super) type Services = BTreeMap<String, Arc<dyn Connected>>;

/// The lookups as they are configured now.
pub(super) fn services(config: &Config) -> anyhow::Result<Services> {
    let made = config.kms.iter().map(|(name, it)| Ok((name.clone(), connect(name, it.clone())?)));
    made.collect()
}

/// The lookups of a running daemon.
#[derive(Clone, Debug, Default)]
pub(super) struct LookUps(BTreeMap<String, Arc<Current>>);

#[derive(Debug)]
struct Current(RwLock<Arc<dyn Connected>>);

impl LookUps {
    pub(super) fn new(services: Services) -> Self {
        Self(services.into_iter().map(|(name, it)| (name, Arc::new(Current(RwLock::new(it))))).collect())
    }

    /// The lookups for the engine; they stay valid across [`Self::replace`].
    pub(super) fn for_engine(&self) -> BTreeMap<String, Arc<dyn KeyService>> {
        self.0.iter().map(|(name, it)| (name.clone(), Arc::clone(it) as Arc<dyn KeyService>)).collect()
    }

    /// Replaces each lookup that `fresh` has under the same name and kind; the others stay.
    pub(super) fn replace(&self, fresh: &Services) {
        for (name, current) in &self.0 {
            if let Some(new) = fresh.get(name).filter(|new| new.provider() == current.provider()) {
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(new);
            }
        }
    }
}

impl Current {
    fn now(&self) -> Arc<dyn Connected> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KeyService for Current {
    fn provider(&self) -> Option<Provider> {
        self.now().provider()
    }

    fn newest<'a>(
        &'a self,
        of: Watched<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Option<Found>, KmsError>> {
        let service = self.now();
        Box::pin(async move { service.newest(of, now).await })
    }

    fn describe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<Found, KmsError>> {
        let service = self.now();
        Box::pin(async move { service.describe(key, place).await })
    }

    fn probe<'a>(&'a self, key: &'a KeyRef, place: &'a Place) -> BoxFuture<'a, Result<(), KmsError>> {
        let service = self.now();
        Box::pin(async move { service.probe(key, place).await })
    }
}

#[cfg(feature = "aws")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn configured(pairs: &[(&str, &str)]) -> Services {
        let overrides = pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
        let loaded = Config::load(&Sources { overrides, ..Sources::default() }).unwrap();
        services(&loaded.config).unwrap()
    }

    #[tokio::test]
    async fn a_new_log_in_is_used_by_who_holds_the_old_one_and_a_new_look_up_is_not() {
        let old = [
            ("kms.a.kind", "aws"),
            ("kms.a.access_key_id", "AKIAOLD"),
            ("kms.a.secret_access_key", "canary"),
        ];
        let lookups = LookUps::new(configured(&old));
        let held = lookups.for_engine();
        let new = [
            ("kms.a.kind", "aws"),
            ("kms.a.access_key_id", "AKIANEW"),
            ("kms.a.secret_access_key", "canary"),
            ("kms.b.kind", "aws"),
        ];
        lookups.replace(&configured(&new));
        let shown = format!("{held:?}");
        assert!(
            shown.contains("AKIANEW") && !shown.contains("AKIAOLD") && !shown.contains("canary"),
            "{shown}"
        );
        assert_eq!(lookups.for_engine().len(), 1);
        lookups.replace(&Services::new());
        assert!(format!("{held:?}").contains("AKIANEW"), "what is gone stays until a restart");
    }
}
