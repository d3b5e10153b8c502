//! Key identifiers of all three providers: whatever is accepted is written so that it reads back as itself.

#![no_main]

use keywheel::domain::key::{KeyRef, Provider};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for provider in [Provider::Aws, Provider::Azure, Provider::Gcp] {
        let Ok(key) = KeyRef::parse(provider, text) else { continue };
        let written = key.to_string();
        let again = KeyRef::parse(provider, &written);
        assert_eq!(again.as_ref(), Ok(&key), "{text:?} is written {written:?}");
    }
});
