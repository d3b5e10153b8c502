//! The dossier of a rotation as a page that can be printed: one file without a script, on two pages at most.

use super::Dossier;
use crate::domain::text::visible;

/// Entries of the journal that are printed; all of them are in the JSON.
const MOST_ENTRIES: usize = 24;

/// Mails that are printed.
const MOST_MAILS: usize = 12;

const STYLE: &str = "body{font:10pt/1.35 sans-serif;max-width:190mm;margin:8mm auto;color:#111}h1{font-size:15pt;margin:0}\
h2{font-size:11pt;margin:4mm 0 1mm}table{border-collapse:collapse;width:100%;font-size:8.5pt}td,th{border-bottom:.2mm solid #bbb;\
padding:.6mm 2mm .6mm 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}th,td:first-child{white-space:nowrap}th{font-weight:600}\
@page{size:A4;margin:12mm}@media print{body{margin:0;max-width:none}tr{break-inside:avoid}}";

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in visible(text).chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(120).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// An instant to the second; the JSON has the rest.
fn second(at: &str) -> String {
    at.get(..19).map_or_else(|| at.to_owned(), |it| it.replace('T', " "))
}

fn table(text: &mut String, heading: &str, columns: &[&str], rows: &[Vec<String>]) {
    let cells = |tag: &str, cells: Vec<String>| {
        let cells = cells.iter().map(|it| format!("<{tag}>{}</{tag}>", escaped(it)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    text.extend(["<h2>", &escaped(heading), "</h2>\n"]);
    if rows.is_empty() {
        text.push_str("<p>None.</p>\n");
        return;
    }
    text.push_str("<table>\n");
    text.push_str(&cells("th", columns.iter().map(|it| (*it).to_owned()).collect()));
    for row in rows {
        text.push_str(&cells("td", row.clone()));
    }
    text.push_str("</table>\n");
}

/// How many are left out, as a sentence in a heading.
fn heading(what: &str, all: usize, shown: usize) -> String {
    if all > shown { format!("{what} ({shown} of {all}; all are in the JSON file)") } else { what.to_owned() }
}

/// The page.
pub(super) fn page(it: &Dossier) -> String {
    let facts = &it.rotation;
    let title = escaped(&format!("Rotation of {}", facts.project_name));
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}: {}</h1>\n<p>{}. All times are UTC.</p>\n<table>\n",
        escaped(&facts.state.replace('_', " ")),
        escaped(&facts.rotation_id),
    );
    for (name, value) in [
        ("Project", format!("{} ({})", facts.project_name, facts.project_id)),
        ("Old key", format!("{} {}", facts.provider, facts.old_key)),
        ("New key", format!("{} {}", facts.provider, facts.new_key)),
        ("Proposed", format!("{} by {} ({})", second(&facts.proposed_at), facts.requested_by, facts.trigger)),
        ("Reason", facts.reason.clone()),
        ("Proposal", format!("{} under policy {}", facts.proposal_hash, facts.policy_version)),
        ("Approved", second(&facts.approved_at)),
        ("New key sent", second(&facts.first_sent_at)),
        ("New key in Atlas", second(&facts.patched_at)),
        ("Ended", format!("{} {}", second(&facts.finished_at), facts.cause.replace('_', " "))),
        (
            "Atlas' own event",
            format!(
                "{} {} {} {}",
                facts.atlas_event.replace('_', " "),
                facts.atlas_event_id,
                second(&facts.atlas_event_at),
                facts.atlas_event_by
            ),
        ),
        (
            "Audit log",
            format!("rows {} to {}, {} in all", facts.first_row, facts.last_row, it.audit_rows.len()),
        ),
    ] {
        if !value.trim().is_empty() {
            text.extend(["<tr><th>", name, "</th><td>", &escaped(value.trim()), "</td></tr>\n"]);
        }
    }
    text.push_str("</table>\n");
    records(&mut text, it);
    text.push_str("</body>\n</html>\n");
    text
}

/// Votes, review, checks, journal and mails.
fn records(text: &mut String, it: &Dossier) {
    let votes = it.votes.iter().map(|vote| {
        let comment = vote.comment.clone().unwrap_or_default();
        vec![second(&vote.at), vote.voter.clone(), vote.method.clone(), short(&comment)]
    });
    let asked = format!("Approvals ({} required)", it.rotation.approvals_required);
    table(text, &asked, &["When", "Who", "How", "Comment"], &votes.collect::<Vec<_>>());
    if let Some(review) = &it.review {
        let closed = [&review.closed_at, &review.closed_by, &review.finding];
        let mut row = vec![review.reason.clone()];
        row.extend(closed.map(|it| it.clone().unwrap_or_default()));
        table(text, "Review of the emergency", &["Reason", "Closed", "By", "Finding"], &[row]);
    }
    let checks: Vec<Vec<String>> = it.checks.as_array().map_or_else(Vec::new, |checks| {
        let part =
            |check: &serde_json::Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
        let row = |check| {
            vec![
                part(check, "name").replace('_', " "),
                part(check, "result").replace('_', " "),
                short(&part(check, "detail")),
            ]
        };
        checks.iter().map(row).collect()
    });
    table(text, "Checks before the new key", &["Check", "Result", "Detail"], &checks);
    let moves: Vec<_> = it.journal.iter().filter(|line| line.from.as_ref() != Some(&line.to)).collect();
    let entries: Vec<Vec<String>> = moves
        .iter()
        .take(MOST_ENTRIES)
        .map(|line| {
            vec![
                second(&line.at),
                line.actor.clone(),
                line.to.replace('_', " "),
                short(&line.detail.to_string()),
            ]
        })
        .collect();
    let title = heading("Steps", moves.len(), entries.len());
    table(text, &title, &["When", "Who", "State", "Detail"], &entries);
    let mails: Vec<Vec<String>> = it
        .mails
        .iter()
        .take(MOST_MAILS)
        .map(|mail| {
            vec![
                second(&mail.created_at),
                mail.kind.replace('_', " "),
                mail.recipient.clone(),
                mail.state.clone(),
                short(&mail.answer),
            ]
        })
        .collect();
    let title = heading("Mails", it.mails.len(), mails.len());
    table(text, &title, &["When", "About", "To", "State", "Answer"], &mails);
}
