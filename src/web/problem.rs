//! Errors over HTTP: RFC 9457 problem documents with a stable [`Code`].
//!
//! The detail is safe to show. Internal errors are logged here, once.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::problem::{self, Code};
use crate::domain::patch::Patch;
use crate::domain::rotation::outcome::{Class, Failure};
use crate::domain::vote::Void;
use crate::engine::command::CommandError;
use crate::store::StoreError;

/// One problem document.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    body: Box<problem::Problem>,
}

impl Problem {
    /// A problem with a stable code and a text for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.statuses()[0]).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = problem::Problem {
            code: code.as_str().to_owned(),
            detail: detail.into(),
            ..problem::Problem::default()
        };
        Self { status, body: Box::new(body) }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened, for people, and the stable code.
    pub(super) fn said(&self) -> (&str, &str) {
        (&self.body.detail, &self.body.code)
    }

    /// The field of the request that is wrong, where one is.
    pub(super) fn field(&self) -> Option<&str> {
        self.body.field.as_deref()
    }

    /// A request that cannot be read. `status` is the extractor's; it is used where the code lists it.
    pub fn malformed(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(Code::Malformed, detail);
        if Code::Malformed.statuses().contains(&status.as_u16()) {
            problem.status = status;
        }
        problem
    }

    /// A field of the request that breaks `rule`.
    pub fn invalid(field: &str, rule: impl std::fmt::Display) -> Self {
        let mut problem = Self::new(Code::Invalid, format!("{field}: {rule}"));
        problem.body.field = Some(field.to_owned());
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, mut body } = self;
        body.r#type = format!("urn:keywheel:problem:{}", body.code);
        status.canonical_reason().unwrap_or("Error").clone_into(&mut body.title);
        body.status = status.as_u16();
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::new(
                Code::Conflict,
                "another writer changed this at the same moment; read it again and retry",
            ),
            StoreError::Tampered { .. } => {
                tracing::error!(error = %error, "request refused");
                Self::new(Code::Tampered, error.to_string())
            }
            StoreError::Unverified => Self::new(Code::Database, error.to_string()),
            StoreError::Unsure(_) => Self::new(
                Code::Database,
                "the database did not confirm the write; read this again before you repeat the request",
            ),
            other => {
                tracing::error!(error = %other, "request failed at the database");
                Self::new(
                    Code::Database,
                    "the database cannot be read or written; nothing was changed. The server's log has the reason",
                )
            }
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        use CommandError as E;
        let code = match &error {
            E::NoProject(_) => Code::ProjectNotFound,
            E::NoRotation(_) => Code::RotationNotFound,
            E::NoMessage(_) => Code::MailNotFound,
            E::NoCondition { .. } => Code::ConditionNotFound,
            E::BadGroupId(_) => Code::GroupIdInvalid,
            E::ProjectExists(_) => Code::ProjectExists,
            E::Invalid { .. } | E::BadRule { .. } => Code::Invalid,
            E::KeyInvalid(_) => Code::KeyInvalid,
            E::KeyOtherPlace(_) => Code::KeyOtherPlace,
            E::KeyUnchanged(_) => Code::KeyUnchanged,
            E::Versionless(_) => Code::Versionless,
            E::Preflight(_) => Code::PreflightFailed,
            E::RotationOpen { .. } | E::RemoveWhileOpen { .. } => Code::RotationOpen,
            E::Illegal { .. } => Code::IllegalTransition,
            E::VoteVoid(why) if matches!(**why, Void::Proposer(_) | Void::SamePerson { .. }) => {
                Code::SelfApproval
            }
            E::VoteVoid(_) => Code::VoteNotCounted,
            E::NotAllowed { .. } | E::NoEmergency(_) => Code::Forbidden,
            E::NobodyToTell { .. } => Code::NobodyToTell,
            E::ReviewOpen(_) => Code::ReviewOpen,
            E::ReviewNotClosed(_) => Code::ReviewNotClosed,
            E::NoReview(_)
            | E::NoToken(_)
            | E::NoPasskey(_)
            | E::NoWebhook { .. }
            | E::NobodyKnown { .. } => Code::NotFound,
            E::NoLoosening(_) => Code::LooseningNotFound,
            E::LooseningEnded { .. } => Code::LooseningEnded,
            E::LinkUsed(_) | E::LinkEnded(_) => Code::Conflict,
            E::TooManyComments => Code::TooManyFailures,
            E::NothingToWithdraw(_) => Code::NothingToWithdraw,
            E::ProposalChanged => Code::ProposalChanged,
            E::NoNewestKey(_) => Code::NoNewestKey,
            E::NoEvidence(_) => Code::NoEvidence,
            E::KeyService(_) => Code::KeyService,
            E::Atlas(failure) => return Self::atlas(failure),
            E::Store(_) => Code::Database,
        };
        if let E::BadRule { rule_name, rule } = &error {
            return Self::invalid(&format!("policy.{}", camel(rule_name)), rule);
        }
        let mut problem = Self::new(code, error.to_string());
        let body = &mut problem.body;
        match error {
            E::RotationOpen { id, .. } | E::RemoveWhileOpen { id, .. } | E::ReviewOpen(id) => {
                body.rotation_id = Some(id);
            }
            E::KeyInvalid(inner) | E::KeyOtherPlace(inner) => body.rule = Some(inner.rule.to_owned()),
            E::Invalid { field, .. } => body.field = Some(field.to_owned()),
            E::VoteVoid(why) => body.counts_from = why.from(),
            E::NobodyToTell { field } => body.field = Some(field),
            E::NotAllowed { field, rule, role } => {
                (body.field, body.rule, body.role) = (Some(field), Some(rule), Some(role.to_string()));
            }
            E::Illegal { state, .. } => body.state = Some(state),
            E::Store(inner) => return inner.into(),
            _ => {}
        }
        problem
    }
}

/// A field's name as the API writes it.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(1);
        name + &head.to_uppercase() + tail
    })
}

impl Problem {
    fn atlas(failure: &Failure) -> Self {
        let code = match failure.class {
            Class::Auth => Code::AtlasAuth,
            Class::Gone => Code::AtlasNotFound,
            Class::TooOld => Code::AtlasTooOld,
            Class::Transient => Code::AtlasBusy,
            Class::Unknown => Code::AtlasUnreachable,
            Class::BadKey | Class::Refused | Class::Config => Code::AtlasRefused,
        };
        let said = match &failure.code {
            Some(code) => format!("Atlas answered {code}: {}", failure.detail),
            None => format!("Atlas: {}", failure.detail),
        };
        let mut problem = Self::new(code, said);
        problem.body.atlas_error_code = Patch::from(failure.code.clone());
        problem.body.atlas_detail = Some(failure.detail.clone());
        problem
    }
}
