//! The key services over real HTTP, on the simulator's own port: AWS KMS below `/kms/aws`, Key Vault
//! below `/kms/azure/{vault}` with its tokens below `/kms/entra`, Cloud KMS below `/kms/gcp`.
//!
//! They answer for the same keys whose state decides Atlas' `valid`. Log-ins are really checked:
//! signatures (AWS), client secrets (Azure), signed tokens (Google). A ciphertext can be decrypted only
//! with its key and the context of its encryption. Not simulated: making and changing keys by the
//! services' own calls (the control side does that), key material, RSA (an authenticated cipher stands
//! in), grants, key policies, and time passing by for a state: an expiry date is shown, and acted on
//! where the service acts on it.

mod aws;
mod azure;
pub(super) mod facts;
mod gcp;

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::facts::Facts;
use super::ask::Ask;
use super::call::Call;
use super::fault::{self, Kind};
use super::reply;
use super::world::World;
use crate::domain::time::Timestamp;

/// The services, and where Azure's tokens come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Service {
    Aws,
    Entra,
    Vault,
    Gcp,
}

/// A refusal, before it takes its service's shape.
#[derive(Debug)]
struct Refused {
    status: u16,
    code: String,
    /// Azure: the inner code. Google: the reason.
    inner: Option<&'static str>,
    message: String,
}

fn refuse(status: u16, code: impl Into<String>, message: impl Into<String>) -> Refused {
    Refused { status, code: code.into(), inner: None, message: message.into() }
}

/// The operation's name in the log and the script, and the key it is about.
type Named = (&'static str, Option<String>);

impl Service {
    fn name(self, ask: &Ask) -> Named {
        match self {
            Service::Aws => aws::name(ask),
            Service::Entra => ("entra_token", None),
            Service::Vault => azure::name(ask),
            Service::Gcp => gcp::name(ask),
        }
    }

    fn handle(self, world: &mut World, ask: &Ask) -> Result<Value, Refused> {
        match self {
            Service::Aws => aws::handle(world, ask),
            Service::Entra => azure::token(world, ask),
            Service::Vault => azure::handle(world, ask),
            Service::Gcp => gcp::handle(world, ask),
        }
    }

    fn render(self, answer: Result<Value, Refused>) -> Response {
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(refused) => {
                let body = match self {
                    Service::Aws => aws::refused(&refused),
                    Service::Entra => azure::no_token(&refused),
                    Service::Vault => azure::refused(&refused),
                    Service::Gcp => gcp::refused(&refused),
                };
                (refused.status, body)
            }
        };
        let kind = match self {
            Service::Aws => "application/x-amz-json-1.1",
            _ => "application/json; charset=utf-8",
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response =
            (status, [(axum::http::header::CONTENT_TYPE, kind)], body.to_string()).into_response();
        if status == StatusCode::UNAUTHORIZED && matches!(self, Service::Vault) {
            reply::challenge(&mut response, azure::CHALLENGE);
        }
        response
    }
}

/// Logs a request, applies its fault, and answers.
pub(super) async fn serve(service: Service, call: Call) -> Response {
    let Call { sim, peer, mut ask } = call;
    let (name, key) = service.name(&ask);
    let (index, fault) = {
        let mut world = sim.world();
        let index = world.note(ask.now, name, None, key);
        (index, fault::strike(&mut world.faults, name, None))
    };
    if let Some(Kind::Delay(ms)) = fault {
        #[expect(clippy::disallowed_methods, reason = "a scripted delay")]
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    ask.now = sim.clock.now();
    let mut response = match &fault {
        Some(Kind::DropRequest | Kind::LateApply(_)) => {
            peer.cut();
            return StatusCode::OK.into_response();
        }
        Some(Kind::Status { status, code: Some(code), .. }) => {
            service.render(Err(refuse(*status, code.as_str(), "scripted by the simulator")))
        }
        Some(Kind::Status { status, code: None, retry_after }) => {
            reply::scripted(*status, None, *retry_after)
        }
        _ => service.render(service.handle(&mut sim.world(), &ask)),
    };
    match fault {
        Some(Kind::DropReply) => peer.cut(),
        Some(Kind::AppliedStatus(status)) => reply::restate(&mut response, status),
        Some(Kind::Truncate) => response = reply::truncate(response).await,
        Some(Kind::Huge(bytes)) => response = reply::swell(response, bytes, false).await,
        Some(Kind::GzipBomb(bytes)) => response = reply::swell(response, bytes, true).await,
        _ => {}
    }
    if let Some(entry) = sim.world().log.get_mut(index) {
        entry.replied_at = Some(sim.clock.now());
        entry.status = Some(response.status().as_u16());
    }
    response
}

impl World {
    /// The properties of a key that its service shows.
    fn facts(&self, key: &str) -> Facts {
        self.kms.facts.get(key).cloned().unwrap_or_default()
    }

    fn is_denied(&self, action: &str) -> bool {
        self.kms.denied.contains(action)
    }
}

/// The creation of a key; a fixed date when its facts have none.
fn created(facts: &Facts) -> Timestamp {
    // 2026-01-01T00:00:00Z
    facts.created.unwrap_or(Timestamp::from_micros(1_767_225_600_000_000))
}

fn seconds(at: Timestamp) -> i64 {
    at.as_micros() / 1_000_000
}

/// The cipher of one key. It follows from the key's name, so that a restart can decrypt.
fn cipher(key: &str) -> Option<LessSafeKey> {
    let bytes = Sha256::new().chain_update("keywheel simulator\n").chain_update(key).finalize();
    UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new)
}

/// Encrypts under `key`, bound to `along`.
fn seal(key: &str, along: &str, plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    let mut sealed = plain.to_vec();
    let unique = Nonce::assume_unique_for_key(nonce);
    cipher(key)?.seal_in_place_append_tag(unique, Aad::from(along.as_bytes()), &mut sealed).ok()?;
    Some([nonce.as_slice(), &sealed].concat())
}

/// Decrypts what [`seal`] made under the same key, bound to the same `along`.
fn open(key: &str, along: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let plain = cipher(key)?.open_in_place(nonce, Aad::from(along.as_bytes()), &mut body).ok()?;
    Some(plain.to_vec())
}

/// The body as a JSON object.
fn object(ask: &Ask) -> Value {
    serde_json::from_slice(&ask.body).unwrap_or(Value::Null)
}

/// The path below the service's own prefix, in parts.
fn parts(ask: &Ask) -> Vec<&str> {
    ask.param("path").split('/').filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_what_was_given_along_decrypt() {
        let sealed = seal("a", "along", b"keywheel").unwrap();
        assert_eq!(open("a", "along", &sealed).as_deref(), Some(&b"keywheel"[..]));
        let mut changed = sealed.clone();
        changed[NONCE_LEN] ^= 1;
        for (key, along, bytes) in [
            ("b", "along", &sealed),
            ("a", "other", &sealed),
            ("a", "along", &changed),
            ("a", "along", &vec![1; 3]),
        ] {
            assert_eq!(open(key, along, bytes), None);
        }
    }
}
