//! Cuts long texts and lists of facts, with a mark.

/// The most entries of a list in a body.
pub(super) const MOST: usize = 20;

/// Stands where a text was cut.
pub(super) const CUT: &str = "… (cut)";

/// As many facts as fit into one message.
pub(super) fn shown(facts: &[(String, String)], limit: usize) -> Vec<(String, String)> {
    let mut shown: Vec<_> =
        facts.iter().take(MOST).map(|(name, value)| (cut(name, limit), value.clone())).collect();
    if facts.len() > MOST {
        shown.push(("and more".to_owned(), (facts.len() - MOST).to_string()));
    }
    shown
}

/// The first `limit` characters, with a mark when there were more.
pub(super) fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}{CUT}", &text[..at]),
        None => text.to_owned(),
    }
}
