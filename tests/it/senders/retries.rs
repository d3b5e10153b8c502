//! Which answers make which sender try again.

use serde_json::{Value, json};

use super::{Site, with};
use crate::support::group;

fn orders() -> Vec<(&'static str, Value)> {
    let google = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7";
    vec![
        ("atlas", json!({ "event": "X", "groupId": group(1) })),
        ("azure-event-grid", json!({ "key": "https://v.vault.azure.net/keys/k/1" })),
        ("aws-eventbridge", json!({ "event": "DisableKey", "key": "k" })),
        ("aws-sns", json!({ "topicArn": "arn:aws:sns:us-west-2:1:t", "message": "m" })),
        ("gcp-pubsub", json!({ "key": google })),
        ("cloudevents", json!({ "groupId": group(1) })),
        ("standard", json!({ "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD" })),
    ]
}

/// What a status means to each sender, in the order above: `d`elivered, tried `a`gain, given up for `n`ow.
const MEANING: [(u16, &str); 12] = [
    (200, "ddddddd"),
    (202, "ddddddd"),
    (206, "daddadd"),
    (302, "naaaaaa"),
    (400, "nnnnaaa"),
    (401, "nnnnaaa"),
    (403, "nnnnaaa"),
    (404, "nannaaa"),
    (410, "nannann"),
    (413, "nnnnaaa"),
    (429, "naanaaa"),
    (503, "naaaaaa"),
];

#[tokio::test]
async fn each_sender_has_its_own_idea_of_a_failure() {
    let site = Site::new().await;
    for (status, meaning) in MEANING {
        for ((kind, order), meaning) in orders().into_iter().zip(meaning.chars()) {
            site.answer(status, &[], "");
            let (sent, seen) = site.emit(kind, with(&order, json!({ "retries": true, "tries": 2 }))).await;
            site.endpoint.answers.lock().unwrap().clear();
            let outcome = match (seen.len(), sent[0]["delivered"] == true) {
                (1, true) => 'd',
                (2, true) => 'a',
                (1, false) => 'n',
                other => panic!("{kind} {status}: {other:?}"),
            };
            assert_eq!(outcome, meaning, "{kind} {status}");
            let attempts: Vec<_> =
                sent[0]["attempts"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
            assert_eq!((attempts.len(), attempts[0]), (seen.len(), &json!(status)));
        }
    }
}

#[tokio::test]
async fn without_retries_there_is_one_try() {
    let site = Site::new().await;
    for (kind, order) in orders() {
        site.answer(503, &[], "");
        let (_, seen) = site.emit(kind, order).await;
        assert_eq!(seen.len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn the_notification_service_gives_up_after_three_more() {
    let site = Site::new().await;
    for _ in 0..9 {
        site.answer(500, &[], "");
    }
    let order =
        json!({ "topicArn": "arn:aws:sns:us-west-2:1:t", "message": "m", "retries": true, "tries": 9 });
    let (sent, seen) = site.emit("aws-sns", order).await;
    assert_eq!((seen.len(), &sent[0]["delivered"]), (4, &json!(false)));
    assert!(seen.iter().all(|it| it.body == seen[0].body));
}

#[tokio::test]
async fn a_try_says_which_one_it_is_and_proves_itself_anew() {
    let site = Site::new().await;
    let azure = json!({ "key": "https://v.vault.azure.net/keys/k/1", "retries": true, "tries": 3 });
    for _ in 0..2 {
        site.answer(500, &[], "");
    }
    let (_, seen) = site.emit("azure-event-grid", azure).await;
    let counts: Vec<_> = seen.iter().map(|it| it.header("aeg-delivery-count").unwrap()).collect();
    assert_eq!(counts, ["0", "1", "2"]);
    assert!(seen.iter().all(|it| it.body == seen[0].body), "the event stays the same");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let site = Site::new().await;
    for (kind, order) in orders() {
        let order = with(&order, json!({ "url": "http://127.0.0.1:9/", "retries": true, "tries": 2 }));
        let (sent, _) = site.emit(kind, order).await;
        let tries = sent[0]["attempts"].as_array().unwrap().len();
        assert_eq!(
            (tries, &sent[0]["delivered"]),
            (if kind == "atlas" { 1 } else { 2 }, &json!(false)),
            "{kind}"
        );
    }
}
