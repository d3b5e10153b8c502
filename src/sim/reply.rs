//! Replies in Atlas' shape: media types with their version, pages with links, and the oddities that a
//! client has to tolerate.
//!
//! Only the form on the wire is decided here, never the content.

use std::io::Write as _;

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::answer::{Refusal, SimReply, SimResult, put, refuse, status_of};
use super::ask::Ask;
use super::operation::Operation;
use super::world::Odd;
use crate::domain::time::Timestamp;

/// The reply to a request that was handled.
pub(super) fn render(answer: SimResult, operation: Operation, ask: &Ask, odd: &Odd) -> Response {
    let body = answer.and_then(|reply| match reply {
        SimReply::One(body) => Ok(body),
        SimReply::List(items) => page(items, ask, odd),
    });
    let mut body = match body {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    if odd.extras {
        add_extras(&mut body);
    }
    let served = operation.served(ask.header("accept"));
    let kind = served.map_or_else(
        || "application/json".to_owned(),
        |version| format!("application/vnd.atlas.{version}+json;charset=utf-8"),
    );
    let mut response = Response::new(Body::from(body.to_string()));
    put(response.headers_mut(), "content-type", &kind);
    if served.is_some_and(|version| operation.versions.last() != Some(&version)) {
        // Atlas writes these dates without a leading zero.
        put(response.headers_mut(), "deprecation", "Mon, 5 Aug 2024 00:00:00 GMT");
        put(response.headers_mut(), "sunset", "Thu, 1 Jul 2027 00:00:00 GMT");
    }
    response
}

fn add_extras(body: &mut Value) {
    let strange = json!({ "mode": "SOMETHING_NEW", "levels": [1, null] });
    let Value::Object(fields) = body else { return };
    for value in fields.values_mut() {
        match value {
            Value::Object(inner) => _ = inner.insert("futureSetting".to_owned(), strange.clone()),
            Value::Array(items) => {
                for inner in items.iter_mut().filter_map(Value::as_object_mut) {
                    inner.insert("futureSetting".to_owned(), strange.clone());
                }
            }
            _ => {}
        }
    }
    fields.insert("futureSetting".to_owned(), strange);
}

/// Cuts one page out of a list.
fn page(items: Vec<Value>, ask: &Ask, odd: &Odd) -> Result<Value, Refusal> {
    let number = number(ask, "pageNum", 1, u32::MAX)?;
    let size = number_of_items(ask)?;
    let total = items.len();
    let skipped = (number as usize - 1).saturating_mul(size);
    let results: Vec<_> = items.into_iter().skip(skipped).take(size).collect();
    let host = if odd.links_elsewhere { "atlas.invalid" } else { ask.header("host") };
    let path = ask.uri.split('?').next().unwrap_or_default();
    let mut links = Vec::new();
    let mut link = |rel: &str, number: u32| {
        let query: Vec<_> = ask
            .query
            .iter()
            .filter(|(name, _)| name.as_str() != "pageNum")
            .map(|(name, value)| format!("{name}={value}&"))
            .collect();
        let href = format!("http://{host}{path}?{}pageNum={number}", query.concat());
        links.push(json!({ "rel": rel, "href": href }));
    };
    link("self", number);
    if number > 1 {
        link("previous", number - 1);
    }
    if skipped.saturating_add(size) < total {
        link("next", number + 1);
    }
    let mut body = Map::new();
    body.insert("links".to_owned(), links.into());
    body.insert("results".to_owned(), results.into());
    if ask.flag("includeCount").unwrap_or(true) {
        body.insert("totalCount".to_owned(), total.into());
    }
    Ok(Value::Object(body))
}

fn number_of_items(ask: &Ask) -> Result<usize, Refusal> {
    Ok(number(ask, "itemsPerPage", 100, 500)? as usize)
}

fn number(ask: &Ask, name: &str, default: u32, most: u32) -> Result<u32, Refusal> {
    let Some(text) = ask.query.get(name) else { return Ok(default) };
    text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        refuse(400, "VALIDATION_ERROR", format!("{name} must be a number from 1 to {most}.")).about(name)
    })
}

/// The answer that a fault dictates.
pub(super) fn scripted(status: u16, code: Option<&str>, retry_after: Option<u64>) -> Response {
    let (kind, body) = match code {
        Some(code) => (
            "application/json",
            json!({ "error": status, "errorCode": code, "detail": "scripted by the simulator" }).to_string(),
        ),
        None => ("text/html", "<html><body><h1>scripted by the simulator</h1></body></html>".to_owned()),
    };
    let mut response = (status_of(status), [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds the challenge that names the way to log in.
pub(super) fn challenge(response: &mut Response, how: &'static str) {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
}

/// Gives a finished reply another status.
pub(super) fn restate(response: &mut Response, status: u16) {
    *response.status_mut() = status_of(status);
}

async fn taken_apart(response: Response) -> (Parts, Vec<u8>) {
    let (parts, body) = response.into_parts();
    // Bodies here are whole in memory, so reading one does not fail.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default().to_vec();
    (parts, body)
}

/// Promises the whole body, sends half of it and ends the connection.
pub(super) async fn truncate(response: Response) -> Response {
    let (mut parts, mut body) = taken_apart(response).await;
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    body.truncate(body.len() / 2);
    let half = stream::once(async { Ok(body) });
    let end = stream::once(async {
        // The bytes sent so far leave while the stream waits; an error at once would discard them.
        tokio::task::yield_now().await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    Response::from_parts(parts, Body::from_stream(half.chain(end)))
}

/// Fills the body up to `bytes` bytes; its JSON value stays the same.
pub(super) async fn swell(response: Response, bytes: usize, gzip: bool) -> Response {
    let (mut parts, mut body) = taken_apart(response).await;
    parts.headers.remove(header::CONTENT_LENGTH);
    if body.len() < bytes {
        body.resize(bytes, b' ');
    }
    if gzip {
        put(&mut parts.headers, "content-encoding", "gzip");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Writing into memory does not fail.
        let _ = packed.write_all(&body);
        body = packed.finish().unwrap_or_default();
    }
    Response::from_parts(parts, Body::from(body))
}

/// Completes the headers: the date, the limits, and those that are left out.
pub(super) fn dress(response: &mut Response, now: Timestamp, standing: Option<(u32, u32)>, odd: &Odd) {
    let headers = response.headers_mut();
    let form = if odd.unpadded_dates { "%a, %-d %b %Y %H:%M:%S GMT" } else { "%a, %d %b %Y %H:%M:%S GMT" };
    put(headers, "date", &now.as_chrono().format(form).to_string());
    if let Some((limit, remaining)) = standing {
        put(headers, "ratelimit-limit", &limit.to_string());
        put(headers, "ratelimit-remaining", &remaining.to_string());
    }
    for name in &odd.omit_headers {
        headers.remove(name);
    }
}
