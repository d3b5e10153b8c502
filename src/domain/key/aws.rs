//! AWS KMS keys: a bare key id, a multi-Region `mrk-` id, or the ARN of either.
//!
//! An alias is refused: it can be moved to another key unnoticed by Atlas and by Keywheel, so an approval
//! would not be bound to one key. Ids and regions compare without case; an ARN is written in lower case
//! by AWS everywhere. A key's account is never guessed: a bare id means "the account of Atlas' role",
//! which is not known here.

use super::{KeyError, Place, Provider, broken, excerpt, is_hex};

/// Every partition of AWS and the beginning of its regions' names. A region that begins with none
/// of them belongs to `aws`, so new commercial regions need no change here.
const PARTITIONS: [(&str, &str); 8] = [
    ("aws-cn", "cn-"),
    ("aws-us-gov", "us-gov-"),
    ("aws-iso", "us-iso-"),
    ("aws-iso-b", "us-isob-"),
    ("aws-iso-e", "eu-isoe-"),
    ("aws-iso-f", "us-isof-"),
    ("aws-eusc", "eusc-"),
    ("aws", ""),
];

const WANTED: &str = "give the key's id (8-4-4-4-12 hexadecimal digits, or \"mrk-\" and 32) or its ARN, \
                      arn:aws:kms:REGION:ACCOUNT:key/ID";

/// An AWS KMS key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsKey {
    pub(super) text: String,
    id: String,
    home: Option<Home>,
}

/// The parts of an ARN beside the id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Home {
    partition: String,
    region: String,
    account: String,
}

impl AwsKey {
    /// Reads a bare id or an ARN; the text is kept as it came, without surrounding space.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let (home, id) = match text.strip_prefix("arn:") {
            Some(rest) => {
                let (home, id) = parse_arn(text, rest)?;
                (Some(home), id)
            }
            None => (None, text),
        };
        if id.starts_with("alias/") {
            return Err(alias(text));
        }
        if !is_key_id(id) {
            return Err(broken("format", Provider::Aws, text, "is not a KMS key id", WANTED));
        }
        Ok(Self { text: text.to_owned(), id: id.to_ascii_lowercase(), home })
    }

    /// The text as AWS itself writes it.
    pub(super) fn canonical(mut self) -> Self {
        self.text.make_ascii_lowercase();
        self
    }

    /// The account an ARN names; `None` for a bare id.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.home.as_ref().map(|home| home.account.as_str())
    }

    /// The region an ARN names, in AWS' spelling; `None` for a bare id.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.home.as_ref().map(|home| home.region.as_str())
    }

    pub(super) fn is_same(&self, other: &AwsKey, place: &Place) -> bool {
        let partitions = (self.home.as_ref(), other.home.as_ref());
        let same_partition = !matches!(partitions, (Some(a), Some(b)) if a.partition != b.partition);
        self.id == other.id
            && same_partition
            && agree(self.account(), other.account())
            && agree(self.region_within(place), other.region_within(place))
    }

    /// Replicas of a multi-Region key share their id, so a bare `mrk-` id means the one in the
    /// region of Atlas' block. Other ids occur once in the world and need no region.
    fn region_within<'a>(&'a self, place: &'a Place) -> Option<&'a str> {
        self.region().or_else(|| place.aws_region.as_deref().filter(|_| self.id.starts_with("mrk-")))
    }

    pub(super) fn check_place(&self, place: &Place) -> Result<(), KeyError> {
        match (self.region(), place.aws_region.as_deref()) {
            (Some(own), Some(block)) if !own.eq_ignore_ascii_case(block) => Err(KeyError {
                rule: "region",
                message: format!(
                    "the AWS key {:?} lies in region {own}, but Atlas' configuration of this project names {block}: \
                     give a key in {block} (for a multi-Region key, its replica there), or change the region in Atlas first",
                    excerpt(&self.text)
                ),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn tail(&self) -> &str {
        &self.id
    }
}

/// Equal, or unknown on one side.
fn agree(a: Option<&str>, b: Option<&str>) -> bool {
    !matches!((a, b), (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b))
}

fn parse_arn<'a>(text: &str, rest: &'a str) -> Result<(Home, &'a str), KeyError> {
    let bad = |what: &str| broken("format", Provider::Aws, text, what, WANTED);
    let mut fields = rest.splitn(5, ':');
    let mut field = || fields.next().unwrap_or_default();
    let (partition, service, region, account, resource) = (field(), field(), field(), field(), field());
    if !PARTITIONS.iter().any(|(known, _)| *known == partition) {
        return Err(bad("is an ARN whose partition AWS does not have"));
    }
    if service != "kms" {
        return Err(bad("is not an ARN of the service kms"));
    }
    if !is_region(region) {
        return Err(bad("is an ARN without a region"));
    }
    if aws_partition(region) != partition {
        return Err(bad("is an ARN whose region does not belong to its partition"));
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("is an ARN whose account is not 12 digits"));
    }
    if resource.starts_with("alias/") {
        return Err(alias(text));
    }
    let id = resource.strip_prefix("key/").ok_or_else(|| bad("is an ARN that names no key"))?;
    let home =
        Home { partition: partition.to_owned(), region: region.to_owned(), account: account.to_owned() };
    Ok((home, id))
}

fn alias(text: &str) -> KeyError {
    broken(
        "alias",
        Provider::Aws,
        text,
        "is an alias, which can be moved to another key after people approved it",
        "give the id or ARN of the key it points to: aws kms describe-key --key-id ALIAS",
    )
}

/// The partition that a region, in AWS' spelling, lies in.
#[must_use]
pub fn aws_partition(region: &str) -> &'static str {
    PARTITIONS.iter().find(|(_, start)| region.starts_with(start)).map_or("aws", |(name, _)| name)
}

/// `us-east-1`: two or more words of lower-case letters and digits, then a number.
fn is_region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let word =
        |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    words.len() >= 3
        && words.iter().all(word)
        && words.last().is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}

fn is_key_id(id: &str) -> bool {
    if let Some(digits) = id.strip_prefix("mrk-") {
        return is_hex(digits, 32);
    }
    let groups: Vec<&str> = id.split('-').collect();
    groups.len() == 5 && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, len)| is_hex(group, len))
}

/// Whether the text resembles an AWS key, alias or ARN, well formed or not.
pub(super) fn looks_like(text: &str) -> bool {
    text.starts_with("arn:") || text.starts_with("alias/") || is_key_id(text)
}

/// AWS' spelling (`us-gov-west-1`) of a region in Atlas' spelling (`US_GOV_WEST_1`); `None` for a
/// value that is no region, such as Atlas' `GLOBAL`.
#[must_use]
pub fn aws_region(atlas: &str) -> Option<String> {
    let region = atlas.trim().to_ascii_lowercase().replace('_', "-");
    is_region(&region).then_some(region)
}
