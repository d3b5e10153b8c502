//! The signed end of the audit log, and what is told of acceptances.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywheel::domain::notice::Notice;
use keywheel::engine::heads;

use super::{DAY, Fixture, SECURITY};

#[tokio::test]
async fn the_end_of_the_log_is_signed_and_told_once_a_day() {
    let it = Fixture::new().await;
    let first = heads::once(&it.engine, None).await.unwrap();
    assert!(first.is_some());
    assert_eq!(heads::once(&it.engine, first).await.unwrap(), None, "it is the same day");
    // After a restart, too, and from another daemon.
    assert_eq!(heads::once(&it.engine, None).await.unwrap(), first);
    assert_eq!(it.told("audit_head").await, [SECURITY]);
    let [mail] = it.mails("audit_head").await.try_into().unwrap();
    let Notice::AuditHead(head) = mail.content().unwrap().notice else { panic!("{mail:?}") };
    let report = it.engine.store.verify_audit().await.unwrap();
    assert_eq!((head.seq, head.hash.as_str(), &head.broken), (report.rows, report.head.as_str(), &None));
    let key = STANDARD.decode(&head.public_key).unwrap();
    let signature = STANDARD.decode(&head.signature).unwrap();
    let lines = [
        "keywheel audit head".to_owned(),
        it.engine.store.audit_marks(0).await.unwrap().first,
        head.seq.to_string(),
        head.hash.clone(),
        head.at.to_string(),
        head.fingerprint.clone(),
    ];
    let message = lines.map(|line| line + "\n").concat();
    UnparsedPublicKey::new(&ED25519, &key).verify(message.as_bytes(), &signature).unwrap();
    assert!(
        UnparsedPublicKey::new(&ED25519, &key)
            .verify(message.replace(&head.hash, &"0".repeat(64)).as_bytes(), &signature)
            .is_err()
    );
    it.pass(DAY);
    let second = heads::once(&it.engine, first).await.unwrap();
    assert!(second > first);
    assert_eq!(it.told("audit_head").await, [SECURITY, SECURITY]);
}

#[tokio::test]
async fn an_acceptance_is_told() {
    let it = Fixture::new().await;
    it.engine.tell_acceptance("local:grace", "the installation key is now 17".to_owned()).await.unwrap();
    assert_eq!(it.told("acceptance").await, [SECURITY]);
}
