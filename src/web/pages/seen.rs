//! A rotation as its pages read it: its row, what people said about it, and what a page of it has shown.

use super::super::problem::Problem;
use super::Web;
use super::moment::{Moment, moment};
use crate::api::problem::Code;
use crate::api::rotation::Rotation;
use crate::domain::ids::RotationId;
use crate::domain::text::visible;
use crate::domain::time::Timestamp;
use crate::store::{RotationRow, StoreError};

/// A comment that decided nothing.
pub(super) struct Said {
    pub(super) by: String,
    pub(super) at: Moment,
    pub(super) text: String,
}

/// The row of the rotation with this id.
pub(super) async fn row(web: &Web, id: &str) -> Result<RotationRow, Problem> {
    let id: RotationId =
        id.parse().map_err(|_| Problem::new(Code::RotationNotFound, "there is no such rotation"))?;
    Ok(web.engine.rotation(id).await?)
}

/// The comments of a rotation whose hidden characters are escapes.
pub(super) fn said(it: &Rotation, now: Timestamp) -> Vec<Said> {
    let said = it.comments.iter();
    said.map(|it| Said { by: it.by.clone(), at: moment(it.at, now), text: it.comment.clone() }).collect()
}

/// Names and comments with their hidden characters as escapes.
pub(super) fn without_hidden(mut it: Rotation) -> Rotation {
    let show = |text: &mut String| *text = visible(text);
    let votes = it.approvals.given.iter_mut().flat_map(|vote| [Some(&mut vote.by), vote.comment.as_mut()]);
    let clusters =
        it.clusters.iter_mut().flat_map(|cluster| [Some(&mut cluster.name), cluster.exception.as_mut()]);
    let comments = it.comments.iter_mut().flat_map(|said| [&mut said.by, &mut said.comment]);
    votes.chain(clusters).flatten().chain(comments).for_each(show);
    it.why.iter_mut().chain(it.checks.iter_mut().map(|check| &mut check.detail)).for_each(show);
    [&mut it.old_key, &mut it.new_key].into_iter().for_each(show);
    [Some(&mut it.project_name), Some(&mut it.requested_by), it.reason.as_mut()]
        .into_iter()
        .flatten()
        .for_each(show);
    it
}

/// What a page of this rotation shows: its version and its comments, which both only grow.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn shown(web: &Web, row: &RotationRow) -> Result<i64, StoreError> {
    Ok(row.version + web.engine.store.comment_count(row.rotation.id).await?)
}
