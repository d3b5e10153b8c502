//! Google's own client reads our simulator: what it can read, it would read from Google.
//!
//! Takes the simulator's address and a service account's key file; ends with 0 when everything held.

use google_cloud_auth::credentials::service_account;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_kms_v1::client::KeyManagementService;
use google_cloud_kms_v1::model::crypto_key::CryptoKeyPurpose;
use google_cloud_kms_v1::model::crypto_key_version::CryptoKeyVersionState;

const KEY: &str = "projects/kw-demo/locations/europe-west3/keyRings/atlas/cryptoKeys/analytics-prod";

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (base, file) = (args.next().expect("the simulator's address"), args.next().expect("a key file"));
    let account = serde_json::from_slice(&std::fs::read(file).expect("the key file")).expect("JSON");
    let client = KeyManagementService::builder()
        .with_endpoint(format!("{base}/kms/gcp"))
        .with_credentials(service_account::Builder::new(account).build().expect("a service account's key"))
        .build()
        .await
        .expect("a client");

    let key = client.get_crypto_key().set_name(KEY).send().await.expect("get_crypto_key");
    assert_eq!(key.purpose, CryptoKeyPurpose::EncryptDecrypt);
    let primary = key.primary.expect("a primary version");
    assert_eq!((primary.name.as_str(), &primary.state), (version(2).as_str(), &CryptoKeyVersionState::Enabled));
    println!("get_crypto_key: {} with primary {}", key.name, primary.name);

    let mut list = client
        .list_crypto_key_versions()
        .set_parent(KEY)
        .set_filter("state=ENABLED")
        .set_page_size(1)
        .by_item();
    let mut names = Vec::new();
    while let Some(item) = list.next().await {
        let item = item.expect("a version");
        assert!(item.create_time.is_some());
        names.push(item.name);
    }
    assert_eq!(names, [version(1), version(2)]);
    println!("list_crypto_key_versions: {} versions, one to a page", names.len());

    let disabled = client.get_crypto_key_version().set_name(version(3)).send().await.expect("version 3");
    assert_eq!(disabled.state, CryptoKeyVersionState::Disabled);
    println!("get_crypto_key_version: {} is {:?}", disabled.name, disabled.state);

    let plain = b"eight by".to_vec();
    let sum = i64::from(crc32c::crc32c(&plain));
    let sealed = client.encrypt().set_name(version(1)).set_plaintext(plain.clone()).set_plaintext_crc32c(sum);
    let sealed = sealed.send().await.expect("encrypt");
    assert!(sealed.verified_plaintext_crc32c);
    assert_eq!(sealed.ciphertext_crc32c, Some(i64::from(crc32c::crc32c(&sealed.ciphertext))));
    assert_eq!(sealed.name, version(1));
    let opened = client.decrypt().set_name(KEY).set_ciphertext(sealed.ciphertext.clone()).send().await.expect("decrypt");
    assert_eq!((opened.plaintext.to_vec(), opened.plaintext_crc32c, opened.used_primary), (plain, Some(sum), false));
    println!("encrypt and decrypt: {} bytes there and back", opened.plaintext.len());

    let mut changed = sealed.ciphertext.to_vec();
    *changed.last_mut().expect("a ciphertext") ^= 1;
    let failed = client.decrypt().set_name(KEY).set_ciphertext(changed).send().await;
    refused("a changed ciphertext", failed.map(|_| ()), Code::InvalidArgument);
    let failed = client.encrypt().set_name(version(3)).set_plaintext(b"x".to_vec()).send().await;
    refused("a disabled version", failed.map(|_| ()), Code::FailedPrecondition);
    let failed = client.get_crypto_key_version().set_name(version(99)).send().await;
    refused("a version that is not there", failed.map(|_| ()), Code::NotFound);
}

fn version(number: u32) -> String {
    format!("{KEY}/cryptoKeyVersions/{number}")
}

fn refused(what: &str, result: google_cloud_gax::Result<()>, code: Code) {
    let error = result.expect_err(what);
    let status = error.status().expect("a status");
    assert_eq!(status.code, code, "{what}: {error:?}");
    println!("{what}: {:?}, {}", status.code, status.message);
}
