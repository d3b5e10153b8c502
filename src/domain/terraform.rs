//! The lines of a Terraform file that agree with a key that Atlas should hold.
//!
//! A team that manages the encryption of a project with Terraform undoes a rotation at the next apply
//! unless the file names the new key. Only the key is written here: everything else in the resource
//! is the file's own and stays.

use std::fmt::Write as _;

use super::key::{KeyRef, Provider};

/// The resource `mongodbatlas_encryption_at_rest`, reduced to the argument that names the key.
#[must_use]
pub fn key_lines(key: &KeyRef) -> Vec<String> {
    let (block, argument) = match key.provider() {
        Provider::Aws => ("aws_kms_config", "customer_master_key_id"),
        Provider::Azure => ("azure_key_vault_config", "key_identifier"),
        Provider::Gcp => ("google_cloud_kms_config", "key_version_resource_id"),
    };
    vec![
        "resource \"mongodbatlas_encryption_at_rest\" \"…\" {".to_owned(),
        format!("  {block} {{"),
        format!("    {argument} = \"{}\"", quoted(&key.to_string())),
        "  }".to_owned(),
        "}".to_owned(),
    ]
}

/// Escapes the inside of a quoted template, so that Terraform reads no escape, interpolation or directive
/// in it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '$' | '%' if rest.peek() == Some(&'{') => out.extend([c, c]),
            c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_block_and_argument() {
        let arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let aws = key_lines(&KeyRef::observed(Provider::Aws, arn)).join("\n");
        assert_eq!(
            aws,
            format!(
                "resource \"mongodbatlas_encryption_at_rest\" \"…\" {{\n  aws_kms_config {{\n    \
                 customer_master_key_id = \"{arn}\"\n  }}\n}}"
            )
        );
        for (provider, key, block, argument) in [
            (
                Provider::Azure,
                "https://kv.vault.azure.net/keys/cmk/9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10",
                "azure_key_vault_config",
                "key_identifier",
            ),
            (
                Provider::Gcp,
                "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/7",
                "google_cloud_kms_config",
                "key_version_resource_id",
            ),
        ] {
            let lines = key_lines(&KeyRef::observed(provider, key));
            assert_eq!(lines[1], format!("  {block} {{"));
            assert_eq!(lines[2], format!("    {argument} = \"{key}\""));
        }
    }

    #[test]
    fn nothing_in_a_key_is_read_as_terraform() {
        let key = KeyRef::observed(Provider::Aws, "a\"\\${x}%{y}$z\n\u{7}");
        assert_eq!(key_lines(&key)[2], "    customer_master_key_id = \"a\\\"\\\\$${x}%%{y}$z\\n\\u0007\"");
    }
}
