//! How a verb ends: the exit codes that scripts rely on, and the error texts.
//!
//! Every failure is one `error:` line on standard error, with the server's stable code. When Atlas is
//! the cause, its message follows verbatim. A `hint:` line has the next step where one is known. No
//! backtrace is printed.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::printer::Printer;
use crate::api::problem::{self, Code};
use crate::domain::ids::RotationId;
use crate::net::cause::with_causes;

/// The exit codes of every verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Success.
    Done = 0,
    /// The verb failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The server refused: a conflict, or not allowed.
    Refused = 3,
    /// The named object does not exist.
    NotFound = 4,
    /// The server cannot be reached.
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The named object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The server answered with an error.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// A refusal by the database of this machine, equal to the server's.
    #[error("{0}")]
    Refused(String),
    /// No server answered.
    #[error("{what}")]
    Unreachable {
        /// The failed connection, with its cause.
        what: String,
        /// The next step.
        hint: String,
    },
    /// The reader of standard output is gone.
    #[error("the output was closed")]
    Closed,
    /// Everything else.
    #[error("{}", with_causes(.0.as_ref()))]
    Failed(#[from] anyhow::Error),
}

/// An error response, reduced to the members that are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Problem {
    /// The HTTP status.
    pub(super) status: u16,
    /// The stable code as received; empty when the response was no problem document.
    pub(super) code: String,
    /// The event, in a sentence.
    pub(super) detail: String,
    /// Atlas' own code and detail, when Atlas is the cause.
    pub(super) atlas: Option<String>,
    /// The field that is refused, when it is one.
    pub(super) field: Option<String>,
    /// The conflicting rotation, when there is one.
    pub(super) rotation: Option<RotationId>,
    /// All members as received.
    pub(super) document: Map<String, Value>,
}

impl Problem {
    /// Reads an error response. One that is no problem document (a proxy's page) still yields a
    /// sentence.
    #[must_use]
    pub(super) fn read(status: u16, body: &str) -> Self {
        // A response that is no problem document reads as one without members.
        let read = serde_json::from_str::<problem::Problem>(body).unwrap_or_default();
        let atlas = match (read.atlas_error_code.value(), read.atlas_detail) {
            (Some(code), Some(detail)) => Some(format!("{code}: {detail}")),
            (code, detail) => code.or(detail),
        };
        let detail = [read.detail, read.title].into_iter().find(|text| !text.is_empty());
        let detail = detail.unwrap_or_else(|| format!("the server answered {status} without a reason"));
        let document = serde_json::from_str(body).unwrap_or_default();
        Self {
            status,
            code: read.code,
            detail,
            atlas,
            field: read.field,
            rotation: read.rotation_id,
            document,
        }
    }

    /// The code; `None` for one that only a newer server has.
    pub(super) fn code(&self) -> Option<Code> {
        self.code.parse().ok()
    }

    fn exit(&self) -> Exit {
        match self.status {
            400 => Exit::Usage,
            422 if matches!(self.code(), Some(Code::Invalid | Code::GroupIdInvalid)) => Exit::Usage,
            // Not Keywheel's response: it does not mean that the named object is missing.
            404 if self.code.is_empty() => Exit::Failed,
            401 | 403 | 409 | 422 => Exit::Refused,
            404 => Exit::NotFound,
            _ => Exit::Failed,
        }
    }

    /// The next step, for the codes that have one.
    fn hint(&self) -> Option<String> {
        let id = self.rotation.map_or("ID".to_owned(), |id| id.to_string());
        let Some(code) = self.code() else { return self.hint_without_code() };
        Some(match code {
            Code::RotationOpen => format!("show it with `keywheel rotation show {id}`; end it with `keywheel cancel {id}`"),
            Code::SelfApproval => "another person must approve; selfApproval in the project's policy decides whether the proposer may".to_owned(),
            Code::VoteNotCounted => "another approver can vote now".to_owned(),
            Code::NobodyToTell => "name owners and mail.security, or run the command on the server over the local socket".to_owned(),
            Code::LooseningNotFound | Code::LooseningEnded => "`keywheel loosening list` shows those that are to come".to_owned(),
            Code::ReviewOpen => "`keywheel review list` shows the open reviews; without --emergency the rotation is proposed as any other".to_owned(),
            Code::ReviewNotClosed => "`keywheel review list` shows the open reviews".to_owned(),
            Code::NothingToWithdraw => "`keywheel rotation show ID` lists the approvals; use the token that approved".to_owned(),
            Code::ProposalChanged => "run `keywheel rotation show ID` again and decide about the present proposal".to_owned(),
            Code::Invalid | Code::Malformed => "the command's --help has an example".to_owned(),
            Code::GroupIdInvalid => "copy the id from the project's settings in Atlas".to_owned(),
            Code::ProjectNotFound => "`keywheel project list` shows what is tracked; `keywheel project add GROUP_ID` tracks it".to_owned(),
            Code::ProjectExists => "`keywheel project show` shows its record, `keywheel project edit` changes it".to_owned(),
            Code::RotationNotFound => "`keywheel rotation list` shows them".to_owned(),
            Code::ConditionNotFound => "`keywheel project show PROJECT` lists what holds".to_owned(),
            Code::MailNotFound => "`keywheel outbox list` shows them".to_owned(),
            Code::PreflightFailed => "fix that and propose again; `keywheel rotate PROJECT --to KEY --dry-run` runs every check".to_owned(),
            Code::AtlasNotFound => "check the group id, and that the project's credential may see it".to_owned(),
            Code::AtlasTooOld => "install a newer Keywheel on the server; rotations wait until then".to_owned(),
            Code::AtlasBusy | Code::TooManyFailures => "try again in a moment".to_owned(),
            Code::AtlasUnreachable => "check atlas.base_url and the way from the server to Atlas, then try again".to_owned(),
            Code::AtlasAuth | Code::AtlasRefused => "check the project's credential and its rights in Atlas, then try again".to_owned(),
            Code::Tampered => "`keywheel audit verify` on the server lists all that does not fit".to_owned(),
            Code::NoEvidence => "`keywheel doctor` on the server says what to do".to_owned(),
            Code::Database => "the server's log has the cause; check its disk".to_owned(),
            Code::IllegalTransition => "`keywheel rotation show ID` shows the rotation's state and its next steps".to_owned(),
            Code::KeyInvalid => "write the key as the provider does: an AWS key id or ARN, an Azure key identifier with its version, a Google key version's full name".to_owned(),
            Code::KeyUnchanged => "the project already has this key; name the new one".to_owned(),
            Code::NoNewestKey => "name the key itself with --to KEY; `keywheel project edit PROJECT --kms NAME` sets the lookup, on AWS with --alias".to_owned(),
            Code::KeyService => "name the key itself with --to KEY; `keywheel doctor` on the server checks every lookup".to_owned(),
            Code::KeyOtherPlace => "the key must lie in the region or vault that Atlas has configured; change that in Atlas first".to_owned(),
            Code::Versionless => "set allowVersionless: `keywheel project edit PROJECT --policy '{\"allowVersionless\": true}'`".to_owned(),
            Code::Unauthenticated
            | Code::Forbidden
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::TooLarge
            | Code::TooSlow
            | Code::Conflict
            | Code::Sweep
            | Code::Unavailable
            | Code::Internal => return self.hint_without_code(),
        })
    }

    /// The next step by the status alone.
    fn hint_without_code(&self) -> Option<String> {
        Some(match self.status {
            401 => "this server does not know the token: it may be revoked, or of another server or database; `keywheel token list` \
                    there shows those in force, `keywheel token create` makes one, --token-file names its file"
                .to_owned(),
            403 => "use a token that has the role for this".to_owned(),
            _ if self.code.is_empty() => "is there a Keywheel server at that address?".to_owned(),
            _ => return None,
        })
    }
}

impl Failure {
    /// The exit code of the failure.
    #[must_use]
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::NotFound(_) => Exit::NotFound,
            Failure::Problem(problem) => problem.exit(),
            Failure::Refused(_) => Exit::Refused,
            Failure::Unreachable { .. } => Exit::Unreachable,
            Failure::Closed | Failure::Failed(_) => Exit::Failed,
        }
    }

    /// The failure as a problem document, for programs.
    fn document(&self) -> Value {
        let code = match self {
            Failure::Usage(_) => "usage",
            Failure::NotFound(_) => "not-found",
            Failure::Problem(problem) => problem.code.as_str(),
            Failure::Refused(_) => "refused",
            Failure::Unreachable { .. } => "unreachable",
            Failure::Closed | Failure::Failed(_) => "failed",
        };
        let hint = match self {
            Failure::Problem(problem) => problem.hint(),
            Failure::Unreachable { hint, .. } => Some(hint.clone()),
            _ => None,
        };
        let mut document = match self {
            Failure::Problem(problem) => problem.document.clone(),
            _ => Map::new(),
        };
        let mut or = |name: &str, value: Value| {
            document.entry(name).or_insert(value);
        };
        or("code", json!(code));
        or("detail", json!(self.to_string()));
        or("hint", json!(hint));
        or("exitCode", json!(self.exit() as u8));
        Value::Object(document)
    }

    /// Writes the failure to standard error, and with `-o json` as a document to standard output too.
    pub(super) fn report(&self, printer: &mut Printer) {
        if matches!(self, Failure::Closed) {
            return;
        }
        if printer.is_json() {
            // A closed output has no reader; the exit code says it all the same.
            let _ = printer.json(&self.document());
        }
        printer.note(&format!("error: {self}"));
        match self {
            Failure::Problem(problem) => {
                if !problem.code.is_empty() {
                    printer.note(&format!("code: {}", problem.code));
                }
                // The detail may quote Atlas already.
                if let Some(atlas) = problem.atlas.as_ref().filter(|atlas| !problem.detail.contains(*atlas)) {
                    printer.note(&format!("atlas: {atlas}"));
                }
                if let Some(hint) = problem.hint() {
                    printer.note(&format!("hint: {hint}"));
                }
            }
            Failure::Unreachable { hint, .. } => printer.note(&format!("hint: {hint}")),
            _ => {}
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Failure::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::Closed
        } else {
            Failure::Failed(anyhow::Error::new(error).context("the output cannot be written"))
        }
    }
}
