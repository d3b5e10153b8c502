//! RSA signatures with SHA-1, which the notification service's first signature version still needs
//! and the crypto library only verifies: PKCS#1 v1.5 padding and one exponentiation.
//!
//! For the simulator's throw-away keys alone. It takes as long as the key's bits tell it to, so it
//! would give a real key away.

use aws_lc_rs::digest;

/// What stands before a SHA-1 digest in PKCS#1 v1.5.
const SHA1_INFO: [u8; 15] =
    [0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14];

/// The signature of `text` by a private key in PKCS#8; `None` when the key cannot be read.
pub(super) fn sign(pkcs8: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let (_, outer, _) = element(pkcs8)?;
    let (_, _, rest) = element(outer)?;
    let (_, _, rest) = element(rest)?;
    let (_, key, _) = element(rest)?;
    let (_, key, _) = element(key)?;
    let (_, _, rest) = element(key)?;
    let (_, modulus, rest) = element(rest)?;
    let (_, _, rest) = element(rest)?;
    let (_, exponent, _) = element(rest)?;
    let modulus = bare(modulus);
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text);
    let filling = modulus.len().checked_sub(3 + SHA1_INFO.len() + digest.as_ref().len())?;
    let mut padded = vec![0, 1];
    padded.extend(std::iter::repeat_n(0xff, filling));
    padded.push(0);
    padded.extend(SHA1_INFO);
    padded.extend(digest.as_ref());
    Some(power(&padded, bare(exponent), modulus))
}

/// Modulus and exponent of a public key in PKCS#1, without leading zeros.
pub(super) fn public_parts(pkcs1: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, key, _) = element(pkcs1)?;
    let (_, modulus, rest) = element(key)?;
    let (_, exponent, _) = element(rest)?;
    Some((bare(modulus).to_vec(), bare(exponent).to_vec()))
}

/// The first element of DER bytes: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// `base` to the power of `exponent`, modulo the odd `modulus`; all big-endian.
fn power(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let n = limbs(modulus, modulus.len().div_ceil(8));
    let field = Montgomery::new(n);
    let base = field.times(&limbs(base, field.n.len()), &field.square);
    let mut one = vec![0; field.n.len()];
    one[0] = 1;
    let mut result = field.times(&one, &field.square);
    for bit in exponent.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        result = field.times(&result, &result);
        if bit == 1 {
            result = field.times(&result, &base);
        }
    }
    let bytes: Vec<u8> =
        field.times(&result, &one).iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
    bytes[bytes.len() - modulus.len()..].to_vec()
}

fn limbs(bytes: &[u8], count: usize) -> Vec<u64> {
    let mut limbs: Vec<u64> =
        bytes.rchunks(8).map(|chunk| chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).collect();
    limbs.resize(count, 0);
    limbs
}

/// Multiplication modulo an odd number of 64-bit limbs, least first, in Montgomery's form.
struct Montgomery {
    n: Vec<u64>,
    /// Minus one over `n`, modulo 2^64.
    inverse: u64,
    /// The square of the form's radix, modulo `n`.
    square: Vec<u64>,
}

impl Montgomery {
    fn new(n: Vec<u64>) -> Self {
        let mut inverse = 1u64;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(inverse)));
        }
        let mut square = vec![0; n.len()];
        square[0] = 1;
        for _ in 0..2 * 64 * n.len() {
            let carry = double(&mut square);
            if carry || !less(&square, &n) {
                subtract(&mut square, &n);
            }
        }
        Self { inverse: inverse.wrapping_neg(), square, n }
    }

    fn times(&self, a: &[u64], b: &[u64]) -> Vec<u64> {
        let size = self.n.len();
        let mut sum = vec![0u64; size + 2];
        for &digit in a {
            let carry = add_product(&mut sum[..size], b, digit);
            push(&mut sum[size..], carry);
            let factor = sum[0].wrapping_mul(self.inverse);
            let carry = add_product(&mut sum[..size], &self.n, factor);
            push(&mut sum[size..], carry);
            sum.rotate_left(1);
            sum[size + 1] = 0;
        }
        if sum[size] != 0 || !less(&sum[..size], &self.n) {
            subtract(&mut sum[..size], &self.n);
        }
        sum.truncate(size);
        sum
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
fn add_product(sum: &mut [u64], number: &[u64], digit: u64) -> u64 {
    let mut carry = 0u128;
    for (place, limb) in sum.iter_mut().zip(number) {
        let wide = u128::from(*limb) * u128::from(digit) + u128::from(*place) + carry;
        *place = wide as u64;
        carry = wide >> 64;
    }
    carry as u64
}

fn push(top: &mut [u64], carry: u64) {
    let (low, over) = top[0].overflowing_add(carry);
    top[0] = low;
    top[1] += u64::from(over);
}

fn double(number: &mut [u64]) -> bool {
    let mut carry = 0;
    for limb in number {
        (*limb, carry) = (*limb << 1 | carry, *limb >> 63);
    }
    carry == 1
}

fn less(a: &[u64], b: &[u64]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

fn subtract(a: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (limb, other) in a.iter_mut().zip(b) {
        let (low, first) = limb.overflowing_sub(*other);
        let (low, second) = low.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (low, first || second);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
    };

    use super::*;

    #[test]
    fn powers_are_those_of_school() {
        let modulus = 1_000_003u32.to_be_bytes();
        assert_eq!(power(&[7], &[20], &modulus[1..]), &(7u64.pow(20) % 1_000_003).to_be_bytes()[5..]);
        assert_eq!(power(&[2], &[0], &modulus[1..]), [0, 0, 1]);
    }

    #[test]
    fn the_crypto_library_accepts_the_signature() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let signature = sign(pair.as_der().unwrap().as_ref(), b"hello").unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, pair.public_key());
        key.verify(b"hello", &signature).unwrap();
        assert!(key.verify(b"hallo", &signature).is_err());
        assert_eq!(sign(b"no key", b"hello"), None);
    }
}
