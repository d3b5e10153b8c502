//! The simulator's senders, written without knowledge of the receiver, against the receiver: what they
//! prove is believed, what they forge is not, and nothing forged stores more than a count.

use serde_json::{Value, json};

use super::{HookServer, configured};
use crate::support::daemon::answer;
use crate::support::group;
use keywheel::sim::world::demo_key;
use keywheel::web::hooks::Hooks;

const TENANT: &str = "0b1f6471-1bf0-4dda-aec3-111122223333";
const TOPIC: &str = "arn:aws:sns:us-west-2:111122223333:kms-events";
const PUSHER: &str = "push@acme-sec.iam.gserviceaccount.com";
const HOOKS: &str = r#"
[[hooks]]
name = "entra"
kind = "azure-event-grid"
entra = { tenant_id = "0b1f6471-1bf0-4dda-aec3-111122223333", audience = "api://keywheel", jwks_url = "{sim}/senders/entra/0b1f6471-1bf0-4dda-aec3-111122223333/keys" }
[[hooks]]
name = "both"
kind = "azure-event-grid"
token = "the-secret-in-the-address"
entra = { tenant_id = "0b1f6471-1bf0-4dda-aec3-111122223333", audience = "api://keywheel", jwks_url = "{sim}/senders/entra/0b1f6471-1bf0-4dda-aec3-111122223333/keys" }
[[hooks]]
name = "gcp"
kind = "gcp-pubsub"
audience = "https://keywheel.example/hooks/gcp"
email = "push@acme-sec.iam.gserviceaccount.com"
jwks_url = "{sim}/senders/google/certs"
[[hooks]]
name = "nokeys"
kind = "gcp-pubsub"
audience = "https://keywheel.example/hooks/gcp"
email = "push@acme-sec.iam.gserviceaccount.com"
jwks_url = "{sim}/senders/nowhere"
[[hooks]]
name = "sns"
kind = "aws-sns"
topics = ["arn:aws:sns:us-west-2:111122223333:kms-events"]
cert_hosts = ["{host}"]
[[hooks]]
name = "real"
kind = "aws-sns"
topics = ["arn:aws:sns:us-west-2:111122223333:kms-events"]
[[hooks]]
name = "atlas"
kind = "atlas"
secret = "the-present-secret-of-atlas"
[[hooks]]
name = "bus"
kind = "aws-eventbridge"
token = "the-key-of-the-connection"
[[hooks]]
name = "ci"
kind = "cloudevents"
token = "the-token-of-our-pipeline"
[[hooks]]
name = "signed"
kind = "standard"
secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
"#;

impl HookServer {
    /// Sends `order` once for each forgery; each must be refused for its reason, and leave nothing.
    async fn forged(&self, hook: &str, order: &Value, forgeries: &[(&str, &'static str)]) {
        let stored = self.stored().await;
        for (forge, reason) in forgeries {
            let before = self.refusals(hook);
            let count =
                |all: &[(&'static str, u64)]| all.iter().find(|(it, _)| it == reason).map_or(0, |it| it.1);
            let answered = self.emit(hook, order, json!({ "forge": forge })).await;
            assert_eq!(answered, [401], "{hook} {forge}");
            let after = self.refusals(hook);
            assert_eq!(count(&after), count(&before) + 1, "{hook} {forge}: {after:?}");
        }
        assert_eq!(self.stored().await, stored, "{hook}: something forged was stored");
        assert_eq!(self.counts(hook)[1], 0, "{hook}: something forged was accepted");
    }
}

fn grid() -> Value {
    json!({ "kind": "azure-event-grid", "key": demo_key("AZURE", "identity-prod", 5, 2),
        "entra": { "tenantId": TENANT, "audience": "api://keywheel" } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_entra_is_event_grids_or_it_is_nobodys() {
    let server = HookServer::open(HOOKS).await;
    server
        .forged(
            "entra",
            &grid(),
            &[
                ("signature", "wrong-signature"),
                ("unsigned", "no-token"),
                ("stranger", "wrong-signature"),
                ("alg-none", "wrong-token"),
                ("hs256", "wrong-algorithm"),
                ("kid", "wrong-token"),
                ("audience", "wrong-audience"),
                ("issuer", "wrong-issuer"),
                ("expired", "expired"),
                ("early", "expired"),
                ("lasting", "lives-too-long"),
                ("app-id", "wrong-identity"),
            ],
        )
        .await;
    for schema in ["event-grid", "cloud-events"] {
        for version in [1, 2] {
            let entra = json!({ "schema": schema, "entra": { "tenantId": TENANT, "audience": "api://keywheel", "version": version } });
            assert_eq!(server.emit("entra", &grid(), entra).await, [202], "{schema} {version}");
        }
    }
    assert_eq!(server.counts("entra")[1], 4);
    // Where both proofs are configured, one is not enough.
    assert_eq!(server.emit("both", &grid(), json!({})).await, [401]);
    assert_eq!(server.emit("both?code=the-secret-in-the-address", &grid(), json!({})).await, [202]);
    let mut bare = grid();
    bare.as_object_mut().unwrap().remove("entra");
    assert_eq!(server.emit("both?code=the-secret-in-the-address", &bare, json!({})).await, [401]);
    // Consent, both ways.
    assert_eq!(
        server
            .emit(
                "entra",
                &json!({ "kind": "azure-event-grid", "event": "SubscriptionValidation",
        "entra": { "tenantId": TENANT, "audience": "api://keywheel" } }),
                json!({})
            )
            .await,
        [200]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_google_is_our_pushers_or_it_is_nobodys() {
    let server = HookServer::open(HOOKS).await;
    let key = demo_key("GCP", "analytics-prod", 9, 2);
    let order = json!({ "kind": "gcp-pubsub", "key": key, "email": PUSHER, "audience": "https://keywheel.example/hooks/gcp" });
    server
        .forged(
            "gcp",
            &order,
            &[
                ("signature", "wrong-signature"),
                ("unsigned", "no-token"),
                ("stranger", "wrong-signature"),
                ("alg-none", "wrong-token"),
                ("hs256", "wrong-algorithm"),
                ("kid", "wrong-token"),
                ("audience", "wrong-audience"),
                ("issuer", "wrong-issuer"),
                ("expired", "expired"),
                ("early", "expired"),
                ("lasting", "lives-too-long"),
                ("email", "wrong-identity"),
                ("email-unverified", "wrong-identity"),
            ],
        )
        .await;
    for (what, more) in [
        ("wrapped", json!({})),
        ("unwrapped", json!({ "wrapped": false })),
        ("unwrapped, with its metadata", json!({ "wrapped": false, "writeMetadata": true })),
        ("one spelling of ids", json!({ "snakeCase": false })),
        ("long names", json!({ "longNames": true })),
        ("what the service itself logs", json!({ "event": "rotationEvent" })),
    ] {
        let before = server.counts("gcp")[1];
        assert_eq!(server.emit("gcp", &order, more).await, [202], "{what}");
        assert_eq!(server.counts("gcp")[1], before + 1, "{what}");
    }
    let before = server.counts("gcp");
    assert_eq!(server.emit("gcp", &order, json!({ "statusCode": 7 })).await, [202], "a call that failed");
    assert_eq!((server.counts("gcp")[1], server.counts("gcp")[3]), (before[1], before[3] + 1));
    // Keys that cannot be had are our trouble, and the sender comes again.
    assert_eq!(server.emit("nokeys", &order, json!({})).await, [503]);
    server.follow().await;
    let rotations = server.engine.store.rotations(None, None, None, 10).await.unwrap();
    let [row] = rotations.as_slice() else { panic!("{rotations:?}") };
    assert_eq!((row.trigger.as_str(), row.rotation.new_key.to_string()), ("hook:gcp", key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amazon_sns_speaks_for_one_topic_and_one_authority() {
    let server = HookServer::open(HOOKS).await;
    let key = demo_key("AWS", "payments-prod", 1, 1);
    let order = json!({ "kind": "aws-sns", "topicArn": TOPIC, "event": "DisableKey", "key": key, "region": "eu-central-1", "account": "111122223333" });
    server
        .forged(
            "sns",
            &order,
            &[
                ("signature", "wrong-signature"),
                ("unsigned", "signature-version"),
                ("expired", "old-timestamp"),
                ("topic", "topic-not-listed"),
                ("certificate", "wrong-certificate"),
            ],
        )
        .await;
    for (what, more, reason) in [
        ("version 1", json!({ "signatureVersion": "1" }), "signature-version"),
        ("no envelope", json!({ "rawDelivery": true }), "raw-delivery"),
        (
            "a certificate from elsewhere",
            json!({ "certUrl": "https://sns.us-west-2.amazonaws.com.evil.example/x.pem" }),
            "wrong-host",
        ),
        (
            "of another region",
            json!({ "certUrl": "https://sns.eu-west-1.amazonaws.com/x.pem" }),
            "wrong-host",
        ),
        (
            "at another port",
            json!({ "certUrl": "https://sns.us-west-2.amazonaws.com:8443/x.pem" }),
            "wrong-host",
        ),
        ("with a user", json!({ "certUrl": "https://me@sns.us-west-2.amazonaws.com/x.pem" }), "wrong-host"),
        ("not encrypted", json!({ "certUrl": "http://sns.us-west-2.amazonaws.com/x.pem" }), "wrong-host"),
        ("a bucket's", json!({ "certUrl": "https://sns.s3.amazonaws.com/x.pem" }), "wrong-host"),
        ("the machine's own", json!({ "certUrl": "http://169.254.169.254/x.pem" }), "wrong-host"),
        (
            "no certificate",
            json!({ "certUrl": format!("{}/senders/google/certs", server.sim.base_url()) }),
            "wrong-certificate",
        ),
    ] {
        assert_eq!(server.emit("sns", &order, more).await, [401], "{what}");
        let refused = server.refusals("sns");
        assert!(refused.iter().any(|(it, _)| *it == reason), "{what}: {refused:?}");
    }
    // Without an exception, only AWS' own hosts will do: the simulator's is not one.
    assert_eq!(server.emit("real", &order, json!({})).await, [401]);
    assert_eq!(server.refusals("real"), [("wrong-host", 1)]);
    for (what, more) in [
        ("an event", json!({})),
        ("under a subject", json!({ "subject": "KMS" })),
        ("as functions are told", json!({ "lambdaSpelling": true })),
    ] {
        let before = server.counts("sns")[1];
        assert_eq!(server.emit("sns", &order, more).await, [202], "{what}");
        assert_eq!(server.counts("sns")[1], before + 1, "{what}");
    }
    // SNS takes no subject with lines, which could make the signed text say another message.
    let lines = json!({ "subject": "Subject\nType\nNotification" });
    assert_eq!(server.emit("sns", &order, lines).await, [401]);
    // Anybody who may publish may write anything.
    let mut free = order.clone();
    for name in ["event", "key", "region", "account"] {
        free.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(server.emit("sns", &free, json!({ "message": "hello\nTopicArn\narn:x" })).await, [202]);
    assert_eq!(server.counts("sns")[3], 1);
    server.follow().await;
    let mails = server.engine.store.outbox(None, 100).await.unwrap();
    assert!(mails.iter().any(|row| row.kind == "key_alarm" && row.subject == group(1)), "{mails:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_confirmed_where_the_topic_lives_and_nowhere_else() {
    let server = HookServer::open(HOOKS).await;
    let order = json!({ "kind": "aws-sns", "topicArn": TOPIC, "event": "SubscriptionConfirmation" });
    let confirmed = async || {
        let notes = answer(
            reqwest::Client::builder()
                .no_proxy()
                .build()
                .unwrap()
                .get(format!("{}/sim/v1/emissions", server.sim.base_url())),
        )
        .await;
        notes.json.to_string().matches("\"confirmed\"").count()
    };
    let host = server.sim.base_url();
    for url in [
        "http://169.254.169.254/?Action=ConfirmSubscription".to_owned(),
        format!(
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=another"
        ),
        format!(
            "{host}/senders/sns/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:111122223333:other&Token=x"
        ),
        format!("{host}/senders/sns/?Action=DeleteTopic&TopicArn={TOPIC}&Token=x"),
    ] {
        assert_eq!(server.emit("sns", &order, json!({ "subscribeUrl": url })).await, [401], "{url}");
    }
    assert_eq!(server.emit("sns", &order, json!({ "forge": "topic" })).await, [401]);
    assert_eq!(server.emit("sns", &order, json!({ "forge": "signature" })).await, [401]);
    assert_eq!(confirmed().await, 0, "something was visited");
    assert_eq!(server.emit("sns", &order, json!({})).await, [200]);
    assert_eq!((confirmed().await, server.counts("sns")[4]), (1, 1));
    let ended = json!({ "kind": "aws-sns", "topicArn": TOPIC, "event": "UnsubscribeConfirmation" });
    assert_eq!(server.emit("sns", &ended, json!({})).await, [200]);
    assert_eq!(confirmed().await, 1, "going back is a person's decision");
    assert_eq!(server.stored().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_can_be_demanded() {
    let server = HookServer::open(HOOKS).await;
    let order = json!({ "kind": "aws-sns", "topicArn": TOPIC, "event": "DisableKey", "key": demo_key("AWS", "payments-prod", 1, 1) });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let own = http
        .get(format!("{}/senders/sns/ca.pem", server.sim.base_url()))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["sns.amazonaws.com".to_owned()]).unwrap().cert.pem();
    // A stranger's certificate at the right address is what only a chain can tell from the real one.
    for (roots, forge, status) in
        [(&own, Value::Null, 202), (&own, json!("stranger"), 401), (&other, Value::Null, 401)]
    {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roots.pem");
        std::fs::write(&file, roots).unwrap();
        let host = server.sim.base_url();
        let host = host.trim_start_matches("http://");
        let hooks = configured(&format!(
            "[[hooks]]\nname = \"sns\"\nkind = \"aws-sns\"\ntopics = [{TOPIC:?}]\ncert_hosts = [{host:?}]\ntrust_roots_file = {:?}\n",
            file.to_str().unwrap()
        ));
        server.live.replace(Hooks::new(&hooks.hooks).unwrap());
        assert_eq!(server.emit("sns", &order, json!({ "forge": forge })).await, [status], "{forge}");
    }
    assert_eq!(server.refusals("sns"), [("wrong-certificate", 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_others_send_is_understood_and_what_they_forge_is_not() {
    let server = HookServer::open(HOOKS).await;
    let wrong =
        [("signature", "wrong-signature"), ("unsigned", "no-signature"), ("stranger", "wrong-signature")];
    let token = [("signature", "wrong-token"), ("unsigned", "no-token")];
    let alert = json!({ "kind": "atlas", "event": "AWS_ENCRYPTION_KEY_INVALID", "groupId": group(1), "secret": "the-present-secret-of-atlas" });
    server.forged("atlas", &alert, &wrong).await;
    let call = json!({ "kind": "aws-eventbridge", "event": "UpdateAlias", "alias": "alias/atlas", "key": demo_key("AWS", "payments-prod", 1, 2),
        "apiKey": { "header": "x-api-key", "value": "the-key-of-the-connection" } });
    server.forged("bus", &call, &token).await;
    let ask = json!({ "kind": "cloudevents", "groupId": group(1), "token": "the-token-of-our-pipeline" });
    server.forged("ci", &ask, &token).await;
    let signed = json!({ "kind": "standard", "groupId": group(1), "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" });
    server
        .forged(
            "signed",
            &signed,
            &[wrong[0], wrong[1], wrong[2], ("expired", "old-timestamp"), ("early", "old-timestamp")],
        )
        .await;
    for (hook, order) in [("atlas", &alert), ("bus", &call), ("ci", &ask), ("signed", &signed)] {
        // Three events, each delivered twice as at-least-once delivery does, the last one first.
        let answered =
            server.emit(hook, order, json!({ "count": 3, "duplicate": true, "shuffle": true })).await;
        assert_eq!(answered, [202; 6], "{hook}");
        assert_eq!(server.counts(hook)[1..3], [3, 3], "{hook}");
        assert_eq!(server.emit(hook, order, json!({ "replay": 2 })).await, [202; 3], "{hook}");
        assert_eq!(server.counts(hook)[1..3], [4, 5], "{hook}: a replay");
        let large = server.emit(hook, order, json!({ "oversize": 1_200_000 })).await;
        // It is refused by its head. What is still being sent then may take the reply with it, so the hook's own
        // count is the judge.
        assert!(matches!(large[..], [413 | 0]), "{hook}: {large:?}");
        let refused = server.refusals(hook);
        assert!(refused.iter().any(|(reason, _)| *reason == "too-large"), "{hook}: {refused:?}");
    }
    for mode in ["binary", "structured", "batch"] {
        assert_eq!(server.emit("ci", &ask, json!({ "mode": mode })).await, [202], "{mode}");
    }
    // Half a body is nobody's where the body is signed, and unreadable where a token proves it.
    for (hook, order, status) in
        [("atlas", &alert, 401), ("signed", &signed, 401), ("bus", &call, 400), ("ci", &ask, 400)]
    {
        assert_eq!(server.emit(hook, order, json!({ "truncate": true })).await, [status], "{hook}");
    }
}
