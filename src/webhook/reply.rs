//! Whether a reply with a status of 2xx says in its body that nothing was delivered.
//!
//! Chat and incident services, and the relays in front of them, answer 200 and put the failure in the body. Receivers
//! of signed CloudEvents are held to the status alone: Standard Webhooks give their bodies no meaning.

use serde_json::Value;

use crate::config::webhooks::Format;

/// The beginnings of failures that are plain text: of Microsoft Teams, and of Slack's incoming webhooks.
const FAILED: [&str; 12] = [
    "webhook message delivery failed",
    "webhook bad request",
    "summary or text is required",
    "bad payload",
    "error",
    "invalid_",
    "no_",
    "action_prohibited",
    "posting_to_",
    "too_many_attachments",
    "channel_",
    "user_not_found",
];

/// Whether the body of a reply with a status of 2xx reports a failure.
pub(super) fn is_failure(format: Format, body: &[u8]) -> bool {
    if format == Format::CloudEvents {
        return false;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(said)) => {
            let no = |name: &str| said.get(name).and_then(Value::as_bool) == Some(false);
            let word = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
            let number = |name: &str| said.get(name).and_then(Value::as_i64).unwrap_or_default();
            // `code` is a number of 2xx with some services, and 0 with others.
            let code = number("code");
            no("ok")
                || no("success")
                || ["error", "errors"].into_iter().any(|name| said.get(name).is_some_and(is_said))
                || ["status", "result"].into_iter().any(|name| is_bad_word(word(name)))
                || ["errcode", "StatusCode"].into_iter().any(|name| number(name) != 0)
                || (code != 0 && !(200..300).contains(&code))
        }
        Ok(Value::String(text)) => is_failed_text(&text),
        Ok(_) => false,
        Err(_) => is_failed_text(&String::from_utf8_lossy(body)),
    }
}

fn is_failed_text(text: &str) -> bool {
    let text = text.trim_start_matches(['\u{feff}', '"']).trim_start().to_lowercase();
    FAILED.iter().any(|start| text.starts_with(start))
}

fn is_bad_word(word: &str) -> bool {
    ["error", "fail", "failed", "failure", "invalid", "rejected"].contains(&word.to_lowercase().as_str())
}

/// Whether a member has content: `null`, `false`, `""`, `[]` and `{}` report no error.
fn is_said(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(true) => true,
        Value::Number(number) => number.as_i64() != Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_whether_the_service_took_it() {
        let taken = [
            "",
            "1",
            "ok",
            "true",
            r#"{"ok":true}"#,
            r#"{"ok":true,"error":null,"warnings":["no charset"]}"#,
            r#"{"status":"success","message":"Event processed","dedup_key":"x","errors":[]}"#,
            r#"{"result":"Request will be processed","took":0.1,"requestId":"x"}"#,
            r#"{"errcode":0,"errmsg":"ok"}"#,
            r#"{"code":0,"msg":"success"}"#,
            r#"{"code":202}"#,
            "<html>Accepted</html>",
        ];
        let failed = [
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId tcid=0",
            "Webhook Bad Request - Null or empty event",
            "Summary or Text is required.",
            "\u{feff}\"no_service\"",
            "invalid_payload",
            "channel_is_archived",
            r#"{"ok":false,"error":"channel_not_found"}"#,
            r#"{"success":false}"#,
            r#"{"error":{"code":"BadRequest","message":"…"}}"#,
            r#"{"status":"invalid event","errors":["'routing_key' is missing"]}"#,
            r#"{"status":"failure"}"#,
            r#"{"errcode":310000,"errmsg":"keywords not in content"}"#,
            r#"{"code":19001,"msg":"param invalid"}"#,
        ];
        for body in taken {
            assert!(!is_failure(Format::Teams, body.as_bytes()), "{body}");
        }
        for body in failed {
            assert!(is_failure(Format::Slack, body.as_bytes()), "{body}");
            assert!(!is_failure(Format::CloudEvents, body.as_bytes()), "{body}");
        }
    }
}
