//! What a verified bundle proves, what only the installation says, and what would prove more.

use super::contents::Contents;
use super::votes::Counts;
use super::{Brought, Report};

fn many(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Fills in the verdict. A sentence whose rules have faults is left out.
pub(super) fn judge(
    contents: &Contents<'_>,
    counts: &Counts,
    (changes, earliest): (Option<usize>, i64),
    brought: Brought<'_>,
    report: &mut Report,
) {
    let manifest = &contents.manifest;
    let (first, last) = (manifest.head.before.seq.saturating_add(1), manifest.head.after.seq);
    // The rows end when the bundle was made.
    let period = format!("{} to {}", manifest.period.from, manifest.period.to.min(manifest.made_at));
    let mut proven: Vec<(&[&str], String)> = vec![
        (
            &["files", "counts", "csv"],
            format!(
                "the archive is, byte for byte, the one that its manifest yields ({})",
                many(manifest.files.len() + 2, "file")
            ),
        ),
        (
            &["chain"],
            format!(
                "rows {first} to {last} of the audit log are whole: since row {last} got its hash, none was changed, dropped, added or moved"
            ),
        ),
        (
            &["chain", "population", "dossier"],
            match counts.rotations {
                0 => format!("no rotation was open from {period}, by these rows"),
                count => format!(
                    "the population is complete: {} open from {period}, by these rows, and no other",
                    many(count, "rotation")
                ),
            },
        ),
    ];
    if counts.rotations > 0 {
        proven.push((&["chain", "rotation", "journal", "atlas-event"], "proposal, states, keys that were sent, end and Atlas' event of each rotation are those in the rows".to_owned()));
        proven.push((&["proposal"], "each proposal hash is that of exactly this project, provider, old key, new key and policy version".to_owned()));
        proven.push((
            &["policy"],
            "each policy is the one that its version names, and each change of rules in the rows is listed"
                .to_owned(),
        ));
    }
    if counts.sent > 0 && counts.unsealed == 0 {
        proven.push((&["chain", "rotation", "proposal", "policy", "votes"], format!("{} stood before the new keys were sent, each of another voter, as many as the policies ask for, and none of a proposer where the policy forbids it", many(counts.sent, "sealed vote"))));
    }
    if counts.signed > 0 {
        proven.push((
            &["passkey", "proposal", "votes"],
            format!("{} signed by passkeys for exactly these proposals", many(counts.signed, "vote")),
        ));
    }
    if let Some(seq) = brought.expected.map(|it| it.seq) {
        let text = format!(
            "row {seq} is the one that was noted elsewhere, so everything up to it is as it was then"
        );
        proven.push((&["expect", "chain"], text));
    }
    if brought.previous.is_some() {
        proven.push((
            &["previous", "chain"],
            "the log goes on where that of the previous bundle ended: nothing before was rewritten, and what was open \
             then is in the population where the period covers it"
                .to_owned(),
        ));
    }
    if let Some(count) = changes {
        let by = match count {
            0 => "that was given".to_owned(),
            _ => format!("that follows from the given one, over {}", many(count, "signed change")),
        };
        proven.push((&["signature", "key"], format!("the bundle is signed by the key {by}")));
    }
    proven.retain(|(rules, _)| !report.has(rules));
    report.proven = proven.into_iter().map(|(_, text)| text).collect();
    claims(contents, counts, (earliest, brought), report);
}

fn claims(
    contents: &Contents<'_>,
    counts: &Counts,
    (earliest, brought): (i64, Brought<'_>),
    report: &mut Report,
) {
    let manifest = &contents.manifest;
    let last = manifest.head.after.seq;
    let mut claim = |text: String, needed: Option<&str>| {
        report.claimed.push(text);
        report.needed.extend(needed.map(str::to_owned));
    };
    if brought.trusted.is_none() {
        claim(
            format!("that the key {} in the bundle is the installation's", manifest.installation.fingerprint),
            Some("the installation's public key from another source (`keywheel evidence key`), as --key"),
        );
    }
    let known = brought.expected.map(|it| it.seq);
    if known.is_none_or(|seq| seq < last) {
        let rows = match known {
            None => "the log was not rewritten as a whole".to_owned(),
            Some(seq) if seq.saturating_add(1) == last => format!("row {last} was not rewritten"),
            Some(seq) => format!("rows {} to {last} were not rewritten", seq.saturating_add(1)),
        };
        claim(
            format!("that {rows} before the bundle was signed"),
            Some(
                "a signed end of the log that was kept elsewhere (a mail to mail.security, a webhook), from after the last \
                 row, as --expect SEQ:HASH",
            ),
        );
    }
    claim(format!("that no row followed row {last} when the bundle was signed"), None);
    if earliest > 1 {
        claim(
            format!(
                "that no rotation from before row {earliest} was open in the period without leaving a row since"
            ),
            Some(if brought.previous.is_some() {
                "a previous bundle that begins with the first row of the log, as --previous FILE"
            } else {
                "the bundle before this one, as --previous FILE"
            }),
        );
    }
    let by_word = counts.votes - counts.signed;
    if by_word > 0 {
        claim(
            format!("that {} without a passkey came from these people", many(by_word, "vote")),
            Some("policy.approval_method = \"passkey\", for later periods"),
        );
    }
    if counts.signed > 0 {
        claim("whose each passkey is".to_owned(), None);
    }
    if counts.unsealed > 0 {
        claim(
            format!(
                "that votes stood before the new keys were sent: {} of them from before the rows sealed any",
                many(counts.unsealed, "vote")
            ),
            None,
        );
    }
    if counts.fallen_back > 0 {
        claim(
            format!(
                "which votes {} had when the new key was about to be sent: taken back to approval afterwards, it may have lost or got some",
                many(counts.fallen_back, "rotation")
            ),
            None,
        );
    }
    if counts.rotations > 0 {
        let (found, all) = (counts.events, counts.rotations);
        claim(
            format!("that Atlas' own events say so ({found} of {} have one)", many(all, "rotation")),
            Some("the events with these ids in the activity feed of each Atlas project"),
        );
    }
    claim("the contents of keys.csv, inventory.csv, mails.csv and findings.csv, and all times, which are the daemon's".to_owned(), None);
    claim("that the printable dossiers say what the JSON files say".to_owned(), None);
}
