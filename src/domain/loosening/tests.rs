//! Which changes are tighter, rule by rule.

use serde_json::json;

use super::*;

fn plain() -> Safeguards {
    Safeguards {
        policy: Policy::default(),
        credential: "default".to_owned(),
        kms: None,
        alias: None,
        environment: None,
    }
}

fn with(policy: Value) -> Safeguards {
    let own: PolicyOverride = serde_json::from_value(policy).unwrap();
    Safeguards { policy: own.over(&Policy::default()), ..plain() }
}

fn window(day: &str) -> Value {
    json!({ "cron": format!("0 0 1 * * {day}"), "duration": "4h" })
}

#[test]
fn only_what_is_named_is_tighter() {
    let winter = json!({ "name": "Winter", "from": "2026-12-14", "to": "2027-01-04" });
    let shorter = json!({ "name": "Winter", "from": "2026-12-20", "to": "2027-01-04" });
    let step = |after: &str, to: &str| json!({ "after": after, "to": [to] });
    let (late, soon) = (step("3d", "boss@example.com"), step("1d", "boss@example.com"));
    let others = step("2d", "other@example.com");
    let night = |approvals: u32| json!({ "approvals": approvals, "by": ["group:night"] });
    let (sat, sun, mon) = (window("Sat"), window("Sun"), window("Mon"));
    for (from, to, tighter) in [
        (json!({}), json!({ "interval": "60d" }), true),
        (json!({}), json!({ "interval": "91d" }), false),
        (json!({}), json!({ "approvalTtl": "1d" }), true),
        (json!({}), json!({ "approvalTtl": "8d" }), false),
        (json!({}), json!({ "executionTtl": "1d" }), true),
        (json!({}), json!({ "executionTtl": "8d" }), false),
        (json!({}), json!({ "approvals": 2 }), true),
        (json!({}), json!({ "approvals": 3 }), true),
        (json!({}), json!({ "approvals": 4 }), false),
        (json!({ "approvals": 2 }), json!({ "approvals": 1 }), false),
        (json!({}), json!({ "selfApproval": true }), false),
        (json!({ "selfApproval": true }), json!({}), false),
        (json!({}), json!({ "autoApprove": ["poll"] }), false),
        (json!({ "autoApprove": ["poll"] }), json!({}), false),
        (json!({}), json!({ "allowVersionless": true }), false),
        (json!({}), json!({ "windows": [sat] }), true),
        (json!({}), json!({ "freezes": [winter] }), true),
        (json!({ "freezes": [winter] }), json!({}), false),
        (json!({ "freezes": [winter] }), json!({ "freezes": [shorter] }), false),
        (json!({}), json!({ "escalate": [late] }), true),
        (json!({ "escalate": [late] }), json!({}), false),
        (json!({ "escalate": [late] }), json!({ "escalate": [soon] }), true),
        (json!({ "escalate": [soon] }), json!({ "escalate": [late] }), false),
        (json!({ "escalate": [late] }), json!({ "escalate": [others] }), false),
        (json!({ "escalate": [late] }), json!({ "escalate": [others, late] }), true),
        (json!({}), json!({ "approvers": ["owners"] }), false),
        (json!({ "approvers": ["owners"] }), json!({}), false),
        (json!({ "approvalMethod": "link" }), json!({}), true),
        (json!({}), json!({ "approvalMethod": "link" }), false),
        (json!({}), json!({ "emergency": night(1) }), false),
        (json!({ "emergency": night(1) }), json!({ "emergency": night(2) }), true),
        (json!({ "emergency": night(2) }), json!({ "emergency": night(1) }), false),
        (json!({ "emergency": night(1) }), json!({}), true),
        (json!({}), json!({ "windows": [sat, sun] }), false),
        (json!({ "windows": [sat] }), json!({}), false),
        (json!({ "windows": [sat] }), json!({ "windows": [sun] }), false),
        (json!({ "windows": [sat, sun] }), json!({ "windows": [sun] }), true),
        (json!({ "windows": [sat, sun] }), json!({ "windows": [mon] }), false),
        (json!({ "windows": [sat, sun] }), json!({ "windows": [sun, sun] }), false),
        (json!({ "windows": [sat] }), json!({ "windows": [sat, sun] }), false),
        (json!({ "windows": [sat, sun] }), json!({ "windows": [] }), false),
    ] {
        let found = changes(&with(from.clone()), &with(to.clone()), 3);
        let courses: Vec<_> = found.iter().map(|it| it.course).collect();
        let wanted = if tighter { Course::Tighter } else { Course::Looser };
        assert_eq!(courses, [wanted], "{from} -> {to}");
    }
    assert_eq!(changes(&plain(), &with(json!({ "remindBefore": ["1d"] })), 3), []);
    assert_eq!(changes(&plain(), &with(json!({ "approvals": 1 })), 3), [], "the default, stated");
}

#[test]
fn a_credential_and_a_look_up_decide_where_no_person_is_asked() {
    let other = |auto: bool| {
        let base = if auto { with(json!({ "autoApprove": ["poll"] })) } else { plain() };
        Safeguards { credential: "b".to_owned(), kms: Some("k".to_owned()), ..base }
    };
    assert_eq!(changes(&plain(), &other(false), 3), []);
    let on = with(json!({ "autoApprove": ["poll"] }));
    let found = changes(&on, &other(true), 3);
    let fields: Vec<_> = found.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["credential", "kms"]);
    let tagged = Safeguards { environment: Some("prod".to_owned()), ..plain() };
    assert_eq!(changes(&plain(), &tagged, 3)[0].field, "environment");
}

#[test]
fn every_field_that_decides_is_named_once() {
    let all: Vec<String> = fields().collect();
    let mut policy: Vec<String> = members(&Policy::default()).as_object().unwrap().keys().cloned().collect();
    policy.retain(|it| !it.starts_with("remind"));
    for rule in policy {
        assert!(all.contains(&format!("policy.{rule}")), "{rule} is not classified");
    }
    assert_eq!(all.len(), RULES.len() + 4);
}
