//! The events of all kinds of hooks. The first byte, a digit, chooses the reader, lines up to an empty one are the
//! request's head, and the rest is its body.
//!
//! Whatever is read is read the same again, fits the inbox and comes out of it as it went in, and
//! holds nothing that a journal or a mail may not: no endless text, no second line.

#![no_main]

use keywheel::domain::hint::{Hint, Subject};
use keywheel::domain::key::Provider;
use keywheel::fuzzing::hooks::events;
use keywheel::store::NewEvent;
use libfuzzer_sys::fuzz_target;

/// The longest text that Atlas takes for a key.
const KEY: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let kind = kind.wrapping_sub(b'0');
    let empty = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = empty.map_or((&b""[..], rest), |at| (&rest[..at], &rest[at + 2..]));
    let read = events(kind, head, body);
    assert_eq!(read, events(kind, head, body));
    for (id, hint) in read.into_iter().flatten() {
        let Some(hint) = hint else { continue };
        is_presentable(&hint);
        let event = NewEvent::new("hook", &id, &hint).expect("a hint has a form in which it is stored");
        assert!(event.event_id.len() <= 512, "{}", event.event_id);
        let again: Hint = serde_json::from_str(&event.body).expect(&event.body);
        assert_eq!(again, hint);
    }
});

fn is_presentable(hint: &Hint) {
    let Hint { kind, subject, new_key, by, words, meaning: _ } = hint;
    is_line(kind, 300);
    is_line(&subject.to_string(), KEY + "key ".len());
    if let Subject::Alias { region, account, .. } = subject {
        region.iter().chain(account).for_each(|it| is_line(it, 300));
    }
    if let Subject::Key { key } = subject {
        assert!(Provider::ALL.contains(&key.provider()));
    }
    by.iter().for_each(|it| is_line(it, 300));
    words.iter().for_each(|it| is_line(it, 500));
    assert!(new_key.as_ref().is_none_or(|it| it.to_string().len() <= KEY), "{new_key:?}");
}

fn is_line(text: &str, longest: usize) {
    assert!(text.chars().count() <= longest, "{} characters: {text}", text.chars().count());
    assert!(!text.contains(char::is_control), "{text:?}");
}
