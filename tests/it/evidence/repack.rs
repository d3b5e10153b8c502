//! Takes a bundle apart and packs it again, by docs/evidence.md and without the program's own writer: anyone who forges a
//! bundle can do as much.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keywheel::seal::InstallationKey;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The files of a bundle.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

fn le(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The files, by walking from header to header.
pub(crate) fn unpack(bundle: &[u8]) -> Files {
    let (mut files, mut at) = (Files::new(), 0);
    while bundle[at..].starts_with(b"PK\x03\x04") {
        let (size, name) = (le(&bundle[at + 22..at + 26]), le(&bundle[at + 26..at + 28]));
        let begin = at + 30 + name;
        let name = String::from_utf8(bundle[at + 30..begin].to_vec()).unwrap();
        files.push((name, bundle[begin..begin + size].to_vec()));
        at = begin + size;
    }
    files
}

/// The bundle with these files.
pub(crate) fn pack(files: &Files) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let mut sum = flate2::Crc::new();
        sum.update(content);
        let size = u32::try_from(content.len()).unwrap();
        let mut rest = [10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0].to_vec();
        for number in [sum.sum(), size, size] {
            rest.extend(number.to_le_bytes());
        }
        rest.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        rest.extend([0, 0]);
        list.extend([b"PK\x01\x02\x0a\x00", rest.as_slice(), &[0; 10]].concat());
        list.extend(u32::try_from(out.len()).unwrap().to_le_bytes());
        list.extend(name.as_bytes());
        out.extend([b"PK\x03\x04", rest.as_slice(), name.as_bytes(), content].concat());
    }
    let (begin, size) = (u32::try_from(out.len()).unwrap(), u32::try_from(list.len()).unwrap());
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    out.extend(list);
    out.extend([b"PK\x05\x06".as_slice(), &[0; 4], &count, &count].concat());
    out.extend([size.to_le_bytes().as_slice(), &begin.to_le_bytes(), &[0; 2]].concat());
    out
}

/// A file that is to be changed.
pub(crate) fn file<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(it, _)| it == name).unwrap_or_else(|| panic!("no {name}")).1
}

pub(crate) fn text(files: &Files, name: &str) -> String {
    let (_, content) = files.iter().find(|(it, _)| it == name).unwrap_or_else(|| panic!("no {name}"));
    String::from_utf8(content.clone()).unwrap()
}

/// Replaces a part of a file that is there.
pub(crate) fn replace(files: &mut Files, name: &str, part: &str, by: &str) {
    let before = text(files, name);
    assert!(before.contains(part), "{name} has no {part:?}: {before}");
    *file(files, name) = before.replacen(part, by, 1).into_bytes();
}

/// The members of an object in the order of `like`: the order of a manifest is part of its form.
fn ordered(value: &Value, like: &str) -> String {
    let mut names: Vec<&String> = value.as_object().unwrap().keys().collect();
    let link = "\"row\": \"at\": \"from\": \"to\": \"oldPublicKey\": \"publicKey\": \"signature\":";
    let like = if value.get("oldPublicKey").is_some() { link } else { like };
    names.sort_by_key(|name| like.find(&format!("\"{name}\":")));
    let members = names.iter().map(|name| {
        let member = match &value[name.as_str()] {
            Value::Object(_) if *name != "counts" => ordered(&value[name.as_str()], like),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|it| ordered(it, like)).collect();
                format!("[{}]", items.join(","))
            }
            other => other.to_string(),
        };
        format!("\"{name}\":{member}")
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Repairs counts, lengths and hashes of the manifest, has `change` change the rest of it, and signs it with `key`.
pub(crate) fn sign(files: &mut Files, key: &InstallationKey, change: impl FnOnce(&mut Value)) {
    let before = text(files, "manifest.json");
    let mut manifest: Value = serde_json::from_str(&before).unwrap();
    let rest: Vec<_> = files.iter().filter(|(name, _)| !name.starts_with("manifest.")).collect();
    for (name, content) in &rest {
        let rows = content.split(|byte| *byte == b'\n').count() as u64 - 1;
        if let Some(count) = manifest["counts"].get_mut(name) {
            *count = rows.saturating_sub(u64::from(name.as_str() != "audit.jsonl")).into();
        }
    }
    let entries = rest.iter().map(|(name, content)| {
        serde_json::json!({ "name": name, "size": content.len(), "sha256": hex::encode(Sha256::digest(content)) })
    });
    manifest["files"] = entries.collect();
    let public = key.public_key();
    let spki = [&hex::decode("302a300506032b6570032100").unwrap(), public].concat();
    let key_id = hex::encode(Sha256::digest(spki));
    manifest["installation"] = serde_json::json!({
        "fingerprint": key.fingerprint(), "publicKey": STANDARD.encode(public), "keyId": key_id,
    });
    change(&mut manifest);
    let manifest = ordered(&manifest, &before);
    let kind = "application/vnd.keywheel.evidence-manifest+json";
    let signed = format!("DSSEv1 {} {kind} {} {manifest}", kind.len(), manifest.len());
    let envelope = format!(
        r#"{{"payloadType":"{kind}","payload":"{}","signatures":[{{"keyid":"{key_id}","sig":"{}"}}]}}"#,
        STANDARD.encode(&manifest),
        STANDARD.encode(key.sign(signed.as_bytes()))
    );
    *file(files, "manifest.json") = manifest.into_bytes();
    *file(files, "manifest.dsse.json") = envelope.into_bytes();
}

/// Numbers and links the rows of the log anew, and has the manifest end with the last one: what an insider does who has
/// the installation's key. To be signed afterwards.
pub(crate) fn rechain(files: &mut Files) {
    let mut manifest: Value = serde_json::from_str(&text(files, "manifest.json")).unwrap();
    let mut last = manifest["head"]["before"]["hash"].as_str().unwrap().to_owned();
    let mut seq = manifest["head"]["before"]["seq"].as_i64().unwrap();
    let mut rows = String::new();
    for line in text(files, "audit.jsonl").lines() {
        seq += 1;
        let row: Value = serde_json::from_str(line).unwrap();
        let number = seq.to_string();
        let mut fields = vec![number.as_str()];
        let of = |name: &str| row[name].as_str().unwrap();
        fields.extend(["at", "actor", "action", "subject", "detail"].map(of));
        fields.push(&last);
        fields.extend(Some(of("seals")).filter(|it| !it.is_empty()));
        let framed = fields.iter().flat_map(|it| [&(it.len() as u64).to_be_bytes(), it.as_bytes()].concat());
        let hash = hex::encode(Sha256::digest(framed.collect::<Vec<u8>>()));
        let parts = ["at", "actor", "action", "subject", "detail", "seals"]
            .map(|name| format!("\"{name}\":{}", row[name]));
        let parts = parts.join(",");
        rows.extend([format!("{{\"seq\":{seq},{parts},\"prevHash\":\"{last}\",\"hash\":\"{hash}\"}}\n")]);
        last = hash;
    }
    *file(files, "audit.jsonl") = rows.into_bytes();
    let before = text(files, "manifest.json");
    manifest["head"]["after"] = serde_json::json!({ "seq": seq, "hash": last });
    *file(files, "manifest.json") = ordered(&manifest, &before).into_bytes();
}
