//! The plan: what falls due, which of it cannot be kept, and proposals with the earlier dates of the plan.

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::failure::{Exit, Failure};
use super::many::{self, Proposing};
use super::printer::Printer;
use crate::api::plan::{ConflictKind, Plan, PlannedDue};
use crate::domain::time::Timestamp;

pub(super) const PLAN: [&str; 6] = ["due", "project", "conflict", "proposed", "reminders", "owners"];

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Planning {
    /// How many days to look ahead, 731 at most
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u64,
    /// How many keys are to be replaced on one day at most
    #[arg(long, value_name = "N", default_value_t = 5)]
    per_day: usize,
    /// Only due dates that cannot be kept
    #[arg(long)]
    conflicts: bool,
    /// Propose the newest key of each project with an earlier date, to be sent on that date
    #[arg(long)]
    apply: bool,
    /// Why, for the approvers and the audit log
    #[arg(long, value_name = "TEXT", requires = "apply")]
    reason: Option<String>,
    /// Only check; propose nothing
    #[arg(long, requires = "apply")]
    dry_run: bool,
    /// Propose without asking
    #[arg(long, requires = "apply")]
    yes: bool,
}

pub(super) async fn run(args: Planning, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let (days, per_day) = (args.days.to_string(), args.per_day.to_string());
    let only = (args.conflicts || args.apply).to_string();
    let query = [("days", days.as_str()), ("perDay", &per_day), ("conflicts", &only), ("limit", "500")];
    let mut plan: Plan = client.get("/plan", &query).await?.read()?;
    while let Some(after) = plan.next.take() {
        let mut query = query.to_vec();
        query.push(("cursor", &after));
        let page: Plan = client.get("/plan", &query).await?.read()?;
        plan.items.extend(page.items);
        plan.next = page.next;
    }
    if args.apply {
        let dates = plan.items.iter().filter_map(|it| Some((it.group_id.clone(), it.proposed?))).collect();
        if !printer.is_json() {
            summary(&plan, printer);
        }
        let Planning { reason, dry_run, yes, .. } = args;
        let proposing = Proposing { reason, planned_for: None, dry_run, yes, ..Proposing::default() };
        return many::propose_dates(dates, proposing, client, printer).await;
    }
    if printer.is_json() {
        printer.json(&plan)?;
        return Ok(Exit::Done);
    }
    printer.list(&plan.items.iter().map(row).collect::<Vec<_>>(), &PLAN)?;
    summary(&plan, printer);
    if plan.proposed > 0 {
        printer.note("`keywheel plan --apply` proposes rotations on the proposed dates, and asks before");
    }
    Ok(Exit::Done)
}

fn day(at: Timestamp) -> String {
    at.as_chrono().format("%Y-%m-%d").to_string()
}

fn row(it: &PlannedDue) -> serde_json::Value {
    let conflict = match (it.conflict, &it.freeze) {
        (Some(ConflictKind::Freeze), Some(name)) => Some(format!("in the freeze {name}")),
        (Some(ConflictKind::NoWindow), _) => Some("no window before it".to_owned()),
        (Some(ConflictKind::Crowded), _) => Some("too many on this day".to_owned()),
        (Some(ConflictKind::Freeze), None) => Some("in a freeze".to_owned()),
        (None, _) => None,
    };
    let proposed = match (it.proposed, it.planned_for) {
        (Some(at), _) => Some(day(at)),
        (None, Some(at)) => Some(format!("planned for {}", day(at))),
        (None, None) => None,
    };
    let reminders: Vec<_> = it.reminders.iter().map(|at| day(*at)).collect();
    json!({
        "due": if it.is_next { day(it.due) } else { format!("{} (assumed)", day(it.due)) },
        "project": it.project_name, "conflict": conflict, "proposed": proposed,
        "reminders": reminders.join(" "), "owners": it.owners.join(", "),
    })
}

/// What the numbers come to.
fn summary(plan: &Plan, printer: &mut Printer) {
    let busiest = plan.days.iter().max_by_key(|(day, count)| (**count, std::cmp::Reverse(*day)));
    let busiest =
        busiest.map(|(day, count)| format!("; the busiest day is {day} with {count}")).unwrap_or_default();
    printer.note(&format!(
        "{} due by {}, {} of them on dates that cannot be kept, {} with an earlier date{busiest}",
        plan.due,
        day(plan.until),
        plan.conflicts,
        plan.proposed
    ));
}
