//! An identity provider that a test rules: it signs whatever the test says, and it keeps what it was asked.
//!
//! The real provider of `scripts/interop-oidc` does everything right; this one does each thing wrong on purpose.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keywheel::domain::time::{Clock, SystemClock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const CLIENT: &str = "key wheel";
pub(crate) const SECRET: &str = "s3cret:with+odd%signs";

/// A key of the issuer.
pub(crate) struct IssuerKey {
    pub(crate) kid: String,
    der: Vec<u8>,
    point: Vec<u8>,
}

impl IssuerKey {
    pub(crate) fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        Self { kid: kid.to_owned(), der, point: pair.public_key().as_ref().to_vec() }
    }

    pub(crate) fn jwk(&self) -> Value {
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&self.point[range]);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256", "x": part(1..33), "y": part(33..65) })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.der)).unwrap()
    }
}

/// What it does, changed by a test at any time.
pub(crate) struct Rules {
    /// Claims beside the usual ones; `null` removes one.
    pub(crate) claims: Value,
    /// What userinfo answers; `null`: the issuer has no such endpoint.
    pub(crate) userinfo: Value,
    /// Members of the document beside the usual ones.
    pub(crate) document: Value,
    pub(crate) keys: Vec<Value>,
    pub(crate) signer: IssuerKey,
    /// The id token instead of a signed one.
    pub(crate) token: Option<String>,
    pub(crate) is_down: bool,
}

struct Inner {
    base: String,
    rules: Mutex<Rules>,
    /// What the browser brought: code, nonce, challenge.
    begun: Mutex<Vec<(String, String, String)>>,
    used: Mutex<BTreeSet<String>>,
}

/// The running issuer.
#[derive(Clone)]
pub(crate) struct Issuer(Arc<Inner>);

impl Issuer {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let signer = IssuerKey::new("one");
        let rules = Rules {
            claims: json!({}),
            userinfo: Value::Null,
            document: json!({}),
            keys: vec![signer.jwk()],
            signer,
            token: None,
            is_down: false,
        };
        let it = Self(Arc::new(Inner {
            base,
            rules: Mutex::new(rules),
            begun: Mutex::default(),
            used: Mutex::default(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/me", get(userinfo))
            .with_state(it.clone());
        super::wait::spawn(async move { axum::serve(listener, router).await.unwrap() });
        it
    }

    pub(crate) fn base(&self) -> &str {
        &self.0.base
    }

    pub(crate) fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.0.rules.lock().unwrap());
    }

    /// What the person's browser does at the provider: signs in, and gets a code.
    pub(crate) fn code(&self, url: &url::Url) -> String {
        let asked = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found.unwrap_or_else(|| panic!("{url} has no {name}")).1.into_owned()
        };
        assert_eq!((asked("response_type"), asked("client_id")), ("code".to_owned(), CLIENT.to_owned()));
        assert_eq!(asked("code_challenge_method"), "S256");
        let code = format!("code-{}", self.0.begun.lock().unwrap().len());
        self.0.begun.lock().unwrap().push((code.clone(), asked("nonce"), asked("code_challenge")));
        code
    }
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

async fn document(State(it): State<Issuer>) -> Response {
    let rules = it.0.rules.lock().unwrap();
    if rules.is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let base = it.base();
    let mut all = json!({
        "issuer": base, "authorization_endpoint": format!("{base}/auth?kept=1"), "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/keys"), "end_session_endpoint": format!("{base}/out"),
    });
    if !rules.userinfo.is_null() {
        all["userinfo_endpoint"] = json!(format!("{base}/me"));
    }
    merge(&mut all, &rules.document);
    Json(all).into_response()
}

async fn keys(State(it): State<Issuer>) -> Response {
    Json(json!({ "keys": it.0.rules.lock().unwrap().keys })).into_response()
}

async fn userinfo(State(it): State<Issuer>, headers: HeaderMap) -> Response {
    if headers.get("authorization").is_none_or(|it| it != "Bearer access") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(it.0.rules.lock().unwrap().userinfo.clone()).into_response()
}

async fn token(
    State(it): State<Issuer>,
    headers: HeaderMap,
    Form(form): Form<std::collections::BTreeMap<String, String>>,
) -> Response {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let login = STANDARD.encode(format!("{}:{}", encoded(CLIENT), encoded(SECRET)));
    if headers.get("authorization").is_none_or(|it| *it != format!("Basic {login}")) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response();
    }
    let begun = it.0.begun.lock().unwrap();
    let Some((code, nonce, challenge)) = begun.iter().find(|(code, ..)| *code == form["code"]) else {
        return refused("invalid_grant");
    };
    let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    if verifier != *challenge || !it.0.used.lock().unwrap().insert(code.clone()) {
        return refused("invalid_grant");
    }
    let rules = it.0.rules.lock().unwrap();
    let second = SystemClock.now().as_micros() / 1_000_000;
    let mut claims = json!({
        "iss": it.base(), "aud": CLIENT, "nonce": nonce, "sub": "7", "iat": second, "exp": second + 300,
        "email": "Grace@Example.com", "email_verified": true, "groups": ["key-approvers", "staff"],
    });
    merge(&mut claims, &rules.claims);
    let token = rules.token.clone().unwrap_or_else(|| rules.signer.sign(&claims));
    Json(json!({ "id_token": token, "access_token": "access", "token_type": "Bearer" })).into_response()
}

fn merge(all: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = all.as_object_mut().unwrap().remove(name),
            value => all[name] = value.clone(),
        }
    }
}
