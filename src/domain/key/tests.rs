use proptest::prelude::*;

use super::*;

const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const MRK: &str = "mrk-1234abcd12ab34cd56ef1234567890ab";
const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const VERSION: &str = "9c1e5b0c7d3a4f0f8e2b6a5d4c3b2a10";
const GCP: &str =
    "projects/pay-prod/locations/europe-west3/keyRings/atlas/cryptoKeys/cmk/cryptoKeyVersions/7";

fn key(provider: Provider, text: &str) -> KeyRef {
    KeyRef::parse(provider, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn aws(text: &str) -> KeyRef {
    key(Provider::Aws, text)
}

fn azure(tail: &str) -> KeyRef {
    key(Provider::Azure, &format!("https://kv-prod.vault.azure.net/keys/{tail}"))
}

fn refusal(provider: Provider, text: &str) -> KeyError {
    KeyRef::parse(provider, text).map_or_else(|error| error, |key| panic!("{key} was taken"))
}

fn in_region(region: &str) -> Place {
    Place { aws_region: Some(region.to_owned()), azure_vault: None }
}

#[test]
fn aws_ids_and_arns_of_every_partition_are_read() {
    for text in [ID, MRK, ARN] {
        assert_eq!(aws(text).to_string(), text);
    }
    for (partition, region) in [
        ("aws", "il-central-1"),
        ("aws-cn", "cn-northwest-1"),
        ("aws-us-gov", "us-gov-west-1"),
        ("aws-iso", "us-iso-east-1"),
        ("aws-iso-b", "us-isob-east-1"),
        ("aws-iso-e", "eu-isoe-west-1"),
        ("aws-iso-f", "us-isof-south-1"),
        ("aws-eusc", "eusc-de-east-1"),
    ] {
        aws(&format!("arn:{partition}:kms:{region}:111122223333:key/{MRK}"));
    }
}

#[test]
fn malformed_aws_keys_are_refused_by_rule() {
    for text in [
        "1234abcd",
        "1234abcd-12ab-34cd-56ef-1234567890ag",
        "mrk-1234",
        "arn:aws:s3:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms::111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:11112222333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws-xx:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:111122223333:grant/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:",
        "",
        "   ",
    ] {
        assert_eq!(refusal(Provider::Aws, text).rule, "format", "{text:?}");
    }
    assert_eq!(refusal(Provider::Aws, &"a".repeat(3000)).rule, "format");
}

#[test]
fn an_alias_is_refused_with_the_way_out() {
    for text in ["alias/atlas-prod", "arn:aws:kms:us-east-1:111122223333:alias/atlas-prod"] {
        let error = refusal(Provider::Aws, text);
        assert_eq!(error.rule, "alias");
        assert!(error.message.contains("aws kms describe-key"), "{error}");
    }
}

#[test]
fn azure_urls_are_read_on_every_cloud_and_written_azures_way() {
    for host in ["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"] {
        key(Provider::Azure, &format!("https://kv-prod.{host}/keys/cmk/{VERSION}"));
    }
    let loose = key(Provider::Azure, &format!(" HTTPS://KV-Prod.Vault.Azure.NET:443/keys/cmk/{VERSION}/ "));
    assert_eq!(loose.to_string(), format!("https://kv-prod.vault.azure.net/keys/cmk/{VERSION}"));
    assert!(!loose.is_versionless());
    assert!(azure("cmk").is_versionless() && azure("cmk/").is_versionless());
}

#[test]
fn malformed_azure_keys_are_refused_by_rule() {
    for text in [
        format!("http://kv-prod.vault.azure.net/keys/cmk/{VERSION}"),
        format!("https://kv-prod.vault.azure.net/secrets/cmk/{VERSION}"),
        format!("https://kv-prod.vault.azure.net/keys/cmk/{VERSION}/more"),
        format!("https://kv-prod.vault.azure.net/keys/cmk/{VERSION}?x=1"),
        format!("https://kv-prod.vault.azure.net/keys//{VERSION}"),
        "https://kv-prod.vault.azure.net/keys/cmk/1".to_owned(),
        "https://kv-prod.vault.azure.net".to_owned(),
        format!("https://me:pw@kv-prod.vault.azure.net/keys/cmk/{VERSION}"),
        format!("https://vault.azure.net/keys/cmk/{VERSION}"),
        format!("https://kv-prod.vault.azure.net.evil.example/keys/cmk/{VERSION}"),
        format!("https://kv-prod.managedhsm.azure.net/keys/cmk/{VERSION}"),
        "kv-prod".to_owned(),
    ] {
        assert_eq!(refusal(Provider::Azure, &text).rule, "format", "{text:?}");
    }
    let hsm = refusal(Provider::Azure, "https://kv-prod.managedhsm.azure.net/keys/cmk");
    assert!(hsm.message.contains("Managed HSM"), "{hsm}");
}

#[test]
fn gcp_takes_a_version_and_nothing_less() {
    assert_eq!(key(Provider::Gcp, GCP).to_string(), GCP);
    key(
        Provider::Gcp,
        "projects/example.com:pay/locations/global/keyRings/r/cryptoKeys/k_1/cryptoKeyVersions/10",
    );
    for text in
        [GCP.trim_end_matches("/cryptoKeyVersions/7"), GCP.trim_end_matches("/7"), GCP.trim_end_matches('7')]
    {
        let error = refusal(Provider::Gcp, text);
        assert_eq!(error.rule, "versionless", "{text:?}");
        assert!(error.message.contains("cryptoKeyVersions/N"), "{error}");
    }
    for text in
        [&format!("{GCP}/x"), &format!("{GCP}x"), &GCP.replace("/7", "/0"), &GCP.replace("cmk", ""), "cmk"]
    {
        assert_eq!(refusal(Provider::Gcp, text).rule, "format", "{text:?}");
    }
}

#[test]
fn a_key_of_another_provider_is_told_whose_it_is() {
    let azure = azure("cmk").to_string();
    let texts = [(Provider::Aws, ARN), (Provider::Aws, ID), (Provider::Azure, &azure), (Provider::Gcp, GCP)];
    for (owner, text) in texts {
        for provider in Provider::ALL.into_iter().filter(|provider| *provider != owner) {
            let error = refusal(provider, text);
            assert_eq!(error.rule, "provider");
            assert!(error.message.contains(&format!("a key of {owner}")), "{error}");
        }
    }
}

#[test]
fn arn_and_bare_id_are_the_same_key_unless_they_disagree() {
    let anywhere = Place::default();
    assert!(aws(ARN).is_same(&aws(ID), &anywhere));
    assert!(!aws(ARN).is_same(&aws(&ARN.replace("111122223333", "999922223333")), &anywhere));
    assert!(!aws(ARN).is_same(&aws(&ARN.replace("us-east-1", "us-west-2")), &anywhere));
    assert!(!aws(ARN).is_same(&aws(&ID.replace("12ab", "12ac")), &anywhere));
}

#[test]
fn a_bare_multi_region_id_means_the_replica_in_the_blocks_region() {
    let replica = aws(&format!("arn:aws:kms:eu-west-1:111122223333:key/{MRK}"));
    assert!(replica.is_same(&aws(MRK), &in_region("eu-west-1")));
    assert!(!replica.is_same(&aws(MRK), &in_region("us-east-1")));
    assert!(replica.is_same(&aws(MRK), &Place::default()));
    assert!(aws(MRK).is_same(&aws(MRK), &in_region("us-east-1")));
}

#[test]
fn azure_keys_compare_without_case_and_trailing_slash() {
    let plain = azure(&format!("cmk/{VERSION}"));
    let held = KeyRef::observed(
        Provider::Azure,
        &format!("https://KV-PROD.vault.azure.net/keys/CMK/{}/", VERSION.to_ascii_uppercase()),
    );
    assert!(plain.is_same(&held, &Place::default()));
    assert!(!plain.is_same(&azure("cmk"), &Place::default()), "a versionless identifier is another value");
}

#[test]
fn what_atlas_holds_keeps_its_spelling() {
    let text = format!("https://KV-PROD.vault.azure.net/keys/cmk/{VERSION}/");
    assert_eq!(KeyRef::observed(Provider::Azure, &text).to_string(), text);
    let odd = KeyRef::observed(Provider::Aws, "alias/prod");
    assert_eq!(odd, KeyRef::Unrecognised { provider: Provider::Aws, text: "alias/prod".to_owned() });
    assert!(odd.is_same(&odd, &Place::default()));
}

#[test]
fn a_key_in_another_place_is_refused() {
    let error = aws(ARN).check_place(&in_region("eu-west-1")).unwrap_err();
    assert_eq!(error.rule, "region");
    assert!(error.message.contains("us-east-1") && error.message.contains("eu-west-1"), "{error}");
    assert!(aws(ARN).check_place(&in_region("us-east-1")).is_ok());
    assert!(aws(ID).check_place(&in_region("eu-west-1")).is_ok());

    let vault = |name: &str| Place { aws_region: None, azure_vault: Some(name.to_owned()) };
    assert_eq!(azure("cmk").check_place(&vault("kv-test")).unwrap_err().rule, "vault");
    assert!(azure("cmk").check_place(&vault("KV-Prod")).is_ok());
    assert!(azure("cmk").check_place(&Place::default()).is_ok());
    assert!(key(Provider::Gcp, GCP).check_place(&vault("kv-test")).is_ok());
}

#[test]
fn atlas_regions_turn_into_aws_regions() {
    for (atlas, region) in [
        ("US_EAST_1", Some("us-east-1")),
        ("US_GOV_WEST_1", Some("us-gov-west-1")),
        ("CN_NORTHWEST_1", Some("cn-northwest-1")),
        ("eu-west-3", Some("eu-west-3")),
        ("GLOBAL", None),
        ("", None),
    ] {
        assert_eq!(aws_region(atlas).as_deref(), region);
    }
}

#[test]
fn the_tail_is_what_a_person_types() {
    assert_eq!(aws(ARN).tail(), "7890ab");
    assert_eq!(aws(MRK).tail(), "7890ab");
    assert_eq!(azure(&format!("cmk/{VERSION}")).tail(), "3b2a10");
    assert_eq!(azure("atlas-cmk").tail(), "as-cmk");
    assert_eq!(key(Provider::Gcp, GCP).tail(), "cmk/7");
    assert_eq!(KeyRef::observed(Provider::Aws, "ключ").tail(), "ключ");
}

fn any_provider() -> impl Strategy<Value = Provider> {
    prop::sample::select(Provider::ALL.to_vec())
}

/// Keys that are nearly alike, so that equal ones occur.
fn any_key() -> impl Strategy<Value = KeyRef> {
    let id = prop::sample::select(vec![ID, MRK, "1234ABCD-12ab-34cd-56ef-1234567890ab"]);
    let region = prop::sample::select(vec!["us-east-1", "eu-west-1"]);
    let account = prop::sample::select(vec!["111122223333", "444455556666"]);
    let arn = (id.clone(), region, account)
        .prop_map(|(id, region, account)| aws(&format!("arn:aws:kms:{region}:{account}:key/{id}")));
    let vault = ("[kK]v-[ab]{1,2}", "[ab]{1,2}", prop::option::of("[0-9a-f]{32}"), "/?").prop_map(
        |(vault, name, version, slash)| {
            let version = version.map(|version| format!("/{version}")).unwrap_or_default();
            KeyRef::observed(
                Provider::Azure,
                &format!("https://{vault}.vault.azure.net/keys/{name}{version}{slash}"),
            )
        },
    );
    let gcp = "projects/[a-z]{1,9}/locations/global/keyRings/[a-b]/cryptoKeys/[a-b]/cryptoKeyVersions/[1-9]"
        .prop_map(|text| key(Provider::Gcp, &text));
    let odd = (any_provider(), "\\PC{0,6}").prop_map(|(provider, text)| KeyRef::observed(provider, &text));
    prop_oneof![id.prop_map(aws), arn, vault, gcp, odd]
}

proptest! {
    #[test]
    fn a_printed_key_reads_back_as_itself(key in any_key(), left in " {0,2}", right in "[ \n]{0,2}") {
        if let Ok(parsed) = KeyRef::parse(key.provider(), &key.to_string()) {
            let spaced = format!("{left}{parsed}{right}");
            prop_assert_eq!(&KeyRef::parse(key.provider(), &spaced).unwrap(), &parsed);
            prop_assert!(parsed.is_same(&key, &Place::default()));
        }
        let json = serde_json::to_string(&key).unwrap();
        prop_assert_eq!(serde_json::from_str::<KeyRef>(&json).unwrap(), key);
    }

    #[test]
    fn sameness_is_reflexive_and_symmetric(a in any_key(), b in any_key(), known in any::<bool>()) {
        let place = if known { in_region("eu-west-1") } else { Place::default() };
        prop_assert!(a.is_same(&a, &place));
        prop_assert_eq!(a.is_same(&b, &place), b.is_same(&a, &place));
        if a.provider() != b.provider() {
            prop_assert!(!a.is_same(&b, &place));
        }
    }

    #[test]
    fn no_text_breaks_the_parser(
        provider in any_provider(),
        head in prop::sample::select(vec!["", "arn:aws:kms:", "mrk-", "https://", "https://kv.vault.azure.net/keys/", "projects/é/locations/"]),
        text in ".{0,80}",
    ) {
        let text = format!("{head}{text}");
        let held = KeyRef::observed(provider, &text);
        let _ = (held.tail(), held.is_versionless(), held.check_place(&in_region("é")), aws_region(&text));
        if let Err(error) = KeyRef::parse(provider, &text) {
            prop_assert!(["format", "alias", "provider", "versionless"].contains(&error.rule));
            prop_assert!(!error.message.is_empty());
        }
    }
}

#[test]
fn a_text_says_by_its_form_whose_key_it_is() {
    let version = format!("https://kv-prod.vault.azure.net/keys/cmk/{VERSION}");
    for (provider, text) in [
        (Provider::Aws, "1234abcd-12ab-34cd-56ef-1234567890ab"),
        (Provider::Aws, "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"),
        (Provider::Azure, &version),
        (Provider::Gcp, GCP),
    ] {
        let read: KeyRef = format!(" {text} ").parse().unwrap();
        assert_eq!(read, key(provider, text));
        for other in Provider::ALL {
            let refused = read.check_provider(other).err();
            assert_eq!(refused, KeyRef::parse(other, text).err(), "{text} for {other}");
        }
    }
    for (text, rule) in [("", "format"), ("cmk", "format"), ("alias/a", "alias"), ("projects/p", "format")] {
        let refused = text.parse::<KeyRef>().unwrap_err();
        assert_eq!(refused.rule, rule, "{refused}");
    }
}
