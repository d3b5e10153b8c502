//! Reads the CBOR that authenticators write (RFC 8949, in the canonical form of CTAP2), and nothing more.
//!
//! Strict: definite lengths, shortest numbers, no tags, no floats, no repeated names, and nothing behind the end.

/// How deep values may lie in each other.
const DEPTH: u32 = 4;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
    /// `false`, `true` or `null`.
    Simple,
}

impl<'a> Value<'a> {
    /// The value under `name` of a map.
    pub(super) fn get(&self, name: &Self) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: i64) -> Option<i64> {
        match self.get(&Self::Number(name)) {
            Some(Self::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn bytes(&self, name: i64) -> Option<&'a [u8]> {
        match self.get(&Self::Number(name)) {
            Some(Self::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

/// The value that `bytes` begin with, and what is behind it; `None` for what is not read here.
pub(super) fn first(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    value(bytes, DEPTH)
}

/// The one value that `bytes` are.
pub(super) fn whole(bytes: &[u8]) -> Option<Value<'_>> {
    first(bytes).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

fn value(bytes: &[u8], depth: u32) -> Option<(Value<'_>, &[u8])> {
    let (kind, number, rest) = head(bytes)?;
    let signed = i64::try_from(number).ok();
    let length = usize::try_from(number).ok().filter(|it| *it <= rest.len());
    Some(match kind {
        0 => (Value::Number(signed?), rest),
        1 => (Value::Number(-1 - signed?), rest),
        2 => rest.split_at_checked(length?).map(|(it, rest)| (Value::Bytes(it), rest))?,
        3 => {
            let (text, rest) = rest.split_at_checked(length?)?;
            (Value::Text(std::str::from_utf8(text).ok()?), rest)
        }
        4 => {
            let (mut rest, mut list) = (rest, Vec::new());
            for _ in 0..length? {
                let (item, behind) = value(rest, depth.checked_sub(1)?)?;
                list.push(item);
                rest = behind;
            }
            (Value::List(list), rest)
        }
        5 => {
            let (mut rest, mut entries) = (rest, Vec::new());
            for _ in 0..length? {
                let (name, behind) = value(rest, depth.checked_sub(1)?)?;
                let (item, behind) = value(behind, depth.checked_sub(1)?)?;
                if entries.iter().any(|(other, _)| *other == name) {
                    return None;
                }
                entries.push((name, item));
                rest = behind;
            }
            (Value::Map(entries), rest)
        }
        7 if (20..=22).contains(&number) => (Value::Simple, rest),
        _ => return None,
    })
}

/// The kind of a value and its number: the value itself, or a length.
fn head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (kind, short) = (first >> 5, first & 0x1f);
    let more = match short {
        0..24 => return Some((kind, u64::from(short), rest)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(more)?;
    let number = digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit));
    let least = [24, 1 << 8, 1 << 16, 1 << 32][usize::from(short) - 24];
    // A longer form than needed says the same in another way.
    (number >= least).then_some((kind, number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_another_reader_reads() {
        let cases = [
            "00",
            "17",
            "1818",
            "190100",
            "1a00010000",
            "20",
            "3863",
            "4401020304",
            "6449455446",
            "80",
            "83010203",
            "a0",
            "a201020304",
            "a26161016162820203",
            "f4",
            "f5",
            "f6",
        ];
        for case in cases {
            let bytes = hex::decode(case).unwrap();
            let other: ciborium::Value = ciborium::from_reader(bytes.as_slice()).unwrap();
            assert_eq!(like(&whole(&bytes).unwrap()), like_theirs(&other), "{case}");
        }
    }

    fn like(value: &Value) -> String {
        match value {
            Value::Number(it) => it.to_string(),
            Value::Bytes(it) => hex::encode(it),
            Value::Text(it) => format!("{it:?}"),
            Value::List(it) => format!("[{}]", it.iter().map(like).collect::<Vec<_>>().join(",")),
            Value::Map(it) => {
                let entry = |(name, item): &(Value, Value)| format!("{}:{}", like(name), like(item));
                format!("{{{}}}", it.iter().map(entry).collect::<Vec<_>>().join(","))
            }
            Value::Simple => "simple".to_owned(),
        }
    }

    fn like_theirs(value: &ciborium::Value) -> String {
        match value {
            ciborium::Value::Integer(it) => i128::from(*it).to_string(),
            ciborium::Value::Bytes(it) => hex::encode(it),
            ciborium::Value::Text(it) => format!("{it:?}"),
            ciborium::Value::Array(it) => {
                format!("[{}]", it.iter().map(like_theirs).collect::<Vec<_>>().join(","))
            }
            ciborium::Value::Map(it) => {
                let entry = |(name, item): &(ciborium::Value, ciborium::Value)| {
                    format!("{}:{}", like_theirs(name), like_theirs(item))
                };
                format!("{{{}}}", it.iter().map(entry).collect::<Vec<_>>().join(","))
            }
            ciborium::Value::Bool(_) | ciborium::Value::Null => "simple".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_reads_nothing_else() {
        let cases = [
            ("", "nothing"),
            ("0000", "something behind the end"),
            ("1817", "23 in two bytes"),
            ("190018", "24 in three"),
            ("1b0000000000000001", "1 in nine"),
            ("1bffffffffffffffff", "a number over 63 bits"),
            ("5f4101ff", "a text of pieces"),
            ("44010203", "a text that ends early"),
            ("62c328", "a text that is no UTF-8"),
            ("9fff", "a list without a length"),
            ("8401", "a list that ends early"),
            ("9b7fffffffffffffff", "a list of more than there is"),
            ("a2616101616102", "a name twice"),
            ("bf616101ff", "a map without a length"),
            ("c001", "a tag"),
            ("f90000", "a float"),
            ("f7", "undefined"),
            ("f818", "a simple value"),
            ("818181818181", "a list in a list in a list"),
        ];
        for (case, what) in cases {
            assert_eq!(whole(&hex::decode(case).unwrap()), None, "{what}");
        }
    }
}
