//! Proposals and approvals for many projects at once.
//!
//! A filter chooses the projects. Each proposal and each approval is a call of its own: one that is refused does not stop
//! the others. Proposals are printed as a plan before any is made. Approvals have no flag that answers for the person:
//! each change is shown, and its approval is bound to what was shown.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use clap_complete::ArgValueCandidates;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::{ask, complete};
use crate::api::Page;
use crate::api::problem::Code;
use crate::api::project::{NewestKey, Project};
use crate::api::rotation::{Checked, Decision, Proposal, Proposed, Rotation};
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::preflight::{Check, Verdict, failed};
use crate::domain::rotation::state::State;
use crate::domain::text::{did_you_mean, visible};
use crate::domain::time::{Clock, Span, SystemClock, Timestamp};

/// Projects whose keys are looked up at the same time.
const AT_ONCE: usize = 4;
/// The fewest characters of a key that show that it was read.
const FEWEST: usize = 4;

pub(super) const PLAN: [&str; 7] = ["project", "oldKey", "newKey", "on", "checks", "needs", "result"];

/// Projects by what they have in common; all that is given must fit.
#[derive(Debug, Default, Args)]
pub(super) struct Chosen {
    /// Every project with this tag
    #[arg(long, value_name = "TAG", add = ArgValueCandidates::new(complete::environments))]
    environment: Option<String>,
    /// Every project of this owner
    #[arg(long, value_name = "MAIL", add = ArgValueCandidates::new(complete::owners))]
    owner: Option<String>,
    /// Every project on AWS, AZURE or GCP
    #[arg(long, value_name = "PROVIDER", add = ArgValueCandidates::new(complete::providers))]
    provider: Option<String>,
}

impl Chosen {
    /// The projects that fit, in the order of the server.
    async fn projects(&self, client: &Client) -> Result<Vec<Project>, Failure> {
        let given = [("owner", &self.owner), ("provider", &self.provider)];
        let mut query = vec![("limit", "500")];
        query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let all: Vec<Project> = client.items("/projects", &query, None).await?.read()?;
        if let (Some(owner), true) = (&self.owner, all.is_empty()) {
            let any: Vec<Project> = client.items("/projects", &[("limit", "500")], None).await?.read()?;
            let owners: BTreeSet<&str> = any.iter().flat_map(|it| &it.owners).map(String::as_str).collect();
            if !owners.iter().any(|it| it.eq_ignore_ascii_case(owner)) {
                return Err(Failure::NotFound(format!(
                    "no project has the owner {owner:?}; {}",
                    did_you_mean(owner, owners.iter().copied())
                )));
            }
        }
        let Some(tag) = &self.environment else { return Ok(all) };
        let known: Vec<String> = all.iter().filter_map(|it| it.environment.clone()).collect();
        let fits: Vec<Project> = all.into_iter().filter(|it| it.environment.as_ref() == Some(tag)).collect();
        if fits.is_empty() {
            let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
            return Err(Failure::NotFound(format!(
                "no such project has the environment {tag:?}; {}",
                did_you_mean(tag, known.iter().copied())
            )));
        }
        Ok(fits)
    }
}

/// A line of the plan, and of the report.
struct PlannedRotation {
    group: GroupId,
    name: String,
    old_key: Option<String>,
    new_key: Option<String>,
    checks: Vec<Check>,
    /// Nothing is sent before it.
    planned_for: Option<String>,
    needs: String,
    result: Outcome,
    rotation: Option<RotationId>,
}

/// The result for one project.
enum Outcome {
    /// It can be proposed.
    Ready,
    /// A rotation was proposed.
    Proposed,
    /// The same proposal was open before.
    ProposedBefore,
    /// There is nothing to rotate, or no lookup names a key.
    Skipped(String),
    /// A rule or a check refuses it.
    Refused(String),
    /// The server, Atlas or the key service failed.
    Failed(String),
}

impl Outcome {
    fn of(failure: Failure) -> Result<Self, Failure> {
        let Failure::Problem(problem) = failure else { return Err(failure) };
        let text = problem.detail.clone();
        match (problem.code(), problem.status) {
            // The plan says already what it is about.
            (Some(Code::NoNewestKey), _) => {
                Ok(Self::Skipped(text.split_once(": ").map_or(text.clone(), |(_, why)| why.to_owned())))
            }
            (_, 401) => Err(Failure::Problem(problem)),
            (_, 400..=499) => Ok(Self::Refused(text)),
            _ => Ok(Self::Failed(text)),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Proposed => "proposed",
            Self::ProposedBefore => "proposed_before",
            Self::Skipped(_) => "skipped",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Skipped(why) | Self::Refused(why) | Self::Failed(why) => Some(why),
            Self::Ready | Self::Proposed | Self::ProposedBefore => None,
        }
    }
}

impl PlannedRotation {
    fn row(&self) -> Value {
        json!({
            "project": self.name, "oldKey": self.old_key, "newKey": self.new_key, "checks": counted(&self.checks),
            "on": self.planned_for.as_deref().map(|at| at.get(..10).unwrap_or(at)),
            "needs": Some(&self.needs).filter(|_| matches!(self.result, Outcome::Ready)),
            "result": self.said(),
        })
    }

    fn said(&self) -> String {
        let word = self.result.word().replace('_', " ");
        match (self.result.reason(), self.rotation) {
            (Some(why), _) => format!("{word}: {why}"),
            (None, Some(id)) => format!("{word} as {id}"),
            (None, None) => word,
        }
    }

    fn document(&self) -> Value {
        json!({
            "groupId": self.group, "projectName": self.name, "oldKey": self.old_key, "newKey": self.new_key,
            "checks": self.checks, "plannedFor": self.planned_for, "result": self.result.word(), "detail": self.result.reason(),
            "rotationId": self.rotation,
        })
    }
}

/// The checklist in one line; `None` without one.
fn counted(checks: &[Check]) -> Option<String> {
    let of = |verdict: Verdict| checks.iter().filter(|it| it.result == verdict).count();
    let parts = [
        (of(Verdict::Pass), "pass"),
        (of(Verdict::Warn), "warn"),
        (of(Verdict::Fail), "fail"),
        (of(Verdict::NotChecked), "not checked"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    Some(parts.join(", ")).filter(|text| !text.is_empty())
}

/// What proposals for many are made of.
#[derive(Default)]
pub(super) struct Proposing {
    pub(super) chosen: Chosen,
    /// Only keys that are due within this time.
    pub(super) due: Option<Span>,
    pub(super) reason: Option<String>,
    /// Nothing is sent before it.
    pub(super) planned_for: Option<String>,
    pub(super) dry_run: bool,
    /// The answer to the question is given already.
    pub(super) yes: bool,
}

/// Proposes its newest key for each of the chosen projects.
pub(super) async fn propose(
    args: Proposing,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    can_ask(&args)?;
    let mut projects = args.chosen.projects(client).await?;
    if let Some(due) = args.due {
        let end = SystemClock.now() + due.get();
        projects.retain(|it| it.due.is_some_and(|due| due <= end));
    }
    if projects.is_empty() {
        return nothing("no project fits; `keywheel project list` and `keywheel due` show them", printer);
    }
    let projects = projects.into_iter().map(|it| (it, args.planned_for.clone())).collect();
    propose_each(projects, &args, client, printer).await
}

/// Proposes its newest key for each of these projects, to be sent on its date.
pub(super) async fn propose_dates(
    dates: BTreeMap<GroupId, Timestamp>,
    args: Proposing,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    can_ask(&args)?;
    if dates.is_empty() {
        return nothing("no due date needs an earlier one, or none is free; nothing was proposed", printer);
    }
    let all: Vec<Project> = client.items("/projects", &[("limit", "500")], None).await?.read()?;
    let with_date = |it: Project| Some((dates.get(&it.group_id)?.to_string(), it));
    let projects = all.into_iter().filter_map(with_date).map(|(at, it)| (it, Some(at))).collect();
    propose_each(projects, &args, client, printer).await
}

/// Refuses where nobody can be asked.
fn can_ask(args: &Proposing) -> Result<(), Failure> {
    if args.dry_run || args.yes || ask::is_possible() {
        return Ok(());
    }
    Err(Failure::Usage(
        "proposing for many asks a person at the terminal; use --dry-run to see the plan and --yes to propose it"
            .to_owned(),
    ))
}

fn nothing(why: &str, printer: &mut Printer) -> Result<Exit, Failure> {
    printer.note(why);
    if printer.is_json() {
        printer.json(&Page::<Value> { items: Vec::new(), next: None })?;
    }
    Ok(Exit::Done)
}

async fn propose_each(
    projects: Vec<(Project, Option<String>)>,
    args: &Proposing,
    client: &Client,
    printer: &mut Printer,
) -> Result<Exit, Failure> {
    let mut plan: Vec<PlannedRotation> = stream::iter(&projects)
        .map(|(project, on)| planned(project, on.as_ref(), client))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let ready = plan.iter().filter(|it| matches!(it.result, Outcome::Ready)).count();
    if !printer.is_json() {
        printer.list(&plan.iter().map(PlannedRotation::row).collect::<Vec<_>>(), &PLAN)?;
        warnings(&plan, printer);
    }
    if args.dry_run || ready == 0 {
        return end(&plan, if args.dry_run { "nothing was proposed" } else { "nothing to propose" }, printer);
    }
    if !args.yes {
        let noun = if ready == 1 { "rotation" } else { "rotations" };
        let answer = ask::line(&format!("Propose {ready} {noun}? [y/N]"))?;
        if !answer.is_some_and(|it| ["y", "yes"].contains(&it.to_lowercase().as_str())) {
            printer.note("nothing was proposed");
            return Ok(Exit::Refused);
        }
    }
    let mut done = Vec::new();
    for it in plan.iter_mut().filter(|it| matches!(it.result, Outcome::Ready)) {
        propose_one(it, args.reason.as_ref(), client).await.inspect_err(|_| told(&done, printer))?;
        done.push(format!("{}: {}", it.name, it.said()));
        if !printer.is_json() {
            printer.line(&format!("{}: {}", visible(&it.name), visible(&it.said())))?;
        }
    }
    end(&plan, "", printer)
}

async fn planned(
    project: &Project,
    on: Option<&String>,
    client: &Client,
) -> Result<PlannedRotation, Failure> {
    let group = &project.group_id;
    let approvals = match project.policy.approvals {
        1 => "1 approval".to_owned(),
        many => format!("{many} approvals"),
    };
    let mut it = PlannedRotation {
        group: group.clone(),
        name: project.name.clone(),
        old_key: project.current_key.clone(),
        new_key: None,
        checks: Vec::new(),
        planned_for: on.cloned(),
        needs: if project.policy.windows.is_empty() { approvals } else { format!("{approvals}, a window") },
        result: Outcome::Ready,
        rotation: None,
    };
    let newest: NewestKey = match client.get(&format!("/projects/{group}/newest-key"), &[]).await {
        Ok(reply) => reply.read()?,
        Err(failure) => {
            it.result = Outcome::of(failure)?;
            return Ok(it);
        }
    };
    it.old_key = Some(newest.current_key);
    let body = Proposal {
        new_key: newest.key.clone(),
        reason: None,
        planned_for: on.cloned(),
        emergency: false,
        dry_run: true,
    };
    it.new_key = Some(newest.key);
    match client.send(Method::POST, &format!("/projects/{group}/rotations"), Some(&body)).await {
        Ok(reply) => match reply.read::<Proposed>()? {
            Proposed::Checked(Checked { checks, .. }) => {
                it.result = failed(&checks).map_or(Outcome::Ready, |it| Outcome::Refused(it.detail.clone()));
                it.checks = checks;
            }
            Proposed::Rotation(rotation) => {
                (it.result, it.rotation) = (Outcome::ProposedBefore, Some(rotation.id));
            }
        },
        Err(Failure::Problem(problem)) if problem.code() == Some(Code::KeyUnchanged) => {
            it.new_key = None;
            it.result = Outcome::Skipped("Atlas has the newest key already".to_owned());
        }
        Err(failure) => it.result = Outcome::of(failure)?,
    }
    Ok(it)
}

/// What the approvers should know before anything is proposed.
fn warnings(plan: &[PlannedRotation], printer: &mut Printer) {
    for it in plan.iter().filter(|it| matches!(it.result, Outcome::Ready)) {
        for check in it.checks.iter().filter(|it| it.result == Verdict::Warn) {
            printer.note(&format!("{}: {}: {}: {}", it.name, check.name, check.result, check.detail));
        }
    }
}

async fn propose_one(
    it: &mut PlannedRotation,
    reason: Option<&String>,
    client: &Client,
) -> Result<(), Failure> {
    // The key of the plan: one that became newest meanwhile was not seen.
    let new_key = it.new_key.clone().unwrap_or_default();
    let body = Proposal {
        new_key,
        reason: reason.cloned(),
        planned_for: it.planned_for.clone(),
        emergency: false,
        dry_run: false,
    };
    match client.send(Method::POST, &format!("/projects/{}/rotations", it.group), Some(&body)).await {
        Ok(reply) => {
            it.rotation = Some(reply.read::<Rotation>()?.id);
            it.result = if reply.created { Outcome::Proposed } else { Outcome::ProposedBefore };
        }
        Err(failure) => it.result = Outcome::of(failure)?,
    }
    Ok(())
}

/// The sums, and the exit code.
fn end(plan: &[PlannedRotation], note: &str, printer: &mut Printer) -> Result<Exit, Failure> {
    if printer.is_json() {
        let items = plan.iter().map(PlannedRotation::document).collect();
        printer.json(&Page::<Value> { items, next: None })?;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for it in plan {
        *counts.entry(it.result.word()).or_default() += 1;
    }
    let sums = counts.iter().map(|(word, count)| format!("{count} {}", word.replace('_', " ")));
    let sums = sums.collect::<Vec<_>>().join(", ");
    printer.note(&if note.is_empty() { sums } else { format!("{note}: {sums}") });
    Ok(exit(counts.contains_key("failed"), counts.contains_key("refused")))
}

fn exit(failed: bool, refused: bool) -> Exit {
    match (failed, refused) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Refused,
        (false, false) => Exit::Done,
    }
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// Its id or the beginning of it, @latest, or a project: its newest rotation; several are shown one by one
    #[arg(
        value_name = "ROTATION",
        required_unless_present_any = ["Chosen", "all_waiting"],
        conflicts_with_all = ["Chosen", "all_waiting"],
        add = ArgValueCandidates::new(complete::rotations)
    )]
    ids: Vec<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// Every rotation that waits for approval
    #[arg(long, conflicts_with = "Chosen")]
    all_waiting: bool,
    /// Why, for the journal and the audit log
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// The end of the new key as you read it, for one rotation: its last six characters, at Google KEY/VERSION
    #[arg(long, value_name = "TAIL", conflicts_with_all = ["Chosen", "all_waiting"])]
    tail: Option<String>,
}

impl Approve {
    /// The id, the comment and the tail, where one rotation is named: its approval asks nothing.
    pub(super) fn single(&self) -> Option<(String, Option<String>, Option<String>)> {
        let [id] = self.ids.as_slice() else { return None };
        Some((id.clone(), self.comment.clone(), self.tail.clone()))
    }
}

/// Shows each of several rotations and approves those whose new key the person has read.
pub(super) async fn approve(args: &Approve, client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    if !ask::is_possible() {
        return Err(Failure::Usage(
            "approving several asks a person at the terminal, who sees each change; without one, approve a single rotation: \
             `keywheel approve ROTATION`"
                .to_owned(),
        ));
    }
    let waiting = waiting(args, client).await?;
    if waiting.is_empty() {
        printer.note("no such rotation waits for approval");
    }
    let (mut items, mut done, mut failed, mut refused) = (Vec::new(), Vec::new(), false, false);
    for (number, id) in (1..).zip(&waiting) {
        // Read right before it is shown: the proposals before it took time.
        let reply = client.get(&format!("/rotations/{id}"), &[]).await;
        let rotation: Rotation = reply.and_then(|it| it.read()).inspect_err(|_| told(&done, printer))?;
        show(&rotation, number, waiting.len(), printer);
        let (word, detail) = match read(&rotation, printer)? {
            Answer::Quit => break,
            Answer::Skip => ("skipped", None),
            Answer::Approve => {
                let decision = Decision {
                    comment: args.comment.clone(),
                    proposal_hash: Some(rotation.proposal_hash.clone()),
                    // It was typed at the prompt.
                    tail: None,
                };
                match client.send(Method::POST, &format!("/rotations/{id}/approve"), Some(&decision)).await {
                    Ok(reply) => {
                        let now: Rotation = reply.read()?;
                        let given = format!("{} of {}", now.approvals.given.len(), now.approvals.required);
                        ("approved", Some(format!("{given} approvals, {}", now.state)))
                    }
                    Err(failure) => match Outcome::of(failure).inspect_err(|_| told(&done, printer))? {
                        Outcome::Failed(why) => {
                            failed = true;
                            ("failed", Some(why))
                        }
                        it => {
                            refused = true;
                            ("refused", it.reason().map(str::to_owned))
                        }
                    },
                }
            }
        };
        done.push(format!("{} {word}", rotation.project_name));
        if printer.is_json() {
            items.push(json!({
                "rotationId": id, "projectName": rotation.project_name, "result": word, "detail": detail,
            }));
        } else {
            let detail = detail.map(|it| format!(" ({})", visible(&it))).unwrap_or_default();
            printer.line(&format!("{}: {word}{detail}", visible(&rotation.project_name)))?;
        }
    }
    if printer.is_json() {
        printer.json(&Page::<Value> { items, next: None })?;
    }
    Ok(exit(failed, refused))
}

/// The rotations that are meant, the oldest first.
async fn waiting(args: &Approve, client: &Client) -> Result<Vec<RotationId>, Failure> {
    if !args.ids.is_empty() {
        let mut ids = Vec::new();
        for given in &args.ids {
            let id = client.rotation(given).await?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        return Ok(ids);
    }
    let state = State::AwaitingApproval.as_str();
    let mut all: Vec<Rotation> = client.items("/rotations", &[("state", state)], None).await?.read()?;
    if !args.all_waiting {
        let projects = args.chosen.projects(client).await?;
        all.retain(|it| projects.iter().any(|project| project.group_id == it.group_id));
    }
    all.sort_by_key(|it| it.created_at);
    Ok(all.into_iter().map(|it| it.id).collect())
}

/// All that an approver decides by.
fn show(it: &Rotation, number: usize, all: usize, printer: &mut Printer) {
    printer.note(&format!(
        "\n[{number}/{all}] {} ({}), {}",
        visible(&it.project_name),
        it.group_id,
        it.provider
    ));
    printer.note(&format!("  old key   {}", visible(&it.old_key)));
    printer.note(&format!("  new key   {}", visible(&it.new_key)));
    printer.note(&format!("  reason    {}", visible(it.reason.as_deref().unwrap_or("none was given"))));
    printer.note(&format!("  proposed  by {} at {}", visible(&it.requested_by), it.created_at));
    let given: Vec<_> = it.approvals.given.iter().map(|it| visible(&it.by)).collect();
    let by = if given.is_empty() { String::new() } else { format!(": {}", given.join(", ")) };
    printer.note(&format!("  approvals {} of {}{by}", given.len(), it.approvals.required));
    printer.note(&format!("  checks    {}", counted(&it.checks).unwrap_or_else(|| "none".to_owned())));
    for check in it.checks.iter().filter(|it| it.result != Verdict::Pass) {
        printer.note(&format!("    {}: {}: {}", check.name, check.result, visible(&check.detail)));
    }
}

/// Says what was done before a failure that ends the command.
fn told(done: &[String], printer: &mut Printer) {
    if !done.is_empty() {
        printer.note(&format!("before the failure: {}", done.join("; ")));
    }
}

/// The decision of the person about one rotation.
enum Answer {
    Approve,
    Skip,
    Quit,
}

fn read(it: &Rotation, printer: &mut Printer) -> Result<Answer, Failure> {
    loop {
        let question =
            format!("The end of the new key ({FEWEST} characters or more) approves; s skips, q quits:");
        let Some(answer) = ask::line(&question)? else { return Ok(Answer::Quit) };
        match answer.as_str() {
            "q" => return Ok(Answer::Quit),
            "s" => return Ok(Answer::Skip),
            typed if shows(typed, &it.new_key, &it.new_key_tail) => return Ok(Answer::Approve),
            _ => printer.note("the new key does not end so; compare it with the key that you expect"),
        }
    }
}

/// Whether `typed` shows that the key was read: an end of its tail, or a longer end of the key. Many keys at Google end in
/// the same few characters.
fn shows(typed: &str, key: &str, tail: &str) -> bool {
    is_end(typed, tail) || (typed.len() > tail.len() && is_end(typed, key))
}

/// Whether `typed` is the end of the key, and long enough to have been read.
fn is_end(typed: &str, key: &str) -> bool {
    let end = key.len().checked_sub(typed.len()).and_then(|at| key.get(at..));
    typed.chars().count() >= FEWEST && end.is_some_and(|end| end.eq_ignore_ascii_case(typed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_version_is_no_proof() {
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/cmk/cryptoKeyVersions/2";
        for (typed, wanted) in [("ns/2", false), ("cmk/2", true), ("mk/2", true), ("/2", false), (key, true)]
        {
            assert_eq!(shows(typed, key, "cmk/2"), wanted, "{typed}");
        }
    }

    #[test]
    fn only_the_end_of_the_new_key_approves() {
        let key = "https://v.vault.azure.net/keys/k/0123456789abcdef0123456789abcdef";
        for (typed, wanted) in [
            ("cdef", true),
            ("ABCDEF", true),
            (key, true),
            ("def", false),
            ("", false),
            ("0123", false),
            ("äcdef", false),
        ] {
            assert_eq!(is_end(typed, key), wanted, "{typed}");
        }
        assert!(!is_end("xx0123456789", "0123456789"));
    }
}
