//! Decimal numbers. A token is a number only as a whole, and only if it fits.

use crate::memcached::VALUE_BYTES_MAX;

/// An unsigned number: digits alone.
pub(super) fn unsigned(token: &[u8]) -> Option<u64> {
    if token.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in token {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// An unsigned number of 32 bits.
pub(super) fn unsigned_32(token: &[u8]) -> Option<u32> {
    u32::try_from(unsigned(token)?).ok()
}

/// A signed number of 32 bits: digits, with a `-` before them or not.
pub(super) fn signed_32(token: &[u8]) -> Option<i32> {
    match token {
        [b'-', digits @ ..] => i32::try_from(0i64.checked_sub_unsigned(unsigned(digits)?)?).ok(),
        digits => i32::try_from(unsigned(digits)?).ok(),
    }
}

/// The length of a data block in bytes, at most [`VALUE_BYTES_MAX`].
pub(super) fn value_bytes(token: &[u8]) -> Option<usize> {
    let bytes = usize::try_from(unsigned_32(token)?).ok()?;
    (bytes <= VALUE_BYTES_MAX).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_tokens_in_range() {
        assert_eq!(unsigned(b"0"), Some(0));
        assert_eq!(unsigned(b"00012"), Some(12));
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        for token in [&b""[..], b"18446744073709551616", b"-1", b"+1", b"1x", b" 1", b"1.0"] {
            assert_eq!(unsigned(token), None, "{}", token.escape_ascii());
        }
        assert_eq!(unsigned_32(b"4294967295"), Some(u32::MAX));
        assert_eq!(unsigned_32(b"4294967296"), None);
        assert_eq!(signed_32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(signed_32(b"2147483647"), Some(i32::MAX));
        for token in [
            &b"-"[..],
            b"",
            b"--1",
            b"-2147483649",
            b"2147483648",
            b"-18446744073709551615",
            b"18446744073709551615",
        ] {
            assert_eq!(signed_32(token), None, "{}", token.escape_ascii());
        }
        assert_eq!(value_bytes(b"2147483645"), Some(2_147_483_645));
        for token in [&b"2147483646"[..], b"-1", b"4294967296", b"3x"] {
            assert_eq!(value_bytes(token), None, "{}", token.escape_ascii());
        }
    }
}
