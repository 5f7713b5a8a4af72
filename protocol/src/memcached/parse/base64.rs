//! Base64 keys (the meta `b` flag): the standard alphabet with padding, nothing else between.

const INVALID: u8 = 0xFF;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const SEXTETS: [u8; 256] = {
    let mut sextets = [INVALID; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        sextets[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    sextets
};

fn without_padding(encoded: &[u8]) -> &[u8] {
    let once = encoded.strip_suffix(b"=").unwrap_or(encoded);
    once.strip_suffix(b"=").unwrap_or(once)
}

/// How many bytes `encoded` decodes to; `None` if it is empty or not base64.
pub(super) fn decoded_bytes(encoded: &[u8]) -> Option<usize> {
    if encoded.is_empty() || !encoded.len().is_multiple_of(4) {
        return None;
    }
    let digits = without_padding(encoded);
    let valid = digits.iter().all(|&digit| SEXTETS[digit as usize] != INVALID);
    valid.then_some(encoded.len() / 4 * 3 - (encoded.len() - digits.len()))
}

/// Decodes `encoded`, for which [`decoded_bytes`] gave at most `room.len()`, into `room`.
pub(in crate::memcached) fn decode<'r>(encoded: &[u8], room: &'r mut [u8]) -> &'r [u8] {
    let bytes = decoded_bytes(encoded).expect("a key is checked before it is decoded");
    let decoded = &mut room[..bytes];
    let groups = without_padding(encoded).chunks(4);
    for (digits, place) in groups.zip(decoded.chunks_mut(3)) {
        let mut bits = 0u32;
        for (index, &digit) in digits.iter().enumerate() {
            bits |= u32::from(SEXTETS[digit as usize]) << (26 - 6 * index);
        }
        place.copy_from_slice(&bits.to_be_bytes()[..place.len()]);
    }
    decoded
}

/// Appends `bytes` in base64.
pub(in crate::memcached) fn encode_into(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        let mut digits = [b'='; 4];
        for (index, digit) in digits.iter_mut().take(group.len() + 1).enumerate() {
            *digit = ALPHABET[(bits >> (26 - 6 * index)) as usize & 63];
        }
        out.extend_from_slice(&digits);
    }
}

#[cfg(test)]
pub(in crate::memcached) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_into(bytes, &mut encoded);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_padded_base64_decodes() {
        for (encoded, decoded) in [
            (&b"Zg=="[..], &b"f"[..]),
            (b"Zm8=", b"fo"),
            (b"Zm9v", b"foo"),
            (b"+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode(encoded, &mut [0; 8]), decoded);
        }
        for encoded in [
            &b""[..],
            b"Z",
            b"Zg",
            b"Zg=",
            b"Z===",
            b"====",
            b"Z=g=",
            b"Zm9!",
            b"Zg==Zg==",
            b"Zm9v=",
        ] {
            assert_eq!(decoded_bytes(encoded), None, "{}", encoded.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn encoded_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 1..251)) {
            let encoded = encode(&bytes);
            prop_assert_eq!(decoded_bytes(&encoded), Some(bytes.len()));
            let mut room = [0; 250];
            prop_assert_eq!(decode(&encoded, &mut room), &bytes[..]);
        }

        #[test]
        fn any_bytes_decode_or_not_but_never_panic(
            encoded in proptest::collection::vec(
                prop_oneof![Just(b'='), Just(b'A'), any::<u8>()], 0..24),
        ) {
            if decoded_bytes(&encoded).is_some() {
                prop_assert!(decode(&encoded, &mut [0; 24]).len() <= 18);
            }
        }
    }
}
